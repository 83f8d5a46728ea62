"""Positions that travel with tasks: real workers, a real PostgreSQL, and its replay paused."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from redis import Redis as Client

from tests.databases.test_promises_postgres import settle
from tests.live.databases import PATIENCE
from tests.live.processes import wait_until
from tests.live.redis import Redis
from tests.live.replicas import OWNER, PLAIN, READER, PostgresCluster
from tests.live.test_jobs import kill

ROOT = Path(__file__).parents[2]
REPLICAS = {"replica1", "replica2"}

_CELERY = ["-m", "celery", "-A", "tests.databases.work_site", "worker", "-P"]
_RQ = ["-m", "rq.cli", "worker", "--url", "{broker}", "-j", "outgrow.databases.rq.Job", "-w"]
WORKERS = {
    "celery, prefork": [*_CELERY, "prefork", "-c", "1"],
    "celery, solo": [*_CELERY, "solo"],
    "rq": [*_RQ, "outgrow.databases.rq.Worker", "default"],
    "rq, simple": [*_RQ, "rq.worker.SimpleWorker", "default"],
    "tasks": ["-m", "django", "db_worker", "--interval", "0.05", "--no-startup-delay"],
}
#: One of each queue; and those that can put a task back.
EACH = ["celery, prefork", "rq", "tasks"]
RETRYING = ["celery, prefork", "rq"]


class Site:
    """A site with a queue, in processes of their own: a visitor and a worker."""

    def __init__(self, servers: PostgresCluster, broker: str, runner: str) -> None:
        self.servers = servers
        self.runner = runner
        self.broker = broker
        kept = {"CONN_MAX_AGE": None, "TEST": {"MIRROR": "default"}}
        databases = {"default": servers.primary.database(user=PLAIN, **kept)}
        for standby in servers.standbys:
            databases[standby.name] = standby.database(user=READER, **kept)
        self.environment = os.environ | {
            "DJANGO_SETTINGS_MODULE": "tests.databases.work_site",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
            "DATABASES": json.dumps(databases),
            "BROKER": broker,
            "RUNNER": runner.partition(",")[0],
        }
        self.redis = Client.from_url(broker)

    @contextmanager
    def process(self, *words: str, **pipes: Any) -> Iterator[subprocess.Popen[Any]]:
        process = subprocess.Popen(
            [sys.executable, *words],
            env=self.environment,
            cwd=ROOT,
            start_new_session=True,
            **pipes,
        )
        try:
            yield process
        finally:
            kill(process)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    @contextmanager
    def worker(self) -> Iterator[None]:
        words = [word.format(broker=self.broker) for word in WORKERS[self.runner]]
        with self.process(*words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            yield

    @contextmanager
    def visitor(self) -> Iterator[None]:
        words = ["-m", "tests.databases.work_visitor"]
        with self.process(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as it:
            self._visitor = it
            yield

    def request(self, method: str, path: str, who: str = "writer", **given: str) -> Any:
        """The answer to a request of a visitor."""
        line = json.dumps([who, method, f"{path}?{urlencode(given)}"])
        assert self._visitor.stdin is not None
        assert self._visitor.stdout is not None
        self._visitor.stdin.write(f"{line}\n")
        self._visitor.stdin.flush()
        return json.loads(self._visitor.stdout.readline())

    def post(self, task: str, label: str, who: str = "writer", **given: str) -> Any:
        return self.request("post", "/send/", who, task=task, label=label, **given)

    def warm(self) -> int:
        """Have everybody see that all replicas are fresh; the worker's process."""
        for number in itertools.count():
            path = {"task": "sticky", "label": f"warm{number}", "read": "1"}
            read = self.request("get", "/send/", "nobody", **path)
            done = self.seen(f"warm{number}")
            if {read["db"], done["db"]} <= REPLICAS:
                break
            assert number < 100
        settle(self.servers)
        return int(done["pid"])

    def seen(self, label: str) -> dict[str, Any]:
        """What a task has told."""
        wait_until(lambda: label in self.told(), f"nothing of {label}", seconds=PATIENCE)
        return self.told()[label]

    def told(self) -> dict[str, dict[str, Any]]:
        lines = [json.loads(line) for line in self.redis.lrange("seen", 0, -1)]
        assert len({line["label"] for line in lines}) == len(lines), "a task ran twice"
        return {line["label"]: line for line in lines}

    def is_put_back(self) -> bool:
        """Whether there is a task that was put back."""
        for key in self.redis.scan_iter():
            kind = self.redis.type(key)
            if kind == b"hash":
                values = self.redis.hvals(key)
            elif kind == b"list":
                values = self.redis.lrange(key, 0, -1)
            else:
                continue
            if any(b"outgrow_postponed" in value for value in values):
                return True
        return False


def only(*runners: str) -> Any:
    """The fixture with these workers alone."""
    return pytest.mark.parametrize("work", runners, indirect=True)


@pytest.fixture(params=WORKERS)
def work(
    request: Any,
    redis_server: Redis,
    migrated_postgres: PostgresCluster,
    postgres_cluster: PostgresCluster,
) -> Iterator[Site]:
    """A site whose visitor and worker are running."""
    made = Site(postgres_cluster, redis_server.url, request.param)
    if request.param == "tasks":
        databases = json.loads(made.environment["DATABASES"])
        databases["default"]["USER"] = OWNER
        environment = made.environment | {"DATABASES": json.dumps(databases)}
        migrate = [sys.executable, "-m", "django", "migrate", "--verbosity", "0"]
        subprocess.run(migrate, env=environment, cwd=ROOT, check=True, timeout=60)
        postgres_cluster.wait_caught_up()
    with ExitStack() as stack:
        stack.callback(made.redis.close)
        stack.enter_context(made.visitor())
        stack.enter_context(made.worker())
        yield made
    postgres_cluster.mend()
    empty = "TRUNCATE auth_group, auth_user CASCADE"
    postgres_cluster.primary.execute(empty)
    if request.param == "tasks":
        # Its name is another one than the app's.
        find = "SELECT tablename FROM pg_tables WHERE tablename LIKE 'django_tasks%result'"
        postgres_cluster.primary.execute(f"TRUNCATE {postgres_cluster.primary.value(find)}")


def pause(servers: PostgresCluster) -> None:
    for standby in servers.standbys:
        standby.pause_replay()


def test_with_replay_paused_a_task_sees_what_its_request_wrote(work: Site) -> None:
    work.warm()
    pause(work.servers)
    for number in range(3):
        work.post("sticky", f"s{number}", name=f"n{number}")
        assert work.seen(f"s{number}")["db"] == "default"
        assert work.seen(f"s{number}")["names"][-1] == f"n{number}"
    work.post("always", "a")
    assert work.seen("a")["db"] == "default"
    read = work.request("get", "/send/", "other", task="sticky", label="o", read="1")
    assert read["db"] in REPLICAS
    # What it is to see is what its sender saw, and that was a replica.
    assert work.seen("o")["db"] in REPLICAS
    assert work.seen("o")["names"] == []


@only(*EACH)
def test_the_replica_that_has_it_serves(work: Site) -> None:
    first, second = work.servers.standbys
    work.warm()
    first.pause_replay()
    # So long it must be waited for, and not for the other one.
    second.set("recovery_min_apply_delay", "300ms")
    begin = time.monotonic()
    for number in range(3):
        work.post("patient", f"p{number}", name=f"n{number}")
        assert work.seen(f"p{number}")["db"] == "replica2"
        assert work.seen(f"p{number}")["names"][-1] == f"n{number}"
    assert time.monotonic() - begin < 25, "a task has waited for the one that is paused"


@only(*EACH)
def test_a_task_waits_for_a_replica(work: Site) -> None:
    work.warm()
    for standby in work.servers.standbys:
        standby.set("recovery_min_apply_delay", "700ms")
    work.post("patient", "p", name="a")
    assert work.seen("p")["db"] in REPLICAS
    assert work.seen("p")["names"] == ["a"]


@only(*RETRYING)
def test_a_delayed_task_is_put_back_once(work: Site) -> None:
    work.warm()
    pause(work.servers)
    work.post("delayed", "first", name="a")
    wait_until(work.is_put_back, "it is not put back", seconds=PATIENCE)
    for standby in work.servers.standbys:
        standby.resume_replay()
    settle(work.servers)
    assert work.seen("first")["db"] in REPLICAS
    assert work.seen("first")["names"] == ["a"]
    pause(work.servers)
    work.post("delayed", "second", name="b")
    assert work.seen("second")["db"] == "default"
    assert work.seen("second")["names"] == ["a", "b"]


@only("tasks")
def test_a_delayed_task_of_django_waits_and_reads_the_primary(work: Site) -> None:
    pause(work.servers)
    work.post("delayed", "first", name="a")
    assert work.seen("first")["db"] == "default"
    assert work.seen("first")["names"] == ["a"]


@only(*RETRYING)
def test_a_task_that_is_tried_again_keeps_its_position(work: Site) -> None:
    """What others wrote meanwhile is nothing that it must see; what it wrote itself is."""
    work.warm()
    work.post("again", "plain", name="a")
    assert work.seen("plain second")["names"] == ["a"]
    settle(work.servers)
    pause(work.servers)
    work.servers.primary.execute("INSERT INTO auth_group (name) VALUES ('of others')")
    work.request("get", "/send/", "other", task="again", label="kept")
    for label in ("kept first", "kept second"):
        assert work.seen(label)["db"] in REPLICAS
        assert work.seen(label)["names"] == ["a"]
    work.request("get", "/send/", "other", task="again", label="wrote", argument="b")
    assert work.seen("wrote first")["db"] in REPLICAS
    assert work.seen("wrote second")["db"] == "default"
    assert work.seen("wrote second")["names"] == ["a", "b", "of others"]


@pytest.mark.parametrize(
    ("work", "task"),
    [
        ("celery, prefork", "killed"),
        # By the same process: it knows that replicas are fresh.
        ("celery, solo", "rejected"),
        ("rq", "killed"),
    ],
    indirect=["work"],
)
def test_a_task_that_is_delivered_again_sees_what_it_wrote(work: Site, task: str) -> None:
    work.warm()
    pause(work.servers)
    work.request("get", "/send/", "other", task=task, label="k", argument="a")
    assert work.seen("k")["db"] == "default"
    assert work.seen("k")["names"] == ["a"]


@only(*EACH)
def test_a_task_that_writes_sends_what_it_wrote(work: Site) -> None:
    work.warm()
    pause(work.servers)
    work.request("get", "/send/", "other", task="writing", label="w", argument="a")
    assert work.seen("w before")["db"] in REPLICAS
    assert work.seen("w")["db"] == "default"
    assert work.seen("w next")["names"] == ["a"]


@only(*RETRYING)
def test_a_task_that_follows_sees_what_the_one_before_wrote(work: Site) -> None:
    work.warm()
    pause(work.servers)
    work.request("get", "/chained/", "other", label="c", name="a")
    assert work.seen("c writer before")["db"] in REPLICAS
    assert work.seen("c reader")["names"] == ["a"]


@only("celery, solo")
def test_the_body_of_a_chord_sees_what_all_of_its_header_wrote(work: Site) -> None:
    work.warm()
    pause(work.servers)
    work.request("get", "/chained/", "other", label="c", name="a", chord="1")
    assert work.seen("c other")["db"] in REPLICAS
    assert work.seen("c reader")["names"] == ["a"]


@pytest.mark.parametrize(
    ("work", "task"),
    [
        ("celery, prefork", "careless"),
        ("celery, prefork", "endless"),
        ("celery, solo", "careless"),
        ("rq, simple", "careless"),
        ("rq, simple", "endless"),
        ("tasks", "careless"),
    ],
    indirect=["work"],
)
def test_nothing_leaks_into_the_next_task(work: Site, task: str) -> None:
    process = work.warm()
    pause(work.servers)
    work.request("get", "/send/", "other", task=task, label="bad", argument="a")
    assert work.seen("bad")["db"] == "default"
    # Another visitor: where the queue is in the database, who sent a task has written.
    work.request("get", "/send/", "third", task="sticky", label="next")
    assert work.seen("next")["db"] in REPLICAS
    assert work.seen("next")["names"] == []
    work.request("get", "/send/", "other", task="always", label="last")
    assert work.seen("last")["db"] == "default"
    assert {work.seen(label)["pid"] for label in ("bad", "next", "last")} == {process}


@only(*EACH)
def test_sent_in_a_transaction_a_task_reads_the_primary(work: Site) -> None:
    work.warm()
    work.post("sticky", "inside", atomic="1", name="a")
    # A worker may be quicker than the commit, with or without replicas.
    assert work.seen("inside")["db"] == "default"
    work.post("patient", "behind", commit="1", name="b")
    assert work.seen("behind")["db"] in REPLICAS
    assert work.seen("behind")["names"] == ["a", "b"]
