"""A copy of each file that is deleted is left in another bucket."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from django.core.files.base import ContentFile

from outgrow.errors import ConnectionLost, NoAccess, NoBucket
from outgrow.objects import ObjectStorage
from outgrow.objects.examination import examine
from outgrow.testing import free_port
from tests.live.engines import Engine
from tests.live.stores import Make


@pytest.fixture
def kept(engine: Engine) -> Iterator[str]:
    """The bucket for deleted files."""
    with engine.bucket() as name:
        yield name


def test_what_is_deleted_is_kept(make: Make, engine: Engine, bucket: str, kept: str) -> None:
    storage = make(prefix="media", backup_bucket=kept, headers={"Cache-Control": "max-age=7"})
    before = f"{datetime.now(UTC):%Y-%m-%d}"
    name = storage.save("a/été.txt", ContentFile(b"content"))
    storage.delete(name)
    assert engine.held(bucket) == {}
    [(key, content)] = engine.held(kept).items()
    assert content == b"content"
    assert key in {f"{before}/{name}", f"{datetime.now(UTC):%Y-%m-%d}/{name}"}
    head = engine.client().head_object(Bucket=kept, Key=key)
    assert head["CacheControl"] == "max-age=7"


def test_a_format_of_one_s_own_and_several_at_once(
    make: Make, engine: Engine, bucket: str, kept: str
) -> None:
    storage = make(backup_bucket=kept, backup_format="deleted/")
    names = [storage.save("a.txt", ContentFile(b"%d" % number)) for number in range(3)]
    storage.delete_many([*names, "nowhere.txt"])
    assert engine.held(bucket) == {}
    assert set(engine.held(kept)) == {f"deleted/{name}" for name in names}


def test_a_file_that_is_not_there_is_no_error(make: Make, engine: Engine, kept: str) -> None:
    make(backup_bucket=kept).delete("nowhere.txt")
    assert engine.held(kept) == {}


def test_without_the_copy_nothing_is_deleted(make: Make, engine: Engine, bucket: str) -> None:
    storage = make(backup_bucket="outgrow-nowhere")
    name = storage.save("a.txt", ContentFile(b"content"))
    with pytest.raises(NoBucket, match="no bucket 'outgrow-nowhere' for deleted files"):
        storage.delete(name)
    assert engine.held(bucket) == {name: b"content"}


def test_a_store_that_does_not_answer() -> None:
    options = {"location": "s3://b", "endpoint": f"http://127.0.0.1:{free_port()}"}
    storage = ObjectStorage(
        **options, access_key="a", secret_key="b", backup_bucket="kept", timeout=2
    )
    with pytest.raises(ConnectionLost, match="nothing was deleted"):
        storage.delete("a.txt")


def test_it_needs_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    storage = ObjectStorage(location="s3://b", backup_bucket="kept")
    with pytest.raises(NoAccess, match="copied aside only with 'access_key'"):
        storage.delete("a.txt")


def test_what_is_no_file_of_the_site_s_is_not_kept(
    make: Make, engine: Engine, bucket: str, kept: str
) -> None:
    storage = make(backup_bucket=kept)
    storage.save_as("outgrow-incoming/abcdefghijklm", ContentFile(b"x"))
    storage.discard("outgrow-incoming/abcdefghijklm")
    examine(storage, lambda _: None)
    assert engine.held(bucket) == engine.held(kept) == {}
