"""A name server that fails, and clocks that are an hour wrong either way."""

from __future__ import annotations

import socket
import time
from contextlib import suppress

import pytest
from django.core.files.base import ContentFile
from django.db import transaction

from outgrow import http
from outgrow.errors import NoCopy, NotEnoughServers
from outgrow.media import AsyncStorage, DistributedStorage
from outgrow.media.catalogue import Catalogue
from outgrow.media.directory import DirectoryJournal
from outgrow.media.journal import Change, Wanted
from outgrow.media.repair import Repair
from outgrow.testing import MediaServer
from tests.media.test_distributed import ALIASES
from tests.media.test_refusals import copies, heal, owed

in_database = pytest.mark.django_db(transaction=True, databases=["default", "outgrow"])
both_ways = pytest.mark.parametrize("skew", [-3600.0, 3600.0], ids=["slow", "fast"])


@pytest.fixture
def servers():
    with MediaServer() as one, MediaServer() as two, MediaServer() as three:
        yield [one, two, three]


class Resolver:
    """The system's resolver: it knows media1 to media3, and none of those in `lost`."""

    def __init__(self) -> None:
        self.lost: set[str] = set()
        self.error = socket.EAI_AGAIN
        self._real = socket.getaddrinfo

    def __call__(self, host, port, *more, **options):
        name, dot, _ = (host if isinstance(host, str) else host.decode()).partition(".example")
        if not dot:
            return self._real(host, port, *more, **options)
        if name in self.lost:
            raise socket.gaierror(self.error, "it fails")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]


@pytest.fixture
def resolver(monkeypatch):
    """Nothing is remembered of what it has said."""
    made = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    monkeypatch.setattr(http, "RESOLVE_FOR", 0.0)
    return made


@pytest.fixture
def named(servers):
    """The servers by names."""
    return {f"media{n}": f"http://media{n}.example:{one.port}" for n, one in enumerate(servers, 1)}


every_error = pytest.mark.parametrize(
    ("error", "text"),
    [(socket.EAI_AGAIN, "the name server does not answer"), (socket.EAI_NONAME, "has no address")],
    ids=["no answer", "no such name"],
)


def fresh(kind, named, **options):
    """As in a process that has just begun: it has no connections yet."""
    return kind(base_url="/", servers=named, timeout=2, downtime=0.05, **options)


@every_error
def test_an_asynchronous_save_without_a_name_server(
    tmp_path, servers, named, resolver, error, text, caplog
):
    heal(fresh(AsyncStorage, named, location=tmp_path))
    storage = fresh(AsyncStorage, named, location=tmp_path)
    resolver.lost, resolver.error = {"media1", "media2", "media3"}, error
    name = storage.save("f.txt", ContentFile(b"x"))
    assert storage.background.drain(20)
    assert text in caplog.text
    assert [owed(storage, number) for number in range(3)] == [{name}] * 3
    assert Repair(storage.replication).once(settle=False).down.keys() == named.keys()
    resolver.lost = {"media3"}
    assert Repair(storage.replication).once(settle=False).down.keys() == {"media3"}
    resolver.lost = set()
    heal(storage)
    assert [copies(server) for server in servers] == [{name: b"x"}] * 3


@in_database
@every_error
def test_a_distributed_save_without_a_name_server(servers, named, resolver, error, text):
    heal(fresh(DistributedStorage, named))
    storage = fresh(DistributedStorage, named)
    resolver.lost, resolver.error = {"media1"}, error
    name = storage.save("f.txt", ContentFile(b"x"))
    assert [copies(server) for server in servers] == [{}, {name: b"x"}, {name: b"x"}]
    assert owed(storage, 0) == {name}
    resolver.lost = {"media1", "media2", "media3"}
    lost = fresh(DistributedStorage, named)
    with pytest.raises(NotEnoughServers, match=text):
        lost.save("g.txt", ContentFile(b"x"))
    resolver.lost = set()
    heal(fresh(DistributedStorage, named))
    assert [copies(server) for server in servers] == [{name: b"x"}] * 3


@in_database
@every_error
def test_a_read_without_a_name_server(named, resolver, error, text):
    storage = fresh(DistributedStorage, named)
    name = storage.save("f.txt", ContentFile(b"hello"))
    order = [server.name for server in storage.reader.servers(name)]
    resolver.error = error
    for lost in order[:2]:
        resolver.lost |= {lost}
        assert fresh(DistributedStorage, named).open(name).read() == b"hello"
    resolver.lost = set(order)
    with pytest.raises(NoCopy, match=text):
        fresh(DistributedStorage, named).open(name)
    resolver.lost = set()
    assert storage.open(name).read() == b"hello"


# --- clocks


def wrong(skew: float):
    return lambda: time.time() + skew


@both_ways
@pytest.mark.parametrize("whose", ["the saver's", "the repairer's"])
def test_an_asynchronous_storage_on_a_machine_with_a_wrong_clock(tmp_path, servers, skew, whose):
    """The process that saves has died, or lives; another one repairs."""
    urls = [server.url for server in servers]
    storage = AsyncStorage(location=tmp_path, base_url="/", servers=urls, downtime=0.05)
    repairer = AsyncStorage(location=tmp_path, base_url="/", servers=urls, downtime=0.05)
    heal(storage)
    one = storage if whose == "the saver's" else repairer
    vars(one)["journal"] = DirectoryJournal(tmp_path, clock=wrong(skew))
    servers[0].stop()
    missed, gone = (storage.save(n, ContentFile(b"x")) for n in ("missed.txt", "gone.txt"))
    storage.delete(gone)
    assert storage.background.drain(20)
    servers[0].start()
    servers[1].hang = "before-answer"
    late = storage.save("late.txt", ContentFile(b"x"))
    assert storage.background.drain(20)
    servers[1].thaw()
    busy = storage.journal.attempt("busy.txt", Change.SAVE)
    storage.journal.begin(busy).write_bytes(b"x")
    clock = wrong(skew) if one is repairer else time.time
    report = Repair(repairer.replication, clock=clock).once(settle=False)
    assert report.taken_over == 0, "a save that has only just begun is nobody's to take over"
    assert storage.journal.draft(busy).size == 1
    for server in servers:
        assert copies(server).keys() == {missed, late}
    # What either clock wrote, the other one reads: nothing stays owed.
    assert Repair(storage.replication).once(settle=False).still_owed == 0


@pytest.fixture(params=[pytest.param("SQLite", marks=in_database), "PostgreSQL"])
def aliases(request):
    if request.param == "PostgreSQL":
        request.getfixturevalue("postgres")
    return ALIASES[request.param]


@both_ways
def test_a_catalogue_on_a_machine_with_a_wrong_clock(aliases, servers, skew):
    """Ages are told by the clock of the database; here one process has a wrong one."""
    own, site = aliases
    urls = [server.url for server in servers]
    given = {"servers": urls, "database": own, "using": site, "timeout": 1, "downtime": 0.05}
    right, off = (DistributedStorage(base_url="/", **given) for _ in range(2))
    heal(right)
    vars(off)["journal"] = Catalogue(
        own, site=site, name=off.options.catalogue, grace=off.options.grace, clock=wrong(skew)
    )
    for saver, repairer, clock in ((off, right, time.time), (right, off, wrong(skew))):
        servers[0].stop()
        missed, gone = (saver.save(n, ContentFile(b"x")) for n in ("missed.txt", "gone.txt"))
        saver.delete(gone)
        servers[0].start()
        busy = saver.journal.attempt("busy.txt", Change.SAVE)
        saver.journal.begin(busy).write_bytes(b"x")
        saver.journal.commit(busy, saver.journal.draft(busy))
        with suppress(ZeroDivisionError), transaction.atomic(site):
            saver.save("rolled-back.txt", ContentFile(b"x"))
            # The transaction goes on: what it has saved is not given up, by no clock.
            assert Repair(repairer.replication, clock=clock).once(settle=False).given_up == 0
            raise ZeroDivisionError
        report = Repair(repairer.replication, clock=clock).once(settle=False)
        assert report.taken_over == 0
        assert saver.journal.look(busy.name).wanted is Wanted.PRESENT
        for server in servers:
            assert missed in copies(server)
            assert gone not in copies(server)
        for reader in (right, off):
            assert reader.open(missed).read() == b"x"
            assert abs(reader.get_modified_time(missed).timestamp() - time.time()) < 600
            with pytest.raises(FileNotFoundError):
                reader.open(gone)
        saver.journal.discard(busy)
        saver.delete(missed)
        heal(right)
