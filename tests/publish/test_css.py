"""References in CSS: what is one, what is none, and that nothing else changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgrow.publish.css import references
from outgrow.publish.references import Kind, Syntax, replace, resolve
from tests.publish.replacing import nothing_else_changes

#: Found if the scan goes on at the right place.
AFTER = b"\n}b{c:url(after.png)}"


def urls(content: bytes) -> list[str]:
    return [one.url for one in references(content)]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a{b:url(a.png)}", ["a.png"]),
        (b"a{b:url( \t\n a.png \f )}", ["a.png"]),
        (b"a{b:url('a.png') url(\"b.png\")}", ["a.png", "b.png"]),
        (b"a{b:url( 'a (b).png' )}", ["a (b).png"]),
        (b"a{b:URL(a.png) uRl('b.png')}", ["a.png", "b.png"]),
        (rb"a{b:url(a\ \(b\)\27.png)}", ["a (b)'.png"]),
        (rb"a{b:url('\61\'\62 c.png')}", ["a'bc.png"]),
        (b"a{b:url('a\\\nb.png') url('c\\\r\nd')}", ["ab.png", "cd"]),
        (rb"a{b:url('\0\d800\110000.png')}", ["\ufffd\ufffd\ufffd.png"]),
        (rb"a{b:url(\61 b\000063 d\65)}", ["abcde"]),
        (b"a{b:url('\\61\nb.png') url(\\61\r\nb.png)}", ["ab.png", "ab.png"]),
        (b"a{b:url(/*c*/d.png)}", ["/*c*/d.png"]),
        (b"/**/url(a.png)", ["a.png"]),
        (b"a{--image:url(a.png)}", ["a.png"]),
        (b"a{b:c(url(a.png),url(b.png))}", ["a.png", "b.png"]),
        (
            b"@font-face{src:url(a.woff2)format('woff2'),url('b.eot?#iefix')}",
            ["a.woff2", "b.eot?#iefix"],
        ),
        (b"a{b:url(\xe9.png) url(\xc3\xa9.png)}", ["\udce9.png", "é.png"]),
        (
            b"a{b:url(data:image/png;base64,AA==) url(c.png)}",
            ["data:image/png;base64,AA==", "c.png"],
        ),
        (
            b'a{b:url("data:image/svg+xml,url(%23b) url(%23c)")}',
            ["data:image/svg+xml,url(%23b) url(%23c)"],
        ),
        (b"a{b:image-set('a.png' 1x, 'b.png' 2x)}", ["a.png", "b.png"]),
        (b"a{b:-webkit-image-set(url(a.png) 1x, url('b.png')2x) 'c'}", ["a.png", "b.png"]),
        (
            b"a{b:image-set('a.avif' type('image/avif'), \"b.jpg\" type(\"image/jpeg\")) 'c'}",
            ["a.avif", "b.jpg"],
        ),
        (b"a{b:IMAGE-SET(/*'c'*/'a.png' calc((1x))/**/)'c';d:url(e.png)}", ["a.png", "e.png"]),
        (b"a{b:image-set('a.png' 1x;c:'d'}", ["a.png"]),
        (b"a{b:image-set('a.png' 1x} c{d:'e'}", ["a.png"]),
    ],
)
def test_urls(content, expected):
    found = references(content + AFTER)
    assert [one.url for one in found] == [*expected, "after.png"]
    assert all(one.kind is Kind.URL for one in found)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"@import 'a.css';", "a.css"),
        (b'@IMPORT"a.css"screen;', "a.css"),
        (b"@import/**/ /* b */\n'a.css' layer(x) supports(display: grid) print;", "a.css"),
        (b"@import url(a.css);", "a.css"),
        (b"@import url( 'a.css' ) screen;", "a.css"),
        (b'@import Url("a.css");', "a.css"),
    ],
)
def test_imports(content, expected):
    found = references(content + AFTER)
    assert [(one.url, one.kind) for one in found] == [
        (expected, Kind.IMPORT),
        ("after.png", Kind.URL),
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"/* url(a.png) @import 'a.css'; */",
        b"/*** url(a.png) ** / '*/",
        b"a{content:\"url(a.png)\" 'url(b.png)' '\\'url(c.png)'}",
        b"a{content:'\\\nurl(a.png)'}",
        b".a\\\"b{} .c\\'d{}",
        b"a{b:my-url(a.png) xurl(b.png) \\url(c.png) \xe9url(d.png) url-prefix('e')}",
        b"a{b:my-image-set('a.png')}",
        b"@imports 'a.css'; @import-x 'b.css'; @import x 'c.css';",
        b"@namespace url(a); @namespace svg url('b'); @NAMESPACE 'c';",
        b"@charset 'utf-8';",
        b"a{b:url()}",
        b"a{b:url()'c.png'}",
        b"a{b:url(a b)}",
        b"a{b:url(a'b)}",
        b"a{b:url(a(b)}",
        b"a{b:url(a\\)b c\\)d)}",
        b"a{content:'a\nb{c:d}",
        b"a{b:url('a.png\n)}",
        b"a{b:image-set('a.png\n 1x)}",
    ],
)
def test_what_is_none(content):
    assert urls(content + AFTER) == ["after.png"]


@pytest.mark.parametrize(
    "content",
    [
        b"/* url(a.png)",
        b"a{b:'url(a.png)",
        b'a{b:"url(a.png)\\',
        b"url('a.png",
        b"url(",
        b"@import ",
        b"\\",
    ],
)
def test_what_does_not_end(content):
    assert urls(content) == []


def test_a_url_may_end_with_the_file():
    assert urls(b"a{b:url(a.png") == ["a.png"]


# --- source maps


@pytest.mark.parametrize(
    "comment",
    [
        b"/*# sourceMappingURL=a.css.map */",
        b"/*# sourceMappingURL=a.css.map*/",
        b"/*@ sourceMappingURL=a.css.map */",
        b"/*#\tsourceMappingURL=a.css.map\t*/\n",
        b"/*# sourceMappingURL= a.css.map\n*/",
    ],
)
def test_source_maps(comment):
    (found,) = references(b"a{}\n" + comment)
    assert (found.url, found.kind, found.line) == ("a.css.map", Kind.SOURCE_MAP, 2)
    assert found.syntax == (Syntax.COMMENT,)


def test_comments_have_no_escapes():
    assert urls(rb"/*# sourceMappingURL=a\62.map */") == [r"a\62.map"]


def test_the_last_source_map_counts():
    content = b"/*# sourceMappingURL=a.map */a{b:url(c)}/*# sourceMappingURL=b.map */"
    assert urls(content) == ["c", "b.map"]


@pytest.mark.parametrize(
    "content",
    [
        b"/*# sOuRcEMaPpInGURL=a.css.map */",
        b"a{b:'/*# sourceMappingURL=a.css.map */'}",
        b"/* # sourceMappingURL=a.css.map */",
        b"/*# sourceMappingURL=a b.map */",
        b"/*# sourceMappingURL=a.css.map",
    ],
)
def test_no_source_map(content):
    assert urls(content) == []


# --- Django's own cases (tests/staticfiles_tests/project)


def test_what_django_ignores():
    content = b"""
    body { background: url("#foobar"); background: url("http:foobar"); background: url(); }
    body { background: url("https:foobar") url("data:foobar") url("chrome:foobar") url("//foobar") }
    /* @import url("missing.css") */ /*

    @import url("missing.css")
    url("missing.png")
    */
    body { background: #d3d6d8 /*url("missing.png")*/ url(/static/found.png) /* url("missing") */; }
    body { content: "url(missing.png)"; content: 'url(missing.png)'; behavior: url("#default#VML") }
    """
    names = [resolve(url, "cached/css/ignored.css") for url in urls(content)]
    assert [one.name for one in names if one] == ["found.png"]


def test_what_django_finds():
    content = b"""@import "../cached/styles.css"; @import url("..//cached///styles.css");
    @font-face { src: url('fonts/font.eot?#iefix') format('embedded-opentype'),
      url('fonts/font.svg#path/to/../../fonts/font.svg') format('svg'); }"""
    targets = [resolve(url, "cached/a.css") for url in urls(content)]
    assert [(one.name, one.suffix) for one in targets if one] == [
        ("cached/styles.css", ""),
        ("cached/styles.css", ""),
        ("cached/fonts/font.eot", "?#iefix"),
        ("cached/fonts/font.svg", "#path/to/../../fonts/font.svg"),
    ]


# --- anything


def test_lines_and_offsets():
    content = b"a{\n  b: url(a.png);\n}\n@import 'b\\62.css';"
    one, other = references(content)
    assert (one.line, content[one.start : one.end], one.syntax) == (2, b"a.png", (Syntax.CSS_URL,))
    assert (other.line, content[other.start : other.end]) == (4, rb"b\62.css")
    assert (other.url, other.syntax) == ("bb.css", (Syntax.CSS_STRING,))


def test_wide_characters_are_not_read():
    assert references("a{b:url(c)}".encode("utf-16")) == []


@given(st.binary() | st.text("url('\")\\/*@import-set{;} \n\xe9", max_size=60).map(str.encode))
def test_nothing_raises_and_nothing_changes(content):
    found = references(content)
    assert replace(content, [(one, one.url) for one in found]) == content
    assert all(0 <= one.start <= one.end <= len(content) for one in found)


URLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\f"), min_size=1)
OTHERS = st.sampled_from(
    [
        b"/* url(no) */",
        b"'url(no)'",
        b'"/*"',
        b'"\\""',
        b"a{b:c}",
        b"\\'",
        b"\\(",
        b"no-url(no)",
        b"@namespace url(no);",
        b"url(n o)",
        b"calc((1 + 2)*3)",
        b"/***/",
        b"@media x{}",
        b"\xff",
        b"'\\\n'",
        b"-image-set('no')",
        b"url()",
        b"@charset 'no';",
        b"/*# no */",
        b"format('no')",
    ]
)
FORMS = st.sampled_from(
    [
        (b"url(", b"x", b")"),
        (b"url( '", b"x", b"')"),
        (b'URL("', b"x", b'")'),
        (b"@import '", b"x", b"';"),
        (b"@import/**/url(", b"x", b") y;"),
        (b'image-set("', b"x", b"\" 1x type('no'))"),
        (b"-webkit-image-set(1x url(", b"x", b"))"),
    ]
)


@given(st.lists(OTHERS | st.tuples(FORMS, URLS, URLS), max_size=12))
def test_references_are_found_and_replaced_and_nothing_else(parts):
    nothing_else_changes(references, parts, b" ")
