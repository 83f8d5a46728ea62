"""Which drills a site has, and why it has no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from outgrow.drills.catalogue import Drill, Skipped, catalogue, choose
from outgrow.errors import ConfigurationError
from outgrow.topology.load import load
from outgrow.topology.model import Site
from tests.topology.sites import tiny_site


def names(site: Site) -> set[str]:
    return {one.name for one in catalogue(site) if isinstance(one, Drill)}


def reasons(site: Site) -> dict[str, str]:
    return {one.name: one.reason for one in catalogue(site) if isinstance(one, Skipped)}


@pytest.fixture
def whole(tmp_path: Path) -> Site:
    return load(
        tiny_site(
            tmp_path,
            balancer="nginx",
            database="postgresql",
            replicas=("db2",),
            pooler="transaction",
            cache="memcached",
        )
    )


def test_a_site_with_everything_has_all_but_one(whole):
    assert len(names(whole)) == 7 * 4 + 5
    assert reasons(whole).keys() == {"disk-primary"}
    assert reasons(whole)["disk-primary"].startswith("a commit waits for no replica here")


def test_a_drill_is_for_the_first_server_of_its_kind_or_for_all_application_servers(whole):
    found = {one.name: one for one in catalogue(whole)}
    assert found["kill-app"] == Drill("kill-app", "kill", ("app1",))
    assert found["disk-replica"] == Drill("disk-replica", "disk", ("db2",))
    assert found["rolling-restart"] == Drill("rolling-restart", "roll", ("app1", "app2"))


def test_what_is_not_there_is_not_drilled_and_said(tmp_path):
    site = load(tiny_site(tmp_path))
    assert "kill-app" in names(site)
    assert reasons(site)["kill-balancer"] == 'no server has the role "balancer"'
    assert reasons(site)["freeze-primary"] == 'no server has the role "primary"'


def test_sqlite_is_no_server(tmp_path):
    site = load(tiny_site(tmp_path, database="sqlite", replicas=("db2",)))
    assert reasons(site)["kill-primary"] == "SQLite is a file, and no server"
    assert reasons(site)["disk-replica"] == "SQLite is a file, and no server"


def test_a_site_without_application_servers_says_so():
    from dataclasses import replace

    site = load(Path(__file__).parents[1] / "topology" / "tiny" / "topology.toml")
    assert 'role "app"' in reasons(replace(site, hosts=()))["rolling-restart"]


def test_names_choose_in_the_order_of_the_catalogue(whole):
    every = catalogue(whole)
    assert [one.name for one in choose(every, ["kill-media", "kill-app", "kill-app"])] == [
        "kill-app",
        "kill-media",
    ]
    assert choose(every, []) == choose(every, ["all"]) == every


def test_an_unknown_name_and_one_that_can_t_be_had_are_errors(whole):
    with pytest.raises(ConfigurationError, match=r'"kill-ap" is not a drill.*kill-app'):
        choose(catalogue(whole), ["kill-ap"])
    with pytest.raises(ConfigurationError, match=r"can't have disk-primary: .*--list"):
        choose(catalogue(whole), ["disk-primary"])


def test_a_primary_is_lost_with_its_disk_where_a_replica_has_every_row(tmp_path):
    site = load(tiny_site(tmp_path, database="postgresql", replicas=("db2",), synchronous=True))
    found = {one.name: one for one in catalogue(site)}
    assert found["disk-primary"] == Drill("disk-primary", "promote", ("db1",))
    # What other drills break must be the servers in their own roles.
    assert catalogue(site)[-1] == found["disk-primary"]


def test_a_primary_that_nobody_can_replace_keeps_its_disk(tmp_path):
    for name, options, reason in (
        ("alone", {"database": "postgresql"}, 'no server has the role "replica"'),
        (
            "maria",
            {"database": "mariadb", "replicas": ("db2",)},
            "only PostgreSQL's replicas are promoted here",
        ),
    ):
        (tmp_path / name).mkdir()
        site = load(tiny_site(tmp_path / name, **options))
        assert reasons(site)["disk-primary"] == reason


def test_a_database_server_with_other_roles_is_not_promoted(tmp_path):
    path = tiny_site(tmp_path, database="postgresql", replicas=("db2",), synchronous=True)
    text = path.read_text().replace('roles = ["replica"]', 'roles = ["replica", "worker"]')
    path.write_text(text + '\n[worker]\ncommand = "python -m tiny"\n')
    assert reasons(load(path))["disk-primary"] == "a database server has other roles, too"
