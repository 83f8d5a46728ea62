"""What Signature V4 signs, in the one form that both sides compute: paths, queries, headers.

Rules: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html. Names and
values of a query are encoded and then sorted; names of headers are in lower case and sorted,
and runs of spaces in their values are one. Whatever could make two sides differ is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from outgrow.header_fields import NAME, VALUE

#: A parameter of a query, encoded.
Pair = tuple[str, str]

#: What signatures themselves put into a query, a request or a form; in lower case.
_OURS: Final = frozenset(
    {
        "x-amz-algorithm",
        "x-amz-credential",
        "x-amz-date",
        "x-amz-expires",
        "x-amz-security-token",
        "x-amz-signature",
        "x-amz-signedheaders",
    }
)
_RESERVED: Final[Mapping[str, frozenset[str]]] = {
    "parameter": _OURS,
    "header": _OURS | {"authorization", "host", "x-amz-content-sha256"},
    "field": _OURS | {"bucket", "file", "policy"},
}

_PORTS: Final = {"http": ":80", "https": ":443"}

#: Parameters by the names of boto3's arguments, which users of django-storages write.
_OF_BOTO3: Final = {
    "ResponseCacheControl": "response-cache-control",
    "ResponseContentDisposition": "response-content-disposition",
    "ResponseContentEncoding": "response-content-encoding",
    "ResponseContentLanguage": "response-content-language",
    "ResponseContentType": "response-content-type",
    "ResponseExpires": "response-expires",
    "VersionId": "versionId",
}


@dataclass(frozen=True, slots=True)
class Place:
    """A URL, taken apart: "https://HOST", what clients send as Host, and an encoded path."""

    origin: str
    host: str
    path: str


def place(url: str, *, may_be_path: bool = False) -> Place:
    """Take a URL apart. Raises ValueError where it has no host, and must have one."""
    parts = urlsplit(url)
    # Browsers encode what a user has not, and would ask for another path than was signed.
    path = quote(unquote(parts.path), safe="/~") or "/"
    if may_be_path and not parts.scheme and not parts.netloc:
        return Place("", "", path)
    if parts.scheme not in _PORTS or not parts.hostname or not parts.netloc.isascii():
        hint = "Write 'https://HOST/PATH/'; a path alone needs to know what the store sees."
        raise ValueError(f"URLs below {url!r} can't be signed: it names no host. {hint}")
    # RFC 9110 §7.2: clients leave out the port that the scheme has anyway.
    host = parts.netloc.removesuffix(_PORTS[parts.scheme]).lower()
    return Place(f"{parts.scheme}://{parts.netloc}", host, path)


def parameters(given: Mapping[str, str]) -> list[Pair]:
    """Encoded parameters, by their names in a URL.

    Raises ValueError for a signature's own, and for one that is given by both of its names.
    """
    refuse("parameter", given)
    found = {_OF_BOTO3.get(name, name): text for name, text in given.items()}
    if len(found) < len(given):
        raise ValueError(f"A parameter is given by both of its names: {', '.join(given)}.")
    return encoded(found)


def encoded(items: Mapping[str, str]) -> list[Pair]:
    """Encoded parameters: all but letters, digits and ``-._~``."""
    return [(quote(name, safe="~"), quote(text, safe="~")) for name, text in items.items()]


def query(pairs: Iterable[Pair]) -> str:
    """A whole query. Sorted by name and then by value, as no sorting of "name=value" would be."""
    return "&".join([f"{name}={text}" for name, text in sorted(pairs)])


def headers(given: Mapping[str, str]) -> tuple[str, str]:
    """The names and the lines of signed headers. Raises ValueError for what can't be sent."""
    found: dict[str, str] = {}
    for name, text in given.items():
        if not NAME.match(name) or not VALUE.match(text):
            raise ValueError(f"The header {name!r} has a name or a value that can't be sent.")
        if name.lower() in found:
            raise ValueError(f"The header {name!r} is given twice.")
        found[name.lower()] = " ".join(text.split())
    names = sorted(found)
    return ";".join(names), "".join([f"{name}:{found[name]}\n" for name in names])


def refuse(what: str, names: Iterable[str]) -> None:
    """Raise ValueError if one of these is the signature's own. `what` they are: a "header"."""
    for name in names:
        if name.lower() in _RESERVED[what]:
            raise ValueError(f"The {what} {name!r} is a part of the signature; leave it out.")
