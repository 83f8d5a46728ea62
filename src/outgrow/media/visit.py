"""One media server, and what the probe has made there and must take away again.

The laws:

1. Nothing is changed outside one folder with 128 random bits in its name, which the
   visit makes itself; anything else is refused before it is sent. Nothing else in Outgrow
   sends a DELETE that can remove a folder, and this only for that one and what is below
   it (promise M8).
2. What a request may have made is on the lists before it is sent, and leaves them when
   the server has said that it is not there. Whatever breaks the visit off, what is on the
   lists is removed, or told.
3. Every request has a deadline, that of the storage's own saves.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from outgrow import fanout, names
from outgrow.access import Access
from outgrow.answer import Response
from outgrow.errors import ServerError
from outgrow.exchange import Limits
from outgrow.fanout import DEADLINE, UNDECIDED, Outcome
from outgrow.http import FileBody, Pool, Request
from outgrow.media.findings import DELETE_DONE, GONE, HOMELESS, Subject
from outgrow.media.remedies import Kind
from outgrow.servers import Server

#: Bytes of the largest body that is sent, if nothing else is said.
MAX_BODY: Final = 64 << 20

#: Every final status is an answer here; `findings` judges it.
_ANY: Final = frozenset(range(200, 1000))

#: Silent failures after which the rest is not asked to go any more.
_PATIENCE: Final = 2


@dataclass(frozen=True, slots=True)
class Setup:
    """How a storage speaks to its servers: its own options. Times are in seconds.

    `keep`: names are used again. `max_body`: the largest body that is sent, in bytes; 0
    sends none.
    """

    limits: Limits = field(default_factory=Limits)
    access: Access = field(default_factory=Access)
    deadline: float = DEADLINE
    keep: bool = False
    max_body: int = MAX_BODY


class Visit:
    """One server, and what the probe has made there. Used by one thread.

    `files` and `folders` hold names that may be there now; `unsure` those whose PUT or
    MKCOL had no answer. Each request raises `ServerError` when no answer comes.
    """

    def __init__(
        self, server: Server, setup: Setup, pool: Pool, clock: Callable[[], float]
    ) -> None:
        self.server = server
        self.setup = setup
        self.subject = Subject(server.name, keep=setup.keep)
        self.folder = f"{names.PROBE_PREFIX}{secrets.token_hex(16)}"
        self.files: set[str] = set()
        self.folders: set[str] = set()
        self.unsure: set[str] = set()
        self._replaced: set[str] = set()
        self.clock = clock
        self._pool = pool

    @property
    def has_folders(self) -> bool:
        """Whether the probe makes folders. Outgrow's own server would keep them for ever."""
        return self.subject.kind is not Kind.OWN

    def name(self, last: str) -> str:
        """The name of one of the probe's files on the server."""
        return f"{self.folder}{'/' if self.has_folders else '-'}{last}"

    def meet(self, kind: Kind) -> None:
        """Remember which program it is."""
        self.subject = Subject(self.server.name, kind, self.setup.keep)

    def get(self, name: str, **headers: str) -> Response:
        """Read a file, or ask in vain for one."""
        return self._send("GET", name, headers)

    def ask(self, method: str, name: str, **headers: str) -> Response:
        """Any request that has no body. In `headers`, ``If_Match`` stands for If-Match."""
        return self._send(method, name, headers)

    def put(
        self,
        name: str,
        body: bytes | FileBody,
        *,
        pool: Pool | None = None,
        **headers: str,
    ) -> Response:
        """Write a file of the probe's own, by another `pool` where one is given."""
        new, folders = name not in self.files, set(self.folders)
        self.files.add(name)
        self.unsure.add(name)
        if not new:
            self._replaced.add(name)
        self.folders.update(_above(name))
        outcome = self._run("PUT", name, headers, body, pool)
        answer = outcome.done.get(self.server)
        if outcome.failed or (answer and answer.status not in UNDECIDED):
            self.unsure.discard(name)
        if new and (outcome.failed or (answer and 300 <= answer.status < 500)):
            self.files.discard(name)
            self.folders = folders
        return self._answer(outcome)

    def put_deep(self, name: str, body: bytes) -> list[Response]:
        """The same, with the folder above it where the server wants that made (MKCOL)."""
        answers = [self.put(name, body)]
        if answers[0].status in HOMELESS and self.has_folders:
            answers.append(self._make_folder(_above(name)[-1]))
            answers.append(self.put(name, body))
        return answers

    def _make_folder(self, folder: str) -> Response:
        new = folder not in self.folders
        self.folders.add(folder)
        self.unsure.add(f"{folder}/")
        answer = self._send("MKCOL", f"{folder}/")
        if answer.status not in UNDECIDED:
            self.unsure.discard(f"{folder}/")
        if new and 300 <= answer.status < 500:
            self.folders.discard(folder)
        return answer

    def delete(self, name: str, **headers: str) -> Response:
        """Remove a file or a folder of the probe's own."""
        answer = self._send("DELETE", name, headers)
        if answer.status in DELETE_DONE:
            self.files.discard(name)
            if answer.status not in GONE and name not in self._replaced:
                self.unsure.discard(name)  # it was carried out, so it is not to come
            self.folders.discard(name.rstrip("/"))
        return answer

    def clean_up(self) -> None:
        """Remove what is left, the folders last. What can't be removed stays on the lists."""
        silent = 0
        deepest_first = sorted(self.folders, key=len, reverse=True)
        for name in (*sorted(self.files), *(f"{one}/" for one in deepest_first)):
            try:
                self.delete(name)
            except ServerError:
                silent += 1
            if silent == _PATIENCE:
                return

    def _send(
        self, method: str, name: str, headers: Mapping[str, str] = MappingProxyType({})
    ) -> Response:
        return self._answer(self._run(method, name, headers))

    def _run(
        self,
        method: str,
        name: str,
        headers: Mapping[str, str],
        body: bytes | FileBody = b"",
        pool: Pool | None = None,
    ) -> Outcome:
        given = tuple((key.replace("_", "-"), text) for key, text in headers.items())
        request = Request(method, name, _ANY, given, body)
        if request.changes:
            self._check(name)
        return fanout.run(
            pool or self._pool,
            {self.server: request},
            need=1,
            deadline=self.clock() + self.setup.deadline,
            limits=self.setup.limits,
            clock=self.clock,
        )

    def _answer(self, outcome: Outcome) -> Response:
        for error in outcome.missed.values():
            raise error
        return outcome.done[self.server]

    def _check(self, name: str) -> None:
        """Law 1: nothing of anybody else's is changed. Raises ValueError, or UnsafeName."""
        names.check(name.removesuffix("/"))
        if not name.startswith((f"{self.folder}/", f"{self.folder}-")):
            raise ValueError(f"the probe must not change {name!r}: it has not made it")


def _above(name: str) -> list[str]:
    """The folders above a file, the outermost first."""
    parts = name.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]
