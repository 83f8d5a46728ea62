"""Looks at what is served: at the origin by its ledger, and as visitors see it."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from urllib.parse import quote

from outgrow.errors import PublishError
from outgrow.publish import survey
from outgrow.publish.compress import decompressor
from outgrow.publish.encodings import Encoding
from outgrow.publish.release import Entry, Release
from outgrow.publish.targets import Target

#: What a browser of today takes.
_ACCEPTED: Final = "gzip, br, zstd"

#: Any other origin than the files': what CORS is for.
_ORIGIN: Final = "https://outgrow.invalid"

#: Seconds without progress.
_TIMEOUT: Final = 20.0

_WORKERS: Final = 16

#: Older names of a media type, which web servers send and browsers take for the same:
#: https://mimesniff.spec.whatwg.org/#javascript-mime-type, and what nginx calls the others.
_ALIASES: Final = {
    "application/javascript": "text/javascript",
    "application/x-javascript": "text/javascript",
    "audio/x-m4a": "audio/mp4",
    "image/x-icon": "image/vnd.microsoft.icon",
    "image/x-ms-bmp": "image/bmp",
    "video/x-m4v": "video/mp4",
}


def resolved(target: Target, beginning: str) -> str:
    """The whole id of a release from its first digits. Raises PublishError."""
    found = sorted(one for one in survey.releases(target) if one.startswith(beginning))
    if len(found) != 1:
        several = f"has {len(found)} releases that begin so" if found else "has no such release"
        raise PublishError(f"{target.name} {several}: {beginning}.")
    return found[0]


def missing(target: Target, identifier: str) -> list[str]:
    """The keys of a release that are not at a target, or are not as large as they were.

    An empty list is what to wait for before an application that refers to it is started.
    Raises PublishError where the target has no record of it.
    """
    record = survey.record(target, identifier)
    files = survey.look(target).files
    found = []
    for key, form in record.shape.assets(record.release).items():
        size = files.get(key)
        is_cut = form.encoding is Encoding.IDENTITY and size != form.entry.size
        if size is None or is_cut:
            found.append(key)
    return sorted(found)


def verify(
    release: Release, url: str, told: Callable[[str], None] = lambda _key: None
) -> list[str]:
    """What is wrong with the files of a release as visitors get them, a line for each.

    Each file is fetched below `url`, as a browser would, and its content, encoding, type, cache
    and CORS headers are looked at.
    """
    found = []
    base = url if url.endswith("/") else f"{url}/"
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="outgrow-verify") as pool:
        for entry, problems in zip(
            release, pool.map(lambda one: list(_problems(one, base)), release), strict=True
        ):
            told(entry.key)
            found += [f"{base}{quote(entry.key)}: {problem}" for problem in problems]
    return found


def _problems(entry: Entry, base: str) -> Iterator[str]:
    headers = {"Accept-Encoding": _ACCEPTED, "Origin": _ORIGIN, "User-Agent": "outgrow"}
    request = urllib.request.Request(f"{base}{quote(entry.key)}", headers=headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310
            yield from _of_headers(entry, answer.headers)
            encoding = answer.headers.get("Content-Encoding", "identity").lower()
            if _digest(answer, encoding) != entry.digest:
                yield f"has another content than what was published (encoding: {encoding})."
    except urllib.error.HTTPError as error:
        error.close()
        yield f"answers {error.code}."
        # A cache that keeps this would hide the file from visitors when it is there.
        if error.code == 404 and "no-store" not in error.headers.get("Cache-Control", ""):
            yield "its 404 may be kept by caches: let the origin add 'Cache-Control: no-store'."
    except (OSError, ValueError, zlib.error) as error:
        yield f"can't be fetched: {error}."


def _of_headers(entry: Entry, headers: Any) -> Iterator[str]:
    """Which headers do not arrive. What a CDN adds is its own matter."""
    for name, wanted in entry.headers:
        found, lower = headers.get(name), name.lower()
        is_shared = lower == "access-control-allow-origin" and wanted == "*"
        if is_shared and found not in {"*", _ORIGIN}:
            yield f"{name} is {found!r}: browsers will refuse it to other origins."
        if lower in {"content-type", "cache-control"} and _plain(found) != _plain(wanted):
            yield f"{name} is {found!r}, and {wanted!r} was published."
    if entry.encoding != Encoding.IDENTITY and not headers.get("Content-Encoding"):
        yield "arrives without compression."


def _plain(value: str | None) -> str:
    kind, semicolon, rest = (value or "").replace(" ", "").lower().partition(";")
    return f"{_ALIASES.get(kind, kind)}{semicolon}{rest}"


def _digest(answer: Any, encoding: str) -> str:
    digest = hashlib.sha256()
    decoder = _decoder(encoding)
    while piece := answer.read(1 << 16):
        digest.update(decoder(piece))
    return digest.hexdigest()


def _decoder(encoding: str) -> Callable[[bytes], bytes]:
    if encoding == "identity":
        return lambda piece: piece
    if encoding == "gzip":
        return zlib.decompressobj(31).decompress
    if encoding in {Encoding.BROTLI, Encoding.ZSTD}:
        return decompressor(Encoding(encoding))
    raise ValueError(f"its encoding {encoding!r} was not asked for")
