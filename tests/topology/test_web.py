"""The page of a running site, as a browser and as others meet it."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from outgrow.errors import ControlFailed
from outgrow.topology import control
from outgrow.topology.acts import Acts
from outgrow.topology.control import Control
from outgrow.topology.load import load
from outgrow.topology.look import Looker
from outgrow.topology.web import Web
from tests.live.chromium import running_chromium
from tests.raw import takes
from tests.topology.sites import tiny_site
from tests.topology.test_local import Run
from tests.topology.test_up import READY, up


class Shown(Run):
    """A local site with its page."""

    page: Web

    def ask(
        self, path: str = "/", method: str = "GET", host: str | None = None
    ) -> tuple[int, dict[str, str], str]:
        place = self.page.url.removeprefix("http://").rstrip("/")
        connection = http.client.HTTPConnection(place, timeout=20)
        connection.request(method, path, headers={"Host": place if host is None else host})
        answer = connection.getresponse()
        with answer:
            return answer.status, dict(answer.headers), answer.read().decode()

    def state(self) -> dict[str, Any]:
        return dict(json.loads(self.ask("/state.json")[2]))


@contextmanager
def showing(topology: Path, folder: Path) -> Iterator[Shown]:
    site = Shown(load(topology), folder)
    before = set(threading.enumerate())
    with ExitStack() as stack, site.local as local:
        looker = stack.enter_context(Looker(local))
        door = stack.enter_context(Control(Acts(local), looker, folder))
        site.page = stack.enter_context(Web(local, looker, 0))
        try:
            yield site
        finally:
            door.withdraw()
    assert not [one for one in set(threading.enumerate()) - before if "outgrow" in one.name]
    with pytest.raises(OSError, match="refused"):
        site.ask()


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    folder = tmp_path_factory.mktemp("shown")
    with showing(tiny_site(folder), folder / "run") as site:
        yield site


def test_the_page_and_its_state(shown: Shown) -> None:
    status, headers, text = shown.ask()
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert len(re.findall(r'<g class="server is-ready" data-server="(\w+)"', text)) == 4
    state = shown.state()
    assert state["news"] == "● 5 ready"
    assert state["servers"]["app1"] == {"state": "ready", "shown": "● ready"}
    control.act(shown.local.folder, "kill", "media2")
    state = shown.state()
    assert state["news"] == "✕ 1 killed, ● 4 ready"
    assert state["servers"]["media2"] == {"state": "killed", "shown": "✕ killed"}
    [row] = [cells for cells in state["rows"] if cells[0] == "media2"]
    assert row[1:3] == ["media (outgrow)", "✕ killed"]
    assert row[5:] == ["", "", "was killed by SIGKILL"]
    control.act(shown.local.folder, "start", "media2")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "localhost:1", ""])
def test_a_name_that_leads_here_gets_nothing(shown: Shown, host: str) -> None:
    """DNS rebinding: the script of another site, whose name now has our address."""
    for path in ("/", "/state.json"):
        status, _, text = shown.ask(path, host=host)
        assert status == 421
        assert "app1" not in text


def test_localhost_is_a_name_of_it(shown: Shown) -> None:
    assert shown.ask(host=f"localhost:{shown.page.url.rpartition(':')[2].rstrip('/')}")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "HEAD"])
def test_it_answers_get_alone(shown: Shown, method: str) -> None:
    assert shown.ask(method=method)[0] == 405


def test_there_is_nothing_else(shown: Shown) -> None:
    for path in ("/kill", "/state.json?x", "/../etc/passwd"):
        assert shown.ask(path)[0] == 404


def test_no_header_lets_others_in(shown: Shown) -> None:
    _, headers, _ = shown.ask("/state.json")
    assert not [name for name in headers if name.startswith("Access-Control")]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "unsafe" not in headers["Content-Security-Policy"]


def test_who_says_nothing_hangs_nobody(tmp_path: Path) -> None:
    with ExitStack() as silent, takes(at_most=30):
        with showing(tiny_site(tmp_path), tmp_path / "run") as shown:
            port = int(shown.page.url.rpartition(":")[2].rstrip("/"))
            for said in (b"", b"GET / HT"):
                client = silent.enter_context(socket.create_connection(("127.0.0.1", port), 10))
                client.sendall(said)
            assert shown.ask()[0] == 200


def test_a_taken_port_is_said(tmp_path: Path) -> None:
    local = Run(load(tiny_site(tmp_path)), tmp_path / "run").local
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with (
            pytest.raises(ControlFailed, match=f"--web can't listen on 127.0.0.1:{port}: Addr"),
            Web(local, Looker(local), port),
        ):
            pass


def test_a_browser_sees_what_happens(tmp_path: Path) -> None:
    topology = tiny_site(tmp_path)
    folder = topology.parent / ".outgrow-run"
    box = "document.querySelector('.server[data-server=media2]')"
    with up(topology, "--web") as site, running_chromium() as browser:
        site.read_until(READY)
        found = re.search(r"The page of the site: (\S+)", site.text)
        assert found
        page = browser.page(1100, 800)
        page.listen()
        page.go(found[1])
        page.wait("document.querySelectorAll('tbody tr').length === 5")
        page.wait(f"{box}.classList.contains('is-ready')")
        control.act(folder, "kill", "media2")
        page.wait(f"{box}.querySelector('.state').textContent === '✕ killed'")
        control.act(folder, "start", "media2")
        control.act(folder, "freeze", "app1")
        page.wait(f"{box}.classList.contains('is-ready')")
        page.wait("document.body.innerText.includes('■ 1 frozen')")
        # Its own style is carried out, and nothing broke its policy.
        stroke = f"getComputedStyle({box}.querySelector('rect')).stroke"
        assert page.run(stroke) in {"rgb(26, 127, 55)", "rgb(63, 185, 80)"}
        assert page.troubles() == []
        if picture := os.environ.get("OUTGROW_TEST_PICTURE"):
            page.picture(Path(picture))
        site.process.terminate()
        assert site.ends() == 0
        page.wait("document.body.innerText.includes('what you see is old')")


def test_the_port_is_a_choice(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with up(tiny_site(tmp_path), "--web", port) as site:
        site.read_until(f"The page of the site: http://127.0.0.1:{port}/")
        site.read_until(READY)
        with urllib.request.urlopen(f"http://localhost:{port}/", timeout=20) as answer:
            assert answer.status == 200
        site.process.terminate()
        assert site.ends() == 0


def test_the_word_behind_web_is_a_port(tmp_path: Path) -> None:
    with up("--web", tiny_site(tmp_path)) as site:
        site.read_until("Write the topology file before the option.")
        assert site.ends() == 2
