"""Clients that ask a site at a fixed rate, whether or not it answers (an "open loop").

The laws:

1. A request is due when its time has come, not when the last answer has. One that can't be sent
   because `MOST` others are out has failed.
2. What may have been carried out is not sent again. An address that could not be connected to
   was sent nothing: the next is tried, as browsers do with several A records.
3. A client keeps its cookies, and has one request after another in mind: who has written reads
   what he wrote.
"""

from __future__ import annotations

import hashlib
import http.client
import itertools
import json
import secrets
import threading
import urllib.request
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from http.cookiejar import CookieJar
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from outgrow.drills.judge import DELETE, READ, READ_BACK, UPLOAD, WRITE, Request
from outgrow.drills.ledger import Ledger
from outgrow.topology.model import Port

#: Requests that are out at once, each in a thread.
MOST: Final = 128

#: Clients; each has cookies of its own.
CLIENTS: Final = 16

#: Seconds for a connection, and for an answer without progress.
CONNECT: Final = 2.0
TIMEOUT: Final = 10.0

#: Bytes of an upload.
SIZE: Final = 4096

#: Uploads that may still be deleted; of more than these, some are never.
_KEPT: Final = 1000

#: What is asked, again and again. Of a site whose rows are not the run's, what needs none.
_WITH_ROWS: Final = (READ, WRITE, READ, UPLOAD, READ, WRITE, READ, WRITE, UPLOAD, DELETE)
_WITHOUT_ROWS: Final = (READ, READ, UPLOAD, READ, UPLOAD, DELETE)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, or why there is none."""

    status: int = 0
    body: bytes = b""
    problem: str = ""


class Client:
    """One visitor: his cookies, and the addresses that he knows. Thread-safe."""

    def __init__(self, doors: Sequence[Port], prefix: str) -> None:
        self._doors = doors
        self._prefix = prefix
        self._cookies = CookieJar()

    def ask(self, first: int, method: str, what: str, body: bytes = b"") -> Answer:
        """Send a request by the door number `first`, or else by the next that can be entered."""
        problem = ""
        for number in range(len(self._doors)):
            door = self._doors[(first + number) % len(self._doors)]
            connection = http.client.HTTPConnection(door.host, door.number, timeout=CONNECT)
            with closing(connection):
                try:
                    connection.connect()
                except OSError as error:
                    problem = f"{door}: {error}"
                    continue
                return self._send(connection, door, (method, f"/{self._prefix}{what}", body))
        return Answer(problem=problem)

    def _send(
        self, connection: http.client.HTTPConnection, door: Port, message: tuple[str, str, bytes]
    ) -> Answer:
        method, path, body = message
        # It is never opened; it is what a jar of cookies understands.
        asked = urllib.request.Request(door.url + path)  # noqa: S310 - HTTP, on this machine
        self._cookies.add_cookie_header(asked)
        connection.sock.settimeout(TIMEOUT)
        try:
            connection.request(method, path, body or None, {**asked.unredirected_hdrs})
            answer = connection.getresponse()
            self._cookies.extract_cookies(answer, asked)
            return Answer(answer.status, answer.read())
        except (OSError, http.client.HTTPException) as error:
            return Answer(problem=f"{door}: {error!r}")


class Load:
    """Asks `doors` in turn, `rate` times a second, from `start` to `stop`.

    What became of each request is written to `ledger`, by whose clock it goes.
    """

    def __init__(
        self, doors: Sequence[Port], prefix: str, ledger: Ledger, *, rate: float, rows: bool
    ) -> None:
        self._rate = rate
        self._ledger = ledger
        self._now = ledger.now
        self._clients = [Client(doors, prefix) for _ in range(CLIENTS)]
        self._kinds: Iterator[str] = itertools.cycle(_WITH_ROWS if rows else _WITHOUT_ROWS)
        self._uploads: deque[str] = deque(maxlen=_KEPT)
        self._room = threading.BoundedSemaphore(MOST)
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(MOST, "outgrow drill")
        self._clock = threading.Thread(target=self._run, name="outgrow drill", daemon=True)

    def __enter__(self) -> Self:
        self._clock.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Send no more, and wait for what is out: each of them has an end."""
        self._over.set()
        self._clock.join()
        self._pool.shutdown()

    def _run(self) -> None:
        begin = self._now()
        for number in itertools.count():
            if self._over.wait(max(0.0, begin + number / self._rate - self._now())):
                return
            self._send(number, next(self._kinds))

    def _send(self, number: int, kind: str) -> None:
        request = Request(self._now(), kind, secrets.token_hex(12), ok=False)
        if kind == DELETE:
            if not self._uploads:
                return
            request = replace(request, name=self._uploads.popleft())
        if not self._room.acquire(blocking=False):
            # A file whose deletion was never sent stays.
            if kind == DELETE:
                self._uploads.append(request.name)
                request = replace(request, name="")
            self._ledger.add(replace(request, problem=f"{MOST} requests are out"))
            return
        self._pool.submit(self._carry_out, number, request)

    def _carry_out(self, number: int, request: Request) -> None:
        try:
            self._ask(number, request)
        except Exception as error:  # noqa: BLE001 - whatever it was, it is seen in the report
            self._note(request, f"the load itself: {error!r}")
        finally:
            self._room.release()

    def _ask(self, number: int, request: Request) -> None:
        client = self._clients[number % CLIENTS]
        if request.kind == READ:
            self._note(request, _said(client.ask(number, "GET", "read"), None))
        elif request.kind == WRITE:
            self._write(client, number, request)
        elif request.kind == UPLOAD:
            self._upload(client, number, request)
        else:
            answer = client.ask(number, "POST", f"delete?name={quote(request.name)}")
            self._note(request, _said(answer, request.name))

    def _write(self, client: Client, number: int, request: Request) -> None:
        problem = _said(client.ask(number, "POST", f"write?request={request.id}"), request.id)
        self._note(request, problem)
        if problem:
            return
        back = Request(self._now(), READ_BACK, request.id, ok=False)
        # By the other door, where nobody remembers him but for his cookies.
        answer = client.ask(number + 1, "GET", f"read?request={request.id}")
        problem = _said(answer, None)
        self._note(replace(back, stale=not problem and answer.body == b"0"), problem)

    def _upload(self, client: Client, number: int, request: Request) -> None:
        body = secrets.token_bytes(SIZE)
        answer = client.ask(number, "POST", "upload", body)
        if problem := _said(answer, None):
            return self._note(request, problem)
        told: Mapping[str, str] = json.loads(answer.body)
        digest = hashlib.sha256(body).hexdigest()
        if told["digest"] != digest:
            return self._note(request, "it got another file than was sent")
        self._note(replace(request, name=told["name"], digest=digest), "")
        self._uploads.append(told["name"])
        return None

    def _note(self, request: Request, problem: str) -> None:
        took = self._now() - request.at
        self._ledger.add(replace(request, ok=not problem, took=took, problem=problem))


def _said(answer: Answer, wanted: str | None) -> str:
    """Why an answer is no acknowledgement, or ""."""
    if answer.problem:
        return answer.problem
    if answer.status != 200:
        return f"status {answer.status}"
    if wanted is not None and answer.body.decode(errors="replace") != wanted:
        return "another answer than to this request"
    return ""
