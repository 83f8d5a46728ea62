"""What servers say of themselves: real ones, restarted, crashed, frozen and promoted."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager, nullcontext, suppress

import pytest
from django.db import Error, OperationalError, connections

from outgrow.databases.position import Count, DomainGtids, GtidSet, Lsn
from outgrow.databases.probe import Sighting, look, wait
from tests.live.databases import forget, installed
from tests.live.processes import wait_until
from tests.raw import takes


def at(alias):
    return look(connections[alias])


def again(alias):
    """Look on a new connection: the old one may have died."""
    forget(alias)
    return at(alias)


@contextmanager
def later(seconds, action):
    """Do it in another thread, so many seconds from now; it is done behind the block."""
    thread = threading.Timer(seconds, action)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def no_sleep(_seconds):
    raise AssertionError("this server waits by itself")


class TestPostgres:
    @pytest.fixture
    def cluster(self, postgres_aliases):
        postgres_aliases.primary.execute("CREATE TABLE IF NOT EXISTS probed (id int)")
        postgres_aliases.wait_caught_up()
        return postgres_aliases

    @staticmethod
    def write(server):
        server.execute("INSERT INTO probed VALUES (1)")

    def settle(self, cluster):
        """Let the standbys have all that is written up to now.

        Reading writes too: who prunes a page leaves a record that nobody flushes, and the
        standbys get it with the next commit, or when the WAL writer wakes up.
        """
        self.write(cluster.primary)
        cluster.wait_caught_up()

    def test_one_round_trip(self, cluster):
        for server in cluster.servers:
            connections[server.name].ensure_connection()
            with server.proxy.counted() as count:
                for _ in range(8):  # also where the driver would begin to prepare it
                    at(server.name)
            assert (count.connections, count.round_trips) == (0, 8)

    def test_nobody_counts_it(self, cluster):
        def refuse(*_args):
            raise AssertionError("a query of the site")

        with connections["primary"].execute_wrapper(refuse):
            at("primary")
            wait(connections["primary"], Lsn(1, 0), 0)

    def test_who_writes_and_how_far(self, cluster):
        written = at("primary")
        assert written.writable
        assert isinstance(written.position, Lsn)
        self.settle(cluster)
        for alias in ("replica1", "replica2"):
            seen = at(alias)
            assert not seen.writable
            assert written.position.reached_by(seen.position) is True

    def test_what_is_not_replayed_is_not_reached(self, cluster):
        first = cluster.standbys[0]
        first.pause_replay()
        self.write(cluster.primary)
        written = at("primary").position
        self.write(cluster.primary)
        cluster.wait_caught_up(cluster.standbys[1])
        assert written.reached_by(at("replica1").position) is False
        assert written.reached_by(at("replica2").position) is True
        first.resume_replay()
        cluster.wait_caught_up(first)
        assert written.reached_by(at("replica1").position) is True

    def test_a_new_segment_leaves_no_standby_behind(self, cluster):
        at("primary")
        with cluster.primary.connect() as connection:
            ask = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"
            connection.execute(ask)
            # The primary then stands behind the header of a page without any record.
            connection.execute("SELECT pg_switch_wal()")
            raw = connection.execute(ask).fetchone()[0]
            written = at("primary").position
        assert raw - written.value == 40
        cluster.wait_caught_up()
        assert written == at("replica1").position

    def test_the_border_of_a_page_leaves_no_standby_behind(self, cluster):
        page = 8192
        at("primary")
        with cluster.primary.connect() as connection:

            def ask(sql, *parameters):
                return connection.execute(sql, parameters or None).fetchone()[0]

            def insert():
                return ask("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint")

            def commit(size):
                # The commit flushes it, so that the standbys get it.
                ask("SELECT pg_logical_emit_message(true, '', repeat('x', %s))", size)

            for _ in range(200):
                before = insert()
                commit(1000)
                after = insert()
                more, left = after - before - 1000, page - after % page
                # Within one page no header is in between; a short message has a short header.
                if before // page == after // page and left - more > 300:
                    commit(left - more)
                    if insert() % page == 24:
                        break
            else:
                raise AssertionError("no record ended at a page's border")
            written = at("primary").position
            assert insert() - written.value == 24
        cluster.wait_caught_up()
        assert written == at("replica1").position

    def test_an_ordinary_user_may_look(self, cluster):
        for user in ("reader", "plain"):
            entries = {
                f"{user}-{key}": value for key, value in cluster.databases(user=user).items()
            }
            with installed(entries):
                written = at(f"{user}-primary")
                assert written.incarnation == at("primary").incarnation
                self.settle(cluster)
                seen = at(f"{user}-replica1")
                assert written.position.reached_by(seen.position) is True
                assert seen.incarnation == at("replica1").incarnation

    def test_the_zone_of_a_session_changes_nothing(self, cluster):
        before = at("replica1").incarnation
        with connections["replica1"].cursor() as cursor:
            cursor.execute("SET TimeZone = 'Asia/Kathmandu'; SET DateStyle = 'German'")
        assert at("replica1").incarnation == before

    def test_servers_have_other_incarnations(self, cluster):
        assert len({at(server.name).incarnation for server in cluster.servers}) == 3

    @pytest.mark.parametrize("name", ["primary", "replica1"])
    @pytest.mark.parametrize("how", ["restart", "kill", "crash_backend"])
    def test_another_incarnation(self, cluster, name, how):
        server = next(server for server in cluster.servers if server.name == name)
        before = at(name)
        assert again(name).incarnation == before.incarnation
        pid = server.pid
        getattr(server, how)()
        if how == "kill":
            server.start()
        assert (server.pid == pid) is (how == "crash_backend")
        after = again(name)
        assert after.incarnation != before.incarnation
        assert again(name).incarnation == after.incarnation

    def test_a_crash_of_the_primary_leaves_the_standbys_what_they_are(self, cluster):
        before = at("replica1").incarnation
        cluster.primary.crash_backend()
        cluster.primary.restart()
        cluster.wait_streaming(cluster.standbys[0])
        assert again("replica1").incarnation == before

    def test_a_promotion_begins_what_can_not_be_compared(self, cluster):
        first, second = cluster.standbys
        old = at("primary").position
        before = at("replica1")
        cluster.primary.kill()
        cluster.promote(first)
        after = at("replica1")
        assert after.writable
        assert after.incarnation == before.incarnation
        assert after.position.timeline == old.timeline + 1
        assert old.reached_by(after.position) is None
        assert after.position.reached_by(at("replica2").position) is None

        # A standby that has gone along, and one that was made anew.
        cluster.follow(second, first)
        cluster.rebuild(cluster.primary, first)
        self.write(first)
        written = at("replica1").position
        self.write(first)
        for alias, server in (("replica2", second), ("primary", cluster.primary)):
            cluster.wait_caught_up(server, source=first)
            assert written.reached_by(again(alias).position) is True

    def test_behind_a_promotion_a_user_with_few_rights_compares_after_a_restartpoint(self, cluster):
        first, second = cluster.standbys
        cluster.primary.kill()
        cluster.promote(first)
        cluster.follow(second, first)
        self.write(first)
        cluster.wait_caught_up(second, source=first)
        plain = {"plain": second.database(user="plain")}
        with installed(plain):
            written = at("replica1").position
            assert written.reached_by(at("plain").position) is None
            # Who may see what the standby receives knows it at once.
            assert written.reached_by(at("replica2").position) is not None
            first.execute("CHECKPOINT")
            cluster.wait_caught_up(second, source=first)
            second.execute("CHECKPOINT")
            assert written.reached_by(at("plain").position) is True

    def test_waiting_ends_with_the_replay(self, cluster):
        first = cluster.standbys[0]
        first.pause_replay()
        self.write(cluster.primary)
        written = at("primary").position
        self.write(cluster.primary)
        replica = connections["replica1"]
        replica.ensure_connection()
        with takes(0.3, 10):
            assert wait(replica, written, 0.3) is False
        with later(0.3, first.resume_replay), takes(0.2, 30):
            assert wait(replica, written, 30) is True
        with first.proxy.counted() as count:
            assert wait(replica, written, 30, sleep=no_sleep) is True
        assert count.round_trips == 1

    def test_waiting_for_what_will_not_come(self, cluster):
        with takes(0, 10):
            here = at("primary").position
            beyond = Lsn(here.timeline, here.value + 1_000_000)
            assert wait(connections["primary"], beyond, 30) is False
            assert wait(connections["replica1"], Lsn(here.timeline + 7, 1), 30) is False
            assert wait(connections["replica1"], Count("other", 1), 30) is False
            assert wait(connections["replica1"], beyond, 0, sleep=no_sleep) is False

    def test_pauses_grow_up_to_a_limit(self, cluster):
        here = at("replica1").position
        now, pauses = [0.0], []

        def sleep(seconds):
            pauses.append(seconds)
            now[0] += seconds

        beyond = Lsn(here.timeline, here.value + 1_000_000_000)
        assert not wait(connections["replica1"], beyond, 1, sleep=sleep, clock=lambda: now[0])
        assert pauses[:6] == [0.002, 0.004, 0.008, 0.016, 0.032, 0.064]
        assert max(pauses) == 0.1
        assert sum(pauses) == pytest.approx(1)

    def test_a_dead_server_is_an_error(self, cluster):
        first = cluster.standbys[0]
        connections["replica1"].ensure_connection()
        first.kill()
        with takes(0, 5), pytest.raises(OperationalError) as error:
            at("replica1")
        assert type(error.value.__cause__).__module__.startswith("psycopg")
        with takes(0, 5), pytest.raises(OperationalError):
            again("replica1")
        with (
            takes(0, 5),
            pytest.raises(OperationalError),
            installed({"direct": first.database(direct=True)}),
        ):
            at("direct")

    @pytest.mark.parametrize("what", ["server", "network"])
    def test_a_frozen_server_lasts_as_long_as_its_caller_wants(self, cluster, what):
        first = cluster.standbys[0]
        connection = connections["replica1"]
        connection.ensure_connection()
        descriptor = connection.connection.fileno()
        (first if what == "server" else first.proxy).freeze()
        # libpq has no limit for reading: whoever wants one shuts the socket.
        with later(0.5, lambda: shut(descriptor)), takes(0.4, 10), pytest.raises(Error):
            look(connection)
        entry = first.database()
        entry["OPTIONS"]["connect_timeout"] = 2
        with installed({"late": entry}), takes(1, 15), pytest.raises(OperationalError):
            at("late")

    def test_a_standby_that_has_replayed_nothing_yet_has_no_position(self, cluster):
        # Restarted without its primary it has the restartpoint at least.
        cluster.primary.kill()
        cluster.standbys[0].restart()
        seen = again("replica1")
        assert not seen.writable
        assert seen.position is None or isinstance(seen.position, Lsn)


def shut(descriptor):
    with socket.socket(fileno=socket.dup(descriptor)) as duplicate, suppress(OSError):
        duplicate.shutdown(socket.SHUT_RDWR)


class TestMariaDB:
    @pytest.fixture
    def cluster(self, mariadb_aliases):
        mariadb_aliases.primary.execute("CREATE TABLE IF NOT EXISTS site.probed (id int)")
        mariadb_aliases.wait_caught_up()
        return mariadb_aliases

    @staticmethod
    def write(server, domain=0):
        connection = server.connect()
        with connection.cursor() as cursor:
            cursor.execute(f"SET SESSION gtid_domain_id = {domain}")
            cursor.execute("INSERT INTO site.probed VALUES (1)")
        connection.close()

    def test_one_round_trip(self, cluster):
        for server in cluster.servers:
            connections[server.name].ensure_connection()
            with server.proxy.counted() as count:
                for _ in range(3):
                    at(server.name)
            assert (count.connections, count.round_trips) == (0, 3)

    def test_nobody_counts_it(self, cluster):
        def refuse(*_args):
            raise AssertionError("a query of the site")

        # To open a connection Django asks something itself.
        connections["primary"].ensure_connection()
        with connections["primary"].execute_wrapper(refuse):
            position = at("primary").position
            wait(connections["primary"], position, 0)

    def test_who_writes_and_how_far(self, cluster):
        (replica,) = cluster.replicas
        written, seen = at("primary"), at("replica1")
        assert (written.writable, seen.writable) == (True, False)
        assert written.position.reached_by(seen.position) is True
        replica.pause_replay()
        self.write(cluster.primary)
        written = at("primary").position
        assert isinstance(written, DomainGtids)
        assert written.reached_by(at("replica1").position) is False
        replica.resume_replay()
        cluster.wait_caught_up()
        assert written.reached_by(at("replica1").position) is True

    def test_each_domain_counts(self, cluster):
        (replica,) = cluster.replicas
        replica.pause_replay()
        self.write(cluster.primary, domain=7)
        written = at("primary").position
        assert {domain for domain, _, _ in written.gtids} >= {0, 7}
        assert written.reached_by(at("replica1").position) is False
        assert wait(connections["replica1"], written, 0.1) is False
        replica.resume_replay()
        assert wait(connections["replica1"], written, 30) is True
        assert written.reached_by(at("replica1").position) is True

    def test_a_reader_may_look(self, cluster):
        entries = {f"r-{key}": value for key, value in cluster.databases(user="reader").items()}
        with installed(entries):
            assert at("r-primary") == at("primary")
            assert at("r-replica1") == at("replica1")

    @pytest.mark.parametrize("name", ["primary", "replica1"])
    @pytest.mark.parametrize("how", ["restart", "kill"])
    def test_another_incarnation(self, cluster, name, how):
        server = next(server for server in cluster.servers if server.name == name)
        before = at(name)
        # Its start is known to the second.
        wait_until(
            lambda: (
                int(server.value("SHOW GLOBAL STATUS LIKE 'Questions'") is not None)
                and int(server.execute("SHOW GLOBAL STATUS LIKE 'Uptime'")[0][1]) >= 1
            ),
            "it runs for a second",
        )
        assert again(name).incarnation == before.incarnation
        getattr(server, how)()
        if how == "kill":
            server.start()
        after = again(name)
        assert after.incarnation != before.incarnation
        assert after.writable == before.writable
        assert before.position.reached_by(after.position) is True

    def test_the_incarnation_does_not_move_with_the_clock(self, cluster):
        seen = set()
        deadline = time.monotonic() + 2.2
        while time.monotonic() < deadline:
            seen.add(at("primary").incarnation)
        assert len(seen) == 1

    def test_a_promotion_goes_on_counting(self, cluster):
        (replica,) = cluster.replicas
        self.write(cluster.primary)
        old = at("primary").position
        cluster.wait_caught_up()
        before = at("replica1")
        cluster.primary.kill()
        cluster.promote(replica)
        self.write(replica)
        after = at("replica1")
        assert after.writable
        assert after.incarnation == before.incarnation
        assert old.reached_by(after.position) is True
        assert after.position.reached_by(old) is False

    def test_without_gtids_there_is_no_position(self, cluster):
        (replica,) = cluster.replicas
        replica.execute("STOP SLAVE")
        replica.execute("SET GLOBAL gtid_slave_pos = ''")
        replica.diverged = True
        assert at("replica1").position is None
        assert wait(connections["replica1"], at("primary").position, 30) is False

    def test_a_primary_without_a_log_has_no_position(self, cluster, monkeypatch):
        command = cluster.primary.command
        words = [word for word in command() if not word.startswith(("--log-bin", "--log-slave"))]
        monkeypatch.setattr(cluster.primary, "command", lambda: words)
        cluster.primary.restart()
        try:
            seen = at("primary")
            assert (seen.writable, seen.position) == (True, None)
        finally:
            monkeypatch.undo()
            cluster.primary.restart()

    def test_waiting_ends_with_the_replay(self, cluster):
        (replica,) = cluster.replicas
        replica.pause_replay()
        self.write(cluster.primary)
        written = at("primary").position
        connection = connections["replica1"]
        connection.ensure_connection()
        with takes(0.3, 10):
            assert wait(connection, written, 0.3, sleep=no_sleep) is False
        with later(0.3, replica.resume_replay), takes(0.2, 30):
            assert wait(connection, written, 30, sleep=no_sleep) is True
        with replica.proxy.counted() as count:
            assert wait(connection, written, 30, sleep=no_sleep) is True
        assert count.round_trips == 1

    def test_waiting_is_shorter_than_the_limit_for_reading(self, cluster):
        (replica,) = cluster.replicas
        replica.pause_replay()
        self.write(cluster.primary)
        entry = replica.database()
        entry["OPTIONS"]["read_timeout"] = 1
        with installed({"quick": entry}), takes(2, 10):
            assert wait(connections["quick"], at("primary").position, 2) is False

    def test_a_dead_server_is_an_error(self, cluster):
        (replica,) = cluster.replicas
        connections["replica1"].ensure_connection()
        replica.kill()
        with takes(0, 5), pytest.raises(OperationalError):
            at("replica1")
        with takes(0, 5), pytest.raises(OperationalError):
            again("replica1")

    @pytest.mark.parametrize("what", ["server", "network"])
    def test_a_frozen_server_lasts_as_long_as_its_caller_wants(self, cluster, what):
        (replica,) = cluster.replicas
        entry = replica.database()
        entry["OPTIONS"].update(connect_timeout=1, read_timeout=1)
        with installed({"hasty": entry}):
            at("hasty")
            (replica if what == "server" else replica.proxy).freeze()
            with takes(0.9, 10), pytest.raises(OperationalError):
                at("hasty")
            with takes(0.9, 10), pytest.raises(OperationalError):
                again("hasty")


class _Answers:
    """A MySQL server's answers, for what no server of the tests can say."""

    vendor = "mysql"

    def __init__(self, *row):
        self.connection = self
        self.row = row
        self.asked = []

    def ensure_connection(self):
        pass

    @property
    def wrap_database_errors(self):
        return nullcontext()

    def create_cursor(self):
        return self

    def close(self):
        pass

    def get_server_info(self):
        return "8.4.5"

    def execute(self, sql):
        self.asked.append(sql)

    def fetchone(self):
        return self.row


class TestMySQL:
    SET = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5,\n4e11fa47-71ca-11e1-9e33-c80aa9429562:7"

    @pytest.mark.parametrize(
        ("read_only", "log_bin", "mode", "known"),
        [
            (0, 1, "ON", True),
            (1, 1, "ON", True),
            (1, 0, "ON", True),  # a replica notes what it has replayed without a log
            (0, 0, "ON", False),
            (0, 1, "OFF", False),
            (0, 1, "ON_PERMISSIVE", False),
        ],
    )
    def test_positions(self, read_only, log_bin, mode, known):
        server = _Answers(read_only, "here/3306/uuid/1", log_bin, mode, self.SET)
        seen = look(server)
        assert seen == Sighting(
            "here/3306/uuid/1", not read_only, GtidSet.of(self.SET) if known else None
        )

    def test_waiting(self):
        server = _Answers(1, "here", 1, "ON", self.SET)
        beyond = GtidSet.of("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-6")
        now = iter([0.0, 0.0, 0.7, 2.0])
        assert wait(server, beyond, 1, sleep=no_sleep, clock=lambda: next(now)) is False
        assert [sql for sql in server.asked if "WAIT" in sql] == [
            f"SELECT WAIT_FOR_EXECUTED_GTID_SET('{beyond.native}', 0.500000)",
            f"SELECT WAIT_FOR_EXECUTED_GTID_SET('{beyond.native}', 0.300000)",
        ]


class TestSQLite:
    @pytest.fixture
    def aliases(self, tmp_path, django_db_blocker):
        engine = "django.db.backends.sqlite3"
        entries = {
            "one": {"ENGINE": engine, "NAME": str(tmp_path / "one")},
            "same": {"ENGINE": engine, "NAME": str(tmp_path / "one")},
            "two": {"ENGINE": engine, "NAME": str(tmp_path / "two")},
            "memory": {"ENGINE": engine, "NAME": ":memory:"},
        }
        with django_db_blocker.unblock(), installed(entries):
            yield

    def test_one_file_is_never_behind(self, aliases):
        one, same, two = at("one"), at("same"), at("two")
        assert one == same
        assert one.writable
        assert one.position.reached_by(same.position) is True
        assert one.position.reached_by(two.position) is None
        assert wait(connections["same"], one.position, 30, sleep=no_sleep) is True
        assert wait(connections["two"], one.position, 30, sleep=no_sleep) is False

    def test_a_file_that_was_replaced_is_another(self, aliases, tmp_path):
        before = at("one")
        (tmp_path / "one").rename(tmp_path / "old")
        assert at("one") == Sighting("", writable=True, position=None)
        assert again("one").incarnation not in {"", before.incarnation}

    def test_read_only(self, aliases):
        connections["one"].cursor().execute("PRAGMA query_only = 1")
        assert not at("one").writable

    def test_memory_has_no_position(self, aliases):
        assert at("memory") == Sighting("", writable=True, position=None)


def test_other_vendors_are_not_asked():
    class Oracle:
        vendor = "oracle"

    assert look(Oracle()) == Sighting("", writable=True, position=None)
    assert wait(Oracle(), Count("x", 1), 30, sleep=no_sleep) is False
