"""Positions that travel with RQ's jobs, in their `meta`: a class of jobs.

RQ lets a site name the class of its jobs, for its queues and for its workers. `Job` is RQ's own,
with two methods that do a little more: `create` notes the position, `perform` reads by it.

RQ's worker forks a process for each job, and a process that has just begun doesn't know yet how
far behind the replicas are. `Worker` is RQ's own, and looks at them beside the jobs; those
know what it knew when they were forked. `SimpleWorker` of RQ needs no other class.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final, cast

import django
from django.apps import apps

from outgrow.databases.tasks import reads_of, resent, running, sent, watch
from outgrow.errors import MissingExtra, ReplicaBehind

try:
    from redis import RedisError
    from rq import Retry
    from rq.job import Job as PlainJob
    from rq.worker import Worker as PlainWorker
except ImportError as error:
    raise MissingExtra("outgrow.databases.rq", "rq", "rq") from error

#: In a job's meta: its position; that it was put back; and that an attempt came to its end.
POSITION: Final = "outgrow_position"
POSTPONED: Final = "outgrow_postponed"
ENDED: Final = "outgrow_ended"

#: What RQ calls the worker of a queue that is not asynchronous.
_SYNC: Final = "sync"


class Job(PlainJob):
    """A job that reads what its sender wrote and saw."""

    #: Whether somebody has begun with this job before.
    _begun = False

    @classmethod
    def create(cls, *args: Any, **kwargs: Any) -> Job:
        """Make a job, as RQ's own does, with the position of this moment."""
        job = cast("Job", super().create(*args, **kwargs))
        text = job.meta.get(POSITION)
        job.meta = {**job.meta, POSITION: sent() if text is None else resent(text)}
        return job

    def prepare_for_execution(self, worker_name: str, pipeline: Any) -> None:
        """Called by a worker just before `perform`."""
        self._begun = self.started_at is not None
        super().prepare_for_execution(worker_name, pipeline)

    def perform(self) -> Any:
        """Call the function, on a route of its own."""
        _set_up()
        ended = self.meta.pop(ENDED, False)
        # Others have written what it is to see, whoever has sent it.
        again = (self._begun and not ended) or bool(self._dependency_ids)
        is_sync = self.worker_name == _SYNC
        with running(
            self.meta.get(POSITION),
            reads_of(self.func),
            again=again,
            inside=is_sync,
            postpone=None if is_sync or self.meta.get(POSTPONED) else _postpone,
        ):
            return self._performed()

    def _performed(self) -> Any:
        try:
            result = super().perform()
        except _Postponed:
            self.meta[POSTPONED] = True
            self._note_end()
            # RQ counts these beside the retries that a job was given.
            return Retry(max=(self.number_of_retries or 0) + 1)
        except BaseException:
            self._note_end()
            raise
        if isinstance(result, Retry):
            self._note_end()
        return result

    def _note_end(self) -> None:
        """It may be tried again, and then it knows what this attempt wrote."""
        text = self.meta.get(POSITION)
        if text is not None:
            self.meta[POSITION] = resent(text)
        self.meta[ENDED] = True
        with suppress(RedisError):  # the worker will meet it, too
            self.save_meta()  # type: ignore[no-untyped-call]


class Worker(PlainWorker):
    """A worker whose jobs know at once which replicas are fresh."""

    def fork_work_horse(self, job: Any, queue: Any) -> None:
        """Fork the process of a job, when the servers have been looked at."""
        _set_up()
        watch()
        super().fork_work_horse(job, queue)


def _set_up() -> None:
    if not apps.ready:  # a plain RQ worker knows DJANGO_SETTINGS_MODULE and no more
        django.setup()


class _Postponed(ReplicaBehind):
    """Raised for the job itself, not by the function for one that it waits for."""


def _postpone(error: ReplicaBehind) -> None:
    raise _Postponed(error.cluster, error.position)
