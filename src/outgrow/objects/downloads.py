"""An object that is read like a file: from the front, from anywhere, as often as wanted.

One request serves all reading from one position on; another position is another request,
by Range. All of them are for the same object: they name its ETag, and a store whose object
was replaced meanwhile refuses, so that two objects are never read as one.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final

from django.core.files.base import File

from outgrow.errors import ConnectionLost
from outgrow.objects import runtime

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: Bytes that are asked of the stream at a time, and that the buffer before it holds.
_CHUNK: Final = 1 << 20
_BUFFER: Final = 1 << 16

#: As far as this reading goes on with what comes instead of asking anew: less than what
#: comes in the time of one request, on most networks.
_SKIPPED: Final = 1 << 18


class ObjectReader(io.RawIOBase):
    """The bytes of one object. Not for several threads at once, as no file of Python's is.

    `store` gives the store of this process; `translated` turns errors into ours.
    """

    def __init__(
        self,
        store: Callable[[], Any],
        key: str,
        translated: Callable[[], AbstractContextManager[None]],
    ) -> None:
        super().__init__()
        self._store = store
        self._key = key
        self._translated = translated
        self._position = 0
        self._stream: Iterator[Any] | None = None
        self._streamed = 0  # the position of the stream's next byte
        self._rest = memoryview(b"")
        self._generation = runtime.generation()
        with translated():
            result = runtime.library().get(store(), key)
            self._meta = result.meta
        self._begin(result, 0)

    @property
    def size(self) -> int:
        """Bytes of the whole object."""
        return int(self._meta["size"])

    @property
    def modified(self) -> Any:
        """When the object was written, a datetime in UTC."""
        return self._meta["last_modified"]

    @property
    def etag(self) -> str:
        """The object's ETag, with its quotes; empty where the store gives none."""
        return str(self._meta["e_tag"] or "")

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """The position of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to another position. Nothing is sent before the next read."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        if start + offset < 0:
            raise ValueError(f"negative position {start + offset}")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read some bytes; 0 at the end. Raises our errors, never ends too early."""
        target = memoryview(buffer).cast("B")
        if self._position >= self.size or not len(target):
            return 0
        self._reach()
        if not self._rest:
            self._next()
        count = min(len(target), len(self._rest))
        target[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        self._position += count
        return count

    def close(self) -> None:
        """End it. The connection goes back, or is closed where much was still to come."""
        self._stream, self._rest = None, memoryview(b"")
        super().close()

    def _begin(self, result: Any, position: int) -> None:
        self._stream = iter(result.stream(min_chunk_size=_CHUNK))
        self._streamed = position
        self._rest = memoryview(b"")

    def _reach(self) -> None:
        """Have a stream whose next byte is the one at the position."""
        if self._generation != runtime.generation():  # the parent's stream is of no use
            runtime.abandon((self._stream, self._rest))
            self._generation, self._stream = runtime.generation(), None
        at = self._streamed - len(self._rest)
        ahead = self._position - at
        if self._stream is not None and 0 <= ahead <= max(_SKIPPED, len(self._rest)):
            self._skip(ahead)
            return
        options: dict[str, Any] = {"range": {"offset": self._position}}
        if self._meta["e_tag"]:
            options["if_match"] = self._meta["e_tag"]
        with self._translated():
            result = runtime.library().get(self._store(), self._key, options=options)
        self._begin(result, self._position)

    def _skip(self, ahead: int) -> None:
        while ahead > len(self._rest):
            ahead -= len(self._rest)
            self._next()
        self._rest = self._rest[ahead:]

    def _next(self) -> None:
        """The stream's next chunk."""
        assert self._stream is not None
        with self._translated():
            chunk = next(self._stream, None)
        if chunk is None:
            raise ConnectionLost(self._key, f"ended after {self._streamed} of {self.size} bytes")
        self._rest = memoryview(chunk).cast("B")
        self._streamed += len(self._rest)


class ObjectFile(File):  # type: ignore[type-arg]
    """An open object, as Django's File. Close it, or use it with ``with``."""

    def __init__(self, reader: ObjectReader, name: str, mode: str) -> None:
        file: Any = io.BufferedReader(reader, _BUFFER)
        if "b" not in mode:
            file = io.TextIOWrapper(file, "utf-8")
        super().__init__(file, name)
        self.mode = mode
        self._reader = reader

    @property
    def size(self) -> int:
        """Bytes of the whole object."""
        return self._reader.size
