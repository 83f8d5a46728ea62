"""The commands on a storage with a catalogue: what is removed, and servers that come and go."""

from __future__ import annotations

import io
import os
import time

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.core.management import CommandError, call_command
from django.test import override_settings

from outgrow.media.repair import Repair
from outgrow.media.verify import GRACE
from outgrow.testing import MediaServer
from tests.live.nginx import running_nginx

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "outgrow"])

MASTER_ID = "outgrow-master-id.txt"
OLD = time.time() - 2 * GRACE


def settings_of(**urls: str):
    options = {"servers": urls, "downtime": 0.05, "timeout": 1}
    media = {"BACKEND": "outgrow.media.DistributedStorage", "OPTIONS": options}
    return override_settings(STORAGES={"default": media})


def outgrow(*words: str) -> tuple[int, str]:
    """Run a command; its exit code, and what it says."""
    out = io.StringIO()
    try:
        call_command("outgrow", "media", *words, stdout=out, stderr=io.StringIO())
    except SystemExit as end:
        return int(str(end.code)), out.getvalue()
    return 0, out.getvalue()


def save(content: bytes = b"content") -> str:
    return storages["default"].save("a/f.txt", ContentFile(content))


# --- what nobody has heard of


@pytest.fixture
def nginx():
    with running_nginx() as server, settings_of(media1=server.url):
        Repair(storages["default"].replication).once(settle=False)
        yield server


def put(server, name: str, *, old: bool) -> None:
    path = server.root / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x")
    if old:
        os.utime(path, (OLD, OLD))


def test_nothing_is_removed_without_force(nginx):
    saved = save()
    os.utime(nginx.root / saved, (OLD, OLD))
    put(nginx, "unheard.txt", old=True)
    put(nginx, "new.txt", old=False)
    with pytest.raises(CommandError, match=r"1 files .* is the database of the catalogue the"):
        outgrow("verify", "--remove-extra")
    for words in (["--repair"], ["--repair", "--force"]):
        assert outgrow("verify", *words)[0] == 1
    assert {path.name for path in nginx.root.rglob("*.txt")} == {
        MASTER_ID,
        "unheard.txt",
        "new.txt",
        saved.removeprefix("a/"),
    }
    code, text = outgrow("verify", "--remove-extra", "--force")
    assert code == 1  # the new one is left
    assert "deleted 1 files that nobody had heard of" in text
    assert not (nginx.root / "unheard.txt").exists()
    assert (nginx.root / "new.txt").exists()
    assert (nginx.root / saved).exists()
    assert "unheard.txt" in [name for name, _ in storages["default"].journal.tombstones()]


def test_a_catalogue_that_was_lost_takes_no_file_along(nginx):
    """An empty database beside full servers: every file is one that nobody has heard of."""
    storage = storages["default"]
    names = [save() for _ in range(3)]
    for name in names:
        os.utime(nginx.root / name, (OLD, OLD))
    storage.journal._files().delete()
    with pytest.raises(CommandError, match="nothing was removed"):
        outgrow("verify", "--remove-extra")
    outgrow("repair", "--all", "--no-wait")
    storage.journal.sweep()
    outgrow("repair", "--no-wait")
    assert all((nginx.root / name).exists() for name in names)


# --- servers


@pytest.fixture
def servers():
    with MediaServer() as one, MediaServer() as two, MediaServer() as three:
        yield {"media1": one, "media2": two, "media3": three}


@pytest.fixture
def use(servers):
    """Put some of the servers into the settings, as a deployment does."""

    def use(*names: str):
        return settings_of(**{name: servers[name].url for name in names})

    return use


def copies(server: MediaServer) -> dict[str, bytes]:
    return {name: content for name, content in server.files.items() if name != MASTER_ID}


def test_a_server_is_added_while_processes_have_the_older_list(use, servers):
    with use("media1", "media2"):
        older = storages["default"]
        before = [save(f"{n}".encode()) for n in range(5)]
        gone = save()
        older.delete(gone)
    with use("media1", "media2", "media3"):
        code, text = outgrow("server", "add", "media3")
        assert code == 0
        assert "media3 has every file" in text
        assert copies(servers["media3"]).keys() == set(before)
        # Saved by a process that was not restarted yet.
        late = older.save("late.txt", ContentFile(b"late"))
        assert late not in servers["media3"].files
        assert outgrow("server", "add", "media3")[0] == 0
        assert copies(servers["media3"]).keys() == {*before, late}
        assert outgrow("verify")[0] == 0


def test_a_server_that_is_down_is_not_added(use, servers):
    with use("media1", "media2"):
        save()
    servers["media3"].stop()
    with use("media1", "media2", "media3"):
        with pytest.raises(CommandError, match="Nothing was sent"):
            outgrow("server", "add", "media3")
        servers["media3"].start()
        assert outgrow("server", "add", "media3")[0] == 0


def test_a_server_is_drained_and_retired(use, servers):
    with use("media1", "media2", "media3"):
        servers["media3"].stop()
        name = save()
        servers["media3"].start()
        servers["media2"].stop()
        code, text = outgrow("server", "drain", "media1")
        assert (code, "Not yet" in text) == (1, True)  # it may have the only copy
        servers["media2"].start()
        code, text = outgrow("server", "drain", "media1")
        assert (code, "media server retire media1" in text) == (0, True)
        assert copies(servers["media2"]) == copies(servers["media3"]) == {name: b"content"}
        with pytest.raises(CommandError, match="is still in the settings"):
            outgrow("server", "retire", "media1")
    servers["media1"].stop()
    with use("media2", "media3"):
        storage = storages["default"]
        storage.delete(name)
        assert "media1" in storage.journal.claimed()
        assert "media1 is forgotten" in outgrow("server", "retire", "media1")[1]
        assert "media1" not in storage.journal.claimed()
        assert "media1" not in storage.journal.servers()
        with pytest.raises(CommandError, match="a save needs 2"):
            outgrow("server", "drain", "media2")
        with pytest.raises(CommandError, match="knows no server 'media1'"):
            outgrow("server", "retire", "media1")
        assert outgrow("verify")[0] == 0


def test_a_server_with_the_only_copy_is_not_drained(use, servers):
    with use("media1", "media2", "media3"):
        name = save()
        outgrow("repair", "--no-wait")
        for other in ("media2", "media3"):
            del servers[other].files[name]
        code, text = outgrow("server", "drain", "media1")
        assert (code, "run 'media verify'" in text.lower()) == (1, True)
        assert outgrow("verify", "--repair")[0] == 0
        assert outgrow("server", "drain", "media1")[0] == 0
