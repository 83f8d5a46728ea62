"""One request to one server and its answer, as a socket that does not block sees them.

An `Exchange` never waits. It says what it is waiting for (`descriptor`,
`interest`, `due`) and is told when that has come (`handle`) or has not
(`expire`). `outgrow.fanout` drives several at once.

    CONNECTING -> HANDSHAKE -> SENDING -> ANSWER -> (finished)
         (TLS only) ^             ^ PROCEED: the head is sent, 100 is awaited
"""

from __future__ import annotations

import enum
import errno
import os
import selectors
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from outgrow import access, http
from outgrow.answer import AnswerError, AnswerParser, Response
from outgrow.endpoint import endpoint
from outgrow.errors import (
    BadAnswer,
    ConfigurationError,
    ConnectFailed,
    ConnectionLost,
    FileCut,
    NoAccess,
    ServerError,
    TimedOut,
)
from outgrow.http import Connection, FileBody, Pool, Request
from outgrow.servers import Server

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

#: Bodies up to this size are read once and leave with the head in one segment.
SMALL = 65536

#: Bytes that one readiness of the socket may hand over, so that servers take turns.
TURN = 1 << 20

#: Errors by which `sendfile` says that it can't for this file or socket.
NO_SENDFILE = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSOCK, errno.EOPNOTSUPP})

#: Errors by which `sendfile` says that the file can't be read, as opposed to sent.
UNREADABLE = frozenset({errno.EIO, errno.EBADF, errno.ESTALE})


#: Seconds in which a server must connect, and begin to answer. django-resto's RESTO_TIMEOUT.
TIMEOUT = 2.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How long to wait for one server. Seconds and bytes.

    `timeout` is for connecting and for an answer to begin with. While a body is
    sent the server must take `floor` bytes a second, over any `window`. It
    may take `sync_rate` bytes a second to write the body to its disk before it
    answers. Bodies above `expect_above` wait for 100 Continue, as a server
    that refuses would otherwise read them all.
    """

    timeout: float = TIMEOUT
    floor: int = 65536
    window: float = 10.0
    sync_rate: float = 20e6
    expect_above: int = 1 << 20
    proceed_within: float = 1.0

    def answer_within(self, size: int) -> float:
        """Seconds that a server has to answer a body of `size` bytes."""
        return self.timeout + self.sync_time(size)

    def sync_time(self, size: int) -> float:
        """Seconds that a server may take to write a body of `size` bytes to its disk."""
        return size / self.sync_rate


class State(enum.Enum):
    """How far an exchange has come; see the drawing above."""

    CONNECTING = enum.auto()
    HANDSHAKE = enum.auto()
    SENDING = enum.auto()
    PROCEED = enum.auto()
    ANSWER = enum.auto()


class Exchange:
    """One request on one connection. Used by one thread; ends with `response` or `error`."""

    def __init__(
        self,
        server: Server,
        request: Request,
        pool: Pool,
        limits: Limits,
        clock: Callable[[], float],
    ) -> None:
        self.server = server
        self.request = request
        self.response: Response | None = None
        self.error: ServerError | None = None
        #: The last byte of the request was handed to the kernel (law 2 of fanout).
        self.sent_all = False
        self.interest = 0
        self.due = 0.0
        self.progress_at = clock()
        self._where = endpoint(server.address)
        self._pool = pool
        self._limits = limits
        self._clock = clock
        self._state = State.CONNECTING
        self._connection: Connection | None = None
        self._addresses: list[http.Address] = []
        self._reused = False
        self._parser = AnswerParser(request.method)
        self._expect = self._is_large and request.size > limits.expect_above
        self._buffers: list[memoryview] = []
        self._offset = 0
        self._window = (0.0, 0)

    @property
    def sync_time(self) -> float:
        """Seconds that the server may be silent for, while it writes what it was sent."""
        return self._limits.sync_time(self.request.size) if self.sent_all else 0.0

    @property
    def _is_large(self) -> bool:
        """Whether the body does not leave with the head."""
        return isinstance(self.request.body, FileBody) and self.request.size > SMALL

    @property
    def finished(self) -> bool:
        """Whether there is a response or an error."""
        return self.response is not None or self.error is not None

    @property
    def descriptor(self) -> int:
        """The open socket's."""
        return self._open.socket.fileno()

    @property
    def _open(self) -> Connection:
        assert self._connection is not None  # from start() to the end
        return self._connection

    def start(self) -> None:
        """Take an idle connection and send, or begin to connect."""
        self._connection = self._pool.take(self._where)
        if self._connection is None:
            self._look_up()
            return
        self._reused = True
        self._guard(self._begin)

    def handle(self, mask: int) -> None:
        """The socket is ready for what `interest` asked."""
        self._guard(lambda: self._advance(mask))

    def expire(self) -> None:
        """`due` has come."""
        if self._state is State.PROCEED:
            # RFC 9110 §10.1.1: a client need not wait for ever for 100 Continue.
            self._guard(self._send_body)
            return
        if self._state is State.CONNECTING and self._addresses:
            self.close()
            self._connect(self._overdue())
            return
        self.abandon(TimedOut(self.server.name, self._overdue()))

    def abandon(self, error: ServerError, cause: BaseException | None = None) -> None:
        """End without an answer. The connection is closed: its state is not known."""
        self.error = error
        error.__cause__ = cause
        self.close()

    # --- connecting

    def _look_up(self) -> None:
        try:
            self._addresses = list(http.resolve(self._where.host, self._where.port, self._clock))
        except OSError as error:
            self.error = ConnectFailed(self.server.name, http.no_address(self._where.host, error))
            return
        self._connect("no address")

    def _connect(self, reason: str) -> None:
        """Begin to connect to the next address, or end with `reason`."""
        while self._addresses:
            family, address = self._addresses.pop(0)
            try:
                stream = socket.socket(family, socket.SOCK_STREAM)
            except OSError as error:
                reason = str(error)
                continue
            stream.setblocking(False)  # noqa: FBT003 - the only way to say it
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = stream.connect_ex(address)
            self._connection = Connection(self._where, stream, os.getpid())
            if code in {0, errno.EINPROGRESS}:
                self._enter(State.CONNECTING, WRITE, self._limits.timeout)
                return
            reason = os.strerror(code)
            self.close()
        self.error = ConnectFailed(self.server.name, f"no connection: {reason}")

    def _connected(self) -> None:
        code = self._open.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.close()
            self._connect(os.strerror(code))
            return
        if self._where.scheme == "https":
            self._open.socket = self._pool.access.context().wrap_socket(
                self._open.socket,
                server_hostname=self._where.host,
                do_handshake_on_connect=False,
            )
            self._enter(State.HANDSHAKE, WRITE, self._limits.timeout)
            self._shake()
            return
        self._begin()

    def _shake(self) -> None:
        stream = self._open.socket
        assert isinstance(stream, ssl.SSLSocket)
        try:
            stream.do_handshake()
        except ssl.SSLWantReadError:
            self.interest = READ
        except ssl.SSLWantWriteError:
            self.interest = WRITE
        except OSError as error:
            if not self._is_refused(error):
                reason = f"no TLS connection: {error}"
                self.abandon(ConnectFailed(self.server.name, reason), error)
        else:
            self._begin()

    # --- sending

    def _begin(self) -> None:
        """The connection is open: send the head, and the body unless 100 is awaited."""
        request = self.request
        self._buffers = [memoryview(self._head())]
        self._offset = 0
        self._window = (self._clock(), 0)
        small = self._small_body()
        if small:
            self._buffers.append(memoryview(small))
            self._offset = request.size
        self._enter(State.SENDING, READ | WRITE, self._limits.window)
        self._send()

    def _head(self) -> bytes:
        authorization = self._pool.access.authorization(self.server.name)
        return self.request.head(self._where, expect=self._expect, authorization=authorization)

    def _small_body(self) -> bytes:
        body = self.request.body
        if isinstance(body, bytes):
            return body
        if self._is_large:
            return b""
        data = self._read_file(body, 0)
        if len(data) < body.size:
            self._cut(len(data))
        return data

    def _read_file(self, body: FileBody, offset: int) -> bytes:
        try:
            return os.pread(body.descriptor, min(SMALL, body.size - offset), offset)
        except OSError as error:
            raise _Unusable(f"the file can't be read: {error.strerror}") from error

    def _cut(self, left: int) -> NoReturn:
        size = self.request.size
        raise _Unusable(f"the file ended after {left} of {size} bytes while it was sent")

    def _send(self) -> None:
        """Hand over what the kernel takes now."""
        if self._buffers:
            self._send_buffers()
        if self._buffers:
            return
        if self._expect and not self._parser.proceed and not self._offset:
            self._enter(State.PROCEED, READ, self._limits.proceed_within)
            # It is we who wait: a server that does not know of 100 is not a straggler.
            self.progress_at = self.due
            return
        if self._offset < self.request.size:
            self._send_file()
        if self._offset >= self.request.size and not self._buffers:
            self.sent_all = True
            self._enter(State.ANSWER, READ, self._limits.answer_within(self.request.size))

    def _send_body(self) -> None:
        self._enter(State.SENDING, READ | WRITE, self._limits.window)
        self._parser.proceed = True
        self._window = (self._clock(), self._offset)
        self._send()

    def _send_buffers(self) -> None:
        try:
            sent = self._open.send(self._buffers)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        self._moved()
        while sent:
            first = self._buffers[0]
            if sent < len(first):
                self._buffers[0] = first[sent:]
                return
            sent -= len(first)
            self._buffers.pop(0)

    def _send_file(self) -> None:
        body = self.request.body
        assert isinstance(body, FileBody)  # small bodies left with the head
        if self._open.is_tls:
            self._send_read(body)
            return
        try:
            sent = os.sendfile(
                self.descriptor, body.descriptor, self._offset, min(TURN, body.size - self._offset)
            )
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno in UNREADABLE:
                raise _Unusable(f"the file can't be read: {error.strerror}") from error
            if error.errno not in NO_SENDFILE:
                raise
            self._send_read(body)
            return
        if sent == 0:
            self._cut(self._offset)
        self._offset += sent
        self._moved()

    def _send_read(self, body: FileBody) -> None:
        """The same by reading, where the kernel can't send the file itself."""
        data = self._read_file(body, self._offset)
        if not data:
            self._cut(self._offset)
        # Kept in the buffers until it has left: TLS wants the same bytes again.
        self._buffers = [memoryview(data)]
        self._offset += len(data)
        self._send_buffers()

    # --- receiving

    def _advance(self, mask: int) -> None:
        if self._state is State.CONNECTING:
            self._connected()
        elif self._state is State.HANDSHAKE:
            self._shake()
        else:
            if mask & READ:
                self._receive()
            if mask & WRITE and not self.finished and self._state is State.SENDING:
                self._send()

    def _receive(self) -> None:
        try:
            data = self._open.socket.recv(SMALL)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        self._moved()
        if not data:
            if not self._parser.touched:
                raise ConnectionResetError(errno.ECONNRESET, "closed the connection")
            self._parser.end()
        else:
            self._parser.feed(data)
        self._answered()

    def _answered(self) -> None:
        """Look at what the answer says so far."""
        if self._state is State.PROCEED and self._parser.proceed:
            self._send_body()
            return
        status, response = self._parser.status, self._parser.response
        if not status:
            return
        if status == 417 and self._expect and not self._offset:
            # RFC 9110 §10.1.1: it only says that nobody there knows of 100.
            self._expect = False
            self._send_again()
            return
        if not self.sent_all and status < 300:
            raise AnswerError(f"it answered {status} before it had the whole body")
        if response is None and self.sent_all:
            return
        # An early refusal ends the request: the rest of the body is not wanted,
        # and neither is a long explanation.
        self.response = response or self._parser.head
        if self.sent_all and self._parser.keep_alive:
            self._pool.give(self._open)
            self._connection = None
        else:
            self.close()

    # --- ends

    def _guard(self, step: Callable[[], None]) -> None:
        """Run a step; whatever breaks becomes this server's error."""
        try:
            step()
        except AnswerError as error:
            reason = f"its answer is not usable: {error}"
            self.abandon(BadAnswer(self.server.name, reason), error)
        except (access.NoCredentials, ConfigurationError) as error:
            self.abandon(NoAccess(self.server.name, str(error)), error)
        except _Unusable as error:
            self.abandon(FileCut(self.server.name, str(error)), error)
        except OSError as error:
            self._lost(error)

    def _lost(self, error: OSError) -> None:
        """The connection broke."""
        if self._state is State.CONNECTING:
            self.close()
            self._connect(error.strerror or str(error))
            return
        if self._is_refused(error):
            return
        self._read_last_words()
        if self.finished:
            return
        again = not self.request.changes or not self.sent_all
        if self._reused and again and not self._parser.touched:
            self._send_again()
            return
        reason = f"lost the connection: {error.strerror or error}"
        self.abandon(ConnectionLost(self.server.name, reason), error)

    def _is_refused(self, error: OSError) -> bool:
        """Whether one side does not accept the other's certificate; then that is the end."""
        own = bool(self._pool.access.certificate)
        handshaking = self._state is State.HANDSHAKE
        if self._reused and not handshaking:
            return False  # the certificates were looked at long ago
        reason = access.refusal(error, has_certificate=own, handshaking=handshaking)
        if reason:
            self.sent_all = False
            self.abandon(NoAccess(self.server.name, reason), error)
        return bool(reason)

    def _read_last_words(self) -> None:
        """A server that refuses a body may answer and close; the answer can still be read."""
        if self._state is not State.SENDING:
            return
        try:
            self._receive()
        except OSError as error:
            self._is_refused(error)
        except AnswerError:
            return

    def _send_again(self) -> None:
        self.close()
        self._reused = False
        self.sent_all = False
        self._parser = AnswerParser(self.request.method)
        self._look_up()

    def _enter(self, state: State, interest: int, within: float) -> None:
        self._state = state
        self.interest = interest
        self.progress_at = self._clock()
        self.due = self.progress_at + within

    def _moved(self) -> None:
        """There was progress: note it, and renew the window of the floor."""
        now = self.progress_at = self._clock()
        if self._state is not State.SENDING:
            return
        since, offset = self._window
        if self._offset - offset >= self._limits.floor * self._limits.window:
            self._window = (now, self._offset)
            self.due = now + self._limits.window
        else:
            self.due = since + self._limits.window

    def _overdue(self) -> str:
        limits = self._limits
        if self._state in {State.CONNECTING, State.HANDSHAKE}:
            return f"no connection within {limits.timeout:g} s"
        if self._state is State.SENDING:
            return (
                f"took less than {limits.floor // 1024} KB/s over {limits.window:g} s "
                f"({self._offset} of {self.request.size} bytes)"
            )
        return f"no answer within {limits.answer_within(self.request.size):.1f} s"

    def close(self) -> None:
        """Close the connection, if it is still this exchange's own."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Unusable(Exception):
    """The file is shorter than it was, or can't be read; the text says which."""
