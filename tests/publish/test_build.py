"""Files become a release: names, contents, circles, and what is wrong with references."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outgrow.errors import BadReferences, BadSources, PublishError, SourceChanged
from outgrow.publish.build import Build, Settings
from outgrow.publish.cache import Cache
from outgrow.publish.encodings import Encoding
from outgrow.publish.forms import Form, Shape
from outgrow.publish.policy import Policy
from outgrow.publish.release import Entry, Kind, Release
from outgrow.publish.scan import scan
from tests.publish.sites import write

KEY = re.compile(r"\.[0-9a-f]{12}(?=\.)")


def build(
    folder: Path, files: dict[str, bytes], made: Settings | None = None, **more: object
) -> Build:
    folder.mkdir(exist_ok=True)
    write(folder, files)
    return Build(scan([("", folder)]), made or Settings(), **more)  # type: ignore[arg-type]


def contents(made: Build) -> dict[str, bytes]:
    """By logical names: what visitors get."""
    found = {}
    for entry in made.release:
        *_, form = Shape(()).forms(entry)
        with made.open(form) as file:
            found[entry.name] = b"".join(file.chunks())
    return found


def keys(release: Release) -> dict[str, str]:
    return {entry.name: entry.key for entry in release}


def test_references_get_the_final_names(tmp_path: Path) -> None:
    made = build(
        tmp_path / "s",
        {
            "css/a.css": b'p{background:url("../img/x.png?#a")}'
            b" q{background:url(/static/img/x.png)}"
            b" r{background:url(https://example.org/y.png) url(data:,) url(#z) url(/other/x.png)}",
            "img/x.png": b"png",
            "js/a.js": b'import "./b.js"; import "vue";'
            b' new Worker(new URL("b.js", import.meta.url))',
            "js/b.js": b"let b",
        },
    )
    names, found = keys(made.release), contents(made)
    assert {KEY.sub("", key) for key in names.values()} == set(names)
    image = names["img/x.png"]
    assert found["css/a.css"].decode() == (
        f'p{{background:url("../{image}?#a")}} q{{background:url(/static/{image})}}'
        " r{background:url(https://example.org/y.png) url(data:,) url(#z) url(/other/x.png)}"
    )
    script = names["js/b.js"].removeprefix("js/")
    assert found["js/a.js"].decode() == (
        f'import "./{script}"; import "vue"; new Worker(new URL("{script}", import.meta.url))'
    )
    assert found["img/x.png"] == b"png"


def test_digests_sizes_and_integrity_are_those_of_what_is_sent(tmp_path: Path) -> None:
    files = {
        "a.css": b"@import 'b.css';",
        "b.css": b"p {}" * 100,
        "x.bin": b"\0" * 10,
        "e.css": b"",
    }
    made = build(tmp_path / "s", files)
    for name, content in contents(made).items():
        entry = made.release.entries[name]
        assert entry.digest == hashlib.sha256(content).hexdigest()
        assert entry.size == len(content)
        value = base64.b64encode(hashlib.sha384(content).digest()).decode()
        assert entry.integrity == ("" if name == "x.bin" else f"sha384-{value}")


def test_the_same_release_from_anywhere(tmp_path: Path) -> None:
    files = {
        f"{name}.css": b"@import '%s.css';" % other for name, other in (("a", b"b"), ("b", b"c"))
    }
    files["c.css"] = b"p {}"
    one = build(tmp_path / "one", files).release
    for name in files:
        os.utime(tmp_path / "one" / name, (0, 0))
    other = build(tmp_path / "two", dict(reversed(files.items())), workers=3).release
    assert one == other
    assert one.id == other.id
    cache = Cache(tmp_path / "cache")
    for _ in range(2):
        assert build(tmp_path / "one", files, cache=cache).release.id == one.id
    assert cache.hits == 3


def test_circles(tmp_path: Path) -> None:
    files = {
        "a.js": b'import "./b.js"; import "./leaf.js"',
        "b.js": b'import "./c.js"',
        "c.js": b'import "./a.js"',
        "self.js": b'import "./self.js"',
        "top.js": b'import "./a.js"',
        "leaf.js": b"let a",
    }
    made = build(tmp_path / "s", files)
    names, found = keys(made.release), contents(made)
    marks = {name: names[name].split(".")[1] for name in "a.js b.js c.js self.js".split()}
    assert len({marks[name] for name in ("a.js", "b.js", "c.js")}) == 1
    assert marks["self.js"] != marks["a.js"]
    for name, content in found.items():
        for wanted in re.findall(rb'"\./([^"]+)"', content):
            assert wanted.decode() in names.values(), name
    # A change of any of them, or of what they need, is a change of all in the circle.
    before = names
    after = keys(build(tmp_path / "s", {**files, "leaf.js": b"let b"}).release)
    assert {name for name in names if before[name] != after[name]} == set(files) - {"self.js"}


graphs = st.dictionaries(
    st.sampled_from("abcdef"), st.sets(st.sampled_from("abcdef"), max_size=3), min_size=1
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(graphs, st.data())
def test_a_change_changes_the_names_of_what_refers_to_it_and_of_nothing_else(
    tmp_path: Path, graph: dict[str, set[str]], data: st.DataObject
) -> None:
    edges = {name: {one for one in targets if one in graph} for name, targets in graph.items()}
    files = {
        f"{name}.js": b"".join(b'import "./%s.js";' % one.encode() for one in sorted(targets))
        for name, targets in edges.items()
    }
    before = keys(build(tmp_path / "s", files).release)
    changed = data.draw(st.sampled_from(sorted(edges)))
    after = keys(
        build(tmp_path / "s", {**files, f"{changed}.js": files[f"{changed}.js"] + b";"}).release
    )
    reaching = {changed}
    while True:
        more = {name for name, targets in edges.items() if targets & reaching} | reaching
        if more == reaching:
            break
        reaching = more
    assert {name for name in before if before[name] != after[name]} == {
        f"{one}.js" for one in reaching
    }


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"a.js": b'\n\nimport "./b"', "b.js": b""},
            "a.js:3: the import './b' means b, which is not there. There is b.js: browsers add",
        ),
        ({"a.js": b'import "./lib"', "lib/index.js": b""}, "There is lib/index.js"),
        ({"a.css": b"a{b:url(x/y.png)}", "img/y.png": b""}, "Did you mean img/y.png?"),
        ({"a.css": b"a{b:url(imgs.png)}", "img.png": b""}, "Did you mean img.png?"),
        ({"a.css": b"@import 'nothing.css'"}, "means nothing.css, which is not there."),
        ({"index.html": b"<img src=x.png>"}, "index.html:1: the url 'x.png' means x.png"),
    ],
)
def test_references_that_lead_nowhere(tmp_path: Path, files: dict[str, bytes], said: str) -> None:
    with pytest.raises(BadReferences) as raised:
        _ = build(tmp_path / "s", files).release
    assert said in str(raised.value)


def test_what_may_be_missing(tmp_path: Path) -> None:
    files = {
        "a.js": b"f()\n//# sourceMappingURL=a.js.map",
        "a.css": b"/*# sourceMappingURL=a.css.map */",
        "index.html": b"<a href=nowhere.html>",
    }
    made = build(tmp_path / "s", files)
    assert len(made.release) == 3
    assert sorted(line.partition(": ")[0] for line in made.warnings) == ["a.css:1", "a.js:2"]
    assert contents(made) == files
    files = {"vendor/a.css": b"a{b:url(no.png)}"}
    made = build(tmp_path / "v", files, Settings(Policy(may_miss_in=("vendor/**",))))
    assert contents(made) == files
    assert "vendor/a.css:1" in made.warnings[0]


def test_names_that_a_program_puts_together_are_told(tmp_path: Path) -> None:
    files = {
        "assets/index-Dqik_SaB.js": b'm=["./late-CO2EGa-r.css"];import("./late-dVVSEgoc.js")',
        "assets/late-CO2EGa-r.css": b"a{}",
        "assets/late-dVVSEgoc.js": b"let a='/static/assets/late-CO2EGa-r.css'",
        "index.html": b"<script type=module src=./assets/index-Dqik_SaB.js></script>",
    }
    cache = Cache(tmp_path / "cache")
    for _ in "12":  # the second time it is known
        made = build(tmp_path / "s", files, cache=cache)
        assert len(made.release) == 4
        first, second = sorted(made.warnings)
        assert first.startswith("assets/index-Dqik_SaB.js:1: the text './late-CO2EGa-r.css' ")
        assert second.startswith("assets/late-dVVSEgoc.js:1: the text '/static/assets/")
    for kept in (Policy(immutable=("assets/**",)), Policy(keep=("assets/*.css",))):
        made = build(tmp_path / "s", files, Settings(kept), cache=cache)
        assert made.release
        assert made.warnings == []
    made = build(tmp_path / "s", files, Settings(Policy(may_miss_in=("assets/**",))))
    assert made.release
    assert made.warnings == []
    made = build(tmp_path / "s", files, Settings(stamps=False))
    assert made.release
    assert made.warnings == []


def test_names_that_stay(tmp_path: Path) -> None:
    files = {
        "index.html": b"<script type=module src=app-1a2b3c4d.js></script>"
        b'<a href="other.html">x</a>',
        "other.html": b'<a href="index.html">x</a>',
        "app-1a2b3c4d.js": b"let a",
    }
    made = build(tmp_path / "s", files, Settings(Policy(immutable=("app-*.js",))))
    assert {entry.name: (entry.key, entry.kind) for entry in made.release} == {
        "app-1a2b3c4d.js": ("app-1a2b3c4d.js", Kind.ASSET),
        "index.html": ("index.html", Kind.PAGE),
        "other.html": ("other.html", Kind.PAGE),
    }
    assert contents(made) == files


def test_without_stamps_nothing_is_changed(tmp_path: Path) -> None:
    files = {"a.css": b"a{b:url(no.png)}" * 40, "index.html": b"<p>"}
    made = build(tmp_path / "s", files, Settings(stamps=False))
    assert {entry.kind for entry in made.release} == {Kind.PLAIN}
    assert contents(made) == files


def test_wide_characters(tmp_path: Path) -> None:
    files = {"a.css": "a{b:url(no.png)}".encode("utf-16")}
    made = build(tmp_path / "s", files)
    assert contents(made) == files
    assert "UTF-16" in made.warnings[0]


def test_scripts_with_mistakes_are_told(tmp_path: Path) -> None:
    """Published as they are; from the cache it is told again."""
    files = {
        "a.js": b"let ok = 1;\nlet b = '\xc3\xa4'; f(((\n\nimport('./gone.js')\n]] }}",
        "in.html": b"<script>g((( import('./x.js') ]]</script><script>h((( import('./y.js')",
        "newer.js": b"class A { accessor x = 1 }\nimport './ok.js'",
        "ok.js": b"",
    }
    cache = Cache(tmp_path / "cache")
    for _ in range(2):
        made = build(tmp_path / "s", files, cache=cache)
        assert contents(made)["a.js"] == files["a.js"]
        script, page = sorted(made.warnings)
        assert script.startswith("a.js:4:9: what looks like a reference was left as it is")
        assert "from line 2 to line 5" in script
        assert "There are" not in script
        assert page.startswith("in.html:1:")
        assert page.endswith("There are 1 more such places.")


def test_the_encoding_of_a_store(tmp_path: Path) -> None:
    files = {"a.css": b"p { color: red }" * 40, "a.png": b"x" * 999, "s.css": b"p {}"}
    made = build(tmp_path / "s", files, Settings(encoding=Encoding.BROTLI))
    assert {one.name: one.encoding for one in made.release} == {
        "a.css": "br",
        "a.png": "identity",
        "s.css": "identity",
    }
    [form] = Shape().forms(made.release.entries["a.css"])
    import brotli

    with made.open(form) as file:
        assert brotli.decompress(file.read()) == files["a.css"]


def test_a_file_that_changes_in_between(tmp_path: Path) -> None:
    files = {"a.css": b"a{b:url(x.png)}", "x.png": b"png"}
    made = build(tmp_path / "s", files)
    assert made.release
    (tmp_path / "s/x.png").write_bytes(b"pnG")
    (tmp_path / "s/a.css").write_bytes(b"a{b:url(x.pnG)}")
    for entry in made.release:
        [form] = Shape(()).forms(entry)
        with pytest.raises(SourceChanged, match="changed while it was being published"):
            with made.open(form) as file:
                list(file.chunks())
    shutil.rmtree(tmp_path / "s")
    for entry in made.release:
        [form] = Shape(()).forms(entry)
        with pytest.raises((SourceChanged, FileNotFoundError)):
            made.open(form)


def test_a_file_that_goes_away_before_it_is_read(tmp_path: Path) -> None:
    made = build(tmp_path / "s", {"a.css": b"", "b.css": b""})
    (tmp_path / "s/a.css").unlink()
    with pytest.raises(BadSources, match=r"a\.css can't be read: No such file"):
        _ = made.release


def test_what_is_not_among_them(tmp_path: Path) -> None:
    made = build(tmp_path / "s", {"a.css": b""})
    other = Entry("b.css", "b.css", "0" * 64, 0, "identity", ())
    with pytest.raises(PublishError, match="is not among these files"):
        made.open(Form("b.css", other, Encoding.IDENTITY, ()))


LARGE = """
import sys
from django.conf import settings
settings.configure()
from outgrow.publish.build import Build, Settings
from outgrow.publish.forms import Shape
from outgrow.publish.scan import scan
build = Build(scan([("", sys.argv[1])]), Settings())
for entry in build.release:
    for form in Shape().forms(entry):
        with build.open(form) as file:
            print(sum(map(len, file.chunks())))
with open("/proc/self/status") as file:
    print(next(line for line in file if line.startswith("VmHWM")).split()[1])
"""


def test_a_large_file_is_never_in_memory(tmp_path: Path) -> None:
    peaks = []
    for number, megabytes in enumerate((1, 300)):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in ("a.mp4", "b.js"):  # above 64 MiB a script is sent as it is
            with (folder / name).open("wb") as file:
                file.truncate(megabytes << 20)
        done = subprocess.run(
            [sys.executable, "-c", LARGE, str(folder)], capture_output=True, text=True, check=True
        )
        *sizes, peak = map(int, done.stdout.split())
        assert sizes[0] == megabytes << 20
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 40_000  # kilobytes
