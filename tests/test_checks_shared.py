"""The checks for several application servers, as `manage.py check` runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from outgrow.checks import check_secret_key, check_shared_nothing

LOCMEM = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}


def found(outgrow: Any, **settings: Any) -> list[str]:
    with override_settings(OUTGROW=outgrow, CACHES=LOCMEM, **settings):
        return [str(one.id) for one in check_shared_nothing()]


def test_on_one_server_nothing_is_said() -> None:
    assert found({}) == []
    assert found({"APP_SERVERS": 1}) == []
    assert found("wrong") == []


def test_on_several_servers() -> None:
    assert "outgrow.W502" in found({"APP_SERVERS": 2})
    files = {"default": {"BACKEND": "django.core.files.storage.FileSystemStorage"}}
    assert "outgrow.E505" in found({"APP_SERVERS": 2}, STORAGES=files, MEDIA_ROOT="/srv/m")
    shared = {"APP_SERVERS": 2, "SHARED_FOLDERS": [Path("/srv")]}
    assert "outgrow.E505" not in found(shared, STORAGES=files, MEDIA_ROOT="/srv/m")


@pytest.mark.parametrize(
    "outgrow",
    [
        {"APP_SERVERS": 0},
        {"APP_SERVERS": "2"},
        {"APP_SERVERS": True},
        {"SHARED_FOLDERS": "/mnt"},
        {"SHARED_FOLDERS": ["mnt"]},
        {"SHARED_FOLDERS": [7]},
    ],
)
def test_wrong_settings(outgrow: dict[str, Any]) -> None:
    assert found(outgrow) == ["outgrow.E500"]


SITE = """
import os
import secrets

SECRET_KEY = {key}
INSTALLED_APPS = ["outgrow"]
OUTGROW = {{"APP_SERVERS": {servers}}}
DATABASES = {{"default": {{"ENGINE": "django.db.backends.postgresql", "HOST": "db"}}}}
CACHES = {{"default": {{"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}}}
STORAGES = {{
    "default": {{"BACKEND": "django.core.files.storage.InMemoryStorage"}},
    "staticfiles": {{"BACKEND": "django.core.files.storage.InMemoryStorage"}},
}}
"""


@pytest.mark.parametrize(
    ("key", "servers", "is_told"),
    [
        ("secrets.token_hex(32)", 2, True),
        ("secrets.token_hex(32)", 1, False),
        ("os.environ['SITE_KEY']", 2, False),
        ("'fixed' * 20", 2, False),
    ],
)
def test_a_key_that_is_made_anew_each_time(
    tmp_path: Path, key: str, servers: int, is_told: bool
) -> None:
    (tmp_path / "shop.py").write_text(SITE.format(key=key, servers=servers))
    done = subprocess.run(
        [sys.executable, "-m", "django", "check", "--deploy", "--tag", "outgrow"],
        cwd=tmp_path,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "shop", "SITE_KEY": "k" * 60},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = done.stdout + done.stderr
    assert ("outgrow.E507" in said) is is_told, said
    assert done.returncode == int(is_told), said
    assert "Traceback" not in said


def test_settings_without_a_module() -> None:
    with override_settings(OUTGROW={"APP_SERVERS": 2}, SETTINGS_MODULE=None):
        assert check_secret_key() == []
