"""Balancers, caches and the kind of media storage, as values: what the file says of them."""

from __future__ import annotations

import tomllib
from pathlib import Path, PurePath
from typing import Any

import pytest

from outgrow.errors import TopologyErrors
from outgrow.topology.balancer import Balancer
from outgrow.topology.cache import Cache
from outgrow.topology.capacity import connections
from outgrow.topology.database import any_of
from outgrow.topology.front import Front, Member, Route, Upstream, front
from outgrow.topology.model import Port, Site, local, parse
from outgrow.topology.settings import django_settings

EXAMPLE = """
[site]
name = "photos"
settings = "photos.settings"
wsgi = "photos.wsgi:application"
domains = [".photos.example.org"]
media_root = "media"

[servers.lb1]
roles = ["balancer"]
address = "10.0.0.1"

[servers.both]
roles = ["balancer", "media", "app"]
address = "10.0.0.2"
engines = { balancer = "haproxy", media = "nginx" }

[servers.app1]
roles = ["app"]
address = "10.0.0.11"
weight = 3
"""

Content = dict[str, Any]


@pytest.fixture
def content() -> Content:
    return tomllib.loads(EXAMPLE)


def site(content: Content) -> Site:
    return parse(content, PurePath("/srv"))


def problems(content: Content) -> list[str]:
    with pytest.raises(TopologyErrors) as caught:
        site(content)
    return [str(error) for error in caught.value.errors]


def test_the_engines_of_a_server_with_a_choice_in_several_roles(content: Content) -> None:
    found = {service.name: service.engine for service in site(content).services()}
    assert found == {
        "lb1": "nginx",
        "both:balancer": "haproxy",
        "both:media": "nginx",
        "both:app": "",
        "app1": "",
    }
    del content["servers"]["both"]["engines"]
    content["balancer"] = {"engine": "haproxy"}
    found = {service.name: service.engine for service in site(content).services()}
    assert (found["lb1"], found["both:balancer"]) == ("haproxy", "haproxy")
    assert found["both:media"] == "outgrow"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"engine": "nginx"},
            "servers.both.engine: could be that of several roles. Write",
        ),
        ({"engines": {"app": "x"}}, "servers.both.engines.app: is not a known key"),
        (
            {"engines": {"media": "ngin"}},
            'servers.both.engines.media: "ngin" is not an engine; di',
        ),
    ],
)
def test_which_engine_is_meant(content: Content, change: Content, message: str) -> None:
    content["servers"]["both"] |= change
    assert any(message in problem for problem in problems(content))


def test_one_role_with_a_choice_has_one_engine(content: Content) -> None:
    content["servers"]["lb1"]["engines"] = {"balancer": "nginx"}
    assert problems(content) == [
        'servers.lb1.engines: is not a known key; did you mean "engine"?',
    ]


def test_what_a_balancer_does_without_a_table(content: Content) -> None:
    whole = site(content)
    assert whole.balancer == Balancer(100, 60, "/", None, None)
    service = whole.service("lb1")
    assert (service.port, service.url) == (Port("10.0.0.1", 80), "http://10.0.0.1:80")
    media = Upstream("media", (Member("both:media", Port("10.0.0.2", 8080)),))
    app = Upstream(
        "app",
        (Member("both:app", Port("10.0.0.2", 8000)), Member("app1", Port("10.0.0.11", 8000), 3)),
    )
    found = front(whole, service)
    assert found == Front(
        "lb1",
        Port("10.0.0.1", 80),
        (Route("/media/", media, files=True), Route("/", app)),
        whole.balancer,
        "photos.example.org",
    )
    assert found.upstreams == (media, app)
    assert found.application == Route("/", app)
    assert found.max_bytes == 100_000_000


def test_with_a_certificate_it_speaks_https(content: Content) -> None:
    content["balancer"] = {
        "certificate": "tls/site.pem",
        "certificate_key": "/etc/site.key",
        "max_upload": 5,
        "timeout": 10,
        "health": "/up/",
    }
    whole = site(content)
    assert whole.balancer == Balancer(
        5, 10, "/up/", PurePath("/srv/tls/site.pem"), PurePath("/etc/site.key")
    )
    service = whole.service("lb1")
    assert (service.port.number, service.url) == (443, "https://10.0.0.1")
    assert front(whole, service).plain == Port("10.0.0.1", 80)
    # On a laptop it is not the owner of that name.
    here = local(whole, {"lb1": 26_001}, PurePath("/run/x"))  # type: ignore[arg-type]
    assert here.balancer.certificate is None
    assert here.service("lb1").url == "http://127.0.0.1:26001"


def test_media_of_another_domain_do_not_go_through_it(content: Content) -> None:
    content["site"]["media_url"] = "https://media.example.org/"
    whole = site(content)
    assert [route.prefix for route in front(whole, whole.service("lb1")).routes] == ["/"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"certificate": "a"}, "balancer: a certificate and its key belong together. Write both"),
        ({"certificate_key": "a"}, "balancer: a certificate and its key belong together."),
        ({"certificate": ""}, "balancer.certificate: must not be empty."),
        ({"max_upload": 0}, "balancer.max_upload: must be from 1 to 1000000, not 0."),
        ({"health": "up"}, 'balancer.health: "up" must be a path of letters, digits'),
        ({"health": "/up;x"}, 'balancer.health: "/up;x" must be a path of letters, digits'),
        ({"healt": "/"}, 'balancer.healt: is not a known key; did you mean "health"?'),
        ({"engine": "ngins"}, 'balancer.engine: "ngins" is not an engine; did you mean "nginx"?'),
    ],
)
def test_what_is_wrong_with_a_balancer(content: Content, table: Content, message: str) -> None:
    content["balancer"] = table
    assert any(message in problem for problem in problems(content))


def test_django_trusts_the_header_that_the_balancers_write(content: Content) -> None:
    assert django_settings(site(content))["SECURE_PROXY_SSL_HEADER"] == (
        "HTTP_X_FORWARDED_PROTO",
        "https",
    )
    del content["servers"]["lb1"]
    content["servers"]["both"] |= {"roles": ["app", "media"], "engine": "nginx"}
    del content["servers"]["both"]["engines"]
    assert "SECURE_PROXY_SSL_HEADER" not in django_settings(site(content))


# --- caches


def test_caches(content: Content) -> None:
    assert site(content).cache == Cache("memcached", 64)
    content["servers"]["cache1"] = {"roles": ["cache"], "address": "10.0.0.41"}
    content["servers"]["cache2"] = {"roles": ["cache"], "address": "10.0.0.42"}
    assert site(content).service("cache1").url == "memcached://10.0.0.41:11211"
    found = django_settings(site(content))
    assert found["CACHES"]["default"]["LOCATION"] == ["10.0.0.41:11211", "10.0.0.42:11211"]
    assert found["SESSION_ENGINE"] == "django.contrib.sessions.backends.cached_db"
    content["cache"] = {"engine": "redis", "memory": 9}
    hint = 'Several servers share the load with engine = "memcached".'
    assert problems(content) == [
        f"servers.cache2.roles[0]: Redis is the cache, and there can be but one. {hint}"
    ]
    del content["servers"]["cache2"]
    assert site(content).cache == Cache("redis", 9)
    assert django_settings(site(content))["CACHES"]["default"]["LOCATION"] == (
        "redis://10.0.0.41:6379"
    )


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"engine": "memcache"},
            'cache.engine: "memcache" is not an engine for a cache; did yo',
        ),
        ({"memory": "64"}, 'cache.memory: must be a whole number, not the string "64".'),
        ({"size": 1}, "cache.size: is not a known key;"),
    ],
)
def test_what_is_wrong_with_a_cache(content: Content, table: Content, message: str) -> None:
    content["cache"] = table
    assert any(message in problem for problem in problems(content))


# --- where the uploads are


def test_a_distributed_storage_has_a_catalogue_in_the_database(content: Content) -> None:
    content["media"] = {"storage": "distributed", "need": "majority", "timeout": 3}
    del content["site"]["media_root"]
    assert problems(content) == [
        (
            "database: is missing: the catalogue of a distributed storage is there. Write it, "
            'with engine = "postgresql" or "mariadb", or write storage = "hybrid".'
        )
    ]
    content["database"] = {"engine": "postgresql", "name": "photos"}
    content["servers"]["db1"] = {"roles": ["primary"], "address": "10.0.0.31"}
    whole = site(content)
    assert whole.media_root == PurePath("/srv/media")
    found = django_settings(whole)
    assert found["STORAGES"]["default"] == {
        "BACKEND": "outgrow.media.DistributedStorage",
        "OPTIONS": {
            "servers": {"both:media": "http://10.0.0.2:8080"},
            "base_url": "/media/",
            "need": "majority",
            "timeout": 3.0,
        },
    }
    assert found["DATABASES"]["outgrow"] == found["DATABASES"]["default"]


def test_a_hybrid_storage_has_the_one_alias(content: Content, tmp_path: Path) -> None:
    content["database"] = {"name": "rows.sqlite3"}
    assert list(django_settings(site(content))["DATABASES"]) == ["default"]
    content["media"] = {"storage": "distributed"}
    assert any("database: is missing" in problem for problem in problems(content))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"storage": "distribute"},
            'media.storage: "distribute" is not a storage; did you',
        ),
        (
            {"storage": "distributed", "names": "keep"},
            'media.names: is for storage = "hybrid", which has a master copy.',
        ),
        ({"storage": "distributed", "fsync": True}, "media.fsync: is for storage ="),
    ],
)
def test_what_is_wrong_with_a_storage(content: Content, table: Content, message: str) -> None:
    content["media"] = table
    assert any(message in problem for problem in problems(content))


# --- how much a database server must take


def test_connections_are_a_sum(content: Content) -> None:
    # Two application servers with 3 processes of 8 threads; SQLite and others the same.
    assert connections(site(content), "primary") == 2 * 3 * 8 + 2 + 20
    content["database"] = {"engine": "postgresql", "name": "photos"}
    content["media"] = {"storage": "distributed"}
    content["worker"] = {"command": "python -m celery"}
    content["servers"] |= {
        "db1": {"roles": ["primary"], "address": "10.0.0.31"},
        "db2": {"roles": ["replica"], "address": "10.0.0.32"},
        "work1": {"roles": ["worker"], "address": "10.0.0.51"},
    }
    whole = site(content)
    # The catalogue has a second connection to the primary, and each process a watch.
    assert connections(whole, "primary") == (2 * 24 + 8) * 2 + 2 * 2 + (6 + 2) + 20
    assert connections(whole, "replica") == 2 * 24 + 8 + 2 + (6 + 2) + 20


# --- a commit that waits


@pytest.mark.parametrize(
    ("database", "message"),
    [
        ({"engine": "postgresql"}, "database.synchronous: there is no replica to wait for. Give a"),
        ({"engine": "mariadb"}, "database.synchronous: is for PostgreSQL."),
        ({"engine": "sqlite"}, "database.synchronous: is for a database server, and SQLite is no"),
    ],
)
def test_who_can_not_wait(content: Content, database: Content, message: str) -> None:
    content["database"] = {"name": "photos", "synchronous": True, **database}
    content["servers"]["db1"] = {"roles": ["primary"], "address": "10.0.0.31"}
    assert any(message in problem for problem in problems(content))


def test_who_waits(content: Content) -> None:
    content["database"] = {"name": "photos", "engine": "postgresql", "synchronous": True}
    content["servers"]["db1"] = {"roles": ["primary"], "address": "10.0.0.31"}
    content["servers"]["db2"] = {"roles": ["replica"], "address": "10.0.0.32"}
    database = site(content).database
    assert database is not None
    assert database.synchronous


def test_any_of_the_others_will_do() -> None:
    assert any_of(["db2", "db_3"]) == 'ANY 1 ("db2", "db_3")'


# --- workers


def test_a_worker_needs_a_command(content: Content) -> None:
    content["servers"]["work1"] = {"roles": ["worker"], "address": "10.0.0.51"}
    content["servers"]["work2"] = {"roles": ["worker"], "address": "10.0.0.52"}
    assert problems(content) == [
        (
            "worker.command: is missing, and servers.work1.roles[0] asks for it. Write it, as in "
            'command = "python -m celery -A photos worker".'
        )
    ]
    content["worker"] = {"command": "python -m celery -A photos worker"}
    assert site(content).worker.words("/venv/python")[0] == "/venv/python"
