"""Ports that are chosen now, and listened on later."""

from __future__ import annotations

import random
import socket
import subprocess
import sys

import pytest

from outgrow.errors import ProcessFailed
from outgrow.testing import free_port
from outgrow.topology.ports import choose, is_free

AGAIN = """
import random, sys
from outgrow.topology.ports import choose
print(choose(2, [int(port) for port in sys.argv[1:]], shuffle=random.Random(0)))
"""


def taken(count: int) -> list[int]:
    """Ports on which nobody listens, from those that tests have for themselves."""
    chance = random.Random()
    return choose(count, range(free_port() // 100 * 100, 26_000), shuffle=chance)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a port be kept so")
def test_what_one_process_has_chosen_no_other_chooses() -> None:
    ports = taken(2)
    words = [sys.executable, "-c", AGAIN, *map(str, ports)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert "2 free ports are needed" in done.stderr
    with pytest.raises(ProcessFailed, match="2 free ports are needed"):
        choose(2, ports, shuffle=random.Random(0))


def test_a_server_can_listen_on_what_was_chosen_and_do_so_again() -> None:
    (port,) = taken(1)
    for _ in range(3):
        assert is_free(port)
        with socket.create_server(("127.0.0.1", port)):
            assert not is_free(port)


def test_a_port_that_is_listened_on_is_not_chosen() -> None:
    (port,) = taken(1)
    with socket.create_server(("127.0.0.1", port)), pytest.raises(ProcessFailed):
        choose(1, [port], shuffle=random.Random(0))
