"""What is known of a content, and that the cache gives it back as it was."""

from __future__ import annotations

import pytest

from outgrow.publish.facts import TYPES, Facts, dumped, loaded, read
from outgrow.publish.references import Kind

SCRIPT = b'import "./a.js";\nload("img/b.png");\n'
DAMAGED = b'f(((\nimport "./a.js";\n'
PAGE = b'<script src="a.js" integrity="sha384-AAAA"></script><img src="b.png">'


def test_a_sheet() -> None:
    found = read(b"p { background: url(a.png) }", "text/css")
    assert [(one.url, one.kind) for one in found.references] == [("a.png", Kind.URL)]
    assert (found.mentions, found.damage) == ((), "")
    assert found.integrity.startswith("sha384-")


def test_a_script_and_what_it_mentions() -> None:
    found = read(SCRIPT, "text/javascript")
    assert [one.url for one in found.references] == ["./a.js"]
    assert found.mentions == ((2, "img/b.png"),)


def test_where_the_parser_gives_up() -> None:
    told = read(DAMAGED, "text/javascript").damage
    assert told.startswith("2:")
    assert "can't make out this script from line 1" in told
    assert "more such places" not in told
    page = b"<script type=module>" + DAMAGED + b"</script>"
    assert "There are 1 more such places." in read(page * 2, "text/html").damage


@pytest.mark.parametrize(
    ("content", "kind"),
    [(SCRIPT, "text/javascript"), (DAMAGED, "text/javascript"), (PAGE, "text/html")],
)
def test_the_cache_gives_back_the_same(content: bytes, kind: str) -> None:
    found = read(content, kind)
    assert loaded(dumped(found)) == found
    assert kind in TYPES


def test_nothing_is_kept_as_nothing() -> None:
    assert loaded(dumped(Facts())) == Facts()
