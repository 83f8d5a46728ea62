"""What the tests with real servers share: ports, users, waiting, skipping."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest


def unprivileged() -> tuple[int, int] | None:
    """The user and group that servers run as when the tests run as root, else None."""
    if os.geteuid() != 0:
        return None
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        return 65534, 65534
    return nobody.pw_uid, nobody.pw_gid


def as_unprivileged() -> dict[str, Any]:
    """Words for subprocess, so that a program does not run as root."""
    user = unprivileged()
    return {"user": user[0], "group": user[1], "extra_groups": []} if user else {}


def launched(
    words: Sequence[str | Path], folder: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """A server that runs unprivileged in a folder; what it prints is in `output` there."""
    with (folder / "output").open("ab") as output:
        return subprocess.Popen(
            words,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            **as_unprivileged(),
        )


def kill_family(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to a server and its children; returns when it is gone."""
    for one in family(process.pid):
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait(20)


@contextmanager
def server_folder(prefix: str) -> Iterator[Path]:
    """A temporary folder that the unprivileged user owns and can reach.

    pytest's own tmp_path is closed to other users when the tests run as root.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        if user := unprivileged():
            os.chown(folder, *user)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait_until(condition: Callable[[], bool], what: str, *, seconds: float = 60.0) -> None:
    """Wait until `condition()` is true; fail with `what` after `seconds`, when it hangs."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s in vain: {what}")
        time.sleep(0.002)


def family(pid: int) -> list[psutil.Process]:
    """The process and all its descendants that are alive."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def all_have_status(processes: list[psutil.Process], *wanted: str) -> bool:
    """Whether every process has one of these psutil statuses; a vanished one is "zombie"."""
    return all(_status(process) in wanted for process in processes)


def _status(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.NoSuchProcess:
        return str(psutil.STATUS_ZOMBIE)


def missing(what: str, install: str) -> NoReturn:
    """Skip the test because something is not there; fail where it is required."""
    message = f"{what}. Try: {install} (or: make servers)"
    if os.environ.get("OUTGROW_REQUIRE_LIVE") == "1":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)
