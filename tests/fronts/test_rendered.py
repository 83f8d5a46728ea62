"""What is rendered for many shapes of a front is accepted by the programs' own checks."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from outgrow.errors import ConfigurationError
from outgrow.testing import free_port
from outgrow.topology.balancer import Balancer as Options
from outgrow.topology.front import Front, Member, Route, Upstream
from outgrow.topology.model import Port
from tests.fronts.balancers import PROGRAMS, written
from tests.live.processes import as_unprivileged, server_folder

APPLICATION = Upstream("app", (Member("app1", Port("10.0.0.11", 8000)),))
SEVERAL = Upstream(
    "app",
    (
        Member("app1", Port("10.0.0.11", 8000), 2),
        Member("app2", Port("fd00::12", 8001), 1),
        Member("app-3.b:app", Port("10.0.0.13", 8000), 1000),
    ),
)
LAST = Member("app4", Port("10.0.0.14", 8000), 0)
FILES = Upstream("media", (Member("media1", Port("10.0.0.21", 80)),))
MORE_FILES = replace(FILES, members=(*FILES.members, Member("media2", Port("fd00::22", 80))))

UPSTREAMS = {
    "one": APPLICATION,
    "several": SEVERAL,
    "last-resort": replace(SEVERAL, members=(*SEVERAL.members, LAST)),
    "asgi": replace(SEVERAL, wsgi=False),
    "fastcgi": replace(SEVERAL, protocol="fastcgi"),
    "one-fastcgi": replace(APPLICATION, protocol="fastcgi"),
    "last-resorts": replace(SEVERAL, members=tuple(replace(m, weight=0) for m in SEVERAL.members)),
}
ROUTES = {
    "no-files": (),
    "files": (Route("/media/", FILES, files=True),),
    "more-files": (Route("/a-b/c.d~e_f/", MORE_FILES, files=True),),
}

ODD = "a b;c{d}'e#%f"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """With a certificate and its key."""
    with server_folder("outgrow-rendered-") as found:
        yield found


@pytest.fixture(scope="module")
def certificate(folder: Path) -> tuple[Path, Path]:
    return certificate_in(folder)


def certificate_in(folder: Path) -> tuple[Path, Path]:
    """A new one for this machine, and its key."""
    issued = trustme.CA().issue_cert("localhost", "127.0.0.1")
    paths = folder / "certificate.pem", folder / "key.pem"
    issued.private_key_pem.write_to_path(str(paths[1]))
    for number, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(str(paths[0]), append=number > 0)
    return paths


def checked(program: str, front: Front, folder: Path) -> None:
    conf = written(PROGRAMS[program], front, folder)
    words = PROGRAMS[program].words(PROGRAMS[program].check, folder, conf)
    seen = subprocess.run(
        words,
        cwd=folder,
        env={"HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **as_unprivileged(),
    )
    assert seen.returncode == 0, f"{seen.stdout}{seen.stderr}\n{conf.read_text()}"
    # Caddy warns of spaces where it would write tabs.
    assert program == "caddy" or "warn" not in (seen.stdout + seen.stderr).lower(), seen.stderr


def shape(upstream: Upstream, routes: tuple[Route, ...], host: str = "127.0.0.1") -> Front:
    return Front("front", Port(host, free_port()), (*routes, Route("/", upstream)))


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("routes", ROUTES)
@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_every_shape(program: str, upstream: str, routes: str, folder: Path) -> None:
    front = shape(UPSTREAMS[upstream], ROUTES[routes])
    if program == "caddy" and upstream == "last-resort":
        with pytest.raises(ConfigurationError, match=r"servers\.app4\.weight: .* no last resort"):
            checked(program, front, folder)
        return
    checked(program, front, folder)


@pytest.mark.parametrize("program", PROGRAMS)
def test_tls_and_ipv6(program: str, folder: Path, certificate: tuple[Path, Path]) -> None:
    options = Options(1_000_000, 86_400, "/up/~a_b.c-d/", *certificate)
    for host in ("127.0.0.1", "::1"):
        front = shape(SEVERAL, ROUTES["more-files"], host)
        secure = replace(front, options=options, redirect=free_port(), domain="xn--a.example.org")
        checked(program, secure, folder)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", [ODD, 'a"b', "a\\b", "a$b", "${HOME}", "{env.HOME}", "é"])
def test_paths_that_mean_something_else_elsewhere(program: str, name: str) -> None:
    """They are what they are, or it is said that they can't be used."""
    with server_folder("outgrow-odd-") as parent:
        folder = parent / name
        folder.mkdir()
        certificate, key = certificate_in(folder)
        options = Options(certificate=certificate, certificate_key=key)
        front = replace(shape(SEVERAL, ()), options=options, redirect=free_port())
        refused = ""
        try:
            checked(program, front, folder)
        except ConfigurationError as error:
            refused = str(error)
        assert not refused or "Rename it." in refused
