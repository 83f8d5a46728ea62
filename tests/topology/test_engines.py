"""Each engine of the application servers: a whole site with it on this machine, and its unit."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from outgrow.errors import MissingExtra
from outgrow.topology import app
from outgrow.topology.applications import ENGINES
from outgrow.topology.load import load
from outgrow.topology.render.systemd import APP_UNIT, GRACE, Places
from tests.live.processes import wait_until
from tests.topology.sites import tiny_site
from tests.topology.test_control import Site, controlled
from tests.topology.test_local import Run, get
from tests.topology.test_systemd import ODD, service, units, verify
from tests.topology.test_tutorial import ROOT
from tests.topology.test_tutorial import outgrow as run_outgrow
from tests.topology.test_up import READY, address, up


def outgrow(words: list[str], folder: Path) -> str:
    """What a command says."""
    return run_outgrow(words, folder).stdout


#: gunicorn is what all other tests run.
OTHERS = [engine for engine in app.ENGINES if engine != "gunicorn"]


PAGE = (ROOT / "docs/howto/application-servers.md").read_text()


@pytest.fixture(params=OTHERS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    path = tiny_site(tmp_path, app=request.param, balancer="haproxy")
    with controlled(path, tmp_path / "run") as one:
        yield one


def test_a_site_on_this_machine(site: Site) -> None:
    engine = site.local.site.app.engine
    assert site.local.planned("app1").command.words[2] == engine
    assert {get(site.url("front")) for _ in range(20)} == {"app1", "app2"}
    assert get(f"{site.url('front')}/save?text=kept").startswith("notes/")
    # A line for each request, as gunicorn has it.
    wait_until(lambda: site.said("app1", "/save") or site.said("app2", "/save"), "says nothing")
    old = site.local.process("app1").pid
    said = site.done("reload", "app1")
    assert said == "app1 can't reload: it was restarted, and is ready."
    assert site.local.process("app1").pid != old
    assert get(site.url("app1")) == "app1"
    site.done("kill", "app2")
    wait_until(lambda: get(site.url("front")) == "app1", "nobody serves")
    site.done("start", "app2")
    site.done("stop", "app2")
    assert not site.local.process("app2").running


def test_the_page_is_followed(tmp_path: Path) -> None:
    """All of its commands, with its topology file, on a site that has another name."""
    topology = tiny_site(tmp_path)
    [text] = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    topology.write_text(text.replace("photos", "tiny"))
    other = topology.read_text().replace('"uvicorn"', '"granian"')
    (topology.parent / "next.toml").write_text(other)
    blocks = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    commands = [shlex.split(line.removeprefix("$ ")) for one in blocks for line in one.splitlines()]
    assert commands[0] == ["outgrow", "up", "topology.toml"]
    with up(topology) as running:
        running.read_until(READY)
        assert "app1" in running.text
        said = {words[1]: outgrow(words, topology.parent) for words in commands[1:]}
        running.read_until("app1 can't reload: it was restarted, and is ready.")
    assert set(said) == {"reload", "capacity", "settings", "render", "plan"}
    assert "3 workers x 95 MB + 40 MB above them" in said["capacity"]
    assert "ALLOWED_HOSTS" in said["settings"]
    unit = topology.parent / "servers/app1" / APP_UNIT
    assert service(unit.read_text())["ExecStart"].split()[2] == "uvicorn"
    assert "'uvicorn>=0.37'" in (unit.parent / "README.md").read_text()
    assert "set up granian, which will run the site" in said["plan"]


def test_each_program_that_may_run_is_chosen_by_its_word(tmp_path: Path) -> None:
    """`outgrow up` itself, and a file that is changed to each of them."""
    for engine in app.ENGINES:
        topology = tiny_site(tmp_path / engine, app=engine, database="sqlite")
        with up(topology) as running:
            running.read_until(READY)
            names = {" ".join(one.cmdline()[:3]) for one in running.everyone()}
            assert any(name.endswith(f"-m {engine}") for name in names), names
            host, port = address(running, "app1")
            assert get(f"http://{host}:{port}") == "app1"
            running.read_until("app1    | GET / 200" if engine != "uvicorn" else '"GET / HTTP')
        said = outgrow(["outgrow", "settings", "topology.toml"], topology.parent)
        assert "DATABASES" in said


@pytest.mark.parametrize("engine", OTHERS)
def test_one_that_is_not_installed_is_named(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(load(tiny_site(tmp_path, app=engine)), tmp_path / "run")
    monkeypatch.setitem(sys.modules, engine, None)
    extra = ENGINES[engine].extra
    with pytest.raises(MissingExtra, match=rf"'{engine}'.*pip install 'outgrow\[{extra}\]'"):
        run.local.prepare()
    assert not run.local.folder.exists()


@pytest.mark.parametrize("engine", app.ENGINES)
def test_its_unit(engine: str, tmp_path: Path) -> None:
    site = load(tiny_site(tmp_path, app=engine))
    text = units(site, Places(python=sys.executable))[f"app1/{APP_UNIT}"]
    assert verify(tmp_path, text) == ""
    one = service(text)
    # The signal is for the main process, and running requests end before systemd kills.
    assert one["KillMode"] == "mixed"
    assert int(one["TimeoutStopSec"]) > GRACE
    assert str(GRACE) in shlex.split(one["ExecStart"])
    reloads = {"gunicorn": "/bin/kill -HUP $MAINPID", "uvicorn": "/bin/kill -HUP $MAINPID"}
    assert one.get("ExecReload") == reloads.get(engine)
    odd = units(replace(site, folder=site.folder / ODD), Places(python=sys.executable))
    assert verify(tmp_path, odd[f"app1/{APP_UNIT}"]) == ""


@pytest.mark.parametrize("engine", OTHERS)
def test_it_takes_its_words(engine: str, tmp_path: Path) -> None:
    """They are those of the unit, but for the address, which is another server's."""
    site = load(tiny_site(tmp_path, app=engine))
    text = service(units(site, Places(python=sys.executable))[f"app1/{APP_UNIT}"])["ExecStart"]
    # TEST-NET-1 (RFC 5737) is nobody's: each gets as far as that.
    words = [word.replace("10.0.0.11", "192.0.2.1") for word in shlex.split(text)]
    done = subprocess.run(
        words,
        cwd=site.folder,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": site.settings, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode
    assert "assign requested address" in done.stderr + done.stdout, done
