"""Run the benchmarks: python -m benchmarks [--json] [NAME ...]

Every comparison alternates: one round of each, several times, and the median
counts. Times are per operation, wall and processor time of this process.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import django
from django.conf import settings
from rich.console import Console
from rich.table import Table

from benchmarks.measure import Told


def main() -> int:
    first = ("parsers", "fanout", "save", "later", "large")
    media = (*first, "upload", "memory", "threads", "reading", "bring_in", "verify", "listing")
    stores = ("signing", "objects_small", "objects_threads", "objects_large", "objects_memory")
    releases = ("publish_admin", "publish_many", "publish_compressed", "publish_rewrite")
    databases = ("routing", "requests", "round_trips", "stale")
    names = (*media, *databases, *stores, *releases)
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    arguments.add_argument("--json", action="store_true", help="print JSON, for machines")
    options = arguments.parse_args()
    replicas = ["replica1", "replica2"]
    settings.configure(
        MEDIA_URL="/media/",
        MEDIA_ROOT="",
        RESTO_MEDIA_HOSTS=["unused"],
        SECRET_KEY="benchmarks",
        ALLOWED_HOSTS=["*"],
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        REPLICA_DATABASES=replicas,
        **peer_settings(replicas),
    )
    django.setup()
    from benchmarks import bulk, cases, objects, publishing, routing

    chosen = options.names or names
    found: dict[str, Any] = {"machine": machine(), "results": {}}
    for name in chosen:
        place = next(
            one for one in (cases, bulk, routing, objects, publishing) if name in vars(one)
        )
        case: Callable[[], Sequence[Told]] = getattr(place, name)
        found["results"][name] = [result.facts() for result in case()]
        if not options.json:
            show(name, (case.__doc__ or "").partition("\n")[0], found["results"][name])
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        print(json.dumps(found["machine"]))
    return 0


def peer_settings(replicas: list[str]) -> dict[str, Any]:
    """What django-replicated asks a site to import into its settings."""
    from django_replicated import settings as theirs

    found = {name: value for name, value in vars(theirs).items() if name.isupper()}
    return {**found, "REPLICATED_DATABASE_SLAVES": replicas}


def machine() -> dict[str, Any]:
    ours, peers = ("django", "httptools", "outgrow", "psycopg"), ("django-resto", "h11")
    databases = ("django-replicated", "django-multidb-router")
    stores = ("obstore", "boto3", "django-storages", "django-minio-storage", "swift")
    publishing = ("deflate", "brotli", "tree-sitter", "tree-sitter-javascript")
    publishers = ("collectfasta", "whitenoise", "awscli", "s3cmd")
    packages = (*ours, *peers, *databases, *stores, *publishing, *publishers)
    nginx = subprocess.run(["/usr/sbin/nginx", "-v"], capture_output=True, text=True, check=False)
    return {
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "nginx": nginx.stderr.strip().rpartition("/")[2],
        **{name: importlib.metadata.version(name) for name in packages},
    }


def cpu() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            line = next(line for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
    return line.partition(":")[2].strip()


def show(name: str, text: str, results: list[dict[str, Any]]) -> None:
    table = Table(title=f"{name}: {text.strip()}", title_justify="left")
    for heading in results[0]:
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for result in results:
        table.add_row(*(str(value) for value in result.values()))
    Console(width=110).print(table)


if __name__ == "__main__":
    sys.exit(main())
