"""One child process: started, watched, stopped, and never left behind.

The laws:

1. A process is started in a session of its own, so it leads a process group;
   signals go to the whole group (nginx has workers that outlive their master).
   SIGKILL, SIGSTOP and SIGCONT go to all that descend from it as well: each of
   PostgreSQL's processes leads a group of its own. Ctrl-C and the end of a terminal
   reach `outgrow up` alone, which stops the others in order.
2. The guard, a process that we start first, kills every group that is left, with all
   that descend from its leader, when the process that started them ends, however it
   ends. A child reports to the guard *before* it becomes the program that it is to
   run, and the guard acts when the last writing end of its pipe is closed: no instant
   is uncovered.
3. A group's id is signalled only while its leader is not yet reaped, so that it
   can't be another's by then. A leader that ends takes its group along, and those of
   its descendants that are paused. (The others have lost their parent: PostgreSQL's
   notice that by themselves.)
4. A program that refuses to be root's is started as another user.

Linux's PR_SET_PDEATHSIG was not taken: it fires when the *thread* that forked
ends, and reaches the leader only. A program that leaves its parent (a daemon) is
out of reach of all this; the programs that we start don't.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, Protocol, cast

from outgrow.errors import ProcessFailed
from outgrow.topology import family
from outgrow.topology.guard import KILL_LIMIT, Guard

#: Seconds that a process has to end after SIGTERM; gunicorn's graceful timeout is less.
STOP_LIMIT: Final = 10.0

#: Seconds between two looks at something that can't be waited for.
PAUSE: Final = 0.02

# The shell's own pid stays that of the program it becomes. Its standard input is
# the guard's pipe; the program gets none.
_LAUNCH: Final = 'echo "+$$" >&0 && exec "$@" </dev/null'


@dataclass(frozen=True, slots=True)
class Reload:
    """How a program takes up a new configuration, or new code, without an end of its service.

    `signal` is for the leader alone: to a worker of gunicorn SIGHUP means to end. With
    `renews` it replaces its children, and has reloaded when the old ones have ended.
    """

    signal: signal.Signals = signal.SIGHUP
    renews: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """What to run: its words, what it adds to our environment, and where it runs.

    `account` is whom it runs as, where that is not ourselves: a user's and a group's id.
    `stop` is the signal that asks it to end; without a `reload` it must be restarted.
    """

    words: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    account: tuple[int, int] | None = None
    stop: signal.Signals = signal.SIGTERM
    reload: Reload | None = None

    def __str__(self) -> str:
        variables = (f"{key}={shlex.quote(value)}" for key, value in self.environment.items())
        return " ".join((*variables, *self._as_another(), shlex.join(self.words)))

    def _as_another(self) -> tuple[str, ...]:
        if self.account is None:
            return ()
        user, group = self.account
        return ("setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups")


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
        self._paused: frozenset[int] = frozenset()
        self.ended = ""
        #: Its exit status, or minus the signal, once it has ended.
        self.status: int | None = None
        #: When it was started, paused, resumed or seen to have ended: seconds of Unix time.
        self.changed = 0.0

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

    @property
    def paused(self) -> bool:
        """Whether it runs and is paused, by whoever did it."""
        pid = self.pid
        return pid is not None and bool(family.stopped(frozenset({pid})))

    def start(self) -> None:
        """Start it; nothing happens when it runs. Raises `ProcessFailed`."""
        with self._lock:
            if self.running:
                return
            self.ended, self.status = "", None
            self.changed = time.time()
            user, group = self.command.account or (None, None)
            try:
                self._child = subprocess.Popen(
                    ["/bin/sh", "-c", _LAUNCH, "sh", *self.command.words],
                    stdin=self._guard.pipe,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    cwd=self.command.folder,
                    env={**os.environ, **self.command.environment},
                    start_new_session=True,
                    user=user,
                    group=group,
                    extra_groups=None if user is None else [],
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

    def wait_end(self, deadline: float, give_up: Callable[[], bool] = lambda: False) -> None:
        """Wait until it has done what it had to and ended, at most `deadline` seconds.

        Returns early when `give_up()` is true. Raises `ProcessFailed` when it fails.
        """
        end = self._clock() + deadline
        while self.running:
            if give_up():
                return
            if self._clock() >= end:
                raise ProcessFailed(f"{self.name} took more than {deadline:g} s.{self._said()}")
            self._sleep(PAUSE)
        if self.status:
            raise ProcessFailed(f"{self.name} {self._how()}.{self._said()}")

    def stop(self, limit: float = STOP_LIMIT) -> None:
        """Ask it to end, SIGKILL after `limit` seconds; returns when it is gone."""
        self.terminate()
        end = self._clock() + limit
        while self.running and self._clock() < end:
            self._sleep(PAUSE)
        self.kill()

    def terminate(self) -> None:
        """Ask the group to end, and don't wait. A paused one is resumed for it."""
        self._act(lambda leader: family.signal_group(leader, self.command.stop))
        self.resume()

    def kill(self) -> None:
        """SIGKILL to all of it; returns when it has ended and closed its files."""
        with self._lock:
            self._act(family.kill)
            end = self._clock() + KILL_LIMIT
            while self.running:
                if self._clock() >= end:
                    raise ProcessFailed(f"{self.name} did not end {KILL_LIMIT:g} s after SIGKILL.")
                self._sleep(PAUSE)

    def pause(self) -> None:
        """SIGSTOP to all of it: the kernel still takes its connections, nobody answers."""
        with self._lock:
            self._act(self._pause)

    def resume(self) -> None:
        """SIGCONT to all of it."""
        with self._lock:
            self._paused = frozenset()
            self._act(self._resume)

    def signal_leader(self, number: signal.Signals) -> None:
        """A signal to its leader alone, not to the group; nothing happens when it has ended."""
        self._act(lambda leader: os.kill(leader, number))

    def _act(self, act: Callable[[int], None]) -> None:
        with self._lock:
            if self.running and self._child is not None:
                act(self._child.pid)

    def _pause(self, leader: int) -> None:
        self._paused = family.pause(leader)
        self.changed = time.time()

    def _resume(self, leader: int) -> None:
        family.resume(leader)
        self.changed = time.time()

    def _sweep(self, child: subprocess.Popen[bytes]) -> None:
        """Its leader has ended: end the rest of its group, and reap the leader."""
        family.signal_group(child.pid, signal.SIGKILL)
        family.kill_paused(self._paused)
        self._paused = frozenset()
        self._guard.forget(child.pid)
        self.status = child.wait(KILL_LIMIT)
        self.ended = _described(self.status)
        self.changed = time.time()
        self._child = None
        # All of them are gone when nobody can write to their output any more; others
        # than init may be slow to reap them, so their ids say nothing.
        self._silent.wait(KILL_LIMIT)

    def _how(self) -> str:
        return self.ended or "ended"

    def _said(self) -> str:
        lines = self._output.last_lines(self.name)
        return f" It said:\n{lines}" if lines else " It said nothing."


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
