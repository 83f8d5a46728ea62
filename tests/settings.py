"""Django's settings for the tests, and for mypy's knowledge of Django."""

from __future__ import annotations

SECRET_KEY = "tests only"
USE_TZ = True
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "outgrow"]
SQLITE = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
# The catalogue of a distributed storage has a connection, and here a file, of its own.
DATABASES = {"default": SQLITE, "outgrow": SQLITE}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
MEDIA_URL = "/media/"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
