"""`media verify`: what is found, what is told, what is mended, and what is left alone."""

from __future__ import annotations

import io
import json
import os
import random
import time

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.core.management import CommandError, call_command
from django.test import override_settings

from outgrow.media import AsyncStorage
from outgrow.media.pace import Pace
from outgrow.media.repair import Repair
from outgrow.media.verify import GRACE, Verify
from outgrow.testing import FakeClock, MediaServer
from tests.live.nginx import running_nginx

OLD = time.time() - 2 * GRACE


@pytest.fixture
def servers(tmp_path):
    with MediaServer(tmp_path / "one") as one, MediaServer(tmp_path / "two") as two:
        yield {"media1": one, "media2": two}


@pytest.fixture
def site(tmp_path, servers):
    options = {
        "servers": {name: server.url for name, server in servers.items()},
        "downtime": 0.1,
        "location": str(tmp_path / "master"),
    }
    media = {"BACKEND": "outgrow.media.HybridStorage", "OPTIONS": options}
    with override_settings(STORAGES={"default": media}):
        storage = storages["default"]
        Repair(storage.replication).once(settle=False)
        yield storage


def verify(*words: str) -> tuple[int, str]:
    out = io.StringIO()
    try:
        call_command("outgrow", "media", "verify", *words, stdout=out, stderr=io.StringIO())
    except SystemExit as end:
        return int(end.code or 0), out.getvalue()
    return 0, out.getvalue()


def facts(*words: str) -> dict:
    return json.loads(verify("--json", *words)[1])


def found(*words: str) -> set[tuple[str, str, str]]:
    return {
        (one["server"], one["what"], one["name"])
        for verdict in facts(*words)["verdicts"]
        for one in verdict["findings"]
    }


def save(site, content: bytes = b"content", name: str = "f.txt") -> str:
    return site.save(name, ContentFile(content))


def test_all_is_well(site):
    for number in range(3):
        save(site, name=f"folder{number}/f.txt")
    code, text = verify()
    assert code == 0
    assert "Every server has what it should." in text
    assert [(one["compared"], one["owed"]) for one in facts()["verdicts"]] == [(3, 0), (3, 0)]


def test_each_kind_of_difference(site, servers):
    missing, different, deleted, fine = (save(site) for _ in range(4))
    del servers["media1"].files[missing]
    servers["media2"].files[different] = b"short"
    site.delete(deleted)
    servers["media1"].files[deleted] = b"back from the dead"
    servers["media2"].files["nobody/knows.txt"] = b"?"
    code, text = verify()
    assert code == 1
    for line in (
        f"media1: {missing} is not there",
        f"media1: {deleted} was deleted, and is there",
        f"media2: {different} has 5 bytes, not 7",
        "media2: nobody/knows.txt (1 bytes) is there, and nobody has heard of it",
        "run this with --repair",
    ):
        assert line in text
    assert fine not in text
    assert found("--server", "media2") == {
        ("media2", "different", different),
        ("media2", "extra", "nobody/knows.txt"),
    }
    assert found("--prefix", "nobody/") == {("media2", "extra", "nobody/knows.txt")}


def test_repair_mends_all_but_what_is_extra(site, servers):
    missing, different, deleted = (save(site) for _ in range(3))
    del servers["media1"].files[missing]
    servers["media2"].files[different] = b"short"
    site.delete(deleted)
    servers["media1"].files[deleted] = b"back"
    code, text = verify("--repair")
    assert code == 0
    assert "What was wrong is mended." in text
    for server in servers.values():
        assert set(server.files) == {missing, different, "outgrow-master-id.txt"}
        assert server.files[different] == b"content"
    assert verify()[0] == 0


def test_what_is_owed_is_no_finding(site, servers):
    servers["media2"].stop()
    save(site)
    servers["media2"].start()
    code, text = verify()
    assert code == 0
    assert "1 differences are owed" in text
    site.journal.owe_all("media1")
    servers["media1"].files.clear()
    site.journal.set_claimed("media1", claimed=True)
    servers["media1"].files["outgrow-master-id.txt"] = site.journal.master_id.encode()
    assert [one["owed"] for one in facts()["verdicts"]] == [1, 1]


def test_what_is_just_being_sent_is_no_finding(site, tmp_path):
    """An asynchronous storage has it in its backlog; another process verifies."""

    class Elsewhere(AsyncStorage):
        def _hand_on(self, pending):
            pass

    urls = {one.name: one.address for one in site.options.servers}
    busy = Elsewhere(location=site.location, base_url="/", servers=urls)
    name = busy.save("f.txt", ContentFile(b"x"))
    assert site.exists(name)
    assert [one["owed"] for one in facts()["verdicts"]] == [1, 1]
    assert verify()[0] == 0


def test_what_changes_meanwhile_is_no_finding(site, servers):
    """A file is saved, and another deleted, after the server was listed."""
    gone = save(site)
    storage_list = type(site.transport).list

    def meanwhile(transport, server, prefix="", **more):
        yield from list(storage_list(transport, server, prefix, **more))
        if not site.exists("folder/late.txt"):
            (site.journal.root / "folder").mkdir(exist_ok=True)
            new = save(site, name="zzz.txt")
            assert new in servers["media1"].files
            site.delete(gone)

    site.transport.list = meanwhile.__get__(site.transport)
    assert Verify(site.replication).run().equal


def test_a_server_without_a_listing_is_asked_for_each_name(site, servers):
    servers["media1"].listing = False
    missing, deleted = save(site), save(site)
    del servers["media1"].files[missing]
    site.delete(deleted)
    servers["media1"].files[deleted] = b"back"
    servers["media1"].files["extra.txt"] = b"?"
    code, text = verify()
    assert code == 1
    assert "media1 has no listing, so each name was asked for" in text
    assert found() == {("media1", "missing", missing), ("media1", "undeleted", deleted)}


HOSTILE = {
    "nonsense": b"<html>hello</html>",
    "out of order": b'["b",1,""]\n["a",1,""]\n{"count":2}\n',
    "outside": b'["../../etc/passwd",1,""]\n{"count":1}\n',
    "cut": b'["a",1,""]\n',
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_listing_that_can_not_be_used(site, servers, kind):
    name = save(site)
    del servers["media1"].files[name]
    servers["media1"]._list = lambda _: HOSTILE[kind]
    outcome = facts()
    assert "its listing is not usable" in outcome["unreadable"]["the listing of media1"]
    assert not outcome["equal"]
    # It is asked for each name instead.
    assert found() == {("media1", "missing", name)}
    site.journal.owe_all("media1")
    assert Repair(site.replication).once(settle=False).complete
    assert name in servers["media1"].files


def test_a_listing_that_lies_about_a_size_is_asked_again(site, servers):
    name = save(site)
    line = json.dumps([name, 1, ""]).encode()
    servers["media1"]._list = lambda _: line + b'\n{"count":1}\n'
    assert facts()["equal"]


def test_a_server_that_is_down_new_or_another_masters(site, servers):
    save(site)
    servers["media1"].files["outgrow-master-id.txt"] = b"f" * 32
    servers["media2"].stop()
    code, text = verify()
    assert code == 1
    assert "media1 was not verified: belongs to the master" in text
    assert "media2 was not verified: no connection" in text
    with MediaServer() as third:
        location = str(site.journal.root)
        options = {"servers": {"media3": third.url}, "location": location}
        kind = {"BACKEND": "outgrow.media.HybridStorage", "OPTIONS": options}
        with override_settings(STORAGES={"default": kind}):
            assert "media3 was not verified: it is new" in verify()[1]
            assert third.files == {}  # a look changes nothing


# --- bytes


@pytest.mark.parametrize("words", [["--digest"], ["--sample", "5"]])
def test_bit_rot_is_found_and_mended(site, servers, words):
    rotten, fine = save(site, b"good"), save(site, b"fine")
    servers["media2"].files[rotten] = b"g00d"
    assert verify()[0] == 0
    assert found(*words) == {("media2", "content", rotten)}
    assert [one["hashed"] for one in facts(*words)["verdicts"]] == [2, 2]
    code, text = verify(*words, "--repair")
    assert code == 0, text
    assert f"media2: {rotten} has other bytes than the master" in text
    assert servers["media2"].files[rotten] == b"good"
    assert servers["media1"].files[fine] == b"fine"


def test_bytes_that_are_owed_are_no_finding(site, servers):
    name = save(site, b"good")
    servers["media2"].files[name] = b"g00d"
    site.journal.owe("media2", name)
    assert found("--digest") == set()
    assert [one["owed"] for one in facts("--digest")["verdicts"]] == [0, 1]


def test_another_length_is_told_once(site, servers):
    name = save(site, b"good")
    servers["media2"].files[name] = b"bad"
    assert found("--digest") == {("media2", "different", name)}


def test_two_servers_speak_against_the_master(site, servers):
    name = save(site, b"good")
    (site.journal.root / name).write_bytes(b"r0tt")
    code, text = verify("--digest", "--repair")
    assert code == 1
    assert f"{name}: no other server has the master's bytes. It is not mended" in text
    assert {server.files[name] for server in servers.values()} == {b"good"}


def test_a_sample_is_of_so_many_files(site, servers):
    names = [save(site, b"%d" % number, f"{number:02}.txt") for number in range(30)]
    seen = set()
    for seed in range(20):
        check = Verify(site.replication, sample=3, choose=random.Random(seed))
        outcome = check.run(seen.add)
        assert [one.hashed for one in outcome.verdicts] == [3, 3]
    assert seen == set(names)


def test_the_rate_is_kept():
    clock = FakeClock(0)
    pace = Pace(1000, clock, clock.advance)
    for _ in range(11):
        pace.spend(500)
    assert clock() == 5.0
    Pace(0, clock, clock.advance).spend(10**9)
    assert clock() == 5.0


# --- what nobody has heard of


@pytest.fixture
def nginx_site(tmp_path):
    with running_nginx() as server:
        options = {"servers": {"media1": server.url}, "location": str(tmp_path / "nginx-master")}
        media = {"BACKEND": "outgrow.media.HybridStorage", "OPTIONS": options}
        with override_settings(STORAGES={"default": media}):
            Repair(storages["default"].replication).once(settle=False)
            yield storages["default"], server


def put(server, name: str, *, old: bool) -> None:
    path = server.root / name
    path.write_bytes(b"x")
    if old:
        os.utime(path, (OLD, OLD))


def test_extra_files_are_removed_when_they_are_old(nginx_site):
    site, server = nginx_site
    put(server, "old.txt", old=True)
    put(server, "new.txt", old=False)
    assert verify()[0] == 1
    assert verify("--repair")[0] == 1
    assert (server.root / "old.txt").exists()
    code, text = verify("--remove-extra")
    assert code == 1  # the new one is left
    assert "deleted 1 files that nobody had heard of" in text
    assert not (server.root / "old.txt").exists()
    assert (server.root / "new.txt").exists()
    assert "old.txt" in [name for name, _ in site.journal.tombstones()]


def test_many_extra_files_are_a_mistake(nginx_site):
    _, server = nginx_site
    for number in range(101):
        put(server, f"{number:03}.txt", old=True)
    with pytest.raises(CommandError, match=r"101 files .* Nothing was changed"):
        verify("--remove-extra")
    assert len(list(server.root.glob("*.txt"))) == 102  # and the master's id
    assert verify("--remove-extra", "--force")[0] == 0
    assert len(list(server.root.glob("*.txt"))) == 1


# --- the command line


@pytest.mark.parametrize(
    "words",
    [
        ["--rate", "fast"],
        ["--rate", "0"],
        ["--sample", "0"],
        ["--sample", "-1"],
        ["--server", "media9"],
    ],
)
def test_wrong_words(site, words):
    with pytest.raises(CommandError):
        verify(*words)


# --- whom the word of the master is not enough for


def spoil_master(site, name: str, content: bytes) -> None:
    (site.journal.root / name).write_bytes(content)


@pytest.mark.parametrize("left", [b"", b"cont"])
def test_a_master_that_lost_the_end_of_a_file_cuts_no_copy(site, servers, left):
    name = save(site)
    spoil_master(site, name, left)
    code, text = verify("--repair")
    assert code == 1
    assert "it is shorter on the master than on a server" in text
    assert {server.files[name] for server in servers.values()} == {b"content"}
    assert verify("--repair", "--force")[0] == 0  # a person has looked at it
    assert {server.files[name] for server in servers.values()} == {left}


@pytest.mark.parametrize("words", [["--sample", "1"], ["--digest", "--server", "media1"]])
def test_a_rotten_master_needs_a_witness(site, servers, words):
    names = [save(site) for _ in range(3)]
    for name in names:
        spoil_master(site, name, b"r0tten!")
    for _ in range(5):
        assert verify(*words, "--repair")[0] == 1
    assert {server.files[name] for server in servers.values() for name in names} == {b"content"}


def test_two_lengths_that_agree_speak_against_the_master(site, servers):
    name = save(site, b"a long content")
    for server in servers.values():
        server.files[name] = b"content"
    assert "two servers have the same length" in verify("--repair")[1]
    assert {server.files[name] for server in servers.values()} == {b"content"}


def test_more_findings_than_are_kept_need_another_run(site, servers, monkeypatch):
    monkeypatch.setattr("outgrow.media.verify.SHOWN", 2)
    names = [save(site) for _ in range(5)]
    for name in names:
        servers["media1"].files[name] = b"garbage"
    codes = [verify("--digest", "--repair")[0] for _ in range(3)]
    assert codes == [1, 1, 0]
    assert {servers["media1"].files[name] for name in names} == {b"content"}


def test_what_is_only_watched_is_no_excuse(site, servers):
    name = save(site)
    site.journal.owe("media1", name, unknown=True)
    Repair(site.replication).once(settle=False)
    del servers["media1"].files[name]
    assert found() == {("media1", "missing", name)}
    assert verify("--repair")[0] == 0
    assert name in servers["media1"].files


def test_unsafe_names_on_the_master_are_told(site, servers):
    (site.journal.root / "bad\\name.txt").write_bytes(b"x")
    code, text = verify()
    assert code == 1
    assert "the name is not safe" in text


def test_a_server_that_answers_503_is_not_said_to_miss_anything(site, servers):
    name = save(site)
    servers["media1"].files[name] = b"short"
    servers["media1"].answer_with(503, method="HEAD")
    outcome = facts()["verdicts"][0]
    assert "503" in outcome["down"]
    assert sum(outcome["counts"].values()) == 0


def test_the_rate_counts_for_all_that_is_read(site, servers):
    save(site, b"x" * 100_000)
    clock = FakeClock(0)
    pace = Pace(10_000, clock, clock.advance)
    assert Verify(site.replication, digest=True, pace=pace).run().equal
    assert clock() >= 30  # 100 KB of the master and of a server, twice


def test_what_cannot_be_read_is_told_up_to_a_limit(site, monkeypatch):
    monkeypatch.setattr("outgrow.media.verify.SHOWN", 3)
    for number in range(10):
        (site.journal.root / f"loop{number}").symlink_to(f"loop{number}")
    assert len(facts()["unreadable"]) == 3


# --- and what is never deleted


def test_a_volume_that_is_not_mounted_deletes_nothing(nginx_site, tmp_path):
    site, server = nginx_site
    names = [save(site, name="photos/f.txt") for _ in range(5)]
    for name in names:
        os.utime(server.root / name, (OLD, OLD))
    (site.journal.root / "photos").rename(tmp_path / "volume")
    with pytest.raises(CommandError, match=r"has nothing at all in photos\. Is that mounted"):
        verify("--remove-extra")
    (site.journal.root / "photos").symlink_to("/mnt/not-mounted")
    with pytest.raises(CommandError, match="nothing was removed"):
        verify("--remove-extra")
    assert all((server.root / name).exists() for name in names)


def test_nothing_is_removed_while_a_part_of_the_master_cannot_be_read(nginx_site):
    site, server = nginx_site
    put(server, "old.txt", old=True)
    (site.journal.root / "loop").symlink_to("loop")
    with pytest.raises(CommandError, match="not all could be read: loop"):
        verify("--remove-extra")
    assert (server.root / "old.txt").exists()


def test_removing_is_for_all_servers(site):
    with pytest.raises(CommandError, match="can't be used with --server"):
        verify("--remove-extra", "--server", "media1")


def test_what_is_saved_meanwhile_is_not_removed(tmp_path):
    with running_nginx() as server:
        options = {"servers": {"media1": server.url}, "location": str(tmp_path), "names": "keep"}
        media = {"BACKEND": "outgrow.media.HybridStorage", "OPTIONS": options}
        with override_settings(STORAGES={"default": media}):
            site = storages["default"]
            Repair(site.replication).once(settle=False)
            put(server, "logo.png", old=True)
            check = Verify(site.replication)
            outcome = check.run()
            chosen = check.extras(outcome, time.time())
            assert chosen == ["logo.png"]
            save(site, b"the new logo", "logo.png")
            assert check.remove_extra(outcome, chosen) == 0
            with site.open("logo.png") as file:
                assert file.read() == b"the new logo"


def test_a_folder_in_the_place_of_an_extra_file(nginx_site):
    site, server = nginx_site
    put(server, "album", old=True)
    (site.journal.root / "album").mkdir()
    assert verify("--remove-extra")[0] == 1
    assert (site.journal.root / "album").is_dir()
