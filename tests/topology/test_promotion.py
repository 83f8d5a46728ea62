"""Promotion, decided: which replica may become the primary, and what the site is then."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from outgrow.errors import ControlFailed
from outgrow.topology.load import load
from outgrow.topology.model import Site, parse
from outgrow.topology.promotion import Promotion, furthest, log_end, promoted, to_write
from tests.topology.sites import tiny_site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return load(tiny_site(tmp_path, database="postgresql", replicas=("db2", "db3")))


def test_two_servers_exchange_their_roles_and_nothing_else_changes(site: Site) -> None:
    after = promoted(site, "db3")
    assert [s.name for s in after.services("primary")] == ["db3"]
    assert [s.name for s in after.services("replica")] == ["db1", "db2"]
    assert [(s.name, s.port) for s in after.services()] == [
        (s.name, s.port) for s in site.services()
    ]
    assert promoted(after, "db1") == site


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("db1", "db1 is the primary already."),
        ("bd2", '"bd2" is no replica of this site; did you mean "db2"?'),
        ("app1", '"app1" is no replica of this site; '),
    ],
)
def test_only_a_replica_is_promoted(site: Site, name: str, said: str) -> None:
    with pytest.raises(ControlFailed) as caught:
        promoted(site, name)
    assert str(caught.value).startswith(said)


def test_a_site_without_replicas_has_nothing_to_promote(tmp_path: Path) -> None:
    alone = load(tiny_site(tmp_path, database="postgresql"))
    with pytest.raises(ControlFailed, match="has no replica"):
        promoted(alone, "db2")


def test_mariadb_s_replicas_are_not_promoted(tmp_path: Path) -> None:
    maria = load(tiny_site(tmp_path, database="mariadb", replicas=("db2",)))
    with pytest.raises(ControlFailed, match="Only PostgreSQL's"):
        promoted(maria, "db2")


@pytest.mark.parametrize("shared", ["db1", "db2"])
def test_a_server_with_other_roles_is_told(shared: str) -> None:
    roles = {"db1": ["primary"], "db2": ["replica"]}
    roles[shared].append("media")
    named = {"db1": "db1", "db2": "db2"}
    named[shared] = f"{shared}:{roles[shared][0]}"
    content = {
        "site": {
            "name": "photos",
            "settings": "photos.settings",
            "wsgi": "photos.wsgi:application",
            "domains": ["photos.example"],
            "media_root": "media",
        },
        "database": {"engine": "postgresql", "name": "photos"},
        "servers": {
            "web": {"roles": ["app", *([] if shared else ["media"])], "address": "10.0.0.1"},
            "db1": {"roles": roles["db1"], "address": "10.0.0.2"},
            "db2": {"roles": roles["db2"], "address": "10.0.0.3"},
        },
    }
    with pytest.raises(ControlFailed, match=f"{named[shared]} is on a server with several roles"):
        promoted(parse(content, PurePosixPath("/srv")), named["db2"])


def promotion(**more: Any) -> Promotion:
    """Of db2, after db1 was killed; a commit waited for one of its two replicas."""
    values: dict[str, Any] = {
        "new": "db2",
        "old": "db1",
        "runs": False,
        "received": {"db2": 10, "db3": 10},
        "synchronous": True,
        "others": ("db3",),
        "readers": ("app1",),
    }
    return Promotion(**{**values, **more})


def refused(one: Promotion, *, accept_loss: bool = False) -> str:
    with pytest.raises(ControlFailed) as caught:
        one.check(accept_loss=accept_loss)
    return str(caught.value)


@pytest.mark.parametrize(
    "received", [{"db2": 10, "db3": 10}, {"db3": 9, "db2": 10}, {"db2": 10}], ids=str
)
def test_who_has_most_may_be_promoted(received: dict[str, int | str]) -> None:
    one = promotion(received=received)
    one.check(accept_loss=False)
    assert one.may_lose == ""


def test_who_lacks_what_another_has_may_not_whatever_is_accepted() -> None:
    one = promotion(received={"db2": 10, "db3": 12})
    said = refused(one, accept_loss=True)
    assert said.startswith("db3 has received 2 bytes of log that db2 has not")
    assert said.endswith("Promote it: outgrow promote db3")


def test_who_was_not_asked_may_have_more_unless_it_is_accepted() -> None:
    one = promotion(received={"db2": 10, "db3": "no answer"})
    said = refused(one)
    assert said.startswith("db3 could not be asked what it has (no answer), and may have rows")
    assert "outgrow start db3" in said
    assert said.endswith("outgrow promote db2 --accept-loss")
    one.check(accept_loss=True)


def test_who_can_t_be_asked_itself_is_never_promoted() -> None:
    one = promotion(received={"db2": "no answer", "db3": 1})
    assert refused(one, accept_loss=True) == "db2 could not be asked what it has: no answer."
    assert one.may_lose == ""


def test_what_may_be_lost_without_synchronous_replication_is_said_before() -> None:
    one = promotion(synchronous=False)
    assert "rows of its last moments" in one.may_lose
    assert refused(one).startswith(one.may_lose)
    one.check(accept_loss=True)
    both = promotion(synchronous=False, received={"db2": 10, "db3": "no answer"}).may_lose
    assert "rows of its last moments" in both
    assert "db3 could not be asked" in both


def test_a_primary_that_runs_loses_nothing_for_it_is_stopped_first() -> None:
    one = promotion(runs=True, synchronous=False, received={"db2": 10, "db3": 12})
    one.check(accept_loss=False)
    assert one.may_lose == ""
    assert one.steps[0] == "db1: stop it, so that no two servers take writes"
    assert "could not be asked" in refused(promotion(runs=True, received={"db2": "no answer"}))


def test_who_has_the_end_of_a_log_that_ended_cleanly_has_all() -> None:
    alone = {"db2": 11, "db3": "it does not run"}
    one = promotion(synchronous=False, end=10, received=alone)
    one.check(accept_loss=False)
    assert one.may_lose == ""
    lacks = refused(promotion(end=13, received=alone), accept_loss=True)
    assert lacks.startswith("db1 ended cleanly, and db2 lacks the last of its log: more than 2 ")
    assert lacks.endswith("outgrow start db1")


def test_the_steps_are_in_their_order() -> None:
    assert promotion().steps == (
        "db2: see that it has received all that any other has",
        "db2: make it the primary (pg_promote)",
        "db3: restart it, so that it follows db2",
        "app1: let it read the site's settings anew",
        "db1: rewind its data (pg_rewind), or copy them anew where that can't be",
        "db1: start it as a replica",
    )


def test_what_was_broken_off_goes_on_without_a_question() -> None:
    one = promotion(begun=True, synchronous=False, received={})
    one.check(accept_loss=False)
    assert one.may_lose == ""
    assert one.steps[0] == "db2: make it the primary (pg_promote)"


def test_for_machines_it_is_what_json_can_hold() -> None:
    found = promotion(synchronous=False).as_json()
    assert json.loads(json.dumps(found))["received"] == {"db2": 10, "db3": 10}
    assert found["steps"] == list(promotion().steps)
    assert found["may_lose"].startswith("db1 did not end cleanly")


CONTROL = """\
Database cluster state:               {state}
pg_control last modified:             Fri Nov 27 23:49:57 2026
Latest checkpoint location:           1/D51DD0
Latest checkpoint's REDO location:    1/D51DD0
"""


def test_a_log_ends_where_its_last_record_begins() -> None:
    assert log_end(CONTROL.format(state="shut down")) == (1 << 32) + 0xD51DD0


@pytest.mark.parametrize("state", ["in production", "shut down in recovery", "shutting down"])
def test_a_log_that_did_not_end_cleanly_has_no_end(state: str) -> None:
    assert log_end(CONTROL.format(state=state)) is None
    assert log_end("pg_controldata: error: could not open file") is None


def test_the_furthest_is_the_first_of_those_with_most() -> None:
    assert furthest({"db2": 10, "db3": 12, "db4": 12}) == "db3"
    assert furthest({"db2": "no answer", "db3": 1}) == "db3"
    with pytest.raises(ControlFailed, match=r"db2: no answer; db3: gone"):
        furthest({"db2": "no answer", "db3": "gone"})


def test_what_to_write_names_both() -> None:
    assert to_write("db1", "db2").endswith(
        'roles = ["primary"] for db2, and roles = ["replica"] for db1.'
    )
