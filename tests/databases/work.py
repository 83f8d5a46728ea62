"""Tasks for real workers, and the views that send them. Each task tells Redis what it saw."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from django.contrib.auth.models import Group
from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.urls import path
from redis import Redis

from outgrow.databases import reads, using_replica
from outgrow.databases import route as routes

RUNNER = os.environ["RUNNER"]
redis = Redis.from_url(os.environ["BROKER"])

TASKS: dict[str, Any] = {}


def task(function: Callable[..., Any]) -> Any:
    """Make it a task of the site's queue."""
    if RUNNER == "celery":
        from celery import shared_task

        made: Any = shared_task(function)
    elif RUNNER == "rq":
        made = function
    else:
        import importlib.util

        if importlib.util.find_spec("django.tasks"):
            from django.tasks import task as django_task
        else:
            from django_tasks import task as django_task
        made = django_task()(function)
    TASKS[function.__name__] = made
    return made


def send(name: str, *arguments: Any) -> None:
    """Put a task into the queue."""
    made = TASKS[name]
    if RUNNER == "celery":
        made.apply_async(arguments, soft_time_limit=1 if name == "endless" else None)
    elif RUNNER == "rq":
        from rq import Retry

        limits = {"job_timeout": 1} if name == "endless" else {"retry": Retry(max=1)}
        queue().enqueue(made, *arguments, **limits)
    else:
        made.enqueue(*arguments)


def queue() -> Any:
    from rq import Queue

    return Queue(connection=redis, job_class="outgrow.databases.rq.Job")


def tell(label: str) -> None:
    """Tell Redis who serves us, and what is there."""
    names = sorted(Group.objects.values_list("name", flat=True))
    seen = {"label": label, "db": Group.objects.all().db, "names": names, "pid": os.getpid()}
    redis.rpush("seen", json.dumps(seen))


def is_first(label: str) -> bool:
    return bool(redis.incr(f"attempts:{label}") == 1)


# --- tasks


@task
def always(label: str) -> None:
    tell(label)


@task
@reads("sticky", wait=0.3)
def sticky(label: str) -> None:
    tell(label)


@task
@reads("sticky", wait=30)
def patient(label: str) -> None:
    tell(label)


@task
@reads("delayed", wait=2, delay=1)
def delayed(label: str) -> None:
    tell(label)


@task
@reads("sticky", wait=0.3)
def writing(label: str, name: str) -> None:
    """Write, and send another one that is to see it."""
    tell(f"{label} before")
    Group.objects.create(name=name)
    tell(label)
    send("sticky", f"{label} next")


@task
@reads("sticky", wait=0.3)
def again(label: str, name: str = "") -> None:
    """Fail at first, with a write or without."""
    first = is_first(label)
    tell(f"{label} {'first' if first else 'second'}")
    if first:
        if name:
            Group.objects.create(name=name)
        _try_again()


def _try_again() -> None:
    if RUNNER == "celery":
        from celery import current_task

        raise current_task.retry(countdown=0)
    raise RuntimeError("once more")


@task
@reads("sticky", wait=0.3)
def killed(label: str, name: str) -> None:
    """Write, and have the process killed."""
    if is_first(label):
        Group.objects.create(name=name)
        os.kill(os.getpid(), signal.SIGKILL)
    tell(label)


@task
@reads("sticky", wait=0.3)
def rejected(label: str, name: str) -> None:
    """Write, and have Celery deliver the message again."""
    if is_first(label):
        Group.objects.create(name=name)
        from celery.exceptions import Reject

        raise Reject(requeue=True)
    tell(label)


@task
@reads("sticky", wait=0.3)
def careless(label: str, name: str) -> None:
    """Write, enter blocks without leaving them, and fail."""
    Group.objects.create(name=name)
    tell(label)
    routes.enter(routes.PRIMARY)
    using_replica(stale=True).__enter__()
    routes.enter(routes.PRIMARY)
    raise RuntimeError("the task fails")


@task
@reads("sticky", wait=0.3)
def endless(label: str, name: str) -> None:
    """Write, and run into a time limit within a block."""
    Group.objects.create(name=name)
    tell(label)
    routes.enter(routes.PRIMARY)
    while True:
        time.sleep(0.05)


# --- views


def sending(request: HttpRequest) -> JsonResponse:
    """Write, if there is a name, and send tasks; or send what was read."""
    given = request.GET
    arguments = [value for key in ("label", "argument") if (value := given.get(key))]

    seen = {}

    def work() -> None:
        if name := given.get("name"):
            Group.objects.create(name=name)
        if given.get("read"):
            list(Group.objects.all())
            seen["db"] = Group.objects.all().db
        if given.get("commit"):
            transaction.on_commit(lambda: send(given["task"], *arguments))
        else:
            send(given["task"], *arguments)

    if given.get("atomic") or given.get("commit"):
        with transaction.atomic():
            work()
    else:
        work()
    return JsonResponse(seen)


def chained(request: HttpRequest) -> JsonResponse:
    """Send a task that writes, and one that follows it."""
    label, name = request.GET["label"], request.GET["name"]
    if RUNNER == "celery":
        from celery import chain, chord

        writer = TASKS["writing"].si(f"{label} writer", name)
        reader = TASKS["sticky"].si(f"{label} reader")
        if request.GET.get("chord"):
            # The last of the header has written nothing.
            chord([writer, TASKS["sticky"].si(f"{label} other")])(reader)
        else:
            chain(writer, reader).apply_async()
    else:
        first = queue().enqueue(TASKS["writing"], f"{label} writer", name)
        queue().enqueue(TASKS["sticky"], f"{label} reader", depends_on=first)
    return JsonResponse({})


urlpatterns = [path("send/", sending), path("chained/", chained)]
