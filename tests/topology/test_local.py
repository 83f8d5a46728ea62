"""The whole site on this machine, from Python: as a drill uses it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from outgrow.errors import MissingExtra, ProcessFailed, TopologyError
from outgrow.topology import programs
from outgrow.topology.load import load
from outgrow.topology.local import LocalSite
from outgrow.topology.model import Site
from outgrow.topology.plan import Programs, plan
from outgrow.topology.restarts import Restarts
from tests.live.nginx import binary
from tests.live.processes import all_have_status, family, wait_until
from tests.topology.sites import tiny_site


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def answers(url: str) -> bool:
    try:
        get(url)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


class Run:
    """A local site whose output is kept."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.seen: list[tuple[str, str]] = []
        self.local = LocalSite(
            site, folder, write=lambda name, line: self.seen.append((name, line))
        )

    def said(self, name: str, part: str) -> bool:
        return any(who == name and part in line for who, line in self.seen)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(load(tiny_site(tmp_path)), tmp_path / "run")


@pytest.fixture
def running(run: Run) -> Iterator[Run]:
    with run.local:
        yield run


def everyone() -> list[psutil.Process]:
    return family(os.getpid())[1:]


# --- the plan is a value


def test_the_plan_of_a_site(run: Run) -> None:
    run.local.prepare(dry_run=True)
    made = run.local.plan
    assert [[one.name for one in stage.processes] for stage in made.stages] == [
        ["media1", "media2"],
        ["app1", "app2"],
        ["repair"],
    ]
    assert made.folders == ("_master", "media1", "media2")
    assert [file.name for file in made.files] == ["_topology.toml"]
    assert not run.local.folder.exists()


def test_the_commands_of_a_site(run: Run) -> None:
    run.local.prepare(dry_run=True)
    site, folder = run.local.site, run.local.folder
    media1, _, app1, _, repair = plan(site, folder, Programs("python")).processes
    assert media1.command.words == (
        *("python", "-m", "outgrow", "media-server"),
        *("--root", str(folder / "media1"), "--bind", str(site.service("media1").port)),
    )
    assert app1.command.words == (
        *("python", "-m", "gunicorn", "--no-control-socket"),
        *("--bind", str(site.service("app1").port), "--chdir", str(site.folder)),
        *("--worker-class", "gthread", "--threads", "8"),
        *("--timeout", "60", "--graceful-timeout", "5", "--keep-alive", "75"),
        "--forwarded-allow-ips=",
        *("--access-logfile", "-", "--access-logformat", "%(m)s %(U)s %(s)s %(M)s ms"),
        "tiny.wsgi:application",
    )
    assert app1.command.environment == {
        "DJANGO_SETTINGS_MODULE": "tiny.settings",
        "OUTGROW_TOPOLOGY": str(folder / "_topology.toml"),
        "OUTGROW_SERVER": "app1",
        "PYTHONUNBUFFERED": "1",
    }
    assert repair.command.words == (
        *("python", "-m", "django", "outgrow", "media", "repair", "--watch"),
    )
    assert repair.command.folder == app1.command.folder == site.folder


@pytest.mark.parametrize("engine", ["outgrow", "nginx"])
def test_our_media_servers_know_when_names_are_used_again(tmp_path: Path, engine: str) -> None:
    site = load(tiny_site(tmp_path, engine=engine))
    for names in (None, "unique", "keep"):
        again = replace(site, media=replace(site.media, names=names))
        made = plan(again, Path("/run"), Programs("python", "/usr/sbin/nginx", "www www"))
        told = made.processes[0].command.words[-2:] == ("--names", "keep")
        assert told is (engine == "outgrow" and names == "keep")
    made = plan(replace(site, active=True), Path("/run"), Programs("python", "/usr/sbin/nginx"))
    assert ("--active" in made.processes[0].command.words) is (engine == "outgrow")


def test_the_plan_with_nginx(tmp_path: Path) -> None:
    site = load(tiny_site(tmp_path, engine="nginx"))
    made = plan(site, Path("/run"), Programs("python", "/usr/sbin/nginx", "www www"))
    media1 = made.processes[0]
    assert media1.command.words == (
        *("/usr/sbin/nginx", "-p", "/run/_nginx/media1", "-e", "stderr"),
        *("-c", "/run/_nginx/media1/nginx.conf"),
    )
    assert made.folders[-2:] == ("_nginx/media1", "_nginx/media2")
    assert [file.name for file in made.files] == [
        "_topology.toml",
        "_nginx/media1/nginx.conf",
        "_nginx/media2/nginx.conf",
    ]
    assert "\nuser www www;\n" in made.files[1].content


# --- everything runs


def test_everything_runs_and_is_gone_afterwards(run: Run) -> None:
    before = everyone()  # servers of other tests
    with run.local as local:
        assert get(local.address("app1")) == "app1"
        assert get(local.address("app2")) == "app2"
        name = get(local.address("app1") + "/save?text=hello")
        for place in ("_master", "media1", "media2"):
            assert (local.folder / place / name).read_text() == "hello"
        assert get(f"{local.address('media2')}/{name}") == "hello"
        assert load(local.folder / "_topology.toml") == local.site
        all_of_it = [one for one in everyone() if one not in before]
        assert len(all_of_it) >= 8  # five, a worker of each gunicorn, and the guard
    wait_until(lambda: all_have_status(all_of_it, psutil.STATUS_ZOMBIE), "somebody is left")
    assert not answers(local.address("app1"))


def test_a_command_of_the_site_runs_in_its_environment(running: Run) -> None:
    local = running.local
    words = [sys.executable, "-m", "django", "outgrow", "media", "status", "--json"]
    environment = {**os.environ, **local.environment}
    seen = subprocess.run(
        words,
        env=environment,
        cwd=local.site.folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert "media2" in seen.stdout


def test_an_unknown_name_is_an_error_that_says_which_there_are(run: Run) -> None:
    run.local.prepare(dry_run=True)
    for ask in (run.local.process, run.local.hold, run.local.release, run.local.wait_ready):
        with pytest.raises(
            KeyError, match="'media9'; there are: media1, media2, app1, app2, repair"
        ):
            ask("media9")
    with pytest.raises(KeyError, match="'media9'; there are: app1, app2, media1, media2"):
        run.local.address("media9")


def test_before_it_is_prepared_there_is_no_plan(run: Run) -> None:
    with pytest.raises(ProcessFailed, match="call prepare"):
        _ = run.local.plan


def test_the_next_run_has_the_same_addresses(run: Run, tmp_path: Path) -> None:
    run.local.prepare()
    first = {service.name: service.port for service in run.local.site.services()}
    run.local.stop()
    again = LocalSite(load(tmp_path / "tiny site" / "topology.toml"), run.local.folder)
    again.prepare()
    assert {service.name: service.port for service in again.site.services()} == first
    again.stop()


def test_two_runs_can_t_use_one_folder(running: Run, tmp_path: Path) -> None:
    other = LocalSite(load(tmp_path / "tiny site" / "topology.toml"), running.local.folder)
    with pytest.raises(ProcessFailed, match=r"Another run uses the folder .*/run"), other:
        pass


# --- drills


def test_a_held_server_stays_down_and_a_released_one_comes_back(running: Run) -> None:
    local, url = running.local, running.local.address("media2")
    local.hold("media2")
    local.process("media2").kill()
    with pytest.raises(urllib.error.URLError, match="refused"):
        get(url)
    # With one of two down uploads go on, and what it missed is repaired afterwards.
    name = get(local.address("app1") + "/save?text=later")
    assert not (local.folder / "media2" / name).exists()
    assert not local.process("media2").running
    local.release("media2")
    local.wait_ready("media2")
    assert answers(url)
    local.process("media2").pause()
    with pytest.raises(TimeoutError):
        urllib.request.urlopen(url, timeout=0.3)
    local.process("media2").resume()
    assert answers(url)


def test_a_held_server_can_be_started_by_hand(running: Run) -> None:
    local = running.local
    local.hold("media1")
    local.process("media1").kill()
    with pytest.raises(ProcessFailed, match=r"media1 was killed by SIGKILL before it was ready"):
        local.wait_ready("media1", deadline=0.2)
    local.process("media1").start()
    local.wait_ready("media1")
    local.release("media1")
    assert local.failure == ""


# --- what crashes is started again, within bounds


def test_a_server_that_crashes_is_started_again_on_its_port(running: Run) -> None:
    local, url = running.local, running.local.address("app1")
    before = local.process("app1").pid
    with suppress(OSError):  # it may still be answered, by a worker that lives a little longer
        get(url + "/crash")
    wait_until(lambda: running.said("outgrow", "app1 was killed by SIGKILL"), "it was not noticed")
    local.wait_ready("app1")
    assert get(url) == "app1"
    assert local.process("app1").pid != before
    assert running.said("outgrow", "app1 was killed by SIGKILL; it is started again in 0.25 s.")


def test_the_limit_of_starts_is_five_in_a_minute() -> None:
    now = 0.0
    restarts = Restarts(lambda: now)
    assert [restarts.crashed() for _ in range(6)] == [0.25, 0.5, 1.0, 2.0, 4.0, None]
    now = 59.9
    assert restarts.crashed() is None
    now = 60.0
    assert restarts.crashed() == 0.25


# --- what goes wrong


def test_a_site_that_can_t_start_is_quoted_and_nothing_is_left(tmp_path: Path) -> None:
    path = tiny_site(tmp_path)
    (path.parent / "tiny" / "urls.py").write_text("raise RuntimeError('no such table')\n")
    before = everyone()
    with (
        pytest.raises(ProcessFailed, match=r"app1 was not ready after 8 s: GET .* status 500"),
        # Long enough for the servers that start before it, on a busy machine too.
        LocalSite(load(path), tmp_path / "run", ready_limit=8.0),
    ):
        pass
    wait_until(
        lambda: all_have_status([p for p in everyone() if p not in before], psutil.STATUS_ZOMBIE),
        "somebody is left",
    )


def test_a_missing_module_is_quoted(tmp_path: Path) -> None:
    path = tiny_site(tmp_path)
    path.write_text(path.read_text().replace("tiny.wsgi", "nothing.wsgi"))
    with (
        pytest.raises(
            ProcessFailed,
            match=r"(?s)app1 ended with status \d before it was ready.*n"
            "amed 'nothing'",
        ),
        LocalSite(load(path), tmp_path / "run"),
    ):
        pass


def test_a_port_that_was_taken_since_is_said(run: Run) -> None:
    run.local.prepare()
    port = run.local.site.service("media2").port
    with (
        socket.create_server((port.host, port.number)),
        pytest.raises(ProcessFailed, match=rf"media2 can't listen on {port}: another program"),
        run.local,
    ):
        pass


def test_a_port_of_the_last_run_that_is_taken_is_not_used_again(run: Run, tmp_path: Path) -> None:
    run.local.prepare()
    port = run.local.site.service("media2").port
    run.local.stop()
    again = LocalSite(load(tmp_path / "tiny site" / "topology.toml"), run.local.folder)
    with socket.create_server((port.host, port.number)):
        again.prepare()
    again.stop()
    assert again.site.service("media2").port != port


def test_gunicorn_is_missed_by_name(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gunicorn", None)
    with pytest.raises(MissingExtra, match=r"'gunicorn'.*pip install 'outgrow\[local\]'"):
        run.local.prepare()
    assert not run.local.folder.exists()


def test_uvicorn_is_missed_by_name(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingExtra, match=r"'uvicorn'.*pip install 'outgrow\[local\]'"):
        run.local.prepare()


def test_nginx_is_missed_by_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = load(tiny_site(tmp_path, engine="nginx"))
    monkeypatch.setattr(programs, "SYSTEM_PROGRAMS", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        TopologyError, match=r"servers\.media1\.engine: nginx is not inst.*nginx-li"
    ):
        LocalSite(site, tmp_path / "run").prepare()


def test_an_nginx_that_can_t_store_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = load(tiny_site(tmp_path, engine="nginx"))
    fake = tmp_path / "nginx"
    fake.write_text("#!/bin/sh\necho --with-http_v2_module >&2\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TopologyError, match="has no module for DAV"):
        LocalSite(site, tmp_path / "run").prepare()


# --- nginx


def test_everything_runs_with_nginx(tmp_path: Path) -> None:
    binary()
    run = Run(load(tiny_site(tmp_path, engine="nginx")), tmp_path / "run")
    with run.local as local:
        name = get(local.address("app2") + "/save?text=hello")
        url = f"{local.address('media1')}/{name}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            assert answer.read() == b"hello"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Content-Type"] == "text/plain"
        (local.folder / "media1" / ".secret").write_text("secret")
        for hidden in ("/.secret", "/notes/../.secret", "/%2esecret", "/notes/"):
            with pytest.raises(urllib.error.HTTPError, match=r"40[34]") as caught:
                get(local.address("media1") + hidden)
            caught.value.close()
        local.hold("media1")
        leader = local.process("media1").pid
        assert leader is not None
        workers = family(leader)
        assert len(workers) == 3
        os.kill(leader, signal.SIGKILL)
        # nginx's workers outlive their master; ours must not, or the port stays taken.
        wait_until(lambda: not local.process("media1").running, "it was not seen to end")
        wait_until(lambda: all_have_status(workers, psutil.STATUS_ZOMBIE), "workers are left")
        local.release("media1")
        local.wait_ready("media1")
        assert get(url) == "hello"
