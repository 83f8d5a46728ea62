"""Looks at the processes of a site that runs: how is each, and what does it take?

The laws:

1. Nobody is asked anything while nobody looks: a check is a line in the server's log.
   While somebody looks, each is checked every EVERY seconds at most.
2. A look takes no longer than PATIENCE, whatever hangs; a check that goes on is looked
   for at the next look, and until then the server counts as silent.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from outgrow.topology import family
from outgrow.topology.local import LocalSite
from outgrow.topology.parts import Planned
from outgrow.topology.process import Check
from outgrow.topology.states import Facts, State, Status, state_of

#: Seconds between two checks of one process, and that one look waits for checks.
EVERY: Final = 3.0
PATIENCE: Final = 2.0

#: Seconds for the last checks to end, when the servers have ended.
_CLOSE_LIMIT: Final = 15.0


@dataclass(slots=True)
class _Known:
    """What is remembered of one process between two looks. Checks are of `pid` alone."""

    pid: int | None = None
    was_ready: bool = False
    problem: str = ""
    checked: float = float("-inf")
    thread: threading.Thread | None = None
    state: State | None = None
    changed: float = 0.0
    since: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Looker:
    """Looks at one site, which must be ready when this is entered as a context.

    Thread-safe. `close` after the site has stopped: then no check hangs any more.
    """

    def __init__(
        self,
        local: LocalSite,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._local = local
        self._clock = clock
        self._now = now
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}

    def __enter__(self) -> Self:
        for planned in self._local.plan.processes:
            pid = self._local.process(planned.name).pid
            self._known[planned.name] = _Known(pid, was_ready=pid is not None)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def look(self) -> tuple[Status, ...]:
        """Every process, in the order of start."""
        with self._lock:
            stopped = self._stopped()
            threads = [self._check(one, stopped) for one in self._local.plan.processes]
            end = self._clock() + PATIENCE
            for thread in filter(None, threads):
                thread.join(max(0.0, end - self._clock()))
            return tuple(self._status(one, stopped) for one in self._local.plan.processes)

    def close(self) -> None:
        """Wait for the checks that go on."""
        end = self._clock() + _CLOSE_LIMIT
        for known in self._known.values():
            if known.thread is not None:
                known.thread.join(max(0.0, end - self._clock()))

    def _stopped(self) -> frozenset[int]:
        pids = (self._local.process(one.name).pid for one in self._local.plan.processes)
        return family.stopped(frozenset(pid for pid in pids if pid is not None))

    def _check(self, planned: Planned, stopped: frozenset[int]) -> threading.Thread | None:
        """Begin to check it, when it is time; the thread that does."""
        known = self._known[planned.name]
        pid = self._local.process(planned.name).pid
        if planned.ready is None or pid is None or pid in stopped:
            return None
        if known.thread is not None and known.thread.is_alive():
            return known.thread
        with known.lock:
            if pid != known.pid:
                known.pid, known.was_ready = pid, False
                known.problem, known.checked = "it was not asked yet", float("-inf")
        # What is not ready is asked at each look: it becomes ready any moment.
        if not known.problem and self._clock() - known.checked < EVERY:
            return None
        known.thread = threading.Thread(
            target=self._ask, args=(planned.ready, known, pid), name="outgrow check", daemon=True
        )
        known.checked = self._clock()
        known.thread.start()
        return known.thread

    def _ask(self, check: Check, known: _Known, pid: int) -> None:
        problem = check.problem()
        with known.lock:
            if known.pid == pid:
                known.problem = problem
                known.was_ready = known.was_ready or not problem

    def _status(self, planned: Planned, stopped: frozenset[int]) -> Status:
        known, process = self._known[planned.name], self._local.process(planned.name)
        pid = process.pid
        with known.lock:
            problem, was_ready = known.problem, known.was_ready
        if planned.ready is None:
            problem = ""
        elif known.thread is not None and known.thread.is_alive():
            silent = self._clock() - known.checked
            problem = problem or (f"no answer for {silent:.0f} s" if silent >= 1 else "")
        facts = Facts(
            pid is not None,
            pid in stopped,
            self._local.is_held(planned.name),
            process.status,
            problem,
            was_ready,
        )
        state = state_of(facts)
        return Status(
            planned.name,
            planned.role,
            state,
            planned.url,
            pid,
            memory(pid) if pid is not None else None,
            self._since(known, state, process.changed),
            process.ended if pid is None else ("" if state is State.FROZEN else problem),
        )

    def _since(self, known: _Known, state: State, changed: float) -> float:
        """When it came into this state: as the process knows, else as was seen."""
        if changed != known.changed:
            known.since = changed
        elif state is not known.state:
            known.since = self._now()
        known.state, known.changed = state, changed
        return known.since


def memory(leader: int) -> int | None:
    """Bytes of a process and all that descend from it; None where the system does not tell.

    What several share counts once (PSS), where that may be read; else once for each.
    """
    found = [_memory(pid) for pid in (leader, *family.descendants(leader))]
    told = [size for size in found if size is not None]
    return sum(told) if told else None


def _memory(pid: int) -> int | None:
    folder = Path("/proc", str(pid))
    with suppress(OSError, ValueError, IndexError):
        for line in (folder / "smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    with suppress(OSError, ValueError, IndexError):
        return int((folder / "statm").read_text(encoding="ascii").split()[1]) * os.sysconf(
            "SC_PAGE_SIZE"
        )
    return None
