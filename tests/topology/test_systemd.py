"""The units of systemd, as its own program and a parser see them; and how a user gets them."""

from __future__ import annotations

import configparser
import io
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from outgrow.cli import main
from outgrow.errors import ConfigurationError
from outgrow.topology.load import load
from outgrow.topology.model import Site
from outgrow.topology.render import systemd
from outgrow.topology.render.systemd import APP_UNIT, GRACE, MEDIA_UNIT, REPAIR_UNIT, Places
from tests.live.nginx import binary
from tests.test_docs import check
from tests.topology.sites import tiny_site

ODD = "a b%n$HOME\"c\\d;'e"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return load(tiny_site(tmp_path))


def with_nginx(site: Site) -> Site:
    hosts = (
        replace(host, services=tuple(replace(one, engine="nginx") for one in host.services))
        if host.name.startswith("media")
        else host
        for host in site.hosts
    )
    return replace(site, hosts=tuple(hosts))


def units(site: Site, places: Places) -> dict[str, str]:
    """Every unit, by its server and its name."""
    return {
        f"{host.name}/{file.name}": file.content
        for host in site.hosts
        for file in systemd.render(site, host, places)
    }


def service(text: str) -> configparser.SectionProxy:
    parser = configparser.RawConfigParser()
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(text)
    assert parser["Install"]["WantedBy"] == "multi-user.target"
    return parser["Service"]


def verify(folder: Path, text: str) -> str:
    """What systemd has against a unit."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed; the units are parsed all the same")
    unit = folder / "outgrow-test.service"
    unit.write_text(text)
    words = [program, "verify", "--man=no", str(unit)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 or done.stderr
    return done.stderr


def test_each_server_has_the_units_of_its_roles(site: Site) -> None:
    assert list(units(site, Places())) == [
        *(f"{host}/{unit}" for host in ("app1", "app2") for unit in (APP_UNIT, REPAIR_UNIT)),
        *(f"{host}/{MEDIA_UNIT}" for host in ("media1", "media2")),
    ]


@pytest.mark.parametrize("engine", ["outgrow", "nginx"])
def test_systemd_takes_them(site: Site, tmp_path: Path, engine: str) -> None:
    nginx = binary() if engine == "nginx" else "/usr/sbin/nginx"
    places = Places(python=sys.executable, nginx=nginx)
    for text in units(with_nginx(site) if engine == "nginx" else site, places).values():
        assert verify(tmp_path, text) == ""


def test_systemd_would_have_said_so(site: Site, tmp_path: Path) -> None:
    text = units(site, Places(python=sys.executable))[f"app1/{REPAIR_UNIT}"]
    for good, bad in (("Type=exec", "Tpye=exec"), (sys.executable, "/nowhere/python")):
        assert verify(tmp_path, text.replace(good, bad)) != ""


def test_odd_paths_are_what_they_are(site: Site, tmp_path: Path) -> None:
    """systemd looks for the program: it must find the one in the odd folder."""
    folder = tmp_path / "a b%n$HOME;c"
    folder.mkdir()
    python = folder / "python"
    python.symlink_to(sys.executable)
    places = Places(python=str(python), copies=f"/srv/{ODD}")
    for text in units(replace(site, folder=folder), places).values():
        assert verify(tmp_path, text) == ""
        python.rename(folder / "away")
        assert "is not executable" in verify(tmp_path, text)
        (folder / "away").rename(python)


def test_the_commands_exist(site: Site) -> None:
    for text in units(replace(site, active=True), Places()).values():
        words = shlex.split(service(text)["ExecStart"])
        assert words[:2] == ["/srv/venv/bin/python", "-m"]
        if words[2] == "gunicorn":
            continue  # test_gunicorn_takes_its_words
        django = words[2] == "django"
        check(["python", "manage.py", *words[3:]] if django else words[2:])


def test_the_repair_runs_with_the_sites_settings_in_its_folder(site: Site) -> None:
    one = service(units(site, Places(user="site"))[f"app1/{REPAIR_UNIT}"])
    assert one["User"] == "site"
    assert one["WorkingDirectory"] == str(site.folder)
    assert one["Environment"] == "DJANGO_SETTINGS_MODULE=tiny.settings"
    assert one["Restart"] == "always"
    assert one["ExecStart"].endswith("-m django outgrow media repair --watch")


def test_the_application_is_reloaded_and_has_its_secrets_from_a_file(site: Site) -> None:
    one = service(units(site, Places(user="site"))[f"app1/{APP_UNIT}"])
    assert one["ExecStart"].startswith("/srv/venv/bin/python -m gunicorn --no-control-socket ")
    assert "--bind 10.0.0.11:8000" in one["ExecStart"]
    assert one["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert one["EnvironmentFile"] == "-/etc/outgrow/environment"
    assert (one["User"], one["WorkingDirectory"]) == ("site", str(site.folder))
    # Running requests end before systemd loses patience.
    assert int(one["TimeoutStopSec"]) > GRACE


def test_gunicorn_takes_its_words(site: Site) -> None:
    text = service(units(site, Places(python=sys.executable))[f"app1/{APP_UNIT}"])["ExecStart"]
    words = shlex.split(text)
    done = subprocess.run(
        [*words[:-1], "--check-config", words[-1]],
        cwd=site.folder,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": site.settings, "HOME": str(site.folder)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr


def test_a_media_server_may_write_to_its_folder_alone(site: Site) -> None:
    names = replace(site, media=replace(site.media, names="keep"), active=True)
    own = service(units(names, Places())[f"media1/{MEDIA_UNIT}"])
    assert (own["ProtectSystem"], own["ReadWritePaths"]) == ("strict", "/srv/copies")
    assert own["ExecStart"].endswith(
        "media-server --root /srv/copies --bind 10.0.0.21:8080 --token-file /etc/outgrow/token "
        "--names keep --active"
    )
    nginx = service(units(with_nginx(site), Places())[f"media2/{MEDIA_UNIT}"])
    assert nginx["ReadWritePaths"] == "/srv/copies /srv/copies-tmp"
    assert nginx["ExecStart"] == "/usr/sbin/nginx -e stderr -c /etc/outgrow/nginx.conf"


@pytest.mark.parametrize("path", ["/srv/a\nExecStart=/bin/evil", "/srv/a\r", " /srv/a"])
def test_a_line_stays_a_line(site: Site, path: str) -> None:
    for places in (Places(python=path), Places(user=path), Places(copies=path)):
        with pytest.raises(ConfigurationError, match="can't hold this"):
            units(site, places)


@pytest.mark.parametrize("path", ['/srv/a"b', "/srv/it's", "/srv/a\\b"])
def test_a_program_that_systemd_does_not_start(site: Site, path: str) -> None:
    with pytest.raises(ConfigurationError, match="systemd starts no such program"):
        units(site, Places(python=path))


# --- the command


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["render", *map(str, words)])
    return done.exit_code, done.output


def files(folder: Path) -> set[str]:
    found = (os.path.join(top, name) for top, _, names in os.walk(folder) for name in names)
    return {os.path.relpath(one, folder) for one in found}


def test_the_command_writes_what_is_new_or_has_changed(tmp_path: Path) -> None:
    topology, to = tiny_site(tmp_path, engine="nginx"), tmp_path / "out"
    code, text = run(topology, "--to", to, "--visitors", 8081)
    assert code == 0
    assert text.count(": new\n") == 14
    assert files(to) == {
        *(f"{host}/{name}" for host in ("app1", "app2") for name in (APP_UNIT, REPAIR_UNIT)),
        *(f"{host}/{name}" for host in ("media1", "media2") for name in (MEDIA_UNIT, "nginx.conf")),
        *(f"{host}/README.md" for host in ("app1", "app2", "media1", "media2")),
        "prometheus/outgrow-alerts.yml",
        "prometheus/outgrow-scrape.yml",
    }
    assert "listen 10.0.0.21:8081;" in (to / "media1/nginx.conf").read_text()
    before = {name: (to / name).stat().st_ino for name in files(to)}
    assert run(topology, "--to", to, "--visitors", 8081)[1].count(": as it is\n") == 14
    assert {name: (to / name).stat().st_ino for name in files(to)} == before
    code, text = run(topology, "--to", to, "--visitors", 8081, "--user", "site")
    assert (text.count(": changed\n"), text.count(": as it is\n")) == (10, 4)


def test_a_dry_run_prints_and_writes_nothing(tmp_path: Path) -> None:
    topology, to = tiny_site(tmp_path), tmp_path / "out"
    code, text = run(topology, "--to", to, "--host", "app1", "--dry-run")
    assert code == 0
    assert text.startswith(f"# {to}/app1/{APP_UNIT}: new\n# Written by outgrow.")
    assert "media-server" not in text
    assert not to.exists()


def test_a_difference_is_printed_and_nothing_written(tmp_path: Path) -> None:
    topology, to = tiny_site(tmp_path), tmp_path / "out"
    code, text = run(topology, "--to", to, "--host", "app1", "--diff")
    assert (code, to.exists()) == (1, False)
    assert text.startswith(f"--- /dev/null\n+++ {to}/app1/{APP_UNIT} (as it should be)\n")
    assert run(topology, "--to", to, "--host", "app1")[0] == 0
    assert run(topology, "--to", to, "--host", "app1", "--diff") == (0, "")
    unit = to / "app1" / REPAIR_UNIT
    edited = unit.read_text().replace("RestartSec=2", "RestartSec=9")
    unit.write_text(edited)
    code, text = run(topology, "--to", to, "--host", "app1", "--diff")
    assert code == 1
    assert "\n-RestartSec=9\n+RestartSec=2\n" in text
    assert unit.read_text() == edited


def test_a_server_that_is_none_is_named(tmp_path: Path) -> None:
    code, text = run(tiny_site(tmp_path), "--to", tmp_path, "--host", "ap1")
    assert code == 1
    assert '"ap1" is no server of this site; did you mean "app1"?' in text


def test_what_it_writes_is_what_the_units_are(tmp_path: Path) -> None:
    from outgrow.topology import rendering

    topology = tiny_site(tmp_path)
    out = io.StringIO()
    rendering.render(rendering.wanted(topology, Places()), tmp_path / "out", out)
    for name, text in units(load(topology), Places()).items():
        assert (tmp_path / "out" / name).read_text() == text
