"""The bytes that a server sends back -> one whole answer, or an error.

An answer is whole or it is an error. Bytes after its end, a length that is not
kept, more than `HEAD_LIMIT` of headers: each is an `AnswerError`. Only the page of
a refusal (300 and up) may be longer than `BODY_LIMIT`; the rest is not read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Final

import httptools

#: Bytes of status line and headers. Servers cap what they accept at 8 to 64 KB
#: (nginx `large_client_header_buffers` 4 x 8 KB); an answer gets the largest.
HEAD_LIMIT: Final = 65536

#: Headers in one answer. Apache's `LimitRequestFields` default is 100.
HEADERS_LIMIT: Final = 128

#: Interim (1xx) answers before the final one. Go's net/http allows 5 per request.
INTERIM_LIMIT: Final = 16

#: Bytes of an answer's body that are kept in memory: enough for an error page.
BODY_LIMIT: Final = 65536

#: Bytes of a whole answer, with all that is around its body: chunk sizes and their
#: extensions, trailers, interim answers.
ANSWER_LIMIT: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer. `headers` has lower-case names; `body` at most `BODY_LIMIT` bytes."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def retry_after(self) -> float | None:
        """Seconds for which the server wants to be left alone (RFC 9110 §10.2.3), if it says so.

        A date counts from the answer's own: the two machines' clocks may differ.
        """
        value = self.headers.get("retry-after", "").strip()
        if value.isascii() and value.isdigit():
            return float(value[:9])
        try:
            until = parsedate_to_datetime(value)
            return max(0.0, (until - parsedate_to_datetime(self.headers["date"])).total_seconds())
        except (KeyError, TypeError, ValueError):
            return None


class AnswerError(Exception):
    """What came back is not an answer; the text says what is wrong with it."""


class AnswerParser:
    """The bytes of one answer -> a `Response`. Made anew for each request.

    httptools (llhttp) does the grammar and is strict: it refuses bare line feeds,
    folded headers, two lengths, a length beside chunks. What it leaves open is
    refused here.
    """

    def __init__(self, method: str) -> None:
        self.response: Response | None = None
        #: The answer is final and its head is read; for early refusals.
        self.status = 0
        #: A 100 Continue has come.
        self.proceed = False
        self.keep_alive = False
        self._bodiless = method == "HEAD"
        self._parser = httptools.HttpResponseParser(self)
        self._start = b""
        self._headers: dict[str, str] = {}
        self._header_count = 0
        self._body: list[bytes] = []
        self._size = 0
        self._taken = 0
        self._cut = False
        self._interim = 0
        self._error = ""

    @property
    def head(self) -> Response:
        """What is known when the head is read and the body is not waited for."""
        return Response(self.status, self._headers)

    @property
    def touched(self) -> bool:
        """Whether any byte has come."""
        return bool(self._start)

    def feed(self, data: bytes) -> None:
        """Take bytes from the server. Raises `AnswerError`.

        The result is the same however the bytes are split: limits are looked at
        after the same byte, and the last byte is parsed alone, because llhttp
        skips line breaks behind an answer without a word.
        """
        while data and not self._cut:
            limit = HEAD_LIMIT if self._taken < HEAD_LIMIT else ANSWER_LIMIT
            room = max(1, limit - self._taken)
            piece, data = data[:room], data[room:]
            for part in (piece[:-1], piece[-1:]):
                if part:
                    self._parse(part)
            self._taken += len(piece)
            if self._taken == limit and self.response is None:
                self._overlong(limit)

    def _parse(self, data: bytes) -> None:
        if self._cut:
            return
        if self.response is not None:
            raise AnswerError("it sent bytes after the end of its answer")
        if len(self._start) < 5:
            self._start += data[:5]
            # llhttp also takes RTSP and leading line breaks.
            if not b"HTTP/".startswith(self._start[:5]):
                raise AnswerError(f"it does not begin like HTTP: {data[:40]!r}")
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            # What is raised in a callback comes wrapped. It may be Ctrl-C, or the time limit
            # of a worker: a signal can come at any moment, and says nothing of the answer.
            raised = error.__context__
            if raised is not None and not isinstance(raised, AnswerError):
                raise raised from None
            if not self._cut:
                raise AnswerError(self._error or str(error)) from None

    def _overlong(self, limit: int) -> None:
        """So many bytes have come, and the answer has not ended."""
        if not self.status:
            raise AnswerError("its headers do not end")
        if limit < ANSWER_LIMIT:
            return
        if self.status < 300:
            raise AnswerError("its answer does not end")
        self._cut_off()

    def _cut_off(self) -> None:
        """A refusal is one whatever its page says: the rest of it is not wanted."""
        self._cut = True
        self._finish(keep_alive=False)

    def end(self) -> None:
        """The server closed the connection. Raises `AnswerError` if the answer was cut."""
        if self.response is not None:
            return
        if not self.status:
            raise AnswerError("it closed the connection without an answer")
        promised = self._headers.get("content-length")
        chunked = "transfer-encoding" in self._headers
        if promised is not None or chunked:
            raise AnswerError(f"its answer was cut after {self._size} bytes of the body")
        self._finish(keep_alive=False)

    # What follows is called by httptools, which wraps what is raised here.

    def on_message_begin(self) -> None:
        """A first line begins; none may after a final answer."""
        if self.response is not None:
            self._refuse("it sent bytes after the end of its answer")
        self._headers = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header is read."""
        self._header_count += 1
        if self._header_count > HEADERS_LIMIT:
            self._refuse(f"it sent more than {HEADERS_LIMIT} headers")
        if not self.status:  # what follows a chunked body is no header
            self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The head is read: interim or final."""
        status: int = self._parser.get_status_code()
        # llhttp takes 0.9 and 2.0 as well, and any three digits.
        if self._parser.get_http_version() not in {"1.0", "1.1"}:
            self._refuse(f"it speaks HTTP/{self._parser.get_http_version()}")
        if status < 100 or status == 101:
            self._refuse(f"it answered {status}, which nobody asked for")
        if status >= 200:
            self.status = status
            if self._bodiless:
                self._finish(keep_alive=self._parser.should_keep_alive())
            return
        self._interim += 1
        self.proceed = self.proceed or status == 100
        if self._interim > INTERIM_LIMIT:
            self._refuse(f"it sent more than {INTERIM_LIMIT} interim answers")

    def on_body(self, data: bytes) -> None:
        """A part of the body is read."""
        if self.response is not None:
            if not self._cut:
                self._refuse("it sent a body in answer to HEAD")
            return
        self._body.append(data[: BODY_LIMIT - self._size])
        self._size += len(data)
        if self._size > BODY_LIMIT:
            if self.status < 300:
                self._refuse(f"it sent more than {BODY_LIMIT} bytes in answer")
            self._cut_off()

    def on_message_complete(self) -> None:
        """The answer has come to its promised end."""
        if self.status and self.response is None:
            self._finish(keep_alive=self._parser.should_keep_alive())

    def _finish(self, *, keep_alive: bool) -> None:
        self.keep_alive = keep_alive
        self.response = Response(self.status, self._headers, b"".join(self._body))

    def _refuse(self, problem: str) -> None:
        self._error = problem
        raise AnswerError(problem)
