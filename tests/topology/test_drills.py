"""`outgrow drill`: real servers are broken under load; and a site that breaks its promises."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from outgrow.drills.judge import WRITE, Found, Request, judge
from outgrow.drills.ledger import Ledger
from outgrow.topology.ports import is_free
from tests.live.processes import wait_until
from tests.topology.sites import tiny_site

COMMAND = [sys.executable, "-m", "outgrow", "drill"]
LIMIT = 240

#: What is killed in the short run; all else is in the long one.
SHORT = ("kill-app", "kill-media", "kill-primary", "freeze-replica", "disk-media")


@pytest.fixture
def topology(tmp_path: Path) -> Path:
    return tiny_site(
        tmp_path, balancer="nginx", database="postgresql", replicas=("db2",), cache="memcached"
    )


def run(topology: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "--topology", str(topology), *words],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env={**os.environ, "NO_COLOR": "1"},
    )


def nothing_is_left(folder: Path) -> None:
    """No process that was started for this folder, and nobody at its ports."""
    content = tomllib.loads((folder / "_topology.toml").read_text())
    ports = [n for server in content["servers"].values() for n in server["ports"].values()]
    assert len(ports) >= 4
    wait_until(lambda: all(map(is_free, ports)), "a port is still taken")
    wait_until(lambda: not list(_of(folder)), f"somebody is left: {list(_of(folder))}")


def _of(folder: Path) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            variables = process.environ()
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
        if any(str(folder) in word for word in (*words, variables.get("OUTGROW_TOPOLOGY", ""))):
            yield process


@pytest.mark.drills
@pytest.mark.timeout(LIMIT)
def test_promises_hold_while_servers_die(topology: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = run(topology, *SHORT, "--seconds", "3", "--folder", str(folder), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    by_name: dict[str, Any] = {one["name"]: one for one in report["drills"]}
    assert by_name.keys() == set(SHORT)
    assert report["holds"] is True
    assert report["skipped"] == {}
    for one in by_name.values():
        assert one["sent"] > 50
        assert one["failed"] < one["sent"]
        assert one["notes"] == []
    # The fault was one: while the only primary is away nobody writes.
    assert by_name["kill-primary"]["failed"] > 0
    assert by_name["kill-primary"]["without_writes"] > 0
    assert json.loads((folder / "_report.json").read_text()) == report
    assert any((folder / "media1" / "outgrow-drill").iterdir())
    nothing_is_left(folder)


@pytest.mark.drills
@pytest.mark.timeout(LIMIT)
def test_promises_hold_behind_a_pooler(tmp_path: Path) -> None:
    path = tiny_site(tmp_path, database="postgresql", replicas=("db2",), pooler="transaction")
    names = ("kill-primary", "kill-replica", "kill-pooler")
    done = run(path, *names, "--seconds", "3", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    by_name = {one["name"]: one for one in report["drills"]}
    assert by_name.keys() == set(names)
    assert report["holds"] is True
    # The fault was one: without the only pooler nobody gets to the database.
    assert by_name["kill-pooler"]["failed"] > 0
    assert by_name["kill-pooler"]["without_writes"] > 0


@pytest.mark.drill
@pytest.mark.timeout(LIMIT)
def test_a_primary_is_lost_with_its_disk_and_no_row_with_it(tmp_path: Path) -> None:
    path = tiny_site(
        tmp_path,
        balancer="nginx",
        database="postgresql",
        replicas=("db2", "db3"),
        synchronous=True,
    )
    folder = tmp_path / "run"
    done = run(path, "disk-primary", "--seconds", "3", "--folder", str(folder), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    [one] = json.loads(done.stdout)["drills"]
    assert one["lost"] == one["twice"] == one["stale"] == 0
    assert one["notes"] == []
    assert one["without_writes"] > 0
    output = (folder / "_output.txt").read_text()
    assert re.search(r"db[23] is the primary now, and db1 follows it, with a copy", output)
    assert re.search(r"db1 is the primary now, and db[23] follows it, its data rewound", output)
    nothing_is_left(folder)


# --- a site that breaks its promises

ROLLS_BACK = '''
"""Says that a write was done, and undoes some of them."""

from django.db import transaction

count = 0


def rolls_back(get_response):
    def middleware(request):
        global count
        if not request.path.endswith("/write"):
            return get_response(request)
        count += 1
        with transaction.atomic():
            response = get_response(request)
            transaction.set_rollback(count % 5 == 0)
        return response

    return middleware


def repeats(get_response):
    def middleware(request):
        if request.path.endswith("/write"):
            get_response(request)
        return get_response(request)

    return middleware
'''


def broken_site(folder: Path, middleware: str) -> Path:
    path = tiny_site(folder, database="sqlite")
    (path.parent / "tiny" / "breaks.py").write_text(ROLLS_BACK)
    with (path.parent / "tiny" / "settings.py").open("a") as settings:
        settings.write(f'\nMIDDLEWARE = [*MIDDLEWARE, "tiny.breaks.{middleware}"]\n')
    return path


@pytest.mark.drill
@pytest.mark.timeout(LIMIT)
@pytest.mark.parametrize(("middleware", "promise"), [("rolls_back", "lost"), ("repeats", "twice")])
def test_a_broken_promise_is_seen(tmp_path: Path, middleware: str, promise: str) -> None:
    folder = tmp_path / "run"
    done = run(
        broken_site(tmp_path, middleware), "restart-app", "--seconds", "2", "--folder", str(folder)
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "A promise was broken; see above." in done.stdout
    assert re.search(rf"^restart-app: {promise}: [0-9a-f]{{24}}$", done.stdout, re.MULTILINE)
    [one] = json.loads((folder / "_report.json").read_text())["drills"]
    assert one[promise] > 5
    nothing_is_left(folder)


def test_an_acknowledgement_that_is_added_to_the_ledger_is_missed(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger") as ledger:
        ledger.add(Request(0.0, WRITE, "real", ok=True))
        assert not judge(ledger.read(), Found({"real": 1}))
        ledger.add(Request(0.0, WRITE, "invented", ok=True))
        assert judge(ledger.read(), Found({"real": 1})).lost == {"invented"}


# --- the command


def test_the_drills_of_a_site_are_listed_without_starting_it(topology: Path) -> None:
    done = run(topology, "--list")
    assert done.returncode == 0
    assert "kill-app: app1\n" in done.stdout
    assert "rolling-restart: app1, app2\n" in done.stdout
    assert "disk-primary: not here, for a commit waits for no replica here" in done.stdout


def test_a_drill_that_is_not_there_is_an_error_in_one_line(topology: Path) -> None:
    done = run(topology, "kill-ap")
    assert done.returncode == 1
    assert '"kill-ap" is not a drill' in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.drill
@pytest.mark.timeout(LIMIT)
def test_a_site_that_sets_its_settings_by_force_is_told(tmp_path: Path) -> None:
    path = tiny_site(tmp_path, database="sqlite")
    wsgi = path.parent / "tiny" / "wsgi.py"
    wsgi.write_text(
        f'import os\nos.environ["DJANGO_SETTINGS_MODULE"] = "tiny.settings"\n{wsgi.read_text()}'
    )
    folder = tmp_path / "run"
    done = run(path, "kill-app", "--folder", str(folder))
    assert done.returncode == 1
    assert "must take DJANGO_SETTINGS_MODULE from the environment" in " ".join(done.stderr.split())
    nothing_is_left(folder)
