"""Folders that servers share: in the file, in what is rendered, in plans, and on a laptop."""

from __future__ import annotations

import configparser
import json
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgrow.errors import ConfigurationError, TopologyErrors
from outgrow.topology import mounts, rendering
from outgrow.topology.change import MOVE, RECONFIGURE, RELOAD, SET_UP, STOP, Change
from outgrow.topology.changes import changes
from outgrow.topology.contradictions import Said, contradictions
from outgrow.topology.doors import doors
from outgrow.topology.figure import figure
from outgrow.topology.load import load
from outgrow.topology.model import Site, local, parse
from outgrow.topology.render import mounts as rendered
from outgrow.topology.render import toml
from outgrow.topology.render.systemd import Places
from outgrow.topology.settings import django_settings
from outgrow.topology.weak_points import weak_points
from tests.topology.sites import tiny_site
from tests.topology.test_local import Run

MEDIA = {
    "type": "nfs",
    "server": "files1",
    "export": "/srv/export/media",
    "folder": "/srv/media",
}
REPORTS = {**MEDIA, "server": "nas.example.org", "export": "/vol/r", "folder": "/srv/reports"}
SERVERS = {"app1": ["app"], "app2": ["app"], "media1": ["media"], "files1": ["files"]}
ADDRESSES = {"app1": "10.0.0.11", "app2": "fd00::12", "media1": "10.0.0.21", "files1": "10.0.0.61"}


def content(
    some: dict[str, Any], servers: dict[str, list[str]] = SERVERS, **more: Any
) -> dict[str, Any]:
    site = {
        "name": "shop",
        "settings": "shop.settings",
        "wsgi": "shop.wsgi:application",
        "domains": ["example.org"],
        **({} if "media" in some else {"media_root": "media"}),
        **more.pop("site", {}),
    }
    found = {
        name: {"roles": roles, "address": ADDRESSES.get(name, f"10.1.0.{len(name)}")}
        for name, roles in servers.items()
    }
    return {"site": site, "servers": found, "mounts": some, **more}


def site(some: dict[str, Any], servers: dict[str, list[str]] = SERVERS, **more: Any) -> Site:
    return parse(content(some, servers, **more), PurePath("/srv"))


def problems(some: dict[str, Any], *args: Any, **more: Any) -> list[str]:
    with pytest.raises(TopologyErrors) as caught:
        site(some, *args, **more)
    return [str(one) for one in caught.value.errors]


# --- the file


def test_a_mount_is_a_value_and_media_is_media_root() -> None:
    one = site({"media": MEDIA, "reports": {**REPORTS, "roles": ["app", "balancer"]}})
    media, reports = one.mounts
    assert media.folder == one.media_root == PurePosixPath("/srv/media")
    assert (media.server, media.roles, reports.roles) == (
        "files1",
        ("app", "worker"),
        ("app", "balancer"),
    )
    assert mounts.address(one, media) == "10.0.0.61"
    assert mounts.address(one, reports) == "nas.example.org"
    assert one.services("files")[0].url == "nfs://10.0.0.61:2049"


@pytest.mark.parametrize("root", ["/srv/media", "media", "./media/", "../srv//media"])
def test_media_root_may_say_the_same(root: str) -> None:
    assert site({"media": MEDIA}, site={"media_root": root}).media_root == PurePath("/srv/media")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "ntfs"}, 'mounts.media.type: "ntfs" is not a way to share a folder; did you me'),
        ({"type": None}, 'mounts.media.type: is missing. Write type = "nfs".'),
        ({"server": "fils1"}, '"fils1" is no server of this file; did you mean "files1"?'),
        ({"server": "app1"}, '"app1" does not have the role "files". Add "files" to its roles.'),
        ({"server": "a b"}, '"a b" is not an IP address or a host name.'),
        ({"server": None}, "mounts.media.server: is missing."),
        ({"export": "srv/x"}, '"srv/x" must be an absolute path, as in "/srv/media".'),
        ({"export": "/srv/../"}, '"/srv/../" is the whole system; share a folder of it.'),
        ({"folder": "/srv/a\nb"}, "must not contain control characters."),
        ({"folder": "/srv/a "}, '"/srv/a " must not begin or end with a space.'),
        ({"folder": ""}, "mounts.media.folder: must not be empty."),
        ({"folder": 7}, "mounts.media.folder: must be a string, not the number 7."),
        ({"roles": ["worker"]}, 'mounts.media.roles: must have "app": the application servers'),
        ({"roles": ["cache"]}, '"cache" is no role that mounts folders; known: "app", "balanc'),
        ({"roles": []}, "mounts.media.roles: must be a list of one or more strings"),
        ({"options": "soft"}, "mounts.media.options: are not chosen here: those that are"),
        ({"foldr": "/x"}, 'mounts.media.foldr: is not a known key; did you mean "folder"?'),
    ],
)
def test_what_is_wrong_is_said(changes: dict[str, Any], message: str) -> None:
    table = {key: value for key, value in {**MEDIA, **changes}.items() if value is not None}
    assert any(message in one for one in problems({"media": table}))


def test_what_does_not_fit_together() -> None:
    [twice] = problems({"media": MEDIA, "other": {**MEDIA, "folder": "/srv/media/below"}})
    assert twice.startswith("mounts.other.folder: is the folder of mounts.media, or one lies in")
    [name] = problems({"a b": MEDIA})
    assert name.startswith('mounts."a b": "a b" must be 1 to 63 small letters')
    [nobody] = problems({"reports": REPORTS})
    assert nobody.startswith('servers.files1: it has the role "files", and no mount. Write one')
    [other] = problems({"media": MEDIA}, site={"media_root": "/srv/files"})
    assert other.startswith("site.media_root: is not /srv/media, the folder of mounts.media.")
    no_files = {name: roles for name, roles in SERVERS.items() if name != "files1"}
    [none] = problems({"media": MEDIA}, no_files)
    assert 'no server of this file; known: "app1", "app2", "media1".' in none


def test_a_server_that_is_none_of_the_file_has_an_address() -> None:
    no_files = {name: roles for name, roles in SERVERS.items() if name != "files1"}
    for server in ("10.9.9.9", "fd00::9", "nas.example.org"):
        [mount] = site({"media": {**MEDIA, "server": server}}, no_files).mounts
        assert mount.server == server


_paths = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp"), exclude_characters="/"),
    min_size=1,
    max_size=20,
).filter(lambda part: part == part.strip() and part not in {".", ".."})


@st.composite
def some_mounts(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(["media", "a", "b-1.x"]), min_size=1, unique=True))
    servers = st.sampled_from(["files1", "10.9.9.9", "fd00::9", "nas.example.org"])
    found = {
        name: {
            "type": "nfs",
            "server": draw(servers),
            "export": f"/{draw(_paths)}/{draw(_paths)}",
            "folder": f"/mnt/{number}/{draw(_paths)}",
        }
        for number, name in enumerate(names)
    }
    found["last"] = {**MEDIA, "folder": "/mnt/last"}
    return found


@given(some_mounts())
def test_a_file_is_read_as_it_was_written(some: dict[str, Any]) -> None:
    one = site(some)
    [file] = toml.render(one)
    again = parse(tomllib.loads(file.content), PurePath("/elsewhere"))
    assert again.mounts == one.mounts
    assert again.media_root == one.media_root


# --- what is rendered


def files(one: Site) -> dict[str, str]:
    return {file.name: file.content for file in rendering.plan(one, Places())}


BOTH = {"media": MEDIA, "reports": REPORTS}


def test_a_client_has_units_and_the_same_as_an_fstab() -> None:
    found = files(site(BOTH))
    unit = read(found["app1/srv-media.mount"])
    assert unit["Mount"]["What"] == "10.0.0.61:/srv/export/media"
    assert unit["Mount"]["Where"] == "/srv/media"
    options = unit["Mount"]["Options"].split(",")
    assert {"hard", "lookupcache=positive", "nfsvers=4"} <= {*options}
    assert not {"soft", "softerr", "async", "nolock", "nocto"} & {*options}
    assert unit["Mount"]["TimeoutSec"] == "infinity"
    lines = [line for line in found["app2/fstab"].splitlines() if not line.startswith("#")]
    assert [line.split()[:3] for line in lines] == [
        ["10.0.0.61:/srv/export/media", "/srv/media", "nfs"],
        ["nas.example.org:/vol/r", "/srv/reports", "nfs"],
    ]
    assert {"_netdev", "hard", "lookupcache=positive"} <= {*lines[0].split()[3].split(",")}
    assert not [name for name in found if name.startswith("media1/") and "mount" in name]


def test_the_server_exports_to_its_clients_alone() -> None:
    found = files(site(BOTH))["files1/outgrow.exports"]
    [line] = [line for line in found.splitlines() if not line.startswith("#")]
    folder, *who = line.split()
    assert folder == "/srv/export/media"
    assert [one.partition("(")[0] for one in who] == ["10.0.0.11", "fd00::12"]
    for one in who:
        options = one.partition("(")[2].rstrip(")").split(",")
        assert {"sync", "root_squash", "rw", "no_subtree_check"} <= {*options}
        assert not {"async", "no_root_squash", "insecure"} & {*options}
    assert "*" not in line


def test_one_folder_that_is_mounted_twice_is_exported_once() -> None:
    second = {**MEDIA, "folder": "/mnt/again", "roles": ["media"]}
    lines = list(rendered.exports(site({"media": MEDIA, "again": second}), "files1"))
    assert len(lines) == 1
    assert lines[0].count("10.0.0.21(") == lines[0].count("10.0.0.11(") == 1


def test_a_server_mounts_its_own_folder_without_nfs() -> None:
    whole = {**SERVERS, "app1": ["app", "files"]}
    del whole["files1"]
    one = site({"media": {**MEDIA, "server": "app1"}}, whole)
    found = files(one)
    unit = read(found["app1/srv-media.mount"])
    assert (unit["Mount"]["Type"], unit["Mount"]["Options"]) == ("none", "bind")
    assert unit["Mount"]["What"] == "/srv/export/media"
    assert "/srv/export/media /srv/media none bind 0 0\n" in found["app1/fstab"]
    assert "10.0.0.11(" not in found["app1/outgrow.exports"]
    assert "nfs-common" not in found["app1/README.md"]
    # Where it has it under that path already, nothing is mounted.
    same = {**MEDIA, "server": "app1", "export": "/srv/media"}
    again = files(site({"media": same}, whole))
    assert not [name for name in again if name.startswith("app1/") and "mount" in name]
    assert "app1/fstab" not in again
    assert "app2/srv-media.mount" in again
    # The site's user owns what is shared, and root what is mounted there.
    assert "install -d /srv/media\n" not in again["app1/README.md"]


def test_nobody_mounts_what_only_its_server_has() -> None:
    alone = {"app1": ["app", "files"], "media1": ["media"]}
    found = files(site({"media": {**MEDIA, "server": "app1"}}, alone))
    assert "app1/outgrow.exports" not in found


def test_units_run_only_while_their_folders_are_mounted() -> None:
    some = {"media": MEDIA, "x": {**REPORTS, "folder": "/srv/a b%", "roles": ["media", "balancer"]}}
    whole = {**SERVERS, "work1": ["worker"], "lb": ["balancer"], "cache1": ["cache"]}
    found = files(site(some, whole, worker={"command": "python -m celery"}))
    for name in ("app1/outgrow-app", "app1/outgrow-repair", "work1/outgrow-worker"):
        assert read(found[f"{name}.service"])["Unit"]["RequiresMountsFor"] == "/srv/media"
    for name in ("media1/outgrow-media", "lb/outgrow-balancer"):
        wanted = read(found[f"{name}.service"])["Unit"]["RequiresMountsFor"]
        assert wanted == '"/srv/a b%%"'
    assert "RequiresMountsFor" not in found["cache1/outgrow-cache.service"]


def read(text: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(text)
    return parser


HOSTILE = "/srv/a `b`` $HOME;'\"<i>|#,(%\\é"


def hostile() -> Site:
    return site({"media": {**MEDIA, "export": HOSTILE, "folder": f"{HOSTILE}/.x-y"}})


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed; the units are parsed all the same")
    for one in (site(BOTH), hostile()):
        names = [name for name in files(one) if name.startswith("app1/") and "mount" in name]
        for name in names:
            path = tmp_path / name.partition("/")[2]
            path.write_text(files(one)[name])
            words = [program, "verify", "--man=no", str(path)]
            done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
            assert done.stderr == ""
            # It would have said so.
            path.write_text(files(one)[name].replace("Where=/srv", "Where=/srv/other"))
            done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
            assert "Where= setting doesn't match unit name" in done.stderr


@pytest.mark.parametrize(
    "folder", ["/srv/media", "/srv/a b", "/.x", "/a/.x", "/srv/é-_:.\\n", HOSTILE, "/mnt/a//b/"]
)
def test_a_unit_is_called_as_systemd_wants_it(folder: str) -> None:
    program = shutil.which("systemd-escape")
    if program is None:
        pytest.skip("systemd-escape is not installed")
    words = [program, "--path", "--suffix=mount", folder]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert rendered.unit_name(mounts.normal(folder)) == done.stdout.rstrip("\n")


def test_findmnt_reads_the_fstab(tmp_path: Path) -> None:
    program = shutil.which("findmnt")
    if program is None:
        pytest.skip("findmnt is not installed")
    table = tmp_path / "fstab"
    for one in (site(BOTH), hostile()):
        table.write_text(files(one)["app1/fstab"])
        words = [program, "--tab-file", str(table), "--json", "--output", "SOURCE,TARGET,OPTIONS"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
        found = [(fs["source"], fs["target"]) for fs in json.loads(done.stdout)["filesystems"]]
        assert found == [(rendered.source(one, m), str(m.folder)) for m in one.mounts]
        # Folders and the type are none of this machine's: what it tells of them is no matter.
        words = [program, "--verify", "--tab-file", str(table)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert "0 parse errors" in done.stdout + done.stderr


@given(some_mounts())
def test_no_name_breaks_a_line(some: dict[str, Any]) -> None:
    """What fstab(5) and exports(5) read is what the file says."""
    one = site(some)
    for line, mount in zip(lines_of(files(one)["app1/fstab"]), one.mounts, strict=True):
        what, where, kind, options, *rest = line.split(" ")
        assert (decoded(what), decoded(where)) == (rendered.source(one, mount), str(mount.folder))
        assert (kind, options.split(",")[0], rest) == ("nfs", "_netdev", ["0", "0"])
    own = list(dict.fromkeys(str(m.export) for m in one.mounts if m.server == "files1"))
    for line, export in zip(lines_of(files(one)["files1/outgrow.exports"]), own, strict=True):
        first, *who = line.split()
        assert decoded(first) == export
        assert [address.partition("(")[0] for address in who] == ["10.0.0.11", "fd00::12"]
        assert not set(first) & set("\"#()*?'=@")


def lines_of(text: str) -> Iterator[str]:
    return (line for line in text.splitlines() if not line.startswith("#"))


def decoded(field: str) -> str:
    """As getmntent(3) has it: a backslash and three octal digits are a byte."""
    found = field.encode("utf-8", "surrogateescape").split(b"\\")
    rest = (bytes([int(part[:3], 8)]) + part[3:] for part in found[1:])
    return (found[0] + b"".join(rest)).decode("utf-8", "surrogateescape")


def test_what_no_file_can_hold_is_refused() -> None:
    long = site({"media": {**MEDIA, "folder": "/srv/" + "ä" * 60}})
    with pytest.raises(ConfigurationError, match="is too long for a unit of systemd"):
        files(long)
    # The file's own rules do not let it come this far.
    with pytest.raises(ConfigurationError, match="a file of mounts can't hold this"):
        rendered._line("/srv/a\nb")


# --- the page of each server


def shell(page: str) -> list[str]:
    blocks = page.split("```sh\n")[1:]
    return [line for block in blocks for line in block.partition("```")[0].splitlines()]


def test_the_pages_say_what_comes_first() -> None:
    found = files(site(BOTH))
    server, client = found["files1/README.md"], found["app1/README.md"]
    assert "sudo apt-get install nfs-kernel-server" in shell(server)
    assert "sudo install -d -o www-data -g www-data /srv/export/media" in shell(server)
    assert "sudo install -d /etc/outgrow/ /etc/exports.d/" in shell(server)
    assert "sudo install -m 644 outgrow.exports /etc/exports.d/" in shell(server)
    assert "sudo exportfs -ra" in shell(server)
    assert "| 2049/tcp | file server | app1 (10.0.0.11), app2 (fd00::12) |" in server
    assert "* `/srv/export/media`, which other servers have as `/srv/media`." in server
    assert any("nfs-common" in line for line in shell(client))
    assert "sudo install -d /srv/media /srv/reports" in shell(client)
    [enable] = [line for line in shell(client) if "enable --now" in line]
    words = shlex.split(enable)
    assert words.index("srv-media.mount") < words.index("outgrow-app.service")
    assert "`files1` shares its folders first" in client
    assert "/vol/r 10.0.0.11(rw,sync," in client
    assert "findmnt /srv/media" in shell(client)
    assert "sudo -u www-data touch /srv/media/.outgrow-proof-app1" in shell(client)
    assert "`fstab` has the mounts once more" in client
    assert "fstab" not in [word for line in shell(client) for word in shlex.split(line)]


def test_no_name_breaks_out_of_a_page() -> None:
    for name, text in files(hostile()).items():
        if name.endswith("README.md"):
            words = ["bash", "-n"]
            subprocess.run(words, input="\n".join(shell(text)), text=True, check=True, timeout=60)


# --- what else knows them


def test_the_figure_and_the_doors() -> None:
    one = site(BOTH)
    [door] = [door for host in one.hosts if host.name == "files1" for door in doors(one, host)]
    assert (door.port.number, [name for name, _ in door.callers]) == (2049, ["app1", "app2"])
    assert not door.public
    drawn = figure(one)
    assert [group.title for group in drawn.groups if group.key == "files"] == ["file servers"]
    assert ("app", "files") in {(arrow.start, arrow.end) for arrow in drawn.arrows}


def test_the_settings_name_what_application_servers_share() -> None:
    some = {"media": MEDIA, "reports": {**REPORTS, "roles": ["worker"]}}
    made = django_settings(site(some))
    assert made["OUTGROW"] == {"SHARED_FOLDERS": ["/srv/media"], "APP_SERVERS": 2}
    assert made["MEDIA_ROOT"] == "/srv/media"
    assert made["STORAGES"]["default"]["OPTIONS"]["location"] == "/srv/media"


def test_another_media_root_is_a_contradiction() -> None:
    one = site({"media": MEDIA})

    def found(folder: str, of: Site = one) -> list[str]:
        said = Said(("example.org",), storages=django_settings(of)["STORAGES"], media_root=folder)
        return [mistake.number for mistake in contradictions(of, said)]

    assert found("/srv/media/") == []
    assert found("/srv/other") == found("") == found("/srv/media/below") == ["E609"]
    no_files = {name: roles for name, roles in SERVERS.items() if name != "files1"}
    assert found("/srv/other", site({"reports": REPORTS}, no_files)) == []


def test_the_server_is_a_weak_point() -> None:
    text = weak_points(site(BOTH))
    [master] = [one for one in text if "/srv/media" in one]
    assert master.startswith("files1 is the only server of /srv/media, the master copy of the up")
    assert "waits until it is back" in master
    assert "the media servers serve files all the same" in master
    [other] = [one for one in text if "/srv/reports" in one]
    assert other.startswith("nas.example.org is the only server of /srv/reports: when it dies")
    store = {"app1": ["app"], "s3": ["objects"], "files1": ["files"]}
    bucket = {"bucket": "shop-files"}
    [media] = [
        one for one in weak_points(site({"media": MEDIA}, store, objects=bucket)) if "/srv/" in one
    ]
    assert "master copy" not in media


# --- from one site to another


def steps(before: Site, after: Site) -> list[Change]:
    return list(changes(before, after))


def short(found: list[Change]) -> list[str]:
    return [f"{one.server}: {one.verb}" for one in found]


NO_FILES = {name: roles for name, roles in SERVERS.items() if name != "files1"}


def test_a_mount_comes_before_anything_refers_to_it() -> None:
    before = site({}, NO_FILES)
    found = steps(before, site({"media": MEDIA}))
    assert short(found) == [
        "files1: set up",
        "files1: copy to",
        "app1: set up",
        "app2: set up",
        "app1: reload",
        "app2: reload",
    ]
    mounted = [one for one in found if one.verb == SET_UP and one.server == "app1"]
    assert mounted[0].what == "the mount of 10.0.0.61:/srv/export/media at /srv/media"
    # Its unit has the mount, so it is written anew.
    assert any("outgrow render" in word for word in found[-1].commands)


def test_where_the_master_copy_was_elsewhere_it_moves_by_hand() -> None:
    before = site({}, NO_FILES, site={"media_root": "/var/media"})
    [move] = [one for one in steps(before, site({"media": MEDIA})) if one.verb == MOVE]
    assert move.what == "of the master copy: /var/media -> /srv/media, with .outgrow/"


def test_a_mount_goes_when_nothing_refers_to_it() -> None:
    found = steps(site(BOTH), site({"media": MEDIA}))
    assert [(one.server, one.verb) for one in found] == [
        ("app1", RELOAD),
        ("app2", RELOAD),
        ("app1", STOP),
        ("app2", STOP),
    ]
    assert found[-1].commands == ("systemctl disable --now srv-reports.mount",)
    assert [one.verb for one in found if one.server == "app1"][-1] == STOP


def test_a_new_client_is_let_in_and_one_that_goes_is_not() -> None:
    one = site({"media": MEDIA}, {name: r for name, r in SERVERS.items() if name != "app2"})
    [door] = [step for step in steps(one, site({"media": MEDIA})) if step.server == "files1"]
    assert (door.verb, "lets app2 (fd00::12) in" in door.what) == (RECONFIGURE, True)
    found = steps(site({"media": MEDIA}), one)
    assert any(step.server == "files1" and "in no more" in step.what for step in found)
    # The mounts of a server that goes, go with it.
    assert not any("mount" in step.what for step in found)


def test_another_server_of_a_folder_is_a_move_by_hand() -> None:
    other = {**SERVERS, "files2": ["files"]}
    del other["files1"]
    found = steps(site({"media": MEDIA}), site({"media": {**MEDIA, "server": "files2"}}, other))
    [move] = [one for one in found if one.verb == MOVE]
    assert move.what == ("of /srv/media: 10.0.0.61:/srv/export/media -> 10.1.0.6:/srv/export/media")
    assert not any("the mount of" in one.what for one in found)
    # It comes behind the new server; then each client mounts that; the old one stops last.
    order = [(one.server, one.verb) for one in found]
    places = [
        ("files2", SET_UP),
        (move.server, MOVE),
        ("app1", RECONFIGURE),
        ("app2", RECONFIGURE),
        ("files1", STOP),
    ]
    assert sorted(places, key=order.index) == places


def test_who_mounts_nothing_is_told_of_the_first_application_server() -> None:
    alone = {"app1": ["app"], "media1": ["media"]}
    before = {"x": {**REPORTS, "roles": ["worker"]}}
    after = {"x": {**REPORTS, "roles": ["worker"], "export": "/vol/other"}}
    [move] = [one for one in steps(site(before, alone), site(after, alone)) if one.verb == MOVE]
    assert move.server == "app1"


# --- on a laptop


def test_a_laptop_mounts_nothing(tmp_path: Path) -> None:
    one = local(site(BOTH), {}, tmp_path)
    assert [mount.folder for mount in one.mounts] == [
        tmp_path / "_master",
        tmp_path / "_mounts/reports",
    ]
    assert one.media_root == tmp_path / "_master"
    assert [mount.server for mount in one.mounts] == ["files1", "127.0.0.1"]


def test_the_whole_site_runs_with_its_shared_folders(tmp_path: Path) -> None:
    path = tiny_site(tmp_path)
    text = path.read_text()
    lines = [line for line in text.splitlines() if not line.startswith("media_root")]
    lines += ["[servers.files1]", 'roles = ["files"]', 'address = "10.0.0.61"']
    for name, table in (("media", MEDIA), ("reports", REPORTS)):
        lines += [f"[mounts.{name}]", *(f'{key} = "{value}"' for key, value in table.items())]
    path.write_text("\n".join(lines))
    run = Run(load(path), tmp_path / "run")
    with run.local:
        assert (tmp_path / "run/_mounts/reports").is_dir()
        again = load(tmp_path / "run/_topology.toml")
        assert again.media_root == tmp_path / "run/_master"
        assert [
            planned.name for planned in run.local.plan.processes if "files" in planned.name
        ] == []
        assert run.local.address("app1")
