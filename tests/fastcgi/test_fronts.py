"""A site by FastCGI behind nginx, lighttpd and Apache: threads and processes, socket and port."""

from __future__ import annotations

import hashlib
import http.client
import itertools
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.fastcgi.asked import EveryFront
from tests.fastcgi.serving import Front, open_to_all, serving
from tests.live.processes import server_folder
from tests.live.web_servers import FastCGIApache, FastCGILighttpd, FastCGINginx, running

FRONTS = [FastCGINginx, FastCGILighttpd, FastCGIApache]


@pytest.fixture(
    params=itertools.product(FRONTS, ["unix", "tcp"], ["threaded", "prefork"]),
    ids=lambda one: f"{one[0].program}-{one[1]}-{one[2]}",
    scope="module",
)
def front(request: pytest.FixtureRequest) -> Iterator[Front]:
    kind, place, method = request.param
    with server_folder("outgrow-fastcgi-") as folder:
        open_to_all(folder)
        with serving(folder, place, f"method={method}") as site:
            kind_ = type(kind.__name__, (kind,), {"missing": 200})
            with running(kind_, site.changes(kind.program)) as server:
                yield Front(server.port)


class TestAsEveryFront(EveryFront):
    """It passes on what all do."""


def test_the_address_that_the_visitor_has_asked(front: Front) -> None:
    found = front.echo("/page")
    assert found["url"] == f"http://127.0.0.1:{front.port}/page"
    named = front.echo("/page", Host="www.example.org:8443")
    assert named["url"] == "http://www.example.org:8443/page"
    assert found["client"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        ("/caf%C3%A9/%E2%82%AC", "/café/€"),
        ("/a%20b/c%25d", "/a b/c%d"),
        ("/a%2Fb", "/a/b"),
        ("/a.fcgi/b", "/a.fcgi/b"),
        ("/index.html", "/index.html"),
    ],
)
def test_paths(front: Front, asked: str, path: str) -> None:
    assert front.echo(asked)["path"] == path


def test_two_slashes(front: Front, request: pytest.FixtureRequest) -> None:
    merged = "lighttpd" in request.node.name  # it does so before FastCGI
    assert front.echo("/a//b")["path"] == ("/a/b" if merged else "/a//b")


def test_more_than_is_allowed(front: Front) -> None:
    connection = front.connection()
    with closing(connection):
        connection.putrequest("PUT", "/put")
        connection.putheader("Content-Length", str(101 * 1024 * 1024))
        connection.endheaders()
        assert connection.getresponse().status == 413


def test_a_body_of_unknown_length(front: Front) -> None:
    pieces = [b"one " * 1000, b"two " * 1000]
    found = front.echo("/chunked", "POST", iter(pieces), Transfer_Encoding="chunked")
    assert found["digest"] == hashlib.sha256(b"".join(pieces)).hexdigest()


def test_what_comes_in_pieces(front: Front, tmp_path: Path) -> None:
    go = tmp_path / "go"
    go.touch()
    status, headers, body = front.ask(f"/stream?file={go}")
    assert (status, body) == (200, b"first\n" * 2000 + b"second\n")
    assert headers["Content-Type"] == "text/plain"


def test_head(front: Front) -> None:
    status, headers, body = front.ask("/page", "HEAD")
    assert (status, body) == (200, b"")
    assert headers["Content-Type"] == "application/json"


def test_one_connection_for_many(front: Front) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=60)
    with closing(connection):
        for number in range(30):
            connection.request("GET", f"/{number}")
            answer = connection.getresponse()
            assert answer.status == 200
            assert f'"/{number}"'.encode() in answer.read()
