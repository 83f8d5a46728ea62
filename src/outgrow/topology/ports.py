"""Free TCP ports of this machine."""

from __future__ import annotations

import os
import random
import socket
import sys
from collections import deque
from collections.abc import Sequence
from typing import Final

from outgrow.errors import ProcessFailed
from outgrow.topology.model import LOOPBACK

# Below the ephemeral ranges of Linux (32768 and up) and macOS (49152 and up): in
# those, a client that calls a stopped server may be given that very port as its
# own, be connected to itself, and keep the server from coming back. Those below
# belong to `outgrow.testing`.
PORTS: Final = range(26_000, 32_000)

#: Descriptors of sockets that are bound to the ports that this process has chosen last.
_reserved: deque[int] = deque()
_RESERVED_LIMIT: Final = 64


def choose(count: int, among: Sequence[int] = PORTS, *, shuffle: random.Random) -> list[int]:
    """So many different ports that nobody listens on, or has chosen. Raises `ProcessFailed`."""
    chosen: list[int] = []
    for port in shuffle.sample(among, len(among)):
        if len(chosen) == count:
            break
        if is_free(port) and reserve(port):
            chosen.append(port)
    if len(chosen) < count:
        raise ProcessFailed(f"{count} free ports are needed from {among[0]} to {among[-1]}.")
    return chosen


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket() as probe:
        # As servers do: a port that was used a moment ago can be used again.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def reserve(port: int) -> bool:
    """Keep a port from being chosen by anybody else here. False when somebody has it.

    Who has chosen a port listens later, and not while he is stopped. On Linux a socket that
    is bound without SO_REUSEADDR, and given it afterwards, is in the way of the next one
    who chooses so, and not of a server that listens with SO_REUSEADDR, as all do.
    """
    if sys.platform != "linux":
        return True
    place = socket.socket()
    try:
        place.bind((LOOPBACK, port))
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    except OSError:
        place.close()
        return False
    _reserved.append(place.detach())
    if len(_reserved) > _RESERVED_LIMIT:
        os.close(_reserved.popleft())
    return True
