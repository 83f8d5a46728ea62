"""Subresource Integrity: which values a browser believes; and pages that hold some."""

from __future__ import annotations

import base64
import hashlib
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgrow.errors import BadReferences
from outgrow.publish import integrity
from outgrow.publish.build import Settings
from outgrow.publish.cache import Cache
from outgrow.publish.policy import Policy
from tests.publish.test_build import build, contents, keys

CONTENT = b"let answer = 42;"
RIGHT = {
    name: f"{name}-{base64.b64encode(hashlib.new(name, CONTENT).digest()).decode()}"
    for name in ("sha256", "sha384", "sha512")
}
WRONG = {name: f"{name}-{'A' * len(value.partition('-')[2])}" for name, value in RIGHT.items()}


def refuses(value: str) -> bool:
    return integrity.refuses(value, io.BytesIO(CONTENT))


@pytest.mark.parametrize(
    "value",
    [
        *RIGHT.values(),
        f"  {RIGHT['sha256']}\n",
        RIGHT["sha256"].rstrip("="),
        RIGHT["sha512"].replace("+", "-").replace("/", "_"),
        f"{RIGHT['sha384']}?a-hint",
        f"{WRONG['sha384']} {RIGHT['sha384']}",  # one of them is enough
        f"{WRONG['sha256']} {RIGHT['sha512']}",  # the strongest counts
        "",
        "md5-AAAA",
        "nonsense",
        "sha384-",
    ],
)
def test_what_browsers_take(value: str) -> None:
    assert not refuses(value)


@pytest.mark.parametrize(
    "value",
    [*WRONG.values(), f"{RIGHT['sha256']} {WRONG['sha384']}", "sha256-AAAA", "sha256-A"],
)
def test_what_they_refuse(value: str) -> None:
    assert refuses(value)
    assert integrity.is_known(value)


@given(st.binary())
def test_ours_is_taken(content: bytes) -> None:
    value = integrity.of(content)
    assert integrity.is_known(value)
    assert not integrity.refuses(value, io.BytesIO(content))
    assert integrity.refuses(value, io.BytesIO(content + b"x"))


# --- pages


def of(content: bytes, name: str = "sha512") -> bytes:
    return f"{name}-{base64.b64encode(hashlib.new(name, content).digest()).decode()}".encode()


SCRIPT = b'import "./part.js"; document.title = "it runs";'
SHEET = b"body { background: url(back.png); color: rgb(1, 2, 3) }"
MODULE = b'import "./part.js"; document.body.id = "mapped";'
SITE = {
    "part.js": b"let part = 1;",
    "back.png": b"\x89PNG",
    "plain.js": b"document.body.className = 'plain';",
    "app.js": SCRIPT,
    "site.css": SHEET,
    "module.js": MODULE,
    "index.html": b"<link rel=stylesheet href=site.css integrity=%b>\n"
    % of(SHEET)
    + b"<script type=importmap>{"
    b'"imports": {"m": "./module.js"}, "integrity": {"./module.js": "%b"}}</script>\n'
    % of(MODULE)
    + b"<body><script type=module src=app.js integrity='%b'></script>\n" % of(SCRIPT, "sha256")
    + b"<script src=plain.js integrity=%b></script>\n" % of(CONTENT)
    + b"<script type=module>import 'm'</script>",
}
SITE["index.html"] = SITE["index.html"].replace(of(CONTENT), of(SITE["plain.js"]))


def test_files_that_are_rewritten_get_their_new_digest(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    for _ in range(2):
        made = build(tmp_path / "s", SITE, cache=cache)
        entries, found = made.release.entries, contents(made)
        page = found["index.html"].decode()
        for name in ("app.js", "site.css", "module.js"):
            assert found[name] != SITE[name]
            assert entries[name].integrity.encode() == of(found[name], "sha384")
            value = entries[name].integrity.replace("=", "&#61;") if "css" in name else None
            assert page.count(value or entries[name].integrity) == 1
        # What stays as it is keeps what is said of it.
        assert found["plain.js"] == SITE["plain.js"]
        assert page.count(of(SITE["plain.js"]).decode()) == 1
        assert page.count("sha512-") == 1


def test_a_digest_of_a_file_that_keeps_its_name(tmp_path: Path) -> None:
    """It is needed before the page is made, though its name is known."""
    files = {
        "a.png": b"png",
        "zz.js": b'new URL("a.png", import.meta.url)',
        "index.html": b"",
        "aa.html": b"<a href=aa.html></a><a href=index.html>",
    }
    for page in ("index.html", "aa.html"):
        files[page] += b'<script type=module src=zz.js integrity="%b">' % of(files["zz.js"])
    made = build(tmp_path / "s", files, Settings(Policy(keep=("zz.js",))))
    value = made.release.entries["zz.js"].integrity.replace("=", "&#61;").encode()
    found = contents(made)
    assert keys(made.release)["zz.js"] == "zz.js"
    assert found["zz.js"] != files["zz.js"]
    assert value in found["index.html"]
    assert value in found["aa.html"]


def test_a_digest_that_was_wrong_before(tmp_path: Path) -> None:
    """Browsers refuse the file already: to write a right one would hide what has happened."""
    files = {**SITE, "app.js": SCRIPT + b" // somebody was here"}
    with pytest.raises(BadReferences, match=r"index\.html:3: the integrity is not that of app\.js"):
        _ = build(tmp_path / "s", files).release
    made = build(tmp_path / "s", files, Settings(Policy(may_miss_in=("index.html",))))
    assert made.release
    assert "index.html:3: the integrity is not that of app.js" in made.warnings[0]


def test_a_digest_that_would_depend_on_itself(tmp_path: Path) -> None:
    """A page under a stamp, and a script that names it: neither can be made first."""
    script = b'fetch(new URL("part.tpl", import.meta.url))'
    files = {
        "app.js": script,
        "part.tpl": b'\n<script type=module src=app.js integrity="%b">' % of(script),
    }
    made = Settings(Policy(types={".tpl": "text/html"}))
    with pytest.raises(
        BadReferences, match=r"part\.tpl:2: the integrity of app\.js can't be written, for that"
    ):
        _ = build(tmp_path / "s", files, made).release
