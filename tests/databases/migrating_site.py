"""A site that is migrated by processes of their own: settings, from the environment."""

from __future__ import annotations

import json
import os

from tests.live import mysql_driver

mysql_driver.install()
SECRET_KEY = "tests only"
USE_TZ = True
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "outgrow",
]
DATABASES = {"default": json.loads(os.environ["DATABASE"])}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
