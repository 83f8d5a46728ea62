"""A replica becomes the primary, on the laptop: the act that an operator rehearses.

The laws:

1. The old primary has ended before anything else is done, so no two servers take writes.
2. Nothing is promoted that another replica is ahead of (`promotion`).
3. When it returns, every server does its work: the new primary takes writes, the other replicas
   and the old primary follow it, and the application servers know it.
4. What fails before the promotion leaves the old primary stopped and its data as they are;
   after it, the new primary is the primary.

Sources: postgresql.org/docs/current/warm-standby-failover.html and app-pgrewind.html
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from typing import Final

from outgrow.errors import ControlFailed, ProcessFailed
from outgrow.topology import promotion, steps
from outgrow.topology.local import LocalSite
from outgrow.topology.model import REPAIR
from outgrow.topology.postgres import Postgres
from outgrow.topology.process import PAUSE, Command

#: Seconds for one question to a replica, and until what it had on the way is on its disk.
_ASK_LIMIT: Final = 10.0
_QUIET_LIMIT: Final = 30.0

#: Roles whose processes read the site's settings, in the order in which they are told: without
#: the application servers nobody writes.
_READERS: Final = ("app", "worker")


def received(local: LocalSite) -> dict[str, int | str]:
    """What each replica has received: bytes of log, or why it could not be asked.

    Waits until those that still receive have finished: call it when the primary has ended.
    """
    servers = _servers(local)
    return {
        service.name: _received(servers.received(service))
        for service in local.site.services("replica")
    }


def promote(local: LocalSite, name: str, reload: Callable[[str], object]) -> str:
    """Promote this replica; a sentence that says what was done.

    `reload(name)` lets a process read the site's settings anew. Raises `ControlFailed` and
    `ProcessFailed`. Nothing else may be done to the site's servers meanwhile.
    """
    site = promotion.promoted(local.site, name)
    [old] = [service.name for service in local.site.services("primary")]
    others = [one.name for one in site.services("replica") if one.name != old]
    if not local.process(name).running:
        raise ControlFailed(f"{name} does not run. Start it first: outgrow start {name}")
    for one in chain(*_readers(local)):
        if local.process(one).paused:
            raise ControlFailed(
                f"{one} is frozen, and would not learn of the new primary. Let it go on first: "
                f"outgrow thaw {one}"
            )
    for one in (old, name, *others):
        local.hold(one)
    try:
        _end(local, old)
        if problem := promotion.objection(name, received(local)):
            raise ControlFailed(f"{problem} {old} was stopped, and stays so.")
        local.run_steps((_servers(local).promote(local.site.service(name)),))
        local.turn_into(site)
        _restart(local, name)
        local.run_steps((_servers(local).set_up(),))
        # One after the other: a commit may be waiting for one of them.
        for one in others:
            if local.process(one).running:
                _restart(local, one)
        _tell(local, reload)
        return f"{name} is the primary now{_follow(local, old)}."
    finally:
        for one in (name, *others):
            local.release(one)
        if local.process(old).running:
            local.release(old)


def _servers(local: LocalSite) -> Postgres:
    servers = local.postgres
    if servers is None:
        raise ControlFailed("This site has no PostgreSQL.")
    return servers


def _end(local: LocalSite, name: str) -> None:
    """End the old primary: cleanly if it can, for then every replica gets all that it has."""
    process = local.process(name)
    if process.running and process.paused:
        process.kill()
    process.stop()


def _restart(local: LocalSite, name: str) -> None:
    local.process(name).stop()
    local.start_process(name)
    local.wait_ready(name)


def _tell(local: LocalSite, reload: Callable[[str], object]) -> None:
    """Everything that reads the site's settings reads them anew; all of a kind at once."""
    groups = _readers(local)
    with ThreadPoolExecutor(8, "outgrow promote") as threads:
        for names in groups:
            running = [name for name in names if local.process(name).running]
            for done in [threads.submit(reload, name) for name in running]:
                done.result()


def _readers(local: LocalSite) -> list[list[str]]:
    """The names of the processes that read the site's settings, those of a kind together."""
    groups = [[service.name for service in local.site.services(role)] for role in _READERS]
    return [*groups, [one.name for one in local.plan.processes if one.name == REPAIR]]


def _follow(local: LocalSite, old: str) -> str:
    """Let the old primary follow the new one; how that was done, for the end of a sentence."""
    servers, service = _servers(local), local.site.service(old)
    planned = local.planned(old)
    how = f", and {old} follows it"
    if planned.root is not None and planned.root.is_dir():
        # pg_rewind brings that of the new primary, when it has come to its end.
        steps.unstamp(planned.root)
        try:
            local.run_steps((servers.rewind(service),))
        except ProcessFailed as error:
            local.say(f"{old} can't be rewound, so its data are copied anew: {error}")
            local.forget_data(old)
    else:
        how += ", with a copy of its data, for its own were gone"
    local.make_data(old)
    local.start_process(old)
    local.settle(old)
    return how


def _received(command: Command) -> int | str:
    """The bytes of log that a replica has received, once it receives no more."""
    end = time.monotonic() + _QUIET_LIMIT
    while True:
        found = _ask(command)
        if isinstance(found, str):
            return found
        if not found["receiving"]:
            return found["bytes"]
        if time.monotonic() >= end:
            return f"it still received something after {_QUIET_LIMIT:g} s"
        time.sleep(PAUSE)


def _ask(command: Command) -> Mapping[str, int] | str:
    try:
        done = subprocess.run(
            command.words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd=command.folder,
            env={**os.environ, **command.environment},
            timeout=_ASK_LIMIT,
            text=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it gave no answer for {_ASK_LIMIT:g} s"
    with suppress(ValueError):
        size, receiving = done.stdout.strip().split("|")
        return {"bytes": int(size), "receiving": int(receiving)}
    lines = done.stderr.strip().splitlines() or [f"psql ended with status {done.returncode}"]
    return lines[-1]
