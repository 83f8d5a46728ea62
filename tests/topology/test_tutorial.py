"""The tutorial is followed: its commands run, its output compared, its sites looked at."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from outgrow.errors import MissingExtra, TopologyError
from outgrow.topology.load import load
from outgrow.topology.local import LocalSite
from tests.live.chromium import Page, running_chromium
from tests.live.processes import missing, server_folder
from tests.test_docs import check

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/tutorial/from-one-to-many.md").read_text()
EXAMPLE = ROOT / "examples/photos"

#: A command with what it prints, up to the next command.
COMMAND = re.compile(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
STEPS = ("single", "database", "media", "redundant", "big")
SHOWN = "Array.from(document.images).filter((one) => one.complete && one.naturalWidth > 0).length"


def commands() -> Iterator[tuple[list[str], str]]:
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL):
        for line, printed in COMMAND.findall(block):
            yield shlex.split(line), printed


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with server_folder("outgrow-tutorial-") as place:
        copy = place / "photos"
        shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("var", "__pycache__"))
        for words, _ in commands():
            if words[:2] == ["outgrow", "new"]:
                outgrow(words, copy)
        yield copy


def outgrow(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    # 1 says that something is to be done (`plan`, `render --diff`).
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    assert "Error" not in done.stderr
    return done


def test_its_commands_are_ours() -> None:
    found = [words for words, _ in commands() if words[0] == "outgrow"]
    assert [words[2] for words in found if words[1] == "up"] == [f"{one}.toml" for one in STEPS]
    for words in found:
        check(words)


def test_what_is_printed_is_what_the_page_says(folder: Path) -> None:
    for words, printed in commands():
        if words[0] != "outgrow" or words[1] in {"new", "up"}:
            continue
        done = outgrow(words, folder)
        assert done.stderr == ""
        if printed:
            assert done.stdout == printed
        if words[1] == "plan":
            assert done.returncode == 1
            assert re.search(r"^ *1\b", done.stdout, re.MULTILINE), done.stdout
        if words[-1] == "--diff":
            assert (done.returncode, done.stdout) == (0, "")
    assert (folder / "servers/db1").is_dir() or (folder / "servers/web1").is_dir()
    drawn = (folder / "big.svg").read_text()
    assert drawn == (ROOT / "docs/_static/big.svg").read_text()


@pytest.mark.parametrize("step", STEPS)
def test_each_site_is_used_in_a_browser(folder: Path, step: str, tmp_path: Path) -> None:
    site = load(folder / f"{step}.toml")
    run = LocalSite(site, folder / f".run-{step}")
    try:
        LocalSite(site, folder / f".run-{step}").prepare(dry_run=True)
    except (MissingExtra, TopologyError) as error:
        missing(str(error), "apt-get install nginx-light postgresql memcached")
    front = next(service.name for service in site.services("balancer"))
    with run, running_chromium() as browser:
        user(run, folder)
        page = browser.page()
        log_in(page, run.address(front))
        upload(page, run.address(front))
        page.picture(tmp_path / f"{step}.png")
        sources = page.run("Array.from(document.images).map((one) => one.src)")
        assert all(source.startswith(f"{run.address(front)}/media/") for source in sources)


def user(run: LocalSite, folder: Path) -> None:
    words = ["manage.py", "createsuperuser", "--noinput", "--username", "ada", "--email", "a@b.org"]
    subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, **run.environment, "DJANGO_SUPERUSER_PASSWORD": "lovelace"},
        check=True,
        capture_output=True,
        timeout=60,
    )


def log_in(page: Page, home: str) -> None:
    page.go(f"{home}/admin/")
    page.run("document.querySelector('[name=username]').value = 'ada'")
    page.run("document.querySelector('[name=password]').value = 'lovelace'")
    page.click("[type=submit]")
    page.wait("document.querySelector('#user-tools') !== null")


def upload(page: Page, home: str) -> None:
    page.go(home)
    page.run("document.querySelector('[name=title]').value = 'Summer'")
    page.click("form.card button")
    page.wait("location.pathname !== '/' && document.querySelector('[name=images]') !== null")
    names = ("coffee", "rocket")
    page.choose("[name=images]", *(EXAMPLE / "sample_photos" / f"{one}.jpg" for one in names))
    page.click("form.card button")
    page.wait(f"{SHOWN} === 2")
