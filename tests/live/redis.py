"""A Redis of our own, on loopback, with nothing on the disk."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from outgrow.testing import free_port
from tests.live.processes import missing, server_folder, unprivileged, wait_until


class Redis:
    """One redis-server. `start` and `stop` it; its port stays."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            missing("Redis is not installed", "apt-get install redis-server")
        user = unprivileged()
        who: dict[str, Any] = (
            {"user": user[0], "group": user[1], "extra_groups": []} if user else {}
        )
        words = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self._process = subprocess.Popen(
            [*words, "--appendonly", "no", "--dir", str(self.folder)],
            stdout=subprocess.DEVNULL,
            **who,
        )
        wait_until(self._answers, "Redis does not answer")

    def _answers(self) -> bool:
        import redis

        with redis.Redis.from_url(self.url) as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None


@contextmanager
def running_redis() -> Iterator[Redis]:
    """A Redis for as long as the block lasts."""
    with server_folder("outgrow-redis-") as folder:
        server = Redis(folder)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@pytest.fixture
def redis_server() -> Iterator[Redis]:
    """An empty Redis."""
    with running_redis() as server:
        yield server
