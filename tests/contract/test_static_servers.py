"""A published folder behind nginx, lighttpd, Apache and Caddy, as the documentation sets them up.

Each file arrives with what was published, compressed where the browser takes that, and may be
kept just as long as it stays what it is.
"""

from __future__ import annotations

import gzip
import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import quote

import brotli
import pytest
import zstandard

from outgrow import content_types
from outgrow.publish import inspection
from outgrow.publish.build import Build, Settings
from outgrow.publish.policy import Policy
from outgrow.publish.push import Publisher
from outgrow.publish.release import Release
from outgrow.publish.scan import scan
from outgrow.publish.targets import SIBLINGS, FolderTarget
from tests.live.web_servers import (
    StaticApache,
    StaticCaddy,
    StaticLighttpd,
    StaticNginx,
    WebServer,
    running,
)
from tests.publish.sites import write

#: One file of each type that we know, large enough to be compressed if its type is.
FILES = {
    **{f"all/file.{one}": b'{"some": "text"}\n' * 40 for one in content_types._TYPES},
    "css/base.css": b"body { background: url(../img/a%20b.png) }\n" * 20,
    "img/a b.png": b"\x89PNG" + bytes(500),
    "img/ü.svg": b"<svg xmlns='http://www.w3.org/2000/svg'></svg>" * 20,
    "img/100%.svg": b"<svg xmlns='http://www.w3.org/2000/svg'></svg>" * 20,
    "index.html": b"<!doctype html><link rel=stylesheet href=css/base.css>" + b"<p>text" * 100,
    "robots.txt": b"User-agent: *\n",
    "page": b"no extension" * 40,
    ".well-known/security.txt": b"Contact: mailto:security@example.org\n",
}

DECODERS = {
    "": lambda body: body,
    "gzip": gzip.decompress,
    "br": brotli.decompress,
    "zstd": lambda body: zstandard.ZstdDecompressor().decompressobj().decompress(body),
}


class Static:
    """A server, and what was published for it."""

    def __init__(self, server: WebServer, release: Release) -> None:
        self.server = server
        self.release = release

    def url(self, name: str) -> str:
        return "/" + quote(self.release.entries[name].key)

    def ask(
        self, path: str, method: str = "GET", **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        with closing(connection):
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, headers=sent)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()


@pytest.fixture(
    params=[StaticNginx, StaticLighttpd, StaticApache, StaticCaddy],
    ids=lambda one: one.program,
    scope="module",
)
def static(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Static]:
    source = write(tmp_path_factory.mktemp("source"), FILES)
    settings = Settings(Policy(keep=("all/file.toml",)), prefix="/")
    build = Build(scan([("", source)]), settings)
    with running(request.param) as server:
        target = FolderTarget(server.root, SIBLINGS)
        Publisher(target, build.release, build).publish()
        yield Static(server, build.release)


def test_visitors_get_what_was_published(static: Static) -> None:
    assert inspection.verify(static.release, static.server.url) == []


@pytest.mark.parametrize(
    ("accepted", "wanted"),
    [
        ("gzip", {"gzip"}),
        ("br", {"br"}),
        ("gzip, deflate, br", {"br", "gzip"}),
        ("gzip;q=1.0, identity;q=0.5", {"gzip"}),
        ("br;q=0, gzip", {"gzip"}),
        ("br;q=0,gzip;q=0.000", {""}),
        ("gzip ; q=0.5", {"gzip"}),
        ("deflate", {""}),
        ("bro, gzipped", {""}),
        (None, {""}),
    ],
)
def test_the_form_that_the_browser_takes(
    static: Static, accepted: str | None, wanted: set[str]
) -> None:
    headers = {} if accepted is None else {"Accept-Encoding": accepted}
    for name in ("css/base.css", "index.html", "img/ü.svg", "img/100%.svg"):
        status, answered, body = static.ask(static.url(name), **headers)
        encoding = answered.get("Content-Encoding", "")
        assert status == 200
        if accepted == "br" and static.server.program == "nginx":
            wanted = {""}  # its module for brotli is another package
        assert encoding in wanted
        assert len(DECODERS[encoding](body)) == static.release.entries[name].size
        assert "accept-encoding" in answered.get("Vary", "").lower()


def test_what_is_compressed_already_is_sent_as_it_is(static: Static) -> None:
    status, answered, body = static.ask(static.url("all/file.gz"), Accept_Encoding="gzip, br, zstd")
    assert (status, body) == (200, FILES["all/file.gz"])
    assert "Content-Encoding" not in answered
    assert answered["Content-Type"] == "application/gzip"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_that_something_is_not_there_is_never_kept(static: Static, method: str) -> None:
    for path in ("/no", "/css/base.0123456789ab.css", "/css/base.0123456789ab.js?x", "/no/"):
        status, answered, _body = static.ask(path, method)
        assert status == 404
        assert answered.get_all("Cache-Control") == ["no-store"], path


def test_how_long_a_file_is_kept(static: Static) -> None:
    forever = "public, max-age=31536000, immutable"
    wanted = {"css/base.css": forever, "page": forever, "index.html": "no-cache"}
    for name, kept in wanted.items():
        for accepted in ("identity", "gzip"):
            _, answered, _body = static.ask(static.url(name), Accept_Encoding=accepted)
            assert answered.get_all("Cache-Control") == [kept]
            tag = answered["ETag"]
            status, again, body = static.ask(
                static.url(name), Accept_Encoding=accepted, If_None_Match=tag
            )
            assert (status, body) == (304, b"")
            assert again.get("Cache-Control", kept) == kept


def test_a_part_of_a_file(static: Static) -> None:
    status, answered, body = static.ask(static.url("img/a b.png"), Range="bytes=1-3")
    assert (status, body) == (206, b"PNG")
    assert answered["Content-Range"] == f"bytes 1-3/{len(FILES['img/a b.png'])}"


def test_the_page_of_a_folder(static: Static) -> None:
    for accepted in ("identity", "gzip"):
        status, answered, body = static.ask("/", Accept_Encoding=accepted)
        assert status == 200
        page = DECODERS[answered.get("Content-Encoding", "")](body)
        assert page.startswith(b"<!doctype html>")
        assert answered["Content-Type"] == "text/html; charset=utf-8"
        assert answered["Cache-Control"] == "no-cache"


def test_what_is_nobody_s_business(static: Static) -> None:
    (static.server.root / "css/.hidden.css").write_bytes(b"secret")
    (static.server.root / ".env").write_bytes(b"secret")
    served = next((static.server.root / "outgrow-publish/served").iterdir())
    assert json.loads(served.read_bytes())["release"] == static.release.id
    inside = static.server.root / "static/outgrow-publish"
    inside.mkdir(parents=True)
    (inside / "manifest.json").write_bytes(b"secret")
    paths = [f"/outgrow-publish/served/{served.name}", "/css/.hidden.css", "/.env"]
    for path in [
        *paths,
        "/outgrow-publish/",
        "//.env",
        "/outgrow%2Dpublish/",
        "/static/outgrow-publish/manifest.json",
    ]:
        status, answered, body = static.ask(path)
        assert (status, answered["Cache-Control"]) == (404, "no-store")
        assert b"secret" not in body
    assert static.ask("/.well-known/security.txt")[0] == 200


def test_all_answers_forbid_guessing(static: Static) -> None:
    for path in (static.url("css/base.css"), "/no"):
        assert static.ask(path)[1]["X-Content-Type-Options"] == "nosniff"
