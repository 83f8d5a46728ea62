"""One server of a site -> HOST/README.md: what is done there by hand, in order.

No secret stands in it, only where each must be. Commands are quoted for a shell; what may hold
any character stands in code, between as many backticks as it needs.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Final

from outgrow.topology import mounts
from outgrow.topology.applications import ENGINES
from outgrow.topology.doors import doors
from outgrow.topology.model import Host, Service, Site
from outgrow.topology.needs import need
from outgrow.topology.render import File, bind, pgbouncer, postgresql
from outgrow.topology.render import mounts as rendered
from outgrow.topology.render.systemd import Places
from outgrow.topology.sums import named, shown, shown_limit
from outgrow.topology.ways import way
from outgrow.topology.zones import addresses, fronts, nameservers, private, zones

#: Packages of Debian and Ubuntu, by what a server runs, or by its role.
_PACKAGES: Final = {
    "nginx": "nginx-light",
    "haproxy": "haproxy",
    "memcached": "memcached",
    "redis": "redis-server",
    "postgresql": "postgresql",
    "mariadb": "mariadb-server",
    "outgrow": "python3-venv",
    "app": "python3-venv",
    "worker": "python3-venv",
    "pooler": "pgbouncer",
    "bind": "bind9 bind9-utils",
    # Without the service of its own that the package dnsmasq has.
    "dnsmasq": "dnsmasq-base",
    "nfs": "nfs-kernel-server",
}
_CODE: Final = ("app", "worker")
_DRIVERS: Final = {"postgresql": "psycopg[binary]", "mariadb": "mysqlclient"}
#: mysqlclient is compiled.
_COMPILER: Final = "build-essential pkg-config python3-dev libmariadb-dev"

_UNITS: Final = "/etc/systemd/system/"
_OURS: Final = "/etc/outgrow/"
#: AppArmor lets BIND read its files there alone.
_BINDS: Final = "/etc/bind/outgrow/"
_EXPORTS: Final = "/etc/exports.d/"


def render(
    site: Site, host: Host, places: Places, files: Iterable[File], *, visitors: int | None = None
) -> Iterator[File]:
    """The page of one server; `files` are the others that are rendered for it.

    `visitors` is the port that each nginx of a media server has for them.
    """
    names = [file.name for file in files]
    sections = (
        ("Install", _install(site, host, places)),
        ("Secrets", _secrets(site, host, places)),
        ("Files", _files(names)),
        ("Start", _start(site, host, names)),
        ("See that it works", _works(site, host, places)),
        ("Firewall", _firewall(site, host, visitors)),
        ("Back up", _backup(site, host)),
        ("What it needs", _needs(site, host)),
        ("Logs", _logs(host, names)),
    )
    nouns = ", ".join(way(service.role).noun for service in host.services)
    lines = [f"# {host.name}: {nouns}", "", "Written by outgrow. Changes here are lost."]
    for title, some in _numbered(sections):
        lines += ["", f"## {title}", "", *some]
    yield File("README.md", re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n")


def _numbered(sections: Iterable[tuple[str, Iterable[str]]]) -> Iterator[tuple[str, list[str]]]:
    filled = [(title, found) for title, lines in sections if (found := list(lines))]
    return ((f"{number}. {title}", found) for number, (title, found) in enumerate(filled, 1))


# --- what is installed


def _install(site: Site, host: Host, places: Places) -> Iterator[str]:
    if packages := _packages(site, host):
        yield from _shell(
            "sudo apt-get update", shlex.join(["sudo", "apt-get", "install", *packages])
        )
    wanted = _wheels(site, host)
    if wanted:
        python = PurePosixPath(places.python)
        yield from _shell(
            shlex.join(["sudo", "python3", "-m", "venv", str(python.parent.parent)]),
            shlex.join(["sudo", str(python), "-m", "pip", "install", *wanted]),
        )
    if any(service.role in _CODE for service in host.services):
        yield f"The site's code comes into {_literal(site.folder)}, and what it requires with pip."
        if site.services("media") and not site.media.is_distributed:
            shared = (
                ", which all application servers share" if len(site.services("app")) > 1 else ""
            )
            yield f"{_literal(places.user)} writes to {_literal(site.media_root)}{shared}."
    if any(service.role == "media" for service in host.services):
        owner = ["-o", places.user, "-g", places.user]
        folders = [places.copies]
        if any(s.role == "media" and s.engine == "nginx" for s in host.services):
            folders.append(places.state)
        yield from _shell(shlex.join(["sudo", "install", "-d", *owner, *folders]))
    yield from _folders(site, host, places)
    if any(service.engine == "external" for service in host.services):
        yield "Nothing: the store is its provider's. An account and a pair of keys are needed."


def _folders(site: Site, host: Host, places: Places) -> Iterator[str]:
    """Those that are shared, and those that are mounted."""
    exported = list(dict.fromkeys(str(mount.export) for mount, _ in mounts.shared_by(site, host)))
    if exported:
        owner = ["-o", places.user, "-g", places.user]
        yield from _shell(shlex.join(["sudo", "install", "-d", *owner, *exported]))
        yield (
            f"The number of the user {_literal(places.user)} must be the same on this server and "
            "on all that mount the folders: NFS sends numbers (`id`)."
        )
    if mounted := [str(one.folder) for one in mounts.of(site, host)]:
        yield "Empty, and root's: without the mount nobody else writes there."
        mine = [one for one in mounted if one not in exported]
        yield from _shell(shlex.join(["sudo", "install", "-d", *mine])) if mine else ()


def _packages(site: Site, host: Host) -> list[str]:
    found: dict[str, None] = {}
    for service in host.services:
        if service.engine in {"sqlite", "external"}:
            continue
        package = _PACKAGES.get(service.engine) or _PACKAGES.get(service.role)
        found |= dict.fromkeys(package.split()) if package else {}
        if service.role in _CODE and site.database and site.database.engine == "mariadb":
            found |= dict.fromkeys(_COMPILER.split())
    if any(one.server != host.name for one in mounts.of(site, host)):
        found |= {"nfs-common": None}
    return list(found)


def _wheels(site: Site, host: Host) -> list[str]:
    roles = {service.role for service in host.services}
    extras, found = [], []
    if any(service.engine == "outgrow" for service in host.services):
        extras.append("server")
    if roles & set(_CODE):
        extras += ["objects"] if site.objects else []
        extras += [site.cache.engine] if site.services("cache") else []
        if "app" in roles or site.app.engine == "gunicorn":
            found.append(ENGINES[site.app.engine].package)
        driver = _DRIVERS.get(site.database.engine) if site.database else None
        found += [driver] if driver else []
    elif not extras:
        return []
    return [f"outgrow[{','.join(extras)}]" if extras else "outgrow", *found]


# --- secrets


def _secrets(site: Site, host: Host, places: Places) -> Iterator[str]:
    code = any(service.role in _CODE for service in host.services)
    if code:
        yield from _variables(site, places)
        yield "* `SECRET_KEY` of the site's settings: the same on every application server."
    ours = any(service.engine == "outgrow" for service in host.services)
    if ours or (code and any(s.engine == "outgrow" for s in site.services("media"))):
        yield (
            f"* {_literal(places.token_file)}: the token of the media servers, one line, the same "
            f"on all of them and on the application servers; readable for {_literal(places.user)}."
        )
    if code and any(s.engine == "outgrow" for s in site.services("media")):
        yield "  The site's settings hand it to the storage, as its option `token`."
    if any(service.engine in _DRIVERS for service in host.services) and site.database:
        user = _literal(site.database.user)
        yield f"* The password of the database's user {user}, as the application servers have it."
        if site.services("replica"):
            yield "* The password of the user for replication, which each replica has."
    if any(service.role == "pooler" for service in host.services) and site.database:
        where = f"{places.configurations}/{pgbouncer.USERS}"
        query = _USERS.format(user=site.database.user)
        yield (
            f"* {_literal(where)}, mode 600, of {_literal(places.user)}: the user of the database "
            "and its SCRAM secret, as PostgreSQL has it. The primary writes it, and again for each "
            "new password:"
        )
        yield from _shell(shlex.join(["sudo", "-u", "postgres", "psql", "-Atc", query]))


#: A line for PgBouncer. The name of a user needs no quotes (`rules.identifier`).
_USERS: Final = (
    """SELECT format('"%s" "%s"', rolname, rolpassword) FROM pg_authid WHERE rolname = '{user}'"""
)


def _variables(site: Site, places: Places) -> Iterator[str]:
    every = []
    if rows := site.database:
        every.append(("the password of the database", rows.password_env, rows.password_file))
    if store := site.objects:
        every.append(("the secret of the object store", store.secret_env, store.secret_file))
    for what, variable, file in every:
        if variable:
            where = _literal(places.environment)
            yield f"* `{variable}=...` in {where}, mode 600, of root: {what}."
        if file:
            yield f"* {_literal(file)}, readable for {_literal(places.user)}: {what}."


# --- files and units


def _files(names: list[str]) -> Iterator[str]:
    if not names:
        return
    yield "From the folder of this page:"
    others = [name for name in names if name not in {postgresql.CONFIGURATION, rendered.FSTAB}]
    targets = {name: _target(name) for name in others}
    yield from _shell(
        shlex.join(["sudo", "install", "-d", *_made(targets)]),
        *(
            shlex.join(["sudo", "install", "-m", "644", name, folder])
            for name, folder in targets.items()
        ),
        "sudo systemctl daemon-reload",
    )
    if rendered.FSTAB in names:
        yield (
            "`fstab` has the mounts once more, for a server where they stand in `/etc/fstab`: then "
            "leave the units that end with `.mount` out."
        )
    if postgresql.CONFIGURATION in names:
        yield "Of the cluster that PostgreSQL has here (its version stands in the path):"
        yield from _shell(
            f"sudo cp {postgresql.CONFIGURATION} /etc/postgresql/*/main/conf.d/",
            "sudo systemctl restart postgresql",
        )


def _target(name: str) -> str:
    if name == rendered.EXPORTS:
        return _EXPORTS
    if _is_unit(name):
        return _UNITS
    return _BINDS if name == bind.CONFIGURATION or name.endswith(".zone") else _OURS


def _made(targets: Mapping[str, str]) -> list[str]:
    """Ours, and those that a distribution may not have and files go into."""
    return [_OURS, *(one for one in (_BINDS, _EXPORTS) if one in targets.values())]


def _start(site: Site, host: Host, names: list[str]) -> Iterator[str]:
    if site.database and any(service.role == "app" for service in host.services):
        yield "Before the first start of the site, and before each new version of it:"
        past = "OUTGROW_DIRECT=1 " if site.services("pooler") else ""
        yield from _shell(f"{past}python manage.py outgrow databases migrate")
    yield from _shares_first(site, host, names)
    if any(service.role == "pooler" for service in host.services):
        yield "The distribution's own PgBouncer is another service, and has the same port:"
        yield from _shell("sudo systemctl disable --now pgbouncer")
    if any(service.engine == "bind" for service in host.services):
        yield "The distribution's own BIND is another service, and has the same port:"
        yield from _shell("sudo systemctl disable --now named")
    if units := [name for name in names if _is_unit(name)]:
        yield "Where a plan says when, wait for that step."
        yield from _shell(shlex.join(["sudo", "systemctl", "enable", "--now", *units]))
    if any(service.engine == "nginx" for service in host.services):
        yield (
            "The distribution's own nginx is another service. If nothing needs it: "
            "`sudo systemctl disable --now nginx`."
        )


def _shares_first(site: Site, host: Host, names: list[str]) -> Iterator[str]:
    if rendered.EXPORTS in names:
        yield "Before the servers that mount them, the folders are shared:"
        yield from _shell("sudo systemctl enable --now nfs-server", "sudo exportfs -ra")
    servers = dict.fromkeys(mount.server for mount in mounts.of(site, host))
    known = {one.name for one in site.hosts}
    for server in servers:
        if server in known and server != host.name:
            yield f"{_literal(server)} shares its folders first: the mounts wait for it."
        elif server not in known:
            yield f"{_literal(server)} must share this, in the words of exports(5):"
            yield from ("", "```text", *rendered.exports(site, server), "```", "")


# --- proofs


def _works(site: Site, host: Host, places: Places) -> Iterator[str]:
    for service in host.services:
        yield from _proof(site, host, service)
    for mount in mounts.of(site, host):
        folder = str(mount.folder)
        yield f"{_literal(folder)} is mounted, and the site's user writes there:"
        file = f"{folder}/.outgrow-proof-{host.name}"
        user = ["sudo", "-u", places.user]
        yield from _shell(
            shlex.join(["findmnt", folder]),
            shlex.join([*user, "touch", file]),
            shlex.join([*user, "rm", file]),
        )


def _proof(site: Site, host: Host, service: Service) -> Iterator[str]:
    ours = "python manage.py outgrow"
    port = service.port
    if service.role == "app":
        name = site.domains[0].removeprefix(".")
        yield "A page comes, with status 200 or a redirect:"
        yield from _shell(shlex.join(["curl", "-I", "-H", f"Host: {name}", f"{port.url}/"]))
    elif service.role == "media":
        yield "It answers, with 403 or 404 for the empty name. From an application server:"
        yield from _shell(
            shlex.join(["curl", "-I", f"{port.url}/"]), f"{ours} media probe --server {host.name}"
        )
    elif service.role in {"primary", "replica"} and port.number:
        yield "From an application server, which sees all database servers:"
        yield from _shell(f"{ours} databases status")
    elif service.role == "pooler":
        yield "From an application server, whose connections go through it:"
        yield from _shell("python manage.py migrate --check")
    elif service.role == "dns":
        yield from _names(site, host, service)
    elif service.role == mounts.ROLE:
        yield "It shares the folders, each with the servers that mount it, and `sync`:"
        yield from _shell("sudo exportfs -v")
    elif service.role == "objects":
        yield "From an application server:"
        yield from _shell(f"{ours} buckets check")
    elif port.number:
        yield f"The {way(service.role).noun} takes connections, from where it is asked:"
        yield from _shell(shlex.join(["nc", "-vz", port.host, str(port.number)]))


def _names(site: Site, host: Host, service: Service) -> Iterator[str]:
    here = [f"@{service.port.host}", "-p", str(service.port.number), "+norecurse"]
    found = zones(site)
    visited = ", ".join(dict.fromkeys(one for front in fronts(site) for one in addresses(front)))
    yield (
        f"`dig`, of the package bind9-dnsutils, is told all of {visited}. Ask twice: the second "
        "answer begins with another one."
    )
    yield from _shell(
        *(shlex.join(["dig", *here, zone.name, kind]) for zone in found for kind in ("A", "AAAA")),
        shlex.join(["dig", *here, "+tcp", found[0].name, "NS"]),
    )
    yield "The zone above each of these names the same servers, which is done at its registrar:"
    yield from ("", "| zone | name server | its addresses there |", "|---|---|---|")
    others = [(name.lower(), address) for name, address in site.dns.secondaries]
    own = [(one.name, ", ".join(one.addresses)) for one in nameservers(site)]
    for zone in found:
        yield from (f"| {zone.name} | {name} | {where} |" for name, where in (*own, *others))
    behind = {one.name: one for one in (host, *fronts(site))}.values()
    if inside := [f"{each} of {one.name}" for one in behind for each in private(one)]:
        yield ""
        yield (
            f"Only from inside is reached: {', '.join(inside)}. For visitors from outside write "
            "`public` for that server in the topology file."
        )


# --- who may come


def _firewall(site: Site, host: Host, visitors: int | None) -> Iterator[str]:
    ours = [door for door in doors(site, host) if door.service.engine != "external"]
    if not ours:
        return
    yield "Open these, and no others but your own for ssh:"
    yield from ("", "| port | for | from |", "|---|---|---|")
    for door in ours:
        who = [f"{name} ({address})" for name, address in door.callers]
        if door.public:
            who.append("visitors, or what stands before the site for them")
        noun = way(door.service.role).noun
        kinds = "udp and tcp" if door.service.role == "dns" else "tcp"
        yield f"| {door.port.number}/{kinds} | {noun} | {', '.join(who) or 'nobody else'} |"
    nginx = [door for door in ours if door.service.engine == "nginx"]
    if visitors and any(door.service.role == "media" for door in nginx):
        yield f"| {visitors}/tcp | files, to read | visitors, and the other media servers |"
    if any(door.service.engine == "postgresql" for door in ours):
        yield ""
        yield "`pg_hba.conf` has a line for each of them."


# --- what is not made anew


def _backup(site: Site, host: Host) -> Iterator[str]:
    roles = [service.role for service in host.services]
    distributed = site.media.is_distributed
    if "app" in roles and site.services("media") and not distributed:
        yield (
            f"* {_literal(site.media_root)}, the master copy of the uploads, with `.outgrow/` "
            "last. Once for the site: the application servers share it."
        )
    if "app" in roles:
        rows = site.database
        if rows and not rows.has_servers:
            yield f"* {_literal(rows.name)}, the database: by `sqlite3 FILE '.backup COPY'`."
    if "primary" in roles and site.database and site.database.has_servers:
        program = {"postgresql": "pg_dump", "mariadb": "mariadb-dump"}[site.database.engine]
        yield f"* The database {_literal(site.database.name)}, before the files: `{program}`."
    if "replica" in roles:
        yield "* No rows: a replica follows each mistake at once, and is no backup."
    if "media" in roles and distributed:
        yield (
            "* The files of one of the media servers, after the database: together they are the "
            "uploads, for there is no master copy."
        )
    elif "media" in roles:
        yield "* No files: they are copies of the master's. A media server is no backup."
    for mount, _ in mounts.shared_by(site, host):
        yield f"* {_literal(mount.export)}, which other servers have as {_literal(mount.folder)}."
    if "objects" in roles:
        yield "* The bucket, by its versions or a second bucket at another place."
    yield f"* `{_OURS}`, with its secrets, in a place that is as safe as they are."


# --- how large it is


def _needs(site: Site, host: Host) -> Iterator[str]:
    if not (found := need(site, host).sums):
        return
    several = len(host.services) > 1
    yield "At the most, as `outgrow capacity` has it for all servers:"
    yield from ("", "| | at the most | sum | limit |", "|---|---|---|---|")
    for one in found:
        yield f"| {named(one, several)} | {shown(one)} | {one.text} | {shown_limit(one)} |"


def _logs(host: Host, names: list[str]) -> Iterator[str]:
    """Where each program writes, and who keeps that small.

    What is rendered names no file for a log; a test looks at every configuration.
    """
    engines = {service.engine for service in host.services}
    if "postgresql" in engines:
        yield (
            "PostgreSQL is the distribution's, and writes to `/var/log/postgresql`: "
            "`/etc/logrotate.d/postgresql-common`, of its package, rotates that.\n"
        )
    if "mariadb" in engines:
        yield (
            "MariaDB is the distribution's, and writes to the journal. What its configuration "
            "sends to `/var/log/mysql`, `/etc/logrotate.d/mariadb` of its package rotates.\n"
        )
    if any(map(_is_unit, names)):
        yield (
            "The units write to the journal and to no files: there is nothing to rotate. "
            "`journalctl -u 'outgrow-*'` reads it."
        )
    if "mariadb" in engines or any(map(_is_unit, names)):
        yield "This limits the journal's size:"
        yield from _shell(
            "sudo install -d /etc/systemd/journald.conf.d",
            r"printf '[Journal]\nSystemMaxUse=1G\n' | "
            "sudo tee /etc/systemd/journald.conf.d/size.conf",
            "sudo systemctl restart systemd-journald",
        )


# --- Markdown


def _shell(*commands: str) -> Iterator[str]:
    yield from ("", "```sh", *commands, "```", "")


def _is_unit(name: str) -> bool:
    return name.endswith((".service", ".mount"))


def _literal(value: object) -> str:
    """A text as code (spec.commonmark.org/0.31.2/#code-spans): with more backticks than it has."""
    text = str(value)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}"
