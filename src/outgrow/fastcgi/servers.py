"""Processes or threads that answer a web server by FastCGI; flup speaks the protocol.

The laws:

1. Whoever is told to stop (SIGTERM, SIGINT, SIGHUP) accepts nothing any more, lets the running
   requests end, for `grace` seconds at most, and then ends for certain.
2. A connection is never refused because all are busy: it waits in the kernel's queue, where
   the web server's own time-outs watch it.
3. A process whose parent has gone ends when it has answered.

flup's own servers keep none of them. The one with processes does not notice SIGTERM while nothing
happens (Python restarts what a signal has interrupted, PEP 475), breaks busy processes off, and
takes each for idle, for it compares bytes with a text; the one with threads closes connections
beyond its threads (flup 1.0.3).
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait as first_ready
from typing import Any, Final, NoReturn

from outgrow.errors import MissingExtra
from outgrow.fastcgi.options import Options

_logger: Final = logging.getLogger("outgrow.fastcgi")

#: Seconds between two looks whether the running requests have ended.
_LOOK: Final = 0.05

#: A process that ends sooner after its start, in seconds, is not replaced at once.
_TOO_SOON: Final = 1.0

_STOPPING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_BUSY: Final = b"\0"
_IDLE: Final = b"\1"

#: A WSGI application.
Application = Callable[..., Any]


def serve(application: Application, options: Options, listening: socket.socket) -> None:
    """Answer on an open socket until a signal ends it.

    To be called in the main thread of a process that has no others: it sets the handlers of
    signals, and forks. Raises MissingExtra where flup is not installed.
    """
    base = flup()
    listening.settimeout(0)
    stop = _Stop()
    if options.method == "threaded":
        _Threads(base, application, options).run(listening, stop)
    else:
        _Family(base, application, options).run(listening, stop)


def flup() -> Any:
    """The module of flup that speaks FastCGI. Raises MissingExtra where it is not installed."""
    try:
        from flup.server import fcgi_base
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("flup"):
            raise
        raise MissingExtra("runfcgi", "flup", "fastcgi") from error
    return fcgi_base


class _Stop:
    """Whether a signal has told this process to stop; what waits is woken."""

    def __init__(self) -> None:
        self.asked = False
        #: The connection that this process answers.
        self.connection: Any = None
        self._wakes, self._woken = socket.socketpair()
        self._wakes.settimeout(0)
        self._woken.settimeout(0)
        for number in _STOPPING:
            signal.signal(number, self._ask)
        signal.set_wakeup_fd(self._wakes.fileno(), warn_on_full_buffer=False)

    def _ask(self, _number: int, _frame: object) -> None:
        self.asked = True
        if self.connection is not None:
            _let_go(self.connection)

    def wait(self, others: Iterable[Any], timeout: float | None = None) -> list[Any]:
        """Those of the sockets that are ready, at once when a signal has come."""
        ready = first_ready([self._woken, *others], timeout)
        with suppress(BlockingIOError):
            self._woken.recv(4096)
        return [one for one in ready if one is not self._woken]


def _let_go(connection: Any) -> bool:
    """Tell a connection to end if no request is under way; whether it does.

    flup's connections look at this once a second. A web server keeps them open if it is told to
    (nginx by fastcgi_keep_conn).
    """
    if connection._requests:  # noqa: SLF001 - flup has no public name for it
        return False
    connection._keepGoing = False  # noqa: SLF001
    return True


def _accepted(listening: socket.socket) -> tuple[socket.socket, Any] | None:
    """The next connection; None where somebody else has taken it."""
    try:
        client, address = listening.accept()
    except (BlockingIOError, ConnectionAbortedError):
        return None
    client.settimeout(None)
    return client, address


def _close(listening: socket.socket, options: Options) -> None:
    """Listen no more, in no process: those that answer still hold the socket, too.

    But the web server's own socket may be that of others, too, and is only left alone.
    """
    if options.is_own:
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
    listening.close()


# --- threads


class _Threads:
    """Connections of the web server, each in a thread."""

    def __init__(self, base: Any, application: Application, options: Options) -> None:
        self._connection = base.Connection
        self._server = base.BaseFCGIServer(application, multithreaded=True, multiprocess=False)
        self._options = options
        self._free = threading.Semaphore(options.most)
        self._pool = ThreadPoolExecutor(options.most, thread_name_prefix="outgrow-fastcgi")
        self._lock = threading.Lock()
        self._open: set[Any] = set()

    def run(self, listening: socket.socket, stop: _Stop) -> None:
        while not stop.asked:
            if not self._free.acquire(timeout=_LOOK):
                continue
            found = _accepted(listening) if stop.wait([listening]) else None
            if found is None:
                self._free.release()
                continue
            connection = self._connection(*found, self._server, 0)
            with self._lock:
                self._open.add(connection)
            self._pool.submit(self._answer, connection)
        _close(listening, self._options)
        self._end()

    def _answer(self, connection: Any) -> None:
        try:
            connection.run()
        except Exception:
            _logger.exception("A connection to the web server ended with an error.")
        finally:
            with self._lock:
                self._open.discard(connection)
            self._free.release()

    def _end(self) -> None:
        grace = self._options.grace
        deadline = time.monotonic() + grace
        while self._are_busy():
            if time.monotonic() >= deadline:
                _logger.error("After %g seconds requests were running still: they are lost.", grace)
                os._exit(1)  # a thread can't be ended
            time.sleep(_LOOK)
        self._pool.shutdown()

    def _are_busy(self) -> bool:
        """Whether requests are running; connections without one are told to end."""
        with self._lock:
            # All of them are told, also behind the first that is busy.
            return not min(map(_let_go, self._open), default=True)


# --- processes


@dataclass
class _Child:
    """A process that answers; closing `pipe` tells it to end when it is idle."""

    pipe: socket.socket
    born: float
    is_idle: bool = True


class _Family:
    """The parent, which answers nothing, and its processes."""

    def __init__(self, base: Any, application: Application, options: Options) -> None:
        self._connection = base.Connection
        self._server = base.BaseFCGIServer(application, multithreaded=False, multiprocess=True)
        self._options = options
        self._children: dict[int, _Child] = {}
        self._not_before = 0.0  # a new one

    def run(self, listening: socket.socket, stop: _Stop) -> None:
        while not stop.asked:
            self._keep_some(listening)
            by_pipe = {child.pipe: pid for pid, child in self._children.items()}
            for pipe in stop.wait(by_pipe, self._patience()):
                self._hear(by_pipe[pipe])
        _close(listening, self._options)
        self._end()

    def _patience(self) -> float | None:
        """Seconds after which something is to be done, though nobody says anything."""
        left = self._not_before - time.monotonic()
        return max(left, 0.0) if self._wants_more() and left > 0 else None

    def _wants_more(self) -> bool:
        idle = sum(child.is_idle for child in self._children.values())
        return idle < self._options.fewest and len(self._children) < self._options.most

    def _keep_some(self, listening: socket.socket) -> None:
        while self._wants_more() and time.monotonic() >= self._not_before:
            self._spawn(listening)
        idle = [pid for pid, child in self._children.items() if child.is_idle]
        for pid in idle[self._options.spare :]:
            self._children[pid].is_idle = False
            self._children[pid].pipe.shutdown(socket.SHUT_WR)

    def _spawn(self, listening: socket.socket) -> None:
        ours, theirs = socket.socketpair()
        try:
            pid = os.fork()
        except OSError as error:
            ours.close()
            theirs.close()
            _logger.error("No process can be started: %s.", error.strerror)  # noqa: TRY400
            self._not_before = time.monotonic() + _TOO_SOON
            return
        if pid == 0:
            ours.close()
            self._be_child(listening, theirs)
        theirs.close()
        ours.settimeout(0)
        self._children[pid] = _Child(ours, time.monotonic())

    def _hear(self, pid: int) -> None:
        child = self._children[pid]
        said = child.pipe.recv(4096)
        if said:
            child.is_idle = said.endswith(_IDLE)
            return
        self._bury(pid)

    def _bury(self, pid: int) -> None:
        child = self._children.pop(pid)
        child.pipe.close()
        _pid, status = os.waitpid(pid, 0)
        if status:
            _logger.error("A process ended with %s.", _told(status))
        now = time.monotonic()
        if status and now - child.born < _TOO_SOON:
            self._not_before = now + _TOO_SOON

    def _end(self) -> None:
        for pid, child in self._children.items():
            with suppress(OSError):
                child.pipe.shutdown(socket.SHUT_WR)
            os.kill(pid, signal.SIGTERM)  # not reaped yet, so it is still ours
        deadline = time.monotonic() + self._options.grace
        while self._children:
            left = deadline - time.monotonic()
            if left <= 0:
                self._kill_all()
                return
            by_pipe: dict[Any, int] = {one.pipe: pid for pid, one in self._children.items()}
            for pipe in first_ready(by_pipe, left):
                self._hear(by_pipe[pipe])

    def _kill_all(self) -> None:
        grace = self._options.grace
        _logger.error("After %g seconds requests were running still: they are lost.", grace)
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
        for pid in list(self._children):
            self._bury(pid)

    # --- in the child

    def _be_child(self, listening: socket.socket, parent: socket.socket) -> NoReturn:
        status = 1
        try:
            for child in self._children.values():
                child.pipe.close()
            self._answer_all(listening, parent, _Stop())
            status = 0
        except Exception:
            _logger.exception("A process ends with an error.")
        finally:
            # Not sys.exit: what the parent has registered for its end is not for its children.
            logging.shutdown()
            os._exit(status)

    def _answer_all(self, listening: socket.socket, parent: socket.socket, stop: _Stop) -> None:
        left = self._options.requests or -1
        while left and not stop.asked:
            ready = stop.wait([listening, parent])
            if parent in ready:
                return
            found = _accepted(listening) if ready else None
            if found is None:
                continue
            if not _tell(parent, _BUSY):
                found[0].close()
                return
            stop.connection = self._connection(*found, self._server, 0)
            stop.connection.run()
            left -= 1
            if left and not _tell(parent, _IDLE):
                return


def _tell(parent: socket.socket, word: bytes) -> bool:
    try:
        parent.send(word)
    except OSError:
        return False  # it has gone
    return True


def _told(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"the exit code {code}" if code >= 0 else signal.Signals(-code).name


def listen(options: Options) -> socket.socket:
    """The socket that the options mean, open. Raises OSError with its place as filename.

    Of a Unix socket what an earlier process has left is removed, if nobody listens there.
    """
    if options.socket is not None:
        return _unix(options)
    if not options.host:
        return socket.socket(fileno=os.dup(0))  # FastCGI 1.0, section 2.2
    found = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)
    family, kind, _protocol, _name, address = found[0]
    listening = socket.socket(family, kind)
    return _bound(listening, address, options)


def _unix(options: Options) -> socket.socket:
    path = os.fspath(options.socket or "")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)  # nobody listens
        except OSError:
            pass  # there is none; what else is wrong is told by bind
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if options.umask is None:
        return _bound(listening, path, options)
    before = os.umask(options.umask)
    try:
        return _bound(listening, path, options)
    finally:
        os.umask(before)


def _bound(listening: socket.socket, address: Any, options: Options) -> socket.socket:
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(1024)
    except OSError as error:
        listening.close()
        raise OSError(error.errno, error.strerror, options.place) from error
    return listening


def is_socket(descriptor: int) -> bool:
    """Whether a descriptor is a socket that a web server has given to listen at."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as found:
            return bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False
