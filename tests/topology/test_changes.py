"""From one site to another: the steps, their order, and that each is one that can be done."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from outgrow.cli import main
from outgrow.topology import change
from outgrow.topology.capacity import connections
from outgrow.topology.change import (
    COPY,
    DRAIN,
    FORGET,
    MOVE,
    NOTHING,
    PHASES,
    RECONFIGURE,
    RELOAD,
    SEND,
    SET_UP,
    START,
    STOP,
    Change,
)
from outgrow.topology.changes import changes
from outgrow.topology.difference import CODE, Difference, difference
from outgrow.topology.doors import doors
from outgrow.topology.model import Host, Port, Service, Site, parse
from outgrow.topology.ways import WAYS, Way, way
from tests.test_docs import check
from tests.topology.sites import sites

ROOT = Path(__file__).parents[2]
POSTGRESQL = {"engine": "postgresql", "name": "shop"}


def site(servers: dict[str, str], **tables: Any) -> Site:
    """A site of servers with these roles; `role@address` is somewhere else."""
    first = {
        "name": "shop",
        "settings": "shop.settings",
        "wsgi": "shop.wsgi:application",
        "domains": ["example.org"],
        "media_root": "media",
        **tables.pop("site", {}),
    }
    found = {}
    for name, words in servers.items():
        role, _, address = words.partition("@")
        found[name] = {"roles": [role], "address": address or at(name)}
    return parse({"site": first, "servers": found, **tables}, PurePath("/srv"))


def at(name: str) -> str:
    """The same address for the same name, in every file."""
    return f"10.0.{len(name)}.{sum(map(ord, name)) % 250 + 1}"


def steps(before: Site, after: Site) -> list[str]:
    """The steps in short: server and verb."""
    return [f"{one.server}: {one.verb}" for one in changes(before, after)]


def whole(before: Site, after: Site, verb: str) -> list[Change]:
    return [one for one in changes(before, after) if one.verb == verb]


ONE = {"app1": "app", "media1": "media"}
TWO = {"app1": "app", "app2": "app", "media1": "media", "media2": "media"}


def test_the_same_site_twice_is_nothing() -> None:
    assert changes(site(TWO), site(TWO)) == ()
    assert change.text(()) == f"{NOTHING}\n"
    # What no server knows of is no step, either.
    assert changes(site(TWO), site(TWO, site={"name": "other"})) == ()


def test_a_media_server_comes() -> None:
    assert steps(site(TWO), site({**TWO, "media3": "media"})) == [
        "media3: set up",
        "media3: copy to",
        "app1: reload",
        "app2: reload",
        "media3: send visitors to",
    ]
    [copy] = whole(site(TWO), site({**TWO, "media3": "media"}), COPY)
    assert copy.commands[-1] == (
        "OUTGROW_TOPOLOGY=topology.toml python manage.py outgrow media server add media3"
    )


def test_a_media_server_goes() -> None:
    assert steps(site({**TWO, "media3": "media"}), site(TWO)) == [
        "media3: drain",
        "app1: reload",
        "app2: reload",
        "media3: forget",
        "media3: remove",
    ]


@pytest.mark.parametrize("need", [2, "all"])
def test_where_too_few_would_be_left_the_new_settings_repair(need: object) -> None:
    """`media server drain` would refuse: fewer servers would be left than a save needs."""
    media = {"need": need}
    before, after = site(TWO, media=media), site({**ONE, "app2": "app", "media3": "media"})
    verbs = [one.split(": ")[1] for one in steps(before, after) if one.startswith("media2")]
    assert verbs == [DRAIN, FORGET, STOP]
    [drain] = whole(before, after, DRAIN)
    assert (drain.phase, drain.commands) == (
        "Remove",
        ("python manage.py outgrow media repair --all",),
    )


def test_the_only_media_server_is_replaced() -> None:
    before, after = site(ONE), site({"app1": "app", "media2": "media"})
    assert steps(before, after) == [
        "media2: set up",
        "media2: copy to",
        "app1: reload",
        "media2: send visitors to",
        "media1: drain",
        "media1: forget",
        "media1: remove",
    ]


@pytest.mark.parametrize(("need", "drained"), [("majority", True), (0, True)])
def test_needs_in_words(need: object, drained: bool) -> None:
    three = {**TWO, "media3": "media"}
    [drain] = whole(site(three, media={"need": need}), site(TWO, media={"need": need}), DRAIN)
    assert (drain.phase == "Switch") is drained


def test_nginx_lets_new_application_servers_in_first_and_shuts_out_old_ones_last() -> None:
    nginx = {"engine": "nginx"}
    before = site(TWO, media=nginx)
    after = site({"app1": "app", "app3": "app", "media1": "media", "media2": "media"}, media=nginx)
    assert steps(before, after) == [
        "media1: reconfigure",
        "media2: reconfigure",
        "app3: set up",
        "app3: start",
        "app3: send visitors to",
        "app2: drain",
        "app2: remove",
        "media1: reconfigure",
        "media2: reconfigure",
    ]
    opened, _, closed, _ = whole(before, after, RECONFIGURE)
    assert f"lets app3 ({at('app3')}) in" in opened.what
    assert f"lets app2 ({at('app2')}) in no more" in closed.what
    assert "`allow`" in opened.why


def test_nginx_knows_its_peers() -> None:
    nginx = {"engine": "nginx"}
    before, after = site(ONE, media=nginx), site({**ONE, "media2": "media"}, media=nginx)
    [peers] = whole(before, after, RECONFIGURE)
    assert (peers.server, peers.phase) == ("media1", "Remove")


def test_the_first_of_several_application_servers() -> None:
    before, after = site(ONE), site({**ONE, "app2": "app"})
    assert steps(before, after) == [
        "app1: reconfigure",
        "media1: reconfigure",
        "app2: set up",
        "app2: start",
        "app1: reload",
        "app2: send visitors to",
    ]
    assert "MEDIA_ROOT" in whole(before, after, RECONFIGURE)[0].why


@pytest.mark.parametrize(
    "tables",
    [
        {"media": {"need": 0}},
        {"media": {"timeout": 5}},
        {"site": {"media_root": "elsewhere"}},
        {"site": {"domains": ["example.org", "shop.example.org"]}},
        {"database": {"engine": "sqlite", "name": "rows"}},
    ],
)
def test_settings_are_a_reload_of_each_application_server(tables: dict[str, Any]) -> None:
    found = whole(site(TWO), site(TWO, **tables), RELOAD)
    assert [one.server for one in found] == ["app1", "app2"]
    assert found[0].commands == (
        "systemctl reload outgrow-app.service",
        "systemctl restart outgrow-repair.service",
    )


def test_another_password_is_a_reload() -> None:
    servers = {**TWO, "db1": "primary"}
    before = site(servers, database={**POSTGRESQL, "password_env": "OLD"})
    after = site(servers, database={**POSTGRESQL, "password_env": "NEW"})
    assert steps(before, after) == ["app1: reload", "app2: reload"]


def test_other_words_are_a_restart() -> None:
    found = whole(site(TWO), site(TWO, site={"wsgi": "shop.other:application"}), RELOAD)
    assert [one.commands[1] for one in found] == ["systemctl restart outgrow-app.service"] * 2


def test_another_program_is_installed_on_each_server_before_one_runs_it() -> None:
    found = changes(site(TWO), site(TWO, app={"engine": "granian"}))
    assert [(one.server, one.verb) for one in found] == [
        ("app1", SET_UP),
        ("app2", SET_UP),
        ("app1", RELOAD),
        ("app2", RELOAD),
    ]
    assert found[1].what == "granian, which will run the site"


def test_another_address_of_files_is_found_before_pages_lead_there() -> None:
    after = site(TWO, site={"media_url": "https://files.example.org/"})
    assert steps(site(TWO), after) == ["media1: reconfigure", "app1: reload", "app2: reload"]


def test_another_port_is_listened_at_beside_the_old_one() -> None:
    before, after = site(TWO), site({**TWO, "media2": "media@10.9.9.9"})
    assert steps(before, after) == [
        "media2: reconfigure",
        "app1: reload",
        "app2: reload",
        "media2: send visitors to",
        "media2: reconfigure",
    ]
    both, alone = whole(before, after, RECONFIGURE)
    assert both.what == f"it to listen at 10.9.9.9:8080, and still at {at('media2')}:8080"
    assert alone.what == "it to listen at 10.9.9.9:8080 alone"


@pytest.mark.parametrize(("old", "new"), [(None, "keep"), ("keep", "unique")])
def test_names_are_used_again_when_media_servers_take_them(old: Any, new: str) -> None:
    media = {"names": old} if old else {}
    found = steps(site(TWO, media=media), site(TWO, media={"names": new}))
    servers = ["media1: reconfigure", "media2: reconfigure"]
    apps = ["app1: reload", "app2: reload"]
    assert found == (servers + apps if new == "keep" else apps + servers)


def test_what_a_media_server_runs() -> None:
    for tables in ({"engine": "nginx"}, {"active": True}):
        found = steps(site(TWO), site(TWO, media=tables))
        assert found == ["media1: reconfigure", "media2: reconfigure"]


# --- rows


def test_the_database_gets_a_server_of_its_own() -> None:
    after = site({**ONE, "db1": "primary"}, database=POSTGRESQL)
    assert steps(site(ONE), after) == ["db1: set up", "db1: move the data", "app1: reload"]
    [move] = whole(site(ONE), after, MOVE)
    assert move.what.startswith("of the database: where the site's own settings say -> postgresql")
    assert "By hand" in move.why
    back = changes(after, site(ONE))
    assert [f"{one.server}: {one.verb}" for one in back] == [
        "app1: move the data",
        "app1: reload",
        "db1: remove",
    ]


def test_a_primary_is_moved_by_hand_and_filled_before() -> None:
    before = site({**ONE, "db1": "primary"}, database=POSTGRESQL)
    after = site({**ONE, "db2": "primary"}, database=POSTGRESQL)
    assert steps(before, after) == [
        "db2: set up",
        "db2: copy to",
        "db2: move the data",
        "app1: reload",
        "db1: remove",
    ]
    other = site({**ONE, "db2": "primary"}, database={**POSTGRESQL, "engine": "mariadb"})
    assert COPY not in {one.verb for one in changes(before, other)}
    # The same server elsewhere is the same act.
    elsewhere = site({**ONE, "db1": "primary@10.8.8.8"}, database=POSTGRESQL)
    assert steps(before, elsewhere) == ["db1: move the data", "app1: reload"]


def test_an_application_server_that_goes_leaves_before_the_rows_do() -> None:
    before = site({**TWO, "db1": "primary"}, database=POSTGRESQL)
    after = site({**ONE, "media2": "media", "db2": "primary"}, database=POSTGRESQL)
    found = steps(before, after)
    assert found.index("app2: drain") < found.index("db2: move the data")
    assert found.index("app1: reload") < found.index("app2: remove")


def test_a_replica_comes_and_goes() -> None:
    before = site({**ONE, "db1": "primary"}, database=POSTGRESQL)
    after = site({**ONE, "db1": "primary", "db-2": "replica"}, database=POSTGRESQL)
    assert steps(before, after) == [
        "app1: reconfigure",
        "db1: reconfigure",  # each worker process looks at replicas over a connection of its own
        "db-2: set up",
        "db1: reconfigure",
        "db-2: copy to",
        "app1: reload",
    ]
    [copy] = whole(before, after, COPY)
    assert "the slot db_2" in copy.what
    assert steps(after, before) == [
        "app1: reload",
        "db-2: forget",
        "db-2: remove",
        "db1: reconfigure",
    ]


def test_a_replica_becomes_the_primary() -> None:
    roles = {**ONE, "db1": "primary", "db2": "replica"}
    before = site(roles, database=POSTGRESQL)
    after = site({**roles, "db1": "replica", "db2": "primary"}, database=POSTGRESQL)
    found = [one for one in steps(before, after) if "let" not in one]
    assert found == [
        "db2: reconfigure",
        "db2: move the data",
        "db1: reconfigure",
        "app1: reload",
        "db1: reconfigure",
    ]


def test_sqlite_has_no_server() -> None:
    sqlite = {"engine": "sqlite", "name": "rows.sqlite3"}
    before = site({**ONE, "db1": "primary"}, database=sqlite)
    after = site({**ONE, "db1": "primary"}, database=POSTGRESQL)
    assert steps(before, after) == ["db1: set up", "db1: move the data", "app1: reload"]
    assert whole(before, after, MOVE)[0].what.startswith("of the database: sqlite /srv/rows")


# --- files


STORE = {"bucket": "shop"}


def test_uploads_move_to_a_store() -> None:
    before = site(TWO)
    after = site({"app1": "app", "app2": "app", "s3": "objects"}, objects=STORE)
    assert steps(before, after) == [
        "s3: set up",
        "s3: copy to",
        "app1: move the data",
        "app1: reload",
        "app2: reload",
        "media1: drain",
        "media2: drain",
        "media1: remove",
        "media2: remove",
    ]
    assert whole(before, after, MOVE)[0].what == "of the uploads: the media servers -> s3://shop"
    assert whole(before, after, MOVE)[0].page == "howto/move-storage.md"
    assert whole(before, after, DRAIN)[0].what == "it: the store has every file"
    assert whole(before, after, RELOAD)[0].commands == ("systemctl reload outgrow-app.service",)
    assert steps(after, before) == [
        "media1: set up",
        "media2: set up",
        "media1: copy to",
        "media2: copy to",
        "app1: move the data",
        "app1: reload",
        "app2: reload",
        "media1: send visitors to",
        "media2: send visitors to",
        "s3: remove",
    ]


def test_a_store_beside_media_servers() -> None:
    servers = {**ONE, "s3": "objects"}
    assert steps(site(ONE), site(servers, objects=STORE)) == [
        "s3: set up",
        "s3: copy to",
        "app1: reload",
    ]
    another = site(servers, objects={"bucket": "other", "engine": "swift"})
    assert steps(site(servers, objects=STORE), another) == [
        "s3: copy to",
        "app1: move the data",
        "app1: reload",
    ]
    swift = site(servers, objects={"bucket": "shop", "engine": "swift"})
    assert "README" in whole(site(ONE), swift, SET_UP)[0].why


def test_the_master_copy_moves() -> None:
    found = whole(site(TWO), site(TWO, site={"media_root": "other"}), MOVE)
    assert [one.what for one in found] == [
        "of the master copy: /srv/media -> /srv/other, with .outgrow/"
    ]
    # No application server stays: wherever it was, it is somewhere else.
    before, after = site(ONE), site({"web": "app", "media1": "media"})
    assert MOVE in {one.verb for one in changes(before, after)}
    order = [one.split(": ")[1] for one in steps(before, after) if "app1" in one or "web" in one]
    assert order == [SET_UP, MOVE, START, SEND, DRAIN, STOP]


# --- roles that the table knows, and others


def with_parts(old: Site, *parts: tuple[str, str]) -> Site:
    hosts = tuple(
        Host(name, at(name), (Service(name, role, Port(at(name), 80)),)) for name, role in parts
    )
    return replace(old, hosts=(*old.hosts, *hosts))


def test_a_balancer_is_started_last_and_is_told_of_others() -> None:
    before = with_parts(site(ONE), ("front", "balancer"))
    after = with_parts(site({**ONE, "app2": "app"}), ("front", "balancer"), ("front2", "balancer"))
    assert steps(before, after) == [
        "app1: reconfigure",
        "app1: reconfigure",  # front2 asks it
        "media1: reconfigure",
        "app2: set up",
        "front2: set up",
        "app2: start",
        "app1: reload",
        "front2: start",
        "front: reload",
        "front2: send visitors to",
    ]
    gone = steps(after, before)
    assert gone.index("front: reload") < gone.index("app2: drain") < gone.index("app2: remove")
    assert gone.index("front2: remove") < gone.index("app2: remove")


def test_a_role_without_a_row_has_a_default() -> None:
    before, after = site(ONE), with_parts(site(ONE), ("mail", "post"))
    [first] = changes(before, after)
    assert (first.server, first.verb) == ("mail", SET_UP)
    assert first.what == f"the post server at {at('mail')}:80"
    [last] = changes(after, before)
    assert (last.verb, last.why) == (STOP, "Nothing refers to it any more.")
    assert way("post") == Way("post server")


def test_doors() -> None:
    big = site({**TWO, "db1": "primary", "db2": "replica"}, database=POSTGRESQL)
    found = {host.name: doors(big, host) for host in big.hosts}
    names = {name: [caller for caller, _ in some[0].callers] for name, some in found.items()}
    assert names == {
        "app1": [],
        "app2": [],
        "media1": ["app1", "app2"],
        "media2": ["app1", "app2"],
        "db1": ["app1", "app2", "db2"],
        "db2": ["app1", "app2"],
    }
    public = {name for name, some in found.items() if some[0].public}
    assert public == {"app1", "app2", "media1", "media2"}
    assert str(found["db1"][0].port) == f"{at('db1')}:5432"
    fronted = with_parts(big, ("front", "balancer"), ("memory", "cache"))
    assert [one.public for host in fronted.hosts for one in doors(fronted, host)] == [
        *[False] * 6,
        True,
        False,
    ]


# --- laws, for any two sites


@given(sites(), sites())
def test_the_laws(before: Site, after: Site) -> None:
    found = changes(before, after, "new file.toml")
    differs = difference(before, after)
    _phases_in_order(found)
    _data_comes_first(found, differs)
    _one_at_a_time(found, differs)
    _gone_last(found, differs)
    _moves_by_hand(found, differs)
    _all_are_named(found, differs)
    _more_is_taken_first(found, differs)
    assert changes(before, before) == ()
    assert changes(after, after) == ()


def _all_are_named(found: tuple[Change, ...], differs: Difference) -> None:
    told = {one.server for one in found}
    assert {part.name for part in (*differs.new, *differs.gone)} <= told
    assert {now.name for _, now in differs.moved} <= told


def _more_is_taken_first(found: tuple[Change, ...], differs: Difference) -> None:
    """A PostgreSQL that stays is told of more connections before anybody uses the new file."""
    was, will = (
        max(connections(one, role) for role in ("primary", "replica"))
        for one in (differs.before, differs.after)
    )
    told = [n for n, one in enumerate(found) if "max_connections" in one.what]
    staying = {
        now.name
        for _, now in (*differs.stay, *differs.swapped)
        if now.role in {"primary", "replica"} and now.service.engine == "postgresql"
    }
    assert {found[n].server for n in told} == (staying if will > was else set())
    assert max(told, default=-1) < min(_referred(found), default=len(found))


def _places(found: tuple[Change, ...], server: str, *verbs: str) -> list[int]:
    return [n for n, one in enumerate(found) if one.server == server and one.verb in verbs]


def _phases_in_order(found: tuple[Change, ...]) -> None:
    order = [PHASES.index(one.phase) for one in found]
    assert order == sorted(order)


def _referred(found: tuple[Change, ...]) -> list[int]:
    """Where a server begins to use the new file."""
    return [n for n, one in enumerate(found) if one.verb in {START, RELOAD}]


def _data_comes_first(found: tuple[Change, ...], differs: Difference) -> None:
    first = min(_referred(found), default=len(found))
    for part in differs.new:
        [set_up] = [
            n
            for n in _places(found, part.name, SET_UP)
            if part.place in found[n].what and way(part.role).noun in found[n].what
        ]
        assert set_up < first
        filled = [n for n in _places(found, part.name, COPY) if n < first]
        if part.role in {"media", "replica"}:
            assert filled
            assert set_up < filled[0]


def _one_at_a_time(found: tuple[Change, ...], differs: Difference) -> None:
    for verb in (RELOAD, START):
        each = [(one.server, one.what) for one in found if one.verb == verb]
        assert len(each) == len(set(each))
    staying = {now.name for _, now in differs.stay if now.role == "app"}
    application = way("app").noun
    reloaded = {one.server for one in found if one.verb == RELOAD and application in one.what}
    changed = differs.settings_differ or differs.command_differs("app")
    assert reloaded == (staying if changed else set())


def _gone_last(found: tuple[Change, ...], differs: Difference) -> None:
    last = max(_referred(found), default=-1)
    for part in differs.gone:
        stopped = _places(found, part.name, STOP)
        assert stopped
        assert last < stopped[0]
        if way(part.role).leave:
            assert min(_places(found, part.name, DRAIN)) < stopped[0]
        if part.role == "app":
            assert stopped[0] > max(_places(found, part.name, DRAIN))


def _moves_by_hand(found: tuple[Change, ...], differs: Difference) -> None:
    moves = [n for n, one in enumerate(found) if one.verb == MOVE]
    assert bool(moves) is differs.data_moves
    assert all(n < min(_referred(found), default=len(found)) for n in moves)
    for n in moves:
        assert found[n].page
        assert "By hand" in found[n].why
        assert found[n].commands == ()


# --- each step can be done


def everything() -> Iterator[Change]:
    """Steps of every kind."""
    big = {**TWO, "media3": "media", "db1": "primary", "db2": "replica"}
    nginx = site(TWO, media={"engine": "nginx", "names": "keep"})
    store = site({"app1": "app", "s3": "objects"}, objects=STORE)
    some = [site(ONE), site(TWO), site(big, database=POSTGRESQL), nginx, store]
    some.append(site({"web": "app", "files": "media"}))
    known = {"app", "media", "primary", "replica", "objects"}
    some.append(with_parts(site(ONE), *((role, role) for role in WAYS if role not in known)))
    for before in some:
        for after in some:
            yield from changes(before, after, "it's new.toml")


def test_every_command_exists() -> None:
    for command in sorted({command for one in everything() for command in one.commands}):
        words = shlex.split(command)
        if words[0].startswith("OUTGROW_TOPOLOGY="):
            assert words.pop(0) == "OUTGROW_TOPOLOGY=it's new.toml"
        if words[0] == "systemctl":
            assert words[1] in {"enable", "disable", "reload", "restart"}
            assert re.fullmatch(r"outgrow-\w+\.service", words[-1])
        else:
            check(words)


def test_every_page_exists_and_has_its_section() -> None:
    for page in {one.page for one in everything()}:
        path, _, anchor = page.partition("#")
        text = (ROOT / "docs" / path).read_text()
        titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        slugs = {re.sub(r"[^a-z0-9-]", "", title.lower().replace(" ", "-")) for title in titles}
        assert not anchor or anchor in slugs, page


def test_every_step_says_what_and_why() -> None:
    for one in everything():
        assert one.why.endswith("."), one
        assert one.commands or one.page, one
        assert "{" not in f"{one.what}{one.why}{one.commands}", one
    assert all(role in CODE or row.noun for role, row in WAYS.items())


# --- the command


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["plan", *map(str, words)])
    return done.exit_code, done.output


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    tiny = (Path(__file__).parent / "tiny/topology.toml").read_text()
    before, after = tmp_path / "topology.toml", tmp_path / "next one.toml"
    before.write_text(tiny)
    after.write_text(f'{tiny}\n[servers.media3]\nroles = ["media"]\naddress = "10.0.0.23"\n')
    return before, after


def test_the_command_prints_numbered_lines(files: tuple[Path, Path]) -> None:
    code, text = run(*files)
    assert code == 1
    assert re.findall(r"^\w+$", text, re.MULTILINE) == ["Prepare", "Switch"]
    assert re.findall(r"^ *(\d+)\. (\w+): (\w+)", text, re.MULTILINE) == [
        ("1", "media3", "set"),
        ("2", "media3", "copy"),
        ("3", "app1", "reload"),
        ("4", "app2", "reload"),
        ("5", "media3", "send"),
    ]
    assert f"     $ outgrow render '{files[1]}' --to servers --host media3\n" in text
    assert "\n     docs: howto/add-and-replace.md\n" in text


def test_the_command_says_that_nothing_changes(files: tuple[Path, Path]) -> None:
    assert run(files[0], files[0]) == (0, f"{NOTHING}\n")
    assert run(files[0], files[0], "--json") == (0, "[]\n")


def test_json(files: tuple[Path, Path]) -> None:
    code, text = run(*files, "--json")
    found = json.loads(text)
    assert code == 1
    assert [one["step"] for one in found] == [1, 2, 3, 4, 5]
    assert found[2] == {
        "step": 3,
        "phase": "Switch",
        "server": "app1",
        "verb": "reload",
        "what": "the application server with the new file",
        "why": "Its settings come from there. See that it serves before you go on.",
        "commands": [
            "systemctl reload outgrow-app.service",
            "systemctl restart outgrow-repair.service",
        ],
        "page": "howto/change-topology.md#reload-one-by-one",
    }


def test_a_file_that_is_wrong_is_an_error(files: tuple[Path, Path]) -> None:
    files[1].write_text("[site")
    code, text = run(*files)
    assert code == 1
    assert text.startswith("Error: ")
    assert "is not TOML" in text


@given(st.text(max_size=300))
def test_long_lines_are_broken_and_lose_nothing(why: str) -> None:
    printed = change.text([Change("Prepare", "app1", SET_UP, "it", why)])
    assert printed.split()[-len(why.split()) or len(printed.split()) :] == why.split()


# --- docs/howto/change-topology.md

PAGE = ROOT / "docs/howto/change-topology.md"


def examples() -> list[Any]:
    """Each section with a plan: the files before and after, and what the page says is printed."""
    text = PAGE.read_text()
    [start] = re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    found, every = [], start
    for section in text.split("\n## ")[1:]:
        blocks = re.findall(r"^```text\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
        title = section.partition("\n")[0]
        if len(blocks) == 2:
            found.append(pytest.param(start, start + blocks[0], blocks[1], id=title))
            every += blocks[0]
        elif blocks:
            whole_site, without = every, re.sub(r"\[servers\.app2\]\n.*\n.*\n", "", every)
            found.append(pytest.param(whole_site, without, blocks[0], id=title))
    return found


@pytest.mark.parametrize(("before", "after", "printed"), examples())
def test_the_page_shows_what_is_printed(
    before: str, after: str, printed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("topology.toml").write_text(before)
    Path("next.toml").write_text(after)
    assert run("topology.toml", "next.toml") == (1, printed)


def test_the_page_has_them_all() -> None:
    assert len(examples()) == 4
