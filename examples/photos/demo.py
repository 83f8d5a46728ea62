"""The photo site under fire: it goes on while a media server and a database die.

    python demo.py          play the story, then stay up until Ctrl-C
    python demo.py --exit   play the story, then end: status 0 only if all held

It starts two application servers, three media servers, the repair watch and a
PostgreSQL primary with two standbys on this machine. It uploads photographs through
the site's own form, kills a media server with SIGKILL in the middle, and compares
every byte in the end. Then it pauses replay on the standbys while visitors write,
and kills one of them while visitors read.

Where there is no PostgreSQL, the rows are in SQLite, and that half is left out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from visitor import Visitor  # noqa: E402

from outgrow.errors import OutgrowError, TopologyError  # noqa: E402 - the path comes first
from outgrow.topology.load import load  # noqa: E402
from outgrow.topology.local import LocalSite  # noqa: E402

VAR = HERE / "var"
RUN = VAR / "run"
VICTIM = "media2"

#: Files that a media server has for itself.
NOT_COPIES = ("outgrow-master-id.txt",)

#: Seconds that the watch may take to repair a server that came back.
REPAIR_LIMIT = 60.0


@dataclass(slots=True)
class Line:
    """One row of the table: nothing held unless `held` was set by a comparison."""

    done: str
    promise: str
    seen: str = "not checked"
    held: bool = False


@dataclass(slots=True)
class Story:
    """What happened, as far as it was seen."""

    uploaded: int = 0
    during: int = 0
    statuses: list[int] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    owed_at_most: int = 0


def main() -> int:
    """Play the story; return the exit code."""
    parser = argparse.ArgumentParser(description="The photo site, while servers die.")
    parser.add_argument("--exit", action="store_true", help="end after the story")
    parser.add_argument("--keep", action="store_true", help="keep the files of the last run")
    options = parser.parse_args()
    console = Console(highlight=False)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    if not options.keep:
        shutil.rmtree(VAR, ignore_errors=True)
    VAR.mkdir(exist_ok=True)
    try:
        local = site(console)
        console.print(f"Starting {', '.join(counted(local))} and the repair watch.")
        with local:
            lines, databases = play(local, console), None
            if local.site.replicas():
                told, databases = play_rows(local, console)
                lines += told
            console.print(table(lines))
            if databases:
                console.print(databases)
            held = all(line.held for line in lines)
            console.print("Every promise held." if held else "A PROMISE WAS BROKEN.")
            if not options.exit:
                stay(local, console)
            return 0 if held else 1
    except KeyboardInterrupt:
        console.print("Stopped.")
        return 130
    except OutgrowError as error:
        console.print(f"The demo could not run: {error}", style="red")
        return 1


def site(console: Console) -> LocalSite:
    """The site of the topology, with PostgreSQL if it can be run; ready to be started."""
    wanted = load(HERE / "topology.toml")
    local = LocalSite(wanted, RUN, write=_log())
    try:
        local.prepare()
    except TopologyError as error:
        if error.path != "database.engine":
            raise
        console.print(
            f"{error}\nThe rows are in SQLite, and what becomes of replicas is not shown."
        )
        os.environ["PHOTOS_SQLITE"] = "1"
        rows = {"primary", "replica"}
        hosts = [one for one in wanted.hosts if not {s.role for s in one.services} & rows]
        local = LocalSite(replace(wanted, database=None, hosts=tuple(hosts)), RUN, write=_log())
        local.prepare()
        migrate(local)
    return local


def counted(local: LocalSite) -> Iterator[str]:
    """How many servers of each kind there are, in words."""
    kinds = (("app", "application server"), ("media", "media server"))
    for role, text in (*kinds, ("primary", "primary"), ("replica", "standby")):
        count = len(local.site.services(role))
        if count:
            yield f"{count} {text}" + ("s" if count > 1 else "")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _log() -> Callable[[str, str], None]:
    """The servers' own output goes to a file; it would bury the story."""

    def write(name: str, line: str) -> None:
        with (VAR / "servers.log").open("a") as file:
            file.write(f"{name}: {line}\n")

    return write


def migrate(local: LocalSite) -> None:
    """Make the database; `outgrow up` does that itself where it starts a server for it."""
    words = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
    subprocess.run(words, cwd=HERE, env={**os.environ, **local.environment}, check=True)


def play(local: LocalSite, console: Console) -> list[Line]:
    """The story, step by step. Returns what was promised and what was seen."""
    story = Story()
    photographs = sorted((HERE / "sample_photos").glob("*.jpg"))
    first = Visitor(local.address("app1"), story.statuses)
    second = Visitor(local.address("app2"), story.statuses)
    album = first.make_album("Demo")

    console.print(f"Uploading {len(photographs)} photographs through app1.")
    first.upload(album, photographs[:4])
    story.uploaded += 4
    killer = threading.Thread(target=kill, args=(local,))
    for place, photograph in enumerate(photographs[4:]):
        if place == 2:  # while this one travels
            killer.start()
        first.upload(album, [photograph])
        story.uploaded += 1
    killer.join()
    console.print(f"{VICTIM} was killed with SIGKILL in the middle of that.")

    console.print("Uploading again, through app2, while it is dead.")
    for start in range(0, len(photographs), 3):
        batch = photographs[start : start + 3]
        second.upload(album, batch)
        story.during += len(batch)
    story.owed_at_most = second.owed(VICTIM)

    console.print(f"Deleting three; {VICTIM} is owed {story.owed_at_most} files.")
    before = copies(master(local))
    for number in second.photographs(album)[:2] + first.photographs(album)[-1:]:
        second.delete(album, number)
    story.deleted = sorted(before.keys() - copies(master(local)).keys())

    console.print(f"Starting {VICTIM} again, and waiting for the watch to repair it.")
    local.release(VICTIM)
    local.wait_ready(VICTIM)
    repaired_in = wait_for_repair(second)
    return judge(story, repaired_in, master(local), folders(local))


def play_rows(local: LocalSite, console: Console) -> tuple[list[Line], Table]:
    """The story of the rows. Returns what was promised and seen, and how the servers are now."""
    import rows

    seen = rows.Rows()
    for told in rows.play(local, seen):
        console.print(told)
    replicas = [server.name for server, _port in local.site.replicas()]
    refused = [status for status in seen.statuses if status >= 400]
    by_replica = sum(seen.pages[name] for name in replicas)
    shares = ", ".join(f"{name} {seen.pages[name]}" for name in ("default", *replicas))
    lines = [
        Line(
            f"{seen.wrote} visitors wrote while no replica replayed anything",
            "D1: each sees what he wrote, on the other application server, too",
            f"{seen.saw_theirs} saw it; of {seen.strangers} others {seen.strangers_old} did not",
            seen.wrote == seen.saw_theirs and 0 < seen.strangers == seen.strangers_old,
        ),
        Line(
            f"{rows.VICTIM} killed while pages were read",
            "D3: a replica that dies costs no request",
            f"{len(seen.statuses)} requests, {len(refused) + len(seen.failed)} failed",
            bool(seen.statuses) and not refused and not seen.failed,
        ),
        Line(
            f"{rows.VICTIM} started again",
            "it serves pages again, by itself",
            "not within a minute" if seen.back_in is None else f"in {seen.back_in:.1f} s",
            seen.back_in is not None,
        ),
        Line(
            f"{sum(seen.pages.values())} pages of visitors who only read, or have just written",
            "most are read from the replicas",
            shares,
            2 * by_replica > sum(seen.pages.values()) and all(seen.pages[one] for one in replicas),
        ),
    ]
    return lines, rows.standings(local, seen)


def kill(local: LocalSite) -> None:
    """SIGKILL one media server, and keep it dead, while uploads go on."""
    local.hold(VICTIM)
    local.process(VICTIM).kill()


def wait_for_repair(visitor: Visitor) -> float | None:
    """Seconds until no server is owed anything, or None when it took too long."""
    begin = time.monotonic()
    while time.monotonic() - begin < REPAIR_LIMIT:
        if visitor.all_is_well():
            return time.monotonic() - begin
        time.sleep(0.25)
    return None


def master(local: LocalSite) -> Path:
    """The folder of the master copy."""
    return Path(local.site.media_root)


def folders(local: LocalSite) -> dict[str, Path]:
    """The folder of each media server."""
    return {server.name: RUN / server.name for server in local.site.media_servers()}


def copies(folder: Path) -> dict[str, bytes]:
    """Every file of a master or a media server, without what Outgrow keeps for itself."""
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        own = name.parts[0].startswith(".outgrow") or str(name) in NOT_COPIES
        if path.is_file() and not own:
            found[str(name)] = path.read_bytes()
    return found


def differences(wanted: dict[str, bytes], found: dict[str, bytes]) -> list[str]:
    """What is missing, extra or different, in words; nothing when they are equal."""
    return [
        *(f"{name} is missing" for name in sorted(wanted.keys() - found.keys())),
        *(f"{name} is extra" for name in sorted(found.keys() - wanted.keys())),
        *(
            f"{name} differs"
            for name in sorted(wanted.keys() & found.keys())
            if wanted[name] != found[name]
        ),
    ]


def judge(
    story: Story, repaired_in: float | None, folder: Path, servers: dict[str, Path]
) -> list[Line]:
    """Compare what was promised with what is on the disks."""
    wanted = copies(folder)
    held = {name: copies(path) for name, path in servers.items()}
    total = story.uploaded + story.during
    refused = [status for status in story.statuses if status >= 400]
    expected = 2 * total - len(story.deleted)
    lost = expected - len(wanted)
    back = [name for name in story.deleted for files in held.values() if name in files]
    unequal = [
        f"{name}: {problem}"
        for name, files in held.items()
        for problem in differences(wanted, files)
    ]
    return [
        Line(
            f"{total} photographs uploaded, {VICTIM} killed in the middle",
            "no visitor sees an error (need = 1)",
            f"{len(story.statuses)} requests, {len(refused)} refused",
            bool(story.statuses) and not refused,
        ),
        Line(
            "each is two files: the photograph and its thumbnail",
            "M1: what was saved is on the master, or the save has failed",
            f"{len(wanted)} files of {expected}",
            total > 0 and lost == 0,
        ),
        Line(
            f"{story.during} of them while {VICTIM} was dead",
            "M1: a server that misses a file is owed it",
            f"it was owed {story.owed_at_most}",
            story.owed_at_most > 0,
        ),
        Line(
            f"{VICTIM} started again",
            "M4: it is repaired by itself",
            "not within a minute" if repaired_in is None else f"in {repaired_in:.1f} s",
            repaired_in is not None,
        ),
        Line(
            f"{len(story.deleted)} files deleted while {VICTIM} was dead",
            "M3: what is deleted stays deleted",
            f"{len(back)} came back" if back else "on no server",
            len(story.deleted) == 6 and not back,
        ),
        Line(
            f"{len(servers)} servers compared with the master, byte by byte",
            "M4: every server equals the master",
            "; ".join(unequal[:3]) or f"{sum(map(len, held.values()))} files are equal",
            len(servers) == 3 and bool(wanted) and not unequal,
        ),
    ]


def table(lines: list[Line]) -> Table:
    """What was done, what was promised, what was seen."""
    result = Table(show_lines=True)
    for heading in ("done", "promised", "seen", ""):
        result.add_column(heading, overflow="fold")
    for line in lines:
        verdict = "[green]held[/]" if line.held else "[red]BROKEN[/]"
        result.add_row(line.done, line.promise, line.seen, verdict)
    return result


def stay(local: LocalSite, console: Console) -> None:
    """Say where everything is, until Ctrl-C."""
    console.print(f"The site: {local.address('app1')}/ and {local.address('app2')}/")
    console.print(f"What the servers say: {VAR / 'servers.log'}")
    console.print("Kill a server yourself and look at the page. Ctrl-C stops everything.")
    local.wait()


if __name__ == "__main__":
    sys.exit(main())
