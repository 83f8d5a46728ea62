"""Every snippet of the documentation is run, or parsed by what would run it."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
import textwrap
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import pytest
from django.conf import settings
from django.core.files.base import ContentFile
from django.core.management import BaseCommand, load_command_class
from django.dispatch import Signal
from django.utils.module_loading import import_string
from rq.cli import main as rq_main

import outgrow.databases
from outgrow import conf, signals
from outgrow.cli import main
from outgrow.databases.mistakes import settings_mistakes
from outgrow.errors import ConfigurationError
from outgrow.fastcgi import options as fastcgi
from outgrow.media import AsyncStorage, DistributedStorage, HybridStorage, signing
from outgrow.moving import MovingStorage
from outgrow.objects import ObjectStorage
from outgrow.publish import configuration
from outgrow.publish.storages import PublishedStaticFilesStorage
from outgrow.testing import MediaServer, free_port
from outgrow.topology.model import parse
from tests.live.nginx import Nginx, mime_types
from tests.live.processes import server_folder

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TUTORIAL = ROOT / "docs/tutorial/first-five-minutes.md"
#: tests/publish/test_tutorial.py does all that it says.
PUBLISHING = ROOT / "docs/tutorial/publish.md"
#: tests/topology/test_tutorial.py does all that it says.
GROWING = ROOT / "docs/tutorial/from-one-to-many.md"
OTHERS = [page for page in PAGES if page not in {PUBLISHING, GROWING}]
FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)

#: Whose blocks for nginx are media servers; that of the other is run by
#: tests/objects/test_storages.py.
MEDIA_SERVERS = [page for page in OTHERS if page.name != "object-stores.md"]

#: Blocks that are pictures, or directives of the documentation's own builder.
NOT_CODE = {"{literalinclude}", "text", "{toctree}", "{eval-rst}"}


def blocks(language: str, pages: list[Path] = PAGES) -> list[object]:
    found = []
    for page in pages:
        for number, match in enumerate(FENCE.finditer(page.read_text()), 1):
            if match[1] == language:
                name = f"{page.relative_to(ROOT)}:{number}"
                found.append(pytest.param(match[2], id=name))
    return found


def test_every_block_is_of_a_kind_that_is_tested():
    # Those in "sh" are run by tests/media/test_backup.py, those in "sql", and the "ini" of
    # database servers, by tests/databases/test_docs_servers.py; promtool checks the one in "yaml"
    # (tests/topology/test_alerts.py).
    tested = {"python", "console", "toml", "nginx", "ini", "sh", "sql", "yaml"}
    for page in OTHERS:
        for match in FENCE.finditer(page.read_text()):
            assert match[1] in tested | NOT_CODE, f"{page}: {match[0][:80]}"


@pytest.mark.parametrize("text", blocks("python", [p for p in OTHERS if p != TUTORIAL]))
def test_python_runs_and_its_settings_are_valid(text, tmp_path, monkeypatch):
    (tmp_path / "topology.toml").write_text(_first_toml())
    names: dict[str, object] = {"BASE_DIR": tmp_path}
    exec(compile(text, "documentation", "exec"), names)
    for entry in names.get("STORAGES", {}).values():  # type: ignore[attr-defined]
        if "outgrow" in entry["BACKEND"]:
            assert _problems(import_string(entry["BACKEND"]), entry["OPTIONS"]) == []
    for entry in names.get("TASKS", {}).values():  # type: ignore[attr-defined]
        assert import_string(entry["BACKEND"])
    if "OUTGROW" in names:
        _check_replication(names, monkeypatch)


def _problems(storage: type, options: dict[str, object]) -> list[ConfigurationError]:
    if issubclass(storage, ObjectStorage):
        return conf.object_options(options)[1]
    if issubclass(storage, PublishedStaticFilesStorage):
        return _publish_problems(options, Path("/"))
    if issubclass(storage, MovingStorage):
        return conf.moving_options(options, "OPTIONS", ["media", "objects"])[1]
    return conf.media_options(options, "OPTIONS", storage.option_names)[1]


def _check_replication(names: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole settings pass every check that opens nothing; of others, their options do."""
    aliases = {alias: {"ENGINE": "x"} for alias in ("default", "replica1", "replica2")}
    assert conf.cluster_options(names["OUTGROW"], names.get("DATABASES", aliases))[1] == []
    if "DATABASES" in names:
        for setting in ("OUTGROW", "DATABASES", "DATABASE_ROUTERS", "MIDDLEWARE"):
            monkeypatch.setattr(settings, setting, names[setting], raising=False)
        assert [one.text for one in settings_mistakes()] == []


def _publish_problems(table: dict[str, object], folder: Path) -> list[ConfigurationError]:
    try:
        configuration.parse(table, folder)
    except ConfigurationError as error:
        return [error]
    return []


@pytest.mark.parametrize("text", blocks("toml"))
def test_files_of_the_configuration_are_valid(text, tmp_path, monkeypatch):
    content = tomllib.loads(text)
    if "publish" in content:
        monkeypatch.setenv("ASSETS_SECRET", "secret")
        assert _publish_problems(content["publish"], tmp_path) == []
        return
    assert parse(tomllib.loads(text), tmp_path, source="documentation").media_servers()


def _first_toml() -> str:
    return blocks("toml")[0].values[0]  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", blocks("console", OTHERS))
def test_commands_exist_and_take_these_options(text):
    for line in text.splitlines():
        assert line.startswith("$ "), line
        check(shlex.split(re.sub(r"^.* \| (?=outgrow )", "", line[2:])))


def check(words: list[str]) -> None:
    """Let the command's own parser look at the words."""
    if words[0] == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words[1:]) <= set(targets)
    elif words[:3] == ["python", "manage.py", "outgrow"]:
        _check_management(words[3:])
    elif words[:3] == ["python", "manage.py", "runfcgi"]:
        fastcgi.parse(word for word in words[3:] if word not in {"NAME=VALUE", "..."})
    elif words[0] == "kill":
        assert words[1:] == ["$(cat", "/run/site/site.pid)"]
    elif words[:3] == ["python", "manage.py", "migrate"]:
        _check_words(load_command_class("django.core", "migrate"), words[3:])
    elif words[:3] == ["python", "manage.py", "check"]:
        pass  # it knows the aliases of its site alone: tests/databases/test_docs_servers.py runs it
    elif words[0] == "outgrow":
        command = main.commands[words[1]]
        known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
        used = {word.strip("[]") for word in words[2:] if word.strip("[]").startswith("-")} - {"-"}
        assert used <= known, used - known
    elif words[:2] == ["rq", "worker"]:
        assert isinstance(import_string(words[words.index("--job-class") + 1]), type)
        assert rq_main.commands["worker"].make_context("worker", words[2:])
    elif words[0] != "mkdir":
        assert words[:2] == ["pip", "install"], words
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        wanted = re.search(r"\[([\w,-]+)\]", words[2])
        assert wanted
        assert set(wanted[1].split(",")) <= set(extras["optional-dependencies"])


def _check_management(words: list[str]) -> None:
    _check_words(load_command_class("outgrow", "outgrow"), words)


def _check_words(command: BaseCommand, words: list[str]) -> None:
    parser = command.create_parser("manage.py", "outgrow")
    plain = [word.strip("[]") for word in words]
    # A synopsis names its values: `--max-age S`, `--max-body SIZE`.
    plain = ["1" if word in {"N", "S", "SIZE"} else word for word in plain]
    try:
        parser.parse_args(plain)
    except (argparse.ArgumentError, SystemExit) as error:
        pytest.fail(f"{words}: {error}")


@pytest.mark.parametrize("text", blocks("nginx", MEDIA_SERVERS))
def test_nginx_takes_the_configuration_and_the_files(text):
    with running_docs_nginx(text) as (server, visitors, peer):
        _use(server, server.folder)
        if "@peers" in text:
            _visit(server, visitors, peer)


@contextmanager
def running_docs_nginx(text: str) -> Iterator[tuple[Nginx, str, MediaServer]]:
    """Blocks of the documentation, the address for visitors, and the one other server."""
    with server_folder("outgrow-docs-") as folder, MediaServer() as peer:
        server, visitors = Nginx(folder), free_port()
        own = text.replace("listen 8081", f"listen 127.0.0.1:{visitors}")
        nginx_of(server, own.replace("10.0.0.12:8080", f"127.0.0.1:{peer.port}"))
        server.start()
        try:
            yield server, f"http://127.0.0.1:{visitors}", peer
        finally:
            server.stop()


def nginx_of(server: Nginx, text: str) -> None:
    """Let a server run these blocks of the documentation, with all the types that it knows."""
    own = text.replace("/srv/copies-tmp", f"{server.folder}/body")
    own = own.replace("/srv/copies", f"{server.folder}/root")
    own = own.replace("listen 8080", f"listen 127.0.0.1:{server.port}")
    http, _, _ = server._configuration.partition("    server {")
    http = re.sub(r"types \{.*?\}", f"include {mime_types()};", http, flags=re.DOTALL)
    server._configuration = f"{http}{textwrap.indent(own, '    ')}}}\n"


HARMLESS = {
    "Content-Disposition": ["attachment"],
    "Content-Security-Policy": ["default-src 'none'; sandbox"],
    "X-Content-Type-Options": ["nosniff"],
}
ACTIVE = {"html": "text/html", "SVG": "image/svg+xml", "xhtml": "", "xml": "text/xml", "mjs": ""}


@pytest.mark.parametrize("text", blocks("nginx", MEDIA_SERVERS))
@pytest.mark.parametrize("extension", [*ACTIVE, "txt"])
def test_what_a_browser_would_run_is_a_download_for_visitors(text, extension):
    """Also what only a peer has: whatever that says of it."""
    with running_docs_nginx(text) as (server, visitors, peer):
        name = f"evil.{extension}"
        (server.root / name).write_text("<script>alert(1)</script>")
        found = {f"{server.url}/{name}": name}
        if "listen 8081" in text:
            found[f"{visitors}/{signed(text, name)}"] = name
        if "@peers" in text:
            peer.files[f"there.{extension}"] = b"<script>alert(1)</script>"
            found[f"{visitors}/there.{extension}"] = name
        for url in found:
            with urllib.request.urlopen(url, timeout=5) as answer:
                told = {key: answer.headers.get_all(key) for key in HARMLESS}
                kind = answer.headers["Content-Type"]
            assert "there" in url or kind.startswith(ACTIVE.get(extension, "text/plain")), url
            expected = dict.fromkeys(HARMLESS) if extension == "txt" else HARMLESS
            assert told == {**expected, "X-Content-Type-Options": ["nosniff"]}, url


def signed(text: str, name: str) -> str:
    """Where a visitor finds a file: signed, if the page signs."""
    if "secure_link" not in text:
        return name
    query = signing.sign(f"/media/{name}", int(time.time()) + 60, "for-this-page-only")
    return f"media/{name}?{query}"


def _visit(server: Nginx, visitors: str, peer: MediaServer) -> None:
    """A visitor gets a file that only a peer has; Outgrow is told that it is missing."""
    peer.files["only/there.txt"] = b"from the peer"
    with urllib.request.urlopen(f"{visitors}/only/there.txt", timeout=5) as answer:
        assert answer.read() == b"from the peer"
    for url in (f"{server.url}/only/there.txt", f"{visitors}/nowhere.txt"):
        with pytest.raises(urllib.error.HTTPError) as missing:
            urllib.request.urlopen(url, timeout=5)
        with missing.value as answer:
            assert answer.code == 404


def _use(server: Nginx, folder: Path) -> None:
    """A storage can work with it; nobody can reach a dotfile."""
    storage = HybridStorage(location=folder / "master", servers=[server.url])
    name = storage.save("a/b.txt", ContentFile(b"hello"))
    assert (server.root / name).read_bytes() == b"hello"
    storage.delete(name)
    assert not (server.root / name).exists()
    (server.root / ".secret").write_text("never")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{server.url}/.secret", timeout=5)
    with refused.value as answer:
        assert answer.code == 403


def test_every_check_is_in_the_reference():
    ids = re.compile(r"outgrow\.[EWI]\d{3}")
    page = (ROOT / "docs/reference/checks.md").read_text()
    documented = re.findall(r"^\| `(outgrow\.\w+)`", page, re.MULTILINE)
    module = (ROOT / "src/outgrow/checks.py").read_text()
    head, _, code = module.partition("from __future__")
    places = (
        "databases/mistakes.py",
        "pooled.py",
        "shared_nothing.py",
        "topology/contradictions.py",
    )
    mistakes = "".join((ROOT / "src/outgrow" / one).read_text() for one in places)
    numbers = re.findall(r"\"([EWI]\d{3})\"", mistakes)
    given = {*ids.findall(code), *(f"outgrow.{number}" for number in numbers)}
    assert documented == ids.findall(head)
    assert set(documented) == given


UNITS = [block for block in blocks("ini") if "[Service]" in block.values[0]]  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", UNITS)
def test_units_start_commands_that_exist(text):
    line = next(line for line in text.splitlines() if line.startswith("ExecStart="))
    words = line.removeprefix("ExecStart=").split()
    words[0] = Path(words[0]).name
    check(words)


def test_the_tutorial_works_as_written(tmp_path):
    """Its servers are started, its Python is run in order, its commands are run."""
    # A process of its own: the tutorial has settings of its own.
    script = ROOT / "tests/tutorial.py"
    done = subprocess.run(
        [sys.executable, str(script), str(TUTORIAL)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "still owed 0" in done.stdout


# --- the reference


def test_every_option_of_replication_is_in_the_reference_with_its_default():
    page = (ROOT / "docs/reference/replication.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| (.*?) \|", page, re.MULTILINE))
    options = conf.ClusterOptions("default")
    known = {one.name: getattr(options, one.name) for one in fields(options)}
    del known["primary"]
    assert set(rows) == {*known, "weights", "cache", "key"}
    for name, value in known.items():
        if isinstance(value, (int, float)):
            assert rows[name] == f"{value:g}"
        elif isinstance(value, str) and value:
            assert rows[name] == f'`"{value}"`'


def test_every_option_of_object_storages_is_in_the_reference_with_its_default():
    page = (ROOT / "docs/reference/objects.md").read_text()
    table, _, methods = page.partition("\n## What it does beyond Django's API\n")
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \| (.*?) \|", table, re.MULTILINE)
    told = {name.strip("`"): text for names, text in rows for name in names.split(", ")}
    options = conf.ObjectOptions()
    assert set(told) == {one.name for one in fields(options)}
    for name, text in told.items():
        value = getattr(options, name)
        if isinstance(value, (int, float)):
            assert text == (str(value) if isinstance(value, bool) else f"{value:.0f}"), name
        elif isinstance(value, str) and value:
            assert text == f'`"{value}"`', name
    for name in re.findall(r"`(\w+)(?:\(.*?\))?`[,|]", methods):
        assert hasattr(ObjectStorage, name), name


@pytest.mark.parametrize("name", outgrow.databases.__all__)
def test_every_public_name_of_databases_is_in_the_reference(name):
    page = (ROOT / "docs/reference/api.md").read_text()
    found = getattr(outgrow.databases, name)
    assert f":: {found.__module__}.{name}\n" in page


def test_every_option_of_every_storage_is_in_the_reference():
    text = (ROOT / "docs/reference/options.md").read_text()
    hybrid, rest = text.split("\n## AsyncStorage\n")
    later, rest = rest.split("\n## DistributedStorage\n")
    distributed = rest.partition("\n## ")[0]
    for storage, page in (
        (HybridStorage, hybrid),
        (AsyncStorage, hybrid + later),
        (DistributedStorage, distributed),
    ):
        words = set(re.findall(r"`([a-z_]+)`", page))
        assert set(storage.option_names) - words == set(), storage


@pytest.mark.parametrize("storage", [HybridStorage, AsyncStorage, DistributedStorage])
def test_every_storage_and_signal_is_in_the_reference(storage):
    page = (ROOT / "docs/reference/api.md").read_text()
    assert f"autoclass:: {storage.__module__}.{storage.__qualname__}\n" in page
    for name, value in vars(signals).items():
        if isinstance(value, Signal):
            assert name in page


def test_every_test_in_the_table_of_scenarios_is_there():
    page = (ROOT / "docs/explanation/scenarios.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", page))
    there = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        there |= set(re.findall(r"def (test_\w+)\(", path.read_text()))
    assert len(named) > 40
    assert named - there == set()
