"""A real Prometheus asks a real site by what is rendered, and says when a media server dies."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from outgrow.testing import MediaServer, free_port
from outgrow.topology.model import Host, Port, Service, Site
from outgrow.topology.render import alerts
from tests.live.processes import kill_family, launched, missing, server_folder, wait_until
from tests.topology.test_alerts import files
from tests.topology.test_changes import TWO, site

SITE = """
import sys
from wsgiref.simple_server import make_server
import django
from django.conf import settings
from django.urls import include, path
port, folder, *servers = sys.argv[1:]
options = {"servers": dict(one.split("=") for one in servers), "location": folder, "downtime": 0.2}
settings.configure(
    SECRET_KEY="only for tests",
    # The page tells to write it: what looks at the host answers 400 without.
    ALLOWED_HOSTS=["127.0.0.1"],
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    ROOT_URLCONF="__main__",
    STORAGES={"default": {"BACKEND": "outgrow.media.HybridStorage", "OPTIONS": options}},
)
urlpatterns = [path("outgrow/", include("outgrow.urls"))]
django.setup()
from django.core.wsgi import get_wsgi_application
with make_server("127.0.0.1", int(port), get_wsgi_application()) as server:
    server.serve_forever()
"""


NOT_REPAIRED = ("OutgrowNotRepaired", "")
DOWN = ("OutgrowMediaServerDown", "media2")


@contextmanager
def ending(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        kill_family(process)


def asked(port: int, path: str) -> Any:
    """What Prometheus answers; None while it does not."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{path}", timeout=20) as answer:
            return json.load(answer)["data"]
    except OSError:
        return None


def at_home(one: Site, port: int) -> Site:
    service = Service("app1", "app", Port("127.0.0.1", port))
    others = (host for host in one.hosts if not host.name.startswith("app"))
    return replace(one, hosts=(Host("app1", "127.0.0.1", (service,)), *others))


@pytest.mark.drill
def test_prometheus_says_that_a_media_server_was_killed() -> None:
    program = shutil.which("prometheus")
    if program is None:
        missing("Prometheus is not installed", "apt-get install prometheus")
    port, own = free_port(), free_port()
    with (
        server_folder("outgrow-prometheus-") as folder,
        MediaServer() as one,
        MediaServer() as two,
    ):
        moved = at_home(site(TWO), port)
        rendered = files(moved)
        # Minutes become seconds; all else is what was rendered.
        rules = re.sub(r"for: \d+\w", "for: 4s", rendered[alerts.RULES])
        scrape = rendered[alerts.SCRAPE].replace("scrape_interval: 15s", "scrape_interval: 2s")
        scrape = scrape.replace("scrape_timeout: 10s", "scrape_timeout: 2s")
        (folder / alerts.RULES).write_text(rules)
        top = f"global: {{evaluation_interval: 1s}}\nrule_files: [{alerts.RULES}]\n"
        (folder / "prometheus.yml").write_text(top + scrape)
        (folder / "site.py").write_text(SITE)
        (folder / "media").mkdir()
        servers = [f"media1={one.url}", f"media2={two.url}"]
        words = [sys.executable, folder / "site.py", str(port), folder / "media", *servers]
        # The interpreter may be one that nobody else can start; Prometheus is unprivileged.
        own_site = subprocess.Popen(words, env={**os.environ, "PYTHONPATH": ":".join(sys.path)})
        prometheus = [program, f"--config.file={folder}/prometheus.yml"]
        prometheus += [f"--storage.tsdb.path={folder}/data"]
        prometheus += [f"--web.listen-address=127.0.0.1:{own}"]
        with ending(own_site), ending(launched(prometheus, folder, os.environ)):

            def healthy() -> bool:
                found = asked(own, "targets")
                return bool(found) and [one["health"] for one in found["activeTargets"]] == ["up"]

            def firing() -> set[tuple[str, str]]:
                found = asked(own, "alerts") or {"alerts": []}
                return {
                    (one["labels"]["alertname"], one["labels"].get("server", ""))
                    for one in found["alerts"]
                    if one["state"] == "firing"
                }

            wait_until(healthy, "Prometheus does not reach the site", seconds=100)
            # Nobody runs a repair here.
            wait_until(lambda: NOT_REPAIRED in firing(), "the alert does not fire")
            assert DOWN not in firing()
            two.stop()
            wait_until(lambda: DOWN in firing(), "the alert does not fire")
            assert not {name for name, server in firing() if server == "media1"}
            two.start()
            wait_until(lambda: DOWN not in firing(), "the alert goes on")
