"""Memory does not depend on the size of a file (M7), up and down."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.engines import Engine

SCRIPT = """
import json, os, sys
import django
from django.conf import settings
settings.configure(USE_TZ=True)
django.setup()
from django.core.files.base import File
from outgrow.objects import ObjectStorage
storage = ObjectStorage(**json.loads(os.environ["STORAGE"]))
with open(sys.argv[1], "rb") as source:
    name = storage.save("large.bin", File(source))
count = 0
with storage.open(name) as file:
    for chunk in file.chunks(1 << 20):
        count += len(chunk)
assert count == os.path.getsize(sys.argv[1])
# Not of getrusage, which counts what the parent had before this process began.
[line] = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(int(line.split()[1]) >> 10)
"""


def most_memory(source: Path, options: dict[str, object], megabytes: int) -> int:
    """Megabytes of a process that moves a file of so many up and down."""
    with source.open("wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(1 << 20))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(source)],
        env=os.environ | {"STORAGE": json.dumps(options)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("engine", ["swift"], indirect=True)
def test_a_large_file_takes_no_more_memory(engine: Engine, bucket: str, tmp_path: Path) -> None:
    options, source = engine.options(bucket), tmp_path / "large.bin"
    some, more = (most_memory(source, options, size) for size in (96, 384))
    assert more < some + 40, f"{some} MB and {more} MB"
