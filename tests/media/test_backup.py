"""Back-ups of a site that goes on writing, and what a restore of them comes to."""

from __future__ import annotations

import io
import re
import shutil
import sqlite3
import subprocess
import threading
from pathlib import Path

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.core.management import call_command
from django.db import connections
from django.test import override_settings

from outgrow.media.repair import Repair
from outgrow.testing import MediaServer
from tests.live.postgres import OWN, SITE, binary
from tests.live.processes import wait_until

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "backup.md"


@pytest.fixture
def servers():
    with MediaServer() as one, MediaServer() as two:
        yield [one, two]


@pytest.fixture
def site(tmp_path, servers):
    urls = {f"media{number}": server.url for number, server in enumerate(servers)}
    options = {"servers": urls, "location": str(tmp_path / "media"), "downtime": 0.1}
    media = {"BACKEND": "outgrow.media.HybridStorage", "OPTIONS": options}
    with override_settings(STORAGES={"default": media}):
        Repair(storages["default"].replication).once(settle=False)
        yield storages["default"]


class Writer(threading.Thread):
    """A site at work: a row for each file; every third file is deleted again."""

    def __init__(self, storage, database: Path) -> None:
        super().__init__()
        self.storage, self.database = storage, database
        self.count = 0
        self.enough = threading.Event()

    def run(self) -> None:
        rows = sqlite3.connect(self.database)
        rows.execute("CREATE TABLE photo (name TEXT, content BLOB)")
        kept: list[str] = []
        while not self.enough.is_set():
            content = f"photo {self.count}".encode()
            name = self.storage.save(f"{self.count % 7}/photo.jpg", ContentFile(content))
            with rows:
                rows.execute("INSERT INTO photo VALUES (?, ?)", (name, content))
            kept.append(name)
            if self.count % 3 == 2:
                gone = kept.pop(0)
                with rows:
                    rows.execute("DELETE FROM photo WHERE name = ?", (gone,))
                self.storage.delete(gone)
            self.count += 1
        rows.close()


def documented(program: str, **places: object) -> list[str]:
    """The words of a command of the page, with our places for its own."""
    (line,) = re.findall(rf"^{program} .*$", PAGE.read_text(), re.MULTILINE)
    words = line.split()
    for theirs, ours in places.items():
        words = [word.replace(f"/{theirs.replace('_', '/')}", str(ours)) for word in words]
    return words


def outgrow(*words: str) -> int:
    try:
        call_command("outgrow", "media", *words, stdout=io.StringIO(), stderr=io.StringIO())
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def rows_of(database: Path) -> dict[str, bytes]:
    connection = sqlite3.connect(database)
    found = dict(connection.execute("SELECT name, content FROM photo"))
    connection.close()
    return found


@pytest.fixture
def backup(site, tmp_path):
    """A backup that was made while the site went on, and what came after it."""
    folder = tmp_path / "backup"
    folder.mkdir()
    writer = Writer(site, tmp_path / "live.db")
    writer.start()
    try:
        wait_until(lambda: writer.count > 60, "the site does not write")
        source, copy = sqlite3.connect(tmp_path / "live.db"), sqlite3.connect(folder / "site.db")
        source.backup(copy)  # the database first
        source.close()
        copy.close()
        at = writer.count
        places = {"backup": folder, "srv_media": site.location}
        code = subprocess.run(documented("tar --create", **places), check=False).returncode
        assert code in {0, 1}
        wait_until(lambda: writer.count > at + 60, "the site does not go on")
    finally:
        writer.enough.set()
        writer.join(30)
    return folder


def restore(site, folder: Path) -> None:
    """The master's disk is lost, and comes back from the backup."""
    shutil.rmtree(site.location)
    Path(site.location).mkdir()
    places = {"backup": folder, "srv_media": site.location}
    subprocess.run(documented("tar --extract", **places), check=True)


def reopened(site):
    """The storage, as a process has it that starts now."""
    site._clear_cached_properties("MEDIA_ROOT")
    return storages.create_storage(storages.backends["default"])


def test_every_row_of_the_backup_has_its_file_again(site, servers, backup):
    rows = rows_of(backup / "site.db")
    assert len(rows) > 30
    restore(site, backup)
    storage = reopened(site)
    assert outgrow("repair", "--all") == 0
    gone = {name for name, _ in storage.journal.tombstones()}
    for name, content in rows.items():
        if name in gone:
            continue  # deleted while the backup ran: its tombstone is in the backup
        with storage.open(name) as file:
            assert file.read() == content
        assert all(server.files[name] == content for server in servers)
    assert len(rows.keys() & gone) < len(rows) / 2


def test_what_came_after_the_backup_is_still_on_the_servers(site, servers, backup, tmp_path):
    later = rows_of(tmp_path / "live.db").keys() - rows_of(backup / "site.db").keys()
    restore(site, backup)
    storage = reopened(site)
    outgrow("repair", "--all")
    lost = {name for name in later if not storage.exists(name)}
    assert lost
    assert all(server.files.keys() >= lost for server in servers)
    assert outgrow("verify") == 1  # they are extra, and told


def test_a_lost_master_comes_back_from_a_media_server(site, servers, backup, tmp_path):
    rows = rows_of(tmp_path / "live.db")
    shutil.rmtree(site.location)
    for name, content in servers[0].files.items():
        if name != "outgrow-master-id.txt":
            path = Path(site.location) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    tar = ["tar", "--extract", f"--file={backup}/media.tar", f"--directory={site.location}"]
    subprocess.run([*tar, ".outgrow"], check=True)
    storage = reopened(site)
    assert outgrow("repair", "--all") == 0
    assert outgrow("verify") == 0
    for name, content in rows.items():
        with storage.open(name) as file:
            assert file.read() == content


def test_without_the_journal_the_servers_refuse_the_restored_folder(site, servers, backup):
    restore(site, backup)
    shutil.rmtree(Path(site.location) / ".outgrow")
    reopened(site)
    assert outgrow("repair", "--all") == 1


# --- without a master, and a real PostgreSQL


def in_postgres(program: str, folder: Path) -> list[str]:
    """A documented command, for the database of the tests."""
    words = documented(program, backup=folder)
    where = connections.settings[SITE]
    own = [f"--host={where['HOST']}", f"--port={where['PORT']}", f"--username={where['USER']}"]
    name = {"site": where["NAME"], "--dbname=site": f"--dbname={where['NAME']}"}
    return [str(binary(program)), *own, *(name.get(word, word) for word in words[1:])]


def test_a_catalogue_comes_back_with_its_database(postgres, servers, tmp_path):
    urls = [server.url for server in servers]
    options = {"servers": urls, "database": OWN, "using": SITE, "downtime": 0.1}
    media = {"BACKEND": "outgrow.media.DistributedStorage", "OPTIONS": options}
    with override_settings(STORAGES={"default": media}):
        storage = storages["default"]
        Repair(storage.replication).once(settle=False)
        names = [storage.save("f.txt", ContentFile(b"%d" % number)) for number in range(6)]
        subprocess.run(in_postgres("pg_dump", tmp_path), check=True)
        files = dict(servers[0].files)  # and then the files of one server
        late = storage.save("late.txt", ContentFile(b"late"))
        storage.delete(names[0])
        for alias in (SITE, OWN):
            connections[alias].close()
        subprocess.run(in_postgres("pg_restore", tmp_path), check=True)
        assert outgrow("repair", "--all") == 1  # the first file is on no server any more
        assert outgrow("verify", "--digest") == 1
        servers[0].files[names[0]] = files[names[0]]
        assert outgrow("repair", "--all") == 0
        for number, name in enumerate(names):
            assert all(server.files[name] == b"%d" % number for server in servers)
        # What came after the backup is on the servers, and nobody has heard of it.
        assert all(late in server.files for server in servers)
        assert outgrow("verify") == 1
