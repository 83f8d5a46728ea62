"""Removes what no kept release refers to: first condemned, then, a day later at least, deleted.

The laws (promise P3, and P1 for what is kept):

1. Only keys that a record of ours names are ever deleted.
2. A release is kept if it is served, if it is among the `keep` that were served last, or if it
   was last served (or begun, when it never was) less than `older` ago. Both must allow it to go.
3. What is to go is condemned first. It is deleted a day later at the earliest, after the ledger
   was read again, and only if nothing that is kept refers to it then.
4. Who deletes says until when, and sends nothing after that moment (law 3 of `ledger`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final

from outgrow.errors import PublishError
from outgrow.names import token
from outgrow.publish import ledger, survey
from outgrow.publish.ledger import Condemned, Pointer, Record
from outgrow.publish.survey import Seen
from outgrow.publish.targets import Target

#: Between condemned and deleted: whoever publishes meanwhile has read the ledger anew.
GRACE: Final = timedelta(hours=24)

#: How long one deletion may take. What is left then is deleted by the next prune.
_DELETING: Final = timedelta(minutes=5)

#: Before the end of that time nothing is begun any more: a request may take as long.
_LAST: Final = timedelta(minutes=2)

_BATCH: Final = 1000


@dataclass(frozen=True)
class Policy:
    """What is kept: so many releases, and all that were served within `older`."""

    keep: int = 5
    older: timedelta = timedelta(days=14)


@dataclass(frozen=True)
class Plan:
    """What a prune would do now.

    `condemn` are the keys, and `releases` the ids, that go a day later; `delete` are the keys of
    those that were condemned before, and are deleted now. `kept` are the releases that stay.
    """

    condemn: frozenset[str]
    releases: frozenset[str]
    delete: frozenset[str]
    kept: frozenset[str]


def kept(
    records: Mapping[str, Record], pointer: Pointer, policy: Policy, now: datetime
) -> frozenset[str]:
    """The ids of the releases that stay (law 2)."""
    served = [one.id for one in pointer.former if one.id in records]
    last = served[: max(policy.keep - 1, 0)]

    def is_young(identifier: str, record: Record) -> bool:
        until = pointer.until(identifier)
        return max(until or record.written, record.written) > now - policy.older

    young = [identifier for identifier, one in records.items() if is_young(identifier, one)]
    return frozenset({pointer.id, *last, *young} & records.keys())


def condemnable(
    records: Mapping[str, Record], staying: Iterable[str], files: Iterable[str]
) -> frozenset[str]:
    """The keys that a record names, and none of those that stay does (laws 1 and 2)."""
    needed = _keys(records[one] for one in staying)
    return (_keys(records.values()) - needed) & frozenset(files)


def _keys(records: Iterable[Record]) -> frozenset[str]:
    return frozenset().union(*(one.keys() for one in records))


class Prune:
    """One prune of one target. `most` is how many keys one may condemn, or delete."""

    def __init__(
        self,
        target: Target,
        policy: Policy,
        *,
        most: int | None = None,
        told: Callable[[str, int], None] = lambda _key, _size: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._target = target
        self._policy = policy
        self._most = most
        self._told = told
        self._clock = clock

    def plan(self) -> Plan:
        """What would be done. Reads every record; writes nothing."""
        seen = survey.look(self._target)
        return self._plan(seen, self._records(seen))

    def apply(self) -> Plan:
        """Do it, and return what was done. May be repeated, and killed at any step.

        Raises PublishError, and does nothing, where it would be more keys than `most`.
        """
        seen = survey.look(self._target)
        plan = self._plan(seen, self._records(seen))
        self._refuse_many(plan)
        deleted = frozenset(self._delete_due(seen))
        if plan.releases:
            found = Condemned(self._clock(), plan.releases, plan.condemn)
            self._target.note(ledger.condemned_key(token()), found.document())
        self._target.tidy()
        return Plan(plan.condemn, plan.releases, deleted, plan.kept)

    def _records(self, seen: Seen) -> dict[str, Record]:
        found = ((one, survey.record_if_any(self._target, one)) for one in sorted(seen.records))
        return {identifier: record for identifier, record in found if record is not None}

    def _plan(self, seen: Seen, records: Mapping[str, Record]) -> Plan:
        staying = kept(records, seen.pointer, self._policy, self._clock())
        before = frozenset().union(*(one.releases for one in seen.condemned.values()))
        going = frozenset(records) - staying - before
        keys = condemnable(records, staying, seen.files) - seen.condemned_keys()
        due: frozenset[str] = frozenset()
        for one in self._due(seen).values():
            due |= self._deletable(one, records, seen)
        return Plan(keys if going else frozenset(), going, due, staying)

    def _due(self, seen: Seen) -> dict[str, Condemned]:
        """Those whose day is over."""
        limit = self._clock() - GRACE
        return {key: one for key, one in seen.condemned.items() if one.at <= limit}

    def _deletable(
        self, condemned: Condemned, records: Mapping[str, Record], seen: Seen
    ) -> frozenset[str]:
        staying = self._staying(condemned, records, seen.pointer)
        return condemned.keys & condemnable(records, staying, seen.files)

    @staticmethod
    def _staying(
        condemned: Condemned, records: Mapping[str, Record], pointer: Pointer
    ) -> Iterator[str]:
        """Every release but the condemned; and those of them that were taken up again."""
        for identifier, record in records.items():
            until = pointer.until(identifier)
            is_back = (
                identifier == pointer.id
                or record.written > condemned.at
                or (until is not None and until > condemned.at)
            )
            if identifier not in condemned.releases or is_back:
                yield identifier

    def _refuse_many(self, plan: Plan) -> None:
        for what, keys in (("condemn", plan.condemn), ("delete", plan.delete)):
            if self._most is not None and len(keys) > self._most:
                raise PublishError(
                    f"{self._target.name}: this would {what} {len(keys)} files, and the limit is "
                    f"{self._most}. Nothing was done. Look at --dry-run, and raise the limit."
                )

    def _delete_due(self, seen: Seen) -> Iterator[str]:
        for key, condemned in sorted(self._due(seen).items()):
            yield from self._carry_out(key, condemned)

    def _carry_out(self, key: str, condemned: Condemned) -> Iterator[str]:
        until = self._clock() + _DELETING
        self._target.note(key, condemned.deleting(until).document())
        # Read again after that note (law 3): whoever began before it is seen here.
        seen = survey.look(self._target)
        records = self._records(seen)
        deletable = self._deletable(condemned, records, seen)
        left = iter(sorted(deletable))
        while batch := list(islice(left, _BATCH)):
            if self._clock() > until - _LAST:
                return  # the note stays, and the next prune goes on
            self._target.delete(batch)
            for one in batch:
                self._told(one, seen.files[one])
            yield from batch
        staying = frozenset(self._staying(condemned, records, seen.pointer))
        gone = condemned.releases - staying
        self._target.delete([*map(ledger.record_key, sorted(gone)), key])
