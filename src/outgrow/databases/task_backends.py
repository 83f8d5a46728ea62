"""Positions that travel with Django's tasks, among the arguments: backends for TASKS.

Django's tasks have no headers. So a backend of ours adds one keyword argument when a task is put
into the queue; and the tasks of that backend are of a class that takes it away again before the
function is called. `Carrying` does so for any backend::

    class Backend(Carrying, OtherBackend): ...

`DatabaseBackend` is that of django-tasks-db, `ImmediateBackend` the one of Django or, before
Django 6.0, of django-tasks.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from asgiref.sync import sync_to_async

from outgrow import conf
from outgrow.databases.tasks import reads_of, resent, running, sent
from outgrow.errors import MissingExtra

#: The keyword argument. It is seen in a result's `kwargs`, and never by a function.
POSITION: Final = "outgrow_position"


class Carrying:
    """What a backend of tasks needs to carry positions; stands before the backend's own class."""

    task_class: Any

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not getattr(cls.task_class, "carries_positions", False):
            cls.task_class = _carrying(cls.task_class)
            # So that pickle finds it.
            cls.task_class.__module__ = cls.__module__
            cls.task_class.__qualname__ = f"{cls.__qualname__}.task_class"

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        """Put a task into the queue, with the position of this moment."""
        return super().enqueue(task, args, _with_position(kwargs))  # type: ignore[misc]

    async def aenqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        """The same, from an event loop."""
        kwargs = await sync_to_async(_with_position)(kwargs)
        return await super().aenqueue(task, args, kwargs)  # type: ignore[misc]


class _Added(dict[str, Any]):
    """Arguments that have the position already: some backends' `aenqueue` calls `enqueue`."""


def _with_position(kwargs: Any) -> Any:
    if isinstance(kwargs, _Added):
        return kwargs
    text = kwargs.get(POSITION)
    return _Added({**kwargs, POSITION: sent() if text is None else resent(text)})


def _carrying(task_class: Any) -> Any:
    """The class of tasks that take the position away from their arguments."""

    class Task(task_class):  # type: ignore[misc]
        carries_positions = True

        def call(self, *args: Any, **kwargs: Any) -> Any:
            with running(kwargs.pop(POSITION, None), reads_of(self.func), inside=True):
                return super().call(*args, **kwargs)

        async def acall(self, *args: Any, **kwargs: Any) -> Any:
            with running(kwargs.pop(POSITION, None), reads_of(self.func), inside=True):
                return await super().acall(*args, **kwargs)

    return Task


if TYPE_CHECKING:
    DatabaseBackend: Any
    ImmediateBackend: Any


def __getattr__(name: str) -> Any:
    # Made when they are asked for: the packages that they need may not be there.
    if name == "DatabaseBackend":
        module = "django_tasks_db"
    elif name == "ImmediateBackend":
        module = conf.tasks_package()
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if find_spec(module) is None:
        raise MissingExtra(f"{__name__}.{name}", module.replace("_", "-"), "tasks")
    place = f"{module}.backend" if name == "DatabaseBackend" else f"{module}.backends.immediate"
    base = getattr(importlib.import_module(place), name)
    found = type(name, (Carrying, base), {"__module__": __name__, "__doc__": base.__doc__})
    globals()[name] = found
    return found
