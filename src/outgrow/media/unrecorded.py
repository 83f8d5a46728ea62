"""No journal at all: for a storage that has neither a master nor a database.

The laws:

1. A save is on all servers, or is taken back. A delete is carried out by all, or raises.
2. Nothing is remembered beyond the call. What a killed process, or a server that fell silent,
   has left behind is on some servers for good; `left` is called with that, as far as it
   shows.
3. So nothing is ever owed, and there is nothing to repair.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from outgrow.http import FileBody
from outgrow.media import owners, spool
from outgrow.media.journal import (
    ATTEMPT_LIMIT,
    Attempt,
    Change,
    Debt,
    Heartbeat,
    Kind,
    Look,
    Wanted,
)
from outgrow.media.listing import Entry


class Unrecorded:
    """The journal of those who want none. `name` tells one site's servers from another's.

    `left` is called with a name and the servers on which a file of it may be left. Thread-safe.
    """

    has_digests = False
    keeps_records = False
    has_master = False

    def __init__(
        self,
        name: str,
        *,
        left: Callable[[str, list[str]], None],
        attempt_limit: float = ATTEMPT_LIMIT,
    ) -> None:
        self.name = name
        self.attempt_limit = attempt_limit
        self._left = left
        #: What this process is saving, or deleting, just now.
        self._looks: dict[str, Look] = {}
        self._claims: set[str] = set()

    @property
    def master_id(self) -> str:
        """The id that the servers hold: always the same one for a name."""
        return hashlib.sha256(f"outgrow {self.name}".encode()).hexdigest()[:32]

    def prepare(self) -> None:
        """See `Journal`."""

    def restore_folders(self) -> bool:
        """See `Journal`."""
        return False

    # --- attempts

    def attempt(self, name: str, change: Change) -> Attempt:
        """See `Journal`."""
        new_id = f"{int(time.time() * 1e6):014x}{secrets.token_hex(8)}"
        return Attempt(new_id, name, change, owners.own())

    def begin(self, attempt: Attempt) -> Path:
        """See `Journal`."""
        return spool.path(attempt)

    def draft(self, attempt: Attempt) -> Look:
        """See `Journal`."""
        return spool.look(attempt)

    def commit(self, attempt: Attempt, look: Look, *, mode: int | None = None) -> None:
        """See `Journal`. The name is new: it has 64 random bits."""
        del mode
        self._looks[attempt.name] = look

    def rename(self, attempt: Attempt, name: str) -> Attempt:
        """See `Journal`."""
        renamed = replace(self.attempt(name, attempt.change), owner=attempt.owner)
        os.rename(spool.path(attempt), spool.path(renamed))
        return renamed

    def restore(self, attempt: Attempt) -> bool:
        """See `Journal`. Names are never used again."""
        del attempt
        return False

    def accept(self, attempt: Attempt) -> None:
        """See `Journal`."""

    @contextmanager
    def opened(self, attempt: Attempt, look: Look) -> Iterator[FileBody | None]:
        """See `Journal`."""
        with spool.opened(attempt, look) as body:
            yield body

    def bury(self, attempt: Attempt) -> bool:
        """See `Journal`. Whether the file was there, only the servers know."""
        self._looks[attempt.name] = Look(Wanted.GONE)
        return True

    bury_unheard = bury

    def settle(self, attempt: Attempt, owed: Iterable[str], unknown: Iterable[str]) -> None:
        """See `Journal`. What is owed can't be kept (law 2)."""
        self._looks.pop(attempt.name, None)
        spool.remove(attempt)
        servers = sorted({*owed, *unknown})
        if servers:
            self._left(attempt.name, servers)

    def finish(self, attempt: Attempt) -> None:
        """See `Journal`."""

    def discard(self, attempt: Attempt) -> None:
        """See `Journal`."""
        self._looks.pop(attempt.name, None)
        spool.remove(attempt)

    def look(self, name: str) -> Look:
        """See `Journal`."""
        return self._looks.get(name, Look(Wanted.UNHEARD))

    # --- what the storage asks

    def saved_at(self, name: str) -> None:
        """Only the servers know."""
        del name

    def size(self, name: str) -> None:
        """Only the servers know."""
        del name

    def revoke(self, name: str) -> None:
        """There is no row that a transaction could take back."""

    # --- nothing is owed (law 3)

    def debts(self, server: str, name: str | None = None) -> Iterator[Debt]:
        """See `Journal`."""
        del server, name
        return iter(())

    def claim(self, debt: Debt) -> None:
        """See `Journal`."""
        del debt

    def confirm(self, found: Debt, claimed: Debt) -> None:
        """See `Journal`."""

    def release(self, found: Debt, claimed: Debt) -> None:
        """See `Journal`."""

    def forget(self, debt: Debt) -> None:
        """See `Journal`."""

    def is_abandoned(self, debt: Debt) -> bool:
        """See `Journal`."""
        del debt
        return True

    def attempts(self) -> Iterator[Attempt]:
        """See `Journal`."""
        return iter(())

    def is_dead(self, attempt: Attempt) -> bool:
        """See `Journal`."""
        del attempt
        return False

    def convert(self, attempt: Attempt, servers: Iterable[str]) -> bool:
        """See `Journal`."""
        del attempt, servers
        return False

    def reap(self, servers: Iterable[str]) -> list[str]:
        """See `Journal`."""
        del servers
        return []

    def sweep(self) -> int:
        """See `Journal`."""
        return spool.sweep()

    def entries(self, failed: Callable[[str, OSError], None], prefix: str = "") -> Iterator[Entry]:
        """See `Journal`."""
        del failed, prefix
        return iter(())

    def tombstones(self) -> Iterator[tuple[str, float]]:
        """See `Journal`."""
        return iter(())

    def servers(self) -> list[str]:
        """See `Journal`."""
        return []

    def count(self, server: str) -> int:
        """See `Journal`."""
        del server
        return 0

    def summary(self, server: str) -> tuple[int, int, float | None]:
        """See `Journal`."""
        del server
        return 0, 0, None

    def owe(self, server: str, name: str, *, unknown: bool = False) -> Debt:
        """See `Journal`."""
        self._left(name, [server])
        return Debt(server, "", Kind.UNKNOWN if unknown else Kind.OWED, name)

    def owe_all(self, server: str) -> Debt:
        """See `Journal`. A server that joins later has nothing of before."""
        return Debt(server, "", Kind.ALL)

    def is_owed_all(self, server: str) -> bool:
        """See `Journal`."""
        del server
        return False

    def holds(self, server: str, name: str) -> bool:
        """See `Journal`. All servers have what was saved (law 1)."""
        del server, name
        return True

    def is_claimed(self, server: str) -> bool:
        """See `Journal`. As far as this process knows."""
        return server in self._claims

    def set_claimed(self, server: str, *, claimed: bool = True) -> None:
        """See `Journal`."""
        (self._claims.add if claimed else self._claims.discard)(server)

    def claimed(self) -> list[str]:
        """See `Journal`."""
        return sorted(self._claims)

    def retire(self, server: str) -> None:
        """See `Journal`."""
        del server

    def write_heartbeat(self, watch: str, beat: dict[str, object]) -> None:
        """See `Journal`."""

    def heartbeats(self) -> list[Heartbeat]:
        """See `Journal`."""
        return []
