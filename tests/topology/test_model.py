"""A topology file's content becomes a site, or all that is wrong with it is said."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import pytest

from outgrow.errors import TopologyError, TopologyErrors
from outgrow.servers import Server
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
