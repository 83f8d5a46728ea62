"""A bucket that is made when it is needed, and not before."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import botocore.exceptions
import pytest
from django.core.files.base import ContentFile

from outgrow.errors import ConnectFailed, NoAccess, NoBucket
from outgrow.names import token
from outgrow.objects import ObjectStorage
from outgrow.testing import free_port
from tests.live.engines import Engine
from tests.objects.test_storages import Unsized


@pytest.fixture
def missing(engine: Engine) -> Iterator[str]:
    """The name of a bucket that is not there; whatever was made is removed."""
    name = f"outgrow-{token()}"
    yield name
    client = engine.client()
    with suppress(botocore.exceptions.ClientError):
        for one in client.list_objects_v2(Bucket=name).get("Contents", []):
            client.delete_object(Bucket=name, Key=one["Key"])
        client.delete_bucket(Bucket=name)


def make(engine: Engine, bucket: str, **options: Any) -> ObjectStorage:
    return ObjectStorage(**engine.options(bucket) | {"auto_create_bucket": True} | options)


def buckets(engine: Engine) -> set[str]:
    return {one["Name"] for one in engine.client().list_buckets()["Buckets"]}


@pytest.mark.parametrize("size", [1, 6 << 20])
def test_the_first_file_makes_the_bucket(engine: Engine, missing: str, size: int) -> None:
    storage = make(engine, missing, part_size=5 << 20)
    with pytest.raises(NoBucket):
        storage.exists("a.txt")
    assert missing not in buckets(engine)
    name = storage.save("a.txt", ContentFile(bytes(size)))
    assert engine.held(missing) == {name: bytes(size)}


def test_without_the_option_none_is_made(engine: Engine, missing: str) -> None:
    with pytest.raises(NoBucket):
        make(engine, missing, auto_create_bucket=False).save("a.txt", ContentFile(b"x"))
    assert missing not in buckets(engine)


def test_several_at_once(engine: Engine, missing: str) -> None:
    storage = make(engine, missing)
    with ThreadPoolExecutor(4) as pool:
        names = set(pool.map(lambda _: storage.save("a.txt", ContentFile(b"x")), range(4)))
    assert engine.held(missing).keys() == names


def test_a_stream_that_can_t_be_read_again_is_not_half_saved(engine: Engine, missing: str) -> None:
    class Once(Unsized):
        def seekable(self) -> bool:
            return False

    storage = make(engine, missing)
    with pytest.raises(NoBucket):
        storage.save("a.txt", Once(io.BytesIO(b"content")))
    assert engine.held(missing) == {}
    storage.save("a.txt", Once(io.BytesIO(b"content")))
    assert set(engine.held(missing).values()) == {b"content"}


def test_a_wrong_key_makes_none(swift: Engine) -> None:
    with pytest.raises(NoAccess):
        make(swift, f"outgrow-{token()}", secret_key="wrong").save("a.txt", ContentFile(b"x"))


def test_who_can_t_make_one_says_so(swift: Engine) -> None:
    from outgrow.conf import object_options
    from outgrow.objects import creation

    options = object_options({"location": "s3://bucket", "endpoint": swift.endpoint})[0]
    with pytest.raises(NoAccess, match="only with 'access_key'"):
        creation.create(options)
    given = swift.options("bucket") | {"endpoint": f"http://127.0.0.1:{free_port()}"}
    with pytest.raises(ConnectFailed, match="could not be made"):
        creation.create(object_options(given)[0])
    given = swift.options("bucket") | {"secret_key": "wrong"}
    with pytest.raises(NoAccess, match=r"could not be made.*wrong signature"):
        creation.create(object_options(given)[0])
