"""Database servers below `outgrow up`: real ones, killed, paused, and started again."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from outgrow.errors import TopologyError
from outgrow.topology import account
from outgrow.topology.load import load
from outgrow.topology.local import LocalSite
from tests.live.processes import all_have_status, family, missing, server_folder, wait_until
from tests.topology.sites import tiny_site
from tests.topology.test_local import Run, get

REPLICAS = {"postgresql": {"db2": "db2", "db-3": "db_3"}, "mariadb": {"db2": "db2"}}
INSTALL = {"postgresql": "postgresql", "mariadb": "mariadb-server-core mariadb-client-core"}


@pytest.fixture(scope="module", params=list(REPLICAS))
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(engine: str) -> Iterator[Path]:
    """Where the servers' own user can get."""
    with server_folder("outgrow-up-") as place:
        yield place


@pytest.fixture(scope="module")
def path(engine: str, folder: Path) -> Path:
    return tiny_site(folder, database=engine, replicas=tuple(REPLICAS[engine]))


def site_run(path: Path, folder: Path, engine: str) -> Run:
    run = Run(load(path), folder / "run")
    try:
        run.local.prepare(dry_run=True)
    except TopologyError as error:
        missing(str(error), f"apt-get install {INSTALL[engine]}")
    return Run(load(path), folder / "run")


@pytest.fixture(scope="module")
def running(path: Path, folder: Path, engine: str) -> Iterator[Run]:
    run = site_run(path, folder, engine)
    with run.local:
        yield run


@pytest.fixture
def aliases(engine: str) -> list[str]:
    return list(REPLICAS[engine].values())


def write(run: Run, text: str) -> None:
    get(run.local.address("app1") + "/write?" + urllib.parse.urlencode({"text": text}))


def read(run: Run, alias: str) -> list[str]:
    return get(run.local.address("app2") + f"/read?alias={alias}").split()


def sees(run: Run, alias: str, text: str) -> Callable[[], bool]:
    def seen() -> bool:
        try:
            return text in read(run, alias)
        except OSError:  # status 500: it is not back yet
            return False

    return seen


def arrives(run: Run, alias: str, text: str) -> None:
    wait_until(sees(run, alias, text), f"{text} is not on {alias}", seconds=60)


def test_rows_that_are_written_are_seen_on_every_replica(running: Run, aliases: list[str]) -> None:
    write(running, "first")
    assert "first" in read(running, "default")
    for alias in aliases:
        arrives(running, alias, "first")


def test_the_site_can_t_write_on_a_replica(running: Run, aliases: list[str]) -> None:
    code = (
        "import django; django.setup(); from tiny.rows.models import Note\n"
        f"Note.objects.using('{aliases[0]}').create(text='wrong')"
    )
    done = manage(running.local, "-c", code)
    assert done.returncode == 1
    assert "is a replica" in done.stderr.splitlines()[-1]
    assert "wrong" not in read(running, "default")


def manage(local: LocalSite, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        env={**os.environ, **local.environment},
        cwd=local.site.folder,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_migrations_have_run_and_manage_py_works(running: Run) -> None:
    assert any(
        name == "migrate" and "rows.0001_initial... OK" in text for name, text in running.seen
    )
    done = manage(running.local, "-m", "django", "migrate", "--check")
    assert (done.returncode, done.stderr) == (0, "")


def test_what_prepares_is_silent_and_the_password_is_nowhere(running: Run, path: Path) -> None:
    local = running.local
    password = (local.folder / "_password").read_text()
    assert len(password) == 32
    assert stat.S_IMODE((local.folder / "_password").stat().st_mode) == 0o600
    assert not any(password in text for _, text in running.seen)
    assert password not in (local.folder / "_topology.toml").read_text()
    words = [word for p in local.plan.processes for word in family(local.process(p.name).pid or 0)]
    assert not any(password in " ".join(process.cmdline()) for process in words)
    assert password not in repr(local.plan)
    assert {name for name, _ in running.seen} <= {
        *(planned.name for planned in local.plan.processes),
        *("outgrow", "migrate"),
    }
    dry = subprocess.run(
        [sys.executable, "-m", "outgrow", "up", path, "--dry-run", "--folder", local.folder],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert dry.returncode == 0
    assert password not in dry.stdout


def test_they_run_unprivileged_and_on_loopback_alone(running: Run) -> None:
    local = running.local
    for planned in local.plan.processes:
        if not planned.role.startswith(("primary", "replica")):
            continue
        for process in family(local.process(planned.name).pid or 0):
            assert process.uids().real == (account.account() or (os.geteuid(),))[0] != 0
            listening = [c for c in process.net_connections("inet") if c.status == "LISTEN"]
            assert {c.laddr.ip for c in listening} <= {"127.0.0.1"}
            unix = [c.laddr for c in process.net_connections("unix") if c.laddr]
            assert unix == []


def test_a_replica_that_is_killed_comes_back_and_has_what_it_missed(
    running: Run, aliases: list[str]
) -> None:
    local = running.local
    local.hold("db2")
    everyone = family(local.process("db2").pid or 0)
    local.process("db2").kill()
    wait_until(lambda: all_have_status(everyone, psutil.STATUS_ZOMBIE), "some of it is left")
    write(running, "missed")
    local.release("db2")
    local.wait_ready("db2")
    arrives(running, aliases[0], "missed")


def test_a_primary_that_is_killed_comes_back_with_every_row(
    running: Run, aliases: list[str]
) -> None:
    local = running.local
    write(running, "before")
    local.hold("db1")
    everyone = family(local.process("db1").pid or 0)
    local.process("db1").kill()
    wait_until(lambda: all_have_status(everyone, psutil.STATUS_ZOMBIE), "some of it is left")
    for alias in aliases:
        # Not "before": the replication is asynchronous, and the primary was killed at once.
        assert "first" in read(running, alias)
    local.release("db1")
    local.wait_ready("db1")
    wait_until(lambda: writes(running, "after"), "it does not take writes", seconds=15)
    assert {"before", "after"} <= set(read(running, "default"))
    for alias in aliases:
        arrives(running, alias, "after")
        assert "before" in read(running, alias)


def writes(run: Run, text: str) -> bool:
    try:
        write(run, text)
    except OSError:
        return False
    return True


def test_a_paused_replica_answers_nobody_until_it_goes_on(running: Run, aliases: list[str]) -> None:
    local, alias = running.local, aliases[0]
    replica = local.process("db2")
    everyone = family(replica.pid or 0)
    replica.pause()
    wait_until(lambda: all_have_status(everyone, psutil.STATUS_STOPPED), "it was not paused")
    write(running, "paused")
    with pytest.raises(TimeoutError):
        get_within(local.address("app2") + f"/read?alias={alias}", 0.3)
    replica.resume()
    arrives(running, alias, "paused")


def get_within(url: str, seconds: float) -> None:
    import urllib.request

    with urllib.request.urlopen(url, timeout=seconds):
        pass


def test_a_leader_that_is_killed_while_all_are_paused_leaves_nobody(running: Run) -> None:
    local = running.local
    everyone = family(local.process("db2").pid or 0)
    local.process("db2").pause()
    os.kill(everyone[0].pid, signal.SIGKILL)
    wait_until(lambda: all_have_status(everyone, psutil.STATUS_ZOMBIE), "somebody is left")
    local.wait_ready("db2")


def check(local: LocalSite, name: str) -> str:
    return local.planned(name).check.problem()


def test_what_does_not_do_its_work_is_said(running: Run, engine: str) -> None:
    local = running.local
    assert check(local, "db1") == check(local, "db2") == ""
    local.hold("db1")
    local.process("db1").kill()
    words = {"postgresql": "does not stream", "mariadb": "does not follow"}
    wait_until(lambda: words[engine] in once(local, "db2"), "it is not noticed")
    local.release("db1")
    local.wait_ready("db1")
    wait_until(lambda: not once(local, "db2"), "it does not come back")


def once(local: LocalSite, name: str) -> str:
    from dataclasses import replace

    return replace(local.planned(name).check, seconds=0.0).problem()  # type: ignore[type-var]


# --- the next run; each of these has the folder that those above have left


@pytest.fixture
def again(path: Path, folder: Path, engine: str, request: pytest.FixtureRequest) -> Run:
    # All of the tests above are done with it.
    running: Run = request.getfixturevalue("running")
    running.local.stop()
    return site_run(path, folder, engine)


def test_the_next_run_has_the_rows(again: Run, aliases: list[str]) -> None:
    with again.local:
        assert "first" in read(again, "default")
        write(again, "second")
        for alias in aliases:
            assert "first" in read(again, alias)
            arrives(again, alias, "second")


def test_half_of_a_copy_is_made_anew(again: Run, folder: Path, aliases: list[str]) -> None:
    data = folder / "run" / "_database"
    shutil.rmtree(data / "db2")
    (data / "db2.new" / "half").mkdir(parents=True)
    with again.local:
        arrives(again, aliases[0], "second")
    assert not (data / "db2.new").exists()


def test_a_replica_that_can_t_be_used_is_made_anew(
    again: Run, folder: Path, engine: str, aliases: list[str]
) -> None:
    broken = {"postgresql": "global/pg_control", "mariadb": "ibdata1"}
    file = folder / "run" / "_database" / "db2" / broken[engine]
    file.write_bytes(b"\0" * file.stat().st_size)
    with again.local:
        assert again.said("outgrow", "its data are made anew.")
        arrives(again, aliases[0], "second")


def test_an_empty_primary_takes_no_replica_s_rows_away(
    again: Run, path: Path, folder: Path, engine: str, aliases: list[str]
) -> None:
    data = folder / "run" / "_database"
    shutil.rmtree(data / "db1")
    refused = LocalSite(load(path), folder / "run")
    with pytest.raises(TopologyError, match="db1: has lost its data"), refused:
        pass
    assert (data / "db2").is_dir()
    # Somebody begins anew, and says so.
    for name in REPLICAS[engine]:
        shutil.rmtree(data / name)
    with again.local:
        write(again, "new")
        assert read(again, "default") == ["new"]
        for alias in aliases:
            arrives(again, alias, "new")
            assert read(again, alias) == ["new"]


def test_startup_is_quick(again: Run, engine: str) -> None:
    begin = time.monotonic()
    with again.local:
        print(f"{engine}: {time.monotonic() - begin:.2f} s")
        assert time.monotonic() - begin < 60  # on a machine that has much else to do


def test_nobody_survives_the_sigkill_of_the_command(
    again: Run, path: Path, folder: Path, engine: str
) -> None:
    words = [sys.executable, "-m", "outgrow", "up", path, "--folder", folder / "run"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as up:
        assert up.stdout
        for line in up.stdout:
            if "All are ready" in line:
                break
        everyone = family(up.pid)
        assert len(everyone) > 9
        for process in everyone:
            if process.name() in {"postgres", "mariadbd"}:
                process.suspend()
        up.kill()
        wait_until(lambda: all_have_status(everyone, psutil.STATUS_ZOMBIE), "somebody is left")
