"""Settings against the topology that they were made of; and what renderers keep by themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given

from outgrow.mistakes import Mistake
from outgrow.topology import rendering
from outgrow.topology.applications import Application, words
from outgrow.topology.contradictions import Said, advice, contradictions
from outgrow.topology.front import APP_IDLE, IDLE
from outgrow.topology.model import Port, Site
from outgrow.topology.presets import PRESETS
from outgrow.topology.render.systemd import Places
from outgrow.topology.settings import django_settings
from tests.topology.sites import sites
from tests.topology.test_capacity import MARIADB, apps, of_preset, site

FRONTED = {"lb": "balancer", **apps(2), "media1": "media", "media2": "media"}


def said(one: Site, **changes: Any) -> Said:
    """What the settings say that are made of a site, with changes."""
    made = django_settings(one)
    header = made.get("SECURE_PROXY_SSL_HEADER")
    found: dict[str, Any] = {
        "allowed_hosts": tuple(made["ALLOWED_HOSTS"]),
        "trusted": {"SECURE_PROXY_SSL_HEADER": header[0]} if header else {},
        "max_form": None,
        "storages": made["STORAGES"],
    }
    return Said(**found | changes)


def numbers(found: Iterator[Mistake]) -> list[str]:
    return [one.number for one in found]


@given(sites())
def test_what_is_made_of_a_site_agrees_with_it(one: Site) -> None:
    assert numbers(contradictions(one, said(one))) == []
    assert set(numbers(advice(one, said(one)))) <= {"W607", "I608"}


@pytest.mark.parametrize("kind", PRESETS)
def test_presets(kind: str) -> None:
    one = of_preset(kind)
    assert numbers(contradictions(one, said(one))) == []
    rest = ["I608"] if kind in {"redundant", "big"} else []
    assert numbers(advice(one, said(one))) == rest


@pytest.mark.parametrize(
    ("allowed", "is_told"),
    [
        (("shop.example.org",), False),
        (("SHOP.example.org",), False),
        ((".example.org",), False),
        ((".shop.example.org",), False),
        (("*",), False),
        (("www.shop.example.org", "example.org"), True),
        ((".org.example",), True),
        ((), True),
    ],
)
def test_names_that_the_site_refuses(allowed: tuple[str, ...], is_told: bool) -> None:
    one = site(FRONTED)
    found = list(contradictions(one, said(one, allowed_hosts=allowed)))
    assert [each.number for each in found] == (["E601"] if is_told else [])
    assert not is_told or (found[0].is_error and "'shop.example.org'" in found[0].text)


def test_any_name() -> None:
    one = site(FRONTED)
    assert "W602" in numbers(advice(one, said(one, allowed_hosts=("*",))))
    assert "W602" not in numbers(advice(one, said(one)))


@pytest.mark.parametrize("name", ["SECURE_PROXY_SSL_HEADER", "USE_X_FORWARDED_HOST"])
def test_headers_that_nobody_writes_anew(name: str) -> None:
    proto, own = "HTTP_X_FORWARDED_PROTO", "HTTP_X_SCHEME"
    fronted, bare = site(FRONTED), site({**apps(2), "media1": "media"})
    assert "W603" not in numbers(advice(fronted, said(fronted, trusted={name: proto})))
    assert "W603" not in numbers(advice(bare, said(bare)))
    [odd, *_] = advice(fronted, said(fronted, trusted={name: own}))
    assert odd.number == "W603"
    assert f"{name} believes X-Scheme, and the balancers pass it on" in odd.text
    [none, *_] = advice(bare, said(bare, trusted={name: proto}))
    assert f"{name} believes X-Forwarded-Proto, and the topology has no balancer" in none.text
    assert not none.is_error


def test_forms_that_are_refused_before_the_site() -> None:
    one = site(FRONTED, balancer={"max_upload": 10})
    for size, told in ((10_000_001, ["W604"]), (10_000_000, []), (None, [])):
        assert numbers(contradictions(one, said(one, max_form=size))) == told
    bare = site({**apps(2), "media1": "media"})
    assert numbers(contradictions(bare, said(bare, max_form=10**9))) == []


@pytest.mark.parametrize(
    ("storages", "missing"),
    [
        ({"default": {"BACKEND": "django.core.files.storage.FileSystemStorage"}}, "media1, media2"),
        ({"default": {"OPTIONS": {"servers": {"media1": "http://10.0.0.4:8080/"}}}}, "media2"),
        ({"a": {"OPTIONS": {"servers": ["http://10.0.0.4:8080"]}}, "b": "text"}, "media2"),
        ({"a": {"OPTIONS": "text"}, "b": {"OPTIONS": {"servers": 7}}}, "media1, media2"),
        (
            {
                "a": {"OPTIONS": {"servers": ("http://me:secret@10.0.0.4:8080",)}},
                "b": {"OPTIONS": {"servers": ["http://10.0.0.5:8080"]}},
            },
            "",
        ),
    ],
)
def test_media_servers_that_get_no_files(storages: dict[str, Any], missing: str) -> None:
    one = site(FRONTED)
    found = list(contradictions(one, said(one, storages=storages)))
    assert [each.number for each in found] == (["W605"] if missing else [])
    assert not missing or f"sends files to {missing}:" in found[0].text


@pytest.mark.parametrize(
    ("command", "workers", "told"),
    [
        ("python -m celery -A shop worker -B", 2, ["W606"]),
        ("python -m celery -A shop beat", 3, ["W606"]),
        ("python -m celery -A shop worker --beat", 1, []),
        ("python -m celery -A shop worker", 2, []),
    ],
)
def test_scheduled_tasks(command: str, workers: int, told: list[str]) -> None:
    servers = {f"work{number}": "worker" for number in range(workers)}
    one = site({**FRONTED, **servers}, worker={"command": command})
    found = list(contradictions(one, said(one)))
    assert [each.number for each in found] == told
    assert not told or f"runs {workers} times" in found[0].text


def test_more_than_a_server_takes() -> None:
    many = {"lb": "balancer", "lb2": "balancer", **apps(6), "media1": "media", "db1": "primary"}
    one = site(many, database=MARIADB)
    found = [each for each in advice(one, said(one)) if each.number == "W607"]
    assert len(found) == 1
    assert "max_connections = 170" in found[0].text
    few = site({**many, "app6": "balancer"}, database=MARIADB)
    assert "W607" not in numbers(advice(few, said(few)))


def test_who_has_one_application_server_is_not_told_that_it_is_one() -> None:
    one, two = site({"web": "app media"}), site({**apps(2), "media1": "media"})
    assert numbers(advice(one, said(one))) == []
    assert numbers(advice(two, said(two))) == ["I608", "I608"]


# --- what has no check, for it can't be otherwise


@pytest.mark.parametrize("kind", PRESETS)
def test_no_start_command_migrates_and_balancers_hang_up_first(kind: str) -> None:
    one = of_preset(kind)
    files = {f.name: f.content for f in rendering.plan(one, Places())}
    units = {name: text for name, text in files.items() if name.endswith(".service")}
    assert units
    for text in units.values():
        assert "migrate" not in text
    for name, text in units.items():
        if name.endswith("outgrow-app.service"):
            [waits] = re.findall(r"--keep-alive (\d+) ", text)
            assert int(waits) > IDLE
    for name, text in files.items():
        if name.endswith("balancer.conf"):
            [kept] = re.findall(r"keepalive \d+;.*?keepalive_timeout (\d+)s;", text, re.DOTALL)[:1]
            assert int(kept) == IDLE < APP_IDLE


@pytest.mark.parametrize("engine", ["gunicorn", "uvicorn", "granian"])
def test_every_application_server_waits_longer_than_balancers(engine: str) -> None:
    listen = Port("10.0.0.1", 8000)
    found = words(engine, Application("shop.wsgi:application", listen))
    scale = {"--keep-alive": 1, "--timeout-keep-alive": 1, "--http1-header-read-timeout": 1000}
    [(word, unit)] = [(word, unit) for word, unit in scale.items() if word in found]
    assert int(found[found.index(word) + 1]) > IDLE * unit
