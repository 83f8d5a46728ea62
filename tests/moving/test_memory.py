"""Memory of a copy depends neither on the size of files nor on their number (M7)."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from django.conf import settings

from tests.moving.subjects import site

pytestmark = pytest.mark.usefixtures("postgres")

SCRIPT = """
import json, sys
import django
from django.conf import settings
settings.configure(STORAGES=json.loads(sys.argv[1]), INSTALLED_APPS=["outgrow"], USE_TZ=True)
django.setup()
from django.core.management import call_command
call_command("outgrow", "media", "copy", "--from", "old", "--to", "new", "--state", sys.argv[2])
# Not of getrusage, which counts what the parent had before this process began.
[line] = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(int(line.split()[1]) >> 10)
"""


def most_memory(state) -> int:
    """Megabytes of a process that copies everything."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(settings.STORAGES), str(state)],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"DJANGO_SETTINGS_MODULE": ""},
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


@pytest.mark.parametrize("target", ["object", "hybrid"])
def test_large_files_take_no_more_memory(tmp_path, engine_named, target):
    found = []
    for size in (48, 192):
        folder = tmp_path / str(size)
        with site(folder, engine_named, "folder", target):
            (folder / "old").mkdir(parents=True)
            for number in range(3):
                with (folder / "old" / f"{number}.bin").open("wb") as file:
                    file.truncate(size << 20)
            found.append(most_memory(tmp_path / "state"))
    assert found[1] < found[0] + 40, found


def test_many_files_take_no_more_memory(tmp_path, engine_named):
    found = []
    for count in (2_000, 60_000):
        folder = tmp_path / str(count)
        with site(folder, engine_named, "folder", "folder"):
            for place in ("old", "new"):
                for number in range(count):
                    name = folder / place / str(number % 50) / f"{number}-{'x' * 100}"
                    name.parent.mkdir(parents=True, exist_ok=True)
                    name.touch()
            found.append(most_memory(tmp_path / "state"))
    assert found[1] < found[0] + 20, found
