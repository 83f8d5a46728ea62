"""Processes and all that descend from them. Run as a script, this is the guard.

The laws:

1. A group's leader is stopped before anything is read or killed: then it makes no
   more children, and those that it has stay its own, zombies too.
2. Who descends from whom is read from what everybody may read: /proc, or `ps`.

PostgreSQL's processes each lead a group of their own, so that signals to the
postmaster's group reach the postmaster alone.

The guard reads "+PID" and "-PID", a line each, and kills what is left after the last
one. It must start quickly: nothing is imported here that it does not need.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

#: Seconds to wait for a signal to have its effect; a process that writes may take a while.
LIMIT = 2.0

_PAUSE = 0.001

_STOPPED = "Tt"
_ZOMBIE = "ZX"


def kill(leader: int) -> None:
    """SIGKILL to a process, to its group and to all that descend from it."""
    _stop_leader(leader)
    end = time.monotonic() + LIMIT
    while (found := descendants(leader)) and time.monotonic() < end:
        for pid in found:
            _signal(pid, signal.SIGKILL)
        time.sleep(_PAUSE)
    signal_group(leader, signal.SIGKILL)


def pause(leader: int) -> frozenset[int]:
    """SIGSTOP to the same; the descendants that were there."""
    _stop_leader(leader)
    signal_group(leader, signal.SIGSTOP)
    stopped: set[int] = set()
    while new := descendants(leader) - stopped:
        for pid in new:
            _signal(pid, signal.SIGSTOP)
        stopped |= new
    return frozenset(stopped)


def resume(leader: int) -> None:
    """SIGCONT to the same."""
    for pid in descendants(leader):
        _signal(pid, signal.SIGCONT)
    signal_group(leader, signal.SIGCONT)


def kill_paused(pids: frozenset[int]) -> None:
    """SIGKILL to those of these that are still stopped: a stopped one's id is its own."""
    everyone = _everyone() if pids else {}
    for pid in pids & everyone.keys():
        if everyone[pid][1] in _STOPPED:
            _signal(pid, signal.SIGKILL)


def descendants(leader: int) -> set[int]:
    """Those that descend from this process and have not ended."""
    everyone = _everyone()
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in everyone.items():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    ask = [leader]
    while ask:
        for pid in children.get(ask.pop(), ()):
            if pid not in found:
                found.add(pid)
                ask.append(pid)
    return {pid for pid in found if everyone[pid][1] not in _ZOMBIE}


def stopped(pids: frozenset[int]) -> frozenset[int]:
    """Those of these that are stopped, by whomever."""
    everyone = _everyone()
    return frozenset(pid for pid in pids & everyone.keys() if everyone[pid][1] in _STOPPED)


def _stop_leader(leader: int) -> None:
    # The leader alone: while a child of vfork(2) is stopped its parent does not stop.
    _signal(leader, signal.SIGSTOP)
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        _, state = _everyone().get(leader, (0, _ZOMBIE[0]))
        if state in _STOPPED + _ZOMBIE:
            return
        time.sleep(_PAUSE)


def _everyone() -> dict[int, tuple[int, str]]:
    """Every process: its parent, and the letter of its state."""
    return dict(_linux() if os.path.isdir("/proc/self") else _others())


def _linux() -> Iterator[tuple[int, tuple[int, str]]]:
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as stream:
                # proc(5): pid (name) state ppid; the name may hold anything.
                state, parent = stream.read().rpartition(b")")[2].split()[:2]
        except (OSError, ValueError):  # it has just ended
            continue
        yield int(name), (int(parent), state.decode())


def _others() -> Iterator[tuple[int, tuple[int, str]]]:
    with os.popen("ps -A -o pid= -o ppid= -o state=") as stream:  # noqa: S605 - constant
        for line in stream:
            pid, parent, state = line.split()[:3]
            yield int(pid), (int(parent), state[0])


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def signal_group(group: int, number: signal.Signals) -> None:
    """A signal to a group alone; nothing happens when there is none."""
    # A group that has no process left but its dead leader answers EPERM on macOS.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _guard() -> None:
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        (groups.add if line[0] == "+" else groups.discard)(group)
    for group in groups:
        kill(group)


if __name__ == "__main__":
    _guard()
