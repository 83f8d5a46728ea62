"""`outgrow promote` on real PostgreSQL servers: rows survive, and all follow the new primary."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from outgrow.errors import TopologyError
from outgrow.topology import succession
from outgrow.topology.load import load
from outgrow.topology.local import LocalSite
from outgrow.topology.promoting import received
from outgrow.topology.promotion import furthest
from outgrow.topology.runfolder import is_locked
from outgrow.topology.states import State
from outgrow.topology.succession import Succession
from tests.live.nginx import binary
from tests.live.processes import server_folder, wait_until
from tests.topology.sites import tiny_site
from tests.topology.test_control import Site, controlled
from tests.topology.test_database import arrives, check, get_within, read, site_run, write, writes
from tests.topology.test_local import get
from tests.topology.test_up import READY, up

STANDBYS = ("db2", "db3")

#: What a promotion by the topology file as it was says at its end.
WRITE = (
    'Write it into the topology file before the site is started again: roles = ["primary"] for '
    '{new}, and roles = ["replica"] for db1.'
)

pytestmark = pytest.mark.timeout(600)


@contextmanager
def topology(*, synchronous: bool = False, balancer: str = "", pooler: str = "") -> Iterator[Path]:
    with server_folder("outgrow-promote-") as folder:
        path = tiny_site(
            folder,
            database="postgresql",
            replicas=STANDBYS,
            synchronous=synchronous,
            balancer=balancer,
            pooler=pooler,
        )
        site_run(path, folder, "postgresql")  # says what to install
        yield path


@contextmanager
def replicated(
    *, synchronous: bool = False, balancer: str = "", pooler: str = ""
) -> Iterator[Site]:
    with (
        topology(synchronous=synchronous, balancer=balancer, pooler=pooler) as path,
        controlled(path, path.parent.parent / "run") as site,
    ):
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


def exchange(path: Path, old: str, new: str) -> None:
    """Write the new roles into the topology file."""
    text = path.read_text()
    for name, role in ((old, "replica"), (new, "primary")):
        head, _, tail = text.partition(f"[servers.{name}]\n")
        _, _, rest = tail.partition("\n")
        text = f'{head}[servers.{name}]\nroles = ["{role}"]\n{rest}'
    path.write_text(text)


def follows(site: Site, *names: str) -> None:
    for name in names:
        wait_until(lambda name=name: not check(site.local, name), f"{name} follows", seconds=60)


def lose_disk(site: Site, name: str) -> None:
    """The power is off, and the disk is gone."""
    planned = site.local.planned(name)
    site.done("kill", name)
    assert planned.root is not None
    shutil.rmtree(planned.root)


@contextmanager
def same_data(site: Site, name: str) -> Iterator[None]:
    """Fails when its data are copied meanwhile: a copy is another folder."""
    root = site.local.planned(name).root
    assert root is not None
    # As long as it is open no other folder gets its number.
    folder = os.open(root, os.O_RDONLY)
    try:
        yield
        assert os.path.samestat(os.fstat(folder), root.stat())
    finally:
        os.close(folder)


class Visitors:
    """Four that write through the balancer, and remember what they were told is saved."""

    def __init__(self, site: Site) -> None:
        self.acknowledged: list[str] = []
        self._address = site.local.address("front")
        self._ended = threading.Event()

    def keep_writing(self, writer: int) -> None:
        number = 0
        while not self._ended.is_set():
            text = f"w{writer}n{number}"
            number += 1
            try:
                get(f"{self._address}/write?text={text}")
            except (urllib.error.HTTPError, OSError):
                time.sleep(0.02)
                continue  # it may be there, or not: nobody was told
            self.acknowledged.append(text)

    def wait_for_more(self, count: int) -> None:
        goal = len(self.acknowledged) + count
        wait_until(lambda: len(self.acknowledged) >= goal, "nothing is written", seconds=60)

    def end(self) -> None:
        self._ended.set()


@contextmanager
def visitors(site: Site) -> Iterator[Visitors]:
    found = Visitors(site)
    with ThreadPoolExecutor(4) as threads:
        working = [threads.submit(found.keep_writing, number) for number in range(4)]
        try:
            found.wait_for_more(50)
            yield found
            found.wait_for_more(50)
        finally:
            found.end()
    for one in working:
        one.result()


# --- nothing is lost


def test_a_primary_is_lost_with_its_disk_and_a_replica_takes_its_place_with_every_row() -> None:
    binary()
    with replicated(synchronous=True, balancer="nginx") as site:
        with visitors(site) as writing:
            lose_disk(site, "db1")
            name = furthest(received(site.local))
            said = site.done("promote", name)
        assert said == (
            f"{name} is the primary now, and db1 follows it, with a copy of its data, for its own "
            f"were gone. {WRITE.format(new=name)}"
        )
        assert set(writing.acknowledged) <= set(read(site, "default"))
        others = {"db1", *STANDBYS} - {name}
        follows(site, *others)
        write(site, "last")
        for alias in others:
            arrives(site, alias, "last")
            assert set(writing.acknowledged) <= set(read(site, alias))
        assert site.said("outgrow", f"{name} is the primary now")
        # A commit waits for one of the others: without them none is acknowledged.
        for alias in others:
            site.done("freeze", alias)
        with pytest.raises(TimeoutError):
            get_within(site.url("app1") + "/write?text=alone", 2)
        for alias in others:
            site.done("thaw", alias)


def test_a_primary_that_runs_is_stopped_first_and_nothing_is_lost() -> None:
    binary()
    with replicated(balancer="nginx") as site:
        with visitors(site) as writing, same_data(site, "db1"):
            said = site.done("promote", "db3")
        assert said == (
            "db3 is the primary now, and db1 follows it, its data rewound. "
            + WRITE.format(new="db3")
        )
        assert roles(site) == {"primary": ["db3"], "replica": ["db1", "db2"]}
        assert set(writing.acknowledged) <= set(read(site, "default"))
        follows(site, "db1", "db2")
        assert writes(site, "after")
        for alias in ("db1", "db2"):
            arrives(site, alias, "after")
        # What they had is enough.
        assert not site.said("outgrow", "copied anew")
        assert not site.said("outgrow", "made anew")
        assert site.status("db3").role == "primary (postgresql)"
        assert {site.state(name) for name in ("db1", "db2", "db3")} == {State.READY}
        # All are watched, in their new roles.
        for name in ("db1", "db3"):
            assert not site.local.is_held(name)
            site.done("kill", name)
            site.done("start", name)
        wait_until(lambda: writes(site, "later"), "the new primary takes no writes", seconds=60)
        arrives(site, "db1", "later")
        # And back.
        assert site.done("promote", "db1").startswith("db1 is the primary now, and db3 follows it")
        assert {"after", "later"} <= set(read(site, "default"))


def test_a_primary_that_was_stopped_has_lost_nothing_and_a_replica_that_was_stays_stopped(
    site: Site,
) -> None:
    write(site, "before")
    arrives(site, "db3", "before")
    site.done("stop", "db3")
    assert writes(site, "last")
    site.done("stop", "db1")
    # db3 is not asked: db2 has all that there is.
    said = site.done("promote", "db2")
    assert "db3 follows when it is started." in said
    assert site.state("db3") is State.STOPPED
    assert "last" in read(site, "default")
    site.done("start", "db3")
    assert writes(site, "after")
    arrives(site, "db3", "after")


# --- what may be lost


def test_what_may_be_lost_is_said_before_and_what_only_the_old_primary_had_is_rewound(
    site: Site,
) -> None:
    write(site, "before")
    for name in STANDBYS:
        arrives(site, name, "before")
        site.done("freeze", name)
    write(site, "nobody_else_has_it")
    site.done("kill", "db1")
    for name in STANDBYS:
        site.done("thaw", name)
    name = furthest(received(site.local))
    # What was in the kernel's buffers of a frozen replica may have arrived.
    arrived = "nobody_else_has_it" in read(site, name)
    refused = site.refused("promote", name)
    assert refused.startswith(
        "db1 did not end cleanly, and a commit waits for no replica here: rows of its last moments"
    )
    assert refused.endswith(f"outgrow promote {name} --accept-loss")
    assert roles(site)["primary"] == ["db1"]
    with same_data(site, "db1"):
        said = site.done("promote", name, "--accept-loss")
    assert said.startswith(f"{name} is the primary now, and db1 follows it, its data rewound.")
    write(site, "history")
    follows(site, "db1")
    arrives(site, "db1", "history")
    assert ("nobody_else_has_it" in read(site, "db1")) is arrived
    assert not site.said("outgrow", "copied anew")
    assert not site.said("outgrow", "made anew")


def test_who_lacks_rows_that_another_has_is_refused_with_the_numbers(site: Site) -> None:
    site.done("stop", "db3")
    write(site, "x" * 100)
    arrives(site, "db2", "x" * 100)
    site.done("kill", "db1")
    refused = site.refused("promote", "db2")
    assert "db3 could not be asked what it has" in refused
    site.done("start", "db3")
    found = received(site.local)
    assert isinstance(found["db2"], int)
    assert isinstance(found["db3"], int)
    count = found["db2"] - found["db3"]
    refused = site.refused("promote", "db3", "--accept-loss")
    assert refused == (
        f"db2 has received {count} bytes of log that db3 has not; rows that visitors were told "
        "are saved may be among them. Promote it: outgrow promote db2"
    )
    # Nothing has happened, and the old primary could go on.
    assert roles(site) == {"primary": ["db1"], "replica": ["db2", "db3"]}
    assert site.state("db1") is State.KILLED
    assert site.done("promote", "db2", "--accept-loss").startswith("db2 is the primary now")
    assert "x" * 100 in read(site, "default")
    arrives(site, "db3", "x" * 100)


def test_a_replica_that_was_not_asked_is_copied_anew_for_it_may_have_more(site: Site) -> None:
    write(site, "before")
    for name in STANDBYS:
        arrives(site, name, "before")
    site.done("stop", "db2")
    write(site, "only_db3_has_it")
    arrives(site, "db3", "only_db3_has_it")
    site.done("kill", "db1")
    site.done("stop", "db3")
    site.done("start", "db2")
    assert "db3 could not be asked" in site.refused("promote", "db2")
    site.done("promote", "db2", "--accept-loss")
    site.done("start", "db3")
    write(site, "after")
    arrives(site, "db3", "after")
    assert read(site, "db3") == ["before", "after"]


# --- what changes nothing


def test_bad_input_and_a_dry_run_change_nothing(site: Site) -> None:
    assert site.refused("promote", "db1") == "db1 is the primary already."
    assert site.refused("promote", "app1").startswith('"app1" is no replica of this site; ')
    assert site.refused("promote", "db9").startswith('"db9" is no replica of this site; ')
    assert site.command("promote").exit_code == 2
    text = site.done("promote", "db3", "--dry-run").splitlines()
    assert text[0] == "1. db1: stop it, so that no two servers take writes"
    assert text[2] == "3. db3: make it the primary (pg_promote)"
    assert text[-1] == "May be lost: nothing."
    found = json.loads(site.done("promote", "db3", "--dry-run", "--json"))
    assert (found["new"], found["old"], found["done"]) == ("db3", "db1", False)
    assert set(found["received"]) == set(STANDBYS)
    site.done("stop", "db2")
    assert site.refused("promote", "db2") == "db2 does not run. Start it first: outgrow start db2"
    site.done("freeze", "app2")
    assert site.refused("promote", "db3").startswith("app2 is frozen, and can't do its part.")
    site.done("thaw", "app2")
    assert site.state("db1") is State.READY
    assert roles(site)["primary"] == ["db1"]
    assert writes(site, "still the same primary")
    site.done("kill", "db1")
    assert "rows of its last moments" in site.done("promote", "db3", "--dry-run")
    assert site.state("db1") is State.KILLED


def test_the_next_run_needs_a_file_with_the_roles_of_today() -> None:
    with topology() as path:
        folder = path.parent.parent / "run"
        with controlled(path, folder) as site:
            write(site, "kept")
            found = json.loads(site.done("promote", "db2", "--json"))
            assert found["done"]
            assert found["said"].startswith("db2 is the primary now")
        with pytest.raises(TopologyError, match=r"servers\.db1: is the primary, and its data in"):
            LocalSite(load(path), folder).prepare(dry_run=True)
        exchange(path, "db1", "db2")
        with controlled(path, folder) as site:
            assert read(site, "default") == ["kept"]
            write(site, "more")
            for alias in ("db1", "db3"):
                arrives(site, alias, "more")
            assert not site.said("outgrow", "made anew")


# --- what goes wrong on the way


def test_data_that_can_t_be_rewound_are_copied_anew(site: Site) -> None:
    write(site, "before")
    site.done("stop", "db1")
    root = site.local.planned("db1").root
    assert root is not None
    # It is asked how it ended first, so this is no control file that says nothing.
    for path in (root / "pg_wal").iterdir():
        if path.is_file():
            path.unlink()
    said = site.done("promote", "db2")
    assert "with a copy of its data, for they could not be rewound" in said
    assert site.said("outgrow", "db1 can't be rewound, so its data are copied anew: ")
    write(site, "after")
    arrives(site, "db1", "after")
    assert read(site, "db1") == ["before", "after"]


def test_what_was_broken_off_is_said_and_goes_on_when_it_is_asked_again(site: Site) -> None:
    write(site, "before")
    arrives(site, "db2", "before")
    site.done("stop", "db1")
    port = site.local.planned("db1").port
    assert port is not None
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((port.host, port.number))
        other.listen()
        refused = site.refused("promote", "db2")
        assert refused.startswith(
            "db2 is the primary now, and db1 does not follow it yet. db1 can't listen on "
        )
        assert refused.endswith("Go on: outgrow promote db2")
    # Writes go on, and nobody makes the old primary one more that takes them.
    assert roles(site)["primary"] == ["db2"]
    assert writes(site, "meanwhile")
    assert site.refused("start", "db1") == (
        "db1 was the primary before db2, and does not follow it yet. Go on: outgrow promote db2"
    )
    assert site.refused("promote", "db3").startswith("The promotion of db2 is not finished.")
    left = site.done("promote", "db2", "--dry-run")
    assert left.splitlines()[0] == "1. db2: make it the primary (pg_promote)"
    assert site.done("promote", "db2").startswith("db2 is the primary now, and db1 follows it")
    assert succession.begun(site.folder) is None
    arrives(site, "db1", "meanwhile")
    assert site.refused("promote", "db2") == "db2 is the primary already."


@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.6, 1.5])
def test_a_run_that_is_killed_in_the_middle_loses_nothing_and_says_what_is_left(
    seconds: float,
) -> None:
    with topology(synchronous=True) as path:
        folder = path.parent.parent / "run"
        with up(path, "--folder", folder) as running:
            running.read_until(READY)
            address = load(folder / "_topology.toml").service("app1").port.url
            get(f"{address}/write?text=before")
            words = [sys.executable, "-m", "outgrow", "promote", "db2", "--folder", str(folder)]
            with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
                wait_until(lambda: succession.begun(folder), "it was not begun", seconds=60)
                time.sleep(seconds)
                acknowledged = told(f"{address}/write?text=acknowledged") if seconds else False
                running.process.kill()
            wait_until(lambda: not is_used(folder), "somebody is left", seconds=60)
        begun = succession.begun(folder)
        if asked := what_next_run_asks(path, folder):
            assert "db2: was promoted, and db1" in asked or "db1: is the primary, and" in asked
            exchange(path, "db1", "db2")
        with controlled(path, folder) as site:
            rows = read(site, "default")
            assert "before" in rows
            assert "acknowledged" in rows or not acknowledged
            write(site, "after")
            for one in site.local.site.services("replica"):
                arrives(site, one.name, "after")
                assert "before" in read(site, one.name)
            assert succession.begun(folder) is None
            if begun is not None and roles(site)["primary"] == ["db2"]:
                assert site.said("outgrow", "db2 was promoted, and that was broken off before db1")


def is_used(folder: Path) -> bool:
    """Whether a process of the run is left, or one of a PostgreSQL that nobody has reaped yet."""
    files = folder.glob("_database/*/postmaster.pid")
    leaders = [int(path.read_text().partition("\n")[0]) for path in files]
    return is_locked(folder) or any(map(psutil.pid_exists, leaders))


def what_next_run_asks(path: Path, folder: Path) -> str:
    try:
        LocalSite(load(path), folder).prepare(dry_run=True)
    except TopologyError as error:
        return str(error)
    return ""


def told(url: str) -> bool:
    """Whether a visitor is told that it is saved."""
    try:
        get_within(url, 1)
    except (urllib.error.HTTPError, OSError):
        return False
    return True


def test_a_promotion_that_never_happened_is_forgotten(site: Site) -> None:
    # As it is when the run was killed between the note and the replica's.
    site.done("stop", "db2")
    succession.begin(site.folder, Succession("db1", "db2"))
    assert site.done("promote", "db3").startswith("db3 is the primary now")
    assert succession.begun(site.folder) is None


# --- behind a pooler


def test_a_pooler_leads_to_the_new_primary() -> None:
    with replicated(pooler="transaction") as site:
        assert writes(site, "before")
        said = site.done("promote", "db2")
        assert said.startswith("db2 is the primary now, and db1 follows it")
        assert writes(site, "after")
        follows(site, "db1", "db3")
        arrives(site, "db1", "after")
        assert {"before", "after"} <= set(read(site, "default"))
