"""What a reference means, and how a new one is written."""

from __future__ import annotations

import html
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgrow.publish.references import (
    Kind,
    Lines,
    Reference,
    Syntax,
    Target,
    is_bare,
    readable,
    relative,
    replace,
    resolve,
    written,
)

PARTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/"), min_size=1)
NAMES = st.lists(PARTS.filter(lambda part: part not in {".", ".."}), min_size=1, max_size=4).map(
    "/".join
)


# --- which file is meant


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("base.css", Target("css/base.css")),
        ("./base.css", Target("css/base.css", start="./")),
        ("../img/a.png", Target("img/a.png", start="./")),
        ("/static/img/a.png", Target("img/a.png", start="/static/")),
        ("/static/a/../b.png", Target("b.png", start="/static/")),
        ("font.eot?#iefix", Target("css/font.eot", "?#iefix")),
        ("icons.svg#a", Target("css/icons.svg", "#a")),
        ("font.svg#path/to/../../f.svg", Target("css/font.svg", "#path/to/../../f.svg")),
        ("a.png?v=1", Target("css/a.png", "?v=1")),
        ("a.png?v=/x#../y", Target("css/a.png", "?v=/x#../y")),
        ("a%20b.png", Target("css/a b.png")),
        ("%C3%A9.png", Target("css/é.png")),
        ("%E9.png", Target("css/\udce9.png")),
        ("\udce9.png", Target("css/\udce9.png")),
        ("%2e%2e/a.png", Target("a.png")),
        ("a%zz.png", Target("css/a%zz.png")),
        ("..//img///a.png", Target("img/a.png", start="./")),
        ("..\\img\\a.png", Target("img/a.png", start="./")),
        (" \n a.p\nng\t", Target("css/a.png")),
        ("@scope/x.css", Target("css/@scope/x.css")),
    ],
)
def test_a_file_of_ours(url, expected):
    assert resolve(url, "css/main.css") == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        " ",
        "#a",
        "#default#VML",
        "?x",
        ".",
        "..",
        "./",
        "img/",
        "img/..",
        "/",
        "/static/",
        "http:a",
        "https:a",
        "https://x.example/a.css",
        "chrome:a",
        "data:image/png;base64,A",
        "blob:x",
        "about:blank",
        "//x.example/a.css",
        "\\\\x.example/a.css",
        "/\\x.example/a.css",
        "../../a.css",
        "../../static/a.css",
        "/media/a.css",
        "/staticfiles/a.css",
        "/static/../a.css",
        "a%2Fb.png",
    ],
)
def test_what_is_left_alone(url):
    assert resolve(url, "css/main.css") is None


def test_the_prefix_is_the_sites():
    assert resolve("/a/b.css", "x.css", "/") == Target("a/b.css", start="/")
    assert resolve("/a/b.css", "x.css", "/a") == Target("b.css", start="/a/")
    assert resolve("/static/b.css", "x.css", "/a/") is None


@pytest.mark.parametrize(
    ("specifier", "bare"),
    [
        ("vue", True),
        ("@scope/x", True),
        ("#own", True),
        (".a", True),
        ("./a", False),
        ("/a", False),
    ],
)
def test_bare_specifiers(specifier, bare):
    assert is_bare(specifier) is bare


# --- new URLs


@pytest.mark.parametrize(
    ("target", "base", "expected"),
    [
        ("img/a.4f.png", "css/b.css", "../img/a.4f.png"),
        ("css/a.css", "css/b.css", "a.css"),
        ("a.css", "b.css", "a.css"),
        ("css/x/a.css", "css/b.css", "x/a.css"),
        ("css/a.css", "css/x/y/b.css", "../../a.css"),
        ("a", "a/b", "../a"),
        ("a/b", "a", "a/b"),
        ("a b+c:é@2x.png", "b.css", "a%20b%2Bc%3A%C3%A9@2x.png"),
    ],
)
def test_relative(target, base, expected):
    assert relative(target, base) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("a.js?x#y", "a.4f.js?x#y"),
        ("./a.js", "./a.4f.js"),
        ("../js/a.js", "./a.4f.js"),
        ("/static/js/a.js", "/static/js/a.4f.js"),
    ],
)
def test_a_new_url_begins_as_the_old_one_did(url, expected):
    target = resolve(url, "js/main.js")
    assert target is not None
    assert target.url("js/a.4f.js", "js/main.9c.js") == expected


def test_a_modules_reference_never_becomes_bare():
    target = resolve("./.hidden/a.js", "main.js")
    assert target is not None
    assert target.url(".hidden/a.js", "main.js") == "./.hidden/a.js"
    up = resolve("../b.js", "js/main.js")
    assert up is not None
    assert up.url("b.js", "js/main.js") == "../b.js"


@given(NAMES, NAMES, st.sampled_from(["", "./", "/static/"]), st.sampled_from(["", "?a#b", "#c"]))
def test_a_new_url_leads_to_its_file(key, base, start, suffix):
    found = resolve(Target("x", suffix, start).url(key, base), base)
    assert found is not None
    assert (found.name, found.suffix) == (key, suffix)


# --- how it is written


@pytest.mark.parametrize(
    ("syntax", "url", "expected"),
    [
        (Syntax.CSS_URL, "a b('c').png", rb"a\20 b\28 \27 c\27 \29 .png"),
        (Syntax.CSS_STRING, 'a b("c").png', rb"a b(\22 c\22 ).png"),
        (Syntax.CSS_STRING, "</style>", rb"\3c /style>"),
        (
            Syntax.SCRIPT_STRING,
            "'\"`${\\\u2028</",
            rb"\u0027\u0022\u0060\u0024{\u005c\u2028\u003c/",
        ),
        (Syntax.COMMENT, "a b*/.map", b"a%20b%2A/.map"),
        (Syntax.CANDIDATE, ",a b,c,", b"%2Ca%20b,c%2C"),
        (Syntax.ATTRIBUTE, "a?b=1&c='\">", b"a?b&#61;1&amp;c&#61;&#39;&#34;&#62;"),
        (Syntax.CSS_URL, "\udce9é.png", b"\xe9\xc3\xa9.png"),
    ],
)
def test_escapes(syntax, url, expected):
    assert written(Reference(0, 0, "", 1, Kind.URL, (syntax,)), url) == expected


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_escapes_are_undone_by_those_who_read_them(url):
    def text(*syntax: Syntax) -> str:
        return written(Reference(0, 0, "", 1, Kind.URL, syntax), url).decode()

    assert json.loads(f'"{text(Syntax.SCRIPT_STRING)}"') == url
    attribute = text(Syntax.ATTRIBUTE)
    assert not set("\"'<> \n").intersection(attribute)
    if url.isprintable():
        assert html.unescape(attribute) == url
        assert html.unescape(text(Syntax.CSS_STRING, Syntax.ATTRIBUTE)) == text(Syntax.CSS_STRING)


def test_replace_changes_nothing_else():
    one = Reference(2, 3, "b", 1, Kind.URL, (Syntax.CSS_URL,))
    other = Reference(4, 5, "d", 1, Kind.URL, (Syntax.CSS_URL,))
    assert replace(b"\xff(b,d)\0", [(other, "y"), (one, "x x")]) == b"\xff(x\\20 x,y)\0"
    assert replace(b"\xff(b,d)\0", []) == b"\xff(b,d)\0"
    same = Reference(0, 3, "a", 1, Kind.URL, (Syntax.CSS_URL,))
    assert replace(rb"\61)", [(same, "a")]) == rb"\61)"  # however it was written


def test_references_that_overlap_are_refused():
    one = Reference(0, 3, "", 1, Kind.URL, (Syntax.CSS_URL,))
    other = Reference(2, 4, "", 1, Kind.URL, (Syntax.CSS_URL,))
    with pytest.raises(ValueError, match="overlap at byte 2"):
        replace(b"abcdef", [(one, "x"), (other, "y")])


# --- contents


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_wide_characters_are_not_readable(encoding):
    assert not readable("a{}".encode(encoding))
    assert readable(b"\xef\xbb\xbfa{}")
    assert not readable(b"\0\0\xfe\xff\0\0\0a")
    assert readable(b"")


def test_lines():
    lines = Lines(b"a\nb\n\nc")
    assert [lines.at(offset) for offset in (0, 1, 2, 2, 4, 5)] == [1, 1, 2, 2, 3, 4]
