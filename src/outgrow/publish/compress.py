"""Bytes -> fewer bytes, in all cores, and never twice.

gzip by libdeflate; brotli at its highest quality is smallest (docs/performance.md). What comes
out depends on what goes in, and on the version of the library: no time and no name stands in
it. All of them let other threads run.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from outgrow.errors import MissingExtra
from outgrow.publish.cache import Cache
from outgrow.publish.encodings import Encoding

#: The highest levels: a release is compressed once, and sent for years.
_GZIP_LEVEL: Final = 12
_BROTLI_QUALITY: Final = 11
_ZSTD_LEVEL: Final = 19


@dataclass(frozen=True, slots=True)
class _Compressor:
    """One library: the package that is imported, its name for pip, and how it is called."""

    module: str
    package: str
    call: Callable[[Any, bytes], Any]
    settings: str


_COMPRESSORS: Final = {
    Encoding.GZIP: _Compressor(
        "deflate",
        "deflate",
        lambda module, content: module.gzip_compress(content, _GZIP_LEVEL),
        f"level {_GZIP_LEVEL}",
    ),
    Encoding.BROTLI: _Compressor(
        "brotli",
        "brotli",
        lambda module, content: module.compress(content, quality=_BROTLI_QUALITY),
        f"quality {_BROTLI_QUALITY}",
    ),
    Encoding.ZSTD: _Compressor(
        "zstandard",
        "zstandard",
        # With a checksum (RFC 8878, 3.1.1): four bytes, and a browser notices what is damaged.
        lambda module, content: module.ZstdCompressor(
            level=_ZSTD_LEVEL, write_checksum=True
        ).compress(content),
        f"level {_ZSTD_LEVEL}, checksum",
    ),
}


def compress(content: bytes, encoding: Encoding) -> bytes:
    """The content in an encoding. Raises MissingExtra where its library is not installed."""
    if encoding is Encoding.IDENTITY:
        return content
    chosen = _COMPRESSORS[encoding]
    return bytes(chosen.call(_library(encoding), content))


def compressed(
    content: Callable[[], bytes], digest: str, encoding: Encoding, cache_: Cache
) -> bytes:
    """The same, from the cache where it is there; else `content` is called.

    `digest` is the SHA-256 of the content.
    """
    if encoding is Encoding.IDENTITY:
        return content()
    key = hashlib.sha256(f"{digest} {encoding} {_version(encoding)}".encode()).hexdigest()
    found = cache_.get(key)
    if found is None:
        found = compress(content(), encoding)
        cache_.put(key, found)
    return found


def decompressor(encoding: Encoding) -> Callable[[bytes], bytes]:
    """What makes pieces of a content of its compressed pieces, called with each in turn.

    For brotli and zstd. Raises MissingExtra where the library is not installed.
    """
    module = _library(encoding)
    if encoding is Encoding.BROTLI:
        process: Callable[[bytes], bytes] = module.Decompressor().process
        return process
    decompress: Callable[[bytes], bytes] = module.ZstdDecompressor().decompressobj().decompress
    return decompress


@cache
def _library(encoding: Encoding) -> Any:
    chosen = _COMPRESSORS[encoding]
    try:
        return importlib.import_module(chosen.module)
    except ModuleNotFoundError as error:
        if error.name != chosen.module:
            raise
        feature = f"Compressing files with {encoding.value}"
        raise MissingExtra(feature, chosen.package, "publish") from error


@cache
def _version(encoding: Encoding) -> str:
    """What the result depends on, besides the content."""
    from importlib.metadata import version

    _library(encoding)  # so that a missing one is told as such
    chosen = _COMPRESSORS[encoding]
    return f"{chosen.package} {version(chosen.package)} {chosen.settings}"
