"""What a text in topology.toml must look like. Each rule returns what is wrong, or ""."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

#: What is wrong with a text, or "".
Rule = Callable[[str], str]

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]*\Z")
_LABEL: Final = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)\Z", re.IGNORECASE)
_MODULE: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*\Z")
# What neither SQL nor a shell has to be told how to quote.
_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,62}\Z")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z")
# Of RFC 3986's characters those that no configuration file and no shell takes for its own.
_URL_PATH: Final = re.compile(r"/(?!/)[A-Za-z0-9._~/-]*\Z")
# Of a mail address: what needs no quotes in a zone.
_CONTACT: Final = re.compile(r"[A-Za-z0-9_+-]{1,63}\Z")
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]")


def name(value: str) -> str:
    """A short name, which is also a folder's."""
    if _NAME.match(value) and len(value) <= 63:
        return ""
    return (
        f'"{value}" must be 1 to 63 small letters, digits, "-" and ".", and not begin with these.'
    )


def module(value: str) -> str:
    """A Python module."""
    if _MODULE.match(value):
        return ""
    return f'"{value}" is not the name of a Python module, as in "photos.settings".'


def wsgi(value: str) -> str:
    """A WSGI application in a Python module."""
    return _application(value, "wsgi")


def asgi(value: str) -> str:
    """An ASGI application in a Python module."""
    return _application(value, "asgi")


def _application(value: str, kind: str) -> str:
    found, colon, name = value.partition(":")
    if colon and _MODULE.match(found) and name.isidentifier():
        return ""
    return f'"{value}" must be module:name, as in "photos.{kind}:application".'


def domain(value: str) -> str:
    """What ALLOWED_HOSTS takes, but for "*"."""
    if value == "*":
        return '"*" would answer under any name; list the names of the site.'
    if is_address(value.strip("[]")) or _is_host_name(value.removeprefix(".")):
        return ""
    return f'"{value}" is not a domain; write it as "example.org" or ".example.org".'


def address(value: str) -> str:
    """An IP address or a host name under which the other servers reach this one."""
    if is_address(value):
        unspecified = ipaddress.ip_address(value).is_unspecified
        return f'"{value}" is no address that others could reach.' if unspecified else ""
    if _is_host_name(value) and not value.replace(".", "").isdigit():
        return ""
    port = "; a port goes into ports = { app = 8000 }" if ":" in value else ""
    return f'"{value}" is not an IP address or a host name{port}.'


def ip(value: str) -> str:
    """An IP address that others can reach."""
    return address(value) if is_address(value) else f'"{value}" is not an IP address.'


def host_name(value: str) -> str:
    """The name of a machine, in full."""
    if _is_host_name(value) and not is_address(value):
        return ""
    return f'"{value}" is not a host name, as in "ns.example.org".'


def label(value: str) -> str:
    """One part of a host name."""
    return "" if _LABEL.match(value) else f'"{value}" can be no part of a host name.'


def contact(value: str) -> str:
    """A mail address that a zone can name: its first dot stands for the @ (RFC 1035 §8)."""
    user, at, domain = value.partition("@")
    if at and _CONTACT.match(user) and _is_host_name(domain):
        return ""
    return (
        f'"{value}" is not a mail address without a dot before its "@", as in '
        '"hostmaster@example.org".'
    )


def identifier(value: str) -> str:
    """The name of a database or of a database's user."""
    if _IDENTIFIER.match(value):
        return ""
    return f'"{value}" must be 1 to 63 letters, digits, "_" and "-", and not begin with "-".'


def bucket(value: str) -> str:
    """The name of a bucket."""
    if _BUCKET.match(value):
        return ""
    return f'"{value}" must be 3 to 63 small letters, digits, "." and "-", these not at an end.'


def variable(value: str) -> str:
    """The name of an environment variable."""
    if _VARIABLE.match(value):
        return ""
    return f'"{value}" is not the name of an environment variable, as in "PHOTOS_PASSWORD".'


def path(value: str) -> str:
    """The path of a folder or a file."""
    if not value:
        return "must not be empty."
    return "must not contain control characters." if _CONTROLS.search(value) else ""


def url_path(value: str) -> str:
    """The path of a URL of this site."""
    if _URL_PATH.match(value):
        return ""
    return f'"{value}" must be a path of letters, digits, ".", "_", "~", "-" and "/", as in "/up/".'


def media_url(value: str) -> str:
    """What MEDIA_URL takes: a path or the URL of a folder."""
    is_path = value.startswith("/") and not value.startswith("//")
    is_url = value.startswith(("http://", "https://")) and _has_host(value)
    if not is_path and not is_url:
        return f'"{value}" must be a path, as in "/media/", or begin with https:// or http://.'
    return "" if value.endswith("/") else f'"{value}" must end with a slash.'


def is_address(value: str) -> bool:
    """Whether this is an IP address."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def same_address(value: str) -> str:
    """One spelling for all spellings of an address."""
    return ipaddress.ip_address(value).compressed if is_address(value) else value.lower()


def _has_host(url: str) -> bool:
    try:
        return bool(urlsplit(url).hostname)
    except ValueError:  # a bracket that is not closed
        return False


def _is_host_name(value: str) -> bool:
    # RFC 1123 §2.1: labels of letters, digits and inner hyphens.
    return len(value) <= 253 and all(_LABEL.match(label) for label in value.split("."))
