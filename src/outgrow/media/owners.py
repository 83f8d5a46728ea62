"""Which process made a record, and whether it is still there.

A process id alone says little: it is used again, and means nothing on another
machine. So an owner is a text of three parts: a digest of the machine and its boot, the
process id, and when that process was born. It has no dot in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
from functools import lru_cache
from pathlib import Path


def own() -> str:
    """The owner that this process is."""
    return _owner(os.getpid())


def lives(owner: str) -> bool | None:
    """Whether that very process is still there; None where it can't be asked."""
    machine, _, rest = owner.partition("-")
    process, _, born = rest.partition("-")
    if machine != _machine() or not process.isdigit():
        return None
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return not born or _birth(int(process)) == born


@lru_cache(maxsize=8)
def _owner(process: int) -> str:
    """The argument keeps a fork from its parent's answer."""
    return f"{_machine()}-{process}-{_birth(process)}"


@lru_cache(maxsize=1)
def _machine() -> str:
    """This machine and its boot, as far as process ids have a meaning.

    A container counts as a machine of its own: its host name and its namespace of
    process ids are part of the digest.
    """
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:12]


def _birth(process: int) -> str:
    """When a process was started, in the kernel's own count; empty where that is not told."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return ""
    # proc(5): fields 3 and 22, counted after the command's closing parenthesis.
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]
