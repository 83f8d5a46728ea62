"""The asynchronous twins of a storage's methods, and of the file that it opens.

Each runs its twin in a thread, so that the event loop goes on. Those of a storage that
uses the site's database, or waits for the commit of its transactions, run in the thread
where Django's own database work of the request runs, or a transaction would not be seen.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

from asgiref.sync import sync_to_async
from django.core.files.base import File

#: Bytes of one chunk.
CHUNK = 1 << 16


class AsyncFile:
    """An open file for an asynchronous view; close it, or use it with ``async with``."""

    def __init__(self, file: File[Any], *, thread_sensitive: bool) -> None:
        self.file = file
        self._sensitive = thread_sensitive

    @property
    def name(self) -> str | None:
        """The name of the file."""
        return self.file.name

    async def read(self, size: int = -1) -> Any:
        """Up to `size` bytes; all that is left without it."""
        return await self._run(self.file.read, size)

    async def seek(self, offset: int, whence: int = 0) -> int:
        """Go to another position."""
        return int(await self._run(self.file.seek, offset, whence))

    async def chunks(self, size: int = CHUNK) -> AsyncIterator[Any]:
        """The file from its position on, piece by piece."""
        while data := await self.read(size):
            yield data

    def __aiter__(self) -> AsyncIterator[Any]:
        return self.chunks()

    async def close(self) -> None:
        """Close it."""
        await self._run(self.file.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _run(self, function: Any, *arguments: Any) -> Any:
        return await sync_to_async(function, thread_sensitive=self._sensitive)(*arguments)


class AsyncTwins:
    """A mixin for storages: `asave`, `aopen`, `adelete`, `aexists`, `asize` and `aurl`."""

    @property
    def uses_database(self) -> bool:
        """Whether the twins must run where the request's database work does."""
        return False

    async def asave(self, name: str, content: Any, max_length: int | None = None) -> str:
        """See `save`."""
        return str(await self._twin("save", name, content, max_length))

    async def aopen(self, name: str, mode: str = "rb") -> AsyncFile:
        """See `open`. The file is asynchronous, too."""
        file = await self._twin("open", name, mode)
        return AsyncFile(file, thread_sensitive=self.uses_database)

    async def adelete(self, name: str) -> None:
        """See `delete`."""
        await self._twin("delete", name)

    async def aexists(self, name: str) -> bool:
        """See `exists`."""
        return bool(await self._twin("exists", name))

    async def asize(self, name: str) -> int:
        """See `size`."""
        return int(await self._twin("size", name))

    async def aurl(self, name: str, expire: float | None = None) -> str:
        """See `url`."""
        # By its name: storages have it in different places. Not at all, if it is not meant.
        more = {} if expire is None else {"expire": expire}
        return str(await self._twin("url", name, **more))

    async def _twin(self, method: str, *arguments: Any, **more: Any) -> Any:
        function = sync_to_async(getattr(self, method), thread_sensitive=self.uses_database)
        return await function(*arguments, **more)
