"""The checks for several application servers, as `manage.py check` runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import override_settings

from outgrow import conf
from outgrow.checks import (
    check_deployment,
    check_secret_key,
    check_shared_nothing,
    check_topology,
    check_topology_deployment,
)
from outgrow.topology import load

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


PACKAGES = """
INSTALLED_APPS = ["outgrow", "import_export", "django_cron"]
CELERY_ONCE = {"backend": "celery_once.backends.File", "settings": {"location": "/var/once"}}
CACHES["default"]["BACKEND"] = "django.core.cache.backends.locmem.LocMemCache"
"""
FILES = """
DJANGO_CRON_LOCK_BACKEND = "django_cron.backends.lock.file.FileLock"
DJANGO_CRON_LOCKFILE_PATH = "/mnt/locks"
CELERY_ONCE = {"backend": "celery_once.backends.File", "settings": {}}
IMPORT_EXPORT_TMP_STORAGE_CLASS = "import_export.tmp_storages.MediaStorage"
"""


def test_what_other_packages_keep_on_one_server(tmp_path: Path) -> None:
    for name in ("import_export", "django_cron"):  # only that they are installed is seen
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    site = SITE.format(key="'fixed' * 20", servers=2)
    (tmp_path / "shop.py").write_text(site + PACKAGES)
    _, said = check(tmp_path)
    assert "(outgrow.W516) django-import-export keeps what is to be imported in" in said
    assert "(outgrow.W518) DJANGO_CRON_CACHE has its locks in CACHES['default'], a LocMem" in said
    assert "CELERY_ONCE['settings']['location'] has its locks in files below /var/once" in said
    (tmp_path / "shop.py").write_text(site + PACKAGES + FILES)
    _, said = check(tmp_path)
    assert "W516" not in said
    assert "DJANGO_CRON_LOCKFILE_PATH has its locks in files below /mnt/locks" in said
    assert "celery_once, of which each server has its own" in said
    shared = "OUTGROW['SHARED_FOLDERS'] = ['/mnt']\nCELERY_ONCE = {'backend': 'x'}\n"
    own = "DJANGO_CRON_LOCK_BACKEND = 'shop.FileLock'\n"
    for more in (shared, own + shared):
        (tmp_path / "shop.py").write_text(site + PACKAGES + FILES + more)
        assert "W518" not in check(tmp_path)[1]


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
    status, said = check(tmp_path, "--deploy")
    assert ("(outgrow.E507) SECRET_KEY: another one" in said) is is_told, said
    assert status == int(is_told), said


def check(folder: Path, *words: str) -> tuple[int, str]:
    """`manage.py check` of the settings shop.py in a folder: its status, and what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "django", "check", "--tag", "outgrow", *words],
        cwd=folder,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "shop", "SITE_KEY": "k" * 60},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = done.stdout + done.stderr
    assert "Traceback" not in said, said
    return done.returncode, said


def ids(said: str) -> set[str]:
    return set(re.findall(r"outgrow\.([EWI]\d{3})", said))


TOPOLOGY = """
[site]
name = "shop"
settings = "shop"
wsgi = "shop:application"
domains = ["shop.example.org"]
media_root = "media"

[balancer]
max_upload = 10

[worker]
command = "python -m celery -A shop worker{beat}"

[servers.lb]
roles = ["balancer"]
address = "10.0.0.1"

[servers.app1]
roles = ["app"]
address = "10.0.0.11"
memory = {memory}

[servers.app2]
roles = ["app"]
address = "10.0.0.12"

[servers.media1]
roles = ["media"]
address = "10.0.0.21"

[servers.work1]
roles = ["worker"]
address = "10.0.0.31"

[servers.work2]
roles = ["worker"]
address = "10.0.0.32"
"""

RIGHT = """
import os
from pathlib import Path

from outgrow.topology import current, django_settings

BASE = Path(__file__).parent
SECRET_KEY = os.environ["SITE_KEY"]
INSTALLED_APPS = ["outgrow"]
globals().update(django_settings(current(BASE / "topology.toml")))
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": "10.0.0.41",
    }
}
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",
        "LOCATION": ["10.0.0.51:11211", "10.0.0.52:11211"],
    }
}
REST_FRAMEWORK = {"DEFAULT_THROTTLE_CLASSES": ["rest_framework.throttling.UserRateThrottle"]}
LOGGING = {
    "version": 1,
    "handlers": {
        "console": {"class": "logging.StreamHandler"},
        "out": {"class": "logging.FileHandler", "filename": "/dev/stderr"},
    },
}
"""

WRONG = """
import secrets

ALLOWED_HOSTS = {hosts}
SECURE_PROXY_SSL_HEADER = ("HTTP_X_SCHEME", "https")
DATA_UPLOAD_MAX_MEMORY_SIZE = 11_000_000
SESSION_COOKIE_NAME = f"session-{{secrets.token_hex(8)}}"
DATABASES["default"] |= {{"HOST": "db.example.org"}}
CACHES["other"] = {{**CACHES["default"], "LOCATION": ["10.0.0.51", "10.0.0.52:11211"]}}
CACHES["default"] = {{
    **CACHES["default"], "BACKEND": "django.core.cache.backends.dummy.DummyCache"
}}
CACHES["third"] = {{**CACHES["other"], "LOCATION": ["10.0.0.51:11211", "10.0.0.52:11211"]}}
LOGGING["handlers"]["out"]["filename"] = BASE / "site.log"
EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
STORAGES = {{
    "default": {{"BACKEND": "django.core.files.storage.FileSystemStorage"}},
    "staticfiles": {{
        "BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage",
    }},
}}
STATIC_ROOT = BASE / "static"
"""

ALWAYS = {"E505", "E510", "W512", "W604", "W605", "W606"}
WITH_DEPLOY = {"E507", "W513", "W514", "I515", "W603", "W607", "I608"}


def write(folder: Path, *, wrong: str = "", more: str = "") -> None:
    """A site: right, or with all mistakes at once and `wrong` for ALLOWED_HOSTS."""
    values = {"beat": " -B", "memory": 100} if wrong else {"beat": "", "memory": 8000}
    (folder / "topology.toml").write_text(TOPOLOGY.format(**values))
    text = RIGHT + (WRONG.format(hosts=wrong) if wrong else "")
    (folder / "shop.py").write_text(f"{text}\n{more}\n")


def test_a_site_that_is_right(tmp_path: Path) -> None:
    write(tmp_path)
    assert check(tmp_path) == (0, "System check identified no issues (0 silenced).\n")
    status, said = check(tmp_path, "--deploy")
    # It has one balancer, and it is no mistake: a piece of advice.
    assert (status, ids(said)) == (0, {"I608"}), said
    assert "lb is the only balancer: when it dies, no visitor gets to the site." in said


def test_every_mistake_at_once(tmp_path: Path) -> None:
    write(tmp_path, wrong='["*"]')
    status, said = check(tmp_path)
    assert (status, ids(said)) == (1, ALWAYS), said
    status, said = check(tmp_path, "--deploy")
    assert (status, ids(said)) == (1, ALWAYS | WITH_DEPLOY | {"W602"}), said
    assert "(outgrow.E507) SESSION_COOKIE_NAME: another one" in said
    assert "INFOS:" in said
    assert "site.log, of which each" in said
    assert "EMAIL_BACKEND writes mails to a folder" in said
    assert "app1: memory: 375 MB is more than 100" in said


def test_a_name_that_is_missing_and_silenced_checks(tmp_path: Path) -> None:
    silent = [f"outgrow.{one}" for one in (ALWAYS | WITH_DEPLOY) - {"W604"}]
    write(tmp_path, wrong='["other.example.org"]', more=f"SILENCED_SYSTEM_CHECKS = {silent}")
    status, said = check(tmp_path, "--deploy")
    assert (status, ids(said)) == (1, {"E601", "W604"}), said
    assert "ALLOWED_HOSTS has no 'shop.example.org'" in said


def test_without_a_topology_nothing_is_compared() -> None:
    before = load._used[:]
    load._used.clear()
    try:
        with override_settings(ALLOWED_HOSTS=["*"], OUTGROW={}):
            assert load.used() is None
            assert check_topology() == check_topology_deployment() == check_deployment() == []
    finally:
        load._used[:] = before


def test_settings_that_print(tmp_path: Path) -> None:
    write(tmp_path, more="import atexit\nprint('hello', end='')\natexit.register(print, 'bye')")
    status, said = check(tmp_path, "--deploy")
    assert (status, ids(said)) == (0, {"I608"}), said


def test_settings_that_load_only_once(tmp_path: Path) -> None:
    once = "import os\nos.mkdir(BASE / 'made')\nSESSION_COOKIE_NAME = str(os.getpid())"
    write(tmp_path, more=once)
    status, said = check(tmp_path, "--deploy")
    assert (status, ids(said)) == (0, {"I608"}), said


@pytest.mark.filterwarnings("ignore:The EMAIL_:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The EMAIL_:PendingDeprecationWarning")
def test_what_is_read_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers = {"a": {"filename": 7}, "b": "text", "c": {"filename": "/x"}}
    for given, found in (({"handlers": handlers}, ["/x"]), ({}, []), (None, [])):
        monkeypatch.setattr(settings, "LOGGING", given)
        assert list(conf.log_files().values()) == found
    assert conf.max_form() is None
    with override_settings(
        DATA_UPLOAD_MAX_MEMORY_SIZE=5,
        USE_X_FORWARDED_HOST=True,
        USE_X_FORWARDED_PORT=True,
        SECURE_PROXY_SSL_HEADER=None,
        EMAIL_BACKEND="django.core.mail.backends.smtp.EmailBackend",
        REST_FRAMEWORK={},
    ):
        assert conf.max_form() == 5
        assert conf.trusted_headers() == {
            "USE_X_FORWARDED_HOST": "HTTP_X_FORWARDED_HOST",
            "USE_X_FORWARDED_PORT": "HTTP_X_FORWARDED_PORT",
        }
        assert conf.mail_folder() == ""
        assert conf.throttles() == []
    with override_settings(
        EMAIL_BACKEND="django.core.mail.backends.filebased.EmailBackend", EMAIL_FILE_PATH="/m"
    ):
        assert conf.mail_folder() == "/m"


def test_settings_without_a_module() -> None:
    with override_settings(OUTGROW={"APP_SERVERS": 2}, SETTINGS_MODULE=None):
        assert check_secret_key() == []
