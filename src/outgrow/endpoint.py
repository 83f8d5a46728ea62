"""Where a server is: its URL, checked once, and the request targets below it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, unquote, urlsplit

_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]*))?\Z")
#: RFC 1035 §2.3.4: a label has 1 to 63 octets, a name at most 253 as text.
_HOST = re.compile(r"(?=.{1,253}\Z)(?:[^.]{1,63}\.)*[^.]{1,63}\.?\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server is: scheme, host, port, and the path below which its files lie.

    `path` begins and ends with a slash. `netloc` is what the Host header says.
    """

    scheme: str
    host: str
    port: int
    path: str
    netloc: str

    def target(self, name: str) -> str:
        """The request target of the file `name`: the path and the quoted name."""
        # RFC 3986: only unreserved characters stay as they are. "/" separates.
        return self.path + quote(name, safe="/~")


@lru_cache(maxsize=256)
def endpoint(url: str) -> Endpoint:
    """Parse a server's URL.

    Raises `ValueError` with a phrase that can be shown after the URL.
    """
    # urlsplit drops line breaks and tabs without a word.
    if _CONTROL.search(url) or url != url.strip():
        raise ValueError("has a control character in it, or a space around it")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("has no valid host name") from None
    if parts.scheme not in {"http", "https"}:
        raise ValueError("is not an http:// or https:// URL")
    if "@" in parts.netloc:
        raise ValueError("holds a user or a password; use the option 'credentials'")
    if "?" in url or "#" in url:
        raise ValueError("has a query or a fragment; give the address and the path only")
    host, port = _authority(parts.netloc, parts.scheme)
    default = 443 if parts.scheme == "https" else 80
    netloc = f"[{host}]" if ":" in host else host
    return Endpoint(
        parts.scheme,
        host,
        port,
        _path(parts.path),
        netloc if port == default else f"{netloc}:{port}",
    )


def _authority(text: str, scheme: str) -> tuple[str, int]:
    """The host and the port of ``host:port`` or ``[address]:port``."""
    if not text.isascii():
        raise ValueError("has a host name that is not ASCII; write it in its xn-- form")
    found = _AUTHORITY.match(text)
    if found is None:
        host, _, rest = text.rpartition(":")
        if _AUTHORITY.match(host) and not rest.isdigit():
            raise ValueError("has no valid port")
        raise ValueError("has no valid host name")
    address, name, number = found.groups()
    port = 443 if scheme == "https" else 80
    if number is not None:
        port = int(number) if 0 < len(number) < 6 else 0
        if not 0 < port < 65536:
            raise ValueError("has no valid port")
    return _address(address) if address else _host(name), port


def _address(text: str) -> str:
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:  # pragma: no cover - urlsplit sees it first, since Python 3.11.4
        raise ValueError("has no valid IPv6 address") from None


def _host(name: str) -> str:
    if not _HOST.match(name):
        raise ValueError("has no valid host name")
    return name.lower()


def _path(text: str) -> str:
    """The path, quoted as `Endpoint.target` quotes names; ends with a slash."""
    try:
        path = unquote(text, errors="strict") or "/"
        quoted = quote(path if path.endswith("/") else path + "/", safe="/~")
    except UnicodeError:
        raise ValueError("has a path that is not UTF-8") from None
    if _CONTROL.search(path):
        raise ValueError("has a control character in its path")
    if any(part in {".", ".."} for part in path.split("/")):
        raise ValueError("has '.' or '..' in its path")
    return quoted
