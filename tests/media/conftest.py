"""Fixtures of the tests of the media storages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.media import actors


@pytest.fixture(scope="module", autouse=True)
def no_actors_left() -> Iterator[None]:
    """What the drills keep ready is ended with them: other tests look who is left."""
    yield
    actors.end_all()
