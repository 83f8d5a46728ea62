"""A file of Django's -> one request, or several parts.

What fits in one part is sent in one request, whole; what is larger in parts, of which a few
are under way at a time, so that memory does not depend on the file's size. Neither is
visible before all of it is there: the store puts the parts together when it has the last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Final

from django.core.files.base import File

from outgrow.objects import runtime

#: S3's limit on the parts of one upload
#: (https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html).
MOST_PARTS: Final = 10_000


class Unsettled(Exception):
    """The upload of several parts is gone: it was completed, or given up; `sent` bytes.

    A store that completes an upload forgets it. If its answer is lost, the next question finds
    nothing.
    """

    def __init__(self, sent: int) -> None:
        super().__init__(sent)
        self.sent = sent


def pieces(content: File[Any], size: int) -> Iterator[bytes]:
    """The file from its beginning on, in pieces of `size` bytes, the last may be smaller.

    Text is sent in UTF-8. The file stays open, wherever reading ended.
    """
    gathered = bytearray()
    for chunk in content.chunks(size):
        data = chunk.encode() if isinstance(chunk, str) else chunk
        if not gathered and len(data) == size:
            yield data  # as most files give them: nothing is copied
            continue
        gathered += data
        while len(gathered) >= size:
            yield bytes(memoryview(gathered)[:size])
            gathered = gathered[size:]
    if gathered:
        yield bytes(gathered)


def part_size(content: File[Any], least: int) -> int:
    """Bytes of a part, so that there are no more of them than a store takes."""
    try:
        size = content.size
    except (AttributeError, OSError):
        return least  # a stream of unknown length
    return max(least, -(-int(size) // MOST_PARTS))


def upload(
    store: Any,
    key: str,
    content: File[Any],
    *,
    attributes: dict[str, str],
    create: bool,
    part: int,
    concurrency: int,
) -> int:
    """Send a file, and return how many bytes it has.

    With `create` a file of one part is not written over another, where the store knows
    conditional requests; obstore's AlreadyExistsError says so. Raises what obstore raises,
    and what reading the file raises; nothing is visible then. Only after `Unsettled` the whole
    file may be there.
    """
    size = part_size(content, part)
    counted = _Counted(pieces(content, size))
    first, second = next(counted, b""), next(counted, None)
    put = runtime.library().put
    if second is None:
        mode = "create" if create else "overwrite"
        put(store, key, first, attributes=attributes, mode=mode, use_multipart=False)
        return counted.bytes
    parts: Iterable[bytes] = chain([first, second], counted)
    try:
        put(
            store,
            key,
            iter(parts),
            attributes=attributes,
            use_multipart=True,
            chunk_size=size,
            max_concurrency=concurrency,
        )
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error):
            raise
        raise Unsettled(counted.bytes) from error
    return counted.bytes


class _Counted(Iterator[bytes]):
    """Counts what goes through."""

    def __init__(self, source: Iterator[bytes]) -> None:
        self._source = source
        self.bytes = 0

    def __next__(self) -> bytes:
        piece = next(self._source)
        self.bytes += len(piece)
        return piece
