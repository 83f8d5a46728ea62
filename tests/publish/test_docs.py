"""The page on publishing is followed, with its files and its commands."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner
from django.contrib.staticfiles.storage import (
    HashedFilesMixin,
    ManifestFilesMixin,
    StaticFilesStorage,
)

from outgrow.cli import main
from outgrow.publish.configuration import KEYS, parse
from tests.publish.sites import write
from tests.publish.test_command import SITE, held, served

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "howto/publish.md").read_text()
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILES = [text for kind, text in FENCE.findall(TEXT) if kind == "toml"]
COMMANDS = [
    line.removeprefix("$ ")
    for kind, text in FENCE.findall(TEXT)
    if kind == "console"
    for line in text.splitlines()
    if " outgrow publish" in line and "manage.py" not in line
]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the page's first file, whose bucket is a folder here."""
    (tmp_path / "public").mkdir()
    write(tmp_path / "public", SITE)
    (tmp_path / "img").mkdir()
    (tmp_path / "img/logo.png").write_bytes(b"\x89PNG logo")
    (tmp_path / "outgrow.toml").write_text(local(FILES[0]) + 'cache = "cache"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def local(text: str) -> str:
    return text.replace("s3://assets/site", "assets")


def run(line: str, text: str = "") -> str:
    words = shlex.split(local(line))
    result = CliRunner().invoke(main, words[1:], input=text)
    assert result.exit_code == 0, f"{line}: {result.output}"
    return result.stdout


def test_the_commands_work_as_written(project: Path) -> None:
    assert len(COMMANDS) == 8
    dry, publish, plain, piped, releases, back, prune, verify = COMMANDS
    run(dry)
    assert not (project / "assets").exists()
    first = re.search(r"release ([0-9a-f]{12}) is served", run(publish))
    assert first
    assert first[1] in run(releases)
    (project / "public/img/a.png").write_bytes(b"\x89PNG another")
    run(publish)
    run(back.replace("4f1c9a7e0b2d", first[1]))
    run(prune)
    headers = {"Access_Control_Allow_Origin": "*", "Cache_Control": "no-cache"}
    with served(project / "assets", **headers) as url:
        line = verify.replace("https://assets.example.org/site/", url)
        result = CliRunner().invoke(main, shlex.split(line)[1:])
        # This little server sends one Cache-Control for all, and compresses nothing.
        assert result.exit_code == 1
        lines = [one for one in result.stderr.splitlines() if one.startswith("wrong")]
        assert lines
        assert all("Cache-Control" in one or "without compression" in one for one in lines)
    run(plain)
    assert "v2/img/logo.png" in held(project / "assets")
    subprocess.run(["touch", "-d", "2020-01-01", "stamp"], check=True)
    find, _, rest = piped.partition(" | ")
    names = subprocess.run(
        [*shlex.split(find), "-type", "f"], capture_output=True, text=True, check=True
    ).stdout
    run(rest, names)
    assert "img/logo.png" in held(project / "assets")


def test_the_reference_has_every_key() -> None:
    text = (DOCS / "reference/publish.md").read_text()
    table = text.partition("## outgrow.toml")[2].partition("##")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(KEYS)


def test_the_reference_has_every_option() -> None:
    text = (DOCS / "reference/publish.md").read_text()
    section = text.partition("## `outgrow publish`")[2].partition("\n## ")[0]
    options = {
        option
        for parameter in main.commands["publish"].params
        for option in (*parameter.opts, *parameter.secondary_opts)
        if option.startswith("--")
    }
    assert options <= set(re.findall(r"--[a-z-]+", section))


#: What WhiteNoise 6.12.0 and collectfasta 3.3.5 read of Django's settings, and what may be set in
#: a class derived from Django 6.1's ManifestStaticFilesStorage. All of their sources were read.
THEIRS = """
WHITENOISE_ROOT WHITENOISE_AUTOREFRESH WHITENOISE_USE_FINDERS WHITENOISE_MAX_AGE
WHITENOISE_INDEX_FILE WHITENOISE_MIMETYPES WHITENOISE_CHARSET WHITENOISE_ALLOW_ALL_ORIGINS
WHITENOISE_ADD_HEADERS_FUNCTION WHITENOISE_IMMUTABLE_FILE_TEST WHITENOISE_STATIC_PREFIX
WHITENOISE_SKIP_COMPRESS_EXTENSIONS WHITENOISE_KEEP_ONLY_HASHED_FILES WHITENOISE_MANIFEST_STRICT
COLLECTFASTA_STRATEGY COLLECTFASTA_CACHE COLLECTFASTA_CACHE_KEY_PREFIX COLLECTFASTA_THREADS
COLLECTFASTA_ENABLED COLLECTFASTA_DEBUG AWS_IS_GZIPPED GZIP_CONTENT_TYPES
manifest_name manifest_storage manifest_hash manifest_strict keep_intermediate_files
max_post_process_passes support_js_module_import_aggregation patterns
""".split()
MIGRATING = (DOCS / "migrating.md").read_text()


@pytest.mark.parametrize("name", THEIRS)
def test_every_setting_of_theirs_has_a_row(name: str) -> None:
    rows = re.findall(r"^\| (.*?) \| ", MIGRATING.partition("## ManifestStatic")[2], re.MULTILINE)
    assert any(re.search(rf"`{name}\b", row) for row in rows)


def test_the_class_attributes_are_django_s() -> None:
    owners = (StaticFilesStorage, ManifestFilesMixin, HashedFilesMixin)
    public = {
        name
        for owner in owners
        for name, value in vars(owner).items()
        if not name.startswith("_") and not callable(value) and not isinstance(value, property)
    }
    # What __init__ sets; and what is a fact, or a part of `patterns`, and no choice.
    public -= {"manifest_version", "default_template"}
    assert public | {"manifest_storage", "manifest_hash"} <= set(THEIRS)


def test_the_options_that_are_named_to_movers_exist() -> None:
    text = MIGRATING.partition("## ManifestStatic")[2]
    right = re.findall(r"^\| .*? \| (.*) \|$", text, re.MULTILINE)
    known = {*KEYS, "strict", "gzip_static"}
    words = {one for row in right for one in re.findall(r"`([a-z_]+)(?:=[^`]*)?`", row)}
    assert words - known <= {"collectstatic", "runserver", "index"}


WISHES = """
prefix|Content-Type|Expires|CSS gzipped|date in file names|several files|knows the bucket
|whole folder|signed links|CNAME
""".replace("\n", "").split("|")


@pytest.mark.parametrize("wish", WISHES)
def test_each_wish_of_2008_has_today_s_command(wish: str, project: Path) -> None:
    table = TEXT.partition("## The wish list of 2008")[2]
    [now] = re.findall(rf"^\| [^|]*{wish}[^|]* \| (.*) \|$", table, re.MULTILINE)
    for line in re.findall(r"`(outgrow [^`]+)`", now):
        if line.startswith("outgrow sign"):
            result = CliRunner().invoke(
                main,
                shlex.split(line)[1:],
                env={"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"},
            )
            assert result.exit_code == 0, result.output
            assert "X-Amz-Expires=43200" in result.stdout
        else:
            run(line.replace("FILE...", "public/robots.txt img/logo.png"))


@pytest.mark.parametrize("text", FILES)
def test_every_file_of_the_page_is_one(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSETS_SECRET", "secret")
    found = parse(tomllib.loads(text)["publish"], tmp_path)
    assert found.roots
    assert found.targets
