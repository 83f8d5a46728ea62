"""The options of an object storage: every mistake with its place and what to write instead."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from hypothesis import given
from hypothesis import strategies as st

from outgrow.conf import Location, ObjectOptions, object_options
from outgrow.conf.objects import OBJECT_OPTIONS
from outgrow.errors import ConfigurationError
from outgrow.objects import ObjectStorage

PATH = "STORAGES['default']['OPTIONS']"
S3 = {"location": "s3://bucket"}
SECRET = "do-not-show-this"


def good(given: dict[str, Any]) -> ObjectOptions:
    options, problems = object_options(given, PATH)
    assert problems == []
    return options


def the_problem(given: dict[str, Any]) -> ConfigurationError:
    (problem,) = object_options(given, PATH)[1]
    assert problem.path.startswith(PATH)
    assert problem.hint, f"no hint: {problem}"
    return problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket", Location("s3", "bucket", "")),
        ("s3://bucket/", Location("s3", "bucket", "")),
        ("s3://bucket/a/b/", Location("s3", "bucket", "a/b")),
        ("s3://bucket/a%20b", Location("s3", "bucket", "a b")),
        ("gs://bucket/a", Location("gs", "bucket", "a")),
        ("az://container/a", Location("az", "container", "a")),
        ("file:///var/media/", Location("file", "", "var/media")),
        ("memory://", Location("memory", "", "")),
        ("memory://one/a", Location("memory", "one", "a")),
    ],
)
def test_locations(text: str, expected: Location) -> None:
    given = {"location": text, **({"account": "x"} if text.startswith("az") else {})}
    assert good(given).location == expected


def test_a_location_is_written_as_it_was_given() -> None:
    for text in ("s3://bucket", "s3://bucket/a/b", "file:///var/media", "memory://one"):
        assert str(good({"location": text}).location) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "is missing"),
        ("", "is missing"),
        (7, "not a URL"),
        ("bucket", "no scheme that is known"),
        ("http://bucket", "no scheme that is known"),
        ("s3://", "names no bucket"),
        ("s3:///a", "names no bucket"),
        ("s3://key:hunter2@bucket", "holds credentials"),
        ("s3://bucket?a=b", "a query"),
        ("s3://bucket#a", "a query"),
        ("s3://bucket/a//b", "two slashes"),
        ("s3://bucket/../b", "'..'"),
        ("s3://[bucket", "is no URL"),
        ("file://host/a", "is no folder"),
        ("file:///", "is no folder"),
    ],
)
def test_what_is_no_location(text: object, words: str) -> None:
    problem = the_problem({"location": text})
    assert problem.path == f"{PATH}['location']"
    assert words in problem.problem
    assert "hunter2" not in str(problem)


@pytest.mark.parametrize(
    ("given", "where", "words"),
    [
        ({"endpoint": "minio:9000"}, "endpoint", "no http:// or https://"),
        ({"endpoint": "http://minio:0"}, "endpoint", "no http:// or https://"),
        ({"endpoint": "http://minio:x"}, "endpoint", "is no URL"),
        ({"endpoint": "http://minio/?a=b"}, "endpoint", "a query"),
        ({"endpoint": f"http://key:{SECRET}@minio/"}, "endpoint", "holds credentials"),
        ({"access_key": "a"}, "secret_key", "is missing beside 'access_key'"),
        ({"secret_key": SECRET}, "access_key", "is missing beside 'secret_key'"),
        ({"access_key": "a", "secret_key": f" {SECRET}"}, "secret_key", "no usable text"),
        ({"access_key": "a", "secret_key": "b", "anonymous": True}, "anonymous", "stands beside"),
        ({"access_key": "a", "secret_key": "b", "profile": "p"}, "profile", "stands beside"),
        ({"anonymous": True, "querystring_auth": True}, "querystring_auth", "stands beside"),
        ({"anonymous": 1}, "anonymous", "is 1"),
        ({"base_url": "media.example.org/"}, "base_url", "no http:// or https://"),
        ({"base_url": "https://media.example.org"}, "base_url", "does not end with a slash"),
        ({"querystring_expire": 0}, "querystring_expire", "is 0"),
        ({"querystring_expire": 604_801}, "querystring_expire", "is 604801"),
        ({"querystring_expire": float("nan")}, "querystring_expire", "is nan"),
        ({"timeout": True}, "timeout", "is True"),
        ({"part_size": 1 << 20}, "part_size", "is 1048576"),
        ({"concurrency": 0}, "concurrency", "is 0"),
        ({"concurrency": True}, "concurrency", "is True"),
        ({"addressing": "dns"}, "addressing", "is 'dns'"),
        ({"region": 7}, "region", "is not a text"),
        ({"ca": "certificate.pem"}, "ca", "is 'certificate.pem'"),
        ({"headers": {"Cache Control": "x"}}, "headers", "can't be the name of a header"),
        ({"headers": {"Cache-Control": "x\ny"}}, "headers", "a header can't have"),
        ({"headers": {"Cache-Control": timedelta(1)}}, "headers", "only Expires"),
        ({"headers": 7}, "headers", "neither a mapping nor a function"),
        ({"names": "unique", "overwrite": True}, "overwrite", "overwrite nothing"),
        ({"account": "a"}, "account", "no meaning with s3://"),
        ({"policy": "write"}, "policy", "is 'write'"),
        ({"cors": "https://a.example"}, "cors", "not a list"),
        ({"cors": ["a.example"]}, "cors", "which is no origin"),
        ({"cors": ["https://a.example/path"]}, "cors", "which is no origin"),
        ({"lifecycle": 7}, "lifecycle", "not a mapping"),
        ({"lifecycle": {"abort": 7}}, "lifecycle", "has 'abort', which is not known"),
        ({"lifecycle": {"abort_uploads_after": 0}}, "lifecycle", "whole numbers from 1 on"),
        ({"lifecycle": {"expire": {"tmp/": True}}}, "lifecycle", "whole numbers from 1 on"),
        ({"lifecycle": {"expire": ["tmp/"]}}, "lifecycle", "whole numbers from 1 on"),
        ({"versioning": "yes"}, "versioning", "is 'yes'"),
        ({"backup_bucket": "a/b"}, "backup_bucket", "not the name of a bucket"),
        ({"backup_bucket": 7}, "backup_bucket", "not the name of a bucket"),
        ({"backup_bucket": "bucket"}, "backup_bucket", "is the bucket itself"),
        ({"backup_format": 7}, "backup_format", "not a text"),
        ({"backup_format": "../%Y/"}, "backup_format", "makes no name"),
        ({"acces_key": "a"}, "acces_key", "is not an option"),
        ({"bucket_name": "a"}, "bucket_name", "is not an option"),
        ({"frobnicate": "a"}, "frobnicate", "is not an option"),
    ],
)
def test_mistakes(given: dict[str, Any], where: str, words: str) -> None:
    problem = the_problem(S3 | given)
    assert problem.path == f"{PATH}[{where!r}]"
    assert words in problem.problem
    assert SECRET not in str(problem)


def test_the_options_of_others_are_known_by_name() -> None:
    assert "'location'" in the_problem(S3 | {"bucket_name": "a"}).hint
    assert "Did you mean 'access_key'?" in the_problem(S3 | {"acces_key": "a"}).hint


def test_what_belongs_to_other_stores() -> None:
    assert "is missing" in the_problem({"location": "az://c"}).problem
    for name in ("region", "endpoint", "access_key"):
        value = "http://h" if name == "endpoint" else "x"
        problem = the_problem({"location": "file:///a", name: value})
        assert "no meaning with file://" in problem.problem


def test_when_urls_are_signed() -> None:
    assert good(S3).is_signed
    assert not good(S3 | {"base_url": "https://cdn.example.org/"}).is_signed
    assert good(S3 | {"base_url": "https://cdn.example.org/", "querystring_auth": True}).is_signed
    assert not good(S3 | {"querystring_auth": False}).is_signed
    assert not good(S3 | {"anonymous": True}).is_signed
    assert not good(S3 | {"policy": "read"}).is_signed
    assert good(S3 | {"policy": "none"}).is_signed
    assert not good({"location": "memory://"}).is_signed


def test_headers_may_be_anything_that_gives_some() -> None:
    for value in ({"Expires": timedelta(days=30)}, lambda name: {}, "site.headers.of"):
        assert good(S3 | {"headers": value}).headers == value


def test_no_secret_is_shown() -> None:
    given = S3 | {"access_key": "AKIA-NOT-THIS", "secret_key": SECRET, "session_token": SECRET}
    storage = ObjectStorage(**given)
    for text in (repr(good(given)), repr(storage), str(storage.deconstruct()), storage.server):
        assert SECRET not in text
        assert "AKIA-NOT-THIS" not in text
    with pytest.raises(ImproperlyConfigured) as raised:
        ObjectStorage(**given, regoin="x")
    assert SECRET not in str(raised.value)


def test_the_constructor_says_every_mistake() -> None:
    with pytest.raises(ImproperlyConfigured) as raised:
        ObjectStorage(location="s3://bucket", timeout=0, concurency=2)
    assert "ObjectStorage(...)['timeout']" in str(raised.value)
    assert "Did you mean 'concurrency'?" in str(raised.value)


def test_migrations_hold_the_class_alone() -> None:
    storage = ObjectStorage(**S3, access_key="a", secret_key=SECRET)
    assert storage.deconstruct() == ("outgrow.objects.ObjectStorage", (), {})
    again = ObjectStorage()
    with pytest.raises(ImproperlyConfigured, match=r"'location'.*is missing"):
        again.exists("a.txt")


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.lists(st.text()),
)


@given(st.dictionaries(st.sampled_from(OBJECT_OPTIONS), values))
def test_nothing_that_is_given_breaks_the_check(given: dict[str, Any]) -> None:
    options, problems = object_options(given, PATH)
    assert problems
    assert isinstance(options, ObjectOptions)
    assert all(problem.hint for problem in problems)
