"""Reading a file that lies on several servers: which is asked, and what is believed.

The laws:

1. Servers that are down, or are owed the name, are asked last. A name has the same first
   server everywhere (rendezvous hashing), so that its pages are in that one's cache.
2. Any error fails over to the next server. A body that breaks off is continued from
   another one at the byte where it ended.
3. What is returned is whole or an error (promise M6): a file that is shorter than it
   should be is never ended quietly, and what is read is compared with the digest on record,
   as far as `outgrow.media.proof` says.
4. That a file is not there is believed of the journal, and of the servers only where the
   journal has not heard of it. That it is there is believed then of a server that knows
   whose it is: another one may answer 200 to everything.
"""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import IO, Any, Final, Protocol

from outgrow.download import PIECE, Download
from outgrow.errors import (
    BadAnswer,
    CatalogueUnavailable,
    NoCopy,
    ServerError,
    UnexpectedStatus,
)
from outgrow.fanout import DEADLINE, Outcome
from outgrow.http import FileBody
from outgrow.media.journal import Journal, Look, Wanted
from outgrow.media.proof import Proof
from outgrow.servers import Health, Server, ServerSet

#: Seconds for which is believed which servers are owed anything at all.
OWING_FOR: Final = 2.0

_RANGE: Final = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+)")
_MISSING: Final = frozenset({404, 410})

#: What to do about a copy that has gone bad.
_MEND: Final = "To mend it, run: manage.py outgrow media verify --digest --repair"

logger = logging.getLogger("outgrow.media")


class ReadTransport(Protocol):
    """What reading needs of a transport."""

    health: Health

    @property
    def servers(self) -> tuple[Server, ...]:
        """All media servers."""

    def get(self, name: str, server: Server, *, offset: int = 0) -> Download:
        """Begin to read a file. Raises `ServerError`."""

    def stat(self, name: str, *, servers: Any, deadline: float) -> Outcome:
        """Ask whether a file is there."""

    def distrusted(self, servers: Iterable[Server]) -> dict[Server, ServerError]:
        """Those that are not believed to have what they say, and why."""


class Reader:
    """Reads over the servers of one transport. Thread-safe."""

    def __init__(
        self,
        transport: ReadTransport,
        journal: Journal,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self._journal = journal
        self._clock = clock
        self._owing: tuple[float, frozenset[str]] = (-OWING_FOR, frozenset())

    def open(self, name: str) -> RemoteFile:
        """A file that streams from a server; the first is asked at once.

        The journal says whether it is there, and its length (law 3); without the journal
        the first server that has it is believed. Raises `FileNotFoundError`, `NoCopy`, or
        `CatalogueUnavailable` when no server has it and the journal can't be asked.
        """
        look = Look(Wanted.UNHEARD)
        with suppress(CatalogueUnavailable):
            look = self._journal.look(name)
        if look.wanted is Wanted.GONE:
            raise FileNotFoundError(errno.ENOENT, "The file was deleted", name)
        file = RemoteFile(self, name, look)
        try:
            file.begin()
        except BaseException:
            file.close()
            raise
        return file

    def servers(self, name: str) -> Iterator[Server]:
        """The servers in the order in which they are to be asked (law 1)."""
        owing = self._owed(name)
        every = self._transport.servers
        ranked = ServerSet(every, self._transport.health).ranked(
            key=name, where=lambda server: server.name not in owing
        )
        asked = []
        for server in ranked:
            asked.append(server)
            yield server
        yield from (server for server in every if server not in asked)

    def _owed(self, name: str) -> set[str]:
        """The servers that are owed this name; asked only if any is owed anything."""
        at, owing = self._owing
        try:
            if self._clock() - at >= OWING_FOR:
                owing = frozenset(self._journal.servers())
                self._owing = (self._clock(), owing)
            return {
                server
                for server in owing
                if any(self._journal.debts(server, name)) or self._journal.is_owed_all(server)
            }
        except CatalogueUnavailable:
            return set()

    def get(self, name: str, server: Server, offset: int, *, heard: bool = True) -> Download:
        """Begin to read at an offset. Raises `ServerError`.

        What nobody has `heard` of is read only of a server that is believed (law 4).
        """
        if not heard:
            for problem in self._transport.distrusted([server]).values():
                raise problem
        return self._transport.get(name, server, offset=offset)

    def missing(self, name: str, problems: dict[Server, ServerError]) -> OSError:
        """The error for a file of which no server gave a copy (law 4)."""
        absent = all(_is_missing(error) for error in problems.values())
        try:
            wanted = self._journal.look(name).wanted
        except CatalogueUnavailable as error:
            if absent:
                return error
            wanted = Wanted.PRESENT
        if wanted is Wanted.GONE or (absent and wanted is Wanted.UNHEARD):
            return FileNotFoundError(errno.ENOENT, "No such file on any media server", name)
        reasons = "; ".join(str(error) for error in problems.values())
        return NoCopy(
            f"No media server has given {name!r}: {reasons}. Start those that are down; "
            "'manage.py outgrow media status' shows who is owed what."
        )

    def refuted(self, name: str, servers: Iterable[str]) -> NoCopy:
        """The error for a file that was read, and is not what was saved (law 3)."""
        return NoCopy(
            f"{name!r} as read from {', '.join(sorted(servers))} is not the file that was saved: "
            f"its SHA-256 is another one. Use nothing of what was read. {_MEND}"
        )

    def report(self, server: Server, name: str) -> None:
        """Say in the log that a server's copy was passed over."""
        text = "%s has another content for %r, and was passed over. %s"
        logger.warning(text, server, name, _MEND)

    def exists(self, name: str, *, enough: int) -> bool:
        """Whether `enough` servers have a file that the journal has not heard of.

        Raises `NoCopy` when too few servers can be asked.
        """
        servers = self._transport.servers
        outcome = self._transport.stat(name, servers=servers, deadline=self._clock() + DEADLINE)
        have = [server for server, answer in outcome.done.items() if answer.status == 200]
        for server, problem in self._transport.distrusted(have).items():
            del outcome.done[server]
            outcome.failed[server] = problem
        count = len(outcome.done.keys() & set(have))
        if count >= enough:
            return True
        if count + len(outcome.missed) < enough:
            return False
        raise self.missing(name, outcome.missed)

    # --- for repair

    @contextmanager
    def copy(self, name: str, look: Look) -> Iterator[FileBody | None]:
        """A whole copy of a file in a temporary one, to send to servers that lack it.

        Its length and digest are compared with what the journal says. Raises `NoCopy`.
        """
        with tempfile.TemporaryFile(prefix="outgrow-copy-") as target:
            problems = {}
            for server in self.servers(name):
                try:
                    self._fetch(name, server, look, target)
                except ServerError as error:
                    problems[server] = error
                    continue
                yield FileBody(target.fileno(), look.size)
                return
            missing = self.missing(name, problems)
            if not isinstance(missing, FileNotFoundError):
                raise missing
            yield None  # deleted meanwhile

    def _fetch(self, name: str, server: Server, look: Look, target: IO[bytes]) -> None:
        target.seek(0)
        target.truncate()
        digest = hashlib.sha256()
        with self.get(name, server, 0) as download:
            while data := download.read():
                digest.update(data)
                target.write(data)
        target.flush()
        if target.tell() != look.size or digest.hexdigest() not in look.identity:
            raise _another(server, name, target.tell())


class RemoteFile(io.RawIOBase):
    """One file on several servers, as Python's own file objects are. One thread uses it.

    It reads as it is asked to, and holds no more than one piece in memory, or a small file.
    `look` is what the journal says of it. Wrap it in `io.BufferedReader`.
    """

    def __init__(self, reader: Reader, name: str, look: Look) -> None:
        super().__init__()
        self.name = name
        self._reader = reader
        known = self._heard = look.wanted is Wanted.PRESENT
        self._size = look.size if known else None
        self._proof = Proof(look.size, look.identity) if known and look.identity else None
        self._position = 0
        self._download: Download | None = None
        self._problems: dict[Server, ServerError] = {}
        #: The servers whose bytes were read.
        self._givers: set[str] = set()
        #: A small file, once it is proved.
        self._content: bytes | None = None

    def begin(self) -> None:
        """Ask for the file from the position on, of one server after the other."""
        for server in self._reader.servers(self.name):
            if server in self._problems:
                continue
            try:
                self._download = self._begin(server)
            except ServerError as error:
                self._problems[server] = error
            else:
                return
        problems, self._problems = self._problems, {}
        raise self._reader.missing(self.name, problems)

    def _begin(self, server: Server) -> Download:
        start = offset = 0 if self._is_small else self._position
        proof = self._proof
        if proof is not None and self._givers and self._problems:
            proof = proof.resume(offset)
            start = offset if proof is None else min(offset, proof.summed)
        download = self._reader.get(self.name, server, start, heard=self._heard)
        try:
            self._check(download, start)
            while start < offset:  # what others have given, for the sum alone
                data = self._read(download, min(PIECE, offset - start))
                if proof is not None:
                    proof.add(start, data)
                start += len(data)
        except BaseException:
            download.close()
            raise
        self._proof = proof
        return download

    def _check(self, download: Download, start: int) -> None:
        """Whether this is the file, and go to where it is to begin (law 2)."""
        name = download.server.name
        if download.status == 206:
            found = _RANGE.fullmatch(download.headers.get("content-range", ""))
            if found is None or int(found[1]) != start:
                raise BadAnswer(name, "answered another range than was asked for")
            size, skip = int(found[3]), 0
        else:
            text = download.headers.get("content-length", "")
            if not text.isdigit():
                raise BadAnswer(name, "does not say how long the file is")
            size, skip = int(text), start
        if self._size is None:
            self._size = size
        if size != self._size:
            raise BadAnswer(name, f"has {size} bytes of the {self._size} of {self.name!r}")
        while skip:  # it knows no ranges
            skip -= len(self._read(download, min(PIECE, skip)))

    @property
    def size(self) -> int:
        """Bytes in the file."""
        if self._size is None:
            self.begin()
        assert self._size is not None  # begin() sets it or raises
        return self._size

    @property
    def modified(self) -> datetime:
        """When the file was changed last, as the server that gives it says (in UTC).

        Raises `NoCopy` when it does not say.
        """
        if self._download is None:
            self.begin()
        assert self._download is not None  # begin() sets it or raises
        text = self._download.headers.get("last-modified", "")
        try:
            return parsedate_to_datetime(text)
        except ValueError as error:
            raise NoCopy(
                f"{self._download.server.name} does not say when {self.name!r} was changed "
                f"(Last-Modified: {text[:40]!r}), and no catalogue knows it."
            ) from error

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is: by a request for a range."""
        return True

    def tell(self) -> int:
        """The position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to another position. Asks for nothing yet."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position}
        start = self.size if whence == io.SEEK_END else base[whence]
        target = start + offset
        if target < 0:
            raise ValueError(f"a position of {target} bytes is before the beginning")
        if target != self._position and not self._is_small:
            self._drop()
        self._position = target
        return target

    def readinto(self, buffer: Any) -> int:
        """Read what comes next; 0 at the end and not before (law 3)."""
        view = memoryview(buffer).cast("B")
        if not view or self._position >= self.size:
            return 0
        if self._is_small:
            data = self._whole()[self._position : self._position + len(view)]
        else:
            data = self._tried(partial(self._next, len(view)))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    @property
    def _is_small(self) -> bool:
        return self._proof is not None and self._proof.is_small

    def _tried(self, read: Callable[[Download], bytes]) -> bytes:
        """What can be read, from one server after the other."""
        while True:
            if self._download is None:
                self.begin()
            assert self._download is not None
            try:
                return read(self._download)
            except ServerError as error:
                self._problems[self._download.server] = error
                self._drop()

    def _next(self, size: int, download: Download) -> bytes:
        """The next piece of a file that is too large to be proved first."""
        data = self._read(download, size)
        self._givers.add(download.server.name)
        if self._proof is not None:
            self._proof.add(self._position, data)
            if self._proof.refuted:
                self._drop()
                raise self._reader.refuted(self.name, self._givers)
        if self._position + len(data) == self._size:
            download.read(1)  # the end gives the connection back
        return data

    def _whole(self) -> bytes:
        """A small file, proved; another server's if the first one's is not what was saved."""
        if self._content is None:
            self._content = self._tried(self._proved)
        return self._content

    def _proved(self, download: Download) -> bytes:
        assert self._proof is not None  # it is small
        content = b""
        while len(content) < self._proof.size:
            content += self._read(download, PIECE)
        proof = Proof(self._proof.size, self._proof.digests)
        proof.add(0, content)
        if proof.refuted:
            self._reader.report(download.server, self.name)
            raise _another(download.server, self.name, len(content))
        download.read(1)
        return content

    @staticmethod
    def _read(download: Download, size: int) -> bytes:
        data = download.read(size)
        if not data:
            raise BadAnswer(download.server.name, "ended before the file's end")
        return data

    def _drop(self) -> None:
        if self._download is not None:
            self._download.close()
            self._download = None

    def close(self) -> None:
        """Let go of the connection."""
        self._drop()
        super().close()


def _another(server: Server, name: str, size: int) -> BadAnswer:
    return BadAnswer(server.name, f"has another content for {name!r} ({size} bytes)")


def _is_missing(error: ServerError) -> bool:
    return isinstance(error, UnexpectedStatus) and error.status in _MISSING
