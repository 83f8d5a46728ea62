"""The second half of the demo: the rows, while replicas lag and die.

Nothing here is believed: what each visitor sees is read from his pages, and which
database a page was read from stands in its header.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

import psycopg
from rich.table import Table
from visitor import Visitor

from outgrow.topology.local import LocalSite

#: The standby that is killed.
VICTIM = "db2"

#: Visitors who write while no replica replays anything.
WRITERS = 6

#: Threads that ask for pages while a standby dies, and the seconds for which they do.
READERS, SECONDS = 4, 6.0

#: Seconds until a standby that was started again serves pages again.
LIMIT = 60.0


@dataclass(slots=True)
class Rows:
    """What became of the rows, as far as it was seen."""

    #: Pages by the database that they were read from.
    pages: Counter[str] = field(default_factory=Counter)
    wrote: int = 0
    saw_theirs: int = 0
    strangers: int = 0
    strangers_old: int = 0
    statuses: list[int] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    back_in: float | None = None
    back_on: set[str] = field(default_factory=set)


def play(local: LocalSite, rows: Rows) -> Iterator[str]:
    """The story. Each step is told before it is done; `rows` gets what was seen."""
    apps = [local.address("app1"), local.address("app2")]
    replicas = [server.name for server, _port in local.site.replicas()]
    warm(apps, rows, replicas)
    yield f"Pausing replay on {' and '.join(replicas)}: {WRITERS} visitors write, and look."
    with paused(local, replicas):
        write_and_look(apps, rows)
    yield f"Killing {VICTIM} with SIGKILL, while {READERS} visitors read pages all the time."
    stream(local, apps, rows)
    yield f"Starting {VICTIM} again, and waiting until it serves pages."
    come_back(local, apps, rows)


def warm(apps: list[str], rows: Rows, replicas: list[str]) -> None:
    """Until each application server has read from each replica."""
    for app in apps:
        end, missing = time.monotonic() + LIMIT, set(replicas)
        while missing and time.monotonic() < end:
            missing.discard(look(app, rows)[0])


def look(app: str, rows: Rows, visitor: Visitor | None = None) -> tuple[str, str]:
    """Ask for the first page; which database it was read from, and its text."""
    visitor = visitor or Visitor(app, rows.statuses)
    read_from, text = visitor.look(app)
    rows.pages[read_from] += 1
    return read_from, text


@contextmanager
def paused(local: LocalSite, replicas: list[str]) -> Iterator[None]:
    """No replica replays what comes in."""
    for name in replicas:
        execute(local, name, "SELECT pg_wal_replay_pause()")
    try:
        for name in replicas:
            wait_paused(local, name)
        yield
    finally:
        for name in replicas:
            execute(local, name, "SELECT pg_wal_replay_resume()")


def wait_paused(local: LocalSite, name: str) -> None:
    """What was being replayed when it was told is replayed first."""
    end = time.monotonic() + LIMIT
    while execute(local, name, "SELECT pg_get_wal_replay_pause_state()") != "paused":
        if time.monotonic() > end:
            raise TimeoutError(f"{name} does not pause")
        time.sleep(0.05)


def execute(local: LocalSite, name: str, sql: str) -> str:
    """Run SQL on one server, as its administrator; the first value of the first row."""
    database, port = local.site.database, local.site.service(name).port
    assert database is not None
    assert database.password_file is not None
    with psycopg.connect(
        host=port.host,
        port=port.number,
        user="postgres",
        password=Path(database.password_file).read_text(encoding="utf-8").strip(),
        dbname=database.name,
        autocommit=True,
        connect_timeout=5,
    ) as connection:
        row = connection.execute(sql.encode()).fetchone()
        return str(row[0]) if row else ""


def write_and_look(apps: list[str], rows: Rows) -> None:
    """Each visitor makes an album on one server, and looks for it on the other."""
    for number in range(WRITERS):
        here, there = apps[number % 2], apps[(number + 1) % 2]
        visitor, title = Visitor(here, rows.statuses), f"Just now {number}"
        visitor.make_album(title)
        rows.wrote += 1
        rows.saw_theirs += title in look(there, rows, visitor)[1]
        # The control: who wrote nothing may be served by a replica, which does not have it.
        read_from, text = look(there, rows)
        if read_from != "default":
            rows.strangers += 1
            rows.strangers_old += title not in text


def stream(local: LocalSite, apps: list[str], rows: Rows) -> None:
    """Pages without end, and in the middle of it a standby dies."""
    over = time.monotonic() + SECONDS
    with ThreadPoolExecutor(READERS) as pool:
        readers = [pool.submit(read, apps[number % 2], over) for number in range(READERS)]
        time.sleep(SECONDS / 3)
        local.hold(VICTIM)
        local.process(VICTIM).kill()
    for reader in readers:
        # Whatever else ended a reader ends the demo: what he did not see is not counted as well.
        mine = reader.result()
        rows.pages += mine.pages
        rows.statuses += mine.statuses
        rows.failed += mine.failed


def read(app: str, over: float) -> Rows:
    """One visitor, who asks for pages until then: what he saw."""
    mine = Rows()
    while time.monotonic() < over:
        try:
            look(app, mine)
        except (OSError, HTTPException) as error:  # no answer, or half of one
            mine.failed.append(f"{type(error).__name__}: {error}")
    return mine


def come_back(local: LocalSite, apps: list[str], rows: Rows) -> None:
    """Until both application servers read from it again."""
    local.release(VICTIM)
    local.wait_ready(VICTIM)
    begin = time.monotonic()
    while time.monotonic() - begin < LIMIT:
        for app in apps:
            if look(app, rows)[0] == VICTIM:
                rows.back_on.add(app)
        if len(rows.back_on) == len(apps):
            rows.back_in = time.monotonic() - begin
            return
        time.sleep(0.1)


def standings(local: LocalSite, rows: Rows) -> Table:
    """Each database server as both application servers see it now, and the pages it served."""
    seen = [Visitor(local.address(app), []).databases() for app in ("app1", "app2")]
    result = Table()
    for heading in ("database", "role", "state", "behind by at most", "pages read from it"):
        result.add_column(heading)
    for same in zip(*seen, strict=True):
        alias, role = same[0]["alias"], same[0]["role"]
        lags = [one["lag"] for one in same]
        behind = "unknown" if None in lags else f"{max(lags):.1f} s"
        result.add_row(
            alias,
            role,
            "[green]up[/]" if all(one["up"] for one in same) else "[red]down[/]",
            "" if role == "primary" else behind,
            str(rows.pages[alias]),
        )
    return result
