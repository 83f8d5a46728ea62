"""The smallest site that keeps uploads: its settings are what docs tell to write."""

from pathlib import Path

from outgrow.topology import current, django_settings

BASE_DIR = Path(__file__).parent.parent
SECRET_KEY = "only for tests"
ROOT_URLCONF = "tiny.urls"
INSTALLED_APPS = ["outgrow"]
USE_TZ = True

globals().update(django_settings(current(BASE_DIR / "topology.toml")))
