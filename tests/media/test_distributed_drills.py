"""Processes of a distributed storage that are killed at every step and every statement.

The databases are SQLite files, which the child and the test share; the site's work is one
transaction, which is committed after the save.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.core.files.base import ContentFile
from django.core.management import call_command
from django.db import connections

from outgrow.media import DistributedStorage
from outgrow.media.repair import Repair
from outgrow.media.tables import Live
from outgrow.testing import MediaServer
from tests.media.actors import act
from tests.media.test_drills import copies, deaths, end_fault, said, set_fault

pytestmark = [pytest.mark.drill, pytest.mark.timeout(900)]


@pytest.fixture
def databases(tmp_path, django_db_blocker, monkeypatch):
    """Two files, known here as the aliases "site" and "own"."""
    aliases = {"site": tmp_path / "default", "own": tmp_path / "outgrow"}
    for alias, path in aliases.items():
        database = {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(path),
            "OPTIONS": {"init_command": "PRAGMA synchronous=OFF"},  # no machine is killed
        }
        made = connections.configure_settings({"default": {}, alias: database})
        connections.settings[alias] = made[alias]
    monkeypatch.setenv("CATALOGUE", str(tmp_path))
    with django_db_blocker.unblock():
        for alias in aliases:
            call_command("migrate", "outgrow", database=alias, verbosity=0)
        yield
        for alias in aliases:
            connections[alias].close()
            del connections[alias], connections.settings[alias]


@pytest.fixture
def servers():
    with MediaServer() as one, MediaServer() as two, MediaServer() as three:
        yield [one, two, three]


@pytest.fixture
def storage(databases, servers, settings, tmp_path):
    settings.FILE_UPLOAD_TEMP_DIR = str(tmp_path)
    made = DistributedStorage(
        servers=[server.url for server in servers],
        database="own",
        using="site",
        timeout=1.0,
        downtime=0.1,
        # The child is dead, and its transaction with it.
        grace=1e-6,
    )
    Repair(made.replication).once(settle=False)
    return made


def heal(storage) -> None:
    report = Repair(storage.replication).once(settle=False)
    storage.journal.sweep()
    again = Repair(storage.replication).once(settle=False)
    assert again.complete, (report, again)


def check_equal(storage, servers) -> set[str]:
    """Every server holds what the catalogue has, and what the site made live."""
    wanted = {entry.name for entry in storage.journal.entries(lambda *_: None)}
    for server in servers:
        assert copies(server).keys() == wanted
    live = set(Live.objects.using("site").values_list("key", flat=True))
    assert {storage.journal.key(name) for name in wanted} == live
    assert list(storage.journal.attempts()) == []
    return wanted


def forget_watched(storage) -> None:
    for server in storage.transport.servers:
        for debt in storage.journal.debts(server.name):
            storage.journal.forget(debt)


@pytest.mark.parametrize("fault", ["all up", "one down"])
@pytest.mark.parametrize("grain", ["step", "call"])
def test_sigkill_at_every_step_of_save(storage, servers, tmp_path, grain, fault):
    """M1, M2: what was committed is on every server, and nothing else is on any."""
    urls = [server.url for server in servers]
    died = 0
    for step, told in deaths(grain):
        set_fault(servers[2], fault)
        code, lines = act(tmp_path, urls, "save", step)
        end_fault(servers[2], fault)
        died += told(code)
        heal(storage)
        wanted = check_equal(storage, servers)
        assert set(said(lines, "saved")) <= wanted
        for name in wanted:
            assert storage.open(name).read() == b"content of the drill"
            storage.delete(name)
        forget_watched(storage)
    assert died >= (10 if grain == "call" else 5), "the save has fewer steps than it had"


@pytest.mark.parametrize("fault", ["all up", "one down"])
@pytest.mark.parametrize("grain", ["step", "call"])
def test_sigkill_at_every_step_of_delete(storage, servers, tmp_path, grain, fault):
    """M3: a delete that was confirmed is one everywhere; one that was cut off is whole too."""
    urls = [server.url for server in servers]
    died = 0
    for step, told in deaths(grain):
        name = storage.save("gone.bin", ContentFile(b"gone"))
        set_fault(servers[1], fault)
        code, lines = act(tmp_path, urls, "delete", step, name)
        end_fault(servers[1], fault)
        died += told(code)
        heal(storage)
        wanted = check_equal(storage, servers)
        if said(lines, "deleted") or "step buried" in lines:
            assert name not in wanted
        for left in wanted:
            storage.delete(left)
        forget_watched(storage)
    assert died >= (6 if grain == "call" else 3), "the delete has fewer steps than it had"


@pytest.mark.parametrize(
    ("grain", "first", "step"), [("step", 0, 1), ("call", 0, 3), ("call", 1, 3), ("call", 2, 3)]
)
def test_sigkill_at_every_step_of_repair(storage, servers, tmp_path, grain, first, step):
    """M4: a repairer may die anywhere; the next pass ends what it began."""
    urls = [server.url for server in servers]
    died = 0
    for moment, told in deaths(grain, first, step):
        gone = storage.save("gone.bin", ContentFile(b"gone"))
        servers[2].stop()
        name = storage.save("owed.bin", ContentFile(b"owed"))
        storage.delete(gone)
        servers[2].start()
        code, _ = act(tmp_path, urls, "repair", moment)
        died += told(code)
        heal(storage)
        assert check_equal(storage, servers) == {name}
        storage.delete(name)
        heal(storage)
        forget_watched(storage)
    # Of the calls of the system that were counted when this was written, two thirds.
    assert died >= (40 if grain == "call" else 6), "the repair has fewer steps than it had"


def test_two_repairers_at_once_and_one_dies(storage, servers, tmp_path):
    """M4: they share one catalogue, and neither sends what the other has deleted."""
    urls = [server.url for server in servers]
    died = 0
    for moment in range(0, 14, 2):
        gone = storage.save("gone.bin", ContentFile(b"gone"))
        servers[2].stop()
        names = {storage.save("owed.bin", ContentFile(b"owed")) for _ in range(4)}
        storage.delete(gone)
        servers[2].start()
        with ThreadPoolExecutor(2) as both:
            ends = list(both.map(lambda at: act(tmp_path, urls, "repair", at), (str(moment), "-1")))
        died += ends[0][0] != 0
        assert "repaired" in ends[1][1]
        heal(storage)
        assert check_equal(storage, servers) == names
        for name in names:
            storage.delete(name)
        heal(storage)
        forget_watched(storage)
    assert died >= 3, "the one that was to die had nothing to do"
