"""The views for balancers and monitoring, and the metrics."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from django.conf import settings
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
        (
            sample.name.removeprefix("outgrow_media_"),
            sample.labels.get("server") or sample.labels.get("watch", ""),
        ): sample.value
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


def drip(end: threading.Event, connection: socket.socket) -> None:
    """An answer that comes byte by byte: it makes progress, and has no end before `end`."""
    while not end.wait(0.05):
        connection.sendall(b"H")


def test_a_server_is_not_ready_while_changes_wait_in_the_background(tmp_path, servers):
    urls = {name: server.url for name, server in servers.items()}
    options = {"servers": urls, "location": str(tmp_path), "timeout": 30, "deadline": 40}
    media = {"BACKEND": "outgrow.media.AsyncStorage", "OPTIONS": options}
    with override_settings(
        STORAGES={"default": media}, ROOT_URLCONF="outgrow.urls", ALLOWED_HOSTS=["testserver"]
    ):
        site = storages["default"]
        watch(site, "app1:7").once()
        slow = threading.Event()
        servers["media2"].raw_answer = partial(drip, slow)
        for _ in range(2):
            site.save("f.txt", ContentFile(b"x"))
        # They are on their way, as on any busy site: to the slow server, and in the queue.
        assert get("/ready/media1/").status_code == 200
        site.journal._clock = lambda: time.time() - 60
        name = site.save("f.txt", ContentFile(b"x"))
        assert name not in servers["media1"].files
        answer = get("/ready/media1/")
        assert answer.status_code == 503
        assert b"media1 may lack 3 changes that are on their way, the first for 6" in answer.content
        servers["media2"].raw_answer = None
        slow.set()
        assert site.background.drain(20)
        assert name in servers["media1"].files
        assert get("/ready/media1/").status_code == 200


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
    Watch(Repair(site.replication), wait=lambda _: True, name="app1:7").run()
    found = metrics()
    assert found["owed_files", "media2"] == 0
    assert found["repaired_files_total", "app1:7"] == 3
    assert found["watched", ""] == 1
    assert found["changes_in_progress", ""] == 0


def watch(site, name: str) -> Watch:
    return Watch(Repair(site.replication), wait=lambda _: True, name=name)


def test_two_watches_count_each_for_itself_and_nothing_goes_back(site, servers):
    one, two = watch(site, "app1:7"), watch(site, "app2:7")
    before: dict[tuple[str, str], float] = {}
    for round_, turn in enumerate((one, two, one, one, two), 1):
        servers["media2"].stop()
        for _ in range(round_):
            site.save("f.txt", ContentFile(b"x"))
        servers["media2"].start()
        turn.once()
        found = {key: value for key, value in metrics().items() if key[0].endswith("_total")}
        assert all(found[key] >= value for key, value in before.items())
        before = found
    assert found["repaired_files_total", "app1:7"] == 1 + 3 + 4
    assert found["repaired_files_total", "app2:7"] == 2 + 5
    (shot,) = get("/status/").json()["storages"]
    assert [one["name"] for one in shot["watches"]] == ["app2:7", "app1:7"]


def test_the_page_has_every_metric_by_its_name(site):
    watch(site, "app1:7").once()
    page = (Path(__file__).parent.parent / "docs/howto/monitoring.md").read_text()
    table = page.partition("\n## Metrics\n")[2].partition("\n### ")[0]
    documented = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert sorted(documented) == sorted({name for name, _ in metrics() if "_created" not in name})


def test_a_journal_that_can_not_be_read_takes_no_other_metric_along(tmp_path, site, servers):
    location = tmp_path / "away"
    urls = {name: server.url for name, server in servers.items()}
    away = {
        "BACKEND": "outgrow.media.HybridStorage",
        "OPTIONS": {"servers": urls, "location": str(location)},
    }
    with override_settings(STORAGES={**settings.STORAGES, "away": away}):
        location.write_text("what was a folder is a file")
        text = get("/metrics/").content.decode()
    assert 'outgrow_media_journal_readable{storage="default"} 1.0' in text
    assert 'outgrow_media_journal_readable{storage="away"} 0.0' in text
    assert 'outgrow_media_up{server="media1",storage="default"} 1.0' in text
    assert 'outgrow_media_watched{storage="away"}' not in text


def test_a_pass_that_is_no_watchs_counts_for_none(site, servers):
    watch(site, "app1:7").once()
    servers["media2"].stop()
    site.save("f.txt", ContentFile(b"x"))
    servers["media2"].start()
    Repair(site.replication).once(settle=False)
    assert metrics()["repaired_files_total", "app1:7"] == 0


def test_the_metrics_of_what_goes_wrong(site, servers):
    kept, *gone = (site.save("f.txt", ContentFile(b"x")) for _ in range(3))
    servers["media2"].stop()
    for name in gone:
        site.delete(name)
    site.journal.owe_all("media1")
    site.journal.owe("media1", kept, unknown=True)
    found = metrics()
    assert (found["owed_everything", "media1"], found["owed_everything", "media2"]) == (1, 0)
    assert found["owed_files", "media2"] == 2
    servers["media2"].start()
    running = watch(site, "app1:7")
    running.once()
    found = metrics()
    # Done once, and looked at again later: the first request may still be carried out.
    assert found["unknown_requests", "media1"] == 1
    assert found["owed_everything", "media1"] == 0
    assert found["deleted_files_total", "app1:7"] == 2
    assert found["refused_names_total", "app1:7"] == 0
    servers["media2"].stop()
    refused = site.save("f.txt", ContentFile(b"x"))
    servers["media2"].start()
    servers["media2"].answer_with(403, method="PUT")
    running.once()
    found = metrics()
    assert found["refused_names_total", "app1:7"] == 1
    assert found["owed_files", "media2"] == 1
    assert refused not in servers["media2"].files


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
