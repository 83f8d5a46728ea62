"""Every balancer that Outgrow renders, as a process with what is rendered for it."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from outgrow.testing import free_port
from outgrow.topology.front import Front
from outgrow.topology.model import Port
from outgrow.topology.render import File, apache_front, caddy, haproxy, nginx_front
from tests.fastcgi import serving
from tests.live.processes import (
    all_have_status,
    family,
    kill_family,
    launched,
    missing,
    server_folder,
    unprivileged,
    wait_until,
)

PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"


@dataclass(frozen=True)
class Program:
    """How one balancer is rendered, started and asked whether it likes what it reads.

    In the words {conf} is the configuration and {state} the folder of it.
    """

    name: str
    package: str
    render: Callable[[Front, Path], Iterable[File]]
    start: tuple[str, ...]
    check: tuple[str, ...]

    def words(self, words: tuple[str, ...], state: Path, conf: Path) -> list[str]:
        program = shutil.which(words[0], path=PATH)
        if program is None:
            missing(f"{words[0]} is not installed", f"apt-get install {self.package}")
        rest = (word.replace("{conf}", str(conf)).replace("{state}", str(state)) for word in words)
        return [program, *list(rest)[1:]]


_NGINX = ("nginx", "-p", "{state}", "-e", "stderr", "-c", "{conf}")

PROGRAMS = {
    one.name: one
    for one in (
        Program("nginx", "nginx-light", nginx_front.render, _NGINX, (*_NGINX, "-t", "-q")),
        Program(
            "haproxy",
            "haproxy",
            lambda front, state: haproxy.render(front, _pem(front, state)),
            ("haproxy", "-W", "-db", "-f", "{conf}"),
            ("haproxy", "-c", "-q", "-f", "{conf}"),
        ),
        Program(
            "apache",
            "apache2-bin",
            apache_front.render,
            ("apache2", "-DFOREGROUND", "-f", "{conf}"),
            ("apache2", "-t", "-f", "{conf}"),
        ),
        Program(
            "caddy",
            "caddy",
            caddy.render,
            ("caddy", "run", "--adapter", "caddyfile", "--config", "{conf}"),
            ("caddy", "validate", "--adapter", "caddyfile", "--config", "{conf}"),
        ),
    )
}


def _pem(front: Front, state: Path) -> Path | None:
    """Certificate and key in one file, as HAProxy wants them."""
    if front.options.certificate is None or front.options.certificate_key is None:
        return None
    parts = (front.options.certificate, front.options.certificate_key)
    pem = state / "both.pem"
    pem.write_text("".join(Path(one).read_text() for one in parts))
    return pem


class Balancer(serving.Front):
    """A balancer that runs, and a visitor who does not come from where it stands."""

    source = "127.0.0.2"

    def __init__(self, program: Program, front: Front, folder: Path) -> None:
        super().__init__(front.listen.number)
        self.program = program
        self.front = front
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        conf = written(self.program, self.front, self.folder)
        words = self.program.words(self.program.start, self.folder, conf)
        environment = {**os.environ, "HOME": str(self.folder)}
        self._process = launched(words, self.folder, environment)
        wait_until(self._listens, f"{self.program.name} does not listen")

    def _listens(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError((self.folder / "output").read_text())
        connection = self.connection(1)
        with suppress(OSError), closing(connection):
            connection.connect()
            return True
        return False

    def reload(self, front: Front, signal: int) -> None:
        """Take up another configuration; returns when nobody goes by the old one any more."""
        assert self._process is not None
        self.front = front
        written(self.program, front, self.folder)
        old = family(self._process.pid)[1:]
        self._process.send_signal(signal)
        wait_until(lambda: all_have_status(old, psutil.STATUS_ZOMBIE), "the old ones are left")

    def stop(self) -> None:
        if self._process is None:
            return
        kill_family(self._process)
        self._process = None


def written(program: Program, front: Front, folder: Path) -> Path:
    """The files in a folder that the program may write to; the path of the first."""
    paths = []
    for file in program.render(front, folder):
        path = folder / file.name
        path.write_text(file.content)
        paths.append(path)
    if user := unprivileged():
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, *user)
    return paths[0]


@contextmanager
def balancer(program: Program, make: Callable[[Port], Front]) -> Iterator[Balancer]:
    """One that runs as long as the block lasts, at a port of its own."""
    with server_folder(f"outgrow-{program.name}-") as folder:
        front = make(Port("127.0.0.1", free_port()))
        running = Balancer(program, front, folder)
        try:
            running.start()
            yield running
        except http.client.HTTPException:
            print((folder / "output").read_text())
            raise
        finally:
            running.stop()
