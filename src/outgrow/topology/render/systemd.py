"""One server's services -> units of systemd: the application, the repair, and a media server.

Sources: systemd.service(5) for the words of a command, systemd.exec(5) for the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import PurePath, PurePosixPath
from typing import Final

from outgrow.errors import ConfigurationError
from outgrow.topology import applications
from outgrow.topology.capacity import OPEN_FILES
from outgrow.topology.model import Host, Service, Site
from outgrow.topology.render import File, bind, caches, dnsmasq, haproxy, nginx_front, pgbouncer

#: What the units are called. They are ours, whatever else runs there.
APP_UNIT: Final = "outgrow-app.service"
REPAIR_UNIT: Final = "outgrow-repair.service"
MEDIA_UNIT: Final = "outgrow-media.service"
BALANCER_UNIT: Final = "outgrow-balancer.service"
CACHE_UNIT: Final = "outgrow-cache.service"
WORKER_UNIT: Final = "outgrow-worker.service"
POOLER_UNIT: Final = "outgrow-pooler.service"
DNS_UNIT: Final = "outgrow-dns.service"

#: Seconds that running requests have when a worker ends: more than the deadline of a save.
GRACE: Final = 30

_AFTER: Final = "After=network-online.target\n"

_UNIT: Final = """\
# Written by outgrow. Changes here are lost.
[Unit]
Description=Outgrow: {what}
Wants=network-online.target
After=network-online.target

[Service]
Type=exec
User={user}
{more}
ExecStart={command}
Restart=always
RestartSec=2
LimitNOFILE={files}
NoNewPrivileges=yes
PrivateTmp=yes
ProtectControlGroups=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictSUIDSGID=yes

[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are on the servers, and whom the services run as."""

    python: str = "/srv/venv/bin/python"
    user: str = "www-data"
    copies: str = "/srv/copies"
    #: nginx's own files; on the same file system as the copies.
    state: str = "/srv/copies-tmp"
    nginx: str = "/usr/sbin/nginx"
    #: What the site's settings and Outgrow's media servers share.
    token_file: str = "/etc/outgrow/token"  # noqa: S105 - a path
    nginx_conf: str = "/etc/outgrow/nginx.conf"
    haproxy: str = "/usr/sbin/haproxy"
    memcached: str = "/usr/bin/memcached"
    redis: str = "/usr/bin/redis-server"
    pgbouncer: str = "/usr/sbin/pgbouncer"
    named: str = "/usr/sbin/named"
    dnsmasq: str = "/usr/sbin/dnsmasq"
    #: BIND's: AppArmor's profile of named lets it read there, and write to its state.
    zones: str = "/etc/bind/outgrow"
    dns_state: str = "/var/cache/bind"
    dns_user: str = "bind"
    #: Where the rendered configurations of balancers and caches are put.
    configurations: str = "/etc/outgrow"
    #: What an nginx that is a balancer keeps for itself.
    balancer_state: str = "/run/outgrow-balancer"
    #: Certificate and key, one behind the other, for HAProxy.
    pem: str = "/etc/outgrow/balancer.pem"
    #: Variables of the site's processes, one NAME=value a line: the secrets.
    environment: str = "/etc/outgrow/environment"


def render(site: Site, host: Host, places: Places) -> Iterator[File]:
    """The units of one server. Raises `ConfigurationError` for what a unit can't hold."""
    for role, file in _units(site, host, places):
        folders = [mount.folder for mount in site.mounts if role in mount.roles]
        yield _behind(file, folders) if folders else file


def _behind(file: File, folders: Iterable[PurePath]) -> File:
    """The same unit, which runs only while these folders are mounted (systemd.unit(5)).

    Else it would write into the empty folders below.
    """
    words = " ".join(_word(str(folder), dollars=False) for folder in folders)
    line = f"RequiresMountsFor={words}\n"
    return replace(file, content=file.content.replace(_AFTER, _AFTER + line, 1))


def _units(site: Site, host: Host, places: Places) -> Iterator[tuple[str, File]]:
    """Every unit, with the role that it is for."""
    for service in host.services:
        if service.role == "app":
            yield service.role, File(APP_UNIT, _app(site, service, places))
    if site.services("media") and any(service.role == "app" for service in host.services):
        yield "app", File(REPAIR_UNIT, _repair(site, places))
    for service in host.services:
        for file in _of_role(site, service, places):
            yield service.role, file


def _of_role(site: Site, service: Service, places: Places) -> Iterator[File]:
    """The unit of every other role that has one."""
    if service.role == "media":
        yield File(MEDIA_UNIT, _media(site, service, places))
    if service.role == "worker":
        yield File(WORKER_UNIT, _worker(site, places))
    if service.role == "cache":
        yield File(CACHE_UNIT, _cache(site, service, places))
    if service.role == "pooler":
        yield File(POOLER_UNIT, _pooler(places))
    if service.role == "balancer":
        yield File(BALANCER_UNIT, _balancer(service, places))
    if service.role == "dns":
        yield File(DNS_UNIT, _dns(service, places))


def _app(site: Site, service: Service, places: Places) -> str:
    engine = site.app.engine
    server = applications.application(site, service, grace=GRACE)
    signal = applications.reload(engine, server)
    # New workers read code and settings anew; the old ones answer what they have.
    reload = (f"ExecReload=/bin/kill -{signal.name[3:]} $MAINPID",) if signal else ()
    more = (
        *_code(site, places),
        *reload,
        # The signal is for the main process, which ends its workers.
        "KillMode=mixed",
        f"TimeoutStopSec={GRACE + 10}",
    )
    words = (places.python, *applications.words(engine, server))
    return _unit("application server", places, more, words)


def _code(site: Site, places: Places) -> tuple[str, ...]:
    """What all processes of the site's code have."""
    return (
        f"WorkingDirectory={_path(str(site.folder))}",
        f"Environment={_word(f'DJANGO_SETTINGS_MODULE={site.settings}', dollars=False)}",
        # Without the file the site's own settings hold.
        f"EnvironmentFile=-{_path(places.environment)}",
        # The code may write where it likes, but not to the system.
        "ProtectSystem=full",
    )


def _repair(site: Site, places: Places) -> str:
    more = (
        *_code(site, places),
        # It ends after the file that it is just sending.
        "TimeoutStopSec=60",
    )
    words = (places.python, "-m", "django", "outgrow", "media", "repair", "--watch")
    return _unit("repair of the media servers", places, more, words)


def _worker(site: Site, places: Places) -> str:
    # Time to end the task that it has begun.
    more = (*_code(site, places), "TimeoutStopSec=60")
    return _unit("worker", places, more, site.worker.words(places.python))


def _media(site: Site, service: Service, places: Places) -> str:
    folders = [places.copies]
    if service.engine == "nginx":
        folders.append(places.state)
        words: tuple[str, ...] = (places.nginx, "-e", "stderr", "-c", places.nginx_conf)
    else:
        words = (
            *(places.python, "-m", "outgrow", "media-server"),
            *("--root", places.copies, "--bind", str(service.port)),
            *("--token-file", places.token_file),
            *(("--names", "keep") if site.media.names == "keep" else ()),
            *(("--active",) if site.active else ()),
        )
    writable = " ".join(_word(folder, dollars=False) for folder in folders)
    more = ("ProtectSystem=strict", f"ReadWritePaths={writable}")
    return _unit("media server", places, more, words)


def _cache(site: Site, service: Service, places: Places) -> str:
    if service.engine == "redis":
        words: tuple[str, ...] = (places.redis, f"{places.configurations}/{caches.CONFIGURATION}")
    else:
        words = caches.memcached(places.memcached, service.port, site.cache)
    return _unit("cache", places, ("ProtectSystem=strict",), words)


def _pooler(places: Places) -> str:
    more = (
        "ExecReload=/bin/kill -HUP $MAINPID",
        # It takes no more, and lets the transactions end that are open. To SIGTERM each version
        # does another thing.
        "KillSignal=SIGINT",
        f"TimeoutStopSec={GRACE}",
        "ProtectSystem=strict",
    )
    words = (places.pgbouncer, f"{places.configurations}/{pgbouncer.CONFIGURATION}")
    return _unit("connection pooler", places, more, words)


def _balancer(service: Service, places: Places) -> str:
    if service.engine == "nginx":
        configuration = f"{places.configurations}/{nginx_front.CONFIGURATION}"
        words: tuple[str, ...] = (places.nginx, "-e", "stderr", "-c", configuration)
        reload = "-HUP"
    else:
        configuration = f"{places.configurations}/{haproxy.CONFIGURATION}"
        words = (places.haproxy, "-W", "-db", "-f", configuration)
        reload = "-USR2"
    more = (
        f"ExecReload=/bin/kill {reload} $MAINPID",
        "ProtectSystem=strict",
        # nginx keeps bodies there while it reads them.
        f"RuntimeDirectory={PurePosixPath(places.balancer_state).name}",
        # Ports below 1024 without being root.
        "AmbientCapabilities=CAP_NET_BIND_SERVICE",
    )
    return _unit("balancer", places, more, words)


def _dns(service: Service, places: Places) -> str:
    bound = "AmbientCapabilities=CAP_NET_BIND_SERVICE"
    if service.engine == "dnsmasq":
        configuration = f"{places.configurations}/{dnsmasq.CONFIGURATION}"
        # In the foreground, and what it says to the journal.
        words: tuple[str, ...] = (places.dnsmasq, "-k", "--log-facility=-", "-C", configuration)
        return _unit("name server", places, ("ProtectSystem=strict", bound), words)
    more = (
        # It reads its configuration and the zones anew.
        "ExecReload=/bin/kill -HUP $MAINPID",
        "ProtectSystem=full",
        bound,
    )
    words = (places.named, "-g", "-c", f"{places.zones}/{bind.CONFIGURATION}")
    return _unit("name server", replace(places, user=places.dns_user), more, words)


def _unit(what: str, places: Places, more: tuple[str, ...], words: tuple[str, ...]) -> str:
    if set(words[0]) & set("\"'\\"):
        raise ConfigurationError(words[0], "systemd starts no such program.", "Rename it.")
    # Its path knows no variables, the words after it do.
    command = " ".join((_word(words[0], dollars=False), *map(_word, words[1:])))
    return _UNIT.format(
        what=what,
        user=_path(places.user),
        more="\n".join(more),
        command=command,
        files=OPEN_FILES,
    )


def _word(text: str, *, dollars: bool = True) -> str:
    """One word of a list of words. Only a command's dollars stand for variables."""
    escaped = _path(text).replace("\\", "\\\\").replace('"', '\\"')
    if dollars:
        escaped = escaped.replace("$", "$$")
    plain = escaped == text and text and not set(text) & set(" ;'")
    return escaped if plain else f'"{escaped}"'


def _path(text: str) -> str:
    """A value that is a line's whole rest."""
    if any(character < " " for character in text) or text != text.strip():
        raise ConfigurationError(text, "a unit of systemd can't hold this.", "Rename it.")
    return text.replace("%", "%%")
