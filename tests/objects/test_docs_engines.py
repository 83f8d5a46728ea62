"""What the documentation says of the engines is what they were seen to do.

tests/live/test_engines.py holds each of these facts against the engine itself.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile

from outgrow.objects import ObjectStorage
from tests.live.engines import Engine

PAGE = (Path(__file__).parents[2] / "docs/howto/object-stores.md").read_text()

#: The beginning of a row -> the fact.
ROWS = {
    "a wrong signature is refused": "verifies",
    "of several writers of one name": "is_atomic",
    "bucket policies": "has_policies",
    "upload forms (POST)": "has_forms",
}


def test_the_table_is_what_the_engines_do(engine: Engine) -> None:
    # Not its version: what was true of that one is held against each that is installed.
    [heading] = [one for one in PAGE.splitlines() if one.startswith("| | Swift ")]
    [column] = [n for n, one in enumerate(heading.lower().split("|")[1:]) if engine.name in one]
    for beginning, fact in ROWS.items():
        [line] = [one for one in PAGE.splitlines() if one.startswith(f"| {beginning}")]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[column] == ("yes" if getattr(engine, fact) else "no"), beginning


def entries() -> dict[str, dict[str, Any]]:
    """Options of every storage of the page that lies on a server with an address, by its name."""
    found = {}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        names: dict[str, Any] = {}
        exec(block, names)
        for alias, entry in names.get("STORAGES", {}).items():
            if "endpoint" in entry.get("OPTIONS", {}):
                found[alias] = entry["OPTIONS"]
    return found


@pytest.mark.parametrize("name", entries())
def test_the_settings_of_the_page_work(name: str, engine: Engine, bucket: str) -> None:
    """With another address, other keys and that server's region, a file is saved and read."""
    options = {key: value for key, value in entries()[name].items() if key != "profile"}
    storage = ObjectStorage(**options | engine.options(bucket))
    saved = storage.save("a/b.txt", ContentFile(b"content"))
    with storage.open(saved) as file:
        assert file.read() == b"content"
    assert engine.held(bucket) == {saved: b"content"}


def test_every_server_that_is_named_has_a_block() -> None:
    assert entries().keys() == {"default", "on Garage", "on Ceph", "on Swift", "static on R2"}
