"""What is known of a process of the site -> its state, and how both are shown.

Nothing is looked up here: `look` finds the facts.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final


class State(StrEnum):
    """How a process is. The order is from the worst to the best."""

    FAILING = "failing"
    KILLED = "killed"
    STOPPED = "stopped"
    FROZEN = "frozen"
    RESTARTING = "restarting"
    STARTING = "starting"
    READY = "ready"


#: Before the word, so that a glance is enough; in every font that has geometric shapes.
SIGNS: Final[Mapping[State, str]] = {
    State.FAILING: "▲",
    State.KILLED: "✕",
    State.STOPPED: "○",
    State.FROZEN: "■",
    State.RESTARTING: "◐",
    State.STARTING: "◐",
    State.READY: "●",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found of one process.

    `held`: the watch does not start it again. `status` is its exit status, or minus
    the signal, once it has ended. `problem` is what its check found, "" if nothing;
    `was_ready` is whether this process has ever passed it.
    """

    running: bool
    stopped: bool = False
    held: bool = False
    status: int | None = None
    problem: str = ""
    was_ready: bool = False


def state_of(facts: Facts) -> State:
    """The state that follows from the facts."""
    if facts.running and facts.stopped:
        return State.FROZEN
    if facts.running and not facts.problem:
        return State.READY
    if facts.running:
        return State.FAILING if facts.was_ready else State.STARTING
    if not facts.held:
        return State.RESTARTING
    return State.KILLED if facts.status == -signal.SIGKILL else State.STOPPED


@dataclass(frozen=True, slots=True)
class Status:
    """One process at one time. What is measured in other ways later gets a field here.

    `memory` is in bytes, of it and all that descend from it, where the system tells;
    `since` is when it came into this state, in seconds of Unix time.
    """

    name: str
    role: str
    state: State
    address: str
    pid: int | None
    memory: int | None
    since: float
    problem: str = ""

    @property
    def server(self) -> str:
        """The server that it belongs to: one with several roles has a process for each."""
        return self.name.partition(":")[0]


def as_json(statuses: Iterable[Status]) -> list[dict[str, Any]]:
    """For JSON; `from_json` reads it."""
    return [asdict(status) for status in statuses]


def from_json(found: Iterable[Mapping[str, Any]]) -> tuple[Status, ...]:
    """What `as_json` made. Raises KeyError, TypeError or ValueError for anything else."""
    return tuple(Status(**{**one, "state": State(one["state"])}) for one in found)


def worst(statuses: Iterable[Status]) -> dict[str, State]:
    """The state of each server: the worst of its processes'."""
    order = list(State)
    found: dict[str, State] = {}
    for status in statuses:
        states = (status.state, found.get(status.server, State.READY))
        found[status.server] = min(states, key=order.index)
    return found


def shown(state: State) -> str:
    """A state for people."""
    return f"{SIGNS[state]} {state}"


def shown_memory(size: int | None) -> str:
    """Bytes for people, in MB; "" where they are not known."""
    return "" if size is None else f"{size / 1e6:.0f} MB"


def shown_age(seconds: float) -> str:
    """A length of time for people: seconds, minutes, hours or days."""
    whole = max(0, int(seconds))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if whole >= size:
            return f"{whole // size} {unit}"
    return f"{whole} s"
