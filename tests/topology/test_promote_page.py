"""What docs/howto/promote.md says is done by hand is done: its commands, on real PostgreSQLs."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.postgres import binary
from tests.live.processes import as_unprivileged, wait_until
from tests.live.replicas import OWNER, Postgres, PostgresCluster, running_cluster
from tests.test_docs import ROOT, blocks

PAGE = ROOT / "docs/howto/promote.md"
PROGRAMS = "/usr/lib/postgresql/15/bin/"
DATA = "/var/lib/postgresql/15/main"

pytestmark = pytest.mark.timeout(300)


class Servers:
    """The page's three servers, each of which is one of this machine."""

    def __init__(self, cluster: PostgresCluster) -> None:
        self.cluster = cluster
        self.by_name = dict(zip(("db1", "db2", "db3"), cluster.servers, strict=True))

    def do(self, head: str) -> list[str]:
        """Run all blocks with this first line, in their order; what each command printed."""
        said = []
        found = [one.values[0].partition("\n") for one in blocks("sh", [PAGE])]  # type: ignore[attr-defined]
        bodies = [body for first, _, body in found if first == f"# {head}"]
        assert bodies, head
        for name in re.findall(r"db\d", head.partition(", whose")[0]):
            said += [self._run(self.by_name[name], body) for body in bodies]
        return said

    def _run(self, server: Postgres, body: str) -> str:
        """As on a server of its own: the same words, with our places, ports and account."""
        text = "\n".join(line for line in body.splitlines() if "systemctl" not in line)
        if "systemctl disable" in body:
            server.stop()
        said = self._shell(self._translated(server, text)) if text.strip() else ""
        if "systemctl enable" in body:
            server.start()
        return said

    def _translated(self, server: Postgres, text: str) -> str:
        psql = f"{binary('psql')} -At -h 127.0.0.1 -p {server.port} -U {OWNER} -d postgres"
        source = f"host=127.0.0.1 port={self.by_name['db2'].port}"
        places = {
            "sudo -u postgres ": "",
            "sudo ": "",
            "/etc/postgresql/15/main/postgresql.conf": f"{server.data}/postgresql.conf",
            PROGRAMS: f"{Path(str(binary('postgres'))).parent}/",
            DATA: str(server.data),
            "host=10.0.0.22": source,
            "user=replicator": f"user={OWNER}",
            "user=postgres": f"user={OWNER}",
        }
        for theirs, ours in places.items():
            text = text.replace(theirs, ours)
        return re.sub(r"^psql ", f"{psql} ", text, flags=re.MULTILINE)

    def _shell(self, text: str) -> str:
        done = subprocess.run(
            ["sh", "-c", text],
            cwd=self.cluster.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            **as_unprivileged(),
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout

    def follow(self, *names: str) -> None:
        new = self.by_name["db2"]
        new.execute("INSERT INTO note VALUES ('after')")
        for name in names:
            server = self.by_name[name]
            wait_until(
                lambda server=server: rows(server)[-1:] == ["after"],
                f"{name} does not follow",
                seconds=60,
            )
            assert server.in_recovery
            wait_until(
                lambda name=name: bool(
                    new.execute(
                        "SELECT 1 FROM pg_stat_replication JOIN pg_replication_slots"
                        " ON active_pid = pid WHERE application_name = %s AND slot_name = %s",
                        name,
                        name,
                    )
                ),
                f"{name} does not use its slot",
                seconds=60,
            )


def rows(server: Postgres) -> list[str]:
    return [text for (text,) in server.execute("SELECT text FROM note")]


@pytest.fixture
def servers() -> Iterator[Servers]:
    """With what `outgrow render` writes for them, as far as it matters here."""
    with running_cluster() as cluster:
        for server in cluster.servers:
            server.execute("ALTER SYSTEM SET wal_log_hints = on")
            server.restart()
        for standby in cluster.standbys:
            cluster.wait_streaming(standby)
        cluster.primary.execute("CREATE TABLE note (text text)")
        cluster.primary.execute("INSERT INTO note VALUES ('before')")
        cluster.wait_caught_up()
        yield Servers(cluster)


def promote(servers: Servers) -> None:
    servers.do("db2")
    assert not servers.by_name["db2"].in_recovery
    servers.do("db3")


def test_a_primary_that_is_stopped_loses_nothing_and_its_data_are_rewound(servers: Servers) -> None:
    servers.by_name["db1"].execute("INSERT INTO note VALUES ('last')")
    _stopped, ended = servers.do("db1")
    assert re.search(r"cluster state: +shut down$", ended, re.MULTILINE)
    found = re.search(r"Latest checkpoint location: +(\w+)/(\w+)$", ended, re.MULTILINE)
    assert found is not None
    end = (int(found[1], 16) << 32) + int(found[2], 16)
    for line in servers.do("db2, db3"):
        count, receiving = line.strip().split("|")
        assert int(count) > end
        assert receiving == "0"
    promote(servers)
    servers.do("db1, whose data are there")
    servers.follow("db1", "db3")
    assert rows(servers.by_name["db1"]) == ["before", "last", "after"]


def test_what_only_a_killed_primary_had_is_rewound(servers: Servers) -> None:
    old = servers.by_name["db1"]
    for name in ("db2", "db3"):
        servers.by_name[name].stop()
    old.execute("INSERT INTO note VALUES ('nobody else has it')")
    old.kill()
    for name in ("db2", "db3"):
        servers.by_name[name].start()
    promote(servers)
    servers.do("db1, whose data are there")
    servers.follow("db1", "db3")
    assert rows(old) == ["before", "after"]


def test_a_primary_whose_disk_is_lost_gets_a_copy(servers: Servers) -> None:
    old = servers.by_name["db1"]
    old.kill()
    shutil.rmtree(old.data / "base")
    promote(servers)
    servers.do("db1, whose data are gone")
    servers.follow("db1", "db3")
    assert rows(old) == ["before", "after"]


def test_every_block_of_the_page_is_run() -> None:
    heads = {one.values[0].partition("\n")[0] for one in blocks("sh", [PAGE])}  # type: ignore[attr-defined]
    assert heads == {
        "# db1",
        "# db2",
        "# db3",
        "# db2, db3",
        "# db1, whose data are there",
        "# db1, whose data are gone",
    }
    for one in blocks("sh", [PAGE]):
        for line in one.values[0].splitlines():  # type: ignore[attr-defined]
            assert shlex.split(line, comments=True) is not None
