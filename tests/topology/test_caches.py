"""What application servers remember together: in memcached, and in Redis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from outgrow.errors import MissingExtra, TopologyError
from outgrow.topology import programs
from outgrow.topology.cache import ENGINES
from outgrow.topology.load import load
from outgrow.topology.local import LocalSite
from outgrow.topology.settings import django_settings
from tests.live.processes import wait_until
from tests.topology.sites import tiny_site
from tests.topology.test_local import get

COUNT = {"memcached": 2, "redis": 1}


@pytest.fixture(params=ENGINES, scope="module")
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalSite]:
    folder = tmp_path_factory.mktemp(request.param)
    path = tiny_site(folder, cache=request.param, caches=COUNT[request.param])
    with LocalSite(load(path), folder / "run") as local:
        yield local


def remember(site: LocalSite, server: str, query: str) -> str:
    return get(f"{site.address(server)}/remember?{query}")


def test_what_one_server_remembers_the_other_knows(site: LocalSite) -> None:
    for number in range(20):
        assert remember(site, "app1", f"key=k{number}&text=t{number}") == f"t{number}"
        assert remember(site, "app2", f"key=k{number}") == f"t{number}"


def test_a_cache_that_has_ended_forgets_and_serves_again(site: LocalSite) -> None:
    remember(site, "app1", "key=gone&text=here")
    site.hold("cache1")
    site.process("cache1").kill()
    site.release("cache1")
    site.wait_ready("cache1")
    wait_until(lambda: remembers_again(site), "the cache is used again")


def remembers_again(site: LocalSite) -> bool:
    try:
        return all(
            remember(site, "app1", f"key=again{n}&text=yes") == "yes"
            and remember(site, "app2", f"key=again{n}") == "yes"
            for n in range(10)
        )
    except OSError:  # an answer of 500: the servers have not noticed yet
        return False


def test_with_memcached_a_page_does_without_one_that_is_away(tmp_path: Path) -> None:
    path = tiny_site(tmp_path, cache="memcached", caches=2)
    with LocalSite(load(path), tmp_path / "run") as local:
        local.hold("cache1")
        local.process("cache1").kill()
        seen = {remember(local, "app1", f"key=k{n}&text=yes") for n in range(20)}
        # Some keys may have been that one's, and nobody gets an error for it.
        assert "yes" in seen
        assert seen <= {"yes", "nothing"}


def test_the_settings_name_the_caches_as_the_file_does(tmp_path: Path) -> None:
    several = django_settings(load(tiny_site(tmp_path / "a", cache="memcached", caches=2)))
    assert several["CACHES"]["default"]["LOCATION"] == ["10.0.0.41:11211", "10.0.0.42:11211"]
    one = django_settings(load(tiny_site(tmp_path / "b", cache="redis")))
    assert one["CACHES"]["default"]["LOCATION"] == "redis://10.0.0.41:6379"
    assert one["SESSION_ENGINE"] == "django.contrib.sessions.backends.cached_db"
    assert "CACHES" not in django_settings(load(tiny_site(tmp_path / "c")))


def test_several_redis_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match=r"servers.cache2.roles\[0\]: Redis is the cache"):
        load(tiny_site(tmp_path, cache="redis", caches=2))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_cache_that_is_not_installed_is_named(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = load(tiny_site(tmp_path, cache=engine))
    monkeypatch.setitem(programs.CLIENTS, engine, "no_such_client")
    with pytest.raises(MissingExtra, match=rf"no_such_client.*outgrow\[{engine}\]"):
        programs.find(site, tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(programs, "SYSTEM_PROGRAMS", str(tmp_path))
    with pytest.raises(TopologyError, match=r"cache\.engine: .* is not installed"):
        programs.find(site, tmp_path)
