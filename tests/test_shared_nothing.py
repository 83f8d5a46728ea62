"""What breaks on several application servers: each mistake, and what is none beside it."""

from __future__ import annotations

from typing import Any

import pytest

from outgrow.shared_nothing import Facts, Lock, advice, mistakes

LOCMEM = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
DUMMY = {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}
TABLE = {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "cache"}
REDIS = "django.core.cache.backends.redis.RedisCache"
MEMCACHED = "django.core.cache.backends.memcached.PyMemcacheCache"
FILES = "django.core.cache.backends.filebased.FileBasedCache"
DISK = {"BACKEND": "django.core.files.storage.FileSystemStorage"}
SESSIONS = "django.contrib.sessions.backends"


def redis(location: object = "redis://10.0.0.5:6379") -> dict[str, Any]:
    return {"BACKEND": REDIS, "LOCATION": location}


def memcached(location: object) -> dict[str, Any]:
    return {"BACKEND": MEMCACHED, "LOCATION": location}


def files(location: str) -> dict[str, Any]:
    return {"BACKEND": FILES, "LOCATION": location}


def database(engine: str, host: object = "") -> dict[str, Any]:
    return {"ENGINE": f"django.db.backends.{engine}", "HOST": host, "NAME": "x"}


def numbers(**facts: Any) -> list[str]:
    return [one.number for one in mistakes(Facts(**facts))]


@pytest.mark.parametrize("engine", ["cache", "cached_db"])
def test_sessions_in_the_memory_of_a_process(engine: str) -> None:
    def found(cache: dict[str, Any], **more: Any) -> list[str]:
        return numbers(
            session_engine=f"{SESSIONS}.{engine}", caches={"default": redis(), "s": cache}, **more
        )

    assert found(LOCMEM, session_cache="s") == ["E501", "W502"]
    assert found(DUMMY, session_cache="s") == ["E501"]
    assert found(redis(), session_cache="s") == []
    assert found(LOCMEM) == ["W502"]
    assert found(redis(), session_cache="nowhere") == []


def test_sessions_elsewhere() -> None:
    for engine in ("db", "signed_cookies"):
        assert numbers(session_engine=f"{SESSIONS}.{engine}", caches={"default": DUMMY}) == []


def test_sessions_in_files() -> None:
    engine = f"{SESSIONS}.file"
    assert numbers(session_engine=engine, session_folder="/tmp") == ["E503"]
    assert numbers(session_engine=engine) == ["E503"]
    assert numbers(session_engine=engine, session_folder="/mnt/a", shared=("/mnt",)) == []


def test_caches_of_one_server() -> None:
    assert numbers(caches={"default": LOCMEM, "other": redis()}) == ["W502"]
    assert numbers(caches={"default": files("/var/cache")}) == ["W506"]
    assert numbers(caches={"default": files("/mnt/site/cache")}, shared=("/mnt/site",)) == []
    assert numbers(caches={"default": files("/mnt/sites")}, shared=("/mnt/site",)) == ["W506"]
    assert numbers(caches={"default": TABLE, "none": DUMMY}) == []


@pytest.mark.parametrize(
    "location",
    [
        "redis://127.0.0.1:6379/1",
        "redis://:secret@localhost",
        ["redis://10.0.0.5", "redis://[::1]:6379"],
        "redis:///0",
        "unix:/run/redis.sock",
        "/run/memcached.sock",
    ],
)
def test_caches_at_this_machine(location: object) -> None:
    assert numbers(caches={"default": redis(location)}) == ["W509"]


@pytest.mark.parametrize(
    "location", ["127.0.0.1:11211", "localhost", ("10.0.0.5:11211", "127.0.0.1:11211")]
)
def test_memcached_at_this_machine(location: object) -> None:
    assert numbers(caches={"default": memcached(location)}) == ["W509"]


@pytest.mark.parametrize(
    "location", ["10.0.0.5:11211", ["cache1:11211", "cache2:11211"], "", None, "[::1", "[fd00::1]"]
)
def test_caches_that_all_reach(location: object) -> None:
    assert numbers(caches={"default": memcached(location)}) == []


def test_rows_of_one_server() -> None:
    assert numbers(databases={"default": database("sqlite3")}) == ["E504"]
    assert numbers(
        databases={"default": {"ENGINE": "django.contrib.gis.db.backends.spatialite"}}
    ) == ["E504"]
    for host in ("", "localhost", "127.0.0.1", "::1", "/run/postgresql"):
        assert numbers(databases={"default": database("postgresql", host)}) == ["E508"]
    assert numbers(databases={"default": database("postgresql", "db1")}) == []
    assert numbers(databases={"default": {}, "other": database("dummy")}) == []


def test_files_of_one_server() -> None:
    assert numbers(storages={"default": DISK}, media_root="/srv/media") == ["E505"]
    assert numbers(storages={"default": DISK}) == ["E505"]
    assert numbers(storages={"default": DISK}, media_root="/mnt/m", shared=("/mnt/m",)) == []
    located = {**DISK, "OPTIONS": {"location": "/mnt/m/private"}}
    assert numbers(storages={"private": located}, media_root="/srv", shared=("/mnt/m",)) == []
    hybrid = {"BACKEND": "outgrow.media.HybridStorage"}
    assert numbers(storages={"default": hybrid, "staticfiles": DISK, "wrong": "text"}) == []


# --- what counts, and where


DRF = "rest_framework.throttling.AnonRateThrottle"


def test_limits_that_each_process_counts_anew() -> None:
    def found(cache: dict[str, Any], *throttles: str) -> list[str]:
        return numbers(caches={"default": cache, "other": redis()}, throttles=throttles)

    assert found(LOCMEM, DRF) == ["E510", "W502"]
    assert found(DUMMY, DRF) == ["E510"]
    assert found(redis(), DRF) == []
    # It may count in another cache.
    assert found(DUMMY, "shop.throttles.Mine") == []
    assert found(DUMMY) == []
    [one] = mistakes(Facts(caches={"default": DUMMY}, throttles=("shop.Mine", DRF)))
    assert one.text.startswith(f"{DRF} counts in CACHES['default'], a DummyCache: nothing is")


@pytest.mark.parametrize(
    ("one", "other", "is_told"),
    [
        (["cache1:11211", "cache2:11211"], ["cache2:11211", "cache1:11211"], False),
        (["cache1", "cache2:11211"], ["cache1:11211", "cache2:11211"], True),
        (["CACHE1:11211", "cache2:11211"], ["cache1:11211", "cache2:11211"], True),
        (["cache1:11211", "cache2:11211"], ["cache1:11212", "cache2:11211"], False),
        (["cache1", "cache1:11211", "cache2"], ["cache3:11211"], True),
        (["cache1"], ["cache1:11211"], False),
    ],
)
def test_one_memcached_spelt_in_two_ways(one: Any, other: Any, is_told: bool) -> None:
    caches = {"default": memcached(one), "other": memcached(other), "redis": redis()}
    assert numbers(caches=caches) == (["W512"] if is_told else [])


def test_this_machine_has_several_names() -> None:
    here = memcached(["localhost:11211", "10.0.0.5:11211"])
    also = memcached(["127.0.0.1", "10.0.0.5:11211"])
    assert numbers(caches={"default": here, "also": also}) == ["W512", "W509", "W509"]


def test_only_what_lies_below_a_shared_folder_is_left_alone() -> None:
    def found(folder: str) -> list[str]:
        return numbers(caches={"default": files(folder)}, shared=("/mnt/site/", "/srv/media"))

    assert found("/mnt/site/cache") == found("/mnt/site") == found("/srv/media/x") == []
    for other in ("/mnt/sites", "/mnt/site/../cache", "/mnt", "mnt/site", ""):
        assert found(other) == ["W506"]
    assert Facts(shared=("/mnt", "/mnt/site")).share_of("/mnt/site/a") == "/mnt/site"


def test_what_one_request_writes_and_the_next_one_reads() -> None:
    module = "import_export.tmp_storages"
    assert numbers(imports=f"{module}.TempFolderStorage") == ["W516"]
    assert numbers(imports="TempFolderStorage", temporary_folder="/mnt/t", shared=("/mnt",)) == []
    for other in ("", f"{module}.MediaStorage", f"{module}.CacheStorage", "shop.Storage"):
        assert numbers(imports=other) == []


def test_locks_that_hold_on_one_server() -> None:
    def found(lock: Lock, cache: dict[str, Any]) -> list[str]:
        caches = {"default": redis(), "locks": cache}
        return numbers(caches=caches, locks=(lock,), shared=("/mnt/locks",))

    cached = Lock("DJANGO_CRON_CACHE", cache="locks")
    assert found(cached, LOCMEM) == ["W518", "W502"]
    assert found(cached, DUMMY) == ["W518"]
    assert found(cached, redis()) == found(cached, TABLE) == []
    assert found(Lock("X", cache="nowhere"), LOCMEM) == ["W502"]
    assert found(Lock("X", folder="/var/locks"), TABLE) == ["W518"]
    assert found(Lock("X", folder="/mnt/locks/a"), TABLE) == []
    first, _ = mistakes(Facts(caches={"locks": LOCMEM}, locks=(cached,)))
    assert first.text.startswith("DJANGO_CRON_CACHE has its locks in CACHES['locks'], a LocMemCa")


# --- with --deploy


def test_uploads_that_go_over_the_network_twice() -> None:
    def found(upload: str, media: str) -> list[str]:
        return advised(upload_folder=upload, media_root=media, shared=("/mnt/a", "/mnt/b"))

    assert found("/mnt/a/tmp", "/mnt/b/media") == found("/mnt/a", "/srv/media") == ["I517"]
    # A rename within one of them, and a copy from a disk of its own, which is no trap.
    assert found("/mnt/a/tmp", "/mnt/a/media") == found("/var/tmp", "/mnt/a") == []
    assert found("", "/mnt/a") == []


def advised(**facts: Any) -> list[str]:
    return [one.number for one in advice(Facts(**facts))]


def test_logs_and_mails_of_one_server() -> None:
    path = "LOGGING['handlers']['file']"
    assert advised(log_files={path: "/var/log/site.log"}) == ["W513"]
    assert advised(log_files={path: "/dev/stderr", "other": "/proc/1/fd/1"}) == []
    assert advised(mail_folder="/var/mails") == ["W513"]
    assert advised(mail_folder="/mnt/mails", shared=("/mnt",)) == []


def test_static_files_of_one_release() -> None:
    def found(storage: Any, **more: Any) -> list[str]:
        return advised(storages={"staticfiles": storage}, **more)

    manifest = {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"}
    whitenoise = {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"}
    assert found(manifest) == ["W514"]
    assert found(whitenoise, static_root="/srv/static") == ["W514"]
    assert found(manifest, static_root="/mnt/static", shared=("/mnt",)) == []
    assert found({"BACKEND": "outgrow.publish.storages.PublishedStaticFilesStorage"}) == []
    assert found("text") == []
    assert advised() == []


@pytest.mark.parametrize(
    ("host", "is_told"),
    [
        ("db1", True),
        ("10.0.0.5, db.example.org", True),
        ("10.0.0.5", False),
        ("fd00::1", False),
        ("10.0.0.5,10.0.0.6", False),
        ("", False),
        (None, False),
        ("localhost", False),
        ("/run/postgresql", False),
    ],
)
def test_a_database_at_a_name(host: object, is_told: bool) -> None:
    databases = {"default": database("postgresql", host)}
    assert advised(databases=databases) == (["I515"] if is_told else [])


def test_what_is_told() -> None:
    [one] = mistakes(Facts(databases={"default": database("postgresql", "localhost")}))
    assert one.is_error
    assert one.text.startswith("DATABASES['default'] is at localhost: each application server")
    assert "pooler" in one.hint
    [one] = mistakes(Facts(caches={"default": LOCMEM}))
    assert not one.is_error
    [one] = mistakes(Facts(databases={"default": database("mysql")}))
    assert "at a socket of this machine" in one.text
