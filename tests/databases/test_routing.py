"""Who serves what: methods, overrides, writes, transactions, instances. The traps by letter.

The letters are those of a list of traps that were found in other routers and in Django
itself; each is named at its test.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.db import connections, router, transaction
from django.test import AsyncClient, Client, override_settings

from outgrow.databases import is_read_only, using_primary, using_replica
from outgrow.databases.cluster import MIRRORED, Cluster, clusters
from outgrow.databases.route import PRIMARY, REPLICA, Route, active, current
from outgrow.errors import ConfigurationError, WriteInReadRequest, WriteOnReplica
from tests.databases.sites import ALIASES, ROUTER, aliases, logged, site

REPLICAS = {"replica1", "replica2"}


def db(client: Any, path: str, method: str = "get", **more: Any) -> str:
    return str(getattr(client, method)(path, **more).json()["db"])


# --- by method, view and block


def test_outside_of_a_request_the_primary_serves(cluster: Cluster) -> None:
    with logged() as log:
        list(Group.objects.all())
    assert log.served == {"default"}


@pytest.mark.parametrize("method", ["get", "head", "options", "trace"])
@pytest.mark.usefixtures("protocol")
def test_safe_methods_read_a_replica(cluster: Cluster, method: str) -> None:
    with logged() as log:
        getattr(Client(), method)("/list/")
    assert len(log.served) == 1
    assert log.served < REPLICAS


@pytest.mark.usefixtures("protocol")
def test_query_is_safe_too(cluster: Cluster) -> None:
    assert Client().generic("QUERY", "/list/").json()["db"] in REPLICAS


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
@pytest.mark.usefixtures("protocol")
def test_other_methods_read_the_primary(cluster: Cluster, method: str) -> None:
    assert db(Client(enforce_csrf_checks=False), "/list/", method) == "default"


def test_one_replica_serves_all_of_a_request(cluster: Cluster) -> None:
    for _ in range(10):
        with active(Route(REPLICA)), logged() as log:
            for _ in range(5):
                list(Group.objects.all())
        assert len(log.served) == 1


def test_replicas_are_drawn_by_weight(sqlite_databases: dict[str, dict[str, Any]]) -> None:
    with site(sqlite_databases, weights={"replica1": 3, "replica2": 1}):
        drawn = []
        for _ in range(400):
            with active(Route(REPLICA)):
                drawn.append(router.db_for_read(Group))
    # 300 are expected; 5 standard deviations are 43.
    assert 257 < drawn.count("replica1") < 343
    assert set(drawn) == REPLICAS


@pytest.mark.parametrize(
    "views",
    [
        {"list": "primary"},
        {"tests.databases.urls.listing": "primary"},
        {"/li*": "primary"},
        {"/list/": "primary"},
    ],
)
@pytest.mark.usefixtures("protocol")
def test_views_by_option(sqlite_databases: dict[str, dict[str, Any]], views: Any) -> None:
    with site(sqlite_databases, views=views):
        assert db(Client(), "/list/") == "default"
        assert db(Client(), "/atomic/") in REPLICAS


PROXY = {"header": "X-Route", "trusted_proxies": ["10.0.0.0/8"]}


@pytest.mark.usefixtures("protocol")
@pytest.mark.parametrize(
    ("views", "path", "says", "wanted"),
    [
        # The method, then the path, then the view's name, then the proxy, then the view itself.
        ({}, "/list/", "primary", {"default"}),
        ({}, "/list/", "Replica", REPLICAS),
        ({"/list/": "replica"}, "/list/", "primary", {"default"}),
        ({"list": "replica"}, "/list/", "primary", {"default"}),
        ({"list": "primary"}, "/list/", "replica", REPLICAS),
        ({"/list/": "primary", "list": "replica"}, "/list/", "", REPLICAS),
        ({"list": "primary"}, "/list/", "nonsense", {"default"}),
        ({}, "/primary/", "replica", {"default"}),
        ({"replica": "primary"}, "/replica/", "primary", REPLICAS),
    ],
)
def test_who_says_where_a_request_reads(
    sqlite_databases: dict[str, dict[str, Any]], views: Any, path: str, says: str, wanted: set[str]
) -> None:
    with site(sqlite_databases, views=views, **PROXY):
        for number in range(3):
            client = Client(REMOTE_ADDR=f"10.0.0.{number}")
            assert db(client, path, headers={"X-Route": says} if says else {}) in wanted


@pytest.mark.parametrize("address", ["192.168.0.1", "", "unix:"])
def test_a_header_of_somebody_else_says_nothing(
    sqlite_databases: dict[str, dict[str, Any]], address: str
) -> None:
    with site(sqlite_databases, **PROXY):
        headers = {"X-Route": "primary"}
        assert db(Client(), "/list/", headers=headers, REMOTE_ADDR=address) in REPLICAS


@pytest.mark.usefixtures("protocol")
def test_a_report_that_may_be_behind_says_so_to_who_wrote(cluster: Cluster) -> None:
    client = Client()
    assert "Outgrow-Stale" not in client.get("/old-report/").headers
    client.post("/write/?name=a")
    response = client.get("/old-report/")
    assert response.json()["db"] in REPLICAS
    assert response.headers["Outgrow-Stale"] == "default"


@pytest.mark.usefixtures("protocol")
def test_views_of_a_namespace_by_option(sqlite_databases: dict[str, dict[str, Any]]) -> None:
    with site(sqlite_databases, views={"spaced:list": "primary"}):
        assert db(Client(), "/spaced/list/") == "default"
        assert db(Client(), "/list/") in REPLICAS


@pytest.mark.usefixtures("protocol")
def test_a_class_of_views_by_option(sqlite_databases: dict[str, dict[str, Any]]) -> None:
    views = {"tests.databases.urls.Account": "replica"}
    with site(sqlite_databases, views=views):
        # The decorator is further in than the option.
        assert db(Client(), "/account/") == "default"


@pytest.mark.usefixtures("protocol")
def test_an_option_may_send_posts_to_replicas(sqlite_databases: dict[str, dict[str, Any]]) -> None:
    with site(sqlite_databases, views={"list": "replica"}):
        assert db(Client(), "/list/", "post") in REPLICAS


@pytest.mark.usefixtures("protocol")
def test_decorated_views(cluster: Cluster) -> None:
    assert db(Client(), "/primary/") == "default"
    assert db(Client(), "/account/") == "default"
    assert db(Client(), "/replica/", "post") in REPLICAS
    assert db(Client(), "/report/", "post") in REPLICAS


def test_the_innermost_block_wins(cluster: Cluster) -> None:
    """Trap (i): an inner block must give the outer one back."""
    with active(Route(REPLICA)):
        with using_primary():
            assert router.db_for_read(Group) == "default"
            with using_replica():
                assert router.db_for_read(Group) in REPLICAS
                with using_primary("default"):
                    assert router.db_for_read(Group) == "default"
                assert router.db_for_read(Group) in REPLICAS
            assert router.db_for_read(Group) == "default"
        assert router.db_for_read(Group) in REPLICAS


def test_a_block_that_raises_leaves_nothing_behind(cluster: Cluster) -> None:
    """Trap (i): django_replicated's decorator left its state when a view raised."""

    @using_primary
    def view() -> None:
        raise KeyError

    with active(Route(REPLICA)):
        for _ in range(2):
            with pytest.raises(KeyError):
                view()
            assert router.db_for_read(Group) in REPLICAS


def test_one_block_used_by_many_threads(cluster: Cluster) -> None:
    block, barrier, seen = using_primary(), threading.Barrier(4), []

    def use() -> None:
        with active(Route(REPLICA)):
            for _ in range(50):
                barrier.wait()
                with block:
                    seen.append(router.db_for_read(Group))
                seen.append(router.db_for_read(Group) in REPLICAS)
        for alias in ALIASES:
            connections[alias].close()

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 400
    assert set(seen) == {"default", True}


def test_a_block_outside_of_any_request(cluster: Cluster) -> None:
    with using_replica():
        assert router.db_for_read(Group) in REPLICAS
    assert router.db_for_read(Group) == "default"
    assert current() is None


def test_a_generator_runs_in_the_block_and_its_caller_does_not(cluster: Cluster) -> None:
    @using_primary
    def parts() -> Any:
        got = yield router.db_for_read(Group)
        try:
            yield got
        except KeyError:
            yield router.db_for_read(Group)
        return "end"

    with active(Route(REPLICA)):
        made = parts()
        assert next(made) == "default"
        assert router.db_for_read(Group) in REPLICAS
        assert made.send("x") == "x"
        assert made.throw(KeyError()) == "default"
        with pytest.raises(StopIteration, match="end"):
            next(made)
        unfinished = parts()
        next(unfinished)
        unfinished.close()
        assert router.db_for_read(Group) in REPLICAS


def test_an_asynchronous_generator_too(cluster: Cluster) -> None:
    @using_primary
    async def parts() -> Any:
        got = yield await sync_to_async(router.db_for_read)(Group)
        try:
            yield got
        except KeyError:
            yield await sync_to_async(router.db_for_read)(Group)

    async def use() -> None:
        with active(Route(REPLICA)):
            made = parts()
            assert await anext(made) == "default"
            assert await sync_to_async(router.db_for_read)(Group) in REPLICAS
            assert await made.asend("x") == "x"
            assert await made.athrow(KeyError()) == "default"
            with pytest.raises(StopAsyncIteration):
                await anext(made)
            unfinished = parts()
            await anext(unfinished)
            await unfinished.aclose()
            async with using_replica():
                pass

    async_to_sync(use)()


def test_a_coroutine_and_a_method(cluster: Cluster) -> None:
    class Service:
        @using_primary
        async def wait(self) -> str:
            return str(await sync_to_async(router.db_for_read)(Group))

        @using_primary()
        def now(self) -> str:
            return router.db_for_read(Group)

    with active(Route(REPLICA)):
        assert Service().now() == "default"
        assert async_to_sync(Service().wait)() == "default"


def test_what_cannot_be_decorated(cluster: Cluster) -> None:
    with pytest.raises(TypeError, match="neither function nor class"):
        using_primary(3)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="no view"):
        using_primary(int)
    with pytest.raises(ConfigurationError, match="'replica1' is not a primary"):
        using_primary("replica1")


# --- writes


@pytest.mark.usefixtures("protocol")
def test_a_write_pins_the_rest_of_its_request(cluster: Cluster) -> None:
    answer = Client().get("/write/?name=a").json()
    assert answer == {"names": ["a"], "db": "default"}


@pytest.mark.usefixtures("protocol")
def test_what_is_no_write_pins_nothing(cluster: Cluster) -> None:
    """Trap (g) and `full_clean`: asking where one would write is no write."""
    Group.objects.create(name="there")
    client = Client()
    assert db(client, "/look/") in REPLICAS
    assert not client.cookies


@pytest.mark.usefixtures("protocol")
def test_a_form_that_is_posted_looks_for_duplicates_on_the_primary(cluster: Cluster) -> None:
    """Trap (e): validate_unique() asks the router where to read."""
    Group.objects.create(name="there")
    with logged() as log:
        Client().post("/look/?name=another")
    assert log.aliases('"auth_group"."name" = ')
    assert log.served == {"default"}


@pytest.mark.usefixtures("protocol")
def test_a_session_that_is_saved_is_a_write(cluster: Cluster) -> None:
    """Trap (k): sessions are read by the next request."""
    client = Client()
    for number in range(1, 4):
        assert client.get("/session/").json() == {"seen": number}
        assert [name for name in client.cookies if name.startswith("outgrow-")]
    assert client.get("/session/read/").json() == {"seen": 3}


def test_a_write_on_a_replica_names_the_query_and_the_line(cluster: Cluster) -> None:
    with pytest.raises(WriteOnReplica) as caught:
        Group.objects.using("replica1").create(name="x")
    assert "'replica1' is a replica" in str(caught.value)
    assert "databases/test_routing.py:" in caught.value.where
    assert "INSERT INTO" in caught.value.query
    assert Group.objects.count() == 0


def test_raw_writes_on_a_replica_are_refused(cluster: Cluster) -> None:
    """Trap (f): raw() goes where reads go."""
    insert = "INSERT INTO auth_group (name) VALUES ('x') RETURNING id"
    with active(Route(REPLICA)), pytest.raises(WriteOnReplica, match="RETURNING"):
        list(Group.objects.raw(insert))
    assert Group.objects.count() == 0


def test_a_replica_is_read_only_by_itself(cluster: Cluster) -> None:
    """Whatever the guard does not see: the session refuses it."""
    connection = connections["replica1"]
    connection.ensure_connection()
    with pytest.raises(connection.Database.OperationalError, match="readonly"):
        connection.connection.execute("INSERT INTO auth_group (name) VALUES ('x')")


@pytest.mark.parametrize("how", ["pin", "log"])
@pytest.mark.usefixtures("protocol")
def test_a_read_request_that_writes(
    sqlite_databases: dict[str, dict[str, Any]], how: str, caplog: pytest.LogCaptureFixture
) -> None:
    with site(sqlite_databases, write_on_read=how):
        assert Client().get("/write/?name=a").json()["names"] == ["a"]
    said = [one for one in caplog.messages if "that was to read writes" in one]
    assert len(said) == (how == "log")


@pytest.mark.usefixtures("protocol")
def test_a_read_request_that_writes_is_refused(
    sqlite_databases: dict[str, dict[str, Any]],
) -> None:
    with site(sqlite_databases, write_on_read="refuse"):
        with pytest.raises(WriteInReadRequest, match=r"databases/urls.py:\d+ in writing"):
            Client().get("/write/?name=a")
        assert Group.objects.count() == 0
        assert Client().post("/write/?name=b").json()["names"] == ["b"]
        # Sessions are saved in many a GET.
        client = Client()
        assert [client.get("/session/").json()["seen"] for _ in range(2)] == [1, 2]
    with (
        site(sqlite_databases, write_on_read="refuse", write_on_read_except=["auth_group"]),
        pytest.raises(WriteInReadRequest, match="django_session"),
    ):
        assert Client().get("/write/?name=c").status_code == 200
        Client().get("/session/")


def test_every_kind_of_write_pins(cluster: Cluster) -> None:
    group = Group.objects.create(name="a")
    writes = [
        lambda: Group.objects.create(name="b"),
        lambda: Group.objects.bulk_create([Group(name="c")]),
        lambda: Group.objects.filter(name="a").update(name="d"),
        lambda: Group.objects.get_or_create(name="e"),
        lambda: Group.objects.update_or_create(name="e", defaults={"name": "f"}),
        lambda: Group.objects.filter(name="b").delete(),
        lambda: group.permissions.add(
            Permission.objects.create(
                content_type=ContentType.objects.get_for_model(Group), codename="p", name="p"
            )
        ),
        lambda: connections["default"].cursor().execute("UPDATE auth_group SET name = name"),
        lambda: list(
            Group.objects.using("default").raw(
                "INSERT INTO auth_group (name) VALUES ('z') RETURNING id"
            )
        ),
    ]
    for write in writes:
        with active(Route(REPLICA)) as route:
            write()
            assert route.written() == ["default"]
            assert router.db_for_read(Group) == "default"
            with using_replica():
                assert router.db_for_read(Group) == "default"
            with using_replica(stale=True):
                assert router.db_for_read(Group) in REPLICAS


# --- transactions


def test_a_transaction_is_read_on_its_primary(cluster: Cluster) -> None:
    """Trap (a), and promise D2: reads in a transaction see that transaction."""
    with active(Route(REPLICA)), using_replica(stale=True):
        with transaction.atomic():
            assert router.db_for_read(Group) == "default"
            with transaction.atomic(savepoint=True):
                assert router.db_for_read(Group) == "default"
        with transaction.atomic(durable=True):
            assert router.db_for_read(Group) == "default"
        assert router.db_for_read(Group) in REPLICAS


def test_autocommit_off_is_a_transaction(cluster: Cluster) -> None:
    with active(Route(REPLICA)):
        transaction.set_autocommit(False)
        try:
            assert router.db_for_read(Group) == "default"
        finally:
            transaction.rollback()
            transaction.set_autocommit(True)
        assert router.db_for_read(Group) in REPLICAS


@pytest.mark.usefixtures("protocol")
def test_hooks_of_a_commit(cluster: Cluster) -> None:
    seen = Client().get("/commits/?name=a").json()
    assert seen == dict.fromkeys(["savepoint", "inside", "hook", "after"], "default")


# --- instances


def test_refresh_after_a_save_reads_the_primary(cluster: Cluster) -> None:
    """Trap (b): the database that the instance was written to."""
    with active(Route(REPLICA)), logged() as log:
        group = Group(name="a")
        with using_primary():
            group.save()
        group.refresh_from_db()
        deferred = Group.objects.using("default").defer("name").get()
        assert deferred.name == "a"
    assert log.served == {"default"}


def test_related_managers_of_what_came_from_the_primary(cluster: Cluster) -> None:
    """Trap (c)."""
    user = User.objects.create(username="u")
    user.groups.add(Group.objects.create(name="g"))
    with active(Route(REPLICA)), logged() as log:
        user = User.objects.using("default").get()
        assert [group.name for group in user.groups.all()] == ["g"]
    assert log.served == {"default"}
    with active(Route(REPLICA)), logged() as log:
        user = User.objects.get()
        assert [group.name for group in user.groups.all()] == ["g"]
    assert log.served < REPLICAS


def test_a_partly_loaded_instance_writes_only_what_it_loaded(cluster: Cluster) -> None:
    """Trap (d): Django would write back every column, as the replica had it."""
    User.objects.create(username="u", email="old@example.org")
    with active(Route(REPLICA)), logged() as log:
        user = User.objects.only("username").get()
        assert user._state.db in REPLICAS
        # Somebody else writes meanwhile.
        User.objects.using("default").update(email="new@example.org")
        user.username = "v"
        user.save()
        (update,) = [
            sql for _, sql in log.entries if sql.startswith("UPDATE") and "username" in sql
        ]
        assert "email" not in update
        # One query to load it, none to load the rest.
        assert len(log.aliases("SELECT")) == 1
    user = User.objects.get()
    assert (user.username, user.email) == ("v", "new@example.org")


def test_objects_of_one_cluster_may_be_related(cluster: Cluster) -> None:
    group = Group.objects.create(name="g")
    user = User.objects.using("replica1").model(username="u")
    user.save()
    user.groups.add(Group.objects.using("replica2").get())
    assert router.allow_relation(Group.objects.using("replica1").get(), group)


def test_migrations_run_on_no_replica(cluster: Cluster) -> None:
    """Trap (r)."""
    assert router.allow_migrate("default", "auth")
    for alias in REPLICAS:
        assert not router.allow_migrate(alias, "auth")


def test_writes_never_go_to_a_replica(cluster: Cluster) -> None:
    """Promise D4, whatever the instance, the block and the route."""
    group = Group.objects.create(name="g")
    from_replica = Group.objects.using("replica1").get()
    for route in (Route(PRIMARY), Route(REPLICA)):
        with active(route), using_replica(stale=True):
            for hints in ({}, {"instance": group}, {"instance": from_replica}):
                assert router.db_for_write(Group, **hints) == "default"


# --- other routers


class Elsewhere:
    """A site's own router: sessions live in another database."""

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return "other" if model._meta.app_label == "sessions" else None

    db_for_write = db_for_read


class Silent:
    """A router that has none of the methods."""


def test_other_routers_say_which_database(sqlite_databases: dict[str, dict[str, Any]]) -> None:
    from django.contrib.sessions.models import Session

    routers = ("outgrow.databases.ReplicationRouter", Silent(), Elsewhere())
    databases = {**sqlite_databases}
    other = databases["default"]
    with site(databases, routers=routers):
        connections.settings["other"] = {**other}
        try:
            with active(Route(REPLICA)):
                assert router.db_for_read(Session) == "other"
                assert router.db_for_write(Session) == "other"
                assert router.db_for_read(Group) in REPLICAS
        finally:
            del connections.settings["other"]


class Types:
    """A site's own router: content types have a cluster of their own."""

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return "types" if model is ContentType else None

    db_for_write = db_for_read


def test_several_clusters_keep_apart(sqlite_databases: dict[str, dict[str, Any]]) -> None:
    """What is written to one pins nothing of another, whatever both are called."""
    entry = sqlite_databases["default"]
    databases = {alias: dict(entry) for alias in ("default", "replica1", "types", "types2")}
    replication = {"default": {"replicas": ["replica1"]}, "types": {"replicas": ["types2"]}}
    routers = [ROUTER, Types()]
    with (
        aliases(databases),
        override_settings(OUTGROW={"REPLICATION": replication}, DATABASE_ROUTERS=routers),
    ):
        for one in clusters().values():
            one.routing = MIRRORED
        with active(Route(REPLICA)) as route:
            assert (router.db_for_read(Group), router.db_for_read(ContentType)) == (
                "replica1",
                "types2",
            )
            ContentType.objects.create(app_label="a", model="b")
            assert list(route.written()) == ["types"]
            assert (router.db_for_read(Group), router.db_for_read(ContentType)) == (
                "replica1",
                "types",
            )
        with active(Route(REPLICA)):
            with using_primary("default"):
                assert router.db_for_read(Group) == "default"
                assert router.db_for_read(ContentType) == "types2"
            with transaction.atomic(using="types"):
                assert router.db_for_read(Group) == "replica1"
                assert router.db_for_read(ContentType) == "types"


# --- requests


@pytest.mark.parametrize(("query", "wanted"), [("", REPLICAS), ("?write=a", {"default"})])
@pytest.mark.usefixtures("protocol")
def test_a_body_is_made_on_its_requests_route(
    cluster: Cluster, query: str, wanted: set[str]
) -> None:
    """Trap (q): django_replicated forgot the route before the body was made."""
    response = Client().get(f"/stream/{query}")
    parts = iter(response.streaming_content)
    first = next(parts)
    # Another request in between, in the same thread.
    assert db(Client(), "/list/", "post") == "default"
    served = {part.decode().strip() for part in (first, *parts)}
    assert len(served) == 1
    assert served <= wanted
    assert current() is None


@pytest.mark.usefixtures("protocol")
def test_a_view_that_raises_leaves_nothing_behind(cluster: Cluster) -> None:
    client = Client(raise_request_exception=False)
    assert client.post("/fail/?name=a").status_code == 500
    # It wrote: so its client reads it, whatever the status says (promise D1).
    assert [name for name in client.cookies if name.startswith("outgrow-")]
    assert current() is None
    assert router.db_for_read(Group) == "default"


def test_tasks_that_outlive_their_request_read_the_primary(cluster: Cluster) -> None:
    seen = []

    async def outlive(route: Route) -> None:
        await asyncio.sleep(0)
        while route.is_open:  # noqa: ASYNC110 - nobody tells when it is closed
            await asyncio.sleep(0)
        seen.append(await sync_to_async(router.db_for_read)(Group))

    async def request() -> None:
        with active(Route(REPLICA)) as route:
            task = asyncio.create_task(outlive(route))
            await asyncio.sleep(0)
            route.close()
        await task

    async_to_sync(request)()
    assert seen == ["default"]


def test_asynchronous_views(cluster: Cluster) -> None:
    """Trap (l): a write in a child task, and threads of both kinds, see one route."""

    async def use() -> None:
        client = AsyncClient()
        assert (await client.get("/async/list/")).json()["db"] in REPLICAS
        assert (await client.post("/async/list/")).json()["db"] == "default"
        answer = (await client.get("/async/write/?name=a")).json()
        assert answer.pop("before") in REPLICAS
        assert answer == {"db": "default", "elsewhere": "default"}

    async_to_sync(use)()
    assert Group.objects.get().name == "a"


def test_interleaved_asynchronous_requests_keep_apart(cluster: Cluster) -> None:
    async def use() -> None:
        client = AsyncClient()
        answers = await asyncio.gather(
            *(client.get("/async/list/") for _ in range(10)),
            *(client.post("/async/list/") for _ in range(10)),
        )
        served = [answer.json()["db"] for answer in answers]
        assert set(served[:10]) <= REPLICAS
        assert set(served[10:]) == {"default"}

    async_to_sync(use)()


def test_an_asynchronous_body(cluster: Cluster) -> None:
    async def use() -> set[str]:
        response = await AsyncClient().get("/async/stream/")
        return {part.decode().strip() async for part in response.streaming_content}

    assert async_to_sync(use)() < REPLICAS


# --- ATOMIC_REQUESTS


@pytest.fixture
def atomic_cluster(sqlite_databases: dict[str, dict[str, Any]]) -> Any:
    sqlite_databases["default"]["ATOMIC_REQUESTS"] = True
    with site(sqlite_databases) as found:
        yield found


@pytest.mark.usefixtures("protocol")
def test_reads_open_no_transaction_and_writes_have_theirs(atomic_cluster: Cluster) -> None:
    client = Client()
    answer = client.get("/atomic/").json()
    assert answer["atomic"] is False
    assert answer["db"] in REPLICAS
    assert client.post("/atomic/").json() == {"atomic": True, "db": "default"}
    for path in ("/primary/", "/account/"):
        assert client.get(path).json() == {"atomic": True, "db": "default"}


@pytest.mark.usefixtures("protocol")
def test_a_read_request_that_writes_has_no_transaction_and_is_refused(
    atomic_cluster: Cluster,
) -> None:
    with pytest.raises(WriteInReadRequest, match="using_primary"):
        Client().get("/write/?name=a")
    assert Group.objects.count() == 0
    # What brings its own transaction may write: sessions do.
    assert Client().get("/session/").status_code == 200
    assert Client().get("/commits/?name=b").status_code == 200


@pytest.mark.usefixtures("protocol")
def test_a_view_that_fails_is_rolled_back(atomic_cluster: Cluster) -> None:
    client = Client(raise_request_exception=False)
    assert client.post("/fail/?name=a").status_code == 500
    assert Group.objects.count() == 0


@pytest.mark.usefixtures("protocol")
def test_interleaved_requests_keep_their_transactions(atomic_cluster: Cluster) -> None:
    """Trap (h): a GET between a POST's middleware and its view took its transaction away."""
    seen: dict[str, set[bool]] = {"get": set(), "post": set()}
    barrier = threading.Barrier(4)

    def ask(method: str) -> None:
        client = Client()
        for _ in range(25):
            barrier.wait()
            seen[method].add(getattr(client, method)("/atomic/").json()["atomic"])
        for alias in ALIASES:
            connections[alias].close()

    threads = [threading.Thread(target=ask, args=(method,)) for method in ("get", "post") * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {"get": {False}, "post": {True}}


def test_a_cluster_that_is_not_there_is_told(cluster: Cluster) -> None:
    assert not is_read_only()
    with pytest.raises(ConfigurationError, match="'replica9' is not a primary"):
        is_read_only("replica9")
