"""A site -> how many connections its database servers must take at once.

Django keeps a connection for each alias in each thread that has used it
(docs.djangoproject.com/en/stable/ref/databases/#persistent-database-connections), so the most
that there can be is a product. A server that takes fewer refuses requests when it is busiest.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil, prod
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

#: Files and sockets that one process of a unit may have open (systemd.exec(5), LimitNOFILE).
OPEN_FILES: Final = 65_536

#: A number with what it counts; several are multiplied.
Term = tuple[tuple[float, str], ...]


def connections(site: Site, role: str) -> int:
    """The most that a "primary" or a "replica" is asked for, with some to spare."""
    return total(terms(site, role))


def terms(site: Site, role: str) -> tuple[Term, ...]:
    """The same as a sum that can be shown."""
    # The catalogue of a distributed storage has one of its own.
    twice = role == "primary" and site.media.is_distributed
    aliases: Term = ((2, "alias"),) if twice else ()
    requests, tasks = at_once(site)
    repairs = (len(repairing(site)), "repair")
    watched = bool(site.services("replica"))
    return (
        (*requests, *aliases),
        (*tasks, *aliases),
        (repairs, *aliases),
        *(((*workers(site), (WATCHES, "watch")),) if watched else ()),
        *(((repairs, (WATCHES, "watch")),) if watched else ()),
        ((SPARE, "to spare"),),
    )


def workers(site: Site) -> Term:
    """The processes of all application servers that serve requests."""
    return ((len(site.services("app")), "application server"), (site.app.workers, "worker"))


def of_each(site: Site) -> tuple[float, str]:
    """What one of these processes does at the same moment."""
    return (AT_ONCE, "request") if site.is_asgi else (site.app.threads, "thread")


def at_once(site: Site) -> tuple[Term, Term]:
    """What the whole site does at the same moment: requests, and tasks in the background."""
    return (
        (*workers(site), of_each(site)),
        ((len(site.services("worker")), "background worker"), (TASKS, "task")),
    )


def total(sum_of: Iterable[Term]) -> int:
    """What the terms come to, rounded up."""
    return ceil(sum(prod(number for number, _ in term) for term in sum_of))


def repairing(site: Site) -> tuple[str, ...]:
    """The names of the servers that run the repair of the media servers."""
    if not site.services("media"):
        return ()
    hosts = (host for host in site.hosts if any(one.role == "app" for one in host.services))
    return tuple(host.name for host in hosts)
