"""Django's own tests of multiple databases, with our router in the list.

They are in Django's source distribution, not in the installed package. They are run
without the router, with it, and with a cluster: what fails must be the same (some fail on
every machine of a kind, without us), and the same number must have run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import django
import pytest

from tests.live.processes import missing

#: The suites of Django's that have several databases, routers, transactions, or instances
#: that are loaded in parts and again.
LABELS = (
    "multiple_database",
    "migrations.test_multidb",
    "auth_tests.test_admin_multidb",
    "admin_views.test_multidb",
    "sites_tests",
    "contenttypes_tests",
    "prefetch_related",
    "defer",
    "get_or_create",
    "raw_query",
    "select_for_update",
    "transactions",
    "transaction_hooks",
    "fixtures_regress",
)

SETTINGS = """
DATABASES = {{
    "default": {{"ENGINE": "django.db.backends.sqlite3"}},
    "other": {{"ENGINE": "django.db.backends.sqlite3"}},
}}
SECRET_KEY = "django's own"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
{more}
"""
ROUTER = 'DATABASE_ROUTERS = ["outgrow.databases.ReplicationRouter"]\n'
CLUSTER = """
DATABASES["replica1"] = {"ENGINE": "django.db.backends.sqlite3", "TEST": {"MIRROR": "default"}}
OUTGROW = {"REPLICATION": {"default": {"replicas": ["replica1"]}}}
"""


@pytest.fixture(scope="module")
def suite() -> Path:
    """The folder of Django's tests, of the version that is installed; fetched once."""
    version = django.__version__
    kept = Path(sys.prefix) / "django-tests" / version
    if not kept.exists():
        with tempfile.TemporaryDirectory(dir=sys.prefix) as folder:
            _fetch(version, Path(folder))
            kept.parent.mkdir(exist_ok=True)
            # Another process may have been quicker.
            if not kept.exists():
                (Path(folder) / f"django-{version}").rename(kept)
    return kept / "tests"


def _fetch(version: str, folder: Path) -> None:
    words = ["pip", "download", "--quiet", "--no-deps", "--no-binary", "django"]
    done = subprocess.run(
        [sys.executable, "-m", *words, "--dest", str(folder), f"django=={version}"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = list(folder.glob("*.tar.gz"))
    if not found:
        missing(f"Django's source can't be had: {done.stderr[-300:]}", "a package registry")
    with tarfile.open(found[0]) as archive:
        archive.extractall(folder, filter="data")


def ran(suite: Path, folder: Path, name: str, more: str) -> tuple[int, list[str]]:
    """How many tests have run, and which of them failed."""
    (folder / f"{name}.py").write_text(SETTINGS.format(more=more))
    words = ["runtests.py", f"--settings={name}", "--parallel=1", "--noinput", *LABELS]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=suite,
        env=os.environ | {"PYTHONPATH": str(folder), "DJANGO_SETTINGS_MODULE": ""},
        capture_output=True,
        text=True,
        timeout=250,
    )
    count = re.search(r"^Ran (\d+) tests", done.stderr, re.MULTILINE)
    assert count, done.stdout + done.stderr
    return int(count[1]), re.findall(r"^(?:ERROR|FAIL): (.*)$", done.stderr, re.MULTILINE)


@pytest.mark.drill
def test_django_s_own_tests_pass_with_our_router_in_the_list(suite, tmp_path):
    without = ran(suite, tmp_path, "without", "")
    assert without[0] > 500
    assert ran(suite, tmp_path, "with_router", ROUTER) == without
    assert ran(suite, tmp_path, "with_cluster", ROUTER + CLUSTER) == without
