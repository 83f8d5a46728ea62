"""Signature V4, as its vendor's examples have it, as the vendor's library does it, and a form."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from urllib.parse import parse_qs, quote, urlsplit

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgrow.objects.sign import LONGEST, Credentials, Signer, steady

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
