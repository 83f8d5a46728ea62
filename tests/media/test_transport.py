"""Media servers as the transport meets them: whose they are, whom to ask, folders."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from outgrow.access import Access
from outgrow.errors import (
    ConnectFailed,
    ForeignServer,
    NotEnoughServers,
    ServerDown,
    TimedOut,
    UnexpectedStatus,
    UnsafeName,
)
from outgrow.exchange import Limits
from outgrow.fanout import PATIENCE, Outcome
from outgrow.http import FileBody
from outgrow.media.transport import HttpTransport
from outgrow.names import MASTER_ID_FILE
from outgrow.servers import DOWNTIME, Health, Server
from outgrow.testing import FakeClock, MediaServer, free_port
from tests.live.nginx import Nginx
from tests.live.processes import wait_until
from tests.raw import Peer, RawServer, answer, takes

OURS = "11111111-ours"
ID = f"/{MASTER_ID_FILE}"


class Registry:
    """What a journal knows of the master, in memory."""

    master_id = OURS

    def __init__(self) -> None:
        self.claimed: set[str] = set()
        self.owed: list[str] = []

    def is_claimed(self, server: str) -> bool:
        return server in self.claimed

    def set_claimed(self, server: str, *, claimed: bool = True) -> None:
        (self.claimed.add if claimed else self.claimed.discard)(server)

    def owe_all(self, server: str) -> None:
        if server not in self.owed:  # until a walk claims it, one record is enough
            self.owed.append(server)


def named(where: MediaServer | RawServer | Nginx) -> Server:
    return Server(f"s{where.port}", where.url.rstrip("/") + "/")


def ours(server: MediaServer) -> MediaServer:
    """A server that this master has claimed before."""
    server.files[MASTER_ID_FILE] = f"{OURS}\n".encode()
    return server


class Site:
    """A transport with its servers, its registry, and a clock for health alone."""

    def __init__(self, servers: list[Server], **options: object) -> None:
        self.registry = Registry()
        self.clock = FakeClock()
        self.health = Health(self.clock, random=lambda: 0.0)
        options.setdefault("limits", Limits(timeout=0.6))
        self.transport = HttpTransport(servers, self.registry, health=self.health, **options)  # type: ignore[arg-type]
        self.servers = servers
        self._files: list[int] = []

    def put(
        self, name: str = "a.txt", content: bytes = b"hello", need: int = 1, within: float = 10
    ) -> Outcome:
        descriptor = os.memfd_create("body")
        self._files.append(descriptor)
        os.write(descriptor, content)
        return self.whole(
            self.transport.put(
                name,
                FileBody(descriptor, len(content)),
                servers=self.servers,
                need=need,
                deadline=time.monotonic() + within,
            )
        )

    def delete(self, name: str = "a.txt") -> Outcome:
        until = time.monotonic() + 10
        return self.whole(self.transport.delete(name, servers=self.servers, deadline=until))

    def stat(self, name: str = "a.txt") -> Outcome:
        until = time.monotonic() + 10
        return self.whole(self.transport.stat(name, servers=self.servers, deadline=until))

    def whole(self, outcome: Outcome) -> Outcome:
        """Each server has one end, and each error names its own."""
        ends = [*outcome.done, *outcome.failed, *outcome.unknown]
        assert sorted(ends, key=str) == sorted(self.servers, key=str)
        assert all(error.server == server.name for server, error in outcome.missed.items())
        return outcome

    def is_up(self, server: Server, *, writes: bool = False) -> bool:
        return self.health.is_up(server, writes=writes)

    def close(self) -> None:
        for descriptor in self._files:
            os.close(descriptor)


@pytest.fixture
def site() -> Iterator[Callable[..., Site]]:
    """Makes sites of servers."""
    made: list[Site] = []

    def make(*servers: MediaServer | RawServer | Nginx | Server, **options: object) -> Site:
        one = Site([s if isinstance(s, Server) else named(s) for s in servers], **options)
        made.append(one)
        return one

    yield make
    for one in made:
        one.close()


@pytest.fixture
def media() -> Iterator[Callable[..., MediaServer]]:
    """Makes media servers that run."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(MediaServer(**options))


def methods(server: MediaServer) -> list[str]:
    return [method for method, _, _ in server.log]


# --- whose server it is


def test_nothing_is_sent_before_the_first_request(site, media) -> None:
    server = media()
    site(server)
    assert server.log == []


def test_the_first_contact_reads_the_id_and_the_next_does_not(site, media) -> None:
    server = ours(media())
    one = site(server)
    for name in ("a.txt", "b.txt"):
        assert one.put(name).done
    assert server.log == [("GET", ID, 200), ("PUT", "/a.txt", 201), ("PUT", "/b.txt", 201)]
    assert one.registry.claimed == {named(server).name}
    assert one.registry.owed == []


def test_a_new_server_is_claimed_and_owed_everything(site, media) -> None:
    server = media()
    one = site(server)
    assert one.put().done
    assert server.files == {MASTER_ID_FILE: f"{OURS}\n".encode(), "a.txt": b"hello"}
    assert server.log == [
        ("GET", ID, 404),
        ("PUT", ID, 201),
        ("GET", ID, 200),
        ("PUT", "/a.txt", 201),
    ]
    assert one.registry.claimed == {named(server).name}
    assert one.registry.owed == [named(server).name]


def test_it_is_owed_everything_before_it_is_claimed(site, media) -> None:
    # Killed in between, the server would else never get what was there already.
    server = media()
    one = site(server)
    seen: list[list[str]] = []
    one.registry.owe_all = lambda name: seen.append(methods(server))  # type: ignore[method-assign]
    one.put()
    assert seen == [["GET"]]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"22222222-theirs\n", "belongs to the master"),
        (OURS.encode() * 2, "belongs to the master"),
        (b"", "which is no master's id"),
        (b"\xff\x00", "which is no master's id"),
        (b"<!doctype html><title>Welcome", "Does it answer so to every name?"),
    ],
)
def test_another_masters_server_is_not_written_to(site, media, content: bytes, reason: str) -> None:
    server = media()
    server.files[MASTER_ID_FILE] = content
    one = site(server)
    for act in (one.put, one.delete, lambda: one.put(need=0)):
        outcome = act()
        error = outcome.failed[named(server)]
        assert isinstance(error, (ForeignServer, ServerDown))
        assert reason in str(error)
    assert set(methods(server)) == {"GET"}
    assert server.files == {MASTER_ID_FILE: content}
    assert not one.is_up(named(server))


def test_a_server_that_lost_its_id_is_not_written_to(site, media) -> None:
    server = media()
    one = site(server)
    one.registry.set_claimed(named(server).name)
    error = one.put().failed[named(server)]
    assert isinstance(error, ForeignServer)
    assert "its folder may be unmounted" in str(error)
    assert f"--server {named(server).name} --adopt" in str(error)
    assert set(methods(server)) == {"GET"}
    assert server.files == {}


def test_after_a_failure_the_id_is_read_again(site, media) -> None:
    server = ours(media())
    one = site(server)
    assert one.put().done
    server.stop()
    assert isinstance(one.put().failed[named(server)], ConnectFailed)
    # It comes back with an empty folder: the disk is not mounted.
    server.files.clear()
    server.start()
    error = one.put("b.txt").failed[named(server)]
    assert isinstance(error, ForeignServer)
    assert server.files == {}


def test_one_foreign_server_does_not_stop_the_others(site, media) -> None:
    good, foreign, new = ours(media()), media(), media()
    foreign.files[MASTER_ID_FILE] = b"theirs"
    one = site(good, foreign, new)
    outcome = one.put(need=2)
    assert set(outcome.done) == {named(good), named(new)}
    assert isinstance(outcome.failed[named(foreign)], ForeignServer)


def test_two_masters_on_one_new_server(site, media) -> None:
    # Where If-None-Match works one of them is refused; nobody writes for both.
    server = media()
    one, other = site(server), site(server)
    other.registry.master_id = "22222222-other"  # type: ignore[misc]
    assert one.put("a.txt").done
    assert isinstance(other.put("b.txt").failed[named(server)], ForeignServer)
    assert sorted(server.files) == ["a.txt", MASTER_ID_FILE]


class ClaimedMeanwhile:
    """A server whose id appears between the first look and the claim."""

    def __init__(self, winner: str, status: int) -> None:
        self.winner = winner
        self.status = status
        self.seen: list[str] = []
        self.claimed = False

    def __call__(self, peer: Peer) -> None:
        while True:
            head, _ = peer.request()
            line = head.split(b" HTTP")[0].decode()
            self.seen.append(line)
            if line == f"GET {ID}":
                body = f"{self.winner}\n".encode()
                peer.send(answer(200, body=body) if self.claimed else answer(404))
            elif line == f"PUT {ID}":
                assert b"\r\nIf-None-Match: *" in head
                self.claimed = True
                peer.send(answer(self.status))
            else:
                peer.send(answer(201))


@pytest.mark.parametrize("status", [412, 201])
def test_another_process_of_ours_was_quicker(site, status: int) -> None:
    # As when all workers of a new site save their first file at once.
    behave = ClaimedMeanwhile(OURS, status)
    with RawServer(behave) as server:
        one = site(server)
        assert one.put().done
        assert one.is_up(one.servers[0])
    assert behave.seen[-2:] == [f"GET {ID}", "PUT /a.txt"]


@pytest.mark.parametrize("status", [412, 201])
def test_another_master_was_quicker(site, status: int) -> None:
    # 201: the server ignores If-None-Match, and the other wrote after us.
    behave = ClaimedMeanwhile("22222222-theirs", status)
    with RawServer(behave) as server:
        one = site(server)
        assert isinstance(one.put().failed[one.servers[0]], ForeignServer)
    assert "PUT /a.txt" not in behave.seen


def test_eight_threads_meet_a_new_server(site, media) -> None:
    servers = [media() for _ in range(3)]
    one = site(*servers)
    missed: list[object] = []

    def work(number: int) -> None:
        try:
            missed.extend(one.put(f"{number}.txt", need=3).missed.values())
        except Exception as error:
            missed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert missed == []
    assert all(len(server.files) == 9 for server in servers)


def test_a_new_server_that_refuses_the_id_is_not_written_to(site, media) -> None:
    server = media()
    server.answer_with(403, method="PUT")
    one = site(server)
    error = one.put().failed[named(server)]
    assert isinstance(error, UnexpectedStatus)
    assert server.log == [("GET", ID, 404), ("PUT", ID, 403)]
    assert one.registry.claimed == set()


def test_a_server_that_does_not_show_its_id_is_not_written_to(site, media) -> None:
    server = ours(media())
    server.answer_with(401, method="GET")
    one = site(server)
    error = one.put().failed[named(server)]
    assert "look at the options 'credentials' and 'token'" in str(error)
    assert set(methods(server)) == {"GET"}
    # A 4xx never counts.
    assert one.is_up(named(server), writes=True)


def test_the_token_is_sent_with_every_request(site) -> None:
    def behave(peer: Peer) -> None:
        while True:
            head, _ = peer.request()
            body = f"{OURS}\n".encode() if ID.encode() in head else b""
            peer.send(answer(200, body=b"" if head.startswith(b"HEAD") else body))

    with RawServer(behave) as server:
        access = Access(authorize=lambda _: "Bearer s3cret")
        one = site(server, access=access, conditional=True)
        one.put()
        one.stat()
        one.delete()
        one.transport.probe()
        assert len(server.log) >= 5
        assert all(b"\r\nAuthorization: Bearer s3cret" in head for head in server.log)


def test_credentials_that_would_break_the_request_are_not_sent(site, media) -> None:
    server = media()
    outcome = site(server, access=Access(authorize=lambda _: "x\r\nEvil: 1")).put()
    assert "no header can hold" in str(outcome.failed[named(server)])
    assert "Evil" not in str(outcome.failed[named(server)])
    assert server.log == []


def test_credentials_that_are_not_to_be_had_are_that_servers_error(site, media) -> None:
    def vault(server: str) -> str:
        raise LookupError(f"the vault says hunter2 of {server}")

    server = media()
    outcome = site(server, access=Access(authorize=vault)).put()
    error = outcome.failed[named(server)]
    assert "the option 'credentials' raised LookupError" in str(error)
    assert "hunter2" not in str(error)


# --- names


@pytest.mark.parametrize(
    "name", ["", "/", "a/", "../a", "a//b", ".outgrow/x", "a\r\nb", "%2e%2e", MASTER_ID_FILE]
)
def test_no_request_is_sent_for_a_hostile_name(site, media, name: str) -> None:
    server = ours(media())
    one = site(server)
    for act in (one.put, one.delete, one.stat):
        with pytest.raises(UnsafeName):
            act(name)
    assert server.log == []


def test_hostile_names_never_take_a_server_down(site, media) -> None:
    server = ours(media())
    one = site(server)
    for status in (400, 403, 404, 409, 414, 431, 451):
        server.answer_with(status, method="PUT")
        assert one.put().failed
        server.answer_with(None)
        assert one.is_up(named(server), writes=True)
    assert one.put().done


# --- whom to ask


def test_a_server_that_is_down_is_left_alone_until_it_is_due(site, media) -> None:
    good, bad = ours(media()), ours(media())
    one = site(good, bad)
    bad.stop()
    assert isinstance(one.put("1").failed[named(bad)], ConnectFailed)
    bad.start()
    for name in ("2", "3"):
        error = one.put(name).failed[named(bad)]
        assert isinstance(error, ServerDown)
        assert "for a moment ago it failed" in str(error)
        assert isinstance(one.delete("x").failed[named(bad)], ServerDown)
    assert bad.log == []
    # Due: a small request finds out, and not the visitor's upload.
    one.clock.advance(DOWNTIME)
    outcome = one.put("4")
    assert isinstance(outcome.failed[named(bad)], ServerDown)
    assert "it is back" in str(outcome.failed[named(bad)])
    assert bad.log == [("GET", ID, 200)]
    # Back, and known to be ours.
    assert len(one.put("5").done) == 2
    assert bad.log[1:] == [("PUT", "/5", 201)]
    assert sorted(good.files)[:5] == ["1", "2", "3", "4", "5"]


def test_a_probe_that_hangs_does_not_hold_up_the_upload(site, media) -> None:
    good, bad = ours(media()), ours(media())
    one = site(good, bad)
    one.health.failed(named(bad), "earlier")
    one.clock.advance(DOWNTIME)
    bad.hang = "before-body"
    assert one.put("warm-up", need=0, within=10).done
    with takes(at_most=PATIENCE):
        # Not due again: nothing is sent to it at all.
        assert one.put().done
    one.clock.advance(DOWNTIME)
    with takes(at_most=PATIENCE + 0.4):
        outcome = one.put("b.txt")
    assert list(outcome.done) == [named(good)]
    assert isinstance(outcome.failed[named(bad)], TimedOut)
    assert not one.is_up(named(bad))


def test_a_probe_is_not_counted_as_a_copy(site, media) -> None:
    good, back = ours(media()), ours(media())
    one = site(good, back, limits=Limits(timeout=2))
    one.put("warm-up")
    one.health.failed(named(back), "earlier")
    one.clock.advance(DOWNTIME)
    good.delay = PATIENCE + 0.3
    outcome = one.put("b.txt", need=1)
    assert list(outcome.done) == [named(good)]
    assert "b.txt" not in back.files


def test_a_probe_of_a_server_that_came_back_as_anothers(site, media) -> None:
    good, bad = ours(media()), ours(media())
    one = site(good, bad)
    one.health.failed(named(bad), "earlier")
    bad.files[MASTER_ID_FILE] = b"theirs"
    one.clock.advance(DOWNTIME)
    assert isinstance(one.put().failed[named(bad)], ForeignServer)
    assert not one.is_up(named(bad))
    assert "a.txt" not in bad.files


def test_without_it_need_cannot_be_reached_so_it_is_asked_all_the_same(site, media) -> None:
    good, bad = ours(media()), ours(media())
    one = site(good, bad)
    one.health.failed(named(bad), "earlier")
    assert len(one.put(need=2).done) == 2
    assert bad.log == [("GET", ID, 200), ("PUT", "/a.txt", 201)]
    assert one.is_up(named(bad))


def test_one_that_was_asked_a_moment_ago_is_not_asked_again_at_once(site, media) -> None:
    frozen = ours(media())
    one = site(frozen)
    frozen.hang = "before-answer"
    with takes(at_least=0.6, at_most=1.1):
        assert one.put().failed
    assert frozen.log == []
    assert frozen.held == 1


def test_servers_that_were_left_alone_are_asked_when_too_few_took_it(site, media) -> None:
    well, back = ours(media()), ours(media())
    one = site(well, back)
    one.put()
    back.stop()
    one.put(need=1)
    back.start()
    well.answer_with(403, 1, method="PUT")
    outcome = one.put(need=1)
    assert set(outcome.done) == {named(back)}


def test_a_server_is_owed_everything_once_however_often_it_refuses_the_id(site, media) -> None:
    server = media()
    server.answer_with(403, method="PUT")
    one = site(server)
    for _ in range(3):
        one.put()
        one.clock.advance(1000)
    assert one.registry.owed == [named(server).name]


def test_looking_does_not_claim(site, media) -> None:
    server = media()
    one = site(server)
    assert one.transport.probe(claim=False) == {named(server): None}
    assert server.files == {}
    assert one.registry.owed == []
    assert one.transport.probe() == {named(server): None}
    assert MASTER_ID_FILE in server.files


def test_need_that_cannot_be_reached_at_all(site, media) -> None:
    good = ours(media())
    down = Server("down", f"http://127.0.0.1:{free_port()}/")
    one = site(good, down)
    outcome = one.put(need=2)
    assert list(outcome.done) == [named(good)]
    error = NotEnoughServers("a.txt", 2, ("good",), {"down": outcome.failed[down]})
    assert "down: no connection" in str(error)


def test_a_full_disk_stops_writes_only(site, media) -> None:
    good, full = ours(media()), ours(media())
    one = site(good, full)
    one.put("1")
    full.answer_with(507, method="PUT")
    error = one.put("2").failed[named(full)]
    assert "its disk is full" in str(error)
    assert one.is_up(named(full))
    assert not one.is_up(named(full), writes=True)
    full.answer_with(None)
    before = len(full.log)
    assert isinstance(one.put("3").failed[named(full)], ServerDown)
    # Looking goes well, and changes nothing about the disk.
    assert len(one.stat("1").done) == 2
    assert isinstance(one.put("4").failed[named(full)], ServerDown)
    assert [entry[0] for entry in full.log[before:]] == ["HEAD"]
    # A delete makes room.
    assert len(one.delete("1").done) == 2
    assert len(one.put("5").done) == 2


def test_a_full_disk_is_looked_at_again(site, media) -> None:
    good, full = ours(media()), ours(media())
    one = site(good, full)
    full.answer_with(507, times=1, method="PUT")
    one.put("1")
    one.clock.advance(DOWNTIME)
    one.put("2")
    assert full.log[-1] == ("GET", ID, 200)
    assert len(one.put("3").done) == 2


def test_the_deadline_is_the_callers(site, media) -> None:
    # First contact included: nothing here takes longer than it was given.
    frozen = media()
    frozen.hang = "before-answer"
    one = site(frozen, limits=Limits(timeout=3))
    with takes(at_least=0.5, at_most=1.2):
        assert one.put(within=0.5).failed


def test_no_upload_is_begun_past_the_deadline(site, media) -> None:
    server = ours(media())
    one = site(server)
    one.put("1")
    assert one.put("2", within=-1).failed
    assert ("PUT", "/2", 201) not in server.log


# --- stat and probe


def test_stat(site, media) -> None:
    there, gone = ours(media()), ours(media())
    there.files["a.txt"] = b"hello"
    down = Server("down", f"http://127.0.0.1:{free_port()}/")
    one = site(there, gone, down)
    outcome = one.stat()
    assert outcome.done[named(there)].status == 200
    assert outcome.done[named(there)].headers["content-length"] == "5"
    assert outcome.done[named(gone)].status == 404
    assert isinstance(outcome.failed[down], ConnectFailed)


def test_probe_asks_everyone_whatever_their_health(site, media) -> None:
    good, foreign, new = ours(media()), media(), media()
    foreign.files[MASTER_ID_FILE] = b"theirs"
    down = Server("down", f"http://127.0.0.1:{free_port()}/")
    one = site(good, foreign, new, down)
    one.health.failed(named(good), "earlier")
    found = one.transport.probe()
    assert found[named(good)] is None
    assert found[named(new)] is None
    assert isinstance(found[named(foreign)], ForeignServer)
    assert isinstance(found[down], ConnectFailed)
    assert one.is_up(named(good))
    assert not one.is_up(named(foreign))
    assert one.transport.probe([named(good)]) == {named(good): None}


def test_probing_waits_for_the_slow(site, media) -> None:
    quick, slow = ours(media()), ours(media())
    slow.delay = PATIENCE + 0.3
    one = site(quick, slow, limits=Limits(timeout=2))
    assert one.transport.probe() == {named(quick): None, named(slow): None}


# --- folders


def test_missing_folders_are_made_where_the_server_wants_it(site, media) -> None:
    picky, easy = ours(media(missing_parent_409=True)), ours(media())
    one = site(picky, easy)
    assert len(one.put("2024/05/06/ü a.txt", need=2).done) == 2
    assert picky.log[1:] == [
        ("PUT", "/2024/05/06/%C3%BC%20a.txt", 409),
        ("MKCOL", "/2024/", 201),
        ("MKCOL", "/2024/05/", 201),
        ("MKCOL", "/2024/05/06/", 201),
        ("PUT", "/2024/05/06/%C3%BC%20a.txt", 201),
    ]
    assert picky.files["2024/05/06/ü a.txt"] == b"hello"
    assert "MKCOL" not in methods(easy)
    # Some of them are there: 405 means that (RFC 4918 §9.3.1).
    assert len(one.put("2024/05/07/b.txt", need=2).done) == 2
    assert ("MKCOL", "/2024/", 405) in picky.log


def test_a_409_without_a_folder_is_a_refusal(site, media) -> None:
    server = ours(media())
    server.answer_with(409, method="PUT")
    one = site(server)
    assert isinstance(one.put("a.txt").failed[named(server)], UnexpectedStatus)
    assert "MKCOL" not in methods(server)


def test_a_409_that_stays_ends_after_one_more_try(site, media) -> None:
    server = ours(media())
    server.answer_with(409, method="PUT")
    one = site(server)
    assert isinstance(one.put("d/a.txt").failed[named(server)], UnexpectedStatus)
    assert methods(server) == ["GET", "PUT", "MKCOL", "PUT"]


# --- delete


def test_delete(site, media) -> None:
    there, gone = ours(media()), ours(media())
    there.files["a.txt"] = b"hello"
    one = site(there, gone)
    assert len(one.delete().done) == 2
    assert there.log[1:] == [("DELETE", "/a.txt", 204)]
    assert gone.log[1:] == [("DELETE", "/a.txt", 404)]


def test_a_conditional_delete_names_the_version_that_was_seen(site, media) -> None:
    there, gone = ours(media()), ours(media())
    there.files["a.txt"] = b"hello"
    one = site(there, gone, conditional=True)
    assert len(one.delete().done) == 2
    assert there.log[1:] == [("HEAD", "/a.txt", 200), ("DELETE", "/a.txt", 204)]
    assert gone.log[1:] == [("HEAD", "/a.txt", 404)]


def test_a_file_that_was_replaced_after_the_look_stays(site) -> None:
    seen: list[bytes] = []

    def behave(peer: Peer) -> None:
        while True:
            head, _ = peer.request()
            if ID.encode() in head:
                peer.send(answer(200, body=OURS.encode()))
            elif head.startswith(b"HEAD"):
                peer.send(answer(200, "OK", 'ETag: "v1"'))
            else:
                seen.append(head)
                peer.send(answer(412))

    with RawServer(behave) as server:
        one = site(server, conditional=True)
        error = one.delete().failed[one.servers[0]]
        assert isinstance(error, UnexpectedStatus)
        assert error.status == 412
    assert b'\r\nIf-Match: "v1"' in seen[0]


def looking(*lines: str, status: int = 200) -> tuple[Callable[[Peer], None], list[bytes]]:
    """A server that answers HEAD with these headers, and what was asked of it besides."""
    asked: list[bytes] = []

    def behave(peer: Peer) -> None:
        while True:
            head, _ = peer.request()
            if ID.encode() in head:
                peer.send(answer(200, body=OURS.encode()))
            elif head.startswith(b"HEAD"):
                peer.send(answer(status, "X", *lines))
            else:
                asked.append(head)
                peer.send(answer(204))

    return behave, asked


@pytest.mark.parametrize("tag", ['W/"weak"', "unquoted", '"with space "', '"\xe9"', ""])
def test_a_tag_that_cannot_be_matched_is_not_sent(site, tag: str) -> None:
    behave, asked = looking(f"ETag: {tag}", "Last-Modified: Thu, 01 Jan 1970 00:00:00 GMT")
    with RawServer(behave) as server:
        assert site(server, conditional=True).delete().done
    assert len(asked) == 1
    assert b"If-Match" not in asked[0]


def test_what_has_no_version_at_all_may_be_a_folder(site) -> None:
    # A listing that a server makes has neither an ETag nor a date.
    behave, asked = looking("Content-Type: text/html")
    with RawServer(behave) as server:
        one = site(server, conditional=True)
        error = one.delete().failed[one.servers[0]]
        assert "may be a folder" in str(error)
        assert one.is_up(one.servers[0])
    assert asked == []


@pytest.mark.parametrize("location", ["/a.txt/", "http://else.where/x/a.txt/"])
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_folder_by_that_name_is_no_such_file(site, status: int, location: str) -> None:
    behave, asked = looking(f"Location: {location}", status=status)
    with RawServer(behave) as server:
        assert site(server, conditional=True).delete().done
    assert asked == []


@pytest.mark.parametrize("location", ["/login/", "/b-a.txt/", "/a.txt", "/a.txt/x"])
def test_another_redirect_is_not_a_folder(site, location: str) -> None:
    behave, asked = looking(f"Location: {location}", status=302)
    with RawServer(behave) as server:
        assert site(server, conditional=True).delete().failed
    assert asked == []


@pytest.mark.parametrize("conditional", [True, False])
def test_a_real_folder_survives(site, nginx: Nginx, conditional: bool) -> None:
    one = site(nginx, conditional=conditional)
    assert one.put("a b/ü/photo.jpg").done
    outcome = one.delete("a b/ü")
    # With unique names a name is never a folder's; nginx itself refuses there.
    assert bool(outcome.done) is conditional
    assert (nginx.root / "a b/ü/photo.jpg").exists()
    if conditional:
        assert not any(method == "DELETE" for method, _, _ in nginx.requests())
    else:  # nginx writes its log after it has answered
        wait_until(
            lambda: any(method == "DELETE" for method, _, _ in nginx.requests()), "nobody asked"
        )


def test_a_file_on_a_real_server(site, nginx: Nginx, tmp_path: Path) -> None:
    one = site(nginx, conditional=True)
    assert one.put("a b/ü.jpg").done
    assert one.stat("a b/ü.jpg").done[one.servers[0]].headers["content-length"] == "5"
    assert one.delete("a b/ü.jpg").done
    assert not (nginx.root / "a b/ü.jpg").exists()
    assert one.delete("a b/ü.jpg").done


def test_a_real_server_that_is_frozen_and_comes_back(site, three_nginx: list[Nginx]) -> None:
    one = site(*three_nginx)
    assert len(one.put("1.txt", need=3).done) == 3
    three_nginx[0].pause()
    with takes(at_least=PATIENCE, at_most=PATIENCE + 0.5):
        outcome = one.put("2.txt", need=1)
    frozen = one.servers[0]
    assert list(outcome.unknown) == [frozen]
    with takes(at_most=PATIENCE):
        assert isinstance(one.put("3.txt").failed[frozen], ServerDown)
    three_nginx[0].resume()
    wait_until((three_nginx[0].root / "2.txt").exists, "the late PUT was never carried out")
    one.clock.advance(DOWNTIME)
    one.put("4.txt")
    assert len(one.put("5.txt").done) == 3
