"""Who publishes: ours and the peers', each a command with the files and settings that it needs.

All speak to the same Swift through one nginx, whose log counts their requests. Each is a process
of its own, so that its processor time is the whole client's: its start, its threads, its children.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.measure import processor
from outgrow.names import token
from tests.live.engines import Engine
from tests.live.nginx import Nginx
from tests.live.processes import server_folder
from tests.live.swift import engine_of, running_swift

#: Hands all on as it came (the signature covers Host and the path), and logs each request.
COUNTING = """        location / {
            client_max_body_size 0;
            proxy_pass http://engine;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Connection "";
            proxy_request_buffering off;
            proxy_read_timeout 600s;
        }
    }
}
"""
UPSTREAM = "    upstream engine {{ server {address}; keepalive 64; }}\n    server {{\n"

#: A site of its own for each candidate.
SITE = """
SECRET_KEY = "benchmarks"
USE_TZ = True
STATIC_URL = "/static/"
INSTALLED_APPS = {apps!r}
STATICFILES_DIRS = {folders!r}
STORAGES = {{"staticfiles": {storage!r}}}
# collectfasta's memory of what it has sent; as its documentation asks, larger than the site.
CACHES = {{"default": {{
    "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
    "LOCATION": {cache!r},
    "OPTIONS": {{"MAX_ENTRIES": 1_000_000}},
}}}}
COLLECTFASTA_STRATEGY = "collectfasta.strategies.boto3.Boto3ManifestMemoryStrategy"
COLLECTFASTA_THREADS = {threads!r}
AWS_IS_GZIPPED = True
"""
ADMIN = ["admin", "auth", "contenttypes", "messages", "sessions"]
PREFIX = "static"


@dataclass(frozen=True)
class Place:
    """A bucket, and who publishes `source` there from `folder`, which is the candidate's own.

    Without `source` it is Django's admin, found by Django's finders.
    """

    engine: Engine
    bucket: str
    folder: Path
    source: Path | None = None


@dataclass(frozen=True)
class Candidate:
    """One command; `files` are written into its folder before."""

    words: Sequence[str]
    files: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One run: seconds, and what the engine was asked; `ended` is false where it took too long."""

    wall: float
    processor: float
    requests: Counter[str]
    ended: bool = True

    @property
    def count(self) -> int:
        return sum(self.requests.values())


class Counted:
    """An engine behind an nginx; `engine` is how clients speak to it."""

    def __init__(self, engine: Engine, nginx: Nginx) -> None:
        self.engine = replace(engine, endpoint=nginx.url)
        self._log = nginx.folder / "access.log"

    def place(self, folder: Path, source: Path | None = None) -> Place:
        """An empty bucket, which goes with the engine, and an empty folder for a candidate."""
        name = f"bench-{token()}"
        self.engine.client().create_bucket(Bucket=name)
        own = folder / name
        own.mkdir()
        return Place(self.engine, name, own, source)

    def run(self, candidate: Candidate, place: Place, limit: float = 300.0) -> Run:
        """Run the command once, and count. Raises RuntimeError where it fails."""
        for name, text in candidate.files.items():
            (place.folder / name).write_text(text, encoding="utf-8")
        environment = {**_environment(place), **candidate.environment}
        start, output = self._log.stat().st_size, place.folder / "output"
        before, begin, ended = processor(), time.perf_counter(), True
        with output.open("ab") as file:
            try:
                done = subprocess.run(
                    candidate.words,
                    cwd=place.folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    timeout=limit,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                ended = False
        wall, used = time.perf_counter() - begin, processor() - before
        if ended and done.returncode:
            raise RuntimeError(f"{candidate.words} failed: {output.read_text()[-2000:]}")
        time.sleep(0.2)  # nginx writes a line when its answer has left
        with self._log.open("rb") as file:
            file.seek(start)
            found = Counter(line.split(b" ", 1)[0].decode() for line in file)
        return Run(wall, used, found, ended)


@contextmanager
def counted() -> Iterator[Counted]:
    """A Swift that is empty, behind an nginx that counts."""
    with running_swift() as [node], server_folder("outgrow-count-") as folder:
        nginx = Nginx(folder)
        begin, _, _ = nginx._configuration.partition("        location / {")
        upstream = UPSTREAM.format(address=node.endpoint.removeprefix("http://"))
        nginx._configuration = begin.replace("    server {\n", upstream, 1)
        nginx._configuration += COUNTING
        nginx.start()
        try:
            yield Counted(engine_of(node), nginx)
        finally:
            nginx.stop()


def _environment(place: Place) -> dict[str, str]:
    """Nothing of the user's own: no configuration, no cache."""
    return {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "HOME": str(place.folder),
        "XDG_CACHE_HOME": str(place.folder / "cache"),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(place.folder),
        "DJANGO_SETTINGS_MODULE": "site_settings",
        "AWS_ACCESS_KEY_ID": place.engine.access_key,
        "AWS_SECRET_ACCESS_KEY": place.engine.secret_key,
        "AWS_DEFAULT_REGION": place.engine.region,
        "AWS_EC2_METADATA_DISABLED": "true",
        # Sums that only AWS' own servers know.
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
    }


def program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


# --- ours


def ours(place: Place, *, encoding: str = "gzip") -> Candidate:
    """`outgrow publish`, without Django's settings."""
    return Candidate([program("outgrow"), "publish"], {"outgrow.toml": _toml(place, encoding)})


def ours_in_django(place: Place, *, encoding: str = "gzip") -> Candidate:
    """`manage.py outgrow publish`: the files are found as collectstatic finds them."""
    files = {"outgrow.toml": _toml(place, encoding), "site_settings.py": _site(place, ["outgrow"])}
    return Candidate([sys.executable, "-m", "django", "outgrow", "publish"], files)


def _toml(place: Place, encoding: str) -> str:
    root = "" if place.source is None else f'root = "{place.source}"'
    return f"""
[publish]
{root}
encoding = "{encoding}"
cache = "cache"

[[publish.to]]
url = "s3://{place.bucket}/{PREFIX}"
endpoint = "{place.engine.endpoint}"
region = "{place.engine.region}"
access_key = "{place.engine.access_key}"
secret_env = "AWS_SECRET_ACCESS_KEY"
"""


# --- the peers'


def collectstatic(place: Place) -> Candidate:
    """Django's own command, with django-storages: hashed names, and gzip, as ours."""
    words = [sys.executable, "-m", "django", "collectstatic", "--noinput", "--verbosity=0"]
    return Candidate(words, {"site_settings.py": _site(place, [], _storages(place))})


def collectfasta(place: Place, *, threads: int = 0) -> Candidate:
    """The same command, replaced by one that remembers what it has sent."""
    plain = collectstatic(place)
    site = _site(place, ["collectfasta"], _storages(place), threads=threads)
    return replace(plain, files={"site_settings.py": site})


def aws_sync(place: Place) -> Candidate:
    """Files as they are: no hashed names, no compression. Equal is what has the same size, and
    is no older than the file."""
    words = ["s3", "sync", str(place.source), f"s3://{place.bucket}/{PREFIX}"]
    options = ["--endpoint-url", place.engine.endpoint, "--only-show-errors"]
    return Candidate([program("aws"), *words, *options])


def s3cmd_sync(place: Place) -> Candidate:
    """Files as they are. Equal is what has the same size and MD5."""
    host = place.engine.endpoint.removeprefix("http://")
    options = [f"--host={host}", f"--host-bucket={host}", "--no-ssl", "--no-progress", "--quiet"]
    # It knows no other way to be told the region; without it asks for that first.
    options += [f"--region={place.engine.region}"]
    words = ["sync", f"{place.source}/", f"s3://{place.bucket}/{PREFIX}/"]
    return Candidate([program("s3cmd"), *options, *words])


def _storages(place: Place) -> dict[str, Any]:
    return {
        "BACKEND": "storages.backends.s3.S3ManifestStaticStorage",
        "OPTIONS": {
            "bucket_name": place.bucket,
            "location": PREFIX,
            "endpoint_url": place.engine.endpoint,
            "region_name": place.engine.region,
            "access_key": place.engine.access_key,
            "secret_key": place.engine.secret_key,
            "addressing_style": "path",
            "signature_version": "s3v4",
            "gzip": True,
        },
    }


def _site(
    place: Place,
    more: Sequence[str],
    storage: Mapping[str, Any] | None = None,
    *,
    threads: int = 0,
) -> str:
    admin = [f"django.contrib.{name}" for name in ADMIN] if place.source is None else []
    plain = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    return SITE.format(
        # collectfasta's command replaces that of what stands behind it.
        apps=[*more, "django.contrib.staticfiles", *admin],
        folders=[] if place.source is None else [str(place.source)],
        storage=storage or plain,
        cache=str(place.folder / "django-cache"),
        threads=threads,
    )
