"""The one function that puts rendered files on a disk."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from outgrow.topology.render import File


def write(files: Iterable[File], folder: Path) -> None:
    """Write each file below `folder`, whole or not at all, and make the folders for it."""
    for file in files:
        path = folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.new")
        new.write_text(file.content, encoding="utf-8")
        os.replace(new, path)
