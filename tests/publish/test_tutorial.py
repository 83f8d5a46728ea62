"""The tutorial is followed: its files are written, its commands run, its outputs compared."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from outgrow.publish.prune import Policy, Prune
from outgrow.publish.targets import SIBLINGS, FolderTarget
from outgrow.testing import free_port
from tests.live.moto import _answers as moto_answers
from tests.live.nginx import binary, mime_types
from tests.live.processes import server_folder, unprivileged, wait_until
from tests.publish.test_fronts import CONFIGURATION, answers
from tests.test_docs import FENCE, check

PAGE = (Path(__file__).parents[2] / "docs/tutorial/publish.md").read_text()

#: Where the page's reader is.
HOME = "/home/me"

#: By what the libraries for compression are, these differ.
SIZES = re.compile(r"\b[\d.]+ (?:B|KB)\b")


class Tutorial:
    """A reader of the page, in a folder of his own."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.home = folder
        self.folder = folder
        self.ports = {number: str(free_port()) for number in ("8080", "5000")}
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("DJANGO", "AWS", "PYTEST"))
        }
        bin_ = Path(sys.executable).parent
        self.environment |= {
            "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
            "XDG_CACHE_HOME": f"{folder}/cache",
            "COLUMNS": "80",
            "LC_ALL": "C.UTF-8",  # in which order ls lists
        }
        self._stack = stack

    def read(self) -> None:
        end, out = 0, ""
        for match in FENCE.finditer(PAGE):
            before, language, text = PAGE[end : match.start()], match[1], self.here(match[2])
            end = match.end()
            if language == "text":
                assert SIZES.sub("SIZE", out) == SIZES.sub("SIZE", text)
                out = ""
                continue
            assert out == "", "the page shows no output"
            if language == "console":
                out = "".join(self.command(line.removeprefix("$ ")) for line in text.splitlines())
            elif language == "nginx":
                self._stack.enter_context(self.nginx(text))
            else:
                self.file(re.findall(r"`([\w./-]+\.\w+)`", before)[-1], text)

    def here(self, text: str) -> str:
        """What the reader would have on this machine."""
        for number, port in self.ports.items():
            text = re.sub(rf"(127\.0\.0\.1:|listen |--port ){number}\b", rf"\g<1>{port}", text)
        return text.replace(HOME, str(self.home))

    def file(self, name: str, text: str) -> None:
        path = self.folder / name
        with path.open("a" if name == "shop/settings.py" else "x") as file:
            file.write(text)

    def command(self, line: str) -> str:
        words = shlex.split(line)
        if words[0] == "pip":
            if "outgrow" in line:
                check(words)
            return ""
        if words[0] == "cd":
            self.folder /= words[1]
            return ""
        if words[0] == "export":
            self.environment |= dict(word.split("=") for word in words[1:])
            return ""
        if words[0] == "moto_server":
            self._stack.enter_context(self.moto(words))
            return ""
        done = subprocess.run(
            words,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (done.returncode, done.stderr) == (0, ""), f"{line}: {done.stdout}{done.stderr}"
        return done.stdout.removeprefix("\n")

    @contextmanager
    def nginx(self, text: str) -> Iterator[None]:
        http, _, _ = CONFIGURATION.format(folder=self.home, port=0, types=mime_types()).partition(
            "    server {"
        )
        user = "user nobody nogroup;\n" if unprivileged() else ""
        own = text.replace("listen ", "listen 127.0.0.1:")
        (self.home / "nginx.conf").write_text(f"{user}{http}{own}}}\n")
        words = [binary(), "-c", self.home / "nginx.conf", "-e", self.home / "error.log"]
        with running(words):
            url = f"http://127.0.0.1:{self.ports['8080']}/"
            wait_until(lambda: answers(url), "nginx does not answer")
            yield

    @contextmanager
    def moto(self, words: list[str]) -> Iterator[None]:
        with running([str(Path(sys.executable).parent / words[0]), *words[1:]]):
            wait_until(lambda: moto_answers(int(words[-1])), "moto does not answer")
            yield


@contextmanager
def running(words: list[object]) -> Iterator[None]:
    process = subprocess.Popen(
        list(map(str, words)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.skipif(sys.platform != "linux", reason="sed -i is another word elsewhere")
def test_the_tutorial_works_as_written() -> None:
    with server_folder("outgrow-tutorial-") as folder, ExitStack() as stack:
        Tutorial(folder, stack).read()
        published = folder / "shop/www/static"
        assert (published / "css/base.css").exists()  # collectstatic's
        before = {path for path in published.rglob("*.d9451fc41961.*") if path.parent.name == "css"}
        assert len(before) == 4
        # "A run that comes a day later deletes it."
        tomorrow = datetime.now(UTC) + timedelta(hours=25)
        target = FolderTarget(published, SIBLINGS)
        plan = Prune(target, Policy(1, timedelta(0)), clock=lambda: tomorrow).apply()
        assert {published / key for key in plan.delete} == before
        assert not any(path.exists() for path in before)
