"""A bucket mounted as a folder: what it is good for, and what it is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage

from outgrow.errors import MasterError
from outgrow.media import HybridStorage
from outgrow.testing import MediaServer
from tests.live.engines import Engine
from tests.live.s3fs import mounted

pytestmark = pytest.mark.fuse


@pytest.fixture
def folder(engine: Engine, bucket: str) -> Iterator[Path]:
    with mounted(engine, bucket) as point:
        yield point


def test_django_s_own_storage_works_on_it(folder: Path, engine: Engine, bucket: str) -> None:
    storage = FileSystemStorage(folder)
    name = storage.save("a/b.txt", ContentFile(b"content"))
    assert name == "a/b.txt"
    assert engine.held(bucket)["a/b.txt"] == b"content"
    with storage.open(name) as file:
        assert file.read() == b"content"
    assert (storage.exists(name), storage.size(name)) == (True, 7)
    assert storage.listdir("a") == ([], ["b.txt"])
    other = storage.save("a/b.txt", ContentFile(b"other"))
    assert other != name
    storage.delete(name)
    assert not storage.exists(name)
    held = engine.held(bucket)
    assert name not in held
    assert held[other] == b"other"


def test_it_is_refused_as_a_master(folder: Path, engine: Engine, bucket: str) -> None:
    with MediaServer() as server:
        storage = HybridStorage(servers={"one": server.url}, location=str(folder))
        with pytest.raises(MasterError, match=r"hard links\. A bucket that is mounted") as raised:
            storage.save("a.txt", ContentFile(b"content"))
        assert str(folder) in str(raised.value)
        assert server.files == {}
    # Nor is a half of anything left: neither the file, nor an id that nobody chose.
    assert not [key for key in engine.held(bucket) if key.endswith(("a.txt", "format", "master"))]


def test_nothing_stays_mounted(engine: Engine, bucket: str) -> None:
    with pytest.raises(ZeroDivisionError), mounted(engine, bucket) as point:
        raise ZeroDivisionError
    assert str(point) not in Path("/proc/self/mounts").read_text()
    assert not point.exists()
