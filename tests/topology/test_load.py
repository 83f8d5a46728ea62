"""topology.toml is read, and written, as what it says."""

from __future__ import annotations

import tomllib
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given

from outgrow.errors import TopologyError, TopologyErrors
from outgrow.topology import current, django_settings
from outgrow.topology import model as model_module
from outgrow.topology.load import VARIABLE, load
from outgrow.topology.model import Site, parse
from outgrow.topology.render import toml
from tests.topology.sites import sites, tiny_site


def test_a_file_is_read_and_its_paths_are_relative_to_it(tmp_path: Path) -> None:
    path = tiny_site(tmp_path)
    site = load(path)
    assert site.media_root == path.parent / "media"
    assert site.folder == path.parent


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        TopologyError, match=r"nothing\.toml: can't be read: No such file"
    ) as caught:
        load(tmp_path / "nothing.toml")
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_a_syntax_error_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "topology.toml"
    path.write_text("[site]\nname = photos\n")
    with pytest.raises(
        TopologyError, match=r"topology\.toml: is not TOML: .*\(at line 2, column 8"
    ):
        load(path)


def test_bytes_that_are_no_text_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "topology.toml"
    path.write_bytes(b"[site]\nname = '\xff'\n")
    with pytest.raises(TopologyError, match="is not TOML"):
        load(path)


def test_an_error_in_the_content_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "topology.toml"
    path.write_text("[site]\n")
    with pytest.raises(TopologyErrors) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: 7 problems:\n  site.name: is missing.\n")


def test_the_environment_says_which_file_is_current(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = tiny_site(tmp_path)
    other = tmp_path / "other.toml"
    other.write_text(default.read_text().replace('"tiny"', '"other"'))
    monkeypatch.delenv(VARIABLE, raising=False)
    assert current(default).name == "tiny"
    monkeypatch.setenv(VARIABLE, str(other))
    assert current(default).name == "other"
    # An empty variable is as none.
    monkeypatch.setenv(VARIABLE, "")
    assert current(default).name == "tiny"


@given(sites())
def test_a_site_that_is_written_is_read_as_the_same_site(site: Site) -> None:
    [file] = toml.render(site)
    assert parse(tomllib.loads(file.content), PurePosixPath("/elsewhere")) == site


def test_the_example_in_the_module_is_a_site() -> None:
    # The example is the documentation and the schema: it must be accepted.
    assert model_module.__doc__ is not None
    _, _, example = model_module.__doc__.partition("The file in full::\n")
    site = parse(tomllib.loads(example), PurePosixPath("/srv"))
    assert [service.name for service in site.services()] == [
        "front",
        "app1",
        "media1",
        "db1",
        "db2",
        "cache1",
        "pool1",
        "work1",
        "ns1",
        "store",
        "files1",
    ]


def test_django_gets_its_settings(tmp_path: Path) -> None:
    path = tiny_site(tmp_path)
    settings = django_settings(load(path))
    root = str(path.parent / "media")
    assert settings == {
        "ALLOWED_HOSTS": ["tiny.example.org"],
        "MEDIA_ROOT": root,
        "MEDIA_URL": "/media/",
        "STORAGES": {
            "default": {
                "BACKEND": "outgrow.media.HybridStorage",
                "OPTIONS": {
                    "servers": {
                        "media1": "http://10.0.0.21:8080",
                        "media2": "http://10.0.0.22:8080",
                    },
                    "location": root,
                    "base_url": "/media/",
                    "need": 1,
                    "timeout": 1.0,
                },
            },
            "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
        },
        "OUTGROW": {"APP_SERVERS": 2},
    }
    # Each of them is Django's own to change: nothing is shared between two calls.
    assert django_settings(load(path))["STORAGES"] is not settings["STORAGES"]


def test_the_storage_takes_the_options(tmp_path: Path) -> None:
    from outgrow.media import HybridStorage

    text = tiny_site(tmp_path)
    options = 'deadline = 9.0\ndowntime = 5.0\nfsync = true\nnames = "keep"\n'
    text.write_text(text.read_text().replace("[media]\n", "[media]\n" + options))
    given_options = django_settings(load(text))["STORAGES"]["default"]["OPTIONS"]
    storage = HybridStorage(**given_options)
    assert storage.options.names == "keep"
