"""Sites for tests: any that is valid (hypothesis), and a tiny one that runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import pytest
from hypothesis import strategies as st

from outgrow.errors import TopologyErrors
from outgrow.topology.app import App
from outgrow.topology.balancer import ENGINES as BALANCERS
from outgrow.topology.balancer import Balancer
from outgrow.topology.cache import Cache
from outgrow.topology.database import ENGINES as DATABASES
from outgrow.topology.database import PORTS, WHEN_BEHIND, WRITE_ON_READ, Database, Replication
from outgrow.topology.model import (
    ENGINES,
    NAMES,
    STORAGES,
    Host,
    Media,
    Port,
    Service,
    Site,
    parse,
)
from outgrow.topology.pooler import CLIENTS, MODES, Pooler
from outgrow.topology.worker import Worker

TINY = Path(__file__).parent / "tiny"

_names = st.from_regex(r"[a-z0-9][a-z0-9.-]{0,8}", fullmatch=True).filter(lambda n: n != "repair")
_seconds = st.none() | st.floats(0.001, 1e6)
# What a file can hold, and a path: no NUL, no control characters, no surrogates.
_paths = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="/\0", min_codepoint=32).filter(
        lambda c: c != "\x7f"
    ),
    min_size=1,
    max_size=8,
).filter(lambda part: part not in {".", ".."})


@st.composite
def hosts(draw: st.DrawFn, name: str, number: int, roles: tuple[str, ...]) -> Host:
    address = draw(
        st.sampled_from([f"10.0.0.{number}", f"host{number}.example", f"fd00::{number}"])
    )
    ports = draw(st.lists(st.integers(1, 65535), min_size=3, max_size=3, unique=True))
    engines = {
        "media": draw(st.sampled_from(ENGINES)),
        "balancer": draw(st.sampled_from(BALANCERS)),
        "cache": "memcached",
    }
    services = tuple(
        Service(
            name if len(roles) == 1 else f"{name}:{role}",
            role,
            Port(address, 0 if role == "worker" else port),
            engines.get(role, ""),
        )
        for role, port in zip(roles, ports, strict=False)
    )
    zone = draw(st.text(st.characters(exclude_categories=("Cs",)), max_size=8))
    memory = draw(st.sampled_from([0, 1, 64_000]))
    return Host(name, address, services, zone, draw(st.integers(0, 1000)), memory)


@st.composite
def databases(draw: st.DrawFn) -> Database:
    engine = draw(st.sampled_from(DATABASES))
    replication = Replication(
        max_lag=draw(_seconds),
        pin_for=3e6,
        when_behind=draw(st.sampled_from([None, *WHEN_BEHIND])),
        write_on_read=draw(st.sampled_from([None, *WRITE_ON_READ])),
    )
    if engine == "sqlite":
        return Database(engine, str(PurePosixPath("/") / draw(_paths)), replication=replication)
    password = draw(st.sampled_from(["none", "variable", "file"]))
    return Database(
        engine,
        "photos",
        "web",
        "PHOTOS" if password == "variable" else "",
        PurePosixPath("/") / draw(_paths) if password == "file" else None,
        replication,
        engine == "postgresql" and draw(st.booleans()),
    )


def database_hosts(database: Database) -> Iterator[Host]:
    number = PORTS[database.engine]
    # Longer than the names of others.
    for index, name in enumerate(["the-database-1", "the-database-2"]):
        address, role = f"10.1.0.{index}", "replica" if index else "primary"
        service = Service(name, role, Port(address, number), database.engine)
        yield Host(name, address, (service,))


@st.composite
def poolers(draw: st.DrawFn, members: tuple[Host, ...]) -> tuple[Host, ...]:
    """The same servers with one pooler for all, or with one on each that has clients of it."""
    used = {service.port.number for host in members for service in host.services}
    number = draw(st.integers(1, 65535).filter(lambda found: found not in used))
    if draw(st.booleans()):
        service = Service("the-pooler", "pooler", Port("10.2.0.1", number), "pgbouncer")
        return (*members, Host("the-pooler", "10.2.0.1", (service,)))
    return tuple(
        _with_pooler(host, number) if {s.role for s in host.services} & {*CLIENTS} else host
        for host in members
    )


def _with_pooler(host: Host, number: int) -> Host:
    own = Service(f"{host.name}:pooler", "pooler", Port(host.address, number), "pgbouncer")
    others = (replace(one, name=f"{host.name}:{one.role}") for one in host.services)
    return replace(host, services=(*others, own))


@st.composite
def balancers(draw: st.DrawFn) -> Balancer:
    root = PurePosixPath("/")
    files = (root / draw(_paths), root / draw(_paths)) if draw(st.booleans()) else (None, None)
    return Balancer(draw(st.integers(1, 1000)), draw(st.integers(1, 1000)), "/up/", *files)


apps = st.one_of(
    st.builds(App, st.just("gunicorn"), st.integers(1, 9), st.integers(1, 9)),
    st.builds(App, st.just("uvicorn"), st.integers(1, 9)),
)


@st.composite
def sites(draw: st.DrawFn) -> Site:
    names = draw(st.lists(_names, min_size=2, max_size=6, unique=True))
    each = st.sampled_from(
        [
            ("app",),
            ("media",),
            ("app", "media"),
            ("media", "app"),
            ("balancer",),
            ("balancer", "app", "media"),
            ("media", "balancer"),
            ("cache", "app"),
            ("worker",),
        ]
    )
    roles = [("app",), ("media",), *(draw(each) for _ in names[2:])]
    members = tuple(draw(hosts(name, number, roles[number])) for number, name in enumerate(names))
    root = PurePosixPath("/")
    database = draw(st.none() | databases())
    served = database is not None and database.has_servers
    storage = draw(st.sampled_from(STORAGES if served else STORAGES[:1]))
    if database:
        members += tuple(database_hosts(database))
    if database and database.engine == "postgresql" and draw(st.booleans()):
        members = draw(poolers(members))
    return Site(
        name=draw(_names),
        settings="photos.settings",
        wsgi="photos.wsgi:application",
        domains=tuple(
            draw(
                st.lists(_names.map("x".__add__), min_size=1, unique=True).filter(
                    lambda found: (
                        not any(".." in d or d[-1] in ".-" or "-." in d or ".-" in d for d in found)
                    )
                )
            )
        ),
        folder=root / draw(_paths),
        media_root=root / draw(_paths),
        media_url=draw(st.sampled_from(["/media/", "https://media.example.org/"])),
        media=Media(
            need=draw(st.sampled_from([None, 0, 1, "majority", "all"])),
            names=draw(st.sampled_from([None, *NAMES])),
            timeout=draw(_seconds),
            deadline=draw(_seconds),
            downtime=draw(_seconds),
            fsync=draw(st.none() | st.booleans()),
        )
        if storage == "hybrid"
        else Media(need=1, storage=storage),
        hosts=members,
        database=database,
        balancer=draw(balancers()),
        worker=Worker(("python", draw(_paths))),
        app=draw(apps),
        asgi="photos.asgi:application",
        cache=Cache(memory=draw(st.integers(1, 100))),
        pooler=Pooler(
            draw(st.sampled_from(MODES)), draw(st.integers(1, 90)), draw(st.none() | st.just(7))
        ),
        active=draw(st.booleans()),
    )


def tiny_site(
    folder: Path,
    *,
    engine: str = "outgrow",
    database: str = "",
    replicas: tuple[str, ...] = (),
    balancer: str = "",
    cache: str = "",
    caches: int = 1,
    synchronous: bool = False,
    worker: str = "",
    pooler: str = "",
    app: str = "",
) -> Path:
    """A copy of the tiny site below `folder`; the path of its topology file.

    With the engine of a `database` it has the primary "db1" and these replicas; with that
    of a `balancer` the balancer "front"; with that of a `cache` so many, from "cache1" on. With
    the mode of a `pooler` it has "pool1", with three connections to each database server. The
    application servers run `app`.
    """
    copy = folder / "tiny site"  # a name with a space, as users have them
    shutil.copytree(TINY, copy, ignore=shutil.ignore_patterns("__pycache__", ".outgrow-run"))
    path = copy / "topology.toml"
    text = path.read_text()
    if app:
        text = text.replace("[media]\n", 'asgi = "tiny.asgi:application"\n\n[media]\n')
        text = text.replace("[servers.app1]", f'[app]\nengine = "{app}"\n\n[servers.app1]')
    text = text.replace("[media]\n", f'[media]\nengine = "{engine}"\n')
    if database:
        text += f'\n[database]\nengine = "{database}"\nname = "tiny_rows"\nuser = "tiny-user"\n'
        if database == "sqlite":
            text = text.replace('user = "tiny-user"\n', "")
        else:
            text += 'password_env = "NOT_SET_ON_A_LAPTOP"\n'
        text += "synchronous = true\n" if synchronous else ""
        for number, name in enumerate(("db1", *replicas)):
            role = "replica" if number else "primary"
            text += f'\n[servers.{name}]\nroles = ["{role}"]\naddress = "10.0.0.{31 + number}"\n'
    if balancer:
        text += f'\n[servers.front]\nroles = ["balancer"]\nengine = "{balancer}"\n'
        text += 'address = "10.0.0.1"\n'
    if pooler:
        text += f'\n[pooler]\nmode = "{pooler}"\nsize = 3\n'
        text += '\n[servers.pool1]\nroles = ["pooler"]\naddress = "10.0.0.36"\n'
    if worker:
        text += f"\n[worker]\ncommand = {json.dumps(worker)}\n"
        text += '\n[servers.work1]\nroles = ["worker"]\naddress = "10.0.0.51"\n'
    if cache:
        text += f'\n[cache]\nengine = "{cache}"\nmemory = 8\n'
    for number in range(1, 1 + caches if cache else 1):
        text += f'\n[servers.cache{number}]\nroles = ["cache"]\naddress = "10.0.0.{40 + number}"\n'
    path.write_text(text)
    return path


def problems(found: dict[str, Any]) -> list[str]:
    """What is wrong with the content of a topology file: each as it is said."""
    with pytest.raises(TopologyErrors) as caught:
        parse(found, PurePath("/srv"))
    return [str(error) for error in caught.value.errors]
