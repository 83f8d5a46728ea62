"""The job of Django's own tasks, in a module of its own.

To define a task asks its backend at once, so that a mistake in TASKS shows when this is
imported: sites whose jobs are Celery's or RQ's never do that.
"""

from __future__ import annotations

import importlib
from typing import Any

from outgrow import conf
from outgrow.media.jobs import replicate

_task: Any = importlib.import_module(conf.tasks_package()).task


@_task(queue_name=conf.task_queue())  # type: ignore[untyped-decorator]
def django_replicate(alias: str, server: str, name: str) -> None:
    """`jobs.replicate` as a task of Django's."""
    replicate(alias, server, name)
