"""`media server add` and `repair --all` while other processes of the site go on writing."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.core.management import call_command
from django.test import override_settings

from outgrow.testing import MediaServer
from tests.live.processes import wait_until
from tests.media.actors import ACTOR
from tests.media.test_drills import copies, master_files
from tests.media.test_server_drills import files_of, real

pytestmark = [pytest.mark.drill, pytest.mark.timeout(900)]


def outgrow(*words: str) -> tuple[int, str]:
    """The exit code and what was printed."""
    out = io.StringIO()
    try:
        call_command("outgrow", "media", *words, stdout=out, stderr=io.StringIO())
    except SystemExit as end:
        return int(end.code or 0), out.getvalue()
    return 0, out.getvalue()


class Writer:
    """A process that saves file after file, and deletes every third."""

    def __init__(self, folder: Path, urls: list[str]) -> None:
        words = [sys.executable, str(ACTOR), str(folder), ",".join(urls), "loop", "-1"]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines += iter(self.process.stdout.readline, "")

    def _said(self, word: str) -> set[str]:
        return {line.split()[1] for line in list(self.lines) if line.startswith(f"{word} ")}

    @property
    def kept(self) -> set[str]:
        """What was saved, and never deleted."""
        return self._said("saved") - self._said("deleting")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)
        self._thread.join()
        self.process.stdout.close()
        # The kill may have cut the last line.
        self.lines = [line for line in self.lines if line.endswith("\n")]


@contextmanager
def writing(folder: Path, urls: list[str]) -> Iterator[Writer]:
    writer = Writer(folder, urls)
    try:
        wait_until(lambda: len(writer.kept) > 3, "nothing is written")
        yield writer
    finally:
        writer.kill()


@contextmanager
def site(folder: Path, urls: list[str]) -> Iterator[None]:
    # Without names, servers are called as in the writers: by host and port.
    options = {"location": str(folder), "servers": urls, "downtime": 0.1}
    media = {"BACKEND": "outgrow.media.HybridStorage", "OPTIONS": options}
    with override_settings(STORAGES={"default": media}):
        yield


@pytest.mark.parametrize("kind", ["our own", "nginx"])
@pytest.mark.parametrize("way", ["server add", "repair --all"])
def test_a_server_is_brought_in_while_the_site_goes_on_writing(kind, way):
    """M4: it has what was there, and what others save and delete meanwhile, with either list."""
    with ExitStack() as stack:
        old = [stack.enter_context(MediaServer()) for _ in range(2)]
        master, new = stack.enter_context(real(kind))
        before = [server.url for server in old]
        after = [*before, new.url]
        with site(master, before):
            for number in range(300):
                storages["default"].save(f"old/{number}.bin", ContentFile(b"old" * 5000))
        with (
            writing(master, before) as first,
            writing(master, after) as second,
            site(master, after),
        ):
            begun = [len(first.kept), len(second.kept)]
            name = new.url.removeprefix("http://")
            words = ["server", "add", name] if way == "server add" else ["repair", "--all"]
            code, text = outgrow(*words)
            assert code == 0 or "still owed" in text, text
            for writer, count in zip((first, second), begun, strict=True):
                wait_until(lambda w=writer, c=count: len(w.kept) > c, "the writing has stopped")
        with site(master, after):
            # The writers were killed: what they had begun is taken over.
            assert outgrow("repair")[0] == 0
        wanted = master_files(master)
        assert len(wanted) > 300
        assert first.kept | second.kept <= wanted.keys()
        for server in old:
            assert copies(server) == wanted
        assert files_of(new) == wanted
