"""URLs, request heads and answers as bytes, and the pool on real sockets."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from hypothesis import example, given
from hypothesis import strategies as st

from outgrow import http
from outgrow.http import (
    ANSWER_LIMIT,
    BODY_LIMIT,
    HEAD_LIMIT,
    HEADERS_LIMIT,
    IDLE_CONNECTIONS,
    IDLE_LIMIT,
    INTERIM_LIMIT,
    AnswerError,
    AnswerParser,
    Connection,
    Endpoint,
    FileBody,
    Pool,
    Request,
    Response,
    endpoint,
    resolve,
)
from outgrow.testing import FakeClock
from tests.live.processes import wait_until

# --- endpoints

GOOD_URLS = [
    ("http://h", Endpoint("http", "h", 80, "/", "h")),
    ("https://h", Endpoint("https", "h", 443, "/", "h")),
    ("HTTP://HOST.Example", Endpoint("http", "host.example", 80, "/", "host.example")),
    ("http://h:80", Endpoint("http", "h", 80, "/", "h")),
    ("http://h:443/", Endpoint("http", "h", 443, "/", "h:443")),
    ("https://h:80/", Endpoint("https", "h", 80, "/", "h:80")),
    ("http://h:00080/", Endpoint("http", "h", 80, "/", "h")),
    ("http://h:65535", Endpoint("http", "h", 65535, "/", "h:65535")),
    ("http://127.0.0.1:8080/a", Endpoint("http", "127.0.0.1", 8080, "/a/", "127.0.0.1:8080")),
    ("http://[::1]", Endpoint("http", "::1", 80, "/", "[::1]")),
    ("http://[0:0:0:0:0:0:0:1]:8/", Endpoint("http", "::1", 8, "/", "[::1]:8")),
    ("http://[2001:DB8::0:1]/", Endpoint("http", "2001:db8::1", 80, "/", "[2001:db8::1]")),
    ("http://a_b-c.d.", Endpoint("http", "a_b-c.d.", 80, "/", "a_b-c.d.")),
    ("http://xn--bcher-kva.example", Endpoint("http", *["xn--bcher-kva.example", 80, "/"], "")),
    ("http://h/a b/ü", Endpoint("http", "h", 80, "/a%20b/%C3%BC/", "h")),
    ("http://h/a%20b/%C3%BC", Endpoint("http", "h", 80, "/a%20b/%C3%BC/", "h")),
    ("http://h/%25/%2541", Endpoint("http", "h", 80, "/%25/%2541/", "h")),
    ("http://h/%3F%23;=&", Endpoint("http", "h", 80, "/%3F%23%3B%3D%26/", "h")),
    ("http://h/~a", Endpoint("http", "h", 80, "/~a/", "h")),
    ("http://h/...", Endpoint("http", "h", 80, "/.../", "h")),
]

BAD_URLS = [
    ("", "not an http"),
    ("h", "not an http"),
    ("h:80", "not an http"),
    ("//h", "not an http"),
    ("ftp://h", "not an http"),
    ("file:///etc/passwd", "not an http"),
    ("javascript:alert(1)", "not an http"),
    ("http:h", "host name"),
    ("http:/h", "host name"),
    ("http://", "host name"),
    ("http:///a", "host name"),
    ("http://:80/", "host name"),
    ("http://.", "host name"),
    ("http://..", "host name"),
    ("http://a..b", "host name"),
    ("http://.a", "host name"),
    ("http://" + "a" * 64, "host name"),
    ("http://" + "a." * 127 + "ab", "host name"),
    ("http://a b", "host name"),
    ("http://a\\b", "host name"),
    ("http://a%00b", "host name"),
    ("http://a%2fb", "host name"),
    ("http://a,b", "host name"),
    ("http://<a>", "host name"),
    ("http://bücher.example", "not ASCII"),
    ("http://\uff41.example", "not ASCII"),
    ("http://a\u2100b", "host name"),  # urlsplit refuses it: NFKC makes a slash of it
    ("http://h:\u0661", "not ASCII"),  # a digit, but not of ours
    ("http://1.2.3.4:", "port"),
    ("http://h:0", "port"),
    ("http://h:65536", "port"),
    ("http://h:-1", "port"),
    ("http://h:+80", "port"),
    ("http://h:8_0", "port"),
    ("http://h:80x", "port"),
    ("http://h:" + "9" * 5000, "port"),
    ("http://h:80:80", "host name"),
    ("http://::1", "host name"),
    ("http://[::1", "host name"),
    ("http://::1]", "host name"),
    ("http://[]", "host name"),
    ("http://[::1]x:80", "host name"),
    ("http://x[::1]:80", "host name"),
    ("http://[::1]80", "host name"),
    ("http://[::1]:", "port"),
    ("http://[::1]:x", "port"),
    ("http://[::1%25eth0]", "host name"),
    ("http://[fe80::1%eth0]", "host name"),
    ("http://[v1.a]", "host name"),
    ("http://[1.2.3.4]", ""),
    ("http://[:::]", ""),
    ("http://[12345::]", ""),
    ("http://u@h", "user or a password"),
    ("http://@h", "user or a password"),
    ("http://:@h", "user or a password"),
    ("http://u:p@h", "user or a password"),
    ("http://h@evil:80", "user or a password"),
    ("http://h\\@evil", "user or a password"),
    ("http://h?", "query"),
    ("http://h/?a=b", "query"),
    ("http://h/a#b", "query"),
    ("http://h/#", "query"),
    (" http://h", "control character in it, or a space"),
    ("http://h ", "control character in it, or a space"),
    ("http://h\n", "control character"),
    ("http://h\r\nHost: evil", "control character"),
    ("ht\ntp://h", "control character"),
    ("http://h\t:80", "control character"),
    ("\x00http://h", "control character"),
    ("http://h/a\x00", "control character"),
    ("http://h/%00", "control character"),
    ("http://h/%0d%0aX:%201", "control character"),
    ("http://h/%7f", "control character"),
    ("http://h/.", "'.' or '..'"),
    ("http://h/../a", "'.' or '..'"),
    ("http://h/a/..", "'.' or '..'"),
    ("http://h/%2e%2e/a", "'.' or '..'"),
    ("http://h/%2E/", "'.' or '..'"),
    ("http://h/a%2f..%2fb", "'.' or '..'"),
    ("http://h/%ff", "not UTF-8"),
    ("http://h/\ud800", "not UTF-8"),
]


@pytest.mark.parametrize(("url", "expected"), GOOD_URLS)
def test_a_url(url: str, expected: Endpoint) -> None:
    found = endpoint(url)
    assert (found.scheme, found.host, found.port, found.path) == (
        expected.scheme,
        expected.host,
        expected.port,
        expected.path,
    )
    assert found.netloc == expected.netloc or expected.netloc == ""
    # What conf writes down as the address means the same server.
    assert endpoint(f"{found.scheme}://{found.netloc}{found.path}") == found


@pytest.mark.parametrize(("url", "phrase"), BAD_URLS, ids=lambda text: ascii(text)[:40])
def test_a_bad_url(url: str, phrase: str) -> None:
    with pytest.raises(ValueError, match=r"^(is|has|holds) ") as caught:
        endpoint(url)
    assert phrase in str(caught.value)
    assert len(str(caught.value)) < 100


URLS = st.text(min_size=0, max_size=60) | st.text("htp:/[]@%.?#0aé \\\n1:2e", max_size=30).map(
    "http://".__add__
)


@given(URLS)
def test_any_text_is_an_endpoint_or_a_value_error(url: str) -> None:
    try:
        found = endpoint(url)
    except ValueError:
        return
    assert found.netloc.isascii()
    assert found.path.isascii()
    assert found.path.startswith("/")
    assert found.path.endswith("/")
    with contextlib.suppress(OSError):
        # The system's resolver takes it: no UnicodeError from its own encoding.
        socket.getaddrinfo(found.host, found.port, flags=socket.AI_NUMERICHOST)


# --- request heads

HOST = endpoint("http://h:8080/base/")


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("a.jpg", "/base/a.jpg"),
        ("a b/ü?#%.jpg", "/base/a%20b/%C3%BC%3F%23%25.jpg"),
        ("~a-b_c.d", "/base/~a-b_c.d"),
        ("a:b@c;d=e&f+g,h!i'j(k)*", "/base/a%3Ab%40c%3Bd%3De%26f%2Bg%2Ch%21i%27j%28k%29%2A"),
        ("a\r\nX: 1", "/base/a%0D%0AX%3A%201"),
    ],
)
def test_the_target_of_a_name(name: str, target: str) -> None:
    assert HOST.target(name) == target


def test_the_head_of_a_put() -> None:
    request = Request("PUT", "a b", frozenset({201}), (("Authorization", "Bearer x"),), b"123")
    assert request.head(HOST, expect=True) == (
        b"PUT /base/a%20b HTTP/1.1\r\n"
        b"Host: h:8080\r\n"
        b"Content-Length: 3\r\n"
        b"Expect: 100-continue\r\n"
        b"Authorization: Bearer x\r\n"
        b"\r\n"
    )


@pytest.mark.parametrize(
    ("method", "body", "length"),
    [
        ("PUT", b"", b"Content-Length: 0\r\n"),
        ("PUT", FileBody(0, 1 << 40), b"Content-Length: 1099511627776\r\n"),
        ("GET", b"", b""),
        ("DELETE", b"", b""),
    ],
)
def test_the_length_is_sent_where_there_is_a_body(
    method: str, body: bytes | FileBody, length: bytes
) -> None:
    head = Request(method, "a", frozenset(), (), body).head(HOST)
    assert head == f"{method} /base/a HTTP/1.1\r\nHost: h:8080\r\n".encode() + length + b"\r\n"


@pytest.mark.parametrize("method", ["", "GET ", "GET / HTTP/1.1\r\nX: 1\r\n\r\nGET", "PÜT"])
def test_a_method_that_breaks_the_head_is_refused(method: str) -> None:
    with pytest.raises(ValueError, match="is not an HTTP method"):
        Request(method, "a", frozenset())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("", "x"),
        ("A:", "x"),
        ("A B", "x"),
        ("A\r\n", "x"),
        ("Ä", "x"),
        ("A", "x\r\nEvil: 1"),
        ("A", "x\n"),
        ("A", "x\r"),
        ("A", " x"),
        ("A", "x\t"),
        ("A", "x\0y"),
        ("A", "é"),
        ("A", "\x7f"),
    ],
)
def test_a_header_that_breaks_the_head_is_refused(key: str, value: str) -> None:
    with pytest.raises(ValueError, match="would break the request") as caught:
        Request("PUT", "a", frozenset(), ((key, value),))
    assert not value or value not in str(caught.value)  # it may be a secret


def test_large_bodies_come_from_files() -> None:
    assert Request("PUT", "a", frozenset(), (), b"x" * BODY_LIMIT).size == BODY_LIMIT
    with pytest.raises(ValueError, match="as a FileBody"):
        Request("PUT", "a", frozenset(), (), b"x" * (BODY_LIMIT + 1))


@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.text(max_size=5),
    st.text(max_size=10),
)
def test_no_name_and_no_header_adds_a_line(name: str, key: str, value: str) -> None:
    try:
        request = Request("DELETE", name, frozenset(), ((key, value),))
    except ValueError:
        request = Request("DELETE", name, frozenset(), (("Key", "value"),))
    lines = request.head(HOST).split(b"\r\n")
    assert len(lines) == 5
    assert lines[0].startswith(b"DELETE /base/")
    assert lines[0].endswith(b" HTTP/1.1")
    assert len(lines[0].split(b" ")) == 3
    assert not any(byte in line for line in lines for byte in b"\r\n\0")


def test_what_changes_something() -> None:
    changing = [method for method in METHODS if Request(method, "a", frozenset()).changes]
    assert changing == ["PUT", "DELETE", "MKCOL", "POST", "MOVE"]


METHODS = ["GET", "HEAD", "OPTIONS", "PROPFIND", "PUT", "DELETE", "MKCOL", "POST", "MOVE"]

# --- answers

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


# --- the pool


class Peer:
    """A listener on loopback, and the server's ends of what was opened to it."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.where = endpoint(f"http://127.0.0.1:{self.listener.getsockname()[1]}/")
        self.accepted: list[socket.socket] = []

    def open(self, process: int | None = None) -> Connection:
        stream = socket.create_connection((self.where.host, self.where.port), 5)
        stream.setblocking(False)
        self.listener.settimeout(5)
        self.accepted.append(self.listener.accept()[0])
        self.accepted[-1].settimeout(5)
        return Connection(self.where, stream, process or os.getpid())

    def close(self) -> None:
        for stream in (self.listener, *self.accepted):
            stream.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def pool(clock: FakeClock) -> Iterator[Pool]:
    pool = Pool(clock)
    yield pool
    pool.close()


def is_closed(connection: Connection) -> bool:
    return connection.socket.fileno() == -1


def test_an_idle_connection_is_used_again_once(peer: Peer, pool: Pool) -> None:
    assert pool.take(peer.where) is None
    connection = peer.open()
    pool.give(connection)
    assert pool.take(peer.where) is connection
    assert pool.take(peer.where) is None
    connection.close()


def test_a_connection_is_for_its_endpoint_alone(peer: Peer, pool: Pool) -> None:
    pool.give(peer.open())
    assert pool.take(endpoint("http://127.0.0.1:1/")) is None


def test_the_youngest_is_taken_first(peer: Peer, pool: Pool, clock: FakeClock) -> None:
    old, young = peer.open(), peer.open()
    pool.give(old)
    clock.advance(1)
    pool.give(young)
    assert pool.take(peer.where) is young
    young.close()


@pytest.mark.parametrize(("idle", "closed"), [(IDLE_LIMIT - 0.01, False), (IDLE_LIMIT, True)])
def test_an_idle_connection_is_closed_after_a_while(peer, pool, clock, idle, closed) -> None:
    connection = peer.open()
    pool.give(connection)
    clock.advance(idle)
    assert (pool.take(peer.where) is None) is closed
    assert is_closed(connection) is closed
    connection.close()


def test_old_ones_are_closed_when_another_is_given(peer, pool, clock) -> None:
    old, young = peer.open(), peer.open()
    pool.give(old)
    clock.advance(IDLE_LIMIT + 1)
    pool.give(young)
    assert is_closed(old)
    assert not is_closed(young)


def test_only_so_many_are_kept(peer: Peer, pool: Pool) -> None:
    connections = [peer.open() for _ in range(IDLE_CONNECTIONS + 2)]
    for connection in connections:
        pool.give(connection)
    assert [is_closed(one) for one in connections].count(False) == IDLE_CONNECTIONS
    assert not is_closed(connections[-1])


def test_a_connection_that_the_server_closed_is_not_used(peer: Peer, pool: Pool) -> None:
    connection = peer.open()
    pool.give(connection)
    peer.accepted[0].close()
    wait_until(lambda: not connection.is_quiet(), "the end of the connection was not seen")
    assert pool.take(peer.where) is None
    assert is_closed(connection)


def test_a_connection_on_which_the_server_spoke_is_not_used(peer: Peer, pool: Pool) -> None:
    connection = peer.open()
    pool.give(connection)
    peer.accepted[0].sendall(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    wait_until(lambda: not connection.is_quiet(), "what was sent was not seen")
    assert pool.take(peer.where) is None
    assert is_closed(connection)


def test_a_connection_that_was_reset_is_not_used(peer: Peer, pool: Pool) -> None:
    connection = peer.open()
    pool.give(connection)
    peer.accepted[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.accepted[0].close()
    wait_until(lambda: not connection.is_quiet(), "the reset was not seen")
    assert pool.take(peer.where) is None


def test_behind_a_dead_one_an_older_one_that_lives_is_found(peer: Peer, pool: Pool) -> None:
    alive, dead = peer.open(), peer.open()
    pool.give(alive)
    pool.give(dead)
    peer.accepted[1].close()
    wait_until(lambda: not dead.is_quiet(), "the end of the connection was not seen")
    assert pool.take(peer.where) is alive
    alive.close()


def test_closing_the_pool_closes_what_is_idle(peer: Peer, pool: Pool) -> None:
    connections = [peer.open() for _ in range(3)]
    for connection in connections:
        pool.give(connection)
    pool.close()
    assert all(is_closed(one) for one in connections)
    assert pool.take(peer.where) is None


def test_a_child_leaves_its_parents_connection_alone(peer: Peer, pool: Pool) -> None:
    connection = peer.open()
    pool.give(connection)
    child = os.fork()
    if child == 0:
        # Nothing of the test framework may run here: the exit status is the result.
        status = 1
        try:
            status = 0 if pool.take(peer.where) is None and is_closed(connection) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    # The server has neither heard anything nor seen the connection end.
    server = peer.accepted[0]
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.recv(1)
    assert pool.take(peer.where) is connection
    connection.socket.send(b"hello")
    server.settimeout(5)
    assert server.recv(9) == b"hello"
    connection.close()


def test_threads_never_share_a_connection(peer: Peer, pool: Pool) -> None:
    for _ in range(4):
        pool.give(peer.open())
    owners: dict[int, int] = {}
    faults: list[str] = []

    def work(number: int) -> None:
        taken = 0
        deadline = time.monotonic() + 30
        try:
            while taken < 300 and time.monotonic() < deadline:
                connection = pool.take(peer.where)
                if connection is None:
                    continue
                taken += 1
                if owners.setdefault(id(connection), number) != number:
                    faults.append("two threads had one connection")
                del owners[id(connection)]
                pool.give(connection)
        except Exception as error:
            faults.append(repr(error))
        if taken < 300:
            faults.append("a thread hardly ever got one")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert faults == []


def test_closing_while_others_take(peer: Peer, clock: FakeClock) -> None:
    pool = Pool(clock)
    faults: list[str] = []
    stop = threading.Event()

    def take_and_give() -> None:
        try:
            while not stop.is_set():
                for connection in filter(None, [pool.take(peer.where), pool.take(peer.where)]):
                    pool.give(connection)
        except Exception as error:
            faults.append(repr(error))

    threads = [threading.Thread(target=take_and_give) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        pool.give(peer.open())
        pool.give(peer.open())
        pool.close()
    stop.set()
    for thread in threads:
        thread.join(10)
    pool.close()
    assert faults == []


# --- TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch) -> Iterator[None]:
    """The test's own authority is the system's."""
    bundle = tmp_path / "authorities.pem"
    authority.cert_pem.write_to_path(str(bundle))
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    http.tls_context.cache_clear()
    yield
    http.tls_context.cache_clear()


def tls_pair(
    authority: trustme.CA, peer: Peer, version: ssl.TLSVersion
) -> tuple[Connection, ssl.SSLSocket]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = context.maximum_version = version
    authority.issue_cert("127.0.0.1").configure_cert(context)
    raw = peer.open()
    server: list[ssl.SSLSocket] = []
    # The server shakes hands in a thread and says nothing else; TLS 1.3 sends
    # two session tickets by itself.
    shaking = threading.Thread(
        target=lambda: server.append(context.wrap_socket(peer.accepted[-1], server_side=True))
    )
    shaking.start()
    raw.socket.settimeout(5)
    raw.socket = http.tls_context().wrap_socket(raw.socket, server_hostname="127.0.0.1")
    raw.socket.setblocking(False)
    shaking.join(5)
    peer.accepted[-1] = server[0]
    return raw, server[0]


def test_session_tickets_are_not_unsolicited_data(trusted, authority, peer, pool) -> None:
    connection, server = tls_pair(authority, peer, ssl.TLSVersion.TLSv1_3)
    # The tickets have come: the socket is readable, though there is no data.
    waiting = socket.socket(fileno=os.dup(connection.socket.fileno()))
    wait_until(lambda: has_bytes(waiting), "no session ticket came")
    waiting.close()
    pool.give(connection)
    assert pool.take(peer.where) is connection
    assert connection.is_tls
    connection.socket.send(b"hello")
    server.settimeout(5)
    assert server.recv(9) == b"hello"
    connection.close()


def has_bytes(stream: socket.socket) -> bool:
    stream.setblocking(False)
    try:
        return bool(stream.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("what", ["speaks", "says goodbye", "closes"])
def test_over_tls_what_the_server_did_is_seen(
    trusted, authority, peer, pool, version, what
) -> None:
    connection, server = tls_pair(authority, peer, version)
    assert connection.is_quiet()
    pool.give(connection)
    if what == "speaks":
        server.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    elif what == "says goodbye":
        server.setblocking(False)
        with contextlib.suppress(ssl.SSLWantReadError):
            server.unwrap()
    else:
        server.close()
    wait_until(lambda: not connection.is_quiet(), "nothing was seen")
    assert pool.take(peer.where) is None
    assert is_closed(connection)


def test_a_child_says_nothing_on_its_parents_tls_connection(trusted, authority, peer, pool) -> None:
    connection, server = tls_pair(authority, peer, ssl.TLSVersion.TLSv1_3)
    pool.give(connection)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if pool.take(peer.where) is None else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert pool.take(peer.where) is connection
    connection.socket.send(b"hello")
    server.settimeout(5)
    assert server.recv(9) == b"hello"
    connection.close()


# --- names


def test_a_host_is_looked_up_once_a_minute(clock: FakeClock, monkeypatch) -> None:
    monkeypatch.setattr(http, "_resolved", {})
    first = resolve("127.0.0.1", 80, clock)
    assert first[0] == (socket.AF_INET, ("127.0.0.1", 80))
    clock.advance(http.RESOLVE_FOR - 1)
    assert resolve("127.0.0.1", 80, clock) is first
    clock.advance(1)
    assert resolve("127.0.0.1", 80, clock) is not first
    assert resolve("::1", 81, clock)[0][0] is socket.AF_INET6


def test_a_host_that_does_not_exist_is_an_oserror() -> None:
    # RFC 6761 §6.4: no resolver may find it. AI_NUMERICHOST would not look at all.
    with pytest.raises(OSError):
        resolve("nowhere.invalid", 80)
