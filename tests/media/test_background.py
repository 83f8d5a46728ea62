"""AsyncStorage with its own thread: what is saved gets to the servers, whatever ends first."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.files.base import ContentFile

from outgrow.media import AsyncStorage
from outgrow.media.background import Background
from outgrow.media.repair import Repair
from outgrow.testing import MediaServer
from tests.live.processes import wait_until
from tests.raw import takes

CHILD = Path(__file__).parent / "children" / "background.py"
MASTER_ID = "outgrow-master-id.txt"


# --- the thread, with plain work


class Work:
    """Work that can be held up, and notes what was done."""

    def __init__(self) -> None:
        self.done: list[object] = []
        self.go = threading.Event()
        self.go.set()
        self.begun = threading.Event()
        self.caught_up = 0

    def handle(self, item: object) -> None:
        self.begun.set()
        assert self.go.wait(10)
        if isinstance(item, Exception):
            raise item
        self.done.append(item)

    def catch_up(self, _go_on) -> bool:
        self.caught_up += 1
        return True


@pytest.fixture
def work():
    return Work()


@pytest.fixture
def background(work):
    made = Background(work.handle, work.catch_up, backlog=3, drain=5)
    yield made
    work.go.set()
    assert made.drain()


def test_it_works_in_order_and_ends_when_told(work, background):
    assert [background.offer(number) for number in range(3)] == [True] * 3
    assert background.drain()
    assert work.done == [0, 1, 2]
    # The next one begins a new thread.
    assert background.offer(3)
    assert background.drain()
    assert work.done == [0, 1, 2, 3]


def test_what_does_not_fit_is_refused_and_caught_up_with(work, background):
    work.go.clear()
    background.offer(0)
    assert work.begun.wait(10)
    assert [background.offer(number) for number in range(1, 6)] == [True] * 3 + [False] * 2
    before = work.caught_up
    work.go.set()
    wait_until(lambda: work.caught_up > before, "it did not catch up")
    assert background.drain()
    assert work.done == [0, 1, 2, 3]


def test_an_error_ends_one_piece_of_work_and_not_the_thread(work, background, caplog):
    background.offer(ValueError("broken"))
    background.offer(1)
    assert background.drain()
    assert work.done == [1]
    assert "a repair pass will do it" in caplog.text


def test_a_drain_is_given_up_after_its_time(work, background):
    work.go.clear()
    background.offer(0)
    with takes(at_most=2):
        assert not background.drain(0.2)


def test_nothing_is_begun_before_the_first_offer(work):
    before = threading.active_count()
    assert Background(work.handle, work.catch_up, backlog=1, drain=1).drain()
    assert threading.active_count() == before


# --- the storage


@pytest.fixture
def servers():
    with MediaServer() as one, MediaServer() as two:
        yield [one, two]


@pytest.fixture
def make(tmp_path, servers):
    made = []

    def make(**options):
        given = {"location": tmp_path / "master", "base_url": "/", "downtime": 0.1, "timeout": 1}
        given["servers"] = [server.url for server in servers]
        made.append(AsyncStorage(**(given | options)))
        return made[-1]

    yield make
    for one in made:
        assert one.background.drain(10)


def copies(server: MediaServer) -> set[str]:
    return server.files.keys() - {MASTER_ID}


def heal(storage) -> None:
    report = Repair(storage.replication).once(settle=False)
    assert report.complete, report


def test_a_save_ends_with_the_master_and_the_servers_hear_of_it(make, servers):
    storage = make()
    name = storage.save("f.txt", ContentFile(b"x"))
    with storage.open(name) as file:
        assert file.read() == b"x"
    assert storage.background.drain()
    assert [copies(server) for server in servers] == [{name}] * 2
    assert list(storage.journal.attempts()) == []
    storage.delete(name)
    assert storage.background.drain()
    assert [copies(server) for server in servers] == [set()] * 2


def test_a_save_does_not_wait_for_a_server(make, servers):
    storage = make()
    for server in servers:
        server.hang = "before-answer"
    with takes(at_most=0.5):
        names = {storage.save(f"{number}.txt", ContentFile(b"x")) for number in range(20)}
    for server in servers:
        server.thaw()
    assert storage.background.drain(20)
    heal(storage)
    assert [copies(server) for server in servers] == [names] * 2


def test_a_server_that_is_down_is_owed_it(make, servers):
    storage = make()
    storage.save("first.txt", ContentFile(b"x"))
    servers[1].stop()
    storage.save("f.txt", ContentFile(b"x"))
    assert storage.background.drain()
    servers[1].start()
    heal(storage)
    assert len(copies(servers[1])) == 2


def test_what_does_not_fit_in_the_queue_is_owed_and_sent(make, servers):
    storage = make(backlog=2)
    storage.journal.prepare()
    for server in servers:
        server.hang = "before-body"
    names = {storage.save(f"{number}.txt", ContentFile(b"x")) for number in range(10)}
    for server in servers:
        server.thaw()
    assert storage.background.drain(20)
    heal(storage)
    assert [copies(server) for server in servers] == [names] * 2


@pytest.mark.parametrize("pause", [0.0, 0.001, 0.01])
def test_a_save_and_a_delete_that_overtake_each_other_end_in_the_masters_state(
    make, servers, pause
):
    storage = make(names="keep", allow_overwrite=True)
    for number in range(30):
        storage.save("f.txt", ContentFile(b"%d" % number))
        time.sleep(pause)
        if number % 2:
            storage.delete("f.txt")
    storage.save("f.txt", ContentFile(b"the last"))
    assert storage.background.drain(20)
    heal(storage)
    assert [server.files["f.txt"] for server in servers] == [b"the last"] * 2


def test_threads_share_it(make, servers):
    storage = make()
    threads = [
        threading.Thread(target=storage.save, args=(f"{number}.txt", ContentFile(b"x")))
        for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert storage.background.drain()
    assert [len(copies(server)) for server in servers] == [20, 20]


# --- processes that end


def end(tmp_path, servers, how: str, *rest: str) -> list[str]:
    urls = ",".join(server.url for server in servers)
    words = [sys.executable, str(CHILD), str(tmp_path / "master"), urls, how, *rest]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode in {0, -9}, done.stderr
    return done.stdout.splitlines()


def test_a_process_that_exits_sends_what_it_has(servers, tmp_path):
    saved = {line.split()[1] for line in end(tmp_path, servers, "exit", "50")}
    assert len(saved) == 50
    assert [copies(server) for server in servers] == [saved] * 2


def test_a_process_that_exits_does_not_wait_for_ever(make, servers, tmp_path):
    make().journal.prepare()
    for server in servers:
        server.hang = "before-body"
    with takes(at_most=10):  # two seconds for the queue, and Python's own
        saved = {line.split()[1] for line in end(tmp_path, servers, "exit", "20")}
    for server in servers:
        server.thaw()
    heal(make())
    assert [copies(server) for server in servers] == [saved] * 2


@pytest.mark.parametrize("finder", ["a pass", "the next process"])
def test_nothing_is_lost_when_the_process_dies_right_after_the_save(
    make, servers, tmp_path, finder
):
    for _ in range(5):
        end(tmp_path, servers, "kill", "10")
    storage = make()
    if finder == "a pass":
        heal(storage)
    else:
        storage.save("last.txt", ContentFile(b"x"))
        wait_until(lambda: not list(storage.journal.attempts()), "it did not catch up")
        assert storage.background.drain(20)
    on_master = set(storage.listdir("")[1])
    assert len(on_master) >= 50
    assert [copies(server) for server in servers] == [on_master] * 2


def test_a_forked_process_has_a_thread_of_its_own(servers, tmp_path):
    lines = end(tmp_path, servers, "fork", "5")
    assert "drained True" in lines
    saved = {line.split()[1] for line in lines if line.startswith("saved")}
    assert len(saved) == 6
    assert [copies(server) for server in servers] == [saved] * 2


# --- a queue of one's own


class Queued(AsyncStorage):
    """A subclass with another queue."""

    sent: list[bytes]

    def enqueue(self, server: str, name: str) -> None:
        self.sent.append(pickle.dumps((server, name)))


@pytest.fixture
def queued(tmp_path, servers):
    storage = Queued(location=tmp_path / "master", servers=[server.url for server in servers])
    storage.sent = []
    return storage


def test_a_queue_of_ones_own_gets_plain_values(queued, servers):
    name = queued.save("f.txt", ContentFile(b"x"))
    assert copies(servers[0]) == set()
    jobs = [pickle.loads(job) for job in queued.sent]
    assert jobs == [(server.name, name) for server in queued.options.servers]
    for job in [*jobs, *jobs]:  # a job may be done twice
        queued.replicate(*job)
    assert [copies(server) for server in servers] == [{name}] * 2
    heal(queued)


def test_a_job_that_comes_after_the_delete_deletes(queued, servers):
    name = queued.save("f.txt", ContentFile(b"x"))
    early = [pickle.loads(job) for job in queued.sent]
    queued.delete(name)
    for job in early:
        queued.replicate(*job)
    assert [copies(server) for server in servers] == [set()] * 2
    heal(queued)


def test_a_queue_that_is_down_does_not_fail_the_save(queued, servers, caplog):

    class Broken(Queued):
        def enqueue(self, server: str, name: str) -> None:
            raise ConnectionRefusedError("no broker")

    storage = Broken(location=queued.location, servers=[server.url for server in servers])
    name = storage.save("f.txt", ContentFile(b"x"))
    assert "no job could be queued" in caplog.text
    # Brokers can take seconds to be found away: it is left alone for the downtime.
    storage.delete(storage.save("g.txt", ContentFile(b"x")))
    assert caplog.text.count("no job could be queued") == 1
    heal(storage)
    assert [copies(server) for server in servers] == [{name}] * 2


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"need": 1}, "is not an option"),
        ({"background": "threads"}, "'thread', 'tasks', 'celery', 'rq'"),
        ({"backlog": 0}, "from 1 to"),
        ({"background": "rq"}, "the URL of Redis"),
        ({"drain": -1}, "above 0"),
    ],
)
def test_wrong_options_are_told_at_once(make, options, problem):
    with pytest.raises(ImproperlyConfigured, match=problem):
        AsyncStorage(servers=["http://a:1"], **options)


def test_it_can_be_pickled(make, servers):
    storage = make()
    storage.save("f.txt", ContentFile(b"x"))
    again = pickle.loads(pickle.dumps(storage))
    name = again.save("f.txt", ContentFile(b"x"))
    assert again.background.drain()
    assert name in copies(servers[0])
