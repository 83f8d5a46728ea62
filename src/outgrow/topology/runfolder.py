"""The folder of a run: who uses it, and what the next run has from the last."""

from __future__ import annotations

import fcntl
import os
import random
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from outgrow.errors import OutgrowError, ProcessFailed
from outgrow.topology import ports
from outgrow.topology.load import load
from outgrow.topology.model import PASSWORD_FILE, Site
from outgrow.topology.plan import TOPOLOGY_FILE

#: The folder of a run, beside the topology file.
RUN_FOLDER: Final = ".outgrow-run"


def beside(topology: Path) -> Path:
    """The folder of a run of this topology file, where nobody chose another."""
    return topology.absolute().parent / RUN_FOLDER


def is_locked(folder: Path) -> bool:
    """Whether a run uses the folder."""
    try:
        handle = os.open(folder / "_lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def lock(folder: Path) -> int:
    """Make the folder and lock it: a file descriptor, whose closing unlocks it.

    Raises `ProcessFailed` when another run has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / "_lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise ProcessFailed(
            f"Another run uses the folder {folder}. Stop it, or choose another folder."
        ) from error
    return handle


def choose_ports(site: Site, folder: Path, shuffle: random.Random) -> dict[str, int]:
    """A free port for each service that listens: those of the last run where they are free."""
    names = [service.name for service in site.services() if service.port.number]
    with suppress(OutgrowError):
        last = load(folder / TOPOLOGY_FILE)
        every = {service.name: service.port.number for service in last.services()}
        kept = {name: number for name, number in every.items() if number}
        if list(kept) == names and all(map(ports.is_free, kept.values())):
            return kept
    return dict(zip(names, ports.choose(len(names), shuffle=shuffle), strict=True))


def password(folder: Path) -> str:
    """That of the run's databases; a new one where there is none."""
    with suppress(FileNotFoundError):
        return (folder / PASSWORD_FILE).read_text(encoding="utf-8")
    return secrets.token_hex(16)
