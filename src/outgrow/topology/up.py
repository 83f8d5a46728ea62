"""What ``outgrow up`` does: the site on this machine, seen from a terminal."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TextIO

from rich.console import Console
from rich.table import Table

from outgrow.topology.load import load
from outgrow.topology.local import SPEAKER, LocalSite
from outgrow.topology.model import MIGRATE, REPAIR
from outgrow.topology.output import Printer, wants_colours
from outgrow.topology.parts import Plan, Planned, Step
from outgrow.topology.process import Command

#: The folder of a run, beside the topology file.
RUN_FOLDER = ".outgrow-run"

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Seen:
    """One thing that was checked: `problem` is empty when all is well."""

    name: str
    what: str
    problem: str


def up(path: Path, folder: Path | None, *, checks_only: bool, dry_run: bool) -> int:
    """Run the site of the topology file until it is told to stop; the exit status.

    `checks_only` ends it after one look at everything, `dry_run` before anything
    is started or written. Raises `ConfigurationError`, `MissingExtra` and
    `ProcessFailed`, and then nothing is left running.
    """
    site = load(path)
    names = (
        SPEAKER,
        REPAIR,
        *((MIGRATE,) if site.database else ()),
        *(service.name for service in site.services()),
    )
    printer = Printer(sys.stdout, names, colours=wants_colours(sys.stdout, os.environ))
    run_folder = folder or path.absolute().parent / RUN_FOLDER

    def write(name: str, line: str) -> None:
        try:
            printer(name, line)
        except OSError:
            local.failure = "Nobody reads the output any more."
            local.stop_requested = True
            raise

    local = LocalSite(site, run_folder, write=write)
    if dry_run:
        local.prepare(dry_run=True)
        print_plan(local.plan, local.folder, sys.stdout)
        return 0
    with _closed_terminal(), _stopped_by_signals(local):
        return _run(local, checks_only=checks_only)


def _run(local: LocalSite, *, checks_only: bool) -> int:
    with local:
        if local.stop_requested:
            return 1
        print_table(local, sys.stdout)
        if checks_only:
            return print_checks(check(local), sys.stdout)
        local.say("All are ready. Ctrl-C stops them.")
        local.wait()
        local.say("Stopping.")
    return 1 if local.failure else 0


def check(local: LocalSite) -> list[Seen]:
    """One look at each process of a site that runs."""
    return [_check(local, planned) for planned in local.plan.processes]


def _check(local: LocalSite, planned: Planned) -> Seen:
    problem = planned.check.problem()
    process = local.process(planned.name)
    # That it has ended says more than what it did not do.
    return Seen(planned.name, planned.work, problem if process.running else process.ended)


def print_table(local: LocalSite, stream: TextIO) -> None:
    """What runs where."""
    table = Table()
    for heading in ("server", "role", "address", "process"):
        table.add_column(heading, no_wrap=True)
    # The one that may be long; on a narrow terminal it takes several lines.
    table.add_column("files", overflow="fold")
    for planned in local.plan.processes:
        root = _short(planned.root) if planned.root else ""
        pid = str(local.process(planned.name).pid or "")
        table.add_row(planned.name, planned.role, planned.url, pid, root)
    _print(table, stream)


def print_checks(seen: list[Seen], stream: TextIO) -> int:
    """What was checked; the exit status that follows."""
    table = Table()
    table.add_column("server", no_wrap=True)
    table.add_column("check")
    table.add_column("seen", overflow="fold")
    for one in seen:
        table.add_row(one.name, one.what, one.problem or "yes")
    _print(table, stream)
    return 1 if any(one.problem for one in seen) else 0


def print_plan(plan: Plan, folder: Path, stream: TextIO) -> None:
    """What would be made and started, in a form that a shell understands."""
    lines = [f"# Below {folder}"]
    lines += [f"mkdir -p {shlex.quote(name)}" for name in plan.folders]
    lines += [f"# write {file.name}" for file in plan.files]
    for stage in plan.stages:
        for step in stage.every_step:
            lines += ["", *_step_lines(step)]
        for planned in stage.processes:
            lines += ["", f"# {planned.name}", *_command_lines(planned.command)]
            if planned.ready:
                lines.append(f"# ready when {planned.ready}")
    stream.write("\n".join(lines) + "\n")


def _step_lines(step: Step) -> list[str]:
    unless = f", unless {step.makes} is there" if step.makes else ""
    lines = [f"# {step.name}{unless}", *_command_lines(step.command)]
    if step.makes:
        lines.append(f"mv {shlex.quote(f'{step.makes}.new')} {shlex.quote(str(step.makes))}")
    return lines


def _command_lines(command: Command) -> list[str]:
    return [f"cd {shlex.quote(str(command.folder))}", str(command)]


def _print(table: Table, stream: TextIO) -> None:
    # Not cut to 80 columns where there is no terminal: a log has room.
    width = None if stream.isatty() else 160
    Console(file=stream, width=width, highlight=False).print(table)


def _short(path: Path) -> str:
    """A path as seen from here, when that is shorter."""
    with suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


@contextmanager
def _stopped_by_signals(local: LocalSite) -> Iterator[None]:
    """Ctrl-C, SIGTERM and the end of the terminal stop the site; the second, at once."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        # No lock is taken here: the handler may interrupt anything.
        local.hurry = local.stop_requested
        local.stop_requested = True

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _closed_terminal() -> Iterator[None]:
    """A reader of our output that has gone (`outgrow up | head`) ends the run, without noise."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        if not _is_gone(sys.stdout):
            raise
        # What is still buffered would be written, and fail, at the very end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from error


def _is_gone(stream: TextIO) -> bool:
    try:
        stream.write("")
        stream.flush()
    except OSError:
        return True
    return False
