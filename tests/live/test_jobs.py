"""AsyncStorage with jobs: real workers of RQ, Celery and Django's tasks, some of them killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from outgrow.testing import MediaServer
from tests.live.processes import family, wait_until
from tests.live.redis import Redis

ROOT = Path(__file__).parents[2]
MASTER_ID = "outgrow-master-id.txt"

SAVE = """
import django, time
django.setup()
from django.core.files.base import ContentFile
from django.core.files.storage import storages
begin = time.monotonic()
for number in range(5):
    print(storages["default"].save(f"{number}.txt", ContentFile(b"x")), flush=True)
print("took", time.monotonic() - begin)
"""

DELETE = """
import django, sys
django.setup()
from django.core.files.storage import storages
for name in sys.argv[1:]:
    storages["default"].delete(name)
"""

WORKERS = {
    "rq": ["-m", "rq.cli", "worker", "--url", "{broker}", "default"],
    "celery, prefork": [
        "-m",
        "celery",
        "-A",
        "tests.live.site",
        "worker",
        "-c",
        "2",
        "-P",
        "prefork",
    ],
    "celery, solo": ["-m", "celery", "-A", "tests.live.site", "worker", "-P", "solo"],
    "tasks": ["-m", "django", "db_worker", "--interval", "0.1"],
}


class Site:
    """A site whose processes share one master, one broker and two media servers."""

    def __init__(self, folder: Path, broker: str, servers: list[MediaServer], runner: str) -> None:
        self.servers = servers
        self.runner = runner
        self.broker = broker
        self.environment = os.environ | {
            "DJANGO_SETTINGS_MODULE": "tests.live.site",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
            "PYTHONWARNINGS": "default",
            "MASTER": str(folder / "master"),
            "SITE_DATABASE": str(folder / "site.sqlite3"),
            "SERVERS": ",".join(server.url for server in servers),
            "BROKER": broker,
            "RUNNER": runner.partition(",")[0],
        }
        if self.environment["RUNNER"] == "tasks":
            self.run("-m", "django", "migrate", "--verbosity", "0")

    def run(self, *words: str) -> str:
        """Run Python in the site; what it printed."""
        done = subprocess.run(
            [sys.executable, *words],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def save(self) -> set[str]:
        """Five files, by a process of its own; their names."""
        return {line for line in self.run("-c", SAVE).splitlines() if not line.startswith("took")}

    def repair(self) -> None:
        """One pass, by the command."""
        self.run("-m", "django", "outgrow", "media", "repair", "--no-wait")

    @contextmanager
    def worker(self) -> Iterator[subprocess.Popen[bytes]]:
        """A worker; it is killed at the end, with its children."""
        words = [word.format(broker=self.broker) for word in WORKERS[self.runner]]
        process = subprocess.Popen(
            [sys.executable, *words],
            env=self.environment,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            kill(process)

    def copies(self) -> list[set[str]]:
        return [server.files.keys() - {MASTER_ID} for server in self.servers]

    def owed(self) -> int:
        """Records and attempts that are left in the journal."""
        journal = Path(self.environment["MASTER"]) / ".outgrow"
        files = [*(journal / "owed").rglob("*"), *(journal / "open").rglob("*")]
        return sum(path.is_file() and not path.name.startswith(".") for path in files)


def kill(process: subprocess.Popen[bytes]) -> None:
    everybody = family(process.pid)
    for one in everybody:
        try:
            one.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    process.wait(10)


@pytest.fixture(params=WORKERS)
def site(request, tmp_path, redis_server: Redis) -> Iterator[Site]:
    with ExitStack() as stack:
        servers = [stack.enter_context(MediaServer()) for _ in range(2)]
        site = Site(tmp_path, redis_server.url, servers, request.param)
        # The first contact claims the servers, and owes them everything.
        site.repair()
        yield site


def test_jobs_bring_the_files_to_the_servers(site):
    saved = site.save()
    assert site.copies() == [set(), set()], "nobody works yet"
    with site.worker():
        wait_until(lambda: site.copies() == [saved] * 2, "no job was done", seconds=60)
        wait_until(lambda: site.owed() == 0, "the journal was not told", seconds=20)
        gone = saved.pop()
        site.run("-c", DELETE, gone)
        wait_until(lambda: site.copies() == [saved] * 2, "no delete was done", seconds=60)


def test_a_worker_that_is_killed_in_a_job_loses_nothing(site):
    for server in site.servers:
        server.hang = "before-answer"
    saved = site.save()
    with site.worker() as process:
        wait_until(lambda: site.servers[0].held > 0, "no job was begun", seconds=60)
        kill(process)
    for server in site.servers:
        server.thaw()
    site.repair()
    assert site.copies() == [saved] * 2


@pytest.mark.parametrize("site", ["rq", "celery, solo"], indirect=True)
def test_a_broker_that_is_down_neither_fails_nor_holds_up_a_save(site, redis_server):
    redis_server.stop()
    lines = site.run("-c", SAVE).splitlines()
    took = float(lines.pop().split()[1])
    assert took < 10, "the broker is asked once, and then left alone"
    assert len(lines) == 5
    site.repair()
    assert site.copies() == [set(lines)] * 2


MISSING = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {modules!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: (
    None if name.partition(".")[0] in {modules!r} or name == "django.tasks" else real(name, package)
)
from outgrow.media import jobs
print(jobs.problem({runner!r}))
"""


@pytest.mark.parametrize(
    ("runner", "modules"), [("rq", {"rq"}), ("celery", {"celery"}), ("tasks", {"django_tasks"})]
)
def test_a_package_that_is_not_there_is_named_with_its_extra(runner, modules):
    code = MISSING.format(modules=modules, runner=runner)
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
    assert f"pip install 'outgrow[{runner}]'" in done.stdout
