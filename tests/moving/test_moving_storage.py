"""`MovingStorage`: two storages as one, while a site moves."""

from __future__ import annotations

import asyncio
import pickle
from typing import ClassVar

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, storages
from django.db import transaction
from django.test import override_settings

from outgrow.checks import check_moving
from outgrow.errors import ServerError
from outgrow.moving import MovingStorage
from tests.live.postgres import SITE
from tests.moving.subjects import copy, held, put, report, site

pytestmark = pytest.mark.usefixtures("postgres")

MOVING = {"BACKEND": "outgrow.moving.MovingStorage", "OPTIONS": {"to": "new", "from": "old"}}

#: What sites move between: a new storage whose names are used once, and one that keeps them.
PAIRS = [
    ("hybrid", "object"),
    ("object", "hybrid"),
    ("folder", "object"),
    ("distributed", "object"),
    ("object", "folder"),
    ("folder", "folder"),
    ("other", "distributed"),
]


@pytest.fixture(params=PAIRS, ids="-".join)
def both(request, tmp_path, engine_named):
    """A site that moves; its old storage has a file."""
    with site(tmp_path, engine_named, *request.param, default=MOVING) as found:
        put(found[0], {"a/old.txt": b"old"})
        yield found


@pytest.fixture
def moving(both):
    return storages["default"]


def test_what_is_saved_is_in_the_new_one(both, moving):
    old, new = both
    name = moving.save("a/new.txt", ContentFile(b"new"))
    assert held(new) == {name: b"new"}
    assert held(old) == {"a/old.txt": b"old"}


def test_both_are_read(moving):
    name = moving.save("a/new.txt", ContentFile(b"newer"))
    for file, kept in {"a/old.txt": b"old", name: b"newer"}.items():
        assert moving.exists(file)
        assert content(moving, file) == kept
        assert moving.size(file) == len(kept)
        assert moving.get_modified_time(file)
    assert moving.listdir("a") == ([], sorted(["old.txt", name.removeprefix("a/")]))
    assert moving.listdir("") == (["a"], [])


def test_absence_is_said_by_both(moving):
    assert not moving.exists("nowhere.txt")
    for method in (moving.open, moving.size, moving.get_modified_time):
        with pytest.raises(FileNotFoundError):
            method("nowhere.txt")


def test_a_name_of_the_old_one_is_not_given_again(both, moving):
    old, new = both
    for _ in range(3):
        name = moving.save("a/old.txt", ContentFile(b"new"))
        assert name != "a/old.txt"
        assert moving.get_available_name("a/old.txt") != "a/old.txt"
    assert content(moving, "a/old.txt") == b"old"
    assert len(held(new)) == 3
    assert len(held(old)) == 1


def test_a_name_fits_in_the_field(moving):
    name = moving.save("a/old.txt", ContentFile(b"new"), max_length=30)
    assert len(name) <= 30


def test_a_url_leads_to_where_the_file_is(both, moving):
    old, new = both
    name = moving.save("a/new.txt", ContentFile(b"new"))
    for _ in range(2):  # the second time nobody is asked
        assert path_of(moving.url("a/old.txt")) == path_of(old.url("a/old.txt"))
        assert path_of(moving.url(name)) == path_of(new.url(name))
    with pytest.raises(ValueError, match="no name"):
        moving.url("")


def path_of(url):
    return url.partition("?")[0]


def test_what_is_deleted_is_in_neither(both, moving):
    old, new = both
    name = moving.save("a/new.txt", ContentFile(b"new"))
    put(new, {"a/old.txt": b"old"})
    moving.delete(name)
    moving.delete("a/old.txt")
    assert held(old) == held(new) == {}
    assert not moving.exists("a/old.txt")


def test_the_whole_move(both, moving, tmp_path):
    old, new = both
    saved = moving.save("a/new.txt", ContentFile(b"new"))
    assert report(tmp_path)["copied"] == 1
    assert held(new) == {"a/old.txt": b"old", saved: b"new"}
    # And the way back, of what was saved since.
    assert report(tmp_path, source="new", target="old")["copied"] == 1
    assert held(old) == held(new)


def test_it_can_be_pickled_and_says_nothing_in_a_migration(moving):
    copied = pickle.loads(pickle.dumps(moving))
    assert content(copied, "a/old.txt") == b"old"
    assert moving.deconstruct() == ("outgrow.moving.MovingStorage", (), {})


def test_the_asynchronous_twins(moving):
    async def act():
        name = await moving.asave("a/new.txt", ContentFile(b"new"))
        async with await moving.aopen(name) as file:
            assert await file.read() == b"new"
        assert await moving.aexists("a/old.txt")
        assert await moving.asize("a/old.txt") == 3
        assert path_of(await moving.aurl(name)) == path_of(moving.url(name))
        await moving.adelete("a/old.txt")
        return await moving.aexists("a/old.txt")

    assert asyncio.run(act()) is False


def content(storage, name):
    with storage.open(name) as file:
        return file.read()


# --- one of the two


def test_with_overwriting_the_new_file_is_read(tmp_path, engine_named):
    with site(tmp_path, engine_named, "folder", "object", default=MOVING) as (old, new):
        entry = {"BACKEND": "outgrow.objects.ObjectStorage", "OPTIONS": overwriting(new)}
        with override_settings(STORAGES=settings.STORAGES | {"new": entry}):
            put(old, {"a.txt": b"old"})
            moving = storages["default"]
            assert path_of(moving.url("a.txt")) == old.url("a.txt")
            assert moving.save("a.txt", ContentFile(b"newer")) == "a.txt"
            assert content(moving, "a.txt") == b"newer"
            assert path_of(moving.url("a.txt")) == path_of(new.url("a.txt"))
            found = report(tmp_path)
            assert (found["newer"], found["complete"]) == (1, True)
            assert content(moving, "a.txt") == b"newer"


def overwriting(storage):
    return {**storage._options, "overwrite": True}


def test_the_old_one_is_read_while_the_new_one_is_away(tmp_path, engine_named):
    with site(tmp_path, engine_named, "folder", "object", default=MOVING) as (old, _):
        put(old, {"a.txt": b"old"})
        options = {"location": "s3://b", "endpoint": "http://127.0.0.1:9", "deadline": 1}
        keys = {"access_key": "a", "secret_key": "b"}
        away = {"BACKEND": "outgrow.objects.ObjectStorage", "OPTIONS": options | keys}
        with override_settings(STORAGES=settings.STORAGES | {"new": away}):
            moving = storages["default"]
            assert content(moving, "a.txt") == b"old"
            assert moving.exists("a.txt")
            # Whether there is such a file in the new one, nobody knows.
            for method in (moving.open, moving.exists, moving.size):
                with pytest.raises(ServerError, match=r"127\.0\.0\.1:9"):
                    method("b.txt")


@pytest.mark.parametrize("new", ["object", "folder"])
def test_a_delete_waits_for_the_commit_of_the_old_one(tmp_path, engine_named, new):
    with site(tmp_path, engine_named, "distributed", new, default=MOVING) as both:
        moving = storages["default"]
        for storage in both:
            put(storage, {"a.txt": b"a"})
        with transaction.atomic(SITE):
            moving.delete("a.txt")
            assert [storage.exists("a.txt") for storage in both] == [True, True]
        assert [storage.exists("a.txt") for storage in both] == [False, False]


# --- settings

STORAGES = {
    "new": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    "old": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "new"}, "STORAGES['default']['OPTIONS']['from']: is missing."),
        ({"to": 3, "from": "old"}, "['to']: is 3, not an alias."),
        ({"to": "new", "from": "nwe"}, "['from']: is 'nwe', which STORAGES has not."),
        ({"to": "new", "from": "default"}, "['from']: is 'default', which is this storage itself."),
        ({"to": "new", "from": "new"}, "['to']: is 'new', and so is 'from': there is nothing to"),
        ({"to": "new", "from": "old", "x": 1}, "['x']: is not an option."),
        ("new", "STORAGES['default']['OPTIONS'] is 'new'."),
    ],
)
def test_what_is_wrong_is_said_by_the_check(options, message):
    entry = {"BACKEND": "outgrow.moving.MovingStorage", "OPTIONS": options}
    with override_settings(STORAGES=STORAGES | {"default": entry}):
        (found,) = check_moving()
        assert found.id == "outgrow.E301"
        assert message in found.msg
        assert found.hint


def test_a_close_name_is_named():
    entry = {"BACKEND": "outgrow.moving.MovingStorage", "OPTIONS": {"to": "new", "from": "odl"}}
    with override_settings(STORAGES=STORAGES | {"default": entry}):
        assert check_moving()[0].hint == "Did you mean 'old'?"


def test_right_options_are_not_complained_of():
    with override_settings(STORAGES=STORAGES | {"default": MOVING}):
        assert check_moving() == []


def test_wrong_options_are_said_at_the_first_use():
    with pytest.raises(ImproperlyConfigured, match=r"MovingStorage\(...\)\['to'\]: is missing"):
        MovingStorage(**{"from": "default"}).exists("a.txt")


def test_it_is_not_what_is_copied_from(tmp_path, engine_named):
    with site(tmp_path, engine_named, "folder", "folder", default=MOVING):
        with pytest.raises(Exception, match="is two storages"):
            copy(tmp_path, source="default")


class Witness(FileSystemStorage):
    """An old storage that looks, when it is told to delete a file, where that still is."""

    seen: ClassVar[list[bool]] = []

    def delete(self, name):
        self.seen.append(storages["new"].exists(name))
        super().delete(name)


def test_the_old_one_deletes_first(tmp_path, engine_named):
    # A copy that looks at the old one after its write sees the delete, or comes before it.
    with site(tmp_path, engine_named, "folder", "folder", default=MOVING) as both:
        for storage in both:
            put(storage, {"a.txt": b"a"})
        witness = {"BACKEND": f"{__name__}.Witness", "OPTIONS": {"location": both[0].location}}
        with override_settings(STORAGES=settings.STORAGES | {"old": witness}):
            storages["default"].delete("a.txt")
            assert Witness.seen == [True]
            assert not storages["default"].exists("a.txt")
