"""A site behind a real PgBouncer: served, read from its replica, and broken."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import urllib.error
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from outgrow.errors import TopologyError
from outgrow.topology import account
from outgrow.topology.capacity import SPARE, connections, pool
from outgrow.topology.load import DIRECT, load
from outgrow.topology.model import parse
from outgrow.topology.render import toml
from tests.live.processes import family, missing, server_folder, wait_until
from tests.topology.sites import tiny_site
from tests.topology.test_local import Run, get


def run_of(path: Path, folder: Path) -> Iterator[Run]:
    try:
        Run(load(path), folder / "run").local.prepare(dry_run=True)
    except TopologyError as error:
        missing(str(error), "apt-get install postgresql pgbouncer")
    run = Run(load(path), folder / "run")
    with run.local:
        yield run


@pytest.fixture(scope="module", params=["transaction", "session"])
def running(request: pytest.FixtureRequest) -> Iterator[Run]:
    with server_folder("outgrow-pooler-") as folder:
        path = tiny_site(folder, database="postgresql", replicas=("db2",), pooler=request.param)
        media = '[media]\nstorage = "distributed"\n'
        path.write_text(path.read_text().replace("[media]\n", media))
        yield from run_of(path, folder)


def url(run: Run, path: str) -> str:
    return run.local.address("app1") + path


def write(run: Run, text: str) -> None:
    get(url(run, "/write?" + urllib.parse.urlencode({"text": text})))


def notes(run: Run, alias: str) -> list[str]:
    return get(url(run, f"/read?alias={alias}")).split()


def works(run: Run, text: str) -> bool:
    return is_well(lambda: write(run, text)) and has(run, "default", text)


def has(run: Run, alias: str, text: str) -> bool:
    return is_well(lambda: notes(run, alias).index(text))


def is_well(ask: Callable[[], object]) -> bool:
    """Whether there is an answer, and the right one."""
    try:
        ask()
    except urllib.error.HTTPError as error:
        error.close()
        return False
    except (OSError, ValueError):
        return False
    return True


def script(run: Run, code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", f"import django; django.setup()\n{code}"],
        env={**os.environ, **run.local.environment, **environment},
        cwd=run.local.site.folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_serves_and_the_replica_follows(running: Run) -> None:
    assert works(running, "first")
    wait_until(lambda: has(running, "db2", "first"), "it is not on the replica")


def test_it_is_unprivileged_and_no_secret_is_printed(running: Run) -> None:
    local = running.local
    process = family(local.process("pool1").pid or 0)[0]
    assert process.uids().real == (account.account() or (os.geteuid(),))[0] != 0
    password = (local.folder / "_password").read_text()
    files = [f for f in local.plan.files if "_pooler" in f.name]
    assert {Path(f.name).name for f in files} == {"pgbouncer.ini", "userlist.txt"}
    assert not any(password in f.content for f in files)
    assert all(f.private for f in files)


WHERE = """
from django.db import connections
for alias in ("default", "db2"):
    with connections[alias].cursor() as cursor:
        name = "default_transaction_read_only"
        cursor.execute("SELECT inet_server_port(), current_setting(%s)", [name])
        print(alias, *cursor.fetchone(), connections[alias].settings_dict["PORT"])
    assert connections[alias].connection.prepare_threshold is None
"""


def test_each_alias_leads_to_its_server_through_the_pooler(running: Run) -> None:
    site = running.local.site
    ports = [str(site.service(name).port.number) for name in ("db1", "db2", "pool1")]
    read_only = "on" if site.pooler.by_transaction else "off"
    assert script(running, WHERE).splitlines() == [
        f"default {ports[0]} off {ports[2]}",
        f"db2 {ports[1]} {read_only} {ports[2]}",
    ]
    past = script(running, WHERE, **{DIRECT: "1"}).splitlines()
    assert past == [f"default {ports[0]} off {ports[0]}", f"db2 {ports[1]} on {ports[1]}"]


READ_YOUR_WRITES = """
from django.db import connection
from django.http import HttpResponse
from django.test import Client, override_settings
import tiny.urls
from django.urls import path
from outgrow.databases.cluster import clusters
from tiny.rows.models import Note

def count(request):
    return HttpResponse(str(sum(1 for _ in Note.objects.iterator(chunk_size=1))))

tiny.urls.urlpatterns.append(path("count", count))
cluster = clusters()["default"]
missed = 0
for number in range(20):
    client = Client(HTTP_HOST="tiny.example.org")
    before = int(client.get("/count").content)
    client.post("/write?text=again")
    missed += int(client.get("/count").content) < before + 1
print(missed, cluster.reads["db2"] > 0)
"""


def test_who_wrote_reads_it_and_replicas_serve(running: Run) -> None:
    assert script(running, READ_YOUR_WRITES) == "0 True\n"


ASKED = """
from django.test import Client
import tiny.urls
from django.http import HttpResponse
from django.urls import path
from outgrow.databases.cluster import clusters
from tiny.rows.models import Note

tiny.urls.urlpatterns.append(path("count", lambda _: HttpResponse(str(Note.objects.count()))))
cluster, asked = clusters()["default"], []
ask = cluster.ask
cluster.ask = lambda connection: (asked.append(connection.alias), ask(connection))[1]
client = Client(HTTP_HOST="tiny.example.org")
client.post("/write?text=asked")
while not cluster.reads["db2"]:
    client.get("/count")
before = len(asked)
for _ in range(3):
    client.get("/count")
print(len(asked) - before >= 3)
"""


@pytest.mark.parametrize("running", ["transaction"], indirect=True)
def test_what_was_seen_over_a_connection_holds_for_no_other_session(running: Run) -> None:
    """Where a session is one client's, it does: it ends with its server."""
    assert script(running, ASKED) == "True\n"


IN_A_TRANSACTION = """
import threading
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import connections, transaction
from tiny.rows.models import Note

together, saved = threading.Barrier(3), []

def save():
    with transaction.atomic():
        Note.objects.create(text="open")
        together.wait(60)
        saved.append(default_storage.save("notes/x.txt", ContentFile(b"x")))
    connections.close_all()

threads = [threading.Thread(target=save) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(saved), all(default_storage.open(name).read() == b"x" for name in saved))
"""


def test_transactions_that_have_every_connection_still_save_files(running: Run) -> None:
    """The catalogue writes over another connection meanwhile; by transaction a pool has three."""
    assert script(running, IN_A_TRANSACTION) == "3 True\n"


MANY = """
import threading
from django.db import OperationalError, connections
from tiny.rows.models import Note

def ask():
    try:
        Note.objects.filter(text="none").count()
        with connections["db2"].cursor() as cursor:
            cursor.execute("SELECT pg_sleep(0.01)")
        return True
    except OperationalError:  # on a slow machine it may wait for too long
        connections.close_all()
        return False

def work():
    for _ in range(5):
        while not ask():
            pass
    connections.close_all()

threads = [threading.Thread(target=work) for _ in range(24)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""

BACKENDS = """
from django.db import connections
for alias in ("default", "db2"):
    with connections[alias].cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND usename = current_user"
        )
        print(*cursor.fetchone())
"""


def test_many_clients_share_what_the_sums_say(running: Run) -> None:
    """24 threads at once, and the servers never had more than was computed for them."""
    site = running.local.site
    assert script(running, MANY) == ""
    # One is that of whoever counts, past the pooler.
    counts = [int(line) - 1 for line in script(running, BACKENDS, **{DIRECT: "1"}).splitlines()]
    most = [connections(site, role) - SPARE for role in ("primary", "replica")]
    assert [count <= limit for count, limit in zip(counts, most, strict=True)] == [True, True], (
        counts,
        most,
    )
    # All of its pool was lent, so the replica's limit was met.
    assert counts[1] >= 3
    assert most[1] == (3 if site.pooler.by_transaction else pool(site)) < 24


def test_a_pooler_that_is_killed_and_comes_back(running: Run) -> None:
    local = running.local
    assert works(running, "before")
    local.hold("pool1")
    local.process("pool1").kill()
    with pytest.raises(urllib.error.HTTPError) as caught:
        write(running, "lost")
    caught.value.close()
    assert caught.value.code == 500
    local.release("pool1")
    local.wait_ready("pool1", 60)
    wait_until(lambda: works(running, "after"), "the site has not recovered")
    assert "before" in notes(running, "default")


def test_a_primary_that_is_killed_is_found_again(running: Run) -> None:
    local = running.local
    local.process("db1").kill()
    wait_until(lambda: works(running, "again-after"), "the site has not recovered")


def test_a_reload_reads_its_files_anew(running: Run) -> None:
    local = running.local
    reload = local.process("pool1").command.reload
    assert reload is not None
    os.kill(local.process("pool1").pid or 0, reload.signal)
    wait_until(lambda: works(running, "reloaded"), "the site has not recovered")
    assert running.said("pool1", "SIGHUP") or running.said("pool1", "re-reading")


# --- one on each server


@pytest.fixture(scope="module")
def each() -> Iterator[Run]:
    """Two application servers, each with a pooler of its own."""
    with server_folder("outgrow-pooler-") as folder:
        path = tiny_site(folder, database="postgresql")
        content = tomllib.loads(path.read_text())
        content["servers"]["app1"]["roles"].append("pooler")
        content["servers"]["app2"]["roles"].append("pooler")
        content["pooler"] = {"size": 3}
        [file] = toml.render(parse(content, path.parent))
        path.write_text(file.content)
        yield from run_of(path, folder)


def serves(run: Run, name: str) -> bool:
    address = run.local.address(f"{name}:app")
    return is_well(lambda: get(f"{address}/read?alias=default"))


def test_a_pooler_that_dies_takes_the_requests_of_its_own_server_alone(each: Run) -> None:
    local = each.local
    assert serves(each, "app1")
    assert serves(each, "app2")
    local.hold("app2:pooler")
    local.process("app2:pooler").kill()
    wait_until(lambda: not serves(each, "app2"), "it does not go through its own pooler")
    assert all(serves(each, "app1") for _ in range(20))
    local.release("app2:pooler")
    local.wait_ready("app2:pooler", 60)
    wait_until(lambda: serves(each, "app2"), "it has not recovered")
