"""The role `pooler`: the file, the settings, PgBouncer's configuration, plans, and the pages."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import pytest
from click.testing import CliRunner

from outgrow.cli import main
from outgrow.errors import ConfigurationError
from outgrow.testing import free_port
from outgrow.topology import rendering
from outgrow.topology.capacity import SPARE, clients, connections, pool
from outgrow.topology.changes import changes
from outgrow.topology.doors import doors
from outgrow.topology.figure import figure
from outgrow.topology.load import DIRECT, SERVER_VARIABLE, VARIABLE, current
from outgrow.topology.model import Port, Site, direct, parse
from outgrow.topology.pooler import Pooler, entry
from outgrow.topology.render import pgbouncer, toml
from outgrow.topology.render.systemd import POOLER_UNIT, Places
from outgrow.topology.settings import django_settings
from tests.live.processes import missing, server_folder
from tests.topology.sites import problems
from tests.topology.test_systemd import verify

USERS = PurePosixPath("/etc/outgrow/userlist.txt")
SERVERS = {
    "app1": "app",
    "app2": "app",
    "media1": "media",
    "pool1": "pooler",
    "db1": "primary",
    "db2": "replica",
}
EACH = {"app1": "app pooler", "app2": "app pooler", "media1": "media", "db1": "primary"}


def content(servers: dict[str, str] = SERVERS, **tables: Any) -> dict[str, Any]:
    return {
        "site": {
            "name": "shop",
            "settings": "shop.settings",
            "wsgi": "shop.wsgi:application",
            "domains": ["example.org"],
            "media_root": "media",
        },
        "database": {"engine": "postgresql", "name": "shop", "user": "web"},
        "servers": {
            name: {"roles": roles.split(), "address": f"10.0.0.{number}"}
            for number, (name, roles) in enumerate(servers.items(), 1)
        },
        **tables,
    }


def site(servers: dict[str, str] = SERVERS, **tables: Any) -> Site:
    return parse(content(servers, **tables), PurePath("/srv"))


# --- the file


def test_the_table() -> None:
    assert site().pooler == Pooler("transaction", 20, None)
    assert site().service("pool1").port == Port("10.0.0.4", 6432)
    table = {"mode": "session", "size": 5, "clients": 90}
    found = site(pooler=table)
    assert found.pooler == Pooler("session", 5, 90)
    [file] = toml.render(found)
    assert parse(tomllib.loads(file.content), PurePath("/x")) == found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pooler": {"mode": "statement"}}, 'pooler.mode: "statement" is not a mode of a pooler'),
        ({"pooler": {"size": 0}}, "pooler.size: must be from 1 to 10000, not 0."),
        ({"pooler": {"clients": 0}}, "pooler.clients: must be from 1 to 1000000, not 0."),
        ({"pooler": {"siz": 1}}, 'pooler.siz: is not a known key; did you mean "size"?'),
        ({"database": {"engine": "mariadb", "name": "x"}}, "PgBouncer is for PostgreSQL."),
        ({"database": {"engine": "postgresql", "name": "pgbouncer"}}, "has for its console."),
        ({"database": {"engine": "postgresql", "name": "x" * 62}}, "which is too long."),
        ({"database": {"engine": "postgresql", "name": "x;y"}}, 'database.name: "x;y" must be'),
        ({"database": {"engine": "postgresql", "name": 'x"\n[y]'}}, "database.name: "),
    ],
)
def test_what_is_wrong(change: dict[str, Any], message: str) -> None:
    assert any(message in one for one in problems(content(**change)))


def test_it_needs_a_primary() -> None:
    servers = {"web": "app media pooler"}
    path = "servers.web.roles[2]"
    assert f'{path}: there is no primary for this pooler. One server is "primary".' in problems(
        content(servers)
    )
    found = content(servers)
    del found["database"]
    assert any("PgBouncer is for PostgreSQL" in one for one in problems(found))


def test_one_for_all_or_one_for_each() -> None:
    assert site(EACH).pooled() == Port("127.0.0.1", 6432)
    assert site().pooled() == Port("10.0.0.4", 6432)
    assert direct(site()).pooled() is None
    assert "pool1" not in [host.name for host in direct(site()).hosts]
    some = problems(content({**EACH, "app3": "app", "pool": "pooler"}))
    assert len(some) == 2
    assert "servers.pool.roles[0]: there are several poolers, and nobody is on this" in some[0]
    assert "servers.app3: it has no pooler of its own, and there are several." in some[1]
    ports = content(EACH)
    ports["servers"]["app1"]["ports"] = {"pooler": 6433}
    [one] = problems(ports)
    assert "the poolers listen at different ports." in one
    # On one machine they do.
    for name in ("app1", "app2"):
        ports["servers"][name]["address"] = "127.0.0.1"
    ports["servers"]["app1"]["ports"] |= {"app": 8001}
    assert parse(ports, PurePath("/")).pooled() == Port("127.0.0.1", 6433)


def test_each_process_has_the_pooler_of_its_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = content(EACH)
    for number, name in enumerate(("app1", "app2")):
        found["servers"][name] |= {
            "address": "127.0.0.1",
            "ports": {"app": 8001 + number, "pooler": 7001 + number},
        }
    path = tmp_path / "topology.toml"
    [file] = toml.render(parse(found, tmp_path))
    path.write_text(file.content)
    for variable in (VARIABLE, SERVER_VARIABLE, DIRECT):
        monkeypatch.delenv(variable, raising=False)
    assert current(path).pooled() == Port("127.0.0.1", 7001)
    monkeypatch.setenv(SERVER_VARIABLE, "app2:app")
    assert current(path).pooled() == Port("127.0.0.1", 7002)
    monkeypatch.setenv(DIRECT, "1")
    assert current(path).pooled() is None


# --- Django's settings


def test_settings_by_transaction() -> None:
    found = django_settings(site())
    for alias, name in (("default", "shop"), ("db2", "shop.db2")):
        one = found["DATABASES"][alias]
        assert (one["NAME"], one["HOST"], one["PORT"]) == (name, "10.0.0.4", "6432")
        assert one["DISABLE_SERVER_SIDE_CURSORS"] is True
        assert one["CONN_MAX_AGE"] == 600
        assert "prepare_threshold" not in one["OPTIONS"]  # Django's own default prepares none
    assert found["DATABASES"]["db2"]["TEST"] == {"MIRROR": "default"}
    assert found["OUTGROW"]["POOLED"] == {"default": "transaction", "db2": "transaction"}
    assert set(found["OUTGROW"]) == {"POOLED", "REPLICATION", "APP_SERVERS"}


def test_settings_by_session() -> None:
    found = django_settings(site(pooler={"mode": "session"}))
    one = found["DATABASES"]["default"]
    assert one["CONN_MAX_AGE"] == 0
    assert "DISABLE_SERVER_SIDE_CURSORS" not in one


def test_past_the_pooler_all_is_as_without_one() -> None:
    without = {name: role for name, role in SERVERS.items() if role != "pooler"}
    plain = content(without)
    for name, server in content()["servers"].items():
        if name in plain["servers"]:
            plain["servers"][name] = server
    assert django_settings(direct(site())) == django_settings(parse(plain, PurePath("/srv")))


def test_the_catalogue_has_connections_of_its_own() -> None:
    whole = site(media={"storage": "distributed"})
    assert django_settings(whole)["DATABASES"]["outgrow"]["NAME"] == "shop.outgrow"
    assert list(pgbouncer.entries(whole)) == ["shop", "shop.outgrow", "shop.db2"]
    assert connections(whole, "primary") == 2 * 20 + SPARE
    assert connections(whole, "replica") == 20 + SPARE


# --- sums


def test_sums() -> None:
    assert connections(site(), "primary") == 20 + SPARE
    assert connections(site(EACH), "primary") == 2 * 20 + SPARE
    assert pool(site(pooler={"mode": "session"})) == 20 + 2 * 5
    assert pool(site(EACH, pooler={"mode": "session"})) == 21
    assert clients(site(pooler={"clients": 7})) == 7
    # 2 servers of 3 processes with 8 threads, each with its repair, for 2 aliases; 8 watches each.
    assert clients(site()) == 2 * 25 * 2 + 2 * 8 + SPARE
    assert (
        clients(site({**EACH, "app1": "app pooler worker"}, worker={"command": "python x"}))
        == 25 + 8 + SPARE
    )


# --- PgBouncer's configuration


def rendered(whole: Site, users: PurePath = USERS) -> str:
    [service, *_] = whole.services("pooler")
    [file] = pgbouncer.render(whole, service, users)
    assert file.name == "pgbouncer.ini"
    return file.content


def test_each_server_has_an_entry() -> None:
    text = rendered(site())
    assert "\nshop = host=10.0.0.5 port=5432 dbname=shop\n" in text
    assert (
        "\nshop.db2 = host=10.0.0.6 port=5432 dbname=shop "
        "connect_query='SET default_transaction_read_only = on'\n"
    ) in text
    assert "listen_addr = 10.0.0.4\n" in text
    assert "listen_addr = 127.0.0.1\n" in rendered(site(EACH))
    assert "connect_query" not in rendered(site(pooler={"mode": "session"}))
    assert entry("shop", "default") == "shop"
    rows = content({"web": "app media"}, database={"engine": "sqlite", "name": "rows"})
    assert pgbouncer.entries(parse(rows, PurePath("/"))) == {}


def test_a_path_that_would_be_another_line() -> None:
    with pytest.raises(ConfigurationError, match="can't be given this path"):
        rendered(site(), PurePosixPath("/etc/x\nadmin_users = web"))


def test_the_secret_is_that_of_rfc_7677() -> None:
    """Of its example in section 3: the server's signature of that exchange."""
    import base64
    import hmac

    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    _, _, keys = pgbouncer.scram_secret("pencil", salt).split("$")
    said = (
        b"n=user,r=rOprNGfwEbeRWgbNEkqO,"
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,"
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    )
    signature = hmac.digest(base64.b64decode(keys.split(":")[1]), said, "sha256")
    assert base64.b64encode(signature) == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    file = pgbouncer.users("web", "secret")
    assert (file.content, file.private) == ('"web" "secret"\n', True)


@pytest.mark.parametrize("name", ["shop", "0-a", "_x-Y_9-"])
@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_pgbouncer_takes_it(name: str, mode: str) -> None:
    """It has no command that only looks: one that takes it says so, and listens."""
    from tests.live.databases import as_unprivileged

    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        missing("PgBouncer is not installed", "apt-get install pgbouncer")
    found = content(
        media={"storage": "distributed"},
        pooler={"mode": mode},
        database={"engine": "postgresql", "name": name},
    )
    found["servers"]["pool1"] |= {"address": "127.0.0.1", "ports": {"pooler": free_port()}}
    with server_folder("outgrow-pooler-") as folder:
        users = folder / "userlist.txt"
        users.write_text(pgbouncer.users(name, pgbouncer.scram_secret("x", b"y" * 16)).content)
        path = folder / "pgbouncer.ini"
        path.write_text(rendered(parse(found, folder), users))
        process = subprocess.Popen(
            [str(program), str(path)], stderr=subprocess.PIPE, text=True, **as_unprivileged()
        )
        said: list[str] = []
        try:
            for line in process.stderr or ():
                said.append(line)
                if "process up" in line:
                    break
        finally:
            process.kill()
            process.communicate()
    assert "process up" in said[-1], said
    assert not [line for line in said if "ERROR" in line or "WARNING" in line]


# --- on its server


def test_what_is_rendered_for_its_server(tmp_path: Path) -> None:
    program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin")
    if program is None:
        missing("PgBouncer is not installed", "apt-get install pgbouncer")
    files = {f.name: f.content for f in rendering.plan(site(), Places(pgbouncer=str(program)))}
    assert sorted(name for name in files if name.startswith("pool1/")) == [
        "pool1/README.md",
        "pool1/outgrow-pooler.service",
        "pool1/pgbouncer.ini",
    ]
    assert not verify(tmp_path, files[f"pool1/{POOLER_UNIT}"])
    page = files["pool1/README.md"]
    assert "pg_authid WHERE rolname = " in page
    assert page.startswith("# pool1: connection pooler\n")
    assert "sudo apt-get install pgbouncer\n" in page
    # Ours has the same port, so the distribution's own goes first.
    own = page.index("sudo systemctl disable --now pgbouncer")
    assert own < page.index("sudo systemctl enable --now outgrow-pooler.service")
    assert "| 6432/tcp | connection pooler | app1 (10.0.0.1), app2 (10.0.0.2) |" in page
    assert "python manage.py migrate --check" in page
    callers = "app1 (10.0.0.1), app2 (10.0.0.2), pool1 (10.0.0.4)"
    assert f"| 5432/tcp | replica | {callers} |" in files["db2/README.md"]
    assert "`/etc/outgrow/userlist.txt`, mode 600, of `www-data`" in page
    assert "OUTGROW_DIRECT=1 python manage.py outgrow databases migrate" in files["app1/README.md"]
    assert f"max_connections = {20 + SPARE}" in files["db1/postgresql-outgrow.conf"]


def test_who_asks_it() -> None:
    [door] = doors(site(), next(host for host in site().hosts if host.name == "pool1"))
    assert [name for name, _ in door.callers] == ["app1", "app2"]
    # Each is for its own server, where no firewall stands between.
    each = site(EACH)
    [own] = [door for door in doors(each, each.hosts[0]) if door.service.role == "pooler"]
    assert own.callers == ()


def test_the_figure() -> None:
    found = figure(site())
    assert [[group.key for group in row] for row in found.rows] == [
        ["app"],
        ["pooler"],
        ["media", "primary", "replica"],
    ]
    assert {("app", "pooler"), ("pooler", "primary"), ("pooler", "replica")} <= {
        (one.start, one.end) for one in found.arrows
    }
    assert ("app", "primary", "rows") in {
        (o.start, o.end, o.label) for o in figure(site(EACH)).arrows
    }


def test_beside_others_it_is_not_what_a_server_is_there_for() -> None:
    worker = {"command": "python x"}
    each = figure(site({**EACH, "work": "worker pooler"}, worker=worker))
    assert [group.key for group in each.groups] == ["app", "media", "worker", "primary"]
    assert "also pooler" in each.groups[2].boxes[0].notes
    rows = figure(site({"app1": "app", "media1": "media", "db1": "pooler primary"}))
    assert [group.key for group in rows.groups] == ["app", "media", "primary"]
    assert ("app", "primary") in {(one.start, one.end) for one in rows.arrows}


# --- docs/howto/pooler.md

PAGE = Path(__file__).parents[2] / "docs/howto/pooler.md"


def test_the_page_is_done_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file, its commands one after the other, and what it says that they show."""
    page = PAGE.read_text()
    monkeypatch.chdir(tmp_path)
    [text] = re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    Path("topology.toml").write_text(text)
    before = tomllib.loads(text)
    del before["servers"]["pool1"]
    [file] = toml.render(parse(before, tmp_path))
    Path("before.toml").write_text(file.content)
    said = {}
    blocks = re.findall(r"^```console\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    for line in "".join(blocks).splitlines():
        words = shlex.split(line.removeprefix("$ outgrow "))
        done = CliRunner().invoke(main, words)
        # A plan that has steps says so by its status.
        assert done.exit_code == (words[0] == "plan"), done.output
        said[words[0]] = done.output
    assert list(said) == ["render", "plan", "draw", "capacity"]
    [shown] = re.findall(r"^```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert [line for line in shown.splitlines() if f"{line}\n" not in said["capacity"]] == []
    assert {one.name for one in Path("servers/pool1").iterdir()} == {
        "README.md",
        "outgrow-pooler.service",
        "pgbouncer.ini",
    }
    assert "pool1: start the connection pooler" in said["plan"]
    assert "connection poolers" in said["draw"]
    assert "PgBouncer" in said["draw"]


def test_the_table_of_settings_of_the_page() -> None:
    distributed = {"storage": "distributed"}
    shown = PAGE.read_text()
    rows = {"engine": "postgresql", "name": "photos", "user": "web"}
    found = django_settings(site(media=distributed, database=rows))["DATABASES"]
    for alias in ("db2", "outgrow"):
        assert f"`{found[alias]['NAME']}` for the " in shown
    kept = found["default"]["CONN_MAX_AGE"]
    by_session = django_settings(site(pooler={"mode": "session"}))["DATABASES"]["default"]
    wanted = f'| `CONN_MAX_AGE` | {kept} with `"transaction"`, {by_session["CONN_MAX_AGE"]} with'
    assert wanted in shown
    limit = re.search(r"^query_wait_timeout = (\d+)$", rendered(site()), re.MULTILINE)
    assert limit is not None
    assert limit[1] == "5"
    assert "five seconds at the most" in shown


# --- plans


def steps(before: Site, after: Site) -> list[str]:
    return [f"{one.server}: {one.verb} {one.what}" for one in changes(before, after)]


def without(*names: str) -> Site:
    """The same site without some servers, which leave their addresses to nobody."""
    found = content()
    for name in names:
        del found["servers"][name]
    return parse(found, PurePath("/srv"))


def test_a_pooler_comes_before_who_is_led_there_and_goes_after() -> None:
    come = [one.partition(" at ")[0] for one in steps(without("pool1"), site())]
    start = come.index("pool1: start the connection pooler")
    assert come.index("pool1: set up the connection pooler") < start
    assert start < come.index("app1: reload the application server with the new file")
    go = steps(site(), without("pool1"))
    reload = go.index("app2: reload the application server with the new file")
    assert reload < go.index("pool1: remove the connection pooler")


def test_where_the_primary_moves_the_pooler_is_what_leads_there() -> None:
    moved = content()
    moved["servers"]["db3"] = {"roles": ["primary"], "address": "10.0.0.9"}
    del moved["servers"]["db1"]
    found = steps(site(), parse(moved, PurePath("/srv")))
    [move] = [one for one in found if ": move the data of the database" in one]
    reload = found.index("pool1: reload PgBouncer with the new file")
    assert found.index(move) < reload < found.index("db1: remove the primary database")
    # The settings name the pooler, before and after.
    assert not [one for one in found if "reload the application server" in one]


def test_a_replica_is_in_the_pooler_while_it_is_in_the_settings() -> None:
    reload = "app1: reload the application server with the new file"
    come = steps(without("db2"), site())
    assert come.index("pool1: reload PgBouncer with the new file") < come.index(reload)
    go = steps(site(), without("db2"))
    assert go.index(reload) < go.index("pool1: reload PgBouncer with the new file alone")
    third = content()
    third["servers"]["db3"] = {"roles": ["replica"], "address": "10.0.0.9"}
    del third["servers"]["db2"]
    both = steps(site(), parse(third, PurePath("/srv")))
    assert "pool1: reload PgBouncer with the new file, and still with its old shop.db2" in both
    assert "pool1: reload PgBouncer with the new file alone" in both


def test_another_mode_or_size() -> None:
    reload = "app1: reload the application server with the new file"
    session = site(pooler={"mode": "session"})
    to_session, back = steps(site(), session), steps(session, site())
    assert to_session.index("pool1: reload PgBouncer with the new file") < to_session.index(reload)
    assert back.index(reload) < back.index("pool1: reload PgBouncer with the new file alone")
    assert len([one for one in back if "PgBouncer" in one]) == 1
    assert steps(site(), site(pooler={"size": 9})) == ["pool1: reload PgBouncer with the new file"]
    [one] = changes(site(), site(pooler={"size": 9}))
    assert one.commands[-1] == "systemctl reload outgrow-pooler.service"
