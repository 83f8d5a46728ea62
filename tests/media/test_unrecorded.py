"""DistributedStorage without a database: on all servers, or on none."""

from __future__ import annotations

import io
import json
import pickle

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.core.management import CommandError, call_command
from django.test import override_settings

from outgrow.checks import check_media
from outgrow.errors import NoCopy, NotDeleted, NotEnoughServers
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


@pytest.mark.parametrize(("count", "expected"), [(3, True), (2, True), (1, False), (0, False)])
def test_a_majority_has_a_file(make, servers, count, expected):
    storage = make(read="majority")
    name = save(storage)
    for server in servers[count:]:
        del server.files[name]
    assert storage.exists(name) is expected
    assert make().exists(name) is (count > 0)
    servers[0].stop()
    if count == 3:
        assert storage.exists(name)
    elif count == 2:
        with pytest.raises(NoCopy):
            storage.exists(name)


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


@pytest.fixture
def site(servers):
    """A site whose storage has three servers, media1 to media3, and no catalogue."""
    urls = {f"media{n}": server.url for n, server in enumerate(servers, 1)}
    options = {"servers": urls, "journal": "none", "downtime": 0.05, "timeout": 0.5}
    media = {"BACKEND": "outgrow.media.DistributedStorage", "OPTIONS": options}
    with override_settings(STORAGES={"default": media}):
        yield storages["default"]


@pytest.mark.parametrize(
    "words",
    [
        ["server", "add", "media3"],
        ["server", "drain", "media3"],
        ["server", "retire", "media3"],
        ["repair", "--all"],
        ["repair", "--all", "--dry-run"],
        ["repair", "--server", "media3", "--adopt"],
        ["verify", "--repair"],
        ["verify", "--remove-extra"],
        ["verify", "--digest"],
        ["verify", "--sample", "3"],
    ],
)
def test_what_needs_a_catalogue_is_refused(site, servers, words):
    save(site)
    servers[2].files.clear()
    before = [len(server.log) for server in servers]
    with pytest.raises(CommandError, match=r"needs a catalogue.*Nothing was changed\. ['\w]"):
        call_command("outgrow", "media", *words)
    assert [len(server.log) for server in servers] == before


def verified(*words: str) -> tuple[int, dict[tuple[str, str], tuple[str, int, int]], dict]:
    """The exit code, what is wrong by server and name, and all that was told."""
    out = io.StringIO()
    try:
        call_command("outgrow", "media", "verify", "--json", *words, stdout=out)
    except SystemExit as end:
        code = int(str(end.code))
    else:
        code = 0
    told = json.loads(out.getvalue())
    wrong = {
        (one["server"], finding["name"]): (finding["what"], finding["wanted"], finding["found"])
        for one in told["verdicts"]
        for finding in one["findings"]
    }
    return code, wrong, {one["server"]: one for one in told["verdicts"]}


def test_servers_are_compared_with_each_other(site, servers):
    one, two, three = (save(site, bytes(7), f"{n}/f.txt") for n in range(3))
    assert verified() == (0, {}, verified()[2])
    del servers[1].files[one]
    servers[2].files[two] = b"short"
    servers[0].files[three] = b"x"
    servers[1].files[three] = b"xx"
    servers[2].files[three] = b"xxx"
    servers[0].files["by-hand.txt"] = b"x"
    code, wrong, verdicts = verified()
    assert code == 1
    assert wrong == {
        ("media2", one): ("missing", 7, -1),
        ("media3", two): ("different", 7, 5),
        ("media1", three): ("different", 3, 1),
        ("media2", three): ("different", 3, 2),
        ("media2", "by-hand.txt"): ("missing", 1, -1),
        ("media3", "by-hand.txt"): ("missing", 1, -1),
    }
    assert {verdict["compared"] for verdict in verdicts.values()} == {4}
    assert verified("--prefix", "0/")[1].keys() == {("media2", one)}
    assert verified("--server", "media1")[2].keys() == {"media1"}


def test_a_comparison_in_words(site, servers, capsys):
    name = save(site)
    call_command("outgrow", "media", "verify")
    assert "The servers have the same files." in capsys.readouterr().out
    del servers[1].files[name]
    with pytest.raises(SystemExit):
        call_command("outgrow", "media", "verify")
    told = capsys.readouterr().out
    assert f"media2: {name} is not there" in told
    assert "somebody must decide" in told


def test_a_server_that_is_down_is_left_out_and_told(site, servers):
    name = save(site)
    servers[0].stop()
    code, wrong, verdicts = verified()
    assert (code, wrong) == (1, {})
    assert "connection" in verdicts["media1"]["down"]
    del servers[2].files[name]
    assert verified()[1].keys() == {("media3", name)}


def test_a_server_without_a_listing_is_asked_for_each_name(site, servers):
    names = [save(site) for _ in range(3)]
    servers[0].listing = False
    assert verified()[:2] == (0, {})
    del servers[0].files[names[1]]
    servers[0].files["unseen.txt"] = b"x"
    code, wrong, verdicts = verified()
    assert (code, wrong) == (1, {("media1", names[1]): ("missing", 7, -1)})
    assert [verdicts[name]["listed"] for name in sorted(verdicts)] == [False, True, True]
    for server in servers:
        server.listing = False
    with pytest.raises(CommandError, match="nothing to compare"):
        call_command("outgrow", "media", "verify")


def test_what_changes_meanwhile_is_not_told(site, servers):
    """A listing is how things were: what differs is asked for again."""
    save(site)
    lost = save(site)

    class Fading(dict):
        """Files of which one is deleted everywhere as soon as they are listed."""

        def __iter__(self):
            for server in servers:
                server.files.pop(lost, None)
            return super().__iter__()

    servers[1].files = Fading(servers[1].files)
    assert verified()[:2] == (0, {})
    assert not site.exists(lost)
