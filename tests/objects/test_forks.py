"""Processes that were forked after the storage had been used: they work on, by themselves.

obstore alone waits for ever there. Each script is a process of its own, for what is tested
is what a process has inherited.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from outgrow.testing import free_port
from tests.live.engines import Engine
from tests.live.processes import family, wait_until
from tests.live.redis import Redis

ROOT = Path(__file__).parents[2]

BEGIN = """
import json, os, sys, threading, warnings
import multiprocessing as mp
warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, of threads and forks
import django
from django.conf import settings
settings.configure(USE_TZ=True)
django.setup()
from django.core.files.base import ContentFile
from outgrow.objects import ObjectStorage
storage = ObjectStorage(**json.loads(os.environ["STORAGE"]))
fork = mp.get_context("fork")

def run(function):
    process = fork.Process(target=function)
    process.start()
    process.join(60)
    assert process.exitcode == 0, process.exitcode

def use():
    name = storage.save("a.txt", ContentFile(b"x"))
    assert storage.open(name).read() == b"x"
    storage.delete(name)
"""

SCRIPTS = {
    "children and theirs": """
def child():
    use()
    run(use)
    use()

use()
for _ in range(3):
    run(child)
use()
""",
    "an open file goes on in both": """
name = storage.save("a.txt", ContentFile(bytes(1000) + b"the end"))
file = storage.open(name)
file.read(10)

def child():
    file.seek(1000)
    assert file.read() == b"the end"

run(child)
file.seek(1000)
assert file.read() == b"the end"
""",
    "a fork while other threads are at it": """
stop = threading.Event()

def busy():
    while not stop.is_set():
        use()

threads = [threading.Thread(target=busy) for _ in range(4)]
for thread in threads:
    thread.start()
for _ in range(5):
    run(use)
stop.set()
for thread in threads:
    thread.join()
""",
    "a fork while another thread loads the library": """
names = []
thread = threading.Thread(target=lambda: names.append(storage.save("a.txt", ContentFile(b"x"))))
thread.start()
while "obstore" not in sys.modules:
    pass
run(use)
thread.join()
assert names
""",
    "a pool": """
use()
with fork.Pool(3) as pool:
    assert pool.map(len, pool.map(storage.save, ["a.txt"] * 0)) == []
    assert len(set(pool.starmap(storage.save, [("a.txt", ContentFile(b"x"))] * 9))) == 9
""",
    "the library was loaded, and nothing more": """
import obstore
run(use)
use()
""",
    "nothing was loaded before": """
run(use)
assert "obstore" not in sys.modules
""",
    "by spawn": """
if __name__ == "__main__":
    use()
""",
}


@pytest.fixture
def environment(swift: Engine) -> Iterator[dict[str, str]]:
    with swift.bucket() as bucket:
        path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        options = json.dumps(swift.options(bucket))
        yield os.environ | {"STORAGE": options, "PYTHONPATH": path}


def run(script: str, environment: dict[str, str], *words: str) -> str:
    """Run a script that says nothing on stderr; what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_process_that_was_forked(script: str, environment: dict[str, str]) -> None:
    run(BEGIN + SCRIPTS[script], environment)


def test_obstore_itself_does_hang(environment: dict[str, str], tmp_path: Path) -> None:
    """The control: what is worked around is there. If this fails, the way round may go.

    It hangs; or its parent breaks, whose poll it shares. A child whose parent broke hangs on,
    and holds what it has inherited: so it prints into a file, and its session is ended.
    """
    script = """
import multiprocessing as mp, os, json, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import obstore
from obstore.store import S3Store
given = json.loads(os.environ["STORAGE"])

def put():
    store = S3Store(
        given["location"].removeprefix("s3://"),
        endpoint=given["endpoint"],
        access_key_id=given["access_key"],
        secret_access_key=given["secret_key"],
        region=given["region"],
        client_options={"allow_http": True},
    )
    obstore.put(store, "a", b"x")

put()
process = mp.get_context("fork").Process(target=put)
process.start()
process.join(3)
print("hangs" if process.is_alive() else process.exitcode, flush=True)
process.kill()
os._exit(0)
"""
    log = tmp_path / "log"
    with log.open("wb") as file:
        parent = subprocess.Popen(
            [sys.executable, "-c", script],
            env=environment,
            cwd=ROOT,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        code = parent.wait(120)
    except subprocess.TimeoutExpired:
        code = None  # it hangs, as its child does
    finally:
        with suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)
        parent.wait(20)
    assert code is None or code < 0 or log.read_text().strip() == "hangs", log.read_text()


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_a_copy_that_can_t_be_made_is_told(where: str, environment: dict[str, str]) -> None:
    """Without memory files the copy lies on the disk for a moment; without a disk it is told."""
    script = """
import tempfile
use()

def child():
    del os.memfd_create  # as on a system that has none
    if sys.argv[1] == "memory":
        use()
        return
    tempfile.tempdir = "/there/is/no/such/folder"
    try:
        use()
    except Exception as error:
        assert type(error).__name__ == "ForkedProcess", repr(error)
        assert "only after the fork" in str(error)
        return
    raise AssertionError("it worked")

run(child)
"""
    run(BEGIN + script, environment, where)


@contextmanager
def process(words: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    with log.open("wb") as file:
        running = subprocess.Popen(
            [sys.executable, *words], cwd=ROOT, env=environment, stdout=file, stderr=file
        )
    everyone = []
    try:
        yield
        everyone = family(running.pid)
    finally:
        for one in [*everyone, *family(running.pid)]:
            if one.is_running():
                one.kill()
        running.wait(20)


def test_gunicorn_that_preloads_the_site(environment: dict[str, str], tmp_path: Path) -> None:
    port = free_port()
    words = ["-m", "gunicorn", "--preload", "-w", "2", "-b", f"127.0.0.1:{port}"]
    words += ["--no-control-socket", "tests.objects.fork_site"]
    log = tmp_path / "log"
    seen: set[bytes] = set()

    def both_have_answered() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
                seen.add(answer.read())
        except OSError:
            assert "Traceback" not in log.read_text(), log.read_text()
        return len(seen) == 2

    with process(words, environment, log):
        wait_until(both_have_answered, "they do not answer", seconds=120)


def test_celery_s_prefork_workers(
    environment: dict[str, str],
    tmp_path: Path,
    redis_server: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environment["BROKER"] = redis_server.url
    words = ["-m", "celery", "-A", "tests.objects.fork_site", "worker", "-c", "2", "-P", "prefork"]
    ask = """
from tests.objects.fork_site import task
print(*{task.delay().get(timeout=60) for _ in range(6)})
"""
    with process(words, environment, tmp_path / "log"):
        assert run(ask, environment).split()
