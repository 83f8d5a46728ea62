"""`outgrow media copy` between storages of every kind."""

from __future__ import annotations

import itertools
import json
import os

import pytest
from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, storages
from django.core.management import CommandError
from django.test import override_settings

from outgrow.media.repair import Repair
from outgrow.moving.copying import GIVE_UP, Copy, state_folder
from outgrow.moving.places import COPYING, save_as
from outgrow.moving.unfinished import Unfinished
from outgrow.objects.direct import FOLDER
from outgrow.testing import MediaServer
from tests.moving.subjects import FILES, KINDS, copy, held, put, report, site

pytestmark = pytest.mark.usefixtures("postgres")

#: Each kind as the source once, and as the target once; and those that people move between.
PAIRS = sorted(
    {
        *itertools.pairwise([*KINDS, KINDS[0]]),
        *itertools.permutations(["folder", "hybrid", "object"], 2),
        ("object", "distributed"),
        ("distributed", "object"),
        ("object", "object"),
        ("hybrid", "distributed"),
    }
)


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


@pytest.fixture
def folders(tmp_path, engine_named):
    with site(tmp_path, engine_named, "folder", "folder") as both:
        yield both


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_everything_is_copied_under_its_name_and_once(tmp_path, state, engine_named, old, new):
    with site(tmp_path, engine_named, old, new) as (source, target):
        put(source, FILES)

        first = report(state)
        assert (first["failures"], first["complete"]) == ([], True)
        assert held(target) == held(source) == FILES

        second = report(state, "--verify")
        assert (second["copied"], second["same"], second["complete"]) == (0, len(FILES), True)
        assert list((tmp_path / "new").rglob(COPYING)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_is_taken_is_left_alone(tmp_path, engine_named, kind):
    with site(tmp_path, engine_named, kind, "folder") as (storage, _):
        put(storage, FILES)
        for name in FILES:
            with pytest.raises(FileExistsError):
                save_as(storage, name, ContentFile(b"other", name))
        assert held(storage) == FILES


def test_the_plan_is_printed_and_nothing_changed(folders, state):
    source, target = folders
    put(source, {"a.txt": b"a", "b.txt": b"bb"})
    put(target, {"b.txt": b"b", "c.txt": b"c"})
    code, text = copy(state, "--dry-run")

    assert code == 0
    assert text.splitlines() == [
        "copy    a.txt",
        "replace b.txt",
        "2 files at the source: 1 to copy, 1 differ (3 bytes), 0 are there.",
    ]
    code, text = copy(state, "--dry-run", "--json", "--delete-extra")
    assert [json.loads(line)["do"] for line in text.splitlines()] == ["copy", "replace", "extra"]
    assert held(target) == {"b.txt": b"b", "c.txt": b"c"}
    assert not state.exists()


def test_what_is_said(folders, state):
    source, _ = folders
    put(source, {"a.txt": b"a", "b.txt": b"bb"})
    code, text = copy(state)
    assert code == 0
    assert text.splitlines() == [
        "2 files at the source: 2 to copy (3 bytes), 0 are there.",
        "copied 2 (3 bytes in 0 s)",
        "'new' has everything that 'old' has.",
    ]


def test_only_names_that_begin_so(folders, state):
    source, target = folders
    put(source, FILES)
    assert report(state, "--prefix", "photos/20")["copied"] == 2
    assert report(state, "--prefix", "nowhere/x")["complete"]
    assert held(target).keys() == {"photos/2026.jpg", "photos/2026/été à Nîmes.jpg"}


def test_what_a_browser_has_just_sent_is_no_file_of_the_site_s(tmp_path, state, engine_named):
    with site(tmp_path, engine_named, "object", "folder") as (source, target):
        put(source, {"a.txt": b"a", f"{FOLDER}/abcdefghijklm": b"x"})
        assert report(state)["copied"] == 1
        assert held(target) == {"a.txt": b"a"}


# --- what differs


def age(storage, name, seconds):
    stat = os.stat(storage.path(name))
    os.utime(storage.path(name), (stat.st_atime, stat.st_mtime - seconds))


def test_an_older_file_is_replaced_by_a_newer_one(folders, state):
    source, target = folders
    put(target, {"a.txt": b"old"})
    put(source, {"a.txt": b"newer"})
    age(target, "a.txt", 10)
    assert report(state)["replaced"] == 1
    assert held(target) == {"a.txt": b"newer"}


def test_a_newer_file_is_never_replaced(folders, state):
    source, target = folders
    put(source, {"a.txt": b"old"})
    put(target, {"a.txt": b"newer"})
    age(source, "a.txt", 10)
    code, text = copy(state)
    assert code == 1
    assert "  a.txt: the target has another file of this name, and the source's is not" in text
    assert held(target) == {"a.txt": b"newer"}


def test_bytes_are_compared_if_that_is_asked_for(folders, state):
    source, target = folders
    put(source, {"a.txt": b"right", "b.txt": b"same"})
    put(target, {"a.txt": b"wrong", "b.txt": b"same"})
    age(source, "a.txt", 10)
    assert report(state)["complete"]
    found = report(state, "--verify")
    assert (found["same"], found["conflict"], found["complete"]) == (1, 1, False)


@pytest.mark.parametrize("kind", ["hybrid", "distributed"])
def test_where_names_are_used_once_nothing_is_replaced(tmp_path, state, engine_named, kind):
    with site(tmp_path, engine_named, "folder", kind) as (source, target):
        put(target, {"a.txt": b"one"})
        put(source, {"a.txt": b"other"})
        os.utime(source.path("a.txt"), (4e9, 4e9))
        assert report(state)["conflict"] == 1
        assert held(target) == {"a.txt": b"one"}


# --- what only the target has


def test_it_is_told_and_deleted_only_if_asked_for(folders, state):
    source, target = folders
    put(source, {"a.txt": b"a", "x/b.txt": b"b"})
    put(target, {"a.txt": b"a", "x/extra.txt": b"x", "y.txt": b"y"})
    assert report(state)["extra"] == 2
    assert report(state, "--delete-extra", "--prefix", "x/")["deleted"] == 1
    assert held(target).keys() == {"a.txt", "x/b.txt", "y.txt"}
    assert report(state, "--delete-extra")["deleted"] == 1
    assert held(target) == held(source)


def test_an_empty_source_deletes_nothing(folders, state):
    _, target = folders
    put(target, {"a.txt": b"a"})
    with pytest.raises(CommandError, match=r"'old' has no file at all, and --delete-extra would"):
        copy(state, "--delete-extra")
    assert held(target) == {"a.txt": b"a"}
    code, text = copy(state)
    assert code == 0
    assert text.splitlines() == [
        "0 files at the source: 0 to copy (0 bytes), 0 are there.",
        "copied 0 (0 bytes in 0 s), only at the target 1",
        "'old' has no file at all.",
    ]


def test_nothing_is_deleted_where_new_files_are_saved(tmp_path, state, engine_named):
    moving = {"BACKEND": "outgrow.moving.MovingStorage", "OPTIONS": {"to": "new", "from": "old"}}
    with site(tmp_path, engine_named, "folder", "folder", default=moving):
        saved = storages["default"].save("a.txt", ContentFile(b"a"))
        with pytest.raises(CommandError, match="--delete-extra would delete new files"):
            copy(state, "--delete-extra")
        assert held(storages["new"]) == {saved: b"a"}


# --- wrong usage


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--from", "nowhere", "--to", "new"), "STORAGES has no 'nowhere'. There are: both, new"),
        (("--from", "new", "--to", "new"), "--from and --to are both 'new'"),
        (("--from", "both", "--to", "new"), "Name those that files move between: --from old --to"),
        (("--from", "old", "--to", "new", "--threads", "0"), "not a number of files at a time"),
    ],
)
def test_wrong_words(tmp_path, state, engine_named, words, problem):
    both = {"BACKEND": "outgrow.moving.MovingStorage", "OPTIONS": {"to": "new", "from": "old"}}
    with (
        site(tmp_path, engine_named, "folder", "folder", both=both),
        pytest.raises(CommandError, match=problem) as found,
    ):
        copy(state, *words[4:], source=words[1], target=words[3])
    assert found.value.returncode in {1, 2}


def test_two_copies_at_once_are_refused(folders, state):
    source, target = folders
    put(source, {"a.txt": b"a"})
    places = (f"file://{os.path.realpath(one.location)}" for one in (source, target))
    with (
        Unfinished(state_folder(state, *places)).alone(),
        pytest.raises(CommandError, match="Another copy between these two storages is at work"),
    ):
        copy(state)
    assert report(state)["copied"] == 1


def test_a_state_that_can_not_be_kept(folders, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CommandError, match=r"can't be kept in .*Choose another folder with"):
        copy(tmp_path / "file")


# --- what fails


def test_a_name_that_the_target_refuses_stops_no_other(tmp_path, state, engine_named):
    with site(tmp_path, engine_named, "folder", "hybrid") as (source, target):
        put(source, {"a.txt": b"a", ".hidden": b"h", "z.txt": b"z"})
        found = report(state)
        assert held(target).keys() == {"a.txt", "z.txt"}
        assert found["failures"][0]["name"] == ".hidden"
        assert "begins with a dot" in found["failures"][0]["reason"]
        assert not found["complete"]


def test_a_file_that_can_not_be_read_stops_no_other(folders, state):
    source, target = folders
    put(source, {"a.txt": b"a", "z.txt": b"z"})
    os.remove(source.path("a.txt"))
    os.symlink(source.path("a.txt"), source.path("loop"))
    os.symlink("loop2", source.path("loop2"))
    found = report(state)
    assert [one["name"] for one in found["failures"]] == ["loop2"]
    assert held(target) == {"z.txt": b"z"}


def test_a_target_that_takes_nothing_ends_it(tmp_path, state, engine_named):
    with site(tmp_path, engine_named, "folder", "distributed") as (source, target):
        put(source, {f"{number}.txt": b"x" for number in range(3 * GIVE_UP)})
        entry = settings.STORAGES["new"]
        nowhere = entry["OPTIONS"] | {"servers": {"media1": "http://127.0.0.1:9"}}
        with site_with(new=entry | {"OPTIONS": nowhere}):
            code, text = copy(state)
        assert code == 1
        assert f"Not all was done: {GIVE_UP} files in a row failed" in text
        assert text.count("Connection refused") + text.count("a moment ago it failed") >= 10
        assert held(target) == {}
        assert report(state)["complete"]
        assert held(target) == held(source)


@pytest.mark.parametrize("kind", ["hybrid", "async", "distributed", "unrecorded"])
def test_what_the_servers_did_not_take_is_copied_later(tmp_path, state, engine_named, kind):
    # A save that fails is undone by a deletion, after which servers take the name no more. A
    # copy is not.
    with site(tmp_path, engine_named, "folder", kind) as (source, _):
        put(source, {"a.txt": b"a", "b.txt": b"b"})
        entry = settings.STORAGES["new"]
        options = entry["OPTIONS"]
        with MediaServer() as good, MediaServer() as full:
            full.answer_with(507, method="PUT")
            servers = {"servers": {"media1": good.url, "media2": full.url}}
            given = options | servers | ({"need": "all"} if "need" in options else {})
            with site_with(new=entry | {"OPTIONS": given}):
                first = report(state)
                new = storages["new"]
                if kind in {"hybrid", "async"}:
                    assert first["complete"]  # the master has it, and media2 is owed it
                    assert held(new) == held(source)
                else:
                    assert {one["name"] for one in first["failures"]} == {"a.txt", "b.txt"}
                full.answer_with(None)
                assert report(state)["complete"]
                if kind != "unrecorded":
                    Repair(new.replication).once(settle=False)
                assert held(new) == held(source)
                for server in (good, full):
                    assert {n: c for n, c in server.files.items() if n in held(source)} == held(
                        source
                    )


@pytest.mark.parametrize("kind", ["hybrid", "distributed", "unrecorded", "object", "folder"])
def test_the_same_file_again_is_refused_and_stays(tmp_path, engine_named, kind):
    with site(tmp_path, engine_named, "folder", kind) as (_, target):
        put(target, {"a.txt": b"the same"})
        for _ in range(2):
            with pytest.raises(FileExistsError):
                save_as(target, "a.txt", ContentFile(b"the same", "a.txt"))
            assert held(target) == {"a.txt": b"the same"}


def test_a_name_that_was_deleted_at_the_target_is_said(tmp_path, state, engine_named):
    with site(tmp_path, engine_named, "folder", "distributed") as (source, target):
        put(source, {"a.txt": b"a"})
        put(target, {"a.txt": b"a"})
        target.delete("a.txt")
        (failure,) = report(state)["failures"]
        assert "was deleted, and takes the name again only when the record" in failure["reason"]


def site_with(**entries):
    return override_settings(STORAGES=settings.STORAGES | entries)


def test_what_is_no_file_s_fault_is_raised(folders, state):
    # Whoever is told may fail, too (a pipe that is closed); then nobody hears "complete".
    source, target = folders
    put(source, {f"{number}.txt": b"x" for number in range(20)})

    def told(_):
        raise BrokenPipeError("nobody listens")

    unfinished = Unfinished(state)
    with unfinished.alone():
        copying = Copy(source, target, unfinished, told=told)
        with copying.planned() as found, pytest.raises(BrokenPipeError):
            copying.apply(found)


class Vanishing(FileSystemStorage):
    """The site deletes each file while it is copied."""

    def open(self, name, mode="rb"):
        file = super().open(name, mode)
        self.delete(name)
        return file


@pytest.mark.parametrize("kind", ["folder", "hybrid", "distributed", "object"])
def test_what_is_deleted_while_it_is_copied_does_not_come_back(tmp_path, state, engine_named, kind):
    with site(tmp_path, engine_named, "folder", kind) as (source, target):
        put(source, {"a.txt": b"a", "b.txt": b"b"})
        vanishing = {
            "BACKEND": f"{__name__}.Vanishing",
            "OPTIONS": {"location": source.location},
        }
        with site_with(old=vanishing):
            assert report(state)["gone"] == 2
        assert held(target) == {}
