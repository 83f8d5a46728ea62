"""The whole site on this machine behind a balancer: what visitors see while servers end."""

from __future__ import annotations

import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from outgrow.errors import TopologyError
from outgrow.topology import programs
from outgrow.topology.acts import Acts
from outgrow.topology.balancer import ENGINES
from outgrow.topology.load import load
from outgrow.topology.local import LocalSite
from tests.live.processes import wait_until
from tests.topology.sites import tiny_site


@pytest.fixture(params=ENGINES, scope="module")
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalSite]:
    folder = tmp_path_factory.mktemp(request.param)
    with LocalSite(load(tiny_site(folder, balancer=request.param)), folder / "run") as local:
        yield local


def ask(site: LocalSite, path: str, method: str = "GET") -> tuple[int, str]:
    request = urllib.request.Request(site.address("front") + path, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(errors="replace")


def test_both_application_servers_are_behind_it(site: LocalSite) -> None:
    assert {ask(site, "/")[1] for _ in range(10)} == {"app1", "app2"}


def test_an_upload_is_read_under_the_same_address(site: LocalSite) -> None:
    _, name = ask(site, "/save?text=hello")
    assert ask(site, f"/media/{name}") == (200, "hello")
    assert ask(site, f"/media/{name}", "DELETE")[0] in {403, 405}
    assert ask(site, "/media/.outgrow/list/")[0] == 404
    assert ask(site, f"/media/{name}") == (200, "hello")


def test_an_upload_that_one_media_server_misses_is_found(site: LocalSite) -> None:
    site.hold("media1")
    site.process("media1").stop()
    try:
        _, name = ask(site, "/save?text=while-one-is-away")
    finally:
        site.release("media1")
    site.wait_ready("media1")
    # Twice as often as there are servers; the repair may have brought it by now.
    assert {ask(site, f"/media/{name}") for _ in range(4)} == {(200, "while-one-is-away")}


def test_visitors_do_not_notice_the_end_of_an_application_server(site: LocalSite) -> None:
    site.hold("app1")
    site.process("app1").kill()
    try:
        assert {ask(site, "/") for _ in range(20)} == {(200, "app2")}
    finally:
        site.release("app1")
    site.wait_ready("app1")
    wait_until(lambda: ask(site, "/") == (200, "app1"), "app1 serves again")


def test_it_reloads_and_visitors_do_not_notice(site: LocalSite) -> None:
    seen: list[int] = []
    ended = threading.Event()

    def visit() -> None:
        while not ended.is_set():
            seen.append(ask(site, "/")[0])

    visitors = [threading.Thread(target=visit) for _ in range(3)]
    for one in visitors:
        one.start()
    try:
        said = Acts(site).act("reload", "front")
        # HAProxy's word for it is SIGUSR2.
        assert re.fullmatch(r"front has reloaded \((SIGHUP|SIGUSR2)\), and is ready\.", said)
        count = len(seen)
        wait_until(lambda: len(seen) > count + 10, "visitors go on")
    finally:
        ended.set()
        for one in visitors:
            one.join()
    assert set(seen) == {200}


def test_without_an_application_server_there_is_an_error_at_once(site: LocalSite) -> None:
    for name in ("app1", "app2"):
        site.hold(name)
        site.process(name).kill()
    try:
        assert ask(site, "/")[0] in {502, 503}
    finally:
        for name in ("app1", "app2"):
            site.release(name)
    for name in ("app1", "app2"):
        site.wait_ready(name)
    wait_until(lambda: ask(site, "/")[0] == 200, "the site serves again")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_balancer_that_is_not_installed_is_named(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = load(tiny_site(tmp_path, balancer=engine))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(programs, "SYSTEM_PROGRAMS", str(tmp_path))
    with pytest.raises(
        TopologyError, match=f"servers.front.engine: .* is not installed.*{_other(engine)}"
    ):
        programs.find(site, tmp_path)


def _other(engine: str) -> str:
    return next(one for one in ENGINES if one != engine)
