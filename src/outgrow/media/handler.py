"""One request to the embedded media server, and its answer, over ASGI.

`protocol` decides what is answered and `disk` touches the files. No blocking call
is made in the event loop: the disk is used in threads, in batches, and a small
upload or download costs one change of thread.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from outgrow.media import protocol
from outgrow.media.conditions import Span
from outgrow.media.disk import Disk, Upload
from outgrow.media.inventory import Inventory
from outgrow.media.limits import Limits, Pace
from outgrow.media.protocol import Answer, Refused, Request, Rules, Wanted

logger = logging.getLogger("outgrow.media.server")

#: Bytes that are read from or written to the disk at once. A change of thread
#: costs some 50 us, as much as writing 100 KB; and memory stays small.
BATCH = 256 * 1024

#: After these answers the connection is not used again, whatever came with the head.
CLOSING = {408, 431, 503, 504}

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_Result = TypeVar("_Result")


class _ClientGone(Exception):
    """The client closed the connection before its body was whole."""


class _Unfinished(Exception):
    """The server stops while a change is being made, and nobody knows whether it will be."""


class Exchange:
    """One request and its answer. Of `limits` it keeps those of the body that comes in."""

    def __init__(
        self,
        disk: Disk,
        rules: Rules,
        limits: Limits,
        scope: Message,
        receive: Receive,
        send: Send,
    ) -> None:
        self._disk = disk
        self._rules = rules
        self._limits = limits
        self._pace = Pace(limits)
        self._request = _request(scope)
        self._receive = receive
        self._send = send
        self._received = 0
        self._body_ended = False
        self._answered = False

    async def run(self) -> None:
        """Carry the request out and answer it."""
        try:
            await self._answer(await self._attempt())
        except _ClientGone:
            return
        except asyncio.CancelledError:
            # The server stops, and has waited long enough. It cancels for no other
            # reason, and nothing was changed (see _finish).
            with suppress(asyncio.CancelledError):
                await self._answer(protocol.refusal(503, "the server is being stopped"))

    async def _attempt(self) -> Answer | None:
        try:
            return await self._carry_out()
        except Refused as refused:
            return refused.answer
        except TimeoutError:
            return protocol.refusal(408, f"nothing came for {self._limits.body_timeout:g} s")
        except OSError as error:
            return self._failed(error)
        except _Unfinished:
            return protocol.refusal(504, "the server is being stopped, and its disk is slow")

    async def _answer(self, answer: Answer | None) -> None:
        # After the head of an answer there can't be another. To end short of what
        # it promised makes uvicorn close the connection, and the client notice.
        if answer is not None and not self._answered:
            await self._send_whole(answer)

    async def _carry_out(self) -> Answer | None:
        """The answer that is left to be sent; None when it has been sent."""
        wanted = protocol.accept(self._request, self._rules)
        if wanted.method == "PUT":
            return await self._put(wanted)
        if wanted.method == "DELETE":
            return await _finish(partial(self._remove, wanted))
        if wanted.method.endswith("LIST"):
            await self._list(wanted)
            return None
        return await self._get(wanted)

    def _failed(self, error: OSError) -> Answer:
        answer = protocol.failure(error)
        if answer.status >= 500:
            logger.error("%s %r: %s", self._request.method, self._request.target, error)
        return answer

    # Reading

    async def _get(self, wanted: Wanted) -> Answer | None:
        answer, descriptor = await asyncio.to_thread(self._open, wanted)
        if descriptor < 0 or answer.span is None:
            return answer
        try:
            await self._send_file(answer, answer.span, descriptor)
        finally:
            os.close(descriptor)
        return None

    def _open(self, wanted: Wanted) -> tuple[Answer, int]:
        """The answer with its first bytes; a descriptor for more, or -1 if these are all."""
        state, descriptor = self._disk.read(wanted.parts)
        try:
            answer = protocol.read(wanted, state, self._rules)
            if answer.span is None or wanted.method == "HEAD":
                return answer, -1
            data = os.pread(descriptor, min(BATCH, len(answer.span)), answer.span.start)
            if len(data) == len(answer.span):
                return replace(answer, body=data), -1
            kept, descriptor = descriptor, -1
            return replace(answer, body=data), kept
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    async def _send_file(self, answer: Answer, span: Span, descriptor: int) -> None:
        await self._send_head(answer)
        data, position = answer.body, span.start
        while data:  # an empty read before the end: somebody has cut the file
            position += len(data)
            await self._send_body(data, more=position < span.stop)
            size = min(BATCH, span.stop - position)
            data = await asyncio.to_thread(os.pread, descriptor, size, position) if size else b""

    # Listing

    async def _list(self, wanted: Wanted) -> None:
        await self._send_head(protocol.listed())
        if wanted.method == "LIST":
            digests = protocol.wants_digests(wanted)
            await self._send_pages(Inventory(self._disk, wanted.parts, digests=digests))
        await self._send_body(b"", more=False)

    async def _send_pages(self, inventory: Inventory) -> None:
        left = asyncio.ensure_future(self._client_left())
        try:
            while page := await asyncio.to_thread(inventory.page):
                if left.done():
                    raise _ClientGone
                await self._send_body(page, more=True)
        finally:
            left.cancel()
            await asyncio.shield(asyncio.to_thread(inventory.close))

    async def _client_left(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    # Writing

    def _remove(self, wanted: Wanted) -> Answer:
        check = partial(protocol.check_removal, wanted)
        return protocol.removed(self._disk.remove(wanted.parts, check))

    async def _put(self, wanted: Wanted) -> Answer:
        small = wanted.length is not None and wanted.length <= BATCH
        if not small or self._request.expects_continue:
            await asyncio.to_thread(self._check_write, wanted)
        batch = await self._read_batch()
        upload = _Upload(self._disk, wanted)
        if self._body_ended:
            return await _finish(partial(self._store_small, upload, wanted, batch))
        try:
            while batch:
                await asyncio.to_thread(upload.write, batch)
                batch = await self._read_batch()
            return await _finish(upload.commit)
        finally:
            await asyncio.shield(asyncio.to_thread(upload.discard))

    def _check_write(self, wanted: Wanted) -> None:
        """Refuse what can be refused before the body has come."""
        protocol.check_write(wanted, self._disk.look(wanted.parts))
        if wanted.length and not self._disk.room_for(wanted.length):
            raise Refused(protocol.disk_full())

    def _store_small(self, upload: _Upload, wanted: Wanted, body: bytes) -> Answer:
        try:
            # A look before anything is written: a refused upload makes no folders.
            protocol.check_write(wanted, self._disk.look(wanted.parts))
            upload.write(body)
            return upload.commit()
        finally:
            upload.discard()

    async def _read_batch(self) -> bytes:
        """The next `BATCH` bytes of the body, or what is left of it."""
        parts: list[bytes] = []
        size = 0
        while size < BATCH and not self._body_ended:
            parts.append(await self._read_part())
            size += len(parts[-1])
            protocol.check_size(self._received, self._rules)
        return b"".join(parts)

    async def _read_part(self) -> bytes:
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.timeout(self._limits.body_timeout):
            message = await self._receive()
        body = self._take(message)
        if not self._body_ended and not self._pace.keeps_up(len(body), loop.time() - began):
            raise Refused(protocol.too_slow(self._limits.min_rate))
        return body

    def _take(self, message: Message) -> bytes:
        if message["type"] == "http.disconnect":
            raise _ClientGone
        body: bytes = message.get("body", b"")
        self._body_ended = not message.get("more_body", False)
        self._received += len(body)
        return body

    # Answering

    async def _send_whole(self, answer: Answer) -> None:
        """Send an answer that is whole in memory."""
        if answer.status in CLOSING or not await self._has_body_come():
            answer = replace(answer, headers=(*answer.headers, ("Connection", "close")))
        await self._send_head(answer)
        body = b"" if self._request.method == "HEAD" else answer.body
        await self._send_body(body, more=False)

    async def _has_body_come(self) -> bool:
        """Whether the next byte on this connection is the next request's.

        A refused body is not waited for: whoever may not write shall not keep the
        server busy. One that came with its head is taken from memory.
        """
        if self._body_ended or not self._request.has_body:
            return True
        # It waits for leave to send, and shall not have it. What it sends next on
        # this connection could be its body or a request (RFC 9110 §10.1.1).
        if self._request.expects_continue:
            return False
        with suppress(_ClientGone, TimeoutError):
            async with asyncio.timeout(0):
                self._take(await self._receive())
        return self._body_ended

    async def _send_head(self, answer: Answer) -> None:
        self._answered = True
        headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in (*protocol.ALWAYS, *answer.headers)
        ]
        await self._send(
            {"type": "http.response.start", "status": answer.status, "headers": headers}
        )

    async def _send_body(self, data: bytes, *, more: bool) -> None:
        # It ends when the connection does, which `connections` sees to.
        await self._send({"type": "http.response.body", "body": data, "more_body": more})


class _Upload:
    """A body on its way to the disk, with its checksums. Its methods block."""

    def __init__(self, disk: Disk, wanted: Wanted) -> None:
        self._disk = disk
        self._wanted = wanted
        self._file: Upload | None = None
        algorithms = {digest.algorithm for digest in wanted.digests}
        if disk.keeps_records:
            algorithms.add("sha256")
        self._sums = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}

    def write(self, data: bytes) -> None:
        if self._file is None:
            self._file = self._disk.create()
        self._file.write(data)
        for running in self._sums.values():
            running.update(data)

    def commit(self) -> Answer:
        assert self._file is not None, "commit() before write()"
        wanted = self._wanted
        sums = {algorithm: running.digest() for algorithm, running in self._sums.items()}
        protocol.check_digests(wanted.digests, sums)
        check = partial(protocol.check_write, wanted)
        file, created = self._file.commit(
            wanted.parts, check, exclusive=wanted.exclusive, digest=sums.get("sha256")
        )
        return protocol.stored(file, created=created)

    def discard(self) -> None:
        if self._file is not None:
            self._file.discard()


def _request(scope: Message) -> Request:
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        # RFC 9110 §5.3: several lines of one name are one list.
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    target: bytes = scope["raw_path"]
    # Each line of the head has four bytes more: ": " and its end.
    fields = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
    query: bytes = scope["query_string"]
    size = len(target) + len(query) + fields
    return Request(scope["method"], target, headers, size, query, time.time())


async def _finish(function: Callable[[], _Result]) -> _Result:
    """Run in a thread, to its end: a change that has begun is answered truthfully.

    A thread can't be cancelled. Where the request is, its result is waited for; when
    it is cancelled once more, the process ends now: raises _Unfinished.
    """
    running = asyncio.ensure_future(asyncio.to_thread(function))
    with suppress(asyncio.CancelledError):
        return await asyncio.shield(running)
    try:
        return await running
    except asyncio.CancelledError:
        raise _Unfinished from None
