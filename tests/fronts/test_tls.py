"""Visitors who come by HTTPS, and those who should."""

from __future__ import annotations

import http.client
import json
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from outgrow.testing import free_port
from outgrow.topology.balancer import Balancer as Options
from outgrow.topology.front import Front, Route
from outgrow.topology.model import Port
from tests.fronts.balancers import PROGRAMS, Balancer, balancer
from tests.fronts.servers import ApplicationServer, upstream
from tests.fronts.test_rendered import certificate_in
from tests.live.processes import missing, server_folder


@pytest.fixture(params=PROGRAMS, scope="module")
def front(
    request: pytest.FixtureRequest, applications: Callable[[str], ApplicationServer]
) -> Iterator[Balancer]:
    with server_folder("outgrow-tls-") as folder:
        folder.chmod(0o755)
        certificate, key = certificate_in(folder)
        for path in (certificate, key):
            path.chmod(0o644)
        options = Options(certificate=certificate, certificate_key=key)
        route = Route("/", upstream(applications("gunicorn")))

        def make(listen: Port) -> Front:
            return replace(Front("front", listen, (route,), options), redirect=free_port())

        with balancer(PROGRAMS[request.param], make) as running:
            yield running


def secure(front: Balancer, headers: dict[str, str]) -> dict[str, object]:
    # Whose certificate it is, is not what is tested.
    trust = ssl._create_unverified_context()
    connection = http.client.HTTPSConnection("127.0.0.1", front.port, timeout=20, context=trust)
    with closing(connection):
        connection.request("GET", "/page", headers=headers)
        found: dict[str, object] = json.loads(connection.getresponse().read())
        return found


def test_the_site_knows(front: Balancer) -> None:
    for headers in ({}, {"X-Forwarded-Proto": "http", "X-Forwarded-Port": "1"}):
        found = secure(front, headers)
        assert (found["scheme"], found["secure"]) == ("https", True)
        assert found["url"] == f"https://127.0.0.1:{front.port}/page"
        forwarded = found["forwarded"]
        assert isinstance(forwarded, dict)
        assert forwarded["X_FORWARDED_PROTO"] == "https"
        assert forwarded["X_FORWARDED_PORT"] == str(front.port)


@pytest.mark.parametrize("host", ["www.example.org", "www.example.org:80"])
def test_whoever_comes_by_http_is_sent_on(front: Balancer, host: str) -> None:
    number = front.front.redirect
    connection = http.client.HTTPConnection("127.0.0.1", number, timeout=20)
    with closing(connection):
        connection.request("GET", "/a%2Fb?c=%20", headers={"Host": host})
        answer = connection.getresponse()
        assert answer.status in {301, 308}
        place = f"https://www.example.org:{front.port}/a%2Fb?c=%20"
        assert answer.headers["Location"] == place


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_body_of_unknown_length_by_http_2(front: Balancer, method: str) -> None:
    curl = shutil.which("curl")
    if curl is None:
        missing("curl is not installed", "apt-get install curl")
    url = f"https://127.0.0.1:{front.port}/put"
    words = [curl, "-sk", "--http2", "-X", method, "-T", "-", "-w", "\n%{http_code}", url]
    done = subprocess.run(words, input=b"a" * 5000, capture_output=True, timeout=30, check=False)
    body, _, status = done.stdout.rpartition(b"\n")
    if status != b"411":
        assert (status, json.loads(body)["size"]) == (b"200", 5000)
