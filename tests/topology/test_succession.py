"""The note of a promotion, and what the data of the last run say about today's roles."""

from __future__ import annotations

from pathlib import Path

import pytest

from outgrow.errors import TopologyError
from outgrow.topology import succession
from outgrow.topology.load import load
from outgrow.topology.model import Site
from outgrow.topology.parts import Plan, Programs
from outgrow.topology.plan import plan
from outgrow.topology.postgres import IS_STANDBY, PROGRAMS
from outgrow.topology.promotion import promoted
from outgrow.topology.steps import STAMP
from outgrow.topology.succession import Succession, begin, begun, check, complete, finish, happened
from tests.topology.sites import tiny_site

BOTH = Succession("db1", "db2")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return load(tiny_site(tmp_path, database="postgresql", replicas=("db2", "db3")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "run"
    place.mkdir()
    return place


def planned(site: Site, folder: Path) -> Plan:
    return plan(site, folder, Programs("python", database=dict.fromkeys(PROGRAMS, "x")))


def data(folder: Path, name: str, *, standby: bool) -> Path:
    """The data of a server that has run, as far as anybody looks at them."""
    root = folder / "_database" / name
    root.mkdir(parents=True)
    (root / STAMP).write_text("one")
    if standby:
        (root / IS_STANDBY).touch()
    return root


def refused(site: Site, folder: Path) -> str:
    with pytest.raises(TopologyError) as caught:
        check(planned(site, folder), site, folder)
    return str(caught.value)


def test_a_note_is_there_until_it_is_taken_away(folder: Path) -> None:
    assert begun(folder) is None
    begin(folder, BOTH)
    assert begun(folder) == BOTH
    finish(folder)
    finish(folder)
    assert begun(folder) is None
    assert list(folder.iterdir()) == []


def test_a_first_run_and_one_with_its_roles_are_fine(site: Site, folder: Path) -> None:
    check(planned(site, folder), site, folder)
    data(folder, "db1", standby=False)
    data(folder, "db2", standby=True)
    check(planned(site, folder), site, folder)
    assert complete(planned(site, folder), folder) == ""


def test_no_empty_primary_is_made_beside_a_replica_with_rows(site: Site, folder: Path) -> None:
    copy = data(folder, "db3", standby=True)
    said = refused(site, folder)
    assert said.startswith("servers.db1: has lost its data: ")
    assert f"db3 has a copy in {copy}" in said
    assert f"remove {folder}, to begin anew without a row" in said
    # What the message says is enough.
    copy.rename(copy.with_name("db1"))
    (copy.with_name("db1") / IS_STANDBY).unlink()
    check(planned(site, folder), site, folder)


def test_a_replica_s_data_are_never_a_primary_s(site: Site, folder: Path) -> None:
    data(folder, "db1", standby=True)
    data(folder, "db2", standby=False)
    assert refused(site, folder).startswith("servers.db1: is the primary, and its data in ")
    after = promoted(site, "db2")
    check(planned(after, folder), after, folder)


def test_what_was_promoted_has_the_newest_rows(site: Site, folder: Path) -> None:
    old = data(folder, "db1", standby=False)
    data(folder, "db2", standby=False)
    begin(folder, BOTH)
    said = refused(site, folder)
    assert said.startswith("servers.db2: was promoted, and db1 does not follow it yet: it alone")
    assert 'roles = ["primary"] for db2, and roles = ["replica"] for db1.' in said
    assert begun(folder) == BOTH
    after = promoted(site, "db2")
    check(planned(after, folder), after, folder)
    assert complete(planned(after, folder), folder) == (
        "db2 was promoted, and that was broken off before db1 followed it: the data of db1 are "
        "copied anew."
    )
    # Without a stamp they are.
    assert not (old / STAMP).exists()
    assert begun(folder) is None


def test_what_was_not_promoted_is_forgotten(site: Site, folder: Path) -> None:
    old = data(folder, "db1", standby=False)
    data(folder, "db2", standby=True)
    begin(folder, BOTH)
    check(planned(site, folder), site, folder)
    assert complete(planned(site, folder), folder) == ""
    assert begun(folder) is None
    assert (old / STAMP).exists()


def test_a_note_of_servers_that_there_are_no_more_is_forgotten(site: Site, folder: Path) -> None:
    begin(folder, Succession("old", "new"))
    check(planned(site, folder), site, folder)
    assert complete(planned(site, folder), folder) == ""
    assert begun(folder) is None


def test_without_data_nothing_has_happened(folder: Path) -> None:
    assert not happened(None)
    assert not happened(folder / "none")
    assert not happened(data(folder, "db1", standby=True))
    assert happened(data(folder, "db2", standby=False))


def test_an_old_primary_that_is_gone_is_no_hindrance(site: Site, folder: Path) -> None:
    data(folder, "db2", standby=False)
    begin(folder, Succession("gone", "db2"))
    after = promoted(site, "db2")
    check(planned(after, folder), after, folder)
    assert "the data of gone are copied anew" in complete(planned(after, folder), folder)


def test_the_note_has_a_name_that_no_server_has(folder: Path) -> None:
    begin(folder, BOTH)
    assert [path.name for path in folder.iterdir()] == [succession._NOTE]
    assert succession._NOTE.startswith("_")
