"""A site -> how many connections its database servers must take at once.

Django keeps a connection for each alias in each thread that has used it
(docs.djangoproject.com/en/stable/ref/databases/#persistent-database-connections), so the most
that there can be is a product. A server that takes fewer refuses requests when it is busiest.
"""

from __future__ import annotations

from typing import Final

from outgrow.topology.model import Site

#: What a process that runs an ASGI application is taken for: each of its requests has a thread
#: and a connection of its own, and nothing limits their number.
AT_ONCE: Final = 32

#: What a background worker is taken for: its own settings say how much it does at once.
TASKS: Final = 8

#: Each process looks at the replicas over a connection of its own.
WATCHES: Final = 1

#: For `manage.py`, a backup, a person who looks, and PostgreSQL's own reserve of 3.
SPARE: Final = 20


def connections(site: Site, role: str) -> int:
    """The most that a "primary" or a "replica" is asked for, with some to spare."""
    aliases = 2 if role == "primary" and site.media.is_distributed else 1
    processes = len(site.services("app")) * site.app.workers
    each = AT_ONCE if site.is_asgi else site.app.threads
    threads = processes * each + len(site.services("worker")) * TASKS
    repairs = len({host.name for host in site.hosts if _repairs(site, host.name)})
    watches = (processes + repairs) * WATCHES if site.services("replica") else 0
    return threads * aliases + repairs * aliases + watches + SPARE


def _repairs(site: Site, name: str) -> bool:
    """Whether a server runs the repair of the media servers."""
    [host] = [one for one in site.hosts if one.name == name]
    return bool(site.services("media")) and any(one.role == "app" for one in host.services)
