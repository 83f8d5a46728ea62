"""Targets and sites for the tests of publishing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from outgrow.publish.targets import Target
from tests.live.engines import Engine
from tests.live.stores import PARAMS
from tests.publish.sites import FILES, target_of, write


class Place:
    """A target and another way to look at it."""

    def __init__(self, described: dict[str, Any], held: Callable[[], dict[str, bytes]]) -> None:
        self.described = json.dumps(described)
        self.held = held

    def target(self) -> Target:
        return target_of(self.described)

    def files(self) -> dict[str, bytes]:
        """What is there, without what Outgrow remembers."""
        return {
            key: content
            for key, content in self.held().items()
            if not key.startswith("outgrow-publish/")
        }


@contextmanager
def folder_place(folder: Path) -> Iterator[Place]:
    def held() -> dict[str, bytes]:
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            # Half files of who was killed: no web server shows them.
            if path.is_file() and not path.name.startswith(".outgrow-writing-")
        }

    yield Place({"folder": str(folder)}, held)


@contextmanager
def store_place(engine: Engine) -> Iterator[Place]:
    with engine.bucket() as bucket:
        described = engine.options(bucket)
        described["location"] += "/static"

        def held() -> dict[str, bytes]:
            found = engine.held(bucket)
            return {key.removeprefix("static/"): content for key, content in found.items()}

        yield Place(described, held)


@pytest.fixture(params=["folder", *PARAMS])
def place(
    request: pytest.FixtureRequest, engine_named: Callable[[str], Engine], tmp_path: Path
) -> Iterator[Place]:
    if request.param == "folder":
        with folder_place(tmp_path / "target") as found:
            yield found
        return
    with store_place(engine_named(request.param)) as found:
        yield found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return write(folder, FILES)
