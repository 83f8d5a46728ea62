"""Subresource Integrity: what `<script integrity>` says of a file.

A value is a list of digests. Of several algorithms the strongest that is known counts, and of its
digests any (https://www.w3.org/TR/sri-2/#does-response-match-metadatalist).
"""

from __future__ import annotations

import base64
import hashlib
import re
from io import BufferedReader, BytesIO
from typing import Final

#: The strongest last.
_ALGORITHMS: Final = ("sha256", "sha384", "sha512")
_DIGEST: Final = re.compile(rf"({'|'.join(_ALGORITHMS)})-([A-Za-z0-9+/_-]+={{0,2}})(?:\?\S*)?\Z")


def of(content: bytes) -> str:
    """The value for a content, by SHA-384."""
    return f"sha384-{base64.b64encode(hashlib.sha384(content).digest()).decode()}"


def is_known(value: str) -> bool:
    """Whether browsers look at it at all."""
    return bool(_digests(value))


def refuses(value: str, file: BufferedReader | BytesIO) -> bool:
    """Whether browsers refuse a file for this value."""
    known = _digests(value)
    if not known:
        return False
    strongest = max(rank for rank, _ in known)
    digest = hashlib.file_digest(file, _ALGORITHMS[strongest]).digest()
    return (strongest, digest) not in known


def _digests(value: str) -> list[tuple[int, bytes]]:
    """Each as the rank of its algorithm and its bytes."""
    found = filter(None, map(_DIGEST.match, value.split()))
    return [(_ALGORITHMS.index(one[1]), _bytes(one[2])) for one in found]


def _bytes(text: str) -> bytes:
    """Base64 in both its alphabets, as browsers take it; nothing for what is none."""
    plain = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4))
    except ValueError:
        return b""
