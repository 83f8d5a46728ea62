"""The processes of the drills: `children/actor.py`, forked from one that has all imports."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

ACTOR = Path(__file__).parent / "children" / "actor.py"

#: What each actor is told by its environment, and not that of its nest.
TOLD = ("CATALOGUE", "ASYNC")

#: Seconds after which an actor hangs.
LIMIT = 60.0


class Nest:
    """A process that forks actors, one at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(ACTOR), "--fork"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if name not in TOLD},
            # A group of its own, which can be killed with whoever is in it.
            start_new_session=True,
        )
        self._folder = tempfile.TemporaryDirectory(prefix="outgrow-actors-")

    def act(self, words: list[str], environment: dict[str, str]) -> tuple[int, str, str]:
        """The exit code of one actor, its output and its errors."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        output, errors = (Path(self._folder.name, name) for name in ("output", "errors"))
        output.unlink(missing_ok=True)
        errors.unlink(missing_ok=True)
        order = {"words": words, "environment": environment, "limit": LIMIT - 5}
        files = {"output": str(output), "errors": str(errors)}
        print(json.dumps(order | files), file=self._process.stdin, flush=True)
        if not select.select([self._process.stdout], [], [], LIMIT)[0]:
            raise TimeoutError(f"{words} hangs: {output.read_text()} {errors.read_text()}")
        code = self._process.stdout.readline()
        assert code, "the process that makes the actors has ended"
        return int(code), output.read_text(), errors.read_text()

    def end(self) -> None:
        """Kill it, and an actor that hangs."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._folder.cleanup()


_idle: list[Nest] = []
_lock = threading.Lock()


def act(folder: Path, urls: list[str], what: str, step: str, *rest: str) -> tuple[int, list[str]]:
    """Run an actor to its end, or to its death; its exit code and what it printed.

    Several threads may do that at once.
    """
    words = [str(folder), ",".join(urls), what, step, *rest]
    environment = {name: os.environ[name] for name in TOLD if name in os.environ}
    with _lock:
        nest = _idle.pop() if _idle else Nest()
    try:
        code, output, errors = nest.act(words, environment)
    except BaseException:
        nest.end()
        raise
    with _lock:
        _idle.append(nest)
    assert code in {0, -signal.SIGKILL}, errors
    return code, output.splitlines()


def end_all() -> None:
    """End what waits for the next drill."""
    with _lock:
        while _idle:
            _idle.pop().end()
