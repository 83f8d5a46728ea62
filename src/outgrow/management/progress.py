"""How far a long piece of work is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from outgrow.management.texts import counter
from outgrow.media.repair import Repair

Told = Callable[[str], None]


@contextmanager
def repairing(repair: Repair, write: Callable[[str], Any], *, quiet: bool) -> Iterator[Told]:
    """One pass of repair; what is given is called with each name. `write` takes plain lines."""
    total = sum(repair.journal.summary(server.name)[0] for server in repair.servers)
    if repair.everything():
        with _uncounted("repairing", write, quiet=quiet) as told:
            yield told
        return
    if quiet or not sys.stderr.isatty():
        yield counter(write if not quiet else lambda _: None)
        return
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("names"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("repairing", total=total or None)
        yield lambda _: bar.advance(task)


@contextmanager
def verifying(write: Callable[[str], Any], *, quiet: bool) -> Iterator[Told]:
    """One verification. How many names there are, is known at its end."""
    with _uncounted("verifying", write, quiet=quiet) as told:
        yield told


@contextmanager
def comparing(write: Callable[[str], Any], *, quiet: bool) -> Iterator[Told]:
    """Two listings that are compared. How many names there are, is known at their end."""
    with _uncounted("comparing", write, quiet=quiet) as told:
        yield told


@contextmanager
def copying(
    names: int, size: int, write: Callable[[str], Any], *, quiet: bool
) -> Iterator[Callable[[int], None]]:
    """Files that are copied; what is given is called after each, with its bytes."""
    if quiet or not sys.stderr.isatty():
        count = counter(write if not quiet else lambda _: None)
        yield lambda _: count("")
        return
    columns = (
        BarColumn(),
        TextColumn("{task.fields[done]} of {task.fields[names]} files"),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("copying", total=size or None, done=0, names=names)
        done = 0

        def told(copied: int) -> None:
            nonlocal done
            done += 1
            bar.update(task, advance=copied, done=done)

        yield told


@contextmanager
def deleting(
    names: int, write: Callable[[str], Any], *, quiet: bool
) -> Iterator[Callable[[int], None]]:
    """Files that are deleted; what is given is called with how many were."""
    if quiet or not sys.stderr.isatty():
        count = counter(write if not quiet else lambda _: None)

        def told(several: int) -> None:
            for _ in range(several):
                count("")

        yield told
        return
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("files"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("deleting", total=names)
        yield lambda several: bar.advance(task, several)


@contextmanager
def _uncounted(what: str, write: Callable[[str], Any], *, quiet: bool) -> Iterator[Told]:
    if quiet or not sys.stderr.isatty():
        yield counter(write if not quiet else lambda _: None)
        return
    columns = (SpinnerColumn(), TextColumn("{task.completed:.0f} names"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda _: bar.advance(task)
