"""DistributedStorage: files on media servers, with a catalogue on SQLite and PostgreSQL."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import stat
from contextlib import suppress

import pytest
from django.core.exceptions import ImproperlyConfigured, SuspiciousFileOperation
from django.core.files.base import ContentFile, File
from django.core.files.uploadedfile import TemporaryUploadedFile
from django.db import connections, transaction
from django.http import FileResponse
from django.utils.connection import ConnectionDoesNotExist
from PIL import Image

from outgrow import metrics, signals
from outgrow.errors import CatalogueUnavailable, NoCopy, NotEnoughServers
from outgrow.media import DistributedStorage
from outgrow.media.catalogue import Catalogue
from outgrow.media.proof import SMALL, SUMMED
from outgrow.media.repair import Repair
from outgrow.media.tables import File as Row
from outgrow.media.verify import Verify
from outgrow.status import snapshot_of
from outgrow.testing import MediaServer
from tests.live.nginx import running_nginx
from tests.live.postgres import OWN, SITE

MASTER_ID = "outgrow-master-id.txt"
ALIASES = {"SQLite": ("outgrow", "default"), "PostgreSQL": (OWN, SITE)}
in_database = pytest.mark.django_db(transaction=True, databases=["default", "outgrow"])


@pytest.fixture(params=[pytest.param("SQLite", marks=in_database), "PostgreSQL"])
def aliases(request):
    if request.param == "PostgreSQL":
        request.getfixturevalue("postgres")
    return ALIASES[request.param]


@pytest.fixture
def servers():
    with MediaServer() as one, MediaServer() as two, MediaServer() as three:
        yield [one, two, three]


@pytest.fixture
def make(aliases, servers):
    def make(kind=DistributedStorage, **options):
        given = {"servers": [server.url for server in servers], "downtime": 0.05, "timeout": 1}
        given |= {"database": aliases[0], "using": aliases[1], "base_url": "/media/"}
        return kind(**(given | options))

    return make


@pytest.fixture
def storage(make):
    made = make()
    Repair(made.replication).once(settle=False)
    return made


def copies(server: MediaServer) -> dict[str, bytes]:
    return {name: content for name, content in server.files.items() if name != MASTER_ID}


def heal(storage) -> None:
    report = Repair(storage.replication).once(settle=False)
    assert report.complete, report


class Rollback(Exception):
    """The site changes its mind."""


def rolled_back(storage, act) -> None:
    with suppress(Rollback), transaction.atomic(storage.options.using):
        act()
        raise Rollback


# --- saving


def test_a_save_is_on_every_server_and_in_the_catalogue(storage, servers):
    name = storage.save("a/b.txt", ContentFile(b"hello"))
    assert [copies(server) for server in servers] == [{name: b"hello"}] * 3
    assert storage.exists(name)
    assert storage.size(name) == 5
    assert storage.open(name).read() == b"hello"
    assert storage.url(name) == f"/media/{name}"
    assert storage.get_modified_time(name)
    assert storage.listdir("") == (["a"], [])
    assert storage.listdir("a") == ([], [name.removeprefix("a/")])
    assert list(storage.journal.attempts()) == []


@pytest.mark.parametrize("kind", ["content", "file", "temporary"])
def test_the_callers_file_stays_open_and_whole(storage, servers, tmp_path, kind):
    content = os.urandom(200_000)
    if kind == "content":
        file: File = ContentFile(content)
    elif kind == "file":
        (tmp_path / "upload").write_bytes(content)
        file = File((tmp_path / "upload").open("rb"))
    else:
        file = TemporaryUploadedFile("f.bin", "application/octet-stream", len(content), "")
        file.write(content)
        file.seek(0)
    name = storage.save("f.bin", file)
    assert all(copies(server)[name] == content for server in servers)
    file.seek(0)
    assert file.read() == content
    file.close()


def test_nothing_of_an_upload_is_left_on_this_machine(storage, tmp_path, settings):
    settings.FILE_UPLOAD_TEMP_DIR = str(tmp_path)
    storage.save("f.txt", ContentFile(b"x"))
    with pytest.raises(ZeroDivisionError):
        storage.save("f.txt", Broken(b"x"))
    assert list(tmp_path.iterdir()) == []


def test_an_upload_on_its_way_is_for_its_owner_alone(storage, tmp_path, settings):
    settings.FILE_UPLOAD_TEMP_DIR = str(tmp_path)
    modes = []

    class Watched(ContentFile):
        def chunks(self, chunk_size=None):
            yield b"x"
            modes.extend(stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir())

    storage.save("f.txt", Watched(b"x"))
    assert modes == [0o600]


def test_a_transaction_without_a_block_is_one_too(storage, aliases):
    """Autocommit is off: nothing is live before the commit."""
    connection = connections[aliases[1]]
    transaction.set_autocommit(False, using=aliases[1])
    try:
        name = storage.save("f.txt", ContentFile(b"x"))
        assert storage.journal.reap([]) == []
        transaction.commit(using=aliases[1])
    finally:
        transaction.set_autocommit(True, using=aliases[1])
    assert storage.journal.reap([]) == []
    assert storage.open(name).read() == b"x"
    assert connection.get_autocommit()


class Broken(ContentFile):
    def chunks(self, chunk_size=None):
        yield b"x"
        raise ZeroDivisionError


def test_the_default_needs_a_majority(storage, servers):
    assert storage.options.need == 2
    servers[2].stop()
    name = storage.save("f.txt", ContentFile(b"x"))
    servers[2].start()
    heal(storage)
    assert name in copies(servers[2])


def test_too_few_servers_undo_the_save(storage, servers):
    servers[1].stop()
    servers[2].stop()
    with pytest.raises(NotEnoughServers):
        storage.save("f.txt", ContentFile(b"x"))
    for server in servers[1:]:
        server.start()
    heal(storage)
    assert [copies(server) for server in servers] == [{}] * 3
    assert storage.listdir("") == ([], [])


def test_a_server_that_missed_a_file_gets_it_from_another(storage, servers):
    content = os.urandom(3_000_000)
    servers[0].stop()
    name = storage.save("large.bin", ContentFile(content))
    servers[0].start()
    heal(storage)
    assert copies(servers[0])[name] == content


def test_a_copy_that_has_rotted_is_not_spread(storage, servers):
    servers[0].stop()
    name = storage.save("f.txt", ContentFile(b"right"))
    servers[0].start()
    servers[1].files[name] = b"wrong"
    heal(storage)
    assert copies(servers[0])[name] == b"right"


def test_without_any_copy_the_file_stays_owed(storage, servers):
    servers[0].stop()
    name = storage.save("f.txt", ContentFile(b"x"))
    servers[0].start()
    for server in servers[1:]:
        server.stop()
    report = Repair(storage.replication).once(settle=False)
    assert name in report.unreadable
    assert report.still_owed == 1
    for server in servers[1:]:
        server.start()
    heal(storage)
    assert name in copies(servers[0])


# --- transactions of the site


def test_a_save_that_is_rolled_back_is_removed(storage, servers, monkeypatch):
    rolled_back(storage, lambda: storage.save("f.txt", ContentFile(b"x")))
    assert len(copies(servers[0])) == 1
    monkeypatch.setattr(storage.journal, "grace", -1)
    heal(storage)
    assert [copies(server) for server in servers] == [{}] * 3


def test_receivers_are_told_what_was_given_up(storage, servers, monkeypatch, caplog):
    told = []

    def broken(**_):
        raise ZeroDivisionError("a receiver's own fault")

    def receiver(sender, name, **more):
        told.append((sender, name, more["storage"]))

    monkeypatch.setattr(storage.journal, "grace", -1)
    names = []
    signals.file_given_up.connect(broken)
    signals.file_given_up.connect(receiver)
    try:
        rolled_back(storage, lambda: names.append(storage.save("f.txt", ContentFile(b"x"))))
        storage.save("g.txt", ContentFile(b"x"))
        heal(storage)
        heal(storage)
    finally:
        signals.file_given_up.disconnect(broken)
        signals.file_given_up.disconnect(receiver)
    assert told == [(DistributedStorage, names[0], storage)]
    assert "A receiver of file_given_up failed" in caplog.text


def test_a_save_that_is_committed_stays(storage, servers, monkeypatch):
    monkeypatch.setattr(storage.journal, "grace", -1)
    with transaction.atomic(storage.options.using):
        name = storage.save("f.txt", ContentFile(b"x"))
        assert storage.exists(name)
        assert storage.open(name).read() == b"x"
    heal(storage)
    assert storage.open(name).read() == b"x"


def test_a_delete_waits_for_the_commit(storage, servers):
    name = storage.save("f.txt", ContentFile(b"x"))
    with transaction.atomic(storage.options.using):
        storage.delete(name)
        assert name in copies(servers[0])
    assert [copies(server) for server in servers] == [{}] * 3
    assert not storage.exists(name)


def test_a_delete_that_is_rolled_back_never_was(storage, servers):
    name = storage.save("f.txt", ContentFile(b"x"))
    rolled_back(storage, lambda: storage.delete(name))
    heal(storage)
    storage.journal.sweep()
    heal(storage)
    assert storage.open(name).read() == b"x"


# --- deleting


def test_a_deleted_file_stays_deleted(storage, servers):
    name = storage.save("f.txt", ContentFile(b"x"))
    servers[1].stop()
    storage.delete(name)
    servers[1].start()
    heal(storage)
    assert [copies(server) for server in servers] == [{}] * 3
    with pytest.raises(FileNotFoundError):
        storage.open(name)


def test_a_put_that_arrives_after_the_delete_is_removed(storage, servers):
    servers[1].hang = "before-answer"
    name = storage.save("f.txt", ContentFile(b"x"))
    storage.delete(name)
    servers[1].thaw()
    heal(storage)
    heal(storage)
    assert name not in copies(servers[1])


def test_deleting_what_is_not_there_is_no_error(storage):
    storage.delete("never-was.txt")
    with pytest.raises(ValueError, match="name must be given"):
        storage.delete("")


# --- reading


def test_a_read_fails_over(storage, servers):
    name = storage.save("f.txt", ContentFile(b"hello"))
    for server in servers[:2]:
        server.stop()
    assert storage.open(name).read() == b"hello"
    servers[2].stop()
    with pytest.raises(NoCopy, match=r"No media server has given 'f_"):
        storage.open(name)


@pytest.mark.parametrize("cut", [1, 70_000, 199_999])
def test_a_body_that_breaks_off_is_continued_from_another_server(storage, servers, cut):
    content = os.urandom(200_000)
    name = storage.save("f.bin", ContentFile(content))
    first = next(iter(storage.reader.servers(name)))
    broken = next(server for server in servers if server.url in first.address)
    broken.cut_body_after = cut
    with storage.open(name) as file:
        assert hashlib.sha256(file.read()).digest() == hashlib.sha256(content).digest()


def test_a_body_that_breaks_off_everywhere_is_an_error_and_never_short(storage, servers):
    name = storage.save("f.bin", ContentFile(os.urandom(200_000)))
    for server in servers:
        server.cut_body_after = 1000
    with storage.open(name) as file, pytest.raises(NoCopy):
        file.read()


def test_a_file_of_another_length_is_not_believed(storage, servers):
    name = storage.save("f.bin", ContentFile(b"12345"))
    first = next(iter(storage.reader.servers(name)))
    wrong = next(server for server in servers if server.url in first.address)
    wrong.files[name] = b"123"
    assert storage.open(name).read() == b"12345"


def first_of(storage, servers, name) -> tuple[MediaServer, list[MediaServer]]:
    """The server that is asked first for a file, and the others in their order."""
    by_url = {server.url: server for server in servers}
    first, *others = [by_url[one.address.rstrip("/")] for one in storage.reader.servers(name)]
    return first, others


@pytest.mark.parametrize("size", [1, 70_000, SMALL])
def test_a_small_file_that_has_rotted_is_never_shown(storage, servers, caplog, size):
    content = os.urandom(size)
    name = storage.save("f.bin", ContentFile(content))
    rotten, others = first_of(storage, servers, name)
    rotten.files[name] = bytes([content[0] ^ 1]) + content[1:]
    with storage.open(name) as file:
        file.seek(0, io.SEEK_END)
        file.seek(0)
        assert file.read() == content
    assert f"127.0.0.1:{rotten.port} has another content for '{name}'" in caplog.text
    for server in others:
        server.files[name] = rotten.files[name]
    with storage.open(name) as file, pytest.raises(NoCopy, match="has another content"):
        file.read(1)


@pytest.mark.parametrize("size", [SMALL + 1, 3_000_000])
def test_a_file_that_has_rotted_is_never_read_to_its_end(storage, servers, size):
    content = os.urandom(size)
    name = storage.save("f.bin", ContentFile(content))
    rotten, others = first_of(storage, servers, name)
    rotten.files[name] = content[:-1] + bytes([content[-1] ^ 1])
    read = []
    with storage.open(name) as file, pytest.raises(NoCopy, match="Use nothing of what") as caught:
        read.extend(iter(lambda: file.read(100_000), b""))
    assert f"127.0.0.1:{rotten.port}" in str(caught.value)
    assert others[0].url.removeprefix("http://") not in str(caught.value)
    assert sum(map(len, read)) < size


@pytest.mark.parametrize("size", [10_000, SMALL + 1, 3_000_000, SUMMED + 1])
def test_two_files_are_never_joined(storage, servers, size):
    """The first copy breaks off, and is another file's; or the second one is."""
    content = os.urandom(size)
    wrong = os.urandom(size)
    for rotten in (0, 1):
        name = storage.save("f.bin", ContentFile(content))
        first, others = first_of(storage, servers, name)
        first.cut_body_after = 1000
        for number, server in enumerate((first, *others)):
            server.files[name] = wrong if (number == 0) is (rotten == 0) else content
        with storage.open(name) as file:
            if rotten == 0 and size <= SMALL:
                assert file.read() == content
                continue
            with pytest.raises(NoCopy):
                file.read()
        first.cut_body_after = None


def test_a_large_file_that_breaks_off_twice_is_whole(storage, servers):
    content = os.urandom(SUMMED + 1)
    name = storage.save("f.bin", ContentFile(content))
    first, others = first_of(storage, servers, name)
    first.cut_body_after = 5_000_000
    others[0].cut_body_after = 9_000_000
    with storage.open(name) as file:
        assert hashlib.sha256(file.read()).digest() == hashlib.sha256(content).digest()


def test_a_seek_does_not_read_what_lies_between(storage, servers):
    content = os.urandom(SUMMED + 1)
    name = storage.save("f.bin", ContentFile(content))
    first, _ = first_of(storage, servers, name)
    with storage.open(name) as file:
        assert file.read(10) == content[:10]
        file.seek(SUMMED)
        before = len(first.log)
        assert file.read() == content[-1:]
    assert len(first.log) == before + 1


def test_a_server_that_lost_the_file_is_not_believed(storage, servers):
    name = storage.save("f.bin", ContentFile(b"12345"))
    for server in servers[:2]:
        del server.files[name]
    assert storage.open(name).read() == b"12345"
    del servers[2].files[name]
    with pytest.raises(NoCopy):
        storage.open(name)


def test_a_server_that_is_owed_a_file_is_asked_last(storage, servers):
    servers[0].stop()
    name = storage.save("f.bin", ContentFile(b"12345"))
    servers[0].start()
    storage.reader._owing = (float("-inf"), frozenset())
    order = [server.name for server in storage.reader.servers(name)]
    assert order[-1] == storage.options.servers[0].name


def test_seeking_reads_ranges(storage, servers):
    content = os.urandom(500_000)
    name = storage.save("f.bin", ContentFile(content))
    with storage.open(name) as file:
        assert file.size == len(content)
        for offset in (400_000, 0, 123_456, 499_999):
            file.seek(offset)
            assert file.read(10) == content[offset : offset + 10]
        file.seek(-5, io.SEEK_END)
        assert file.read() == content[-5:]
        assert file.read() == b""


def test_it_works_with_pillow_and_with_responses(storage):
    picture = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(picture, "PNG")
    name = storage.save("p.png", ContentFile(picture.getvalue()))
    with storage.open(name) as file:
        assert Image.open(file).size == (40, 30)
    response = FileResponse(storage.open(name))
    assert int(response["Content-Length"]) == len(picture.getvalue())
    assert b"".join(response.streaming_content) == picture.getvalue()
    response.close()


def test_what_the_catalogue_has_not_heard_of_is_asked_of_the_servers(storage, make, servers):
    servers[0].files["by-hand.txt"] = b"x"
    assert storage.exists("by-hand.txt")
    assert storage.open("by-hand.txt").read() == b"x"
    assert storage.size("by-hand.txt") == 1
    assert not make(read="majority").exists("by-hand.txt")
    assert not storage.exists("never.txt")
    with pytest.raises(FileNotFoundError):
        storage.open("never.txt")


@pytest.mark.parametrize(
    ("copies", "down", "expected"),
    [(3, 0, True), (2, 0, True), (2, 1, True), (1, 0, False), (0, 0, False), (0, 1, False)],
)
def test_a_majority_must_have_what_the_catalogue_has_not_heard_of(
    make, servers, copies, down, expected
):
    storage = make(read="majority")
    for server in servers[:copies]:
        server.files["by-hand.txt"] = b"x"
    for server in servers[3 - down :]:
        server.stop()
    assert storage.exists("by-hand.txt") is expected


@pytest.mark.parametrize(("copies", "down"), [(1, 1), (0, 2), (1, 2)])
def test_a_majority_that_can_not_be_asked_is_no_answer(make, servers, copies, down):
    storage = make(read="majority")
    for server in servers[:copies]:
        server.files["by-hand.txt"] = b"x"
    for server in servers[3 - down :]:
        server.stop()
    with pytest.raises(NoCopy):
        storage.exists("by-hand.txt")


# --- the database is down


@pytest.fixture
def without_database(storage, monkeypatch, settings):
    """The catalogue's alias points to where nothing listens."""
    closed = {"ENGINE": "django.db.backends.postgresql", "HOST": "127.0.0.1", "PORT": "1"}
    connections.settings["away"] = connections.configure_settings(
        {"default": {}, "away": {**closed, "NAME": "x", "OPTIONS": {"connect_timeout": 1}}}
    )["away"]
    yield lambda: monkeypatch.setattr(storage.journal, "alias", "away")
    connections["away"].close()
    del connections["away"], connections.settings["away"]


@pytest.mark.parametrize("aliases", ["PostgreSQL"], indirect=True)
def test_without_the_database_reads_go_on_and_writes_raise(storage, servers, without_database):
    name = storage.save("f.txt", ContentFile(b"hello"))
    before = [copies(server) for server in servers]
    without_database()
    assert storage.open(name).read() == b"hello"
    assert storage.exists(name)
    assert storage.size(name) == 5
    for act in (
        lambda: storage.exists("never.txt"),
        lambda: storage.save("g.txt", ContentFile(b"x")),
        lambda: storage.delete(name),
        lambda: storage.open("never.txt"),
        lambda: storage.listdir(""),
    ):
        with pytest.raises(CatalogueUnavailable, match=r"DATABASES\['away'\]"):
            act()
    assert [copies(server) for server in servers] == before


@pytest.mark.parametrize("aliases", ["PostgreSQL"], indirect=True)
def test_without_the_database_a_majority_is_believed(
    make, storage, servers, without_database, monkeypatch
):
    name = storage.save("f.txt", ContentFile(b"hello"))
    without_database()
    strict = make(read="majority")
    monkeypatch.setattr(strict.journal, "alias", "away")
    assert strict.exists(name)
    del servers[0].files[name]
    assert strict.exists(name)
    del servers[1].files[name]
    assert storage.exists(name)
    # One has it: it may be what a save has left that was undone.
    with pytest.raises(CatalogueUnavailable):
        strict.exists(name)


@pytest.mark.parametrize("aliases", ["PostgreSQL"], indirect=True)
def test_without_the_database_the_metrics_say_so(storage, without_database, monkeypatch):
    monkeypatch.setattr(metrics, "media_storages", lambda: [("default", storage)])
    told = [one for one in metrics.MediaCollector().collect() if one.samples]
    assert len(told) > 5
    without_database()
    [readable] = [one for one in metrics.MediaCollector().collect() if one.samples]
    assert readable.name == "outgrow_media_journal_readable"
    assert [one.value for one in readable.samples] == [0.0]


# --- routers


class Hostile:
    """Sends whoever asks to a replica that is not there, or breaks."""

    def db_for_read(self, model, **hints):
        return "replica"

    def db_for_write(self, model, **hints):
        raise ZeroDivisionError("the router of the site")

    def allow_relation(self, *objects, **hints):
        raise ZeroDivisionError("the router of the site")


@pytest.mark.parametrize("broken", ["replica", "raises"])
def test_no_router_is_ever_asked(storage, servers, aliases, settings, broken, monkeypatch):
    settings.DATABASE_ROUTERS = [f"{__name__}.Hostile"]
    if broken == "raises":
        monkeypatch.setattr(Hostile, "db_for_read", Hostile.db_for_write)
    # The router is in use: whoever does not name a database asks it.
    with pytest.raises((ZeroDivisionError, ConnectionDoesNotExist)):
        Row.objects.count()
    servers[2].stop()
    name = storage.save("a/f.txt", ContentFile(b"hello"))
    servers[2].start()
    assert storage.open(name).read() == b"hello"
    assert storage.exists(name)
    assert not storage.exists("never.txt")
    assert storage.size(name) == 5
    assert storage.get_modified_time(name)
    assert storage.listdir("a") == ([], [name.removeprefix("a/")])
    heal(storage)
    assert all(verdict.equal for verdict in Verify(storage.replication).run().verdicts)
    rolled_back(storage, lambda: storage.delete(name))
    rolled_back(storage, lambda: storage.save("lost.txt", ContentFile(b"x")))
    storage.journal.grace = -1
    heal(storage)
    storage.journal.sweep()
    with transaction.atomic(aliases[1]):
        storage.delete(name)
    assert storage.listdir("") == ([], [])
    storage.journal.write_heartbeat("watch", {"servers": {}})
    assert storage.journal.heartbeats()
    assert storage.journal.retire("media9") is None
    assert snapshot_of("default", storage, probe=True).problems(60) == []
    assert [copies(server) for server in servers] == [{}] * 3


# --- names, options, pickles


@pytest.mark.parametrize("name", ["../x", ".hidden", "a//b", "a\\b/../c"])
def test_hostile_names_are_refused(storage, servers, name):
    before = [list(server.log) for server in servers]
    for act in (storage.open, storage.delete, storage.size):
        with pytest.raises(SuspiciousFileOperation):
            act(name)
    assert not storage.exists(name)
    assert [list(server.log) for server in servers] == before


def test_it_can_be_pickled_and_says_nothing_in_migrations(storage):
    again = pickle.loads(pickle.dumps(storage))
    name = again.save("f.txt", ContentFile(b"x"))
    assert storage.open(name).read() == b"x"
    path, args, options = storage.deconstruct()
    assert path == "outgrow.media.DistributedStorage"
    assert not args
    assert "servers" not in options


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"need": 0}, "there is no master copy"),
        ({"names": "keep"}, "is not an option"),
        ({"location": "/srv"}, "is not an option"),
        ({"read": "all"}, "'any' or 'majority'"),
        ({"grace": 0}, "above 0"),
    ],
)
def test_wrong_options_are_told_at_once(options, problem):
    with pytest.raises(ImproperlyConfigured, match=problem):
        DistributedStorage(servers=["http://a:1", "http://b:1"], **options)


def test_no_database_is_asked_before_the_first_use():
    storage = DistributedStorage(servers=["http://a:1"], database="nowhere")
    assert isinstance(storage.journal, Catalogue)
    assert storage.transport


# --- verification


def test_verification_knows_the_digests_of_the_catalogue(storage, servers):
    rotten, lost, fine = (storage.save("f.txt", ContentFile(b"content")) for _ in range(3))
    heal(storage)
    servers[0].files[rotten] = b"c0ntent"
    servers[1].files[rotten] = b"c0ntent"  # two that agree are no majority: the digest is known
    del servers[2].files[lost]
    servers[2].files["unknown.txt"] = b"?"
    check = Verify(storage.replication, digest=True)
    outcome = check.run()
    found = {(one.server, one.what, one.name) for v in outcome.verdicts for one in v.findings}
    names = [server.name for server in storage.options.servers]
    assert found == {
        (names[0], "content", rotten),
        (names[1], "content", rotten),
        (names[2], "missing", lost),
        (names[2], "extra", "unknown.txt"),
    }
    assert check.owe(outcome) == 3
    heal(storage)
    assert [one.counts["extra"] for one in check.run().verdicts] == [0, 0, 1]
    assert all(copies(one)[rotten] == copies(one)[fine] == b"content" for one in servers)
    assert copies(servers[2])["unknown.txt"] == b"?"


def test_links_lead_to_servers_that_have_the_file(make, servers):
    names = [f"media{n}" for n in range(3)]
    public = {name: f"https://{name}.example.org/" for name in names}
    urls = {name: server.url for name, server in zip(names, servers, strict=True)}
    storage = make(servers=urls, public_urls=public)
    Repair(storage.replication).once(settle=False)
    servers[1].stop()
    saved = [storage.save("f.txt", ContentFile(b"x")) for _ in range(12)]
    found = {make(servers=urls, public_urls=public).url(name)[8:14] for name in saved}
    assert found == {"media0", "media2"}


@pytest.mark.parametrize("aliases", ["PostgreSQL"], indirect=True)
def test_without_the_database_links_lead_to_the_site(make, servers, monkeypatch, without_database):
    public = {"media0": "https://media0.example.org/"}
    urls = {"media0": servers[0].url}
    storage = make(servers=urls, public_urls=public)
    Repair(storage.replication).once(settle=False)
    name = storage.save("f.txt", ContentFile(b"x"))
    assert storage.url(name) == f"https://media0.example.org/{name}"
    monkeypatch.setattr(storage.journal, "alias", "away")
    assert storage.url(name) == f"/media/{name}"


@pytest.mark.parametrize("use_tz", [True, False])
def test_when_a_file_was_saved_that_only_the_servers_know(make, tmp_path, settings, use_tz):
    settings.USE_TZ = use_tz
    with running_nginx() as server:
        storage = make(servers=[server.url], need=1, catalogue=f"times{use_tz}")
        Repair(storage.replication).once(settle=False)
        (server.root / "by-hand.txt").write_bytes(b"hello")
        os.utime(server.root / "by-hand.txt", (1_700_000_000, 1_700_000_000))
        at = storage.get_modified_time("by-hand.txt")
        assert storage.size("by-hand.txt") == 5
    assert (at.tzinfo is not None) is use_tz
    assert at.timestamp() == 1_700_000_000


def test_a_server_that_does_not_say_when_a_file_was_changed(storage, servers):
    for server in servers:  # the server for tests sends no Last-Modified
        server.files["by-hand.txt"] = b"hello"
    with pytest.raises(NoCopy, match=r"does not say when 'by-hand\.txt' was changed"):
        storage.get_modified_time("by-hand.txt")
