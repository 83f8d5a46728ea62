"""Work that goes on in the background of this process: one thread, a bounded queue.

The laws:

1. What is offered stands in a record already. So nothing here needs to be safe: a
   process that dies, a queue that is full and an error in the thread lose no more than
   time, for a repair pass finds the record.
2. The thread begins with the first offer, and in each process by itself: a fork leaves
   the parent's queue to the parent.
3. At the end of the process the queue is worked off for `drain` seconds, and no longer.
4. When the queue is empty for the first time, and whenever something did not fit, the
   thread catches up once with what is owed, in the pauses of the queue.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

logger = logging.getLogger("outgrow.media")

Item = TypeVar("Item")


class Background(Generic[Item]):
    """One thread that takes items one by one. Thread-safe and fork-safe.

    `handle` does one item; `catch_up` does what is owed, as long as its argument says
    that nobody waits, and returns whether it came to the end. Up to `backlog` items
    wait; at exit up to `drain` seconds are given to them.
    """

    def __init__(
        self,
        handle: Callable[[Item], object],
        catch_up: Callable[[Callable[[], bool]], bool],
        *,
        backlog: int,
        drain: float,
    ) -> None:
        self._handle = handle
        self._catch_up = catch_up
        self._backlog = backlog
        self.drain_within = drain
        self._begin()
        _all.add(self)

    def _begin(self) -> None:
        """The state of a process in which nothing was offered yet."""
        self._lock = threading.Lock()
        self._queue: queue.Queue[Item | None] = queue.Queue(self._backlog)
        self._thread: threading.Thread | None = None
        self._behind = True
        self._ending = False

    def offer(self, item: Item) -> bool:
        """Put an item in the queue. False when that is full: then it is caught up with later."""
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            self._behind = True
            return False
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._ending = False
                self._thread = threading.Thread(target=self._run, name="outgrow-media", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:  # the interpreter ends, or has no room for a thread
                    self._begin()
                    return False
        return True

    @property
    def waiting(self) -> int:
        """Items that are in the queue or being handled."""
        return self._queue.unfinished_tasks

    def drain(self, within: float | None = None) -> bool:
        """Let the thread work off the queue and end. False when the time was too short.

        `within` is in seconds, and `drain` of the constructor without it. What is left
        stays on record. The next offer begins a new thread.
        """
        thread = self._thread
        if thread is None:
            return True
        self._ending = True
        with contextlib.suppress(queue.Full):  # then it is awake
            self._queue.put_nowait(None)
        thread.join(self.drain_within if within is None else within)
        return not thread.is_alive()

    # --- the thread

    def _run(self) -> None:
        while not (self._ending and self._queue.empty()):
            item = self._queue.get()
            if item is not None:
                self._guarded(partial(self._handle, item))
            self._queue.task_done()
            if self._behind and self._nobody_waits():
                self._behind = False
                self._behind = not self._guarded(lambda: self._catch_up(self._nobody_waits))

    def _nobody_waits(self) -> bool:
        return self._queue.empty() and not self._ending

    def _guarded(self, work: Callable[[], object]) -> object:
        """Whatever breaks is told, and the thread lives: the record is there (law 1)."""
        try:
            return work()
        except Exception:
            logger.exception("Work in the background failed; a repair pass will do it")
            self._behind = True
            return True


_all: weakref.WeakSet[Background[Any]] = weakref.WeakSet()


def _drain_all() -> None:
    """Give every queue of this process its time, from one clock."""
    end = {one: time.monotonic() + one.drain_within for one in _all}
    for one, until in end.items():
        one.drain(max(0.0, until - time.monotonic()))


def _forget_all() -> None:
    for one in list(_all):
        one._begin()  # noqa: SLF001 - this module's own


atexit.register(_drain_all)
os.register_at_fork(after_in_child=_forget_all)
