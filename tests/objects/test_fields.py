"""`ObjectStorage` as the storage of a single field: its files, and what migrations hold of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import Storage, storages
from django.db import connection, models
from django.db.migrations.autodetector import MigrationAutodetector
from django.db.migrations.state import ModelState, ProjectState
from django.db.migrations.writer import MigrationWriter
from django.test import override_settings
from django.test.utils import isolate_apps

from outgrow.objects import ObjectStorage
from tests.live.engines import Engine

#: What no migration may show.
OPTIONS = {
    "location": "s3://a-bucket-of-ours",
    "endpoint": "https://store.example.org",
    "access_key": "AKIA-NOT-THIS",
    "secret_key": "never-to-be-shown",
    "session_token": "nor-this",
}


def contracts() -> Storage:
    """As in docs/howto/object-stores.md; migrations name it, so it must be importable."""
    return storages["contracts"]


def settings_of(options: dict[str, Any]) -> override_settings:
    entry = {"BACKEND": "outgrow.objects.ObjectStorage", "OPTIONS": options}
    return override_settings(STORAGES={"contracts": entry})


def model_with(storage: Any) -> type[models.Model]:
    """A model, in a registry of its own."""
    with isolate_apps("outgrow"):

        class Contract(models.Model):
            text = models.FileField(storage=storage, upload_to="contracts")

            class Meta:
                app_label = "outgrow"

            def __str__(self) -> str:
                return str(self.text)

    return Contract


@pytest.fixture(params=["an instance", "a callable"])
def model(request: pytest.FixtureRequest, engine: Engine, bucket: str) -> Iterator[Any]:
    """A model with a table, whose files lie in the bucket."""
    options = engine.options(bucket)
    with settings_of(options):
        given = contracts if request.param == "a callable" else ObjectStorage(**options)
        found = model_with(given)
        with connection.schema_editor() as editor:
            editor.create_model(found)
        try:
            yield found
        finally:
            with connection.schema_editor() as editor:
                editor.delete_model(found)


@pytest.mark.django_db(transaction=True)
def test_a_field_keeps_its_files_there(model: Any, engine: Engine, bucket: str) -> None:
    row = model()
    row.text.save("contract.txt", ContentFile(b"signed"))
    again = model.objects.get(pk=row.pk)
    assert engine.held(bucket) == {again.text.name: b"signed"}
    assert again.text.name.startswith("contracts/contract")
    with again.text.open() as file:
        assert file.read() == b"signed"
    assert "X-Amz-Signature=" in again.text.url
    again.text.delete()
    assert engine.held(bucket) == {}
    assert not model.objects.get(pk=row.pk).text


def operations(before: ProjectState, storage: Any) -> list[Any]:
    """What makemigrations would write for a model with this storage, after that state."""
    after = ProjectState()
    after.add_model(ModelState.from_model(model_with(storage)))
    changes = MigrationAutodetector(before, after)._detect_changes()
    return [one for migration in changes.get("outgrow", []) for one in migration.operations]


def written(storage: Any) -> str:
    """The text of the migration that makes the model."""
    [operation] = operations(ProjectState(), storage)
    field = dict(operation.fields)["text"]
    text, imports = MigrationWriter.serialize(field)
    return "\n".join([*sorted(imports), f"field = {text}"])


@pytest.mark.parametrize("kind", ["an instance", "a callable"])
def test_a_migration_shows_no_secret_and_runs(kind: str) -> None:
    with settings_of(OPTIONS):
        text = written(contracts if kind == "a callable" else ObjectStorage(**OPTIONS))
        for value in OPTIONS.values():
            assert value not in text
        expected = f"{__name__}.contracts" if kind == "a callable" else "outgrow.objects."
        assert f"storage={expected}" in text
        names: dict[str, Any] = {}
        exec(text, names)
    assert isinstance(names["field"].storage, ObjectStorage)


def test_other_keys_and_another_bucket_are_no_change_for_a_migration() -> None:
    before = ProjectState()
    before.add_model(ModelState.from_model(model_with(ObjectStorage(**OPTIONS))))
    others = OPTIONS | {"location": "s3://another", "secret_key": "changed"}
    assert operations(before, ObjectStorage(**others)) == []


def test_an_instance_for_a_callable_is_one() -> None:
    """So the test above would see a change, if there were any."""
    before = ProjectState()
    before.add_model(ModelState.from_model(model_with(ObjectStorage(**OPTIONS))))
    with settings_of(OPTIONS):
        assert len(operations(before, contracts)) == 1
