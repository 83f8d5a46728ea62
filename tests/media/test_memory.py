"""M7: memory does not depend on the size of a file. Measured in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from outgrow.testing import MediaServer

SIZE = 64 << 20

READ = """
import hashlib, os, resource, sys, tempfile
import django
from django.conf import settings

folder, urls, path = sys.argv[1], sys.argv[2].split(","), sys.argv[3]
sqlite = {"ENGINE": "django.db.backends.sqlite3"}
settings.configure(
    INSTALLED_APPS=["outgrow"],
    DATABASES={alias: {**sqlite, "NAME": f"{folder}/{alias}"} for alias in ("default", "outgrow")},
    ALLOWED_HOSTS=["*"],
)
django.setup()
from django.core.files.base import ContentFile, File
from django.core.management import call_command
from django.http import FileResponse
from outgrow.media import DistributedStorage

for alias in ("default", "outgrow"):
    call_command("migrate", "outgrow", database=alias, verbosity=0)
storage = DistributedStorage(servers=urls, base_url="/")


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def digest(chunks):
    found = hashlib.sha256()
    for chunk in chunks:
        found.update(chunk)
    return found.hexdigest()


def pieces(file):
    while piece := file.read(65536):
        yield piece


def lines(file):
    yield from file


def ranges(file):
    for start in range(0, file.size, 1 << 20):
        file.seek(start)
        yield file.read(1 << 20)


ways = {
    "read": lambda name: digest(pieces(storage.open(name))),
    "chunks": lambda name: digest(storage.open(name).chunks()),
    "seek": lambda name: digest(ranges(storage.open(name))),
    "response": lambda name: digest(FileResponse(storage.open(name)).streaming_content),
}
small = storage.save("small.bin", ContentFile(os.urandom(3 << 20)))
for way in ways.values():
    way(small)
with open(path, "rb") as upload:
    wanted = digest(pieces(upload))
before = peak()
with open(path, "rb") as upload:
    name = storage.save("large.bin", File(upload))
print("save", peak() - before)
for what, way in ways.items():
    before = peak()
    assert way(name) == wanted, what
    print(what, peak() - before)
"""


@pytest.mark.drill
def test_saving_and_reading_take_no_more_memory_for_a_large_file(tmp_path):
    large = tmp_path / "large"
    with large.open("wb") as file:
        for _ in range(SIZE >> 20):
            file.write(os.urandom(1 << 20))
    with MediaServer(tmp_path / "one") as one, MediaServer(tmp_path / "two") as two:
        words = [sys.executable, "-c", READ, str(tmp_path), f"{one.url},{two.url}", str(large)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    grown = {word: int(number) for word, number in map(str.split, done.stdout.splitlines())}
    assert grown.keys() == {"save", "read", "chunks", "seek", "response"}
    assert max(grown.values()) < 8192, f"KB more after a file of 64 MB: {grown}"
