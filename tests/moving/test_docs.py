"""The page on moving is followed, step by step, with its settings and its commands."""

from __future__ import annotations

import io
import re
import shlex
from pathlib import Path

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.core.management import call_command
from django.test import override_settings

from outgrow.testing import MediaServer
from tests.moving.subjects import held

TEXT = (Path(__file__).parents[2] / "docs/howto/move-storage.md").read_text()
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SETTINGS = [text for kind, text in FENCE.findall(TEXT) if kind == "python"]
COMMANDS = [
    shlex.split(line.removeprefix("$ python manage.py "))
    for kind, text in FENCE.findall(TEXT)
    if kind == "console"
    for line in text.splitlines()
]


@pytest.fixture
def site_as_written(tmp_path, swift, swift_bucket):
    """The page's settings, with servers that are there."""
    with MediaServer() as one, MediaServer() as two:
        ours = {
            "HybridStorage": {"servers": [one.url, two.url], "location": str(tmp_path / "media")},
            "ObjectStorage": swift.options(swift_bucket),
        }

        def settings_of(number):
            names = {}
            exec(SETTINGS[number], names)
            found = names["STORAGES"]
            for entry in found.values():
                kind = entry["BACKEND"].rpartition(".")[2]
                entry["OPTIONS"] = ours.get(kind, entry.get("OPTIONS", {}))
            return override_settings(STORAGES=found)

        yield settings_of


def test_the_page_works_as_written(site_as_written, tmp_path):
    state = ["--state", str(tmp_path / "state")]
    before, during, after = {}, {}, {}
    with site_as_written(0):
        name = storages["media"].save("a.txt", ContentFile(b"before"))
        before[name] = b"before"
        name = storages["default"].save("b.txt", ContentFile(b"during"))
        during[name] = b"during"
        for words in COMMANDS[:3]:
            call_command(*words, *state, stdout=io.StringIO(), stderr=io.StringIO())
        assert held(storages["objects"]) == before | during
    with site_as_written(1):
        name = storages["default"].save("c.txt", ContentFile(b"after"))
        after[name] = b"after"
        storages["default"].delete(*before)
    with site_as_written(0):
        call_command(*COMMANDS[3], *state, stdout=io.StringIO(), stderr=io.StringIO())
        assert held(storages["media"]) == during | after
