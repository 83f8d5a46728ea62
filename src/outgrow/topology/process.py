"""One child process: started, watched, stopped, and never left behind.

The laws:

1. A process is started in a session of its own, so it leads a process group;
   signals go to the whole group (nginx has workers that outlive their master).
   Ctrl-C and the end of a terminal reach `outgrow up` alone, which stops the
   others in order.
2. The guard, a process that we start first, kills every group that is left when
   the process that started them ends, however it ends. A child reports to the
   guard *before* it becomes the program that it is to run, and the guard acts
   when the last writing end of its pipe is closed: no instant is uncovered.
3. A group's id is signalled only while its leader is not yet reaped, so that it
   can't be another's by then. A leader that ends takes its group along.

Linux's PR_SET_PDEATHSIG was not taken: it fires when the *thread* that forked
ends, and reaches the leader only. A program that leaves its group (a daemon) is
out of reach of all this; the programs that we start don't.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, Protocol, cast

from outgrow.errors import ProcessFailed

#: Seconds that a process has to end after SIGTERM; gunicorn's graceful timeout is less.
STOP_LIMIT: Final = 10.0

#: Seconds to wait for a killed group's files and ports to be closed.
KILL_LIMIT: Final = 5.0

#: Seconds between two looks at something that can't be waited for.
PAUSE: Final = 0.02

# Reads "+PID" and "-PID", a line each; after the last one kills what is left.
_GUARD: Final = """\
import os, signal, sys
groups = set()
for line in sys.stdin:
    group = int(line[1:])
    (groups.add if line[0] == "+" else groups.discard)(group)
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
"""

# The shell's own pid stays that of the program it becomes. Its standard input is
# the guard's pipe; the program gets none.
_LAUNCH: Final = 'echo "+$$" >&0 && exec "$@" </dev/null'


@dataclass(frozen=True, slots=True)
class Command:
    """What to run: its words, what it adds to our environment, and where it runs."""

    words: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        variables = (f"{key}={shlex.quote(value)}" for key, value in self.environment.items())
        return " ".join((*variables, shlex.join(self.words)))


class Check(Protocol):
    """Asks a process whether it is ready, or does its work."""

    def problem(self) -> str:
        """What is wrong, or "". Takes some seconds at most."""


class Output(Protocol):
    """Where the lines that a process prints go."""

    def follow(self, name: str, stream: IO[bytes]) -> threading.Event:
        """Read `stream` and close it at its end; the event says that it has ended."""

    def last_lines(self, name: str) -> str:
        """The last lines of this process, for an error's message."""


class Guard:
    """Kills what this process started and left, when this process ends.

    `inherit` are file descriptors that the guard holds open as long as it lives.
    Thread-safe. Children of this process that neither exec nor close what they
    inherited keep the guard waiting.
    """

    def __init__(self, inherit: tuple[int, ...] = ()) -> None:
        self._inherit = inherit
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the guard, in a session of its own."""
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _GUARD],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
            pass_fds=self._inherit,
        )

    @property
    def pipe(self) -> int:
        """The writing end of the guard's pipe; a child gets it as standard input."""
        if self._process is not None and self._process.poll() is not None:
            raise ProcessFailed("The guard of the processes was killed. Start the site again.")
        return self._stdin().fileno()

    def forget(self, group: int) -> None:
        """This group has ended and its id is about to be free."""
        if self._process is None:  # closed: it has killed the group
            return
        with suppress(BrokenPipeError):  # it was killed; the next start says so
            os.write(self._stdin().fileno(), f"-{group}\n".encode())

    def close(self) -> None:
        """Let the guard kill what is left, and wait for its end."""
        if self._process is None:
            return
        self._stdin().close()
        self._process.wait(KILL_LIMIT)
        self._process = None

    def _stdin(self) -> IO[bytes]:
        if self._process is None or self._process.stdin is None:
            raise ProcessFailed("The guard of the processes was not started.")
        return self._process.stdin


class Process:
    """One process, which may be started again after it has ended.

    Its methods may be called from any thread; one acts at a time.
    """

    def __init__(
        self,
        name: str,
        command: Command,
        guard: Guard,
        output: Output,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = name
        self.command = command
        self._guard = guard
        self._output = output
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.RLock()
        self._child: subprocess.Popen[bytes] | None = None
        self._silent = threading.Event()
        self.ended = ""

    @property
    def pid(self) -> int | None:
        """Its id while it runs (or is paused), else None."""
        with self._lock:
            return self._child.pid if self.running and self._child else None

    @property
    def running(self) -> bool:
        """Whether it lives; a paused one does. When it has ended, `ended` says how."""
        with self._lock:
            if self._child is None:
                return False
            if not _has_ended(self._child):
                return True
            self._sweep(self._child)
            return False

    def start(self) -> None:
        """Start it; nothing happens when it runs. Raises `ProcessFailed`."""
        with self._lock:
            if self.running:
                return
            self.ended = ""
            try:
                self._child = subprocess.Popen(
                    ["/bin/sh", "-c", _LAUNCH, "sh", *self.command.words],
                    stdin=self._guard.pipe,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    cwd=self.command.folder,
                    env={**os.environ, **self.command.environment},
                    start_new_session=True,
                )
            except OSError as error:
                raise ProcessFailed(f"{self.name} can't be started: {error}.") from error
            stream = cast("IO[bytes]", self._child.stdout)  # there is one: it is a PIPE
            self._silent = self._output.follow(self.name, stream)

    def wait_ready(
        self, check: Check | None, deadline: float, give_up: Callable[[], bool] = lambda: False
    ) -> None:
        """Wait until `check` finds no problem, at most `deadline` seconds.

        Without a check it is ready when it runs. Returns early when `give_up()` is
        true. Raises `ProcessFailed` when the process ends before it is ready, or is
        not ready in time.
        """
        end = self._clock() + deadline
        while not give_up():
            problem = check.problem() if check else ""
            if not self.running:
                raise ProcessFailed(f"{self.name} {self._how()} before it was ready.{self._said()}")
            if not problem:
                return
            if self._clock() >= end:
                raise ProcessFailed(
                    f"{self.name} was not ready after {deadline:.3g} s: {problem}.{self._said()}"
                )
            self._sleep(PAUSE)

    def stop(self, limit: float = STOP_LIMIT) -> None:
        """SIGTERM to the group, SIGKILL after `limit` seconds; returns when it is gone."""
        self.terminate()
        end = self._clock() + limit
        while self.running and self._clock() < end:
            self._sleep(PAUSE)
        self.kill()

    def terminate(self) -> None:
        """Ask the group to end, and don't wait. A paused one is resumed for it."""
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL to the group; returns when it has ended and closed its files."""
        with self._lock:
            self._signal(signal.SIGKILL)
            end = self._clock() + KILL_LIMIT
            while self.running:
                if self._clock() >= end:
                    raise ProcessFailed(f"{self.name} did not end {KILL_LIMIT:g} s after SIGKILL.")
                self._sleep(PAUSE)

    def pause(self) -> None:
        """SIGSTOP to the group: the kernel still takes its connections, nobody answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT to the group."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        with self._lock:
            if self.running and self._child is not None:
                _kill_group(self._child.pid, number)

    def _sweep(self, child: subprocess.Popen[bytes]) -> None:
        """Its leader has ended: end the rest of its group, and reap the leader."""
        _kill_group(child.pid, signal.SIGKILL)
        self._guard.forget(child.pid)
        self.ended = _described(child.wait(KILL_LIMIT))
        self._child = None
        # All of them are gone when nobody can write to their output any more; others
        # than init may be slow to reap them, so their ids say nothing.
        self._silent.wait(KILL_LIMIT)

    def _how(self) -> str:
        return self.ended or "ended"

    def _said(self) -> str:
        lines = self._output.last_lines(self.name)
        return f" It said:\n{lines}" if lines else " It said nothing."


def _kill_group(group: int, number: signal.Signals) -> None:
    # A group that has no process left but its dead leader answers EPERM on macOS.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _has_ended(child: subprocess.Popen[bytes]) -> bool:
    """Whether it has ended; it is not reaped, so that its id stays its own."""
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        return child.poll() is not None
    return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _described(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    with suppress(ValueError):
        return f"was killed by {signal.Signals(-status).name}"
    return f"was killed by signal {-status}"
