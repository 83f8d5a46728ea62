"""What `manage.py check` says of object storages."""

from __future__ import annotations

import importlib.util
from typing import Any, ClassVar

import pytest
from django.core.checks import run_checks
from django.test import override_settings

from outgrow.objects import ObjectStorage

GOOD = {"location": "s3://bucket", "access_key": "a", "secret_key": "b"}


class OwnStorage(ObjectStorage):
    """One of the site's, with options of its own."""

    defaults: ClassVar = {"location": "s3://bucket", "overwrite": True, "querystring_auth": False}


def said(options: Any, alias: str = "default", backend: object = ObjectStorage) -> dict[str, str]:
    entry = {"BACKEND": backend, "OPTIONS": options}
    with override_settings(STORAGES={alias: entry}):
        return {one.id: f"{one.msg} {one.hint}" for one in run_checks() if "outgrow" in one.id}


def test_what_is_right() -> None:
    assert said(GOOD, backend="outgrow.objects.ObjectStorage") == {}
    assert said({"location": "memory://"}) == {}


def test_a_wrong_option() -> None:
    found = said(GOOD | {"timeut": 3})
    assert found == {
        "outgrow.E201": (
            "STORAGES['default']['OPTIONS']['timeut']: is not an option. Did you mean 'timeout'?"
        )
    }
    assert "is missing" in said({})["outgrow.E201"]
    assert "Write a dictionary" in said([])["outgrow.E201"]


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "outgrow.checks.find_spec", lambda name: None if name == "obstore" else real(name)
    )
    assert "pip install 'outgrow[objects]'" in said(GOOD)["outgrow.E202"]


def test_static_files() -> None:
    found = said(GOOD, alias="staticfiles")
    assert set(found) == {"outgrow.E203", "outgrow.W204"}
    assert said(GOOD | {"overwrite": True}, alias="staticfiles").keys() == {"outgrow.W204"}
    public = GOOD | {"overwrite": True, "base_url": "https://static.example.org/"}
    assert said(public, alias="staticfiles") == {}


def test_a_kind_of_one_s_own_has_defaults() -> None:
    assert said({}, alias="staticfiles", backend=OwnStorage) == {}
    assert said({"overwrite": False}, alias="staticfiles", backend=OwnStorage).keys() == {
        "outgrow.E203"
    }
