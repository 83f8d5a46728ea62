"""Signature V4, as its vendor's examples have it, as the vendor's library does it, and a form."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cache
from itertools import product
from urllib.parse import parse_qs, parse_qsl, quote, urlsplit

import boto3
import botocore.auth
import botocore.awsrequest
import botocore.config
import botocore.credentials
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgrow.objects.sign import (
    EMPTY_PAYLOAD,
    LONGEST,
    STEADY_FROM,
    UNSIGNED_PAYLOAD,
    Credentials,
    Signer,
    steady,
)

#: The account of all examples in the vendor's documentation.
EXAMPLE = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
BASE = "https://examplebucket.s3.amazonaws.com/"
FIRST = datetime(2013, 5, 24, tzinfo=UTC).timestamp()


def example(base: str = BASE, region: str = "us-east-1", token: str = "") -> Signer:
    return Signer(base, region, Credentials(EXAMPLE.access_key, EXAMPLE.secret_key, token))


def query(url: str) -> dict[str, str]:
    return {name: texts[0] for name, texts in parse_qs(urlsplit(url).query).items()}


def test_the_vendor_s_example_of_a_url() -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html"""
    assert example().url("test.txt", start=FIRST, expire=86400) == (
        f"{BASE}test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256"
        "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
        "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )


#: Its lines end as on the vendor's page, with CR and LF; one of them is empty.
POLICY = """{ "expiration": "2015-12-30T12:00:00.000Z",
  "conditions": [
    {"bucket": "sigv4examplebucket"},
    ["starts-with", "$key", "user/user1/"],
    {"acl": "public-read"},
    {"success_action_redirect": "http://sigv4examplebucket.s3.amazonaws.com/successful_upload.html"},
    ["starts-with", "$Content-Type", "image/"],
    {"x-amz-meta-uuid": "14365123651274"},
    {"x-amz-server-side-encryption": "AES256"},
    ["starts-with", "$x-amz-meta-tag", ""],

    {"x-amz-credential": "AKIAIOSFODNN7EXAMPLE/20151229/us-east-1/s3/aws4_request"},
    {"x-amz-algorithm": "AWS4-HMAC-SHA256"},
    {"x-amz-date": "20151229T000000Z" }
  ]
}""".replace("\n", "\r\n")


def test_the_vendor_s_example_of_a_form() -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-post-example.html"""
    policy = base64.b64encode(POLICY.encode()).decode()
    signature = "8afdbf4008c03f22c2cd3cdb72e4afbb1f6a588f3255ac628749a66d7f09699e"
    assert example().policy_signature(policy, day="20151229") == signature


names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40
).filter(lambda name: not name.startswith("/"))
#: What a header can hold without being changed on its way.
values = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
parameters = st.dictionaries(
    st.sampled_from(["response-content-type", "response-content-disposition", "versionId", "Ö"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
headers = st.dictionaries(
    st.sampled_from(["Content-Type", "x-amz-meta-a", "X-Amz-Meta-B", "x-amz-acl"]), values
)
bases = st.sampled_from(
    [
        BASE,
        "http://127.0.0.1:9000/bucket/",
        "https://s3.eu-west-3.amazonaws.com/my.bucket/",
        "https://files.example.org:443/a%20b/",
        "http://Minio:80/bucket/",
    ]
)


@given(
    name=names,
    method=st.sampled_from(["GET", "HEAD", "PUT", "DELETE"]),
    more=parameters,
    sent=headers,
    base=bases,
    token=st.sampled_from(["", "a/token+with=all"]),
    expire=st.integers(1, LONGEST),
)
def test_the_vendor_s_library_signs_the_same(
    name: str,
    method: str,
    more: dict[str, str],
    sent: dict[str, str],
    base: str,
    token: str,
    expire: int,
) -> None:
    account = botocore.credentials.Credentials(
        EXAMPLE.access_key, EXAMPLE.secret_key, token or None
    )
    theirs = botocore.awsrequest.AWSRequest(
        method, base + quote(name, safe="/~"), headers=dict(sent), params=dict(more)
    )
    botocore.auth.S3SigV4QueryAuth(account, "s3", "eu-west-3", expire).add_auth(theirs)
    expected = query(theirs.url)
    start = datetime.strptime(expected["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    ours = example(base, "eu-west-3", token).url(
        name,
        start=start.timestamp(),
        expire=expire,
        method=method,
        parameters=more,
        headers=sent,
    )
    assert query(ours)["X-Amz-SignedHeaders"] == expected["X-Amz-SignedHeaders"]
    assert query(ours) == expected
    assert urlsplit(ours).path == urlsplit(theirs.url).path


def test_what_is_kept_does_not_outlive_its_time() -> None:
    """One signer, many moments and lengths: each URL is what a new signer would make."""
    one = example()
    for start in (FIRST, FIRST + 1, FIRST + 86_400, FIRST):
        for expire in (60, 61):
            for _ in range(2):
                url = one.url("a", start=start, expire=expire)
                assert url == example().url("a", start=start, expire=expire)


@pytest.mark.parametrize("expire", [0, -1, LONGEST + 1])
def test_times_that_no_store_takes(expire: float) -> None:
    with pytest.raises(ValueError, match=f"good for {expire:g} seconds"):
        example().url("a", start=FIRST, expire=expire)
    with pytest.raises(ValueError, match=f"good for {expire:g} seconds"):
        example().form("b", start=FIRST, expire=expire, fields={"key": "a"}, size=(0, 1))


@given(now=st.floats(0, 4e9), expire=st.floats(0.5, LONGEST))
def test_steady_urls_are_good_for_as_long_as_was_asked(now: float, expire: float) -> None:
    start, seconds = steady(now, expire)
    assert start <= now
    assert 1 <= seconds <= LONGEST
    # Whole seconds: what is under a second may be lost.
    assert start + seconds >= min(now, int(now)) + expire - 1
    assert start + seconds <= now + expire * 1.25 + 2


@given(now=st.floats(0, 4e9), expire=st.floats(STEADY_FROM, LONGEST - 1))
def test_steady_urls_are_never_good_for_less(now: float, expire: float) -> None:
    start, seconds = steady(now, expire)
    assert start + seconds > now + expire


def test_steady_urls_are_the_same_for_a_while() -> None:
    assert {steady(now, 3600) for now in range(9000, 9900)} == {(9000, 4500)}
    assert steady(9900, 3600) == (9900, 4500)
    assert steady(9000.7, 599) == (9000, 599)
    assert steady(9001, LONGEST) == (9001, LONGEST)


def test_a_form() -> None:
    form = example(token="token").form(
        "examplebucket",
        start=FIRST,
        expire=600,
        fields={"key": "user/1.jpg", "acl": "private"},
        prefixes={"Content-Type": "image/"},
        size=(1, 1 << 20),
    )
    assert form.url == BASE
    policy = json.loads(base64.b64decode(form.fields["policy"]))
    assert policy["expiration"] == "2013-05-24T00:10:00.000Z"
    assert policy["conditions"] == [
        {"bucket": "examplebucket"},
        {"key": "user/1.jpg"},
        {"acl": "private"},
        {"x-amz-algorithm": "AWS4-HMAC-SHA256"},
        {"x-amz-credential": "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request"},
        {"x-amz-date": "20130524T000000Z"},
        {"x-amz-security-token": "token"},
        ["starts-with", "$Content-Type", "image/"],
        ["content-length-range", 1, 1048576],
    ]
    # Every field that is sent is a condition, but for those two.
    named = {next(iter(one)) for one in policy["conditions"] if isinstance(one, dict)}
    assert set(form.fields) - named == {"policy", "x-amz-signature"}
    signature = example().policy_signature(form.fields["policy"], day="20130524")
    assert form.fields["x-amz-signature"] == signature


def test_a_form_without_a_token_names_none_and_needs_a_key() -> None:
    form = example().form("b", start=FIRST, expire=60, fields={"key": "a"}, size=(0, 1))
    assert "x-amz-security-token" not in form.fields
    with pytest.raises(ValueError, match="needs a 'key'"):
        example().form("b", start=FIRST, expire=60, fields={}, size=(0, 1))
    example().form("b", start=FIRST, expire=60, fields={}, prefixes={"key": "u/"}, size=(0, 1))


def test_no_secret_is_shown() -> None:
    form = example().form("b", start=FIRST, expire=60, fields={"key": "a"}, size=(0, 1))
    for shown in (repr(EXAMPLE), repr(example()), repr(form)):
        assert EXAMPLE.secret_key not in shown
        assert form.fields["x-amz-signature"] not in shown


# --- requests that are signed in a header


@pytest.mark.parametrize(
    ("method", "key", "more", "signed", "signature"),
    [
        pytest.param(
            "GET",
            "test.txt",
            {"headers": {"Range": "bytes=0-9"}},
            "host;range;x-amz-content-sha256;x-amz-date",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
            id="GET",
        ),
        pytest.param(
            "PUT",
            "test$file.text",
            {
                "headers": {
                    "Date": "Fri, 24 May 2013 00:00:00 GMT",
                    "x-amz-storage-class": "REDUCED_REDUNDANCY",
                },
                "payload_hash": hashlib.sha256(b"Welcome to Amazon S3.").hexdigest(),
            },
            "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
            id="PUT",
        ),
        pytest.param(
            "GET",
            "",
            {"parameters": {"lifecycle": ""}},
            "host;x-amz-content-sha256;x-amz-date",
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
            id="lifecycle",
        ),
        pytest.param(
            "GET",
            "",
            {"parameters": {"prefix": "J", "max-keys": "2"}},
            "host;x-amz-content-sha256;x-amz-date",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
            id="list",
        ),
    ],
)
def test_the_vendor_s_examples_of_requests(method, key, more, signed, signature) -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html"""
    _, sent = example().request(method, key, now=FIRST, **more)
    assert sent["Authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
        f"SignedHeaders={signed}, Signature={signature}"
    )


@given(
    name=st.one_of(st.just(""), names),
    method=st.sampled_from(["GET", "HEAD", "PUT", "DELETE", "POST"]),
    more=parameters,
    sent=headers,
    base=bases,
    token=st.sampled_from(["", "a/token+with=all"]),
    body=st.binary(max_size=20),
)
def test_the_vendor_s_library_signs_the_same_requests(
    name, method, more, sent, base, token, body
) -> None:
    account = botocore.credentials.Credentials(
        EXAMPLE.access_key, EXAMPLE.secret_key, token or None
    )
    theirs = botocore.awsrequest.AWSRequest(
        method, base + quote(name, safe="/~"), headers=dict(sent), params=dict(more), data=body
    )
    theirs.context["payload_signing_enabled"] = True
    botocore.auth.S3SigV4Auth(account, "s3", "eu-west-3").add_auth(theirs)
    moment = datetime.strptime(theirs.context["timestamp"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    url, ours = example(base, "eu-west-3", token).request(
        method,
        name,
        now=moment.timestamp(),
        parameters=more,
        headers=sent,
        payload_hash=hashlib.sha256(body).hexdigest(),
    )
    assert ours["Authorization"] == theirs.headers["Authorization"]
    # Each that is signed is there to be sent, and the URL is the one that was signed.
    in_theirs = {name.lower(): text for name, text in theirs.headers.items()}
    in_ours = {name.lower(): text for name, text in ours.items()}
    assert (
        in_ours.pop("host")
        == urlsplit(base)
        .netloc.removesuffix({"http": ":80", "https": ":443"}[urlsplit(base).scheme])
        .lower()
    )
    assert in_ours == in_theirs
    assert urlsplit(url).path == urlsplit(theirs.url).path
    assert dict(parse_qsl(urlsplit(url).query, keep_blank_values=True)) == more


def test_a_request_whose_body_is_not_told() -> None:
    url, sent = example().request("PUT", "a", now=FIRST, payload_hash=UNSIGNED_PAYLOAD)
    assert url == f"{BASE}a"
    assert sent["X-Amz-Content-SHA256"] == "UNSIGNED-PAYLOAD"
    _, empty = example().request("PUT", "a", now=FIRST)
    assert empty["X-Amz-Content-SHA256"] == EMPTY_PAYLOAD == hashlib.sha256().hexdigest()
    assert empty["Authorization"] != sent["Authorization"]


# --- the vendor's client, as people use it


#: What lies below each of these the client is asked for so.
CLIENTS = {
    "http://127.0.0.1:9000/bucket/": ("http://127.0.0.1:9000", "path"),
    "https://bucket.s3.eu-west-3.amazonaws.com/": (None, "virtual"),
}


@cache
def client(base: str):
    endpoint, addressing = CLIENTS[base]
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="eu-west-3",
        aws_access_key_id=EXAMPLE.access_key,
        aws_secret_access_key=EXAMPLE.secret_key,
        config=botocore.config.Config(
            signature_version="s3v4", s3={"addressing_style": addressing}
        ),
    )


#: What an argument of the vendor's client is called in a URL.
ARGUMENTS = {
    "ResponseContentType": "response-content-type",
    "ResponseContentDisposition": "response-content-disposition",
    "ResponseContentEncoding": "response-content-encoding",
    "ResponseContentLanguage": "response-content-language",
    "ResponseCacheControl": "response-cache-control",
    "VersionId": "versionId",
}


@given(
    name=names,
    arguments=st.dictionaries(
        st.sampled_from(sorted(ARGUMENTS)),
        st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), min_size=1, max_size=30),
    ),
    base=st.sampled_from(sorted(CLIENTS)),
    expire=st.integers(1, LONGEST),
)
def test_the_vendor_s_client_makes_the_same_urls(name, arguments, base, expire) -> None:
    """Its names for parameters mean the same here as the names that a URL has."""
    given_to_it = {"Bucket": "bucket", "Key": name, **arguments}
    theirs = client(base).generate_presigned_url("get_object", given_to_it, expire)
    start = datetime.strptime(query(theirs)["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    in_a_url = {ARGUMENTS[one]: text for one, text in arguments.items()}
    for given_to_us in (arguments, in_a_url):
        ours = example(base, "eu-west-3").url(
            name, start=start.timestamp(), expire=expire, parameters=given_to_us
        )
        assert urlsplit(ours)[:3] == urlsplit(theirs)[:3]
        assert sorted(urlsplit(ours).query.split("&")) == sorted(urlsplit(theirs).query.split("&"))


@pytest.mark.parametrize("key", ["a/b.jpg", "a/${filename}"])
@pytest.mark.parametrize("base", sorted(CLIENTS))
def test_the_vendor_s_client_makes_the_same_form(base: str, key: str) -> None:
    fields = {"acl": "private", "success_action_status": "201", "x-amz-meta-ö": "ü"}
    theirs = client(base).generate_presigned_post(
        "bucket",
        key,
        Fields=dict(fields),
        Conditions=[
            *({name: text} for name, text in fields.items()),
            ["starts-with", "$Content-Type", "image/"],
            ["content-length-range", 1, 9],
        ],
        ExpiresIn=60,
    )
    date = theirs["fields"]["x-amz-date"]
    start = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    ours = example(base, "eu-west-3").form(
        "bucket",
        start=start.timestamp(),
        expire=60,
        fields={"key": key, **fields},
        prefixes={"Content-Type": "image/"},
        size=(1, 9),
    )
    assert ours.url.rstrip("/") == theirs["url"].rstrip("/")
    signed = {"policy", "x-amz-signature"}
    assert {name: text for name, text in ours.fields.items() if name not in signed} == {
        name: text for name, text in theirs["fields"].items() if name not in signed
    }
    policies = [
        json.loads(base64.b64decode(one["policy"])) for one in (ours.fields, theirs["fields"])
    ]
    conditions = [sorted(map(json.dumps, one["conditions"])) for one in policies]
    assert conditions[0] == conditions[1]
    # Its policy, signed here, has its signature.
    again = example(base, "eu-west-3").policy_signature(theirs["fields"]["policy"], day=date[:8])
    assert again == theirs["fields"]["x-amz-signature"]


# --- what a signature can't be made of


@pytest.mark.parametrize("method", ["get", "", "PATCH", "GET\nPUT"])
def test_methods_that_no_store_knows(method: str) -> None:
    with pytest.raises(ValueError, match="only DELETE, GET, HEAD, POST, PUT"):
        example().url("a", start=FIRST, expire=60, method=method)


@pytest.mark.parametrize("name", ["X-Amz-Expires", "x-amz-date", "X-Amz-Signature"])
def test_parameters_that_are_the_signature_s_own(name: str) -> None:
    with pytest.raises(ValueError, match=f"The parameter '{name}' is a part of the signature"):
        example().url("a", start=FIRST, expire=60, parameters={name: "1"})
    with pytest.raises(ValueError, match=f"The parameter '{name}' is a part of the signature"):
        example().request("GET", "a", now=FIRST, parameters={name: "1"})


def test_a_parameter_by_both_of_its_names() -> None:
    both = {"VersionId": "1", "versionId": "2"}
    with pytest.raises(ValueError, match="by both of its names: VersionId, versionId"):
        example().url("a", start=FIRST, expire=60, parameters=both)


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ({"Host": "other.example.org"}, "'Host' is a part of the signature"),
        ({"x-amz-date": "20130524T000000Z"}, "'x-amz-date' is a part of the signature"),
        ({"Content-Type": "a\r\nX: y"}, "'Content-Type' has a name or a value"),
        ({"x-amz-meta-a": "ö"}, "'x-amz-meta-a' has a name or a value"),
        ({"a:b": "c"}, "'a:b' has a name or a value"),
        ({"": "c"}, "'' has a name or a value"),
        ({"x-amz-acl": "a", "X-Amz-ACL": "b"}, "'X-Amz-ACL' is given twice"),
    ],
)
def test_headers_that_can_t_be_sent(sent: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        example().url("a", start=FIRST, expire=60, method="PUT", headers=sent)
    with pytest.raises(ValueError, match=message):
        example().request("PUT", "a", now=FIRST, headers=sent)


@pytest.mark.parametrize("name", ["Policy", "x-amz-signature", "bucket", "file"])
def test_fields_that_are_the_form_s_own(name: str) -> None:
    for more in (
        {"fields": {"key": "a", name: "b"}},
        {"fields": {"key": "a"}, "prefixes": {name: ""}},
    ):
        with pytest.raises(ValueError, match=f"The field '{name}' is a part of the signature"):
            example().form("b", start=FIRST, expire=60, size=(0, 1), **more)


@pytest.mark.parametrize("size", [(-1, 1), (2, 1)])
def test_sizes_that_no_file_has(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="can't have"):
        example().form("b", start=FIRST, expire=60, fields={"key": "a"}, size=size)


def test_the_visitor_s_name_for_a_file_stands_at_the_end_of_a_key() -> None:
    with pytest.raises(ValueError, match="before its end"):
        fields = {"key": "a/${filename}.jpg"}
        example().form("b", start=FIRST, expire=60, fields=fields, size=(0, 1))


@pytest.mark.parametrize("expire", [float("nan"), float("inf"), 0.0])
def test_times_that_are_none(expire: float) -> None:
    with pytest.raises(ValueError, match="can't be good for"):
        example().url("a", start=FIRST, expire=expire)
    with pytest.raises(ValueError, match="can't be good for"):
        example().form("b", start=FIRST, expire=expire, fields={"key": "a"}, size=(0, 1))


@pytest.mark.parametrize(
    "base", ["/media/", "media/", "ftp://a/", "https:///a/", "//a/", "https://ö/"]
)
def test_urls_that_name_no_host(base: str) -> None:
    with pytest.raises(ValueError, match="it names no host"):
        example(base)


@pytest.mark.parametrize(
    ("region", "access_key", "secret_key"), [("", "a", "b"), ("r", "", "b"), ("r", "a", "")]
)
def test_nothing_is_signed_without_keys_and_a_region(region, access_key, secret_key) -> None:
    with pytest.raises(ValueError, match="Without an access key, its secret and a region"):
        Signer(BASE, region, Credentials(access_key, secret_key))


# --- what clients do to a URL on its way


@pytest.mark.parametrize(
    ("base", "path"),
    [
        ("https://files.example.org/a b/ö/", "/a%20b/%C3%B6/"),
        ("https://files.example.org/a%20b/%c3%b6/", "/a%20b/%C3%B6/"),
        ("https://files.example.org", "/"),
    ],
)
def test_the_path_before_a_key_is_signed_as_browsers_send_it(base: str, path: str) -> None:
    url = example(base).url("k", start=FIRST, expire=60)
    assert url.startswith(f"https://files.example.org{path}k?")
    expected = example(f"https://files.example.org{path}").url("k", start=FIRST, expire=60)
    assert url == expected


def signature(url: str) -> str:
    return query(url)["X-Amz-Signature"]


@pytest.mark.parametrize("base", ["https://media.example.org/m/", "/m/"])
def test_a_proxy_that_sends_another_host_and_path(base: str) -> None:
    """What the store sees is signed; what the visitor asks the proxy for is in the URL."""
    behind = Signer(base, "us-east-1", EXAMPLE, seen=BASE)
    url = behind.url("a b", start=FIRST, expire=60)
    assert url.startswith(f"{base}a%20b?")
    assert signature(url) == signature(example().url("a b", start=FIRST, expire=60))
    url, sent = behind.request("GET", "a b", now=FIRST)
    assert url == f"{base}a%20b"
    assert sent == example().request("GET", "a b", now=FIRST)[1]
    form = behind.form("examplebucket", start=FIRST, expire=60, fields={"key": "a"}, size=(0, 1))
    assert form.url == base


def test_values_of_headers_are_signed_without_needless_spaces() -> None:
    """As a store computes them of what was sent."""
    urls = [
        example().url("a", start=FIRST, expire=60, method="PUT", headers={name: text})
        for name, text in [("x-amz-meta-a", "b c"), ("X-Amz-Meta-A", " b  \t c ")]
    ]
    assert urls[0] == urls[1]


@pytest.mark.parametrize("name", ["A", "X-Amz-SignedHeader", "X-Amz-SignedHeaders-", "a", "Ö"])
@pytest.mark.parametrize("sent", [{}, {"x-amz-meta-a": "b"}])
def test_what_is_signed_is_sorted(name: str, sent: dict[str, str]) -> None:
    """The order of a URL is the one that is signed, wherever a parameter stands in it."""
    url = example().url("k", start=FIRST, expire=60, parameters={name: "b"}, headers=sent)
    *signed, last = urlsplit(url).query.split("&")
    names = [pair.partition("=")[0] for pair in signed]
    assert names == sorted([*names[1:], names[0]])
    assert quote(name) in names
    assert last.startswith("X-Amz-Signature=")


def test_a_url_with_a_session_token_carries_it() -> None:
    url = example(token="a/b+c==").url("a", start=FIRST, expire=60)
    assert query(url)["X-Amz-Security-Token"] == "a/b+c=="
    assert signature(url) != signature(example().url("a", start=FIRST, expire=60))
    assert "X-Amz-Security-Token=a%2Fb%2Bc%3D%3D&" in url


def test_threads_share_one_signer() -> None:
    """Each URL is what a signer alone makes, whatever the others ask for meanwhile."""
    shared = example()
    wanted = list(product((FIRST, FIRST + 1, FIRST + 86_400, FIRST + 172_800), (60, 61, 62)))
    expected = {one: example().url("a", start=one[0], expire=one[1]) for one in wanted}

    def sign(offset: int) -> list[tuple[float, int]]:
        order = wanted[offset:] + wanted[:offset]
        return [
            (start, expire)
            for start, expire in order * 50
            if shared.url("a", start=start, expire=expire) != expected[start, expire]
        ]

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as several:
            wrong = [one for found in several.map(sign, range(8)) for one in found]
    finally:
        sys.setswitchinterval(before)
    assert wrong == []
