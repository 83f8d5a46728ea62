"""Small sites and their publication; imported by child processes, too: nothing heavy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from outgrow.publish.build import Build, Settings
from outgrow.publish.policy import Policy
from outgrow.publish.push import Publisher, Report
from outgrow.publish.scan import scan
from outgrow.publish.targets import SIBLINGS, FolderTarget, StoreTarget, Target

#: A page that refers to files in both ways, and what it refers to.
FILES: Mapping[str, bytes] = {
    "site.css": b'@import "css/base.css"; body { background: url(img/back.png) }\n' + b"/* */" * 99,
    "css/base.css": b'p { background: url("../img/back.png?x#y") } ' + b"p { color: red } " * 40,
    "img/back.png": b"\x89PNG picture",
    "js/app.js": b'import "./part.js";\n' + b"// a comment\n" * 40,
    "js/part.js": b"export const answer = 42;\n",
}
#: `site.css` is the page: it keeps its name.
SETTINGS = Settings(Policy(keep=("site.css",)))


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(milliseconds=1)
        return self.now

    def go(self, **time: float) -> None:
        self.now += timedelta(**time)


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Make a folder hold exactly these files."""
    for path in sorted(folder.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def built(folder: Path, settings: Settings = SETTINGS) -> Build:
    return Build(scan([("", folder)]), settings)


def publish(target: Target, folder: Path, **options: Any) -> Report:
    settings = options.pop("settings", SETTINGS)
    build = built(folder, settings)
    return Publisher(target, build.release, build, **options).publish()


def target_of(words: str) -> Target:
    """A target from what `described` says of it, in another process, too."""
    given = json.loads(words)
    if "servers" in given:
        from outgrow.media import HybridStorage
        from outgrow.publish.servers import ServersTarget

        options = {"names": "keep", "allow_overwrite": True, "downtime": 0.1, "need": 1}
        return ServersTarget("static", HybridStorage(**options, **given), SIBLINGS[:1])
    if "folder" in given:
        return FolderTarget(given["folder"], SIBLINGS)
    return StoreTarget(**given)
