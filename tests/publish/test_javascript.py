"""References in JavaScript: what is one, what is none, and that nothing else changes."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgrow.errors import MissingExtra
from outgrow.publish import javascript
from outgrow.publish.javascript import read, references
from outgrow.publish.references import Kind, Syntax, replace, resolve
from tests.publish.replacing import nothing_else_changes


def urls(content: bytes) -> list[str]:
    return [one.url for one in references(content)]


def kinds(content: bytes) -> list[tuple[str, Kind]]:
    return [(one.url, one.kind) for one in references(content)]


@pytest.mark.parametrize(
    "content",
    [
        b'import "./a.js"',
        b'import"./a.js";',
        b"import x from './a.js'",
        b'import x, {y} from "./a.js"',
        b'import*as m from "./a.js";',
        b'import {\n  a as b,\n  $c as d\n} from "./a.js";',
        b'import {readHotReloadableExport } from "./a.js"',
        b'import x from "./a.js" with {type: "json"};',
        b'import x from "./a.js" assert {type: "json"};',
        b'export * from "./a.js"; // export from',
        b'export * as x from "./a.js"',
        b'export {a as b, readHotReloadableExport } from "./a.js"',
        b'export {a} from "./a.js" with {type: "json"};',
        b'export {a} from "./a.js" assert {type: "json"};',
        b'var x=1;export{a}from"./a.js"with{type:"json"};var y',
        b'import("./a.js")',
        b'const m = await import(/* webpackChunkName: "x" */ "./a.js");',
        b'import/**/("./a.js", {with: {type: "json"}})',
        b"import(`./a.js`)",
        b'x = `${import("./a.js")} import("./no.js")`',
        b'const q=/\'/;import("./a.js").then(m=>m.f("it\'s"));',
        b'const q=/[/"]/g, d = 4 / 2 / 1;import("./a.js")',
        b'if (x) { f(() => { return import("./a.js") }) }',
        b'\xef\xbb\xbfimport "./a.js"',
        b'#!/usr/bin/env node\nimport "./a.js"',
        b'/* \xe9 */ f("\xe9"); import "./a.js"',
        b'new Worker(new URL("./a.js", import.meta.url), {type: "module"})',
        b'new SharedWorker(new URL("./a.js", import.meta.url))',
    ],
)
def test_imports(content):
    assert kinds(content) == [("./a.js", Kind.IMPORT)]


@pytest.mark.parametrize(
    "content",
    [
        b'new URL("./a.png", import.meta.url)',
        b"new URL(`./a.png`, import.meta.url).href",
        b'new URL(/* @vite-ignore */ "./a.png", /**/ import.meta.url)',
        b'f(new URL("./a.png", import.meta.url))',
        b'"" + new URL("./a.png", import.meta.url)',
        b'import.meta.resolve("./a.png")',
    ],
)
def test_urls(content):
    assert kinds(content) == [("./a.png", Kind.URL)]


def test_a_url_is_no_modules_name():
    assert urls(b'new URL("a.png", import.meta.url)') == ["a.png"]
    assert urls(b'new Worker(new URL("a.js", import.meta.url))') == ["a.js"]


@pytest.mark.parametrize(
    "content",
    [
        b'import "vue"; import x from "@scope/x"; export * from "#own"; import("lib/x.js")',
        b'import.meta.resolve("vue")',
        b'import "https://x.example/a.js"; import("data:text/javascript,1")',
        b'// import "./a.js"\n/* import("./a.js") */',
        b'f("import \'./a.js\'", `import("./a.js")`, /import("\\.\\/a.js")/)',
        b'import(name); import(`./${name}.js`); import("./" + name); import(); import',
        b'x.import("./a.js"); x = {import: "./a.js", import ("./a.js") {}}; importer("./a.js")',
        b'new Worker("./a.js"); new SharedWorker("./a.js"); fetch("./a.js")',
        b'navigator.serviceWorker.register("./a.js")',
        b'navigator.serviceWorker.register(new URL("./a.js", import.meta.url))',
        b'new URL("./a.png", document.baseURI); new URL("./a.png"); new URL(x, import.meta.url)',
        b'new URL(import.meta.url, import.meta.url, "a"); new URL(import.meta.url)',
        b'new Thing("./a.png", import.meta.url); f("./a.png", import.meta.url); new URL',
        b'import.meta; import.meta.env.X; import.meta.other("./a.js"); x = import.meta.resolve',
        b'import.meta.url; import.meta.resolve(); import.meta["resolve"]("./a.js")',
        b'export const a = "./a.js"; export default from; export {b}',
        b'import ".\\057a.js"; import ".\\0/a.js"; import "./\\ud83d.js"; import "./\\u{110000}"',
        b'import "./\\u{d800}"; import "./\\xzz.js"',
    ],
)
def test_what_is_none(content):
    assert references(content) == []


@pytest.mark.parametrize(
    ("literal", "expected"),
    [
        (rb'"\x2e/a.js"', "./a.js"),
        (rb'"\u002e/a.js"', "./a.js"),
        (rb"'\u{2e}/a.js'", "./a.js"),
        (rb"'\u{00002e}/\'\"\a.js'", "./'\"a.js"),
        (b'"./a\\\n.js"', "./a.js"),
        (rb'"./\ud83d\ude00.js"', "./\U0001f600.js"),
        (rb'"./\t.js"', "./\t.js"),
        (b'"./\xc3\xa9\xe9.js"', "./é\udce9.js"),
    ],
)
def test_escapes(literal, expected):
    (found,) = references(b"import " + literal)
    assert (found.url, found.start, found.end) == (expected, 8, 6 + len(literal))


# --- workers that are no modules


def test_imported_scripts_are_links():
    content = b'importScripts("a.js", `./b.js`, name); self.importScripts("/static/c.js")'
    assert kinds(content) == [
        ("a.js", Kind.LINK),
        ("./b.js", Kind.LINK),
        ("/static/c.js", Kind.LINK),
    ]
    assert references(content, module=True) == []
    assert references(content, module=False) == references(content)


@pytest.mark.parametrize(
    "content",
    [
        b"\"importScripts('a.js')\"",
        b"importScripts(); x.y = importScripts",
        b"function importScripts(a) {} class A { importScripts(b) {} }",
        b'// importScripts("a.js")',
    ],
)
def test_no_imported_scripts(content):
    assert references(content) == []


# --- source maps


@pytest.mark.parametrize(
    "comment",
    [
        b"//# sourceMappingURL=a.js.map",
        b"//@ sourceMappingURL=a.js.map",
        b"//# sourceMappingURL=a.js.map\t \n",
        b"//# sourceMappingURL=a.js.map\r\n",
        b"/*# sourceMappingURL=a.js.map */",
    ],
)
def test_source_maps(comment):
    (found,) = references(b"f();\n" + comment)
    assert (found.url, found.kind, found.line) == ("a.js.map", Kind.SOURCE_MAP, 2)
    assert found.syntax == (Syntax.COMMENT,)


def test_the_last_source_map_in_a_comment_counts():
    content = b"//# sourceMappingURL=a.map\nf();\n//# sourceMappingURL=b.map\n"
    assert urls(content + b'f("\\\n//# sourceMappingURL=c.map\\\n")') == ["b.map"]


@pytest.mark.parametrize(
    "content",
    [
        b'f("//# sourceMappingURL=a.map");',
        b"`\n//# sourceMappingURL=a.map\n`",
        b"//# sOuRcEMaPpInGURL=a.map",
        b"//# sourceMappingURL=a b.map",
        b"// //# sourceMappingURL=a.map",
        b"const mark = 'sourceMappingURL=';",
    ],
)
def test_no_source_map(content):
    assert references(content) == []


def test_the_map_of_monacos_marked():
    content = b"export const marked = 1;\n//# sourceMappingURL=marked.umd.js.map\n"
    (found,) = references(content)
    assert (found.kind, found.line) == (Kind.SOURCE_MAP, 2)


# --- broken files


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'const a = 1 +; import "./a.js"; export {b} from "./b.js"', ["./a.js", "./b.js"]),
        (b'@@ import "./a.js"', ["./a.js"]),
        (b'}}} import "./a.js"; import("./b.js"); function(', ["./a.js", "./b.js"]),
        (b'import defer * as x from "./a.js"', ["./a.js"]),
        (b'import a from "./a.js"\nfoo(((\nimport "./b.js"\n', ["./a.js"]),
        (b'foo((( import("./b.js") ]]', []),
        (b'export {a} from "./a.js" function', []),
        (b'import "./a.js', []),
        (b'import("./a.js', []),
        (b'foo(((\nfoo(((\n}}}}; import("./a.js")]]; ]] ]]', []),
    ],
)
def test_what_can_be_made_out_is_taken(content, expected):
    assert urls(content) == expected


@pytest.mark.parametrize(
    ("content", "hidden"),
    [
        (b'import a from "./a.js"\nfoo(((\nimport "./b.js"\n', "./b.js"),
        (b'foo((( import("./b.js") ]]', "./b.js"),
        (b'foo((( import(/* a comment */ // and one\n"./b.js") ]]', "./b.js"),
        (b'export {a} from "./a.js" function', "./a.js"),
        (b'import "./a.js', "./a.js"),
        (b'import("/a.js', "/a.js"),
        (b'foo((( new URL("a.png", import.meta.url) ]]', "a.png"),
        (b'foo((( importScripts("a.js"); import.x ]]', "a.js"),
    ],
)
def test_what_may_be_hidden_is_told(content, hidden):
    (damage,) = read(content).damage
    assert content[damage.at :].decode().startswith(hidden)
    assert damage.start <= damage.at < damage.end
    assert all(one.url != hidden for one in read(content).references)


@pytest.mark.parametrize(
    "content",
    [
        b'import "./a.js"; let a = 1;',
        b'let a = ;\nimport "./a.js"',
        # What the grammar does not know yet, and hides nothing.
        b'class A { accessor x = 1 }\nimport "./a.js"',
        b'import defer * as a from "./a.js"; import source b from "./b.wasm"',
        b'import a, { b as "c d" } from "./a.js"',
        b'export {a} from "./a.json" with {type: "json"}; import "./b.js"',
        b'import a from "./a.json" assert {type: "json"}',
        # None of these is a file of ours.
        b'foo((( import("vue"); new URL("https://example.org/a.png") ]]',
    ],
)
def test_other_mistakes_are_not(content):
    assert read(content).damage == ()


def test_deep_files():
    content = b"(function(){" * 3000 + b'import("./a.js")' + b"})()" * 3000
    assert urls(content) == ["./a.js"]


def test_wide_characters_are_not_read():
    assert references("import './a.js'".encode("utf-16")) == []


@pytest.mark.parametrize("module", ["tree_sitter", "tree_sitter_javascript"])
def test_without_the_parser(monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    javascript._language.cache_clear()
    assert references(b"f()") == []
    with pytest.raises(MissingExtra, match=r"outgrow\[publish\]"):
        references(b'import "./a.js"')


@pytest.mark.parametrize(
    "content",
    [
        b"f()",
        b"important()",
        b"exports.fromage = 1",
        b"const exported = from",
        b"export const a = 1",
    ],
)
def test_what_has_not_the_words_is_not_parsed(monkeypatch, content):
    monkeypatch.setitem(sys.modules, "tree_sitter", None)
    javascript._language.cache_clear()
    assert references(content) == []


# --- Django's own cases (tests/staticfiles_tests/project)


def test_what_django_finds():
    content = b"""const a = "module2"; export default a; export const b = "module";
// export keyword test
import c from "/static/absolute_root.js";
import*as d from "./module_test.js";
import*  as  e from "./module_test.js";
import {
    f as g,
    $second_var_2 as h
} from "./module_test.js";
import i from "../nested/js/nested.js";
const j = import("./module_test.js");
export * from "./module_test.js";  // export keyword test
"""
    names = [resolve(one.url, "cached/module.js") for one in references(content)]
    assert [one.name for one in names if one] == [
        "absolute_root.js",
        *["cached/module_test.js"] * 3,
        "nested/js/nested.js",
        *["cached/module_test.js"] * 2,
    ]
    assert [one.line for one in references(content)] == [3, 4, 5, 9, 10, 11, 12]


# --- anything


@given(
    st.binary()
    | st.lists(
        st.sampled_from(
            [
                b"import",
                b"export",
                b"from",
                b"(",
                b")",
                b"{",
                b"}",
                b'"',
                b"'",
                b"`",
                b"${",
                b"/",
                b"*",
                b"//#",
                b" sourceMappingURL=",
                b"\n",
                b"a",
                b"./a",
                b".meta",
                b".url",
                b"new URL",
                b",",
                b"importScripts",
                b"\\",
                b"\\u",
                b"\xff",
                b"\0",
                b";",
                b" ",
            ]
        )
    ).map(b"".join)
)
def test_nothing_raises_and_nothing_changes(content):
    found = references(content)
    assert replace(content, [(one, one.url) for one in found]) == content
    assert all(0 <= one.start <= one.end <= len(content) for one in found)


URLS = st.text(st.characters(exclude_categories=["Cs"])).map("./".__add__)
OTHERS = st.sampled_from(
    [
        b'// import "./no.js"',
        b"/* import('./no.js') */",
        b"f(\"import './no.js'\");",
        b"x = `import('./no.js') ${ y } '`;",
        b"x = /'import(\"/g;",
        b"x = y / z / 2;",
        b"x = /[/'\"`]/;",
        b"if (x) { y() }",
        b'import "bare";',
        b'f("\\"");',
        b"x = '\\'';",
        b"export const a = 1;",
        b"// \xff",
        b"class A { b = 'import' }",
        b"x = `\\``;",
        b"new Worker('./no.js');",
    ]
)
FORMS = st.sampled_from(
    [
        (b'import "', b"./x", b'";'),
        (b"import {a} from '", b"./x", b"';"),
        (b'export * from "', b"./x", b'";'),
        (b'export {a} from "', b"./x", b'" with {type: "json"};'),
        (b'f(import("', b"./x", b'"));'),
        (b"import(`", b"./x", b"`);"),
        (b"x = `${import('", b"./x", b"')}`;"),
        (b'x = new URL("', b"./x", b'", import.meta.url);'),
    ]
)


@given(st.lists(OTHERS | st.tuples(FORMS, URLS, URLS), max_size=10))
def test_references_are_found_and_replaced_and_nothing_else(parts):
    nothing_else_changes(references, parts, b"\n")
