"""Every mistake in the options gives its path and a hint, and none hides another."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.test import override_settings
from django.utils.functional import SimpleLazyObject
from hypothesis import given
from hypothesis import strategies as st

from outgrow import conf
from outgrow.conf import MediaOptions, media_options
from outgrow.errors import ConfigurationError
from outgrow.servers import Server

PATH = "STORAGES['default']['OPTIONS']"


@pytest.fixture(autouse=True)
def _media_url() -> Iterator[None]:
    if not settings.configured:
        settings.configure()
    with override_settings(MEDIA_URL="https://www.example.com/uploads/"):
        yield


def good(given: dict[str, Any]) -> MediaOptions:
    options, problems = media_options(given, PATH)
    assert problems == []
    return options


def problems_of(given: dict[str, Any]) -> list[ConfigurationError]:
    problems = media_options(given, PATH)[1]
    for problem in problems:
        assert problem.path.startswith(PATH)
        assert problem.hint, f"no hint: {problem}"
        assert str(problem) == f"{problem.path}: {problem.problem} {problem.hint}"
    return problems


def the_problem(given: dict[str, Any]) -> ConfigurationError:
    (problem,) = problems_of(given)
    return problem


THREE = ["http://a:1", "http://b:1", "http://c:1"]


def test_the_defaults() -> None:
    assert good({"servers": ["http://media1:8080"]}) == MediaOptions(
        servers=(Server("media1:8080", "http://media1:8080/"),),
        need=1,
        names="unique",
        timeout=2.0,
        deadline=25.0,
        downtime=60.0,
        fsync=False,
        show_traceback=False,
        token="",
        transport=None,
    )


def test_all_options_are_taken() -> None:
    given = {
        "names": "keep",
        "timeout": 1,
        "deadline": 10.5,
        "downtime": 5,
        "fsync": True,
        "show_traceback": True,
        "token": "s3cret!",
        "transport": dict,
    }
    django = {
        "location": "/srv",
        "base_url": "/media/",
        "file_permissions_mode": 0o644,
        "directory_permissions_mode": None,
        "allow_overwrite": True,
    }
    options = good({"servers": THREE, "need": 2, **given, **django})
    assert {name: getattr(options, name) for name in given} == given
    assert options.need == 2


@pytest.mark.parametrize(
    ("value", "name", "address"),
    [
        ("http://media1", "media1", "http://media1/"),
        ("http://media1:8080", "media1:8080", "http://media1:8080/"),
        ("HTTP://Media1:80/Path", "media1", "http://media1/Path/"),
        ("https://10.0.0.5/media/", "10.0.0.5", "https://10.0.0.5/media/"),
        ("http://[::1]:8080/a b/", "[::1]:8080", "http://[::1]:8080/a%20b/"),
        # host:port is django-resto's: the path of MEDIA_URL comes between.
        ("media1:8080", "media1:8080", "http://media1:8080/uploads/"),
        ("10.0.0.5:80", "10.0.0.5", "http://10.0.0.5/uploads/"),
        ("[::1]:8080", "[::1]:8080", "http://[::1]:8080/uploads/"),
    ],
)
def test_a_server(value: str, name: str, address: str) -> None:
    assert good({"servers": [value]}).servers == (Server(name, address),)
    assert good({"servers": {"given": value}}).servers == (Server("given", address),)
    assert good({"servers": (value,)}).servers[0].address == address


@pytest.mark.parametrize(
    ("base_url", "path"),
    [
        (None, "/uploads/"),
        ("/media/", "/media/"),
        ("media/", "/media/"),
        ("http://cdn.example.com/m/", "/m/"),
        ("//cdn.example.com/m", "/m/"),
        ("http://cdn.example.com", "/"),
        ("", "/"),
        (SimpleLazyObject(lambda: "/lazy/"), "/lazy/"),
    ],
)
def test_host_and_port_take_the_path_of_the_media_url(base_url: object, path: str) -> None:
    given = {"servers": ["media1:8080"], "base_url": base_url}
    assert good(given).servers[0].address == f"http://media1:8080{path}"
    assert good({**given, "servers": ["http://media1:8080"]}).servers[0].address.endswith("0/")


def test_an_empty_media_url_is_the_root() -> None:
    with override_settings(MEDIA_URL=""):
        assert good({"servers": ["media1:8080"]}).servers[0].address == "http://media1:8080/"


@pytest.mark.parametrize(
    ("need", "count", "expected"),
    [
        ("all", 1, 1),
        ("all", 3, 3),
        ("majority", 1, 1),
        ("majority", 2, 2),
        ("majority", 3, 2),
        ("majority", 4, 3),
        (0, 3, 0),
        (1, 3, 1),
        (3, 3, 3),
    ],
)
def test_need(need: object, count: int, expected: int) -> None:
    servers = [f"http://media{number}" for number in range(count)]
    assert good({"servers": servers, "need": need}).need == expected


MISTAKES = [
    ({}, "['servers']", "is missing or empty", "http://media1:8080"),
    ({"servers": []}, "['servers']", "is missing or empty", "Give a list"),
    ({"servers": {}}, "['servers']", "is missing or empty", "mapping"),
    ({"servers": None}, "['servers']", "is missing or empty", "Give a list"),
    ({"servers": "http://a"}, "['servers']", "is a text", "Give a list"),
    ({"servers": b"http://a"}, "['servers']", "is a text", "Give a list"),
    ({"servers": 7}, "['servers']", "neither a list", "Give a list"),
    ({"servers": {"http://a"}}, "['servers']", "neither a list", "Give a list"),
    ({"servers": [7]}, "['servers'][0]", "is 7, not a URL", "http://HOST:PORT"),
    ({"servers": {"m": None}}, "['servers']['m']", "is None, not a URL", "http://"),
    ({"servers": [""]}, "['servers'][0]", "is not an http:// or https:// URL", "http://"),
    ({"servers": ["media1"]}, "['servers'][0]", "is not an http:// or", "http://HOST:PORT"),
    ({"servers": ["ftp://a"]}, "['servers'][0]", "'ftp://a' is not an http", "http://HOST:PORT"),
    ({"servers": ["http://a:0"]}, "['servers'][0]", "no valid port", "http://HOST:PORT"),
    ({"servers": ["a:99999"]}, "['servers'][0]", "no valid port", "http://HOST:PORT"),
    ({"servers": ["http://a/?x=1"]}, "['servers'][0]", "has a query", "http://HOST:PORT"),
    ({"servers": ["http:///a"]}, "['servers'][0]", "no valid host", "http://HOST:PORT"),
    ({"servers": {"a/b": "http://a"}}, "['servers']['a/b']", "'a/b' can't be", "letters"),
    ({"servers": {"": "http://a/.."}}, "['servers']['']", "'..'", "http://"),
    ({"servers": {".x": "http://a"}}, "['servers']['.x']", "can't be a server's name", "Use"),
    ({"servers": {"x" * 101: "http://a"}}, f"['servers'][{'x' * 101!r}]", "can't be", "Use"),
    ({"servers": {"a\n": "http://a"}}, "['servers']['a\\n']", "can't be", "Use letters"),
    ({"servers": ["http://a", "http://a/b"]}, "['servers'][1]", "second server named", "own"),
    ({"servers": ["http://a", "http://A:80/"]}, "['servers'][1]", "second server named", "own"),
    (
        {"servers": {"m": "http://a", "n": "http://a:80/"}},
        "['servers']['n']",
        "is the same server as 'm': http://a/",
        "a server of its own",
    ),
    ({"servers": THREE, "sevrers": 1}, "['sevrers']", "is not an option", "mean 'servers'?"),
    ({"servers": THREE, 7: 1}, "[7]", "is not an option", "There are: servers, need"),
    ({"servers": THREE, "xyzzy": 1}, "['xyzzy']", "is not an option", "There are: servers"),
    ({"servers": THREE, "need": 4}, "['need']", "is 4, but there are 3", "from 0 to 3"),
    ({"servers": THREE, "need": -1}, "['need']", "is -1", "from 0 to 3"),
    ({"servers": THREE, "need": "most"}, "['need']", "is 'most'", "'majority', 'all', or 0"),
    ({"servers": THREE, "need": "2"}, "['need']", "is '2'", "Write a number"),
    ({"servers": THREE, "need": True}, "['need']", "is True", "Write a number"),
    ({"servers": THREE, "need": 1.5}, "['need']", "is 1.5", "Write a number"),
    ({"servers": THREE, "need": None}, "['need']", "is None", "Write a number"),
    ({"servers": THREE, "need": ["all"]}, "['need']", "is ['all']", "Write a number"),
    ({"servers": THREE, "names": "both"}, "['names']", "is 'both'", "'unique' or 'keep'"),
    ({"servers": THREE, "names": []}, "['names']", "is []", "'unique' or 'keep'"),
    ({"servers": THREE, "timeout": 0}, "['timeout']", "is 0", "above 0"),
    ({"servers": THREE, "timeout": "2"}, "['timeout']", "is '2'", "seconds"),
    ({"servers": THREE, "timeout": None}, "['timeout']", "is None", "seconds"),
    ({"servers": THREE, "timeout": True}, "['timeout']", "is True", "seconds"),
    ({"servers": THREE, "deadline": -1}, "['deadline']", "is -1", "above 0"),
    ({"servers": THREE, "deadline": math.inf}, "['deadline']", "is inf", "at most 1000000"),
    ({"servers": THREE, "downtime": math.nan}, "['downtime']", "is nan", "above 0"),
    ({"servers": THREE, "downtime": 1e9}, "['downtime']", "is 1000000000.0", "at most"),
    ({"servers": THREE, "fsync": 1}, "['fsync']", "is 1", "True or False"),
    ({"servers": THREE, "show_traceback": "no"}, "['show_traceback']", "is 'no'", "True or"),
    ({"servers": THREE, "token": "a b"}, "['token']", "is not a token", "without spaces"),
    ({"servers": THREE, "token": "a\r\nX: b"}, "['token']", "is not a token", "ASCII"),
    ({"servers": THREE, "token": "é"}, "['token']", "is not a token", "ASCII"),
    ({"servers": THREE, "token": b"a"}, "['token']", "is not a token", "a text"),
    ({"servers": THREE, "transport": "x.Y"}, "['transport']", "can't be called", "Give a class"),
    ({"servers": THREE, "allow_overwrite": True}, "['allow_overwrite']", "no meaning", "'keep'"),
]


@pytest.mark.parametrize(("given", "path", "problem", "hint"), MISTAKES)
def test_a_mistake_gives_its_path_and_a_hint(
    given: dict[str, Any], path: str, problem: str, hint: str
) -> None:
    found = the_problem(given)
    assert found.path == PATH + path
    assert problem in found.problem
    assert hint in found.hint


def test_all_mistakes_are_listed_at_once() -> None:
    found = problems_of(
        {
            "servers": ["http://a", "b", "http://c/?q", "http://a"],
            "timeout": 0,
            "need": "most",
            "tokne": "x",
        }
    )
    assert {problem.path.removeprefix(PATH) for problem in found} == {
        "['servers'][1]",
        "['servers'][2]",
        "['servers'][3]",
        "['timeout']",
        "['need']",
        "['tokne']",
    }


def test_what_can_be_used_is_given_beside_the_problems() -> None:
    options, problems = media_options({"servers": THREE, "timeout": 0, "fsync": True}, PATH)
    assert len(problems) == 1
    assert options.timeout == 2.0
    assert options.fsync
    assert len(options.servers) == 3


def test_a_broken_server_is_not_a_mistake_in_need_as_well() -> None:
    assert the_problem({"servers": ["http://a", "b"], "need": 2}).path.endswith("['servers'][1]")


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hunter2@ho?st/",
        "http://user:hun@hunter2@host/",
        "http://user:hunter2/x@host/",
        "http://hunter2@host:port/",
        "http://user:hunter2?@host/",
        "http://user:hunter2#@host/",
        "http://user:hunter2\n@host/",
    ],
)
def test_a_password_is_not_shown(url: str) -> None:
    assert "hunter2" not in str(the_problem({"servers": [url]}))


@given(st.text() | st.text("htp:/[]@%.?#0aé \\\n", max_size=20).map("http://".__add__))
def test_any_text_is_a_server_or_a_problem(url: str) -> None:
    if not settings.configured:
        settings.configure()
    options, problems = media_options({"servers": [url]}, PATH)
    assert len(problems) == 1 - len(options.servers)
    assert all(problem.hint for problem in problems)


def test_the_settings_are_read_here() -> None:
    with override_settings(
        STORAGES={"default": {"BACKEND": "x"}}, MEDIA_ROOT="", INSTALLED_APPS=[]
    ):
        assert conf.storages() == {"default": {"BACKEND": "x"}}
        assert conf.media_root() == ""
