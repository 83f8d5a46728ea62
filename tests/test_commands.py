"""`manage.py outgrow media ...`, the status behind it, and the system checks."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.apps import apps
from django.conf import settings
from django.core.checks import run_checks
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.core.management import CommandError, call_command
from django.db import models
from django.test import modify_settings, override_settings

from outgrow.checks import check_media
from outgrow.media import HybridStorage
from outgrow.media.journal import Change
from outgrow.status import snapshot
from outgrow.testing import MediaServer


@pytest.fixture
def servers():
    with MediaServer() as one, MediaServer() as two:
        yield {"media1": one, "media2": two}


@pytest.fixture
def site(tmp_path, servers):
    options = {
        "servers": {name: server.url for name, server in servers.items()},
        "downtime": 0.1,
        "location": str(tmp_path / "master"),
    }
    plain = {"BACKEND": "django.core.files.storage.FileSystemStorage"}
    media = {"BACKEND": "outgrow.media.HybridStorage", "OPTIONS": options}
    with override_settings(STORAGES={"default": media, "plain": plain}):
        yield storages["default"]


def outgrow(*words: str) -> tuple[int, str]:
    """The exit code and what was printed."""
    out = io.StringIO()
    try:
        call_command("outgrow", "media", *words, stdout=out, stderr=io.StringIO())
    except SystemExit as end:
        return int(end.code or 0), out.getvalue()
    return 0, out.getvalue()


def owe_something(site, servers) -> str:
    outgrow("repair", "--no-wait")
    servers["media2"].stop()
    name = site.save("f.txt", ContentFile(b"x"))
    servers["media2"].start()
    return name


def test_repair_makes_a_server_equal(site, servers):
    name = owe_something(site, servers)
    code, text = outgrow("repair", "--no-wait")
    assert (code, name in servers["media2"].files) == (0, True)
    assert "sent 1, deleted 0, still owed 0" in text


def test_repair_says_what_is_down_and_exits_with_1(site, servers):
    outgrow("repair", "--no-wait")
    servers["media2"].stop()
    site.save("f.txt", ContentFile(b"x"))
    code, text = outgrow("repair", "--no-wait")
    assert code == 1
    assert "still owed 1" in text
    assert "media2 was not repaired: no connection" in text


def test_a_dry_run_prints_the_plan_and_changes_nothing(site, servers):
    name = owe_something(site, servers)
    code, text = outgrow("repair", "--dry-run")
    assert code == 0
    assert f"put     {name}  on media2" in text
    code, text = outgrow("repair", "--dry-run", "--json")
    fact = {"storage": "default", "do": "put", "name": name, "servers": ["media2"]}
    assert json.loads(text) == fact
    assert name not in servers["media2"].files
    outgrow("repair", "--no-wait")
    assert "Nothing is owed." in outgrow("repair", "--dry-run")[1]


def test_a_report_for_machines(site, servers):
    owe_something(site, servers)
    facts = json.loads(outgrow("repair", "--no-wait", "--json")[1])
    assert (facts["put"], facts["still_owed"], facts["complete"]) == (1, 0, True)


def test_a_name_that_a_server_refuses_is_told_and_the_others_go_on(site, servers):
    owe_something(site, servers)
    servers["media2"].answer_with(403)
    code, text = outgrow("repair", "--no-wait")
    assert code == 1
    assert "media2" in text
    servers["media2"].answer_with(None)
    assert outgrow("repair", "--no-wait")[0] == 0


def test_a_new_server_gets_everything_that_was_there(site, servers, tmp_path):
    names = [site.save(f"{number}.txt", ContentFile(b"x")) for number in range(3)]
    with MediaServer() as third:
        options = dict(site._options, location=site.location)
        options["servers"] = options["servers"] | {"media3": third.url}
        media = {"BACKEND": "outgrow.media.HybridStorage", "OPTIONS": options}
        with override_settings(STORAGES={"default": media}):
            assert outgrow("repair", "--no-wait")[0] == 0
            assert set(names) <= third.files.keys()


def test_an_emptied_server_is_filled_only_when_that_is_meant(site, servers):
    name = site.save("f.txt", ContentFile(b"x"))
    outgrow("repair", "--no-wait")
    servers["media2"].files.clear()
    code, text = outgrow("repair", "--no-wait")
    assert code == 1
    assert "--adopt" in text
    assert servers["media2"].files == {}
    assert outgrow("repair", "--server", "media2", "--adopt", "--no-wait")[0] == 0
    assert name in servers["media2"].files


def test_wrong_words_are_told(site):
    for words, message in [
        (["repair", "--server", "media9"], "There are: media1, media2"),
        (["repair", "--adopt"], "--adopt needs --server"),
        (["repair", "--rate", "quickly"], "is not bytes a second"),
        (["status", "--storage", "plain"], "There are: 'default'"),
    ]:
        with pytest.raises(CommandError, match=message):
            outgrow(*words)


def test_status_shows_each_server_and_what_it_is_owed(site, servers):
    owe_something(site, servers)
    code, text = outgrow("status")
    assert code == 0
    row = next(line for line in text.splitlines() if "media2" in line)
    assert "up" in row
    assert " 1 " in row
    assert "is not running" in text


def test_status_for_machines_and_for_alerts(site, servers):
    owe_something(site, servers)
    code, text = outgrow("status", "--json", "--check", "--max-age", "0")
    facts = json.loads(text)
    assert code == 1
    assert len(facts["problems"]) == 2
    assert [one["owed"] for one in facts["servers"]] == [0, 1]


def test_a_server_that_is_gone_from_the_settings_is_mentioned_and_can_be_retired(site, servers):
    owe_something(site, servers)
    site.journal.owe("media0", "old.txt")
    assert "media server retire media0" in outgrow("status")[1]
    assert "with the 1 records" in outgrow("server", "retire", "media0")[1]
    assert "media0" not in outgrow("status")[1]
    for name, message in [("media0", "knows no server"), ("media1", "is still in the settings")]:
        with pytest.raises(CommandError, match=message):
            outgrow("server", "retire", name)


@contextmanager
def with_servers(site, servers):
    """The same site with another list of servers, as after a restart."""
    options = {"servers": {name: server.url for name, server in servers.items()}}
    options |= {"location": site.location, "downtime": 0.1}
    media = {"BACKEND": "outgrow.media.HybridStorage", "OPTIONS": options}
    with override_settings(STORAGES={"default": media}):
        yield storages["default"]


def test_a_server_is_added_while_old_processes_go_on_saving(site, servers):
    before = [site.save(f"{number}.txt", ContentFile(b"x")) for number in range(5)]
    with MediaServer() as third, with_servers(site, {**servers, "media3": third}) as new:
        code, text = outgrow("server", "add", "media3")
        assert code == 0
        assert "media3 has every file" in text
        assert set(before) <= third.files.keys()
        old = site.save("old.txt", ContentFile(b"x"))  # by a process with the old list
        assert old not in third.files
        assert new.journal.summary("media3")[0] == 1
        assert outgrow("repair", "--no-wait")[0] == 0
        assert old in third.files
        # Once more: it is compared, and nothing is sent.
        third.log.clear()
        assert outgrow("server", "add", "media3")[0] == 0
        assert "PUT" not in {method for method, _, _ in third.log}


def test_what_cannot_be_added(site, servers):
    with pytest.raises(CommandError, match="no server 'media9' in the settings"):
        outgrow("server", "add", "media9")
    outgrow("repair", "--no-wait")
    servers["media2"].files["outgrow-master-id.txt"] = b"f" * 32
    with pytest.raises(CommandError, match=r"belongs to the master .* Nothing was sent"):
        outgrow("server", "add", "media2")


def test_a_server_that_cannot_take_everything_is_not_added_yet(site, servers):
    outgrow("repair", "--no-wait")
    name = site.save("f.txt", ContentFile(b"x"))
    del servers["media2"].files[name]
    servers["media2"].answer_with(403, method="PUT")
    code, text = outgrow("server", "add", "media2")
    assert code == 1
    assert "does not have everything yet" in text
    servers["media2"].answer_with(None)
    assert outgrow("server", "add", "media2")[0] == 0
    assert name in servers["media2"].files


def test_a_server_is_drained_and_retired(site, servers):
    name = owe_something(site, servers)
    servers["media2"].stop()
    code, text = outgrow("server", "drain", "media1")
    assert code == 1
    assert "media1 may be the only one that has it" in text
    servers["media2"].start()
    lost = site.save("f.txt", ContentFile(b"x"))
    outgrow("repair", "--no-wait")
    del servers["media2"].files[lost]  # which nobody knows yet
    code, text = outgrow("server", "drain", "media1")
    assert code == 1
    assert "media1 may be the only one that has what they lack" in text
    assert outgrow("verify", "--repair")[0] == 0
    code, text = outgrow("server", "drain", "media1")
    assert code == 0
    assert "media server retire media1" in text
    assert name in servers["media2"].files
    with pytest.raises(CommandError, match="still in the settings"):
        outgrow("server", "retire", "media1")
    with with_servers(site, {"media2": servers["media2"]}):
        assert "media1 is forgotten" in outgrow("server", "retire", "media1")[1]
        with pytest.raises(CommandError, match="there are 0 servers, and a save needs 1"):
            outgrow("server", "drain", "media2")


def test_files_are_deleted_also_those_that_the_master_lost(site, servers):
    name, lost = site.save("f.txt", ContentFile(b"x")), site.save("f.txt", ContentFile(b"x"))
    os.unlink(site.path(lost))
    code, text = outgrow("delete", name, lost)
    assert code == 0
    assert f"{lost} is deleted" in text
    assert all(server.files.keys() == {"outgrow-master-id.txt"} for server in servers.values())
    with pytest.raises(CommandError, match="outside of the base path"):
        outgrow("delete", "../etc/passwd")


def test_what_was_removed_by_hand_is_told_with_the_remedy(site, servers):
    name = owe_something(site, servers)
    os.unlink(site.path(name))
    code, text = outgrow("repair", "--no-wait")
    assert code == 1
    assert f"manage.py outgrow media delete {name}" in text
    outgrow("delete", name)
    assert outgrow("repair", "--no-wait")[0] == 0


def test_everything_is_compared_on_request(site, servers):
    name = site.save("f.txt", ContentFile(b"x"))
    outgrow("repair", "--no-wait")
    del servers["media2"].files[name]
    assert outgrow("repair", "--no-wait")[0] == 0
    assert name not in servers["media2"].files
    assert "compare everything on media1" in outgrow("repair", "--all", "--dry-run")[1]
    assert name not in servers["media2"].files
    assert outgrow("repair", "--all", "--no-wait")[0] == 0
    assert name in servers["media2"].files


def test_a_dry_run_adopts_nothing(site, servers):
    site.save("f.txt", ContentFile(b"x"))
    outgrow("repair", "--no-wait")
    servers["media2"].files.clear()
    text = outgrow("repair", "--server", "media2", "--adopt", "--dry-run")[1]
    assert "adopt media2" in text
    assert outgrow("repair", "--no-wait")[0] == 1
    assert servers["media2"].files == {}


def test_several_storages_are_repaired_and_told_apart(site, servers, tmp_path):
    with MediaServer() as third:
        media = {"BACKEND": "outgrow.media.HybridStorage", "OPTIONS": dict(site._options)}
        media["OPTIONS"]["location"] = site.location
        avatars = {
            "BACKEND": "outgrow.media.HybridStorage",
            "OPTIONS": {"servers": {"far": third.url}, "location": str(tmp_path / "avatars")},
        }
        with override_settings(STORAGES={"default": media, "avatars": avatars}):
            code, text = outgrow("repair", "--no-wait")
            assert code == 0
            assert "default: sent 0" in text
            assert "avatars: sent 0" in text
            assert outgrow("repair", "--no-wait", "--storage", "avatars")[1].startswith("sent 0")
            assert "far" in outgrow("status")[1]
            lines = outgrow("status", "--json")[1].splitlines()
            assert [json.loads(line)["storage"] for line in lines] == ["default", "avatars"]
            with pytest.raises(CommandError, match="Choose one with --storage"):
                outgrow("delete", "f.txt")


@pytest.fixture
def field_storage(tmp_path, servers):
    """The storage of a single field, which is not in STORAGES."""
    made = HybridStorage(location=tmp_path / "fields", servers=[servers["media1"].url])

    class Report(models.Model):
        file = models.FileField(storage=made)

        class Meta:
            app_label = "outgrow"

        def __str__(self):
            return "a report"

    yield made
    del apps.all_models["outgrow"]["report"]
    apps.clear_cache()


def test_storages_of_single_fields_are_looked_after(site, servers, field_storage):
    field_storage.save("f.txt", ContentFile(b"x"))
    assert "outgrow.Report.file" in outgrow("status")[1]
    assert "outgrow.Report.file: sent 0" in outgrow("repair", "--no-wait")[1]
    assert snapshot("outgrow.Report.file").servers[0].up


def test_changes_that_wait_for_their_turn_are_part_of_the_lag(site, servers):
    """As with AsyncStorage, whose thread or queue has not come to them."""
    assert snapshot().oldest_change is None
    for name in ("a.txt", "b.txt"):
        attempt = site.journal.attempt(name, Change.SAVE)
        site.journal.begin(attempt).write_bytes(b"x")
    shot = snapshot()
    assert (shot.in_progress, shot.oldest_change < 5) == (2, True)
    assert "2 saves and deletes are on their way" in outgrow("status")[1]
    assert any("wait for their turn" in one for one in shot.problems(max_age=-1))
    assert not any("wait for their turn" in one for one in shot.problems(max_age=60))


def test_fewer_servers_than_a_save_needs_are_a_problem_at_once(site, servers):
    site.save("f.txt", ContentFile(b"x"))
    outgrow("repair", "--no-wait")
    for server in servers.values():
        server.stop()
    problems = snapshot(probe=True).problems(max_age=3600)
    assert any("0 of 2 servers are up, and a save needs 1" in one for one in problems)


def test_a_server_of_another_master_is_a_problem_at_once(site, servers):
    site.save("f.txt", ContentFile(b"x"))
    outgrow("repair", "--no-wait")
    servers["media2"].files["outgrow-master-id.txt"] = b"0" * 32
    problems = snapshot(probe=True).problems(max_age=3600)
    assert any("media2 is not written to" in one for one in problems)


def test_looking_at_the_status_changes_nothing_on_the_servers(site, servers):
    outgrow("status")
    assert all(server.files == {} for server in servers.values())


def test_a_snapshot_tells_up_and_down(site, servers):
    servers["media1"].stop()
    shot = snapshot(probe=True)
    assert [(one.name, one.up) for one in shot.servers] == [("media1", False), ("media2", True)]
    assert "no connection" in shot.servers[0].last_error
    assert json.dumps(shot.to_json())
    with pytest.raises(TypeError, match="no media storage of Outgrow"):
        snapshot("plain")


# --- the watch, as a process


SETTINGS = """
import os
SECRET_KEY = "x"
USE_TZ = True
INSTALLED_APPS = ["outgrow"]
STORAGES = {"default": {"BACKEND": "outgrow.media.HybridStorage", "OPTIONS": {
    "servers": {"media1": os.environ["ONE"], "media2": os.environ["TWO"]},
    "location": os.environ["MASTER"]}}}
"""


def wait_for(condition, what: str, limit: float = 60.0) -> None:
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


@pytest.fixture
def watch(tmp_path, servers, site):
    (tmp_path / "watch_settings.py").write_text(SETTINGS)
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "watch_settings",
        "PYTHONPATH": str(tmp_path),
        "ONE": servers["media1"].url,
        "TWO": servers["media2"].url,
        "MASTER": site.location,
    }
    words = ["-m", "django", "outgrow", "media", "repair", "--watch", "--interval", "0.2"]
    process = subprocess.Popen(
        [sys.executable, *words], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()


def test_the_watch_repairs_a_server_that_comes_back(site, servers, watch):
    wait_for(lambda: snapshot().is_watched, "no heartbeat")
    wait_for(lambda: not snapshot().servers[1].owed, "not claimed")
    servers["media2"].stop()
    name = site.save("f.txt", ContentFile(b"x"))
    wait_for(lambda: not snapshot().servers[1].up, "not seen as down")
    assert snapshot().problems(max_age=3600) == []
    servers["media2"].start()
    wait_for(lambda: name in servers["media2"].files, "not repaired")
    wait_for(lambda: snapshot().servers[1].up, "not seen as up")
    watch.send_signal(signal.SIGTERM)
    text = watch.stdout.read()
    assert watch.wait(10) == 0
    assert "media2 is down: " in text  # how, depends on what was being asked just then
    assert "media2 is up again" in text
    assert "sent 1, deleted 0" in text


# --- the checks


def messages(**options) -> list[str]:
    media = {"BACKEND": "outgrow.media.HybridStorage", "OPTIONS": options}
    with override_settings(STORAGES={"default": media}, MEDIA_ROOT="/srv/media"):
        return [f"{one.id} {one.msg} {one.hint or ''}" for one in check_media()]


def test_every_mistake_is_told_with_its_path():
    path = r"STORAGES['default']['OPTIONS']"
    found = messages(servers=["http://a:1", "ftp://b"], nead=2, timeout=0)
    assert len(found) == 3
    assert any(f"{path}['nead']" in one and "Did you mean 'need'?" in one for one in found)
    assert any(f"{path}['servers'][1]" in one for one in found)
    assert any(f"{path}['timeout']" in one for one in found)
    assert all(one.startswith("outgrow.E001") for one in found)


def test_right_settings_give_no_message():
    assert messages(servers=["http://a:1", "http://b:1"], need="majority") == []


def test_a_deadline_that_leaves_no_time_is_told():
    found = messages(servers=["http://a:1"], timeout=5, deadline=3)
    assert "['deadline']: is 3 s, less than the 5 s of 'timeout'." in found[0]


@pytest.mark.parametrize("entry", [None, "x", 3])
def test_storages_that_are_no_dictionaries_break_no_check(entry):
    media = {"BACKEND": "outgrow.media.HybridStorage", "OPTIONS": entry}
    with override_settings(STORAGES={"default": media, "other": entry}, MEDIA_ROOT="/srv/media"):
        (found,) = check_media()
    assert found.id == "outgrow.E001"
    assert repr(entry) in found.msg


SQLITE = {"ENGINE": "django.db.backends.sqlite3", "NAME": "site.sqlite3"}
POSTGRESQL = {"ENGINE": "django.db.backends.postgresql", "NAME": "site"}


def catalogue(databases, **options) -> list[str]:
    media = {
        "BACKEND": "outgrow.media.DistributedStorage",
        "OPTIONS": {"servers": ["http://a:1", "http://b:1"]} | options,
    }
    # Only the setting is read: no connection is made.
    with override_settings(STORAGES={"default": media}), other_databases(databases):
        return [f"{one.id} {one.msg} {one.hint or ''}" for one in check_media()]


@contextmanager
def other_databases(databases):
    before = settings.DATABASES
    settings.DATABASES = databases
    try:
        yield
    finally:
        settings.DATABASES = before


@pytest.mark.parametrize(
    ("databases", "options", "problem"),
    [
        ({"default": POSTGRESQL}, {}, "['database'] is 'outgrow', which DATABASES has not"),
        ({"default": POSTGRESQL, "outgrow": POSTGRESQL}, {"using": "x"}, "['using'] is 'x'"),
        ({"default": POSTGRESQL}, {"database": "default"}, "is the site's own alias"),
        ({"default": SQLITE, "outgrow": SQLITE}, {}, "is the same SQLite file"),
        (
            {"default": POSTGRESQL, "outgrow": POSTGRESQL | {"ATOMIC_REQUESTS": True}},
            {},
            "has ATOMIC_REQUESTS",
        ),
    ],
)
def test_a_catalogue_without_a_connection_of_its_own_is_told(databases, options, problem):
    (found,) = catalogue(databases, **options)
    assert found.startswith("outgrow.E004")
    assert problem in found


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("db.sqlite3", "./db.sqlite3", True),
        ("db.sqlite3", "folder/../db.sqlite3", True),
        ("db.sqlite3", "{here}/db.sqlite3", True),
        ("db.sqlite3", Path("db.sqlite3"), True),
        ("db.sqlite3", "linked.sqlite3", True),
        ("db.sqlite3", "file:db.sqlite3?mode=rwc", True),
        ("file:{here}/d%62.sqlite3", "file:///{here}/db.sqlite3", True),
        ("file:one?mode=memory&cache=shared", "file:one?mode=memory&cache=shared", True),
        ("db.sqlite3", "other/db.sqlite3", False),
        (":memory:", ":memory:", False),
        ("file::memory:", "file::memory:", False),
        ("file:one?mode=memory&cache=shared", "file:two?mode=memory&cache=shared", False),
        ("file:one?mode=memory", "file:one?mode=memory", False),
    ],
)
def test_the_same_sqlite_file_under_two_names(tmp_path, monkeypatch, one, other, same):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "linked.sqlite3").symlink_to("db.sqlite3")
    names = [name.format(here=tmp_path) if isinstance(name, str) else name for name in (one, other)]
    site, own = (SQLITE | {"NAME": name} for name in names)
    found = catalogue({"default": site, "outgrow": own})
    assert ["is the same SQLite file" in one for one in found] == [True] * same


#: Where tasks come from with this Django: its own package, since 6.0, or the backport.
TASKS = "django.tasks" if importlib.util.find_spec("django.tasks") else "django_tasks"


class NoTask(importlib.import_module(f"{TASKS}.backends.dummy").DummyBackend):
    """Takes no task at all."""

    def validate_task(self, task):
        raise importlib.import_module(f"{TASKS}.exceptions").TaskException("not today")


def checked_with(tasks: dict[str, object] | None) -> list[str]:
    """What the checks say of a storage whose jobs are tasks, in a process that has none yet."""
    sys.modules.pop("outgrow.media.django_job", None)
    options = {"servers": ["http://a:1"], "background": "tasks"}
    media = {"BACKEND": "outgrow.media.AsyncStorage", "OPTIONS": options}
    changed = {} if tasks is None else {"TASKS": tasks}
    try:
        with override_settings(STORAGES={"default": media}, MEDIA_ROOT="/srv/media", **changed):
            return [f"{one.id} {one.msg}" for one in check_media()]
    finally:
        sys.modules.pop("outgrow.media.django_job", None)


@pytest.mark.parametrize(
    ("backend", "problem"),
    [
        (None, "save() waits for every server"),
        (f"{TASKS}.backends.immediate.ImmediateBackend", "save() waits for every server"),
        (f"{TASKS}.backends.dummy.DummyBackend", "runs no job at all"),
        # The backport's own, also where Django has tasks.
        ("django_tasks.backends.immediate.ImmediateBackend", "save() waits for every server"),
        ("django_tasks.backends.dummy.DummyBackend", "runs no job at all"),
    ],
)
def test_tasks_without_a_worker_are_told(backend, problem):
    (found,) = checked_with(backend and {"default": {"BACKEND": backend}})
    assert found.startswith("outgrow.W001")
    assert problem in found


@pytest.mark.parametrize("options", [{}, {"QUEUES": []}, {"QUEUES": ["mail"]}])
def test_tasks_with_a_worker_are_right(options):
    assert checked_with({"default": {"BACKEND": "django_tasks_db.DatabaseBackend"} | options}) == []


@pytest.mark.parametrize(
    "tasks",
    [
        {"default": {"BACKEND": "no.such.Backend"}},
        {"other": {"BACKEND": "django_tasks_db.DatabaseBackend"}},
        {"default": {"BACKEND": f"{__name__}.NoTask"}},
    ],
)
def test_tasks_that_take_no_job_are_told(tasks):
    (found,) = checked_with(tasks)
    assert found.startswith("outgrow.E003")
    assert "TASKS['default']: takes no task" in found


def test_a_catalogue_with_one_is_right():
    assert catalogue({"default": POSTGRESQL, "outgrow": POSTGRESQL}) == []
    other = SQLITE | {"NAME": "outgrow.sqlite3"}
    assert catalogue({"default": SQLITE, "outgrow": other}) == []


def test_a_catalogue_without_its_tables_is_told():
    with modify_settings(INSTALLED_APPS={"remove": "outgrow"}):
        (found,) = catalogue({"default": POSTGRESQL, "outgrow": POSTGRESQL})
    assert found.startswith("outgrow.E005")
    assert "manage.py migrate" in found


def test_need_0_is_refused_without_a_master():
    (found,) = catalogue({"default": POSTGRESQL, "outgrow": POSTGRESQL}, need=0)
    assert "there is no master copy: a file that no server took would be lost" in found


def test_a_missing_media_root_is_told():
    media = {"BACKEND": "outgrow.media.HybridStorage", "OPTIONS": {"servers": ["http://a:1"]}}
    with override_settings(STORAGES={"default": media}, MEDIA_ROOT=""):
        assert [one.id for one in run_checks(tags=["files"])] == ["outgrow.E002"]


def test_the_command_is_quick_to_start():
    words = [sys.executable, "-m", "outgrow", "--help"]
    times = []
    for _ in range(3):
        # What it takes of a core, whatever else this machine does.
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(words, check=True, capture_output=True, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < 1.0, times
