"""What an error or a signal leaves behind, wherever it comes: promises M1 and M2.

gunicorn ends a worker that takes too long by an exception between any two lines; a disk
can fail at any call. Here one comes before and after each call of the system that a save
or a delete makes, in turn.
"""

from __future__ import annotations

import errno
import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import pytest
from django.core.files.base import ContentFile

from outgrow.media import HybridStorage, files
from outgrow.media.directory import DirectoryJournal
from outgrow.media.journal import ATTEMPT_LIMIT, Wanted
from outgrow.media.repair import Repair
from outgrow.testing import MediaServer
from tests.media.test_drills import copies, master_files

# A signal between socket() and the assignment leaves a socket to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)

#: More calls than any save or delete makes.
MOST = 400

#: What is called where it happens: before the kernel is asked, or when it has answered.
BEFORE, AFTER = "c_call", "c_return"

ERRORS: dict[str, Callable[[], BaseException]] = {
    "a disk that fails": lambda: OSError(errno.EIO, "Input/output error"),
    "a worker that is stopped": lambda: SystemExit(1),
}

#: Calls that ask the kernel for something, of which there are many in a save.
MODULES = {"posix", "_io", "io"}


class Interruption:
    """Raises an error at the N-th call, once."""

    def __init__(self, number: int, event: str, error: BaseException) -> None:
        self.left = number
        self.event = event
        self.error = error
        self.raised_at = ""

    def __call__(self, frame: FrameType, event: str, function: Any) -> None:
        if event != self.event or getattr(function, "__module__", None) not in MODULES:
            return
        if "outgrow" not in frame.f_code.co_filename:
            return
        if self.left == 0:
            self.raised_at = f"{frame.f_code.co_qualname}: {function.__name__}"
            sys.setprofile(None)
            raise self.error
        self.left -= 1

    @property
    def too_late(self) -> bool:
        """Whether it came when what was replaced was removed: the last thing that is done."""
        return self.raised_at.startswith("DirectoryJournal.finish")

    @contextmanager
    def armed(self) -> Iterator[None]:
        sys.setprofile(self)
        try:
            yield
        finally:
            sys.setprofile(None)


@pytest.fixture
def servers():
    with MediaServer() as one, MediaServer() as two:
        yield [one, two]


@pytest.fixture(params=["unique", "keep"])
def names(request):
    return request.param


@pytest.fixture
def storage(tmp_path, servers, names):
    urls = [server.url for server in servers]
    overwrite = {"names": "keep", "allow_overwrite": True} if names == "keep" else {}
    made = HybridStorage(location=tmp_path, servers=urls, base_url="/media/", **overwrite)
    made.save("first.txt", ContentFile(b"claims the servers"))
    Repair(made.replication).once(settle=False)
    yield made
    gc.collect()


def heal(storage: HybridStorage) -> None:
    """A repair pass when the attempts of this process, which lives, have stood still for long."""
    own = storage.journal
    storage.replication.journal = DirectoryJournal(
        own.root, file_clock=lambda: time.time() + ATTEMPT_LIMIT + 60
    )
    report = Repair(storage.replication).once(settle=False)
    storage.replication.journal = own
    assert report.complete, report
    assert not files.names(own.folder / "open")


def look_again(storage: HybridStorage, done: Callable[[], bool]) -> None:
    """A request that was under way can be carried out after the pass (M5): look a second time."""
    if not done():
        Repair(storage.replication).once(settle=True)


def forget_watched(storage: HybridStorage) -> None:
    for server in storage.transport.servers:
        for debt in storage.journal.debts(server.name):
            storage.journal.forget(debt)


def interruptions(event: str, error: Callable[[], BaseException]) -> Iterator[Interruption]:
    """One for each call, until there was none to interrupt."""
    for number in range(MOST):
        one = Interruption(number, event, error())
        yield one
        if not one.raised_at:
            assert number > 5, "nothing was interrupted"
            return
    raise AssertionError(f"there are more than {MOST} calls")


def at_every_call(test):
    test = pytest.mark.parametrize("event", [BEFORE, AFTER])(test)
    return pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)(test)


@at_every_call
def test_a_save_that_raises_leaves_nothing(storage, servers, tmp_path, names, event, error):
    before = master_files(tmp_path)
    for one in interruptions(event, error):
        name = ""
        with suppress(OSError, SystemExit), one.armed():
            name = storage.save("folder/file.txt", ContentFile(b"content"))
        if one.too_late:
            name = "folder/file.txt"
        heal(storage)
        wanted = before | ({name: b"content"} if name else {})
        assert master_files(tmp_path) == wanted, one.raised_at
        look_again(storage, lambda: all(copies(server) == wanted for server in servers))  # noqa: B023 - at once
        for server in servers:
            assert copies(server) == wanted, one.raised_at
        if name:
            storage.delete(name)
        forget_watched(storage)


@pytest.mark.parametrize("names", ["keep"], indirect=True)
@at_every_call
def test_a_replacement_that_raises_gives_back_what_was_there(
    storage, servers, tmp_path, event, error
):
    storage.save("file.txt", ContentFile(b"old"))
    for one in interruptions(event, error):
        saved = False
        with suppress(OSError, SystemExit), one.armed():
            storage.save("file.txt", ContentFile(b"new"))
            saved = True
        heal(storage)
        wanted = b"new" if saved or one.too_late else b"old"
        assert master_files(tmp_path).get("file.txt") == wanted, one.raised_at
        for server in servers:
            assert copies(server).get("file.txt") == wanted, one.raised_at
        storage.save("file.txt", ContentFile(b"old"))
        forget_watched(storage)


@at_every_call
def test_a_delete_that_raises_is_done_or_not_but_everywhere_the_same(
    storage, servers, tmp_path, names, event, error
):
    for one in interruptions(event, error):
        name = storage.save("file.txt", ContentFile(b"content"))
        deleted = False
        with suppress(OSError, SystemExit), one.armed():
            storage.delete(name)
            deleted = True
        heal(storage)
        left = master_files(tmp_path)
        assert not (deleted and name in left), one.raised_at
        if name not in left:
            assert storage.journal.look(name).wanted is Wanted.GONE, one.raised_at
        for server in servers:
            assert copies(server) == left, one.raised_at
        if name in left:
            storage.delete(name)
        forget_watched(storage)
