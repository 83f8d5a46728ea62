"""Signatures against a store that checks them: what is signed is allowed, and nothing else."""

from __future__ import annotations

import hashlib
import http.client
import time
from collections.abc import Mapping
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from outgrow.names import token
from outgrow.objects.sign import LONGEST, UNSIGNED_PAYLOAD, Credentials, Signer
from tests.live.engines import Engine

#: Names whose encoding is easily done once too often, or once too seldom.
ODD = [
    "a b.txt",
    "é/Ö 😀.txt",
    "a+b&c=d?e#f.txt",
    "100%.txt",
    "%41%2F.txt",
    "a//b",
    "a/../b",
    "~-_.txt",
    "'\"()*!,;:@$.txt",
]


@pytest.fixture
def signer(swift: Engine, swift_bucket: str) -> Signer:
    credentials = Credentials(swift.access_key, swift.secret_key)
    return Signer(f"{swift.endpoint}/{swift_bucket}/", swift.region, credentials)


def send(
    method: str, url: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> tuple[int, bytes, Mapping[str, str]]:
    """What a server answers. The URL is sent as it is, and not changed as browsers would."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    with closing(connection):
        connection.request(method, url.partition(parts.netloc)[2], body, dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())


@pytest.mark.parametrize("name", ODD)
def test_a_url_for_each_method_and_odd_names(
    signer: Signer, swift: Engine, swift_bucket: str, name: str
) -> None:
    def url(method: str) -> str:
        return signer.url(name, start=time.time(), expire=600, method=method)

    assert send("PUT", url("PUT"), b"content")[0] == 200
    assert swift.held(swift_bucket) == {name: b"content"}
    assert send("GET", url("GET"))[:2] == (200, b"content")
    status, _, headers = send("HEAD", url("HEAD"))
    assert (status, headers["Content-Length"]) == (200, "7")
    # A URL is for one method.
    assert send("DELETE", url("GET"))[0] == 403
    assert send("DELETE", url("DELETE"))[0] == 204
    assert swift.held(swift_bucket) == {}


def test_an_upload_has_the_headers_that_were_signed(
    signer: Signer, swift: Engine, swift_bucket: str
) -> None:
    headers = {"Content-Type": "image/png", "x-amz-meta-owner": "7  of   9", "Content-Length": "3"}
    url = signer.url("a", start=time.time(), expire=600, method="PUT", headers=headers)
    assert send("PUT", url, b"png", {**headers, "Content-Type": "text/html"})[0] == 403
    assert send("PUT", url, b"pngs", {**headers, "Content-Length": "4"})[0] == 403
    assert send("PUT", url, b"png", {**headers, "x-amz-meta-owner": "8"})[0] == 403
    assert swift.held(swift_bucket) == {}
    assert send("PUT", url, b"png", headers)[0] == 200
    found = swift.client().head_object(Bucket=swift_bucket, Key="a")
    assert (found["ContentType"], found["ContentLength"]) == ("image/png", 3)


def test_a_download_has_the_headers_that_were_signed(signer: Signer, swift: Engine) -> None:
    assert send("PUT", signer.url("a", start=time.time(), expire=60, method="PUT"), b"x")[0] == 200
    disposition = "attachment; filename=\"a b.txt\"; filename*=UTF-8''%C3%A9.txt"
    parameters = {
        "ResponseContentDisposition": disposition,
        "response-content-type": "application/x-thing",
        "response-cache-control": "private, max-age=60",
    }
    url = signer.url("a", start=time.time(), expire=60, parameters=parameters)
    status, body, headers = send("GET", url)
    assert (status, body) == (200, b"x")
    assert headers["Content-Disposition"] == disposition
    assert headers["Content-Type"].startswith("application/x-thing")
    assert headers["Cache-Control"] == "private, max-age=60"
    assert send("GET", url.replace("x-thing", "x-other"))[0] == 403


def test_a_url_that_was_signed_some_time_ago(signer: Signer) -> None:
    """As `steady` has it: the time that has gone by counts, and no more."""
    now = time.time()
    assert send("PUT", signer.url("a", start=now, expire=60, method="PUT"), b"x")[0] == 200
    good = signer.url("a", start=now - 86_400, expire=86_400 + 600)
    over = signer.url("a", start=now - 86_400, expire=86_400 - 1)
    longest = signer.url("a", start=now, expire=LONGEST)
    assert [send("GET", url)[0] for url in (good, over, longest)] == [200, 403, 200]


def test_a_bucket_is_made_filled_listed_and_deleted_by_signed_requests(swift: Engine) -> None:
    name = f"outgrow-{token()}"
    credentials = Credentials(swift.access_key, swift.secret_key)
    signer = Signer(f"{swift.endpoint}/{name}/", swift.region, credentials)

    def request(method: str, key: str = "", body: bytes = b"", **more) -> tuple[int, bytes]:
        more.setdefault("payload_hash", hashlib.sha256(body).hexdigest())
        url, headers = signer.request(method, key, now=time.time(), **more)
        return send(method, url, body, headers)[:2]

    assert request("PUT")[0] == 200
    assert [request("PUT", key, b"x")[0] for key in ODD] == [200] * len(ODD)
    untold = {"payload_hash": UNSIGNED_PAYLOAD, "headers": {"x-amz-meta-a": " b  c "}}
    assert request("PUT", "z/1", b"y", **untold)[0] == 200
    assert set(swift.held(name)) == {*ODD, "z/1"}
    status, listing = request("GET", parameters={"list-type": "2", "prefix": "z/", "max-keys": "5"})
    assert status == 200
    assert b"<Key>z/1</Key>" in listing
    assert b"<KeyCount>1</KeyCount>" in listing
    # Another body than the one that was signed is not stored.
    assert request("PUT", "z/2", b"y", payload_hash=hashlib.sha256(b"n").hexdigest())[0] == 400
    assert [request("DELETE", key)[0] for key in [*ODD, "z/1"]] == [204] * (len(ODD) + 1)
    assert request("DELETE")[0] == 204


def test_a_wrong_secret_signs_nothing(swift: Engine, swift_bucket: str) -> None:
    wrong = Signer(
        f"{swift.endpoint}/{swift_bucket}/", swift.region, Credentials(swift.access_key, "wrong")
    )
    url = wrong.url("a", start=time.time(), expire=60, method="PUT")
    assert send("PUT", url, b"x")[0] == 403
    url, headers = wrong.request("GET", now=time.time())
    assert send("GET", url, headers=headers)[0] == 403
    assert swift.held(swift_bucket) == {}
