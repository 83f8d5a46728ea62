"""Small servers of the running site, a thread for each connection, that end for certain.

`close` returns when the last thread has ended: it cuts the connections that are open, so
nobody who says nothing keeps it waiting.
"""

from __future__ import annotations

import socket
import socketserver
import sys
import threading
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, TypeAlias

_Request: TypeAlias = socket.socket | tuple[bytes, socket.socket]

#: Seconds between two looks whether the server is to end.
_POLL: Final = 0.05


class Listening(socketserver.ThreadingMixIn, socketserver.BaseServer):
    """To be mixed into a server of `socketserver`."""

    #: Closing waits for threads that are none.
    daemon_threads = False

    _open: set[_Request]
    _lock: threading.Lock
    _thread: threading.Thread | None = None

    def serve(self, name: str) -> None:
        """Serve in a thread of this name until `close`. The server must be listening."""
        self._open, self._lock = set(), threading.Lock()
        self._thread = threading.Thread(
            target=self.serve_forever, args=(_POLL,), name=name, daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """End it, and every connection, and wait for the threads."""
        if self._thread is None:
            self.server_close()
            return
        self.shutdown()
        self._thread.join()
        with self._lock:
            for connection in self._open:
                # Those of TCP and of Unix sockets alike; only datagrams come as tuples.
                if isinstance(connection, socket.socket):
                    with suppress(OSError):  # the other end has closed it already
                        connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def process_request(self, request: _Request, client_address: Any) -> None:
        """As the base; it is known to be open."""
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: _Request) -> None:
        """As the base; it is not open any more."""
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: _Request, client_address: Any) -> None:
        """Say what broke, unless a client has gone: the output is the site's."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class Served:
    """What is served from when it is entered as a context until it is left.

    `__enter__` sets the server.
    """

    _server: Listening | None = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
