"""Fixtures for all tests, and the order in which several processes run them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from outgrow.topology import load

# How quickly this machine draws an example, or runs one, says nothing of what is tested.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")
# For tools/pure_coverage.py: which branches are reached is the same each time, and quickly known.
settings.register_profile(
    "branches", settings.get_profile("any machine"), max_examples=10, derandomize=True
)

# Its assertions are those of two suites.
pytest.register_assert_rewrite("tests.fastcgi.asked")

pytest_plugins = [
    "tests.live.mariadb",
    "tests.live.nginx",
    "tests.live.postgres",
    "tests.live.redis",
    "tests.live.replicas",
    "tests.live.stores",
]


@pytest.fixture(autouse=True)
def no_topology_is_remembered() -> Iterator[None]:
    """A process has one topology, and system checks look at it; here many tests read their own."""
    yield
    load._used.clear()


#: Modules that are one story, told in order: one worker has all of it.
_STORIES = {
    "tests/test_docs_run.py",
    "tests/test_example.py",
    "tests/topology/test_database.py",
    "tests/topology/test_local.py",
    "tests/topology/test_rows.py",
    "tests/topology/test_store.py",
    "tests/topology/test_store_site.py",
    "tests/topology/test_up.py",
}

#: Modules whose tests look at servers from outside, with Django in them. `make again` leaves them
#: out: what they see does not hang on its version, and what does has tests of its own.
_SITES = re.compile(
    r"tests/(test_docs_run|test_example|fronts/\w+|topology/test_(balancers|caches|control|database|"
    r"deploying|engines|local|pooler_site|promote_page|promoting|rows|store|store_site|synchronous|"
    r"tutorial|up|web))\.py::"
)

#: Tests of one balancer share servers that take longer to start than all of them to ask.
_FRONT = re.compile(
    r"(tests/fronts/test_(?:requests|faults|tls))\.py::.*\["
    r"(nginx|haproxy|apache|caddy|lighttpd)\b"
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Each worker takes one test after the other, or a module of those that run sites.

    pytest-xdist has groups for that, which pytest 9.2 does not hand on to it.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if found := _FRONT.match(nodeid):
                return " ".join(found.groups())
            module = nodeid.partition("::")[0]
            return module if module in _STORIES else nodeid

    return Scheduler(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones begin first, so that at the end no worker is left alone with one."""
    for item in items:
        if _SITES.match(item.nodeid):
            item.add_marker("sites")

    def is_quick(item: pytest.Item) -> bool:
        # Who sets a limit of his own expects to take long.
        return not any(item.iter_markers("drill")) and not any(item.iter_markers("timeout"))

    items.sort(key=is_quick)
