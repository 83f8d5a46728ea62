"""What the replicated databases of the tests share: processes and Django's aliases."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from django.db import connections

from outgrow.testing import free_port
from tests.live.processes import all_have_status, as_unprivileged, family, wait_until
from tests.live.proxy import Proxy

#: Seconds that a server may take to start, to end or to catch up on a busy machine.
PATIENCE = 60.0


def run(*command: str, folder: Path) -> None:
    """Run a program to its end, unprivileged; its output is shown when it fails."""
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        **as_unprivileged(),
    )
    assert done.returncode == 0, f"{command[0]} failed:\n{done.stdout}\n{done.stderr}"


class DatabaseServer:
    """A server with all its processes, on a port that it keeps, behind a proxy.

    `folder` is its own. Only processes that were started here are ever signalled.
    Not thread-safe.
    """

    #: Signals that end it: in good order, and at once.
    orderly, at_once = signal.SIGTERM, signal.SIGKILL

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.data = folder / "data"
        self.port = free_port()
        self.proxy = Proxy(self.port)
        self._process: subprocess.Popen[bytes] | None = None
        self._frozen: list[psutil.Process] = []

    def command(self) -> list[str]:
        """The words that start it in the foreground."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether it takes connections and answers queries."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        """The process id of the server, of its parent process if it has several."""
        assert self._process is not None, f"{self.name} does not run"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server's process lives (a frozen one does)."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start, and wait until it answers."""
        self.launch()
        self.await_answer()

    def launch(self) -> None:
        """Start, and wait for nothing."""
        assert not self.running, f"{self.name} runs already"
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C at the tests' terminal is not meant for it.
                start_new_session=True,
                **as_unprivileged(),
            )

    def await_answer(self) -> None:
        """Wait until it answers. Raises RuntimeError with its log when it has ended."""
        wait_until(self._alive_and_answers, f"{self.name} does not answer", seconds=PATIENCE)

    def stop(self, *, at_once: bool = False) -> None:
        """End it for certain, also when it is frozen. Harmless when it does not run."""
        if self._process is None:
            return
        self.thaw()
        processes = family(self._process.pid)
        with suppress(ProcessLookupError):
            self._process.send_signal(self.at_once if at_once else self.orderly)
        try:
            self._process.wait(PATIENCE / 2)
        except subprocess.TimeoutExpired:
            self.kill()
            return
        self._gone(processes)

    def restart(self) -> None:
        """End it in good order and start it again."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """SIGKILL to all its processes, and wait until they are gone."""
        if self._process is None:
            return
        # None of them has the time to see that another has died.
        processes = self._hold()
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(PATIENCE)
        self._gone(processes)

    def freeze(self) -> None:
        """SIGSTOP to all its processes: the kernel still accepts connections and data."""
        self._frozen = self._hold()

    def thaw(self) -> None:
        """SIGCONT to what was frozen. Harmless when nothing is."""
        for process in reversed(self._frozen):
            with suppress(psutil.NoSuchProcess):
                process.resume()
        self._frozen = []

    def _hold(self) -> list[psutil.Process]:
        parent = psutil.Process(self.pid)
        # The parent first: it starts no more children then.
        with suppress(psutil.NoSuchProcess):
            parent.suspend()
        stopped = (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
        wait_until(lambda: all_have_status([parent], *stopped), f"{self.name} was not stopped")
        processes = family(self.pid)
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        wait_until(lambda: all_have_status(processes, *stopped), f"{self.name} was not stopped")
        return processes

    def _gone(self, processes: list[psutil.Process]) -> None:
        wait_until(
            lambda: all_have_status(processes, psutil.STATUS_ZOMBIE),
            f"processes of {self.name} are left",
            seconds=PATIENCE,
        )
        self._process = None
        self._frozen = []

    def _alive_and_answers(self) -> bool:
        if not self.running:
            log = (self.folder / "log").read_text(errors="replace")
            raise RuntimeError(f"{self.name} does not run:\n{log[-3000:]}")
        return self.answers()


@contextmanager
def installed(databases: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
    """These databases as aliases of `django.db.connections`, closed and removed behind.

    An alias that was there before is there again afterwards, with this thread's connection.
    """
    known = {alias: dict(database) for alias, database in databases.items()}
    configured = connections.configure_settings({"default": {}, **known})
    before = {alias: (connections.settings.get(alias), _taken(alias)) for alias in known}
    for alias in known:
        connections.settings[alias] = configured[alias]
    try:
        yield
    finally:
        for alias, (settings, connection) in before.items():
            forget(alias)
            del connections.settings[alias]
            if settings is not None:
                connections.settings[alias] = settings
            if connection is not None:
                connections[alias] = connection


def forget(alias: str) -> None:
    """Close this thread's connection of that alias, and drop the object."""
    if (wrapper := _taken(alias)) is not None:
        # A connection to a server that was killed may complain when it is closed.
        with suppress(Exception):
            wrapper.close()
        # Django keeps a database in memory open, for it would be lost.
        if wrapper.vendor == "sqlite" and wrapper.connection is not None:
            wrapper.connection.close()


def _taken(alias: str) -> Any:
    """This thread's connection of that alias, which is no longer the alias'; or None."""
    wrapper = getattr(connections._connections, alias, None)
    if wrapper is not None:
        del connections[alias]
    return wrapper
