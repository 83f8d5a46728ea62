"""`manage.py runfcgi` as a process, and requests to the front before it."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from outgrow.testing import free_port
from tests.live.processes import family, unprivileged, wait_until

ROOT = Path(__file__).parents[2]


class Serving:
    """One `runfcgi`, at a Unix socket or a port."""

    def __init__(self, folder: Path, place: str, words: Sequence[str]) -> None:
        self.folder = folder
        self.socket = folder / "site.sock"
        self.port = free_port()
        self.place = place
        self._words = [*self._where(), *words]
        self.process: subprocess.Popen[str] | None = None

    def _where(self) -> list[str]:
        if self.place == "unix":
            return [f"socket={self.socket}", "umask=000"]
        return ["host=127.0.0.1", f"port={self.port}"]

    def changes(self, program: str) -> dict[str, str]:
        """What stands in a front's configuration for this place."""
        unix = f"unix:{self.socket}"
        if program == "lighttpd":
            theirs = '"socket" => "/run/site/site.sock"'
            tcp = f'"host" => "127.0.0.1", "port" => "{self.port}"'
            return {theirs: f'"socket" => "{self.socket}"' if self.place == "unix" else tcp}
        if program == "nginx":
            place = unix if self.place == "unix" else f"127.0.0.1:{self.port}"
            return {"unix:/run/site/site.sock": place}
        place = f"{unix}|fcgi://localhost/" if self.place == "unix" else ""
        theirs = "unix:/run/site/site.sock|fcgi://localhost/"
        return {theirs: place or f"fcgi://127.0.0.1:{self.port}/"}

    def start(self) -> None:
        self.process = started(self._words)
        wait_until(lambda: self.listens() or self._ended(), "runfcgi does not listen")

    def listens(self) -> bool:
        import socket

        family_ = socket.AF_UNIX if self.place == "unix" else socket.AF_INET
        with socket.socket(family_) as probe, suppress(OSError):
            probe.connect(str(self.socket) if self.place == "unix" else ("127.0.0.1", self.port))
            return True
        return False

    def _ended(self) -> bool:
        assert self.process is not None
        if self.process.poll() is None:
            return False
        raise RuntimeError(f"runfcgi ended: {self.process.communicate()}")

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def children(self) -> list[psutil.Process]:
        return family(self.pid)[1:]

    def stop(self) -> None:
        if self.process is not None:
            for one in family(self.process.pid):
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            self.process.communicate(timeout=20)
            self.process = None


def started(words: Sequence[str], **more: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.fastcgi.site"}
    return subprocess.Popen(
        [sys.executable, "-m", "django", "runfcgi", *words],
        **{
            "cwd": ROOT,
            "env": environment,
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            **more,
        },
    )


@contextmanager
def serving(folder: Path, place: str, *words: str) -> Iterator[Serving]:
    found = Serving(folder, place, words)
    try:
        found.start()
        yield found
    finally:
        found.stop()


class Front:
    """A web server before the site."""

    #: Where its visitors come from.
    source = "127.0.0.1"

    def __init__(self, port: int) -> None:
        self.port = port

    def connection(self, timeout: float = 60) -> http.client.HTTPConnection:
        """One that is not open yet."""
        place = (self.source, 0)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout, source_address=place)

    def ask(
        self, path: str, method: str = "GET", body: Any = None, **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = self.connection()
        with closing(connection):
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            chunked = body is not None and not isinstance(body, (bytes, str))
            # Who refuses a body need not have read it.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, path, body, sent, encode_chunked=chunked)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def echo(self, path: str, method: str = "GET", body: Any = None, **headers: str) -> Any:
        status, _headers, content = self.ask(path, method, body, **headers)
        assert status == 200, content
        return json.loads(content)


def open_to_all(folder: Path) -> None:
    """The web server's user must reach the socket."""
    folder.chmod(0o755)
    if user := unprivileged():
        shutil.chown(folder, *user)
