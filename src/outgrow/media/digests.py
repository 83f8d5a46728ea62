"""What a client promises of a body's bytes: Content-MD5 and Repr-Digest."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

# RFC 9530 §2 and RFC 8941 §3.2, §3.3.5: name=:base64:, perhaps with parameters,
# of which none is defined.
_MEMBER = re.compile(r"[^=]+=:([A-Za-z0-9+/=]*):(?:;.*)?")

#: Our names of the algorithms that are not broken (RFC 9530 §7.2), with their bytes.
_ALGORITHMS = {"sha-256": ("sha256", 32), "sha-512": ("sha512", 64)}


@dataclass(frozen=True, slots=True)
class Digest:
    """A promised checksum. `algorithm` is as hashlib names it; `header` says where it stood."""

    header: str
    algorithm: str
    value: bytes


def promised(headers: Mapping[str, str]) -> tuple[Digest, ...]:
    """The checksums to verify. Raises ValueError, with the header's name, for one unreadable.

    Algorithms that we don't know are ignored, as RFC 9530 §2 wants it.
    """
    return (*_content_md5(headers), *_repr_digest(headers))


def _content_md5(headers: Mapping[str, str]) -> Iterator[Digest]:
    # RFC 1864; gone from HTTP since RFC 7231, but S3 and its clients use it.
    if "content-md5" in headers:
        value = _decode("Content-MD5", headers["content-md5"].strip(), 16)
        yield Digest("Content-MD5", "md5", value)


def _repr_digest(headers: Mapping[str, str]) -> Iterator[Digest]:
    for member in headers.get("repr-digest", "").split(","):
        known = _ALGORITHMS.get(member.partition("=")[0].strip())
        if known is None:
            continue
        found = _MEMBER.fullmatch(member.strip())
        text = found[1] if found else ""
        yield Digest("Repr-Digest", known[0], _decode("Repr-Digest", text, known[1]))


def _decode(header: str, text: str, size: int) -> bytes:
    """`size` bytes from base64."""
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        value = b""
    if len(value) != size:
        raise ValueError(header)
    return value
