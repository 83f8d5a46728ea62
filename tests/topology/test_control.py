"""One server of a running site, acted on from a second terminal, and looked at."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner, Result

from outgrow.cli import main
from outgrow.errors import ControlFailed
from outgrow.topology import control, runfolder
from outgrow.topology.acts import Acts
from outgrow.topology.control import LONGEST_PATH, LONGEST_REQUEST, SOCKET, Control
from outgrow.topology.load import load
from outgrow.topology.look import Looker
from outgrow.topology.process import Reload
from outgrow.topology.states import State, Status
from tests.live.nginx import binary
from tests.live.processes import all_have_status, family, wait_until
from tests.raw import takes
from tests.topology.sites import tiny_site
from tests.topology.test_local import Run, answers, get
from tests.topology.test_rows import planned
from tests.topology.test_up import READY, Up, gone, up


class Site(Run):
    """A local site that listens to other terminals."""

    def __init__(self, topology: Path, folder: Path) -> None:
        super().__init__(load(topology), folder)
        self.folder = folder

    def command(self, *words: str) -> Result:
        return CliRunner().invoke(main, [*words, "--folder", str(self.folder)])

    def done(self, *words: str) -> str:
        result = self.command(*words)
        assert result.exit_code == 0, result.output
        return result.output.strip()

    def refused(self, *words: str) -> str:
        result = self.command(*words)
        assert result.exit_code == 1, result.output
        return result.output.strip().removeprefix("Error: ")

    def status(self, name: str) -> Status:
        return next(one for one in control.look(self.folder) if one.name == name)

    def state(self, name: str) -> State:
        return self.status(name).state

    def url(self, name: str) -> str:
        return self.local.address(name)

    def workers(self, name: str) -> list[psutil.Process]:
        leader = self.local.process(name).pid
        assert leader is not None
        return family(leader)[1:]


@contextmanager
def controlled(topology: Path, folder: Path) -> Iterator[Site]:
    """A site that runs, with its socket; afterwards no thread, process or socket is left."""
    before, others = set(threading.enumerate()), family(os.getpid())
    site = Site(topology, folder)
    with ExitStack() as stack, site.local as local:
        looker = stack.enter_context(Looker(local))
        door = stack.enter_context(Control(Acts(local), looker, folder))
        all_of_it = [one for one in family(os.getpid()) if one not in others]
        try:
            yield site
        finally:
            door.withdraw()
    wait_until(lambda: all_have_status(all_of_it, psutil.STATUS_ZOMBIE), "somebody is left")
    ours = {thread for thread in threading.enumerate() if "outgrow" in thread.name}
    assert not ours - before
    assert not os.path.lexists(folder / SOCKET)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with controlled(tiny_site(tmp_path), tmp_path / "run") as one:
        yield one


# --- what can be done


def test_a_killed_server_stays_down_until_it_is_started(site: Site) -> None:
    all_of_it = [psutil.Process(site.local.process("app1").pid), *site.workers("app1")]
    assert site.done("kill", "app1") == ("app1 was killed; it stays down until: outgrow start app1")
    assert all_have_status(all_of_it, psutil.STATUS_ZOMBIE)
    found = site.status("app1")
    assert (found.state, found.pid, found.problem) == (
        State.KILLED,
        None,
        "was killed by SIGKILL",
    )
    assert site.refused("kill", "app1") == (
        "app1 does not run: it was killed by SIGKILL. Start it: outgrow start app1"
    )
    # The watch looks ten times a second, and has seen it by now.
    looked = time.monotonic() + 0.5
    wait_until(lambda: time.monotonic() > looked, "time stands still")
    assert not site.local.process("app1").running
    assert site.done("start", "app1") == "app1 was started, and is ready."
    assert get(site.url("app1")) == "app1"
    assert site.state("app1") is State.READY
    assert site.said("outgrow", "app1 was killed; it stays down")


def test_kills_by_hand_are_no_crashes(site: Site) -> None:
    for _ in range(7):  # five crashes within a minute end a site
        site.done("kill", "media1")
        site.done("start", "media1")
    assert site.local.failure == ""
    # It is watched again.
    os.kill(site.local.process("media1").pid or 0, signal.SIGKILL)
    wait_until(lambda: site.said("outgrow", "it is started again in 0.25 s"), "not watched")
    site.local.wait_ready("media1")


def test_a_frozen_server_takes_connections_and_answers_nobody(site: Site) -> None:
    assert site.done("freeze", "media2") == (
        "media2 is frozen: it takes connections and answers nobody, until: outgrow thaw media2"
    )
    with takes(at_most=2):
        assert site.state("media2") is State.FROZEN
    with pytest.raises(TimeoutError):
        urllib.request.urlopen(site.url("media2"), timeout=0.3)
    for word in ("freeze", "reload"):
        assert site.refused(word, "media2") == (
            "media2 is frozen. Let it go on: outgrow thaw media2"
        )
    assert site.refused("start", "media2") == (
        "media2 runs and is frozen. Let it go on: outgrow thaw media2"
    )
    assert site.done("thaw", "media2") == "media2 goes on."
    assert answers(site.url("media2"))
    assert site.state("media2") is State.READY
    assert site.refused("thaw", "media2") == "media2 is not frozen."


def test_a_frozen_server_can_be_killed_and_stopped(site: Site) -> None:
    for word, state in (("kill", State.KILLED), ("stop", State.STOPPED)):
        site.done("freeze", "app2")
        site.done(word, "app2")
        assert site.state("app2") is state
        site.done("start", "app2")


def test_who_was_frozen_by_others_is_seen_to_be(site: Site) -> None:
    os.kill(site.local.process("media1").pid or 0, signal.SIGSTOP)
    wait_until(lambda: site.state("media1") is State.FROZEN, "it was not seen")
    site.done("thaw", "media1")


def test_stop_lets_a_request_end(site: Site) -> None:
    with socket.create_connection(("127.0.0.1", int(site.url("app1").rpartition(":")[2])), 20) as s:
        s.sendall(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: site.said("app1", "a slow request begins"), "it does not begin")
        with takes(at_least=4.0):  # gunicorn waits for 5 seconds
            said = site.done("stop", "app1")
    assert re.fullmatch(r"app1 ended .*; it stays down until: outgrow start app1", said)
    assert site.state("app1") is State.STOPPED
    assert site.refused("stop", "app1").startswith("app1 does not run: it ended")
    site.done("start", "app1")
    assert site.refused("start", "app1") == "app1 runs already."


def test_gunicorn_reloads_and_loses_no_request(site: Site) -> None:
    leader, before = site.local.process("app1").pid, site.workers("app1")
    done, stop = [], threading.Event()

    def visit() -> None:
        while not stop.is_set():
            done.append(get(site.url("app1")))

    with ThreadPoolExecutor(4) as visitors:
        running = [visitors.submit(visit) for _ in range(4)]
        try:
            wait_until(lambda: len(done) > 20, "nobody is answered")
            for _ in range(3):
                assert site.done("reload", "app1") == ("app1 has reloaded (SIGHUP), and is ready.")
            seen = len(done)
            wait_until(lambda: len(done) > seen + 20, "nobody is answered any more")
        finally:
            stop.set()
        for one in running:
            one.result()
    assert set(done) == {"app1"}
    assert site.local.process("app1").pid == leader
    assert not set(site.workers("app1")) & set(before)


def test_a_reload_takes_up_new_code(site: Site, tmp_path: Path) -> None:
    urls = tmp_path / "tiny site" / "tiny" / "urls.py"
    urls.write_text(urls.read_text().replace('os.environ["OUTGROW_SERVER"]', '"new code"'))
    site.done("reload", "app1")
    assert get(site.url("app1")) == "new code"
    assert get(site.url("app2")) == "app2"


def test_who_can_t_reload_is_restarted_and_says_so(site: Site) -> None:
    pid = site.local.process("media1").pid
    assert site.done("reload", "media1") == ("media1 can't reload: it was restarted, and is ready.")
    assert site.local.process("media1").pid != pid
    assert not site.local.is_held("media1")


def test_nginx_reloads(tmp_path: Path) -> None:
    binary()
    with controlled(tiny_site(tmp_path, engine="nginx"), tmp_path / "run") as site:
        leader, before = site.local.process("media1").pid, site.workers("media1")
        assert site.done("reload", "media1") == "media1 has reloaded (SIGHUP), and is ready."
        assert site.local.process("media1").pid == leader
        assert not set(site.workers("media1")) & set(before)
        for word in ("kill", "start", "freeze", "thaw", "stop", "start"):
            site.done(word, "media1")
        assert answers(site.url("media1"))


def test_how_programs_reload_is_a_value(tmp_path: Path) -> None:
    for engine, reload in (("postgresql", Reload()), ("mariadb", None)):
        _, made = planned(tmp_path / engine, engine, ("db2",))
        found = {one.name: one.command.reload for one in made.processes}
        assert found == {
            "db1": reload,
            "db2": reload,
            "media1": None,
            "media2": None,
            "app1": Reload(renews=True),
            "app2": Reload(renews=True),
            "repair": None,
        }


# --- what is wrong


def test_an_unknown_name_is_an_error_that_names_the_nearest(site: Site) -> None:
    assert site.refused("kill", "ap1") == ('"ap1" is no server of this site; did you mean "app1"?')


def test_no_site_is_an_error_that_says_how_to_start_one(tmp_path: Path) -> None:
    for words in (["kill", "app1"], ["ps"]):
        seen = CliRunner().invoke(main, [*words, "--folder", str(tmp_path)])
        assert seen.exit_code == 1
        assert seen.output.startswith(f"Error: No site runs in {tmp_path}. Start it with")
        assert "Traceback" not in seen.output


def test_the_folder_is_beside_the_topology_file(tmp_path: Path) -> None:
    seen = CliRunner().invoke(main, ["ps", "--topology", str(tmp_path / "topology.toml")])
    assert f"No site runs in {tmp_path}/.outgrow-run." in seen.output


def test_a_site_that_does_not_listen_yet_is_waited_for(tmp_path: Path) -> None:
    handle = runfolder.lock(tmp_path)
    try:
        with pytest.raises(ControlFailed, match=r"is starting or stopping\. Try again"):
            control.look(tmp_path)
    finally:
        os.close(handle)
    with pytest.raises(ControlFailed, match="No site runs"):
        control.look(tmp_path)


def test_a_site_that_is_frozen_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "ANSWER_LIMIT", 0.2)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / SOCKET))
        silent.listen()
        with pytest.raises(ControlFailed, match=r"gave no answer for 0.2 s. Is its .* frozen\?"):
            control.look(tmp_path)


@pytest.mark.parametrize("answer", [b"[]\n", b"{}\n", b"no json\n", b'{"found": [{}]}\n'])
def test_an_answer_of_another_version_is_said(tmp_path: Path, answer: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as other, ThreadPoolExecutor(1) as thread:
        other.bind(str(tmp_path / SOCKET))
        other.listen()

        def speak() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        speaking = thread.submit(speak)
        with pytest.raises(ControlFailed, match="an answer that this version does not know"):
            control.look(tmp_path)
        speaking.result(10)


def test_a_site_that_is_stopping_does_nothing_more(site: Site) -> None:
    site.local.stop_requested = True
    assert site.refused("kill", "app1") == "The site is stopping."


# --- the socket


def ask(site: Site, data: bytes) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(site.folder / SOCKET))
        client.sendall(data)
        return dict(json.loads(client.makefile("rb").readline()))


def test_it_is_its_owner_s_alone(site: Site) -> None:
    assert (site.folder / SOCKET).stat().st_mode & 0o777 == 0o600


NONSENSE = (
    b"no json\n",
    b"[]\n",
    b'{"do": "kill"}\n',
    b'{"do": "kill", "name": 1}\n',
    b"x" * (LONGEST_REQUEST + 1),
    b"\xff\n",
)


def test_nonsense_is_refused(site: Site) -> None:
    for data in NONSENSE:
        assert "problem" in ask(site, data), data
    assert ask(site, b'{"do": "dance", "name": "app1"}\n') == {
        "problem": '"dance" is nothing that can be done to a server.'
    }


def test_who_says_nothing_hangs_nobody(tmp_path: Path) -> None:
    with ExitStack() as silent:
        with takes(at_most=30), controlled(tiny_site(tmp_path), tmp_path / "run") as site:
            for said in (b"", b'{"do":'):
                client = silent.enter_context(socket.socket(socket.AF_UNIX))
                client.settimeout(10)
                client.connect(str(site.folder / SOCKET))
                client.sendall(said)
            assert len(control.look(site.folder)) == 5
            ended = time.monotonic()
        # It was cut off when the site stopped, not after its time.
        assert client.recv(1) == b""
        assert time.monotonic() - ended < 60


def test_two_at_once(site: Site) -> None:
    with ThreadPoolExecutor(8) as several:
        names = ("app1", "app2", "media1", "media2")
        done = [several.submit(control.act, site.folder, "reload", name) for name in names]
        # And all to one server, one after the other.
        done += [several.submit(control.act, site.folder, "reload", "app1") for _ in range(3)]
        looks = [several.submit(control.look, site.folder) for _ in range(4)]
        for one in done:
            assert one.result(60).endswith("and is ready.")
        for look in looks:
            assert len(look.result(60)) == 5
    assert {one.state for one in control.look(site.folder)} == {State.READY}


def test_of_two_who_kill_one_kills(site: Site) -> None:
    with ThreadPoolExecutor(2) as two:
        kills = [two.submit(control.act, site.folder, "kill", "media1") for _ in range(2)]
        said = sorted(str(one.exception(60)) for one in kills)
    assert said == [
        "None",
        "media1 does not run: it was killed by SIGKILL. Start it: outgrow start media1",
    ]


def test_a_folder_with_a_long_path(tmp_path: Path) -> None:
    folder = tmp_path / ("a-long-name" * 10) / "run"
    assert len(os.fsencode(folder)) > LONGEST_PATH
    with controlled(tiny_site(tmp_path), folder) as site:
        place = (folder / SOCKET).readlink()
        assert place.stat().st_mode & 0o777 == 0o600
        assert place.parent.stat().st_mode & 0o777 == 0o700
        site.done("kill", "media1")
        assert site.state("media1") is State.KILLED
    assert not place.parent.exists()


# --- states


def test_a_server_that_does_not_answer_is_failing(site: Site, tmp_path: Path) -> None:
    assert [one.state for one in control.look(site.folder)] == [State.READY] * 5
    urls = tmp_path / "tiny site" / "tiny" / "urls.py"
    text = urls.read_text()
    urls.write_text("raise RuntimeError('broken')\n")
    os.kill(site.local.process("app1").pid or 0, signal.SIGHUP)
    wait_until(lambda: site.state("app1") is State.FAILING, "it was not seen to fail")
    assert "was answered with status 500" in site.status("app1").problem
    urls.write_text(text)
    site.done("reload", "app1")
    wait_until(lambda: site.state("app1") is State.READY, "it was not seen to be well")


def test_a_crashed_server_is_restarting(site: Site) -> None:
    os.kill(site.local.process("app2").pid or 0, signal.SIGKILL)
    wait_until(lambda: site.state("app2") is State.RESTARTING, "it was not seen", seconds=10)
    wait_until(lambda: site.state("app2") is State.READY, "it does not come back")


def test_ps_lists_all_for_people_and_for_machines(site: Site) -> None:
    site.done("freeze", "app2")
    table = site.done("ps")
    assert re.search(r"app1 +app +● ready +\d+ s +127.0.0.1:\d+ +\d+ +\d+ MB", table)
    assert re.search(r"app2 +app +■ frozen", table)
    found = {one["name"]: one for one in json.loads(site.done("ps", "--json"))}
    assert list(found) == ["media1", "media2", "app1", "app2", "repair"]
    assert found["app1"]["address"] == site.url("app1")
    assert found["app1"]["pid"] == site.local.process("app1").pid
    assert 10e6 < found["app1"]["memory"] < 1e9
    assert abs(time.time() - found["app2"]["since"]) < 60


def test_a_state_is_as_old_as_it_is(site: Site) -> None:
    before = time.time()
    site.done("freeze", "media1")
    first = site.status("media1").since
    assert before <= first <= time.time()
    assert site.status("media1").since == first


# --- the real command


def test_all_of_it_with_a_real_outgrow_up(tmp_path: Path) -> None:
    topology = tiny_site(tmp_path)
    folder = topology.parent / ".outgrow-run"
    with up(topology) as one:
        one.read_until(READY)
        where = ["--topology", str(topology)]
        assert CliRunner().invoke(main, ["kill", "media2", *where]).exit_code == 0
        one.read_until("outgrow | media2 was killed; it stays down until: outgrow start media2")
        assert CliRunner().invoke(main, ["start", "media2", *where]).exit_code == 0
        everyone = one.everyone()
        one.process.send_signal(signal.SIGINT)
        assert one.ends() == 0
        wait_until(lambda: gone(everyone), "somebody is left")
    assert not os.path.lexists(folder / SOCKET)
    assert "Traceback" not in one.text


def test_the_socket_of_one_that_was_killed_is_no_hindrance(tmp_path: Path) -> None:
    topology = tiny_site(tmp_path)
    folder = topology.parent / ".outgrow-run"
    with up(topology) as one:
        one.read_until(READY)
        everyone = one.everyone()
        one.process.kill()
        wait_until(lambda: gone(everyone), "somebody survived SIGKILL")
    assert (folder / SOCKET).is_socket()
    with pytest.raises(ControlFailed, match=r"No site runs in .*\. Start it with `outgrow up`"):
        control.look(folder)
    with up(topology) as one:
        one.read_until(READY)
        assert len(control.look(folder)) == 5
        stop(one)


def stop(one: Up) -> None:
    one.process.send_signal(signal.SIGINT)
    assert one.ends() == 0
    assert "Traceback" not in one.text


def test_live_is_a_table_on_the_other_screen(tmp_path: Path) -> None:
    topology = tiny_site(tmp_path)
    with up(topology, "--live", terminal=True) as one:
        one.read_until("\x1b[?1049h")
        one.read_until("● ready")
        one.read_until("The output is in")
        CliRunner().invoke(main, ["kill", "media2", "--topology", str(topology)])
        one.read_until("✕ killed")
        os.write(one._output, b"\x03")
        assert one.ends() == 0
    assert "\x1b[?1049l" in one.text
    assert "Traceback" not in one.text
    log = (topology.parent / ".outgrow-run" / "_log").read_text()
    assert "media1 | Serving" in log
    assert "outgrow | media2 was killed" in log


def test_live_needs_a_terminal(tmp_path: Path) -> None:
    with up(tiny_site(tmp_path), "--live") as one:
        one.read_until("--live draws on a terminal, and the output is none.")
        assert one.ends() == 1


def test_a_request_that_waits_ends_with_the_site(tmp_path: Path) -> None:
    """A `start` that never becomes ready does not keep Ctrl-C waiting."""
    topology = tiny_site(tmp_path)
    with up(topology) as one, ThreadPoolExecutor(1) as thread:
        one.read_until(READY)
        where = ["--topology", str(topology)]
        assert CliRunner().invoke(main, ["stop", "app1", *where]).exit_code == 0
        urls = topology.parent / "tiny" / "urls.py"
        urls.write_text("raise RuntimeError('broken')\n")
        starting = thread.submit(control.act, runfolder.beside(topology), "start", "app1")
        one.read_until("broken")  # the site's own traceback
        one.process.send_signal(signal.SIGINT)
        with takes(at_most=15):
            assert one.ends() == 0
        assert isinstance(starting.exception(30), ControlFailed)
