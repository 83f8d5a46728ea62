"""What a visitor asks reaches the site as he has asked it: each front, each application server."""

from __future__ import annotations

import hashlib
import http.client
import json
import select
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from outgrow.topology.applications import ENGINES
from tests.fastcgi.asked import EveryFront
from tests.fronts.balancers import Balancer
from tests.fronts.conftest import LIMIT, Pair
from tests.fronts.servers import FileServer
from tests.live.processes import server_folder

VISITOR = Balancer.source

REFUSED = {403, 405}

EVIL = "6.6.6.6"


@pytest.fixture
def front(pair: Pair) -> Balancer:
    return pair.balancer


class TestAsEveryFront(EveryFront):
    """It passes on what all do."""


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        ("/a%2Fb", "/a/b"),
        ("/caf%C3%A9/%E2%82%AC", "/café/€"),
        ("/a%20b/c%25d/%3F/e%2Bf+g", "/a b/c%d/?/e+f+g"),
        ("/a.php/b", "/a.php/b"),
        ("/index.html", "/index.html"),
        ("/medias/a", "/medias/a"),
        ("/media", "/media"),
    ],
)
def test_paths(front: Balancer, asked: str, path: str) -> None:
    assert front.echo(asked)["path"] == path


def test_two_slashes(pair: Pair) -> None:
    merged = pair.differs("two slashes")
    assert pair.balancer.echo("/a//b")["path"] == ("/a/b" if merged else "/a//b")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_a_body_of_unknown_length(pair: Pair, method: str) -> None:
    pieces = [b"one " * 1000, b"two " * 1000]
    words = {"Transfer_Encoding": "chunked"}
    status, _headers, body = pair.balancer.ask("/chunked", method, iter(pieces), **words)
    if pair.differs("chunked"):
        assert status == 411
        return
    assert status == 200, body
    assert json.loads(body)["digest"] == hashlib.sha256(b"".join(pieces)).hexdigest()


@pytest.mark.parametrize("query", ["", "&unbuffered=1"])
def test_what_is_sent_first_arrives_first(pair: Pair, query: str) -> None:
    connection = pair.balancer.connection(20)
    with server_folder("outgrow-stream-") as folder, closing(connection):
        go = folder / "go"
        connection.request("GET", f"/stream?file={go}{query}")
        connection.sock.settimeout(0.5 if _waits(pair, query) else 20)
        assert connection.sock is not None
        waits = not _has_come(connection.sock)
        assert waits == _waits(pair, query)
        go.touch()
        connection.sock.settimeout(20)
        assert connection.getresponse().read() == b"first\nsecond\n"


def _waits(pair: Pair, query: str) -> bool:
    return pair.differs("small pieces unbuffered" if query else "small pieces")


def _has_come(sock: socket.socket) -> bool:
    """Whether the first piece has, and not the head alone. Nothing is taken away."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    seen = b""
    for _ in range(1000):
        if not poll.poll((sock.gettimeout() or 0) * 1000):
            return False
        seen = sock.recv(65536, socket.MSG_PEEK)
        if b"first\n" in seen:
            return True
        select.select([], [], [], 0.005)
    return False


def test_head(pair: Pair) -> None:
    status, headers, body = pair.balancer.ask("/page", "HEAD")
    if pair.differs("head") and status == 502:
        return
    assert (status, body) == (200, b"")
    assert headers["Content-Type"] == "application/json"


def test_the_address_that_the_visitor_has_asked(front: Balancer) -> None:
    place = f"127.0.0.1:{front.port}"
    found = front.echo("/page")
    assert found["url"] == f"http://{place}/page"
    assert (found["scheme"], found["secure"]) == ("http", False)
    assert found["forwarded"] == {
        "X_FORWARDED_FOR": VISITOR,
        "X_FORWARDED_PROTO": "http",
        "X_FORWARDED_HOST": place,
        "X_FORWARDED_PORT": str(front.port),
    }
    named = front.echo("/page", Host="www.example.org:8443")
    assert named["url"] == "http://www.example.org:8443/page"
    assert named["forwarded"]["X_FORWARDED_HOST"] == "www.example.org:8443"


def test_who_the_visitor_is(pair: Pair) -> None:
    """The server's own idea of it; all others see the balancer, and its header."""
    known = ENGINES[pair.application.engine].knows_visitors
    assert pair.balancer.echo("/")["client"] == (VISITOR if known else "127.0.0.1")


SPOOFED = {
    "X-Forwarded-For": EVIL,
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.example.org",
    "X-Forwarded-Port": "1",
    "Forwarded": f"for={EVIL};proto=https;host=evil.example.org",
}


@pytest.mark.parametrize("change", [str, str.upper, str.lower])
def test_nobody_says_for_himself_who_he_is(front: Balancer, change: type[str]) -> None:
    honest = front.echo("/")
    found = _asked(front, [(change(name), value) for name, value in SPOOFED.items()])
    assert _identity(found) == _identity(honest)


@pytest.mark.parametrize("change", ["X_Forwarded_{}", "X-Forwarded_{}", "X_Forwarded-{}"])
def test_nor_by_names_that_become_the_same_variables(front: Balancer, change: str) -> None:
    """HTTP_X_FORWARDED_FOR is what CGI and WSGI make of several names (RFC 3875 §4.1.18)."""
    honest = front.echo("/")
    values = {"For": EVIL, "Proto": "https", "Host": "evil.example.org", "Port": "1"}
    sent = [(change.format(name), value) for name, value in values.items()]
    found = _asked(front, [*sent, ("SCRIPT_NAME", "/evil"), ("REMOTE_USER", "root")])
    assert _identity(found) == _identity(honest)


def test_nor_twice(front: Balancer) -> None:
    honest = front.echo("/")
    twice = [("X-Forwarded-For", EVIL), ("X-Forwarded-For", "7.7.7.7")]
    assert _identity(_asked(front, twice)) == _identity(honest)


def test_nor_by_naming_what_belongs_to_the_connection(front: Balancer) -> None:
    """What Connection names is dropped by proxies: not what they have written (RFC 9110 §7.6.1)."""
    honest = front.echo("/")
    names = "close, X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host"
    found = _asked(front, [("Connection", names), ("X-Forwarded-For", EVIL)])
    assert _identity(found) == _identity(honest)


def _asked(front: Balancer, headers: list[tuple[str, str]]) -> dict[str, object]:
    """An answer to headers with just these names."""
    connection = front.connection()
    with closing(connection):
        connection.putrequest("GET", "/")
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        found: dict[str, object] = json.loads(body)
        return found


def _identity(found: dict[str, object]) -> dict[str, object]:
    names = ("client", "forwarded", "scheme", "secure", "url", "script", "proxy")
    return {name: found[name] for name in names}


def test_more_than_is_allowed(front: Balancer) -> None:
    assert _too_much(front, f"Content-Length: {LIMIT * 1_000_000 + 1}", bytes(65536)) == 413
    # The front is well.
    assert front.echo("/", "POST", b"a")["size"] == 1


def test_more_than_is_allowed_without_a_length(pair: Pair) -> None:
    chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
    status = _too_much(pair.balancer, "Transfer-Encoding: chunked", chunk)
    if pair.differs("chunked"):
        assert status == 411
    else:
        assert status == (200 if pair.differs("unlimited") else 413)


def _too_much(front: Balancer, header: str, piece: bytes) -> int:
    """The answer to a body over the limit; nobody waits for more than ten seconds."""
    last = b"0\r\n\r\n" if "chunked" in header else b""
    with closing(socket.create_connection(("127.0.0.1", front.port), 10)) as sock:
        sock.sendall(f"PUT /put HTTP/1.1\r\nHost: a.example.org\r\n{header}\r\n\r\n".encode())
        for part in _pieces(piece, last):
            if not _sent(sock, part):
                break
        answer = http.client.HTTPResponse(sock)
        answer.begin()
        return answer.status


def _pieces(piece: bytes, last: bytes) -> Iterator[bytes]:
    for _ in range(LIMIT * 1_000_000 // len(piece) + 2):
        yield piece
    yield last


def _sent(sock: socket.socket, part: bytes) -> bool:
    """Whether it went out, and no answer was there before."""
    readable, _, _ = select.select([sock], [], [], 0)
    if readable:
        return False
    try:
        sock.sendall(part)
    except (ConnectionError, BrokenPipeError):
        return False
    return True


def test_one_connection_for_many(front: Balancer) -> None:
    connection, used = front.connection(), set()
    with closing(connection):
        for number in range(30):
            connection.request("GET", f"/{number}")
            answer = connection.getresponse()
            assert answer.status == 200
            assert f'"/{number}"'.encode() in answer.read()
            assert not answer.will_close
            used.add(connection.sock.getsockname())
    assert len(used) == 1


@pytest.fixture
def asked(pair: Pair) -> list[FileServer]:
    """The file servers, that have been asked nothing."""
    for one in pair.files:
        one.asked.clear()
        one.files.clear()
    return list(pair.files)


def test_files_have_no_prefix(front: Balancer, asked: list[FileServer]) -> None:
    for one in asked:
        one.files["/a/caf\xe9 %.txt"] = b"content"
    path = "/media/a/caf%C3%A9%20%25.txt"
    assert front.ask(path)[::2] == (200, b"content")
    status, headers, body = front.ask(path, "HEAD")
    assert (status, headers["Content-Length"], body) == (200, "7", b"")
    assert front.ask("/media/nowhere.txt")[0] == 404


def test_what_only_one_has_is_found(pair: Pair, asked: list[FileServer]) -> None:
    front = pair.balancer
    for number, one in enumerate(asked):
        one.files[f"/{number}.txt"] = b"only here"
    # More often than there are servers: whoever is asked first, the other is asked, too.
    numbers = (0, 0, 0, 1, 1, 1)
    found = {front.ask(f"/media/{n}.txt", how)[0] for n in numbers for how in ("GET", "HEAD")}
    assert found == ({200, 404} if pair.differs("only one has") else {200})


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "MKCOL", "PROPFIND"])
def test_files_are_only_read(front: Balancer, asked: list[FileServer], method: str) -> None:
    for path in ("/media/a.txt", "/media/"):
        assert front.ask(path, method, b"a")[0] in REFUSED
    # Health checks come at any time.
    assert {one for server in asked for one in server.asked} <= {("GET", "/")}


@pytest.mark.parametrize(
    "path",
    [
        "/media/.x",
        "/media/a/.x",
        "/media/%2ex",
        "/media/%2Ex",
        "/media/a/%2ex",
        "/media/a%2f.x",
        "/media/a%2F%2ex",
        "/media/..%2f.x",
        "/media/%2e%2e/.x",
        "/media/../media/.x",
        "/media//.x",
        "/media/./.x",
    ],
)
def test_names_with_a_dot_are_nobodys(front: Balancer, asked: list[FileServer], path: str) -> None:
    for one in asked:
        one.files.update(dict.fromkeys(("/.x", "/a/.x", "/x", "//.x", "/./.x"), b"secret"))
    status, _headers, body = front.ask(path)
    assert (status // 100, b"secret" in body) == (4, False)
    assert [one for server in asked for one in server.asked if "x" in one[1]] == []


def test_dots_elsewhere_are_somebodys(front: Balancer, asked: list[FileServer]) -> None:
    for one in asked:
        one.files["/a.b/c..d"] = b"content"
    assert front.ask("/media/a.b/c..d?e=/.f")[::2] == (200, b"content")


def test_pages_may_begin_with_a_dot(front: Balancer) -> None:
    assert front.echo("/.well-known/a")["path"] == "/.well-known/a"
