"""The database router: reads the route, asks the cluster.

The laws:

1. Which cluster a model belongs to is for others to say: the routers behind this one, the
   instance at hand, else the default alias. This one says which server of it.
2. A write goes to the primary, ever.
3. An instance that came from the primary, or was written, is read again from the primary.
4. An instance that came from a replica and is to be saved counts as the primary's from
   then on: or Django would write back every column, as old as the replica had it, since
   it updates only the loaded ones if the database stays the same (Model.save).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from django.db import DEFAULT_DB_ALIAS, router

from outgrow.databases import route as routes
from outgrow.databases.cluster import clusters, known_clusters
from outgrow.databases.setup import install
from outgrow.errors import ConfigurationError


class ReplicationRouter:
    """A router for DATABASE_ROUTERS: the first in the list, other routers behind it.

    Thread-safe; holds no state. Its methods are Django's, and it opens no connection but
    that to a replica which it has just chosen. To read or write raises `ConfigurationError`
    while there is a mistake in the settings.
    """

    def __init__(self) -> None:
        # Django's own checks ask the routers, and ours tell what is wrong.
        with suppress(ConfigurationError):
            install()
        self._asked: dict[str, tuple[Callable[..., str | None], ...]] = {}

    def db_for_read(self, model: type[Any], **hints: Any) -> str | None:
        """The alias to read this model from; None where no cluster is concerned."""
        instance = hints.get("instance")
        alias = self._alias("db_for_read", model, instance, hints)
        cluster = clusters().get(alias)
        if cluster is None:
            return None if alias == DEFAULT_DB_ALIAS else alias
        if instance is not None and instance._state.db == cluster.primary:  # noqa: SLF001 - documented
            return cluster.primary
        route = routes.current()
        if route is None:
            return cluster.primary
        return cluster.server_for(route)

    def db_for_write(self, model: type[Any], **hints: Any) -> str | None:
        """The alias to write this model to: a primary; None where no cluster is concerned."""
        instance = hints.get("instance")
        alias = self._alias("db_for_write", model, instance, hints)
        cluster = clusters().get(alias)
        if cluster is None:
            return None if alias == DEFAULT_DB_ALIAS else alias
        if instance is not None and instance._state.db in cluster.by_alias:  # noqa: SLF001
            instance._state.db = cluster.primary  # noqa: SLF001 - law 4
        return cluster.primary

    def _alias(self, method: str, model: type[Any], instance: Any, hints: dict[str, Any]) -> str:
        """The alias that Django would take if this router were not there."""
        for ask in self._others(method):
            found = ask(model, **hints)
            if found:
                return str(found)
        if instance is not None and instance._state.db:  # noqa: SLF001
            return str(instance._state.db)  # noqa: SLF001
        return DEFAULT_DB_ALIAS

    def _others(self, method: str) -> tuple[Callable[..., str | None], ...]:
        """What the other routers of the site answer this question with."""
        found = self._asked.get(method)
        if found is None:
            others = [getattr(one, method, None) for one in router.routers if one is not self]
            found = self._asked[method] = tuple(one for one in others if one is not None)
        return found

    def allow_relation(self, one: Any, other: Any, **_: Any) -> bool | None:
        """Whether two objects may be related: yes, within one cluster."""
        known = known_clusters()
        mine = known.get(one._state.db)  # noqa: SLF001
        if mine is not None and mine is known.get(other._state.db):  # noqa: SLF001
            return True
        return None

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:  # noqa: ARG002
        """Whether a migration may run on this alias: never on a replica."""
        cluster = known_clusters().get(db)
        return False if cluster is not None and db != cluster.primary else None
