"""Settings of the photo site. What depends on its servers comes from topology.toml."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from outgrow.topology import current, django_settings

BASE_DIR = Path(__file__).resolve().parent.parent
VAR = BASE_DIR / "var"
VAR.mkdir(exist_ok=True)


def _secret_key() -> str:
    """The key in var/, made at the first run. Several processes may come first at once."""
    path, draft = VAR / "secret_key", VAR / f"secret_key-{os.getpid()}"
    if not path.exists():
        draft.write_text(secrets.token_urlsafe(50))
        with suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    return path.read_text()


# Without cache servers nothing is cached. In memory, the default, each process would have a
# cache of its own.
CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}

# ALLOWED_HOSTS, MEDIA_ROOT, MEDIA_URL, STORAGES, DATABASES, DATABASE_ROUTERS and OUTGROW.
globals().update(django_settings(current(BASE_DIR / "topology.toml")))

if os.environ.get("PHOTOS_SQLITE") == "1":
    # Without a database server: no replicas, and all rows in one file.
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": VAR / "photos.sqlite3",
            # Two application servers write to one file.
            "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE"},
        },
    }
    DATABASE_ROUTERS: list[str] = []
    OUTGROW: dict[str, object] = {}

SECRET_KEY = _secret_key()
DEBUG = os.environ.get("PHOTOS_DEBUG") == "1"
INSTALLED_APPS = [
    "photos",
    "outgrow",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    # The first: what is behind it may write, and who wrote is served by a server that has it.
    "outgrow.databases.ReplicationMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "photos.urls"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "/static/"
USE_TZ = True
TIME_ZONE = "UTC"
