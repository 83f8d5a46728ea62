"""The alert rules: which there are, when each fires by Prometheus' own tool, and what is quoted."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from outgrow import fanout, status
from outgrow.media import journal
from outgrow.topology import rendering
from outgrow.topology.model import Host, Port, Service, Site
from outgrow.topology.render import alerts
from outgrow.topology.render.alerts import RULES, SCRAPE, Rule, rules, text
from outgrow.topology.render.systemd import Places
from tests.live.processes import missing
from tests.topology.sites import sites
from tests.topology.test_changes import POSTGRESQL, STORE, TWO, site

ROOT = Path(__file__).parents[2]

#: Every rule: three media servers without a master, and two replicas, each with limits of its own.
FULL = site(
    {**TWO, "media3": "media", "db1": "primary", "db2": "replica", "db3": "replica"},
    media={"storage": "distributed", "downtime": 240.0, "deadline": 200.0},
    database={**POSTGRESQL, "max_lag": 7.0, "check_every": 6.0, "downtime": 200.0},
)


def files(one: Site) -> dict[str, str]:
    return {file.name.rpartition("/")[2]: file.content for file in alerts.render(one)}


def named(one: Site) -> dict[str, Rule]:
    return {rule.name: rule for rule in rules(one)}


# --- which there are


def test_a_site_has_the_alerts_of_what_it_has() -> None:
    every = set(named(FULL))
    assert len(every) == 13
    media = named(site({"app1": "app", "media1": "media"}))
    assert every - set(media) == {
        "OutgrowApplicationServerAway",
        "OutgrowNoReplicaServes",
        "OutgrowPrimaryAway",
        "OutgrowReplicaBehind",
        "OutgrowReplicaDown",
    }
    rows = named(site({"app1": "app", "s": "objects", "db1": "primary", "db2": "replica"}, **ROWS))
    assert set(rows) == {
        "OutgrowBlind",
        "OutgrowNoReplicaServes",
        "OutgrowPrimaryAway",
        "OutgrowReplicaBehind",
        "OutgrowReplicaDown",
    }


ROWS: dict[str, Any] = {"database": POSTGRESQL, "objects": STORE}


def test_without_metrics_there_is_nothing_to_ask() -> None:
    assert not files(site({"app1": "app", "s": "objects", "db1": "primary"}, **ROWS))
    sqlite = {"engine": "sqlite", "name": "rows"}
    one = {"app1": "app", "s": "objects", "db1": "primary", "db2": "replica"}
    assert not files(site(one, **{**ROWS, "database": sqlite}))
    assert not files(site({"app1": "app", "s": "objects"}, objects=STORE))


def test_they_are_of_no_server() -> None:
    every = [file.name for file in rendering.plan(FULL, Places())]
    assert every[-2:] == [f"prometheus/{RULES}", f"prometheus/{SCRAPE}"]
    some = rendering.plan(FULL, Places(), hosts=["app1", "media1"])
    assert {file.name.partition("/")[0] for file in some} == {"app1", "media1"}
    # A server of the site may run it, and be called so.
    called = rendering.plan(site({**TWO, "prometheus": "app"}), Places())
    assert len({file.name for file in called}) == len(called)


# --- their limits


@pytest.mark.parametrize(
    ("need", "storage", "found"),
    [
        (None, "hybrid", 1),
        (None, "distributed", 2),
        ("all", "hybrid", 3),
        ("majority", "hybrid", 2),
        (3, "hybrid", 3),
        (0, "hybrid", 1),
    ],
)
def test_a_save_needs_so_many_servers(need: Any, storage: str, found: int) -> None:
    one = replace(FULL, media=replace(FULL.media, need=need, storage=storage))
    rule = named(one)["OutgrowTooFewMediaServers"]
    assert rule.expression.endswith(f" < {found}")
    fails = "visitors get no files" if need == 0 else "saves fail"
    assert fails in rule.summary


def test_limits_are_the_numbers_of_the_file() -> None:
    full, plain = named(FULL), named(site({**TWO, "db1": "primary", "db2": "replica"}, **PLAIN))
    assert full["OutgrowMediaServerDown"].lasts == 480
    assert plain["OutgrowMediaServerDown"].lasts == 300
    assert "> 1600\n" in f"{full['OutgrowChangesWait'].expression}\n"
    assert "> 1200\n" in f"{plain['OutgrowChangesWait'].expression}\n"
    assert full["OutgrowReplicaDown"].lasts == 400
    assert "> 7\n" in full["OutgrowReplicaBehind"].expression
    assert "> 10\n" in plain["OutgrowReplicaBehind"].expression
    assert "max_lag = 7 s" in full["OutgrowReplicaBehind"].why
    assert full["OutgrowFilesOwed"].severity == "page"
    assert plain["OutgrowFilesOwed"].severity == "ticket"
    slow = replace(FULL, media=replace(FULL.media, downtime=1000.0))
    assert "> 2000\n" in named(slow)["OutgrowFilesOwed"].expression
    assert "the primary serves" in plain["OutgrowNoReplicaServes"].summary
    assert FULL.database
    stale = replace(FULL.database.replication, when_behind="stale", check_every=100.5)
    rare = named(replace(FULL, database=replace(FULL.database, replication=stale)))
    assert "old data" in rare["OutgrowNoReplicaServes"].summary
    assert "[402s]" in rare["OutgrowPrimaryAway"].expression


PLAIN: dict[str, Any] = {"database": POSTGRESQL}


def test_what_is_taken_for_the_defaults_are_the_defaults() -> None:
    assert alerts.DEADLINE == fanout.DEADLINE
    assert alerts.MAX_AGE == status.MAX_AGE
    assert alerts.ATTEMPT_LIMIT == journal.ATTEMPT_LIMIT


def test_every_alert_says_what_is_to_be_done_and_where_it_stands() -> None:
    table = (ROOT / "docs/howto/monitoring.md").read_text().partition("\n## Alerts\n")[2]
    rows = re.findall(r"^\| `(Outgrow\w+)` \| (\w+)(?:, or (\w+) [^|]*)? \|", table, re.MULTILINE)
    with_master, without = named(site(TWO)), named(FULL)
    assert {name for name, *_ in rows} == set(without)
    for name, usual, other in rows:
        assert without[name].severity == (other or usual)
        assert name not in with_master or with_master[name].severity == usual
    for rule in (*rules(FULL), *rules(site(TWO))):
        assert rule.todo.endswith(".")
        assert rule.why.endswith(".")
        assert rule.severity in {alerts.PAGE, alerts.TICKET}
        path, _, anchor = rule.page.partition("#")
        page = (ROOT / "docs" / path).read_text()
        titles = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
        slugs = {re.sub(r"[^a-z0-9-]", "", title.lower().replace(" ", "-")) for title in titles}
        assert not anchor or anchor in slugs, rule.page


# --- names


@given(sites())
def test_any_site_is_yaml_that_holds_its_names(one: Site) -> None:
    found = files(one)
    [group] = yaml.safe_load(found[RULES])["groups"]
    assert group["name"] == f"outgrow-{one.name}"
    for rule, loaded in zip(rules(one), group["rules"], strict=True):
        assert loaded["expr"] == rule.expression
        assert f"job={text(alerts.job(one))}" in loaded["expr"]
        assert loaded["labels"] == {"severity": rule.severity, "site": one.name}
        assert loaded["annotations"]["summary"] == rule.summary
        assert re.fullmatch(r"\d+[smhd]", loaded["for"])
    [job] = yaml.safe_load(found[SCRAPE])["scrape_configs"]
    asked = {(each["labels"]["host"], *each["targets"]) for each in job["static_configs"]}
    assert asked == {
        (host.name, str(service.port))
        for host in one.hosts
        for service in host.services
        if service.role == "app"
    }


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_a_text_is_one_line_and_itself(value: str) -> None:
    quoted = text(value)
    assert quoted.isascii()
    assert quoted.isprintable()
    assert yaml.safe_load(f"key: {quoted}") == {"key": value}


HOSTILE = 'a"b\\c\n}} == 1 or vector(1) #\u2028\x7f\x85\U0001f600{{ $value }}'


def test_names_that_no_file_can_have_break_nothing(tmp_path: Path) -> None:
    """`rules` refuses them; whoever makes a site by hand gets no other rule than he wanted."""
    port = Port("fd00::1", 8000)
    host = Host(HOSTILE, "fd00::1", (Service(HOSTILE, "app", port),))
    one = replace(FULL, name=HOSTILE, hosts=(host, *FULL.hosts))
    found = written(one, tmp_path)
    promtool("check", "rules", found / RULES)
    promtool("check", "config", found / SCRAPE)
    assert '"[fd00::1]:8000"' in (found / SCRAPE).read_text()
    [group] = yaml.safe_load((found / RULES).read_text())["groups"]
    assert len(group["rules"]) == 13
    down = {**HEALTHY, 'outgrow_media_watched{storage="default"}': "0x100"}
    group = {
        "interval": "15s",
        "input_series": [
            {"series": in_job(one, series), "values": values} for series, values in down.items()
        ],
        "promql_expr_test": [firing("8m", {"OutgrowNotRepaired": 1})],
    }
    unit_test(found, [group])


# --- when they fire


def promtool(*words: object) -> None:
    program = shutil.which("promtool")
    if program is None:
        missing("promtool is not installed", "apt-get install prometheus")
    done = subprocess.run(
        [program, *map(str, words)], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def written(one: Site, folder: Path) -> Path:
    for name, content in files(one).items():
        (folder / name).write_text(content)
    return folder


def unit_test(folder: Path, tests: list[dict[str, Any]], every: str = "1m") -> None:
    """`promtool test rules`; JSON is YAML."""
    path = folder / "test.yml"
    whole = {"rule_files": [RULES], "evaluation_interval": every, "tests": tests}
    path.write_text(json.dumps(whole))
    promtool("test", "rules", path)


def in_job(one: Site, series: str) -> str:
    return series.replace("{", f"{{job={text(alerts.job(one))},", 1)


def firing(time: str, names: Mapping[str, int]) -> dict[str, Any]:
    """At this time these alerts fire, so many of each, and no others."""
    return {
        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
        "eval_time": time,
        "exp_samples": [
            {"labels": f'{{alertname="{name}"}}', "value": count} for name, count in names.items()
        ],
    }


APPS = ("app1", "app2")
DATABASES = {"default": "primary", "db2": "replica", "db3": "replica"}


def database(name: str, app: str, alias: str) -> str:
    where = f'cluster="default",alias="{alias}",role="{DATABASES[alias]}"'
    return f'outgrow_database_{name}{{host="{app}",{where}}}'


def media(name: str, server: str, app: str = "app1") -> str:
    return f'outgrow_media_{name}{{host="{app}",storage="default",server="{server}"}}'


#: A site that is well.
HEALTHY: dict[str, str] = {
    **{f'up{{host="{app}"}}': "1x300" for app in APPS},
    **{
        f'outgrow_media_journal_readable{{host="{app}",storage="default"}}': "1x300" for app in APPS
    },
    'outgrow_media_watched{storage="default"}': "1x300",
    'outgrow_media_oldest_change_seconds{storage="default"}': "0 3x300",
    **{media("up", f"media{number}"): "1x300" for number in (1, 2, 3)},
    **{media("oldest_owed_seconds", f"media{number}"): "0 20x300" for number in (1, 2, 3)},
    **{media("owed_everything", f"media{number}"): "0x300" for number in (1, 2, 3)},
    **{database("up", app, alias): "1x300" for app in APPS for alias in DATABASES},
    **{database("used", app, alias): "1x300" for app in APPS for alias in DATABASES},
    **{
        database("lag_seconds", app, alias): "0 1 2x300" for app in APPS for alias in ("db2", "db3")
    },
}


def databases(name: str, values: str, *aliases: str) -> dict[str, str]:
    return {database(name, app, alias): values for app in APPS for alias in aliases}


#: What is otherwise; when nothing fires yet; when that fires.
SCENARIOS: dict[str, tuple[dict[str, str], str, str, dict[str, int]]] = {
    "well": ({}, "1m", "20m", {}),
    "all application servers": (
        {f'up{{host="{app}"}}': "0x300" for app in APPS},
        "4m45s",
        "5m15s",
        {"OutgrowBlind": 1, "OutgrowApplicationServerAway": 2},
    ),
    "one application server": (
        {'up{host="app2"}': "0x300"},
        "4m45s",
        "5m15s",
        {"OutgrowApplicationServerAway": 1},
    ),
    "an application server that is restarted": ({'up{host="app2"}': "0x12 1x300"}, "1m", "20m", {}),
    "catalogue": (
        {'outgrow_media_journal_readable{host="app2",storage="default"}': "0x300"},
        "1m45s",
        "2m15s",
        {"OutgrowJournalAway": 1},
    ),
    "no repair": (
        {'outgrow_media_watched{storage="default"}': "0x300"},
        "4m45s",
        "5m15s",
        {"OutgrowNotRepaired": 1},
    ),
    "the queue": (
        {'outgrow_media_oldest_change_seconds{storage="default"}': "1600x8 1601x300"},
        "3m30s",
        "4m30s",
        {"OutgrowChangesWait": 1},
    ),
    "one media server": (
        {media("up", "media2"): "0x300", media("oldest_owed_seconds", "media2"): "0+15x300"},
        "7m45s",
        "8m15s",
        {"OutgrowMediaServerDown": 1},
    ),
    "two media servers": (
        {media("up", f"media{number}"): "0x300" for number in (2, 3)},
        "1m45s",
        "2m15s",
        {"OutgrowTooFewMediaServers": 1},
    ),
    "two media servers for long": (
        {media("up", f"media{number}"): "0x300" for number in (2, 3)},
        "1m45s",
        "9m",
        {"OutgrowTooFewMediaServers": 1, "OutgrowMediaServerDown": 2},
    ),
    "one application server does not reach a media server": (
        {media("up", "media2", "app2"): "0x300"},
        "1m",
        "20m",
        {},
    ),
    "files that are refused": (
        {media("oldest_owed_seconds", "media1"): "601x300"},
        "9m45s",
        "10m15s",
        {"OutgrowFilesOwed": 1},
    ),
    "a server that was away and has it all soon": (
        {media("oldest_owed_seconds", "media1"): "36000x30 0x300"},
        "1m",
        "20m",
        {},
    ),
    "a comparison": (
        {
            media("owed_everything", "media1"): "1x300",
            media("oldest_owed_seconds", "media1"): "0+15x300",
        },
        "23h50m",
        "24h10m",
        {"OutgrowComparisonUnfinished": 1},
    ),
    "the primary from one application server": (
        {database("up", "app1", "default"): "0x300"},
        "45s",
        "1m15s",
        {"OutgrowPrimaryAway": 1},
    ),
    # Without news of it the replicas count as behind: only one alert says so.
    "the primary": (
        {
            **databases("up", "0x300", "default"),
            **databases("used", "0x300", "default", "db2", "db3"),
            **databases("lag_seconds", "0+15x300", "db2", "db3"),
        },
        "45s",
        "20m",
        {"OutgrowPrimaryAway": 2},
    ),
    "one replica": (
        {**databases("up", "0x300", "db2"), **databases("used", "0x300", "db2")},
        "6m30s",
        "7m",
        {"OutgrowReplicaDown": 1},
    ),
    "all replicas are behind": (
        {
            **databases("used", "0x300", "db2", "db3"),
            **databases("lag_seconds", "7.5x300", "db2", "db3"),
        },
        "1m45s",
        "5m15s",
        {"OutgrowNoReplicaServes": 1, "OutgrowReplicaBehind": 2},
    ),
    "one replays nothing": (
        {**databases("used", "0x300", "db2"), **databases("lag_seconds", "Inf+0x300", "db2")},
        "4m45s",
        "5m15s",
        {"OutgrowReplicaBehind": 1},
    ),
    "as old as it may be": (databases("lag_seconds", "7x300", "db2"), "1m", "20m", {}),
    # Each scrape is answered by another process.
    "a process that has not looked yet": (
        {
            **databases("up", "1 _ _ _ " * 60, *DATABASES),
            **databases("used", "1 0 0 0 " * 60, "db2", "db3"),
        },
        "5m",
        "20m",
        {},
    ),
    "nobody has looked": (
        {**databases("up", "_x300", *DATABASES), **databases("used", "0x300", "db2", "db3")},
        "5m",
        "20m",
        {},
    ),
}


def test_every_alert_fires_when_it_should_and_no_other(tmp_path: Path) -> None:
    found = written(FULL, tmp_path)
    promtool("check", "rules", found / RULES)
    groups = []
    for name, (otherwise, before, after, names) in SCENARIOS.items():
        series = {**HEALTHY, **otherwise}
        groups.append(
            {
                "name": name,
                # The staleness of a sample is 5 m; a day of 15 s would be many.
                "interval": "290s" if "24h" in after else "15s",
                "input_series": [
                    {"series": in_job(FULL, one), "values": values}
                    for one, values in series.items()
                ],
                "promql_expr_test": [firing(before, {}), firing(after, names)],
            }
        )
    assert {name for *_, names in SCENARIOS.values() for name in names} == set(named(FULL))
    unit_test(found, [group for group in groups if group["interval"] == "15s"])
    unit_test(found, [group for group in groups if group["interval"] != "15s"], every="10m")


def test_prometheus_that_asks_nobody_of_the_site_says_so(tmp_path: Path) -> None:
    found = written(FULL, tmp_path)
    other = [{"series": 'up{job="another"}', "values": "1x100"}]
    expected = [firing("4m45s", {}), firing("6m", {"OutgrowBlind": 1})]
    unit_test(found, [{"interval": "15s", "input_series": other, "promql_expr_test": expected}])


def test_who_is_woken_reads_whole_sentences(tmp_path: Path) -> None:
    found = written(FULL, tmp_path)
    rule = named(FULL)["OutgrowFilesOwed"]
    owed = {**HEALTHY, media("oldest_owed_seconds", "media1"): "5400x100"}
    alert = {
        "exp_labels": {
            "severity": "page",
            "site": "shop",
            "storage": "default",
            "server": "media1",
        },
        "exp_annotations": {
            "summary": "media1 is up and lacks files, the first for 1h 30m 0s.",
            "description": rule.todo,
            "why": rule.why,
            "page": "howto/probe.md",
        },
    }
    group = {
        "interval": "15s",
        "input_series": [
            {"series": in_job(FULL, one), "values": values} for one, values in owed.items()
        ],
        "alert_rule_test": [
            {"eval_time": "15m", "alertname": "OutgrowFilesOwed", "exp_alerts": [alert]}
        ],
    }
    unit_test(found, [group])


# --- the configuration around them


def test_the_configuration_of_the_page_is_one(tmp_path: Path) -> None:
    page = (ROOT / "docs/howto/monitoring.md").read_text()
    [block] = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    found = written(FULL, tmp_path)
    job = found.joinpath(SCRAPE).read_text().partition("scrape_configs:\n")[2]
    assert block.endswith("scrape_configs:\n")
    path = tmp_path / "prometheus.yml"
    path.write_text(block.replace("/etc/prometheus", str(found)) + job)
    promtool("check", "config", path)
    promtool("check", "config", found / SCRAPE)
