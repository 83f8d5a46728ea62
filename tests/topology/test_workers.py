"""What works in the background: the same command on a laptop and on servers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from outgrow.errors import TopologyError
from outgrow.topology import rendering
from outgrow.topology.load import load
from outgrow.topology.render.systemd import Places
from tests.live.processes import wait_until
from tests.topology.sites import tiny_site
from tests.topology.test_local import Run
from tests.topology.test_systemd import service, verify

# Says where it runs and with which settings, and then waits for work.
WORK = (
    "import os, time; print('works as', os.environ['OUTGROW_SERVER'], "
    "os.environ['DJANGO_SETTINGS_MODULE'], os.getcwd()); time.sleep(600)"
)


def test_a_worker_runs_in_the_site_s_folder_and_is_started_again(tmp_path: Path) -> None:
    path = tiny_site(tmp_path, worker=f'python -c "{WORK}"')
    run = Run(load(path), tmp_path / "run")
    with run.local:
        said = f"works as work1 tiny.settings {path.parent}"
        wait_until(lambda: run.said("work1", said), "the worker says what it is")
        run.seen.clear()
        run.local.process("work1").kill()
        wait_until(lambda: run.said("work1", said), "the worker is started again")
    assert not run.local.process("work1").running


def test_its_unit(tmp_path: Path) -> None:
    site = load(tiny_site(tmp_path, worker="python -m celery -A 'my site' worker"))
    files = rendering.plan(site, Places(python=sys.executable))
    [unit] = [file.content for file in files if file.name == "work1/outgrow-worker.service"]
    assert verify(tmp_path, unit) == ""
    assert service(unit)["ExecStart"] == f'{sys.executable} -m celery -A "my site" worker'
    assert service(unit)["WorkingDirectory"] == str(site.folder)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("celery worker", '"celery worker" must begin with python or with the path of a program'),
        ("python 'x", "can't be taken apart: No closing quotation."),
        ("", "worker.command: is missing, and servers.work1.roles[0] asks for it. Write it"),
        (" ", '" " must begin with python'),
        ("python a\nb", "must not contain control characters."),
    ],
)
def test_what_is_no_command(tmp_path: Path, command: str, message: str) -> None:
    path = tiny_site(tmp_path, worker="python -m celery")
    text = path.read_text().replace("python -m celery", command.replace("\n", "\\n"))
    path.write_text(text)
    with pytest.raises(TopologyError) as caught:
        load(path)
    assert message in str(caught.value)


def test_a_path_is_a_program(tmp_path: Path) -> None:
    site = load(tiny_site(tmp_path, worker="/usr/bin/env x"))
    assert site.worker.words("/venv/python") == ("/usr/bin/env", "x")


def test_it_listens_nowhere(tmp_path: Path) -> None:
    path = tiny_site(tmp_path, worker="python -m celery")
    path.write_text(path.read_text() + "ports = { worker = 1 }\n")
    with pytest.raises(TopologyError, match=r"ports\.worker: is for a server that listens; a wor"):
        load(path)
