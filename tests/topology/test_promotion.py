"""Promotion, decided: which replica may become the primary, and what the site is then."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from outgrow.errors import ControlFailed
from outgrow.topology.load import load
from outgrow.topology.model import Site, parse
from outgrow.topology.promotion import furthest, objection, promoted
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


def test_who_has_most_may_be_promoted() -> None:
    assert objection("db2", {"db2": 10, "db3": 10}) == ""
    assert objection("db2", {"db3": 9, "db2": 10}) == ""
    assert objection("db2", {"db2": 10}) == ""


def test_who_lacks_what_another_has_may_not() -> None:
    said = objection("db2", {"db2": 10, "db3": 12})
    assert said.startswith("db3 has received 2 bytes of log that db2 has not")
    assert said.endswith("Promote it: outgrow promote db3")


def test_who_was_not_asked_may_have_more() -> None:
    said = objection("db2", {"db2": 10, "db3": "no answer"})
    assert said.startswith("db3 could not be asked what it has, and may have rows that db2 has not")
    assert "outgrow start db3" in said
    assert objection("db2", {"db2": "no answer"}) == (
        "db2 could not be asked what it has: no answer."
    )


def test_the_furthest_is_the_first_of_those_with_most() -> None:
    assert furthest({"db2": 10, "db3": 12, "db4": 12}) == "db3"
    assert furthest({"db2": "no answer", "db3": 1}) == "db3"
    with pytest.raises(ControlFailed, match=r"db2: no answer; db3: gone"):
        furthest({"db2": "no answer", "db3": "gone"})
