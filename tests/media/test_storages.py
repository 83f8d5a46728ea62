"""HybridStorage as Django's storage: what FileSystemStorage guarantees, and what it adds."""

from __future__ import annotations

import io
import logging
import os
import pickle
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured, SuspiciousFileOperation
from django.core.files.base import ContentFile, File
from django.core.files.uploadedfile import TemporaryUploadedFile
from django.db import models
from django.test import override_settings
from django.test.utils import isolate_apps

from outgrow.errors import JournalTooNew, MasterError, NotEnoughServers, SaveInterrupted
from outgrow.media import HybridStorage, files
from outgrow.media.journal import ATTEMPT_LIMIT
from outgrow.media.repair import Repair
from outgrow.testing import MediaServer

MASTER_ID = "outgrow-master-id.txt"


@pytest.fixture
def servers():
    with MediaServer() as one, MediaServer() as two:
        yield [one, two]


@pytest.fixture
def make(tmp_path, servers):
    def make(kind=HybridStorage, **options):
        given = {"location": tmp_path / "master", "base_url": "/media/", "downtime": 0.1}
        given["servers"] = [server.url for server in servers]
        return kind(**(given | options))

    return make


def copies(server: MediaServer) -> dict[str, bytes]:
    return {name: content for name, content in server.files.items() if name != MASTER_ID}


def everything_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# --- saving


def test_a_save_is_on_the_master_and_on_every_server(make, servers):
    storage = make()
    name = storage.save("a/b.txt", ContentFile(b"hello"))
    assert Path(storage.path(name)).read_bytes() == b"hello"
    assert [copies(server) for server in servers] == [{name: b"hello"}] * 2
    assert storage.url(name) == f"/media/{name}"
    assert storage.size(name) == 5
    assert storage.listdir("") == (["a"], [])


def test_names_are_unique_and_fit_a_file_field(make):
    storage = make()
    names = {storage.save("photo.jpg", ContentFile(b"x")) for _ in range(20)}
    assert len(names) == 20
    assert all(name.endswith(".jpg") for name in names)
    long = storage.get_available_name("u/" + "n" * 200 + ".jpeg", max_length=100)
    assert len(long) == 100
    assert long.endswith(".jpeg")


@isolate_apps("outgrow")
def test_a_model_s_field_saves_and_deletes(make, servers):
    class Document(models.Model):  # noqa: DJ008 - never shown
        file = models.FileField(storage=make(), upload_to="docs")

        class Meta:
            app_label = "outgrow"

    document = Document()
    document.file.save("n" * 150 + ".pdf", ContentFile(b"pdf"), save=False)
    assert len(document.file.name) <= 100
    assert copies(servers[0])[document.file.name] == b"pdf"
    document.file.delete(save=False)
    assert copies(servers[0]) == {}


@pytest.mark.parametrize("size", [0, 10, 300_000])
def test_contents_of_every_size_are_whole(make, servers, size):
    content = os.urandom(size)
    name = make().save("f.bin", ContentFile(content))
    assert [copies(server)[name] for server in servers] == [content] * 2


def test_text_is_saved_as_filesystemstorage_does(make, servers):
    name = make().save("f.txt", ContentFile("grüße"))
    assert copies(servers[0])[name] == "grüße".encode()


def test_an_upload_in_a_file_stays_the_caller_s(make, servers):
    upload = TemporaryUploadedFile("big.bin", "application/octet-stream", 6, None)
    upload.write(b"upload")
    upload.seek(0)
    path = upload.temporary_file_path()
    name = make().save("big.bin", upload)
    assert copies(servers[1])[name] == b"upload"
    assert Path(path).read_bytes() == b"upload"
    upload.close()


@pytest.mark.parametrize("kind", ["memory", "temporary"])
def test_a_save_that_failed_can_be_tried_again_with_the_same_file(make, servers, kind):
    storage = make(need="all", timeout=0.5)
    if kind == "memory":
        content: File = ContentFile(b"again")
    else:
        content = TemporaryUploadedFile("f.bin", "x/y", 5, None)
        content.write(b"again")
        content.seek(0)
    servers[1].answer_with(500)
    with pytest.raises(NotEnoughServers):
        storage.save("f.bin", content)
    servers[1].answer_with(None)
    name = storage.save("f.bin", content)
    assert [copies(server) for server in servers] == [{name: b"again"}] * 2
    content.close()


def test_modes_are_as_filesystemstorage_sets_them(make):
    storage = make(file_permissions_mode=0o640, directory_permissions_mode=0o750)
    name = storage.save("one/two/f.txt", ContentFile(b"x"))
    path = Path(storage.path(name))
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750
    assert stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o750


def test_fsync_gives_the_same_files(make, servers):
    storage = make(fsync=True)
    name = storage.save("a/b/c.txt", ContentFile(b"safe"))
    assert copies(servers[0]) == {name: b"safe"}
    storage.delete(name)
    assert copies(servers[0]) == {}


# --- need


def test_fewer_than_needed_is_undone_and_names_each_server(make, servers):
    storage = make(need=2)
    servers[1].answer_with(507)
    with pytest.raises(NotEnoughServers) as raised:
        storage.save("f.txt", ContentFile(b"x"))
    error = raised.value
    assert error.need == 2
    assert len(error.done) == 1
    assert "disk is full" in str(error)
    assert copies(servers[0]) == {}
    assert not storage.exists(error.name)
    assert "f_" in error.name


def test_what_a_server_missed_is_owed_to_it(make, servers):
    storage = make(need=1)
    servers[1].stop()
    name = storage.save("f.txt", ContentFile(b"x"))
    owed = list(storage.journal.debts(storage.options.servers[1].name))
    assert [debt.name for debt in owed if debt.name] == [name]


@pytest.mark.parametrize(("need", "down", "ok"), [
    (0, 2, True), (1, 1, True), (1, 2, False), (2, 1, False),
    ("majority", 1, False), ("all", 1, False), ("all", 0, True),
])  # fmt: skip
def test_need_decides_failure(make, servers, need, down, ok):
    storage = make(need=need)
    for server in servers[:down]:
        server.stop()
    if ok:
        assert storage.exists(storage.save("f.txt", ContentFile(b"x")))
    else:
        with pytest.raises(NotEnoughServers):
            storage.save("f.txt", ContentFile(b"x"))
        assert storage.listdir("") == ([], [])


def test_need_0_logs_one_error_a_server_and_a_traceback_if_asked(make, servers, caplog):
    for server in servers:
        server.stop()
    make(need=0, show_traceback=True).save("f.txt", ContentFile(b"x"))
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 2
    assert all(record.exc_info for record in errors)


def test_need_0_never_saves_beside_another_masters_servers(make, servers, tmp_path):
    """An empty mount point looks like a new master; its servers know better."""
    make().save("f.txt", ContentFile(b"x"))
    empty = make(need=0, location=tmp_path / "not mounted")
    for _ in range(2):  # the second one does not ask again, and remembers
        with pytest.raises(NotEnoughServers, match="belongs to the master"):
            empty.save("f.txt", ContentFile(b"x"))
        assert empty.listdir("") == ([], [])


# --- deleting


def test_a_delete_reaches_every_server_and_is_remembered(make, servers):
    storage = make()
    name = storage.save("f.txt", ContentFile(b"x"))
    servers[0].stop()
    storage.delete(name)
    assert copies(servers[1]) == {}
    assert not storage.exists(name)
    assert name in {gone for gone, _ in storage.journal.tombstones()}


def test_no_request_is_sent_for_a_folder(make, servers):
    storage = make()
    storage.save("folder/f.txt", ContentFile(b"x"))
    os.mkdir(storage.path("empty"))
    before = len(servers[0].log)
    storage.delete("empty")
    with pytest.raises(OSError, match="not empty"):
        storage.delete("folder")
    with pytest.raises(ValueError, match="must be given"):
        storage.delete("")
    assert len(servers[0].log) == before
    assert storage.listdir("")[0] == ["folder"]


def test_deleting_what_is_not_there_is_no_error(make):
    make().delete("never.txt")


# --- names="keep"


def test_kept_names_behave_as_in_filesystemstorage(make, servers):
    storage = make(names="keep")
    assert storage.save("f.txt", ContentFile(b"1")) == "f.txt"
    other = storage.save("f.txt", ContentFile(b"2"))
    assert other != "f.txt"
    assert copies(servers[0]) == {"f.txt": b"1", other: b"2"}


def test_overwriting_replaces_everywhere(make, servers):
    storage = make(names="keep", allow_overwrite=True)
    storage.save("f.txt", ContentFile(b"1"))
    assert storage.save("f.txt", ContentFile(b"2")) == "f.txt"
    assert [copies(server) for server in servers] == [{"f.txt": b"2"}] * 2


def test_an_overwrite_that_is_undone_puts_the_old_file_back(make, servers):
    storage = make(names="keep", allow_overwrite=True, need=2)
    storage.save("f.txt", ContentFile(b"old"))
    servers[1].answer_with(500)
    with pytest.raises(NotEnoughServers):
        storage.save("f.txt", ContentFile(b"new"))
    assert Path(storage.path("f.txt")).read_bytes() == b"old"
    owed = [d.name for s in storage.options.servers for d in storage.journal.debts(s.name)]
    assert owed.count("f.txt") == 2


# --- what is refused

HOSTILE = [
    "../up.txt", "a/../../up.txt", "/etc/passwd", "C:/x.txt", "c:x.txt", "a\\b.txt", "a\0b.txt",
    "a\nb.txt", "a\r\nX-Evil: 1.txt", "a\x7fb.txt", "a//b.txt", ".htaccess", "a/.outgrow/x.txt",
    ".outgrow/new/x", "a/b.", "a/b ", "%2e%2e/x.txt", "a%2fb.txt", "a%00.txt", "a/", MASTER_ID,
    "x" * 300 + "/y.txt", "a/" * 600 + "x.txt", "\ud800.txt", "..", ".", "a/./b.txt",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
@pytest.mark.parametrize("kind", ["unique", "keep"])
def test_hostile_names_are_refused_and_nothing_is_written(make, servers, tmp_path, name, kind):
    storage = make(names=kind)
    storage.save("first.txt", ContentFile(b"x"))
    sent = [len(server.log) for server in servers]
    before = everything_below(tmp_path)
    saved = None
    try:
        saved = storage.save(name, ContentFile(b"evil"))
    except (SuspiciousFileOperation, ValueError):
        assert everything_below(tmp_path) == before
        assert [len(server.log) for server in servers] == sent
    # The master's id is a reserved name; a token makes it another one. Django's
    # storages take a backslash for a slash, and so does this one.
    with_token = kind == "unique" and name == MASTER_ID
    assert saved is None or with_token or (name == "a\\b.txt" and saved.startswith("a/b"))


@pytest.mark.parametrize("name", [n for n in HOSTILE if n not in {MASTER_ID, "..", "."}], ids=ascii)
def test_hostile_names_are_not_deleted_either(make, servers, name):
    storage = make()
    storage.save("first.txt", ContentFile(b"x"))
    sent = [len(server.log) for server in servers]
    with pytest.raises((SuspiciousFileOperation, ValueError, OSError)):
        storage.delete(name)
    assert [len(server.log) for server in servers] == sent


def test_the_journal_is_not_the_site_s(make):
    storage = make()
    storage.save("f.txt", ContentFile(b"x"))
    assert ".outgrow" not in storage.listdir("")[0]
    for name in (".outgrow/master", "./.outgrow/master", "x/../.outgrow/master"):
        with pytest.raises(SuspiciousFileOperation):
            storage.open(name)
    folder = Path(storage.location) / ".outgrow"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_file_is_not_opened_for_writing(make):
    storage = make()
    name = storage.save("f.txt", ContentFile(b"x"))
    for mode in ("wb", "ab", "r+b", "xb"):
        with pytest.raises(io.UnsupportedOperation, match=r"save\(\) it"):
            storage.open(name, mode)
    with storage.open(name) as file:
        assert file.read() == b"x"


# --- the storage as an object


def test_it_survives_a_pickle_in_use(make, servers):
    storage = make()
    storage.save("f.txt", ContentFile(b"x"))
    copy = pickle.loads(pickle.dumps(storage))
    name = copy.save("g.txt", ContentFile(b"y"))
    assert copies(servers[0])[name] == b"y"


def test_a_migration_knows_no_servers(make):
    path, args, kwargs = make(token="secret").deconstruct()
    assert (path, args, kwargs) == ("outgrow.media.HybridStorage", (), {})
    bare = HybridStorage()
    with pytest.raises(ImproperlyConfigured, match="servers"):
        bare.save("f.txt", ContentFile(b"x"))


def test_mistakes_are_told_when_it_is_made(make):
    with pytest.raises(ImproperlyConfigured, match=r"\['nead'\].*Did you mean 'need'"):
        make(nead=2)
    with pytest.raises(ImproperlyConfigured, match="3, but there are 2 servers"):
        make(need=3)


def test_nothing_is_made_or_sent_before_the_first_use(make, servers, tmp_path):
    make()
    assert not (tmp_path / "master").exists()
    assert servers[0].log == []


def test_media_root_is_followed_when_a_test_overrides_it(servers, tmp_path):
    for server in servers:  # they would refuse the second master
        server.stop()
    with override_settings(MEDIA_ROOT=tmp_path / "one"):
        storage = HybridStorage(servers=[server.url for server in servers], need=0)
        first = storage.save("f.txt", ContentFile(b"1"))
    with override_settings(MEDIA_ROOT=tmp_path / "two"):
        storage.save("f.txt", ContentFile(b"2"))
    assert (tmp_path / "one" / first).exists()
    assert len(list((tmp_path / "two").glob("*.txt"))) == 1


def test_without_media_root_it_says_so(servers):
    storage = HybridStorage(servers=[server.url for server in servers])
    with pytest.raises(ImproperlyConfigured, match="MEDIA_ROOT"):
        storage.save("f.txt", ContentFile(b"x"))


# --- a master that is not what it should be


def test_another_master_is_refused_by_the_servers(make, tmp_path):
    make().save("f.txt", ContentFile(b"x"))
    with pytest.raises(NotEnoughServers, match="belongs to the master"):
        make(location=tmp_path / "other").save("f.txt", ContentFile(b"x"))


def test_a_server_that_lost_its_id_is_not_written_to(make, servers):
    make().save("f.txt", ContentFile(b"x"))
    servers[1].files.clear()
    storage = make(need=2)
    with pytest.raises(NotEnoughServers, match="may be unmounted"):
        storage.save("g.txt", ContentFile(b"x"))
    assert copies(servers[1]) == {}


def test_a_master_that_vanishes_is_told(make, tmp_path):
    storage = make()
    storage.save("f.txt", ContentFile(b"x"))
    os.rename(tmp_path / "master", tmp_path / "unmounted")
    (tmp_path / "master").mkdir()
    with pytest.raises((MasterError, FileNotFoundError)):
        storage.save("g.txt", ContentFile(b"x"))
    assert everything_below(tmp_path / "master") == set()


def test_a_newer_journal_is_left_alone(make, tmp_path):
    make().save("f.txt", ContentFile(b"x"))
    (tmp_path / "master/.outgrow/format").write_text("outgrow journal 2\n")
    with pytest.raises(JournalTooNew, match="Upgrade Outgrow"):
        make().save("g.txt", ContentFile(b"x"))


FULL = """
import resource, sys
from django.conf import settings
settings.configure()
from django.core.files.base import ContentFile
from outgrow.media import HybridStorage
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
storage = HybridStorage(location=sys.argv[1], servers=[sys.argv[2]])
storage.save("small.txt", ContentFile(b"x"))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    storage.save("big.bin", ContentFile(b"x" * 200_000))
except OSError as error:
    print("raised", error.strerror)
print("again", storage.save("small.txt", ContentFile(b"y")))
"""


def test_a_master_that_takes_no_more_leaves_nothing_half(tmp_path, servers):
    words = [sys.executable, "-c", FULL, str(tmp_path / "master"), servers[0].url]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert "raised File too large" in done.stdout, done.stderr
    assert "again small_" in done.stdout
    assert not [name for name in everything_below(tmp_path) if "big" in name]
    assert not files.names(tmp_path / "master/.outgrow/new")
    assert not files.names(tmp_path / "master/.outgrow/open")
    assert len(copies(servers[0])) == 2


# --- readers


class Watched(ContentFile):
    """Content that looks around while it is written."""

    seen: set[str]

    def chunks(self, chunk_size=None):
        for number in range(5):
            self.seen |= self.look()
            yield bytes([number]) * 70_000


def test_nobody_sees_a_half_written_file(make, servers, tmp_path):
    """M6: the name appears when the file is whole, on the master and on the servers."""
    storage = make()
    storage.save("first.txt", ContentFile(b"x"))
    content = Watched(b"")
    content.seen = set()
    content.look = lambda: set(storage.listdir("")[1]) | copies(servers[0]).keys()
    name = storage.save("slow.bin", content)
    assert not any("slow" in one for one in content.seen)
    assert len(copies(servers[1])[name]) == 350_000


# --- trouble on the master


def test_a_folder_that_cannot_be_made_is_told_at_once(make, servers, tmp_path):
    storage = make()
    storage.save("first.txt", ContentFile(b"x"))
    (tmp_path / "master/album").symlink_to(tmp_path / "not mounted")
    with pytest.raises(MasterError, match="leads nowhere"):
        storage.save("album/photo.jpg", ContentFile(b"x"))
    assert list(storage.journal.attempts()) == []
    assert all(len(copies(server)) == 1 for server in servers)


def test_names_that_are_all_taken_end_the_save(make):
    class Stubborn(HybridStorage):
        def get_available_name(self, name, max_length=None):
            return name

    storage = make(Stubborn, names="keep")
    storage.save("f.txt", ContentFile(b"x"))
    with pytest.raises(MasterError, match="were taken"):
        storage.save("f.txt", ContentFile(b"x"))
    assert list(storage.journal.attempts()) == []


def test_a_save_makes_the_journals_folders_anew(make, servers, tmp_path):
    storage = make()
    storage.save("first.txt", ContentFile(b"x"))
    shutil.rmtree(tmp_path / "master/.outgrow/open")
    name = storage.save("f.txt", ContentFile(b"x"))
    assert all(name in copies(server) for server in servers)


def test_a_master_that_was_unmounted_is_told(make, tmp_path):
    storage = make()
    name = storage.save("first.txt", ContentFile(b"x"))
    (tmp_path / "master").rename(tmp_path / "away")
    (tmp_path / "master").mkdir()
    for act in (lambda: storage.save("f.txt", ContentFile(b"x")), lambda: storage.delete(name)):
        with pytest.raises(MasterError, match="Is MEDIA_ROOT still mounted"):
            act()
    assert everything_below(tmp_path / "master") == set()


def test_a_save_that_is_given_up_while_it_is_written_says_so(make, tmp_path):
    storage = make(file_permissions_mode=0o640)
    storage.journal.prepare()

    class Slow(ContentFile):
        def chunks(self, chunk_size=None):
            yield b"x"
            (attempt,) = storage.journal.attempts()
            storage.journal.discard(storage.journal.withdraw(attempt))

    with pytest.raises(SaveInterrupted, match="save it again"):
        storage.save("f.txt", Slow(b"x"))


def test_a_save_that_may_have_arrived_is_removed_when_it_is_undone(make, servers):
    """The server had the whole file, and then answered that it failed."""
    storage = make(need=2)
    storage.save("first.txt", ContentFile(b"x"))
    Repair(storage.replication).once(settle=False)
    servers[1].answer_with(500, 1, method="PUT", carry_out=True)
    with pytest.raises(NotEnoughServers):
        storage.save("f.txt", ContentFile(b"x"))
    assert Repair(storage.replication).once(settle=False).complete
    assert all(len(copies(server)) == 1 for server in servers)


def test_a_file_whose_size_is_not_told_is_read(make):
    """Files in /proc say that they are empty."""
    storage = make()
    with open("/proc/self/status", "rb") as source:
        name = storage.save("status.txt", File(source, name="status.txt"))
    assert storage.size(name) > 100


def test_the_reason_of_a_lost_connection_is_logged_on_request(make, servers, caplog):
    storage = make(need=0, show_traceback=True)
    storage.save("first.txt", ContentFile(b"x"))
    servers[1].raw_answer = lambda stream: stream.close()
    with caplog.at_level(logging.ERROR, "outgrow.media"):
        storage.save("f.txt", ContentFile(b"x" * 1_000_000))
    (record,) = caplog.records
    assert "Traceback" in logging.Formatter().format(record)


def test_an_attempt_may_take_as_long_as_the_deadline_says(make):
    assert make().journal.attempt_limit == ATTEMPT_LIMIT
    assert make(deadline=3600).journal.attempt_limit == 4 * 3600


# --- names from before, and long ones


def test_a_kept_name_that_is_too_long_is_shortened_as_django_does(make):
    storage = make(names="keep")
    long = "n" * 300 + ".jpeg"
    name = storage.save(long, ContentFile(b"x"), max_length=100)
    assert len(name) == 100
    with pytest.raises(SuspiciousFileOperation, match="longer than 255 bytes"):
        storage.save(long, ContentFile(b"x"))


@pytest.mark.parametrize("name", ["a%20b.txt", ".hidden", "ends with a dot."])
def test_a_file_from_before_whose_name_is_never_sent_can_be_deleted(make, servers, name):
    storage = make()
    storage.journal.prepare()
    path = storage.journal.root / name
    path.write_bytes(b"x")
    storage.delete(name)
    assert not path.exists()
    assert not any(server.log for server in servers)
    with pytest.raises(SuspiciousFileOperation):
        storage.delete(name)


def test_another_spelling_of_a_name_deletes_nothing(make):
    storage = make(names="keep")
    name = storage.save("a/b.txt", ContentFile(b"x"))
    for other in ("a//b.txt", "./a/b.txt", "a/../a/b.txt"):
        with pytest.raises(SuspiciousFileOperation):
            storage.delete(other)
    assert storage.exists(name)


@pytest.mark.parametrize("folder", [".outgrow", ".OUTGROW", ".Outgrow"])
def test_the_journals_folder_is_no_place_for_files(make, folder):
    with pytest.raises(SuspiciousFileOperation):
        make().path(f"{folder}/master")


def test_an_upload_in_a_file_of_its_own_need_not_be_open(make, tmp_path):
    class Received:
        name = "f.txt"

        def temporary_file_path(self):
            return str(tmp_path / "received")

        def chunks(self, chunk_size=None):
            raise AssertionError("it is linked")

    (tmp_path / "received").write_bytes(b"x")
    storage = make()
    assert storage.size(storage.save("f.txt", Received())) == 1
