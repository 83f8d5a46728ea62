"""D1 under load: nobody reads older data than he wrote, and the replicas do most of the work."""

from __future__ import annotations

from django.core.handlers.wsgi import WSGIHandler

from tests.databases import staleness
from tests.databases.sites import MIDDLEWARE

OPTIONS = {"urls": "tests.databases.staleness", "middleware": (MIDDLEWARE,)}


def test_nobody_reads_older_data_than_he_wrote(postgres_site, postgres_cluster):
    with postgres_site(**OPTIONS), staleness.lagging(postgres_cluster):
        seen = staleness.run(3000)
    assert seen.failed == []
    assert seen.stale == []
    assert seen.writes > 50
    assert seen.share > 0.5


def test_the_checker_catches_clients_without_cookies(postgres_site, postgres_cluster):
    """The control: the same run with the tracking off."""
    with postgres_site(**OPTIONS), staleness.lagging(postgres_cluster):
        seen = staleness.run(3000, cookies=False)
    assert seen.failed == []
    assert seen.stale


def test_that_no_replica_has_what_was_just_written_is_no_news(
    postgres_site, postgres_cluster, caplog
):
    with postgres_site(**OPTIONS), staleness.lagging(postgres_cluster, clients=1, pause=0):
        for standby in postgres_cluster.standbys:
            standby.pause_replay()
        client = staleness.Client(1, WSGIHandler(), cookies=True)
        seen = staleness.Seen()
        client.write(seen)
        client.read(seen)
    assert (seen.writes, seen.stale, seen.by_replica) == (1, [], 0)
    assert "No replica" not in caplog.text
