"""A bucket mounted as a folder by s3fs, for as long as a block lasts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.live.engines import Engine
from tests.live.processes import missing, wait_until

DEVICE = Path("/dev/fuse")


def _not_proven(why: str) -> None:
    """No package helps there: the machine itself forbids it. Not even CI can demand it."""
    pytest.skip(f"NOT PROVEN: a bucket mounted as a folder, for {why}")


def demand_fuse() -> None:
    """Skips, and says that nothing is proven, where this machine lets nobody mount."""
    if not DEVICE.exists():
        _not_proven(f"there is no {DEVICE} here")
    try:
        os.close(os.open(DEVICE, os.O_RDWR))
    except OSError as error:
        _not_proven(f"{DEVICE} can't be opened: {error.strerror}")
    if not shutil.which("s3fs"):
        missing("s3fs is not installed", "apt-get install s3fs")


@contextmanager
def mounted(engine: Engine, bucket: str) -> Iterator[Path]:
    """The folder that shows the bucket. It is unmounted whatever happens.

    If this process is killed, the kernel ends s3fs by SIGTERM, upon which it unmounts.
    """
    demand_fuse()
    folder = Path(tempfile.mkdtemp(prefix="outgrow-s3fs-"))
    point, log = folder / "bucket", folder / "log"
    point.mkdir()
    options = [f"url={engine.endpoint}", "use_path_request_style", f"endpoint={engine.region}"]
    keys = {"AWSACCESSKEYID": engine.access_key, "AWSSECRETACCESSKEY": engine.secret_key}
    words = ["setpriv", "--pdeathsig", "TERM", "s3fs", bucket, str(point), "-f"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*words, *(word for one in options for word in ("-o", one))],
            env={**os.environ, **keys},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        wait_until(lambda: os.path.ismount(point) or process.poll() is not None, "nothing mounted")
        if process.poll() is not None:
            said = log.read_text()
            if "fuse: mount failed" in said or "fusermount" in said:
                _not_proven(f"mounting is not allowed here: {said.strip()[-200:]}")
            raise RuntimeError(f"s3fs ended with {process.returncode}: {said[-1000:]}")
        yield point
    finally:
        _unmount(point, process)
        shutil.rmtree(folder, ignore_errors=True)


def _unmount(point: Path, process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)  # it unmounts, and ends
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
    # What a killed s3fs leaves can't be looked at (ENOTCONN), and is no mount to Python.
    mounts = Path("/proc/self/mounts")
    if mounts.exists() and str(point) in mounts.read_text():
        subprocess.run(["fusermount", "-u", "-z", str(point)], check=True, timeout=20)
    if process.poll() is None:
        process.kill()
        process.wait(20)
