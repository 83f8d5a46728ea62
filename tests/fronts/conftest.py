"""Servers that several tests share."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from outgrow.topology.balancer import Balancer as Options
from outgrow.topology.front import Front, Route
from outgrow.topology.model import Port
from tests.fronts.balancers import PROGRAMS, Balancer, balancer
from tests.fronts.exceptions import is_exceptional
from tests.fronts.servers import (
    APPLICATIONS,
    ApplicationServer,
    FileServer,
    application_server,
    file_servers,
    files_upstream,
    upstream,
)

#: Megabytes of one request.
LIMIT = 25


@dataclass(frozen=True)
class Pair:
    """A balancer, and what is behind it."""

    balancer: Balancer
    application: ApplicationServer
    files: tuple[FileServer, FileServer]

    def differs(self, case: str) -> bool:
        """Whether this pair is known not to do in this case as the others do."""
        return is_exceptional(self.balancer.program.name, self.application.kind, case)


@pytest.fixture(scope="session")
def applications() -> Iterator[Callable[[str], ApplicationServer]]:
    """One of each application server, started when it is first asked for."""
    running: dict[str, ApplicationServer] = {}
    with ExitStack() as stack:

        def of(kind: str) -> ApplicationServer:
            if kind not in running:
                running[kind] = stack.enter_context(application_server(kind))
            return running[kind]

        yield of


@pytest.fixture(scope="session")
def files() -> Iterator[tuple[FileServer, FileServer]]:
    with file_servers() as servers:
        yield servers


@pytest.fixture(params=itertools.product(PROGRAMS, APPLICATIONS), ids="-".join, scope="module")
def pair(
    request: pytest.FixtureRequest,
    applications: Callable[[str], ApplicationServer],
    files: tuple[FileServer, FileServer],
) -> Iterator[Pair]:
    program, kind = request.param
    server = applications(kind)
    routes = (Route("/media/", files_upstream(files), files=True), Route("/", upstream(server)))

    def make(listen: Port) -> Front:
        return Front("front", listen, routes, Options(max_upload=LIMIT, timeout=10))

    with balancer(PROGRAMS[program], make) as running:
        yield Pair(running, server, files)
