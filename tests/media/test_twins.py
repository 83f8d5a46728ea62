"""Asynchronous twins, and deletes that wait for the commit."""

from __future__ import annotations

import asyncio
import gc
import weakref
from contextlib import suppress

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth.models import Group
from django.core.files.base import ContentFile
from django.db import transaction

from outgrow.media import AsyncStorage, DistributedStorage, HybridStorage
from outgrow.testing import MediaServer

in_database = pytest.mark.django_db(transaction=True, databases=["default", "outgrow"])
MASTER_ID = "outgrow-master-id.txt"


@pytest.fixture
def server():
    with MediaServer() as server:
        yield server


@pytest.fixture(params=[HybridStorage, pytest.param(DistributedStorage, marks=in_database)])
def storage(request, server, tmp_path):
    place = {"location": tmp_path} if request.param is HybridStorage else {}
    return request.param(servers=[server.url], base_url="/media/", **place)


async def everything(storage, content: bytes) -> str:
    name = await storage.asave("a/f.bin", ContentFile(content))
    assert await storage.aexists(name)
    assert await storage.asize(name) == len(content)
    assert await storage.aurl(name) == f"/media/{name}"
    async with await storage.aopen(name) as file:
        assert await file.read(3) == content[:3]
        await file.seek(0)
        assert b"".join([chunk async for chunk in file]) == content
        await file.seek(1)
        sizes = [len(chunk) async for chunk in file.chunks(100_000)]
        assert sizes == [100_000, 100_000, len(content) - 200_001]
    await storage.adelete(name)
    assert not await storage.aexists(name)
    return name


def test_the_twins_do_the_same(storage, server):
    asyncio.run(everything(storage, bytes(range(256)) * 1000))
    assert server.files.keys() == {MASTER_ID}


def test_the_loop_goes_on_meanwhile(server, tmp_path):
    storage = HybridStorage(location=tmp_path, servers=[server.url])
    storage.save("first.txt", ContentFile(b"x"))
    server.delay = 0.2

    async def both() -> list[str]:
        beats = []

        async def beat() -> None:
            while True:
                beats.append("beat")
                await asyncio.sleep(0.01)

        beating = asyncio.create_task(beat())
        saves = [storage.asave(f"{n}.txt", ContentFile(b"x")) for n in range(5)]
        await asyncio.gather(*saves)
        beating.cancel()
        return beats

    assert len(asyncio.run(both())) > 5


class Rollback(Exception):
    """The site changes its mind."""


@in_database
@pytest.mark.parametrize("waits", [True, False])
def test_a_delete_in_a_transaction(server, tmp_path, waits):
    storage = HybridStorage(location=tmp_path, servers=[server.url], delete_on_commit=waits)
    one, two = (storage.save("f.txt", ContentFile(b"x")) for _ in range(2))
    with suppress(Rollback), transaction.atomic():
        storage.delete(one)
        assert (one in server.files) is waits
        raise Rollback
    assert storage.exists(one) is waits
    with transaction.atomic():
        storage.delete(two)
    assert not storage.exists(two)
    assert two not in server.files
    storage.delete(one)
    assert one not in server.files


@in_database
@pytest.mark.parametrize("kind", [HybridStorage, AsyncStorage, DistributedStorage])
def test_an_asynchronous_delete_in_a_transaction(server, tmp_path, kind):
    """Its thread must be the transaction's, or it is none for the delete."""
    options = {} if kind is DistributedStorage else {"location": tmp_path}
    if kind is not DistributedStorage:
        options["delete_on_commit"] = True
    storage = kind(servers=[server.url], **options)
    one, two = (storage.save("f.txt", ContentFile(b"x")) for _ in range(2))

    @sync_to_async
    def begin() -> transaction.Atomic:
        block = transaction.atomic()
        block.__enter__()
        return block

    @sync_to_async
    def end(block: transaction.Atomic, error: type[Exception] | None) -> None:
        block.__exit__(error, error and error(), None)

    async def view() -> None:
        block = await begin()
        await storage.adelete(one)
        await end(block, Rollback)
        block = await begin()
        await storage.adelete(two)
        assert await sync_to_async(storage.exists)(two)
        await end(block, None)

    async_to_sync(view)()
    assert storage.exists(one)
    assert not storage.exists(two)


@pytest.mark.parametrize("kind", [HybridStorage, AsyncStorage, DistributedStorage])
def test_a_signed_url_has_its_own_time(kind):
    place = {} if kind is DistributedStorage else {"location": "/nowhere"}
    storage = kind(
        servers=["http://a:1"], base_url="/m/", querystring_auth=True, secret="s3cret", **place
    )

    async def both() -> tuple[str, str]:
        return await storage.aurl("f.txt", expire=86400), await storage.aurl("f.txt")

    a_day, an_hour = asyncio.run(both())
    assert a_day == storage.url("f.txt", expire=86400)
    assert an_hour == storage.url("f.txt")
    assert a_day != an_hour


@in_database
def test_a_commit_hook_that_is_dropped_proves_no_rollback():
    """Why there is no signal for files of a transaction that was rolled back (see the docs)."""
    dropped = []

    def broken() -> None:
        raise ZeroDivisionError("the site's own hook")

    with suppress(ZeroDivisionError), transaction.atomic():
        Group.objects.create(name="committed")

        def hook() -> None:
            raise AssertionError("Django runs it, so there can be a signal")

        weakref.finalize(hook, dropped.append, "dropped")
        transaction.on_commit(broken)
        transaction.on_commit(hook)
        del hook
    gc.collect()
    assert dropped == ["dropped"]
    assert Group.objects.filter(name="committed").exists()
