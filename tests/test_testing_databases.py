"""Replicas in the tests of sites: with Django's test cases, and with pytest."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import unittest
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import connection, connections, router, transaction
from django.test import (
    Client,
    LiveServerTestCase,
    SimpleTestCase,
    TestCase,
    TransactionTestCase,
    override_settings,
)

from outgrow.databases import using_replica
from outgrow.databases.cluster import ALONE, MIRRORED, Cluster, clusters
from outgrow.errors import ConfigurationError, WriteOnReplica
from outgrow.testing import assert_routed, lagging, replicas
from tests.databases.conftest import (  # noqa: F401 - fixtures
    cluster,
    mariadb_site,
    migrated_mariadb,
    migrated_postgres,
    postgres_site,
    sqlite_databases,
    sqlite_template,
)
from tests.databases.sites import MIDDLEWARE, ROUTER
from tests.live.replicas import READER

MIRROR = {
    "ENGINE": "django.db.backends.sqlite3",
    "NAME": ":memory:",
    "TEST": {"MIRROR": "default"},
}
Site = Callable[..., AbstractContextManager[Cluster]]
OPTIONS = {"REPLICATION": {"default": {"replicas": ["replica1", "replica2"]}}}


@pytest.fixture
def mirrored(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """A site as Django's test runner makes it: its database is in memory, with two mirrors."""
    configured = connections.configure_settings(
        {"default": {}, "replica1": MIRROR, "replica2": MIRROR}
    )
    name = connections["default"].settings_dict["NAME"]
    settings = {
        "OUTGROW": OPTIONS,
        "DATABASE_ROUTERS": [ROUTER],
        "MIDDLEWARE": [MIDDLEWARE, *_middleware()],
        "ROOT_URLCONF": "tests.databases.urls",
        "ALLOWED_HOSTS": ["*"],
    }
    for alias in ("replica1", "replica2"):
        connections.settings[alias] = {**configured[alias], "NAME": name}
    try:
        with override_settings(**settings), django_db_blocker.unblock():
            yield
    finally:
        for alias in ("replica1", "replica2"):
            del connections.settings[alias]
            if hasattr(connections._connections, alias):
                connections[alias].close()
                del connections[alias]


def _middleware() -> list[str]:
    from tests import settings

    return settings.MIDDLEWARE


def run(case: type[unittest.TestCase]) -> unittest.TestResult:
    """Run a class of tests as a runner does."""
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    assert result.testsRun
    return result


def passes(case: type[unittest.TestCase]) -> None:
    result = run(case)
    assert not result.errors, result.errors[0][1]
    assert not result.failures, result.failures[0][1]


def listing(client: Any = None) -> Any:
    return (client or Client()).get("/list/").json()


# --- replicas() in a TestCase, whose `databases` are {"default"} where it says nothing else


class Shared(TestCase):
    __test__ = False  # pytest leaves it to the tests below, which run it on a site

    @classmethod
    def setUpTestData(cls) -> None:
        Group.objects.create(name="of the class")

    def test_a_request_reads_a_replica_which_sees_the_tests_transaction(self) -> None:
        Group.objects.create(name="new")
        found = listing(self.client)
        assert found["names"] == ["new", "of the class"]
        assert found["db"] in {"replica1", "replica2"}

    def test_state_and_using(self) -> None:
        group = Group.objects.using("replica1").get()
        assert group._state.db == "replica1"
        with using_replica():
            assert Group.objects.get()._state.db.startswith("replica")
        assert Group.objects.get()._state.db == "default"

    def test_a_write_on_a_replica_is_refused_and_breaks_nothing(self) -> None:
        for write in (
            lambda: Group.objects.using("replica1").create(name="x"),
            lambda: Group.objects.using("replica1").update(name="x"),
            lambda: Group(name="x").save(using="replica1"),
        ):
            with self.assertRaisesMessage(WriteOnReplica, "test_testing_databases.py"):
                write()
        assert Group.objects.get().name == "of the class"

    def test_a_write_pins_the_request(self) -> None:
        found = self.client.get("/write/?name=a").json()
        assert found == {"names": ["a", "of the class"], "db": "default"}

    def test_who_wrote_is_served_by_a_replica_that_has_it(self) -> None:
        self.client.post("/write/?name=a")
        assert self.client.cookies
        with assert_routed(*clusters()["default"].by_alias):
            assert listing(self.client)["names"] == ["a", "of the class"]

    def test_a_transaction_of_the_site_is_read_from_the_primary(self) -> None:
        with using_replica():
            with transaction.atomic():
                assert router.db_for_read(Group) == "default"
            assert router.db_for_read(Group) != "default"

    def test_a_transaction_on_a_replica_commits_nothing(self: Any) -> None:
        with pytest.raises(KeyError), transaction.atomic(using="replica1"):
            Group.objects.create(name="stays")
            with transaction.atomic(using="replica1"):
                assert Group.objects.using("replica1").count() == 2
            raise KeyError
        assert Group.objects.filter(name="stays").exists()
        # In a TestCase that of the test is still open, else none is.
        assert connection.in_atomic_block == isinstance(self, TestCase)

    def test_each_alias_has_its_own_count_of_queries(self) -> None:
        with self.assertNumQueries(1, using="replica1"), self.assertNumQueries(0):
            list(Group.objects.using("replica1").iterator())

    def test_closing_a_replica_closes_nothing(self) -> None:
        connections["replica1"].close()
        assert Group.objects.count() == 1

    def test_requests_may_end(self) -> None:
        for _ in range(2):
            assert listing(self.client)["names"] == ["of the class"]


def test_a_test_case_sees_its_transaction_on_the_replicas(mirrored: None) -> None:
    passes(replicas()(Shared))
    assert not Group.objects.exists()


@pytest.mark.parametrize("servers", ["postgres_site", "mariadb_site"])
def test_real_servers_too(servers: str, mirrored: None, request: pytest.FixtureRequest) -> None:
    class Case(Shared):
        pass

    with request.getfixturevalue(servers)():
        passes(replicas()(Case))


def test_a_test_case_without_databases_stays_without(mirrored: None) -> None:
    @replicas()
    class Case(SimpleTestCase):
        def test(self) -> None:
            for alias in ("default", "replica1"):
                with self.assertRaisesMessage(AssertionError, "not allowed"):
                    list(Group.objects.using(alias).all())

    passes(Case)


class SharedTransaction(TransactionTestCase):
    __test__ = False  # pytest leaves it to the tests below, which run it on a site
    test_request = Shared.test_state_and_using
    test_refused = Shared.test_a_write_on_a_replica_is_refused_and_breaks_nothing
    test_transaction = Shared.test_a_transaction_on_a_replica_commits_nothing

    def setUp(self) -> None:
        Group.objects.create(name="of the class")


def test_a_transaction_test_case_too(mirrored: None) -> None:
    passes(replicas()(SharedTransaction))


def test_only_these_replicas_serve(mirrored: None) -> None:
    class Case(TestCase):
        def test(self) -> None:
            for _ in range(20):
                with replicas("replica2"), assert_routed("replica2"):
                    listing()

    passes(Case)


def test_everything_is_as_before_when_a_test_fails(mirrored: None) -> None:
    before = connections["replica1"], type(connections), clusters()

    @replicas()
    class Case(TestCase):
        def test_failing(self) -> None:
            assert connections["replica1"] is not before[0]
            assert clusters()["default"].routing == MIRRORED
            raise KeyError

        def test_forbidden_behind_it(self) -> None:
            raise KeyError

    assert len(run(Case).errors) == 2
    assert before == (connections["replica1"], type(connections), clusters())
    assert clusters()["default"].routing == ALONE


def test_behind_the_block_django_refuses_the_alias_again(mirrored: None) -> None:
    class Case(TestCase):
        def test(self) -> None:
            with replicas():
                list(Group.objects.using("replica1").all())
            with self.assertRaisesMessage(AssertionError, "not allowed"):
                list(Group.objects.using("replica1").all())

    passes(Case)


def test_settings_that_change_within_the_block(mirrored: None) -> None:
    class Case(TestCase):
        def test(self) -> None:
            with replicas():
                options = {"REPLICATION": {"default": {"replicas": ["replica2"]}}}
                with override_settings(OUTGROW=options), assert_routed("replica2"):
                    listing()
                assert set(clusters()) == {"default", "replica1", "replica2"}

    passes(Case)


def test_a_function_and_a_coroutine_are_decorated(mirrored: None) -> None:
    class Case(TestCase):
        @replicas()
        def test(self) -> None:
            assert listing()["db"] != "default"

        @replicas()
        async def test_async(self) -> None:
            for path in ("/list/", "/async/list/"):
                found = await self.async_client.get(path)
                assert found.json()["db"] != "default"

        def test_without(self) -> None:
            assert listing()["db"] == "default"

    passes(Case)


def test_a_live_server_has_the_replicas_too(mirrored: None) -> None:
    import json
    import urllib.request

    @replicas()
    class Case(LiveServerTestCase):
        def test(self) -> None:
            Group.objects.create(name="a")
            with urllib.request.urlopen(f"{self.live_server_url}/list/", timeout=10) as answer:
                found = json.load(answer)
            assert found["names"] == ["a"]
            assert found["db"] in {"replica1", "replica2"}

    passes(Case)


def test_mistakes_are_told(mirrored: None) -> None:
    with pytest.raises(ConfigurationError, match="There are: replica1, replica2"):
        replicas("replica3").__enter__()
    with pytest.raises(ConfigurationError, match="no such alias"), assert_routed("replica3"):
        pass
    with pytest.raises(TypeError, match="brackets"):
        replicas(test_mistakes_are_told)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="usefixtures"):
        replicas()(int)


# --- in the style of pytest


def test_the_fixture(mirrored: None, replicas: None) -> None:
    Group.objects.create(name="a")
    with assert_routed("replica1", "replica2"):
        assert listing()["names"] == ["a"]


@pytest.mark.django_db(transaction=True)
def test_the_fixture_with_transactions(mirrored: None, replicas: None) -> None:
    assert not connection.in_atomic_block
    Group.objects.create(name="a")
    with assert_routed("replica1", "replica2"):
        assert listing()["names"] == ["a"]


def test_importing_it_needs_neither_django_nor_pytest() -> None:
    code = "import sys, outgrow.testing; print({'django', 'pytest'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "set()\n", done.stderr


# --- assert_routed


def test_what_went_elsewhere_is_told_with_the_line(mirrored: None, replicas: None) -> None:
    with pytest.raises(AssertionError) as failed, assert_routed("replica1", "replica2"):
        listing()
        Client().post("/list/")
    told = str(failed.value)
    assert told.startswith("1 of 2 reads were not served by 'replica1' or 'replica2':")
    assert 'default: SELECT "auth_group"."name"' in told
    assert "databases/urls.py:" in told
    assert "in names" in told


def test_a_block_that_reads_nothing_fails(mirrored: None, replicas: None) -> None:
    with pytest.raises(AssertionError, match="Nothing was read"), assert_routed("replica1"):
        Group.objects.create(name="a")


def test_the_error_of_the_block_comes_through(mirrored: None, replicas: None) -> None:
    with pytest.raises(KeyError), assert_routed("replica1"):
        raise KeyError


def test_without_replicas_the_primary_serves(mirrored: None, db: None) -> None:
    with assert_routed("default"):
        listing()


# --- lagging


class Lagging(TransactionTestCase):
    __test__ = False  # pytest leaves it to the tests below, which run it on a site

    def test_who_wrote_sees_it_and_others_see_what_was_before(self) -> None:
        Group.objects.create(name="old")
        writer, reader = Client(), Client()
        with lagging("replica1"):
            writer.post("/write/?name=new")
            with assert_routed("default"):
                assert listing(writer)["names"] == ["new", "old"]
            with assert_routed("replica1"):
                assert listing(reader)["names"] == ["old"]
            with pytest.raises(WriteOnReplica):
                Group.objects.using("replica1").create(name="x")
        with replicas(), assert_routed("replica1", "replica2"):
            assert listing(reader)["names"] == ["new", "old"]

    def test_without_tracking_he_would_not_see_it(self) -> None:
        writer = Client()
        with lagging():
            writer.post("/write/?name=new")
            writer.cookies.clear()
            assert listing(writer)["names"] == []

    def test_within_replicas_and_one_in_another(self) -> None:
        with replicas():
            with lagging("replica1"):
                Group.objects.create(name="a")
                assert Group.objects.using("replica2").count() == 1
                with lagging("replica2"):
                    Group.objects.create(name="b")
                    counts = [Group.objects.using(f"replica{one}").count() for one in (1, 2)]
                    assert counts == [0, 1]
            assert Group.objects.using("replica1").count() == 2

    def test_in_another_thread(self) -> None:
        with lagging("replica1"):
            Group.objects.create(name="a")
            found: list[int] = []

            def read() -> None:
                found.append(Group.objects.using("replica1").count())

            thread = threading.Thread(target=read)
            thread.start()
            thread.join()
            assert found == [0]

    def test_after_a_failure(self) -> None:
        with pytest.raises(KeyError), lagging("replica1"):
            raise KeyError
        with replicas():
            Group.objects.create(name="a")
            assert Group.objects.using("replica1").count() == 1


def test_lagging_with_a_database_in_memory(mirrored: None) -> None:
    passes(Lagging)


def test_lagging_with_a_file(cluster: Cluster) -> None:  # noqa: F811
    Lagging("test_who_wrote_sees_it_and_others_see_what_was_before").debug()


def test_lagging_in_a_test_case_is_refused(mirrored: None, db: None) -> None:
    with pytest.raises(ConfigurationError, match="TransactionTestCase"), lagging("replica1"):
        pass


def test_lagging_on_postgresql(postgres_site: Site, postgres_cluster: Any) -> None:  # noqa: F811
    functions = "pg_wal_replay_pause(), pg_wal_replay_resume()"
    with postgres_site():
        with pytest.raises(ConfigurationError, match="GRANT EXECUTE"), lagging("replica1"):
            pass
        postgres_cluster.primary.execute(f"GRANT EXECUTE ON FUNCTION {functions} TO {READER}")
        Group.objects.create(name="old")
        writer = Client()
        with lagging("replica1"):
            writer.post("/write/?name=new")
            with assert_routed("default"):
                assert listing(writer)["names"] == ["new", "old"]
            with assert_routed("replica1"):
                assert listing()["names"] == ["old"]
        states = [
            one.value("SELECT pg_get_wal_replay_pause_state()") for one in postgres_cluster.standbys
        ]
        assert states == ["not paused"] * 2
        postgres_cluster.primary.execute(f"REVOKE EXECUTE ON FUNCTION {functions} FROM {READER}")


def test_a_server_that_replays_nothing_cannot_lag(
    postgres_site: Site,  # noqa: F811
    postgres_cluster: Any,
) -> None:
    with postgres_site(fresh=False):
        postgres_cluster.promote(postgres_cluster.standbys[0])
        with pytest.raises(ConfigurationError, match="replays nothing"), lagging("replica1"):
            pass


# --- the documentation


def test_the_snippets_of_the_documentation_work(
    mirrored: None, request: pytest.FixtureRequest
) -> None:
    names = snippets()
    passes(names["Pages"])
    passes(names["Behind"])
    request.getfixturevalue("replicas")
    names["test_the_list_is_read_from_a_replica"](Client(), None)


def snippets() -> dict[str, Any]:
    """What the page's section on replicas defines."""
    page = (Path(__file__).parent.parent / "docs/howto/testing.md").read_text()
    names: dict[str, Any] = {"__name__": "documentation"}
    for block in re.findall(
        r"^```python\n(.*?)^```$", page.partition("## Replicas")[2], re.MULTILINE | re.DOTALL
    ):
        exec(block, names)
    return names
