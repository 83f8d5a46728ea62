"""Free TCP ports of this machine."""

from __future__ import annotations

import random
import socket
from collections.abc import Sequence
from typing import Final

from outgrow.errors import ProcessFailed
from outgrow.topology.model import LOOPBACK

# Below the ephemeral ranges of Linux (32768 and up) and macOS (49152 and up): in
# those, a client that calls a stopped server may be given that very port as its
# own, be connected to itself, and keep the server from coming back. Those below
# belong to `outgrow.testing`.
PORTS: Final = range(26_000, 32_000)


def choose(count: int, among: Sequence[int] = PORTS, *, shuffle: random.Random) -> list[int]:
    """So many different ports that nobody listens on now. Raises `ProcessFailed`."""
    chosen: list[int] = []
    for port in shuffle.sample(among, len(among)):
        if len(chosen) == count:
            break
        if is_free(port):
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
