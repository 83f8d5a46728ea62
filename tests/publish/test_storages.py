"""`static()` URLs by the manifest, `collectstatic`, and `manage.py outgrow publish`."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import logging
import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.staticfiles.storage import staticfiles_storage
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.template import Context, Template
from django.test import override_settings

from outgrow.publish.storages import PublishedStaticFilesStorage
from tests.live.engines import Engine
from tests.publish.sites import FILES, write
from tests.publish.subjects import store_place

BACKEND = "outgrow.publish.storages.PublishedStaticFilesStorage"

Configure = Callable[..., None]


@pytest.fixture
def configure(source: Path, tmp_path: Path) -> Iterator[Configure]:
    """Sets up a site whose static files are those of the source."""
    with override_settings(
        STATIC_ROOT=str(tmp_path / "root"),
        STATIC_URL="/static/",
        STATICFILES_DIRS=[str(source)],
        STATICFILES_FINDERS=["django.contrib.staticfiles.finders.FileSystemFinder"],
        DEBUG=False,
    ):
        inner: list[override_settings] = []

        def configure(**options: Any) -> None:
            given = {"cache": str(tmp_path / "cache"), "keep": ["site.css"], **options}
            settings = override_settings(
                STORAGES={
                    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
                    "staticfiles": {"BACKEND": BACKEND, "OPTIONS": given},
                }
            )
            settings.enable()
            inner.append(settings)

        yield configure
        for settings in reversed(inner):
            settings.disable()


def collect(**options: Any) -> str:
    out = io.StringIO()
    call_command("collectstatic", "--noinput", stdout=out, stderr=out, **options)
    return out.getvalue()


def publish(*words: str) -> str:
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", out)
        call_command("outgrow", "publish", *words)
    return out.getvalue()


def test_urls_are_those_of_the_release(configure: Configure, tmp_path: Path) -> None:
    configure()
    collect()
    url = staticfiles_storage.url("css/base.css")
    assert re.fullmatch(r"/static/css/base\.[0-9a-f]{12}\.css", url)
    assert (tmp_path / "root" / url.removeprefix("/static/")).exists()
    assert staticfiles_storage.url("site.css") == "/static/site.css"
    assert staticfiles_storage.url("css/base.css?v=1#top") == f"{url}?v=1#top"
    assert staticfiles_storage.stored_name("css/base.css") == url.removeprefix("/static/")
    page = (tmp_path / "root/site.css").read_text()
    assert f'"{url.removeprefix("/static/")}"' in page
    # Compressed files lie beside, for the web server.
    packed = tmp_path / "root" / f"{url.removeprefix('/static/')}.gz"
    assert gzip.decompress(packed.read_bytes()) == packed.with_suffix("").read_bytes()


def test_collected_again_nothing_changes(configure: Configure, tmp_path: Path) -> None:
    configure()
    collect()

    def times() -> dict[str, int]:
        return {
            str(path): path.stat().st_mtime_ns
            for path in (tmp_path / "root").rglob("*")
            if path.is_file() and path.name != "manifest.json"
        }

    before, manifest = times(), (tmp_path / "root/outgrow-publish/manifest.json").read_bytes()
    assert collect().count("0 static files copied") == 1
    assert times() == before
    assert (tmp_path / "root/outgrow-publish/manifest.json").read_bytes() == manifest


def test_old_names_stay_when_a_file_changes(
    configure: Configure, source: Path, tmp_path: Path
) -> None:
    configure()
    collect()
    old = staticfiles_storage.url("js/app.js")
    (source / "js/part.js").write_bytes(b"export const answer = 43;\n")
    collect()
    new = staticfiles_storage.url("js/app.js")
    assert new != old
    for url in (old, new):
        assert (tmp_path / "root" / url.removeprefix("/static/")).exists()


def test_a_wrong_reference_fails_at_build_time(configure: Configure, source: Path) -> None:
    configure()
    (source / "css/base.css").write_bytes(b"p {\n  background: url(../img/bcak.png)\n}")
    with pytest.raises(Exception, match=r"css/base\.css:2: .* Did you mean img/back\.png"):
        collect()
    assert not (Path(staticfiles_storage.location) / "outgrow-publish").exists()


def test_dry_run(configure: Configure, source: Path, tmp_path: Path) -> None:
    configure()
    collect(dry_run=True)
    assert list((tmp_path / "root").rglob("*.css")) == []
    # Nor is a wrong reference overlooked.
    (source / "css/base.css").write_bytes(b"p { background: url(no.png) }")
    with pytest.raises(Exception, match=r"css/base\.css:1"):
        collect(dry_run=True)


def test_a_name_that_is_not_there_is_no_error_for_visitors(
    configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    configure()
    collect()
    caplog.clear()
    with caplog.at_level(logging.ERROR, "outgrow.publish"):
        for _ in range(3):
            assert staticfiles_storage.url("css/bsae.css") == "/static/css/bsae.css"
    [record] = caplog.records
    assert "'css/bsae.css' is not in the manifest" in record.getMessage()
    assert "Did you mean 'css/base.css'?" in record.getMessage()


def test_strict(configure: Configure) -> None:
    configure(strict=True)
    with pytest.raises(FileNotFoundError):
        staticfiles_storage.url("css/base.css")
    collect()
    with pytest.raises(ValueError, match="is not in the manifest"):
        staticfiles_storage.url("css/bsae.css")


def test_without_a_manifest(configure: Configure, caplog: pytest.LogCaptureFixture) -> None:
    configure()
    with caplog.at_level(logging.ERROR, "outgrow.publish"):
        assert staticfiles_storage.url("css/base.css") == "/static/css/base.css"
        assert staticfiles_storage.url("js/app.js") == "/static/js/app.js"
    [record] = caplog.records
    assert "Run manage.py collectstatic" in record.getMessage()


def test_a_manifest_that_was_changed(configure: Configure, tmp_path: Path) -> None:
    configure(strict=True)
    collect()
    path = tmp_path / "root/outgrow-publish/manifest.json"
    path.write_text(path.read_text().replace("base.", "bose.", 1))
    storage = PublishedStaticFilesStorage(strict=True, cache=str(tmp_path / "cache"))
    with pytest.raises(Exception, match="was changed: its id is not the hash"):
        storage.url("css/base.css")


def test_with_debug_names_are_plain(configure: Configure) -> None:
    configure()
    with override_settings(DEBUG=True):
        assert staticfiles_storage.url("css/base.css") == "/static/css/base.css"
        assert staticfiles_storage.integrity("js/app.js") == ""


def test_integrity(configure: Configure, tmp_path: Path) -> None:
    configure()
    collect()
    template = Template('{% load outgrow static %}<script {% integrity "js/app.js" %}></script>')
    content = (tmp_path / "root" / staticfiles_storage.stored_name("js/app.js")).read_bytes()
    value = b64encode(hashlib.sha384(content).digest()).decode()
    wanted = f'<script integrity="sha384-{value}" crossorigin="anonymous"></script>'
    assert template.render(Context()) == wanted.replace("+", "+")
    nothing = Template('{% load outgrow %}<img {% integrity "img/back.png" %}>')
    assert nothing.render(Context()) == "<img >"


def test_plain_names_get_a_stamp_in_the_query(configure: Configure) -> None:
    configure(stamps=False)
    collect()
    url = staticfiles_storage.url("css/base.css")
    assert url == f"/static/css/base.css?{hashlib.sha256(FILES['css/base.css']).hexdigest()[:12]}"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encodng": "br"}, r"OPTIONS'\]\.encodng: is not a known key. Did you mean 'encoding'\?"),
        ({"encoding": "zip"}, r"\.encoding: is 'zip'"),
        ({"to": "ftp://x"}, r"\.to\.url: has the scheme 'ftp'"),
        ({"to": "s3://"}, "names no bucket"),
        ({"headers": [{"match": "*", "set": {"Set-Cookie": "a"}}]}, "one cookie"),
        ({"configuration": "x.toml"}, "stands beside 'configuration'"),
    ],
)
def test_wrong_options(configure: Configure, options: dict[str, Any], words: str) -> None:
    configure(**options)
    with pytest.raises(ImproperlyConfigured, match=words):
        collect()
    with pytest.raises(CommandError, match=words):  # our own command tells it in one line
        publish("--dry-run")


def test_a_site_in_a_store(configure: Configure, engine: Engine, tmp_path: Path) -> None:
    """`manage.py outgrow publish`: from the finders to a bucket, and the manifest beside."""
    with store_place(engine) as place:
        described = json.loads(place.described)
        target = {"url": described.pop("location"), **described}
        manifest = tmp_path / "build/static.json"
        configure(to=[target], manifest=str(manifest))
        out = publish()
        assert "is served" in out
        assert "5 files sent" in out or "6 files sent" in out
        assert not (tmp_path / "root").exists()
        release = json.loads(manifest.read_text())["id"]
        key = staticfiles_storage.url("css/base.css").removeprefix("/static/")
        assert key in place.files()
        assert "is there already" in publish()
        facts = json.loads(publish("--json"))
        assert (facts["release"], facts["targets"][0]["sent"]) == (release, 0)
        assert "everything is there" in publish("--check", release[:8])
        place.target().delete([key])
        with pytest.raises(SystemExit) as ended:
            publish("--check", release)
        assert ended.value.code == 1
        assert "1 files sent" in publish()


def test_a_build_alone(configure: Configure, tmp_path: Path, source: Path) -> None:
    manifest = tmp_path / "static.json"
    configure(manifest=str(manifest))
    told = io.StringIO()
    call_command("outgrow", "publish", "--build", stdout=told)
    assert f"{manifest}: release " in told.getvalue()
    assert set(json.loads(manifest.read_text())["files"]) == set(FILES)
    assert not (tmp_path / "root").exists()
    with pytest.raises(CommandError, match=r"publish\.to: is missing"):
        call_command("outgrow", "publish")
    write(source, {"a.css": b"p { background: url(no.png) }"})
    with pytest.raises(CommandError, match=r"a\.css:1"):
        call_command("outgrow", "publish", "--build")


def test_checks(configure: Configure, tmp_path: Path) -> None:
    from outgrow.checks import check_manifest, check_published

    configure(encodng="br")
    [found] = check_published()
    assert found.id == "outgrow.E401"
    assert "encodng" in found.msg
    assert check_manifest() == []
    configure()
    assert check_published() == []
    [found] = check_manifest()
    assert found.id == "outgrow.W403"
    assert str(tmp_path / "root/outgrow-publish/manifest.json") in found.msg
    collect()
    assert check_manifest() == []
    with override_settings(STATIC_ROOT=None):
        configure()
        [found] = check_published()
        assert "Neither STATIC_ROOT nor the option 'manifest'" in found.msg


def test_a_package_that_is_missing(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.util import find_spec

    from outgrow import checks

    hidden = {"deflate", "obstore"}
    monkeypatch.setattr(
        checks, "find_spec", lambda name: None if name in hidden else find_spec(name)
    )
    configure()
    [found] = checks.check_published()
    assert (found.id, found.hint) == (
        "outgrow.E402",
        "Install it with: pip install 'outgrow[publish]'",
    )
    configure(to="s3://bucket", manifest="x.json")
    assert [one.hint for one in checks.check_published()] == [
        "Install it with: pip install 'outgrow[publish]'",
        "Install it with: pip install 'outgrow[objects]'",
    ]
