"""A replica becomes the primary, on the laptop: the act that an operator rehearses.

The laws:

1. The old primary has ended before a replica is told, and it is not started again before it
   follows: so no two servers take writes.
2. Nothing is promoted that another replica is ahead of, and nothing by which rows may be lost
   unless somebody accepted it (`promotion`).
3. When it returns, every server does its work: the new primary takes writes, the other replicas
   and the old primary follow it, and the application servers know it.
4. What fails before a replica is told leaves all as it was. What fails later says so, and goes on
   when it is asked again; from the instant before it is on record (`succession`).

Sources: postgresql.org/docs/current/warm-standby-failover.html and app-pgrewind.html
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import chain
from typing import Any, Final

from outgrow.errors import ControlFailed, ProcessFailed
from outgrow.topology import promotion, succession
from outgrow.topology.local import LocalSite
from outgrow.topology.model import REPAIR
from outgrow.topology.postgres import Postgres
from outgrow.topology.process import PAUSE, Command
from outgrow.topology.promotion import Promotion
from outgrow.topology.succession import Succession

#: Seconds for one question to a server, and until what it had on the way is on its disk.
_ASK_LIMIT: Final = 10.0
_QUIET_LIMIT: Final = 30.0

#: Seconds for the old primary to end cleanly: its replicas get the rest of its log meanwhile.
_END_LIMIT: Final = 60.0

#: Seconds more for a server to follow, before its data are taken for useless and copied anew.
_PATIENCE: Final = 30.0

#: Roles whose processes know who the primary is, in the order in which they are told: those that
#: go through a pooler get no further than it, and without the application servers nobody writes.
_READERS: Final = ("pooler", "app", "worker")


def promote(
    local: LocalSite,
    name: str,
    reload: Callable[[str], object],
    *,
    dry_run: bool = False,
    accept_loss: bool = False,
) -> dict[str, Any]:
    """Promote this replica; what was done, for machines, and as a sentence under "said".

    `reload(name)` lets a process read the site's settings anew. With `dry_run` nothing is done.
    Raises `ControlFailed`. Nothing else may be done to the site's servers meanwhile.
    """
    planned = look(local, name)
    if dry_run:
        planned.check(accept_loss=True)
        return {**planned.as_json(), "done": False, "said": ""}
    planned.check(accept_loss=accept_loss)
    with _held(local, planned):
        if not planned.begun:
            planned = _end(local, planned, accept_loss=accept_loss)
            succession.begin(local.folder, Succession(planned.old, name))
        said = _hand_over(local, planned, reload)
    return {**planned.as_json(), "done": True, "said": said}


def look(local: LocalSite, name: str) -> Promotion:
    """What the promotion of this replica would do now. Raises `ControlFailed`."""
    both = unfinished(local)
    if both is not None and both.new != name:
        raise ControlFailed(
            f"The promotion of {both.new} is not finished. Go on with it: outgrow promote "
            f"{both.new}"
        )
    if both is None:
        promotion.promoted(local.site, name)
        [old] = [service.name for service in local.site.services("primary")]
    else:
        old = both.old
    planned = _found(local, old, name, begun=both is not None)
    _check_processes(local, planned)
    return planned


def unfinished(local: LocalSite) -> Succession | None:
    """A promotion that was begun and broken off; one that never happened is forgotten."""
    both = succession.begun(local.folder)
    if both is None:
        return None
    told = any(one.name == both.new for one in local.site.services("primary"))
    running = local.process(both.new).running
    if told or running or succession.happened(local.planned(both.new).root):
        return both
    succession.finish(local.folder)
    return None


def received(local: LocalSite, *, quiet: bool = True) -> dict[str, int | str]:
    """What each replica has received: bytes of log, or why it could not be asked.

    Waits until those that still receive have finished, when it is to be `quiet`: the primary has
    ended.
    """
    servers = _servers(local)
    return {
        service.name: _received(servers.received(service), quiet=quiet)
        for service in local.site.services("replica")
    }


def _found(local: LocalSite, old: str, name: str, *, begun: bool = False) -> Promotion:
    rows = [*local.site.services("replica"), *local.site.services("primary")]
    others = [one.name for one in rows if one.name not in {old, name}]
    running = [one for one in others if local.process(one).running]
    runs = local.process(old).running
    return Promotion(
        new=name,
        old=old,
        runs=runs,
        received={} if begun else received(local, quiet=not runs),
        end=None if runs else _log_end(local, old),
        synchronous=local.site.database is not None and local.site.database.synchronous,
        others=tuple(running),
        away=tuple(one for one in others if one not in running),
        readers=tuple(one for one in chain(*_readers(local)) if local.process(one).running),
        begun=begun,
    )


def _check_processes(local: LocalSite, planned: Promotion) -> None:
    """Each of them must be able to do its part. Raises `ControlFailed`."""
    for one in (planned.old, planned.new, *planned.others, *planned.readers):
        if local.process(one).paused:
            raise ControlFailed(
                f"{one} is frozen, and can't do its part. Let it go on: outgrow thaw {one}; or "
                f"end it: outgrow kill {one}"
            )
    if not local.process(planned.new).running:
        raise ControlFailed(
            f"{planned.new} does not run. Start it first: outgrow start {planned.new}"
        )
    if planned.runs and (problem := local.planned(planned.new).check.problem()):
        raise ControlFailed(
            f"{planned.new} does not follow {planned.old}, which runs: {problem}. Wait until it "
            "does: outgrow ps"
        )


@contextmanager
def _held(local: LocalSite, planned: Promotion) -> Iterator[None]:
    """Nobody starts a database server meanwhile; who was held before stays so."""
    names = (planned.old, planned.new, *planned.others)
    ours = [one for one in names if not local.is_held(one)]
    for one in names:
        local.hold(one)
    try:
        yield
    finally:
        for one in ours:
            if one != planned.old:
                local.release(one)
        # The old primary is held until it follows.
        left = succession.begun(local.folder) is not None
        if not left and (planned.old in ours or local.process(planned.old).running):
            local.release(planned.old)


def _end(local: LocalSite, planned: Promotion, *, accept_loss: bool) -> Promotion:
    """End the old primary, cleanly: then every replica gets all that it has.

    What is found then. Raises `ControlFailed` when nothing may be promoted; it runs again then,
    if it did before.
    """
    local.process(planned.old).stop(_END_LIMIT)
    try:
        _go_on(local)
        found = _found(local, planned.old, planned.new)
        found.check(accept_loss=accept_loss)
    except ControlFailed as error:
        if not planned.runs:
            raise
        local.revive(planned.old)
        raise ControlFailed(
            f"{error} {planned.old} was stopped for it, and is started again."
        ) from error
    return found


def _hand_over(local: LocalSite, planned: Promotion, reload: Callable[[str], object]) -> str:
    """From here on it is on record. A sentence that says what was done."""
    new, old = planned.new, planned.old
    try:
        local.run_steps((_servers(local).promote(local.site.service(new)),))
        _go_on(local)
    except (ControlFailed, ProcessFailed) as error:
        raise ControlFailed(
            f"{new} was told to become the primary, and it is not known whether it has. {old} "
            f"stays stopped, so that no two servers take writes. {error} Go on: outgrow promote "
            f"{new}"
        ) from error
    try:
        how = _rearrange(local, planned, reload)
    except (ControlFailed, ProcessFailed) as error:
        raise ControlFailed(
            f"{new} is the primary now, and {old} does not follow it yet. {error} Go on: outgrow "
            f"promote {new}"
        ) from error
    away = "".join(f" {one} follows when it is started." for one in planned.away)
    written = promotion.to_write(old, new)
    return f"{new} is the primary now, and {old} follows it, {how}.{away} {written}"


def _rearrange(local: LocalSite, planned: Promotion, reload: Callable[[str], object]) -> str:
    """Everything takes up its new role; how the old primary did, for a sentence."""
    if any(one.name == planned.old for one in local.site.services("primary")):
        local.turn_into(promotion.promoted(local.site, planned.new))
    if planned.end is None:
        # They may be ahead of the new primary.
        for one in planned.away:
            local.doubt_data(one)
    # Whom a commit waits for is among its words, so it knows that before anybody writes.
    _restart(local, planned.new)
    local.run_steps((_servers(local).set_up(),))
    # One after the other: a commit may be waiting for one of them.
    for one in planned.others:
        _restart(local, one)
    _tell(local, reload)
    how = _follow(local, planned.old)
    _go_on(local)
    succession.finish(local.folder)
    return how


def _servers(local: LocalSite) -> Postgres:
    servers = local.postgres
    if servers is None:
        raise ControlFailed("This site has no PostgreSQL.")
    return servers


def _go_on(local: LocalSite) -> None:
    """Raises `ControlFailed` when the site is stopping: then what returned may not be done."""
    if local.stop_requested:
        raise ControlFailed("The site is stopping.")


def _restart(local: LocalSite, name: str) -> None:
    _go_on(local)
    local.process(name).stop()
    local.start_process(name)
    local.settle(name, _PATIENCE)


def _tell(local: LocalSite, reload: Callable[[str], object]) -> None:
    """Everything that knows who the primary is learns it anew; all of a kind at once."""
    with ThreadPoolExecutor(8, "outgrow promote") as threads:
        for names in _readers(local):
            _go_on(local)
            running = [name for name in names if local.process(name).running]
            for done in [threads.submit(reload, name) for name in running]:
                done.result()


def _readers(local: LocalSite) -> list[list[str]]:
    """The names of the processes that know who the primary is, those of a kind together."""
    groups = [[service.name for service in local.site.services(role)] for role in _READERS]
    return [*groups, [one.name for one in local.plan.processes if one.name == REPAIR]]


def _follow(local: LocalSite, old: str) -> str:
    """Let the old primary follow the new one; how that was done, for the end of a sentence."""
    _go_on(local)
    local.process(old).stop()
    how = _rewind(local, old)
    local.make_data(old)
    _go_on(local)
    local.start_process(old)
    local.settle(old, _PATIENCE)
    return how


def _rewind(local: LocalSite, old: str) -> str:
    root = local.planned(old).root
    if root is None or not root.is_dir():
        return "with a copy of its data, for its own were gone"
    # However this ends: what is half rewound is of no use.
    local.doubt_data(old)
    try:
        local.run_steps((_servers(local).rewind(local.site.service(old)),))
        _go_on(local)
    except ProcessFailed as error:
        local.say(f"{old} can't be rewound, so its data are copied anew: {error}")
        local.forget_data(old)
        return "with a copy of its data, for they could not be rewound"
    local.keep_data(old)
    return "its data rewound"


# --- what the servers say


def _log_end(local: LocalSite, name: str) -> int | None:
    """Where the log of a primary that does not run ends, if it has ended cleanly."""
    root = local.planned(name).root
    if root is None or not root.is_dir():
        return None
    done = _run(_servers(local).ended(local.site.service(name)))
    return None if isinstance(done, str) else promotion.log_end(done.stdout)


def _received(command: Command, *, quiet: bool) -> int | str:
    """The bytes of log that a replica has received, once it receives no more."""
    end = time.monotonic() + _QUIET_LIMIT
    while True:
        found = _ask(command)
        if isinstance(found, str):
            return found
        if not (quiet and found["receiving"]):
            return found["bytes"]
        if time.monotonic() >= end:
            return f"it still received something after {_QUIET_LIMIT:g} s"
        time.sleep(PAUSE)


def _ask(command: Command) -> Mapping[str, int] | str:
    done = _run(command)
    if isinstance(done, str):
        return done
    with suppress(ValueError):
        size, receiving = done.stdout.strip().split("|")
        return {"bytes": int(size), "receiving": int(receiving)}
    lines = done.stderr.strip().splitlines() or [f"psql ended with status {done.returncode}"]
    return lines[-1].strip()


def _run(command: Command) -> subprocess.CompletedProcess[str] | str:
    """What a command printed, or why it did not."""
    try:
        return subprocess.run(
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
