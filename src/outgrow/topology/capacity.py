"""A site -> how many connections its database servers must take at once.

Django keeps a connection for each alias in each thread that has used it
(docs.djangoproject.com/en/stable/ref/databases/#persistent-database-connections), so the most
that there can be is a product. A server that takes fewer refuses requests when it is busiest.
"""

from __future__ import annotations

from typing import Final

from outgrow.topology.model import Site
from outgrow.topology.render.gunicorn import THREADS

#: Worker processes of an application server: one for each core of a small machine, and one more.
WORKERS: Final = 3

#: What a background worker is taken for: its own settings say how much it does at once.
TASKS: Final = 8

#: Each process looks at the replicas over a connection of its own.
WATCHES: Final = 1

#: For `manage.py`, a backup, a person who looks, and PostgreSQL's own reserve of 3.
SPARE: Final = 20


def connections(site: Site, role: str) -> int:
    """The most that a "primary" or a "replica" is asked for, with some to spare."""
    aliases = 2 if role == "primary" and site.media.is_distributed else 1
    processes = len(site.services("app")) * WORKERS
    if poolers := len(site.services("pooler")):
        # Whoever works past them, as a migration does, is among the spare ones.
        return poolers * pool(site) * aliases + SPARE
    threads = processes * THREADS + len(site.services("worker")) * TASKS
    repairs = len({host.name for host in site.hosts if _repairs(site, host.name)})
    watches = (processes + repairs) * WATCHES if site.services("replica") else 0
    return threads * aliases + repairs * aliases + watches + SPARE


def pool(site: Site) -> int:
    """How many connections a pooler may have to one server, for each of its entries.

    Where a connection is one client's until he goes, those that look at the servers keep theirs
    for ever, and so does a repair.
    """
    if site.pooler.by_transaction:
        return site.pooler.size
    watches = (WORKERS + 1) * WATCHES if site.services("replica") else 0
    return site.pooler.size + _apps(site) * (watches + 1)


def clients(site: Site) -> int:
    """How many connections a pooler takes from the site's processes."""
    if site.pooler.clients:
        return site.pooler.clients
    aliases = 1 + site.media.is_distributed + len(site.services("replica"))
    watches = (WORKERS + 1) * WATCHES * aliases if site.services("replica") else 0
    threads = _apps(site) * (WORKERS * THREADS + 1) + len(site.services("worker")) * TASKS
    return threads * aliases + _apps(site) * watches + SPARE


def _apps(site: Site) -> int:
    """How many application servers come to one pooler."""
    return 1 if len(site.services("pooler")) > 1 else len(site.services("app"))


def _repairs(site: Site, name: str) -> bool:
    """Whether a server runs the repair of the media servers."""
    [host] = [one for one in site.hosts if one.name == name]
    return bool(site.services("media")) and any(one.role == "app" for one in host.services)
