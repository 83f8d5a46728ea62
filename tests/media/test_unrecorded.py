"""DistributedStorage without a database: on all servers, or on none."""

from __future__ import annotations

import pickle

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.core.management import CommandError, call_command
from django.test import override_settings

from outgrow.checks import check_media
from outgrow.errors import NotDeleted, NotEnoughServers
from outgrow.media import DistributedStorage
from outgrow.media.repair import Repair
from outgrow.status import snapshot
from outgrow.testing import MediaServer
from tests.live.nginx import running_nginx

MASTER_ID = "outgrow-master-id.txt"


@pytest.fixture
def servers():
    with MediaServer() as one, MediaServer() as two, MediaServer() as three:
        yield [one, two, three]


@pytest.fixture
def make(servers):
    def make(**options):
        given = {"servers": [server.url for server in servers], "downtime": 0.05, "timeout": 0.5}
        return DistributedStorage(**(given | {"journal": "none", "base_url": "/m/"} | options))

    return make


@pytest.fixture
def storage(make):
    """No test of this file may touch a database: pytest-django sees to that."""
    return make()


def copies(server: MediaServer) -> dict[str, bytes]:
    return {name: content for name, content in server.files.items() if name != MASTER_ID}


def save(storage, content: bytes = b"content", name: str = "a/f.txt") -> str:
    return storage.save(name, ContentFile(content))


def test_a_file_is_on_all_servers(storage, servers):
    name = save(storage)
    assert [copies(server) for server in servers] == [{name: b"content"}] * 3
    assert storage.exists(name)
    assert storage.size(name) == 7
    assert storage.url(name) == f"/m/{name}"
    with storage.open(name) as file:
        assert file.read() == b"content"
    assert storage.listdir("a") == ([], [name.removeprefix("a/")])
    assert storage.listdir("") == (["a"], [])


def test_a_file_is_deleted_on_all_servers(storage, servers):
    name = save(storage)
    storage.delete(name)
    storage.delete(name)
    assert [copies(server) for server in servers] == [{}] * 3
    assert not storage.exists(name)
    with pytest.raises(FileNotFoundError):
        storage.open(name).read()


@pytest.mark.parametrize("fault", ["down", "refuses", "full"])
def test_a_save_that_one_server_misses_is_on_none(storage, servers, fault):
    save(storage)
    before = [copies(server) for server in servers]
    if fault == "down":
        servers[1].stop()
    else:
        servers[1].answer_with({"refuses": 403, "full": 507}[fault], method="PUT")
    with pytest.raises(NotEnoughServers, match="2 of the 3"):
        save(storage)
    assert [copies(server) for server in servers] == before


def test_a_save_that_may_arrive_later_is_told(storage, servers, caplog):
    save(storage)
    servers[1].hang = "before-answer"
    with pytest.raises(NotEnoughServers):
        save(storage, name="late.txt")
    assert "'late_" in caplog.text
    assert f"may be left on 127.0.0.1:{servers[1].port}" in caplog.text
    servers[1].thaw()


def test_a_delete_that_one_server_misses_raises(storage, servers):
    name = save(storage)
    servers[2].stop()
    with pytest.raises(NotDeleted, match="was not deleted by every server") as caught:
        storage.delete(name)
    assert list(caught.value.missed) == [f"127.0.0.1:{servers[2].port}"]
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert copies(servers[0]) == {}
    servers[2].start()
    storage.delete(name)
    assert copies(servers[2]) == {}


def test_a_read_takes_the_next_server(storage, servers):
    name = save(storage)
    for server in servers[:2]:
        server.stop()
    with storage.open(name) as file:
        assert file.read() == b"content"


def test_another_process_knows_its_own_servers(make, servers):
    name = save(make())
    assert make().exists(name)
    assert save(make())
    with pytest.raises(NotEnoughServers, match="belongs to the master"):
        save(make(catalogue="another site"))
    assert len(copies(servers[0])) == 2


def test_a_server_that_lost_everything_is_new_to_another_process(make, servers):
    """What the page says of it: only a process that has seen its id refuses."""
    storage = make()
    save(storage)
    servers[0].files.clear()
    servers[0].stop()
    with pytest.raises(NotEnoughServers):
        save(storage)
    servers[0].start()
    with pytest.raises(NotEnoughServers, match="lost outgrow-master-id"):
        save(storage)
    assert save(make()) in servers[0].files


def test_there_is_nothing_to_repair(storage, servers):
    name = save(storage)
    del servers[0].files[name]
    report = Repair(storage.replication).once(settle=False)
    assert report.complete
    assert report.put == 0


def test_links_to_the_servers_themselves(make, servers):
    urls = {f"media{n}": server.url for n, server in enumerate(servers)}
    public = {name: f"https://{name}.example.org/" for name in urls}
    storage = make(servers=urls, public_urls=public)
    assert storage.url(save(storage)).startswith("https://media")


def test_real_servers(make):
    with running_nginx() as one, running_nginx() as two:
        storage = make(servers=[one.url, two.url])
        name = save(storage)
        assert (one.root / name).read_bytes() == (two.root / name).read_bytes() == b"content"
        assert storage.get_modified_time(name)
        one.stop()
        with pytest.raises(NotEnoughServers):
            save(storage)
        assert [path.name for path in two.root.rglob("f_*")] == [name.removeprefix("a/")]


@pytest.mark.parametrize("need", [1, "majority", 2])
def test_less_than_all_is_no_choice(make, need):
    with pytest.raises(ImproperlyConfigured, match="nobody could tell the other servers later"):
        make(need=need)
    assert make(need="all").options.need == 3


def test_wrong_words(make):
    with pytest.raises(ImproperlyConfigured, match="Write 'database' or 'none'"):
        make(journal="maybe")


def test_the_commands_and_the_checks(servers):
    options = {"servers": [server.url for server in servers], "journal": "none"}
    options["database"] = "nowhere"
    media = {"BACKEND": "outgrow.media.DistributedStorage", "OPTIONS": options}
    with override_settings(STORAGES={"default": media}):
        assert check_media() == []
        save(storages["default"])
        assert snapshot().problems(60) == []
        with pytest.raises(CommandError, match="nothing says what should be there"):
            call_command("outgrow", "media", "verify")
