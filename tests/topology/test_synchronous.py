"""T2 for rows: the primary is lost with its disk, and no row that was acknowledged is."""

from __future__ import annotations

import shutil
import threading
import urllib.error
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from outgrow.errors import TopologyError
from outgrow.topology.load import load
from tests.live.processes import server_folder, wait_until
from tests.topology.sites import tiny_site
from tests.topology.test_database import read, site_run, write
from tests.topology.test_local import Run

STANDBYS = ("db2", "db3")


@pytest.fixture
def run() -> Iterator[Run]:
    with server_folder("outgrow-synchronous-") as folder:
        path = tiny_site(folder, database="postgresql", replicas=STANDBYS, synchronous=True)
        run = site_run(path, folder, "postgresql")
        with run.local:
            yield run


def test_a_write_waits_until_one_replica_has_it(run: Run) -> None:
    write(run, "before")
    for name in STANDBYS:
        run.local.process(name).pause()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(write, run, "waits")
        # The primary has it, and shows it to nobody: it is not acknowledged.
        with pytest.raises(TimeoutError):
            waiting.result(timeout=2)
        assert read(run, "default") == ["before"]
        run.local.process("db3").resume()
        waiting.result(timeout=30)
    assert "waits" in read(run, "default")
    run.local.process("db2").resume()


def test_a_primary_is_lost_with_its_disk_and_no_acknowledged_row_is(run: Run) -> None:
    acknowledged: list[str] = []
    ended = threading.Event()

    def writes(writer: int) -> None:
        number = 0
        while not ended.is_set():
            text = f"w{writer}n{number}"
            try:
                write(run, text)
            except (urllib.error.HTTPError, OSError):
                continue  # it may be there, or not: nobody was told
            acknowledged.append(text)
            number += 1

    run.local.hold("db1")
    with ThreadPoolExecutor(4) as threads:
        working = [threads.submit(writes, number) for number in range(4)]
        wait_until(lambda: len(acknowledged) >= 100, "rows are written")
        planned = run.local.planned("db1")
        run.local.process("db1").kill()
        assert planned.root is not None
        shutil.rmtree(planned.root)
        # None is acknowledged any more.
        count = len(acknowledged)
        ended.set()
        for one in working:
            one.result(timeout=60)
    assert len(acknowledged) <= count + 4  # those that were on their way
    # What they have received they show when it is replayed. One of them has all, for each
    # has received the rows in their order: it is the one to promote.
    wait_until(
        lambda: any(set(acknowledged) <= set(read(run, name)) for name in STANDBYS),
        "one of the replicas has all of the rows",
    )


def test_without_a_replica_there_is_nobody_to_wait_for(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match=r"database\.synchronous: there is no replica"):
        load(tiny_site(tmp_path, database="postgresql", synchronous=True))


@pytest.mark.parametrize(
    ("engine", "said"), [("mariadb", "is for PostgreSQL"), ("sqlite", "SQLite is none")]
)
def test_it_is_postgresql_s(tmp_path: Path, engine: str, said: str) -> None:
    with pytest.raises(TopologyError, match=rf"database\.synchronous: .*{said}"):
        load(tiny_site(tmp_path, database=engine, replicas=("db2",), synchronous=True))
