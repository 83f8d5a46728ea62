"""What each server needs: sums that agree with what is rendered, and limits that are told."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import tomllib
from dataclasses import replace
from math import ceil, prod
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import pytest
from click.testing import CliRunner
from gunicorn.config import Config
from hypothesis import given

from outgrow import http
from outgrow.cli import main
from outgrow.media.journal import RECORDS_LIMIT
from outgrow.media.limits import Limits
from outgrow.topology import app, rendering, sizes, weighing
from outgrow.topology.applications import Application
from outgrow.topology.applications import words as words_of
from outgrow.topology.capacity import OPEN_FILES, clients, connections, pool
from outgrow.topology.model import Port, Site, parse
from outgrow.topology.needs import need, needs
from outgrow.topology.presets import PRESETS, preset
from outgrow.topology.render.systemd import Places
from outgrow.topology.sums import MB, Sum, facts, shown, shown_limit, warnings
from outgrow.topology.weak_points import weak_points
from tests.live.processes import missing
from tests.topology.sites import sites
from tests.topology.test_changes import with_parts

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/explanation/tuning.md"

BASE = {
    "name": "shop",
    "settings": "shop.settings",
    "wsgi": "shop.wsgi:application",
    "domains": ["shop.example.org"],
    "media_root": "media",
}
POSTGRESQL = {"engine": "postgresql", "name": "shop"}
MARIADB = {"engine": "mariadb", "name": "shop"}
NGINX = {"media": {"engine": "nginx"}}
STANDBY = {"db1": "primary", "db2": "replica"}
POOLED = {"db1": "primary", "pool1": "pooler"}
BEHIND = {"database": POSTGRESQL}
GUNICORN, UVICORN, GRANIAN = (sizes.APPLICATIONS[engine] for engine in app.ENGINES)


def site(servers: dict[str, str], **tables: Any) -> Site:
    """A site of servers, each with its roles in one text."""
    hosts = {
        name: {"roles": roles.split(), "address": f"10.0.0.{number}"}
        for number, (name, roles) in enumerate(servers.items(), 1)
    }
    for name, more in tables.pop("more", {}).items():
        hosts[name] |= more
    return parse({"site": tables.pop("site", BASE), "servers": hosts, **tables}, PurePath("/srv"))


def of_preset(kind: str) -> Site:
    text = preset(kind, "shop", "shop.example.org")
    return parse(tomllib.loads(text), PurePosixPath("/srv/shop"))


def apps(count: int) -> dict[str, str]:
    return {f"app{number}": "app" for number in range(1, count + 1)}


def sums(one: Site, host: str) -> dict[str, Sum]:
    """The sums of one server by what they are of; of two, the first."""
    [found] = [each for each in needs(one) if each.host.name == host]
    return {each.what: each for each in reversed(found.sums)}


# --- the sums


@given(sites())
def test_the_text_of_a_sum_comes_to_its_total(one: Site) -> None:
    for found in needs(one):
        for each in found.sums:
            assert each.text, each
            numbers = [
                prod(
                    float(re.split(" ", factor, maxsplit=1)[0].replace(",", ""))
                    for factor in term.split(" x ")
                )
                for term in each.text.split(" + ")[: len(each.terms)]
            ]
            assert each.total == (ceil(sum(numbers) - 1e-9) if each.terms else None), each.text


def test_the_largest_preset() -> None:
    big = of_preset("big")
    web = sums(big, "web1")
    assert web["processes"].text == "3 workers + 1 above them + 1 repair"
    assert web["memory"].total == 3 * 90 + 30 + 75
    assert sums(big, "db1")["connections"].total == connections(big, "primary") == 236
    assert sums(big, "db2")["connections"].total == connections(big, "replica") == 136
    assert sums(big, "db2")["connections"].limit == 236
    assert sums(big, "db1")["disk"].total == 11_000
    assert sums(big, "cache1")["connections"].total == 96
    assert sums(big, "media1")["inodes"].total is None
    assert shown(sums(big, "media1")["inodes"]) == ""
    assert list(warnings(needs(big))) == []


def test_memory_by_another_measure() -> None:
    one = site({"app1": "app media"})
    [first, *_] = [s for s in need(one, one.hosts[0], 200).sums if s.what == "memory"]
    assert first.text == "3 workers x 200 MB + 30 MB above them + 1 repair x 75 MB"
    assert first.total == 705


def test_a_server_with_several_roles_has_the_memory_of_all() -> None:
    one = site({"app1": "app media worker"}, worker={"command": "python -m celery"})
    found = [s for s in needs(one)[0].sums if s.what == "memory"]
    assert [s.role for s in found] == ["app", "media", "worker", ""]
    assert found[-1].text == "375 MB of the app + 35 MB of the media + the system itself"
    assert found[2].total is None


def test_haproxy_and_one_file_for_the_rows() -> None:
    one = site(
        {"lb": "balancer", "app1": "app", "media1": "media", "db1": "primary"},
        balancer={"engine": "haproxy"},
        database={"engine": "sqlite", "name": "rows"},
    )
    files = sums(one, "lb")["open files of a process"]
    assert files.total == 8194
    assert files.text == "4,096 visitors x 2 connections + 2 checks + what it listens at"
    assert sums(one, "app1")["connections"].text == "1 balancer x 4,096 visitors"
    assert set(sums(one, "db1")) == {"disk"}
    hybrid = sums(one, "app1")
    assert hybrid["inodes"].total == 100_000
    assert "every upload, where the master copy" in hybrid["disk"].text


def test_behind_a_pooler_its_connections_are_those_that_there_are() -> None:
    servers = {**apps(4), "media1": "media", **STANDBY, "pool1": "pooler"}
    one = site(servers, database=POSTGRESQL, pooler={"size": 15})
    assert sums(one, "db1")["connections"].text == "1 pooler x 15 connections + 20 to spare"
    assert sums(one, "db1")["connections"].total == connections(one, "primary") == 35
    found = sums(one, "pool1")
    assert found["connections"].text == (
        "4 application servers x 3 workers x 8 threads x 2 aliases + 4 repairs x 2 aliases + "
        "4 application servers x 3 workers x 1 watch x 2 servers + "
        "4 repairs x 1 watch x 2 servers + 20 to spare"
    )
    assert found["connections"].total == found["connections"].limit == 252
    assert found["memory"].text == "10 MB itself + 252 clients x 0.002 MB"
    assert found["open files of a process"].text == (
        "252 clients + 2 pools x 15 connections + what it listens at"
    )
    distributed = site(servers, database=POSTGRESQL, media={"storage": "distributed"})
    assert sums(distributed, "db1")["connections"].text == (
        "1 pooler x 20 connections x 2 aliases + 20 to spare"
    )
    assert connections(distributed, "replica") == 40
    assert "4 repairs x 1 watch x 2 servers" in sums(distributed, "pool1")["connections"].text
    assert "4 repairs x 3 aliases" in sums(distributed, "pool1")["connections"].text


def test_who_keeps_a_session_has_one_on_top_of_the_pool() -> None:
    each = {"app1": "app pooler", "app2": "app pooler", "media1": "media", **STANDBY}
    one = site(each, database=POSTGRESQL, pooler={"mode": "session"})
    assert sums(one, "db2")["connections"].text == (
        "2 poolers x 20 connections + 2 poolers x 1 repair + "
        "2 poolers x 1 application server x 3 workers x 1 watch + 2 poolers x 1 repair x 1 watch + "
        "20 to spare"
    )
    assert pool(one) == 20 + 1 + 3 + 1
    whole = {**apps(2), "work": "worker", "pool1": "pooler", **STANDBY}
    command = {"command": "python -m celery"}
    other = site({**whole, "media1": "media"}, database=POSTGRESQL, worker=command)
    assert clients(other) == (2 * 3 * 8 + 8 + 2) * 2 + (2 * 3 + 8 + 2) * 2 + 20
    by_session = replace(other, pooler=replace(other.pooler, mode="session"))
    assert pool(by_session) == 20 + 2 + 2 * 3 + 8 + 2
    files = site(
        {"app1": "app", "s3": "objects", "db1": "primary", "pool1": "pooler"},
        database=POSTGRESQL,
        objects={"bucket": "shop"},
        pooler={"mode": "session"},
    )
    assert pool(files) == 20
    assert clients(files) == 24 + 20


def test_visitors_without_a_balancer_and_files_without_media_servers() -> None:
    store = {"bucket": "shop"}
    one = site({"app1": "app", "s3": "objects"}, objects=store)
    found = sums(one, "app1")
    assert found["connections"].text == "visitors' own"
    assert found["processes"].total == 4
    assert found["disk"].text == "3 workers x 8 threads x 100 MB + the code"
    assert "inodes" not in found
    assert connections(one, "primary") == 24 + 20
    assert sums(one, "s3") == {}


def test_roles_and_engines_that_are_not_known() -> None:
    one = site({"lb": "balancer", **apps(1), "media1": "media"})
    odd = replace(one.hosts[0].services[0], engine="perlbal")
    one = replace(one, hosts=(replace(one.hosts[0], services=(odd,)), *one.hosts[1:]))
    assert set(sums(one, "lb")) == {"disk"}
    assert sums(one, "app1")["connections"].text == "those of other balancers"
    other = with_parts(one, ("mail", "post"))
    assert set(sums(other, "mail")) == {"disk"}


def with_app(servers: dict[str, str], engine: str, **table: Any) -> Site:
    """A site that runs its ASGI application, where `engine` can."""
    more = {"app": {"engine": engine, **table}, "database": POSTGRESQL, **NGINX}
    return site(servers, site={**BASE, "asgi": "shop.asgi:application"}, **more)


ROWS = {"app1": "app", "app2": "app", "media1": "media", "db1": "primary", "cache1": "cache"}


def test_the_numbers_of_the_file() -> None:
    one = with_app(ROWS, "gunicorn", workers=5, threads=2)
    own = sums(one, "app1")
    assert own["processes"].text == "5 workers + 1 above them + 1 repair"
    assert own["memory"].text == "5 workers x 90 MB + 30 MB above them + 1 repair x 75 MB"
    assert own["open files of a process"].text == (
        "1,000 connections + 2 threads x 2 connections + 1 media server x 8 connections + "
        "2 uploads + what the code opens"
    )
    assert own["disk"].text.startswith("5 workers x 2 threads x 100 MB")
    assert sums(one, "db1")["connections"].total == 2 * 5 * 2 + 2 + 20
    assert sums(one, "cache1")["connections"].text == (
        "2 application servers x 5 workers x 2 threads"
    )
    assert sums(one, "media1")["connections"].total == 2 * 5 * 8 + 2 * 8


def test_an_application_server_without_threads() -> None:
    one = with_app(ROWS, "granian", workers=2)
    own = sums(one, "app1")
    assert own["processes"].text == "2 workers + 1 above them + 1 repair"
    assert own["memory"].text == "2 workers x 110 MB + 35 MB above them + 1 repair x 75 MB"
    assert own["disk"].text.startswith("2 workers x 32 requests x 100 MB")
    assert sums(one, "db1")["connections"].text == (
        "2 application servers x 2 workers x 32 requests + 2 repairs + 20 to spare"
    )
    files = {file.name: file.content for file in rendering.plan(one, Places())}
    assert "max_connections = 150\n" in files["db1/postgresql-outgrow.conf"]
    found = words_of("granian", Application("shop.asgi:application", Port("10.0.0.1", 8000)))
    assert found[found.index("--backpressure") + 1] == str(GRANIAN.takes)


def test_an_application_server_that_takes_as_many_as_come() -> None:
    one = with_app(ROWS, "uvicorn")
    own = sums(one, "app1")
    assert own["processes"].text == "3 workers + 2 above them + 1 repair"
    assert own["memory"].text == "3 workers x 95 MB + 40 MB above them + 1 repair x 75 MB"
    assert own["open files of a process"].text == (
        "32 requests x 2 connections + 1 media server x 8 connections + 32 uploads + "
        "its connections, what the code opens"
    )


# --- the limits


@pytest.mark.parametrize(
    ("one", "told"),
    [
        (
            site({**apps(6), "media1": "media", "db1": "primary"}, database=MARIADB),
            "db1: connections: 170 is more than 151 (max_connections, by default). Write max",
        ),
        (
            site({**apps(43), "media1": "media", "cache1": "cache"}, **NGINX),
            "cache1: connections: 1,032 is more than 1,024 (memcached's -c). Let it take more",
        ),
        (
            site({"app1": "app media"}, more={"app1": {"memory": 400}}),
            "app1: memory: 410 MB is more than 400 (memory in the file). Take a larger server",
        ),
        (
            site({**apps(32), "media1": "media"}),
            "media1: connections: 1,024 is more than 1,000 (--connections). Use an object",
        ),
        (
            site({**apps(2), "media1": "media", **POOLED}, **BEHIND, pooler={"clients": 69}),
            "pool1: connections: 70 is more than 69 (clients in the file). Raise clients of",
        ),
        (
            site({**apps(1), "media1": "media", **POOLED}, **BEHIND, pooler={"clients": 65_517}),
            "pool1: open files of a process: 65,537 is more than 65,536 (LimitNOFILE). Have a",
        ),
        (
            with_app({**apps(11), "media1": "media", "db1": "primary", "c1": "cache"}, "uvicorn"),
            "c1: connections: 1,056 is more than 1,024 (memcached's -c). Let it take more",
        ),
    ],
)
def test_more_than_there_may_be(one: Site, told: str) -> None:
    [sentence] = warnings(needs(one))
    assert sentence.startswith(told)
    assert [f["exceeds"] for f in facts(needs(one))].count(True) == 1


@pytest.mark.parametrize(
    "one",
    [
        site({**apps(5), "media1": "media", "db1": "primary"}, database=MARIADB),
        site({**apps(31), "media1": "media", "cache1": "cache"}),
        site({**apps(60), "media1": "media"}, **NGINX),
        site({**apps(60), "media1": "media", "db1": "primary"}, database=POSTGRESQL, **NGINX),
        site({"app1": "app media"}, more={"app1": {"memory": 410}}),
        site({**apps(2), "media1": "media", **POOLED}, **BEHIND, pooler={"clients": 70}),
        *map(of_preset, PRESETS),
    ],
)
def test_as_much_as_there_may_be(one: Site) -> None:
    assert list(warnings(needs(one))) == []


def test_memory_is_a_number_of_megabytes() -> None:
    assert site({"app1": "app media"}, more={"app1": {"memory": 8}}).hosts[0].memory == 8
    with pytest.raises(Exception, match=r"servers\.app1\.memory: must be from 1"):
        site({"app1": "app media"}, more={"app1": {"memory": 0}})


# --- what they are made of


def test_numbers_are_those_of_the_code() -> None:
    assert sizes.MEDIA_KEPT == http.IDLE_CONNECTIONS
    assert sizes.RECORDS == RECORDS_LIMIT
    assert Limits().max_connections == sizes.MEDIA_TAKES


def test_numbers_are_those_of_the_programs() -> None:
    takes = sizes.APPLICATIONS["gunicorn"].takes
    assert Config().settings["worker_connections"].default == takes
    memcached = said("memcached", "-h")
    assert f"(default: {sizes.CACHE_TAKES['memcached'][0]})" in memcached.partition("conn-limit")[2]
    found = dict(
        re.findall(
            r"^([a-z-]+) +(\d+)$",
            said("mariadbd", "--no-defaults", "--verbose", "--help"),
            re.MULTILINE,
        )
    )
    assert int(found["max-connections"]) == sizes.MARIADB_TAKES
    assert int(found["innodb-buffer-pool-size"]) == sizes.BUFFER_POOL * 2**20
    each = (
        "sort-buffer-size",
        "join-buffer-size",
        "read-buffer-size",
        "read-rnd-buffer-size",
        "thread-stack",
    )
    assert round(sum(int(found[one]) for one in each) / 1e6) == sizes.MARIADB_CONNECTION


def said(program: str, *words: str) -> str:
    """What a server's program prints of itself."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        missing(f"{program} is not installed", "apt-get install memcached mariadb-server-core")
    return subprocess.run([path, *words], capture_output=True, text=True, timeout=60).stdout


def test_numbers_are_those_that_are_rendered() -> None:
    big = of_preset("big")
    files = {file.name: file.content for file in rendering.plan(big, Places())}
    kept = f"max_slot_wal_keep_size = {sizes.SLOT_WAL // 1000}GB\n"
    assert kept in files["db1/postgresql-outgrow.conf"]
    assert "max_connections = 236\n" in files["db1/postgresql-outgrow.conf"]
    assert "worker_connections 4096;" in files["lb1/balancer.conf"]
    assert "keepalive 32;" in files["lb1/balancer.conf"]
    assert "/run/outgrow-balancer" in files["lb1/balancer.conf"]
    assert "worker_processes 2;" in files["media1/nginx.conf"]
    assert "worker_connections 1024;" in files["media1/nginx.conf"]
    assert f"LimitNOFILE={OPEN_FILES}\n" in files["web1/outgrow-app.service"]
    assert "--workers 3 " in files["web1/outgrow-app.service"]
    assert f"SystemMaxUse={sizes.JOURNAL // 1000}G" in files["web1/README.md"]


def test_numbers_of_a_pooler_are_those_that_are_rendered() -> None:
    one = site({**apps(3), "media1": "media", **STANDBY, "pool1": "pooler"}, **BEHIND)
    files = {file.name: file.content for file in rendering.plan(one, Places())}
    assert f"\ndefault_pool_size = {pool(one)}\n" in files["pool1/pgbouncer.ini"]
    most = sums(one, "pool1")["connections"].limit
    assert f"\nmax_client_conn = {most}\n" in files["pool1/pgbouncer.ini"]
    assert f"LimitNOFILE={OPEN_FILES}\n" in files["pool1/outgrow-pooler.service"]
    for name in ("db1", "db2"):
        assert "max_connections = 40\n" in files[f"{name}/postgresql-outgrow.conf"]


def test_each_page_has_the_sums_of_its_server() -> None:
    for kind in PRESETS:
        one = of_preset(kind)
        files = {file.name: file.content for file in rendering.plan(one, Places())}
        for host in one.hosts:
            page = files[f"{host.name}/README.md"]
            for each in need(one, host).sums:
                assert f"| {shown(each)} | {each.text} | {shown_limit(each)} |" in page


# --- the command


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["capacity", *map(str, words)])
    return done.exit_code, done.output


@pytest.fixture
def topology(tmp_path: Path) -> Path:
    path = tmp_path / "topology.toml"
    path.write_text(preset("big", "shop", "shop.example.org"))
    return path


def test_the_page_shows_what_is_printed(topology: Path) -> None:
    [printed] = re.findall(r"^```text\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert run(topology) == (0, printed)


def test_the_numbers_of_the_page(topology: Path) -> None:
    page = PAGE.read_text()
    for number, words in (
        (GUNICORN.worker, "**A worker of the application** is {} MB"),
        (UVICORN.worker, "One of uvicorn has {} MB"),
        (GRANIAN.worker, "one of granian up to {} MB"),
        (GUNICORN.above_memory, "**The process above them** has {} MB with gunicorn"),
        (GRANIAN.above_memory, "and {} MB with granian"),
        (UVICORN.above_memory, "the two above those of uvicorn have {} MB"),
        (sizes.REPAIR_MEMORY, "the media servers {} MB"),
        (sizes.MEDIA_MEMORY, "media server {} MB;"),
        (sizes.BACKEND_MEMORY, "a process of its own, {} MB"),
    ):
        assert words.format(number) in page


def test_json_and_another_worker(topology: Path) -> None:
    code, text = run(topology, "--json", "--worker", 200)
    found = json.loads(text)
    assert code == 0
    assert found["exceeded"] == []
    assert len(found["weak_points"]) == 1
    [memory] = [one for one in found["sums"] if one["server"] == "web1" and one["what"] == "memory"]
    assert memory == {
        "server": "web1",
        "role": "app",
        "what": "memory",
        "sum": "3 workers x 200 MB + 30 MB above them + 1 repair x 75 MB",
        "total": 705,
        "unit": MB,
        "more": "",
        "limit": None,
        "limited_by": "",
        "exceeds": False,
    }


def test_the_command_fails_for_too_much(topology: Path) -> None:
    topology.write_text(topology.read_text() + "memory = 100\n")
    code, text = run(topology)
    assert code == 1
    assert "\ncache2: memory: 256 MB is more than 100 (memory in the file)." in text


def test_a_file_that_is_wrong(tmp_path: Path) -> None:
    code, text = run(tmp_path / "no.toml")
    assert code == 1
    assert text.startswith("Error: ")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_table_on_a_terminal(topology: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    topology.write_text(topology.read_text() + "memory = 100\n")
    out = Terminal()
    assert weighing.weigh(topology, out, worker_memory=90) is False
    text = out.getvalue()
    assert "at the most" in text
    assert "web1, web2, web3, web4" in text
    assert "3 workers x 90 MB + 30 MB above them" in text
    assert "256 MB is more than 100" in text
    assert "db1 is the only primary" in text


# --- what stops when one dies


def weak(servers: dict[str, str], **tables: Any) -> list[str]:
    return list(weak_points(site(servers, **tables)))


TWO = {"app1": "app", "app2": "app", "media1": "media", "media2": "media"}


def test_the_largest_presets_say_the_honest_rest() -> None:
    for kind in ("redundant", "big"):
        [one] = weak_points(of_preset(kind))
        assert one == (
            "db1 is the only primary: when it dies, reads go on, and writes stop until it is back "
            "or a replica is promoted by hand. Nothing that was acknowledged is lost: a replica "
            "has it."
        )


def test_one_of_each() -> None:
    found = weak_points(of_preset("single"))
    assert [text.partition(":")[0] for text in found] == [
        "web is the only balancer",
        "web is the only application server",
        "web is the only media server",
        "/srv/shop/media is the only disk with the master copy of the uploads",
        "/srv/shop/shop.sqlite3 is the only file with the rows",
    ]


def test_media_servers() -> None:
    [master] = weak(TWO)
    assert master.startswith("/srv/media is the only disk with the master copy of the uploads")
    three = {**TWO, "media3": "media", "db1": "primary", "db2": "replica", "db3": "replica"}
    rows = {**POSTGRESQL, "synchronous": True}
    found = weak(three, media={"storage": "distributed"}, database=rows)
    assert found[0].startswith("An upload succeeds when one media server has it (need = 1)")
    assert len(weak(three, media={"storage": "distributed", "need": 2}, database=rows)) == 1
    alone = {"app1": "app", "app2": "app", "media1": "media", **STANDBY}
    [first, *_] = weak(alone, media={"storage": "distributed"}, database=rows)
    assert "its uploads are lost with its disk" in first
    assert "the master copy has them" in weak({**apps(2), "media1": "media"})[0]


def test_databases() -> None:
    assert "Add a replica." in weak({**TWO, "db1": "primary"}, database=POSTGRESQL)[-1]
    asynchronous = weak({**TWO, **STANDBY}, database=POSTGRESQL)
    assert asynchronous[-1].endswith("with synchronous = true a commit waits for one.")
    assert weak({**TWO, **STANDBY}, database=MARIADB)[-1].endswith("is lost with its disk.")
    waits = weak({**TWO, **STANDBY}, database={**POSTGRESQL, "synchronous": True})
    assert waits[-1].startswith("db2 is the only replica, and a commit waits for one")
    file = weak({**TWO, "db1": "primary"}, database={"engine": "sqlite", "name": "rows"})
    assert file[-1].startswith("/srv/rows is the only file with the rows")
    no_table = replace(site({**TWO, "db1": "primary"}, database=POSTGRESQL), database=None)
    assert len(weak_points(no_table)) == 1


def test_poolers() -> None:
    [*_, one] = weak({**TWO, **POOLED}, **BEHIND)
    assert one.startswith("pool1 is the only connection pooler: when it dies, nothing reaches the")
    beside = weak({**TWO, "app1": "app pooler", "db1": "primary"}, **BEHIND)
    assert any(text.startswith("app1 is the only connection pooler") for text in beside)
    each = {**TWO, "app1": "app pooler", "app2": "app pooler", "db1": "primary"}
    assert not any("pooler" in text for text in weak(each, **BEHIND))
    # It dies with all that asks it.
    alone = weak({"web": "app media pooler", "db1": "primary"}, **BEHIND)
    assert not any("pooler" in text for text in alone)


def test_caches_workers_stores_and_others() -> None:
    one = {**TWO, "cache1": "cache"}
    assert "all is computed anew" in weak(one)[-1]
    assert "a page that asks it fails" in weak(one, cache={"engine": "redis"})[-1]
    assert len(weak({**one, "cache2": "cache"})) == 1
    command = {"command": "python -m celery"}
    assert weak({**TWO, "w1": "worker"}, worker=command)[-1].startswith("w1 is the only worker")
    store = {"app1": "app", "app2": "app", "s3": "objects"}
    assert weak(store, objects={"bucket": "shop"}) == []
    [own] = weak(store, objects={"bucket": "shop", "engine": "swift"})
    assert own.startswith("s3 is the only object store")
    other = weak_points(with_parts(site(TWO), ("mail", "post")))
    assert other[-1] == (
        "mail is the only post server: when it dies, what it does is not done. Add another."
    )


@given(sites())
def test_every_sentence_ends(one: Site) -> None:
    for text in weak_points(one):
        assert text.endswith(".")
