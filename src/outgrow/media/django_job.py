"""The job of Django's own tasks, in a module of its own.

To define a task asks its backend at once, so that a mistake in TASKS shows when this is
imported: sites whose jobs are Celery's or RQ's never do that.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any, Final

from outgrow import conf
from outgrow.media.jobs import replicate

#: Django's own package, since 6.0, or the backport.
PACKAGE: Final = "django.tasks" if find_spec("django.tasks") else "django_tasks"

_task: Any = importlib.import_module(PACKAGE).task


@_task(queue_name=conf.task_queue())  # type: ignore[untyped-decorator]
def django_replicate(alias: str, server: str, name: str) -> None:
    """`jobs.replicate` as a task of Django's."""
    replicate(alias, server, name)
