"""A site as Django's settings: compared as values."""

from __future__ import annotations

import json
import re
import sqlite3
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from outgrow import conf
from outgrow.cli import main
from outgrow.topology.load import load
from outgrow.topology.model import parse
from outgrow.topology.settings import django_settings

TEXT = """
[site]
name = "photos"
settings = "photos.settings"
wsgi = "photos.wsgi:application"
domains = ["photos.example.org"]
media_root = "var/media"
[media]
need = "majority"
[servers.app1]
roles = ["app"]
address = "10.0.0.1"
[servers.media1]
roles = ["media"]
address = "10.0.0.11"
[servers.media2]
roles = ["media"]
address = "10.0.0.12"
"""


def test_the_servers_of_the_file_are_the_storage_s(tmp_path):
    settings = django_settings(parse(tomllib.loads(TEXT), tmp_path))
    assert settings["ALLOWED_HOSTS"] == ["photos.example.org"]
    assert settings["MEDIA_ROOT"] == str(tmp_path / "var/media")
    options = settings["STORAGES"]["default"]["OPTIONS"]
    assert {name: url.rstrip("/") for name, url in options["servers"].items()} == {
        "media1": "http://10.0.0.11:8080",
        "media2": "http://10.0.0.12:8080",
    }
    assert options["need"] == "majority"
    assert "timeout" not in options


def test_the_storage_takes_them(tmp_path):
    settings = django_settings(parse(tomllib.loads(TEXT), tmp_path))
    checked, problems = conf.media_options(settings["STORAGES"]["default"]["OPTIONS"])
    assert problems == []
    assert checked.need == 2


def test_without_the_table_databases_are_the_site_s(tmp_path):
    settings = django_settings(parse(tomllib.loads(TEXT), tmp_path))
    assert not {"DATABASES", "DATABASE_ROUTERS", "OUTGROW"} & settings.keys()


DATABASE = """
[database]
engine = "postgresql"
name = "photos"
user = "web"
max_lag = 3
when_behind = "wait"
[servers.db1]
roles = ["primary"]
address = "10.0.0.31"
"""

REPLICAS = """
[servers.db-2]
roles = ["replica"]
address = "10.0.0.32"
weight = 3
[servers.db3]
roles = ["replica"]
address = "2001:db8::3"
"""


def databases(text, folder, password=""):
    site = parse(tomllib.loads(TEXT + text), folder)
    site = replace(site, database=replace(site.database, password=password))
    return django_settings(site)


def test_a_primary_and_its_replicas(tmp_path):
    settings = databases(DATABASE + REPLICAS, tmp_path, "secret")
    server = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "photos",
        "USER": "web",
        "PASSWORD": "secret",
        "PORT": "5432",
        "CONN_MAX_AGE": 600,
    }
    replica = server | {
        "CONN_HEALTH_CHECKS": False,
        "OPTIONS": {"connect_timeout": 2, "options": "-c default_transaction_read_only=on"},
        "TEST": {"MIRROR": "default"},
    }
    assert settings["DATABASES"] == {
        "default": server
        | {
            "HOST": "10.0.0.31",
            "CONN_HEALTH_CHECKS": True,
            "OPTIONS": {"connect_timeout": 5},
        },
        "db_2": replica | {"HOST": "10.0.0.32"},
        "db3": replica | {"HOST": "2001:db8::3"},
    }
    assert settings["DATABASE_ROUTERS"] == ["outgrow.databases.ReplicationRouter"]
    assert settings["OUTGROW"] == {
        "REPLICATION": {
            "default": {
                "replicas": ["db_2", "db3"],
                "weights": {"db_2": 3, "db3": 1},
                "max_lag": 3.0,
                "when_behind": "wait",
            }
        }
    }


def test_a_primary_alone_needs_no_router(tmp_path):
    settings = databases(DATABASE, tmp_path)
    assert list(settings["DATABASES"]) == ["default"]
    # The driver looks for it where it always does.
    assert "PASSWORD" not in settings["DATABASES"]["default"]
    assert not {"DATABASE_ROUTERS", "OUTGROW"} & settings.keys()


def test_a_replica_of_mariadb(tmp_path):
    settings = databases(DATABASE.replace("postgresql", "mariadb") + REPLICAS, tmp_path)
    assert settings["DATABASES"]["default"]["PORT"] == "3306"
    assert settings["DATABASES"]["db3"]["ENGINE"] == "django.db.backends.mysql"
    assert settings["DATABASES"]["db3"]["OPTIONS"] == {
        "connect_timeout": 2,
        "init_command": "SET SESSION TRANSACTION READ ONLY",
    }


def test_sqlite_s_replicas_are_the_same_file_which_they_can_t_write(tmp_path):
    text = """
    [database]
    name = "the rows?.sqlite3"
    [servers.db1]
    roles = ["primary"]
    address = "10.0.0.31"
    """
    settings = databases(text + REPLICAS, tmp_path)
    path = tmp_path / "the rows?.sqlite3"
    sqlite = "django.db.backends.sqlite3"
    assert settings["DATABASES"]["default"] == {"ENGINE": sqlite, "NAME": str(path)}
    assert settings["DATABASES"]["db3"] == {
        "ENGINE": sqlite,
        "NAME": f"file:{tmp_path}/the%20rows%3F.sqlite3?mode=ro",
        "TEST": {"MIRROR": "default"},
    }
    with sqlite3.connect(path) as primary:
        primary.execute("CREATE TABLE note (text TEXT)")
    with sqlite3.connect(settings["DATABASES"]["db3"]["NAME"], uri=True) as replica:
        assert replica.execute("SELECT count(*) FROM note").fetchone() == (0,)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            replica.execute("INSERT INTO note VALUES ('x')")
    primary.close()
    replica.close()


def test_a_topology_says_on_how_many_servers_the_application_runs(tmp_path: Path) -> None:
    def site(*addresses: str) -> dict[str, Any]:
        servers = {
            f"app{number}": {"roles": ["app", "media"], "address": address}
            for number, address in enumerate(addresses)
        }
        ports = {"app": 8000, "media": 8080}
        for number, server in enumerate(servers.values()):
            server["ports"] = {role: port + number for role, port in ports.items()}
        table = {
            "name": "shop",
            "settings": "shop",
            "wsgi": "shop:application",
            "domains": ["example.org"],
            "media_root": "media",
        }
        return django_settings(parse({"site": table, "servers": servers}, tmp_path))

    assert "OUTGROW" not in site("10.0.0.1")
    assert site("10.0.0.1", "10.0.0.2")["OUTGROW"] == {"APP_SERVERS": 2}
    # A whole site on one machine is no reason to warn.
    assert "OUTGROW" not in site("127.0.0.1", "127.0.0.1")


def test_they_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    topology = Path(__file__).parents[2] / "examples/photos/topology.toml"
    wanted = django_settings(load(topology))
    printed = CliRunner().invoke(main, ["settings", str(topology)])
    assert printed.exit_code == 0
    names: dict[str, Any] = {}
    exec(printed.output, {}, names)
    assert names == wanted
    as_json = CliRunner().invoke(main, ["settings", str(topology), "--json"])
    assert json.loads(as_json.output) == json.loads(json.dumps(wanted))
    wrong = CliRunner().invoke(main, ["settings", str(tmp_path / "no.toml")])
    assert (wrong.exit_code, "can't be read" in wrong.output) == (1, True)


def test_no_secret_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    topology = Path(__file__).parents[2] / "examples/photos/topology.toml"
    text = topology.read_text().replace(
        'engine = "postgresql"', 'engine = "postgresql"\npassword_env = "SHOP_PASSWORD"'
    )
    text = re.sub(r"password_(file|env) = .*\n(?=.*password_env)", "", text)
    (tmp_path / "topology.toml").write_text(text)
    monkeypatch.setenv("SHOP_PASSWORD", "not-to-be-seen")
    done = CliRunner().invoke(main, ["settings", str(tmp_path / "topology.toml")])
    assert done.exit_code == 0, done.output
    assert "DATABASES" in done.output
    assert "not-to-be-seen" not in done.output
