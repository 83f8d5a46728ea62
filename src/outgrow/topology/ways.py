"""How a server of each role comes, and how it goes: a table, so that a new role is a row.

The words of a row are commands. In them {server} is the server's name, {slot} its name as an
alias, and {file} the new topology file, quoted for a shell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

#: A command of the site, that reads the new file before any server of the site does.
_NEW: Final = "OUTGROW_TOPOLOGY={file} python manage.py outgrow"
_OURS: Final = "python manage.py outgrow"

_PAGE: Final = "howto/change-topology.md"


@dataclass(frozen=True, slots=True)
class Way:
    """One row. `noun` is what the server is called; the rest are commands and pages."""

    noun: str
    #: Its data, before anything refers to it: what is done, and by which commands.
    data: str = ""
    fill: tuple[str, ...] = ()
    fill_page: str = ""
    #: What must be done before it stops, while it still runs.
    leave: str = ""
    drain: tuple[str, ...] = ()
    #: What remembers it when nothing refers to it any more.
    memory: str = ""
    forget: tuple[str, ...] = ()
    #: Why it may be stopped then, or what to think of.
    care: str = "Nothing refers to it any more."
    page: str = _PAGE
    #: The unit of systemd that `outgrow render` writes for it, if it writes one.
    unit: str = ""


WAYS: Final[Mapping[str, Way]] = {
    "app": Way(
        "application server",
        leave="no visitor is sent to it any more, and its requests are answered",
        page=f"{_PAGE}#add-an-application-server",
        unit="outgrow-app.service",
    ),
    "media": Way(
        "media server",
        data="every file, while the site goes on writing",
        fill=(f"{_NEW} media probe --server {{server}}", f"{_NEW} media server add {{server}}"),
        fill_page="howto/add-and-replace.md",
        leave="the others have every file, and are owed none",
        drain=(f"{_OURS} media server drain {{server}}",),
        memory="what it is owed",
        forget=(f"{_OURS} media server retire {{server}}",),
        page=f"{_PAGE}#add-a-media-server",
        unit="outgrow-media.service",
    ),
    "primary": Way(
        "primary database",
        data="the rows: let it follow the old primary, as a replica with a base backup",
        fill_page="howto/replicas.md",
        care="It has the rows of before the move: keep its disk until there is a new backup.",
        page=f"{_PAGE}#move-the-database",
    ),
    "replica": Way(
        "replica",
        data="the rows, by a base backup into which the slot {slot} streams what comes meanwhile",
        fill_page="howto/replicas.md",
        memory="the replication slot {slot}, or it fills the primary's disk with log",
        page="howto/replicas.md",
    ),
    "objects": Way(
        "object store",
        data="the bucket, as the site wants it",
        fill=(f"{_NEW} buckets plan", f"{_NEW} buckets apply"),
        fill_page="howto/buckets.md",
        care="The site has no file there any more; the provider goes on charging for those left.",
        page="howto/object-stores.md",
    ),
    "balancer": Way(
        "balancer",
        leave="the domain leads to another one, and its time to live in DNS is over",
        page="reference/topology.md#balancers",
        unit="outgrow-balancer.service",
    ),
    "dns": Way(
        "name server",
        leave="the zone above the domain, at its registrar, does not name it any more",
        page="howto/dns.md",
        unit="outgrow-dns.service",
    ),
    "cache": Way(
        "cache",
        care="What it held is computed anew.",
        page="reference/topology.md#caches",
        unit="outgrow-cache.service",
    ),
    "worker": Way(
        "worker",
        leave="it has finished its tasks, and takes no more",
        page="reference/topology.md#workers",
        unit="outgrow-worker.service",
    ),
    "static": Way(
        "static file server",
        data="the static files of the release that is live, and of those before it",
        fill_page="howto/publish.md",
        leave="no visitor is sent to it any more",
    ),
    "files": Way(
        "file server",
        data="what is in the folders that it will share",
        fill_page="howto/shared-folder.md#move-it-to-another-server",
        care="It has the files of before the move: keep its disk until there is a new backup.",
        page="howto/shared-folder.md",
    ),
    "pooler": Way(
        "connection pooler",
        care="No application server is connected to it any more.",
        page="howto/pooler.md",
        unit="outgrow-pooler.service",
    ),
}


def way(role: str) -> Way:
    """The row of a role; for one that has none, what holds for any server."""
    return WAYS.get(role) or Way(f"{role} server")
