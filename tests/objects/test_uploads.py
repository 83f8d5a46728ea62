"""Uploads from a page: the view that permits them, the widget, the admin, and the tidying up."""

from __future__ import annotations

import io
import json
import os
import re
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from unittest import mock

import pytest
from django import forms
from django.conf import settings
from django.contrib import admin
from django.contrib.auth.models import User
from django.contrib.staticfiles import finders
from django.core import signing
from django.core.cache import cache
from django.core.exceptions import ImproperlyConfigured
from django.core.files.storage import default_storage, storages
from django.core.management import CommandError, call_command
from django.db import models
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.test import Client, RequestFactory, override_settings
from django.test.utils import isolate_apps
from django.urls import include, path
from django.views.decorators.csrf import csrf_protect

from outgrow.objects import ObjectStorage
from outgrow.objects.admin import DirectAdminFileWidget, DirectUploadAdmin
from outgrow.objects.arrived import older_than
from outgrow.objects.direct import FOLDER, Limits
from outgrow.objects.forms import (
    DirectFileField,
    DirectImageField,
    alias_of,
    for_request,
    is_direct,
)
from tests.live.engines import Engine
from tests.objects.test_arrivals import direct, sent

pytestmark = pytest.mark.django_db

LIMITS = Limits(1000, types=("text/", "image/"))


class FilmForm(forms.Form):
    film = DirectFileField(limits=LIMITS, often=3)


@csrf_protect
def page(request: HttpRequest) -> HttpResponse:
    """A page with a form, for whoever asks."""
    form = for_request(FilmForm(request.POST or None, request.FILES or None), request)
    if request.method == "POST" and form.is_valid():
        film = form.cleaned_data["film"]
        return HttpResponse(storages["default"].save(f"films/{film.name}", film))
    return HttpResponse(f"{get_token(request)} {form['film']} {form.media} {form.errors}")


urlpatterns = [path("", page), path("uploads/", include("outgrow.objects.urls"))]


@pytest.fixture
def site(engine: Engine, bucket: str) -> Iterator[ObjectStorage]:
    options = direct(engine, f"{bucket}/media")._options
    entry = {"BACKEND": "outgrow.objects.ObjectStorage", "OPTIONS": options}
    cache.clear()
    with override_settings(STORAGES=settings.STORAGES | {"default": entry}, ROOT_URLCONF=__name__):
        yield storages["default"]  # type: ignore[misc]
    cache.clear()


@pytest.fixture
def visitor(site: ObjectStorage) -> Client:
    return Client(enforce_csrf_checks=True)


class Shown:
    """A page in a browser: what its script has to work with."""

    def __init__(self, client: Client) -> None:
        self.client = client
        text = client.get("/").content.decode()
        self.csrf = text.partition(" ")[0]
        self.text = text
        self.data = dict(re.findall(r'data-outgrow-(\w+)="([^"]*)"', text))

    def ask(self, name: str = "a.txt", size: object = 7, **more: Any) -> Any:
        body = {"offer": self.data["offer"], "name": name, "size": size, **more}
        return self.client.post(self.data["permit"], body, headers={"X-CSRFToken": self.csrf})

    def send(self, token: str) -> Any:
        body = {"film-direct": token, "csrfmiddlewaretoken": self.csrf}
        return self.client.post("/", body)


def test_a_file_goes_straight_to_the_store(visitor, site, engine, bucket):
    shown = Shown(visitor)
    answer = shown.ask()
    assert answer.status_code == 200
    assert answer["Cache-Control"] == "max-age=0, no-cache, no-store, must-revalidate, private"
    given = answer.json()
    assert sent(type("Given", (), given), b"content") in {200, 201, 204}
    name = shown.send(given["token"]).content.decode()
    with site.open(name) as file:
        assert file.read() == b"content"
    assert "is taken already" not in name
    # Nobody takes it twice.
    assert "it was taken already" in shown.send(given["token"]).content.decode()


@pytest.mark.parametrize(
    ("name", "size", "problem"),
    [
        ("a.txt", 1001, "at most 1000"),
        ("a.txt", 0, "at least 1"),
        ("a.txt", "-1", "its size is not known"),
        ("a.txt", "1e3", "its size is not known"),
        ("a.txt", "٣", "its size is not known"),
        ("a.txt", "", "its size is not known"),
        ("a.pdf", 7, "its type is application/pdf, and may be text/, image/"),
        ("a\n.txt", 7, "its name can't be used"),
        ("", 7, "its name can't be used"),
    ],
)
def test_what_the_form_would_not_take_is_not_permitted(visitor, name, size, problem):
    answer = Shown(visitor).ask(name, size)
    assert answer.status_code == 400
    assert problem in answer.json()["problem"]


def test_only_who_has_the_form_gets_a_permit(visitor, site):
    shown, other = Shown(visitor), Shown(Client(enforce_csrf_checks=True))
    answer = shown.ask(offer=other.data["offer"])
    assert (answer.status_code, answer.json()["problem"]) == (
        403,
        "this page is somebody else's: load it again",
    )
    for offer in ("", "x", shown.data["offer"][:-1], signing.dumps({}), signing.dumps({"a": 1})):
        assert shown.ask(offer=offer).status_code == 403
    # The token of an upload is no offer.
    assert shown.ask(offer=shown.ask().json()["token"]).status_code == 403


def test_an_offer_is_good_for_a_day(visitor):
    shown = Shown(visitor)
    later = signing.time.time() + 86_401
    with mock.patch.object(signing.time, "time", return_value=later):
        answer = shown.ask()
    assert answer.status_code == 403
    assert answer.json()["problem"] == "this page is older than a day: load it again"


def test_no_other_site_can_ask_for_a_visitor(visitor):
    shown = Shown(visitor)
    body = {"offer": shown.data["offer"], "name": "a.txt", "size": 7}
    assert visitor.post(shown.data["permit"], body).status_code == 403
    assert visitor.get(shown.data["permit"]).status_code == 405


def test_one_visitor_does_not_fill_the_store(visitor, site):
    shown = Shown(visitor)
    assert [shown.ask().status_code for _ in range(4)] == [200, 200, 200, 429]
    assert "3 files within an hour" in shown.ask().json()["problem"]
    assert Shown(Client(enforce_csrf_checks=True)).ask().status_code == 200


def test_a_user_s_uploads_are_hers_in_every_session(site):
    user = User.objects.create_user("ann")
    first, second = Client(), Client()
    for client in (first, second):
        client.force_login(user)
    assert Shown(first).ask(offer=Shown(second).data["offer"]).status_code == 200


def test_a_storage_that_is_gone(visitor, site):
    shown = Shown(visitor)
    with override_settings(STORAGES={"other": {"BACKEND": "x"}}):
        assert shown.ask().json()["problem"] == "this page is too old: load it again"
    files = {"BACKEND": "django.core.files.storage.InMemoryStorage"}
    with (
        override_settings(STORAGES={"default": files}),
        pytest.raises(ImproperlyConfigured, match="no ObjectStorage any more"),
    ):
        shown.ask()


# --- what is in the page


def test_a_form_without_a_request_is_an_ordinary_one(site):
    assert "data-outgrow" not in str(FilmForm()["film"])
    assert finders.find("outgrow/uploads.js")
    assert 'src="/static/outgrow/uploads.js"' in str(FilmForm().media)


def test_a_storage_that_takes_no_direct_uploads_has_an_ordinary_form():
    files = {"BACKEND": "django.core.files.storage.InMemoryStorage"}
    with override_settings(STORAGES=settings.STORAGES | {"default": files}, ROOT_URLCONF=__name__):
        text = Client().get("/").content.decode()
        assert "data-outgrow" not in text
        assert "film-direct" in text


def test_without_the_view_it_is_said_what_to_add(site):
    request = RequestFactory().get("/")
    request.user = User(pk=1)
    with (
        override_settings(ROOT_URLCONF=()),
        pytest.raises(ImproperlyConfigured, match=r"path\('uploads/', include\('outgrow"),
    ):
        str(for_request(FilmForm(), request)["film"])


def test_a_storage_of_one_s_own_must_be_one_of_storages(site, engine, bucket):
    assert alias_of(default_storage) == alias_of(storages["default"]) == "default"
    with pytest.raises(ImproperlyConfigured, match="not one of STORAGES"):
        alias_of(direct(engine, bucket))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, True),
        ({"overwrite": True}, False),
        ({"names": "keep"}, False),
        ({"anonymous": True}, False),
    ],
)
def test_which_storages_take_direct_uploads(options, expected):
    assert is_direct(ObjectStorage(location="s3://b", **options)) is expected
    assert not is_direct(ObjectStorage(location="memory://b"))


# --- the admin


def film_model() -> type[models.Model]:
    with isolate_apps("outgrow"):

        class Film(models.Model):
            film = models.FileField()
            poster = models.ImageField(blank=True)
            notes = models.FileField(storage=lambda: storages["notes"], blank=True)

            class Meta:
                app_label = "outgrow"

            def __str__(self) -> str:
                return str(self.film)

    return Film


class FilmAdmin(DirectUploadAdmin, admin.ModelAdmin):
    def direct_limits(self, field, request):
        return Limits(2000) if field.name == "film" else super().direct_limits(field, request)


def test_the_admin_s_file_fields_upload_straight_to_the_store(site):
    request = RequestFactory().get("/")
    request.user = User(pk=7)
    notes = {"BACKEND": "django.core.files.storage.InMemoryStorage"}
    with override_settings(STORAGES=settings.STORAGES | {"notes": notes}):
        form = FilmAdmin(film_model(), admin.AdminSite()).get_form(request)()
        kinds = {name: type(field) for name, field in form.fields.items()}
        assert kinds["film"] is DirectFileField
        assert kinds["poster"] is DirectImageField
        assert kinds["notes"] is forms.FileField
        assert isinstance(form.fields["film"].widget, DirectAdminFileWidget)
        assert form.fields["film"].limits == Limits(2000)
        assert form.fields["film"].max_length == 100
        assert not form.fields["poster"].required
        assert "data-outgrow-offer" in str(form["film"])
        assert "outgrow/uploads.js" in str(form.media)


# --- what nobody claimed


def clean(*words: str) -> str:
    out = io.StringIO()
    call_command("outgrow", "uploads", "clean", *words, stdout=out)
    return out.getvalue()


def test_what_nobody_claimed_is_removed(tmp_path):
    for name, hours in {
        f"{FOLDER}/old": 25,
        f"{FOLDER}/old.taken": 25,
        f"{FOLDER}/new": 23,
        "films/old.txt": 25,
    }.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"content")
        at = time.time() - hours * 3600
        os.utime(file, (at, at))
    options = {"location": tmp_path.as_uri()}
    entry = {"BACKEND": "outgrow.objects.ObjectStorage", "OPTIONS": options}
    with override_settings(STORAGES={"default": entry}):
        assert f"{FOLDER}/old\n" in clean("--dry-run")
        facts = {"storage": "default", "objects": 2, "bytes": 14, "removed": False}
        assert json.loads(clean("--json", "--dry-run")) == facts
        assert clean() == "default: 2 objects removed, 14 bytes\n"
        assert clean("--older-than", "22.5") == "default: 1 objects removed, 7 bytes\n"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["old.txt"]


def test_what_has_just_arrived_stays(visitor, site, engine, bucket):
    given = Shown(visitor).ask().json()
    sent(type("Given", (), given), b"content")
    assert clean() == "default: 0 objects removed, 0 bytes\n"
    assert len(engine.held(bucket)) == 1


def test_what_may_still_be_claimed_is_never_removed(site):
    with pytest.raises(CommandError, match="'1' is not a number of hours from 2 on"):
        clean("--older-than", "1")
    with pytest.raises(ValueError, match="may still be claimed"):
        list(older_than(site, timedelta(hours=1)))
