"""Static files in a bucket: collectstatic again and again, with and without hashes in names."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.staticfiles.storage import ManifestFilesMixin, staticfiles_storage
from django.core.management import call_command
from django.test import override_settings

from outgrow.objects import ObjectStorage
from tests.live.engines import Engine
from tests.live.faults import Fault, FaultyProxy, Request

URL = "https://static.example.org/site/"
FILES = {
    "css/site.css": b'@import "more.css"; body { background: url("../img/back.png") }',
    "css/more.css": b"p { color: red }",
    "img/back.png": b"\x89PNG picture",
    "page.html": b"<p>hello</p>",
    "site.js": b"let a = 1",
}


class ManifestObjectStorage(ManifestFilesMixin, ObjectStorage):
    """As docs/howto/object-stores.md has it."""


HASH = re.compile(r"\.[0-9a-f]{12}\.")


def kept_for(name: str) -> dict[str, str]:
    """As docs/howto/object-stores.md has it."""
    if HASH.search(name):
        return {"Cache-Control": "max-age=31536000, immutable"}
    return {"Cache-Control": "no-cache" if name.endswith(".json") else "max-age=300"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "source"


class Counting(FaultyProxy):
    """Breaks nothing, and remembers what was written."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint)
        self.written: list[str] = []

    def _take(self, request: Request) -> Fault:
        if request.method == "PUT":
            self.written.append(request.target)
        return super()._take(request)


@pytest.fixture
def store(engine: Engine) -> Iterator[Counting]:
    """The way to the engine."""
    with Counting(engine.endpoint) as proxy:
        yield proxy


@pytest.fixture
def collect(
    engine: Engine, bucket: str, store: Counting, source: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[[], list[str]]]:
    """Runs collectstatic; gives what changed the bucket."""
    backend = getattr(request, "param", "outgrow.objects.ObjectStorage")
    options: dict[str, Any] = engine.options(f"{bucket}/site")
    options |= {"endpoint": store.url, "overwrite": True, "base_url": URL, "headers": kept_for}

    def run() -> list[str]:
        store.steps.clear()
        store.written.clear()
        call_command("collectstatic", interactive=False, stdout=io.StringIO())
        return sorted(step for step in store.steps if step in {"PUT", "POST", "DELETE", "begin"})

    with override_settings(
        STORAGES={"staticfiles": {"BACKEND": backend, "OPTIONS": options}},
        STATIC_URL=URL,
        STATICFILES_DIRS=[source],
        STATICFILES_FINDERS=["django.contrib.staticfiles.finders.FileSystemFinder"],
    ):
        yield run


def change(path: Path, content: bytes) -> None:
    """A new text, that is newer than what lies in the bucket, whatever its clock says."""
    path.write_bytes(content)
    os.utime(path, (4e9, 4e9))


def headers_of(engine: Engine, bucket: str, key: str) -> tuple[str, str]:
    found = engine.client().head_object(Bucket=bucket, Key=key)
    return found["ContentType"], found["CacheControl"]


def test_the_second_run_sends_nothing_that_has_not_changed(
    engine: Engine, bucket: str, source: Path, collect: Callable[[], list[str]]
) -> None:
    assert collect() == ["PUT"] * len(FILES)
    assert engine.held(bucket) == {f"site/{name}": text for name, text in FILES.items()}
    assert collect() == []
    change(source / "site.js", b"let a = 2")
    assert collect() == ["POST", "PUT"]  # deleted, with a POST; and written again
    assert engine.held(bucket)["site/site.js"] == b"let a = 2"


def test_each_kind_has_its_headers(
    engine: Engine, bucket: str, collect: Callable[[], list[str]]
) -> None:
    collect()
    kinds = {name: headers_of(engine, bucket, f"site/{name}")[0] for name in FILES}
    assert kinds == {
        "css/site.css": "text/css; charset=utf-8",
        "css/more.css": "text/css; charset=utf-8",
        "img/back.png": "image/png",
        "page.html": "text/html; charset=utf-8",
        "site.js": "text/javascript; charset=utf-8",
    }
    assert headers_of(engine, bucket, "site/site.js")[1] == "max-age=300"
    assert staticfiles_storage.url("css/site.css") == f"{URL}css/site.css"


manifest = pytest.mark.parametrize(
    "collect", [f"{__name__}.ManifestObjectStorage"], indirect=True, ids=["manifest"]
)


@manifest
def test_with_a_manifest_names_are_hashed_and_css_refers_to_them(
    engine: Engine, bucket: str, collect: Callable[[], list[str]]
) -> None:
    collect()
    held = engine.held(bucket)
    paths = json.loads(held["site/staticfiles.json"])["paths"]
    assert paths.keys() == FILES.keys()
    assert all(HASH.search(name) for name in paths.values())
    assert {f"site/{name}" for name in [*FILES, *paths.values()]} <= held.keys()
    sheet = held[f"site/{paths['css/site.css']}"].decode()
    assert paths["css/more.css"].rpartition("/")[2] in sheet
    assert paths["img/back.png"].rpartition("/")[2] in sheet
    for name in FILES:
        assert headers_of(engine, bucket, f"site/{paths[name]}") == (
            headers_of(engine, bucket, f"site/{name}")[0],
            "max-age=31536000, immutable",
        )
    assert headers_of(engine, bucket, "site/staticfiles.json")[1] == "no-cache"
    # A process that begins now reads the manifest from the bucket.
    again = ManifestObjectStorage(**staticfiles_storage._options)
    assert again.url("css/site.css") == URL + paths["css/site.css"]


@manifest
def test_with_a_manifest_the_second_run_sends_only_what_django_rewrites(
    engine: Engine,
    bucket: str,
    source: Path,
    store: Counting,
    collect: Callable[[], list[str]],
) -> None:
    collect()
    before = engine.held(bucket)
    changed = collect()
    # Django writes what it rewrites, again and again; all else stays.
    assert engine.held(bucket) == before
    assert "PUT" in changed
    written_again = {Path(one).suffix for one in store.written}
    assert written_again == {".css", ".js", ".json"}  # not the picture, nor the page
    written = ManifestObjectStorage(**staticfiles_storage._options)
    old = written.url("site.js")
    change(source / "site.js", b"let a = 2")
    collect()
    new = ManifestObjectStorage(**staticfiles_storage._options).url("site.js")
    held = engine.held(bucket)
    assert new != old
    assert held[new.replace(URL, "site/")] == b"let a = 2"
    # A page that was made before still finds its script.
    assert held[old.replace(URL, "site/")] == b"let a = 1"
