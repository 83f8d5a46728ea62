"""`Site` on one machine -> which folders and files it needs, and what runs in which order.

Nothing is done here: a plan is a value, which `outgrow up --dry-run` prints and `LocalSite` carries
out. A new role is a function here, beside those of the others.

Below the run's folder each server has a folder of its name. What belongs to no
server begins with "_", which no server's name does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from outgrow.topology.load import VARIABLE
from outgrow.topology.model import REPAIR, Port, Service, Site
from outgrow.topology.probes import Answers, Stores, Succeeds
from outgrow.topology.process import Check, Command
from outgrow.topology.render import File, nginx, toml

TOPOLOGY_FILE: Final = "_topology.toml"

#: The name of the server in whose place a process runs, for the site itself to show.
SERVER_VARIABLE: Final = "OUTGROW_SERVER"


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs to run: paths of Python and nginx; `user` for an nginx that root starts."""

    python: str
    nginx: str = "nginx"
    user: str = ""


@dataclass(frozen=True, slots=True)
class Planned:
    """One process: what runs, when it counts as ready, and how it is checked.

    `check` finds out whether it does its `work`, a phrase for a table. `ready` is None
    for a process that is ready as soon as it runs, and `port` for one that serves
    nobody. `root` is the folder of a media server's files.
    """

    name: str
    role: str
    command: Command
    work: str
    check: Check
    ready: Answers | None = None
    port: Port | None = None
    root: Path | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Folders and files, relative to the run's folder, and the processes.

    The processes of one stage are started at once, and the next stage when all of
    them are ready; they are stopped in the opposite order.
    """

    folders: tuple[str, ...]
    files: tuple[File, ...]
    stages: tuple[tuple[Planned, ...], ...]

    @property
    def processes(self) -> tuple[Planned, ...]:
        """Every process, in the order of start."""
        return tuple(planned for stage in self.stages for planned in stage)


def plan(site: Site, folder: Path, programs: Programs) -> Plan:
    """What runs `site`, which must be a `local` one, below `folder`.

    Raises `ConfigurationError` for a path that a server can't be given.
    """
    media = site.services("media")
    nginxes = [service for service in media if service.engine == "nginx"]
    folders = ["_master", *(service.name for service in media), *map(_state, nginxes)]
    files = [*toml.render(site, TOPOLOGY_FILE)]
    for service in nginxes:
        files += _nginx_files(site, service, folder, programs)
    stages = (
        tuple(_media(site, service, folder, programs) for service in media),
        tuple(_app(site, service, folder, programs) for service in site.services("app")),
        (_repair(site, folder, programs),),
    )
    return Plan(tuple(folders), tuple(files), stages)


def environment(site: Site, folder: Path, server: str = "") -> dict[str, str]:
    """What a process of the site adds to our environment: so `manage.py` runs in it, too."""
    return {
        "DJANGO_SETTINGS_MODULE": site.settings,
        VARIABLE: str(folder / TOPOLOGY_FILE),
        # What a process prints is seen when it is printed.
        "PYTHONUNBUFFERED": "1",
        **({SERVER_VARIABLE: server} if server else {}),
    }


def _media(site: Site, service: Service, folder: Path, programs: Programs) -> Planned:
    words = {"outgrow": _outgrow_words, "nginx": _nginx_words}[service.engine]
    command = words(service, folder, programs)
    if service.engine == "outgrow" and site.media.names == "keep":
        command += ("--names", "keep")
    if service.engine == "outgrow" and site.active:
        command += ("--active",)
    return Planned(
        service.name,
        f"media ({service.engine})",
        Command(command, folder, {"PYTHONUNBUFFERED": "1"}),
        "stores, serves and deletes a file",
        Stores(service.port),
        # Any answer will do: an empty folder has no page to show.
        Answers(service.port, 600),
        service.port,
        folder / service.name,
    )


def _outgrow_words(service: Service, folder: Path, programs: Programs) -> tuple[str, ...]:
    root = str(folder / service.name)
    serve = ("-m", "outgrow", "media-server", "--root", root, "--bind", str(service.port))
    return (programs.python, *serve)


def _nginx_words(service: Service, folder: Path, programs: Programs) -> tuple[str, ...]:
    state = folder / _state(service)
    # -e: where nginx complains until it has read its configuration.
    return (programs.nginx, "-p", str(state), "-e", "stderr", "-c", str(state / "nginx.conf"))


def _nginx_files(site: Site, service: Service, folder: Path, programs: Programs) -> Iterator[File]:
    root, state = folder / service.name, folder / _state(service)
    for file in nginx.render(site, service, root, state, user=programs.user):
        yield File(f"{_state(service)}/{file.name}", file.content)


def _state(service: Service) -> str:
    return f"_nginx/{service.name}"


def _app(site: Site, service: Service, folder: Path, programs: Programs) -> Planned:
    words = (
        *(programs.python, "-m", "gunicorn"),
        # By default all of a user's gunicorns share one control socket in his home.
        "--no-control-socket",
        *("--bind", str(service.port)),
        *("--chdir", str(site.folder)),
        *("--worker-class", "gthread", "--threads", "8"),
        # More than the deadline of a save (25 s); a worker that is silent so long hangs.
        *("--timeout", "60"),
        *("--graceful-timeout", "5"),
        *("--access-logfile", "-", "--access-logformat", "%(m)s %(U)s %(s)s %(M)s ms"),
        site.wsgi,
    )
    return Planned(
        service.name,
        "app",
        Command(words, Path(site.folder), environment(site, folder, service.name)),
        "serves a page",
        # A visitor wants a page; to be ready it is enough not to fail.
        Answers(service.port, 400),
        Answers(service.port, 500),
        service.port,
    )


def _repair(site: Site, folder: Path, programs: Programs) -> Planned:
    def manage(*words: str) -> Command:
        command = (programs.python, "-m", "django", "outgrow", "media", *words)
        return Command(command, Path(site.folder), environment(site, folder))

    check = Succeeds(manage("status", "--check"))
    work = "watches, and nothing is owed for long"
    return Planned(REPAIR, REPAIR, manage("repair", "--watch"), work, check)
