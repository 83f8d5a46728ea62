"""Storages of every kind that files move between, each with servers of its own."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from django.core.files.base import ContentFile
from django.core.files.storage import Storage, storages
from django.core.management import call_command
from django.test import override_settings

from outgrow.conf.objects import PART_LEAST
from outgrow.moving.places import COPYING, save_as, tidy
from outgrow.testing import MediaServer
from tests.live.engines import Engine
from tests.live.postgres import OWN, SITE

Entry = dict[str, Any]
EngineNamed = Callable[[str], Engine]

#: What can be moved from and to.
KINDS = ("folder", "hybrid", "async", "distributed", "unrecorded", "object", "other")

#: Below "" and below a folder; names as people have them; nothing in one, several parts of
#: an object in another.
FILES = {
    "a.txt": b"a",
    "photos/2026/été à Nîmes.jpg": b"summer",
    "photos/2026.jpg": b"before the folder, in the order of names",
    "photos-old/empty.bin": b"",
    "videos/large.mp4": bytes(range(256)) * (PART_LEAST // 256) + b"the second part",
}


def entry(kind: str, folder: Path, stack: ExitStack, engine_named: EngineNamed) -> Entry:
    """An entry of STORAGES; its servers live as long as the stack."""
    if kind == "folder":
        backend = "django.core.files.storage.FileSystemStorage"
        return {"BACKEND": backend, "OPTIONS": {"location": str(folder), "base_url": f"/{kind}/"}}
    if kind == "other":
        return {"BACKEND": "django.core.files.storage.InMemoryStorage"}
    if kind == "object":
        engine = engine_named("swift")
        options = engine.options(stack.enter_context(engine.bucket()))
        return {
            "BACKEND": "outgrow.objects.ObjectStorage",
            "OPTIONS": options | {"part_size": PART_LEAST},
        }
    server = stack.enter_context(MediaServer())
    options = {"servers": {"media1": server.url}, "timeout": 5, "downtime": 0.1, "need": 1}
    if kind in {"hybrid", "async"}:
        options |= {"location": str(folder)}
    if kind == "async":
        del options["need"]
    if kind == "unrecorded":
        options |= {"journal": "none", "need": "all"}
    if kind == "distributed":
        options |= {"database": OWN, "using": SITE}
    name = {"hybrid": "Hybrid", "async": "Async"}.get(kind, "Distributed")
    return {"BACKEND": f"outgrow.media.{name}Storage", "OPTIONS": options}


@contextmanager
def site(
    tmp_path: Path, engine_named: EngineNamed, old: str, new: str, **more: Entry
) -> Iterator[tuple[Storage, Storage]]:
    """A site that has STORAGES["old"] and ["new"] of these kinds, and more.

    Those that are distributed need the fixture `postgres`.
    """
    with ExitStack() as stack:
        entries = {
            alias: entry(kind, tmp_path / alias, stack, engine_named)
            for alias, kind in (("old", old), ("new", new))
        }
        stack.enter_context(override_settings(STORAGES=entries | more))
        yield storages["old"], storages["new"]


def put(storage: Storage, files: dict[str, bytes]) -> None:
    """Have these files in a storage, under these names."""
    for name, content in files.items():
        save_as(storage, name, ContentFile(content, name))
    tidy(storage)


def names(storage: Storage, folder: str = "") -> Iterator[str]:
    """The names of all files of a storage, through Django's API alone."""
    try:
        folders, files = storage.listdir(folder.rstrip("/"))
    except FileNotFoundError:
        return
    yield from (folder + one for one in files)
    for one in set(folders) - {COPYING}:  # half files of a copy; they have no name yet
        yield from names(storage, f"{folder}{one}/")


def held(storage: Storage) -> dict[str, bytes]:
    """Every file of a storage that nobody uses now, by its name."""
    found = {}
    for name in names(storage):
        with storage.open(name) as file:
            found[name] = file.read()
    return found


def copy(state: Path, *words: str, source: str = "old", target: str = "new") -> tuple[int, str]:
    """`outgrow media copy`: its exit code, and what it says."""
    out = io.StringIO()
    given = ("--from", source, "--to", target, "--state", str(state), *words)
    try:
        call_command("outgrow", "media", "copy", *given, stdout=out, stderr=io.StringIO())
    except SystemExit as end:
        return int(str(end.code)), out.getvalue()
    return 0, out.getvalue()


def report(state: Path, *words: str, **aliases: str) -> dict[str, Any]:
    """What it says to machines."""
    facts: dict[str, Any] = json.loads(copy(state, "--json", *words, **aliases)[1])
    return facts


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Look again and again, and not for ever."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.005)
