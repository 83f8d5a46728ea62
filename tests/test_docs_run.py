"""The commands of the documentation are run, where that can be: see `test_docs` for the rest."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner
from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.core.management import call_command
from django.test import override_settings

from outgrow.cli import main
from outgrow.media.repair import Repair
from outgrow.media.watch import Watch
from outgrow.testing import MediaServer
from tests.test_docs import GROWING, PAGES, TUTORIAL, _first_toml, blocks

#: The tutorial is run by tests/tutorial.py; the reference has synopses, with what may be left out.
RUN = [page for page in PAGES if page not in {TUTORIAL, GROWING} and page.name != "commands.md"]

#: What has no end: tests/test_commands.py, the tutorial and tests/topology/test_up.py run it.
ENDLESS = {"python manage.py outgrow media repair --watch", "outgrow up topology.toml"}


def commands(*start: str) -> list[object]:
    """Every command of the pages that begins so, also from crontabs."""
    found = {}
    for kind in ("console", "text"):
        for block in blocks(kind, RUN):
            for line in block.values[0].splitlines():  # type: ignore[attr-defined]
                _, _, command = line.partition("$ " if kind == "console" else "&& ")
                if command.startswith(" ".join(start)) and command not in ENDLESS:
                    found.setdefault(command, f"{block.id}: {command}")  # type: ignore[attr-defined]
    assert found, start
    return [pytest.param(shlex.split(line)[len(start) :], id=name) for line, name in found.items()]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[object]:
    """Three servers with two files, watched; the third one is new."""
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(MediaServer()) for name in ("media1", "media2", "media3")
        }
        options = {
            "servers": {name: server.url for name, server in servers.items()},
            "location": str(tmp_path / "master"),
        }
        media = {"BACKEND": "outgrow.media.HybridStorage", "OPTIONS": options}
        with override_settings(STORAGES={"default": media}):
            site = storages["default"]
            Repair(site.replication).once(settle=False)
            for _ in range(2):
                site.save("f.txt", ContentFile(b"x"))
            Watch(Repair(site.replication), wait=lambda _: True).once()
            yield site


def of_media_servers() -> list[object]:
    """Without those between two storages, which tests/moving/test_docs.py runs."""
    found = commands("python", "manage.py", "outgrow", "media")
    return [one for one in found if one.values[0][0] != "copy"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("words", of_media_servers())
def test_management_commands_end_well(site, words):
    # A page may send half a gigabyte for once, and a test need not.
    words = ["1M" if word == "500M" else word for word in words]
    with ExitStack() as stack:
        if "retire" in words:  # the page says: take it out of the settings first
            media = settings.STORAGES["default"]
            servers = dict(media["OPTIONS"]["servers"])
            del servers[words[-1]]
            options = {**media["OPTIONS"], "servers": servers}
            stack.enter_context(
                override_settings(STORAGES={"default": {**media, "OPTIONS": options}})
            )
        call_command("outgrow", "media", *words)  # exits with another status than 0, if any


@pytest.mark.django_db(transaction=True, databases=["default", "outgrow"])
@pytest.mark.parametrize("words", commands("python", "manage.py", "migrate"))
def test_the_migrations_run(words):
    call_command("migrate", *words, verbosity=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where this machine has what a media server's machine has."""
    for name, text in (("token", "tok3n\n"), ("secret", "s3cret\n")):
        (tmp_path / name).write_text(text)
    (tmp_path / "copies").mkdir()
    return tmp_path


@pytest.mark.parametrize("words", commands("outgrow", "media-server"))
def test_media_servers_start_and_stop(folder, words):
    places = {"/srv/copies": f"{folder}/copies", "/etc/outgrow": str(folder)}
    line = shlex.join(words)
    for theirs, ours in places.items():
        line = line.replace(theirs, ours)
    # Any port of this machine.
    line = re.sub(r"\b\d+\.\d+\.\d+\.\d+:\d+", "127.0.0.1:0", line)
    process = subprocess.Popen(
        [sys.executable, "-m", "outgrow", "media-server", *shlex.split(line)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        assert "127.0.0.1:" in process.stdout.readline(), process.communicate()[1]
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=20)[1] == ""
        assert process.returncode in {0, -signal.SIGTERM}
    finally:
        process.kill()
        process.communicate(timeout=20)


@pytest.mark.parametrize("words", [*commands("outgrow", "render"), *commands("outgrow", "up")])
def test_commands_of_a_topology_run(tmp_path, monkeypatch, words, request):
    monkeypatch.chdir(tmp_path)
    Path("topology.toml").write_text(_first_toml())
    word = "up" if "outgrow up" in request.node.name else "render"
    done = CliRunner().invoke(main, [word, *words])
    assert done.exit_code == 0, done.output
    assert done.output
