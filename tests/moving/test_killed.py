"""A copy that is killed at any step loses nothing, and brings nothing back; the next goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from django.conf import settings
from django.db import connections

from outgrow.media.repair import Repair
from tests.live.postgres import OWN, SITE
from tests.moving import deadly
from tests.moving.subjects import held, names, put, report, site, wait_until

pytestmark = pytest.mark.usefixtures("postgres")

TARGETS = ["folder", "hybrid", "object"]


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


def begin(state, *words: str, source="old", target="new", **entries) -> subprocess.Popen[str]:
    """A copy in a process of its own."""
    storages = json.dumps(settings.STORAGES | entries)
    databases = {alias: dict(connections.settings[alias]) for alias in (SITE, OWN)}
    line = ["media", "copy", "--from", source, "--to", target, "--state", str(state), *words]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.moving.children", storages, *line],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"DATABASES": json.dumps(databases)},
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code, and all that it said."""
    out, trouble = process.communicate(timeout=120)
    return process.returncode, out + trouble


def dying(kind, source):
    backend = f"tests.moving.deadly.{kind.__name__}"
    return {"BACKEND": backend, "OPTIONS": {"location": source.location}}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", [deadly.DiesWhenOpened, deadly.DiesWhileRead])
def test_nothing_half_is_there_and_the_next_one_goes_on(
    tmp_path, state, engine_named, target, kind
):
    with site(tmp_path, engine_named, "folder", target) as (old, new):
        files = {"a.bin": os.urandom(6 << 20), "b.txt": b"b"}
        put(old, files)
        code, said = end(begin(state, "--threads", "1", old=dying(kind, old)))
        assert code == -signal.SIGKILL, said
        assert held(new) == {}

        found = report(state)
        assert (found["copied"], found["complete"]) == (2, True)
        assert held(new) == held(old) == files
        assert list(state.rglob("*.json")) == []


@pytest.mark.parametrize("is_repaired", [False, True])
def test_a_catalogue_takes_the_name_again(tmp_path, state, engine_named, is_repaired):
    # It was killed after the name was on record; a repair pass may come before the next copy.
    with site(tmp_path, engine_named, "folder", "distributed") as (old, new):
        put(old, {"a.txt": b"a"})
        entry = settings.STORAGES["new"] | {"BACKEND": "tests.moving.deadly.DiesOnItsWay"}
        code, said = end(begin(state, "--threads", "1", new=entry))
        assert code == -signal.SIGKILL, said
        assert [one.name for one in new.journal.attempts()] == ["a.txt"]
        if is_repaired:
            Repair(new.replication).once(settle=False)

        assert report(state)["complete"]
        assert held(new) == {"a.txt": b"a"}
        Repair(new.replication).once(settle=False)
        assert held(new) == {"a.txt": b"a"}


@pytest.mark.parametrize("target", [*TARGETS, "distributed"])
def test_what_was_deleted_as_it_was_killed_does_not_come_back(
    tmp_path, state, engine_named, target
):
    with site(tmp_path, engine_named, "folder", target) as (old, new):
        put(old, {"a.txt": b"a", "z.txt": b"z"})
        # Written, deleted at the source, and killed before anybody could know.
        entry = dying(deadly.DiesAtTheSecondLook, old)
        code, said = end(begin(state, "--threads", "1", old=entry))
        assert code == -signal.SIGKILL, said
        assert held(new) == {"a.txt": b"a"}
        assert held(old) == {"z.txt": b"z"}

        assert report(state)["complete"]
        assert held(new) == held(old) == {"z.txt": b"z"}


@pytest.mark.drill
@pytest.mark.parametrize("target", ["hybrid", "object"])
def test_it_is_killed_again_and_again(tmp_path, state, engine_named, target):
    with site(tmp_path, engine_named, "folder", target) as (old, new):
        files = {f"{number % 10}/{number}.txt": str(number).encode() for number in range(300)}
        put(old, files)
        for round_ in range(1, 4):
            process = begin(state, "--rate", "700")
            try:
                wait_until(lambda least=round_ * 20: len(set(names(new))) >= least)
            finally:
                process.kill()
                process.communicate(timeout=60)
            found = held(new)
            assert found.items() <= files.items()
        assert len(found) < len(files)

        last = report(state)
        assert last["copied"] + last["same"] == len(files)
        assert last["complete"]
        assert held(new) == files


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_tidily_when_it_is_told_to(tmp_path, state, engine_named, number):
    with site(tmp_path, engine_named, "folder", "folder") as (old, new):
        put(old, {f"{number}.txt": b"x" for number in range(2000)})
        process = begin(state, "--rate", "200")
        wait_until(lambda: len(set(names(new))) >= 20)
        process.send_signal(number)
        code, said = end(process)
        assert code == 1, said
        assert "Not all was done: it was stopped. The same command goes on." in said
        assert list(state.rglob("*.json")) == []
        assert list((tmp_path / "new").rglob(".outgrow-copy")) == []
        assert report(state)["complete"]
        assert held(new) == held(old)
