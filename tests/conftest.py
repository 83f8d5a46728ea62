"""Fixtures for all tests, and the order in which several processes run them."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

# How quickly this machine draws an example, or runs one, says nothing of what is tested.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

pytest_plugins = [
    "tests.live.mariadb",
    "tests.live.nginx",
    "tests.live.postgres",
    "tests.live.redis",
    "tests.live.replicas",
]

#: Servers that take long to start, and which of the workers' groups has them.
_GROUPS = {
    "postgres_server": "postgres",
    "postgres_cluster_servers": "replicas",
    "mariadb_cluster_servers": "mariadb",
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones begin first, so that at the end no worker is left alone with one.

    Tests of a group are run by one worker. Those that share servers are a group, as these
    take long to start.
    """

    def is_quick(item: pytest.Item) -> bool:
        # Who sets a limit of his own expects to take long.
        return not any(item.iter_markers("drill")) and not any(item.iter_markers("timeout"))

    for item in items:
        for fixture, group in _GROUPS.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.xdist_group(group))
                break
    items.sort(key=is_quick)
