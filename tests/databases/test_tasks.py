"""Positions of messages, and the routes of tasks: in one process, by values and with SQLite."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from celery import Celery, signals
from celery.app.trace import trace_task
from django.contrib.auth.models import Group
from django.db import transaction
from django.test import override_settings
from rq import Queue

import outgrow.databases.celery
from outgrow.databases import reads, tasks, using_primary, using_replica
from outgrow.databases import route as routes
from outgrow.databases.cluster import Cluster
from outgrow.databases.position import Count, Lsn
from outgrow.databases.remember import unpacked
from outgrow.databases.route import NOTHING, PIN, REPLICA, Route, Wanted, active
from outgrow.databases.rq import Job
from outgrow.databases.tasks import (
    NOTHING_WANTED,
    Reads,
    reads_of,
    resent,
    running,
    sent,
    settle,
)
from outgrow.databases.watch import Watch
from outgrow.errors import ConfigurationError, ReplicaBehind
from outgrow.testing import free_port
from tests.databases.sites import site
from tests.live.processes import wait_until
from tests.live.redis import Redis

if find_spec("django.tasks"):
    from django.tasks import task as django_task
    from django.tasks import task_backends
else:
    from django_tasks import task as django_task
    from django_tasks import task_backends

REPLICAS = {"replica1", "replica2"}


def served_by() -> str:
    return Group.objects.all().db


def wanted(text: str) -> Wanted:
    return unpacked(text, 0).get("default", NOTHING)


@pytest.fixture
def here(cluster: Cluster) -> Wanted:
    """Where the primary is: with SQLite it counts nothing, so it is there for ever."""
    found = wanted(sent())
    assert isinstance(found.positions[0], Count)
    return found


# --- what is sent


def test_who_has_done_nothing_sends_nothing(cluster: Cluster) -> None:
    with active(Route(REPLICA)):
        assert sent() == NOTHING_WANTED
    with active(Route()):
        assert sent() == NOTHING_WANTED


def test_a_sender_that_wrote_or_read_sends_where_that_was(cluster: Cluster, here: Wanted) -> None:
    with active(Route(REPLICA)):
        Group.objects.create(name="a")
        assert wanted(sent()) == here
    for default in ("primary", "replica"):
        with active(Route(default)):
            list(Group.objects.all())
            assert wanted(sent()) == here


def test_outside_of_any_route_it_is_the_primary(cluster: Cluster, here: Wanted) -> None:
    list(Group.objects.all())
    assert wanted(sent()) == here


def test_what_the_sender_wanted_goes_on(cluster: Cluster, here: Wanted) -> None:
    before = Wanted((Lsn(1, 7),))
    with active(Route(REPLICA, {"default": before})):
        assert wanted(sent()) == before
        list(Group.objects.all())
        assert wanted(sent()) == before.merged(here)
    with active(Route(REPLICA, {"default": PIN})):
        assert wanted(sent()) == PIN


def test_in_a_transaction_it_is_pinned(cluster: Cluster, here: Wanted) -> None:
    with active(Route(REPLICA)):
        with transaction.atomic():
            Group.objects.create(name="a")
            assert wanted(sent()) == PIN
            transaction.on_commit(lambda: seen.append(sent()))
            seen: list[str] = []
        assert wanted(seen[0]) == here
        with transaction.atomic():
            list(Group.objects.all())
            assert wanted(sent()) == PIN


def test_in_a_transaction_on_the_replica_the_primary_is_asked(
    cluster: Cluster, here: Wanted
) -> None:
    with active(Route(REPLICA)), transaction.atomic(using=served_by()):
        list(Group.objects.all())
        assert wanted(sent()) == here


def test_on_an_event_loop_nobody_is_asked(cluster: Cluster, here: Wanted) -> None:
    async def send() -> str:
        return sent()

    with active(Route(REPLICA)):
        list(Group.objects.all())
        assert wanted(async_to_sync(send)()) == PIN
    with active(Route(REPLICA)):
        assert async_to_sync(send)() == NOTHING_WANTED


def test_everything_is_what_the_primary_has(cluster: Cluster, here: Wanted) -> None:
    with active(Route(REPLICA)):
        assert wanted(sent(everything=True)) == here


def test_a_message_that_is_sent_again_keeps_its_position(cluster: Cluster, here: Wanted) -> None:
    before = Wanted((Lsn(1, 7),))
    text = tasks.packed({"default": before}, 2**40)
    assert wanted(resent(text)) == before
    with running(text, Reads("sticky")):
        list(Group.objects.using("default"))
        assert wanted(resent(text)) == before
        Group.objects.create(name="a")
        assert wanted(resent(text)) == before.merged(here)
    assert wanted(resent("nonsense")) == PIN
    assert resent(NOTHING_WANTED) == NOTHING_WANTED


# --- how a task reads


UNREADABLE = ["", "nonsense", "[1,2]", "[9e99,{}", '[1e15,{"default":"x"}]']


@pytest.mark.parametrize("text", [None, *UNREADABLE])
def test_a_message_without_a_position_reads_the_primary(cluster: Cluster, text: str | None) -> None:
    with running(text, Reads("sticky")):
        assert served_by() == "default"


def test_a_position_has_no_deadline(cluster: Cluster) -> None:
    with running(sent(), Reads("sticky")):
        assert served_by() in REPLICAS
    assert unpacked(sent(), 2**39)


def test_the_consistency_says_where_a_task_reads(cluster: Cluster) -> None:
    with running(sent(), Reads()):
        assert served_by() == "default"
        with using_replica():
            assert served_by() in REPLICAS
    with running(sent(), Reads("delayed")):
        settle()
        assert served_by() in REPLICAS
    assert routes.current() is None


def test_a_task_may_write_where_a_read_request_may_not(sqlite_databases: dict[str, Any]) -> None:
    with site(sqlite_databases, write_on_read="refuse"), running(sent(), Reads("sticky")):
        assert served_by() in REPLICAS
        Group.objects.create(name="a")
        assert served_by() == "default"


NEVER = tasks.packed({"default": Wanted((Lsn(1, 7),))}, 2**40)


def test_a_position_that_can_never_be_reached_costs_no_wait(cluster: Cluster) -> None:
    begin = cluster.clock()
    with running(NEVER, Reads("sticky", wait=60)):
        assert served_by() == "default"
    assert cluster.clock() - begin < 30


def test_a_task_waits_whatever_the_options_say(sqlite_databases: dict[str, Any]) -> None:
    with site(sqlite_databases, when_behind="stale"), running(NEVER, Reads("sticky", wait=0)):
        assert served_by() == "default"


def test_delayed_is_put_back_before_it_begins(cluster: Cluster) -> None:
    begun = []

    @reads("delayed", wait=0)
    def work() -> None:
        begun.append(served_by())

    def postpone(error: ReplicaBehind) -> None:
        raise error

    with pytest.raises(ReplicaBehind, match="pg:1:0/7"):
        with running(NEVER, reads_of(work), postpone=postpone):
            work()
    assert begun == []
    # The second time there is nobody who puts it back; and neither if that fails.
    with running(NEVER, reads_of(work)):
        work()
    with running(NEVER, reads_of(work), postpone=lambda error: None):
        work()
    # A pin stays one however long it waits; and who wants nothing waits for nobody.
    with running(None, reads_of(work), postpone=postpone):
        work()
    with running(NOTHING_WANTED, reads_of(work), postpone=postpone):
        work()
    assert begun[:3] == ["default"] * 3
    assert begun[3] in REPLICAS
    # Called by another task it is no task.
    with running(NEVER, Reads("sticky", wait=0), postpone=postpone):
        work()
    work()


def test_delivered_again_a_task_sees_all_that_the_primary_has(
    cluster: Cluster, here: Wanted
) -> None:
    with running(NOTHING_WANTED, Reads("sticky"), again=True):
        route = routes.current()
        assert route is not None
        assert route.wanted == {"default": here}


# --- leaks


def test_a_task_leaves_nothing_even_if_it_leaves_its_blocks_open(cluster: Cluster) -> None:
    with pytest.raises(ZeroDivisionError), running(sent(), Reads("sticky")) as _:
        inner = routes.current()
        routes.enter("primary")
        using_replica(stale=True).__enter__()
        raise ZeroDivisionError
    assert routes.current() is None
    assert routes.override("default") is None
    assert inner is not None
    assert not inner.is_open


def test_a_task_begins_with_nothing(cluster: Cluster) -> None:
    """Whatever an interrupted task has left; in a context of its own, so this test leaves none."""

    def work() -> None:
        routes._current.set(Route(REPLICA, {"default": PIN}))
        routes.enter("replica")
        with running(sent(), Reads()):
            assert served_by() == "default"
        assert routes.current() is None
        assert served_by() == "default"

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_within_a_request_facts_are_shared(cluster: Cluster) -> None:
    with active(Route(REPLICA)) as request:
        with running(sent(), Reads("always"), inside=True):
            assert served_by() == "default"
        assert served_by() in REPLICAS
        with using_primary(), running(sent(), Reads("sticky"), inside=True):
            assert served_by() in REPLICAS
            Group.objects.create(name="a")
            assert served_by() == "default"
        # It counts for the request.
        assert routes.current() is request
        assert request.is_open
        assert request.written() == ["default"]
        assert served_by() == "default"
        with running(sent(), Reads("sticky"), inside=True):
            assert served_by() == "default"


def test_a_process_that_is_forked_knows_what_its_parent_knew(cluster: Cluster) -> None:
    watch = Watch(cluster)
    try:
        watch.ensure()
        wait_until(
            lambda: any(cluster.knowledge.is_fresh(one, cluster.clock()) for one in REPLICAS),
            "nobody is fresh",
        )
        begun = watch._threads
        watch._pid = -1  # as a child finds it
        watch._forked()
        watch.ensure()
        assert watch._threads is begun
        for replica in REPLICAS:
            cluster.knowledge.forget_replica(replica)
        watch._stopping.set()
        watch.ensure()
        assert watch._threads is not begun
    finally:
        watch.stop()


# --- the decorator


def test_reads_is_a_mark() -> None:
    @reads("sticky", wait=2)
    def plain(a: int) -> int:
        return a

    @reads("delayed", delay=3)
    def wrapped(a: int, *, b: int = 2) -> int:
        """Say something."""
        return a + b

    @reads("delayed")
    async def awaited(a: int) -> int:
        return a

    assert reads_of(plain) == Reads("sticky", wait=2)
    assert reads_of(wrapped) == Reads("delayed", delay=3)
    assert reads_of(len) == reads_of(None) == Reads()
    assert wrapped(1) == 3
    assert wrapped.__doc__ == "Say something."
    assert inspect.getfullargspec(wrapped).args == ["a"]
    assert inspect.iscoroutinefunction(awaited)
    assert asyncio.run(awaited(1)) == 1


def test_mistakes_with_reads() -> None:
    with pytest.raises(ConfigurationError, match="'often' is no way to read"):
        reads("often")
    with pytest.raises(ConfigurationError, match="next to the function"):
        reads("sticky")(object())  # type: ignore[type-var]


# --- eager modes


@pytest.fixture
def celery_app() -> Iterator[Celery]:
    outgrow.databases.celery.connect()
    outgrow.databases.celery.connect()
    with Celery("tests", set_as_current=False) as app:
        app.conf.task_always_eager = True
        yield app


def test_an_eager_task_of_celery(cluster: Cluster, celery_app: Celery) -> None:
    seen = []

    @celery_app.task
    @reads("sticky")
    def look() -> None:
        seen.append(served_by())

    @celery_app.task(bind=True)
    @reads("delayed", wait=0)
    def write(self: Any, name: str) -> None:
        seen.append(served_by())
        Group.objects.create(name=name)
        look.delay()
        raise RuntimeError("it fails")

    with active(Route(REPLICA)) as request:
        look.delay()
        assert seen.pop() in REPLICAS
        write.delay("a")
        assert routes.current() is request
        assert served_by() == "default"
    assert seen[0] in REPLICAS
    assert seen[1:] == ["default"]
    # Outside of any route nobody knows what it is to see.
    look.delay()
    assert seen[-1] == "default"
    assert routes.current() is None
    with pytest.raises(TypeError):
        write.delay("a", "b")


def test_what_beat_sends_is_to_see_nothing(cluster: Cluster, celery_app: Celery) -> None:
    sent_headers: dict[str, Any] = {}
    signals.before_task_publish.send(sender="a", headers=sent_headers)
    assert sent_headers["outgrow_position"] == sent()
    signals.beat_init.send(sender=None)
    try:
        signals.before_task_publish.send(sender="a", headers=(from_beat := {}))
        assert from_beat == {"outgrow_position": NOTHING_WANTED}
        # Where there is a position already, it stays.
        signals.before_task_publish.send(sender="a", headers=sent_headers)
        assert sent_headers["outgrow_position"] == sent()
    finally:
        signals.before_task_publish.disconnect(dispatch_uid="outgrow._publish")
        outgrow.databases.celery.connect()


def test_a_task_that_can_not_be_put_back_reads_the_primary(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker is away; a task of a worker, as Celery traces it."""
    outgrow.databases.celery.connect()
    with Celery("tests", set_as_current=False, broker=f"redis://127.0.0.1:{free_port()}") as app:
        app.conf.task_publish_retry = False
        app.conf.broker_transport_options = {"max_retries": 0}

        @app.task
        @reads("delayed", wait=0)
        def work() -> str:
            return served_by()

        request = {"outgrow_position": NEVER, "id": "1", "delivery_info": {}}
        result = trace_task(work, "1", (), {}, request, app=app)
        assert result.retval == "default"
    assert "is not put back" in caplog.text


@pytest.fixture
def eager_queue(redis_server: Redis) -> Iterator[Queue]:
    from redis import Redis as Client

    with Client.from_url(redis_server.url) as client:
        yield Queue(is_async=False, connection=client, job_class="outgrow.databases.rq.Job")


@reads("sticky")
def rq_look(name: str = "") -> str:
    if name:
        Group.objects.create(name=name)
    return served_by()


@reads("delayed", wait=0)
def rq_delayed() -> str:
    return served_by()


def test_an_eager_job_of_rq(cluster: Cluster, eager_queue: Queue) -> None:
    with active(Route(REPLICA)) as request:
        assert eager_queue.enqueue(rq_look).return_value() in REPLICAS
        assert eager_queue.enqueue(rq_delayed).return_value() in REPLICAS
        job = eager_queue.enqueue(rq_look, "a")
        assert isinstance(job, Job)
        assert job.return_value() == "default"
        assert routes.current() is request
        assert served_by() == "default"
    assert routes.current() is None


@django_task()
@reads("sticky")
def django_look(name: str = "") -> str:
    if name:
        Group.objects.create(name=name)
    return served_by()


@django_task(takes_context=True)
@reads("delayed", wait=0)
async def django_look_async(context: Any) -> str:
    assert context.attempt == 1
    return str(await sync_to_async(served_by)())


@contextmanager
def immediate() -> Iterator[None]:
    backend = "outgrow.databases.task_backends.ImmediateBackend"
    with override_settings(TASKS={"default": {"BACKEND": backend}}):
        yield


def carrying(task: Any) -> Any:
    """The task as the decorator makes it where TASKS names our backend."""
    return task_backends["default"].task_class(func=task.func, takes_context=task.takes_context)


def test_an_immediate_task_of_django(cluster: Cluster) -> None:
    with immediate(), active(Route(REPLICA)) as request:
        task = carrying(django_look)
        result = task.enqueue()
        assert result.return_value in REPLICAS
        assert set(result.kwargs) == {"outgrow_position"}
        again = task.enqueue(**result.kwargs)
        assert again.return_value in REPLICAS
        assert async_to_sync(task.aenqueue)().return_value in REPLICAS
        context = carrying(django_look_async)
        assert context.enqueue().return_value in REPLICAS
        assert async_to_sync(context.acall)(result_with_attempt()) in REPLICAS
        assert task.enqueue("a").return_value == "default"
        assert routes.current() is request
        assert served_by() == "default"
    assert routes.current() is None


def result_with_attempt() -> Any:
    class Context:
        attempt = 1

    return Context()


def test_tasks_of_django_are_changed_and_pickled_as_before(cluster: Cluster) -> None:
    with immediate():
        task = carrying(django_look).using(priority=3)
        assert task.priority == 3
        assert task.carries_positions
        kind = type(task)
        assert pickle.loads(pickle.dumps(kind)) is kind


# --- extras


MISSING = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
import outgrow.databases, outgrow.databases.tasks
assert "celery" not in sys.modules and "rq" not in sys.modules
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: (
    None if name.partition(".")[0] == {package!r} else real(name, package)
)
try:
    {statement}
except ImportError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("package", "statement", "extra"),
    [
        ("celery", "import outgrow.databases.celery", "celery"),
        ("rq", "import outgrow.databases.rq", "rq"),
        (
            "django_tasks_db",
            "from outgrow.databases.task_backends import DatabaseBackend",
            "tasks",
        ),
    ],
)
def test_a_package_that_is_not_there_is_named_with_its_extra(package, statement, extra):
    code = MISSING.format(package=package, statement=statement)
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.startswith("MissingExtra")
    assert f"pip install 'outgrow[{extra}]'" in done.stdout
