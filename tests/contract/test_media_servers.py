"""What every media server must do for Outgrow: nginx, lighttpd, Apache, and our own."""

from __future__ import annotations

import hashlib
import http.client
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.core.exceptions import SuspiciousFileOperation
from django.core.files.base import ContentFile, File

from outgrow.errors import NotEnoughServers
from outgrow.media import HybridStorage
from outgrow.media.repair import Repair
from outgrow.names import MASTER_ID_FILE
from outgrow.testing import MediaServer
from tests.live.nginx import running_nginx
from tests.live.processes import server_folder
from tests.live.web_servers import Apache, Lighttpd, running
from tests.media.embedded import running as running_embedded


@contextmanager
def embedded() -> Iterator[object]:
    with server_folder("outgrow-own-") as folder:
        (folder / "root").mkdir()
        with running_embedded(folder / "root") as server:
            server.url = f"http://127.0.0.1:{server.port}"
            yield server


@contextmanager
def for_tests(folder) -> Iterator[MediaServer]:
    with MediaServer(folder / "copies") as server:
        server.root = folder / "copies"
        server.root.mkdir()
        yield server


SERVERS = {
    "nginx": lambda _: running_nginx(),
    "lighttpd": lambda _: running(Lighttpd),
    "Apache": lambda _: running(Apache),
    "our own": lambda _: embedded(),
    "that for tests": for_tests,
}


@pytest.fixture(params=SERVERS)
def server(request, tmp_path):
    with SERVERS[request.param](tmp_path) as server:
        yield server


@pytest.fixture
def make(server, tmp_path):
    def make(**options):
        given = {"location": tmp_path / "master", "base_url": "/", "servers": [server.url]}
        return HybridStorage(**(given | {"downtime": 0.1} | options))

    return make


def held(server) -> dict[str, bytes]:
    return {
        str(path.relative_to(server.root)): path.read_bytes()
        for path in server.root.rglob("*")
        if path.is_file() and path.name != MASTER_ID_FILE and ".outgrow" not in str(path)
    }


def heal(storage) -> None:
    report = Repair(storage.replication).once(settle=False)
    assert report.complete, report


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 5_000_000])
def test_bodies_of_every_size(make, server, size):
    content = os.urandom(size)
    name = make().save("f.bin", ContentFile(content))
    assert held(server) == {name: content}


@pytest.mark.parametrize(
    "name",
    [
        "a/b/c/d.txt",
        "with space.txt",
        "über/été.jpg",
        'quote\'s & "more".txt',
        "a+b=c;d,e!f$g(h)@i~j.txt",
        "100% sure.txt",
        "hash#question?.txt",
        "[x]{y}|z^`.txt",
        "日本/写真.png",
    ],
)
def test_names(make, server, name):
    storage = make(names="keep")
    storage.save(name, ContentFile(b"x"))
    assert held(server) == {name: b"x"}
    storage.delete(name)
    assert held(server) == {}


def test_many_files_over_one_connection(make, server):
    storage = make()
    names = {storage.save(f"folder{n % 7}/{n}.txt", ContentFile(b"%d" % n)) for n in range(100)}
    assert held(server).keys() == names
    for name in names:
        storage.delete(name)
    assert held(server) == {}


def test_a_file_is_replaced(make, server):
    storage = make(names="keep", allow_overwrite=True)
    for content in (b"first", b"and second", b"3"):
        storage.save("f.txt", ContentFile(content))
        assert held(server) == {"f.txt": content}


def test_a_name_that_became_a_folder_keeps_what_is_in_it(make, server):
    storage = make(names="keep")
    (server.root / "album").mkdir()
    (server.root / "album" / "photo.jpg").write_bytes(b"dear")
    storage.delete("album")
    Repair(storage.replication).once(settle=False)
    assert held(server) == {"album/photo.jpg": b"dear"}


def test_a_file_that_is_deleted_twice(make, server):
    storage = make()
    name = storage.save("f.txt", ContentFile(b"x"))
    storage.delete(name)
    storage.delete(name)
    heal(storage)
    assert held(server) == {}


def test_a_large_file_from_the_disk(make, server, tmp_path):
    path = tmp_path / "large"
    path.write_bytes(os.urandom(1 << 20) * 16)
    with path.open("rb") as file:
        name = make().save("large.bin", File(file))
    assert held(server)[name] == path.read_bytes()


def test_repair_compares_and_mends(make, server):
    storage = make()
    kept, gone = (storage.save("f/f.txt", ContentFile(b"content")) for _ in range(2))
    content = (server.root / gone).read_bytes()
    storage.delete(gone)
    (server.root / gone).write_bytes(content)
    (server.root / kept).unlink()
    for one in storage.options.servers:
        storage.journal.owe_all(one.name)
    heal(storage)
    assert held(server)[kept] == b"content"
    assert ask(server, "GET", f"/{kept}") == 200
    assert ask(server, "GET", f"/{gone}") == 404


@pytest.mark.parametrize("name", ["../escaped.txt", ".hidden", "a/.htaccess"])
def test_hostile_names_never_get_there(make, server, name):
    storage = make()
    with pytest.raises(SuspiciousFileOperation):
        storage.save(name, ContentFile(b"x"))
    assert held(server) == {}


def test_a_server_of_another_master_is_not_written_to(make, server, tmp_path):
    make().save("f.txt", ContentFile(b"x"))
    with pytest.raises(NotEnoughServers, match="belongs to the master"):
        make(location=tmp_path / "another").save("g.txt", ContentFile(b"x"))
    assert len(held(server)) == 1


# --- listings

NAMES = ["a-b.txt", "a.txt", "a/b/c.txt", "a/ü und & mehr.txt", "a0.txt", "日本/写真.png"]


@pytest.fixture
def listed(make, server):
    """The storage, and its server as a listing has it; with files in it."""
    storage = make(names="keep")
    for size, name in enumerate(NAMES):
        storage.save(name, ContentFile(b"x" * size))
    (one,) = storage.transport.servers

    def listed(prefix: str = "", **more):
        return list(storage.transport.list(one, prefix, **more))

    return listed


def test_a_server_says_what_it_has(listed, server):
    found = listed()
    assert [(one.name, one.size) for one in found] == [
        (name, size) for size, name in sorted(enumerate(NAMES), key=lambda one: one[1])
    ]
    for one in found:
        if one.date:
            assert abs(one.modified - time.time()) < 60


@pytest.mark.parametrize(
    ("prefix", "names"),
    [
        ("a/", ["a/b/c.txt", "a/ü und & mehr.txt"]),
        ("a/b/c", ["a/b/c.txt"]),
        ("a", NAMES[:5]),
        ("日", ["日本/写真.png"]),
        ("nowhere/", []),
    ],
)
def test_a_part_of_what_a_server_has(listed, prefix, names):
    assert [one.name for one in listed(prefix)] == names


def test_dotfiles_and_links_are_in_no_listing(listed, server, tmp_path):
    (server.root / ".hidden").write_bytes(b"x")
    (server.root / ".folder").mkdir()
    (server.root / ".folder" / "f.txt").write_bytes(b"x")
    assert [one.name for one in listed()] == NAMES


def test_an_uploaded_index_hides_nothing(make, server):
    storage = make(names="keep")
    for name in ("index.html", "a/index.html", "a/f.txt"):
        storage.save(name, ContentFile(b"<h1>Nothing here</h1>"))
    found = storage.transport.list(storage.transport.servers[0])
    assert [one.name for one in found] == ["a/f.txt", "a/index.html", "index.html"]


def test_digests_where_a_server_gives_them(listed, server, request):
    found = listed(digests=True)
    assert [one.name for one in found] == sorted(NAMES)
    if "our own" in request.node.name:
        for one in found:
            assert one.digest == hashlib.sha256(b"x" * one.size).hexdigest()


def test_an_empty_server(make, server):
    storage = make()
    storage.save("f.txt", ContentFile(b"x"))
    for path in server.root.glob("f_*"):
        path.unlink()
    assert list(storage.transport.list(storage.transport.servers[0])) == []


def ask(server, method: str, target: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request(method, target, headers={"Content-Length": "0"})
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize("server", ["lighttpd", "Apache", "our own"], indirect=True)
def test_nobody_reaches_a_dotfile(make, server):
    (server.root / ".secret").write_bytes(b"never")
    for method in ("GET", "PUT", "DELETE"):
        assert ask(server, method, "/.secret") in {400, 403, 404}
    assert (server.root / ".secret").read_bytes() == b"never"


#: Which server honours what: the table in docs/howto/media-servers.md says the same.
CONDITIONS = {"nginx": False, "lighttpd": True, "Apache": True, "our own": True}


@pytest.mark.parametrize("server", CONDITIONS, indirect=True)
def test_what_differs_is_as_the_documentation_has_it(make, server, request):
    honours = CONDITIONS[request.node.callspec.params["server"]]
    name = make().save("f.txt", ContentFile(b"first"))
    again = {"If-None-Match": "*", "Content-Length": "1"}
    assert status(server, "PUT", f"/{name}", again, b"2") == (412 if honours else 204)
    other = {"If-Match": '"another"'}
    assert status(server, "DELETE", f"/{name}", other) == (412 if honours else 204)


def status(server, method: str, target: str, headers: dict[str, str], body: bytes = b"") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request(method, target, body, headers)
    found = connection.getresponse().status
    connection.close()
    return found
