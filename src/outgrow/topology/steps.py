"""Carrying out the steps of a plan: what a command makes is there whole, or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from outgrow.topology.parts import Step
from outgrow.topology.process import Process

#: In a folder that a step has made: a word of its own, which is that of what it copies.
STAMP: Final = "outgrow-stamp"


def needed(step: Step) -> bool:
    """Whether this step has something to do."""
    if step.makes is None or not step.makes.is_dir():
        return True
    return step.copies is not None and _stamp(step.copies) != _stamp(step.makes)


def run(
    steps: Iterable[Step],
    start: Callable[[Step], Process],
    give_up: Callable[[], bool] = lambda: False,
) -> None:
    """Carry out the steps, all at once. `start` starts the command of one.

    Returns early when `give_up()` is true. Raises `ProcessFailed` when one fails; no
    command runs any more then.
    """
    for step in (steps := tuple(steps)):
        forget(step)
    started: list[tuple[Step, Process]] = []
    try:
        for step in steps:
            started.append((step, start(step)))  # noqa: PERF401 - those before a failure count
        for step, process in started:
            process.wait_end(step.limit, give_up)
            if not process.running:
                _name(step)
    finally:
        for _, process in started:
            process.kill()


def forget(step: Step) -> None:
    """Remove what the step has made, or half made."""
    if step.makes is not None:
        for folder in (_new(step.makes), step.makes):
            with suppress(FileNotFoundError):
                shutil.rmtree(folder)


def unstamp(folder: Path) -> None:
    """Until it has a stamp again what this folder holds counts as half made."""
    (folder / STAMP).unlink(missing_ok=True)


def stamp(step: Step) -> None:
    """What this step makes is there, whole, by whatever made it."""
    if step.makes is not None:
        _write_stamp(step, step.makes)


def _name(step: Step) -> None:
    if step.makes is None:
        return
    new = _new(step.makes)
    _write_stamp(step, new)
    os.replace(new, step.makes)


def _write_stamp(step: Step, folder: Path) -> None:
    word = _stamp(step.copies) if step.copies else secrets.token_hex(16)
    (folder / STAMP).write_text(word, encoding="ascii")


def _new(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.new")


def _stamp(folder: Path) -> str:
    with suppress(FileNotFoundError):
        return (folder / STAMP).read_text(encoding="ascii")
    return ""
