"""The page "Media servers" of Django's admin, and its button."""

from __future__ import annotations

import io
import re
import time
from datetime import datetime
from html import unescape
from zoneinfo import ZoneInfo

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.core.management import call_command
from django.db import connections, transaction
from django.test import Client, override_settings
from django.urls import path
from django.utils import dateformat
from django.utils.html import strip_tags

from outgrow.admin import repair_a_while
from outgrow.media.repair import Repair
from outgrow.media.watch import Watch
from outgrow.testing import MediaServer
from tests.raw import takes

PAGE, BUTTON = "/admin/outgrow/mediaserver/", "/admin/outgrow/mediaserver/repair/"
SECRET = "s3cret-pass"
STATIC = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
urlpatterns = [path("admin/", admin.site.urls)]
pytestmark = pytest.mark.django_db


@pytest.fixture
def servers():
    with MediaServer() as one, MediaServer() as two:
        yield {"media1": one, "media2": two}


@pytest.fixture
def site(tmp_path, servers):
    urls = {
        name: server.url.replace("//", f"//outgrow:{SECRET}@") for name, server in servers.items()
    }
    options = {"servers": urls, "location": str(tmp_path / "master"), "downtime": 0.05}
    media = {
        "BACKEND": "outgrow.media.HybridStorage",
        "OPTIONS": options | {"secret": f"signing-{SECRET}", "need": 1},
    }
    with override_settings(
        STORAGES={"default": media, "staticfiles": STATIC},
        ROOT_URLCONF=__name__,
        ALLOWED_HOSTS=["testserver"],
    ):
        Repair(storages["default"].replication).once(settle=False)
        yield storages["default"]


def client(*permissions: str, **options) -> Client:
    """A client who has logged in as one of the staff with these permissions."""
    user = User.objects.create_user("somebody", password="x", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    made = Client(**options)
    made.force_login(user)
    return made


@pytest.fixture
def viewer(site):
    return client("view_mediaserver")


@pytest.fixture
def operator(site):
    return client("view_mediaserver", "repair_media")


def text_of(answer) -> str:
    """What a person reads, in one line."""
    assert answer.status_code == 200
    return " ".join(unescape(strip_tags(answer.content.decode().replace("<", " <"))).split())


def page(who: Client) -> str:
    return text_of(who.get(PAGE))


def row(text: str, server: str) -> str:
    """What the page says of one server, up to the next."""
    found = re.search(rf"{server} http://\S+ (.*?)(?=media\d http|The watch)", text)
    assert found, text
    return found[1].strip()


def press(who: Client, storage: str = "default") -> str:
    return text_of(who.post(BUTTON, {"storage": storage}, follow=True))


# --- the page


def test_a_server_is_up_or_down_and_says_why(viewer, servers):
    assert row(page(viewer), "media2") == "up 0 0"
    servers["media2"].stop()
    text = page(viewer)
    assert row(text, "media1") == "up 0 0"
    assert re.match(r"down 0 0 no connection", row(text, "media2"))


def test_what_is_owed_and_since_when(site, viewer, servers):
    servers["media2"].stop()
    for _ in range(2):
        site.save("f.txt", ContentFile(b"x"))
    assert re.match(r"down 2 \d+ s 0 no connection", row(page(viewer), "media2"))
    servers["media2"].start()
    assert re.match(r"up 2 \d+ s 0", row(page(viewer), "media2"))


def test_a_server_that_is_owed_everything(site, viewer):
    site.journal.owe_all("media2")
    assert re.match(r"up everything \d+ s 0", row(page(viewer), "media2"))


def test_the_watch_and_its_absence(site, viewer, servers):
    assert "The watch has never run." in page(viewer)
    assert "Start it: without it nothing is repaired." in page(viewer)
    Watch(Repair(site.replication), wait=lambda _: True).run()
    text = page(viewer)
    assert "The watch is running." in text
    assert "Start it" not in text
    # It knows since when.
    assert re.match(r"up [A-Z].* (a|p)\.m\. 0 0", row(text, "media1"))


@pytest.mark.parametrize("use_tz", [True, False])
def test_times_are_local(site, viewer, use_tz):
    with override_settings(USE_TZ=use_tz, TIME_ZONE="Asia/Tokyo"):
        begun = time.time()
        Watch(Repair(site.replication), wait=lambda _: True).run()
        tokyo = ZoneInfo("Asia/Tokyo")
        expected = {
            dateformat.format(datetime.fromtimestamp(at, tokyo), "N j, Y, P")
            for at in (begun, time.time())
        }
        assert row(page(viewer), "media1") in {f"up {at} 0 0" for at in expected}


def test_a_server_of_another_master_is_not_written_to(viewer, servers):
    servers["media2"].files["outgrow-master-id.txt"] = b"0" * 32
    text = page(viewer)
    assert row(text, "media2").startswith("not written to")
    assert "media2 is not written to: belongs to the master" in text


def test_servers_that_were_taken_out_of_the_settings_are_named(site, viewer):
    site.journal.owe("media0", "old.txt")
    assert "media0 has records and is not in the settings any more" in page(viewer)


def test_a_master_that_can_not_be_used_is_told_on_the_page(site, viewer):
    (site.journal.folder / "format").write_text("outgrow journal 99\n")
    assert "Upgrade Outgrow on this machine." in page(viewer)


def test_every_storage_has_its_place(site, operator, tmp_path):
    with MediaServer() as third:
        far = {
            "BACKEND": "outgrow.media.HybridStorage",
            "OPTIONS": {"servers": {"far": third.url}, "location": str(tmp_path / "avatars")},
        }
        media = {"BACKEND": "outgrow.media.HybridStorage", "OPTIONS": site._options}
        media["OPTIONS"] |= {"location": site.location}
        with override_settings(STORAGES={"default": media, "avatars": far, "staticfiles": STATIC}):
            text = page(operator)
            assert text.index("default") < text.index("avatars")
            assert press(operator, "avatars").count("Storage avatars: sent 0") == 1
            assert "outgrow-master-id.txt" in third.files


def test_a_site_without_media_servers(viewer):
    plain = {"BACKEND": "django.core.files.storage.FileSystemStorage"}
    with override_settings(STORAGES={"default": plain, "staticfiles": STATIC}):
        assert "This site has no media storage of Outgrow." in page(viewer)


def test_hostile_errors_are_text(site, operator, servers):
    evil = b"<script>alert(1)</script>"
    servers["media2"].files["outgrow-master-id.txt"] = evil
    for answer in (
        operator.get(PAGE),
        operator.post(BUTTON, {"storage": "default"}, follow=True),
        operator.post(BUTTON, {"storage": evil.decode()}, follow=True),
    ):
        assert answer.status_code == 200
        assert b"&lt;script&gt;alert(1)" in answer.content
        assert b"<script>alert" not in answer.content


def test_no_secret_is_on_the_page(site, operator, servers):
    assert servers["media1"].log
    servers["media2"].answer_with(401)
    for answer in (operator.get(PAGE), operator.post(BUTTON, {"storage": "default"}, follow=True)):
        assert answer.status_code == 200
        assert SECRET not in answer.content.decode()
        assert "media2" in answer.content.decode()
    assert SECRET not in "".join(LogEntry.objects.values_list("change_message", flat=True))


def test_it_works_without_scripts_and_styles_of_its_own(operator):
    own = operator.get(PAGE).content.decode().partition('<div id="content-main">')[2]
    own = own.partition("</main>")[0]
    assert not re.search(r"<script|<style| style=| on[a-z]+=", own)


# --- who may


def test_strangers_are_sent_to_the_login(site):
    for answer in (Client().get(PAGE), Client().post(BUTTON, {"storage": "default"})):
        assert answer.status_code == 302
        assert answer["Location"].startswith("/admin/login/?next=")


def test_without_the_permission_there_is_no_page(site):
    somebody = client()
    assert somebody.get(PAGE).status_code == 403
    assert somebody.post(BUTTON, {"storage": "default"}).status_code == 403
    assert "Media servers" not in text_of(somebody.get("/admin/"))


def test_who_may_only_look_has_no_button(site, viewer, servers):
    assert "Media servers" in text_of(viewer.get("/admin/"))
    assert b"Repair now" not in viewer.get(PAGE).content
    before = len(servers["media1"].log)
    assert viewer.post(BUTTON, {"storage": "default"}).status_code == 403
    assert len(servers["media1"].log) == before


def test_the_button_alone_is_no_right_to_look(site):
    somebody = client("repair_media")
    assert somebody.get(PAGE).status_code == 403
    assert somebody.post(BUTTON, {"storage": "default"}).status_code == 403


def test_a_link_or_another_site_can_not_press_the_button(site, servers):
    wary = client("view_mediaserver", "repair_media", enforce_csrf_checks=True)
    before = len(servers["media1"].log)
    assert wary.get(BUTTON).status_code == 405
    assert wary.post(BUTTON, {"storage": "default"}).status_code == 403
    assert len(servers["media1"].log) == before
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', wary.get(PAGE).content.decode())
    form = {"storage": "default", "csrfmiddlewaretoken": token[1]}
    assert "sent 0" in text_of(wary.post(BUTTON, form, follow=True))


def test_nobody_adds_changes_or_deletes(site):
    user = User.objects.create_superuser("root", password="x")
    root = Client()
    root.force_login(user)
    assert "Repair now" in root.get(PAGE).content.decode()
    assert b"mediaserver/add/" not in root.get("/admin/").content
    for wrong in ("add/", "1/change/", "1/delete/"):
        assert root.get(PAGE + wrong).status_code == 404


# --- the button


def test_repair_now_sends_what_is_owed(site, operator, servers):
    servers["media2"].stop()
    name = site.save("f.txt", ContentFile(b"x"))
    servers["media2"].start()
    text = press(operator)
    assert name in servers["media2"].files
    assert "sent 1, deleted 0, still owed 0" in text
    assert row(text, "media2").startswith("up 0 0")
    entry = LogEntry.objects.get()
    assert (entry.user.username, entry.object_repr) == ("somebody", "default")
    assert entry.get_change_message() == ("Repair now: sent 1, deleted 0, still owed 0")
    assert "Media server" in text_of(operator.get("/admin/"))


def test_repair_now_says_what_it_could_not_do(site, operator, servers):
    servers["media2"].stop()
    site.save("f.txt", ContentFile(b"x"))
    answer = operator.post(BUTTON, {"storage": "default"}, follow=True)
    assert "Storage default: media2 was not repaired: no connection" in text_of(answer)
    assert b'<li class="warning">Storage default: sent 0, deleted 0, still owed 1' in answer.content


def test_a_long_report_is_cut(site, operator, servers):
    servers["media2"].stop()
    for _ in range(20):
        (site.journal.root / site.save("f.txt", ContentFile(b"x"))).unlink()
    servers["media2"].start()
    text = press(operator)
    assert text.count("neither on the master nor deleted") == 9
    assert "11 more lines. Run 'manage.py outgrow media repair'" in text


def test_when_the_time_is_up_the_rest_is_left(site, servers):
    servers["media2"].stop()
    names = [site.save("f.txt", ContentFile(b"x")) for _ in range(3)]
    servers["media2"].start()
    assert repair_a_while(site, seconds=0)[1]
    assert not servers["media2"].files.keys() & set(names)
    report, left = repair_a_while(site)
    assert (report.put, left) == (3, False)
    assert set(names) <= servers["media2"].files.keys()


def test_a_server_that_hangs_does_not_hold_the_request(site, operator, servers):
    servers["media2"].stop()
    site.save("f.txt", ContentFile(b"x"))
    servers["media2"].start()
    servers["media2"].freeze()
    with takes(at_most=15):
        assert "media2 was not repaired: " in press(operator)
    servers["media2"].thaw()


def test_an_unknown_storage_and_a_broken_journal_are_told(site, operator):
    assert "There is no media storage 'nothing'." in press(operator, "nothing")
    (site.journal.folder / "format").write_text("outgrow journal 99\n")
    assert "Upgrade Outgrow on this machine." in press(operator)
    assert not LogEntry.objects.exists()


# --- with a catalogue


@pytest.fixture
def distributed(servers):
    urls = {name: server.url for name, server in servers.items()}
    media = {
        "BACKEND": "outgrow.media.DistributedStorage",
        "OPTIONS": {"servers": urls, "downtime": 0.05, "need": 1},
    }
    with override_settings(
        STORAGES={"default": media, "staticfiles": STATIC},
        ROOT_URLCONF=__name__,
        ALLOWED_HOSTS=["testserver"],
    ):
        yield storages["default"]


in_two_databases = pytest.mark.django_db(transaction=True, databases=["default", "outgrow"])


@in_two_databases
def test_a_storage_without_a_master(distributed, servers):
    operator = client("view_mediaserver", "repair_media")
    assert "Storage default: sent 0" in press(operator)
    servers["media2"].stop()
    name = distributed.save("f.txt", ContentFile(b"x"))
    servers["media2"].start()
    assert row(page(operator), "media2").startswith("up 1 ")
    assert "sent 1, deleted 0, still owed 0" in press(operator)
    assert name in servers["media2"].files
    assert row(page(operator), "media2").startswith("up 0 ")


@in_two_databases
def test_a_catalogue_that_is_away_is_told_on_the_page(distributed):
    operator = client("view_mediaserver", "repair_media")
    with connections["outgrow"].cursor() as cursor:
        cursor.execute("ALTER TABLE outgrow_fact RENAME TO away")
        try:
            assert "The catalogue in DATABASES['outgrow'] can't be used" in page(operator)
            assert "Storage default: The catalogue in DATABASES['outgrow']" in press(operator)
        finally:
            cursor.execute("ALTER TABLE away RENAME TO outgrow_fact")


@in_two_databases
def test_it_repairs_in_no_transaction_of_the_site(distributed, monkeypatch):
    """There it could take a file that was just saved for one that never was."""
    operator = client("view_mediaserver", "repair_media")
    atomic = connections.settings["default"] | {"ATOMIC_REQUESTS": True}
    monkeypatch.setitem(connections.settings, "default", atomic)
    assert "Storage default: sent 0" in press(operator)
    with transaction.atomic():
        assert "Let no middleware open one for this page" in press(operator)


# --- the model, which has no table


def test_the_model_needs_no_table_and_no_other_migration():
    out = io.StringIO()
    call_command("makemigrations", "outgrow", check=True, dry_run=True, stdout=out)
    with pytest.warns(Warning, match="proxy model"):
        call_command("dumpdata", "outgrow.MediaServer", stdout=out)
    call_command("dumpdata", "outgrow", stdout=out)
