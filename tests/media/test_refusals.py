"""What every storage makes of servers that refuse, and of one that says yes to everything.

The rule is the same for each answer: the site is served by the others, the server that
refused is owed what it missed, and when it is well again it becomes equal.
"""

from __future__ import annotations

import pytest
from django.core.files.base import ContentFile

from outgrow.errors import NoCopy, NotEnoughServers
from outgrow.media import AsyncStorage, DistributedStorage
from outgrow.media.repair import Repair
from outgrow.testing import MediaServer
from tests.live.processes import wait_until

MASTER_ID = "outgrow-master-id.txt"
CONTENT = b"content" * 20_000

#: An answer by itself, or with "Retry-After: 1".
REFUSALS = ["401", "403", "404", "405", "409", "413", "429", "429 later", "500", "503", "507"]
#: What a server says of everything that it is asked, the master's id too.
ANSWERS = [*REFUSALS, "200"]

in_database = pytest.mark.django_db(transaction=True, databases=["default", "outgrow"])
every_answer = pytest.mark.parametrize("answer", ANSWERS)


def say(server: MediaServer, answer: str, **options) -> None:
    """Answer so from now on, and do nothing of what is asked."""
    if answer == "429 later":
        server.raw_answer = b"HTTP/1.1 429 X\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
    else:
        server.answer_with(int(answer), **options)


def say_no_more(server: MediaServer) -> None:
    server.raw_answer = None
    server.answer_with(None)


def copies(server: MediaServer) -> dict[str, bytes]:
    return {name: content for name, content in server.files.items() if name != MASTER_ID}


def owed(storage, number: int) -> set[str]:
    """The names that a server is owed."""
    return {debt.name for debt in storage.journal.debts(storage.options.servers[number].name)}


def heal(storage) -> None:
    report = Repair(storage.replication).once(settle=False)
    assert report.complete, report


@pytest.fixture
def servers():
    with MediaServer() as one, MediaServer() as two, MediaServer() as three:
        yield [one, two, three]


# --- AsyncStorage


@pytest.fixture
def make_async(tmp_path, servers):
    made = []

    def make():
        urls = [server.url for server in servers]
        given = {"location": tmp_path, "servers": urls, "timeout": 2, "downtime": 0.05}
        made.append(AsyncStorage(base_url="/", **given))
        return made[-1]

    heal(make())
    yield make
    for one in made:
        assert one.background.drain(20)


@every_answer
@pytest.mark.parametrize("known", [True, False], ids=["known", "met anew"])
def test_an_asynchronous_save_holds_whatever_a_server_says(make_async, servers, answer, known):
    storage = make_async()
    gone = storage.save("gone.txt", ContentFile(b"gone"))
    assert storage.background.drain(20)
    if not known:
        storage = make_async()
    say(servers[1], answer)
    name = storage.save("f.bin", ContentFile(CONTENT))
    storage.delete(gone)
    assert storage.background.drain(20)
    assert [copies(servers[0]), copies(servers[2])] == [{name: CONTENT}] * 2
    assert copies(servers[1]) == {gone: b"gone"}
    assert list(storage.journal.attempts()) == []
    assert [owed(storage, 0), owed(storage, 2)] == [set(), set()]
    # A server that holds the master's id, and then says of a file that it has it, or of one
    # that it has not, is believed; what that costs, `media verify` mends.
    believed = {("200", True): {name, gone}, ("404", True): {gone}}.get((answer, known), set())
    missed = owed(storage, 1)
    assert {name, gone} - believed <= missed <= {name, gone}
    say_no_more(servers[1])
    wait_until(lambda: _passes(storage), "the server was not repaired")
    if believed:
        storage.journal.owe_all(storage.options.servers[1].name)
        heal(storage)
    assert [copies(server) for server in servers] == [{name: CONTENT}] * 3


def _passes(storage) -> bool:
    """Whether a pass came to its end; what a server says of its pauses may put it off."""
    return Repair(storage.replication).once(settle=False).complete


@every_answer
def test_an_asynchronous_save_holds_when_no_server_takes_it(make_async, servers, answer):
    storage = make_async()
    for server in servers:
        say(server, answer)
    name = storage.save("f.bin", ContentFile(CONTENT))
    with storage.open(name) as file:
        assert file.read() == CONTENT
    assert storage.background.drain(20)
    assert [owed(storage, number) for number in range(3)] == [{name}] * 3
    for server in servers:
        say_no_more(server)
    wait_until(lambda: _passes(storage), "the servers were not repaired")
    assert [copies(server) for server in servers] == [{name: CONTENT}] * 3


# --- DistributedStorage


@pytest.fixture
def make_distributed(servers):
    def make():
        urls = [server.url for server in servers]
        return DistributedStorage(base_url="/media/", servers=urls, timeout=2, downtime=0.05)

    heal(make())
    return make


@in_database
@every_answer
def test_a_distributed_save_holds_when_one_server_refuses(make_distributed, servers, answer):
    storage = make_distributed()
    say(servers[1], answer)
    name = storage.save("f.bin", ContentFile(CONTENT))
    assert [copies(server) for server in servers] == [{name: CONTENT}, {}, {name: CONTENT}]
    assert [owed(storage, number) for number in range(3)] == [set(), {name}, set()]
    assert storage.open(name).read() == CONTENT
    say_no_more(servers[1])
    wait_until(lambda: _passes(storage), "the server was not repaired")
    assert [copies(server) for server in servers] == [{name: CONTENT}] * 3


@in_database
@every_answer
def test_a_distributed_save_is_undone_when_most_refuse(make_distributed, servers, answer):
    check_undone(make_distributed(), servers, answer)


@in_database
@pytest.mark.parametrize("answer", ["403", "409", "413", "429", "500", "503", "507"])
def test_a_save_is_undone_where_it_was_stored_all_the_same(make_distributed, servers, answer):
    """M2: by a server that fails, and says so, after it has stored the file."""
    check_undone(make_distributed(), servers, answer, carry_out=True, method="PUT")


def check_undone(storage, servers, answer, **options) -> None:
    for server in servers[1:]:
        say(server, answer, **options)
    with pytest.raises(NotEnoughServers) as raised:
        storage.save("f.bin", ContentFile(CONTENT))
    for server in storage.options.servers[1:]:
        assert server.name in raised.value.missed
        assert server.name in str(raised.value)
    assert not storage.exists(raised.value.name)
    for server in servers[1:]:
        say_no_more(server)
    wait_until(lambda: _passes(storage), "the servers were not repaired")
    assert [copies(server) for server in servers] == [{}] * 3
    assert list(storage.journal.attempts()) == []


# --- reads


@in_database
@every_answer
def test_a_read_goes_on_to_a_server_that_gives_the_file(make_distributed, servers, answer):
    storage = make_distributed()
    name = storage.save("f.bin", ContentFile(CONTENT))
    order = [_standing_for(server, servers) for server in storage.reader.servers(name)]
    for refusing in order[:2]:
        say(refusing, answer)
        assert storage.open(name).read() == CONTENT
        with storage.open(name) as file:
            file.seek(100_001)
            assert file.read() == CONTENT[100_001:]
    assert storage.exists(name)
    assert storage.size(name) == len(CONTENT)
    say(order[2], answer)
    # The catalogue knows that the file is there, whatever all servers say (M6).
    with pytest.raises(NoCopy, match="No media server has given"):
        storage.open(name)


@in_database
@every_answer
def test_a_read_goes_on_when_the_server_refuses_in_the_middle(make_distributed, servers, answer):
    """The body breaks off, and the next server is asked for the rest."""
    storage = make_distributed()
    name = storage.save("f.bin", ContentFile(CONTENT))
    first, second, _ = (_standing_for(one, servers) for one in storage.reader.servers(name))
    first.cut_body_after = 70_000
    with storage.open(name) as file:
        begun = file.read(10)
        say(second, answer)
        assert begun + file.read() == CONTENT


def _standing_for(server, servers: list[MediaServer]) -> MediaServer:
    return next(one for one in servers if f"{one.url}/" == f"{server.address.rstrip('/')}/")
