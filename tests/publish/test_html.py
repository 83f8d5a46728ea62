"""References in pages: what is one, what is none, and that nothing else changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgrow.publish.html import base_line, read, references
from outgrow.publish.references import Kind, Syntax, replace
from tests.publish.replacing import nothing_else_changes

AFTER = b"<img src=after.png>"


def urls(content: bytes) -> list[str]:
    return [one.url for one in references(content)]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'<img src="a.png">', ["a.png"]),
        (b"<img src='a.png'/>", ["a.png"]),
        (b"<IMG SRC=a.png>", ["a.png"]),
        (b"<img\n src = a.png alt>", ["a.png"]),
        (b'<img alt="x > y" src="a.png"src="b.png">', ["a.png"]),
        (b'<img src=" a b.png\n">', ["a b.png"]),
        (
            b'<img src="a.png?b=1&amp;c=2&copy=3&#x26;&unknown;&#39;">',
            ["a.png?b=1&c=2&copy=3&&unknown;'"],
        ),
        (b"<img src='\xe9.png'>", ["\udce9.png"]),
        (b"<script src=a.js></script>", ["a.js"]),
        (b"<link rel=stylesheet href=a.css>", ["a.css"]),
        (b'<link rel="shortcut ICON" href=a.ico>', ["a.ico"]),
        (b"<link rel=modulepreload href=a.js>", ["a.js"]),
        (b"<link rel=preload imagesrcset='a.png 1x, b.png 2x'>", ["a.png", "b.png"]),
        (
            b"<video poster=a.png src=b.mp4><source src=c.mp4><track src=d.vtt>",
            ["a.png", "b.mp4", "c.mp4", "d.vtt"],
        ),
        (b"<object data=a.svg></object><embed src=b.swf>", ["a.svg", "b.swf"]),
        (b"<svg><use xlink:href='a.svg#b'/><image href=c.png /></svg>", ["a.svg#b", "c.png"]),
        (b"<table background=a.png>", ["a.png"]),
        (
            b"<meta property=og:image content=a.png><meta content=b.png name='twitter:image'>",
            ["a.png", "b.png"],
        ),
        (b"<img srcset='a.png 1x, b.png 2x'>", ["a.png", "b.png"]),
        (
            b"<source srcset='a.png,b.png 2x (x, y),, c.png , d.png,'>",
            ["a.png,b.png", "c.png", "d.png"],
        ),
        (
            b"<img srcset='data:image/png;base64,AA== 1x, b.png,'>",
            ["data:image/png;base64,AA==", "b.png"],
        ),
        (b"<img srcset=' , '>", []),
        (b"<p style='a:url(a.png);b:url(&quot;b c.png&quot;)'>", ["a.png", "b c.png"]),
        (b"<style>@import 'a.css'; b{c:url(d.png)}</style>", ["a.css", "d.png"]),
        (b"<script type=module>import './a.js'</script>", ["./a.js"]),
        (b"<script>if (1 < 2) import('./a.js')</script>", ["./a.js"]),
        (b"<script type=' Text/JavaScript '>import('./a.js')</script>", ["./a.js"]),
        (
            b"<noscript><img src=a.png></noscript><template><img src=b.png></template>",
            ["a.png", "b.png"],
        ),
        (b"<![if !IE]><img src=a.png><![endif]>", ["a.png"]),
        (b"<!DOCTYPE html><?xml x?><p></p >< img src=no><a.b src=no><img src=a.png>", ["a.png"]),
    ],
)
def test_what_is_found(content, expected):
    assert urls(content + AFTER) == [*expected, "after.png"]


@pytest.mark.parametrize(
    "content",
    [
        b"<!-- <img src=a.png> -->",
        b"<!--[if IE]><img src=a.png><![endif]-->",
        b"<!-- a --!><!--><!---><!-- > <img src=no> -->",
        b"<textarea><img src=a.png></textarea><title><img src=b.png></TITLE >",
        b"<script type=text/template><img src=a.png></script>",
        b"<script type=application/json>{'a': '<img src=a.png>'}</script>",
        b"<script>'<img src=a.png>'; importScripts('b.js')</script>",
        b"<script src>import('./a.js')</script>",
        b"<meta name=description content=a.png><meta content=b.png>",
        b"<img src><img src=''><img src= ><p src=a.png title=b.png data-src=c.png>",
        b"<div style='color: red'></div><img srcset>",
        b"</img src=a.png><p>src=a.png",
    ],
)
def test_what_is_none(content):
    assert urls(content + AFTER) == ["after.png"]


@pytest.mark.parametrize(
    "content",
    [
        b"<!-- <img src=a.png>",
        b"<img src=a.png",
        b"<img src='a.png><img src=b.png>",
        b"<script>1",
        b"<",
        b"<img =",
        b"<img src=",
        b"<!",
        b'<img alt="><img src=b.png>',
    ],
)
def test_what_does_not_end(content):
    assert references(content) == []


@pytest.mark.parametrize(
    "content",
    [
        b"<a href=a/>",
        b"<area href=a/>",
        b"<iframe src=a/></iframe>",
        b"<link rel=canonical href=a/>",
        b"<link href=a/>",
    ],
)
def test_links_may_lead_anywhere(content):
    (found,) = references(content)
    assert (found.url, found.kind) == ("a/", Kind.LINK)


def test_where_they_stand():
    content = (
        b"<p>\n<img src=a.png\n style='b:url(&#39;&amp;c&#39;)'><style>\n\nd{e:url(f)}</style>"
    )
    found = references(content)
    assert [(one.line, content[one.start : one.end], one.url) for one in found] == [
        (2, b"a.png", "a.png"),
        (3, b"&amp;c", "&c"),
        (5, b"f", "f"),
    ]
    assert [one.syntax for one in found] == [
        (Syntax.ATTRIBUTE,),
        (Syntax.CSS_STRING, Syntax.ATTRIBUTE),
        (Syntax.CSS_URL,),
    ]


def test_they_come_in_order():
    assert urls(b"<img srcset='a 1x' style='b:url(b)' src=c>") == ["a", "b", "c"]


# --- import maps


def test_import_maps():
    content = b"""<script type="importmap">
    {"imports": {"vue": "./vue.js", "x": "https://x.example/x.js", "bare": "bare.js", "n": null,
                 "\\u0022": "/static/\\u00e9.js", "half": "./\\ud800"},
     "scopes": {"/a/": {"vue": "./old.js"}, "b": "./no.js"},
     "integrity": {"./vue.js": "sha384-./no", "bare": "./no"},
     "other": {"./no.js": "./no.js"}}
    </script>"""
    found = references(content)
    assert [one.url for one in found] == ["./vue.js", "/static/é.js", "./old.js", "./vue.js"]
    assert [one.line for one in found] == [2, 3, 4, 5]
    assert all(one.syntax == (Syntax.SCRIPT_STRING,) and one.kind is Kind.URL for one in found)


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b'<script src=a.js integrity="sha384-a+/=">', "sha384-a+/="),
        (b"<SCRIPT INTEGRITY=sha256-x SRC=a.js></SCRIPT>", "sha256-x"),
        (
            b'<link rel=stylesheet href=a.js integrity=" sha256-a&#x3d; sha512-b ">',
            "sha256-a= sha512-b",
        ),
        (b"<link integrity=sha256-x rel=modulepreload href=a.js>", "sha256-x"),
        (b'<script src=a.js integrity=" ">', None),
        (b"<script src=a.js integrity>", None),
        (b"<img src=a.js integrity=sha256-x>", None),
        (
            b'<script type=importmap>{"integrity": {"./a.js": "sha256-\\u002bx"}}</script>',
            "sha256-+x",
        ),
        (b'<script type=importmap>{"integrity": {"./a.js": null, "b": 1}}</script>', None),
        (b'<script type=importmap>{"integrity": {"./a.js": null}}</script>', None),
    ],
)
def test_integrity_stands_beside(content, value):
    (found,) = references(content)
    beside = found.integrity
    assert (beside and beside.url) == value
    if beside:
        changed = replace(content, [(beside, 'sha384-"+/=')])
        (again,) = references(changed)
        assert again.integrity.url == 'sha384-"+/='
        assert replace(changed, [(again.integrity, "")]) == replace(content, [(beside, "")])


@pytest.mark.parametrize(
    "content", [b'{"imports": {"a": "./a.js"}', b"[" * 200_000, b'["imports", "./a.js"]']
)
def test_what_is_no_import_map(content):
    assert references(b"<script type=importmap>" + content + b"</script>") == []


# --- the base of a page


def test_scripts_that_can_t_be_made_out():
    content = b"<p>\n<script>f(((\nimport('./a.js') ]]</script>\n<script>import('./b.js')</script>"
    found = read(content)
    assert [one.url for one in found.references] == ["./b.js"]
    (damage,) = found.damage
    assert content[damage.start : damage.end].startswith(b"f(((")
    assert content[damage.at :].startswith(b"./a.js")


def test_what_is_relative_to_another_base_is_left_alone():
    content = b"<p>\n<base href='/x/'><base href=y><img src=a.png><img src=/static/b.png>"
    assert urls(content) == ["/static/b.png"]
    assert base_line(content) == 2


@pytest.mark.parametrize(
    "content", [b"<base target=_blank><img src=a.png>", b"<!--<base href=x>--><img src=a.png>"]
)
def test_no_base(content):
    assert urls(content) == ["a.png"]
    assert base_line(content) == 0


# --- anything


def test_wide_characters_are_not_read():
    content = "<base href=b><img src=a>".encode("utf-16")
    assert references(content) == []
    assert base_line(content) == 0


@given(
    st.binary()
    | st.lists(
        st.sampled_from(
            [
                b"<img",
                b"<script",
                b"</script>",
                b"<style",
                b"</style>",
                b"<link",
                b" type=module",
                b" type=importmap",
                b" src=",
                b" srcset=",
                b" style=",
                b" href=",
                b"'",
                b'"',
                b">",
                b"<!--",
                b"-->",
                b"&amp;",
                b"&",
                b";",
                b"a.png",
                b" 1x",
                b",",
                b"url(",
                b")",
                b"import ",
                b'{"imports":{"a":"./a"}}',
                b"\xff",
                b"\0",
                b"/",
                b"=",
            ]
        )
    ).map(b"".join)
)
def test_nothing_raises_and_nothing_changes(content):
    found = references(content)
    assert replace(content, [(one, one.url) for one in found]) == content
    assert all(0 <= one.start <= one.end <= len(content) for one in found)


#: Not at the ends: spaces around a URL are not a part of it.
URLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\f")).map(
    "./{}x".format
)
OTHERS = st.sampled_from(
    [
        b"<!-- <img src=no> -->",
        b"<p title='<img src=no>'>",
        b"text & text",
        b"</p>",
        b"<br/>",
        b"<title><img src=no></title>",
        b"<script type=text/x><img src=no></script>",
        b"<a name='&quot;'>",
        b"\xff",
        b"<p style='a:b'>",
        b"1 < 2",
    ]
)
FORMS = st.sampled_from(
    [
        (b'<img src="', b"x", b'">'),
        (b"<a href='", b"x", b"'>"),
        (b"<img src=", b"x", b" alt=''>"),
        (b"<p style='a:url(", b"x", b")'>"),
        (b"<p style=\"a:url('", b"x", b"')\">"),
        (b"<style>a{b:url(", b"x", b")}</style>"),
        (b"<script type=module>import('", b"./x", b"')</script>"),
        (b'<script type=importmap>{"imports":{"a":"', b"./x", b'"}}</script>'),
    ]
)


@given(st.lists(OTHERS | st.tuples(FORMS, URLS, URLS), max_size=10))
def test_references_are_found_and_replaced_and_nothing_else(parts):
    nothing_else_changes(references, parts, b"\n")
