"""Fixtures for all tests, and the order in which several processes run them."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

# How quickly this machine draws an example, or runs one, says nothing of what is tested.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

pytest_plugins = ["tests.live.nginx", "tests.live.postgres", "tests.live.redis"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones begin first, so that at the end no worker is left alone with one.

    Tests of a group are run by one worker. Those that share one PostgreSQL are a group, as
    it takes long to start.
    """

    def is_quick(item: pytest.Item) -> bool:
        # Who sets a limit of his own expects to take long.
        return not any(item.iter_markers("drill")) and not any(item.iter_markers("timeout"))

    for item in items:
        if "postgres_server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("postgres"))
    items.sort(key=is_quick)
