"""A new version of a site that runs: which steps, and in which order.

The laws:

1. No process is told before the new code was seen to load in one of its own.
2. The tables come next, once, and before any process has the new code.
3. One process at a time is told, and the next one when that is ready again: application servers
   first, for they answer visitors; then those that take their tasks.
4. Who does not run is left alone: it has the new code when it is started.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from outgrow.topology.model import MIGRATE, REPAIR
from outgrow.topology.states import State, Status

#: The step that loads the new code.
CHECK: Final = "check"

#: The roles whose processes have the site's code, in their order.
ROLES: Final = ("app", "worker", REPAIR)

#: Who is in such a state answers nobody, and would not come back by a reload.
_AWAY: Final = frozenset({State.KILLED, State.STOPPED, State.FROZEN})


@dataclass(frozen=True, slots=True)
class Deployment:
    """What is to be done: steps of the whole site, then processes, each by its name.

    `away` are those that are left alone.
    """

    steps: tuple[str, ...]
    told: tuple[str, ...]
    away: tuple[str, ...] = ()

    def left(self, done: int) -> str:
        """Which processes still have the old code when so many were told, in words."""
        return ", ".join(self.told[done:])


def deployment(statuses: Iterable[Status], *, migrate: bool) -> Deployment:
    """What follows from how the processes are. `migrate`: the tables are to be changed, too."""
    ours = [one for role in ROLES for one in statuses if one.role == role]
    return Deployment(
        (CHECK, MIGRATE) if migrate else (CHECK,),
        tuple(one.name for one in ours if one.state not in _AWAY),
        tuple(one.name for one in ours if one.state in _AWAY),
    )
