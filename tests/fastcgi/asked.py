"""What visitors ask of a site whatever stands before it; `tests.fastcgi.site` answers."""

from __future__ import annotations

import hashlib
import os

import pytest

from tests.fastcgi.serving import Front


class EveryFront:
    """To be subclassed where there is a fixture `front`."""

    def test_the_root(self, front: Front) -> None:
        found = front.echo("/?a=1&b=%20")
        assert (found["method"], found["path"], found["query"]) == ("GET", "/", "a=1&b=%20")
        assert found["script"] == ""

    def test_a_form(self, front: Front) -> None:
        kind = "application/x-www-form-urlencoded"
        found = front.echo("/form", "POST", b"name=%C3%A9&name=2", Content_Type=kind)
        assert (found["method"], found["form"]) == ("POST", {"name": ["é", "2"]})

    @pytest.mark.parametrize("size", [0, 2_000_000])
    def test_a_body(self, front: Front, size: int) -> None:
        body = os.urandom(size)
        found = front.echo("/put", "PUT", body)
        assert (found["method"], found["size"]) == ("PUT", size)
        assert found["digest"] == hashlib.sha256(body).hexdigest()

    def test_an_upload(self, front: Front) -> None:
        content = os.urandom(20_000_000)
        disposition = b'Content-Disposition: form-data; name="file"; filename="a.bin"'
        head = b"--boundary-of-a-test\r\n" + disposition + b"\r\n\r\n"
        found = front.echo(
            "/upload",
            "POST",
            head + content + b"\r\n--boundary-of-a-test--\r\n",
            Content_Type="multipart/form-data; boundary=boundary-of-a-test",
        )
        assert found["files"] == {"file": hashlib.sha256(content).hexdigest()}

    def test_an_error_of_the_site(self, front: Front) -> None:
        status, _headers, body = front.ask("/fails")
        assert status == 500
        assert b"Server Error" in body

    def test_cookies(self, front: Front) -> None:
        assert front.echo("/", Cookie="a=1; b=2")["cookies"] == {"a": "1", "b": "2"}
        _status, headers, _body = front.ask("/")
        cookies = [one.partition(";")[0] for one in headers.get_all("Set-Cookie", [])]
        assert cookies == ["one=1", "two=2"]

    def test_nobody_names_a_proxy(self, front: Front) -> None:
        assert front.echo("/", Proxy="http://evil.example.org")["proxy"] == ""
