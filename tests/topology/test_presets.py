"""The topology files to begin with: valid, drawn, and never written over another."""

from __future__ import annotations

import tomllib
from pathlib import Path, PurePath

import pytest
from click.testing import CliRunner

from outgrow.cli import main
from outgrow.topology.figure import figure
from outgrow.topology.model import parse
from outgrow.topology.presets import PRESETS, preset


@pytest.mark.parametrize(
    ("kind", "servers", "arrows"),
    [
        ("single", {"web": ["balancer", "app", "media"]}, 1),
        ("database", {"web": ["balancer", "app", "media"], "db": ["primary"]}, 2),
        ("media", {"web": ["balancer", "app"], "media": ["media"], "db": ["primary"]}, 3),
    ],
)
def test_each_is_a_site(kind: str, servers: dict[str, list[str]], arrows: int) -> None:
    site = parse(tomllib.loads(preset(kind, "my-shop.org", "shop.example.org")), PurePath("/srv"))
    found = {host.name: [service.role for service in host.services] for host in site.hosts}
    assert found == servers
    assert (site.name, site.settings) == ("my-shop.org", "my_shop_org.settings")
    assert site.domains == ("shop.example.org",)
    assert len(figure(site).arrows) == arrows
    assert site.database is not None
    if site.database.has_servers:
        assert site.database.password_env == "MY_SHOP_ORG_DATABASE_PASSWORD"


def test_the_smallest_first() -> None:
    assert PRESETS == ("single", "database", "media", "redundant", "big")


@pytest.mark.parametrize(("kind", "web", "caches"), [("redundant", 2, 0), ("big", 4, 2)])
def test_of_what_matters_there_are_several(kind: str, web: int, caches: int) -> None:
    site = parse(tomllib.loads(preset(kind, "shop", "shop.example.org")), PurePath("/srv"))
    roles = ("balancer", "app", "media", "primary", "replica", "cache")
    assert [len(site.services(role)) for role in roles] == [2, web, 3, 1, 2, caches]
    # T2: whatever dies, an acknowledged row is on a replica, a file on another server.
    assert site.database is not None
    assert site.database.synchronous
    assert (site.media.storage, site.media.need) == ("distributed", "majority")


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["new", *map(str, words)])
    return done.exit_code, done.output


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "My shop").mkdir()
    monkeypatch.chdir(tmp_path / "My shop")
    code, text = run()
    told = "draw it with `outgrow draw topology.toml`, run it with `outgrow up topology.toml`"
    assert (code, text) == (0, f"topology.toml: {told}\n")
    written = Path("topology.toml").read_text()
    assert 'name = "my-shop"' in written
    code, text = run("media")
    assert code == 1
    assert "topology.toml: can't be written: File exists." in text
    assert Path("topology.toml").read_text() == written
    assert run("media", "--to", "other.toml", "--domain", "shop.org", "--name", "a")[0] == 0
    drawn = CliRunner().invoke(main, ["draw", "other.toml"])
    assert "─ media servers ─" in drawn.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["databse"], '"databse" is no preset; did you mean "database"?'),
        (["--name", 'a"b'], "site.name"),
        (["--name", "a\nb"], "site.name"),
        (["--domain", 'a"]\nroles = ["'], "site.domains"),
        (["--domain", "no domain"], "site.domains"),
    ],
)
def test_what_can_not_be(tmp_path: Path, words: list[str], message: str) -> None:
    code, text = run(*words, "--to", tmp_path / "a.toml")
    assert code == 1
    assert message in text
    assert list(tmp_path.iterdir()) == []
