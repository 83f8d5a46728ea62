"""What runs the site, as a value: the table [app], and what follows from it everywhere else."""

from __future__ import annotations

import shlex
import tomllib
from dataclasses import replace
from pathlib import PurePath, PurePosixPath
from typing import Any

import pytest

from outgrow.errors import TopologyErrors
from outgrow.topology import app, rendering
from outgrow.topology.app import App
from outgrow.topology.applications import ENGINES, application
from outgrow.topology.capacity import AT_ONCE, SPARE, connections
from outgrow.topology.changes import changes
from outgrow.topology.front import front
from outgrow.topology.model import Site, local, parse
from outgrow.topology.render import toml
from outgrow.topology.render.systemd import Places
from outgrow.topology.settings import django_settings

EXAMPLE = """
[site]
name = "photos"
settings = "photos.settings"
wsgi = "photos.wsgi:application"
domains = ["photos.example.org"]
media_root = "media"

[database]
engine = "postgresql"
name = "photos"

[servers.lb1]
roles = ["balancer"]
address = "10.0.0.1"

[servers.app1]
roles = ["app", "media"]
address = "10.0.0.11"

[servers.db1]
roles = ["primary"]
address = "10.0.0.31"
"""

ASGI = "photos.asgi:application"
RESTART = "systemctl restart outgrow-app.service"


def content(engine: str = "", asgi: str = "", **table: Any) -> dict[str, Any]:
    found = tomllib.loads(EXAMPLE)
    found["app"] = {**({"engine": engine} if engine else {}), **table}
    if asgi:
        found["site"]["asgi"] = asgi
    return found


def site(engine: str = "", asgi: str = "", **table: Any) -> Site:
    return parse(content(engine, asgi, **table), PurePath("/srv"))


def problems(found: dict[str, Any]) -> list[str]:
    with pytest.raises(TopologyErrors) as caught:
        parse(found, PurePath("/srv"))
    return [str(error) for error in caught.value.errors]


def rendered(found: Site, name: str) -> str:
    [text] = [one.content for one in rendering.plan(found, Places()) if one.name == name]
    return text


def started(found: Site) -> str:
    """The command of the unit."""
    unit = rendered(found, "app1/outgrow-app.service")
    [command] = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    return command.removeprefix("ExecStart=")


def test_every_engine_has_its_words_and_a_package() -> None:
    for engine in app.ENGINES:
        assert ENGINES[engine].package
        assert ENGINES[engine].extra
        assert ENGINES[engine].asgi == (engine in app.TAKES_ASGI)
        assert ENGINES[engine].wsgi == (engine not in app.NEEDS_ASGI)


def test_without_the_table() -> None:
    found = site()
    assert found.app == App("gunicorn", 3, 8)
    assert (found.application, found.is_asgi) == ("photos.wsgi:application", False)
    plain = parse(tomllib.loads(EXAMPLE), PurePath("/srv"))
    assert plain == found


def test_all_that_can_be_said() -> None:
    assert site("granian", workers=5, threads=2).app == App("granian", 5, 2)


@pytest.mark.parametrize(
    ("engine", "asgi", "runs"),
    [
        ("gunicorn", ASGI, "photos.wsgi:application"),
        ("uvicorn", ASGI, ASGI),
        ("granian", ASGI, ASGI),
        ("granian", "", "photos.wsgi:application"),
    ],
)
def test_which_application_is_run(engine: str, asgi: str, runs: str) -> None:
    found = site(engine, asgi)
    assert (found.application, found.is_asgi) == (runs, runs == ASGI)
    assert shlex.split(started(found))[-1] == runs
    # WSGI can't read a body of unknown length, and its front knows.
    assert front(found, found.service("lb1")).application.upstream.wsgi == (runs != ASGI)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (content("unicorn"), 'app.engine: "unicorn" is not an engine for an application server; d'),
        (content("uvicorn"), "site.asgi: is missing: uvicorn runs an ASGI application. Write it, "),
        (content("uvicorn"), 'as in asgi = "photos.asgi:application".'),
        (content("uvicorn", "photos.asgi"), 'site.asgi: "photos.asgi" must be module:name, as in'),
        (content("uvicorn", "a b:c"), 'site.asgi: "a b:c" must be module:name'),
        (content("uvicorn", "a:c d"), 'site.asgi: "a:c d" must be module:name'),
        (content("uvicorn", "a:c\nd"), "must be module:name"),
        (content("granian", ASGI, threads=2), "app.threads: is for WSGI: each request of ASGI "),
        (content(workers=0), "app.workers: must be from 1 to 1000, not 0."),
        (content(threads="8"), 'app.threads: must be a whole number, not the string "8".'),
        (content(worker=2), 'app.worker: is not a known key; did you mean "workers"?'),
    ],
)
def test_what_is_wrong(found: dict[str, Any], message: str) -> None:
    assert any(message in problem for problem in problems(found)), problems(found)


def test_granian_resolves_no_names() -> None:
    found = content("granian")
    found["servers"]["app1"]["address"] = "app1.example.org"
    [problem] = problems(found)
    said = 'servers.app1.address: "app1.example.org" is a name, and granian listens at an IP '
    assert problem.startswith(said)
    for engine in ("gunicorn", "uvicorn"):
        found["app"]["engine"] = engine
        found["site"]["asgi"] = ASGI
        assert parse(found, PurePath("/srv")).app.engine == engine


def test_an_empty_name_of_an_application_is_none() -> None:
    found = content()
    found["site"]["asgi"] = ""
    assert problems(found) == [
        'site.asgi: "" must be module:name, as in "photos.asgi:application".'
    ]


@pytest.mark.parametrize("engine", app.ENGINES)
def test_the_file_that_a_run_writes_says_the_same(engine: str) -> None:
    found = site(engine, ASGI, workers=2)
    [file] = toml.render(found)
    again = parse(tomllib.loads(file.content), PurePath("/"))
    assert (again.app, again.asgi) == (found.app, found.asgi)


def test_a_laptop_has_one_process_for_each_server() -> None:
    here = local(site("granian", workers=5, threads=2), {"app1": 1}, PurePath("/run"))
    assert here.app == App("granian", 1, 2)


def test_connections_do_not_outlive_a_request_of_asgi() -> None:
    assert django_settings(site())["DATABASES"]["default"]["CONN_MAX_AGE"] == 600
    assert django_settings(site("granian"))["DATABASES"]["default"]["CONN_MAX_AGE"] == 600
    for engine in ("uvicorn", "granian"):
        assert django_settings(site(engine, ASGI))["DATABASES"]["default"]["CONN_MAX_AGE"] == 0


def test_how_many_connections_there_can_be() -> None:
    repairs = 1
    assert connections(site(workers=2, threads=5), "primary") == 2 * 5 + repairs + SPARE
    expected = 2 * AT_ONCE + repairs + SPARE
    assert connections(site("uvicorn", ASGI, workers=2), "primary") == expected


# --- the words, as a unit has them


def test_uvicorn_believes_the_balancers_and_nobody_else() -> None:
    words = shlex.split(started(site("uvicorn", ASGI)))
    assert "--forwarded-allow-ips=10.0.0.1" in words
    alone = site("uvicorn", ASGI)
    alone = replace(alone, hosts=tuple(one for one in alone.hosts if one.name != "lb1"))
    assert "--no-proxy-headers" in shlex.split(started(alone))
    # When a balancer comes or moves, the application servers must know.
    kinds = {(one.verb, one.server) for one in changes(alone, site("uvicorn", ASGI))}
    assert ("reload", "app1") in kinds


@pytest.mark.parametrize(("engine", "told"), [("gunicorn", False), ("uvicorn", True)])
def test_a_balancer_that_moves_is_told_to_whom_believes_it(engine: str, told: bool) -> None:
    found = content(engine, ASGI)
    before = parse(found, PurePath("/srv"))
    found["servers"]["lb1"]["address"] = "10.0.0.2"
    commands = [
        command
        for step in changes(before, parse(found, PurePath("/srv")))
        if step.server == "app1"
        for command in step.commands
    ]
    assert (RESTART in commands) == told


def test_two_interfaces_of_granian() -> None:
    wsgi = started(site("granian", workers=2, threads=5))
    assert "--interface wsgi --blocking-threads 5 " in wsgi
    assert "--workers 2 " in wsgi
    assert "--interface asginl --blocking-threads 1 " in started(site("granian", ASGI))


def test_what_is_done_to_another_engine() -> None:
    steps = changes(site(), site("granian"), "t.toml")
    assert [(step.verb, step.server) for step in steps] == [("set up", "app1"), ("reload", "app1")]
    assert steps[0].what == "granian, which will run the site"
    assert steps[0].commands == ("outgrow render t.toml --to servers --host app1",)
    assert steps[1].commands == (
        "outgrow render t.toml --to servers --host app1",
        "systemctl restart outgrow-app.service",
        "systemctl restart outgrow-repair.service",
    )
    # A front treats bodies of unknown length otherwise.
    kinds = {(step.verb, step.server) for step in changes(site(), site("granian", ASGI))}
    assert kinds == {
        ("set up", "app1"),
        ("reconfigure", "db1"),
        ("reload", "app1"),
        ("reload", "lb1"),
    }
    assert changes(site(), site(asgi=ASGI)) == ()


def test_a_database_takes_more_before_more_is_asked() -> None:
    content_of = content(workers=5)
    content_of["servers"]["db2"] = {"roles": ["replica"], "address": "10.0.0.32"}
    more = parse(content_of, PurePath("/srv"))
    content_of["app"] = {}
    few = parse(content_of, PurePath("/srv"))
    steps = changes(few, more)
    # A standby that took fewer than its primary would not start.
    assert [(step.server, step.verb) for step in steps] == [
        ("db2", "reconfigure"),
        ("db1", "reconfigure"),
        ("app1", "reload"),
    ]
    most = connections(more, "primary")
    assert steps[0].what == f"it to take {most} connections: max_connections in its configuration"
    conf = rendered(more, "db1/postgresql-outgrow.conf")
    assert f"max_connections = {most}\n" in conf
    # What takes too many harms nobody.
    assert [(step.server, step.verb) for step in changes(more, few)] == [("app1", "reload")]
    assert [step.commands[1] for step in changes(more, few)] == [RESTART]
    # What MariaDB takes is not rendered; `outgrow capacity` warns.
    content_of = content(workers=5)
    content_of["database"]["engine"] = "mariadb"
    few = parse({**content_of, "app": {}}, PurePath("/srv"))
    assert [step.server for step in changes(few, parse(content_of, PurePath("/srv")))] == ["app1"]


def test_a_background_worker_is_not_touched_by_what_is_not_its_own() -> None:
    def with_worker(command: str = "python -m celery", **table: Any) -> Site:
        found = content(**table)
        found["worker"] = {"command": command}
        found["servers"]["work1"] = {"roles": ["worker"], "address": "10.0.0.51"}
        return parse(found, PurePath("/srv"))

    def told(after: Site) -> set[tuple[str, str]]:
        return {(step.server, step.verb) for step in changes(with_worker(), after)}

    assert told(with_worker(workers=2)) == {("app1", "reload")}
    other = changes(with_worker(), with_worker(command="python -m rq"))
    assert [(step.server, step.verb) for step in other] == [("work1", "reload")]
    assert other[0].commands[1] == "systemctl restart outgrow-worker.service"


def test_a_background_worker_comes_and_goes() -> None:
    found = content(workers=3)
    found["servers"]["work1"] = {"roles": ["worker"], "address": "10.0.0.51"}
    found["worker"] = {"command": "python -m celery"}
    more = parse(found, PurePath("/srv"))
    steps = changes(site(workers=3), more)
    assert [(step.verb, step.what) for step in steps if step.server == "work1"] == [
        ("set up", "the worker at 10.0.0.51"),
        ("start", "the worker"),
    ]
    gone = changes(more, site(workers=3))
    assert [step.verb for step in gone if step.server == "work1"] == ["drain", "remove"]
    # Another machine under the same name: whom it asks lets it in, and nothing listens elsewhere.
    found["servers"]["work1"]["address"] = "10.0.0.52"
    assert all("listen" not in step.what for step in changes(more, parse(found, PurePath("/srv"))))


@pytest.mark.parametrize(
    ("found", "command"),
    [
        (site("gunicorn"), "systemctl reload outgrow-app.service"),
        (site("uvicorn", ASGI), "systemctl reload outgrow-app.service"),
        (site("uvicorn", ASGI, workers=1), "systemctl restart outgrow-app.service"),
        (site("granian"), "systemctl restart outgrow-app.service"),
    ],
)
def test_new_settings_are_a_reload_where_the_unit_knows_one(found: Site, command: str) -> None:
    [step] = changes(found, replace(found, domains=("photos.example.com",)))[:1]
    assert step.commands[0] == command
    assert ("#restart-without-losing-a-request" in step.page) == ("restart" in command)
    assert ("ExecReload=" in rendered(found, "app1/outgrow-app.service")) == ("reload" in command)


@pytest.mark.parametrize("engine", app.ENGINES)
def test_what_is_installed(engine: str) -> None:
    page = rendered(site(engine, ASGI), "app1/README.md")
    assert f"'{ENGINES[engine].package}'" in page


def test_what_a_run_and_a_unit_have_in_common() -> None:
    found = replace(site("granian"), folder=PurePosixPath("/srv/a b"))
    here = application(found, found.service("app1:app"), log=True)
    there = application(found, found.service("app1:app"), grace=30)
    assert replace(here, log=False, grace=30) == there
    assert here.fronts == ("10.0.0.1",)
    assert here.folder == PurePosixPath("/srv/a b")
