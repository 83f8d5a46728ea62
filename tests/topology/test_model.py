"""A topology file's content becomes a site, or all that is wrong with it is said."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import PurePath
from typing import Any

import pytest

from outgrow.errors import TopologyError, TopologyErrors
from outgrow.servers import Server
from outgrow.topology.database import Database, Replication
from outgrow.topology.model import Host, Media, Port, Service, local, parse

FOLDER = PurePath("/srv/photos")

EXAMPLE = """
[site]
name = "photos"
settings = "photos.settings"
wsgi = "photos.wsgi:application"
domains = ["photos.example.org", ".example.net"]
media_root = "var/media"

[media]
need = 2
names = "keep"
timeout = 2
fsync = true
engine = "nginx"

[servers.app1]
roles = ["app"]
address = "10.0.0.11"

[servers.media1]
roles = ["media"]
address = "10.0.0.21"
zone = "a"
weight = 3

[servers.both]
roles = ["app", "media"]
address = "2001:db8::1"
ports = { app = 8001, media = 8081 }
engine = "outgrow"
"""

Content = dict[str, Any]


@pytest.fixture
def content() -> Content:
    return tomllib.loads(EXAMPLE)


def problems(content: Content) -> list[str]:
    with pytest.raises(TopologyErrors) as caught:
        parse(content, FOLDER)
    return [str(error) for error in caught.value.errors]


def test_a_file_becomes_a_site(content: Content) -> None:
    site = parse(content, FOLDER)
    assert site.name == "photos"
    assert site.settings == "photos.settings"
    assert site.wsgi == "photos.wsgi:application"
    assert site.domains == ("photos.example.org", ".example.net")
    assert site.folder == FOLDER
    assert site.media_root == PurePath("/srv/photos/var/media")
    assert site.media_url == "/media/"
    assert site.media == Media(need=2, names="keep", timeout=2.0, fsync=True)
    assert not site.active
    content["media"]["active"] = True
    assert parse(content, FOLDER).active
    app1 = Service("app1", "app", Port("10.0.0.11", 8000))
    media1 = Service("media1", "media", Port("10.0.0.21", 8080), "nginx")
    both = (
        Service("both:app", "app", Port("2001:db8::1", 8001)),
        Service("both:media", "media", Port("2001:db8::1", 8081), "outgrow"),
    )
    assert site.hosts == (
        Host("app1", "10.0.0.11", (app1,)),
        Host("media1", "10.0.0.21", (media1,), zone="a", weight=3),
        Host("both", "2001:db8::1", both),
    )
    assert site.services() == (app1, media1, *both)
    assert site.services("media") == (media1, both[1])
    assert site.service("both:app") == both[0]
    assert site.media_servers() == (
        Server("media1", "http://10.0.0.21:8080", "a", 3),
        Server("both:media", "http://[2001:db8::1]:8081"),
    )


def test_absolute_paths_are_kept(content: Content) -> None:
    content["site"] |= {"media_root": "/mnt/media", "folder": "/opt/code"}
    site = parse(content, FOLDER)
    assert (site.media_root, site.folder) == (PurePath("/mnt/media"), PurePath("/opt/code"))


def test_an_unknown_service_is_named_with_those_there_are(content: Content) -> None:
    with pytest.raises(KeyError, match="'app9'; there are: app1, media1, both:app, both:media"):
        parse(content, FOLDER).service("app9")


def test_what_is_left_out_is_left_to_the_storage(content: Content) -> None:
    del content["media"]
    site = parse(content, FOLDER)
    assert site.media == Media()
    assert [service.engine for service in site.services("media")] == ["outgrow", "outgrow"]


Change = Callable[[Content], object]


def put(value: object, *keys: str) -> Change:
    """A change of the example: this value under these keys."""

    def change(content: Content) -> None:
        *tables, last = keys
        for key in tables:
            content = content.setdefault(key, {})
        content[last] = value

    return change


def remove(*keys: str) -> Change:
    def change(content: Content) -> None:
        *tables, last = keys
        for key in tables:
            content = content[key]
        del content[last]

    return change


WRONG: list[tuple[Change, str]] = [
    # whole tables
    (remove("site"), "site: is missing."),
    (put(3, "media"), "media: must be a table, not the number 3."),
    (put({}, "serverz"), 'serverz: is not a known key; did you mean "servers"?'),
    (remove("servers"), 'servers: no server has the role "app", and a site needs one.'),
    # site
    (remove("site", "name"), "site.name: is missing."),
    (put("Photos", "site", "name"), 'site.name: "Photos" must be 1 to 63 small letters'),
    (put(True, "site", "name"), "site.name: must be a string, not true."),
    (put("photos settings", "site", "settings"), 'site.settings: "photos settings" is not'),
    (put("photos.wsgi", "site", "wsgi"), 'site.wsgi: "photos.wsgi" must be module:name'),
    (put("", "site", "media_root"), "site.media_root: must not be empty."),
    (put("media", "site", "media_url"), 'site.media_url: "media" must be a path'),
    (put(["*"], "site", "domains"), 'site.domains[0]: "*" would answer under any name'),
    (put([], "site", "domains"), "site.domains: must be a list of one or more strings"),
    (put("x.org", "site", "domainz"), 'site.domainz: is not a known key; did you mean "domains"?'),
    # media
    (put(3, "media", "need"), "media.need: 3 are needed, and there are 2. Lower it, or add"),
    (put(-1, "media", "need"), "media.need: must be a number of at least 0, or"),
    (put("most", "media", "need"), 'media.need: must be a number of at least 0, or "majority"'),
    (put("uniqe", "media", "names"), 'media.names: "uniqe" is not a way to name files; did you me'),
    (put(0, "media", "timeout"), "media.timeout: must be greater than 0, not 0."),
    (put("2", "media", "timeout"), 'media.timeout: must be a number, not the string "2".'),
    (put(1, "media", "active"), "media.active: must be true or false, not the number 1."),
    (put(1, "media", "fsync"), "media.fsync: must be true or false, not the number 1."),
    (put("Nginx", "media", "engine"), 'media.engine: "Nginx" is not an engine; did you mean "ngin'),
    # servers
    (put(["ap"], "servers", "app1", "roles"), 'servers.app1.roles[0]: "ap" is not a role; did you'),
    (
        put(["app", "app"], "servers", "app1", "roles"),
        'servers.app1.roles[1]: "app" is in this lis',
    ),
    (put("app", "servers", "app1", "roles"), "servers.app1.roles: must be a list of one or more"),
    (put([4], "servers", "app1", "roles"), "servers.app1.roles[0]: must be a string, not the numb"),
    (remove("servers", "app1", "address"), "servers.app1.address: is missing."),
    (put("10.0.0.300", "servers", "app1", "address"), 'servers.app1.address: "10.0.0.300" is not'),
    (put("10.0.0.1:80", "servers", "app1", "address"), "a port goes into ports = { app = 8000 }."),
    (
        put({"media": 1}, "servers", "app1", "ports"),
        "servers.app1.ports.media: is not a known key;",
    ),
    (
        put({"app": 0}, "servers", "app1", "ports"),
        "servers.app1.ports.app: must be from 1 to 65535",
    ),
    (
        put("nginx", "servers", "app1", "engine"),
        "servers.app1.engine: is only for a server with th",
    ),
    (
        put("apache", "servers", "both", "engine"),
        'servers.both.engine: "apache" is not an engine; k',
    ),
    (
        put(-1, "servers", "app1", "weight"),
        "servers.app1.weight: must be from 0 to 1000000, not -1.",
    ),
    (put(7, "servers", "app1", "zone"), "servers.app1.zone: must be a string, not the number 7."),
    (put({}, "servers", "App"), 'servers.App: "App" must be 1 to 63 small letters'),
    (put({}, "servers", "a b"), 'servers."a b": "a b" must be 1 to 63 small letters'),
    (put({}, "servers", "repair"), 'servers.repair: "repair" is the name of the process that'),
    (put("x", "servers", "app1"), 'servers.app1: must be a table, not the string "x".'),
    (put(["app"], "servers", "media1", "roles"), "media.need: 2 are needed, and there are 1."),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message[:60] for _, message in WRONG])
def test_what_is_wrong_is_said_with_its_path(
    content: Content, change: Change, message: str
) -> None:
    change(content)
    found = problems(content)
    assert any(message in problem for problem in found), found


def test_every_problem_is_reported_at_once(content: Content) -> None:
    content["site"]["name"] = "A"
    content["media"]["fsync"] = "no"
    content["servers"]["app1"]["roles"] = ["ap"]
    with pytest.raises(TopologyError) as caught:
        parse(content, FOLDER, source="topology.toml")
    first, *lines = str(caught.value).splitlines()
    assert first == "topology.toml: 3 problems:"
    # The order of the file's own tables is not what matters; each is there once.
    assert sorted(line.split(":")[0] for line in lines) == [
        "  media.fsync",
        "  servers.app1.roles[0]",
        "  site.name",
    ]


# --- the database


DATABASE: Content = {
    "engine": "postgresql",
    "name": "photos",
    "password_env": "PHOTOS_PASSWORD",
}


@pytest.fixture
def replicated(content: Content) -> Content:
    content["database"] = dict(DATABASE)
    content["servers"] |= {
        "db1": {"roles": ["primary"], "address": "10.0.0.31"},
        "db-2": {"roles": ["replica"], "address": "10.0.0.32", "weight": 2, "zone": "b"},
        "3db": {"roles": ["app", "replica"], "address": "10.0.0.33", "ports": {"replica": 5433}},
    }
    return content


def test_a_site_without_the_table_has_no_database(content: Content) -> None:
    site = parse(content, FOLDER)
    assert site.database is None
    assert site.replicas() == ()


def test_a_primary_and_its_replicas(replicated: Content) -> None:
    site = parse(replicated, FOLDER)
    assert site.database == Database("postgresql", "photos", "photos", "PHOTOS_PASSWORD")
    assert site.database.has_servers
    primary = Service("db1", "primary", Port("10.0.0.31", 5432), "postgresql")
    assert site.services("primary") == (primary,)
    assert primary.url == "postgresql://10.0.0.31:5432"
    assert site.replicas() == (
        (Server("db_2", "postgresql://10.0.0.32:5432", "b", 2), Port("10.0.0.32", 5432)),
        (Server("_3db", "postgresql://10.0.0.33:5433"), Port("10.0.0.33", 5433)),
    )


def test_mariadb_has_its_own_port(replicated: Content) -> None:
    replicated["database"]["engine"] = "mariadb"
    assert parse(replicated, FOLDER).service("db-2").url == "mariadb://10.0.0.32:3306"


def test_sqlite_is_a_file_with_replicas_that_listen_nowhere(replicated: Content) -> None:
    replicated["database"] = {"name": "var/rows.sqlite3"}
    del replicated["servers"]["3db"]["ports"]
    replicated["servers"]["db-2"]["address"] = "10.0.0.31"  # no port, so no conflict
    site = parse(replicated, FOLDER)
    assert site.database == Database("sqlite", "/srv/photos/var/rows.sqlite3")
    assert not site.database.has_servers
    assert [port.number for _, port in site.replicas()] == [0, 0]


def test_sqlite_needs_no_servers(content: Content) -> None:
    content["database"] = {"name": "/var/rows.sqlite3", "max_lag": 3}
    database = parse(content, FOLDER).database
    assert database == Database("sqlite", "/var/rows.sqlite3", replication=Replication(max_lag=3.0))


def test_the_options_of_the_replication(replicated: Content) -> None:
    options = {
        "max_lag": 3.0,
        "check_every": 1.0,
        "pin_for": 10.0,
        "downtime": 30.0,
        "when_behind": "wait",
        "wait": 0.5,
        "write_on_read": "log",
        "read_timeout": 2.0,
    }
    replicated["database"] |= options
    database = parse(replicated, FOLDER).database
    assert database
    assert asdict(database.replication) == options


def test_a_password_may_be_in_a_file(replicated: Content) -> None:
    del replicated["database"]["password_env"]
    replicated["database"] |= {"password_file": "secrets/db", "user": "web"}
    database = parse(replicated, FOLDER).database
    assert database == Database(
        "postgresql", "photos", "web", password_file=PurePath("/srv/photos/secrets/db")
    )


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(Database("postgresql", "photos", password="secret"))


WRONG_DATABASE: list[tuple[Change, str]] = [
    (put("postgres", "database", "engine"), 'database.engine: "postgres" is not an engine for a d'),
    (remove("database", "name"), "database.name: is missing."),
    (put("a'b", "database", "name"), 'database.name: "a\'b" must be 1 to 63 letters'),
    (put("a b", "database", "user"), 'database.user: "a b" must be 1 to 63 letters'),
    (put("p", "database", "password"), "database.password: does not belong into this file. Write"),
    (put("A-B", "database", "password_env"), 'database.password_env: "A-B" is not the name of an'),
    (put("f", "database", "password_file"), "database.password_file: is one too many beside passw"),
    (put("", "database", "password_file"), "database.password_file: must not be empty."),
    (put("x", "database", "usr"), 'database.usr: is not a known key; did you mean "user"?'),
    (put(0, "database", "max_lag"), "database.max_lag: must be greater than 0, not 0."),
    (put("later", "database", "when_behind"), 'database.when_behind: "later" is not a choice; kno'),
    (put("pn", "database", "write_on_read"), 'database.write_on_read: "pn" is not a choice; did y'),
    (put(20, "database", "pin_for"), "database.pin_for: must be at least max_lag + 2 * check_ever"),
    (put(50, "database", "max_lag"), "check_every + 5, which is 65, not 60."),
    (
        put({"name": "f", "user": "x"}, "database"),
        "database.user: is for a database server, and SQ",
    ),
    (
        put({"name": "f"}, "database"),
        "servers.3db.ports.replica: is for a server that listens; SQLite",
    ),
    (
        remove("database"),
        "database: is missing, and servers.db1.roles[0] asks for it. Write it: the",
    ),
    (
        remove("servers", "db1"),
        "servers.3db.roles[1]: there is no primary for this replica. Give on",
    ),
    (
        put(["app", "primary"], "servers", "app1", "roles"),
        'servers.db1.roles[0]: "app1" is the primary already, and there can be but one.',
    ),
    (
        put(["primary", "replica"], "servers", "db1", "roles"),
        "servers.db1.roles[1]: a primary can't be its own replica.",
    ),
    (
        put({"roles": ["replica"], "address": "10.0.0.9"}, "servers", "db.2"),
        'servers."db.2": its alias in DATABASES would be "db_2", as that of db-2 is.',
    ),
    (
        put({"roles": ["replica"], "address": "10.0.0.9"}, "servers", "default"),
        'servers.default: its alias in DATABASES would be "default", as that of the primary is.',
    ),
    (put({}, "servers", "migrate"), 'servers.migrate: "migrate" is the name of the process that m'),
]


@pytest.mark.parametrize(
    ("change", "message"), WRONG_DATABASE, ids=[message[:60] for _, message in WRONG_DATABASE]
)
def test_what_is_wrong_with_a_database_is_said_with_its_path(
    replicated: Content, change: Change, message: str
) -> None:
    change(replicated)
    found = problems(replicated)
    assert any(message in problem for problem in found), found


def test_a_database_that_is_served_needs_a_server(content: Content) -> None:
    content["database"] = dict(DATABASE)
    assert problems(content) == ['database: postgresql needs a server with the role "primary".']


def test_the_same_database_on_one_machine(replicated: Content) -> None:
    site = parse(replicated, FOLDER)
    ports = {service.name: n for n, service in enumerate(site.services(), 20000)}
    moved = local(site, ports, PurePath("/run/photos"))
    assert moved.database == Database(
        "postgresql", "photos", "photos", password_file=PurePath("/run/photos/_password")
    )
    assert [port for _, port in moved.replicas()] == [
        Port("127.0.0.1", ports["db-2"]),
        Port("127.0.0.1", ports["3db:replica"]),
    ]


def test_the_same_file_on_one_machine(content: Content) -> None:
    content["database"] = {"name": "rows"}
    moved = local(parse(content, FOLDER), dict.fromkeys("abcd", 1), PurePath("/run"))
    assert moved.database == Database("sqlite", "/run/_database.sqlite3")


def test_a_wrong_role_is_not_reported_as_a_missing_server_too(content: Content) -> None:
    del content["servers"]["both"], content["media"]["need"]
    content["servers"]["app1"]["roles"] = ["ap"]
    assert problems(content) == ['servers.app1.roles[0]: "ap" is not a role; did you mean "app"?']


def test_two_servers_can_t_have_one_address(content: Content) -> None:
    content["servers"]["app2"] = copy.deepcopy(content["servers"]["app1"])
    [problem] = problems(content)
    assert problem.startswith(
        'servers.app2: "app2" and "app1" have the same address 10.0.0.11:8000. Give one of'
    )


def test_one_address_is_known_in_all_its_spellings(content: Content) -> None:
    content["servers"]["again"] = copy.deepcopy(content["servers"]["both"])
    content["servers"]["again"]["address"] = "2001:0DB8:0::1"
    content["servers"]["media1"]["address"] = "Media1.example"
    content["servers"]["media2"] = {"roles": ["media"], "address": "media1.example"}
    paths = [problem.split(":")[0] for problem in problems(content)]
    assert paths == ["servers.again", "servers.again", "servers.media2"]


def test_one_address_may_have_several_ports(content: Content) -> None:
    content["servers"]["app1"]["address"] = content["servers"]["media1"]["address"]
    assert parse(content, FOLDER).service("app1").port == Port("10.0.0.21", 8000)


def test_the_same_site_on_one_machine(content: Content) -> None:
    site = parse(content, FOLDER)
    ports = {"app1": 20001, "media1": 20002, "both:app": 20003, "both:media": 20004}
    moved = local(site, ports, PurePath("/run/photos"))
    assert {service.name: str(service.port) for service in moved.services()} == {
        name: f"127.0.0.1:{number}" for name, number in ports.items()
    }
    assert moved.domains == ("photos.example.org", ".example.net", "localhost", "127.0.0.1")
    assert moved.media_root == PurePath("/run/photos/_master")
    assert moved.media_url == "/media/"
    # All else is the same: names, roles, engines, zones, weights, options.
    assert moved.media == site.media
    assert [(s.name, s.role, s.engine) for s in moved.services()] == [
        (s.name, s.role, s.engine) for s in site.services()
    ]
    assert moved.folder == site.folder


def test_on_one_machine_media_don_t_come_from_production(content: Content) -> None:
    content["site"]["media_url"] = "https://media.example.org/"
    site = parse(content, FOLDER)
    ports = {"app1": 20001, "media1": 20002, "both:app": 20003, "both:media": 20004}
    assert local(site, ports, FOLDER).media_url == "http://127.0.0.1:20002/"
