"""A site as Django's settings: compared as values."""

from __future__ import annotations

import tomllib

from outgrow import conf
from outgrow.topology.model import parse
from outgrow.topology.settings import django_settings

TEXT = """
[site]
name = "photos"
settings = "photos.settings"
wsgi = "photos.wsgi:application"
domains = ["photos.example.org"]
media_root = "var/media"
[media]
need = "majority"
[servers.app1]
roles = ["app"]
address = "10.0.0.1"
[servers.media1]
roles = ["media"]
address = "10.0.0.11"
[servers.media2]
roles = ["media"]
address = "10.0.0.12"
"""


def test_the_servers_of_the_file_are_the_storage_s(tmp_path):
    settings = django_settings(parse(tomllib.loads(TEXT), tmp_path))
    assert settings["ALLOWED_HOSTS"] == ["photos.example.org"]
    assert settings["MEDIA_ROOT"] == str(tmp_path / "var/media")
    options = settings["STORAGES"]["default"]["OPTIONS"]
    assert {name: url.rstrip("/") for name, url in options["servers"].items()} == {
        "media1": "http://10.0.0.11:8080",
        "media2": "http://10.0.0.12:8080",
    }
    assert options["need"] == "majority"
    assert "timeout" not in options


def test_the_storage_takes_them(tmp_path):
    settings = django_settings(parse(tomllib.loads(TEXT), tmp_path))
    checked, problems = conf.media_options(settings["STORAGES"]["default"]["OPTIONS"])
    assert problems == []
    assert checked.need == 2
