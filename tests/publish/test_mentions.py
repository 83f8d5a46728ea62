"""Names of files in the strings of scripts: which are seen, what they mean, what is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgrow.publish import javascript
from outgrow.publish.mentions import meant, mentions, warning
from tests.raw import takes

#: As Vite 8 writes it for a module that is loaded late, with a sheet.
VITE = b"""const __vite__mapDeps=(i,m=__vite__mapDeps,d=(m.f||(m.f=["./late-dVVSEgoc.js",\
"./late-CO2EGa-r.css"])))=>i.map(i=>d[i]);
import{t as e}from"./preload-DIbePYYx.js";e(()=>import(`./late-dVVSEgoc.js`),__vite__mapDeps([0]));
"""


def names(content: bytes) -> list[str]:
    return [name for _, name in mentions(content, javascript.references(content))]


def test_the_list_of_vite() -> None:
    assert names(VITE) == ["./late-dVVSEgoc.js", "./late-CO2EGa-r.css"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'a="/assets/logo-Ab_3-x9Z.svg"', ["/assets/logo-Ab_3-x9Z.svg"]),
        (b"a='assets/a.css',b=`../b.woff2`", ["assets/a.css", "../b.woff2"]),
        (b'a="x/a.js";\nb="x/a.js"', ["x/a.js"]),
        (b'import "./a.js"', []),
        (b'new URL("img/a.png", import.meta.url)', []),
        (b'a="a.js"', []),  # without a folder it is any word
        (b'a="x/a b.js", b="x/a", c="x/a.", d="https://example.org/a.js"', []),
        (b"a=`x/${b}.js`", []),
        (b"a=\"x/a.js'", []),
    ],
)
def test_what_is_a_mention(content: bytes, expected: list[str]) -> None:
    assert names(content) == expected


def test_lines() -> None:
    assert mentions(b'\n\na="x/a.js"\nb="x/b.js"', []) == [(3, "x/a.js"), (4, "x/b.js")]


@pytest.mark.parametrize(
    ("mention", "script", "expected"),
    [
        ("./late.css", "assets/index.js", "assets/late.css"),
        ("../img/a.png", "assets/index.js", "img/a.png"),
        ("/static/assets/late.css", "js/index.js", "assets/late.css"),
        ("assets/late.css", "assets/index.js", "assets/late.css"),
        ("assets/late.css", "app/assets/index.js", "app/assets/late.css"),
        ("./late.css", "index.js", ""),
        ("/assets/late.css", "index.js", ""),
        ("assets/none.css", "app/assets/index.js", ""),
        ("../../../a.css", "assets/index.js", ""),
    ],
)
def test_what_it_means(mention: str, script: str, expected: str) -> None:
    there = {"assets/late.css", "app/assets/late.css", "img/a.png"}
    assert meant(mention, script, "/static/", there.__contains__) == expected


def test_what_is_told() -> None:
    found = [((3, "./b.css"), "assets/b.css"), ((1, "./a.css"), "assets/a.css")]
    said = warning("assets/index.js", found)
    assert said.startswith("assets/index.js:1: the text './a.css' ")
    assert 'immutable = ["assets/**"]' in said
    assert 'keep = ["**"]' in warning("index.js", [((1, "./a.css"), "a.css")])


@given(st.binary())
def test_nothing_raises(content: bytes) -> None:
    for _, name in mentions(content, []):
        meant(name, "a/b/c.js", "/static/", lambda _: False)


@pytest.mark.parametrize("piece", [b'"', b'"a/', b"a/.", b'"a/a.a', b'"/' + b"a." * 400, b"/"])
def test_the_time_grows_with_the_length(piece: bytes) -> None:
    with takes(at_most=5):
        mentions(b'"' + piece * (1_000_000 // len(piece)), [])
