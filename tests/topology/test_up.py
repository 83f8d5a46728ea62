"""`outgrow up`, as a person meets it: a real command, signals, a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.live.processes import all_have_status, family, wait_until
from tests.raw import takes
from tests.topology.sites import tiny_site

# `outgrow up` chooses its ports by itself, among the same as any other that runs now: so
# one worker runs all tests of it.
pytestmark = pytest.mark.xdist_group("up")

COMMAND = [sys.executable, "-m", "outgrow", "up"]
READY = "All are ready. Ctrl-C stops them."


@pytest.fixture
def topology(tmp_path: Path) -> Path:
    return tiny_site(tmp_path)


class Up:
    """An `outgrow up` that runs, with what it has printed."""

    def __init__(self, process: subprocess.Popen[bytes], output: int) -> None:
        self.process = process
        self._output = output
        self.text = ""

    def read_until(self, part: str, seconds: float = 90) -> None:
        """Read its output until `part` is in it, or it ends."""
        end = time.monotonic() + seconds
        while part not in self.text and time.monotonic() < end:
            if not select.select([self._output], [], [], 0.1)[0]:
                continue
            data = b""
            with suppress(OSError):  # EIO: nobody has the terminal open any more
                data = os.read(self._output, 65536)
            if not data:
                break
            self.text += data.decode()
        assert part in self.text, self.text

    def everyone(self) -> list[psutil.Process]:
        """It, and every process below it."""
        return family(self.process.pid)

    def ends(self, seconds: float = 60) -> int:
        """Wait for its end; its exit status."""
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            if select.select([self._output], [], [], 0.05)[0]:
                with suppress(OSError):
                    self.text += os.read(self._output, 65536).decode()
        return self.process.wait(0.1)


@contextmanager
def up(*arguments: object, terminal: bool = False) -> Iterator[Up]:
    """Start `outgrow up`, in a terminal of its own or with a pipe; ended for certain."""
    reading, writing = pty.openpty() if terminal else os.pipe()
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdin=writing if terminal else subprocess.DEVNULL,
        stdout=writing,
        stderr=subprocess.STDOUT,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
        start_new_session=True,
        # Makes the terminal the one that controls the new session.
        preexec_fn=_take_terminal if terminal else None,
    )
    os.close(writing)
    everyone: list[psutil.Process] = []
    try:
        yield Up(process, reading)
    finally:
        everyone = family(process.pid)
        process.kill()
        process.wait(10)
        with suppress(OSError):
            os.close(reading)
        for left in everyone:
            with suppress(psutil.NoSuchProcess):
                left.kill()


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def gone(processes: list[psutil.Process]) -> bool:
    return all_have_status(processes, psutil.STATUS_ZOMBIE)


@pytest.fixture
def running(topology: Path) -> Iterator[Up]:
    with up(topology) as one:
        one.read_until(READY)
        yield one


def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
        check=False,
    )


def test_it_runs_the_site_and_says_where(running: Up) -> None:
    everyone = running.everyone()
    host, port = address(running, "app2")
    with urllib.request.urlopen(f"http://{host}:{port}/", timeout=10) as answer:
        assert answer.read() == b"app2"
    running.read_until("app2    | GET / 200")
    assert "\x1b" not in running.text  # no terminal, no colours
    running.process.send_signal(signal.SIGINT)
    assert running.ends() == 0
    wait_until(lambda: gone(everyone), "somebody is left")
    assert "Traceback" not in running.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_stop_it_too(running: Up, number: signal.Signals) -> None:
    everyone = running.everyone()
    running.process.send_signal(number)
    assert running.ends() == 0
    wait_until(lambda: gone(everyone), "somebody is left")


def test_nobody_survives_its_sigkill(running: Up) -> None:
    everyone = running.everyone()
    assert len(everyone) >= 9
    running.process.kill()
    wait_until(lambda: gone(everyone), "somebody survived SIGKILL")


def test_paused_servers_don_t_survive_its_sigkill_either(running: Up) -> None:
    everyone = running.everyone()
    for process in everyone:
        if "outgrow" in process.cmdline() and "media-server" in process.cmdline():
            process.suspend()
    running.process.kill()
    wait_until(lambda: gone(everyone), "somebody survived SIGKILL")


def address(running: Up, server: str) -> tuple[str, int]:
    found = re.search(rf"{server} +│ app +│ http://(127\.0\.0\.1):(\d+)", running.text)
    assert found, running.text
    return found[1], int(found[2])


@pytest.mark.parametrize(("second", "least", "most"), [(False, 4.0, 12.0), (True, 0.0, 3.0)])
def test_the_second_ctrl_c_does_not_wait_for_requests(
    running: Up, second: bool, least: float, most: float
) -> None:
    everyone = running.everyone()
    with socket.create_connection(address(running, "app1"), 5) as slow:
        slow.sendall(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        running.read_until("a slow request begins")
        with takes(least, most):
            running.process.send_signal(signal.SIGINT)
            running.read_until("Stopping.")
            if second:
                running.process.send_signal(signal.SIGINT)
            assert running.ends() == 0
    wait_until(lambda: gone(everyone), "somebody is left")


def test_ctrl_c_while_it_starts(topology: Path) -> None:
    with up(topology) as one:
        one.read_until("media1  | Serving")
        everyone = one.everyone()
        one.process.send_signal(signal.SIGINT)
        assert one.ends() == 1
        wait_until(lambda: gone(everyone), "somebody is left")
    assert "Traceback" not in one.text


def test_in_a_terminal_names_have_colours(topology: Path) -> None:
    with up(topology, terminal=True) as one:
        one.read_until(READY)
        assert address(one, "app1")  # not cut on a terminal of 80 columns
        assert re.search(r"\x1b\[\d+mmedia1  \|\x1b\[0m Serving", one.text)
        os.write(one._output, b"\x03")  # Ctrl-C, as typed
        assert one.ends() == 0


def test_closing_the_terminal_ends_everything(topology: Path) -> None:
    with up(topology, terminal=True) as one:
        one.read_until(READY)
        everyone = one.everyone()
        os.close(one._output)
        wait_until(lambda: gone(everyone), "somebody outlived the terminal", seconds=15)


def test_a_reader_that_goes_away_ends_everything(topology: Path) -> None:
    with up(topology) as one:
        one.read_until("media1  | Serving")
        everyone = one.everyone()
        os.close(one._output)
        wait_until(lambda: gone([*everyone, *one.everyone()]), "it goes on for nobody", seconds=20)
        assert one.process.wait(5) == 1


def test_a_reader_that_goes_away_later_ends_everything(running: Up) -> None:
    everyone = running.everyone()
    os.close(running._output)
    # It is noticed with the next line.
    with socket.create_connection(address(running, "app1"), 5) as visitor:
        visitor.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert visitor.recv(15) == b"HTTP/1.0 200 OK"
    assert running.process.wait(15) == 1
    wait_until(lambda: gone(everyone), "somebody is left")


def test_exit_checks_everything_and_stops(topology: Path) -> None:
    seen = run(topology, "--exit", cwd=Path("/"))
    assert (seen.returncode, seen.stderr) == (0, ""), seen.stdout
    for name in ("media1", "media2", "app1", "app2", "repair"):
        assert re.search(rf"{name} +│ [a-z ,]+ +│ yes", seen.stdout), seen.stdout
    # Its own files are gone from the media servers.
    left = list((topology.parent / ".outgrow-run").glob("media*/outgrow-probe*"))
    assert left == []


def test_exit_fails_when_a_page_is_none(topology: Path) -> None:
    urls = topology.parent / "tiny" / "urls.py"
    urls.write_text(urls.read_text().replace('path("", index)', 'path("home", index)'))
    seen = run(topology, "--exit")
    assert seen.returncode == 1
    assert re.search(
        r"app1 +│ serves a page +│ GET http://.*/ was answered with status 404", seen.stdout
    )


def test_exit_fails_when_the_repairer_does_not_run(topology: Path) -> None:
    settings = topology.parent / "tiny" / "settings.py"
    settings.write_text(settings.read_text().replace('INSTALLED_APPS = ["outgrow"]', ""))
    seen = run(topology, "--exit")
    assert seen.returncode == 1
    assert "Unknown command: 'outgrow'" in seen.stdout


def test_a_site_that_crashes_again_and_again_ends_with_an_error(topology: Path) -> None:
    settings = topology.parent / "tiny" / "settings.py"
    settings.write_text(settings.read_text().replace('INSTALLED_APPS = ["outgrow"]', ""))
    seen = run(topology)
    assert seen.returncode == 1
    assert seen.stdout.count("it is started again in") == 5
    assert "repair ended with status 1, too often to start it again." in seen.stdout


def test_a_dry_run_prints_and_does_nothing(topology: Path) -> None:
    seen = run(topology, "--dry-run")
    assert (seen.returncode, seen.stderr) == (0, "")
    assert "-m outgrow media-server --root" in seen.stdout
    assert "-m gunicorn --no-control-socket" in seen.stdout
    assert "media repair --watch" in seen.stdout
    assert not (topology.parent / ".outgrow-run").exists()


def test_the_folder_is_a_choice_and_the_default_is_the_file_here(
    topology: Path, tmp_path: Path
) -> None:
    seen = run("--dry-run", "--folder", "elsewhere", cwd=topology.parent)
    assert f"--root '{topology.parent}/elsewhere/media1'" in seen.stdout


def test_an_error_in_the_file_is_one_message(topology: Path) -> None:
    topology.write_text(topology.read_text().replace('roles = ["app"]', 'roles = ["ap"]'))
    seen = run(topology)
    assert seen.returncode == 1
    assert seen.stderr == (
        f"Error: {topology}: 2 problems:\n"
        '  servers.app1.roles[0]: "ap" is not a role; did you mean "app"?\n'
        '  servers.app2.roles[0]: "ap" is not a role; did you mean "app"?\n'
    )


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    seen = run(cwd=tmp_path)
    assert seen.returncode == 1
    assert seen.stderr.startswith("Error: topology.toml: can't be read: No such file or directory.")
