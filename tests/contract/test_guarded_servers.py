"""Who may do what on nginx, lighttpd and Apache, as the documentation's pages set them up."""

from __future__ import annotations

import base64
import http.client
import re
import shutil
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import trustme
from django.core.files.base import ContentFile

from outgrow.errors import NotEnoughServers
from outgrow.media import DistributedStorage
from tests.live.nginx import Nginx, binary
from tests.live.processes import missing, server_folder
from tests.live.web_servers import CONF, Apache, Lighttpd, running
from tests.media.embedded import running as running_embedded
from tests.test_docs import nginx_of

PAGE = CONF.parent / "media-servers.md"


def nginx_block() -> str:
    """The blocks of the page for nginx."""
    found = re.search(r"^```nginx\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


@contextmanager
def started(server: Nginx) -> Iterator[Nginx]:
    binary()
    try:
        server.start()
        yield server
    finally:
        server.stop()


# --- TLS, with a certificate or a password


class Keys:
    """An authority, what it issued, and a file of passwords, below a folder `tls`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        self._write(authority.issue_cert("127.0.0.1"), "media1")
        self._write(authority.issue_cert("app1.example"), "app1")
        self._write(trustme.CA().issue_cert("app1.example"), "stranger")
        program = shutil.which("openssl")
        if program is None:
            missing("openssl is not installed", "apt-get install openssl")
        words = [program, "passwd", "-apr1", "hunter2"]
        crypted = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        (folder / "passwords").write_text(f"outgrow:{crypted}")

    def _write(self, cert: trustme.LeafCert, name: str) -> None:
        cert.private_key_pem.write_to_path(str(self.folder / f"{name}-key.pem"))
        cert.cert_chain_pems[0].write_to_path(str(self.folder / f"{name}.pem"))

    def shown(self, name: str) -> dict[str, str]:
        files = {"certificate": self.folder / f"{name}.pem", "key": self.folder / f"{name}-key.pem"}
        return {option: str(file) for option, file in files.items()}

    def options(self, access: str, who: str) -> dict[str, object]:
        """The options of a storage that is the `right` one, a `wrong` one, or `nobody`."""
        given: dict[str, object] = {"ca": str(self.folder / "ca.pem")}
        if access == "certificate" and who != "nobody":
            return given | self.shown("app1" if who == "right" else "stranger")
        if access == "password" and who != "nobody":
            secret = "hunter2" if who == "right" else "hunter3"
            return given | {"credentials": {"media1": f"outgrow:{secret}"}}
        return given


def guarded(server: Nginx, text: str, access: str) -> Nginx:
    """An nginx with these blocks, and with the lines for the access in them."""
    lines = (CONF / f"nginx-{access}.conf").read_text()
    for place in ("listen 8080;", "include /etc/nginx/outgrow-access.conf;"):
        text = text.replace(place, lines)
    nginx_of(server, text.replace("/etc/outgrow/", f"{server.folder}/tls/"))
    server._configuration = server._configuration.replace(
        "listen 8443", f"listen 127.0.0.1:{server.port}"
    )
    server.url = server.url.replace("http:", "https:")
    return server


@contextmanager
def nginx(folder: Path, access: str) -> Iterator[Nginx]:
    with started(guarded(Nginx(folder), nginx_block(), access)) as server:
        yield server


@contextmanager
def proxy(folder: Path, access: str) -> Iterator[Nginx]:
    """nginx in front of Outgrow's own server."""
    server = Nginx(folder)
    own = folder / "own"
    own.mkdir()
    with running_embedded(own) as behind:
        text = (CONF / "nginx-proxy.conf").read_text()
        guarded(server, text.replace("127.0.0.1:8080", f"127.0.0.1:{behind.port}"), access)
        server.root = own
        with started(server):
            yield server


@contextmanager
def webdav(kind, folder: Path, access: str):
    server = kind(folder, access)
    try:
        server.start()
        yield server
    finally:
        server.stop()


SERVERS = {
    "nginx": nginx,
    "lighttpd": lambda folder, access: webdav(Lighttpd, folder, access),
    "Apache": lambda folder, access: webdav(Apache, folder, access),
    "our own, behind nginx": proxy,
}


@pytest.fixture(params=["certificate", "password"])
def access(request):
    return request.param


@pytest.fixture(params=SERVERS)
def guard(request, access):
    """A server that lets in who has the right thing to show, and the keys."""
    with server_folder("outgrow-guarded-") as folder, ExitStack() as stack:
        keys = Keys(folder / "tls")
        yield stack.enter_context(SERVERS[request.param](folder, access)), keys


def storage(guard, access: str, who: str) -> DistributedStorage:
    server, keys = guard
    return DistributedStorage(
        servers={"media1": server.url}, journal="none", **keys.options(access, who)
    )


def raw(guard, access: str, who: str, method: str, path: str) -> int:
    """The status of one request, by a client that does nothing else; 0 without an answer."""
    server, keys = guard
    options = keys.options(access, who)
    context = ssl.create_default_context(cafile=options["ca"])
    if "certificate" in options:
        context.load_cert_chain(options["certificate"], options["key"])
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=5, context=context)
    headers = {}
    if "credentials" in options:
        secret = base64.b64encode(options["credentials"]["media1"].encode()).decode()
        headers["Authorization"] = f"Basic {secret}"
    try:
        connection.request(method, path, b"x" if method == "PUT" else None, headers)
        return connection.getresponse().status
    except OSError:  # TLS 1.3 tells of the certificate when something is read
        return 0
    finally:
        connection.close()


@pytest.mark.parametrize("who", ["wrong", "nobody"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "MKCOL", "PROPFIND"])
def test_no_request_of_others_is_carried_out(guard, access, who, method):
    (guard[0].root / "f.txt").write_bytes(b"private")
    assert raw(guard, access, "right", "GET", "/f.txt") == 200
    refused = {0, 400} if access == "certificate" else {401}
    assert raw(guard, access, who, method, "/f.txt") in refused
    assert raw(guard, access, who, method, "/.outgrow/list/") in refused | {403, 404}
    assert (guard[0].root / "f.txt").read_bytes() == b"private"


def held(server) -> set[str]:
    return {path.name for path in server.root.rglob("f_*")}


def test_a_save_a_read_and_a_delete_over_tls(guard, access):
    site = storage(guard, access, "right")
    content = b"over TLS" * 100_000
    name = site.save("folder/f.txt", ContentFile(content))
    assert held(guard[0]) == {name.rpartition("/")[2]}
    with site.open(name) as file:
        assert file.read() == content
    assert site.size(name) == len(content)
    site.delete(name)
    assert held(guard[0]) == set()
    assert not site.exists(name)


@pytest.mark.parametrize("who", ["wrong", "nobody"])
def test_others_are_refused(guard, access, who):
    right, other = storage(guard, access, "right"), storage(guard, access, who)
    name = right.save("f.txt", ContentFile(b"private"))
    with pytest.raises(NotEnoughServers) as refused:
        other.save("f.txt", ContentFile(b"x"))
    assert "media1" in str(refused.value)
    with pytest.raises(OSError, match="media1"):
        other.open(name).read()
    with pytest.raises(OSError, match="media1"):
        other.delete(name)
    assert held(guard[0]) == {name}
    assert "hunter" not in str(refused.value)


# --- addresses


@contextmanager
def plain_nginx() -> Iterator[Nginx]:
    with server_folder("outgrow-nginx-") as folder:
        server = Nginx(folder)
        nginx_of(server, nginx_block())
        with started(server):
            yield server


PLAIN = {
    "nginx": plain_nginx,
    "lighttpd": lambda: running(Lighttpd),
    "Apache": lambda: running(Apache),
}


@pytest.fixture(params=PLAIN)
def server(request):
    with PLAIN[request.param]() as server:
        (server.root / "folder").mkdir()
        (server.root / "folder" / "f.txt").write_bytes(b"for everybody")
        yield server


TRUSTED, STRANGER = "127.0.0.1", "127.0.0.2"


def ask(server, source: str, method: str, path: str) -> int:
    """The status for a client at this address."""
    connection = http.client.HTTPConnection(
        "127.0.0.1", server.port, timeout=5, source_address=(source, 0)
    )
    more = {
        "PROPFIND": {"Depth": "1"},
        "MOVE": {"Destination": f"{server.url}/moved.txt"},
        "COPY": {"Destination": f"{server.url}/moved.txt"},
    }
    body = b"x" if method == "PUT" else None
    try:
        connection.request(method, path, body, more.get(method, {}))
        return connection.getresponse().status
    except OSError as error:
        if source == STRANGER and error.errno == 99:
            missing("this system has one loopback address only", "Linux")
        raise
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/new.txt"),
        ("PUT", "/folder/f.txt"),
        ("DELETE", "/folder/f.txt"),
        ("DELETE", "/folder/"),
        ("MKCOL", "/other/"),
        ("MOVE", "/folder/f.txt"),
        ("COPY", "/folder/f.txt"),
        ("PROPFIND", "/"),
        ("PROPFIND", "/folder/"),
        ("PROPPATCH", "/folder/f.txt"),
        ("LOCK", "/folder/f.txt"),
        ("OPTIONS", "/"),
    ],
)
def test_a_stranger_may_not_write_or_list(server, method, path):
    assert ask(server, STRANGER, method, path) == 403
    assert [(p.name, p.read_bytes()) for p in server.root.rglob("*.txt")] == [
        ("f.txt", b"for everybody")
    ]
    assert not (server.root / "other").exists()


@pytest.mark.parametrize("name", ["evil.html", "evil.SVG", "evil.mjs"])
def test_what_a_browser_would_run_is_a_download(server, name):
    (server.root / name).write_text("<script>alert(1)</script>")
    (server.root / "f.txt").write_text("text")
    for path, disposition, policy in (
        (f"/{name}", "attachment", "default-src 'none'; sandbox"),
        ("/f.txt", None, None),
    ):
        with urllib.request.urlopen(f"{server.url}{path}", timeout=5) as answer:
            assert answer.headers["Content-Disposition"] == disposition
            assert answer.headers["Content-Security-Policy"] == policy
            assert answer.headers.get_all("X-Content-Type-Options") == ["nosniff"]


def test_a_stranger_may_read_and_sees_no_listing(server):
    assert ask(server, STRANGER, "GET", "/folder/f.txt") == 200
    for path in ("/", "/folder/", "/.outgrow/list/", "/.outgrow/list/folder/"):
        assert ask(server, STRANGER, "GET", path) in {403, 404}
    if isinstance(server, Nginx):
        assert ask(server, STRANGER, "GET", "/.outgrow/list/") == 403
        assert ask(server, TRUSTED, "GET", "/.outgrow/list/") == 200


def test_those_with_an_address_of_the_list_may(server):
    assert ask(server, TRUSTED, "PUT", "/new.txt") == 201
    assert ask(server, TRUSTED, "DELETE", "/new.txt") == 204
    if not isinstance(server, Nginx):
        assert ask(server, TRUSTED, "PROPFIND", "/folder/") == 207
