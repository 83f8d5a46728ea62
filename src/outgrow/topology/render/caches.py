"""What a cache server runs: memcached by the words of its command, Redis by a file.

Sources: memcached(1), and redis.io/docs/latest/operate/oss_and_stack/management/config-file/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from outgrow.topology.cache import Cache
from outgrow.topology.model import Port
from outgrow.topology.render import File

#: The name of Redis's file.
CONFIGURATION: Final = "redis.conf"

# A cache: nothing is written to a disk, and what was not asked for longest makes room.
_REDIS: Final = """\
# Written by outgrow. Changes here are lost.
bind {host}
port {number}
# Whoever reaches the port may read and write; a firewall lets the application servers alone.
protected-mode no
daemonize no
save ""
appendonly no
maxmemory {memory}mb
maxmemory-policy allkeys-lru
"""


def memcached(program: str, port: Port, cache: Cache, user: str = "") -> tuple[str, ...]:
    """The words that start memcached. `user` is whom one becomes that root starts."""
    return (
        *(program, "-l", port.host, "-p", str(port.number)),
        # No UDP: it was used to amplify attacks (CVE-2018-1000115).
        *("-U", "0", "-m", str(cache.memory)),
        *(("-u", user) if user else ()),
    )


def redis(port: Port, cache: Cache) -> Iterator[File]:
    """The configuration of a Redis that is a cache and nothing else."""
    content = _REDIS.format(host=port.host, number=port.number, memory=cache.memory)
    yield File(CONFIGURATION, content)
