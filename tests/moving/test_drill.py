"""A site moves from media servers to an object store and back, and is used the whole time.

Writers, readers and deleters never stop; the copy is killed on its way. No file that is there
is ever missing to a reader, and none that was deleted comes back.
"""

from __future__ import annotations

import random
import threading
from contextlib import contextmanager

import pytest
from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.db import connections
from django.test import override_settings

from tests.moving.subjects import held, names, report, site, wait_until
from tests.moving.test_killed import begin, end

pytestmark = [pytest.mark.usefixtures("postgres"), pytest.mark.drill, pytest.mark.timeout(400)]


class Site:
    """What a site's processes do, and what they were told of it."""

    def __init__(self):
        self.files: dict[str, bytes] = {}  # saved, and not asked to be deleted
        self.deleted: set[str] = set()  # the delete has returned
        self.problems: list[str] = []
        self.reads = self.writes = 0
        self._busy = threading.Lock()

    def write(self, storage) -> None:
        content = random.randbytes(random.choice([0, 10, 3000]))
        name = storage.save(f"{random.randrange(5)}/f.bin", ContentFile(content))
        with self._busy:
            self.files[name] = content
            self.writes += 1

    def read(self, storage) -> None:
        with self._busy:
            name, content = random.choice(list(self.files.items()) or [("", b"")])
        if not name:
            return
        try:
            assert storage.exists(name)
            assert storage.url(name)
            with storage.open(name) as file:
                found = file.read()
        except (FileNotFoundError, AssertionError) as error:
            if name in self.files:
                self.problems.append(f"{name} is missing: {error!r}")
            return
        self.reads += 1
        if found != content:
            self.problems.append(f"{name} has other bytes")

    def delete(self, storage) -> None:
        with self._busy:
            if len(self.files) < 40:
                return
            name = random.choice(list(self.files))
            del self.files[name]
        storage.delete(name)
        with self._busy:
            self.deleted.add(name)

    @contextmanager
    def used(self, storage):
        """Threads that work with a storage, until the block is left."""
        stop = threading.Event()

        def work(act, pause):
            try:
                while not stop.wait(pause):
                    act(storage)
            except Exception as error:
                self.problems.append(f"{act.__name__}: {error!r}")
            finally:
                connections.close_all()

        acts = [(self.write, 0.02), (self.write, 0.05), (self.read, 0), (self.delete, 0.05)]
        threads = [threading.Thread(target=work, args=one) for one in acts]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()


@contextmanager
def moving(source, target):
    """The site has been told of the new storage."""
    options = {"from": source, "to": target}
    entry = {"BACKEND": "outgrow.moving.MovingStorage", "OPTIONS": options}
    with override_settings(STORAGES=settings.STORAGES | {"default": entry}):
        yield storages["default"]


def move(it, state, source, target) -> None:
    """Move the site that is in use; the copy is killed once."""
    with moving(source, target) as storage, it.used(storage):
        was = len(set(names(storages[target])))
        words = ("--rate", "60K", "--threads", "2")
        process = begin(state, *words, source=source, target=target)
        try:
            wait_until(lambda: len(set(names(storages[target]))) > was + 30)
        finally:
            process.kill()
            end(process)
        # Until a pass finds nothing more to do: nothing is saved to the old one any more.
        for _ in range(5):
            found = report(state, source=source, target=target)
            assert found["complete"], found
            if not found["copied"]:
                return
        raise AssertionError(found)


def check(it, storage) -> None:
    """A storage has what the site has, and nothing that it has deleted."""
    found = held(storage)
    assert it.problems == []
    assert it.files.items() <= found.items()
    assert not it.deleted & found.keys()


@pytest.mark.parametrize("first", ["hybrid", "distributed"])
def test_to_an_object_store_and_back(tmp_path, engine_named, first):
    it, state = Site(), tmp_path / "state"
    with site(tmp_path, engine_named, first, "object") as (old, new):
        with it.used(old):
            wait_until(lambda: it.writes >= 150)

        move(it, state, "old", "new")
        check(it, new)
        moved = it.writes
        with it.used(new):
            wait_until(lambda: it.writes >= moved + 30)
        check(it, new)

        # The old one still has what was deleted since. It is brought to the state of the new
        # one before anything is saved to it again.
        assert report(state, "--delete-extra", source="new", target="old")["complete"]
        check(it, old)
        with it.used(new):
            wait_until(lambda: it.writes >= moved + 60)
        before = set(it.deleted)
        move(it, state, "new", "old")
        assert it.problems == []
        assert it.files.items() <= held(old).items()
        assert not (it.deleted - before) & held(old).keys()
        assert it.reads > 100
