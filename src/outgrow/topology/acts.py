"""What can be done to one server of a site that runs, by a person at a second terminal.

The laws:

1. Who was killed or stopped by a person stays down until he starts it again: it is held
   *before* the signal, so that the watch can't be quicker.
2. One thing at a time is done to a server; those to several go on beside each other.
3. What returns is true: after `start` and `reload` the server is ready.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from outgrow.errors import ControlFailed
from outgrow.topology import family, promoting
from outgrow.topology.deployment import CHECK
from outgrow.topology.keys import suggestion
from outgrow.topology.local import LocalSite
from outgrow.topology.model import MIGRATE
from outgrow.topology.process import PAUSE, Process, Reload

#: Seconds to wait for what somebody else does to the same server.
TURN_LIMIT: Final = 60.0

#: Seconds for the old children of a server to end; gunicorn lets requests end for 5.
RENEW_LIMIT: Final = 20.0


#: What is done before a new version, and what is said when it was.
_PREPARED: Final = {
    CHECK: "The new code loads, and its checks find no error.",
    MIGRATE: "The database is migrated.",
}


class Acts:
    """What can be done to the servers of one site. Thread-safe."""

    def __init__(self, local: LocalSite, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._local = local
        self._clock = clock
        self._turns: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()
        #: By the word of the command.
        self._known: Final[Mapping[str, Callable[[str, Process], str]]] = {
            "kill": self._kill,
            "freeze": self._freeze,
            "thaw": self._thaw,
            "stop": self._stop,
            "start": self._start,
            "reload": self._reload,
        }

    def act(self, word: str, name: str) -> str:
        """Do it; a sentence that says what was done.

        Raises `ControlFailed`, and `ProcessFailed` for a server that does not become ready.
        """
        if word not in self._known:
            raise ControlFailed(f'"{word}" is nothing that can be done to a server.')
        names = [planned.name for planned in self._local.plan.processes]
        if name not in names:
            known = suggestion(name, names)
            raise ControlFailed(f'"{name}" is no server of this site; {known}')
        with self._turn(name):
            self._must_go_on()
            said = self._known[word](name, self._local.process(name))
        self._local.say(said)
        return said

    def prepare(self, name: str) -> str:
        """Do what comes before a new version of the site: `deployment.CHECK`, or `MIGRATE`.

        A sentence that says what was done. Raises `ControlFailed` and `ProcessFailed`.
        """
        if name not in _PREPARED:
            raise ControlFailed(f'"{name}" is nothing that is done before a new version.')
        with self._turn(""):
            self._must_go_on()
            did = self._local.prepare_version(name)
            self._must_go_on()
        said = _PREPARED[name] if did else "This site has no database to migrate."
        self._local.say(said)
        return said

    def promote(
        self, name: str, *, dry_run: bool = False, accept_loss: bool = False
    ) -> dict[str, Any]:
        """Make a replica the primary, or say what that would do: see `promoting`."""
        # Roles are those of all servers, so nothing else is done to any of them.
        with ExitStack() as stack:
            for one in sorted(planned.name for planned in self._local.plan.processes):
                stack.enter_context(self._turn(one))
            self._must_go_on()
            done = promoting.promote(
                self._local, name, self._reread, dry_run=dry_run, accept_loss=accept_loss
            )
        if done["done"]:
            self._local.say(done["said"])
        return done

    def _must_go_on(self) -> None:
        if self._local.stop_requested or self._local.failure:
            raise ControlFailed("The site is stopping.")

    @contextmanager
    def _turn(self, name: str) -> Iterator[None]:
        with self._lock:
            turn = self._turns.setdefault(name, threading.Lock())
        if not turn.acquire(timeout=TURN_LIMIT):
            busy = name or "The site"
            raise ControlFailed(f"{busy} is busy with another command. Try again later.")
        try:
            yield
        finally:
            turn.release()

    def _kill(self, name: str, process: Process) -> str:
        self._must_run(name, process)
        self._local.hold(name)
        process.kill()
        return f"{name} was killed; it stays down until: outgrow start {name}"

    def _stop(self, name: str, process: Process) -> str:
        self._must_run(name, process)
        self._local.hold(name)
        process.stop()
        return f"{name} {process.ended}; it stays down until: outgrow start {name}"

    def _freeze(self, name: str, process: Process) -> str:
        self._must_answer(name, process)
        process.pause()
        return (
            f"{name} is frozen: it takes connections and answers nobody, until: outgrow thaw {name}"
        )

    def _thaw(self, name: str, process: Process) -> str:
        self._must_run(name, process)
        if not process.paused:
            raise ControlFailed(f"{name} is not frozen.")
        process.resume()
        return f"{name} goes on."

    def _start(self, name: str, process: Process) -> str:
        if process.paused:
            raise ControlFailed(f"{name} runs and is frozen. Let it go on: outgrow thaw {name}")
        if process.running:
            raise ControlFailed(f"{name} runs already.")
        both = promoting.unfinished(self._local)
        if both is not None and both.old == name:
            raise ControlFailed(
                f"{name} was the primary before {both.new}, and does not follow it yet. Go on: "
                f"outgrow promote {both.new}"
            )
        data = self._local.planned(name).data
        if data is not None and data.copies is not None:
            self._local.make_data(name)
        self._revive(name)
        return f"{name} was started, and is ready."

    def _reload(self, name: str, process: Process) -> str:
        self._must_answer(name, process)
        reload = process.command.reload
        if reload is None:
            self._local.hold(name)
            process.stop()
            self._revive(name)
            return f"{name} can't reload: it was restarted, and is ready."
        self._renew(name, process, reload)
        self._wait_ready(name)
        return f"{name} has reloaded ({reload.signal.name}), and is ready."

    def _reread(self, name: str) -> None:
        self._reload(name, self._local.process(name))

    def _revive(self, name: str) -> None:
        self._local.revive(name)
        self._wait_ready(name)

    def _wait_ready(self, name: str) -> None:
        self._local.wait_ready(name)
        if self._local.stop_requested:  # then nothing was waited for
            raise ControlFailed(f"The site was stopped before {name} was ready.")

    def _renew(self, name: str, process: Process, reload: Reload) -> None:
        """Send the signal, and wait until those who knew the old configuration are gone."""
        pid = process.pid
        old = family.descendants(pid) if pid is not None and reload.renews else set()
        process.signal_leader(reload.signal)
        end = self._clock() + RENEW_LIMIT
        while process.pid == pid and pid is not None and old & family.descendants(pid):
            if self._local.stop_requested:
                return
            if self._clock() >= end:
                raise ControlFailed(
                    f"{name} was told to reload, and after {RENEW_LIMIT:g} s there are still "
                    f"processes from before. Restart it: outgrow stop {name}, outgrow start {name}"
                )
            time.sleep(PAUSE)

    def _must_run(self, name: str, process: Process) -> None:
        if process.running:
            return
        how = f"it {process.ended}" if process.ended else "it was not started"
        if self._local.is_held(name):
            raise ControlFailed(f"{name} does not run: {how}. Start it: outgrow start {name}")
        raise ControlFailed(f"{name} does not run: {how}. It is started again in a moment.")

    def _must_answer(self, name: str, process: Process) -> None:
        self._must_run(name, process)
        if process.paused:
            raise ControlFailed(f"{name} is frozen. Let it go on: outgrow thaw {name}")
