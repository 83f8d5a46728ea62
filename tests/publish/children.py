"""A publisher, or a prune, in a process of its own that ends itself at a step.

``python -m tests.publish.children TARGET SOURCE STEP publish | prune DAYS | rollback RELEASE``: it
ends itself before (STEP 1, 3, 5...) or after (2, 4, 6...) its first, second, third... request.
With 0 it lives.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings

from outgrow.publish.prune import Policy, Prune
from outgrow.publish.push import serve_again
from outgrow.publish.targets import Target
from tests.publish.sites import publish, target_of


class Deadly:
    """A target whose process ends at one of its requests."""

    def __init__(self, target: Target, step: int) -> None:
        self._target = target
        self._left = (step + 1) // 2
        self._is_before = bool(step % 2)
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if name not in {"listing", "read", "write", "note", "create", "open", "delete", "settle"}:
            return found
        return self._deadly(found)

    def _deadly(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            with self._lock:  # several threads send
                self._left -= 1
                is_mine = self._left == 0
            if is_mine and self._is_before:
                self._die()
            result = method(*given, **named)
            if is_mine:
                self._die()
            return result

        return call

    @staticmethod
    def _die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    settings.configure(USE_TZ=True)
    target: Any = Deadly(target_of(sys.argv[1]), int(sys.argv[3]))
    what, *more = sys.argv[4:]
    if what == "publish":
        publish(target, Path(sys.argv[2]))
    elif what == "prune":
        ahead = timedelta(days=float(more[0]))
        policy = Policy(keep=1, older=timedelta(0))
        Prune(target, policy, clock=lambda: datetime.now(UTC) + ahead).apply()
    else:
        serve_again(target, more[0])


if __name__ == "__main__":
    main()
