"""A disk that is full, or may not be written to: on the master, and where uploads wait.

M1 and M2: the save raises, nothing of it is anywhere, and when there is room again all is well.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from outgrow.testing import MediaServer
from tests.live.processes import server_folder, unprivileged

CHILD = Path(__file__).parent / "children" / "trouble.py"
MASTER_ID = "outgrow-master-id.txt"

every_kind = pytest.mark.parametrize("kind", ["hybrid", "async", "distributed"])


@pytest.fixture
def servers():
    with MediaServer() as one, MediaServer() as two:
        yield [one, two]


@pytest.fixture
def folder():
    with server_folder("outgrow-full-") as made:
        (made / "place").mkdir()
        if user := unprivileged():
            os.chown(made / "place", *user)
        yield made


def run(kind: str, trouble: str, folder: Path, servers, *, before=(), user=()) -> dict:
    urls = ",".join(server.url for server in servers)
    words = [sys.executable, str(CHILD), kind, trouble, str(folder), urls, *map(str, user)]
    done = subprocess.run([*before, *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def check(seen: dict, servers, error: tuple[str, int]) -> None:
    assert seen["save"] == list(error)
    assert (seen["left"], seen["open"]) == ([], 0)
    assert seen["complete"]
    wanted = {seen["kept"]: b"x" * 10, seen["again"]: b"z" * 200_000}
    for server in servers:
        found = {name: content for name, content in server.files.items() if name != MASTER_ID}
        assert found == wanted
        assert not any("big" in path for method, path, _ in server.log if method == "PUT")
    assert seen.get("master", sorted(wanted)) == sorted(wanted)


@every_kind
def test_a_disk_that_takes_no_more(kind, folder, servers):
    check(run(kind, "limit", folder, servers), servers, ("OSError", errno.EFBIG))


@every_kind
def test_a_file_system_without_room(kind, folder, servers):
    """A real one: a small tmpfs, in a name space of mounts of its own."""
    mount = f"mount -t tmpfs -o size=400k,mode=777 tmpfs {folder}/place"
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    before = ["unshare", "--mount", *as_root, "sh", "-c", f'{mount} && exec "$@"', "sh"]
    if subprocess.run([*before, "true"], capture_output=True).returncode:
        pytest.skip("this user may not mount a file system of his own")
    seen = run(kind, "space", folder, servers, before=before)
    check(seen, servers, ("OSError", errno.ENOSPC))


@every_kind
def test_a_folder_that_may_not_be_written_to(kind, folder, servers):
    seen = run(kind, "permission", folder, servers, user=unprivileged() or ())
    if kind != "distributed":  # there a delete touches no folder
        assert seen["delete"] == ["PermissionError", errno.EACCES]
    check(seen, servers, ("PermissionError", errno.EACCES))
