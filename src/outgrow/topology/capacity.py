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
    if poolers := len(site.services("pooler")):
        # Whoever works past them, as a migration does, is among the spare ones.
        lent = (((poolers, "pooler"), *term, *aliases) for term in lending(site))
        return (*lent, ((SPARE, "to spare"),))
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


# --- poolers


def pool(site: Site) -> int:
    """How many connections a pooler may have to one server, for each of its entries."""
    return total(lending(site))


def lending(site: Site) -> tuple[Term, ...]:
    """The same as a sum.

    Where a connection is one client's until he goes, those that look at the servers keep theirs
    for ever, and so does a repair.
    """
    lent: Term = ((site.pooler.size, "connection"),)
    if site.pooler.by_transaction:
        return (lent,)
    _, _, repairs = _clients(site)
    return (lent, repairs, *_looking(site))


def clients(site: Site) -> int:
    """How many connections a pooler takes from the site's processes."""
    return site.pooler.clients or total(asking(site))


def asking(site: Site) -> tuple[Term, ...]:
    """The most that come to one pooler, as a sum."""
    replicas = len(site.services("replica"))
    several = 1 + site.media.is_distributed + replicas
    aliases: Term = ((several, "alias"),) if several > 1 else ()
    # Nobody looks at the catalogue: it is at the primary.
    servers = (1 + replicas, "server")
    return (
        *((*term, *aliases) for term in _clients(site)),
        *((*term, servers) for term in _looking(site)),
        ((SPARE, "to spare"),),
    )


def _clients(site: Site) -> tuple[Term, Term, Term]:
    """Who comes to one pooler: of several each is for the processes on its own server."""
    requests, tasks = at_once(site)
    repairs = len(repairing(site))
    if len(site.services("pooler")) > 1:
        requests, tasks = (((min(1, one[0][0]), one[0][1]), *one[1:]) for one in (requests, tasks))
        repairs = min(1, repairs)
    return requests, tasks, ((repairs, "repair"),)


def _looking(site: Site) -> tuple[Term, ...]:
    """Who of them looks at the servers beside its work."""
    if not site.services("replica"):
        return ()
    (apps, processes, _), tasks, repairs = _clients(site)
    each = (WATCHES, "watch")
    return ((apps, processes, each), (*tasks, each), (*repairs, each))
