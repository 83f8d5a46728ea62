"""lighttpd and Apache as media servers, with the configurations of the documentation."""

from __future__ import annotations

import http.client
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

from outgrow.testing import free_port
from tests.live.processes import family, missing, server_folder, unprivileged, wait_until

CONF = Path(__file__).parents[2] / "docs" / "howto" / "conf"


class WebServer:
    """One server below `folder`, on a loopback port that it keeps over restarts."""

    program: ClassVar[str]
    package: ClassVar[str]
    conf: ClassVar[str]
    #: What stands in the documentation -> what stands here.
    places: ClassVar[dict[str, str]]
    words: ClassVar[list[str]]

    def __init__(self, folder: Path, access: str = "") -> None:
        self.folder = folder
        #: "certificate" or "password": whom it lets in, over TLS, with the files in `tls`.
        self.access = access
        self.root = folder / "root"
        self.port = free_port()
        self.url = f"http{'s' if access else ''}://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it answers."""
        program = shutil.which(self.program, path="/usr/sbin:/usr/bin:/usr/local/sbin")
        if program is None:
            missing(f"{self.program} is not installed", f"apt-get install {self.package}")
        own = (CONF / self.conf).read_text()
        for theirs, ours in self.places.items():
            assert theirs in own, f"{theirs} is not in {self.conf}"
            own = own.replace(theirs, ours.format(folder=self.folder, port=self.port))
        if self.access:
            own += (CONF / f"{self.conf.removesuffix('.conf')}-{self.access}.conf").read_text()
            own = own.replace('"/srv/copies"', f'"{self.root}"')
            own = own.replace("/etc/outgrow/", f"{self.folder}/tls/")
        (self.folder / "server.conf").write_text(own)
        user = unprivileged()
        for name in ("root", "tmp"):
            (self.folder / name).mkdir(exist_ok=True)
            if user:
                shutil.chown(self.folder / name, *user)
        who: dict[str, Any] = dict(zip(("user", "group"), user, strict=True)) if user else {}
        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [program, *self.words, "-f", str(self.folder / "server.conf")],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                extra_groups=[] if who else None,
                **who,
            )
        wait_until(self._answers, f"{self.program} does not answer")

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            said = (self.folder / "output").read_text()
            if "mod_openssl" in said:
                missing("lighttpd has no TLS here", "apt-get install lighttpd-mod-openssl")
            raise RuntimeError(said)
        if self.access:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return True
            return False
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
        with suppress(OSError), closing(connection):
            connection.request("GET", "/is-it-ready")
            return connection.getresponse().status == 404
        return False

    def stop(self) -> None:
        """Kill it and its children. Harmless when stopped."""
        if self._process is None:
            return
        for one in family(self._process.pid):
            with suppress(Exception):
                one.send_signal(signal.SIGKILL)
        self._process.wait(10)
        self._process = None


class Lighttpd(WebServer):
    """lighttpd with mod_webdav."""

    program = "lighttpd"
    package = "lighttpd lighttpd-mod-webdav"
    conf = "lighttpd.conf"
    places: ClassVar = {
        "10.0.0.11": "127.0.0.1",
        "8080": "{port}",
        "/srv/copies-tmp": "{folder}/tmp",
        '"/srv/copies"': '"{folder}/root"',
    }
    words: ClassVar = ["-D"]


class Apache(WebServer):
    """Apache with mod_dav."""

    program = "apache2"
    package = "apache2-bin"
    conf = "apache.conf"
    places: ClassVar = {
        "10.0.0.11:8080": "127.0.0.1:{port}",
        '"/srv/copies"': '"{folder}/root"',
        "/run/apache2/media.pid": "{folder}/tmp/pid",
        "/var/log/apache2/media.log": "{folder}/tmp/log",
        "/var/lib/apache2/media-locks": "{folder}/tmp/locks",
        "/etc/mime.types": "/dev/null",
    }
    words: ClassVar = ["-DFOREGROUND"]


@contextmanager
def running(kind: type[WebServer]) -> Iterator[WebServer]:
    """A server for as long as the block lasts."""
    with server_folder(f"outgrow-{kind.program}-") as folder:
        server = kind(folder)
        try:
            server.start()
            yield server
        finally:
            server.stop()
