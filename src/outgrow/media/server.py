"""The embedded media server: an ASGI application, and `serve`, which runs it.

`protocol` decides what is answered, `disk` touches the files; here the two are
joined to ASGI. No blocking call is made in the event loop: the disk is used in
threads, in batches, and a small upload or download costs one change of thread.

It is meant for development, for tests and for a team that runs no nginx. Behind
it stands uvicorn, which sets no limit on how slowly a head may come: on an open
network put a proxy in front.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from outgrow.media import protocol
from outgrow.media.conditions import Span
from outgrow.media.disk import Disk, Missing, Upload
from outgrow.media.protocol import Answer, Request, Rules, State, Wanted

logger = logging.getLogger("outgrow.media.server")

#: Bytes that are read from or written to the disk at once. A change of thread
#: costs some 50 us, as much as 100 KB of writing; memory stays small.
BATCH = 256 * 1024

#: Bytes of a refused body that are read and thrown away, so that its client reads
#: the answer instead of a broken connection. Above, the connection is closed.
PATIENCE = 1024 * 1024

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class _ClientGone(Exception):  # noqa: N818 (nothing went wrong here)
    """The client closed the connection before its body was whole."""


class MediaApplication:
    """An ASGI application that serves and stores the files below `root`.

    Writing needs the header ``Authorization: Bearer <token>``; with `token` None
    anybody who can connect may write. `fsync`: an upload is on the disk before it
    is answered. `body_timeout`: seconds that a body may make no progress, in
    either direction. `max_body`: bytes; 0 for no limit.

    The root is opened by ASGI's lifespan, or by `disk.open()`. One event loop and
    any number of processes may use a root at the same time; conditions other than
    ``If-None-Match: *`` are atomic within one process only.
    """

    def __init__(
        self,
        root: Path,
        *,
        token: str | None = None,
        fsync: bool = True,
        body_timeout: float = 30.0,
        max_body: int = 0,
    ) -> None:
        self.disk = Disk(root, fsync=fsync)
        self.rules = Rules(token, max_body)
        self.body_timeout = body_timeout

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await _Exchange(self, _request(scope), receive, send).run()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        self.disk.open()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.disk.close()
        await send({"type": "lifespan.shutdown.complete"})


def _request(scope: Message) -> Request:
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        # RFC 9110 §5.3: several lines of one name are one list.
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Request(scope["method"], scope["raw_path"], headers)


class _Exchange:
    """One request and its answer."""

    def __init__(
        self, application: MediaApplication, request: Request, receive: Receive, send: Send
    ) -> None:
        self._disk = application.disk
        self._rules = application.rules
        self._timeout = application.body_timeout
        self._request = request
        self._receive = receive
        self._send = send
        self._body_ended = False

    async def run(self) -> None:
        try:
            answer = await self._answer()
        except _ClientGone:
            return
        except TimeoutError:
            answer = protocol.refusal(408, f"the body made no progress for {self._timeout:g} s")
        except OSError as error:
            answer = self._failed(error)
        except asyncio.CancelledError:
            # The server stops, and has waited long enough. It cancels no request
            # for any other reason, so an answer is better than a broken pipe.
            answer = protocol.refusal(503, "the server is being stopped")
        if answer is not None:
            await self._finish(answer)

    async def _answer(self) -> Answer | None:
        """Carry the request out. None when the answer has been sent already."""
        wanted = protocol.accept(self._request, self._rules)
        if isinstance(wanted, Answer):
            return wanted
        if wanted.method == "PUT":
            return await self._put(wanted)
        if wanted.method == "DELETE":
            return await asyncio.to_thread(self._remove, wanted)
        return await self._get(wanted)

    def _failed(self, error: OSError) -> Answer:
        answer = protocol.failure(error)
        if answer.status >= 500:
            logger.error("%s %r: %s", self._request.method, self._request.target, error)
        return answer

    # Reading

    async def _get(self, wanted: Wanted) -> Answer | None:
        answer, descriptor, data = await asyncio.to_thread(self._open, wanted)
        if descriptor < 0:
            return protocol.with_body(answer, data)
        try:
            await self._start(answer)
            await self._send_file(descriptor, answer.span or Span(0, 0), data)
        finally:
            os.close(descriptor)
        return None

    def _open(self, wanted: Wanted) -> tuple[Answer, int, bytes]:
        """The answer; its first bytes; a descriptor for the rest, or -1 when these are all."""
        state, descriptor = self._disk.read(wanted.parts)
        try:
            answer = protocol.read(wanted, state)
            span = answer.span
            if span is None or wanted.method == "HEAD":
                return answer, -1, answer.body
            data = os.pread(descriptor, min(BATCH, len(span)), span.start)
            if len(data) == len(span):
                return answer, -1, data
            rest, descriptor = descriptor, -1
            return answer, rest, data
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    async def _send_file(self, descriptor: int, span: Span, data: bytes) -> None:
        position = span.start
        # An empty read: somebody cut the file. To end here, short of what was
        # promised, makes the server close the connection, and the client notice.
        while data and position + len(data) < span.stop:
            await self._send_body(data, more=True)
            position += len(data)
            size = min(BATCH, span.stop - position)
            data = await asyncio.to_thread(os.pread, descriptor, size, position)
        if data:
            await self._send_body(data, more=False)

    # Writing

    def _remove(self, wanted: Wanted) -> Answer:
        refusals: list[Answer] = []

        def refuse(state: State) -> Answer | None:
            refusal = protocol.refuse_removal(wanted, state)
            refusals.extend([refusal] if refusal else [])
            return refusal

        return protocol.removed() if self._disk.remove(wanted.parts, refuse) else refusals[0]

    async def _put(self, wanted: Wanted) -> Answer:
        small = wanted.length is not None and wanted.length <= BATCH
        if not small or self._request.expects_continue:
            refusal = await asyncio.to_thread(self._refuse_write, wanted)
            if refusal is not None:
                return refusal
        first = await self._read_batch()
        if self._body_ended:
            return await asyncio.to_thread(self._store_small, wanted, first)
        return await self._store_large(wanted, first)

    def _refuse_write(self, wanted: Wanted) -> Answer | None:
        refusal = protocol.refuse_write(wanted, self._disk.look(wanted.parts))
        if refusal is None and wanted.length and not self._disk.room_for(wanted.length):
            return protocol.disk_full()
        return refusal

    def _store_small(self, wanted: Wanted, body: bytes) -> Answer:
        writer = _Writer(self._disk, wanted)
        try:
            # Looked at before anything is written: a refused upload makes no folders.
            refusal = protocol.refuse_write(wanted, self._disk.look(wanted.parts))
            if refusal is not None:
                return refusal
            writer.write(body)
            return writer.commit()
        finally:
            writer.discard()

    async def _store_large(self, wanted: Wanted, batch: bytes) -> Answer:
        writer = _Writer(self._disk, wanted)
        received = 0
        try:
            while batch:
                received += len(batch)
                if self._rules.max_body and received > self._rules.max_body:
                    return protocol.too_large(self._rules)
                await asyncio.to_thread(writer.write, batch)
                batch = b"" if self._body_ended else await self._read_batch()
            return await asyncio.to_thread(writer.commit)
        finally:
            await asyncio.shield(asyncio.to_thread(writer.discard))

    async def _read_batch(self) -> bytes:
        """The next `BATCH` bytes of the body, or what is left of it."""
        parts: list[bytes] = []
        size = 0
        while size < BATCH and not self._body_ended:
            async with asyncio.timeout(self._timeout):
                message = await self._receive()
            if message["type"] == "http.disconnect":
                raise _ClientGone
            self._body_ended = not message.get("more_body", False)
            parts.append(message.get("body", b""))
            size += len(parts[-1])
        return b"".join(parts)

    # Answering

    async def _finish(self, answer: Answer) -> None:
        """Send an answer that is whole in memory."""
        close = answer.status in {408, 503} or not await self._drain()
        headers = (*answer.headers, ("Connection", "close")) if close else answer.headers
        await self._start(Answer(answer.status, headers))
        head_only = self._request.method == "HEAD"
        await self._send_body(b"" if head_only else answer.body, more=False)

    async def _drain(self) -> bool:
        """Read what is left of a body, within limits. False: the connection must be closed."""
        if self._body_ended or self._request.method != "PUT":
            return True
        # The client waits for leave to send: it shall not have it. What it sends
        # next on this connection could be the body or a request (RFC 9110 §10.1.1).
        if self._request.expects_continue:
            return False
        drained = 0
        with suppress(_ClientGone, TimeoutError):
            while not self._body_ended and drained <= PATIENCE:
                drained += len(await self._read_batch())
        return self._body_ended

    async def _start(self, answer: Answer) -> None:
        headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in answer.headers
        ]
        start = {"type": "http.response.start", "status": answer.status, "headers": headers}
        await self._send(start)

    async def _send_body(self, data: bytes, *, more: bool) -> None:
        async with asyncio.timeout(self._timeout):
            await self._send({"type": "http.response.body", "body": data, "more_body": more})


class _Writer:
    """An upload with its checksums. Its methods block."""

    def __init__(self, disk: Disk, wanted: Wanted) -> None:
        self._disk = disk
        self._wanted = wanted
        self._upload: Upload | None = None
        self._sums = {
            digest.algorithm: hashlib.new(digest.algorithm, usedforsecurity=False)
            for digest in wanted.digests
        }

    def write(self, data: bytes) -> None:
        if self._upload is None:
            self._upload = self._disk.create()
        self._upload.write(data)
        for running in self._sums.values():
            running.update(data)

    def commit(self) -> Answer:
        assert self._upload is not None
        wanted = self._wanted
        sums = {algorithm: running.digest() for algorithm, running in self._sums.items()}
        if refusal := protocol.refuse_digests(wanted.digests, sums):
            return refusal
        try:
            done = self._upload.commit(
                wanted.parts,
                lambda state: protocol.refuse_write(wanted, state),
                exclusive=wanted.exclusive,
            )
        except FileExistsError:
            return protocol.condition_failed()
        ...

    def discard(self) -> None:
        if self._upload is not None:
            self._upload.discard()
