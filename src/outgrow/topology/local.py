"""The whole site on one machine: for development and for drills.

::

    with LocalSite(load("topology.toml"), Path(".outgrow-run")) as local:
        print(local.address("app1"))
        local.hold("media2")                # a drill: we do what the watch would undo
        local.process("media2").kill()
        ...
        local.release("media2")             # the watch starts it again
        local.wait_ready("media2")

The laws:

1. A process that ends is started again, on its own port, unless it is held. At
   most 5 times a minute; then the site has failed, and says so.
2. Whatever raises, and however this process ends, no process is left (`process`).
3. One run at a time uses a folder: it is locked until its last process is gone.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from outgrow.errors import ProcessFailed
from outgrow.topology import account, ports, programs, runfolder, steps, succession
from outgrow.topology.guard import Guard
from outgrow.topology.model import Site, runnable
from outgrow.topology.model import local as localised
from outgrow.topology.output import Lines
from outgrow.topology.parts import Plan, Planned, Programs, Step
from outgrow.topology.plan import environment, plan, postgres, version_steps
from outgrow.topology.postgres import Postgres
from outgrow.topology.process import PAUSE, STOP_LIMIT, Command, Process
from outgrow.topology.restarts import Restarts
from outgrow.topology.write import write

#: Seconds that a process has to become ready.
READY_LIMIT: Final = 30.0

#: Seconds between two looks at the processes.
LOOK: Final = 0.1

#: Seconds to wait for a port that its own last process has held.
PORT_LIMIT: Final = 2.0

#: Under this name the site itself speaks in the output.
SPEAKER: Final = "outgrow"


@dataclass(slots=True)
class _Watch:
    """What is remembered of one process between two looks."""

    restarts: Restarts
    start_at: float | None = None
    held: bool = False


class LocalSite:
    """A site on loopback addresses, below `folder`. See the module for its use.

    `site` is as it was read from its file; the attribute `site` is the local one.
    `write(name, line)` gets what the processes print; `ready_limit` is in seconds, for
    each process. Constructing it does nothing;
    `prepare` chooses ports and writes files, `start` starts and waits, `stop` ends
    all. Its methods may be called from any thread, but `start` and `stop` by one.
    """

    def __init__(
        self,
        site: Site,
        folder: Path,
        *,
        write: Callable[[str, str], None] = lambda _name, _line: None,
        ready_limit: float = READY_LIMIT,
        clock: Callable[[], float] = time.monotonic,
        shuffle: random.Random | None = None,
    ) -> None:
        #: What is rendered for servers, and does not run here.
        self.left_out = tuple(one.name for one in site.services("dns"))
        self.site = runnable(site)
        self.folder = folder.absolute()
        #: Why the site has failed, or "".
        self.failure = ""
        #: Set these to end `wait` (and `start`), and to end `stop` without grace.
        self.stop_requested = False
        self.hurry = False
        self._write = write
        self._ready_limit = ready_limit
        self._clock = clock
        self._shuffle = shuffle or random.SystemRandom()
        self._plan: Plan | None = None
        self._programs: Programs | None = None
        self._stack = ExitStack()
        self._lock: int = -1
        self._make: Callable[[str, Command], Process]
        self._processes: dict[str, Process] = {}
        self._watches: dict[str, _Watch] = {}
        self._watching = False
        # The names of steps whose output is not shown.
        self._silent: set[str] = set()
        self._stopping = threading.Event()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def plan(self) -> Plan:
        """What runs. Raises `ProcessFailed` before `prepare`."""
        if self._plan is None:
            raise ProcessFailed("The site was not prepared; call prepare() or start() first.")
        return self._plan

    @property
    def environment(self) -> dict[str, str]:
        """What `manage.py` needs in its environment to work on this site."""
        return environment(self.site, self.folder)

    def prepare(self, *, dry_run: bool = False) -> None:
        """Choose ports and write the files; nothing is started. Once is enough.

        With `dry_run` nothing is written. Raises `ConfigurationError`,
        `MissingExtra` and `ProcessFailed`.
        """
        if self._plan is not None:
            return
        found = programs.find(self.site, self.folder)
        if not dry_run:
            self._lock = runfolder.lock(self.folder)
            self._stack.callback(os.close, self._lock)
        chosen = runfolder.choose_ports(self.site, self.folder, self._shuffle)
        site = localised(self.site, chosen, self.folder)
        made = plan(site, self.folder, found, runfolder.password(self.folder))
        succession.check(made, site, self.folder)
        if not dry_run:
            self._write_out(made, found)
            if said := succession.complete(made, self.folder):
                self.say(said)
        self.site, self._plan, self._programs = site, made, found

    @property
    def postgres(self) -> Postgres | None:
        """The PostgreSQL servers of the site, where it has some. Call `prepare` first."""
        if self._programs is None:
            return None
        return postgres(self.site, self.folder, self._programs)

    def prepare_version(self, name: str) -> bool:
        """Carry out what comes before a new version (`version_steps`); false if there is no such.

        Raises `ProcessFailed`.
        """
        if self._programs is None:
            raise ProcessFailed("The site was not prepared; call prepare() or start() first.")
        step = version_steps(self.site, self.folder, self._programs).get(name)
        if step is not None:
            self.run_steps((step,))
        return step is not None

    def turn_into(self, site: Site) -> None:
        """From now on it is this site: the same servers in other roles.

        Files are written, and nothing is started or stopped: a process has its new command when
        it is started again. Raises `ProcessFailed` when the processes would be others.
        """
        if self._programs is None:
            raise ProcessFailed("The site was not prepared; call prepare() or start() first.")
        made = plan(site, self.folder, self._programs, runfolder.password(self.folder))
        if {planned.name for planned in made.processes} != set(self._processes):
            raise ProcessFailed("A site that runs can't get other servers. Start it again.")
        self._write_out(made, self._programs)
        for planned in made.processes:
            self._processes[planned.name].command = planned.command
        self.site, self._plan = site, made

    def _write_out(self, made: Plan, found: Programs) -> None:
        for folder in made.folders:
            (self.folder / folder).mkdir(parents=True, exist_ok=True)
        if made.home:
            account.own(made.home, found.account)
        write(made.files, self.folder, found.account)

    def start(self) -> None:
        """Start everything, in order, and wait until all of it is ready.

        Raises `ProcessFailed`, and then what was started still runs: call `stop`, or
        use the site as a context manager. Returns early when `stop_requested` is set.
        """
        self.prepare()
        guard = Guard((self._lock,))
        lines = Lines(self._pass_on)
        lines.start()
        self._stack.callback(lines.close)
        guard.start()
        self._stack.callback(guard.close)
        self._make = lambda name, command: Process(name, command, guard, lines)
        for planned in self.plan.processes:
            self._processes[planned.name] = self._make(planned.name, planned.command)
            self._watches[planned.name] = _Watch(Restarts(self._clock))
        self._stack.callback(self._stop_processes)
        for stage in self.plan.stages:
            self.run_steps(filter(steps.needed, stage.every_step))
            for planned in stage.processes:
                self._start(planned)
            for planned in stage.processes:
                self.settle(planned.name)
        self._watch()

    def stop(self) -> None:
        """Stop everything, in the opposite order. Harmless when nothing runs."""
        self._stopping.set()
        self._stack.close()

    def wait(self) -> None:
        """Wait until `stop_requested` is set or the site has failed."""
        while not (self.stop_requested or self.failure):
            time.sleep(LOOK)

    def planned(self, name: str) -> Planned:
        """The plan of one process. Raises KeyError, which names those there are."""
        for planned in self.plan.processes:
            if planned.name == name:
                return planned
        raise KeyError(f"{name!r}; there are: {', '.join(p.name for p in self.plan.processes)}")

    def address(self, name: str) -> str:
        """The URL of a server, without a slash at the end."""
        return self.site.service(name).url

    def process(self, name: str) -> Process:
        """The process of this name, to kill, pause, resume, stop or start."""
        self.planned(name)
        return self._processes[name]

    def wait_ready(self, name: str, deadline: float | None = None) -> None:
        """Wait until this process is ready, at most `deadline` seconds (`ready_limit`).

        One that has crashed and will be started again is waited for. Raises
        `ProcessFailed`.
        """
        planned, process = self.planned(name), self._processes[name]
        limit = self._ready_limit if deadline is None else deadline
        end = self._clock() + limit
        while not self.stop_requested:
            left = end - self._clock()
            try:
                process.wait_ready(planned.ready, left, lambda: self.stop_requested)
            except ProcessFailed:
                if left <= 0 or not self._will_start(name):
                    raise
                time.sleep(PAUSE)
            else:
                return

    def hold(self, name: str) -> None:
        """From now on, don't start this process again by ourselves."""
        self.planned(name)
        self._watches[name].held = True

    def release(self, name: str) -> None:
        """Watch it again; if it does not run, it is started."""
        self.planned(name)
        self._watches[name].held = False

    def make_data(self, name: str) -> None:
        """Make the folder of a process that does not run, where it has lost it.

        That of a database server is filled, too. Raises `ProcessFailed`.
        """
        planned = self.planned(name)
        if planned.data:
            self.run_steps(filter(steps.needed, (planned.data,)))
        elif planned.root:
            planned.root.mkdir(parents=True, exist_ok=True)

    def forget_data(self, name: str) -> None:
        """Remove the data of a database server that does not run: `make_data` makes them anew."""
        if (data := self.planned(name).data) is not None:
            steps.forget(data)

    def doubt_data(self, name: str) -> None:
        """What this replica has may be of no use: `make_data` makes it anew."""
        if (root := self.planned(name).root) is not None:
            steps.unstamp(root)

    def keep_data(self, name: str) -> None:
        """The data of this replica are of use: `make_data` leaves them as they are."""
        if (data := self.planned(name).data) is not None:
            steps.stamp(data)

    def start_process(self, name: str) -> None:
        """Start it when its port is free, and wait for nothing. Raises `ProcessFailed`."""
        self._start(self.planned(name))

    def is_held(self, name: str) -> bool:
        """Whether this process is not started again by ourselves."""
        self.planned(name)
        return self._watches[name].held

    def revive(self, name: str) -> None:
        """Start it now, if it does not run, and watch it again. It counts as no crash.

        Raises `ProcessFailed` when it can't be started; it is then held.
        """
        planned = self.planned(name)
        self.hold(name)
        if not self._processes[name].running:
            self._start(planned)
        self.release(name)

    def say(self, text: str) -> None:
        """A line of our own among the output."""
        with suppress(OSError):
            self._write(SPEAKER, text)

    # --- what is prepared

    def run_steps(self, wanted: Iterable[Step]) -> None:
        """Carry these out, all at once. Raises `ProcessFailed` when one fails."""
        if not self.stop_requested:
            steps.run(wanted, self._start_step, lambda: self.stop_requested)

    def _start_step(self, step: Step) -> Process:
        if not step.shown:
            self._silent.add(step.name)
        process = self._make(step.name, step.command)
        process.start()
        return process

    def _pass_on(self, name: str, line: str) -> None:
        if name not in self._silent:
            self._write(name, line)

    def settle(self, name: str, patience: float = 0.0) -> None:
        """Wait until it is ready; a copy that is of no use is made anew, once.

        It may take so many seconds more than its check has to be of use. Raises `ProcessFailed`.
        """
        planned = self.planned(name)
        copy = planned.data if planned.data and planned.data.copies else None
        try:
            self.wait_ready(planned.name)
            problem = self._found(planned, patience) if copy else ""
        except ProcessFailed as error:
            if copy is None:
                raise
            problem = str(error)
        if copy is None or not problem:
            return
        why = problem.splitlines()[0].removesuffix(".")
        self.say(f"{planned.name} is of no use ({why}); its data are made anew.")
        self._processes[planned.name].stop()
        self.run_steps((copy,))
        self._start(planned)
        self.wait_ready(planned.name)

    def _found(self, planned: Planned, patience: float) -> str:
        """What its check finds, when so many seconds are over at the latest."""
        end = self._clock() + patience
        while not self.stop_requested:
            problem = planned.check.problem()
            if not problem or self._clock() >= end:
                return problem
        return ""

    # --- start and stop

    def _start(self, planned: Planned) -> None:
        if planned.port is not None:
            end = self._clock() + PORT_LIMIT
            while not ports.is_free(planned.port.number):
                if self._clock() >= end:
                    raise ProcessFailed(
                        f"{planned.name} can't listen on {planned.port}: another program has "
                        "taken the port. Stop that program, or start the site again: it then "
                        "chooses other ports."
                    )
                time.sleep(PAUSE)
        self._processes[planned.name].start()

    def _stop_processes(self) -> None:
        for stage in reversed(self.plan.stages):
            processes = [self._processes[planned.name] for planned in stage.processes]
            for process in processes:
                process.terminate()
            end = self._clock() + STOP_LIMIT
            while any(p.running for p in processes) and self._clock() < end and not self.hurry:
                time.sleep(PAUSE)
            for process in processes:
                process.kill()

    # --- the watch

    def _watch(self) -> None:
        thread = threading.Thread(target=self._look_after, name="outgrow watch", daemon=True)
        thread.start()
        self._watching = True
        self._stack.callback(thread.join)
        self._stack.callback(self._stopping.set)

    def _look_after(self) -> None:
        while not self._stopping.wait(LOOK):
            for planned in self.plan.processes:
                self._look(planned)

    def _look(self, planned: Planned) -> None:
        watch, process = self._watches[planned.name], self._processes[planned.name]
        if watch.held or process.running:
            watch.start_at = None
            return
        if watch.start_at is None:
            self._crashed(watch, process)
        elif self._clock() >= watch.start_at and not self._stopping.is_set():
            watch.start_at = None
            try:
                self._start(planned)
            except ProcessFailed as error:
                process.ended = str(error)

    def _crashed(self, watch: _Watch, process: Process) -> None:
        if self.failure:
            return
        pause = watch.restarts.crashed()
        if pause is None:
            self.failure = f"{process.name} {process.ended}, too often to start it again."
            self.say(self.failure)
            return
        watch.start_at = self._clock() + pause
        self.say(f"{process.name} {process.ended}; it is started again in {pause:g} s.")

    def _will_start(self, name: str) -> bool:
        """Whether the watch starts this process when it does not run."""
        return self._watching and not self._watches[name].held and not self.failure
