"""A site on shared hosting: what `outgrow render --target shared-hosting` writes, under Apache.

The host has mod_fcgid and lets `.htaccess` say what it likes; the user has a folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner

from outgrow.cli import main
from tests.fastcgi.serving import ROOT, Front
from tests.live import web_servers
from tests.live.processes import missing, server_folder, unprivileged, wait_until

APACHE = """
ServerRoot "/usr/lib/apache2"
LoadModule mpm_event_module modules/mod_mpm_event.so
LoadModule authz_core_module modules/mod_authz_core.so
LoadModule dir_module modules/mod_dir.so
LoadModule mime_module modules/mod_mime.so
LoadModule rewrite_module modules/mod_rewrite.so
LoadModule fcgid_module modules/mod_fcgid.so
ServerName shared
Listen 10.0.0.11:8080
PidFile "{folder}/tmp/pid"
ErrorLog "{folder}/tmp/log"
TypesConfig /dev/null
DocumentRoot "{folder}/root"
AllowEncodedSlashes On
FcgidIPCDir "{folder}/tmp"
FcgidProcessTableFile "{folder}/tmp/table"
FcgidInitialEnv PYTHONPATH "{path}"
FcgidMaxRequestLen 100000000
# By default 3 s for a site to start, which a busy machine may not have.
FcgidConnectTimeout 60
<Directory "{folder}/root">
    AllowOverride All
    Require all granted
</Directory>
"""

TOPOLOGY = """
[site]
name = "mysite"
settings = "tests.fastcgi.site"
wsgi = "tests.fastcgi.site:application"
domains = ["www.example.org"]
media_root = "media"
folder = "{root}"
[servers.shared]
roles = ["app", "media"]
address = "10.0.0.11"
"""


class SharedApache(web_servers.WebServer):
    """The host's Apache. Its configuration is not from the documentation."""

    program = "apache2"
    package = "apache2-bin libapache2-mod-fcgid"
    conf = "fastcgi-apache.conf"
    places: ClassVar = {"10.0.0.11:8080": "127.0.0.1:{port}"}
    words: ClassVar = ["-DFOREGROUND", "-f"]
    missing = 200
    root_of_site = ""

    def configuration(self) -> str:
        return APACHE.replace("{folder}", str(self.folder)).replace("{path}", self.root_of_site)


def interpreter(folder: Path) -> tuple[str, str]:
    """A Python that the server's user may run, and where it finds the site's packages.

    That of the tests may lie in a home that others can't enter: then it is linked elsewhere.
    """
    packages = os.pathsep.join(one for one in sys.path if one.endswith(("src", "site-packages")))
    program = Path(sys.executable)
    if not runs(program, packages):
        program = elsewhere(folder / "python")
    if not runs(program, packages):
        missing("the unprivileged user can't run this Python", "a Python in /usr")
    return str(program), packages


def runs(program: Path, packages: str) -> bool:
    user = unprivileged()
    who: dict[str, Any] = {"user": user[0], "group": user[1], "extra_groups": []} if user else {}
    try:
        subprocess.run(
            [program, "-c", "import django, flup"],
            env={"PYTHONPATH": packages},
            check=True,
            capture_output=True,
            timeout=60,
            **who,
        )
    except (PermissionError, subprocess.CalledProcessError):
        return False
    return True


def elsewhere(folder: Path) -> Path:
    """The interpreter and its library, under another path."""
    base, version = Path(sys.base_prefix), f"python{sys.version_info[0]}.{sys.version_info[1]}"
    ignored = shutil.ignore_patterns("test", "site-packages", "config-*")
    (folder / "bin").mkdir(parents=True)
    linked(str(base / "bin" / version), str(folder / "bin" / version))
    source, place = base / "lib" / version, folder / "lib" / version
    shutil.copytree(source, place, ignore=ignored, copy_function=linked)
    for library in (base / "lib").glob("libpython*"):
        linked(str(library), str(folder / "lib" / library.name))
    # Its own path to its library is one that others can't enter.
    start = folder / "python"
    libraries, program = folder / "lib", folder / "bin" / version
    start.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH={libraries} exec {program} "$@"\n')
    start.chmod(0o755)
    return start


def linked(source: str, place: str) -> str:
    try:
        os.link(os.path.realpath(source), place)
    except OSError:
        shutil.copy2(source, place)  # another file system
    return place


@contextmanager
def hosted(folder: Path) -> Iterator[web_servers.WebServer]:
    python, packages = interpreter(folder)
    topology = folder / "topology.toml"
    topology.write_text(TOPOLOGY.replace("{root}", str(ROOT)))
    (folder / "root").mkdir()
    words = ["render", str(topology), "--target", "shared-hosting", "--python", python]
    done = CliRunner().invoke(main, [*words, "--to", str(folder / "root")])
    assert done.exit_code == 0, done.output
    assert ".htaccess: new" in done.output
    kind = type("Shared", (SharedApache,), {"root_of_site": packages})
    server = kind(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def server() -> Iterator[web_servers.WebServer]:
    if not Path("/usr/lib/apache2/modules/mod_fcgid.so").exists():
        missing("mod_fcgid is not installed", "apt-get install libapache2-mod-fcgid")
    with server_folder("outgrow-shared-") as folder, hosted(folder) as found:
        yield found


@pytest.fixture
def front(server: web_servers.WebServer) -> Front:
    return Front(server.port)


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        ("/", "/"),
        ("/caf%C3%A9", "/café"),
        ("/a%20b/c%25d", "/a b/c%d"),
        ("/a%2Fb", "/a/b"),
        ("/a//b", "/a//b"),
        ("/what%3F", "/what?"),
        ("/index.html", "/index.html"),
    ],
)
def test_paths(front: Front, asked: str, path: str) -> None:
    found = front.echo(f"{asked}?a=1&b=%20")
    assert (found["path"], found["query"], found["script"]) == (path, "a=1&b=%20", "")
    assert "mysite.fcgi" not in found["url"]


def test_requests(front: Front) -> None:
    kind = "application/x-www-form-urlencoded"
    assert front.echo("/form", "POST", b"a=1", Content_Type=kind)["form"] == {"a": ["1"]}
    assert front.echo("/put", "PUT", bytes(2_000_000))["size"] == 2_000_000
    status, _headers, body = front.ask("/page", "HEAD")
    assert (status, body) == (200, b"")
    assert front.ask("/fails")[0] == 500
    assert front.echo("/")["client"] == "127.0.0.1"


def test_what_is_there_is_apache_s(server: web_servers.WebServer, front: Front) -> None:
    (server.root / "static.css").write_text("p { }")
    assert front.ask("/static.css")[2] == b"p { }"


def test_whoever_asks_for_the_script_keeps_its_name(front: Front) -> None:
    found = front.echo("/mysite.fcgi/page")
    assert (found["path"], found["script"]) == ("/mysite.fcgi/page", "/mysite.fcgi")


def test_another_file_in_its_place_restarts_the_site(
    server: web_servers.WebServer, front: Front
) -> None:
    before = front.echo("/")["pid"]
    script = server.root / "mysite.fcgi"
    shutil.copy(script, server.root / "new")
    (server.root / "new").rename(script)
    wait_until(lambda: front.echo("/")["pid"] != before, "the old process answers still")


def test_what_the_first_line_of_a_script_can_not_hold(tmp_path: Path) -> None:
    topology = tmp_path / "topology.toml"
    topology.write_text(TOPOLOGY.replace("{root}", str(ROOT)))
    words = ["render", str(topology), "--target", "shared-hosting", "--to", str(tmp_path)]
    for python in ("/my programs/python", "python3", f"/{'a' * 260}"):
        done = CliRunner().invoke(main, [*words, "--python", python])
        assert done.exit_code == 1
        assert "can't stand in the first line of a script" in done.output
    assert list(tmp_path.iterdir()) == [topology]


def test_dry(tmp_path: Path) -> None:
    topology = tmp_path / "topology.toml"
    topology.write_text(TOPOLOGY.replace("{root}", str(ROOT)))
    words = ["render", str(topology), "--target", "shared-hosting", "--to", str(tmp_path)]
    done = CliRunner().invoke(main, [*words, "--dry-run"])
    assert "RewriteEngine On" in done.output
    assert list(tmp_path.iterdir()) == [topology]
    assert CliRunner().invoke(main, words).exit_code == 0
    assert os.access(tmp_path / "mysite.fcgi", os.X_OK)
    compile((tmp_path / "mysite.fcgi").read_text(), "mysite.fcgi", "exec")
