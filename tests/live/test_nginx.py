"""The nginx of the live tests does what its users rely on."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request

import pytest

from tests.live.nginx import Nginx
from tests.live.processes import family, wait_until


def ask(
    server: Nginx, method: str, path: str, body: bytes | None = None, *, timeout: float = 5
) -> int:
    request = urllib.request.Request(server.url + path, body, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_it_writes_makes_folders_and_deletes(nginx: Nginx) -> None:
    assert ask(nginx, "PUT", "/a/b/c.txt", b"hello") == 201
    assert (nginx.root / "a/b/c.txt").read_bytes() == b"hello"
    assert ask(nginx, "PUT", "/a/b/c.txt", b"again") == 204
    assert ask(nginx, "DELETE", "/a/b/c.txt") == 204
    assert ask(nginx, "DELETE", "/a/b/c.txt") == 404
    assert ask(nginx, "DELETE", "/") == 409
    assert ask(nginx, "MKCOL", "/folder/") == 201
    assert nginx.requests()[:2] == [("PUT", "/a/b/c.txt", 201), ("PUT", "/a/b/c.txt", 204)]


def test_it_is_not_root(nginx: Nginx) -> None:
    assert nginx._process is not None
    assert all(process.uids().effective != 0 for process in family(nginx._process.pid))


def test_a_paused_server_answers_once_resumed(nginx: Nginx) -> None:
    nginx.pause()
    with pytest.raises(TimeoutError):
        ask(nginx, "PUT", "/late.txt", b"late", timeout=0.2)
    assert not (nginx.root / "late.txt").exists()
    nginx.resume()
    # It acts on a request whose client has long gone: an unknown PUT.
    wait_until((nginx.root / "late.txt").exists, "the late PUT was never carried out")


def test_a_killed_server_is_gone_and_comes_back_on_its_port(nginx: Nginx) -> None:
    ask(nginx, "PUT", "/kept.txt", b"kept")
    nginx.kill()
    assert not nginx.running
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", nginx.port), 1)
    nginx.start()
    assert ask(nginx, "GET", "/kept.txt") == 200


def test_stopping_a_paused_server_leaves_no_process(nginx: Nginx) -> None:
    assert nginx._process is not None
    processes = family(nginx._process.pid)
    nginx.pause()
    nginx.stop()
    wait_until(lambda: not any(process.is_running() for process in processes), "left behind")


def test_three_servers_are_three(three_nginx: list[Nginx]) -> None:
    assert len({server.port for server in three_nginx}) == 3
    ask(three_nginx[1], "PUT", "/one.txt", b"1")
    assert [(server.root / "one.txt").exists() for server in three_nginx] == [False, True, False]
