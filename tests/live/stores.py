"""Object stores for the tests: each engine once for a process that runs tests, when it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import pytest

from outgrow.conf.objects import PART_LEAST
from outgrow.objects import ObjectStorage
from tests.live.ceph import running_ceph
from tests.live.engines import Engine
from tests.live.moto import running_moto
from tests.live.swift import engine_of, running_swift

Make = Callable[..., ObjectStorage]


@contextmanager
def _swift() -> Iterator[Engine]:
    with running_swift() as [node]:
        yield engine_of(node)


#: Name -> what starts it.
ENGINES: dict[str, Callable[[], AbstractContextManager[Engine]]] = {
    "swift": _swift,
    "moto": running_moto,
    "ceph": running_ceph,
}
#: For `params`: tests of Ceph are a step of their own, `make ceph`.
PARAMS = [
    pytest.param(name, marks=pytest.mark.ceph) if name == "ceph" else name for name in ENGINES
]


@pytest.fixture(scope="session")
def engine_named() -> Iterator[Callable[[str], Engine]]:
    """Gives an engine by its name, and starts it if it does not run yet."""
    running: dict[str, Engine] = {}
    with ExitStack() as stack:

        def start(name: str) -> Engine:
            if name not in running:
                running[name] = stack.enter_context(ENGINES[name]())
            return running[name]

        yield start


@pytest.fixture(params=PARAMS)
def engine(request: pytest.FixtureRequest, engine_named: Callable[[str], Engine]) -> Engine:
    return engine_named(request.param)


@pytest.fixture
def swift(engine_named: Callable[[str], Engine]) -> Engine:
    """The one that checks signatures."""
    return engine_named("swift")


@pytest.fixture
def swift_bucket(swift: Engine) -> Iterator[str]:
    with swift.bucket() as name:
        yield name


@pytest.fixture
def bucket(engine: Engine) -> Iterator[str]:
    with engine.bucket() as name:
        yield name


@pytest.fixture
def make(engine: Engine, bucket: str) -> Make:
    """Makes a storage over the bucket, with more options or others."""

    def make(**options: Any) -> ObjectStorage:
        # Parts as small as they may be, so that little is enough for several.
        given = engine.options(bucket) | {"part_size": PART_LEAST} | options
        if "prefix" in given:
            given["location"] += f"/{given.pop('prefix')}"
        return ObjectStorage(**given)

    return make


@pytest.fixture
def storage(make: Make) -> ObjectStorage:
    return make()
