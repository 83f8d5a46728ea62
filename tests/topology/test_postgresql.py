"""What a PostgreSQL on a server is told: its own program takes it."""

from __future__ import annotations

import os
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import PurePath

import pytest

from outgrow.errors import TopologyError
from outgrow.topology import programs, rendering
from outgrow.topology.model import Site, parse
from outgrow.topology.presets import preset
from outgrow.topology.render.postgresql import CONFIGURATION
from outgrow.topology.render.systemd import Places
from tests.live.processes import missing, server_folder, unprivileged


def big(**database: object) -> Site:
    content = tomllib.loads(preset("big", "shop", "shop.example.org"))
    content["database"] |= database
    return parse(content, PurePath("/srv/shop"))


def rendered(site: Site) -> dict[str, str]:
    files = rendering.plan(site, Places())
    return {
        file.name.partition("/")[0]: file.content
        for file in files
        if file.name.endswith(f"/{CONFIGURATION}")
    }


@pytest.fixture(scope="module")
def asked() -> Iterator[Callable[[str, str], str]]:
    """What PostgreSQL makes of a setting of a file."""
    try:
        found = programs._postgres()
    except TopologyError as error:
        missing(str(error), "apt-get install postgresql")
    with server_folder("outgrow-postgresql-") as folder:
        user = unprivileged()
        who = {"user": user[0], "group": user[1], "extra_groups": []} if user else {}
        if user:
            os.chown(folder, *user)
        data = folder / "data"

        def run(*words: str) -> str:
            done = subprocess.run(
                words, capture_output=True, text=True, timeout=60, cwd=folder, check=True, **who
            )
            return done.stdout.strip()

        run(found["initdb"], "-D", str(data), "-N", "-U", "postgres")

        def ask(content: str, key: str) -> str:
            (data / "outgrow.conf").write_text(content)
            own = data / "postgresql.conf"
            if "outgrow.conf" not in own.read_text():
                own.write_text(f"{own.read_text()}include 'outgrow.conf'\n")
            return run(found["postgres"], "-D", str(data), "-C", key)

        yield ask


def test_a_primary_waits_for_any_replica(asked: Callable[[str, str], str]) -> None:
    content = rendered(big())["db1"]
    assert asked(content, "synchronous_standby_names") == 'ANY 1 ("db2", "db3")'
    assert asked(content, "wal_log_hints") == "on"
    assert asked(content, "listen_addresses") == "10.0.0.31"
    # 4 application servers with 24 threads, twice for the catalogue, and what repairs and watches.
    assert asked(content, "max_connections") == str(4 * 24 * 2 + 4 * 2 + (12 + 4) + 20)


def test_a_replica_is_ready_to_be_the_primary(asked: Callable[[str, str], str]) -> None:
    found = rendered(big())
    assert asked(found["db2"], "synchronous_standby_names") == 'ANY 1 ("db1", "db3")'
    # Or it would not follow (postgresql.org/docs/current/hot-standby.html).
    assert asked(found["db2"], "max_connections") == asked(found["db1"], "max_connections")


def test_a_commit_that_waits_for_nobody(asked: Callable[[str, str], str]) -> None:
    content = rendered(big(synchronous=False))["db1"]
    assert asked(content, "synchronous_standby_names") == ""


def test_others_have_no_such_file() -> None:
    content = tomllib.loads(preset("big", "shop", "shop.example.org"))
    content["database"]["engine"] = "mariadb"
    del content["database"]["synchronous"]
    assert rendered(parse(content, PurePath("/srv/shop"))) == {}
