"""Answers as bytes: every split of them gives the same, and no bad one passes."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from outgrow.answer import (
    ANSWER_LIMIT,
    BODY_LIMIT,
    HEAD_LIMIT,
    HEADERS_LIMIT,
    INTERIM_LIMIT,
    AnswerError,
    AnswerParser,
    Response,
)

EPOCH = "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "120"}, 120.0),
        ({"retry-after": " 0 "}, 0.0),
        ({"retry-after": "9" * 5000}, 999999999.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "1.5"}, None),
        ({"retry-after": "²"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Sun, 06 Nov 1994 08:50:07 GMT", "date": EPOCH}, 30.0),
        ({"retry-after": "Sunday, 06-Nov-94 08:50:07 GMT", "date": EPOCH}, 30.0),
        ({"retry-after": EPOCH, "date": "Sun, 06 Nov 1994 08:50:07 GMT"}, 0.0),
        # A date says nothing to one whose clock may be another.
        ({"retry-after": EPOCH}, None),
        ({"retry-after": EPOCH, "date": "yesterday"}, None),
        ({"retry-after": "Sun, 06 Nov 1994 08:50:07 -0000", "date": EPOCH}, None),
    ],
)
def test_for_how_long_it_wants_to_be_left_alone(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert Response(503, headers).retry_after == seconds


METHODS = ["GET", "HEAD", "OPTIONS", "PROPFIND", "PUT", "DELETE", "MKCOL", "POST", "MOVE"]

OK = b"HTTP/1.1 200 OK\r\n"
EMPTY = OK + b"Content-Length: 0\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

GOOD_ANSWERS: list[tuple[bytes, str, int, bytes, bool]] = [
    (EMPTY, "PUT", 200, b"", True),
    (b"HTTP/1.1 201 \r\nContent-Length: 2\r\n\r\nab", "PUT", 201, b"ab", True),
    (b"HTTP/1.1 201\r\nContent-Length: 0\r\n\r\n", "PUT", 201, b"", True),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab", "PUT", 200, b"ab", False),
    (OK + b"Connection: close\r\nContent-Length: 0\r\n\r\n", "PUT", 200, b"", False),
    (b"HTTP/1.1 204 No Content\r\n\r\n", "PUT", 204, b"", True),
    (b"HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n", "PUT", 204, b"", True),
    (b"HTTP/1.1 304 Not Modified\r\n\r\n", "PUT", 304, b"", True),
    (OK + b"Content-Length: 12345678901\r\n\r\n", "HEAD", 200, b"", True),
    (CHUNKED, "HEAD", 200, b"", True),
    (CHUNKED + b"3\r\nabc\r\n1;x=y\r\nd\r\n0\r\n\r\n", "GET", 200, b"abcd", True),
    (CHUNKED + b"0\r\nContent-Type: z\r\nX: y\r\n\r\n", "GET", 200, b"", True),
    # The reason phrase is not read by anyone (RFC 9112 §4).
    (b"HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n", "PUT", 200, b"", True),
    (CONTINUE + EMPTY, "PUT", 200, b"", True),
    (CONTINUE * INTERIM_LIMIT + EMPTY, "PUT", 200, b"", True),
    (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + EMPTY, "GET", 200, b"", True),
    # As Apache says with every answer when it knows HTTP/2.
    (
        OK + b"Upgrade: h2,h2c\r\nConnection: Upgrade, Keep-Alive\r\nContent-Length: 1\r\n\r\nx",
        "GET",
        200,
        b"x",
        True,
    ),
    (b"HTTP/1.1 599 What\r\nContent-Length: 0\r\n\r\n", "PUT", 599, b"", True),
    (OK + b"Content-Length: %d\r\n\r\n" % BODY_LIMIT + b"x" * BODY_LIMIT, *("GET", 200), b"", True),
]


def whole(data: bytes) -> list[bytes]:
    return [data]


def single_bytes(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


def parse(pieces: list[bytes], method: str = "PUT", *, end: bool = False) -> AnswerParser:
    """Feed as an exchange does; the connection ends afterwards with `end`."""
    parser = AnswerParser(method)
    for piece in pieces:
        parser.feed(piece)
    if end:
        parser.end()
    return parser


@pytest.mark.parametrize("split", [whole, single_bytes])
@pytest.mark.parametrize(("data", "method", "status", "body", "keep"), GOOD_ANSWERS)
def test_a_good_answer(split, data, method, status, body, keep) -> None:
    parser = parse(split(data), method)
    assert parser.response is not None
    assert parser.response.status == parser.status == status
    assert parser.response.body == body or len(parser.response.body) == BODY_LIMIT
    # llhttp does not know of HEAD: what has no length keeps no connection.
    assert parser.keep_alive is keep
    assert parser.proceed is data.startswith(CONTINUE)
    parser.end()  # closing after the answer is no error


@pytest.mark.parametrize("split", [whole, single_bytes])
def test_headers_are_found_in_any_case_and_trailers_are_none(split) -> None:
    data = OK + b'ETAG: "x"\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nLocation: /evil\r\n\r\n'
    response = parse(split(data)).response
    assert response == Response(200, {"etag": '"x"', "transfer-encoding": "chunked"}, b"")


def test_what_is_known_before_the_body_has_come() -> None:
    parser = AnswerParser("PUT")
    assert not parser.touched
    parser.feed(OK + b"Content-Length: 5\r\n\r\n")
    assert parser.touched
    assert parser.response is None
    assert parser.head == Response(200, {"content-length": "5"})


def test_an_interim_answers_headers_are_not_the_final_ones() -> None:
    response = parse([b"HTTP/1.1 103 Early\r\nEvil: 1\r\n\r\n" + EMPTY]).response
    assert response == Response(200, {"content-length": "0"})


BAD_ANSWERS: dict[str, bytes] = {
    "garbage": b"\x80\x02\xff\x00garbage\r\n\r\n",
    "text": b"Hello, who is there?\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "SMTP": b"220 mail.example ESMTP\r\n",
    "TLS alert": b"\x15\x03\x01\x00\x02\x02\x46",
    "HTTP/0.9 page": b"<html>hello</html>",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/2": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/2 short": b"HTTP/2 200\r\ncontent-length: 0\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/2 settings": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
    "HTTP/9.9": b"HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n",
    "RTSP": b"RTSP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "ICE": b"ICE/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "lower case": b"http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "a request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "leading line break": b"\r\n" + EMPTY,
    "leading space": b" " + EMPTY,
    "no status": b"HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n",
    "status 20": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "status 2000": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "status 099": b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n" + EMPTY,
    "status 000": b"HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n",
    "status -20": b"HTTP/1.1 -20 OK\r\nContent-Length: 0\r\n\r\n",
    "status 2x0": b"HTTP/1.1 2x0 OK\r\nContent-Length: 0\r\n\r\n",
    "two spaces": b"HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "bare LF in headers": OK + b"Content-Length: 0\n\r\n",
    "bare LF at the end": OK + b"Content-Length: 0\r\n\n",
    "bare CR": OK + b"X: a\rContent-Length: 0\r\n\r\n",
    "NUL in a value": OK + b"X: a\0b\r\nContent-Length: 0\r\n\r\n",
    "NUL in a name": OK + b"X\0: a\r\nContent-Length: 0\r\n\r\n",
    "folded": OK + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "folded first": OK + b" X: a\r\nContent-Length: 0\r\n\r\n",
    "space before the colon": OK + b"Content-Length : 0\r\n\r\n",
    "no colon": OK + b"Content-Length\r\n\r\n",
    "no name": OK + b": 0\r\nContent-Length: 0\r\n\r\n",
    "two lengths": OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "two equal lengths": OK + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
    "list of lengths": OK + b"Content-Length: 1, 1\r\n\r\na",
    "length and chunks": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "length in a trailer": CHUNKED + b"0\r\nContent-Length: 7\r\n\r\n",
    "chunks and length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "negative length": OK + b"Content-Length: -1\r\n\r\n",
    "signed length": OK + b"Content-Length: +1\r\n\r\na",
    "hex length": OK + b"Content-Length: 0x1\r\n\r\na",
    "empty length": OK + b"Content-Length: \r\n\r\n",
    "length with a dot": OK + b"Content-Length: 1.0\r\n\r\na",
    "overflowing length": OK + b"Content-Length: 18446744073709551617\r\n\r\na",
    "short body": OK + b"Content-Length: 5\r\n\r\nab",
    "long body": OK + b"Content-Length: 1\r\n\r\nab",
    "cut head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "cut status line": b"HTTP/1.",
    "only 100": CONTINUE,
    "chunk garbage": CHUNKED + b"zz\r\n",
    "chunk without size": CHUNKED + b"\r\nabc",
    "chunk of negative size": CHUNKED + b"-1\r\na\r\n0\r\n\r\n",
    "chunk of 0x size": CHUNKED + b"0x1\r\na\r\n0\r\n\r\n",
    "chunk size overflows": CHUNKED + b"fffffffffffffffff\r\na",
    "chunk with bare LF": CHUNKED + b"1\na\n0\n\n",
    "chunk too long": CHUNKED + b"1\r\nab\r\n0\r\n\r\n",
    "chunks cut": CHUNKED + b"1\r\na\r\n",
    "chunks without the last line": CHUNKED + b"1\r\na\r\n0\r\n",
    "gzip is not chunked": OK + b"Transfer-Encoding: gzip\r\n\r\nabc",
    "chunked twice": OK + b"Transfer-Encoding: chunked, chunked, x\r\n\r\n0\r\n\r\n",
    "trailing bytes": EMPTY + b"x",
    "trailing line break": EMPTY + b"\r\n",
    "trailing line feeds": EMPTY + b"\n\n",
    "trailing answer": EMPTY + EMPTY,
    "trailing after chunks": CHUNKED + b"0\r\n\r\n\r\n",
    "trailing after 204": b"HTTP/1.1 204 No Content\r\n\r\nabc",
    "trailing after close": OK + b"Connection: close\r\nContent-Length: 0\r\n\r\nabc",
    "1xx flood": CONTINUE * (INTERIM_LIMIT + 1) + EMPTY,
    "1xx with a body": b"HTTP/1.1 100 Continue\r\nContent-Length: 3\r\n\r\nabc" + EMPTY,
    "101": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "101 upgrade": (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"
    ),
    "many headers": OK + b"X: y\r\n" * (HEADERS_LIMIT + 1) + b"Content-Length: 0\r\n\r\n",
    "many trailers": CHUNKED + b"0\r\n" + b"X: y\r\n" * HEADERS_LIMIT + b"\r\n",
    "endless header": OK + b"X: " + b"a" * HEAD_LIMIT,
    "endless reason": b"HTTP/1.1 200 " + b"a" * HEAD_LIMIT,
    "endless spaces": OK + b"X:" + b" " * HEAD_LIMIT,
    "endless chunk size": CHUNKED + b"0" * ANSWER_LIMIT,
    "endless chunk extension": CHUNKED + b"1;" + b"a" * ANSWER_LIMIT,
    "endless trailer": CHUNKED + b"0\r\nX: " + b"a" * ANSWER_LIMIT,
    "endless body": OK + b"Content-Length: 9999999\r\n\r\n" + b"a" * (BODY_LIMIT + 1),
    "endless body without length": OK + b"\r\n" + b"a" * (BODY_LIMIT + 1),
}


@pytest.mark.parametrize("split", [whole, single_bytes])
@pytest.mark.parametrize("data", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
def test_a_bad_answer(split, data: bytes) -> None:
    with pytest.raises(AnswerError) as caught:
        parse(split(data), end=True)
    text = str(caught.value)
    assert text
    assert text.isprintable()
    assert len(text) < 200


@pytest.mark.parametrize("split", [whole, single_bytes])
@pytest.mark.parametrize(
    "body", [b"a", b"\r\n", b"0\r\n\r\n", b"1\r\na\r\n0\r\n\r\n", EMPTY], ids=ascii
)
@pytest.mark.parametrize("head", [CHUNKED, OK + b"Content-Length: 5\r\n\r\n", OK + b"\r\n"])
def test_a_body_in_answer_to_head(split, head: bytes, body: bytes) -> None:
    with pytest.raises(AnswerError):
        parse(split(head + body), "HEAD", end=True)


def test_an_answer_that_ends_with_the_connection() -> None:
    parser = parse([OK + b"\r\n", b"abc"])
    assert parser.response is None
    parser.end()
    assert parser.response == Response(200, {}, b"abc")
    assert not parser.keep_alive


@pytest.mark.parametrize("split", [whole, single_bytes])
@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: 5000000\r\n\r\n" + b"x" * (BODY_LIMIT + 1),
        b"\r\n" + b"x" * (2 * BODY_LIMIT),
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % (BODY_LIMIT + 1)
        + b"x" * (BODY_LIMIT + 1)
        + b"\r\n1\r\nx\r\nGARBAGE",
    ],
    ids=["length", "no length", "chunked"],
)
def test_the_long_page_of_a_refusal_is_still_a_refusal(split, rest: bytes) -> None:
    # As BadAnswer it would count against the server's health, which a 4xx must not.
    parser = parse(split(b"HTTP/1.1 404 Not Found\r\n" + rest))
    assert parser.response is not None
    assert parser.response.status == 404
    assert parser.response.body == b"x" * BODY_LIMIT
    assert not parser.keep_alive


@pytest.mark.parametrize("split", [whole, single_bytes])
def test_a_refusal_that_pads_its_chunks_without_end(split) -> None:
    data = CHUNKED.replace(b"200 OK", b"403 No") + b"1;" + b"a" * ANSWER_LIMIT
    response = parse(split(data)).response
    assert response is not None
    assert response.status == 403


def outcome(pieces: list[bytes], method: str) -> tuple[str, object]:
    parser = AnswerParser(method)
    try:
        for piece in pieces:
            parser.feed(piece)
        early = parser.response
        parser.end()
    except AnswerError:
        return "error", None
    assert parser.response is not None
    return "answer" if early else "answer at the end", (parser.response, parser.keep_alive)


FRAGMENTS = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 404 Not Found\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n",
        b"HTTP/1.0 204 No\r\n",
        b"HTTP/2.0 200 OK\r\n",
        b"Content-Length: 3\r\n",
        b"Content-Length: 0\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"Connection: upgrade\r\nUpgrade: x\r\n",
        b"X: y\r\n",
        b" folded\r\n",
        b"\r\n",
        b"\r",
        b"\n",
        b"abc",
        b"3\r\nabc\r\n",
        b"0\r\n",
        b"\0",
        b"x" * BODY_LIMIT,
        b"X: " + b"y" * (HEAD_LIMIT // 2) + b"\r\n",
    ]
)
START = st.sampled_from([b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 404 No\r\n", CONTINUE, b"HTTP/", b""])
ANSWERS = st.builds(
    lambda start, rest: start + b"".join(rest),
    START,
    st.lists(FRAGMENTS | st.binary(max_size=8), max_size=12),
)


@given(ANSWERS | st.binary(max_size=200), st.sampled_from(["PUT", "HEAD"]), st.randoms())
@example(EMPTY + b"\r\n", "PUT", random.Random(1))
@example(CHUNKED + b"0\r\n\r\n", "HEAD", random.Random(1))
@example(CHUNKED + b"5", "HEAD", random.Random(1))
def test_any_bytes_give_the_same_in_any_split(
    data: bytes, method: str, chance: random.Random
) -> None:
    expected = outcome([data], method)
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(12)))
    pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    assert outcome(pieces, method) == expected
    if len(data) < 500:
        assert outcome(single_bytes(data), method) == expected


class Limit(Exception):
    """As a worker's soft time limit is raised in the middle of anything."""


@pytest.mark.parametrize(
    "callback", ["on_message_begin", "on_header", "on_headers_complete", "on_body"]
)
@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, Limit])
def test_a_signal_in_the_middle_of_an_answer_is_no_fault_of_the_answer(
    callback: str, interrupt: type[BaseException]
) -> None:
    def interrupted(*_: object) -> None:
        raise interrupt

    kind = type("Interrupted", (AnswerParser,), {callback: interrupted})
    with pytest.raises(interrupt):
        kind("GET").feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
