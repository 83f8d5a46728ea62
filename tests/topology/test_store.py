"""The object store of a site: as a value, as settings, and a real one below `outgrow up`."""

from __future__ import annotations

import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import psutil
import pytest

from outgrow import conf
from outgrow.errors import MissingExtra, TopologyError, TopologyErrors
from outgrow.topology.load import load
from outgrow.topology.model import Service, Site, local, parse
from outgrow.topology.objects import Objects
from outgrow.topology.render import toml
from outgrow.topology.render.systemd import Places
from outgrow.topology.rendering import plan
from outgrow.topology.settings import django_settings
from tests.live.processes import all_have_status, family, missing, wait_until
from tests.topology.sites import tiny_site
from tests.topology.test_database import manage
from tests.topology.test_local import Run

FOLDER = PurePath("/srv/photos")

TEXT = """
[site]
name = "photos"
settings = "photos.settings"
wsgi = "photos.wsgi:application"
domains = ["photos.example.org"]
media_root = "var/media"

[objects]
bucket = "photos"
prefix = "uploads"
region = "eu-west-3"
access_key = "key"
secret_env = "PHOTOS_SECRET"
base_url = "https://files.example.org/"
signed = true

[servers.app1]
roles = ["app"]
address = "10.0.0.11"

[servers.store]
roles = ["objects"]
address = "s3.eu-west-3.amazonaws.com"
"""

MEDIA = '[servers.media1]\nroles = ["media"]\naddress = "10.0.0.21"\n'
Content = dict[str, Any]


@pytest.fixture
def site() -> Site:
    return parse(tomllib.loads(TEXT), FOLDER)


def test_a_store_that_is_there(site: Site) -> None:
    assert site.objects == Objects(
        bucket="photos",
        prefix="uploads",
        region="eu-west-3",
        access_key="key",
        secret_env="PHOTOS_SECRET",
        base_url="https://files.example.org/",
        signed=True,
    )
    [service] = site.services("objects")
    assert (service.engine, service.url) == ("external", "https://s3.eu-west-3.amazonaws.com")


@pytest.mark.parametrize(
    ("lines", "url"),
    [
        ("ports = { objects = 9000 }", "http://10.0.0.5:9000"),
        ("ports = { objects = 443 }", "https://10.0.0.5"),
        ("", "https://10.0.0.5"),
    ],
)
def test_where_it_is(lines: str, url: str) -> None:
    text = TEXT.replace('address = "s3.eu-west-3.amazonaws.com"', f'address = "10.0.0.5"\n{lines}')
    assert parse(tomllib.loads(text), FOLDER).service("store").url == url


def test_a_swift_s_port_is_another() -> None:
    text = TEXT.replace("[objects]\n", '[objects]\nengine = "swift"\n')
    found = parse(tomllib.loads(text), FOLDER).service("store")
    assert (found.engine, found.port.number) == ("swift", 8080)


def change(**changes: object) -> Callable[[Content], None]:
    return lambda content: content["objects"].update(changes)


def take(*keys: str) -> Callable[[Content], None]:
    def remove(content: Content) -> None:
        *tables, last = keys
        for key in tables:
            content = content[key]
        del content[last]

    return remove


def second_store(content: Content) -> None:
    content["servers"]["store2"] = {"roles": ["objects"], "address": "10.0.0.9"}


WRONG: list[tuple[Callable[[Content], None], str]] = [
    (change(bucket="A"), 'objects.bucket: "A" must be 3 to 63 small letters'),
    (take("objects", "bucket"), "objects.bucket: is missing."),
    (change(engine="minio"), 'objects.engine: "minio" is not an engine of an object store'),
    (change(secret="x"), "objects.secret: does not belong into this file. Write secret_env"),
    (change(secret_key="x"), "objects.secret_key: does not belong into this file."),
    (change(secret_file="x"), "objects.secret_file: is one too many beside secret_env."),
    (change(secret_env="A-B"), 'objects.secret_env: "A-B" is not the name of an environment'),
    (take("objects", "access_key"), "objects: an access key and its secret belong together."),
    (take("objects", "secret_env"), "objects: an access key and its secret belong together."),
    (change(base_url="x"), 'objects.base_url: "x" must be a path'),
    (change(buckt="x"), 'objects.buckt: is not a known key; did you mean "bucket"?'),
    (take("objects"), "objects: is missing, and servers.store.roles[0] asks for it."),
    (take("servers", "store"), 'objects: needs a server with the role "objects"'),
    (second_store, 'servers.store2.roles[0]: "store" is the object store already'),
]


@pytest.mark.parametrize(("wrong", "words"), WRONG, ids=lambda one: one if str(one) == one else "")
def test_what_is_wrong_is_said_with_its_path(wrong: Callable[[Content], None], words: str) -> None:
    content = tomllib.loads(TEXT)
    wrong(content)
    with pytest.raises(TopologyErrors) as raised:
        parse(content, FOLDER)
    assert any(str(one).startswith(words) for one in raised.value.errors), raised.value


def test_without_store_and_media_servers_there_is_no_site() -> None:
    content = tomllib.loads(TEXT)
    del content["objects"], content["servers"]["store"]
    with pytest.raises(TopologyErrors, match='no server has the role "media"'):
        parse(content, FOLDER)


def test_a_secret_is_not_shown(site: Site) -> None:
    assert site.objects
    assert "hush" not in repr(replace(site.objects, secret="hush"))


def test_the_file_that_is_written_is_read_back(site: Site, tmp_path: Path) -> None:
    [file] = toml.render(site)
    assert parse(tomllib.loads(file.content), PurePath("/elsewhere")) == site
    plain = tomllib.loads(TEXT.replace("signed = true\n", "").replace("base_url", "# base_url"))
    found = parse(plain, FOLDER)
    [file] = toml.render(found)
    assert parse(tomllib.loads(file.content), PurePath("/elsewhere")) == found


def test_servers_without_media_servers_have_no_repair(site: Site) -> None:
    both = parse(tomllib.loads(TEXT + MEDIA), FOLDER)
    assert [file.name for file in plan(both, Places(), hosts=["app1"])]
    assert [file.name for file in plan(site, Places())] == [
        "app1/outgrow-app.service",
        "app1/README.md",
        "store/README.md",
    ]


def test_on_a_laptop_it_is_never_the_store_of_production(site: Site) -> None:
    moved = local(site, {"app1": 26_001, "store": 26_002}, PurePath("/run"))
    [service] = moved.services("objects")
    assert service == Service("store", "objects", service.port, "swift")
    assert service.url == "http://127.0.0.1:26002"
    assert moved.objects == Objects(
        "photos", "uploads", access_key="outgrow:site", secret_file=PurePath("/run/_password")
    )
    absolute = replace(site, media_url="https://files.example.org/")
    assert local(absolute, {}, PurePath("/run")).media_url == "https://files.example.org/"


# --- settings


def options_of(site: Site, alias: str = "default") -> dict[str, Any]:
    entry = django_settings(site)["STORAGES"][alias]
    assert entry["BACKEND"] == "outgrow.objects.ObjectStorage"
    assert conf.object_options(entry["OPTIONS"])[1] == []
    return dict(entry["OPTIONS"])


def test_the_storage_is_the_store_s(site: Site) -> None:
    assert site.objects
    with_secret = replace(site, objects=replace(site.objects, secret="hush"))
    assert options_of(with_secret) == {
        "location": "s3://photos/uploads",
        "endpoint": "https://s3.eu-west-3.amazonaws.com",
        "region": "eu-west-3",
        "access_key": "key",
        "secret_key": "hush",
        "base_url": "https://files.example.org/",
        "querystring_auth": True,
    }


def test_a_role_of_the_machine_needs_no_keys(site: Site) -> None:
    plain = replace(site, objects=Objects("photos"))
    assert options_of(plain) == {
        "location": "s3://photos",
        "endpoint": "https://s3.eu-west-3.amazonaws.com",
        "region": "us-east-1",
    }


def test_beside_media_servers_it_has_a_name_of_its_own(site: Site) -> None:
    assert site.objects
    both = parse(tomllib.loads(TEXT + MEDIA), FOLDER)
    settings = django_settings(both)["STORAGES"]
    assert settings["default"]["BACKEND"] == "outgrow.media.HybridStorage"
    assert settings["objects"]["BACKEND"] == "outgrow.objects.ObjectStorage"


def test_a_swift_s_bucket_is_made(site: Site) -> None:
    moved = local(site, {"store": 26_002}, PurePath("/run"))
    assert moved.objects
    assert options_of(replace(moved, objects=replace(moved.objects, secret="hush")))[
        "auto_create_bucket"
    ]


# --- a real one


def store_site(folder: Path) -> Path:
    """The tiny site, whose uploads lie in a store."""
    path = tiny_site(folder, database="sqlite")
    content = tomllib.loads(path.read_text())
    without = [name for name, one in content["servers"].items() if one["roles"] == ["media"]]
    text = path.read_text()
    for name in without:
        begin = text.index(f"[servers.{name}]")
        end = text.find("\n[", begin + 1)
        text = text[:begin] + (text[end + 1 :] if end > 0 else "")
    text += '\n[objects]\nbucket = "tiny"\n[servers.store]\nroles = ["objects"]\n'
    path.write_text(text.replace("need = 1\n", "") + 'address = "s3.example.org"\n')
    return path


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Run]:
    site = load(store_site(tmp_path))
    try:
        Run(site, tmp_path / "run").local.prepare(dry_run=True)
    except MissingExtra as error:
        missing(str(error), "pip install swift")
    run = Run(site, tmp_path / "run")
    with run.local:
        yield run


SAVE = """
import django; django.setup()
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
name = default_storage.save("a.txt", ContentFile(b"kept"))
print(default_storage.url(name))
"""


def fetched(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return bytes(answer.read())


def test_a_real_store_that_is_killed_comes_back_with_every_file(running: Run) -> None:
    site = running.local
    done = manage(site, "-c", SAVE)
    assert done.returncode == 0, done.stderr
    url = done.stdout.strip()
    assert url.startswith(site.address("store") + "/tiny/a_")
    assert fetched(url) == b"kept"
    everyone = family(site.process("store").pid or 0)
    assert len(everyone) >= 5
    for process in everyone:
        listening = [c for c in process.net_connections("inet") if c.status == "LISTEN"]
        assert {c.laddr.ip for c in listening} <= {"127.0.0.1"}
    site.hold("store")
    site.process("store").kill()
    wait_until(lambda: all_have_status(everyone, psutil.STATUS_ZOMBIE), "some of it is left")
    site.release("store")
    site.wait_ready("store")
    assert fetched(url) == b"kept"  # at once: who is ready answers
    assert site.planned("store").check.problem() == ""
    secret = (site.folder / "_password").read_text()
    assert not any(secret in text for _, text in running.seen)
    assert secret not in (site.folder / "_topology.toml").read_text()


def test_a_store_without_its_program_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outgrow.topology.swift.program", lambda kind: tmp_path / kind)
    with pytest.raises(MissingExtra, match=r"outgrow\[local-swift\]"):
        Run(load(store_site(tmp_path)), tmp_path / "run").local.prepare(dry_run=True)


def test_a_secret_that_is_not_where_the_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from outgrow.topology.load import current

    path = tmp_path / "topology.toml"
    path.write_text(TEXT)
    monkeypatch.delenv("PHOTOS_SECRET", raising=False)
    with pytest.raises(TopologyError, match=r"objects\.secret_env.*PHOTOS_SECRET is not set"):
        current(path)
    monkeypatch.setenv("PHOTOS_SECRET", "hush")
    found = current(path).objects
    assert found
    assert found.secret == "hush"
