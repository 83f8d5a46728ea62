"""The page of each server: what it says is so, its commands exist, and nothing breaks out of it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from dataclasses import replace
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import pytest
from hypothesis import given

from outgrow.errors import ConfigurationError
from outgrow.topology import rendering
from outgrow.topology.model import Site, parse
from outgrow.topology.presets import PRESETS, preset
from outgrow.topology.render import File, readme
from outgrow.topology.render.systemd import Places
from outgrow.topology.worker import Worker
from tests.live.processes import missing
from tests.test_docs import check
from tests.topology.sites import sites
from tests.topology.test_changes import POSTGRESQL, STORE, TWO, at, site, with_parts

HOSTILE = "/srv/a `b`` $HOME;'\"<i>|# %"


def pages(site: Site, places: Places | None = None, **more: Any) -> dict[str, str]:
    """The page of every server."""
    files = rendering.plan(site, places or Places(), **more)
    return {f.name.partition("/")[0]: f.content for f in files if f.name.endswith("/README.md")}


def shell(page: str) -> list[str]:
    """Every command of a page."""
    found = re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return [line for block in found for line in block.splitlines()]


@pytest.mark.parametrize("kind", PRESETS)
def test_every_preset_has_a_page_for_each_server(kind: str) -> None:
    one = parse(tomllib.loads(preset(kind, "shop", "shop.example.org")), PurePath("/srv/shop"))
    found = pages(one)
    assert list(found) == [host.name for host in one.hosts]
    for page in found.values():
        titles = re.findall(r"^## (\d)\. (.*)$", page, re.MULTILINE)
        assert [int(number) for number, _ in titles] == list(range(1, len(titles) + 1))
        assert {"Install", "See that it works", "Firewall", "Back up", "Logs"} <= {
            title for _, title in titles
        }
        assert "\n\n\n" not in page
        subprocess.run(["bash", "-n"], input="\n".join(shell(page)), text=True, check=True)
        for line in shell(page):
            if line.startswith("python manage.py"):
                check(shlex.split(line))


def test_the_application_server_of_the_largest_preset() -> None:
    text = preset("media", "shop", "shop.example.org").replace("10.0.0.2", "10.0.0.9")
    page = pages(parse(tomllib.loads(text), PurePath("/srv/shop")))["web"]
    lines = shell(page)
    assert "sudo apt-get install nginx-light python3-venv" in lines
    pip = "sudo /srv/venv/bin/python -m pip install outgrow 'gunicorn>=25.1' 'psycopg[binary]'"
    assert pip in lines
    assert "sudo install -m 644 outgrow-app.service /etc/systemd/system/" in lines
    units = "outgrow-app.service outgrow-repair.service outgrow-balancer.service"
    assert f"sudo systemctl enable --now {units}" in lines
    assert "curl -I -H 'Host: shop.example.org' http://10.0.0.1:8000/" in lines
    assert "* `SHOP_DATABASE_PASSWORD=...` in `/etc/outgrow/environment`, mode 600" in page
    assert "`/srv/shop/media`" in page


def test_who_may_come() -> None:
    big = site({**TWO, "db1": "primary", "db2": "replica"}, database=POSTGRESQL)
    found = pages(big)
    web = f"app1 ({at('app1')}), app2 ({at('app2')})"
    assert f"| 5432/tcp | primary database | {web}, db2 ({at('db2')}) |" in found["db1"]
    assert f"| 5432/tcp | replica | {web} |" in found["db2"]
    assert f"| 8080/tcp | media server | {web}, visitors, or what" in found["media1"]
    assert "pg_hba.conf" in found["db1"]
    assert "No rows" in found["db2"]
    more = with_parts(site(TWO), ("front", "balancer"), ("batch", "worker"))
    fronted = pages(replace(more, worker=Worker(("python", "-m", "celery"))))
    assert f"| 8000/tcp | application server | front ({at('front')}) |" in fronted["app1"]
    assert "nobody else" in fronted["batch"]


def test_nginx_with_a_port_for_visitors() -> None:
    page = pages(site(TWO, media={"engine": "nginx"}), visitors=8081)["media1"]
    assert "| 8081/tcp | files, to read |" in page
    assert "sudo install -m 644 nginx.conf /etc/outgrow/" in shell(page)
    assert "sudo apt-get install nginx-light" in shell(page)
    folders = "sudo install -d -o www-data -g www-data /srv/copies /srv/copies-tmp"
    assert folders in shell(page)
    assert "systemctl disable --now nginx" in page
    assert "token" not in page


def test_mariadb_and_its_driver() -> None:
    rows = {"engine": "mariadb", "name": "shop", "password_file": "/run/secrets/rows"}
    found = pages(site({**TWO, "db1": "primary"}, database=rows))
    assert "mysqlclient" in found["app1"]
    assert "libmariadb-dev" in found["app1"]
    assert "* `/run/secrets/rows`, readable for `www-data`" in found["app1"]
    assert "mariadb-server" in found["db1"]
    assert "mariadb-dump" in found["db1"]
    assert "pg_hba.conf" not in found["db1"]
    assert "user for replication" not in found["db1"]


def test_a_file_that_holds_the_rows_is_backed_up() -> None:
    sqlite = {"engine": "sqlite", "name": "rows.sqlite3"}
    found = pages(site({**TWO, "db1": "primary"}, database=sqlite))
    assert "`/srv/rows.sqlite3`" in found["app1"]
    assert "Install" not in found["db1"]
    assert "Firewall" not in found["db1"]


def test_an_object_store() -> None:
    store = {**STORE, "access_key": "key", "secret_env": "SHOP_SECRET"}
    found = pages(site({"app1": "app", "s3": "objects"}, objects=store))
    assert "'outgrow[objects]'" in found["app1"]
    assert "`SHOP_SECRET=...`" in found["app1"]
    assert "share" not in found["app1"]
    assert "python manage.py outgrow buckets check" in shell(found["s3"])
    assert "Firewall" not in found["s3"]


def test_a_role_that_is_not_known() -> None:
    page = pages(with_parts(site(TWO), ("mail", "post")))["mail"]
    assert page.startswith("# mail: post server\n")
    assert f"nc -vz {at('mail')} 80" in shell(page)


def test_what_has_odd_characters_is_quoted_and_breaks_nothing() -> None:
    odd = site(TWO, media={"engine": "nginx"})
    folder = PurePosixPath(HOSTILE)
    places = Places(copies=HOSTILE, state=f"{HOSTILE}-tmp", python="/srv/it s/bin/python")
    odd = replace(odd, folder=folder, media_root=folder / "media")
    for host in odd.hosts:
        [page] = readme.render(odd, host, places, [])
        subprocess.run(["bash", "-n"], input="\n".join(shell(page.content)), text=True, check=True)
        for line in shell(page.content):
            if "install -d -o" in line:
                assert shlex.split(line)[-2:] == [HOSTILE, f"{HOSTILE}-tmp"]
        if host.name == "app1":
            assert f"``` {HOSTILE} ```" in page.content


@given(sites())
def test_no_site_breaks_its_pages(one: Site) -> None:
    for host in one.hosts:
        [page] = readme.render(one, host, Places(), [File("outgrow-app.service", "")])
        fences = re.findall(r"^```(\w*)$", page.content, re.MULTILINE)
        assert fences[::2] == ["sh"] * (len(fences) // 2)
        assert set(fences[1::2]) == {""}
        for line in shell(page.content):
            assert shlex.split(line)


def test_no_secret_is_in_a_page() -> None:
    rows = site({**TWO, "db1": "primary"}, database={**POSTGRESQL, "password_env": "SHOP"})
    assert rows.database
    known = replace(rows, database=replace(rows.database, password="s3cret"))
    assert not any("s3cret" in page for page in pages(known).values())


# --- logs

#: What each program calls the file that it logs to, in its configuration or among its words.
LOGS = re.compile(
    r"^\s*(?:(?:access|error)_log\s+(?!off;|stderr\b)|log\s+(?!stderr\b|global\b)|ErrorLog|CustomLog"
    r"|TransferLog|logfile\b|syslog-enabled|log_directory|logging_collector|log_filename"
    r"|log_error|slow_query_log|Standard(?:Output|Error)=)"
    r"|--(?:access|error|log)[a-z-]*(?:file|log)|--log-config|/var/log",
    re.MULTILINE,
)


@given(sites())
def test_nothing_that_is_rendered_names_a_file_for_a_log(one: Site) -> None:
    try:
        every = rendering.plan(one, Places(), visitors=8081)
    except ConfigurationError:
        return  # a path that a unit can't hold, or a name that nginx can't
    for file in every:
        if not file.name.endswith("/README.md"):
            assert not LOGS.search(file.content), file


@pytest.mark.parametrize("engine", ["memcached", "redis"])
def test_nor_does_a_cache(engine: str) -> None:
    cached = site({**TWO, "cache1": "cache"}, cache={"engine": engine})
    for file in rendering.plan(cached, Places()):
        assert file.name.endswith("README.md") or not LOGS.search(file.content), file


def test_a_log_file_would_be_seen() -> None:
    for line in ("  access_log /srv/log;", "logfile = /x", "ExecStart=g --access-logfile x"):
        assert LOGS.search(line)


def test_each_server_says_who_rotates_its_logs() -> None:
    found = pages(site({**TWO, "db1": "primary", "db2": "replica"}, database=POSTGRESQL))
    logs = {name: page.partition(". Logs\n")[2] for name, page in found.items()}
    for name in ("app1", "media1"):
        assert "to no files: there is nothing to rotate" in logs[name]
        assert "logrotate" not in logs[name]
    for name in ("db1", "db2"):
        assert "`/etc/logrotate.d/postgresql-common`" in logs[name]
        assert "units" not in logs[name]
    rows = {"engine": "mariadb", "name": "shop", "password_file": "/run/secrets/rows"}
    page = pages(site({**TWO, "db1": "primary"}, database=rows))["db1"].partition(". Logs\n")[2]
    assert "`/etc/logrotate.d/mariadb`" in page
    assert "SystemMaxUse" in page


def test_the_distributions_own_rotation_is_as_the_page_says(tmp_path: Path) -> None:
    rotated = Path("/etc/logrotate.d/postgresql-common")
    program = shutil.which("logrotate") or "/usr/sbin/logrotate"
    if not rotated.exists() or not Path(program).exists():
        missing("PostgreSQL's package or logrotate is not installed", "apt-get install logrotate")
    # With --debug it changes nothing.
    words = [program, "--debug", "--state", str(tmp_path / "state"), str(rotated)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "/var/log/postgresql/*.log" in done.stderr
