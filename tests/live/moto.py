"""moto's server: S3's answers in breadth, but no security, and no signature is checked."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException

from outgrow.testing import free_port
from tests.live.engines import Engine
from tests.live.processes import wait_until


@contextmanager
def running_moto() -> Iterator[Engine]:
    """One for as long as the block lasts; all that it has is in its memory."""
    port = free_port()
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _answers(port), "moto does not answer")
        yield Engine(
            name="moto",
            endpoint=f"http://127.0.0.1:{port}",
            access_key="key",
            secret_key="secret",
            region="us-east-1",
            verifies=False,
            has_policies=True,
            has_forms=True,
            is_atomic=True,
        )
    finally:
        process.kill()
        process.wait(10)


def _answers(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    with closing(connection), suppress(OSError, HTTPException):
        connection.request("GET", "/moto-api/")
        return connection.getresponse().status == 200
    return False
