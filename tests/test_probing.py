"""`manage.py outgrow media probe`: what it prints, and how it ends."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from django.core.files.storage import storages
from django.core.management import CommandError, call_command
from django.test import override_settings

from outgrow.findings import Finding, Result
from outgrow.management import probing
from outgrow.management.texts import finding_lines
from outgrow.testing import MediaServer
from outgrow.testing.media_server import _Gone
from tests.live.nginx import Nginx, binary
from tests.live.processes import server_folder
from tests.live.web_servers import Lighttpd, running
from tests.raw import takes


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def outgrow(*words: str, out: io.StringIO | None = None) -> tuple[int, str]:
    """The exit code and what was printed."""
    out = out or io.StringIO()
    words = ("--max-body", "2K", *words)
    try:
        call_command("outgrow", "media", "probe", *words, stdout=out, stderr=io.StringIO())
    except SystemExit as end:
        return int(end.code or 0), out.getvalue()
    return 0, out.getvalue()


@pytest.fixture
def lighttpd():
    with running(Lighttpd) as server:
        yield server


@pytest.fixture
def site(tmp_path):
    """A site with these servers."""

    def site(servers, **options):
        given = {"servers": servers, "location": str(tmp_path / "master"), "timeout": 0.3}
        media = {"BACKEND": "outgrow.media.HybridStorage", "OPTIONS": given | options}
        plain = {"BACKEND": "django.core.files.storage.FileSystemStorage"}
        return override_settings(STORAGES={"default": media, "plain": plain})

    return site


def facts(text: str) -> dict[str, dict[str, dict[str, str]]]:
    """Server -> check -> finding, from --json."""
    lines = [json.loads(line) for line in text.splitlines()]
    return {
        line["server"]: {finding["check"]: finding for finding in line["findings"]}
        for line in lines
    }


def test_plain_lines_for_a_server_that_is_well(site, lighttpd):
    with site({"media1": lighttpd.url}):
        code, text = outgrow()
    assert code == 0
    lines = text.splitlines()
    assert all(line.startswith("media1: ") for line in lines)
    assert "media1: ok: range: GET with Range: 206, with the right bytes" in lines
    assert any(
        "media1: note: addresses: this machine may write. From which" in line for line in lines
    )
    assert any("url.access-deny" in line for line in lines)
    assert "\x1b" not in text
    assert list(lighttpd.root.iterdir()) == []


def test_a_table_on_a_terminal(site, lighttpd):
    with site({"media1": lighttpd.url}):
        code, text = outgrow(out=Terminal())
    assert code == 0
    assert f"media1  {lighttpd.url}" in text
    assert "what was seen" in text
    assert "─" in text
    # The lines to be copied are not broken by the table.
    assert "addresses:\n    $HTTP[" in text


def test_facts_for_machines(site, lighttpd):
    with site({"media1": lighttpd.url}):
        code, text = outgrow("--json")
    (line,) = text.splitlines()
    assert json.loads(line)["storage"] == "default"
    assert json.loads(line)["address"] == lighttpd.url + "/"
    found = facts(text)["media1"]
    assert code == 0
    assert found["overwrite"] == {
        "server": "media1",
        "check": "overwrite",
        "result": "ok",
        "seen": "PUT over a file: 204",
        "meaning": "",
        "remedy": "",
    }


def test_something_bad_gives_exit_code_1(site):
    binary()
    with server_folder("outgrow-nginx-") as folder:
        server = Nginx(folder)
        size = "client_max_body_size"
        server._configuration = server._configuration.replace(f"{size} 0", f"{size} 1k")
        server.start()
        try:
            with site({"media1": server.url}):
                code, text = outgrow()
                assert code == 1
                assert "media1: bad: body: 2 KB: 413" in text
                assert "media1:     client_max_body_size 0;" in text
                assert outgrow("--max-body", "1K")[0] == 0
        finally:
            server.stop()


def test_one_clear_finding_for_each_server_that_can_not_be_probed(site, lighttpd):
    html = b"<!doctype html>welcome"
    with MediaServer() as down, MediaServer() as hangs, MediaServer() as same:
        with MediaServer() as locked, MediaServer() as closed, MediaServer() as foreign:
            down.stop()
            hangs.freeze()
            same.raw_answer = b"HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n" + html
            locked.answer_with(401)
            closed.answer_with(403)
            foreign.files["outgrow-master-id.txt"] = b"0" * 32
            broken = {
                "down": (down, "answers", "no connection"),
                "hangs": (hangs, "answers", "no answer"),
                "same": (same, "identity", "no master's id"),
                "locked": (locked, "answers", "credentials"),
                "closed": (closed, "answers", "403"),
                "foreign": (foreign, "identity", "belongs to the master"),
            }
            urls = {name: server.url for name, (server, _, _) in broken.items()}
            with takes(at_most=5):
                with site(urls | {"well": lighttpd.url}):
                    code, text = outgrow("--json")
            assert code == 1
            found = facts(text)
            for name, (server, check, seen) in broken.items():
                (finding,) = found[name].values()
                assert (finding["check"], finding["result"]) == (check, "bad")
                assert seen in finding["seen"]
                assert all(method == "GET" for method, _, _ in server.log)
            assert len(found["well"]) > 15


def test_a_server_that_lost_its_id_is_not_written_to(site):
    with MediaServer() as server, site({"media1": server.url}):
        storages["default"].journal.prepare()
        storages["default"].transport.probe()
        server.files.clear()
        server.log.clear()
        code, text = outgrow()
        assert code == 1
        assert "media1: bad: identity: lost outgrow-master-id.txt" in text
        assert {method for method, _, _ in server.log} == {"GET"}


def test_a_line_has_one_stop():
    for seen, start in [("a is b", "a is b."), ("is it?", "is it?"), ("It is.", "It is.")]:
        found = Finding("media1", "put", Result.BAD, seen, "So.")
        assert list(finding_lines([found])) == [f"media1: bad: put: {start} So."]


def test_no_server_is_claimed_by_being_probed(site):
    with MediaServer(missing_parent_409=True) as server, site({"media1": server.url}):
        outgrow()
        assert (server.files, server.folders) == ({}, set())
        assert not storages["default"].journal.is_claimed("media1")


def test_the_storage_s_own_credentials_and_options_are_used(site):
    with MediaServer(missing_parent_409=True) as server:
        with site({"media1": server.url}, token="tok3n", names="keep"):
            code, text = outgrow()
    assert code == 1
    assert "media1: bad: credentials: PUT without credentials: 201" in text
    assert "media1: warning: delete-folder" in text


class Moody(MediaServer):
    """Hangs up, or hangs, at the PUT of one name."""

    def __init__(self, name: str, *, hangs: bool) -> None:
        super().__init__(missing_parent_409=True)
        self.name, self.hangs = name, hangs

    def _put(self, name: str, body: bytes) -> int:
        if name.endswith(self.name) and self.hangs:
            self.freeze()
        elif name.endswith(self.name):
            raise _Gone
        return super()._put(name, body)


def test_the_storage_s_own_times_are_used(site):
    with Moody("body-2048.bin", hangs=False) as server, site({"media1": server.url}, deadline=7):
        assert "It has 7 s (the option 'deadline')" in outgrow()[1]
    with Moody("put.txt", hangs=True) as server, site({"media1": server.url}):
        assert "media1: bad: answers: no answer within 0.3 s" in outgrow()[1]


def test_servers_and_storages_are_chosen(site, tmp_path):
    with MediaServer(missing_parent_409=True) as one, MediaServer() as two:
        with site({"media1": one.url, "media2": two.url}):
            assert set(facts(outgrow("--json", "--server", "media1")[1])) == {"media1"}
            assert two.log == [] or {path for _, path, _ in two.log} == {"/outgrow-master-id.txt"}
            for words, message in [
                (["--server", "media9"], "There are: media1, media2"),
                (["--storage", "plain"], "There are: 'default'"),
                (["--max-body", "much"], "'much' is not a size"),
            ]:
                with pytest.raises(CommandError, match=message) as error:
                    outgrow(*words)
                assert error.value.returncode in {1, 2}


def test_wrong_words_exit_with_2(tmp_path):
    for words in (["--server", "media9"], ["--storage", "nothing"], ["--max-body", "much"]):
        process = start(tmp_path, {"media1": "http://127.0.0.1:1"}, *words)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 2, errors


def test_a_transport_of_ones_own_can_not_be_probed(site):
    class Own:
        def __init__(self, servers, journal):
            self.servers = servers

    with site({"media1": "http://127.0.0.1:1"}, transport=Own):
        with pytest.raises(CommandError, match="a transport of its own") as error:
            outgrow()
        assert error.value.returncode == 2


@pytest.mark.django_db(transaction=True, databases=["default", "outgrow"])
def test_a_storage_without_a_master_is_probed_too(lighttpd):
    options = {"servers": {"media1": lighttpd.url}, "base_url": "/media/"}
    media = {"BACKEND": "outgrow.media.DistributedStorage", "OPTIONS": options}
    with override_settings(STORAGES={"default": media}):
        code, text = outgrow("--json")
    assert code == 0
    assert facts(text)["media1"]["body"]["result"] == "ok"
    assert list(lighttpd.root.iterdir()) == []


# --- as a process


SETTINGS = """
import json, os
SECRET_KEY = "x"
USE_TZ = True
INSTALLED_APPS = ["outgrow"]
STORAGES = {"default": {"BACKEND": "outgrow.media.HybridStorage", "OPTIONS": {
    "servers": json.loads(os.environ["SERVERS"]), "location": os.environ["MASTER"]}}}
"""


def start(folder, servers, *words: str) -> subprocess.Popen[str]:
    (folder / "probe_settings.py").write_text(SETTINGS)
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "probe_settings",
        "PYTHONPATH": os.pathsep.join(paths),
        "SERVERS": json.dumps(servers),
        "MASTER": str(folder / "master"),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "django", "outgrow", "media", "probe", *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # In the background of a shell it would be ignored, by the children as well.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_behind(tmp_path, number):
    with MediaServer(missing_parent_409=True) as one, MediaServer() as two:
        one.delay = 0.05
        process = start(tmp_path, {"media1": one.url, "media2": two.url})
        try:
            end = time.monotonic() + 30
            while not any(status == 201 for method, _, status in one.log if method == "PUT"):
                assert time.monotonic() < end
                assert process.poll() is None
                time.sleep(0.002)
            process.send_signal(number)
            text, errors = process.communicate(timeout=30)
        finally:
            process.kill()
            process.communicate()
        assert process.returncode == probing.INTERRUPTED
        assert "Broken off" in errors
        assert "Traceback" not in errors
        assert "media1: ok: missing" in text
        assert (one.files, one.folders) == ({}, set())
        assert {method for method, _, _ in two.log} == {"GET"}


def test_it_can_be_called_in_a_thread(site, lighttpd):
    """Where no handler for a signal may be set."""
    ends = []
    with site({"media1": lighttpd.url}):
        thread = threading.Thread(target=lambda: ends.append(outgrow()[0]))
        thread.start()
        thread.join(30)
    assert ends == [0]


def test_the_handler_of_the_signal_is_put_back(site, lighttpd):
    before = signal.getsignal(signal.SIGTERM)
    with site({"media1": lighttpd.url}):
        outgrow()
    assert signal.getsignal(signal.SIGTERM) is before
