"""Which headers a file is served with, and what keeps its name."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from outgrow.errors import ConfigurationError
from outgrow.publish.policy import EXPIRES, FOREVER, Policy, Rule, matcher, parse


@pytest.mark.parametrize(
    ("pattern", "matches", "others"),
    [
        ("*.css", ["a.css", ".css"], ["x/a.css", "a.css.map"]),
        ("**/*.css", ["a.css", "x/a.css", "x/y/a.css"], ["a.cssx"]),
        ("fonts/**", ["fonts/a", "fonts/x/y"], ["font/a", "x/fonts/a"]),
        ("a?c", ["abc"], ["ac", "a/c"]),
        ("a.c[1]", ["a.c[1]"], ["abc1"]),
        ("A", ["A"], ["a"]),
    ],
)
def test_patterns(pattern: str, matches: list[str], others: list[str]) -> None:
    found = matcher((pattern,))
    assert [one for one in matches if not found.match(one)] == []
    assert [one for one in others if found.match(one)] == []


def test_no_pattern_matches_nothing() -> None:
    assert not matcher(()).match("")
    assert not matcher(()).match("a")


@pytest.mark.parametrize(
    "name",
    [
        "index.html",
        "a/b/index.html",
        "robots.txt",
        "favicon.ico",
        "sitemap-1.xml",
        "sw.js",
        ".well-known/security.txt",
        "site.webmanifest",
    ],
)
def test_pages_keep_their_names(name: str) -> None:
    assert Policy().is_page(name)
    assert not Policy(immutable=("**",)).is_immutable(name)


@pytest.mark.parametrize("name", ["a.css", "a/robots.txt", "img/favicon.ico", "a.html.png"])
def test_others_do_not(name: str) -> None:
    assert not Policy().is_page(name)
    assert Policy(keep=("**",)).is_page(name)
    assert Policy(immutable=("**",)).is_immutable(name)
    assert not Policy().is_immutable(name)
    assert Policy(may_miss_in=("**",)).may_miss(name)
    assert not Policy().may_miss(name)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.css", "text/css; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.JSON", "application/json"),
        ("a.xml", "text/xml"),
        ("a.svg", "image/svg+xml"),
        ("a.woff2", "font/woff2"),
        ("LICENSE", "application/octet-stream"),
        ("a.glb", "model/gltf-binary"),
    ],
)
def test_media_types(name: str, kind: str) -> None:
    assert Policy().media_type(name) == kind


def test_types_of_one_s_own() -> None:
    policy = Policy(types={".foo": "text/foo", ".bar": "text/bar; charset=ascii"})
    assert policy.media_type("a.foo") == "text/foo; charset=utf-8"
    assert policy.media_type("a.BAR") == "text/bar; charset=ascii"


def test_the_headers_of_what_has_a_hash() -> None:
    assert Policy().headers("css/a.css", hashed=True) == {
        "Content-Type": "text/css; charset=utf-8",
        "Cache-Control": FOREVER,
        "Expires": EXPIRES,
        "X-Content-Type-Options": "nosniff",
        "Access-Control-Allow-Origin": "*",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }
    assert "Access-Control-Allow-Origin" not in Policy().headers("a.png", hashed=True)
    assert Policy().headers("a.eot", hashed=True)["Access-Control-Allow-Origin"] == "*"


def test_the_headers_of_a_page() -> None:
    assert Policy().headers("index.html", hashed=False) == {
        "Content-Type": "text/html; charset=utf-8",
        "Cache-Control": "no-cache",
        "X-Content-Type-Options": "nosniff",
    }


def test_nothing_in_between_may_change_it() -> None:
    policy = Policy(no_transform=True)
    assert policy.headers("a.css", hashed=True)["Cache-Control"] == f"{FOREVER}, no-transform"


def test_rules_in_their_order() -> None:
    rules = (
        Rule(("**/*.css",), {"cache-control": "max-age=1", "X-A": "1"}),
        Rule(("b.css",), {"X-A": "2", "EXPIRES": ""}),
    )
    first = Policy(rules).headers("a.css", hashed=True)
    assert (first["cache-control"], first["X-A"]) == ("max-age=1", "1")
    assert "Cache-Control" not in first
    second = Policy(rules).headers("b.css", hashed=True)
    assert second["X-A"] == "2"
    assert "Expires" not in second


TOML = """
keep = ["downloads/latest.zip"]
immutable = ["assets/*-????????.js"]
may_miss = ["vendor/**"]
no_transform = true

[types]
".Glb" = "model/gltf-binary"

[[headers]]
match = "fonts/**"
set = { "Timing-Allow-Origin" = "*" }

[[headers]]
match = ["a", "b"]
set = { "Expires" = "" }
"""


def test_the_table() -> None:
    assert parse(tomllib.loads(TOML)) == Policy(
        rules=(
            Rule(("fonts/**",), {"Timing-Allow-Origin": "*"}),
            Rule(("a", "b"), {"Expires": ""}),
        ),
        types={".glb": "model/gltf-binary"},
        immutable=("assets/*-????????.js",),
        keep=("downloads/latest.zip",),
        may_miss_in=("vendor/**",),
        no_transform=True,
    )
    assert parse({}) == Policy()


RULE: dict[str, Any] = {"match": "*", "set": {}}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"headers": {}}, "publish.headers: is not a list of tables. Write [[publish.headers]]."),
        ({"headers": [1]}, "publish.headers[0]: is not a table."),
        (
            {"headers": [{**RULE, "mach": 1}]},
            "headers[0].mach: is not a known key. Did you",
        ),
        ({"headers": [{**RULE, "x": 1}]}, "publish.headers[0].x: is not a known key. There are"),
        ({"headers": [RULE, {"set": {}}]}, "publish.headers[1].match: is missing."),
        ({"headers": [{"match": "*"}]}, "publish.headers[0].set: is missing."),
        ({"headers": [{**RULE, "match": 1}]}, "publish.headers[0].match: is 1."),
        ({"headers": [{**RULE, "match": ["/a"]}]}, "publish.headers[0].match[0]: is '/a'."),
        ({"headers": [{**RULE, "set": 1}]}, "publish.headers[0].set: is not a table of headers."),
        ({"headers": [{**RULE, "set": {"a b": ""}}]}, "set.a b: can't be the name of a header."),
        ({"headers": [{**RULE, "set": {"ETag": "1"}}]}, "set.ETag: is the server's. Leave it out."),
        ({"headers": [{**RULE, "set": {"A": "a\r\nB: c"}}]}, "set.A: is 'a\\r\\nB: c'."),
        ({"headers": [{**RULE, "set": {"A": "é"}}]}, "set.A: is 'é'."),
        ({"headers": [{**RULE, "set": {"A": 1}}]}, "set.A: is 1."),
        ({"headers": [{**RULE, "set": {"content-type": "x"}}]}, "is 'x', which is no media type."),
        ({"types": []}, "publish.types: is not a table."),
        ({"types": {"glb": "a/b"}}, "publish.types.glb: is no extension."),
        ({"types": {".glb": "glb"}}, "publish.types..glb: is 'glb', which is no media type."),
        ({"keep": "a"}, "publish.keep: is 'a'. Write a list of patterns."),
        ({"immutable": [1]}, "publish.immutable[0]: is 1."),
        ({"no_transform": 1}, "publish.no_transform: is 1. Write true or false."),
    ],
)
def test_mistakes(table: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse(table)
    assert said in str(raised.value)
