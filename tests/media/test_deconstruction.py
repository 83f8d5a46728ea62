"""What of a storage is written elsewhere: into migrations, and into pickles."""

from __future__ import annotations

import pickle

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.files.base import ContentFile
from django.db import migrations, models
from django.db.migrations.writer import MigrationWriter

from outgrow.media import AsyncStorage, DistributedStorage, HybridStorage
from outgrow.testing import MediaServer

SECRETS = {
    "servers": {"media1": "http://user:hunter2@media1.internal:8080"},
    "credentials": {"media1": "user:correct-horse"},
    "token": "tok3n",
    "querystring_auth": True,
    "secret": "s1gned",
    "public_urls": {"media1": "https://media1.example.org/"},
    "ca": "/etc/ssl/ours.pem",
}
WORDS = ("media1", "internal", "hunter2", "correct-horse", "tok3n", "s1gned", "/etc", "br0ker")


class OwnStorage(AsyncStorage):
    """One of a site's own."""


KINDS = [HybridStorage, AsyncStorage, OwnStorage, DistributedStorage]


def options_of(kind: type, tmp_path) -> dict[str, object]:
    if kind is DistributedStorage:
        return {"journal": "none", "base_url": "/m/"}
    broker = {"broker": "redis://:br0ker@media1/0"} if issubclass(kind, AsyncStorage) else {}
    return {"location": str(tmp_path), "base_url": "/m/"} | broker


def written(storage) -> str:
    """A migration with a field that has this storage, as `makemigrations` writes it."""
    field = models.FileField(storage=storage)
    operation = migrations.AddField("Report", "file", field)
    migration = type("Migration", (migrations.Migration,), {"operations": [operation]})
    return MigrationWriter(migration("0002_report_file", "reports")).as_string()


@pytest.mark.parametrize("kind", KINDS)
def test_a_migration_has_the_class_alone(kind, tmp_path):
    storage = kind(**(SECRETS | options_of(kind, tmp_path)))
    module = __name__ if kind is OwnStorage else "outgrow.media"
    assert storage.deconstruct() == (f"{module}.{kind.__name__}", (), {})
    text = written(storage)
    assert f"storage={module}.{kind.__name__}()" in text
    assert not [word for word in WORDS if word in text]
    assert str(tmp_path) not in text


@pytest.mark.parametrize("kind", KINDS)
def test_the_migration_can_be_run_and_its_storage_is_of_no_use(kind, tmp_path):
    text = written(kind(**(SECRETS | options_of(kind, tmp_path))))
    namespace: dict[str, object] = {}
    exec(text, namespace)
    (operation,) = namespace["Migration"].operations
    storage = operation.field.storage
    assert type(storage) is kind
    with pytest.raises(ImproperlyConfigured, match="servers"):
        storage.save("f.txt", ContentFile(b"x"))


@pytest.mark.parametrize("kind", KINDS)
def test_it_survives_a_pickle_in_use(kind, tmp_path):
    with MediaServer() as server:
        given = SECRETS | {"servers": {"media1": server.url}} | options_of(kind, tmp_path)
        del given["ca"]
        storage = kind(**given)
        name = storage.save("f.txt", ContentFile(b"x"))
        again = pickle.loads(pickle.dumps(storage))
        assert type(again) is kind
        assert again.options == storage.options
        assert again.url(name) == storage.url(name)
        for one, other in ((storage, again), (again, storage)):
            saved = one.save("f.txt", ContentFile(b"more"))
            with other.open(saved) as file:
                assert file.read() == b"more"
        again.delete(name)
        assert not storage.exists(name)
        for one in (storage, again):
            if isinstance(one, AsyncStorage):
                assert one.background.drain(10)
