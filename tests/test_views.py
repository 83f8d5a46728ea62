"""The views for balancers and monitoring, and the metrics."""

from __future__ import annotations

import subprocess
import sys

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.test import Client, override_settings
from prometheus_client.parser import text_string_to_metric_families

from outgrow.media.repair import Repair
from outgrow.media.watch import Watch
from outgrow.testing import MediaServer


@pytest.fixture
def servers():
    with MediaServer() as one, MediaServer() as two:
        yield {"media1": one, "media2": two}


@pytest.fixture
def site(tmp_path, servers):
    urls = {name: server.url for name, server in servers.items()}
    options = {"servers": urls, "location": str(tmp_path), "downtime": 0.05}
    media = {"BACKEND": "outgrow.media.HybridStorage", "OPTIONS": options}
    with override_settings(
        STORAGES={"default": media}, ROOT_URLCONF="outgrow.urls", ALLOWED_HOSTS=["testserver"]
    ):
        Repair(storages["default"].replication).once(settle=False)
        yield storages["default"]


def get(path: str):
    return Client().get(path)


def metrics() -> dict[tuple[str, str], float]:
    families = text_string_to_metric_families(get("/metrics/").content.decode())
    return {
        (sample.name.removeprefix("outgrow_media_"), sample.labels.get("server", "")): sample.value
        for family in families
        for sample in family.samples
    }


def test_a_server_is_ready_when_it_has_every_file_again(site, servers):
    assert get("/ready/media2/").status_code == 200
    servers["media2"].stop()
    site.save("f.txt", ContentFile(b"x"))
    answer = get("/ready/media2/")
    assert (answer.status_code, b"media2 is down" in answer.content) == (503, True)
    servers["media2"].start()
    answer = get("/ready/media2/")
    assert (answer.status_code, answer.content) == (503, b"media2 is owed 1 files\n")
    Repair(site.replication).once(settle=False)
    assert get("/ready/media2/").status_code == 200
    assert get("/ready/media1/").status_code == 200
    assert get("/ready/nobody/").status_code == 404


def test_the_status_is_json(site):
    (shot,) = get("/status/").json()["storages"]
    assert [one["name"] for one in shot["servers"]] == ["media1", "media2"]
    assert Client().post("/status/").status_code == 405


def test_the_metrics_tell_what_is_owed_and_done(site, servers):
    servers["media2"].stop()
    for _ in range(3):
        site.save("f.txt", ContentFile(b"x"))
    found = metrics()
    assert found["up", "media1"] == 1
    assert found["up", "media2"] == 0
    assert found["owed_files", "media2"] == 3
    assert 0 <= found["oldest_owed_seconds", "media2"] < 60
    assert found["watched", ""] == 0
    servers["media2"].start()
    Watch(Repair(site.replication), wait=lambda _: True).run()
    found = metrics()
    assert found["owed_files", "media2"] == 0
    assert found["repaired_files_total", ""] == 3
    assert found["watched", ""] == 1
    assert found["changes_in_progress", ""] == 0


def test_without_its_client_the_extra_is_named():
    code = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from django.conf import settings; settings.configure()\n"
        "import django; django.setup()\n"
        "from django.test import RequestFactory\n"
        "from outgrow import views\n"
        "views.metrics(RequestFactory().get('/'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert "pip install 'outgrow[metrics]'" in done.stderr
