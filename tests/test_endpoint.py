"""The URL of a server: what is one, what is none, and where its files are."""

from __future__ import annotations

import contextlib
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgrow.endpoint import Endpoint, endpoint

GOOD_URLS = [
    ("http://h", Endpoint("http", "h", 80, "/", "h")),
    ("https://h", Endpoint("https", "h", 443, "/", "h")),
    ("HTTP://HOST.Example", Endpoint("http", "host.example", 80, "/", "host.example")),
    ("http://h:80", Endpoint("http", "h", 80, "/", "h")),
    ("http://h:443/", Endpoint("http", "h", 443, "/", "h:443")),
    ("https://h:80/", Endpoint("https", "h", 80, "/", "h:80")),
    ("http://h:00080/", Endpoint("http", "h", 80, "/", "h")),
    ("http://h:65535", Endpoint("http", "h", 65535, "/", "h:65535")),
    ("http://127.0.0.1:8080/a", Endpoint("http", "127.0.0.1", 8080, "/a/", "127.0.0.1:8080")),
    ("http://[::1]", Endpoint("http", "::1", 80, "/", "[::1]")),
    ("http://[0:0:0:0:0:0:0:1]:8/", Endpoint("http", "::1", 8, "/", "[::1]:8")),
    ("http://[2001:DB8::0:1]/", Endpoint("http", "2001:db8::1", 80, "/", "[2001:db8::1]")),
    ("http://a_b-c.d.", Endpoint("http", "a_b-c.d.", 80, "/", "a_b-c.d.")),
    ("http://xn--bcher-kva.example", Endpoint("http", *["xn--bcher-kva.example", 80, "/"], "")),
    ("http://h/a b/ü", Endpoint("http", "h", 80, "/a%20b/%C3%BC/", "h")),
    ("http://h/a%20b/%C3%BC", Endpoint("http", "h", 80, "/a%20b/%C3%BC/", "h")),
    ("http://h/%25/%2541", Endpoint("http", "h", 80, "/%25/%2541/", "h")),
    ("http://h/%3F%23;=&", Endpoint("http", "h", 80, "/%3F%23%3B%3D%26/", "h")),
    ("http://h/~a", Endpoint("http", "h", 80, "/~a/", "h")),
    ("http://h/...", Endpoint("http", "h", 80, "/.../", "h")),
]

BAD_URLS = [
    ("", "not an http"),
    ("h", "not an http"),
    ("h:80", "not an http"),
    ("//h", "not an http"),
    ("ftp://h", "not an http"),
    ("file:///etc/passwd", "not an http"),
    ("javascript:alert(1)", "not an http"),
    ("http:h", "host name"),
    ("http:/h", "host name"),
    ("http://", "host name"),
    ("http:///a", "host name"),
    ("http://:80/", "host name"),
    ("http://.", "host name"),
    ("http://..", "host name"),
    ("http://a..b", "host name"),
    ("http://.a", "host name"),
    ("http://" + "a" * 64, "host name"),
    ("http://" + "a." * 127 + "ab", "host name"),
    ("http://a b", "host name"),
    ("http://a\\b", "host name"),
    ("http://a%00b", "host name"),
    ("http://a%2fb", "host name"),
    ("http://a,b", "host name"),
    ("http://<a>", "host name"),
    ("http://bücher.example", "not ASCII"),
    ("http://\uff41.example", "not ASCII"),
    ("http://a\u2100b", "host name"),  # urlsplit refuses it: NFKC makes a slash of it
    ("http://h:\u0661", "not ASCII"),  # a digit, but not of ours
    ("http://1.2.3.4:", "port"),
    ("http://h:0", "port"),
    ("http://h:65536", "port"),
    ("http://h:-1", "port"),
    ("http://h:+80", "port"),
    ("http://h:8_0", "port"),
    ("http://h:80x", "port"),
    ("http://h:" + "9" * 5000, "port"),
    ("http://h:80:80", "host name"),
    ("http://::1", "host name"),
    ("http://[::1", "host name"),
    ("http://::1]", "host name"),
    ("http://[]", "host name"),
    ("http://[::1]x:80", "host name"),
    ("http://x[::1]:80", "host name"),
    ("http://[::1]80", "host name"),
    ("http://[::1]:", "port"),
    ("http://[::1]:x", "port"),
    ("http://[::1%25eth0]", "host name"),
    ("http://[fe80::1%eth0]", "host name"),
    ("http://[v1.a]", "host name"),
    ("http://[1.2.3.4]", ""),
    ("http://[:::]", ""),
    ("http://[12345::]", ""),
    ("http://u@h", "user or a password"),
    ("http://@h", "user or a password"),
    ("http://:@h", "user or a password"),
    ("http://u:p@h", "user or a password"),
    ("http://h@evil:80", "user or a password"),
    ("http://h\\@evil", "user or a password"),
    ("http://h?", "query"),
    ("http://h/?a=b", "query"),
    ("http://h/a#b", "query"),
    ("http://h/#", "query"),
    (" http://h", "control character in it, or a space"),
    ("http://h ", "control character in it, or a space"),
    ("http://h\n", "control character"),
    ("http://h\r\nHost: evil", "control character"),
    ("ht\ntp://h", "control character"),
    ("http://h\t:80", "control character"),
    ("\x00http://h", "control character"),
    ("http://h/a\x00", "control character"),
    ("http://h/%00", "control character"),
    ("http://h/%0d%0aX:%201", "control character"),
    ("http://h/%7f", "control character"),
    ("http://h/.", "'.' or '..'"),
    ("http://h/../a", "'.' or '..'"),
    ("http://h/a/..", "'.' or '..'"),
    ("http://h/%2e%2e/a", "'.' or '..'"),
    ("http://h/%2E/", "'.' or '..'"),
    ("http://h/a%2f..%2fb", "'.' or '..'"),
    ("http://h/%ff", "not UTF-8"),
    ("http://h/\ud800", "not UTF-8"),
]


@pytest.mark.parametrize(("url", "expected"), GOOD_URLS)
def test_a_url(url: str, expected: Endpoint) -> None:
    found = endpoint(url)
    assert (found.scheme, found.host, found.port, found.path) == (
        expected.scheme,
        expected.host,
        expected.port,
        expected.path,
    )
    assert found.netloc == expected.netloc or expected.netloc == ""
    # What conf writes down as the address means the same server.
    assert endpoint(f"{found.scheme}://{found.netloc}{found.path}") == found


@pytest.mark.parametrize(("url", "phrase"), BAD_URLS, ids=lambda text: ascii(text)[:40])
def test_a_bad_url(url: str, phrase: str) -> None:
    with pytest.raises(ValueError, match=r"^(is|has|holds) ") as caught:
        endpoint(url)
    assert phrase in str(caught.value)
    assert len(str(caught.value)) < 100


URLS = st.text(min_size=0, max_size=60) | st.text("htp:/[]@%.?#0aé \\\n1:2e", max_size=30).map(
    "http://".__add__
)


@given(URLS)
def test_any_text_is_an_endpoint_or_a_value_error(url: str) -> None:
    try:
        found = endpoint(url)
    except ValueError:
        return
    assert found.netloc.isascii()
    assert found.path.isascii()
    assert found.path.startswith("/")
    assert found.path.endswith("/")
    with contextlib.suppress(OSError):
        # The system's resolver takes it: no UnicodeError from its own encoding.
        socket.getaddrinfo(found.host, found.port, flags=socket.AI_NUMERICHOST)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("a.jpg", "/base/a.jpg"),
        ("a b/ü?#%.jpg", "/base/a%20b/%C3%BC%3F%23%25.jpg"),
        ("~a-b_c.d", "/base/~a-b_c.d"),
        ("a:b@c;d=e&f+g,h!i'j(k)*", "/base/a%3Ab%40c%3Bd%3De%26f%2Bg%2Ch%21i%27j%28k%29%2A"),
        ("a\r\nX: 1", "/base/a%0D%0AX%3A%201"),
    ],
)
def test_the_target_of_a_name(name: str, target: str) -> None:
    assert endpoint("http://h:8080/base/").target(name) == target
