"""How runfcgi starts, stops and replaces its processes, by killing and counting them."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.fastcgi.serving import Front, Serving, open_to_all, serving, started
from tests.live.processes import server_folder, wait_until
from tests.live.web_servers import FastCGINginx, running

METHODS = ["threaded", "prefork"]

Site = tuple[Serving, Front]


class KeepingNginx(FastCGINginx):
    """nginx that keeps its connections to the site."""

    missing = 200


@pytest.fixture
def folder() -> Iterator[Path]:
    with server_folder("outgrow-fastcgi-") as found:
        open_to_all(found)
        yield found


@pytest.fixture
def site(folder: Path) -> Iterator[Callable[..., Site]]:
    with ExitStack() as stack:

        def site(*words: str, keep: bool = False) -> Site:
            found = stack.enter_context(serving(folder, "unix", *words))
            changes = found.changes("nginx")
            if keep:
                place = changes["unix:/run/site/site.sock"]
                kept = f"upstream kept {{{{ server {place}; keepalive 8; }}}}\nserver {{{{"
                changes |= {
                    "server {": kept,
                    "fastcgi_pass ": "fastcgi_keep_conn on; fastcgi_pass ",
                }
                changes["unix:/run/site/site.sock"] = "kept"
                # The address is put in first, and must stay.
                changes = {"unix:/run/site/site.sock": "kept", **changes}
            server = stack.enter_context(running(KeepingNginx, changes))
            return found, Front(server.port)

        yield site


class Slow(threading.Thread):
    """A request that the site answers when it is let."""

    def __init__(self, front: Front, folder: Path, name: str = "slow") -> None:
        super().__init__()
        self.here, self.go = folder / f"{name}-here", folder / f"{name}-go"
        self.here.unlink(missing_ok=True)
        self.answer: tuple[int, bytes] | None = None
        self._front = front
        self.start()

    def run(self) -> None:
        status, _headers, body = self._front.ask(f"/slow?here={self.here}&go={self.go}")
        self.answer = status, body

    def arrived(self) -> int:
        wait_until(lambda: self.here.exists() and self.here.read_text() != "", "it is not there")
        return int(self.here.read_text())

    def let(self) -> tuple[int, bytes] | None:
        self.go.touch()
        self.join(60)
        return self.answer


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("method", METHODS)
def test_it_ends_at_once_when_nothing_runs(
    site: Callable[..., Site], method: str, stop: signal.Signals
) -> None:
    served, front = site(f"method={method}", "grace=50")
    assert front.ask("/")[0] == 200
    family = psutil.Process(served.pid).children()
    os.kill(served.pid, stop)
    assert served.process is not None
    assert served.process.wait(10) == 0
    assert not any(one.is_running() for one in family)
    assert not served.socket.exists()


@pytest.mark.parametrize("method", METHODS)
def test_running_requests_end_before_it_does(
    site: Callable[..., Site], tmp_path: Path, method: str
) -> None:
    served, front = site(f"method={method}")
    slow = Slow(front, tmp_path)
    slow.arrived()
    served.process.terminate()  # type: ignore[union-attr]
    wait_until(lambda: not served.listens(), "it takes connections still")
    assert slow.let() == (200, b"done")
    assert served.process.wait(20) == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("method", METHODS)
def test_requests_that_never_end_are_ended(
    site: Callable[..., Site], tmp_path: Path, method: str
) -> None:
    served, front = site(f"method={method}", "grace=0.3")
    slow = Slow(front, tmp_path)
    slow.arrived()
    served.process.terminate()  # type: ignore[union-attr]
    _out, err = served.process.communicate(timeout=20)  # type: ignore[union-attr]
    assert "After 0.3 seconds requests were running still" in err
    slow.join(60)
    assert slow.answer is not None
    assert slow.answer[0] == 502
    assert served.process.returncode == (1 if method == "threaded" else 0)  # type: ignore[union-attr]


@pytest.mark.parametrize("method", METHODS)
def test_connections_that_are_kept_do_not_hold_it_up(
    site: Callable[..., Site], method: str
) -> None:
    served, front = site(f"method={method}", "grace=50", keep=True)
    pids = {front.echo("/")["pid"] for _ in range(20)}
    assert len(pids) == 1 or method == "prefork"
    served.process.terminate()  # type: ignore[union-attr]
    assert served.process.wait(20) == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("method", METHODS)
def test_more_requests_than_are_answered_at_a_time(
    site: Callable[..., Site], tmp_path: Path, method: str
) -> None:
    spare = ["maxspare=3"] if method == "prefork" else []
    _served, front = site(f"method={method}", "maxchildren=3", *spare)
    busy = [Slow(front, tmp_path, str(number)) for number in range(3)]
    pids = {one.arrived() for one in busy}
    assert len(pids) == (3 if method == "prefork" else 1)
    with ThreadPoolExecutor(32) as pool:
        waiting = [pool.submit(front.ask, f"/{number}") for number in range(200)]
        assert [one.let() for one in busy] == [(200, b"done")] * 3
        assert [one.result()[0] for one in waiting] == [200] * 200


def test_processes_come_and_go_with_the_load(site: Callable[..., Site], tmp_path: Path) -> None:
    served, front = site("minspare=1", "maxspare=2", "maxchildren=5")
    assert 1 <= len(served.children()) <= 2
    busy = [Slow(front, tmp_path, str(number)) for number in range(4)]
    assert len({one.arrived() for one in busy}) == 4
    wait_until(lambda: len(served.children()) == 5, "one more is idle")
    assert {one.let() for one in busy} == {(200, b"done")}
    wait_until(lambda: len(served.children()) == 2, "two are idle")


def test_a_process_is_replaced_after_some_requests(site: Callable[..., Site]) -> None:
    _served, front = site("minspare=1", "maxspare=1", "maxrequests=3")
    pids = [front.echo("/")["pid"] for _ in range(12)]
    assert max(pids.count(one) for one in set(pids)) <= 3
    assert len(set(pids)) >= 4


def test_a_process_that_is_killed_is_replaced(site: Callable[..., Site]) -> None:
    served, front = site("minspare=2", "maxspare=2")
    wait_until(lambda: len(served.children()) == 2, "two are idle")
    victims = served.children()
    for one in victims:
        one.kill()
    wait_until(
        lambda: len(served.children()) == 2 and not set(served.children()) & set(victims),
        "they are not replaced",
    )
    assert front.ask("/")[0] == 200


def test_its_processes_end_when_it_is_killed(site: Callable[..., Site], tmp_path: Path) -> None:
    served, front = site("minspare=2", "maxspare=2", "maxchildren=3")
    slow = Slow(front, tmp_path)
    slow.arrived()
    wait_until(lambda: len(served.children()) == 3, "two are idle")
    children = served.children()
    os.kill(served.pid, signal.SIGKILL)
    assert slow.let() == (200, b"done")
    _gone, alive = psutil.wait_procs(children, 20)
    assert alive == []


def test_what_a_killed_one_has_left_is_no_hindrance(folder: Path) -> None:
    words = [f"pidfile={folder / 'site.pid'}"]
    with serving(folder, "unix", *words) as first:
        os.kill(first.pid, signal.SIGKILL)
        first.process.wait(10)  # type: ignore[union-attr]
        assert first.socket.exists()
        with serving(folder, "unix", *words) as second:
            pid = f"{second.pid}\n"
            pidfile = folder / "site.pid"
            wait_until(lambda: pidfile.exists() and pidfile.read_text() == pid, "it is not written")


def ended(*words: str) -> tuple[int, str]:
    process = started(words)
    _out, err = process.communicate(timeout=60)
    return process.returncode, err


@pytest.mark.parametrize("content", ["", "-1", "0", "text", "99999999"])
def test_a_pidfile_of_nobody(folder: Path, content: str) -> None:
    (folder / "site.pid").write_text(content)
    with serving(folder, "unix", f"pidfile={folder / 'site.pid'}") as served:
        assert served.listens()


def test_a_second_one_is_refused(folder: Path) -> None:
    pidfile = f"pidfile={folder / 'site.pid'}"
    with serving(folder, "unix", pidfile) as first:
        code, err = ended(f"socket={folder / 'other.sock'}", pidfile)
        assert code == 1
        assert f"says that process {first.pid} runs. Stop it (kill {first.pid})" in err
        code, err = ended(f"socket={first.socket}")
        assert (code, err.strip()) == (
            1,
            f"CommandError: Nothing can be listened at {first.socket}: Address already in use.",
        )
        assert first.listens()
    with serving(folder, "tcp") as first:
        code, err = ended("host=127.0.0.1", f"port={first.port}", "daemonize=true")
        assert code == 1
        assert f"at 127.0.0.1:{first.port}: Address already in use." in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "runfcgi: has no place to listen at. Say where"),
        (["socket=/no/such/folder/a.sock"], "at /no/such/folder/a.sock: No such file or directory"),
        (["host=no.invalid", "port=3033"], "Nothing can be listened at no.invalid:3033: "),
        (["metod=threaded"], "Did you mean 'method'?"),
    ],
)
def test_what_can_not_begin(words: list[str], message: str) -> None:
    code, err = ended(*words)
    assert code == 1
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize("method", METHODS)
def test_a_daemon(folder: Path, method: str) -> None:
    served = Serving(folder, "unix", ())
    pidfile, log = folder / "site.pid", folder / "errors.log"
    process = started(
        [
            *served._words,
            f"method={method}",
            "daemonize=true",
            f"pidfile={pidfile}",
            f"errlog={log}",
            "grace=0.1",
        ]
    )
    out, err = process.communicate(timeout=60)
    # It listens already when the command ends, and holds nothing of the terminal's.
    assert (process.returncode, out, err, served.listens()) == (0, "", "", True)
    daemon = psutil.Process(int(pidfile.read_text()))
    try:
        assert daemon.cwd() == "/"
        assert os.getsid(daemon.pid) not in {os.getsid(0), daemon.pid}
        assert daemon.terminal() is None
        with running(KeepingNginx, served.changes("nginx")) as server:
            assert Front(server.port).ask("/")[0] == 200
            assert Front(server.port).ask("/fails")[0] == 500
        assert "as it was asked to" in log.read_text()
    finally:
        daemon.terminate()
        psutil.wait_procs([daemon], 20)
    assert not daemon.is_running()
    assert not pidfile.exists()
    assert not served.socket.exists()


def test_a_daemon_that_can_not_begin(folder: Path) -> None:
    """A full disk: nothing can be written any more."""
    log = folder / "errors.log"
    words = [f"socket={folder / 'site.sock'}", "daemonize=true", f"errlog={log}"]
    process = started(
        [*words, f"pidfile={folder / 'site.pid'}"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
    )
    _out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.endswith(f"The daemon ended before it served. {log} has the reason.\n")


@pytest.mark.parametrize("word", ["pidfile", "outlog", "errlog", "workdir"])
def test_places_that_are_none(folder: Path, word: str) -> None:
    code, err = ended(f"socket={folder / 'a.sock'}", "daemonize=true", f"{word}=/no/such/place")
    assert code == 1
    assert f"CommandError: {word}: /no/such/place " in err
    assert not (folder / "a.sock").exists()


def test_who_may_open_the_socket(folder: Path) -> None:
    served = Serving(folder, "unix", ())
    served._words = [f"socket={served.socket}", "umask=027"]
    try:
        served.start()
        assert served.socket.stat().st_mode & 0o777 == 0o750
    finally:
        served.stop()


def test_the_help() -> None:
    for words in (["help"], ["--help"]):
        process = started(words)
        out, _err = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "manage.py runfcgi method=threaded host=127.0.0.1 port=3033" in out
        assert "maxrequests=NUMBER" in out


def test_without_flup(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['flup'] = None\n"
        "from django.core.management import execute_from_command_line as run\n"
        f"run(['manage.py', 'runfcgi', 'socket={tmp_path / 'a.sock'}'])"
    )
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.fastcgi.site"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "pip install 'outgrow[fastcgi]'" in done.stderr
    assert not (tmp_path / "a.sock").exists()


def test_json_of_the_site(site: Callable[..., Site]) -> None:
    _served, front = site()
    assert json.loads(front.ask("/a")[2])["path"] == "/a"
