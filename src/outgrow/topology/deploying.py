"""`outgrow deploy-local`: a new version comes to a site that runs on this machine.

Each step is asked of the running `outgrow up`, one after the other; see `deployment` for the laws.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from outgrow.errors import ControlFailed
from outgrow.topology import control
from outgrow.topology.deployment import Deployment, deployment


def deploy(folder: Path, stream: TextIO, *, migrate: bool, dry_run: bool, as_json: bool) -> None:
    """Deploy to the site that runs in this folder. Raises `ControlFailed` where it stopped.

    What was done by then stays done, and is harmless when all is begun again.
    """
    found = deployment(control.look(folder), migrate=migrate)
    said: list[dict[str, Any]] = []

    def step(name: str, act: Callable[[], str]) -> None:
        begin = time.monotonic()
        what = act()
        said.append({"name": name, "said": what, "seconds": round(time.monotonic() - begin, 3)})
        if not as_json:
            stream.write(f"{what} ({said[-1]['seconds']:.1f} s)\n")
            stream.flush()

    if not dry_run:
        _carry_out(folder, found, step)
    if as_json:
        stream.write(f"{json.dumps(_facts(found, said, dry_run=dry_run), indent=2)}\n")
        return
    if dry_run:
        every = (*found.steps, *(f"reload {name}" for name in found.told))
        stream.write("".join(f"{number}. {one}\n" for number, one in enumerate(every, 1)))
    stream.writelines(
        f"{name} does not run: it has the new code when it is started.\n" for name in found.away
    )


def _carry_out(
    folder: Path, found: Deployment, step: Callable[[str, Callable[[], str]], None]
) -> None:
    for name in found.steps:
        step(name, partial(control.prepare, folder, name))
    for number, name in enumerate(found.told):
        try:
            step(name, partial(control.act, folder, "reload", name))
        except ControlFailed as error:
            others = found.left(number + 1)
            rest = f" {others}: still the old code." if others else ""
            raise ControlFailed(f"{error}{rest} Mend it, and begin again.") from error


def _facts(found: Deployment, said: list[dict[str, Any]], *, dry_run: bool) -> dict[str, Any]:
    return {
        "steps": [*found.steps, *found.told],
        "done": said,
        "away": list(found.away),
        "dry_run": dry_run,
    }
