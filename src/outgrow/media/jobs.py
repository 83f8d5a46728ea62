"""Replication as jobs of the site's own queue: Celery, RQ, or Django's tasks.

Celery finds its task by itself when `outgrow` is in INSTALLED_APPS. A job names the
storage, the server and the file, and nothing else: what is to be done is decided by
looking at the master when the job runs, so jobs may be late, lost or repeated.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, cast

import django
from django.apps import apps

from outgrow.errors import MissingExtra

if TYPE_CHECKING:
    from outgrow.media.storages import AsyncStorage

#: What runs jobs, for the option `background`: the module that it needs, and our extra.
RUNNERS: Final = {"celery": "celery", "rq": "rq", "tasks": "django_tasks"}


def replicate(alias: str, server: str, name: str) -> None:
    """Bring one file on one server to the master's state.

    `alias` is the storage's in STORAGES. A server that is down stays owed the file, and
    the job is done all the same: `media repair --watch` looks after that.
    """
    if not apps.ready:  # a plain RQ worker knows DJANGO_SETTINGS_MODULE and no more
        django.setup()
    from django.core.files.storage import storages

    cast("AsyncStorage", storages[alias]).replicate(server, name)


if importlib.util.find_spec("celery"):
    from celery import shared_task

    #: The same as a task of Celery.
    celery_replicate = shared_task(name="outgrow.replicate", ignore_result=True)(replicate)


def _task_decorator() -> Any:
    """Django's own, since 6.0, or the backport's."""
    for module in ("django.tasks", "django_tasks"):
        if importlib.util.find_spec(module):
            return importlib.import_module(module).task()
    return None


_task = _task_decorator()
if _task is not None:

    @_task  # type: ignore[untyped-decorator]
    def django_replicate(alias: str, server: str, name: str) -> None:
        """The same as a task of Django's."""
        replicate(alias, server, name)


def missing(runner: str) -> MissingExtra | None:
    """The error for a runner whose package is not installed; None when all is there."""
    if runner == "tasks" and _task is not None:
        return None
    module = RUNNERS[runner]
    if importlib.util.find_spec(module):
        return None
    return MissingExtra(f"background={runner!r}", module.replace("_", "-"), runner)


def send(runner: str, arguments: tuple[str, str, str], *, queue: str, broker: str) -> None:
    """Queue one job of `replicate`. Raises what the runner's own library raises."""
    problem = missing(runner)
    if problem is not None:
        raise problem
    {"celery": _send_celery, "rq": _send_rq, "tasks": _send_task}[runner](arguments, queue, broker)


def _send_celery(arguments: tuple[str, str, str], queue: str, _broker: str) -> None:
    celery_replicate.apply_async(arguments, **({"queue": queue} if queue else {}))


def _send_rq(arguments: tuple[str, str, str], queue: str, broker: str) -> None:
    from rq import Queue

    Queue(queue or "default", connection=_redis(broker)).enqueue(replicate, *arguments)


def _send_task(arguments: tuple[str, str, str], queue: str, _broker: str) -> None:
    job = django_replicate.using(queue_name=queue) if queue else django_replicate
    job.enqueue(*arguments)


@lru_cache(maxsize=4)
def _redis(broker: str) -> Any:
    """A pool of connections; redis-py opens new ones after a fork."""
    from redis import Redis

    return Redis.from_url(broker, socket_timeout=5, socket_connect_timeout=5)
