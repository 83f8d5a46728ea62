"""Repair that runs all the time: `manage.py outgrow media repair --watch`.

Every few seconds it asks each server for a sign of life and mends what is due. A
server that was down is noticed within an interval, and repaired one name at a
time. A name that a server refuses is tried again after a minute, then after
twice as long each time, up to about an hour, with jitter.
"""

from __future__ import annotations

import logging
import os
import random as random_module
import socket
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final

from outgrow.errors import JournalTooNew
from outgrow.media.journal import Debt
from outgrow.media.repair import Repair, Report

logger = logging.getLogger("outgrow.media")

#: Seconds between passes, and how much of it is drawn by chance.
INTERVAL: Final = 2.0
JITTER: Final = 0.25

#: Seconds before a refused name is tried again: doubled each time, up to the limit.
#: Garage's resync queue.
RETRY: Final = 60.0
RETRY_LIMIT: Final = 64 * 60.0

#: Refused names that are remembered; the oldest are tried again early.
REMEMBERED: Final = 10_000

#: Seconds between two heartbeats of a long pass, and between two passes that broke off.
BEAT_EVERY: Final = 5.0
LONGEST_PAUSE: Final = 60.0

#: Seconds between two sweeps of what is of no use any more.
SWEEP_EVERY: Final = 3600.0


class Watch:
    """Passes of repair, one after the other, until told to stop. One thread uses it.

    `wait` waits for so many seconds and returns true when the watch shall end, and
    `stopped` says so without waiting. `clock` gives seconds since the epoch, `random`
    numbers in [0, 1). `name` is the watch's own: its host and its process, if not given.
    """

    def __init__(
        self,
        repair: Repair,
        *,
        wait: Callable[[float], bool],
        stopped: Callable[[], bool] = lambda: False,
        interval: float = INTERVAL,
        clock: Callable[[], float] = time.time,
        random: Callable[[], float] = random_module.random,
        name: str = "",
    ) -> None:
        #: Several watches may run at once, and each counts what it did by itself.
        self.name = name or f"{socket.gethostname()[:64]}:{os.getpid()}"
        self._repair = repair
        self._wait = wait
        self._stopped = stopped
        self._interval = interval
        self._clock = clock
        self._random = random
        self._swept_at = 0.0
        self._beaten_at = 0.0
        #: Passes in a row that broke off.
        self._broken = 0
        #: Refused names by server: how often, and when to try again.
        self._refused: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()
        #: What this watch has done since it began.
        self._totals: Counter[str] = Counter(put=0, deleted=0, errors=0)
        #: Servers: whether up, since when, and the last error.
        self._seen: dict[str, dict[str, object]] = {}

    def run(
        self,
        told: Callable[[Report], None] = lambda _: None,
        broken: Callable[[OSError], None] = lambda _: None,
    ) -> None:
        """Pass after pass; `told` gets each report, `broken` the error of one that broke off.

        A full disk or a mount that is away ends a pass, and not the watch. Raises
        `JournalTooNew`, which only an upgrade mends.
        """
        while True:
            pause = self._interval
            try:
                told(self.once())
                self._broken = 0
            except JournalTooNew:
                raise
            except OSError as error:
                logger.warning("A pass of repair broke off: %s", error)
                broken(error)
                self._broken += 1
                pause = min(pause * 2.0 ** min(self._broken, 16), LONGEST_PAUSE)
            if self._wait(pause * (1 - JITTER + 2 * JITTER * self._random())):
                return

    def once(self) -> Report:
        """One pass, with a heartbeat before, after and during it."""
        self.beat()
        now = self._clock()
        sweep = now - self._swept_at > SWEEP_EVERY
        report = self._repair.once(
            settle=False,
            sweep=sweep,
            want=self._wants,
            progress=self._beat_now_and_then,
            go_on=lambda: not self._stopped(),
        )
        if sweep:
            self._swept_at = now
        self._totals.update(put=report.put, deleted=report.deleted, errors=len(report.errors))
        self._remember(report)
        self._notice(report)
        self.beat()
        return report

    def _beat_now_and_then(self, _: str) -> None:
        if self._clock() - self._beaten_at > BEAT_EVERY:
            self.beat()

    def beat(self) -> None:
        """Write that the watch is alive, and what it knows of each server."""
        self._beaten_at = self._clock()
        self._repair.journal.prepare()
        beat = {"at": self._clock(), "servers": self._seen, "totals": self._totals}
        self._repair.journal.write_heartbeat(self.name, beat)

    def _wants(self, debt: Debt) -> bool:
        _, not_before = self._refused.get((debt.server, debt.name), (0, 0.0))
        return self._clock() >= not_before

    def _remember(self, report: Report) -> None:
        for refused in report.errors:
            times = self._refused.pop(refused, (0, 0.0))[0]
            pause = min(RETRY * 2.0**times, RETRY_LIMIT) * (1 + JITTER * self._random())
            self._refused[refused] = (min(times + 1, 16), self._clock() + pause)
        while len(self._refused) > REMEMBERED:
            self._refused.popitem(last=False)

    def _notice(self, report: Report) -> None:
        for server in self._repair.servers:
            up = server.name not in report.down
            before = self._seen.get(server.name, {})
            changed = before.get("up") is not up
            self._seen[server.name] = {
                "up": up,
                "since": self._clock() if changed else before["since"],
                "error": report.down.get(server.name) or before.get("error", ""),
            }
