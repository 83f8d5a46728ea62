"""`outgrow promote` on real PostgreSQL servers: rows survive, and all follow the new primary."""

from __future__ import annotations

import shutil
import threading
import urllib.error
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from outgrow.errors import TopologyError
from outgrow.topology.load import load
from outgrow.topology.local import LocalSite
from outgrow.topology.promoting import received
from outgrow.topology.promotion import furthest
from tests.live.processes import server_folder, wait_until
from tests.topology.sites import tiny_site
from tests.topology.test_control import Site, controlled
from tests.topology.test_database import arrives, check, read, site_run, write, writes

STANDBYS = ("db2", "db3")

pytestmark = pytest.mark.timeout(300)


@contextmanager
def replicated(*, synchronous: bool = False) -> Iterator[Site]:
    with server_folder("outgrow-promote-") as folder:
        path = tiny_site(folder, database="postgresql", replicas=STANDBYS, synchronous=synchronous)
        site_run(path, folder, "postgresql")  # says what to install
        with controlled(path, folder / "run") as site:
            yield site


@pytest.fixture
def site() -> Iterator[Site]:
    with replicated() as one:
        yield one


def roles(site: Site) -> dict[str, list[str]]:
    return {
        role: [service.name for service in site.local.site.services(role)]
        for role in ("primary", "replica")
    }


def follows(site: Site, *names: str) -> None:
    for name in names:
        wait_until(lambda name=name: not check(site.local, name), f"{name} follows", seconds=60)


def test_a_primary_is_lost_with_its_disk_and_a_replica_takes_its_place_with_every_row() -> None:
    acknowledged: list[str] = []
    ended = threading.Event()

    def keeps_writing(writer: int) -> None:
        number = 0
        while not ended.is_set():
            text = f"w{writer}n{number}"
            number += 1
            try:
                write(site, text)
            except (urllib.error.HTTPError, OSError):
                continue  # it may be there, or not: nobody was told
            acknowledged.append(text)

    with replicated(synchronous=True) as site, ThreadPoolExecutor(4) as threads:
        working = [threads.submit(keeps_writing, number) for number in range(4)]
        try:
            wait_until(lambda: len(acknowledged) >= 50, "rows are written", seconds=60)
            planned = site.local.planned("db1")
            site.local.hold("db1")
            site.local.process("db1").kill()
            assert planned.root is not None
            shutil.rmtree(planned.root)
            name = furthest(received(site.local))
            said = site.done("promote", name)
            before = len(acknowledged)
            wait_until(lambda: len(acknowledged) >= before + 50, "rows are written", seconds=60)
        finally:
            ended.set()
        for one in working:
            one.result(timeout=60)
        assert said == (
            f"{name} is the primary now, and db1 follows it, with a copy of its data, for its "
            "own were gone."
        )
        assert set(acknowledged) <= set(read(site, "default"))
        follows(site, "db1", *(one for one in STANDBYS if one != name))
        write(site, "last")
        for alias in {"db1", *STANDBYS} - {name}:
            arrives(site, alias, "last")
            assert set(acknowledged) <= set(read(site, alias))


def test_a_primary_that_runs_is_stopped_first_and_nothing_is_lost(site: Site) -> None:
    write(site, "before")
    assert site.done("promote", "db3") == "db3 is the primary now, and db1 follows it."
    assert roles(site) == {"primary": ["db3"], "replica": ["db1", "db2"]}
    assert "before" in read(site, "default")
    assert writes(site, "after")
    follows(site, "db1", "db2")
    for alias in ("db1", "db2"):
        arrives(site, alias, "after")
    # Its data were not copied: what it had is enough.
    assert not site.said("outgrow", "copied anew")
    assert not site.said("outgrow", "made anew")
    # The watch knows the new roles.
    site.done("kill", "db3")
    site.done("start", "db3")
    assert writes(site, "later")
    arrives(site, "db1", "later")
    # And back.
    assert site.done("promote", "db1").startswith("db1 is the primary now, and db3 follows it")
    assert "later" in read(site, "default")


def test_what_only_the_old_primary_had_is_rewound(site: Site) -> None:
    write(site, "before")
    for name in STANDBYS:
        arrives(site, name, "before")
        site.local.process(name).pause()
    write(site, "nobody else has it")
    site.done("kill", "db1")
    for name in STANDBYS:
        site.local.process(name).resume()
    name = furthest(received(site.local))
    # What was in the kernel's buffers of a frozen replica may have arrived.
    arrived = "nobody" in " ".join(read(site, name))
    assert site.done("promote", name) == f"{name} is the primary now, and db1 follows it."
    write(site, "of the new history")
    follows(site, "db1")
    arrives(site, "db1", "history")
    assert ("nobody" in " ".join(read(site, "db1"))) is arrived
    assert not site.said("outgrow", "copied anew")


def test_who_lacks_rows_that_another_has_is_refused(site: Site) -> None:
    site.done("stop", "db3")
    write(site, "x" * 100)
    arrives(site, "db2", "x" * 100)
    site.done("kill", "db1")
    refused = site.refused("promote", "db2")
    assert refused.startswith("db3 could not be asked what it has, and may have rows")
    site.done("start", "db3")
    refused = site.refused("promote", "db3")
    assert "that db3 has not" in refused
    assert refused.endswith("Promote it: outgrow promote db2 db1 was stopped, and stays so.")
    # Nothing has happened.
    assert roles(site) == {"primary": ["db1"], "replica": ["db2", "db3"]}
    assert site.done("promote", "db2").startswith("db2 is the primary now")
    assert "x" * 100 in read(site, "default")


def test_bad_input_changes_nothing(site: Site) -> None:
    assert site.refused("promote", "db1") == "db1 is the primary already."
    assert site.refused("promote", "app1").startswith('"app1" is no replica of this site; ')
    assert site.refused("promote", "db9").startswith('"db9" is no server of this site; ')
    site.done("stop", "db2")
    assert site.refused("promote", "db2") == ("db2 does not run. Start it first: outgrow start db2")
    site.done("freeze", "app2")
    assert site.refused("promote", "db3").startswith("app2 is frozen, and would not learn")
    assert site.state("db1") == "ready"
    assert writes(site, "still the same primary")


def test_the_next_run_needs_a_file_with_the_roles_of_today() -> None:
    with server_folder("outgrow-promote-") as folder:
        path = tiny_site(folder, database="postgresql", replicas=STANDBYS)
        site_run(path, folder, "postgresql")
        with controlled(path, folder / "run") as site:
            write(site, "kept")
            site.done("promote", "db2")
        with pytest.raises(TopologyError, match=r"servers\.db1: is the primary, and its data in"):
            LocalSite(load(path), folder / "run").prepare()
        text = path.read_text()
        for name, role in (("db1", "replica"), ("db2", "primary")):
            head, _, tail = text.partition(f"[servers.{name}]\n")
            _, _, rest = tail.partition("\n")
            text = f'{head}[servers.{name}]\nroles = ["{role}"]\n{rest}'
        path.write_text(text)
        with controlled(path, folder / "run") as site:
            assert read(site, "default") == ["kept"]
            write(site, "more")
            for alias in ("db1", "db3"):
                arrives(site, alias, "more")
            assert not site.said("outgrow", "made anew")
