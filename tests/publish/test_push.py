"""A release at a target: what is there, what is sent, and what is left by a kill (P1 and P2)."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from outgrow.errors import (
    AnotherPublication,
    BadReferences,
    NoAccess,
    NoBucket,
    PublishError,
    SourceChanged,
)
from outgrow.names import token
from outgrow.publish import survey
from outgrow.publish.build import Settings
from outgrow.publish.encodings import Encoding
from outgrow.publish.policy import FOREVER, Policy, Rule
from outgrow.publish.push import Publisher, publish_together, serve_again
from outgrow.publish.targets import FolderTarget, StoreTarget, Target
from tests.live.engines import Engine
from tests.live.faults import FaultyProxy, hand_on, refuse
from tests.publish.sites import FILES, SETTINGS, built, publish, target_of, write
from tests.publish.subjects import Place, folder_place, store_place

REFERENCE = re.compile(rb"""url\(["']?([^"')?#]+)|@import "([^"]+)"|import "([^"]+)\"""")


def plain(key: str) -> str:
    """A key without its stamp."""
    return re.sub(r"\.[0-9a-f]{12}(?=\.)", "", key)


def looked_up(base: str, url: str) -> str:
    parts = base.split("/")[:-1]
    for part in url.split("/"):
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def references(key: str, content: bytes) -> list[str]:
    found = (next(filter(None, one.groups())).decode() for one in REFERENCE.finditer(content))
    return [looked_up(key, url) for url in found]


def decoded(content: bytes) -> bytes:
    """A store holds one form; what it is, its first bytes tell."""
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


def broken(place: Place, *pages: str) -> list[str]:
    """What files refer to and is not there; with `pages`: what a visitor of these misses."""
    files = place.files()
    found, waiting, seen = [], list(pages or files), set()
    while waiting:
        key = waiting.pop()
        if key in seen or not key.endswith((".css", ".js")):
            continue
        seen.add(key)
        for wanted in references(key, decoded(files[key])):
            if wanted in files:
                waiting.append(wanted)
            else:
                found.append(f"{key} -> {wanted}")
    return found


def test_what_is_there(place: Place, source: Path) -> None:
    report = publish(place.target(), source)
    assert (report.has_moved, report.deleted, report.skipped) == (True, 0, 0)
    files = place.files()
    whole = [key for key in files if not key.endswith((".gz", ".br", ".zst"))]
    assert sorted(map(plain, whole)) == sorted(FILES)
    assert "site.css" in files
    assert broken(place) == []
    [picture] = [key for key in files if key.startswith("img/")]
    assert files[picture] == FILES["img/back.png"]
    page = decoded(files["site.css"]).decode()
    assert f"url({picture})" in page
    [base] = [key for key in whole if key.startswith("css/")]
    assert f"../{picture}?x#y" in decoded(files[base]).decode()
    [script] = [key for key in whole if key.startswith("js/app")]
    [part] = [key for key in whole if key.startswith("js/part")]
    assert f'"./{part.removeprefix("js/")}"' in decoded(files[script]).decode()


def test_headers_in_a_store(engine: Engine, source: Path) -> None:
    with store_place(engine) as place:
        rules = (Rule(("img/**",), {"x-amz-meta-origin": "ours", "Cache-Control": "max-age=9"}),)
        settings = Settings(Policy(rules=rules, keep=("site.css",)))
        publish(place.target(), source, settings=settings)
        client = engine.client()
        bucket = place.described.split("s3://")[1].split("/")[0]
        heads = {
            plain(key): client.head_object(Bucket=bucket, Key=f"static/{key}")
            for key in place.files()
        }
        script, picture, page = heads["js/app.js"], heads["img/back.png"], heads["site.css"]
        assert script["ContentType"] == "text/javascript; charset=utf-8"
        assert script["ContentEncoding"] == "gzip"
        assert script["CacheControl"] == FOREVER
        assert script["ResponseMetadata"]["HTTPHeaders"]["expires"].startswith("Thu, 31 Dec 2037")
        assert (picture["CacheControl"], picture["Metadata"]) == ("max-age=9", {"origin": "ours"})
        assert "ContentEncoding" not in picture
        assert page["CacheControl"] == "no-cache"
        # A change of headers alone is published, too.
        settings = Settings(Policy(keep=("site.css",)))
        report = publish(place.target(), source, settings=settings)
        assert report.sent == 1
        [key] = [key for key in place.files() if key.startswith("img/")]
        head = client.head_object(Bucket=bucket, Key=f"static/{key}")
        assert (head["CacheControl"], head["Metadata"]) == (FOREVER, {})


def test_another_encoding_is_another_key(engine: Engine, source: Path) -> None:
    with store_place(engine) as place:
        publish(place.target(), source)
        before = set(place.files())
        brotli = Settings(SETTINGS.policy, encoding=Encoding.BROTLI)
        publish(place.target(), source, settings=brotli)
        after = set(place.files())
        assert before < after
        changed = {plain(key) for key in after - before}
        assert changed == {"css/base.css", "js/app.js"}  # the others are too small


def test_a_bucket_that_is_not_there(swift: Engine, source: Path) -> None:
    options = swift.options(f"outgrow-{token()}")
    with pytest.raises(NoBucket):
        publish(StoreTarget(**options), source)
    report = publish(StoreTarget(**options, auto_create_bucket=True), source)
    assert report.has_moved
    assert not publish(StoreTarget(**options), source).has_moved


def test_unchanged_nothing_is_written(place: Place, source: Path) -> None:
    publish(place.target(), source)
    before = place.held()
    report = publish(place.target(), source)
    assert (report.sent, report.has_moved, report.deleted) == (0, False, 0)
    assert report.skipped > 0
    assert place.held() == before


def through(place: Place, engine: Engine, proxy: FaultyProxy) -> Target:
    """The same target, by way of a proxy."""
    return target_of(place.described.replace(engine.endpoint, proxy.url))


def test_the_requests_are_counted_at_the_engine(engine: Engine, source: Path) -> None:
    """Promise P2."""
    with store_place(engine) as place, FaultyProxy(engine.endpoint) as proxy:
        target = through(place, engine, proxy)
        report = publish(target, source)
        # The record, the pointer, and each file once; a look before and after.
        assert proxy.steps.count("PUT") == report.sent + 2
        assert len(proxy.steps) <= report.sent + 6, proxy.steps
        proxy.steps.clear()
        publish(target, source)
        # Which release is served, its pointer, and one listing.
        assert proxy.steps == ["GET"] * 3
        # However many releases there are: what they have sent is of no concern to new files.
        for number in range(4):
            proxy.steps.clear()
            report = publish(target, write(source, versioned(number)))
            assert proxy.steps.count("PUT") == report.sent + 2
            assert len(proxy.steps) <= report.sent + report.deleted + 8, proxy.steps


def test_only_what_has_changed_is_sent(place: Place, source: Path) -> None:
    publish(place.target(), source)
    before = place.files()
    write(source, {**FILES, "img/back.png": b"\x89PNG another picture"})
    told: list[str] = []
    publish(place.target(), source, told=lambda key, _size: told.append(key))
    names = {plain(key) for key in told if not key.startswith("outgrow-publish/")}
    # The picture, and the two sheets that name it; not the scripts.
    assert {
        name.removesuffix(".gz").removesuffix(".br").removesuffix(".zst") for name in names
    } == {
        "img/back.png",
        "css/base.css",
        "site.css",
    }
    after = place.files()
    gone = [key for key in before if key not in after and not key.startswith("site.css")]
    assert gone == []
    assert broken(place) == []
    unchanged = [key for key in before if not key.startswith("site.css")]
    assert all(after[key] == before[key] for key in unchanged)


def test_a_page_that_is_gone_is_deleted(place: Place, source: Path) -> None:
    settings = Settings(Policy(keep=("site.css", "other.css")))
    write(source, {**FILES, "other.css": b"p { color: blue }" * 40})
    publish(place.target(), source, settings=settings)
    assert "other.css" in place.files()
    write(source, FILES)
    report = publish(place.target(), source, settings=settings)
    assert report.deleted >= 1
    assert not [key for key in place.files() if key.startswith("other.css")]


def test_foreign_files_are_left_alone(place: Place, source: Path) -> None:
    from django.core.files.base import ContentFile

    from outgrow.publish.forms import Form
    from outgrow.publish.release import Entry

    entry = Entry("mine.txt", "mine.txt", "", 4, "identity", ())
    place.target().write(Form("mine.txt", entry, Encoding.IDENTITY, ()), ContentFile(b"mine"))
    publish(place.target(), source)
    publish(place.target(), write(source, {**FILES, "js/part.js": b"let b = 2;"}))
    assert place.files()["mine.txt"] == b"mine"


def test_a_wrong_reference_stops_before_anything_is_sent(place: Place, source: Path) -> None:
    write(source, {**FILES, "js/app.js": b'\nimport "./prat.js";\n'})
    with pytest.raises(BadReferences, match=r"js/app\.js:2: .* Did you mean js/part\.js\?"):
        publish(place.target(), source)
    assert place.held() == {}


def test_a_file_that_changes_meanwhile(place: Place, source: Path) -> None:
    build = built(source)
    release = build.release
    (source / "img/back.png").write_bytes(b"\x89PNG pictur3")
    with pytest.raises(SourceChanged, match=r"back\.png changed while it was being published"):
        Publisher(place.target(), release, build).publish()
    assert "site.css" not in place.files()
    assert not [key for key in place.files() if key.startswith("img/")]


def test_rolling_back(place: Place, source: Path) -> None:
    first = publish(place.target(), source).release
    old = place.files()
    write(source, {**FILES, "img/back.png": b"\x89PNG another picture"})
    second = publish(place.target(), source).release
    assert place.files()["site.css"] != old["site.css"]
    report = serve_again(place.target(), first)
    assert (report.release, report.has_moved) == (first, True)
    now = place.files()
    assert {key: now[key] for key in old} == old
    pointer = survey.pointer(place.target())
    assert (pointer.id, [one.id for one in pointer.former]) == (first, [second])
    # And forward again, by the sources.
    assert publish(place.target(), source).release == second
    assert broken(place) == []


@pytest.mark.parametrize("way", ["rollback", "sources"])
def test_going_back_sends_pages_alone(place: Place, source: Path, way: str) -> None:
    """The assets of a release that was served are there: the ledger says so, and the listing."""
    first = publish(place.target(), source).release
    write(source, {**FILES, "img/back.png": b"\x89PNG another picture"})
    publish(place.target(), source)
    told: list[str] = []
    write(source, FILES)
    if way == "rollback":
        report = serve_again(place.target(), first, told=lambda key, _size: told.append(key))
    else:
        report = publish(place.target(), source, told=lambda key, _size: told.append(key))
    assert (report.release, report.has_moved) == (first, True)
    assert {key.removesuffix(".gz").removesuffix(".br").removesuffix(".zst") for key in told} == {
        "site.css"
    }
    assert broken(place) == []


def test_going_back_puts_the_headers_back(engine: Engine, source: Path) -> None:
    """Of a file whose headers alone a later release has changed, and that the last has not."""
    rule = Rule(("img/**",), {"Content-Disposition": "attachment"})
    other = Settings(Policy((rule,), keep=("site.css",)))
    with engine.bucket() as bucket:
        target = StoreTarget(**engine.options(bucket))
        publish(target, source)
        publish(target, source, settings=other)
        key = built(source).release.entries["img/back.png"].key

        def disposition() -> str | None:
            head = engine.client().head_object(Bucket=bucket, Key=key)
            return head.get("ContentDisposition")

        assert disposition() == "attachment"
        files = {name: content for name, content in FILES.items() if name.startswith("js/")}
        write(source, {**files, "site.css": b"p {}"})
        publish(target, source)
        write(source, FILES)
        publish(target, source)
        assert disposition() is None


def test_rolling_back_to_what_is_not_whole(place: Place, source: Path) -> None:
    first = publish(place.target(), source).release
    write(source, {**FILES, "img/back.png": b"\x89PNG another picture"})
    publish(place.target(), source)
    before = place.files()
    lost = [key for key in before if plain(key) == "img/back.png"]
    write(source, FILES)
    old = built(source).release.entries["img/back.png"].key
    assert old in lost
    place.target().delete([old])
    with pytest.raises(PublishError, match=rf"{re.escape(old)} is not there"):
        serve_again(place.target(), first)
    after = place.files()
    assert after == {key: content for key, content in before.items() if key != old}
    with pytest.raises(PublishError, match="has no release 123"):
        serve_again(place.target(), "123")


def test_two_publishers_at_once(place: Place, source: Path, tmp_path: Path) -> None:
    """Each of two reads the pointer before the other moves it: one is told."""
    publish(place.target(), source)
    (tmp_path / "other").mkdir()
    other = write(tmp_path / "other", {**FILES, "img/back.png": b"\x89PNG his"})
    write(source, {**FILES, "img/back.png": b"\x89PNG mine"})
    build = built(source)
    publisher = Publisher(place.target(), build.release, build)
    seen = publisher._begin()
    publish(place.target(), other)
    publisher._begin = lambda: seen  # type: ignore[method-assign]
    page = place.files()["site.css"]
    with pytest.raises(AnotherPublication, match="at the same time"):
        publisher.publish()
    assert broken(place) == []
    # He was seen before a page was sent.
    assert place.files()["site.css"] == page
    assert survey.pointer(place.target()).id == built(other).release.id
    assert publish(place.target(), source).has_moved


def test_no_target_has_a_page_before_all_have_its_assets(tmp_path: Path, source: Path) -> None:
    """Promise P1, where the pages of one target name files of another, as behind one balancer."""
    build, sent = built(source), []
    publishers = [
        Publisher(
            FolderTarget(tmp_path / name, ()),
            build.release,
            build,
            told=lambda key, _size, name=name: sent.append((key == "site.css", name)),
        )
        for name in ("one", "other")
    ]
    assert [one.has_moved for one in publish_together(publishers)] == [True, True]
    assert sent == sorted(sent, key=lambda pair: pair[0])  # pages are last, of both
    assert {name for is_page, name in sent if is_page} == {"one", "other"}


def test_two_publishers_at_the_last_moment(place: Place, source: Path, tmp_path: Path) -> None:
    """The other one moves the pointer after this one has looked for him."""
    publish(place.target(), source)
    (tmp_path / "other").mkdir()
    other = write(tmp_path / "other", {**FILES, "js/part.js": b"export const answer = 43;\n"})
    write(source, {**FILES, "js/part.js": b"export const answer = 44;\n"})

    class Late:
        """A target at which somebody else publishes right before the pointer moves."""

        def __getattr__(self, name: str) -> object:
            return getattr(place.target(), name)

        def create(self, key: str, content: bytes) -> bool:
            publish(place.target(), other)
            return place.target().create(key, content)

    with pytest.raises(AnotherPublication, match="publish again"):
        publish(Late(), source)  # type: ignore[arg-type]
    assert survey.pointer(place.target()).id == built(other).release.id
    assert publish(place.target(), source).has_moved
    assert broken(place) == []


# --- kills


def child(place: Place, source: Path, step: int, *words: str) -> int:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.publish.children", place.described),
            *(str(source), str(step), *(words or ("publish",))),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode in {0, -9}, done.stderr
    return done.returncode


class Visitor(threading.Thread):
    """Asks for the page, and for all that it refers to, again and again."""

    def __init__(self, place: Place) -> None:
        super().__init__(daemon=True)
        self._target = place.target()
        self._ended = threading.Event()
        self.pages = 0
        self.problems: list[str] = []

    def run(self) -> None:
        while not self._ended.is_set():
            self._visit()
            time.sleep(0.001)

    def _get(self, key: str) -> bytes | None:
        found = self._target.read(key)
        return found if found is None else decoded(found)

    def _visit(self) -> None:
        page = self._get("site.css")
        if page is None:
            if self.pages:
                self.problems.append("the page is missing")
            return
        self.pages += 1
        version = re.search(rb"version (\d+)", page)
        waiting = [(one, page) for one in references("site.css", page)]
        while waiting:
            key, by = waiting.pop()
            content = self._get(key)
            if content is None:
                self.problems.append(f"{key} is missing, which {by[:60]!r} refers to")
                continue
            mine = re.search(rb"version (\d+)", content)
            if version is None or mine is None or mine[1] != version[1]:
                self.problems.append(f"{key} is of another version")
            if key.endswith(".css"):
                waiting += [(one, content) for one in references(key, content)]

    def end(self) -> None:
        self._ended.set()
        self.join(60)


def versioned(number: int) -> dict[str, bytes]:
    """A site all of whose files change together: a mixture is seen."""
    mark = f"/* version {number} */".encode()
    return {
        "site.css": mark + FILES["site.css"],
        "css/base.css": mark + FILES["css/base.css"],
        "img/back.png": FILES["img/back.png"] + mark,
    }


@pytest.mark.parametrize("place", ["folder", "swift"], indirect=True)
@pytest.mark.drill
@pytest.mark.timeout(600)
def test_visitors_miss_nothing_while_publishers_are_killed(place: Place, source: Path) -> None:
    """Promise P1: 50 publications, each killed at a step of its own, and taken up again."""
    visitor = Visitor(place)
    publish(place.target(), write(source, versioned(0)))
    visitor.start()
    kills = 0
    for number in range(1, 51):
        write(source, versioned(number))
        kills += child(place, source, number % 37 + 1) == -9
        if number % 2:  # the other half is left as it is, for the next release to find
            publish(place.target(), source)
    visitor.end()
    assert visitor.problems == []
    assert visitor.pages > 20
    assert kills > 30
    # Of a release that was begun and left, a sheet may be there before its picture: no page
    # names it.
    assert broken(place, "site.css") == []


def test_a_kill_at_each_step_is_made_good_by_publishing_again(tmp_path: Path, source: Path) -> None:
    write(source, versioned(0))
    with folder_place(tmp_path / "whole") as whole:
        publish(whole.target(), source)
        publish(whole.target(), write(source, versioned(1)))
        wanted = whole.files()
    for step in range(1, 200):
        with folder_place(tmp_path / f"target{step}") as place:
            publish(place.target(), write(source, versioned(0)))
            write(source, versioned(1))
            if child(place, source, step) == 0:
                assert step > 20
                return
            assert broken(place, "site.css") == []
            told: list[str] = []
            sent = set(place.files())
            publish(place.target(), source, told=lambda key, _, told=told: told.append(key))
            # Nothing twice: an asset that was there is not sent again.
            assert {key for key in told if plain(key) != key} & sent == set()
            assert place.files() == wanted
    raise AssertionError("it never ended")


def test_a_store_that_fails_in_the_middle(engine_named: Any, source: Path) -> None:
    """Wrong credentials in the middle, a full store: told, nothing broken, and taken up again."""
    engine = engine_named("swift")

    with store_place(engine) as place, FaultyProxy(engine.endpoint) as proxy:
        target = through(place, engine, proxy)
        publish(target, source)
        page = place.files()["site.css"]
        files = {f"img/{number}.png": b"\x89PNG %d" % number for number in range(40)}
        write(source, {**FILES, "img/back.png": b"\x89PNG another picture", **files})
        proxy.break_at("PUT", hand_on, times=9)
        proxy.break_at("PUT", refuse(403, "InvalidAccessKeyId"), times=1000)
        with pytest.raises(NoAccess, match="access key"):
            publish(target, source)
        assert place.files()["site.css"] == page
        assert broken(place, "site.css") == []
        sent = set(place.files())
        proxy.mend()
        proxy.break_at("PUT", refuse(507, "InsufficientStorage"), times=1)
        told: list[str] = []
        publish(target, source, told=lambda key, _size: told.append(key))
        assert {key for key in told if plain(key) != key} & sent == set()
        assert broken(place) == []
