"""What is published, opened in a browser: Django's admin and a site of modules, in Chromium.

From nginx with its compressed files beside, and from a bucket that everybody may read.
"""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import override_settings
from django.urls import path

from outgrow.publish.build import Settings
from outgrow.publish.targets import SIBLINGS, FolderTarget
from outgrow.testing import free_port
from tests.live.chromium import Page, running_chromium
from tests.live.engines import Engine
from tests.live.nginx import binary, mime_types
from tests.live.processes import server_folder, unprivileged, wait_until
from tests.publish.sites import publish, write
from tests.publish.test_command import served
from tests.publish.test_integrity import SITE as INTEGRITY

CONFIGURATION = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    include {types};
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {folder}/root;
        gzip_static on;
        add_header Access-Control-Allow-Origin *;
    }}
}}
"""

#: Notes what goes wrong in a page from its first moment on.
WATCH = """
window.wrong = [];
addEventListener('error', (e) => wrong.push(
    e.message || `not loaded: ${e.target.src || e.target.href}`), true);
addEventListener('unhandledrejection', (e) => wrong.push(String(e.reason)));
const told = console.error;
console.error = (...words) => { wrong.push(words.join(' ')); told(...words); };
"""


class Front:
    """Where something is published, and where visitors find it."""

    def __init__(self, target: dict[str, Any] | str, url: str) -> None:
        self.target = target
        self.url = url


@contextmanager
def nginx() -> Iterator[Front]:
    with server_folder("outgrow-front-") as folder:
        port = free_port()
        (folder / "root").mkdir(mode=0o755)
        configuration = folder / "nginx.conf"
        text = CONFIGURATION.format(folder=folder, port=port, types=mime_types())
        configuration.write_text(text)
        if user := unprivileged():
            os.chown(folder / "root", *user)
            configuration.write_text(f"user nobody nogroup;\n{text}")
        process = subprocess.Popen([binary(), "-c", configuration, "-e", folder / "error.log"])
        url = f"http://127.0.0.1:{port}/"
        try:
            wait_until(lambda: answers(url), "nginx does not answer")
            yield Front(str(folder / "root"), url)
        finally:
            process.terminate()
            process.wait(10)


def answers(url: str, wanted: int = 0) -> bool:
    """Whether something answers; with a status, whether it is that one."""
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return wanted in {0, answer.status}
    except urllib.error.HTTPError as error:
        error.close()
        return wanted in {0, error.code}
    except OSError:
        return False


@contextmanager
def swift(engine: Engine) -> Iterator[Front]:
    """A bucket that everybody may read: not by its S3 API, but by Swift's own addresses."""
    with engine.bucket() as bucket:
        engine.client().put_bucket_acl(Bucket=bucket, ACL="public-read")
        account = f"{engine.endpoint}/v1/AUTH_{engine.access_key.partition(':')[0]}"
        options = {"url": f"s3://{bucket}/static", **engine.options(bucket)}
        del options["location"]
        yield Front(options, f"{account}/{bucket}/static/")


@pytest.fixture(params=["nginx", "swift"])
def front(request: pytest.FixtureRequest, engine_named: Callable[[str], Engine]) -> Iterator[Front]:
    with nginx() if request.param == "nginx" else swift(engine_named("swift")) as found:
        yield found


def loaded(page: Page) -> dict[str, int]:
    """What a page has loaded, with the status of each."""
    found = page.run(
        "JSON.stringify(performance.getEntriesByType('resource').map("
        "(one) => [one.name, one.responseStatus]))"
    )
    # Browsers ask for a favicon by themselves.
    return {url: status for url, status in json.loads(found) if "favicon" not in url}


def watched(page: Page) -> Page:
    page.send("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
    return page


urlpatterns = [path("admin/", admin.site.urls)]


@pytest.mark.django_db(transaction=True)
def test_django_s_admin(front: Front, live_server: Any, tmp_path: Path) -> None:
    User.objects.create_superuser("ada", password="lovelace")
    for name in ("charles", "grace", "mary"):
        User.objects.create_user(name, f"{name}@example.org")
    options = {"to": [front.target], "manifest": str(tmp_path / "static.json")}
    backend = "outgrow.publish.storages.PublishedStaticFilesStorage"
    storages = {
        "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
        "staticfiles": {"BACKEND": backend, "OPTIONS": {**options, "cache": str(tmp_path / "c")}},
    }
    with override_settings(
        STORAGES=storages,
        STATIC_URL=front.url,
        ROOT_URLCONF=__name__,
        MIDDLEWARE=["tests.live.one_at_a_time.one_at_a_time", *settings.MIDDLEWARE],
    ):
        call_command("outgrow", "publish")
        with running_chromium() as browser:
            page = watched(browser.page(1200, 600))
            page.go(f"{live_server.url}/admin/login/")
            page.run("document.querySelector('[name=username]').value = 'ada'")
            page.run("document.querySelector('[name=password]').value = 'lovelace'")
            page.click("[type=submit]")
            page.wait("document.querySelector('#user-tools') !== null")
            page.go(f"{live_server.url}/admin/auth/user/add/")
            page.wait("document.querySelector('#id_username') !== null")
            assert page.run("wrong") == []
            page.go(f"{live_server.url}/admin/auth/user/")
            page.wait("document.querySelectorAll('#result_list tbody tr').length === 4")
            found = loaded(page)
            ours = [url for url in found if url.startswith(front.url)]
            assert len(ours) > 8
            # Of another origin a browser does not tell the status.
            assert [url for url in ours if not answers(url, 200)] == []
            assert page.run("wrong") == []
            # The sheet is applied, not only loaded.
            colour = "getComputedStyle(document.querySelector('#header')).backgroundColor"
            assert page.run(colour) != "rgba(0, 0, 0, 0)"
            page.picture(tmp_path / "admin.png")


MODULES = {
    "index.html": b"""<!doctype html><title>Modules</title>
<link rel="stylesheet" href="css/site.css"><link rel="modulepreload" href="js/app.js">
<img src="img/dot.svg" alt=""><p id="said">nothing</p>
<script type="module" src="js/app.js"></script>""",
    "css/site.css": b'@import "more.css"; p { background: url("../img/dot.svg") }' + b"/* */" * 60,
    "css/more.css": b"p { color: rgb(1, 2, 3) }",
    "img/dot.svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"/>',
    "js/app.js": b"""import { ping } from "./ping.js";
const late = await import("./late.js");
const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
const said = await new Promise((done) => { worker.onmessage = (event) => done(event.data); });
document.querySelector("#said").textContent = `${ping(2)} ${late.word} ${said}`;
"""
    + b"// a comment\n" * 30,
    # Two that refer to each other.
    "js/ping.js": b'import { pong } from "./pong.js";\n'
    b"export const ping = (left) => left ? `ping ${pong(left - 1)}` : 'end';\n",
    "js/pong.js": b'import { ping } from "./ping.js";\n'
    b"export const pong = (left) => left ? `pong ${ping(left - 1)}` : 'end';\n",
    "js/late.js": b'export const word = "late";\n',
    "js/worker.js": b'import { word } from "./late.js";\npostMessage(`worker ${word}`);\n',
}


def test_a_site_of_modules(front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from outgrow.publish import command
    from outgrow.publish.configuration import parse
    from outgrow.publish.scan import scan

    (tmp_path / "site").mkdir()
    write(tmp_path / "site", MODULES)
    table = {"to": [front.target], "cache": str(tmp_path / "cache"), "url": "/"}
    configuration = parse(table, tmp_path)
    found = command.Command(
        configuration, command.Request(), lambda: scan([("", tmp_path / "site")])
    )
    assert found.run() == 0
    with running_chromium() as browser:
        page = watched(browser.page())
        page.go(f"{front.url}index.html")
        page.wait("document.querySelector('#said').textContent !== 'nothing'")
        assert page.text("#said") == "ping pong end late worker late"
        assert page.run("getComputedStyle(document.querySelector('p')).color") == "rgb(1, 2, 3)"
        found = loaded(page)
        assert set(found.values()) == {200}, found
        assert page.run("wrong") == []
        names = {url.removeprefix(front.url) for url in found}
        assert not names & set(MODULES)  # each has a hash in its name


def test_a_browser_takes_the_digests_of_a_page(tmp_path: Path) -> None:

    write(tmp_path / "source", INTEGRITY)
    target = FolderTarget(tmp_path / "target", SIBLINGS)
    publish(target, tmp_path / "source", settings=Settings())
    with served(tmp_path / "target") as url:
        with running_chromium() as browser:
            page = browser.page()
            page.go(f"{url}index.html")
            page.wait("document.title === 'it runs' && document.body.id === 'mapped'")
            assert page.run("document.body.className") == "plain"
            assert page.run("getComputedStyle(document.body).color") == "rgb(1, 2, 3)"
        # And refuses what is another file by then: a browser that has nothing in its cache, for
        # within a second of the change a server may say that there is none (RFC 9110, 8.8.2.2).
        [script] = (tmp_path / "target").glob("app.*.js")
        assert b"it runs" in script.read_bytes()
        script.write_bytes(script.read_bytes().replace(b"it runs", b"damaged"))
        with running_chromium() as browser:
            page = browser.page()
            page.go(f"{url}index.html")
            page.wait("document.body.className === 'plain'")
            assert page.run("document.title") == ""
