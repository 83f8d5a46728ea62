"""Metrics of the media servers and of databases, for a registry of prometheus_client.

A site that exports metrics already registers the collectors beside its own:

::

    from prometheus_client import REGISTRY
    from outgrow.metrics import DatabaseCollector, MediaCollector

    REGISTRY.register(MediaCollector())
    REGISTRY.register(DatabaseCollector())
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from outgrow.databases.state import ServerState, server_states
from outgrow.media.base import Replicated
from outgrow.status import ServerStatus, Snapshot, media_storages, snapshot_of

logger = logging.getLogger("outgrow.media")

#: Gauges of one server: name, what it is, and how it is had of a `ServerStatus`.
_GAUGES: tuple[tuple[str, str, Callable[[ServerStatus], float]], ...] = (
    ("up", "Whether the media server answers (1) or not (0).", lambda one: float(one.up)),
    ("owed_files", "Names that the media server may lack, or hold though deleted.",
     lambda one: one.owed),
    ("owed_everything", "Whether a comparison of every file is to be done.",
     lambda one: float(one.owed_all)),
    ("unknown_requests", "Requests without an answer that were mended, and are still watched.",
     lambda one: one.unknown),
    ("oldest_owed_seconds", "For how long the oldest owed name has been owed.",
     lambda one: one.oldest or 0.0),
)  # fmt: skip

#: Counters of each watch: the key in its heartbeat, the name, and what it is. A counter of
#: all of them together would go back when one is started anew, so each has its own, as
#: each instance of a program has in Prometheus.
_COUNTERS = (
    ("put", "repaired_files", "Files that this watch has sent since it was started."),
    ("deleted", "deleted_files", "Files that this watch has deleted since it was started."),
    ("errors", "refused_names", "Refusals of media servers that this watch has met."),
)


class MediaCollector(Collector):
    """All media storages of the site. Looks at the journals each time it is asked."""

    def collect(self) -> Iterator[Metric]:
        """The metrics of now. Of a storage whose journal can't be read there is only that."""
        shots: list[Snapshot] = []
        readable = _gauge("journal_readable", "Whether the journal can be read (1) or not (0).")
        for alias, storage in media_storages():
            shot = _shot(alias, storage)
            readable.add_metric([alias], float(shot is not None))
            shots += [shot] if shot else []
        yield readable
        for name, text, value in _GAUGES:
            family = GaugeMetricFamily(f"outgrow_media_{name}", text, labels=["storage", "server"])
            for shot in shots:
                for one in shot.servers:
                    family.add_metric([shot.storage, one.name], value(one))
            yield family
        yield from _of_storages(shots)

    def describe(self) -> Iterator[Metric]:
        """Nothing: to register it asks no journal."""
        return iter(())


#: Gauges of one database server: name, what it is, and how it is had of a `ServerState`;
#: None where it is not known.
_DATABASE_GAUGES: tuple[tuple[str, str, Callable[[ServerState], float | None]], ...] = (
    ("up", "Whether the database server answers this process (1) or not (0).",
     lambda one: None if one.up is None else float(one.up)),
    ("used", "Whether this process reads from it (1), or it is down or behind (0).",
     lambda one: float(one.used)),
    ("lag_seconds", "How old what the replica serves may be; +Inf if only that is known.",
     lambda one: one.lag),
)  # fmt: skip


class DatabaseCollector(Collector):
    """All database servers of OUTGROW["REPLICATION"], as this process sees them.

    Asks no server. Each process counts the reads that it has sent; its host and number stand in
    the label `process`, or the counts of several would look like one that goes back.
    """

    def collect(self) -> Iterator[Metric]:
        """The metrics of now."""
        labels, states = ["cluster", "alias", "role"], server_states()
        for name, text, value in _DATABASE_GAUGES:
            family = GaugeMetricFamily(f"outgrow_database_{name}", text, labels=labels)
            for one in states:
                found = value(one)
                if found is not None:
                    family.add_metric([one.cluster, one.alias, one.role], found)
            yield family
        text = "Queries that the server has answered to this process."
        me = f"{socket.gethostname()}:{os.getpid()}"
        reads = CounterMetricFamily("outgrow_database_reads", text, labels=[*labels, "process"])
        for one in states:
            reads.add_metric([one.cluster, one.alias, one.role, me], one.reads)
        yield reads

    def describe(self) -> Iterator[Metric]:
        """Nothing: to register it reads no settings."""
        return iter(())


def _shot(alias: str, storage: Replicated) -> Snapshot | None:
    """What is known of a storage; None where its journal, or its catalogue, is away.

    Then the others, and the databases, must be told of all the same.
    """
    try:
        return snapshot_of(alias, storage)
    except OSError as error:
        logger.warning("No metrics of the media servers of %s: %s", alias, error)
        return None


def _of_storages(shots: list[Snapshot]) -> Iterator[Metric]:
    changes = _gauge(
        "changes_in_progress",
        "Saves and deletes that the servers have not been told of, or are being told.",
    )
    oldest = _gauge("oldest_change_seconds", "For how long the first of them waits.")
    watched = _gauge("watched", "Whether 'media repair --watch' runs (1) or not (0).")
    for shot in shots:
        changes.add_metric([shot.storage], shot.in_progress)
        oldest.add_metric([shot.storage], shot.oldest_change or 0.0)
        watched.add_metric([shot.storage], float(shot.is_watched))
    yield from (changes, oldest, watched)
    for key, name, text in _COUNTERS:
        labels = ["storage", "watch"]
        family = CounterMetricFamily(f"outgrow_media_{name}", text, labels=labels)
        for shot in shots:
            for watch in shot.watches:
                family.add_metric([shot.storage, watch.name], watch.totals.get(key, 0))
        yield family


def _gauge(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"outgrow_media_{name}", text, labels=["storage"])
