"""What one process knows of a primary and its replicas: who is how far behind, who has what.

Nothing here asks a server; what was seen is noted, with the time of a monotonic clock
in seconds. The laws:

1. Lag is not what a server says of itself. The primary's position is noted with its time;
   a replica is as old as the newest of those that it has replayed. So an idle primary
   is no lag, and a replica whose replay is paused is behind on a quiet site, too.
2. Nothing is known of a server at which nobody has looked for long.
3. What a replica was seen to have replayed holds for this incarnation of it. One that was
   killed and came back may serve older data than it did before.
4. That the primary can't be asked makes nobody younger: others may go on writing to it. Who
   serves while it is away is for `cluster` to say.
5. A replica that can be written to is none: it was promoted, and what it has is of another
   history, whatever its position says. MariaDB's numbers go on where the primary's were.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass, replace
from typing import Final

from outgrow.databases.position import Position
from outgrow.databases.probe import Sighting
from outgrow.databases.route import Wanted

#: Positions of the primary that are remembered: five times what `max_lag` asks for.
SAMPLES: Final = 500

#: Of the longest lag that counts: how far apart in time two of them are at least, but for the
#: newest. Each request that writes brings one, and a busy site's would soon fill the memory.
APART: Final = 1 / 100

#: What is said of a replica that law 5 rules out.
PROMOTED: Final = "can be written to, so it is no replica"

#: Seconds without an answer after which the primary counts as silent, at most.
SILENCE: Final = 2.0

#: The longest pause between two looks, in times of `check_every` (`watch.JITTER`).
JITTERED: Final = 1.25

#: What is known of a server is forgotten after so many times `check_every`.
FORGOTTEN: Final = 4


@dataclass(frozen=True, slots=True)
class Seen:
    """One server as it was seen: when, what, and how far behind it was, in seconds.

    `lag` is None where it can't be told, as without GTIDs; and infinite for a server that has
    not replayed the oldest position that is remembered, or that follows another primary.
    """

    at: float
    sighting: Sighting
    lag: float | None = 0.0


class Knowledge:
    """What is known of one cluster. Thread-safe.

    `check_every` and `max_lag` are in seconds, as in the options.
    """

    def __init__(self, *, check_every: float, max_lag: float) -> None:
        self._forgotten = FORGOTTEN * check_every
        self._oldest = max_lag + 2 * check_every
        self._apart = self._oldest * APART
        # Before the replicas count as behind for want of news of the primary, half of what is left.
        self._silence = min(SILENCE, max(0.0, (max_lag - JITTERED * check_every) / 2))
        self._asked: float | None = None
        self._lock = threading.Lock()
        self._max_lag = max_lag
        self._samples: deque[tuple[Position, float]] = deque(maxlen=SAMPLES)
        self._replicas: dict[str, Seen] = {}
        self.primary: Seen | None = None
        #: Why the primary could not be asked when it was tried last; empty if it could.
        self.primary_failure = ""

    def note_primary(self, sighting: Sighting, now: float) -> None:
        """The primary was seen: `now` is the time at which it was asked."""
        with self._lock:
            self._note_primary(sighting, now)

    def _note_primary(self, sighting: Sighting, now: float) -> None:
        self.primary_failure = ""
        self._asked = None
        if self._is_overtaken(sighting):
            return
        self.primary = Seen(now, sighting)
        position = sighting.position
        if position is None or not sighting.writable:
            return
        if self._samples:
            last = self._samples[-1][0]
            if last == position:
                self._samples.pop()
            elif last.reached_by(position) is not True:
                # Another server, or another history of the same: what was noted means nothing.
                self._samples.clear()
            elif self._is_crowded():
                self._samples.pop()
        self._samples.append((position, now))
        # A replica may have been seen before the first sample, or between two.
        for alias, seen in list(self._replicas.items()):
            self._replicas[alias] = replace(seen, lag=self._lag(seen.sighting, seen.at))

    def _is_crowded(self) -> bool:
        """Whether the newest position came too soon after the one before to be kept."""
        samples = self._samples
        return len(samples) > 1 and samples[-1][1] - samples[-2][1] < self._apart

    def _is_overtaken(self, sighting: Sighting) -> bool:
        """Whether another thread has noted a newer answer of the same server meanwhile.

        No incarnation of a server goes back.
        """
        if self.primary is None or not self._samples or sighting.position is None:
            return False
        last = self._samples[-1][0]
        return (
            self.primary.sighting.incarnation == sighting.incarnation
            and last != sighting.position
            and sighting.position.reached_by(last) is True
        )

    def note_primary_failed(self, reason: str) -> None:
        """The primary could not be asked."""
        self.primary_failure = reason or "no answer"
        self._asked = None

    def note_primary_asked(self, now: float) -> None:
        """The primary is being asked."""
        self._asked = now

    def primary_is_away(self, now: float) -> bool:
        """Whether the primary can't be asked, or has not answered for longer than is usual.

        One that is frozen answers nobody. Without news of it the replicas soon count as
        behind, and then all would wait for it.
        """
        asked = self._asked
        return bool(self.primary_failure) or (asked is not None and now - asked > self._silence)

    def note_replica(self, alias: str, sighting: Sighting, now: float) -> None:
        """A replica was seen. The newest that one incarnation has replayed is kept."""
        with self._lock:
            before = self._replicas.get(alias)
            self._replicas[alias] = Seen(now, _newest(before, sighting), self._lag(sighting, now))

    def forget_replica(self, alias: str) -> None:
        """What was seen of a replica holds no more: its connection broke."""
        with self._lock:
            self._replicas.pop(alias, None)

    def replica(self, alias: str) -> Seen | None:
        """The last that was seen of a replica."""
        return self._replicas.get(alias)

    def last_seen(self, alias: str) -> float:
        """When a replica has last answered a question; minus infinity if it never has."""
        seen = self._replicas.get(alias)
        return -math.inf if seen is None else seen.at

    def is_promoted(self, alias: str) -> bool:
        """Whether a replica was last seen to take writes."""
        seen = self._replicas.get(alias)
        return seen is not None and seen.sighting.writable

    def is_fresh(self, alias: str, now: float) -> bool:
        """Whether a replica was seen a moment ago, and not too far behind."""
        seen = self._replicas.get(alias)
        if seen is None or now - seen.at > self._forgotten:
            return False
        if seen.lag is None:
            return True
        # What `pin_for` covers: see the check of the options.
        return seen.lag <= self._max_lag and seen.lag + (now - seen.at) <= self._oldest

    def is_behind(self, alias: str, now: float) -> bool:
        """Whether a replica was seen a moment ago, and is known to be too far behind."""
        seen = self._replicas.get(alias)
        if seen is None or now - seen.at > self._forgotten or seen.lag is None:
            return False
        return self._max_lag < seen.lag < math.inf

    def age(self, alias: str, now: float) -> float:
        """How old what a replica serves may be, in seconds: infinite if nothing is known."""
        seen = self._replicas.get(alias)
        if seen is None or seen.lag is None:
            return math.inf
        return seen.lag + (now - seen.at)

    def has_replayed(self, alias: str, incarnation: str, wanted: Wanted) -> bool:
        """Whether this incarnation of a replica was seen to have all that is wanted."""
        seen = self._replicas.get(alias)
        if seen is None or not incarnation or seen.sighting.incarnation != incarnation:
            return False
        if seen.sighting.writable:
            return False  # law 5
        return wanted.reached_by(seen.sighting.position)

    def _lag(self, sighting: Sighting, now: float) -> float | None:
        if sighting.writable:
            return math.inf  # law 5
        if not self._samples:
            if self.primary is not None and self.primary.sighting.position is None:
                return None  # there are no positions in this cluster
            return math.inf
        replayed = sighting.position
        if replayed is None:
            return math.inf
        for position, at in reversed(self._samples):
            if position.reached_by(replayed) is True:
                return max(0.0, now - at)
        return math.inf


def _newest(before: Seen | None, sighting: Sighting) -> Sighting:
    """What was seen now, or before, of the same incarnation: the newer of both."""
    if before is None or before.sighting.incarnation != sighting.incarnation:
        return sighting
    old, new = before.sighting.position, sighting.position
    if old is None or new is None or new.reached_by(old) is not True:
        return sighting
    return Sighting(sighting.incarnation, sighting.writable, old)
