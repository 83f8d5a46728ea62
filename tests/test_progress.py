"""How far repair and verify are: a bar on a terminal, plain lines for everything else."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from outgrow.testing import MediaServer

SETTINGS = """
import os
SECRET_KEY = "x"
USE_TZ = True
INSTALLED_APPS = ["outgrow"]
STORAGES = {"default": {"BACKEND": "outgrow.media.HybridStorage", "OPTIONS": {
    "servers": {"media1": os.environ["ONE"]}, "location": os.environ["MASTER"]}}}
"""
FILES = 1001
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def server() -> Iterator[MediaServer]:
    with MediaServer() as server:
        yield server


@pytest.fixture
def environment(tmp_path: Path, server: MediaServer) -> dict[str, str]:
    """A site with so many files, and a server that has none of them yet."""
    (tmp_path / "progress_settings.py").write_text(SETTINGS)
    master = tmp_path / "master"
    master.mkdir()
    for number in range(FILES):
        (master / f"{number:04}.txt").write_bytes(b"x")
    own = {
        "DJANGO_SETTINGS_MODULE": "progress_settings",
        "PYTHONPATH": str(tmp_path),
        "ONE": server.url,
        "MASTER": str(master),
        "TERM": "xterm",
        "COLUMNS": "100",
    }
    kept = {key: value for key, value in os.environ.items() if key not in {"NO_COLOR", "CI"}}
    return kept | own


def run(environment: dict[str, str], *words: str, terminal: bool) -> tuple[str, str]:
    """What the command writes to its output and to its errors, which may be a terminal."""
    command = [sys.executable, "-m", "django", "outgrow", "media", *words]
    if not terminal:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        return done.stdout, done.stderr
    ours, theirs = pty.openpty()
    shown: list[bytes] = []
    reader = threading.Thread(target=read_all, args=(ours, shown))
    reader.start()
    try:
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=theirs, text=True, timeout=60
        )
    finally:
        os.close(theirs)
        reader.join(20)
        os.close(ours)
    return done.stdout, b"".join(shown).decode()


def read_all(terminal: int, shown: list[bytes]) -> None:
    # Linux says EIO when nobody has the other end any more, others an empty read.
    try:
        while data := os.read(terminal, 65536):
            shown.append(data)
    except OSError:
        return


def test_a_repair_of_known_length_has_a_bar(environment, server):
    run(environment, "repair", "--no-wait", terminal=False)
    server.stop()
    names = [f"{number:04}.txt" for number in range(7)]
    run(environment, "delete", *names, terminal=False)
    server.start()
    out, shown = run(environment, "repair", "--no-wait", terminal=True)
    assert "deleted 7" in out
    assert "━" in shown
    assert "7/7 names" in ESCAPE.sub("", shown)
    # When it is done it leaves the terminal as it was.
    assert shown.rstrip("\r\n").endswith("\x1b[2K")
    assert ESCAPE.search(out) is None


@pytest.mark.parametrize("words", [("repair", "--all", "--no-wait"), ("verify",)])
def test_where_the_number_is_not_known_it_counts(environment, words):
    if words[0] == "verify":
        run(environment, "repair", "--no-wait", terminal=False)
    out, shown = run(environment, *words, terminal=True)
    counts = [int(found) for found in re.findall(r"(\d+) names", ESCAPE.sub("", shown))]
    assert counts == sorted(counts)
    assert counts[-1] >= FILES
    assert "1000 names\n" not in shown
    assert out
    assert ESCAPE.search(out) is None


@pytest.mark.parametrize("words", [("repair", "--all", "--no-wait"), ("verify",)])
def test_without_a_terminal_there_are_plain_lines(environment, words):
    if words[0] == "verify":
        run(environment, "repair", "--no-wait", terminal=False)
    out, told = run(environment, *words, terminal=False)
    lines = told.splitlines()
    assert lines
    # A name that is compared and then sent counts twice: it is work both times.
    assert lines == [f"{number}000 names" for number in range(1, len(lines) + 1)]
    assert ESCAPE.search(out) is None


@pytest.mark.parametrize("terminal", [True, False])
def test_for_machines_there_is_nothing(environment, terminal):
    for words in (("repair", "--all", "--no-wait", "--json"), ("verify", "--json")):
        out, shown = run(environment, *words, terminal=terminal)
        assert shown == ""
        assert out.startswith("{")
