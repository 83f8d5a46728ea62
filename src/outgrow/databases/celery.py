"""Positions that travel with Celery's tasks, in the headers of their messages.

Once, where the site makes its app, which its web processes and its workers import alike::

    outgrow.databases.celery.connect()

Chains, groups, chords, callbacks, retries and redeliveries are covered. A task that
Celery beat sends wants nothing: beat writes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

from outgrow.databases.tasks import NOTHING_WANTED, Reads, reads_of, resent, running, sent
from outgrow.errors import MissingExtra, ReplicaBehind

try:
    from celery import current_task, signals
    from celery.exceptions import Retry
except ImportError as error:
    raise MissingExtra("outgrow.databases.celery", "celery", "celery") from error

logger: Final = logging.getLogger("outgrow.databases")

#: Headers of a message. Celery gives a retry those of the message before.
POSITION: Final = "outgrow_position"
POSTPONED: Final = "outgrow_postponed"

#: On the request of a task that runs: what is to be left behind it.
_STACK: Final = "_outgrow_stack"

#: It sends the body of a chord, of which it has no part.
_UNLOCK: Final = "celery.chord_unlock"


def connect() -> None:
    """Let positions travel with the tasks of all of this process's apps. Can be repeated."""
    for signal, receiver in (
        (signals.before_task_publish, _publish),
        (signals.task_prerun, _begin),
        (signals.task_postrun, _end),
        (signals.beat_init, _beat),
    ):
        signal.connect(receiver, weak=False, dispatch_uid=f"outgrow.{receiver.__name__}")


def _publish(headers: MutableMapping[str, Any], **_: object) -> None:
    text = headers.get(POSITION)
    headers[POSITION] = sent(everything=_in_chord()) if text is None else resent(text)


def _in_chord() -> bool:
    """Whether what is sent now may be the body of a chord: it is to see what all others wrote."""
    task = current_task
    return bool(task) and bool(task.request.chord or task.name == _UNLOCK)


def _begin(task: Any, **_: object) -> None:
    request, stack = task.request, ExitStack()
    how = reads_of(task.run)
    delivery = request.delivery_info or {}
    stack.enter_context(
        running(
            request.get(POSITION),
            how,
            again=bool(delivery.get("redelivered")),
            inside=bool(request.is_eager),
            postpone=None if request.get(POSTPONED) else partial(_postpone, task, how),
        )
    )
    setattr(request, _STACK, stack)


def _end(task: Any, **_: object) -> None:
    stack = task.request.__dict__.pop(_STACK, None)
    if stack is not None:
        stack.close()


def _postpone(task: Any, how: Reads, error: ReplicaBehind) -> None:
    """Put a task back, without taking away one of the retries that it has."""
    request = task.request
    headers = {**(request.headers or {}), POSTPONED: 1}
    message = task.signature_from_request(request, countdown=how.delay, headers=headers)
    try:
        message.apply_async()
    except task.OperationalError as problem:
        logger.warning("%s is not put back, for the broker is away: %s", task.name, problem)
        return
    raise Retry(str(error), exc=error, when=how.delay)


def _beat(**_: object) -> None:
    signals.before_task_publish.disconnect(dispatch_uid=f"outgrow.{_publish.__name__}")
    signals.before_task_publish.connect(
        _publish_nothing, weak=False, dispatch_uid=f"outgrow.{_publish.__name__}"
    )


def _publish_nothing(headers: MutableMapping[str, Any], **_: object) -> None:
    headers.setdefault(POSITION, NOTHING_WANTED)
