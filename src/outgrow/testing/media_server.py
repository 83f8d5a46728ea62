"""A media server with faults, and a clock, for tests. Needs no Django and no extra package."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import socket
import threading
import urllib.parse
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Self

from outgrow.media import listing
from outgrow.media.lister import LISTING
from outgrow.topology.ports import reserve

# Below the ephemeral ranges of Linux (32768 and up) and macOS (49152 and up).
# Inside one, a client that calls a stopped server may be given that very port
# as its own and be connected to itself, or keep the server from coming back.
# `outgrow up` chooses above these.
_PORTS = range(20_000, 26_000)

#: Workers of pytest-xdist that have ports of their own; what more there are shares them.
_SHARES = 6

Hang = Literal["before-body", "before-answer"]


class FakeClock:
    """A clock that moves when it is told to: call it for the time in seconds."""

    #: The time in seconds.
    now: float

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """The time in seconds."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self.now += seconds


class FolderFiles(MutableMapping[str, bytes]):
    """The files below a folder, as a mapping from relative name to content."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, name: str) -> bytes:
        try:
            return (self.folder / name).read_bytes()
        except OSError as error:
            raise KeyError(name) from error

    def __setitem__(self, name: str, content: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        (self.folder / name).unlink()

    def __contains__(self, name: object) -> bool:
        return (self.folder / str(name)).is_file()

    def __iter__(self) -> Iterator[str]:
        for path in sorted(self.folder.rglob("*")):
            if path.is_file():
                yield path.relative_to(self.folder).as_posix()

    def __len__(self) -> int:
        return sum(1 for _ in self)


class MediaServer:
    """A media server for tests, in threads of this process, on 127.0.0.1.

    It speaks HTTP/1.1 with keep-alive and knows GET, HEAD, PUT, DELETE and MKCOL.
    Its files are in memory, or below `folder` if that is given; a body is held
    in memory either way. `port` 0 chooses a free one; it is kept over restarts.
    With `missing_parent_409` it behaves as lighttpd and Apache do: a PUT into a
    folder that does not exist is refused until MKCOL has made it, and DELETE of
    a folder removes all that is in it. Without it, as nginx does. With `listing` false
    it does not say which files it has, as a plain web server.

    Use it as a context manager, or call `start` and `stop`. The faults may be set
    at any time, from any thread; they hold for requests that come after:

    ::

        read_only       PUT, DELETE and MKCOL are answered with 403
        delay           seconds to wait before each answer
        cut_body_after  close after so many bytes of a GET answer's body
        hang            "before-body": read the head, then nothing more;
                            "before-answer": read the whole request, do nothing yet.
                            `thaw` lets such requests go on: then they are carried
                            out, though the client may have gone long ago
        raw_answer      bytes to send instead of an answer, then close; or a
                            callable that is given the socket as soon as the head is
                            read, and after which it is closed

    Don't fork while it runs: the threads stay with the parent.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        port: int = 0,
        missing_parent_409: bool = False,
        listing: bool = True,
    ) -> None:
        self.files: MutableMapping[str, bytes] = FolderFiles(folder) if folder else {}
        self.folders: set[str] = set()
        #: (method, path as it was sent, status) in the order of the answers. The
        #: status is 0 when the body did not come whole, or `raw_answer` was sent.
        self.log: list[tuple[str, str, int]] = []
        self.port = port
        self.missing_parent_409 = missing_parent_409
        self.listing = listing
        self.read_only = False
        self.delay = 0.0
        self.cut_body_after: int | None = None
        self.hang: Hang | None = None
        self.raw_answer: bytes | Callable[[socket.socket], None] | None = None
        self._fixed: _FixedAnswer | None = None
        self._frozen = False
        self._thaw = threading.Event()
        self._held = 0
        self._lock = threading.Lock()
        self._run: _Run | None = None

    @property
    def url(self) -> str:
        """The address, without a slash at the end. Known once it has been started."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def held(self) -> int:
        """How many requests hang now, because of `hang` or `freeze`."""
        return self._held

    def start(self) -> None:
        """Listen. Raises OSError when the port is taken."""
        if self._run is not None:
            raise RuntimeError("this MediaServer runs already")
        listener = _listen(self.port)
        self.port = listener.getsockname()[1]
        self._run = _Run(self, listener)

    def stop(self) -> None:
        """Close all connections at once, as if killed: what hangs is never carried out.

        The files, the log, the port and the faults stay. Harmless when stopped.
        """
        run, self._run = self._run, None
        if run is not None:
            run.stop(self._release)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def answer_with(
        self,
        status: int | None,
        times: int | None = None,
        *,
        method: str | None = None,
        carry_out: bool = False,
    ) -> None:
        """Answer with this status and do nothing else; None ends it.

        For the next `times` requests, or until further notice; with `method`, only
        requests with that method are answered so, and counted. With `carry_out` the
        request is carried out all the same, as by a server that fails afterwards.
        """
        fixed = _FixedAnswer(status or 0, times, method, carry_out)
        self._fixed = None if status is None else fixed

    def freeze(self) -> None:
        """Stop doing anything, as after SIGSTOP. The system still accepts and buffers."""
        self._frozen = True

    def thaw(self) -> None:
        """Go on after `freeze` or `hang`: what was held is carried out now."""
        self._frozen = False
        self.hang = None
        self._release()

    def _release(self) -> None:
        with self._lock:
            thaw, self._thaw = self._thaw, threading.Event()
        thaw.set()

    def _pass(self, stage: Hang, run: _Run) -> None:
        """Wait here while the server is frozen or told to hang at this stage."""
        with self._lock:
            thaw = self._thaw
            if run.stopping.is_set():
                raise _Gone
            if not self._frozen and self.hang != stage:
                return
            self._held += 1
        try:
            thaw.wait()
        finally:
            with self._lock:
                self._held -= 1
        if run.stopping.is_set():
            raise _Gone

    def _fixed_answer(self, method: str) -> _FixedAnswer | None:
        with self._lock:
            fixed = self._fixed
            if fixed is None or fixed.method not in {None, method}:
                return None
            if fixed.times is not None:
                left = fixed.times - 1
                self._fixed = fixed._replace(times=left) if left > 0 else None
            return fixed

    def _is_folder(self, name: str) -> bool:
        inside = f"{name}/"
        return (
            not name or name in self.folders or any(file.startswith(inside) for file in self.files)
        )

    def _carry_out(
        self, method: str, name: str, headers: _Headers, body: bytes
    ) -> tuple[int, bytes | None]:
        """Do what is asked; give the status, and the content that is to be sent."""
        with self._lock:
            if name.startswith(LISTING):
                content = self._list(name.removeprefix(LISTING)) if self.listing else None
                return (404, None) if content is None else (200, content)
            if method in {"GET", "HEAD"}:
                content = self.files.get(name)
                return (404, None) if content is None else (200, content)
            if not self._conditions_hold(name, headers):
                return 412, None
            action = {"PUT": self._put, "DELETE": self._delete, "MKCOL": self._make_folder}
            return action[method](name, body), None

    def _list(self, folder: str) -> bytes:
        names = sorted(name for name in self.files if name.startswith(folder))
        found = [listing.Entry(name, len(self.files[name])) for name in names]
        return b"".join(map(listing.line, found)) + listing.end(len(found))

    def _conditions_hold(self, name: str, headers: _Headers) -> bool:
        """If-Match and If-None-Match (RFC 9110 §13.1), as far as writers use them."""
        tag = entity_tag(self.files[name]) if name in self.files else None
        match, none_match = headers("If-Match"), headers("If-None-Match")
        if match is not None and (tag is None or match not in {"*", tag}):
            return False
        return none_match is None or tag is None or none_match not in {"*", tag}

    def _put(self, name: str, body: bytes) -> int:
        parents = _parents(name)
        if name.endswith("/") or self._is_folder(name) or any(p in self.files for p in parents):
            return 409
        if self.missing_parent_409 and parents and not self._is_folder(parents[-1]):
            return 409
        status = 204 if name in self.files else 201
        self.files[name] = body
        self.folders.update(parents)
        return status

    def _delete(self, name: str, _body: bytes) -> int:
        if name in self.files:
            self.folders.update(_parents(name))
            del self.files[name]
            return 204
        folder = name.rstrip("/")
        if not self._is_folder(folder):
            return 404
        if not self.missing_parent_409:
            return 409
        for inner in [file for file in self.files if not folder or file.startswith(f"{folder}/")]:
            del self.files[inner]
        self.folders = {f for f in self.folders if not f"{f}/".startswith(f"{folder}/")}
        return 204

    def _make_folder(self, name: str, _body: bytes) -> int:
        folder = name.rstrip("/")
        parents = _parents(folder)
        if folder in self.files or self._is_folder(folder):
            return 405
        if parents and not self._is_folder(parents[-1]):
            return 409
        self.folders.add(folder)
        return 201


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on now, outside the ephemeral range."""
    with _listen(0) as listener:
        return int(listener.getsockname()[1])


def entity_tag(content: bytes) -> str:
    """The ETag that `MediaServer` gives a file with this content."""
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


class _FixedAnswer(NamedTuple):
    status: int
    times: int | None
    method: str | None
    carry_out: bool


class _Gone(Exception):
    """This connection is over; nothing more is read, done or answered."""


_Headers = Callable[[str], str | None]


def _listen(port: int) -> socket.socket:
    """A socket that listens on `port`, or on a free one for 0."""
    # Not the module's own generator: who seeds it (hypothesis does) would have
    # every process choose the same ports.
    for candidate in [port] if port else random.SystemRandom().sample(_own_ports(), 500):
        if not port and not reserve(candidate):
            continue
        listener = socket.socket()
        # A port that was used a moment ago can be used again (TIME_WAIT).
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", candidate))
            listener.listen(128)
        except OSError:
            listener.close()
            if port:
                raise
            continue
        return listener
    raise OSError("500 ports were tried and none is free")


def _own_ports() -> Sequence[int]:
    """The ports that this process may choose from.

    A port that is chosen now is listened on later, and not while a server is stopped:
    meanwhile nobody else must take it. So each worker of pytest-xdist has its own, and
    its children, which inherit the environment, with it.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    if not worker.isdecimal():
        return _PORTS
    each = len(_PORTS) // _SHARES
    first = int(worker) % _SHARES * each
    return _PORTS[first : first + each]


def _parents(name: str) -> list[str]:
    """The folders above a name, outermost first."""
    parts = name.split("/")[:-1]
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]


class _Run:
    """One life of a server, between `start` and `stop`: its sockets and threads."""

    def __init__(self, media: MediaServer, listener: socket.socket) -> None:
        self.media = media
        self.stopping = threading.Event()
        self._listener = listener
        self._connections: dict[threading.Thread, socket.socket] = {}
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, name="MediaServer", daemon=True)
        self._thread.start()

    def stop(self, release: Callable[[], None]) -> None:
        self.stopping.set()
        # A connection of our own wakes accept() on every system.
        with suppress(OSError):
            socket.create_connection(self._listener.getsockname(), 5).close()
        self._thread.join(5)
        self._listener.close()
        with self._lock:
            open_now = dict(self._connections)
        for connection in open_now.values():
            with suppress(OSError):  # the client has closed it already
                connection.shutdown(socket.SHUT_RDWR)
        release()
        for thread in open_now:
            thread.join(5)

    def _accept(self) -> None:
        while True:
            connection, address = self._listener.accept()
            if self.stopping.is_set():
                connection.close()
                return
            thread = threading.Thread(
                target=self._serve, args=(connection, address), name="MediaServer", daemon=True
            )
            with self._lock:
                self._connections[thread] = connection
            thread.start()

    def _serve(self, connection: socket.socket, address: object) -> None:
        # A client that goes away in the middle is what such a server is made for.
        with connection, suppress(_Gone, OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _Handler(connection, address, self)  # type: ignore[arg-type]
        with self._lock:
            del self._connections[threading.current_thread()]


class _Handler(BaseHTTPRequestHandler):
    """The requests of one connection."""

    protocol_version = "HTTP/1.1"
    server: _Run  # type: ignore[assignment]

    def handle_expect_100(self) -> bool:
        """Put it off: what is refused is refused before the body is asked for."""
        return True

    def log_message(self, *_arguments: object) -> None:
        """Nothing on stderr; `MediaServer.log` has it."""

    def _handle(self) -> None:
        media, run = self.server.media, self.server
        if callable(media.raw_answer):
            self._send_raw(media.raw_answer)
        media._pass("before-body", run)
        status = self._early_status()
        if status is None or not self._expects_continue():
            body = self._body()
        else:
            body = b""
            self.close_connection = True
        media._pass("before-answer", run)
        if run.stopping.wait(media.delay):
            raise _Gone
        if media.raw_answer is not None:
            self._send_raw(media.raw_answer)
        content = None
        if status is None:
            status, content = self._carry_out(body)
        elif self._all_the_same:
            self._carry_out(body)
        self._log(status)
        self._send(status, content)

    do_GET = do_HEAD = do_PUT = do_DELETE = do_MKCOL = _handle  # noqa: N815 (http.server's names)

    def _early_status(self) -> int | None:
        """The status of a request that is not to be carried out."""
        media = self.server.media
        fixed = media._fixed_answer(self.command)
        self._all_the_same = fixed is not None and fixed.carry_out
        if fixed is not None:
            return fixed.status
        if media.read_only and self.command not in {"GET", "HEAD"}:
            return 403
        name = self._name()
        safe = self.path.startswith("/") and "\0" not in name
        return 400 if not safe or {".", ".."} & set(name.split("/")) else None

    def _carry_out(self, body: bytes) -> tuple[int, bytes | None]:
        media = self.server.media
        try:
            return media._carry_out(self.command, self._name(), self.headers.get, body)
        except OSError as error:  # the folder's disk, or a name that is too long for it
            full = error.errno in {errno.ENOSPC, errno.EDQUOT}
            return (507 if full else 500), None

    def _name(self) -> str:
        return urllib.parse.unquote(self.path.partition("?")[0]).lstrip("/")

    def _log(self, status: int) -> None:
        self.server.media.log.append((self.command, self.path, status))

    def _expects_continue(self) -> bool:
        return str(self.headers.get("Expect", "")).lower() == "100-continue"

    def _body(self) -> bytes:
        if self._expects_continue():
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" in str(self.headers.get("Transfer-Encoding", "")).lower():
            return b"".join(self._chunks())
        return self._read(self._number(self.headers.get("Content-Length", "0"), 10))

    def _chunks(self) -> Iterator[bytes]:
        # RFC 9112 §7.1: size in hex [; extensions] CRLF data CRLF ... 0 CRLF trailers CRLF
        while size := self._chunk_size():
            yield self._read(size)
            self._read(2)
        while self.rfile.readline(65536).strip():
            pass

    def _chunk_size(self) -> int:
        return self._number(self.rfile.readline(1024).partition(b";")[0], 16)

    def _number(self, text: str | bytes, base: int) -> int:
        try:
            return int(text, base)
        except ValueError:
            self._log(0)
            raise _Gone from None

    def _read(self, size: int) -> bytes:
        data = self.rfile.read(size)
        if len(data) < size:
            self._log(0)
            raise _Gone
        return data

    def _send_raw(self, answer: bytes | Callable[[socket.socket], None]) -> None:
        self._log(0)
        if callable(answer):
            answer(self.connection)
        else:
            self.wfile.write(answer)
        raise _Gone

    def _send(self, status: int, content: bytes | None) -> None:
        self.send_response(status)
        if self._name().startswith(LISTING):
            self.send_header("Content-Type", listing.OWN_TYPE)
        elif content is not None:
            self.send_header("ETag", entity_tag(content))
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(content or b"")))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if content is None or self.command == "HEAD":
            return
        cut = self.server.media.cut_body_after
        self.wfile.write(content[:cut])
        if cut is not None and cut < len(content):
            raise _Gone
