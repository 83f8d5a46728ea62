"""Web servers with the configurations of the documentation: for media, and for static files."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import ClassVar

from outgrow.testing import free_port
from tests.live.processes import (
    kill_family,
    launched,
    missing,
    server_folder,
    unprivileged,
    wait_until,
)

CONF = Path(__file__).parents[2] / "docs" / "howto" / "conf"


_NGINX = """
worker_processes 1;
pid {folder}/tmp/nginx.pid;
error_log stderr;
events { worker_connections 256; }
http {
    access_log off;
    client_body_temp_path {folder}/tmp/body;
    proxy_temp_path {folder}/tmp/proxy;
    fastcgi_temp_path {folder}/tmp/fastcgi;
    uwsgi_temp_path {folder}/tmp/uwsgi;
    scgi_temp_path {folder}/tmp/scgi;
    {conf}
}
"""


class WebServer:
    """One server below `folder`, on a loopback port that it keeps over restarts."""

    program: ClassVar[str]
    package: ClassVar[str]
    conf: ClassVar[str]
    #: What stands in the documentation -> what stands here.
    places: ClassVar[dict[str, str]]
    #: The words before the path of the configuration.
    words: ClassVar[list[str]]
    #: What stands around the documentation's configuration, with {conf} for that.
    around: ClassVar[str] = "{conf}"

    #: What it answers to a path that nobody has.
    missing: ClassVar[int] = 404

    def __init__(
        self, folder: Path, access: str = "", changes: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        #: Besides `places`: those of one test.
        self.changes = changes or {}
        #: "certificate" or "password": whom it lets in, over TLS, with the files in `tls`.
        self.access = access
        self.root = folder / "root"
        self.port = free_port()
        self.environment = {**os.environ, "HOME": str(folder)}
        self.url = f"http{'s' if access else ''}://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it answers."""
        program = shutil.which(self.program, path="/usr/sbin:/usr/bin:/usr/local/sbin")
        if program is None:
            missing(f"{self.program} is not installed", f"apt-get install {self.package}")
        own = self.configuration()
        for theirs, ours in {**self.places, **self.changes}.items():
            assert theirs in own, f"{theirs} is not in {self.conf}"
            own = own.replace(theirs, ours.format(folder=self.folder, port=self.port))
        if self.access:
            own += (CONF / f"{self.conf.removesuffix('.conf')}-{self.access}.conf").read_text()
            own = own.replace('"/srv/copies"', f'"{self.root}"')
            own = own.replace("/etc/outgrow/", f"{self.folder}/tls/")
        around = self.around.replace("{folder}", str(self.folder))
        (self.folder / "server.conf").write_text(around.replace("{conf}", own))
        user = unprivileged()
        for name in ("root", "tmp"):
            (self.folder / name).mkdir(exist_ok=True)
            if user:
                shutil.chown(self.folder / name, *user)
        words = [program, *self.words, self.folder / "server.conf"]
        self._process = launched(words, self.folder, self.environment)
        wait_until(self._answers, f"{self.program} does not answer")

    def configuration(self) -> str:
        """What the documentation says."""
        return (CONF / self.conf).read_text()

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
            return connection.getresponse().status == self.missing
        return False

    def stop(self) -> None:
        """Kill it and its children. Harmless when stopped."""
        if self._process is None:
            return
        kill_family(self._process)
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
    words: ClassVar = ["-D", "-f"]


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
    words: ClassVar = ["-DFOREGROUND", "-f"]


class StaticNginx(WebServer):
    """nginx before a published folder."""

    program = "nginx"
    package = "nginx-light"
    conf = "static-nginx.conf"
    places: ClassVar = {
        "10.0.0.31:8080": "127.0.0.1:{port}",
        "/srv/www/site": "{folder}/root",
    }
    words: ClassVar = ["-g", "daemon off;", "-e", "stderr", "-c"]
    around = _NGINX


class StaticLighttpd(WebServer):
    """lighttpd with mod_magnet before a published folder."""

    program = "lighttpd"
    package = "lighttpd lighttpd-modules-lua"
    conf = "static-lighttpd.conf"
    places: ClassVar = {
        "10.0.0.31": "127.0.0.1",
        "8080": "{port}",
        "/srv/www/site": "{folder}/root",
        "/etc/lighttpd/static-lighttpd.lua": str(CONF / "static-lighttpd.lua"),
    }
    words: ClassVar = ["-D", "-f"]


class StaticApache(WebServer):
    """Apache before a published folder."""

    program = "apache2"
    package = "apache2-bin"
    conf = "static-apache.conf"
    places: ClassVar = {
        "10.0.0.31:8080": "127.0.0.1:{port}",
        "/srv/www/site": "{folder}/root",
        "/run/apache2/static.pid": "{folder}/tmp/pid",
        "/var/log/apache2/static.log": "{folder}/tmp/log",
    }
    words: ClassVar = ["-DFOREGROUND", "-f"]


class StaticCaddy(WebServer):
    """Caddy before a published folder."""

    program = "caddy"
    package = "caddy"
    conf = "static-Caddyfile"
    places: ClassVar = {
        "10.0.0.31:8080": "127.0.0.1:{port}",
        "/srv/www/site": "{folder}/root",
    }
    words: ClassVar = ["run", "--adapter", "caddyfile", "--config"]
    around = "{ \n admin off \n }\n{conf}"


class FastCGINginx(WebServer):
    """nginx before a site by FastCGI."""

    program = "nginx"
    package = "nginx-light"
    conf = "fastcgi-nginx.conf"
    places: ClassVar = {"10.0.0.11:8080": "127.0.0.1:{port}"}
    words: ClassVar = ["-g", "daemon off;", "-e", "stderr", "-c"]
    around = _NGINX
    missing = 502  # the site is not there yet


class FastCGILighttpd(WebServer):
    """lighttpd before a site by FastCGI."""

    program = "lighttpd"
    package = "lighttpd"
    conf = "fastcgi-lighttpd.conf"
    places: ClassVar = {
        "10.0.0.11": "127.0.0.1",
        "8080": "{port}",
        "/srv/www/empty": "{folder}/root",
        "/var/cache/lighttpd/uploads": "{folder}/tmp",
    }
    words: ClassVar = ["-D", "-f"]
    missing = 503


class FastCGIApache(WebServer):
    """Apache before a site by FastCGI."""

    program = "apache2"
    package = "apache2-bin"
    conf = "fastcgi-apache.conf"
    places: ClassVar = {
        "10.0.0.11:8080": "127.0.0.1:{port}",
        "/srv/www/empty": "{folder}/root",
        "/run/apache2/site.pid": "{folder}/tmp/pid",
        "/var/log/apache2/site.log": "{folder}/tmp/log",
    }
    words: ClassVar = ["-DFOREGROUND", "-f"]
    missing = 503


@contextmanager
def running(kind: type[WebServer], changes: Mapping[str, str] | None = None) -> Iterator[WebServer]:
    """A server for as long as the block lasts; `changes` are in its configuration."""
    with server_folder(f"outgrow-{kind.program}-") as folder:
        server = kind(folder, changes=changes)
        try:
            server.start()
            yield server
        finally:
            server.stop()
