"""A site -> what its Prometheus asks, and when it wakes a person.

The laws:

1. A rule asks for nothing but what `outgrow.metrics` exposes, and `up`, which Prometheus
   itself writes of each server that it asks. A test scrapes a site and compares.
2. Each limit is a number of the topology file, or the default that holds without it; the
   annotation `why` says which.
3. What is known of the database belongs to one process, and each scrape is answered by
   another one: some have not looked yet. So those rules take the best of a window.
4. Every text is ASCII, and in quotes; see `text`.

Sources: prometheus.io/docs/prometheus/latest/configuration/alerting_rules/ and
.../configuration/configuration/#scrape_config; for the escapes .../querying/basics/ and
yaml.org/spec/1.2.2/#57-escaped-characters
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Final

from outgrow.servers import DOWNTIME
from outgrow.topology.database import CHECK_EVERY, MAX_LAG, Database
from outgrow.topology.model import Site
from outgrow.topology.render import File

#: Where they are written: they belong to no server of the site.
FOLDER: Final = "prometheus"
RULES: Final = "outgrow-alerts.yml"
SCRAPE: Final = "outgrow-scrape.yml"

#: Where the documentation puts `outgrow.urls`.
METRICS_PATH: Final = "/outgrow/metrics/"

#: From one scrape to the next, in seconds. Without a watch, one waits 5 s for a silent server.
INTERVAL: Final = 15

#: For whom an alert is: who sleeps, or who comes tomorrow.
PAGE: Final = "page"
TICKET: Final = "ticket"

# Defaults of the storages, which a topology may not import; a test compares them.
DEADLINE: Final = 25.0
#: `media status --check` tells of what is owed for longer.
MAX_AGE: Final = 600.0
#: An attempt without movement counts as dead then, or after four times `deadline`.
ATTEMPT_LIMIT: Final = 600.0

#: Seconds that any restart may take: a machine's, or a service's.
_RESTART: Final = 300.0
_DAY: Final = 86_400.0

_ALERTS: Final = "howto/monitoring.md#alerts"

_HEADER: Final = """\
# Written by outgrow. Changes here are lost.
"""


@dataclass(frozen=True, slots=True)
class Rule:
    """One alert. `lasts` is for how many seconds the expression must hold.

    `summary` and `todo` are templates of Prometheus, `page` is one of this documentation.
    """

    name: str
    severity: str
    expression: str
    lasts: float
    summary: str
    todo: str
    why: str
    page: str = _ALERTS


def render(site: Site) -> Iterator[File]:
    """The rules and the scrape configuration; nothing for a site that has no metrics of ours."""
    found = list(rules(site))
    if found:
        yield File(f"{FOLDER}/{RULES}", _rules(site, found))
        yield File(f"{FOLDER}/{SCRAPE}", _scrape(site))


def rules(site: Site) -> Iterator[Rule]:
    """Every alert that this site can have."""
    media = bool(site.services("media"))
    database = site.database
    replicas = database is not None and database.has_servers and bool(site.services("replica"))
    if media or replicas:
        yield from _application(site)
    if media:
        yield from _uploads(site)
        yield from _media_servers(site)
        yield from _owed(site)
    if database is not None and replicas:
        yield from _primary(site, database)
        yield from _replicas(site, database)


def job(site: Site) -> str:
    """What Prometheus calls the application servers of this site."""
    return f"outgrow-{site.name}"


# --- the application servers, who tell all the rest


def _application(site: Site) -> Iterator[Rule]:
    up = _metric(site, "up")
    yield Rule(
        "OutgrowBlind",
        PAGE,
        f"absent({up} == 1)",
        _RESTART,
        "No application server tells its metrics.",
        "See whether visitors get pages. If they do, Prometheus is not let in: look at its page "
        "of targets for the reason. Until then no other alert of this site fires.",
        f"{_span(_RESTART)}: longer than a restart.",
    )
    if len(site.services("app")) > 1:
        yield Rule(
            "OutgrowApplicationServerAway",
            TICKET,
            f"{up} == 0",
            _RESTART,
            "The application server {{ $labels.host }} does not tell its metrics.",
            "journalctl -u outgrow-app there. The others serve the visitors meanwhile.",
            f"{_span(_RESTART)}: longer than a restart.",
        )


# --- the media servers


def _uploads(site: Site) -> Iterator[Rule]:
    what = "catalogue in the database" if site.media.is_distributed else "journal beside MEDIA_ROOT"
    yield Rule(
        "OutgrowJournalAway",
        PAGE,
        f"{_metric(site, 'outgrow_media_journal_readable')} == 0",
        120.0,
        f"{{{{ $labels.host }}}} can't read the {what}: saves fail there.",
        "Its log says why: the database, the disk, or the mount. Nothing is repaired meanwhile.",
        "2m: it answers at each scrape, and eight have failed.",
        "howto/distributed.md#when-the-database-is-down" if site.media.is_distributed else _ALERTS,
    )
    watched = _metric(site, "outgrow_media_watched", storage="default")
    yield Rule(
        "OutgrowNotRepaired",
        PAGE,
        f"max by (storage) ({watched}) == 0",
        _RESTART,
        "Nobody repairs the uploads: no 'media repair --watch' runs.",
        "systemctl restart outgrow-repair on an application server; journalctl -u "
        "outgrow-repair says why it ended.",
        f"A watch counts as gone 30 s after its last sign; {_span(_RESTART)} is longer than its "
        "restart.",
    )
    dead = max(ATTEMPT_LIMIT, 4 * _deadline(site))
    yield Rule(
        "OutgrowChangesWait",
        _without_copies(site),
        f"{_most(site, 'oldest_change_seconds', 'storage')} > {_number(2 * dead)}",
        60.0,
        "A save or a delete waits for {{ $value | humanizeDuration }} to reach the media servers.",
        "Is the queue of the storage worked off? See the site's workers, and "
        "'manage.py outgrow media status'.",
        f"A repair takes over what has not moved for {_span(dead)} (four times deadline = "
        f"{_deadline(site):g} s, and ten minutes at least); this is twice that.",
        "howto/background.md",
    )


def _media_servers(site: Site) -> Iterator[Rule]:
    need, count = _need(site), len(site.services("media"))
    up = _metric(site, "outgrow_media_up", storage="default")
    fails = "saves fail" if need else "visitors get no files from them"
    yield Rule(
        "OutgrowTooFewMediaServers",
        PAGE,
        f"sum by (storage) (max by (storage, server) ({up})) < {max(1, need)}",
        120.0,
        f"{{{{ $value }}}} of {count} media servers are up: {fails}.",
        "'manage.py outgrow media status' names those that are down, and why. Start one: "
        "journalctl -u outgrow-media there.",
        f"A save needs {need} of {count} servers (need).",
        "howto/add-and-replace.md",
    )
    downtime = site.media.downtime or DOWNTIME
    yield Rule(
        "OutgrowMediaServerDown",
        TICKET,
        f"{_most(site, 'up', 'storage, server')} == 0",
        max(_RESTART, 2 * downtime),
        "The media server {{ $labels.server }} is down.",
        "'manage.py outgrow media status' says why; journalctl -u outgrow-media there. What it "
        "misses is sent when it is back. If its disk is lost, replace it.",
        f"After a failure it is left alone for {downtime:g} s (downtime); this is twice that, and "
        f"{_span(_RESTART)} at least.",
        "howto/add-and-replace.md",
    )


def _owed(site: Site) -> Iterator[Rule]:
    oldest = _most(site, "oldest_owed_seconds", "storage, server")
    up = _most(site, "up", "storage, server")
    everything = _most(site, "owed_everything", "storage, server")
    downtime = site.media.downtime or DOWNTIME
    longest = max(MAX_AGE, 2 * downtime)
    yield Rule(
        "OutgrowFilesOwed",
        _without_copies(site),
        f"{oldest} > {_number(longest)}\n"
        f"and on (storage, server) {up} == 1\n"
        f"unless on (storage, server) {everything} == 1",
        longest,
        "{{ $labels.server }} is up and lacks files, the first for "
        "{{ $value | humanizeDuration }}.",
        "'manage.py outgrow media status' says what it refuses, and journalctl -u "
        "outgrow-repair. A full disk and a wrong token are usual; 'media probe' tells.",
        f"{_span(longest)}: as 'media status --check' has it, or twice downtime = {downtime:g} s. "
        "It has as long again to work off what a time of being down has left.",
        "howto/probe.md",
    )
    yield Rule(
        "OutgrowComparisonUnfinished",
        TICKET,
        f"{everything} == 1",
        _DAY,
        "{{ $labels.server }} has been waiting for a day to be compared with every file.",
        "'manage.py outgrow media status' says whether it goes on. A limit of its rate, a refused "
        "listing, or a repair that ends early hold it up.",
        "1d: a comparison is one listing, and what differs.",
        "howto/add-and-replace.md",
    )


def _without_copies(site: Site) -> str:
    """How urgent it is that files lie on fewer servers than they should."""
    return PAGE if site.media.is_distributed else TICKET


def _need(site: Site) -> int:
    """How many servers a save needs, as the storage reads its option."""
    count = len(site.services("media"))
    given = site.media.need
    if given is None:
        given = "majority" if site.media.is_distributed else 1
    if isinstance(given, int):
        return given
    return count if given == "all" else count // 2 + 1


def _deadline(site: Site) -> float:
    return site.media.deadline or DEADLINE


# --- the database servers


def _primary(site: Site, database: Database) -> Iterator[Rule]:
    yield Rule(
        "OutgrowPrimaryAway",
        PAGE,
        f"{_best(site, database, 'up', 'cluster, alias, host', role='primary')} == 0",
        60.0,
        "{{ $labels.host }} does not reach the primary database: nothing can be written there.",
        "'manage.py outgrow databases status' asks all servers. Start it, or promote a replica.",
        _window_why(database),
        "howto/promote.md",
    )


def _replicas(site: Site, database: Database) -> Iterator[Rule]:
    given = database.replication
    downtime, max_lag = given.downtime or DOWNTIME, given.max_lag or MAX_LAG
    away = f"{_best(site, database, 'up', 'cluster', role='primary')} == 0"
    yield Rule(
        "OutgrowNoReplicaServes",
        PAGE,
        f"{_best(site, database, 'used', 'cluster', role='replica')} == 0\n"
        f"and on (cluster) {_best(site, database, 'up', 'cluster', role='replica')}\n"
        f"unless on (cluster) {away}",
        120.0,
        "No replica of {{ $labels.cluster }} is used: " + _behind(given.when_behind or "primary"),
        "'manage.py outgrow databases status' says which are down, and which are behind.",
        f"{_window_why(database)} One that is behind by more than max_lag = {max_lag:g} s is not "
        "used.",
        "howto/replicas.md#status-and-alerts",
    )
    yield Rule(
        "OutgrowReplicaDown",
        TICKET,
        f"{_best(site, database, 'up', 'cluster, alias', role='replica')} == 0",
        max(_RESTART, 2 * downtime),
        "The replica {{ $labels.alias }} does not answer.",
        "Start it. If its data are lost, make it anew from the primary.",
        f"After a failure it is left alone for {downtime:g} s (downtime); this is twice that, and "
        f"{_span(_RESTART)} at least.",
        "howto/replicas.md#status-and-alerts",
    )
    lag = _metric(site, "outgrow_database_lag_seconds", role="replica")
    window = _window(database)
    yield Rule(
        "OutgrowReplicaBehind",
        TICKET,
        f"min by (cluster, alias) (min_over_time({lag}[{window}])) > {_number(max_lag)}\n"
        f"unless on (cluster) {away}",
        _RESTART,
        "The replica {{ $labels.alias }} is behind by {{ $value }} s, and serves nobody.",
        "+Inf: it replays nothing, or takes writes itself. See whether its replication runs, and "
        "which query or lock holds it up.",
        f"max_lag = {max_lag:g} s; {_span(_RESTART)}, because a long transaction may be behind "
        "for a moment.",
        "howto/replicas.md#status-and-alerts",
    )


def _behind(when: str) -> str:
    return "visitors read old data." if when == "stale" else "the primary serves all reads."


def _window(database: Database) -> str:
    """Long enough for each process to have looked, and for several to be asked."""
    return _span(max(120.0, 4 * (database.replication.check_every or CHECK_EVERY)))


def _window_why(database: Database) -> str:
    every = database.replication.check_every or CHECK_EVERY
    return (
        f"No process has said otherwise for {_window(database)}; each looks every {every:g} s "
        "(check_every)."
    )


def _best(site: Site, database: Database, name: str, by: str, **labels: str) -> str:
    """The best that any process has seen (law 3)."""
    metric = _metric(site, f"outgrow_database_{name}", **labels)
    return f"max by ({by}) (max_over_time({metric}[{_window(database)}]))"


# --- PromQL and YAML


def _most(site: Site, name: str, by: str) -> str:
    """The most that an application server tells: where they share a journal, all tell the same."""
    return f"max by ({by}) ({_metric(site, f'outgrow_media_{name}')})"


def _metric(site: Site, name: str, **labels: str) -> str:
    every = {"job": job(site), **labels}
    return f"{name}{{{', '.join(f'{key}={text(value)}' for key, value in every.items())}}}"


def _span(seconds: float) -> str:
    """A length of time, at least that of so many seconds, as Prometheus writes it."""
    whole = ceil(seconds)
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if whole % size == 0:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def _number(value: float) -> str:
    return repr(value).removesuffix(".0")


def text(value: str) -> str:
    r"""A text in quotes, ASCII alone: the same one to YAML, to PromQL and to Go.

    All of them know `\"`, `\\`, `\uXXXX` and `\UXXXXXXXX`.
    """
    return f'"{"".join(map(_escaped, value))}"'


def _escaped(character: str) -> str:
    if character in {'"', "\\"}:
        return f"\\{character}"
    if " " <= character <= "~":
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _rules(site: Site, found: list[Rule]) -> str:
    lines = [
        f"{_HEADER}# For rule_files of prometheus.yml. Send what has severity {text(PAGE)} to who",
        f"# is to be woken, and {text(TICKET)} to where work is collected.",
        "groups:",
        f"  - name: {text(job(site))}",
        "    rules:",
    ]
    for rule in found:
        lines += _alert(site, rule)
    return "\n".join(lines) + "\n"


def _alert(site: Site, rule: Rule) -> Iterator[str]:
    yield f"      - alert: {rule.name}"
    yield "        expr: |-"
    yield from (f"          {line}" for line in rule.expression.splitlines())
    yield f"        for: {_span(rule.lasts)}"
    yield "        labels:"
    yield f"          severity: {text(rule.severity)}"
    yield f"          site: {text(site.name)}"
    yield "        annotations:"
    annotations = {
        "summary": rule.summary,
        "description": rule.todo,
        "why": rule.why,
        "page": rule.page,
    }
    yield from (f"          {key}: {text(value)}" for key, value in annotations.items())


def _scrape(site: Site) -> str:
    lines = [
        f"{_HEADER}# For scrape_configs of prometheus.yml; since 2.43 also scrape_config_files.",
        "# The site has outgrow.urls below outgrow/, and the addresses in ALLOWED_HOSTS.",
        "scrape_configs:",
        f"  - job_name: {text(job(site))}",
        f"    metrics_path: {text(METRICS_PATH)}",
        f"    scrape_interval: {INTERVAL}s",
        "    scrape_timeout: 10s",
        "    # Whom a redirect leads to is not the server that was asked.",
        "    follow_redirects: false",
        "    static_configs:",
    ]
    for host in site.hosts:
        for service in host.services:
            if service.role == "app":
                lines.append(f"      - targets: [{text(str(service.port))}]")
                lines.append(f"        labels: {{host: {text(host.name)}}}")
    return "\n".join(lines) + "\n"
