"""Processes start, stop, and leave nobody behind."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from outgrow.errors import ProcessFailed
from outgrow.topology.output import KEPT_LINES, Lines
from outgrow.topology.ports import is_free
from outgrow.topology.process import Command, Guard, Process
from tests.live.processes import all_have_status, family, wait_until
from tests.raw import takes

# Starts a child of its own and says its id; both live for ever.
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
print("child", child.pid, flush=True)
time.sleep(1000)
"""

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(1000)
"""


class Bench:
    """Makes processes whose output is kept, and ends them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: list[tuple[str, str]] = []
        self.guard = Guard()
        self.made: list[Process] = []
        self.lines = Lines(lambda name, line: self.seen.append((name, line)))

    def process(self, code: str, name: str = "p") -> Process:
        return self.run((sys.executable, "-c", code), name)

    def run(self, words: tuple[str, ...], name: str = "p") -> Process:
        process = Process(name, Command(words, self.folder), self.guard, self.lines)
        self.made.append(process)
        return process

    def started(self, code: str, says: str) -> tuple[Process, list[psutil.Process]]:
        """A process that has said `says`, and it with all its children."""
        process = self.process(code)
        process.start()
        wait_until(lambda: any(says in line for _, line in self.seen), f"it never said {says!r}")
        assert process.pid is not None
        return process, family(process.pid)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    bench.lines.start()
    bench.guard.start()
    try:
        yield bench
    finally:
        for process in bench.made:
            process.kill()
        bench.guard.close()
        bench.lines.close()


def gone(processes: list[psutil.Process]) -> bool:
    return all_have_status(processes, psutil.STATUS_ZOMBIE)


class Never:
    """A check that is never content."""

    def problem(self) -> str:
        return "it is asleep"


def test_a_command_is_a_line_for_a_shell() -> None:
    command = Command(("echo", "a b"), Path("/"), {"NAME": "it's"})
    assert str(command) == """NAME='it'"'"'s' echo 'a b'"""


def test_it_runs_in_its_folder_with_its_environment(bench: Bench, tmp_path: Path) -> None:
    code = "import os, sys; print(os.getcwd(), os.environ['A'], len(sys.stdin.read()))"
    command = Command((sys.executable, "-c", code), tmp_path, {"A": "b"})
    process = Process("p", command, bench.guard, bench.lines)
    process.start()
    wait_until(lambda: not process.running, "it did not end")
    assert process.ended == "ended with status 0"
    assert process.pid is None
    wait_until(lambda: bench.seen == [("p", f"{tmp_path} b 0")], "it said something else")


def test_stop_ends_the_whole_group(bench: Bench) -> None:
    process, all_of_it = bench.started(PARENT, "child")
    assert len(all_of_it) == 2
    process.stop()
    assert not process.running
    assert process.ended == "was killed by SIGTERM"
    wait_until(lambda: gone(all_of_it), f"survived: {all_of_it}")


def test_who_ignores_sigterm_is_killed_after_the_limit(bench: Bench) -> None:
    process, all_of_it = bench.started(STUBBORN, "deaf")
    process.stop(limit=0.3)
    assert process.ended == "was killed by SIGKILL"
    wait_until(lambda: gone(all_of_it), f"survived: {all_of_it}")


def test_kill_ends_the_whole_group_and_its_ports_are_free(bench: Bench) -> None:
    process, all_of_it = bench.started(PARENT, "child")
    process.kill()
    wait_until(lambda: gone(all_of_it), f"survived: {all_of_it}")
    process.start()
    assert process.running
    assert process.ended == ""


def test_a_leader_that_ends_takes_its_group_along(bench: Bench) -> None:
    process, all_of_it = bench.started(PARENT, "child")
    os.kill(all_of_it[0].pid, signal.SIGKILL)
    wait_until(lambda: not process.running, "it was not seen to end")
    wait_until(lambda: gone(all_of_it), f"survived: {all_of_it}")


def test_a_paused_process_lives_and_can_be_stopped(bench: Bench) -> None:
    process, all_of_it = bench.started(PARENT, "child")
    process.pause()
    wait_until(lambda: all_have_status(all_of_it, psutil.STATUS_STOPPED), "it was not paused")
    assert process.running
    process.resume()
    wait_until(lambda: not all_have_status(all_of_it, psutil.STATUS_STOPPED), "not resumed")
    process.pause()
    process.stop()
    assert process.ended == "was killed by SIGTERM"
    wait_until(lambda: gone(all_of_it), f"survived: {all_of_it}")


def test_starting_what_runs_does_nothing(bench: Bench) -> None:
    process, _ = bench.started(PARENT, "child")
    before = process.pid
    process.start()
    assert process.pid == before


def test_signals_to_what_has_ended_do_nothing(bench: Bench) -> None:
    process = bench.process("pass")
    for act in (process.kill, process.pause, process.resume, process.stop, process.terminate):
        act()
    assert not process.running


def test_one_that_ends_before_it_is_ready_is_quoted(bench: Bench) -> None:
    process = bench.process("import sys; print('no such table'); sys.exit(3)", "app1")
    process.start()
    with pytest.raises(ProcessFailed) as caught:
        process.wait_ready(Never(), 10)
    assert str(caught.value) == (
        "app1 ended with status 3 before it was ready. It said:\n    no such table"
    )


def test_one_that_is_never_ready_says_why(bench: Bench) -> None:
    process, _ = bench.started(STUBBORN, "deaf")
    with pytest.raises(
        ProcessFailed, match=r"p was not ready after 0\.1 s: it is asleep\. It said"
    ):
        process.wait_ready(Never(), 0.1)


def test_waiting_can_be_given_up(bench: Bench) -> None:
    process, _ = bench.started(STUBBORN, "deaf")
    process.wait_ready(Never(), 10, give_up=lambda: True)


def test_a_program_that_does_not_exist_is_named(bench: Bench) -> None:
    process = bench.run(("no-such-program",))
    process.start()
    with pytest.raises(ProcessFailed, match=r"status 127 .*\n.*no-such-program.*not found"):
        process.wait_ready(Never(), 10)


def test_a_folder_that_does_not_exist_is_named(bench: Bench) -> None:
    process = Process("p", Command(("true",), Path("/no/folder")), bench.guard, bench.lines)
    with pytest.raises(ProcessFailed, match=r"p can't be started: .*/no/folder"):
        process.start()


def test_without_a_guard_nothing_starts(bench: Bench) -> None:
    process = Process("p", Command(("true",), bench.folder), Guard(), bench.lines)
    with pytest.raises(ProcessFailed, match="guard of the processes was not started"):
        process.start()


def test_a_guard_that_was_killed_is_noticed(bench: Bench) -> None:
    process, all_of_it = bench.started(PARENT, "child")
    [guard] = [child for child in psutil.Process().children() if "-I" in child.cmdline()]
    guard.kill()
    guard.wait(5)
    process.kill()
    wait_until(lambda: gone(all_of_it), f"survived: {all_of_it}")
    with pytest.raises(ProcessFailed, match="guard of the processes was killed"):
        process.start()


def test_closing_the_guard_kills_what_is_left(bench: Bench) -> None:
    _, all_of_it = bench.started(PARENT, "child")
    bench.guard.close()
    wait_until(lambda: gone(all_of_it), "they survived the guard")


def test_the_guard_forgets_what_has_ended(bench: Bench) -> None:
    """Its id may be somebody else's by now: here, that of a process we start with it."""
    process, _ = bench.started(PARENT, "child")
    forgotten = process.pid
    assert forgotten is not None
    bench.guard.forget(forgotten)
    bench.guard.close()
    assert process.running


STARTER = """
import sys, time
from pathlib import Path
from outgrow.topology.output import KEPT_LINES, Lines
from outgrow.topology.ports import is_free
from outgrow.topology.process import Command, Guard, Process
from tests.raw import takes
guard, lines = Guard(), Lines(lambda name, line: print(line, flush=True))
lines.start()
guard.start()
command = Command((sys.executable, "-c", sys.argv[1]), Path("/"))
processes = [Process(str(n), command, guard, lines) for n in range(3)]
for process in processes:
    process.start()
time.sleep(0 if sys.argv[2] == "end" else 1000)
"""


TOKEN = "OUTGROW_TEST_TOKEN"


def marked(token: str) -> list[psutil.Process]:
    """The processes that were started with this token in their environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(TOKEN) == token:
                found.append(process)
    return found


@contextmanager
def starter(way: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process that starts three groups of two; killed at the end."""
    token = secrets.token_hex(8)
    process = subprocess.Popen(
        [sys.executable, "-c", STARTER, PARENT, way],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, TOKEN: token},
    )
    try:
        yield process, token
    finally:
        process.kill()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()
        for left in marked(token):
            left.kill()


def all_started(process: subprocess.Popen[str], token: str) -> list[psutil.Process]:
    """The three groups of two and the guard, once they run."""
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(3)]
    assert all(line.startswith("child") for line in said), said
    wait_until(lambda: len(marked(token)) == 8, "not all have started")
    return [one for one in marked(token) if one.pid != process.pid]


def test_nobody_survives_the_one_who_started_them() -> None:
    with starter("stay") as (process, token):
        assert len(all_started(process, token)) == 7
        process.kill()
        process.wait(10)
        wait_until(lambda: not marked(token), "somebody survived SIGKILL")


def test_nobody_survives_one_who_ends_without_a_word() -> None:
    with starter("end") as (process, token):
        process.wait(10)
        wait_until(lambda: not marked(token), "somebody survived the end")


@pytest.mark.parametrize("count", range(1, 8))
def test_nobody_survives_one_who_is_killed_while_it_starts_them(count: int) -> None:
    with starter("stay") as (process, token):
        wait_until(lambda: len(marked(token)) >= count, "they don't start")
        process.kill()
        process.wait(10)
        # A process that was just forked may not show its environment yet: look until
        # nobody was seen for a while.
        quiet = Quiet(0.2, lambda: not marked(token))
        wait_until(quiet, "somebody survived SIGKILL")


class Quiet:
    """Whether a condition has held for some seconds, each time it was asked."""

    def __init__(self, seconds: float, condition: Callable[[], bool]) -> None:
        self._seconds = seconds
        self._condition = condition
        self._since: float | None = None

    def __call__(self) -> bool:
        if not self._condition():
            self._since = None
            return False
        if self._since is None:
            self._since = time.monotonic()
        return time.monotonic() - self._since >= self._seconds


def test_paused_processes_don_t_survive_either() -> None:
    with starter("stay") as (process, token):
        for one in all_started(process, token):
            if "-I" not in one.cmdline():
                one.suspend()
        process.kill()
        process.wait(10)
        wait_until(lambda: not marked(token), "paused processes survived")


def test_the_output_is_one_line_a_line(bench: Bench) -> None:
    process = bench.process(
        r"""
import os
os.write(1, b"one\ntw")
os.write(1, b"o\n\x1b[31mred\x1b[0m\t\xff\r\n\nend without newline")
""",
        "p",
    )
    process.start()
    wanted = ["one", "two", r"\x1b[31mred\x1b[0m" + "\t\ufffd", "", "end without newline"]
    wait_until(lambda: [line for _, line in bench.seen] == wanted, f"{bench.seen}")
    wait_until(lambda: not process.running, "it did not end")
    assert bench.lines.last_lines("p").splitlines()[0] == "    one"


def test_a_line_without_an_end_does_not_fill_the_memory(bench: Bench) -> None:
    process = bench.process("import os\nfor _ in range(64): os.write(1, b'x' * 65536)")
    process.start()
    wait_until(lambda: not process.running, "it did not end")
    wait_until(lambda: sum(len(line) for _, line in bench.seen) == 64 * 65536, "lines are lost")
    assert max(len(line) for _, line in bench.seen) <= 8192
    assert len(bench.lines.last_lines("p")) <= KEPT_LINES * (8192 + 5)


def test_a_terminal_that_is_gone_does_not_block_the_processes(bench: Bench) -> None:
    def write(_name: str, _line: str) -> None:
        raise BrokenPipeError

    lines = Lines(write)
    lines.start()
    command = Command((sys.executable, "-c", "print('x' * 1_000_000)"), bench.folder)
    process = Process("p", command, bench.guard, lines)
    process.start()
    wait_until(lambda: not process.running, "it waits for somebody to read")
    assert process.ended == "ended with status 0"
    lines.close()
    assert lines.broken


def test_a_killed_server_frees_its_port(bench: Bench) -> None:
    code = """
import os, socket, time
server = socket.create_server(("127.0.0.1", 0))
if os.fork():
    print(f"PORT {server.getsockname()[1]}", flush=True)
time.sleep(1000)
"""
    for turn in range(5):
        process, _ = bench.started(code.replace("PORT", f"PORT{turn}"), f"PORT{turn} ")
        port = int(bench.seen[-1][1].split()[1])
        process.kill()
        # The kernel closes a dead process's files one after the other.
        wait_until(lambda port=port: is_free(port), "the port is still taken")  # type: ignore[misc]


def test_kill_is_quick(bench: Bench) -> None:
    process, _ = bench.started(PARENT, "child")
    with takes(at_most=2):
        process.kill()
