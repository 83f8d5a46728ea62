"""The example site with its uploads in a real object store, as a visitor sees it."""

from __future__ import annotations

import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from outgrow.errors import MissingExtra
from outgrow.topology.load import load
from tests.live.chromium import Page, running_chromium
from tests.live.processes import missing
from tests.topology.test_local import Run

EXAMPLE = Path(__file__).parents[2] / "examples" / "photos"

TOPOLOGY = """
[site]
name = "photos"
settings = "photos.settings"
wsgi = "photos.wsgi:application"
domains = ["photos.example.org"]
media_root = "var/media"

[database]
engine = "sqlite"
name = "var/photos.sqlite3"

[objects]
bucket = "photos"
prefix = "uploads"

[servers.app1]
roles = ["app"]
address = "10.0.0.11"

[servers.db1]
roles = ["primary"]
address = "10.0.0.21"

[servers.store]
roles = ["objects"]
address = "s3.example.org"
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Run]:
    folder = tmp_path / "photos"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("var", "__pycache__"))
    (folder / "topology.toml").write_text(TOPOLOGY)
    (folder / "var").mkdir()
    described = load(folder / "topology.toml")
    try:
        Run(described, tmp_path / "run").local.prepare(dry_run=True)
    except MissingExtra as error:
        missing(str(error), "pip install swift")
    run = Run(described, tmp_path / "run")
    with run.local:
        yield run


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return int(error.code)


SHOWN = "Array.from(document.images).filter((one) => one.complete && one.naturalWidth > 0).length"


def album(page: Page, home: str) -> None:
    """Make one, and open it."""
    page.go(home)
    page.run("document.querySelector('[name=title]').value = 'Summer'")
    page.click("form.card button")
    page.wait("location.pathname !== '/' && document.querySelector('[name=images]') !== null")


def test_private_photographs_are_shown_by_signed_urls(site: Run, tmp_path: Path) -> None:
    with running_chromium() as browser:
        page = browser.page()
        album(page, site.local.address("app1"))
        chosen = [EXAMPLE / "sample_photos" / f"{name}.jpg" for name in ("coffee", "rocket")]
        page.choose("[name=images]", *chosen)
        page.click("form.card button")
        # Each was decoded by the browser, from the store.
        page.wait(f"{SHOWN} === 2")
        page.picture(tmp_path / "album.png")
        images = page.run("Array.from(document.images).map((one) => one.src)")
        files = page.run("Array.from(document.querySelectorAll('.photos li > a')).map(a => a.href)")

        store = site.local.address("store")
        for url in [*images, *files]:
            assert url.startswith(f"{store}/photos/uploads/")
            assert "X-Amz-Signature=" in url
            assert status(url) == 200
            # They are private: nobody reads them without the signature, or with another.
            assert status(url.partition("?")[0]) in {400, 403}
            assert status(url[:-1] + ("0" if url[-1] != "0" else "1")) == 403

        page.run("window.confirm = () => true")
        page.click(".photos li form button")
        page.wait(f"{SHOWN} === 1 && document.images.length === 1")
        (left,) = page.run("Array.from(document.images).map((one) => one.src)")
        before = {url.partition("?")[0] for url in images}
        (gone,) = before - {left.partition("?")[0]}
        assert [status(url) for url in images if url.startswith(gone)] == [404]
