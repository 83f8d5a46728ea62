"""The protocol of a distributed storage, model-checked: as test_model, without a master.

The catalogue is the real one, in SQLite. What a file should hold is what its saver wrote;
what is wanted is what the catalogue says.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import connections
from django.db.models import F
from hypothesis import HealthCheck, settings
from hypothesis.stateful import initialize, rule

from outgrow.errors import NoCopy
from outgrow.http import FileBody
from outgrow.media.catalogue import Catalogue
from outgrow.media.journal import Attempt, Look, Wanted
from outgrow.media.repair import Repair, Report, Verb
from outgrow.media.replication import Replication, Saved, Upload
from outgrow.media.tables import Fact, File, Live, Owed
from outgrow.testing import FakeClock
from tests.media.test_model import UP, Protocol

OWN, SITE = "model_own", "model_site"


@pytest.fixture(autouse=True, scope="module")
def databases(django_db_blocker):
    """Two databases in memory."""
    for alias in (OWN, SITE):
        database = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
        made = connections.configure_settings({"default": {}, alias: database})
        connections.settings[alias] = made[alias]
    with django_db_blocker.unblock():
        for alias in (OWN, SITE):
            call_command("migrate", "outgrow", database=alias, verbosity=0)
        yield
        for alias in (OWN, SITE):
            # Django leaves a database in memory open, for it would be lost.
            connections[alias].connection.close()
            del connections[alias], connections.settings[alias]


class Clock(FakeClock):
    """Its time passes in the database, too."""

    def advance(self, seconds: float) -> None:
        super().advance(seconds)
        back = timedelta(seconds=seconds)
        File.objects.using(OWN).update(changed_at=F("changed_at") - back)


class Beside(Catalogue):
    """A catalogue whose uploads lie in a folder of the model's."""

    spool: Path

    def begin(self, attempt: Attempt) -> Path:
        return self.spool / attempt.id


class Distributed(Protocol):
    """Savers, deleters and repairers over a catalogue."""

    need = 2

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock(self.clock())
        tables = ((File, OWN), (Owed, OWN), (Fact, OWN), (Live, SITE))
        for table, alias in tables:
            table.objects.using(alias).all().delete()
        tokens = iter(range(1 << 62))
        self.catalogue = Beside(
            OWN,
            site=SITE,
            name="model",
            grace=1,
            clock=self.clock,
            token=lambda size: f"{next(tokens):0{2 * size}x}",
        )
        self.catalogue.spool = self.folder
        self.journal = self.catalogue  # type: ignore[assignment]
        self.contents: dict[str, bytes] = {}
        self.replication = Replication(
            self.catalogue, self.transport, need=self.need, source=self.copy, clock=FakeClock()
        )

    @contextmanager
    def copy(self, name: str, look: Look) -> Iterator[FileBody | None]:
        """From any model that answers and has the right content."""
        for model in self.models.values():
            if model.mood == UP and model.files.get(name) == self.contents.get(name) is not None:
                descriptor = os.memfd_create("copy")
                try:
                    os.write(descriptor, model.files[name])
                    yield FileBody(descriptor, look.size)
                finally:
                    os.close(descriptor)
                return
        raise NoCopy(f"nobody has {name!r}")

    def steps_of_save(self, upload: Upload) -> Generator[str, None, Saved]:
        name = upload.name

        def write(path: Path) -> None:
            upload.write(path)
            self.contents[name] = path.read_bytes()

        mine = Upload(name, write, upload.another)
        return (yield from self.replication.save(mine))

    def one_pass(self) -> Generator[str, None, None]:
        repair = Repair(self.replication, clock=self.clock)
        repair.take_over(Report())
        yield "taken over"
        for action in repair.plan(list(self.models)):
            if action.verb is Verb.WATCH:
                continue
            try:
                yield from self.replication.mend(action.name, action.debts)
            except NoCopy:
                yield "no copy"
        self.journal.sweep()

    @initialize()
    def claim(self) -> None:
        for server in self.models:
            self.catalogue.set_claimed(server.name)

    @rule()
    def sweep(self) -> None:
        """What was live and is not any more."""
        self.catalogue.sweep()

    def check(self) -> None:
        wanted = {
            entry.name: self.contents[entry.name]
            for entry in self.catalogue.entries(lambda *_: None)
        }
        for server, model in self.models.items():
            assert model.files == wanted, server
        live = set(Live.objects.using(SITE).values_list("key", flat=True))
        assert live == {self.catalogue.key(name) for name in wanted}
        assert list(self.catalogue.attempts()) == []
        self.check_promises(wanted)

    def check_promises(self, master: dict[str, bytes]) -> None:
        assert not self.deleted & master.keys(), "a deleted file came back"
        assert not self.refused & master.keys(), "a save that raised left its file"
        lost = self.saved.keys() - master.keys() - self.deleted
        # A delete that was killed may have buried its name.
        assert all(self.catalogue.look(name).wanted is Wanted.GONE for name in lost)


class AllNeeded(Distributed):
    """Every server is needed, so that many saves are undone."""

    need = 3


def _case(machine: type[Distributed]) -> type:
    case = machine.TestCase
    long = os.environ.get("OUTGROW_LONG") == "1"
    case.settings = settings(
        max_examples=2000 if long else 150,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    return pytest.mark.timeout(3600 if long else 900)(case)


TestDistributed = _case(Distributed)
TestAllNeeded = _case(AllNeeded)
