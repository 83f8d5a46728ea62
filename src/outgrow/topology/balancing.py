"""A balancer on one machine: its files and its process, for `plan`."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from outgrow.topology.front import front
from outgrow.topology.model import Service, Site
from outgrow.topology.parts import Planned, Programs
from outgrow.topology.probes import Answers
from outgrow.topology.process import Command, Reload
from outgrow.topology.render import File, haproxy, nginx_front

#: How each takes up a new configuration: by new workers, while the old ones answer what they have.
_RELOADS: Final = {
    "nginx": Reload(renews=True),
    "haproxy": Reload(signal.SIGUSR2, renews=True),
}


def folder_of(service: Service) -> str:
    """Where a balancer has its files, below the run's folder."""
    return f"_balancer/{service.name}"


def files(site: Site, service: Service, folder: Path, programs: Programs) -> Iterator[File]:
    """Its configuration. Raises `ConfigurationError` for a path that it can't be given."""
    whole = front(site, service)
    if service.engine == "nginx":
        rendered = nginx_front.render(whole, folder / folder_of(service), user=programs.user)
    else:
        rendered = haproxy.render(whole)
    for file in rendered:
        yield File(f"{folder_of(service)}/{file.name}", file.content)


def planned(service: Service, folder: Path, programs: Programs) -> Planned:
    """Its process: ready when a page comes through it."""
    state = folder / folder_of(service)
    words = {"nginx": _nginx, "haproxy": _haproxy}[service.engine](state, programs)
    return Planned(
        service.name,
        f"balancer ({service.engine})",
        Command(words, folder, reload=_RELOADS[service.engine]),
        "passes on a page",
        # As for an application server: a visitor wants a page, and 502 is none.
        Answers(service.port, 400),
        Answers(service.port, 500),
        service.port,
        url=service.url,
    )


def _nginx(state: Path, programs: Programs) -> tuple[str, ...]:
    # -e: where nginx complains until it has read its configuration.
    configuration = str(state / nginx_front.CONFIGURATION)
    return (programs.nginx, "-p", str(state), "-e", "stderr", "-c", configuration)


def _haproxy(state: Path, programs: Programs) -> tuple[str, ...]:
    # -W: with a master, which reads the configuration anew; -db: in the foreground.
    return (programs.haproxy, "-W", "-db", "-f", str(state / haproxy.CONFIGURATION))
