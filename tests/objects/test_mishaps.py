"""Each way in which a store does not do what it is asked has an error that says what to do."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trustme
from django.core.files.base import ContentFile

from outgrow.errors import (
    BadAnswer,
    ConnectFailed,
    ConnectionLost,
    NoAccess,
    NoBucket,
    ServerError,
    TimedOut,
    UnexpectedStatus,
    WrongRegion,
)
from outgrow.objects import ObjectStorage
from outgrow.testing import free_port
from tests.raw import Peer, RawServer, a_full_backlog, answer, takes

SECRET = "a-secret-that-is-never-shown"


def storage(endpoint: str, **options: Any) -> ObjectStorage:
    keys = {"access_key": "KEY", "secret_key": SECRET}
    given = {"location": "s3://bucket", "endpoint": endpoint, "deadline": 0.3, "timeout": 20}
    return ObjectStorage(**(given | keys | options))


def error_of(action: Callable[[], object]) -> ServerError:
    with pytest.raises(ServerError) as raised:
        action()
    text = str(raised.value)
    assert SECRET not in text
    assert text.startswith("s3://bucket at http")
    return raised.value


def refusal(status: int, code: str, *lines: str, inside: str = "") -> bytes:
    """An answer in the form that S3 documents: a code in XML."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message>{inside}</Error>"
    return answer(status, "X", "Content-Type: application/xml", *lines, body=body.encode())


def bodiless(data: bytes) -> bytes:
    """The head of an answer alone, as HEAD gets it."""
    return data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


@contextmanager
def refusing(data: bytes) -> Iterator[RawServer]:
    def behave(peer: Peer) -> None:
        while True:
            head, _ = peer.request()
            peer.send(bodiless(data) if head.startswith(b"HEAD") else data)

    with RawServer(behave) as server:
        yield server


ACTIONS: dict[str, Callable[[ObjectStorage], object]] = {
    "save": lambda one: one.save("a.txt", ContentFile(b"x")),
    "open": lambda one: one.open("a.txt").read(),
    "exists": lambda one: one.exists("a.txt"),
    "size": lambda one: one.size("a.txt"),
    "delete": lambda one: one.delete("a.txt"),
    "listdir": lambda one: one.listdir(""),
    "walk": lambda one: list(one.walk()),
}


@pytest.fixture(params=ACTIONS)
def action(request: pytest.FixtureRequest) -> Callable[[ObjectStorage], object]:
    return ACTIONS[request.param]


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (refusal(403, "InvalidAccessKeyId"), NoAccess, "is 'access_key' of this store?"),
        (refusal(403, "SignatureDoesNotMatch"), NoAccess, "is 'secret_key' right?"),
        (refusal(403, "RequestTimeTooSkewed"), NoAccess, "set both clocks"),
        (refusal(400, "ExpiredToken"), NoAccess, "get new credentials"),
        (refusal(403, "AccessDenied"), NoAccess, "give them the permission"),
        (refusal(401, "Unauthorized"), NoAccess, "got no credentials"),
        (refusal(404, "NoSuchBucket"), NoBucket, "there is no such bucket"),
        (
            refusal(400, "AuthorizationHeaderMalformed", inside="<Region>eu-west-3</Region>"),
            WrongRegion,
            "it is in 'eu-west-3'",
        ),
        (refusal(301, "PermanentRedirect"), WrongRegion, "in another region"),
        (refusal(418, "Teapot"), UnexpectedStatus, "answered 418 Teapot"),
        (refusal(503, "SlowDown"), UnexpectedStatus, "answered 503"),
        (refusal(500, "InternalError"), UnexpectedStatus, "answered 500"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_a_store_answers(
    data: bytes, kind: type[ServerError], words: str, action: Callable[[ObjectStorage], object]
) -> None:
    with refusing(data) as server:
        error = error_of(lambda: action(storage(server.url)))
        assert type(error) is kind
        assert words in str(error)


def test_the_code_of_an_answer_is_told() -> None:
    with refusing(refusal(503, "SlowDown")) as server:
        error = error_of(lambda: storage(server.url).open("a.txt"))
        assert str(error).endswith("answered 503 SlowDown")


def test_a_refusal_without_a_reason() -> None:
    with refusing(answer(403)) as server:
        error = error_of(lambda: storage(server.url).exists("a.txt"))
        assert type(error) is NoAccess
        assert "s3:ListBucket" in str(error)


def test_absence_is_no_error_of_the_store() -> None:
    with refusing(refusal(404, "NoSuchKey")) as server:
        one = storage(server.url)
        assert not one.exists("a.txt")
        for action in (one.open, one.size, one.get_modified_time):
            with pytest.raises(FileNotFoundError, match=r"has no file 'a.txt'"):
                action("a.txt")
        one.delete("a.txt")


def test_nobody_listens(action: Callable[[ObjectStorage], object]) -> None:
    error = error_of(lambda: action(storage(f"http://127.0.0.1:{free_port()}")))
    assert type(error) is ConnectFailed
    assert "refused the connection (is it running, and is its address right?)" in str(error)


def test_a_name_that_nobody_has(action: Callable[[ObjectStorage], object]) -> None:
    # RFC 6761 §6.4: no name below .invalid is ever resolved.
    error = error_of(lambda: action(storage("http://nobody.invalid")))
    assert type(error) is ConnectFailed
    assert "can't be resolved" in str(error)


def test_a_silent_server(action: Callable[[ObjectStorage], object]) -> None:
    with RawServer(lambda peer: print(peer.until_closed())) as server, takes(at_most=10):
        error = error_of(lambda: action(storage(server.url, timeout=0.3)))
    assert type(error) is TimedOut


@pytest.mark.parametrize("deadline", [0.2, 3])
def test_no_try_begins_after_the_deadline(deadline: float) -> None:
    """With the defaults one silence, of `timeout`, is longer than it."""
    with RawServer(lambda peer: print(peer.until_closed())) as server:
        one = storage(server.url, timeout=0.5, deadline=deadline)
        assert type(error_of(lambda: one.exists("a.txt"))) is TimedOut
        assert (server.connections == 1) == (deadline < 0.5)


def test_a_server_that_drops_what_knocks() -> None:
    with a_full_backlog() as server, takes(at_most=10):
        one = storage(server.address, connect_timeout=0.3)
        assert type(error_of(lambda: one.exists("a.txt"))) is TimedOut


def test_a_server_that_hangs_up(action: Callable[[ObjectStorage], object]) -> None:
    with RawServer(lambda peer: peer.reset() if peer.head() else None) as server:
        error = error_of(lambda: action(storage(server.url)))
    assert type(error) in {ConnectionLost, ConnectFailed}


def test_a_server_that_speaks_something_else(action: Callable[[ObjectStorage], object]) -> None:
    def behave(peer: Peer) -> None:
        peer.head()
        peer.send(b"220 mail.example.org ESMTP\r\n")

    with RawServer(behave) as server:
        assert type(error_of(lambda: action(storage(server.url)))) is BadAnswer


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def test_a_certificate_of_nobody_known(
    tls: ssl.SSLContext, action: Callable[[ObjectStorage], object]
) -> None:
    with RawServer(lambda peer: peer.request() and None, context=tls) as server:
        error = error_of(lambda: action(storage(server.url)))
    assert type(error) is NoAccess
    assert "UnknownIssuer" in str(error)
    assert "'ca'" in str(error)


def test_a_certificate_of_an_authority_of_one_s_own(
    tls: ssl.SSLContext, authority: trustme.CA, tmp_path: Any
) -> None:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    data = refusal(404, "NoSuchKey")

    def behave(peer: Peer) -> None:
        while True:
            head, _ = peer.request()
            peer.send(bodiless(data) if head.startswith(b"HEAD") else data)

    with RawServer(behave, context=tls) as server:
        assert not storage(server.url, ca=str(path)).exists("a.txt")


def test_https_to_a_port_without_tls() -> None:
    def behave(peer: Peer) -> None:
        peer.more()
        peer.send(answer(400))

    with RawServer(behave) as server:
        error = error_of(lambda: storage(server.url.replace("http:", "https:")).exists("a.txt"))
    assert type(error) is NoAccess
    assert "speaks no TLS" in str(error)


def test_what_is_slow_but_moves_is_waited_for() -> None:
    """`timeout` is without progress, and no limit for the whole."""

    def behave(peer: Peer) -> None:
        peer.request()
        peer.send(b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\nETag: "x"\r\n')
        peer.send(b"Last-Modified: Thu, 26 Nov 2026 12:00:00 GMT\r\n\r\n")
        waiting = socket.socket()
        for _ in range(8):
            waiting.settimeout(0.2)
            with pytest.raises((TimeoutError, OSError)):
                waiting.recv(1)
            peer.send(b"x")
        waiting.close()

    with RawServer(behave) as server:
        assert storage(server.url, timeout=0.8).open("a.txt").read() == b"x" * 8
