"""`manage.py outgrow databases status`, and what the servers say."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections

from outgrow.databases.cluster import Cluster
from outgrow.databases.survey import problems, survey
from tests.databases.sites import site
from tests.live.replicas import PostgresCluster

Sites = Callable[..., AbstractContextManager[Cluster]]


def said(*words: str) -> str:
    out = io.StringIO()
    call_command("outgrow", "databases", "status", *words, stdout=out, no_color=True)
    return out.getvalue()


def test_a_cluster_that_is_well(postgres_site: Sites, postgres_cluster: PostgresCluster) -> None:
    with postgres_site():
        postgres_cluster.wait_caught_up()
        facts = json.loads(said("--json"))
        assert facts["cluster"] == "default"
        assert facts["problems"] == []
        roles = [(one["alias"], one["role"], one["up"]) for one in facts["servers"]]
        assert roles == [
            ("default", "primary", True),
            ("replica1", "replica", True),
            ("replica2", "replica", True),
        ]
        assert all(one["position"].startswith("pg:") for one in facts["servers"])
        text = said("--check")
        assert "replica2" in text
        assert "down" not in text


def test_servers_in_trouble(postgres_site: Sites, postgres_cluster: PostgresCluster) -> None:
    first, second = postgres_cluster.standbys
    with postgres_site(max_lag=2, check_every=0.5) as cluster:
        first.pause_replay()
        postgres_cluster.primary.execute("SELECT pg_logical_emit_message(true, 'tests', 'x')")
        second.kill()
        _, paused, dead = survey(cluster)
        assert paused.at_least
        assert paused.lag >= 1
        assert paused.behind > 0
        assert not dead.up
        assert dead.failure
        with pytest.raises(SystemExit) as exit_:
            said("--check")
        assert exit_.value.code == 1
        out = io.StringIO()
        with pytest.raises(SystemExit):
            call_command("outgrow", "databases", "status", "--check", "--json", stdout=out)
        assert "replica1 is more than 2" in out.getvalue()
        assert said("--json").count("replica2 (replica) does not answer") == 1
        postgres_cluster.primary.kill()
        assert "default (primary) does not answer" in said()


def test_a_promoted_standby_is_told(
    postgres_site: Sites, postgres_cluster: PostgresCluster
) -> None:
    with postgres_site() as cluster:
        postgres_cluster.promote(postgres_cluster.standbys[0])
        (problem,) = problems(survey(cluster), 10)
        assert (
            problem == "replica1: it follows another history than the primary's, and serves nobody."
        )


def test_a_frozen_server_takes_its_time_and_no_more(
    postgres_site: Sites, postgres_cluster: PostgresCluster
) -> None:
    with postgres_site(read_timeout=0.5) as cluster:
        connections.settings["replica1"]["OPTIONS"]["connect_timeout"] = 2
        postgres_cluster.standbys[0].freeze()
        found = survey(cluster)
        assert [one.up for one in found] == [True, False, True]


def test_a_primary_that_is_a_standby(
    postgres_site: Sites, postgres_cluster: PostgresCluster
) -> None:
    primary, (first, _) = postgres_cluster.primary, postgres_cluster.standbys
    with postgres_site() as cluster:
        primary.proxy.target = first.port
        try:
            primary.proxy.cut()
            assert "it can't be written to" in next(problems(survey(cluster), 10))
        finally:
            primary.proxy.target = primary.port


def test_a_laptop(sqlite_databases: dict[str, dict[str, Any]]) -> None:
    with site(sqlite_databases):
        assert "replica1" in said("--check")


def test_wrong_words(sqlite_databases: dict[str, dict[str, Any]]) -> None:
    with site(sqlite_databases), pytest.raises(CommandError, match="'x' is no primary"):
        said("--cluster", "x")
    with pytest.raises(CommandError, match="no replicas"):
        said()
