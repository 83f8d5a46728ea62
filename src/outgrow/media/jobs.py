"""Replication as jobs of the site's own queue: Celery, RQ, or Django's tasks.

Celery finds its task by itself when `outgrow` is in INSTALLED_APPS. A job names the
storage, the server and the file, and nothing else: what is to be done is decided by
looking at the master when the job runs, so jobs may be late, lost or repeated.
"""

from __future__ import annotations

import importlib
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

import django
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured

from outgrow import conf
from outgrow.errors import ConfigurationError, MissingExtra

if TYPE_CHECKING:
    from outgrow.media.storages import AsyncStorage


def replicate(alias: str, server: str, name: str) -> None:
    """Bring one file on one server to the master's state.

    `alias` is the storage's in STORAGES. A server that is down stays owed the file, and
    the job is done all the same: `media repair --watch` looks after that.
    """
    if not apps.ready:  # a plain RQ worker knows DJANGO_SETTINGS_MODULE and no more
        django.setup()
    from django.core.files.storage import storages

    cast("AsyncStorage", storages[alias]).replicate(server, name)


if find_spec("celery"):
    from celery import shared_task

    #: The same as a task of Celery.
    celery_replicate = shared_task(name="outgrow.replicate", ignore_result=True)(replicate)


def problem(runner: str) -> MissingExtra | ConfigurationError | None:
    """Why no job can be given to this runner: its package or, with Django's, TASKS; or None.

    May import the runner's own package, and reads the settings.
    """
    module = conf.tasks_package() if runner == "tasks" else runner
    if find_spec(module) is None:
        return MissingExtra(f"background={runner!r}", module.replace("_", "-"), runner)
    return _problem_of_tasks(module) if runner == "tasks" else None


def _problem_of_tasks(package: str) -> ConfigurationError | None:
    errors = importlib.import_module(f"{package}.exceptions")
    try:
        importlib.import_module("outgrow.media.django_job")
    except (ImproperlyConfigured, errors.TaskException) as error:
        hint = f"'BACKEND' names a class that {package} can load: see docs/howto/background.md."
        return ConfigurationError("TASKS['default']", f"takes no task: {error}", hint)
    return None


def send(runner: str, arguments: tuple[str, str, str], *, queue: str, broker: str) -> None:
    """Queue one job of `replicate`. Raises what the runner's own library raises."""
    found = problem(runner)
    if found is not None:
        raise found
    {"celery": _send_celery, "rq": _send_rq, "tasks": _send_task}[runner](arguments, queue, broker)


def _send_celery(arguments: tuple[str, str, str], queue: str, _broker: str) -> None:
    celery_replicate.apply_async(arguments, **({"queue": queue} if queue else {}))


def _send_rq(arguments: tuple[str, str, str], queue: str, broker: str) -> None:
    from rq import Queue

    Queue(queue or "default", connection=_redis(broker)).enqueue(replicate, *arguments)


def _send_task(arguments: tuple[str, str, str], queue: str, _broker: str) -> None:
    from outgrow.media.django_job import django_replicate

    job = django_replicate.using(queue_name=queue) if queue else django_replicate
    job.enqueue(*arguments)


@lru_cache(maxsize=4)
def _redis(broker: str) -> Any:
    """A pool of connections; redis-py opens new ones after a fork."""
    from redis import Redis

    return Redis.from_url(broker, socket_timeout=5, socket_connect_timeout=5)
