"""Static servers over HTTP: what they miss is owed, and no page comes before what it needs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.files.storage import storages
from django.test import override_settings

from outgrow.errors import ConfigurationError, PublishError
from outgrow.media.repair import Repair
from outgrow.publish.configuration import target
from outgrow.publish.prune import Policy
from outgrow.testing import MediaServer
from tests.live.nginx import Nginx
from tests.publish.sites import FILES, publish, target_of, write
from tests.publish.subjects import Place
from tests.publish.test_push import Visitor, child, decoded, references, versioned

Servers = dict[str, MediaServer]


@pytest.fixture
def servers() -> Iterator[Servers]:
    with MediaServer() as one, MediaServer() as two:
        yield {"static1": one, "static2": two}


def described(tmp_path: Path, urls: dict[str, str]) -> str:
    return json.dumps({"servers": urls, "location": str(tmp_path / "master")})


@pytest.fixture
def words(tmp_path: Path, servers: Servers) -> str:
    return described(tmp_path, {name: one.url for name, one in servers.items()})


def on(server: MediaServer) -> dict[str, bytes]:
    hidden = ("outgrow-publish/", "outgrow-master-id")
    return {key: body for key, body in server.files.items() if not key.startswith(hidden)}


def complete(files: dict[str, bytes]) -> bool:
    """Whether the page is there with all that it refers to."""
    waiting, seen = ["site.css"], set()
    while waiting:
        key = waiting.pop()
        if key not in files:
            return False
        if key.endswith(".css") and key not in seen:
            seen.add(key)
            waiting += references(key, decoded(files[key]))
    return True


def test_every_server_gets_all_of_it(servers: Servers, words: str, source: Path) -> None:
    report = publish(target_of(words), source)
    assert report.has_moved
    one, two = map(on, servers.values())
    assert one == two
    assert complete(one)
    assert any(key.endswith(".js.gz") for key in one)
    before = {name: dict(server.files) for name, server in servers.items()}
    assert not publish(target_of(words), source).has_moved
    assert {name: dict(server.files) for name, server in servers.items()} == before


def test_what_a_server_misses_is_owed(servers: Servers, words: str, source: Path) -> None:
    publish(target_of(words), source)
    servers["static2"].stop()
    write(source, {**FILES, "img/back.png": b"\x89PNG another"})
    publish(target_of(words), source)
    assert complete(on(servers["static1"]))
    servers["static2"].start()
    made = target_of(words)
    time.sleep(0.2)  # its downtime
    report = Repair(made._storage.replication).once(settle=False)  # type: ignore[attr-defined]
    assert report.still_owed == 0
    assert on(servers["static1"]) == on(servers["static2"])


def test_no_page_without_servers(servers: Servers, words: str, source: Path) -> None:
    publish(target_of(words), source)
    old = on(servers["static1"])["site.css"]
    for server in servers.values():
        server.stop()
    write(source, {**FILES, "img/back.png": b"\x89PNG another"})
    with pytest.raises(PublishError, match=r"Only 0 of the servers of STORAGES\['static'\]"):
        publish(target_of(words), source)
    for server in servers.values():
        server.start()
    assert on(servers["static1"])["site.css"] == old
    time.sleep(0.2)
    assert publish(target_of(words), source).has_moved
    assert complete(on(servers["static2"]))


def test_pruning_deletes_on_the_servers(servers: Servers, words: str, source: Path) -> None:
    from datetime import UTC, datetime, timedelta

    from outgrow.publish.prune import Prune

    publish(target_of(words), source)
    write(source, {**FILES, "img/back.png": b"\x89PNG another"})
    publish(target_of(words), source)
    before = on(servers["static2"])
    for days in (0, 2):
        now = datetime.now(UTC) + timedelta(days=days)
        policy = Policy(keep=1, older=timedelta(0))
        Prune(target_of(words), policy, clock=lambda now=now: now).apply()
    after = on(servers["static2"])
    assert set(after) < set(before)
    assert complete(after)
    assert len([key for key in after if key.startswith("img/")]) == 1


def test_storages_of_another_kind(tmp_path: Path, servers: Servers) -> None:
    media = "outgrow.media.HybridStorage"
    options = {"servers": [servers["static1"].url], "location": str(tmp_path / "m")}
    good = {"names": "keep", "allow_overwrite": True}
    with override_settings(
        STORAGES={
            "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
            "unique": {"BACKEND": media, "OPTIONS": options},
            "assets": {"BACKEND": media, "OPTIONS": options | good},
        }
    ):
        assert target("storage:assets", tmp_path).target().name == (
            "the servers of STORAGES['assets']"
        )
        with pytest.raises(PublishError, match="is a InMemoryStorage"):
            target("storage:default", tmp_path).target()
        with pytest.raises(PublishError, match="allow_overwrite=True"):
            target("storage:unique", tmp_path).target()
        with pytest.raises(ConfigurationError, match="STORAGES has no 'other'"):
            target("storage:other", tmp_path).target()
        with pytest.raises(ConfigurationError, match="has no meaning for servers"):
            target({"url": "storage:assets", "region": "x"}, tmp_path)
        assert storages["assets"]


class Reader:
    """Looks at what nginx serves, as a target would."""

    def __init__(self, nginx: Nginx) -> None:
        self._nginx = nginx

    def read(self, key: str) -> bytes | None:
        path = self._nginx.root / key
        return path.read_bytes() if path.exists() else None


@pytest.mark.drill
@pytest.mark.timeout(600)
def test_visitors_of_nginx_miss_nothing_while_publishers_are_killed(
    three_nginx: list[Nginx], tmp_path: Path, source: Path
) -> None:
    """Promise P1 over HTTP: 50 publications, each killed at a step of its own."""
    words = described(tmp_path, {f"s{n}": one.url for n, one in enumerate(three_nginx)})
    place = Place({"servers": {}}, dict)
    place.described = words
    place.target = lambda: target_of(words)  # type: ignore[method-assign]
    publish(target_of(words), write(source, versioned(0)))
    visitors = []
    for nginx in three_nginx:
        visitor = Visitor(place)
        visitor._target = Reader(nginx)  # type: ignore[assignment]
        visitors.append(visitor)
        visitor.start()
    kills = 0
    for number in range(1, 51):
        write(source, versioned(number))
        kills += child(place, source, number % 23 + 1) == -9
        if number % 2:
            publish(target_of(words), source)
    for visitor in visitors:
        visitor.end()
    assert [visitor.problems for visitor in visitors] == [[], [], []]
    assert min(visitor.pages for visitor in visitors) > 20
    assert kills > 30
