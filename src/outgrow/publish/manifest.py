"""The manifest of a build: a file that goes with the code, and says which key a name has."""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from pathlib import Path

from outgrow.errors import PublishError
from outgrow.publish import release
from outgrow.publish.release import Release


def write(path: Path, release_: Release) -> None:
    """Write it whole, or not at all. Raises PublishError."""
    text = json.dumps(release_.document(), sort_keys=True, indent=1)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            aside.write_text(f"{text}\n", encoding="utf-8")
            os.replace(aside, path)
        finally:
            with suppress(FileNotFoundError):
                aside.unlink()
    except OSError as error:
        raise PublishError(f"The manifest {path} can't be written: {error.strerror}.") from error


def read(path: Path) -> Release:
    """Read it. Raises FileNotFoundError where there is none, and PublishError for a wrong one."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise PublishError(f"The manifest {path} can't be read: {error}.") from error
    return release.parse(document, str(path))
