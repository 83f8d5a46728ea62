"""Every mistake in OUTGROW["REPLICATION"] gives its path and a hint."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import override_settings

from outgrow.conf import ClusterOptions, Remember, cluster_options, replication
from outgrow.errors import ConfigurationError
from outgrow.servers import Server

ENGINE = "django.db.backends.postgresql"
DATABASES: dict[str, dict[str, Any]] = {
    "default": {"ENGINE": ENGINE},
    "replica1": {"ENGINE": ENGINE},
    "replica2": {"ENGINE": ENGINE},
    "several": {"ENGINE": ENGINE, "HOST": "a,b"},
    "sqlite": {"ENGINE": "django.db.backends.sqlite3"},
    "other": {"ENGINE": ENGINE},
}
GOOD = {"replicas": ["replica1"]}


def problems_of(setting: Any) -> list[ConfigurationError]:
    problems = cluster_options(setting, DATABASES)[1]
    for problem in problems:
        assert problem.path.startswith("OUTGROW")
        assert problem.hint, f"no hint: {problem}"
    return problems


def test_the_defaults() -> None:
    clusters, problems = cluster_options({"REPLICATION": {"default": GOOD}}, DATABASES)
    assert problems == []
    assert clusters == (ClusterOptions("default", (Server("replica1", "replica1"),)),)
    (cluster,) = clusters
    assert cluster.aliases == ("replica1",)
    assert (cluster.downtime, cluster.max_lag, cluster.check_every, cluster.pin_for) == (
        60,
        10,
        5,
        60,
    )
    assert (cluster.when_behind, cluster.write_on_read) == ("primary", "pin")
    assert cluster.remember == Remember()
    assert cluster.remember.in_cookie
    assert not cluster.remember.in_cache


def test_everything() -> None:
    key = len
    given = {
        "replicas": ("replica1", "replica2"),
        "weights": {"replica1": 3, "replica2": 0},
        "downtime": 1,
        "max_lag": 20,
        "check_every": 2.5,
        "pin_for": 100,
        "when_behind": "wait",
        "wait": 1,
        "write_on_read": "refuse",
        "read_timeout": 3,
        "views": {"a:b": "primary"},
        "remember": "both",
        "cache": "shared",
        "key": key,
        "cookie_name": "w-_1",
        "header": "X-Route",
        "trusted_proxies": ["10.0.0.0/8", "::1"],
    }
    clusters, problems = cluster_options({"REPLICATION": {"default": given}}, DATABASES)
    assert problems == []
    (cluster,) = clusters
    assert cluster.replicas == (
        Server("replica1", "replica1", weight=3),
        Server("replica2", "replica2", weight=0),
    )
    assert cluster.remember == Remember("both", "shared", key)
    assert cluster.trusted_proxies == ("10.0.0.0/8", "::1")


def test_no_setting_is_no_cluster() -> None:
    assert cluster_options({}, DATABASES) == ((), [])
    assert replication() == ()


def test_the_first_problem_is_raised() -> None:
    with (
        override_settings(OUTGROW={"REPLICATION": {"nowhere": GOOD}}),
        pytest.raises(ConfigurationError, match="nowhere"),
    ):
        replication()


@pytest.mark.parametrize("setting", [None, [], "x", {"REPLICATION": []}])
def test_what_is_no_mapping(setting: Any) -> None:
    assert len(problems_of(setting)) == 1


def test_a_misspelled_setting() -> None:
    (problem,) = problems_of({"REPLICATON": {}})
    assert "Did you mean 'REPLICATION'?" in problem.hint


@pytest.mark.parametrize("options", [None, [], "replica1"])
def test_a_cluster_that_is_no_mapping(options: Any) -> None:
    (problem,) = problems_of({"REPLICATION": {"default": options}})
    assert problem.path == "OUTGROW['REPLICATION']['default']"


@pytest.mark.parametrize(
    ("options", "where", "what"),
    [
        ({}, "['replicas']", "missing"),
        ({"replicas": []}, "['replicas']", "empty"),
        ({"replicas": "replica1"}, "['replicas']", "'replica1'"),
        ({"replicas": 3}, "['replicas']", "3"),
        ({"replicas": ["nowhere"]}, "['replicas'][0]", "not an alias"),
        ({"replicas": [3]}, "['replicas'][0]", "not an alias"),
        ({"replicas": ["default"]}, "['replicas'][0]", "its own primary"),
        ({"replicas": ["replica1", "replica1"]}, "['replicas'][1]", "second time"),
        ({"replicas": ["several"]}, "['replicas'][0]", "several servers"),
        ({"replicas": ["sqlite"]}, "['replicas'][0]", "ENGINE"),
        ({**GOOD, "weights": []}, "['weights']", "[]"),
        ({**GOOD, "weights": {"replica2": 1}}, "['weights']", "not in 'replicas'"),
        ({**GOOD, "weights": {"replica1": -1}}, "['weights']", "-1"),
        ({**GOOD, "weights": {"replica1": True}}, "['weights']", "True"),
        ({**GOOD, "weights": {"replica1": 0.5}}, "['weights']", "0.5"),
        ({**GOOD, "downtime": 0}, "['downtime']", "0"),
        ({**GOOD, "downtime": float("nan")}, "['downtime']", "nan"),
        ({**GOOD, "downtime": True}, "['downtime']", "True"),
        ({**GOOD, "read_timeout": "1"}, "['read_timeout']", "'1'"),
        ({**GOOD, "wait": 1e9}, "['wait']", "1000000000"),
        ({**GOOD, "pin_for": 24}, "['pin_for']", "25 s behind"),
        ({**GOOD, "max_lag": 9}, "['max_lag']", "9 s"),
        ({**GOOD, "when_behind": "never"}, "['when_behind']", "never"),
        ({**GOOD, "write_on_read": 1}, "['write_on_read']", "1"),
        ({**GOOD, "views": ["a"]}, "['views']", "['a']"),
        ({**GOOD, "views": {"a": "slave"}}, "['views']", "slave"),
        ({**GOOD, "views": {3: "primary"}}, "['views']", "3"),
        ({**GOOD, "remember": "session"}, "['remember']", "session"),
        ({**GOOD, "remember": "cache"}, "['key']", "missing"),
        ({**GOOD, "key": "a.b"}, "['key']", "no meaning"),
        ({**GOOD, "remember": "both", "key": "nodots"}, "['key']", "nodots"),
        ({**GOOD, "cache": ""}, "['cache']", "''"),
        ({**GOOD, "cookie_name": "a b"}, "['cookie_name']", "a b"),
        ({**GOOD, "cookie_name": "ä"}, "['cookie_name']", "ä"),
        ({**GOOD, "cookie_name": ""}, "['cookie_name']", "''"),
        ({**GOOD, "header": "X-Route"}, "['header']", "everybody"),
        ({**GOOD, "views": {"reports/*": "replica"}}, "['views']", "'reports/*'"),
        ({**GOOD, "views": {"*": "replica"}}, "['views']", "'*'"),
        ({**GOOD, "trusted_proxies": ["::1"]}, "['trusted_proxies']", "no header"),
        ({**GOOD, "header": "X", "trusted_proxies": "::1"}, "['trusted_proxies']", "::1"),
        (
            {**GOOD, "header": "X", "trusted_proxies": ["10.0.0.1/8"]},
            "['trusted_proxies']",
            "host bits",
        ),
        ({**GOOD, "max_lags": 3}, "['max_lags']", "not an option"),
    ],
)
def test_mistakes(options: Any, where: str, what: str) -> None:
    found = problems_of({"REPLICATION": {"default": options}})
    here = [one for one in found if one.path == f"OUTGROW['REPLICATION']['default']{where}"]
    assert here, found
    assert any(what in one.problem for one in here)


def test_a_primary_that_is_no_alias() -> None:
    (problem,) = problems_of({"REPLICATION": {"nowhere": GOOD}})
    assert "default, other" in problem.hint


def test_a_replica_of_two_primaries() -> None:
    (problem,) = problems_of({"REPLICATION": {"default": GOOD, "other": GOOD}})
    assert "belongs to the cluster 'default'" in problem.problem


def test_a_primary_that_is_anothers_replica() -> None:
    chain = {"default": GOOD, "replica1": {"replicas": ["replica2"]}}
    (problem,) = problems_of({"REPLICATION": chain})
    assert "replica1" in problem.problem


def test_two_names_of_the_cookie() -> None:
    other = {"replicas": ["replica2"], "cookie_name": "b"}
    (problem,) = problems_of({"REPLICATION": {"default": GOOD, "other": other}})
    assert problem.path == "OUTGROW['REPLICATION']['other']['cookie_name']"
