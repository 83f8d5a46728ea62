"""What a client has written: notes, cookies, and a real Redis."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core import signing
from django.core.cache import caches
from django.http import HttpResponse
from django.test import Client, RequestFactory, override_settings
from hypothesis import given
from hypothesis import strategies as st

from outgrow.conf import ClusterOptions, Remember
from outgrow.databases.position import GtidSet, Lsn
from outgrow.databases.remember import (
    MOST,
    CacheNotes,
    Cookies,
    packed,
    together,
    unpacked,
)
from outgrow.databases.route import PIN, Wanted
from tests.databases.sites import site
from tests.live.redis import Redis

NOW = 1_000_000.0
A, B, C = Wanted((Lsn(1, 10),)), Wanted((Lsn(1, 20),)), Wanted((Lsn(2, 5),))


def request(cookies: dict[str, str] | None = None, **more: Any) -> Any:
    made = RequestFactory().get("/", **more)
    made.COOKIES.update(cookies or {})
    return made


def test_a_note_says_what_it_was_told_until_its_deadline() -> None:
    written = {"default": B, "other": PIN, "third": B.merged(C)}
    note = packed(written, NOW + 60)
    assert unpacked(note, NOW) == written
    assert unpacked(note, NOW + 60) == written
    assert unpacked(note, NOW + 62) == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "[]",
        "[1]",
        "{}",
        "[9e99, 3]",
        '["x", {}]',
        '[9e99, {"default": "pg:x"}]',
        "null",
        '[9e99, {"default": 3}]',
        "[" * 10_000,
    ],
)
def test_what_is_no_note(text: str) -> None:
    assert unpacked(text, NOW) == {}


@given(st.text(max_size=200))
def test_no_text_is_an_error(text: str) -> None:
    unpacked(text, NOW)


def test_a_cookie_that_would_be_too_long_means_the_primary() -> None:
    """A browser would drop it without a word."""
    uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
    ranges = ":".join(f"{number}-{number + 1}" for number in range(1, 600, 3))
    long = Wanted((GtidSet.of(f"{uuid}:{ranges}"),))
    for written, wanted in (
        ({"default": long}, {"default": long}),
        ({"default": long, "other": long}, {"default": PIN, "other": PIN}),
    ):
        cookies, response = Cookies("outgrow", clock=lambda: NOW), HttpResponse()
        cookies.write(request(), response, written, 60, [])
        ((name, morsel),) = response.cookies.items()
        assert len(morsel.OutputString()) < 4096
        assert cookies.read(request({name: morsel.value})).written == wanted


def test_names_that_are_not_ours_are_left_alone() -> None:
    """A sibling domain can set any name, and one that is no token breaks the response."""
    others = ("outgrow-a[b]", "outgrow-consent", "outgrow-0000000", "outgrow-0000000g", "x")
    found = Cookies("outgrow").read(request(dict.fromkeys(others, "1")))
    assert found.notes == ()


def test_notes_come_together_in_any_order() -> None:
    assert together([{"default": A}, {"default": B}]) == {"default": B}
    assert together([{"default": B}, {"default": A}, {"other": PIN}]) == {
        "default": B,
        "other": PIN,
    }


def test_a_cookie_there_and_back() -> None:
    cookies = Cookies("outgrow", clock=lambda: NOW)
    response = HttpResponse()
    cookies.write(request(secure=True), response, {"default": A}, 60, ["outgrow-0badc0de"])
    (name,) = [one for one in response.cookies if one != "outgrow-0badc0de"]
    morsel = response.cookies[name]
    assert morsel["httponly"]
    assert morsel["secure"]
    assert morsel["samesite"] == "Lax"
    assert morsel["max-age"] == 61
    assert response.cookies["outgrow-0badc0de"]["max-age"] == 0
    assert "Cookie" in response["Vary"]
    assert "private" in response["Cache-Control"]
    found = cookies.read(request({name: morsel.value, "sessionid": "x", "outgrow-00000000": ""}))
    assert found.written == {"default": A}
    assert found.notes == (name,)
    # Later it is no note any more, but is still taken away by the next write.
    late = Cookies("outgrow", clock=lambda: NOW + 62).read(request({name: morsel.value}))
    assert late.written == {}
    assert late.notes == (name,)


def test_what_a_response_says_of_caches_is_kept() -> None:
    response = HttpResponse(headers={"Cache-Control": "no-store"})
    Cookies("outgrow").write(request(), response, {"default": A}, 60, [])
    assert response["Cache-Control"] == "no-store"
    response = HttpResponse(headers={"Cache-Control": "public, max-age=60", "Vary": "Accept"})
    Cookies("outgrow").write(request(), response, {"default": A}, 60, [])
    assert "public" not in response["Cache-Control"]
    assert response["Vary"] == "Accept, Cookie"


def test_forged_cookies_are_no_notes() -> None:
    """Trap (j): nobody steers requests without our signature."""
    forged = signing.Signer(salt="another").sign_object(packed({"default": PIN}, NOW + 60))
    for value in ("x", "a:b", forged, packed({"default": PIN}, NOW + 60), "\x00", ":" * 5000):
        found = Cookies("outgrow", clock=lambda: NOW).read(request({"outgrow-00000001": value}))
        assert found.written == {}


def test_more_notes_than_are_read_mean_the_primary() -> None:
    many = {f"outgrow-{number:08x}": "x" for number in range(MOST + 1)}
    found = Cookies("outgrow").read(request(many))
    assert found.written == {"": PIN}
    assert set(found.notes) == set(many)


@pytest.mark.parametrize("secure", [False, True])
def test_the_cookie_is_as_that_of_the_session(secure: bool) -> None:
    response = HttpResponse()
    with override_settings(
        SESSION_COOKIE_DOMAIN=".example.org",
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_COOKIE_SECURE=secure,
    ):
        Cookies("outgrow").write(request(), response, {"default": A}, 60, [])
    (morsel,) = response.cookies.values()
    assert morsel["domain"] == ".example.org"
    assert morsel["samesite"] == "Strict"
    assert bool(morsel["secure"]) is secure


# --- the cache


@pytest.fixture
def redis_cache(redis_server: Redis) -> Any:
    backend = "django.core.cache.backends.redis.RedisCache"
    with override_settings(
        CACHES={"default": {"BACKEND": backend, "LOCATION": redis_server.url, "KEY_PREFIX": "t"}}
    ):
        caches["default"].clear()
        yield
        caches["default"].clear()


def user_key(request: Any) -> str | None:
    return request.headers.get("Authorization")


def notes(clock: Any = lambda: NOW, **more: Any) -> CacheNotes:
    remember = Remember("cache", "default", user_key)
    return CacheNotes(ClusterOptions("default", remember=remember, **more), clock=clock)


def test_notes_of_writers_at_the_same_time_are_all_kept(redis_cache: None) -> None:
    cache, user = notes(), request(headers={"Authorization": "u"})
    seen = cache.read(user)
    assert seen.written == {}
    assert cache.write(user, {"default": A}, 60, seen.notes)
    assert cache.write(user, {"default": C}, 60, seen.notes)
    both = cache.read(user)
    assert both.written == {"default": A.merged(C)}
    assert len(both.notes) == 2
    assert cache.write(user, {"default": B.merged(C)}, 60, both.notes)
    assert len(cache.read(user).notes) == 1
    assert cache.read(request(headers={"Authorization": "v"})).written == {}
    # Nobody is told apart: another place must remember it.
    assert not cache.write(request(), {"default": A}, 60, ())
    assert cache.read(request()).written == {}


def test_notes_end_by_their_deadline(redis_cache: None) -> None:
    now = [NOW]
    cache, user = notes(lambda: now[0]), request(headers={"Authorization": "u"})
    cache.write(user, {"default": A}, 60, ())
    now[0] += 100
    assert cache.read(user).written == {}
    cache.write(user, {"default": B}, 60, ())
    client, name = cache._client("u")
    assert client.zcard(name) == 1
    assert 0 < client.ttl(name) <= 61


def test_too_many_notes_mean_the_primary(redis_cache: None) -> None:
    cache, user = notes(), request(headers={"Authorization": "u"})
    for number in range(MOST + 1):
        cache.write(user, {"default": Wanted((Lsn(number + 1, 1),))}, 60, ())
    assert cache.read(user).written == {"": PIN}


def test_a_cache_that_is_away_means_the_primary() -> None:
    backend = "django.core.cache.backends.redis.RedisCache"
    away = {"default": {"BACKEND": backend, "LOCATION": "redis://127.0.0.1:1/0"}}
    with override_settings(CACHES=away):
        user = request(headers={"Authorization": "u"})
        assert notes().read(user).written == {"": PIN}
        assert not notes().write(user, {"default": A}, 60, ())


@pytest.mark.parametrize("remember", ["cache", "both"])
@pytest.mark.usefixtures("protocol")
def test_a_second_device_reads_what_the_first_wrote(
    sqlite_databases: Any, redis_cache: None, remember: str
) -> None:
    with site(sqlite_databases, remember=remember, key="tests.databases.test_remember.user_key"):
        phone = Client(headers={"Authorization": "u"})
        laptop = Client(headers={"Authorization": "u"})
        phone.post("/write/?name=a")
        cookies = [name for name in phone.cookies if name.startswith("outgrow-")]
        assert bool(cookies) is (remember == "both")
        client, name = notes()._client("u")
        (member,) = client.zrange(name, 0, -1)
        assert "sq:" in json.loads(member)[1]["default"]
        assert laptop.get("/list/").json()["names"] == ["a"]


@pytest.mark.usefixtures("protocol")
def test_when_the_cache_is_away_the_cookie_takes_over(sqlite_databases: Any) -> None:
    backend = "django.core.cache.backends.redis.RedisCache"
    away = {"default": {"BACKEND": backend, "LOCATION": "redis://127.0.0.1:1/0"}}
    key = "tests.databases.test_remember.user_key"
    with (
        override_settings(CACHES=away),
        site(sqlite_databases, remember="cache", key=key),
    ):
        client = Client(headers={"Authorization": "u"})
        client.post("/write/?name=a")
        assert [name for name in client.cookies if name.startswith("outgrow-")]
        assert client.get("/list/").json()["db"] == "default"
