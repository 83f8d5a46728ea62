"""Uploads straight from a page, in a real browser, to a real store of another origin."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django import forms
from django.conf import settings
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.cache import cache
from django.core.files.storage import storages
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.template import engines
from django.test import override_settings
from django.test.utils import isolate_apps
from django.urls import include, path

from outgrow.objects.admin import DirectUploadAdmin
from outgrow.objects.direct import Limits
from outgrow.objects.forms import DirectFileField, DirectImageField, for_request
from tests.live.chromium import Browser, Page, running_chromium
from tests.live.engines import Engine
from tests.objects.test_arrivals import direct

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(300)]

PAGE = """<!doctype html><meta charset=utf-8><title>Films</title>
<form method=post enctype=multipart/form-data>{% csrf_token %}{{ form.as_p }}
<button name=go value=yes>Save</button></form>{{ form.media }}"""

MOST = 20 << 20


class FilmForm(forms.Form):
    title = forms.CharField(required=False)
    film = DirectFileField(limits=Limits(MOST, types=("video/", "text/")))
    poster = DirectImageField(limits=Limits(1 << 20, types=("image/",)), required=False)


def page(request: HttpRequest) -> HttpResponse:
    form = for_request(FilmForm(request.POST or None, request.FILES or None), request)
    if request.method == "POST" and form.is_valid():
        saved = [
            storages["default"].save(f"films/{file.name}", file)
            for file in (form.cleaned_data["film"], form.cleaned_data["poster"])
            if file
        ]
        how = "with the form" if request.FILES else "straight"
        return HttpResponse(f"saved {how}: {' '.join(saved)} {form.cleaned_data['title']}")
    text = engines["django"].from_string(PAGE).render({"form": form}, request)
    answer = HttpResponse(text)
    # No inline script and no inline style; the store is the only other place.
    store = storages["default"].options.endpoint
    answer["Content-Security-Policy"] = f"default-src 'self'; connect-src 'self' {store}"
    return answer


class FilmAdmin(DirectUploadAdmin, admin.ModelAdmin):
    """As docs/howto/browser-uploads.md has it."""


films = admin.AdminSite("films")
urlpatterns = [
    path("", page),
    path("admin/", films.urls),
    path("uploads/", include("outgrow.objects.urls")),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_chromium() as found:
        yield found


@pytest.fixture
def site(engine: Engine, bucket: str) -> Iterator[Any]:
    options = direct(engine, bucket)._options
    entry = {"BACKEND": "outgrow.objects.ObjectStorage", "OPTIONS": options}
    if engine.name == "ceph":  # the others answer without being told
        rule = {"AllowedOrigins": ["*"], "AllowedMethods": ["POST"], "AllowedHeaders": ["*"]}
        cors = {"CORSRules": [rule]}
        engine.client().put_bucket_cors(Bucket=bucket, CORSConfiguration=cors)
    cache.clear()
    with override_settings(
        STORAGES=settings.STORAGES | {"default": entry},
        MIDDLEWARE=["tests.live.one_at_a_time.one_at_a_time", *settings.MIDDLEWARE],
        ROOT_URLCONF=__name__,
        DEBUG=True,
    ):
        yield storages["default"]


@pytest.fixture
def shown(browser: Browser, live_server: Any, site: Any) -> Page:
    """The page with the form, opened."""
    found = browser.page()
    found.go(f"{live_server.url}/")
    return found


@pytest.fixture
def film(tmp_path: Path) -> Path:
    found = tmp_path / "Été à Nîmes.mp4"
    found.write_bytes(os.urandom(6 << 20))
    return found


DONE = "document.querySelector('.outgrow-upload')?.innerText.includes('is uploaded')"
SAVED = "document.body.innerText.startsWith('saved')"


def test_a_film_goes_straight_to_the_store(shown, film, engine, bucket, tmp_path):
    shown.choose("[name=film]", film)
    shown.wait(DONE)
    shown.picture(tmp_path / "uploaded.png")
    assert "Été à Nîmes.mp4 is uploaded" in shown.text(".outgrow-upload")
    # What is to be sent with the form is the token, and no file.
    assert shown.run("document.querySelector('[name=film]').files.length") == 0
    assert shown.run("document.querySelector('[name=film-direct]').value.length") > 50
    shown.run("document.querySelector('[name=title]').value = 'Nîmes'")
    shown.click("button[name=go]")
    shown.wait(SAVED)

    text = shown.text()
    assert text.startswith("saved straight: films/")
    assert text.endswith(" Nîmes")
    held = engine.held(bucket)
    assert held[text.split(": ")[1].rpartition(" ")[0]] == film.read_bytes()


def test_progress_is_shown_and_it_can_be_cancelled(shown, film, engine, bucket):
    shown.send("Network.enable")
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 1 << 20}
    shown.send("Network.emulateNetworkConditions", **slow)
    shown.choose("[name=film]", film)
    shown.wait("document.querySelector('.outgrow-upload progress')?.value > 0.05")
    assert "Uploading Été à Nîmes.mp4" in shown.text(".outgrow-upload")
    shown.click(".outgrow-upload button")
    shown.wait("document.querySelector('.outgrow-upload').innerText === ''")
    assert shown.run("document.querySelector('[name=film]').files.length") == 0
    assert shown.run("document.querySelector('[name=film-direct]').value") == ""
    assert engine.held(bucket) == {}


def test_a_form_that_is_sent_too_early_waits(shown, film, engine, bucket):
    shown.send("Network.enable")
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 3 << 20}
    shown.send("Network.emulateNetworkConditions", **slow)
    shown.choose("[name=film]", film)
    shown.wait("document.querySelector('.outgrow-upload progress') !== null")
    shown.click("button[name=go]")
    shown.wait(f"{SAVED} || document.body.innerText.includes('when the upload has ended')")
    shown.wait(SAVED)
    assert shown.text().startswith("saved straight: ")


def test_what_is_not_taken_is_said_at_once(shown, tmp_path, engine, bucket):
    wrong = tmp_path / "a.pdf"
    wrong.write_bytes(b"%PDF")
    shown.choose("[name=film]", wrong)
    shown.wait("document.querySelector('.outgrow-upload')?.innerText.includes('not taken')")
    assert shown.text(".outgrow-upload") == (
        "a.pdf was not taken: its type is application/pdf, and may be video/, text/"
    )
    assert shown.run("document.querySelector('[name=film]').files.length") == 0
    assert engine.held(bucket) == {}


def test_when_the_store_does_not_answer_the_file_goes_with_the_form(shown, film, engine, bucket):
    shown.send("Network.enable")
    shown.send("Network.setBlockedURLs", urls=[f"{engine.endpoint}/*"])
    shown.choose("[name=film]", film)
    shown.wait("document.querySelector('.outgrow-upload')?.innerText.includes('with the form')")
    shown.click("button[name=go]")
    shown.wait(SAVED)
    assert shown.text().startswith("saved with the form: ")
    assert film.read_bytes() in engine.held(bucket).values()


def test_without_javascript_nothing_is_different(browser, live_server, site, film, engine, bucket):
    plain = browser.page()
    plain.send("Emulation.setScriptExecutionDisabled", value=True)
    plain.go(f"{live_server.url}/")
    plain.choose("[name=film]", film)
    plain.click("button[name=go]")
    plain.wait(SAVED)
    assert plain.text().startswith("saved with the form: ")
    assert film.read_bytes() in engine.held(bucket).values()


def test_two_fields_of_one_form(shown, film, tmp_path, engine, bucket):
    from PIL import Image

    poster = tmp_path / "poster.png"
    Image.new("RGB", (40, 30), "teal").save(poster)
    shown.choose("[name=film]", film)
    shown.choose("[name=poster]", poster)
    count = "document.querySelectorAll('.outgrow-upload button').length === 2"
    shown.wait(f"{count} && document.querySelectorAll('progress').length === 0")
    shown.click("button[name=go]")
    shown.wait(SAVED)
    held = engine.held(bucket)
    names = shown.text().split(": ")[1].split(" films/")
    assert len(names) == 2
    assert {film.read_bytes(), poster.read_bytes()} <= set(held.values())


def test_a_form_that_is_shown_again_keeps_what_was_uploaded(shown, film, tmp_path, engine, bucket):
    # The poster is none, which the site finds when it reads it from the store.
    poster = tmp_path / "poster.png"
    poster.write_bytes(b"no image")
    shown.choose("[name=film]", film)
    shown.choose("[name=poster]", poster)
    count = "document.querySelectorAll('.outgrow-upload button').length === 2"
    shown.wait(f"{count} && document.querySelectorAll('progress').length === 0")
    shown.click("button[name=go]")
    shown.wait("document.querySelector('.errorlist') !== null")
    assert "valid image" in shown.text(".errorlist")
    assert "Été à Nîmes.mp4 is uploaded" in shown.text(".outgrow-upload")
    shown.click("[name=poster] + .outgrow-upload button")  # the one that is none
    shown.click("button[name=go]")
    shown.wait(SAVED)
    assert shown.text().startswith("saved straight: films/")
    assert film.read_bytes() in engine.held(bucket).values()


def test_what_was_uploaded_can_be_removed_and_is_asked_for_again(shown, film, engine, bucket):
    shown.choose("[name=film]", film)
    shown.wait(DONE)
    assert not shown.run("document.querySelector('[name=film]').required")
    shown.click(".outgrow-upload button")
    assert shown.run("document.querySelector('[name=film-direct]').value") == ""
    assert shown.run("document.querySelector('[name=film]').required")
    # A browser does not send a form that lacks what is required.
    assert not shown.run("document.querySelector('form').checkValidity()")


def film_model() -> Any:
    from django.db import models

    with isolate_apps("outgrow"):

        class Film(models.Model):
            film = models.FileField(upload_to="films")

            class Meta:
                app_label = "outgrow"

            def __str__(self) -> str:
                return str(self.film)

    return Film


def test_the_admin(browser, live_server, site, film, engine, bucket, tmp_path, client):
    model = film_model()
    with connection.schema_editor() as editor:
        editor.create_model(model)
    films.register(model, FilmAdmin)
    try:
        user = User.objects.create_superuser("ann", password="x")
        client.force_login(user)
        shown = browser.page()
        shown.send(
            "Network.setCookie",
            name=settings.SESSION_COOKIE_NAME,
            value=client.cookies[settings.SESSION_COOKIE_NAME].value,
            url=live_server.url,
        )
        from django.urls import clear_url_caches

        clear_url_caches()
        with override_settings(ROOT_URLCONF=_urls_with_the_model()):
            shown.go(f"{live_server.url}/admin/outgrow/film/add/")
            shown.choose("[name=film]", film)
            shown.wait(DONE)
            shown.picture(tmp_path / "admin.png")
            shown.click("[name=_save]")
            # Until the whole page is there: the tests' database has one table lock for all.
            there = "location.pathname === '/admin/outgrow/film/'"
            shown.wait(f"{there} && document.readyState === 'complete'")
            shown.wait("document.querySelector('#changelist') !== null")
        row = model.objects.get()
        assert row.film.name.startswith("films/")
        assert row.film.read() == film.read_bytes()
        row.film.close()
    finally:
        films.unregister(model)
        with connection.schema_editor() as editor:
            editor.delete_model(model)


def _urls_with_the_model() -> Any:
    """The admin's URLs are made when they are asked for, and have what is registered then."""
    return (
        path("", page),
        path("admin/", films.urls),
        path("uploads/", include("outgrow.objects.urls")),
    )
