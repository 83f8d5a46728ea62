"""Breaking servers of a `LocalSite`, and what an operator does then."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from outgrow.drills.catalogue import Drill
from outgrow.errors import ProcessFailed
from outgrow.topology.acts import Acts
from outgrow.topology.local import LocalSite
from outgrow.topology.promoting import received
from outgrow.topology.promotion import furthest

#: Seconds that one command has; it imports the whole site, and may copy all files.
COMMAND_LIMIT: Final = 120.0

#: Seconds until a site that runs again owes nothing any more.
SETTLE_LIMIT: Final = 60.0

#: Seconds between two reloads.
_RELOAD_EVERY: Final = 1.0

#: Seconds between two looks.
_PAUSE: Final = 0.2


@dataclass(frozen=True, slots=True)
class Break:
    """One drill on one site. `wait(seconds)` lets the load go on for so long."""

    local: LocalSite
    drill: Drill
    wait: Callable[[float], None]

    def play(self, seconds: float) -> None:
        """Break its servers for so long, and bring them back. Raises `ProcessFailed`."""
        play = {
            "kill": self._kill,
            "stop": self._stop,
            "restart": self._roll,
            "roll": self._roll,
            "freeze": self._freeze,
            "reload": self._reload,
            "disk": self._disk,
            "promote": self._promote,
        }[self.drill.fault]
        play(seconds)

    def _kill(self, seconds: float) -> None:
        with self._held():
            for name in self.drill.servers:
                self.local.process(name).kill()
            self.wait(seconds)
            self._start()

    def _stop(self, seconds: float) -> None:
        with self._held():
            for name in self.drill.servers:
                self.local.process(name).stop()
            self.wait(seconds)
            self._start()

    def _roll(self, _seconds: float) -> None:
        with self._held():
            for name in self.drill.servers:
                self.local.process(name).stop()
                self._start_one(name)

    def _freeze(self, seconds: float) -> None:
        processes = [self.local.process(name) for name in self.drill.servers]
        for process in processes:
            process.pause()
        try:
            self.wait(seconds)
        finally:
            for process in processes:
                process.resume()

    def _reload(self, seconds: float) -> None:
        """Several times: what is lost by a reload is lost seldom."""
        for name in self.drill.servers:
            reload = self.local.planned(name).command.reload
            if reload is None:
                raise ProcessFailed(f"{name} can't reload; restart it instead.")
            for _ in range(max(1, int(seconds / _RELOAD_EVERY))):
                self.local.process(name).signal_leader(reload.signal)
                self.wait(_RELOAD_EVERY)

    def _disk(self, seconds: float) -> None:
        with self._held():
            for name in self.drill.servers:
                self.local.process(name).kill()
            for name in self.drill.servers:
                root = self.local.planned(name).root
                if root is None:
                    raise ProcessFailed(f"{name} has no folder of its own; drill another server.")
                shutil.rmtree(root)
            self.wait(seconds)
            for name in self.drill.servers:
                self.local.make_data(name)
            self._start()
        for name in self.drill.servers:
            if self.local.site.service(name).role == "media":
                # It is meant to be empty: an operator says so, or nobody writes to it.
                # Visitors go on meanwhile, so it may be owed more at the end: see `settle`.
                words = ("outgrow", "media", "repair", "--server", name, "--adopt")
                _manage(self.local, *words, fine=(0, 1))

    def _promote(self, seconds: float) -> None:
        """Its disk is lost; a replica takes its place, and then hands it back."""
        [old] = self.drill.servers
        with self._held():
            self.local.process(old).kill()
            root = self.local.planned(old).root
            if root is None:
                raise ProcessFailed(f"{old} has no folder of its own; drill another server.")
            shutil.rmtree(root)
            self.wait(seconds)
            acts = Acts(self.local)
            acts.promote(furthest(received(self.local)))
            self.wait(seconds)
            acts.promote(old)

    @contextmanager
    def _held(self) -> Iterator[None]:
        for name in self.drill.servers:
            self.local.hold(name)
        try:
            yield
        finally:
            for name in self.drill.servers:
                self.local.release(name)

    def _start(self) -> None:
        for name in self.drill.servers:
            self.local.process(name).start()
        for name in self.drill.servers:
            self.local.wait_ready(name)

    def _start_one(self, name: str) -> None:
        self.local.process(name).start()
        self.local.wait_ready(name)


def settle(local: LocalSite) -> list[str]:
    """Wait until every process does its work and no media server is owed anything.

    What is not so after `SETTLE_LIMIT` seconds, in words.
    """
    for planned in local.plan.processes:
        local.wait_ready(planned.name)
    end = time.monotonic() + SETTLE_LIMIT
    while problems := _unsettled(local):
        if time.monotonic() > end:
            return problems
        time.sleep(_PAUSE)
    return []


def _unsettled(local: LocalSite) -> list[str]:
    replicas = {service.name for service in local.site.services("replica")}
    found = [
        f"{planned.name}: {problem}"
        for planned in local.plan.processes
        if planned.name in replicas and (problem := planned.check.problem())
    ]
    if local.site.services("media"):
        try:
            _manage(local, "outgrow", "media", "repair")
        except ProcessFailed as error:
            found.append(str(error))
    return found


def _manage(local: LocalSite, *words: str, fine: tuple[int, ...] = (0,)) -> None:
    """Run a command of the site, which ends with a `fine` status. Raises `ProcessFailed`."""
    shown = f"manage.py {' '.join(words)}"
    try:
        done = subprocess.run(
            (sys.executable, "-m", "django", *words),
            cwd=local.site.folder,
            env={**os.environ, **local.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ProcessFailed(f"{shown} did not end within {COMMAND_LIMIT:g} s.") from error
    if done.returncode not in fine:
        said = done.stdout.decode(errors="replace").strip()
        raise ProcessFailed(f"{shown} ended with status {done.returncode}. It said:\n{said}")
