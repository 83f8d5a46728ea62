"""Which files are worth compressing: a decision by type and size alone.

Not by the result: a compressor's next version may save a byte more or less, and then the same
input would give other names on another machine.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Encoding(StrEnum):
    """A content coding, as RFC 9110, 7932 and 8878 call it."""

    IDENTITY = "identity"
    GZIP = "gzip"
    BROTLI = "br"
    ZSTD = "zstd"


#: What follows the name of a compressed file beside the plain one.
SUFFIXES: Final = {Encoding.GZIP: ".gz", Encoding.BROTLI: ".br", Encoding.ZSTD: ".zst"}

#: Bytes below which nothing is compressed. Of Django's admin, 256 to 512 bytes of CSS,
#: JavaScript and SVG become a third smaller, with a header more to send; below that a few bytes
#: are saved, of a packet that is sent anyway.
LEAST: Final = 256

#: Bytes above which nothing is compressed: all of a file is in memory while it is.
MOST: Final = 64 << 20

_TYPES: Final = frozenset(
    {
        "application/javascript",
        "application/json",
        "application/manifest+json",
        "application/rtf",
        "application/vnd.ms-fontobject",
        "application/wasm",
        "application/xhtml+xml",
        "application/xml",
        # Uncompressed fonts; woff and woff2 are compressed already.
        "font/otf",
        "font/ttf",
        "image/bmp",
        "image/svg+xml",
        "image/vnd.microsoft.icon",
        "model/gltf+json",
    }
)
_SUFFIXED: Final = ("+json", "+xml", "+text")


def worth(media_type: str, size: int) -> bool:
    """Whether a file of this type and so many bytes is compressed at all."""
    if not LEAST <= size <= MOST:
        return False
    kind = media_type.partition(";")[0].strip().lower()
    return kind.startswith("text/") or kind in _TYPES or kind.endswith(_SUFFIXED)
