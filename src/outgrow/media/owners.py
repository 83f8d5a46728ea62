"""Which process made a record, and whether it is still there.

A process id alone says little: it is used again, and means nothing on another
machine. So a record holds the machine, the process id and when the process was born.
"""

from __future__ import annotations

import contextlib
import os
import socket
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def machine() -> str:
    """This machine and its boot, as far as process ids have a meaning.

    A container counts as a machine of its own: its host name and its namespace of
    process ids are part of the text.
    """
    parts = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id",):
        with contextlib.suppress(OSError):
            parts.append(Path(path).read_text().strip())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def birth(process: int) -> str:
    """When a process was started, in the kernel's own count; empty where that is not told."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return ""
    # proc(5): fields 3 and 22, counted after the command's closing parenthesis.
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


def lives(process: object, born: object) -> bool:
    """Whether that very process is still there."""
    if not isinstance(process, int) or process <= 0:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return not born or birth(process) == born


@lru_cache(maxsize=8)
def own_birth(process: int) -> str:
    """`birth` of this process; the argument keeps a fork from its parent's answer."""
    return birth(process)
