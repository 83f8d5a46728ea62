"""A publisher in trouble, in a process of its own; what it saw is printed as JSON.

``python -m tests.publish.troubled unreadable SOURCE TARGET [UID GID]``
``python -m tests.publish.troubled full SOURCE TARGET``, with little room at the target
``python -m tests.publish.troubled large SOURCE DESCRIBED`` tells its memory, in kilobytes
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from django.conf import settings

from outgrow.cli import main as command
from outgrow.errors import PublishError
from outgrow.publish.build import Settings
from outgrow.publish.targets import SIBLINGS, FolderTarget
from tests.publish.sites import publish, target_of


def unreadable(source: str, target: str, *user: str) -> dict[str, Any]:
    # What is imported when it is used may lie where only root gets to.
    CliRunner().invoke(command, ["publish", "nowhere", "--to", target])
    if user:  # root reads everything
        os.setgroups([])
        os.setgid(int(user[1]))
        os.setuid(int(user[0]))
    result = CliRunner().invoke(command, ["publish", source, "--to", target])
    return {"code": result.exit_code, "output": result.output, "raised": repr(result.exception)}


def full(source: str, target: str) -> dict[str, Any]:
    """Something is published; then more than there is room for; then there is room."""
    place, folder = FolderTarget(target, SIBLINGS), Path(source)
    publish(place, folder, settings=Settings())
    before = held(target)
    page, large = (folder / "index.html").read_bytes(), folder / "large.bin"
    large.write_bytes(os.urandom(2 << 20))
    (folder / "index.html").write_bytes(b'<img src="large.bin">')
    seen: dict[str, Any] = {}
    try:
        publish(place, folder, settings=Settings())
    except PublishError as error:
        seen["error"] = str(error)
    now = held(target)
    seen["same"] = {key: now.get(key) for key in before} == before
    seen["half"] = [one for one in os.listdir(target) if one.startswith(".outgrow-writing")]
    large.write_bytes(b"small")
    seen["again"] = publish(place, folder, settings=Settings()).has_moved
    seen["page"] = held(target)["index.html"] != page.decode()
    return seen


def held(target: str) -> dict[str, str]:
    """Everything but the ledger."""
    found = (path for path in Path(target).rglob("*") if path.is_file())
    names = {path.relative_to(target).as_posix(): path for path in found}
    return {
        name: path.read_bytes().decode("latin-1")
        for name, path in names.items()
        if not name.startswith("outgrow-publish/")
    }


def large(source: str, described: str) -> dict[str, Any]:
    report = publish(target_of(described), Path(source), settings=Settings())
    lines = Path("/proc/self/status").read_text().splitlines()
    [peak] = [line.split()[1] for line in lines if line.startswith("VmHWM")]
    return {"sent": report.sent, "bytes": report.bytes, "peak": int(peak)}


if __name__ == "__main__":
    settings.configure(USE_TZ=True)
    words = {"unreadable": unreadable, "full": full, "large": large}
    print(json.dumps(words[sys.argv[1]](*sys.argv[2:])))
