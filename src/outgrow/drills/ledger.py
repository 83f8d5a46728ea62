"""What clients were told, written down outside the site: a line of JSON for each request."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from outgrow.drills.judge import Request


class Ledger:
    """The requests of one run, in a file and counted. Thread-safe.

    Use it as a context manager: the file is closed at its end, and what comes then is an error.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._origin = time.monotonic()
        self._lock = threading.Lock()
        self._last_failure = 0.0
        self._last_success = 0.0

    def __enter__(self) -> Self:
        self._file = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def now(self) -> float:
        """Seconds since the run began: the clock of its requests."""
        return time.monotonic() - self._origin

    def add(self, request: Request) -> None:
        """Write down how a request has ended."""
        line = json.dumps(asdict(request), separators=(",", ":"))
        with self._lock:
            self._file.write(f"{line}\n")
            if request.ok:
                self._last_success = max(self._last_success, request.at)
            else:
                self._last_failure = max(self._last_failure, request.at)

    def calm_since(self, since: float) -> float:
        """Seconds for which what was sent has succeeded: those after `since`, and a failure."""
        with self._lock:
            return self._last_success - max(since, self._last_failure)

    def read(self) -> tuple[Request, ...]:
        """Every request, as the file has it."""
        with self._lock:
            if not self._file.closed:
                self._file.flush()
        with self.path.open(encoding="utf-8") as lines:
            return tuple(Request(**json.loads(line)) for line in lines)
