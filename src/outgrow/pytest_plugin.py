"""The fixtures `media_server` and `replicas`, for the tests of those who use Outgrow.

pytest loads this module by its entry point in every project that has Outgrow
installed, so it imports nothing until a fixture is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from outgrow.testing import MediaServer


@pytest.fixture
def media_server() -> Iterator[MediaServer]:
    """An `outgrow.testing.MediaServer` that runs; it is stopped after the test."""
    from outgrow.testing import MediaServer

    with MediaServer() as server:
        yield server


@pytest.fixture
def replicas(request: pytest.FixtureRequest) -> Iterator[None]:
    """`outgrow.testing.replicas` around the test, which may use the database."""
    from outgrow.testing import replicas as block

    if request.config.pluginmanager.hasplugin("django"):
        # Before the block: Django's test case has to prepare the connections of the site.
        request.getfixturevalue("db")
    with block():
        yield
