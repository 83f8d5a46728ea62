"""What a plan is made of. All of it is values: nothing is done here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from outgrow.topology.model import Port
from outgrow.topology.process import Check, Command
from outgrow.topology.render import File

#: Below the folder of a run, for what database servers have, whom it belongs to alone.
HOME: Final = "_database"


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs to run: paths, and for the database's several a path by name.

    `user` is for what root starts and asks whom to be. `account` runs the database servers where
    we are root, as whom they refuse to run: a user's and a group's id. `home` is where
    they have their files, when that account can't reach the run's folder.
    """

    python: str
    nginx: str = "nginx"
    user: str = ""
    database: Mapping[str, str] = field(default_factory=dict)
    account: tuple[int, int] | None = None
    home: Path | None = None
    haproxy: str = "haproxy"
    cache: str = ""
    pgbouncer: str = "pgbouncer"


@dataclass(frozen=True, slots=True)
class Step:
    """One command that prepares something, and ends by itself with success.

    It `makes` a folder, unless that is there: the command fills the one of that name
    with ".new" behind it, which gets the name when the command has succeeded. When
    the folder `copies` another, which a step has made before, it is made anew if that
    was. A step that makes no folder runs every time. `limit` is in seconds; what it
    prints is shown if `shown`, else only when it fails.
    """

    name: str
    command: Command
    makes: Path | None = None
    copies: Path | None = None
    limit: float = 60.0
    shown: bool = False


@dataclass(frozen=True, slots=True)
class Planned:
    """One process: what runs, when it counts as ready, and how it is checked.

    `check` finds out whether it does its `work`, a phrase for a table. `ready` is None
    for a process that is ready as soon as it runs, and `port` for one that serves
    nobody. `root` is the folder of its files, which `data` makes before the first start.
    """

    name: str
    role: str
    command: Command
    work: str
    check: Check
    ready: Check | None = None
    port: Port | None = None
    root: Path | None = None
    url: str = ""
    data: Step | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """Steps, all at once; when they are done the processes, all at once."""

    processes: tuple[Planned, ...] = ()
    steps: tuple[Step, ...] = ()

    @property
    def every_step(self) -> tuple[Step, ...]:
        """The steps, and those that make the data of the processes."""
        return (*self.steps, *(one.data for one in self.processes if one.data))


@dataclass(frozen=True, slots=True)
class Plan:
    """Folders and files, relative to the run's folder, and what runs.

    A stage is begun when all processes of the last one are ready; they are stopped in
    the opposite order. `home` is the folder that is the database servers' alone.
    """

    folders: tuple[str, ...]
    files: tuple[File, ...]
    stages: tuple[Stage, ...]
    home: Path | None = None

    @property
    def processes(self) -> tuple[Planned, ...]:
        """Every process, in the order of start."""
        return tuple(planned for stage in self.stages for planned in stage.processes)
