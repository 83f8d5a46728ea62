"""What every storage does, on every kind of media server, and in every object store."""

from __future__ import annotations

import itertools
import os
import pickle
import uuid
from contextlib import ExitStack

import pytest
from django.core.exceptions import SuspiciousFileOperation
from django.core.files.base import ContentFile, File
from django.core.files.storage import Storage

from outgrow.errors import NotEnoughServers
from outgrow.media import AsyncStorage, DistributedStorage, HybridStorage
from outgrow.media.repair import Repair
from outgrow.objects import ObjectStorage
from tests.contract.test_media_servers import SERVERS, held

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "outgrow"])

STORAGES = {
    "hybrid": HybridStorage,
    "async": AsyncStorage,
    "distributed": DistributedStorage,
    "distributed, no database": DistributedStorage,
}


#: Engines of tests/live/stores.py, and what needs no server.
STORES = ("swift", "moto", "folder", "memory")

SUBJECTS = [
    *itertools.product(STORAGES, SERVERS),
    *itertools.product(["object"], STORES),
    pytest.param(("object", "ceph"), marks=pytest.mark.ceph),
]


@pytest.fixture(params=SUBJECTS, ids=", ".join)
def subject(request, tmp_path, engine_named):
    """A storage, what shows its files to another pair of eyes, and the media server."""
    kind, where = request.param
    with ExitStack() as stack:
        if kind == "object":
            yield object_subject(where, stack, tmp_path, engine_named)
            return
        server = stack.enter_context(SERVERS[where](tmp_path))
        options = {"servers": [server.url], "base_url": "/media/", "downtime": 0.1}
        if kind in {"hybrid", "async"}:
            options["location"] = str(tmp_path / "master")
        if kind.endswith("no database"):
            options["journal"] = "none"
        yield STORAGES[kind](**options), lambda: held(server), server


def object_subject(where, stack, tmp_path, engine_named):
    if where == "folder":
        folder = tmp_path / "folder"
        storage = ObjectStorage(location=folder.as_uri(), base_url="/media/")
        return storage, lambda: in_folder(folder), None
    if where == "memory":
        storage = ObjectStorage(location=f"memory://{uuid.uuid4()}", base_url="/media/")
        return storage, lambda: {n: storage.open(n).read() for n, _, _ in storage.walk()}, None
    engine = engine_named(where)
    bucket = stack.enter_context(engine.bucket())
    storage = ObjectStorage(**engine.options(bucket), base_url="/media/")
    return storage, lambda: engine.held(bucket), None


def in_folder(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def storage(subject):
    return subject[0]


@pytest.fixture
def kept(subject):
    """What is kept where the storage keeps its files: name -> content."""
    return subject[1]


def ended(storage: Storage) -> None:
    """What goes on in the background has come to its end."""
    if isinstance(storage, AsyncStorage):
        storage.background.drain(20)


def save(storage: Storage, content: bytes = b"content", name: str = "f.txt") -> str:
    saved = storage.save(name, ContentFile(content))
    ended(storage)
    return saved


@pytest.mark.parametrize("size", [0, 1, 65_537, 3_000_000])
def test_what_is_saved_is_read(storage, kept, size):
    content = os.urandom(size)
    name = save(storage, content)
    assert kept() == {name: content}
    with storage.open(name) as file:
        assert file.read() == content
    assert storage.size(name) == size
    assert storage.exists(name)


def test_a_part_of_a_file(storage):
    content = os.urandom(300_000)
    with storage.open(save(storage, content)) as file:
        file.seek(200_000)
        assert file.read(10) == content[200_000:200_010]
        file.seek(0)
        assert file.read(10) == content[:10]
        file.seek(-5, os.SEEK_END)
        assert file.read() == content[-5:]


@pytest.mark.parametrize("name", ["a/b/c/d.txt", "über/été 1.jpg", "a+b=c;d,e!f$g(h)@i~j.txt"])
def test_names(storage, kept, name):
    saved = save(storage, b"x", name)
    assert saved.rpartition("/")[0] == name.rpartition("/")[0]
    assert kept() == {saved: b"x"}
    assert storage.url(saved).startswith("/media/")
    folder, _, last = saved.rpartition("/")
    assert last in storage.listdir(folder)[1]


def test_the_same_name_twice_is_two_files(storage, kept):
    names = {save(storage, b"%d" % number) for number in range(3)}
    assert len(names) == 3
    assert sorted(kept().values()) == [b"0", b"1", b"2"]


def test_what_is_deleted_is_gone(storage, kept):
    name, other = save(storage), save(storage)
    storage.delete(name)
    storage.delete(name)
    ended(storage)
    assert kept() == {other: b"content"}
    assert not storage.exists(name)
    with pytest.raises(FileNotFoundError):
        storage.open(name).read()


def test_a_file_of_the_disk(storage, kept, tmp_path):
    path = tmp_path / "upload"
    path.write_bytes(os.urandom(1 << 20))
    with path.open("rb") as file:
        name = storage.save("large.bin", File(file))
        assert not file.closed
    ended(storage)
    assert kept()[name] == path.read_bytes()


@pytest.mark.parametrize("name", ["../escaped.txt", "a/.htaccess", "a/../../b.txt"])
def test_names_that_never_get_there(storage, kept, name):
    with pytest.raises(SuspiciousFileOperation):
        storage.save(name, ContentFile(b"x"))
    assert kept() == {}


def test_another_process_has_it_too(storage, kept):
    other = pickle.loads(pickle.dumps(storage))
    name = save(other)
    with storage.open(name) as file:
        assert file.read() == b"content"
    storage.delete(name)
    ended(storage)
    assert kept() == {}


def test_when_it_was_saved(storage):
    first, second = save(storage), save(storage)
    if isinstance(storage, DistributedStorage) and storage.options.journal == "none":
        return  # as the server says it, which has whole seconds, if it says it at all
    assert storage.get_modified_time(first) <= storage.get_modified_time(second)


def with_a_server_to_stop():
    return [one for one in itertools.product(STORAGES, SERVERS) if one[1] != "our own"]


@pytest.mark.parametrize("subject", with_a_server_to_stop(), indirect=True, ids=", ".join)
def test_a_server_that_is_down(storage, subject):
    server = subject[2]
    before = save(storage)
    server.stop()
    late = None
    try:
        late = save(storage)
    except NotEnoughServers:
        assert not isinstance(storage, AsyncStorage)
    server.start()
    Repair(storage.replication).once(settle=False)
    expected = {before: b"content"} | ({late: b"content"} if late else {})
    assert held(server) == expected
