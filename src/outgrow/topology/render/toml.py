"""`Site` -> topology.toml: what `parse` reads back as the same site."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import asdict

from outgrow.topology.database import Database
from outgrow.topology.model import CHOICES, Host, Site
from outgrow.topology.objects import Objects
from outgrow.topology.render import File


def render(site: Site, name: str = "topology.toml") -> Iterator[File]:
    """The topology file of `site`, with every path in full."""
    yield File(name, "\n".join(_lines(site)) + "\n")


def _lines(site: Site) -> Iterator[str]:
    yield "# Written by outgrow. Changes here are lost."
    yield "[site]"
    for key in ("name", "settings", "wsgi", "folder", "media_root", "media_url"):
        yield f"{key} = {_value(str(getattr(site, key)))}"
    if site.asgi:
        yield f"asgi = {_value(site.asgi)}"
    yield f"domains = {_value(list(site.domains))}"
    yield "\n[media]"
    for key, value in asdict(site.media).items():
        if value is not None:
            yield f"{key} = {_value(value)}"
    if site.active:
        yield "active = true"
    yield from _roles(site)
    if site.database:
        yield from _database(site.database)
    if site.objects:
        yield from _objects(site, site.objects)
    yield from _mounts(site)
    for host in site.hosts:
        yield from _host(host)


def _mounts(site: Site) -> Iterator[str]:
    for mount in site.mounts:
        yield f"\n[mounts.{_value(mount.name)}]"
        for key in ("type", "server", "export", "folder"):
            yield f"{key} = {_value(str(getattr(mount, key)))}"
        yield f"roles = {_value(list(mount.roles))}"


def _roles(site: Site) -> Iterator[str]:
    """The tables of application servers, balancers, caches, poolers, name servers and workers."""
    yield "\n[app]"
    yield from (f"{key} = {_value(value)}" for key, value in asdict(site.app).items())
    yield "\n[balancer]"
    for key, value in asdict(site.balancer).items():
        if value is not None:
            yield f"{key} = {_value(value if isinstance(value, int) else str(value))}"
    yield "\n[cache]"
    yield from (f"{key} = {_value(value)}" for key, value in asdict(site.cache).items())
    yield "\n[pooler]"
    for key, value in asdict(site.pooler).items():
        if value is not None:
            yield f"{key} = {_value(value)}"
    yield from _dns(site)
    if site.worker.command:
        yield f"\n[worker]\ncommand = {_value(shlex.join(site.worker.command))}"


def _dns(site: Site) -> Iterator[str]:
    yield f"\n[dns]\nttl = {site.dns.ttl}"
    for key in ("contact", "serial"):
        if value := getattr(site.dns, key):
            yield f"{key} = {_value(value)}"
    if site.dns.secondaries:
        yield "\n[dns.secondaries]"
        yield from (f"{_value(name)} = {_value(one)}" for name, one in site.dns.secondaries)


def _database(database: Database) -> Iterator[str]:
    yield "\n[database]"
    # Where the password is, and never the password.
    for key in ("engine", "name", "user", "password_env", "password_file"):
        if value := getattr(database, key):
            yield f"{key} = {_value(str(value))}"
    if database.synchronous:
        yield "synchronous = true"
    for key, value in asdict(database.replication).items():
        if value is not None:
            yield f"{key} = {_value(value)}"


def _objects(site: Site, store: Objects) -> Iterator[str]:
    yield "\n[objects]"
    yield f"engine = {_value(site.services('objects')[0].engine)}"
    for key in ("bucket", "prefix", "region", "access_key", "secret_env", "secret_file"):
        if value := getattr(store, key):
            yield f"{key} = {_value(str(value))}"
    if store.base_url:
        yield f"base_url = {_value(store.base_url)}"
    if store.signed is not None:
        yield f"signed = {_value(store.signed)}"


def _host(host: Host) -> Iterator[str]:
    yield f"\n[servers.{_value(host.name)}]"
    yield f"roles = {_value([service.role for service in host.services])}"
    yield f"address = {_value(host.address)}"
    listening = [service for service in host.services if service.port.number]
    ports = ", ".join(f"{service.role} = {service.port.number}" for service in listening)
    yield f"ports = {{ {ports} }}"
    chosen = {one.role: _value(one.engine) for one in host.services if one.role in CHOICES}
    if len(chosen) == 1:
        yield f"engine = {next(iter(chosen.values()))}"
    elif chosen:
        yield f"engines = {{ {', '.join(f'{role} = {one}' for role, one in chosen.items())} }}"
    yield f"zone = {_value(host.zone)}"
    yield f"weight = {host.weight}"
    if host.memory:
        yield f"memory = {host.memory}"
    if host.public:
        yield f"public = {_value(list(host.public))}"


def _value(value: object) -> str:
    """A value as TOML has it: JSON's spelling of it, but for one control character."""
    # JSON leaves DEL as it is; TOML wants it escaped (toml.io/en/v1.0.0#string).
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
