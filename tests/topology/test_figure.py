"""A site's figure: which server stands where, what goes between them, and the two drawings."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path, PurePath
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from outgrow.cli import main
from outgrow.topology.figure import VISITORS, Arrow, Box, figure
from outgrow.topology.model import Site, parse
from outgrow.topology.render import svg, text

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"


def site(servers: dict[str, dict[str, Any]], **tables: Any) -> Site:
    first = {
        "name": "shop",
        "settings": "shop.settings",
        "wsgi": "shop.wsgi:application",
        "domains": ["example.org"],
        "media_root": "media",
    }
    return parse({"site": first, "servers": servers, **tables}, PurePath("/srv"))


def server(address: str, *roles: str, **more: Any) -> dict[str, Any]:
    return {"roles": list(roles), "address": address, **more}


ONE = site({"web": server("10.0.0.1", "app", "media")})
BIG = site(
    {
        "app1": server("10.0.0.1", "app", zone="a"),
        "app2": server("10.0.0.2", "app"),
        "media1": server("10.0.0.3", "media", engine="nginx"),
        "db1": server("10.0.0.4", "primary"),
        "db2": server("10.0.0.5", "replica"),
    },
    database={"engine": "postgresql", "name": "shop"},
)
STORE = site(
    {"app1": server("10.0.0.1", "app"), "store": server("s3.example.org", "objects")},
    objects={"bucket": "shop"},
)


def test_a_server_with_several_roles_stands_once() -> None:
    found = figure(ONE)
    assert [group.key for group in found.groups] == ["app"]
    assert found.groups[0].boxes == (Box("web", "10.0.0.1:8000", ("also media",)),)
    assert found.arrows == (Arrow(VISITORS, "app", "requests"),)


def test_the_rows_and_what_goes_between_them() -> None:
    found = figure(BIG)
    assert [[group.key for group in row] for row in found.rows] == [
        ["app"],
        ["media", "primary", "replica"],
    ]
    assert [(one.start, one.end, one.label) for one in found.arrows] == [
        (VISITORS, "app", "requests"),
        (VISITORS, "media", "files"),
        ("app", "media", "uploads, to each"),
        ("app", "primary", "writes"),
        ("app", "replica", "reads"),
        ("primary", "replica", "replication"),
    ]
    boxes = {box.name: box for group in found.groups for box in group.boxes}
    assert boxes["app1"].notes == ("zone a",)
    assert boxes["media1"].notes == ("nginx",)
    assert boxes["db1"] == Box("db1", "10.0.0.4:5432", ("PostgreSQL",))


def test_an_object_store() -> None:
    found = figure(STORE)
    assert [(one.start, one.end) for one in found.arrows] == [
        (VISITORS, "app"),
        (VISITORS, "objects"),
        ("app", "objects"),
    ]
    assert found.groups[1].boxes == (Box("store", "s3.example.org:443"),)


def test_rows_without_replicas() -> None:
    database = {"engine": "mariadb", "name": "shop"}
    servers = {"web": server("10.0.0.1", "app", "media", "primary")}
    found = figure(site(servers, database=database))
    assert found.groups[0].boxes[0].notes == ("also media", "also the primary")
    servers = {"web": server("10.0.0.1", "app", "media"), "db": server("10.0.0.2", "primary")}
    assert figure(site(servers, database=database)).arrows[-1].label == "rows"


def rectangles(drawn: str) -> list[tuple[float, float, float, float]]:
    tree = ET.fromstring(drawn)
    groups = tree.iterfind(f"{SVG}g[@class='group']/{SVG}rect")
    return [_rectangle(one) for one in groups]


def _rectangle(one: ET.Element) -> tuple[float, float, float, float]:
    x, y, width, height = (float(one.attrib[name]) for name in ("x", "y", "width", "height"))
    return x, y, x + width, y + height


@st.composite
def sites(draw: st.DrawFn) -> Site:
    servers: dict[str, dict[str, Any]] = {}
    for role, most in (("app", 9), ("media", 12), ("primary", 1), ("replica", 7)):
        least = 0 if role == "replica" else 1
        for number in range(draw(st.integers(least, most))):
            servers[f"{role}{number}"] = server(f"10.0.{len(servers)}.1", role)
    return site(servers, database={"engine": "postgresql", "name": "shop"})


@given(sites())
def test_the_picture_holds_all_and_nothing_overlaps(site: Site) -> None:
    found = figure(site)
    drawn = svg.render(found)
    tree = ET.fromstring(drawn)
    width, height = float(tree.attrib["width"]), float(tree.attrib["height"])
    names = [one.attrib["data-server"] for one in tree.iterfind(f"{SVG}g[@class='server']")]
    assert sorted(names) == sorted(host.name for host in site.hosts)
    groups = rectangles(drawn)
    for left, top, right, bottom in groups:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
    for one, other in combinations(groups, 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    servers = [_rectangle(one) for one in tree.iterfind(f"{SVG}g[@class='server']/{SVG}rect")]
    for x, y, right, bottom in servers:
        assert any(g[0] < x and g[1] < y and right < g[2] and bottom < g[3] for g in groups)
    assert len(tree.findall(f"{SVG}path")) == len(found.arrows)
    assert all(box.name in text.render(found) for group in found.groups for box in group.boxes)


def test_in_characters() -> None:
    assert (
        text.render(figure(BIG))
        == """\
visitors
  │ requests: visitors → application servers
┌─ application servers ─────────────┐
│ app1              app2            │
│   10.0.0.1:8000     10.0.0.2:8000 │
│   zone a                          │
└───────────────────────────────────┘
  │ files: visitors → media servers
  │ uploads, to each: application servers → media servers
  │ writes: application servers → primary database
  │ reads: application servers → replicas
  │ replication: primary database → replicas
┌─ media servers ─┐  ┌─ primary database ─┐  ┌─ replicas ──────┐
│ media1          │  │ db1                │  │ db2             │
│   10.0.0.3:8080 │  │   10.0.0.4:5432    │  │   10.0.0.5:5432 │
│   nginx         │  │   PostgreSQL       │  │   PostgreSQL    │
└─────────────────┘  └────────────────────┘  └─────────────────┘
"""
    )


def test_long_names_are_cut_in_the_picture() -> None:
    name = "a" * 40
    drawn = svg.render(figure(site({name: server("10.0.0.1", "app", "media")})))
    assert f'data-server="{name}"' in drawn
    assert f">{'a' * 24}…<" in drawn


@pytest.mark.parametrize(("words", "is_picture"), [([], False), (["--format", "svg"], True)])
def test_the_command(words: list[str], is_picture: bool) -> None:
    done = CliRunner().invoke(main, ["draw", str(ROOT / "examples/photos/topology.toml"), *words])
    assert done.exit_code == 0
    assert done.output.startswith("<svg" if is_picture else "visitors\n")


def test_into_a_file(tmp_path: Path) -> None:
    topology = str(ROOT / "examples/photos/topology.toml")
    for name, start in (("site.svg", "<svg"), ("site.txt", "visitors")):
        done = CliRunner().invoke(main, ["draw", topology, "--to", str(tmp_path / name)])
        assert (done.exit_code, done.output) == (0, "")
        assert (tmp_path / name).read_text(encoding="utf-8").startswith(start)
    # The documentation's picture is this command's.
    assert (tmp_path / "site.svg").read_text() == (ROOT / "docs/_static/topology.svg").read_text()
    done = CliRunner().invoke(main, ["draw", str(tmp_path / "no.toml")])
    assert done.exit_code == 1
    assert "can't be read" in done.output
