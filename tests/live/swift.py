"""OpenStack Swift with its S3 API: a real object store that checks every signature.

One node with one copy for most tests, several with three copies for the drills. Each
node has an address of its own on loopback and five processes: a proxy, which clients speak
to, and a server each for accounts, containers and objects (the proxies of all nodes are
alike). Configuration: https://docs.openstack.org/swift/latest/development_saio.html.
"""

from __future__ import annotations

import http.client
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from outgrow.testing import free_port
from outgrow.topology.objects import REGION
from outgrow.topology.swift import KINDS, RINGS, SWIFT_CONF, configuration, program
from tests.live.engines import Engine
from tests.live.processes import missing, server_folder, unprivileged, wait_until

ACCESS_KEY: Final = "test:tester"
SECRET_KEY: Final = "testing"


class Node:
    """One machine of a cluster: a disk and four servers. `stop` kills them all at once."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder = folder
        self.address = address
        self.ports = [free_port() for _ in range(4)]
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def endpoint(self) -> str:
        return f"http://{self.address}:{self.ports[0]}"

    def device(self) -> str:
        """What the ring knows of it: its address and three ports."""
        return ",".join([self.address, *map(str, self.ports[1:])])

    def configure(self, rings: Path) -> None:
        (self.folder / "disks" / "disk").mkdir(parents=True)
        for number, kind in enumerate(("proxy", *KINDS)):
            path = self.folder / f"{kind}-server.conf"
            with path.open("w") as file:
                configuration(
                    kind,
                    address=self.address,
                    port=self.ports[number],
                    rings=rings,
                    folder=self.folder,
                    user=_user(),
                    account=f"{ACCESS_KEY}:{SECRET_KEY}",
                ).write(file)
        if user := unprivileged():
            for path in [self.folder, *self.folder.rglob("*")]:
                os.chown(path, *user)

    def start(self) -> None:
        for kind in ("proxy", *KINDS):
            log = (self.folder / f"{kind}.log").open("ab")
            with log:
                process = subprocess.Popen(
                    [*_as_nobody(), program(kind), self.folder / f"{kind}-server.conf"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            self._processes.append(process)

    def wait_ready(self) -> None:
        for port in self.ports:
            wait_until(lambda port=port: self._is_up(port), "Swift does not answer")

    def _is_up(self, port: int) -> bool:
        for process in self._processes:
            if process.poll() is not None:
                logs = "\n".join(path.read_text() for path in self.folder.glob("*.log"))
                raise RuntimeError(f"Swift ended with {process.returncode}: {logs[-2000:]}")
        connection = http.client.HTTPConnection(self.address, port, timeout=5)
        with closing(connection), suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/healthcheck" if port == self.ports[0] else "/")
            return connection.getresponse().status < 500
        return False

    def freeze(self) -> None:
        for process in self._processes:
            os.killpg(process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for process in self._processes:
            os.killpg(process.pid, signal.SIGCONT)

    def stop(self) -> None:
        for process in self._processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in self._processes:
            process.wait(10)
        self._processes.clear()


@contextmanager
def running_swift(nodes: int = 1) -> Iterator[list[Node]]:
    """A cluster for as long as the block lasts, with three copies, or one for each node."""
    if not program("proxy").exists():
        missing("Swift is not installed", "pip install swift")
    with server_folder("outgrow-swift-") as folder:
        cluster = [Node(folder / f"node{n}", f"127.0.0.{n}") for n in range(1, nodes + 1)]
        rings = folder / "rings"
        rings.mkdir()
        (rings / "swift.conf").write_text(SWIFT_CONF)
        words = [str(rings), str(min(nodes, 3)), *(node.device() for node in cluster)]
        subprocess.run([sys.executable, "-c", RINGS, *words], check=True, timeout=120)
        for node in cluster:
            node.configure(rings)
        try:
            for node in cluster:
                node.start()
            for node in cluster:
                node.wait_ready()
            yield cluster
        finally:
            for node in cluster:
                node.stop()


def engine_of(node: Node) -> Engine:
    """How clients speak to a node."""
    return Engine(
        name="swift",
        endpoint=node.endpoint,
        access_key=ACCESS_KEY,
        secret_key=SECRET_KEY,
        region=REGION,
        verifies=True,
        has_policies=False,
        has_forms=False,
        is_atomic=False,
    )


def _user() -> str:
    user = unprivileged()
    return pwd.getpwuid(user[0] if user else os.geteuid()).pw_name


def _as_nobody() -> list[str]:
    """The words before a command that run it as an unprivileged user.

    Who may still read the interpreter, wherever root has put it.
    """
    user = unprivileged()
    if user is None:
        return []
    program = shutil.which("setpriv") or missing(
        "setpriv is not installed", "apt install util-linux"
    )
    read = "dac_read_search"
    return [
        program,
        f"--reuid={user[0]}",
        f"--regid={user[1]}",
        "--clear-groups",
        f"--inh-caps=-all,+{read}",
        f"--bounding-set=-all,+{read}",
        f"--ambient-caps=+{read}",
    ]
