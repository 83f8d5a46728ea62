"""What ``outgrow up`` does: the site on this machine, seen from a terminal."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.table import Table

from outgrow.errors import ControlFailed
from outgrow.topology import live, runfolder, states
from outgrow.topology.acts import Acts
from outgrow.topology.control import Control
from outgrow.topology.live import LOG, LogFile
from outgrow.topology.load import load
from outgrow.topology.local import SPEAKER, LocalSite
from outgrow.topology.look import Looker
from outgrow.topology.model import MIGRATE, REPAIR
from outgrow.topology.output import Printer, wants_colours
from outgrow.topology.parts import Plan, Planned, Step
from outgrow.topology.process import Command
from outgrow.topology.states import Status
from outgrow.topology.web import Web

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Seen:
    """One thing that was checked: `problem` is empty when all is well."""

    name: str
    what: str
    problem: str


def up(
    path: Path,
    folder: Path | None,
    *,
    checks_only: bool = False,
    dry_run: bool = False,
    table: bool = False,
    web: int | None = None,
) -> int:
    """Run the site of the topology file until it is told to stop; the exit status.

    `checks_only` ends it after one look at everything, `dry_run` before anything
    is started or written. `table` shows the processes instead of their output; a page is served
    at the port `web`, 0 for any. Raises `ConfigurationError`, `MissingExtra`,
    `ControlFailed` and `ProcessFailed`, and then nothing is left running.
    """
    if table and not sys.stdout.isatty():
        raise ControlFailed(
            "--live draws on a terminal, and the output is none. Leave it out, and look from "
            "a second terminal: outgrow ps"
        )
    site = load(path)
    names = (
        SPEAKER,
        REPAIR,
        *((MIGRATE,) if site.database else ()),
        *(service.name for service in site.services()),
    )
    printer = Printer(sys.stdout, names, colours=wants_colours(sys.stdout, os.environ))
    run_folder = folder or runfolder.beside(path)
    log = LogFile(run_folder.absolute() / LOG) if table else None

    def write(name: str, line: str) -> None:
        try:
            (log or printer)(name, line)
        except OSError:
            local.failure = "Nobody reads the output any more."
            local.stop_requested = True
            raise

    local = LocalSite(site, run_folder, write=write)
    if dry_run:
        local.prepare(dry_run=True)
        print_plan(local.plan, local.folder, sys.stdout)
        sys.stdout.writelines(f"# {line}\n" for line in _left_out(local))
        return 0
    with _closed_terminal(), _stopped_by_signals(local):
        return _run(local, checks_only=checks_only, web=web, log=log)


def _run(local: LocalSite, *, checks_only: bool, web: int | None, log: LogFile | None) -> int:
    # What is on the stack ends after the processes: then nothing that it asked hangs.
    with ExitStack() as stack, local:
        if log is not None:
            stack.callback(log.close)
        if local.stop_requested:
            return 1
        print_table(local, sys.stdout)
        if checks_only:
            return print_checks(check(local), sys.stdout)
        with _open_to_others(local, stack, web) as looker:
            local.say("All are ready. Ctrl-C stops them.")
            if log is None:
                local.wait()
            else:
                _show(local, looker, log)
        local.say("Stopping.")
    return 1 if local.failure else 0


@contextmanager
def _open_to_others(local: LocalSite, stack: ExitStack, web: int | None) -> Iterator[Looker]:
    """Let other terminals and browsers in, until the end of the block; then finish with them."""
    looker = stack.enter_context(Looker(local))
    control = stack.enter_context(Control(Acts(local), looker, local.folder))
    try:
        if web is not None:
            page = stack.enter_context(Web(local, looker, web))
            local.say(f"The page of the site: {page.url}")
        yield looker
    finally:
        control.withdraw()


def _show(local: LocalSite, looker: Looker, log: LogFile) -> None:
    caption = f"The output is in {_short(log.path)}. Ctrl-C stops all."
    live.show(looker, caption, sys.stdout, lambda: bool(local.stop_requested or local.failure))
    sys.stdout.write(f"{local.failure or 'Stopping.'}\n")


def print_statuses(statuses: tuple[Status, ...], stream: TextIO, *, as_json: bool) -> None:
    """What `outgrow ps` prints: a table, or a list of objects for machines."""
    if as_json:
        stream.write(f"{json.dumps(states.as_json(statuses), indent=2)}\n")
    else:
        _print(live.table(statuses, time.time()), stream)


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
    stream.writelines(f"{line}\n" for line in _left_out(local))


def _left_out(local: LocalSite) -> Iterator[str]:
    if local.left_out:
        names = ", ".join(local.left_out)
        yield f"Not run here, and rendered for servers alone: the name servers {names}."


def print_promotion(found: Mapping[str, Any], stream: TextIO, *, as_json: bool) -> None:
    """What `outgrow promote` prints: what was done, or with --dry-run what would be."""
    if as_json:
        stream.write(f"{json.dumps(found, indent=2)}\n")
    elif found["done"]:
        stream.write(f"{found['said']}\n")
    else:
        lines = [f"{number}. {step}" for number, step in enumerate(found["steps"], 1)]
        received = [f"{name}: {what}" for name, what in found["received"].items()]
        lines += [f"Bytes of log received: {'; '.join(received)}."] if received else []
        lines += [f"May be lost: {found['may_lose'] or 'nothing.'}"]
        stream.write("\n".join(lines) + "\n")


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


def _print(table: RenderableType, stream: TextIO) -> None:
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
