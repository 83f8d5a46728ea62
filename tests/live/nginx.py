"""A real nginx with its DAV module: started, paused, killed and resumed at will.

The fixtures `nginx` and `three_nginx` give servers that run. They belong to one
test each (nginx starts in some 20 ms), so a test may kill what it likes.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import psutil
import pytest

from outgrow.testing import free_port
from tests.live.processes import (
    all_have_status,
    family,
    missing,
    server_folder,
    unprivileged,
    wait_until,
)

# client_body_temp_path is beside the root, on the same filesystem: else nginx
# copies an upload instead of renaming it (documentation of ngx_http_dav_module).
# min_delete_depth 1 refuses "DELETE /" and still lets a file at the root go.
_CONFIGURATION = """\
daemon off;
worker_processes {workers};
pid {folder}/nginx.pid;
error_log {folder}/error.log notice;
events {{ worker_connections 512; }}
http {{
    log_format requests '$request_method $request_uri $status';
    access_log {folder}/access.log requests;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    default_type application/octet-stream;
    types {{
        text/plain txt;
        image/jpeg jpg jpeg;
        image/png png;
    }}
    keepalive_timeout 75s;
    keepalive_requests 100000;
    server {{
        listen 127.0.0.1:{port};
        root {folder}/root;
        location ^~ /.outgrow/list/ {{
            alias {folder}/root/;
            index .none;
            autoindex on;
            autoindex_format json;
        }}
        location / {{
            dav_methods PUT DELETE MKCOL;
            create_full_put_path {create_full_put_path};
            min_delete_depth 1;
            client_max_body_size 0;
{extra}
        }}
    }}
}}
"""


class Nginx:
    """One nginx below `folder`, on a loopback port that it keeps over restarts.

    `root` is the folder that it serves and `url` its address without a slash at
    the end. `extra` is put into the location as it is. Not thread-safe.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        workers: int = 1,
        create_full_put_path: bool = True,
        extra: str = "",
    ) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.root = folder / "root"
        self.url = f"http://127.0.0.1:{self.port}"
        self._configuration = _CONFIGURATION.format(
            folder=folder,
            port=self.port,
            workers=workers,
            create_full_put_path="on" if create_full_put_path else "off",
            extra=extra,
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the master process lives (paused is alive)."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start, and wait until it answers."""
        assert not self.running, "this nginx runs already"
        self._prepare()
        user = unprivileged()
        command = [binary(), "-p", f"{self.folder}", "-e", "error.log", "-c", "nginx.conf"]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # A group of its own, so that one signal reaches master and workers.
            start_new_session=True,
            user=user[0] if user else None,
            group=user[1] if user else None,
            extra_groups=[] if user else None,
        )
        try:
            wait_until(self._answers, f"nginx on port {self.port} does not answer")
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop for certain: by SIGTERM, or after 5 s by SIGKILL. Harmless when stopped."""
        if self._process is None:
            return
        self._signal(signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """SIGKILL to master and workers at once, and wait until they are gone."""
        if self._process is None:
            return
        processes = family(self._process.pid)
        self._signal(signal.SIGKILL)
        self._process.wait(5)
        wait_until(
            lambda: all_have_status(processes, psutil.STATUS_ZOMBIE), "nginx survived SIGKILL"
        )
        self._process = None

    def pause(self) -> None:
        """SIGSTOP to master and workers: the kernel still accepts connections and data."""
        assert self._process is not None, "this nginx does not run"
        processes = family(self._process.pid)
        self._signal(signal.SIGSTOP)
        wait_until(
            lambda: all_have_status(processes, psutil.STATUS_STOPPED), "nginx was not paused"
        )

    def resume(self) -> None:
        """SIGCONT to master and workers."""
        self._signal(signal.SIGCONT)

    def requests(self) -> list[tuple[str, str, int]]:
        """(method, path, status) of each request that was answered, from the access log."""
        lines = (self.folder / "access.log").read_text("ascii", "backslashreplace").splitlines()
        words = [line.split(" ") for line in lines if not line.endswith(" /-ready 404")]
        return [(method, path, int(status)) for method, path, status in words]

    def _prepare(self) -> None:
        self.root.mkdir(exist_ok=True)
        (self.folder / "nginx.conf").write_text(self._configuration)
        if user := unprivileged():
            os.chown(self.root, *user)

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            log = (self.folder / "error.log").read_text(errors="replace")
            raise RuntimeError(f"nginx ended with {self._process.returncode}:\n{log[-2000:]}")
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"GET /-ready HTTP/1.0\r\n\r\n")
                return connection.recv(5) == b"HTTP/"
        except OSError:
            return False

    def _signal(self, number: signal.Signals) -> None:
        # Unreaped, the master's id (which is the group's) can't be another's yet.
        if self._process is not None and self._process.returncode is None:
            os.killpg(self._process.pid, number)


@cache
def _installed() -> tuple[str | None, bool]:
    """Where nginx is, and whether it can write (has the DAV module)."""
    # Debian keeps it in /usr/sbin, which is not in the PATH of a plain user.
    path = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if path is None:
        return None, False
    version = subprocess.run([path, "-V"], capture_output=True, text=True, timeout=10, check=True)
    return path, "http_dav_module" in version.stderr


@cache
def mime_types() -> Path:
    """The types of files that nginx comes with: beside its own configuration."""
    said = subprocess.run([binary(), "-V"], capture_output=True, text=True, timeout=10, check=True)
    found = re.search(r"--conf-path=(\S+)", said.stderr)
    return Path(found[1] if found else "/etc/nginx/nginx.conf").with_name("mime.types")


def binary() -> str:
    """The path of an nginx with the DAV module; without one the test is skipped."""
    path, writes = _installed()
    if path is None:
        missing("nginx is not installed", "apt-get install nginx-light")
    if not writes:
        missing("this nginx has no ngx_http_dav_module", "apt-get install nginx-light")
    return path


@contextmanager
def running_nginx(
    *, workers: int = 1, create_full_put_path: bool = True, extra: str = ""
) -> Iterator[Nginx]:
    """An nginx that runs, in a folder of its own; stopped and removed at the end."""
    binary()
    with server_folder("outgrow-nginx-") as folder:
        server = Nginx(
            folder, workers=workers, create_full_put_path=create_full_put_path, extra=extra
        )
        try:
            server.start()
            yield server
        finally:
            server.stop()


@pytest.fixture
def nginx() -> Iterator[Nginx]:
    """One nginx that runs."""
    with running_nginx() as server:
        yield server


@pytest.fixture
def three_nginx() -> Iterator[list[Nginx]]:
    """Three nginx servers that run."""
    with ExitStack() as stack:
        yield [stack.enter_context(running_nginx()) for _ in range(3)]
