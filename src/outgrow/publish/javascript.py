r"""References in JavaScript: imports, exports from, `new URL(..., import.meta.url)`, source maps.

JavaScript is read by a parser (tree-sitter): where a regular expression or a template ends
can't be told by patterns. Its tree is not walked in Python: imports and exports of the top
level are queried there, and for all else the tree is asked what stands at the places where
the word `import` does.

The laws:

1. What is no literal string (or template without substitutions) is no reference: what a program
   puts together is known when it runs.
2. What is relative to the page is left alone: `new Worker("a.js")`, `register("sw.js")` of
   service workers, `fetch`. A service worker must keep its name, so its `new URL` is left, too.
3. Names of packages (`vue`) are left alone: an import map says what they are.
4. What the parser could not make out (below its nodes ERROR) is left alone. It goes on behind
   that, mostly with the next statement, and what it finds there is taken. Where something looks
   like a reference in what was left alone, that is told (`Damage`): it may be a mistake, or newer
   than the grammar. Other errors are not told: most are new syntax that hides no reference.

`importScripts("a.js")` is relative to the script of the worker, and no file says that it is that
script and not one that is imported by it. So it is taken for a link: followed where the file
is there, and no mistake where it is not.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Final

from outgrow.errors import MissingExtra
from outgrow.publish.references import (
    Damage,
    Found,
    Kind,
    Lines,
    Reference,
    Syntax,
    is_bare,
    readable,
    text,
)

if TYPE_CHECKING:
    from tree_sitter import Language, Node, Query

#: No file without one of these words has a reference. `import` and `export` are keywords, in
#: which no character may be escaped (ECMA-262 §12.7.2), and an export refers by `from`.
_IMPORT: Final = re.compile(rb"\bimport\b")
_EXPORT: Final = re.compile(rb"\bexport\b")
_FROM: Final = re.compile(rb"\bfrom\b")
_SCRIPTS: Final = re.compile(rb"\bimportScripts(?=\s*\()")

#: `import` where it is no statement; a comment may follow.
_EXPRESSION: Final = re.compile(rb"\bimport(?=\s*[(./])")

#: https://tc39.es/ecma426/#sec-MatchSourceMapURL
_MAP: Final = re.compile(
    rb"//[#@][ \t]*sourceMappingURL=(\S+)[ \t]*(?=[\r\n]|\Z)"
    rb"|/\*[#@]\s*sourceMappingURL=(\S+?)\s*\*/"
)

#: Static imports, and exports of what another module has; they stand at the top level.
_STATEMENTS: Final = """
(import_statement source: (string) @source)
(export_statement source: (string) @source)
(ERROR "from" source: (string) @attributed)
"""
_ATTRIBUTES: Final = re.compile(rb"\s*(?:with|assert)\s*\{")

_ESCAPED: Final = re.compile(
    r"\\(?:u(?P<high>[dD][89abAB][0-9a-fA-F]{2})\\u(?P<low>[dD][c-fC-F][0-9a-fA-F]{2})"
    r"|x(?P<two>[0-9a-fA-F]{2})|u(?P<four>[0-9a-fA-F]{4})|u\{(?P<any>[0-9a-fA-F]+)\}"
    r"|(?P<line>\r\n|[\n\r\u2028\u2029])|(?P<itself>[^xu0-9])|)",
    re.DOTALL,
)
_CONTROLS: Final = dict(zip("bfnrtv", "\b\f\n\r\t\v", strict=True))

#: What looks like a reference to a file, in text that is no tree: its URL begins where this ends.
_GAP: Final = rb"(?:\s|/\*(?:[^*]|\*(?!/))*+\*/|//[^\n]*\n)*+"
_LIKELY: Final = re.compile(
    rb"\b(?:(?:from|import)" + _GAP + rb"\(?" + _GAP + rb"[\"'`](?=\.{0,2}/)"
    rb"|(?:URL|importScripts)" + _GAP + rb"\(" + _GAP + rb"[\"'`](?![A-Za-z][\w+.-]*:))"
)

#: Where a URL is, what for, and whether it is a module's specifier, which may be bare.
_Span = tuple[int, int, Kind, bool]


def references(content: bytes, *, module: bool | None = None) -> list[Reference]:
    """The references in a script, in order; see `read`."""
    return read(content, module=module).references


def read(content: bytes, *, module: bool | None = None) -> Found:
    """The references in a script, in order, and where some may be hidden (law 4).

    Of source maps it is the last one, which counts.

    `module` says whether it is one, if that is known: modules have no `importScripts`. Raises
    `MissingExtra` when the parser is not installed, and a reference might be there.
    """
    if not readable(content) or not _may_refer(content):
        return Found([])
    root = _parsed(content)
    errors = _Errors(root)
    spans = sorted(_spans(root, content, errors, module=module))
    lines = Lines(content)
    found = []
    for start, end, kind, is_specifier in spans:
        syntax = Syntax.COMMENT if kind is Kind.SOURCE_MAP else Syntax.SCRIPT_STRING
        url = _meaning(content[start:end], syntax)
        if url is not None and not (is_specifier and is_bare(url)):
            found.append(Reference(start, end, url, lines.at(start), kind, (syntax,)))
    return Found(found, tuple(errors.hiding(content, {span[0] for span in spans})))


def _may_refer(content: bytes) -> bool:
    """Whether any of the words is there that a reference needs; if not, nothing is parsed."""
    if b"sourceMappingURL=" in content:
        return True
    # To look for plain bytes first is 20 times faster than a pattern that begins with \b.
    if b"import" in content and (_IMPORT.search(content) or _SCRIPTS.search(content)):
        return True
    if b"export" not in content or b"from" not in content:
        return False
    return bool(_EXPORT.search(content) and _FROM.search(content))


def _spans(root: Node, content: bytes, errors: _Errors, *, module: bool | None) -> Iterator[_Span]:
    """Everything that could be made out, in any order."""
    spans = [*_maps(root, content), *_expressions(root, content)]
    if not module:
        spans += _scripts(root, content)
    statements = _captured(root, _STATEMENTS, depth=1)
    for node in statements["source"]:
        spans += _literal(node, Kind.IMPORT, is_specifier=True)
    yield from (span for span in spans if span[0] not in errors)
    # `export {a} from "./a.json" with {type: "json"}` is an error to the grammar, up to `with`.
    for node in statements["attributed"]:
        if _ATTRIBUTES.match(content, node.end_byte):
            yield from _literal(node, Kind.IMPORT, is_specifier=True)


def _expressions(root: Node, content: bytes) -> Iterator[_Span]:
    """What `import` begins inside of expressions."""
    for match in _EXPRESSION.finditer(content):
        parent = _at(root, match, "import")
        while parent and parent.type == "import":  # the keyword, and the function
            parent = parent.parent
        if parent is None:
            continue
        if parent.type == "call_expression":
            yield from _first(_arguments(parent), Kind.IMPORT, is_specifier=True)
        elif parent.type == "meta_property":
            yield from _meta(parent)


def _meta(meta: Node) -> Iterator[_Span]:
    """`import.meta.resolve("./a.js")`, and the URL of `new URL("a.png", import.meta.url)`."""
    member = meta.parent
    name = member.child_by_field_name("property") if member else None
    parent = member.parent if member else None
    if name is None or parent is None:
        return
    if name.text == b"resolve" and parent.type == "call_expression":
        yield from _first(_arguments(parent), Kind.URL, is_specifier=True)
    if name.text != b"url" or parent.type != "arguments":
        return
    call = parent.parent
    values = _values(parent)
    if call is None or len(values) != 2 or values[1] != member or _name(call) != b"URL":
        return
    user = call.parent.parent if call.parent and call.parent.type == "arguments" else None
    user_name = _name(user) if user else b""
    if user_name.endswith(b"serviceWorker.register"):
        return  # law 2
    kind = Kind.IMPORT if user_name in {b"Worker", b"SharedWorker"} else Kind.URL
    yield from _first(values, kind)


def _scripts(root: Node, content: bytes) -> Iterator[_Span]:
    """`importScripts("a.js", "b.js")`, and `self.importScripts`."""
    for match in _SCRIPTS.finditer(content):
        name = _at(root, match, "identifier", "property_identifier")
        function = name.parent if name and name.type == "property_identifier" else name
        call = function.parent if function else None
        if call is not None and call.type == "call_expression":
            for value in _arguments(call):
                yield from _literal(value, Kind.LINK)


def _maps(root: Node, content: bytes) -> Iterator[_Span]:
    """The last source map that stands in a comment."""
    for match in reversed(list(_MAP.finditer(content))):
        node = root.descendant_for_byte_range(match.start(), match.start() + 2)
        if node and node.type == "comment" and node.start_byte == match.start():
            yield *match.span(match.lastindex or 0), Kind.SOURCE_MAP, False
            return


# --- nodes


def _at(root: Node, match: re.Match[bytes], *types: str) -> Node | None:
    """The node that is exactly what matches, if it is of one of these types: no comment, say."""
    node = root.descendant_for_byte_range(*match.span())
    if node is None or node.type not in types or node.byte_range != match.span():
        return None
    return node


def _name(call: Node) -> bytes:
    """What is called, or made with `new`, as it is written."""
    field = "constructor" if call.type == "new_expression" else "function"
    node = call.child_by_field_name(field)
    return (node.text or b"") if node else b""


def _arguments(call: Node) -> list[Node]:
    arguments = call.child_by_field_name("arguments")
    return _values(arguments) if arguments else []


def _values(arguments: Node) -> list[Node]:
    """The arguments without comments."""
    return [node for node in arguments.named_children if node.type != "comment"]


def _first(values: list[Node], kind: Kind, *, is_specifier: bool = False) -> Iterator[_Span]:
    if values:
        yield from _literal(values[0], kind, is_specifier=is_specifier)


def _literal(node: Node, kind: Kind, *, is_specifier: bool = False) -> Iterator[_Span]:
    """What is between the quotes of a string, if it is a whole one and nothing is put into it."""
    if node.type not in {"string", "template_string"} or node.has_error:
        return
    if any(child.type == "template_substitution" for child in node.named_children):
        return
    yield node.start_byte + 1, node.end_byte - 1, kind, is_specifier


class _Errors:
    """Where the parser could make nothing out (law 4): the outermost of its nodes ERROR."""

    def __init__(self, root: Node) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        nodes = _captured(root, "(ERROR) @error")["error"] if root.has_error else []
        for start, end in sorted(node.byte_range for node in nodes):
            if not self._ends or start >= self._ends[-1]:
                self._starts.append(start)
                self._ends.append(end)

    def __contains__(self, offset: int) -> bool:
        index = bisect_right(self._starts, offset) - 1
        return index >= 0 and offset < self._ends[index]

    def hiding(self, content: bytes, known: set[int]) -> Iterator[Damage]:
        """Those in which something looks like a reference that is not known, by its offset."""
        for start, end in zip(self._starts, self._ends, strict=True):
            likely = (match.end() for match in _LIKELY.finditer(content, start, end))
            at = next((one for one in likely if one not in known), None)
            if at is not None:
                yield Damage(start, end, at)


# --- what a string means


def _meaning(raw: bytes, syntax: Syntax) -> str | None:
    """The URL, its escapes undone; None where they can't be."""
    url = text(raw)
    if syntax is Syntax.COMMENT or "\\" not in url:
        return url
    try:
        return _ESCAPED.sub(_unescaped, url)
    except ValueError:
        return None


def _unescaped(match: re.Match[str]) -> str:
    r"""ECMA-262 §12.9.4.1. Raises `ValueError` for what is no character, and for `\0` to `\7`."""
    if match["high"]:
        pair = bytes.fromhex(match["high"] + match["low"])
        return pair.decode("utf-16-be")
    if match["line"]:
        return ""
    if match["itself"]:
        return _CONTROLS.get(match["itself"], match["itself"])
    code = int(match["two"] or match["four"] or match["any"] or "-1", 16)
    if 0xD800 <= code < 0xE000:
        raise ValueError("half a pair")
    return chr(code)


# --- the parser


def _parsed(content: bytes) -> Node:
    """The root of the tree. A parser is made for each file: it may be used by one thread only."""
    language = _language()  # first: it says what is missing
    from tree_sitter import Parser

    return Parser(language).parse(content).root_node


def _captured(root: Node, query: str, depth: int | None = None) -> Mapping[str, list[Node]]:
    """The nodes that a query finds, by the names that it gives them; none for any other name.

    With `depth`, what begins at most so many levels below the root.
    """
    from tree_sitter import QueryCursor

    cursor = QueryCursor(_query(query))
    if depth is not None:
        cursor.set_max_start_depth(depth)
    return defaultdict(list, cursor.captures(root))


@cache
def _query(source: str) -> Query:
    from tree_sitter import Query

    return Query(_language(), source)


@cache
def _language() -> Language:
    try:
        import tree_sitter_javascript
        from tree_sitter import Language
    except ImportError as error:
        raise MissingExtra("Publishing JavaScript", "tree-sitter", "publish") from error
    return Language(tree_sitter_javascript.language())
