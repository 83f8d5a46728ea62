"""`outgrow deploy-local` on a site that runs: visitors notice nothing, and nothing is half done."""

from __future__ import annotations

import json
import threading
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from outgrow.errors import ControlFailed
from tests.live.nginx import binary
from tests.live.processes import missing, wait_until
from tests.topology.sites import tiny_site
from tests.topology.test_control import Site, controlled
from tests.topology.test_local import get

_WORK = "import tiny.urls, time; print('version', tiny.urls.VERSION, flush=True); time.sleep(9999)"

_MIGRATION = """
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("rows", "0001_initial")]
    operations = [
        migrations.AddField("note", "loud", models.BooleanField(db_default=False, default=False)),
    ]
"""

pytestmark = pytest.mark.timeout(600)


class Code:
    """The code of a site, of which there are versions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._urls = (folder / "urls.py").read_text(encoding="utf-8")
        self.write("1")

    def write(self, version: str, more: str = "") -> None:
        """Whatever `more` does is done when the code is loaded."""
        page = 'urlpatterns.append(path("version", lambda _: HttpResponse(VERSION)))\n'
        text = f'{self._urls}\nVERSION = "{version}"\n{page}{more}'
        (self.folder / "urls.py").write_text(text, encoding="utf-8")

    def add_migration(self, text: str) -> None:
        path = self.folder / "rows/migrations/0002_loud.py"
        path.write_text(text, encoding="utf-8")


@pytest.fixture
def code(tmp_path: Path) -> Code:
    path = tiny_site(
        tmp_path,
        database="sqlite",
        balancer="nginx",
        worker=f'python -c "import django; django.setup(); {_WORK}"',
    )
    return Code(path.parent / "tiny")


@pytest.fixture
def site(tmp_path: Path, code: Code) -> Iterator[Site]:
    if binary() is None:
        missing("nginx is not installed", "apt-get install nginx")
    with controlled(code.folder.parent / "topology.toml", tmp_path / "run") as one:
        # A worker counts as ready when it runs: it may not have loaded its code yet.
        wait_until(lambda: one.said("work1", "version 1"), "the worker does not work")
        yield one


def versions(site: Site) -> list[str]:
    return [get(f"{site.url(name)}/version") for name in ("app1", "app2")]


def pids(site: Site) -> dict[str, int | None]:
    names = [planned.name for planned in site.local.plan.processes]
    return {name: site.local.process(name).pid for name in names}


def columns(site: Site) -> list[str]:
    """Those that the site's own database has."""
    import sqlite3
    from contextlib import closing

    [path] = site.folder.parent.rglob("*.sqlite3")
    with closing(sqlite3.connect(path)) as connection:
        return [row[1] for row in connection.execute("PRAGMA table_info(rows_note)")]


@contextmanager
def visitors(url: str) -> Iterator[list[str]]:
    """Two who look at a page again and again; what went wrong."""
    stop, problems = threading.Event(), list[str]()

    def look() -> None:
        while not stop.is_set():
            try:
                get(f"{url}/version")
            except (urllib.error.URLError, OSError) as error:
                problems.append(repr(error))

    threads = [threading.Thread(target=look, name="a visitor") for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield problems
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_new_version_comes_while_visitors_look(site: Site, code: Code) -> None:
    before = pids(site)
    assert versions(site) == ["1", "1"]
    assert "loud" not in columns(site)
    code.write("2")
    code.add_migration(_MIGRATION)
    with visitors(site.url("front")) as problems:
        lines = site.done("deploy-local").splitlines()
    assert problems == []
    assert [line.rpartition(" (")[0] for line in lines] == [
        "The new code loads, and its checks find no error.",
        "The database is migrated.",
        "app1 has reloaded (SIGHUP), and is ready.",
        "app2 has reloaded (SIGHUP), and is ready.",
        "work1 can't reload: it was restarted, and is ready.",
        "repair can't reload: it was restarted, and is ready.",
    ]
    assert versions(site) == ["2", "2"]
    assert "loud" in columns(site)
    wait_until(lambda: site.said("work1", "version 2"), "the worker has the old code")
    after = pids(site)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"work1", "repair"}


@pytest.mark.parametrize(
    "broken",
    ["raise ValueError('this is broken')", "def this is broken", "import this_is_broken"],
)
def test_code_that_does_not_load_reaches_no_server(site: Site, code: Code, broken: str) -> None:
    before = pids(site)
    workers = [site.workers(name) for name in ("app1", "app2")]
    code.write("2", broken)
    code.add_migration(_MIGRATION)
    said = site.refused("deploy-local")
    assert said.startswith("check ended with status 1")
    assert "broken" in said
    assert versions(site) == ["1", "1"]
    assert "loud" not in columns(site)
    assert pids(site) == before
    assert [site.workers(name) for name in ("app1", "app2")] == workers


def test_a_migration_that_fails_reaches_no_server(site: Site, code: Code) -> None:
    code.write("2")
    code.add_migration(_MIGRATION.replace('"note"', '"nothing"'))
    said = site.refused("deploy-local")
    assert "migrate ended with status 1" in said
    assert "nothing" in said
    assert versions(site) == ["1", "1"]


def test_it_stops_at_the_first_server_that_fails(site: Site, code: Code) -> None:
    """It loads, and no page works: only who has it can know."""
    site.local._ready_limit = 5.0
    code.write("2", "urlpatterns[0] = path('', lambda _: 1 / 0)")
    said = site.refused("deploy-local", "--no-migrate")
    assert "app1" in said
    assert "app2, work1, repair: still the old code. Mend it, and begin again." in said
    assert get(f"{site.url('app2')}/version") == "1"
    code.write("3")
    site.local._ready_limit = 30.0
    site.done("deploy-local", "--no-migrate")
    assert versions(site) == ["3", "3"]


def test_who_does_not_run_gets_it_later(site: Site, code: Code) -> None:
    site.done("stop", "app2")
    code.write("2")
    found = json.loads(site.done("deploy-local", "--no-migrate", "--json"))
    assert found["away"] == ["app2"]
    assert [one["name"] for one in found["done"]] == ["check", "app1", "work1", "repair"]
    assert all(one["seconds"] > 0 for one in found["done"])
    site.done("start", "app2")
    assert versions(site) == ["2", "2"]


def test_a_dry_run_does_nothing(site: Site, code: Code) -> None:
    before = pids(site)
    code.write("2")
    site.done("freeze", "app2")
    assert site.done("deploy-local", "--dry-run").splitlines() == [
        "1. check",
        "2. migrate",
        "3. reload app1",
        "4. reload work1",
        "5. reload repair",
        "app2 does not run: it has the new code when it is started.",
    ]
    site.done("thaw", "app2")
    assert pids(site) == before
    assert versions(site) == ["1", "1"]


def test_nothing_else_can_be_prepared(site: Site) -> None:
    from outgrow.topology import control

    with pytest.raises(ControlFailed, match='"dance" is nothing that is done before'):
        control.prepare(site.folder, "dance")
