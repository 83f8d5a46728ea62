"""What a process says of its database servers, to pages and to Prometheus."""

from __future__ import annotations

import json
import re
from pathlib import Path

from django.db import OperationalError
from django.test import Client
from django.urls import include, path

from outgrow.databases import server_states
from outgrow.databases.cluster import WATCHED
from tests.databases.urls import urlpatterns as pages
from tests.live.processes import wait_until

urlpatterns = [*pages, path("outgrow/", include("outgrow.urls"))]

METRIC = re.compile(
    r'outgrow_database_(\w+)\{alias="(\w+)",cluster="default",'
    r'(?:process="[^"]+",)?role="(\w+)"\} (\S+)'
)


def metrics() -> dict[tuple[str, str], float]:
    text = Client().get("/outgrow/metrics/").text
    return {(name, alias): float(value) for name, alias, _, value in METRIC.findall(text)}


def test_nothing_is_known_before_anybody_has_looked(cluster):
    cluster.routing = WATCHED
    primary, *replicas = server_states()
    assert (primary.alias, primary.role, primary.up, primary.lag) == (
        "default",
        "primary",
        None,
        None,
    )
    assert [(one.alias, one.role, one.up, one.used) for one in replicas] == [
        ("replica1", "replica", None, False),
        ("replica2", "replica", None, False),
    ]


def test_replicas_that_are_one_file_with_the_primary_are_used(cluster):
    assert [(one.up, one.used) for one in server_states()[1:]] == [(None, True)] * 2


def test_servers_are_told_as_requests_see_them(postgres_site, postgres_cluster):
    with postgres_site(urls=__name__) as cluster:
        for _ in range(10):
            Client().get("/list/")
        states = {one.alias: one for one in server_states()}
        assert json.loads(json.dumps([one.facts() for one in states.values()]))
        assert all(one.up and one.used for one in states.values())
        assert states["replica1"].reads + states["replica2"].reads == 10
        found = metrics()
        assert found["up", "default"] == found["used", "replica2"] == 1
        assert 0 <= found["lag_seconds", "replica1"] < 60
        assert ("lag_seconds", "default") not in found
        assert found["reads_total", "replica1"] == states["replica1"].reads

        cluster.failed("replica1", OperationalError("gone"))
        one = {each.alias: each for each in server_states()}["replica1"]
        assert (one.up, one.used, one.failure) == (False, False, "gone")
        assert metrics()["up", "replica1"] == 0


def test_the_page_has_every_metric_by_its_name(postgres_site, postgres_cluster):
    page = (Path(__file__).parents[2] / "docs/howto/monitoring.md").read_text()
    table = page.partition("\n### Of databases\n")[2].partition("\n## ")[0]
    with postgres_site(urls=__name__):
        Client().get("/list/")
        found = {name for name, _ in metrics() if "_created" not in name}
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == found


def test_a_primary_that_is_away_is_told(postgres_site, postgres_cluster):
    with postgres_site():
        postgres_cluster.primary.proxy.refuse()
        wait_until(lambda: server_states()[0].up is False, "it is not known to be away", seconds=60)
        assert server_states()[0].failure
