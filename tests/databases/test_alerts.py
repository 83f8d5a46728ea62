"""The alert rules ask for nothing that a real site does not tell."""

from __future__ import annotations

import re
from pathlib import Path

from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.test import Client, override_settings
from django.urls import include, path
from prometheus_client.parser import text_string_to_metric_families

from outgrow.media.repair import Repair
from outgrow.media.watch import Watch
from outgrow.testing import MediaServer
from outgrow.topology.render.alerts import METRICS_PATH, rules
from tests.databases.urls import urlpatterns as pages
from tests.topology.test_alerts import FULL

urlpatterns = [*pages, path("outgrow/", include("outgrow.urls"))]

SELECTOR = re.compile(r"\b(up|outgrow_\w+)\{([^}]*)\}")
#: Labels that are Prometheus' own, or the scrape configuration's.
ITS_OWN = {"job", "host"}


def scraped() -> dict[str, list[dict[str, str]]]:
    """The labels of every sample, by the name of its metric."""
    answer = Client().get(METRICS_PATH)
    assert answer.status_code == 200
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def test_every_metric_and_label_of_every_rule_exists(
    postgres_site, postgres_cluster, tmp_path: Path
) -> None:
    with MediaServer() as one, MediaServer() as two:
        options = {"servers": {"media1": one.url, "media2": two.url}, "location": str(tmp_path)}
        media = {"BACKEND": "outgrow.media.HybridStorage", "OPTIONS": options}
        with postgres_site(urls=__name__), override_settings(STORAGES={"default": media}):
            site = storages["default"]
            Watch(Repair(site.replication), wait=lambda _: True, name="app1:7").run()
            site.save("f.txt", ContentFile(b"x"))
            Client().get("/list/")
            found = scraped()
    found["up"] = [{}]
    seen = set()
    for rule in rules(FULL):
        selectors = SELECTOR.findall(rule.expression)
        assert selectors, rule
        kept = set()
        for name, inside in selectors:
            wanted = dict(re.findall(r'(\w+)="([^"]*)"', inside))
            samples = [
                labels
                for labels in found[name]
                if all(labels[key] == wanted[key] for key in wanted.keys() - ITS_OWN)
            ]
            assert samples, (name, wanted)
            kept |= {*samples[0], *ITS_OWN}
            seen.add(name)
        by = {
            label.strip()
            for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", rule.expression)
            for label in group.split(",")
        }
        told = set(re.findall(r"\$labels\.(\w+)", rule.summary + rule.todo))
        assert by <= kept, rule
        assert told <= (by or kept), rule
    assert len(seen) == 10
