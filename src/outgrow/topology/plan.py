"""`Site` on one machine -> which folders and files it needs, and what runs in which order.

Nothing is done here: a plan is a value, which `outgrow up --dry-run` prints and `LocalSite` carries
out. A new role is a function here, beside those of the others.

Below the run's folder each server has a folder of its name. What belongs to no
server begins with "_", which no server's name does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from outgrow.topology import applications, balancing, caching, pooling
from outgrow.topology.deployment import CHECK
from outgrow.topology.load import DIRECT, SERVER_VARIABLE, VARIABLE
from outgrow.topology.mariadb import MariaDB
from outgrow.topology.model import (
    MASTER,
    MIGRATE,
    MOUNTS,
    PASSWORD_FILE,
    REPAIR,
    Service,
    Site,
)
from outgrow.topology.mounts import MEDIA
from outgrow.topology.objects import LOCAL_KEY
from outgrow.topology.parts import HOME, Plan, Planned, Programs, Stage, Step
from outgrow.topology.postgres import Postgres
from outgrow.topology.probes import Answers, Runs, Stores, Succeeds
from outgrow.topology.process import Command, Reload
from outgrow.topology.render import File, nginx, toml

TOPOLOGY_FILE: Final = "_topology.toml"

#: Seconds for the site's code to be loaded and looked at, and for a large migration.
LOAD_LIMIT: Final = 120.0
MIGRATE_LIMIT: Final = 600.0

#: Loads what an application server loads, and runs the system checks.
_LOADS: Final = """\
import sys
from importlib import import_module
from operator import attrgetter
module, _, name = sys.argv[1].partition(":")
attrgetter(name or "application")(import_module(module))
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", "check"])
"""

#: How media servers reload, by their engine. Our own does not.
_RELOADS: Final = {"nginx": Reload(renews=True)}


def plan(site: Site, folder: Path, programs: Programs, password: str = "") -> Plan:
    """What runs `site`, which must be a `local` one, below `folder`.

    `password` is that of its database. Raises `ConfigurationError` for a path that a
    server can't be given.
    """
    media = site.services("media")
    nginxes = [service for service in media if service.engine == "nginx"]
    balancers = site.services("balancer")
    folders = [MASTER, *(f"{MOUNTS}/{one.name}" for one in site.mounts if one.name != MEDIA)]
    folders += [*(service.name for service in media), *map(_state, nginxes)]
    folders += [balancing.folder_of(service) for service in balancers]
    files = [*toml.render(site, TOPOLOGY_FILE)]
    for service in nginxes:
        files += _nginx_files(site, service, folder, programs)
    for service in balancers:
        files += balancing.files(site, service, folder, programs)
    servers = tuple(_media(site, service, folder, programs) for service in media)
    stores = tuple(_objects(service, folder, programs) for service in site.services("objects"))
    folders += [service.name for service in site.services("objects")]
    caches = tuple(caching.planned(site, s, folder, programs) for s in site.services("cache"))
    for service in site.services("cache"):
        files += caching.files(site, service)
    rows = _rows(site, folder, programs, password)
    if stores and not rows.files:
        files.append(_secret(password))
    stages = (
        *rows.stages,
        Stage((*rows.replicas, *rows.poolers, *servers, *stores, *caches)),
        *((Stage(steps=(_migrate(site, folder, programs),)),) if site.database else ()),
        Stage(tuple(_app(site, service, folder, programs) for service in site.services("app"))),
        *_last(site, folder, programs),
    )
    return Plan(tuple(folders), (*files, *rows.files), stages, rows.home)


def _last(site: Site, folder: Path, programs: Programs) -> Iterator[Stage]:
    """What needs the application servers, or nobody else."""
    balancers = (balancing.planned(s, folder, programs) for s in site.services("balancer"))
    workers = (_worker(site, s, folder, programs) for s in site.services("worker"))
    repair = (_repair(site, folder, programs),) if site.services("media") else ()
    if processes := (*balancers, *workers, *repair):
        yield Stage(processes)


def postgres(site: Site, folder: Path, programs: Programs) -> Postgres | None:
    """The PostgreSQL servers of a `local` site, where it has some."""
    if site.database is None or site.database.engine != "postgresql":
        return None
    [primary] = site.services("primary")
    return Postgres(site.database, primary, programs.home or folder / HOME, programs)


@dataclass(frozen=True, slots=True)
class _Rows:
    """The database servers: what must be ready before the replicas, and these."""

    files: tuple[File, ...] = ()
    stages: tuple[Stage, ...] = ()
    replicas: tuple[Planned, ...] = ()
    poolers: tuple[Planned, ...] = ()
    home: Path | None = None


def _rows(site: Site, folder: Path, programs: Programs, password: str) -> _Rows:
    if site.database is None or not site.database.has_servers:
        return _Rows()
    home = programs.home or folder / HOME
    replicas = [(s, host) for host in site.hosts for s in host.services if s.role == "replica"]
    secret = _secret(password)
    servers = postgres(site, folder, programs)
    if servers is None:
        [primary] = site.services("primary")
        maria = MariaDB(site.database, primary, home, programs)
        return _Rows(
            (secret, *maria.files(password, site.services("replica"))),
            (Stage((maria.start_primary(),)),),
            tuple(maria.start_replica(one, n) for n, (one, _) in enumerate(replicas, 2)),
            home=home,
        )
    standbys = tuple(host for _, host in replicas)
    poolers = site.services("pooler")
    return _Rows(
        (
            secret,
            *servers.files(password, standbys, pooling.secret(site, password)),
            *(file for one in poolers for file in pooling.files(site, one, home, password)),
        ),
        (Stage((servers.start_primary(standbys),)), Stage(steps=(servers.set_up(),))),
        tuple(servers.start_standby(service, host) for service, host in replicas),
        tuple(pooling.planned(service, servers, programs) for service in poolers),
        home,
    )


def _secret(password: str) -> File:
    return File(PASSWORD_FILE, password, private=True)


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
        Command(command, folder, {"PYTHONUNBUFFERED": "1"}, reload=_RELOADS.get(service.engine)),
        "stores, serves and deletes a file",
        Stores(service.port),
        # Any answer will do: an empty folder has no page to show.
        Answers(service.port, 600),
        service.port,
        folder / service.name,
        service.url,
    )


def _objects(service: Service, folder: Path, programs: Programs) -> Planned:
    words = (
        *(programs.python, "-m", "outgrow.topology.swift"),
        *("--folder", str(folder / service.name)),
        *("--port", str(service.port.number), "--key", LOCAL_KEY),
        *("--secret-file", str(folder / PASSWORD_FILE)),
    )
    # It refuses who has no keys, and is well then.
    answers = Answers(service.port, 500)
    return Planned(
        service.name,
        f"objects ({service.engine})",
        Command(words, folder, {"PYTHONUNBUFFERED": "1"}),
        "answers a request",
        answers,
        answers,
        service.port,
        folder / service.name,
        service.url,
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
    engine = site.app.engine
    server = applications.application(site, service, log=True)
    signal = applications.reload(engine, server)
    return Planned(
        service.name,
        "app",
        Command(
            (programs.python, *applications.words(engine, server)),
            Path(site.folder),
            environment(site, folder, service.name),
            reload=Reload(signal, renews=True) if signal else None,
        ),
        "serves a page",
        # A visitor wants a page; to be ready it is enough not to fail.
        Answers(service.port, 400),
        Answers(service.port, 500),
        service.port,
        url=service.url,
    )


def version_steps(site: Site, folder: Path, programs: Programs) -> Mapping[str, Step]:
    """What comes before a new version of the site, by name: `CHECK`, and `MIGRATE` if it can be."""
    words = (programs.python, "-c", _LOADS, site.application)
    command = Command(words, Path(site.folder), environment(site, folder))
    found = {CHECK: Step(CHECK, command, limit=LOAD_LIMIT)}
    if site.database:
        found[MIGRATE] = _migrate(site, folder, programs)
    return found


def _migrate(site: Site, folder: Path, programs: Programs) -> Step:
    command = _manage(site, folder, programs, "outgrow", "databases", "migrate")
    if site.services("pooler"):
        # A table may be locked or rewritten for longer than a pooler lets others wait.
        command = replace(command, environment={**command.environment, DIRECT: "1"})
    return Step(MIGRATE, command, limit=MIGRATE_LIMIT, shown=True)


def _worker(site: Site, service: Service, folder: Path, programs: Programs) -> Planned:
    words = site.worker.words(programs.python)
    command = Command(words, Path(site.folder), environment(site, folder, service.name))
    return Planned(service.name, "worker", command, "runs", Runs())


def _repair(site: Site, folder: Path, programs: Programs) -> Planned:
    def media(*words: str) -> Command:
        return _manage(site, folder, programs, "outgrow", "media", *words)

    check = Succeeds(media("status", "--check"))
    work = "watches, and nothing is owed for long"
    return Planned(REPAIR, REPAIR, media("repair", "--watch"), work, check)


def _manage(site: Site, folder: Path, programs: Programs, *words: str) -> Command:
    command = (programs.python, "-m", "django", *words)
    return Command(command, Path(site.folder), environment(site, folder))
