"""Signed URLs: the values, our own server, and nginx with the documentation's configuration."""

from __future__ import annotations

import base64
import hashlib
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.files.base import ContentFile
from hypothesis import given
from hypothesis import strategies as st

from outgrow.media.repair import Repair
from outgrow.media.signing import Verdict, check, sign
from outgrow.testing import MediaServer

SECRET = "for-this-page-only"
NOW = 1_000_000.0


def test_it_is_what_the_documentation_of_nginx_has():
    """echo -n '2147483647/s/link127.0.0.1 secret' | openssl md5 -binary | openssl base64 ..."""
    expires = 2147483647
    raw = hashlib.md5(f"{expires}/s/link {SECRET}".encode()).digest()
    expected = base64.b64encode(raw).decode().replace("+", "-").replace("/", "_").rstrip("=")
    assert sign("/s/link", expires, SECRET) == f"md5={expected}&expires={expires}"


@pytest.mark.parametrize(
    ("path", "query", "secret", "now", "verdict"),
    [
        ("/a", sign("/a", 100, "s"), "s", 99.9, Verdict.GOOD),
        ("/a", sign("/a", 100, "s"), "s", 100.0, Verdict.EXPIRED),
        ("/b", sign("/a", 100, "s"), "s", 1.0, Verdict.WRONG),
        ("/a", sign("/a", 100, "s"), "t", 1.0, Verdict.WRONG),
        ("/a", sign("/a", 100, "s").replace("100", "999"), "s", 1.0, Verdict.WRONG),
        ("/a", "", "s", 1.0, Verdict.WRONG),
        ("/a", "md5=x", "s", 1.0, Verdict.WRONG),
        ("/a", "expires=100", "s", 1.0, Verdict.WRONG),
        ("/a", "md5=x&expires=-1", "s", 1.0, Verdict.WRONG),
        ("/a", "md5=x&expires=" + "9" * 30, "s", 1.0, Verdict.WRONG),
        ("/a", "md5=\u00fc&expires=100", "s", 1.0, Verdict.WRONG),
        ("/a", sign("/a", 100, "s") + "&expires=999", "s", 1.0, Verdict.GOOD),
        ("/a", "expires=999&" + sign("/a", 100, "s"), "s", 1.0, Verdict.WRONG),
    ],
)
def test_what_a_signature_is_worth(path, query, secret, now, verdict):
    assert check(path, query, secret, now) is verdict


@given(st.text(), st.text(min_size=1), st.integers(0, 10**12))
def test_whatever_is_signed_is_good_and_nothing_else(path, secret, expires):
    query = sign(path, expires, secret)
    assert check(path, query, secret, expires - 1) is Verdict.GOOD
    assert check(path + "x", query, secret, expires - 1) is Verdict.WRONG


# --- a storage


in_database = pytest.mark.django_db(transaction=True, databases=["default", "outgrow"])


@pytest.fixture(params=["HybridStorage", pytest.param("DistributedStorage", marks=in_database)])
def make(request, tmp_path):
    from outgrow import media

    def make(server, **options):
        signed = {"querystring_auth": True, "secret": SECRET, "base_url": "/media/"}
        given = {"servers": [server.url]} | signed
        if request.param == "HybridStorage":
            given["location"] = tmp_path / "master"
        return getattr(media, request.param)(**(given | options))

    return make


def test_a_storage_that_signs_needs_a_secret(tmp_path):
    from outgrow.media import HybridStorage

    with pytest.raises(ImproperlyConfigured, match="needs a secret"):
        HybridStorage(location=tmp_path, servers=["http://a:1"], querystring_auth=True)


def fetch(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, b""


def tampered(url: str) -> list[str]:
    """The same URL, with something else in it."""
    path, _, query = url.partition("?")
    later = query.replace("expires=1", "expires=2")
    return [path, f"{path}?{later}", f"{path}x?{query}", f"{path}?{query.replace('md5=', 'md5=x')}"]


def use(storage, visitors: str) -> None:
    """Names that must be quoted, too; valid, expired, tampered."""
    for wanted in ("contract.pdf", "a b/\u00fc & 100% #1.txt"):
        name = storage.save(wanted, ContentFile(b"private"))
        url = storage.url(name, expire=60)
        assert fetch(f"{visitors}{url}") == (200, b"private")
        assert fetch(f"{visitors}{storage.url(name)}") == (200, b"private")
        assert fetch(f"{visitors}{storage.url(name, expire=-10)}")[0] == 410
        assert [fetch(f"{visitors}{one}")[0] for one in tampered(url)] == [403] * 4
        storage.delete(name)


def test_a_link_to_a_server_itself_is_signed_too(make):
    with MediaServer() as server:
        public = {"media1": "https://media1.example.org/m/"}
        storage = make(server, servers={"media1": server.url}, public_urls=public)
        Repair(storage.replication).once(settle=False)  # a server that is owed nothing
        name = storage.save("f.txt", ContentFile(b"x"))
        place, _, query = storage.url(name, expire=60).partition("?")
        assert place == f"https://media1.example.org/m/{name}"
        assert check(f"/m/{name}", query, SECRET, time.time()) is Verdict.GOOD
        assert check(f"/m/{name}", query, SECRET, time.time() + 61) is Verdict.EXPIRED


def test_our_own_server_checks_them(make, tmp_path):
    from tests.media.embedded import running

    (tmp_path / "root").mkdir()
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    options = ("--secret-file", str(tmp_path / "secret"), "--prefix", "/media/")
    token = {"OUTGROW_MEDIA_TOKEN": "tok3n"}
    with running(tmp_path / "root", *options, env=token) as server:
        server.url = f"http://127.0.0.1:{server.port}"
        storage = make(server, token="tok3n")
        use(Unprefixed(storage), server.url)


class Unprefixed:
    """What a proxy does that takes /media away."""

    def __init__(self, storage) -> None:
        self.save, self.delete, self._url = storage.save, storage.delete, storage.url

    def url(self, name: str, **options: float) -> str:
        return self._url(name, **options).removeprefix("/media")


def test_it_does_not_start_with_a_secret_and_no_token(tmp_path):
    from tests.media.embedded import running

    (tmp_path / "root").mkdir()
    with (
        pytest.raises(RuntimeError, match="Outgrow itself could not read them"),
        running(tmp_path / "root", env={"OUTGROW_MEDIA_SECRET": SECRET}),
    ):
        pass


def test_nginx_checks_them_with_the_documentations_configuration(make):
    from outgrow.testing import free_port
    from tests.live.nginx import Nginx
    from tests.live.processes import server_folder
    from tests.test_docs import FENCE, nginx_of

    page = Path(__file__).parents[2] / "docs/howto/private-files.md"
    blocks = [match[2] for match in FENCE.finditer(page.read_text()) if match[1] == "nginx"]
    with server_folder("outgrow-signed-") as folder:
        server, visitors = Nginx(folder), free_port()
        own = blocks[0].replace("listen 8081", f"listen 127.0.0.1:{visitors}")
        nginx_of(server, own)
        server.start()
        try:
            use(make(server), f"http://127.0.0.1:{visitors}")
        finally:
            server.stop()
