"""What ``outgrow drill`` does: the site, the load, one fault after the other, the report."""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Final, TextIO

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from outgrow.drills import faults, looking, wiring
from outgrow.drills.catalogue import Drill, Skipped, catalogue, choose
from outgrow.drills.judge import Broken, judge, until_normal, without_writes
from outgrow.drills.ledger import Ledger
from outgrow.drills.load import Load
from outgrow.drills.report import Outcome, as_json, holds, print_report
from outgrow.errors import ProcessFailed
from outgrow.topology.load import load
from outgrow.topology.local import LocalSite
from outgrow.topology.model import Port, Site

#: In the folder of a run: what clients were told, what servers printed, what came out.
LEDGER: Final = "_requests.jsonl"
OUTPUT: Final = "_output.txt"
REPORT: Final = "_report.json"

#: Seconds of load before a fault, at most.
STEADY: Final = 2.0

#: Seconds without a failure after which a site is back to normal, and those that it has for it.
CALM: Final = 1.5
CALM_LIMIT: Final = 60.0

_PAUSE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Run:
    """One run of drills over a site that runs."""

    local: LocalSite
    ledger: Ledger
    prefix: str
    seconds: float
    rate: float

    def play(self, drill: Drill, known: Broken) -> Outcome:
        """Load, fault, recovery, judgement; `known` was broken before. Raises `ProcessFailed`."""
        site, begin = self.local.site, self.ledger.now()
        rows = site.database is not None
        with Load(doors(site), self.prefix, self.ledger, rate=self.rate, rows=rows):
            self._wait(min(self.seconds, STEADY))
            fault = self.ledger.now()
            faults.Break(self.local, drill, self._wait).play(self.seconds)
            notes = self._calm()
        notes += faults.settle(self.local)
        requests = self.ledger.read()
        found = looking.look(site, self.prefix, requests, rows=rows)
        own = [one for one in requests if one.at >= begin]
        return Outcome(
            drill,
            sent=len(own),
            failed=sum(not one.ok for one in own),
            broken=judge(requests, found) - known,
            until_normal=until_normal(own, fault),
            without_writes=without_writes(own, fault),
            slowest=max((one.took for one in own if one.ok), default=0.0),
            problems=dict(Counter(one.problem for one in own if one.problem)),
            notes=tuple(notes),
        )

    def _wait(self, seconds: float) -> None:
        """Let the load go on. Raises `ProcessFailed` when the site has given up."""
        end = self.ledger.now() + seconds
        while (left := end - self.ledger.now()) > 0:
            if self.local.failure:
                raise ProcessFailed(self.local.failure)
            threading.Event().wait(min(left, _PAUSE))

    def _calm(self) -> list[str]:
        """Wait until nothing fails any more; else say that it was waited for in vain."""
        since = self.ledger.now()
        while self.ledger.calm_since(since) < CALM:
            if self.ledger.now() - since > CALM_LIMIT:
                return [f"requests still failed {CALM_LIMIT:g} s after all servers were back"]
            self._wait(_PAUSE)
        return []


def drill(
    path: Path,
    names: Sequence[str],
    folder: Path | None,
    *,
    seconds: float,
    rate: float,
    machine: bool = False,
    listing: bool = False,
) -> int:
    """Drill the site of the topology file; the exit status: 1 when a promise was broken.

    `seconds` is how long a server is away. `machine` prints JSON instead of a table; `listing`
    only names the drills. Without a `folder` it has one that is removed if all is well.
    Raises `ConfigurationError`, `MissingExtra` and `ProcessFailed`; nothing is left running.
    """
    site = load(path)
    wanted = choose(catalogue(site), names)
    if listing:
        _list(wanted, sys.stdout)
        return 0
    with _ended_by_sigterm(), _folder(folder) as used:
        outcomes = _run(site, wanted, used, seconds=seconds, rate=rate)
        skipped = [one for one in wanted if isinstance(one, Skipped)]
        report = as_json(outcomes, skipped)
        (used.path / REPORT).write_text(f"{json.dumps(report, indent=2)}\n", encoding="utf-8")
        if machine:
            sys.stdout.write(f"{json.dumps(report)}\n")
        else:
            print_report(outcomes, skipped, sys.stdout)
        used.wanted = used.wanted or not holds(outcomes)
        if used.wanted:
            sys.stderr.write(f"What was asked, printed and found is in {used.path}\n")
    return 0 if holds(outcomes) else 1


def doors(site: Site) -> list[Port]:
    """Where visitors come in: the balancers, or without one the application servers."""
    return [service.port for service in site.services("balancer") or site.services("app")]


def _run(
    site: Site, wanted: Sequence[Drill | Skipped], used: _Folder, *, seconds: float, rate: float
) -> list[Outcome]:
    told = wiring.Wiring(
        site.settings, f"outgrow-drill-{secrets.token_hex(16)}/", site.database is not None
    )
    drills = [one for one in wanted if isinstance(one, Drill)]
    outcomes: list[Outcome] = []
    used.path.mkdir(parents=True, exist_ok=True)
    wiring.write(told, used.path / wiring.FILE)
    with (
        (used.path / OUTPUT).open("w", encoding="utf-8") as output,
        Ledger(used.path / LEDGER) as ledger,
        _progress(len(drills)) as tell,
    ):
        tell("starting the site", 0)
        local = LocalSite(
            replace(site, settings=wiring.SETTINGS),
            used.path,
            write=lambda name, line: print(f"{name} | {line}", file=output, flush=True),
        )
        local.prepare()
        used.home = local.plan.home
        with local:
            looking.reach(local.site, told.prefix)
            run = Run(local, ledger, told.prefix, seconds, rate)
            known = Broken()
            for one in drills:
                tell(one.name, len(outcomes))
                outcomes.append(run.play(one, known))
                known |= outcomes[-1].broken
            tell("stopping the site", len(outcomes))
    return outcomes


def _list(wanted: Sequence[Drill | Skipped], stream: TextIO) -> None:
    for one in wanted:
        if isinstance(one, Drill):
            stream.write(f"{one.name}: {', '.join(one.servers)}\n")
        else:
            stream.write(f"{one.name}: not here, for {one.reason}\n")


@dataclass(slots=True)
class _Folder:
    """The folder of a run; `home` is what its database servers have elsewhere."""

    path: Path
    wanted: bool
    home: Path | None = None


@contextmanager
def _folder(given: Path | None) -> Iterator[_Folder]:
    """The folder that was given; or one that is removed, unless somebody should look into it."""
    used = _Folder(given or Path(tempfile.mkdtemp(prefix="outgrow-drill-")), given is not None)
    if given is None:
        # So that the account of database servers can pass through; what is private is so itself.
        used.path.chmod(0o711)
    try:
        yield used
    except Exception:
        used.wanted = True
        sys.stderr.write(f"What was asked and printed is in {used.path}\n")
        raise
    finally:
        if not used.wanted:
            for folder in (used.path, used.home):
                if folder is not None:
                    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str, int], None]]:
    """Shows on a terminal what is at work, and how many drills are done."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total)
        yield lambda what, done: progress.update(task, description=what, completed=done)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does: with everything stopped."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
