"""Servers that answer 200 to everything: no file is theirs, and nothing is saved there."""

from __future__ import annotations

import pytest
from django.core.files.base import ContentFile
from django.db import connections

from outgrow.errors import CatalogueUnavailable, NoCopy, NotEnoughServers
from outgrow.media import AsyncStorage, DistributedStorage, HybridStorage
from outgrow.names import MASTER_ID_FILE
from outgrow.testing import MediaServer
from tests.raw import Peer, RawServer, answer

in_database = pytest.mark.django_db(transaction=True, databases=["default", "outgrow"])

PAGE = b"<html>Welcome to our new portal"


def agree(peer: Peer) -> None:
    """Say 200 to whatever it is, with the same page."""
    while True:
        head, _ = peer.request()
        whole = answer(200, body=PAGE)
        peer.send(whole.removesuffix(PAGE) if head.startswith(b"HEAD") else whole)


@pytest.fixture(params=["empty", "page"])
def yes(request):
    if request.param == "page":
        with RawServer(agree) as server:
            yield f"http://127.0.0.1:{server.port}/"
    else:
        with MediaServer() as server:
            server.answer_with(200)
            yield f"{server.url}/"


@pytest.fixture
def good():
    with MediaServer() as server:
        yield server


@pytest.fixture(params=["none", pytest.param("database", marks=in_database)])
def journal(request):
    return request.param


def distributed(*servers: str, **options) -> DistributedStorage:
    given = {"servers": servers, "timeout": 1, "downtime": 0.05, "base_url": "/m/"}
    return DistributedStorage(**(given | options))


def test_no_file_is_there_that_only_it_has(yes, journal):
    storage = distributed(yes, journal=journal)
    for act in (storage.exists, storage.open, storage.size, storage.get_modified_time):
        with pytest.raises(NoCopy, match="is no master's id"):
            act("nope.txt")


def test_no_file_is_listed_that_only_it_has(yes):
    with pytest.raises(NoCopy, match="No media server says"):
        distributed(yes, journal="none").listdir("")


def test_it_stands_in_nobodys_way(yes, good, journal):
    saved = distributed(good.url, journal=journal).save("f.txt", ContentFile(b"right"))
    # In either order, for each name another server is asked first.
    storage = distributed(yes, good.url, journal=journal)
    for name in (saved, *(f"by-hand-{n}.txt" for n in range(8))):
        good.files[name] = b"right"
        assert storage.exists(name)
        assert storage.open(name).read() == b"right"
        assert storage.size(name) == 5
    if journal == "none":
        assert saved in storage.listdir("")[1]


def test_nothing_is_saved_there(yes, journal):
    with pytest.raises(NotEnoughServers, match="is no master's id"):
        distributed(yes, journal=journal).save("f.txt", ContentFile(b"x"))


@pytest.mark.parametrize("kind", [HybridStorage, AsyncStorage])
def test_the_master_alone_says_what_is_there(yes, tmp_path, kind):
    storage = kind(servers=[yes], location=tmp_path, base_url="/m/")
    if kind is HybridStorage:
        with pytest.raises(NotEnoughServers, match="is no master's id"):
            storage.save("f.txt", ContentFile(b"x"))
    else:
        name = storage.save("f.txt", ContentFile(b"x"))
        assert storage.background.drain(10)
        assert [debt.name for debt in storage.journal.debts(storage.options.servers[0].name)]
        with storage.open(name) as file:
            assert file.read() == b"x"
    assert not storage.exists("nope.txt")
    with pytest.raises(FileNotFoundError):
        storage.open("nope.txt")


def test_it_is_asked_for_its_id_once_and_after_a_failure(good, journal):
    storage = distributed(good.url, journal=journal)
    good.files[MASTER_ID_FILE] = f"{storage.journal.master_id}\n".encode()
    good.files["by-hand.txt"] = b"x"

    def asked() -> int:
        for _ in range(3):
            assert storage.exists("by-hand.txt")
            assert storage.open("by-hand.txt").read() == b"x"
        return sum(path == f"/{MASTER_ID_FILE}" for _, path, _ in good.log)

    assert asked() == 1
    good.stop()
    with pytest.raises(NoCopy):
        storage.exists("by-hand.txt")
    good.start()
    assert asked() == 2


def test_a_server_of_another_site_is_not_believed_either(good, journal):
    good.files |= {MASTER_ID_FILE: b"0123456789abcdef0123456789abcdef\n", "theirs.txt": b"x"}
    storage = distributed(good.url, journal=journal)
    for act in (storage.exists, storage.open):
        with pytest.raises(NoCopy, match="belongs to the master"):
            act("theirs.txt")


def test_a_new_server_may_have_files_already(good, journal):
    good.files["by-hand.txt"] = b"x"
    storage = distributed(good.url, journal=journal)
    assert storage.exists("by-hand.txt")
    assert storage.open("by-hand.txt").read() == b"x"
    assert MASTER_ID_FILE not in good.files  # a read gives nobody an id


@pytest.fixture
def away(django_db_blocker):
    """The alias of a database that is not there."""
    entry = {"ENGINE": "django.db.backends.sqlite3", "NAME": "/nowhere/at/all"}
    databases = connections.configure_settings({"default": {}, "away": entry})
    connections.settings["away"] = databases["away"]
    with django_db_blocker.unblock():
        yield "away"
    connections["away"].close()
    del connections["away"], connections.settings["away"]


def test_without_the_database_the_form_of_an_id_must_do(yes, good, away):
    """A process that begins now does not know the id."""
    good.files |= {MASTER_ID_FILE: b"0123456789abcdef0123456789abcdef\n", "f.txt": b"x"}
    assert distributed(good.url, database=away).open("f.txt").read() == b"x"
    for act in ("open", "exists"):
        with pytest.raises(NoCopy, match="is no master's id"):
            getattr(distributed(yes, database=away), act)("f.txt")
    with pytest.raises(CatalogueUnavailable):
        distributed(good.url, database=away).open("nope.txt")
