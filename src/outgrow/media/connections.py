"""One connection to the embedded media server: uvicorn's, with limits.

uvicorn has none of its own for heads, for readers that do not read, and for a
connection that says nothing. The laws:

1. The head of a request is whole within `head_timeout` of its first byte and within
   `max_head` bytes, or the connection ends: 408, 431. The same number of bytes is
   all that may come in one piece that is no body: trailers, chunk extensions.
2. A connection that says nothing is closed after `keep_alive`, a new one too.
3. What was sent is read by the client at `min_rate` at least, or the connection is
   cut off: over each `body_timeout` spent waiting for the reader, whatever the
   answer is and whether it is the last. What the kernel holds counts as unread.
4. There are `max_connections` at most on each port, so that a crowd of readers does not
   keep the writers out. For another one the longest idle of that port is closed; if all
   are busy it is answered 503, and beyond a few more cut off unanswered.
5. No answer is ever sent into the middle of another.

`handler` keeps the limits of bodies that come in.
"""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from outgrow.media import protocol
from outgrow.media.limits import SPARE, Limits, Pace
from outgrow.media.protocol import Answer


def limited(limits: Limits) -> type[Connection]:
    """The class that uvicorn makes the connections to one port of."""
    return type("LimitedConnection", (Connection,), {"limits": limits, "crowd": set()})


class Connection(HttpToolsProtocol):
    """A connection that keeps the laws above."""

    limits: ClassVar[Limits] = Limits()
    #: All that are connected to the same port.
    crowd: ClassVar[set[Connection]] = set()

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._surplus = False
        #: A head has begun and is not whole; a head is whole and its body is not.
        self._in_head = False
        self._in_body = False
        #: Bytes since something useful came: a whole head, or some of a body.
        self._useless = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._pace = Pace(self.limits)
        self._unread = 0
        self._waiting_since = 0.0
        self._reader_timer: asyncio.TimerHandle | None = None

    # Its life

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, if there is room."""
        super().connection_made(transport)
        # Whatever the kernel does not take at once is waited for (law 3). It costs
        # no time: the kernel's own buffer is full then.
        transport.set_write_buffer_limits(high=0)
        self.crowd.add(self)
        surplus = len(self.crowd) - self.limits.max_connections
        if surplus > 0 and self.limits.max_connections and not self._close_longest_idle():
            self._surplus = True
            if surplus > SPARE:
                transport.abort()
                return
        # uvicorn sets this timer after an answer only.
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def _close_longest_idle(self) -> bool:
        """Make room. The timer of keep-alive runs exactly while a connection is idle."""
        idle = [
            (timer.when(), id(other), other)
            for other in self.crowd
            if (timer := other.timeout_keep_alive_task) is not None
        ]
        if not idle:
            return False
        _when, _id, longest = min(idle)
        longest._unset_keepalive_if_required()  # noqa: SLF001 - of this class
        longest.transport.close()
        self.crowd.discard(longest)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers."""
        self.crowd.discard(self)
        self._unset_keepalive_if_required()
        self._stop_head_timer()
        self._stop_reader_timer()
        super().connection_lost(exc)

    # What comes in

    def data_received(self, data: bytes) -> None:
        """Count, and let uvicorn parse."""
        if self._surplus:
            answer = protocol.refusal(503, "too many connections", ("Retry-After", "1"))
            self._refuse(answer)
            return
        self._useless += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        # Most heads come in one piece, and need no timer. What is useless outside of a
        # body is a head, or empty lines before one.
        if self._in_head or (self._useless and not self._in_body):
            self._start_head_timer()
        limit = self.limits.max_head
        if 0 < limit < self._useless:
            self._refuse(protocol.head_too_large(limit))

    def on_message_begin(self) -> None:
        """The first byte of a head was parsed."""
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head is whole. One that came in one piece is measured by `protocol`."""
        self._stop_head_timer()
        self._in_head, self._in_body, self._useless = False, True, 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Some of a body was parsed."""
        self._useless = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is whole."""
        self._in_body, self._useless = False, 0
        super().on_message_complete()

    def _start_head_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.limits.head_timeout, self._head_is_late)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        if self._is_answering:
            # uvicorn may have stopped reading meanwhile; the head may be there.
            self._start_head_timer()
        elif self._in_head:
            limit = f"a head must be whole within {self.limits.head_timeout:g} s"
            self._refuse(protocol.refusal(408, limit))
        else:
            self.transport.close()  # empty lines

    # What goes out

    @property
    def _is_answering(self) -> bool:
        """Whether a request has been accepted and not been answered to its end."""
        cycle: Any = self.cycle  # None before the first request
        return cycle is not None and not cycle.response_complete

    def send_400_response(self, msg: str) -> None:
        """Answer, as uvicorn wants it, what is no HTTP."""
        self._refuse(protocol.refusal(400, msg))

    def _refuse(self, answer: Answer) -> None:
        """Answer, unless that would go into another answer, and close."""
        if not self._is_answering:
            headers = (*protocol.ALWAYS, *answer.headers, ("Connection", "close"))
            lines = [f"{name}: {value}\r\n".lower().encode() for name, value in headers]
            dated = [b"%b: %b\r\n" % one for one in self.server_state.default_headers]
            head = [STATUS_LINE[answer.status], *dated, *lines, b"\r\n"]
            self.transport.write(b"".join([*head, answer.body]))
        self.transport.close()

    def pause_writing(self) -> None:
        """The kernel's buffer is full: from now on the reader is waited for."""
        super().pause_writing()
        self._measure_reader()
        self._start_reader_timer()

    def resume_writing(self) -> None:
        """The kernel has taken all that there was."""
        super().resume_writing()
        self._stop_reader_timer()
        self._judge_reader()

    def _measure_reader(self) -> int:
        """Note what is unread now; return how much was read since the last time."""
        before = self._unread
        self._unread = self.transport.get_write_buffer_size() + _in_kernel(self.transport)
        self._waiting_since = self.loop.time()
        return before - self._unread

    def _judge_reader(self) -> None:
        waited = self.loop.time() - self._waiting_since
        if not self._pace.keeps_up(self._measure_reader(), waited):
            self.transport.abort()

    def _start_reader_timer(self) -> None:
        self._reader_timer = self.loop.call_later(self.limits.body_timeout, self._look_at_reader)

    def _stop_reader_timer(self) -> None:
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None

    def _look_at_reader(self) -> None:
        self._start_reader_timer()
        self._judge_reader()


def _in_kernel(transport: asyncio.Transport) -> int:
    """Bytes that the kernel holds because the reader has not confirmed them.

    Without it a slow reader would seem to stand still: the kernel takes nothing
    new before a third of its buffer, which may be megabytes, is free.
    """
    try:
        descriptor = transport.get_extra_info("socket").fileno()
        counted = fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4))
    except (OSError, ValueError):  # closed a moment ago
        return 0
    return int(struct.unpack("i", counted)[0])
