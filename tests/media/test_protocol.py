"""What the embedded media server answers, as values: no server, no disk."""

from __future__ import annotations

import base64
import errno
import hashlib
from collections.abc import Mapping

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from outgrow.content_types import content_type
from outgrow.media import conditions, protocol
from outgrow.media.conditions import File, Span
from outgrow.media.digests import Digest
from outgrow.media.protocol import Answer, NoFile, Refused, Request, Rules, State, Wanted
from outgrow.media.signing import sign

FILE = File(inode=1, size=1000, mtime_ns=1_700_000_000_900_000_000)
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
EARLIER = "Tue, 14 Nov 2023 22:13:19 GMT"
LATER = "Tue, 14 Nov 2023 22:13:21 GMT"
OPEN = Rules()


def accept(
    method: str = "GET",
    target: bytes = b"/a.txt",
    headers: Mapping[str, str] | None = None,
    rules: Rules = OPEN,
) -> Wanted | Answer:
    """The request accepted, or the answer that refuses it."""
    sent = {"host": "localhost", **(headers or {})}
    try:
        return protocol.accept(Request(method, target, sent), rules)
    except Refused as refused:
        return refused.answer


def accepted(
    method: str = "GET", target: bytes = b"/a.txt", headers: Mapping[str, str] | None = None
) -> Wanted:
    if method == "PUT":
        headers = {"content-length": "3", **(headers or {})}
    wanted = accept(method, target, headers)
    assert isinstance(wanted, Wanted), wanted
    return wanted


def refused(
    method: str = "GET", target: bytes = b"/a.txt", headers: Mapping[str, str] | None = None
) -> Answer:
    answer = accept(method, target, headers)
    assert isinstance(answer, Answer), answer
    return answer


def read(state: State = FILE, method: str = "GET", **headers: str) -> Answer:
    """The answer to a reader. if_match="x" is the header if-match: x."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return protocol.read(accepted(method, headers=named), state, OPEN)


def write(state: State, method: str = "PUT", **headers: str) -> int:
    """The status that refuses a PUT or DELETE, or 0."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    check = protocol.check_write if method == "PUT" else protocol.check_removal
    try:
        check(accepted(method, headers=named), state)
    except Refused as error:
        return error.answer.status
    status = protocol.removed(state).status
    return 0 if method == "PUT" or status == 204 else status


def header(answer: Answer, name: str) -> str | None:
    found = [value for key, value in answer.headers if key == name]
    assert len(found) <= 1, f"{name} is there twice"
    return found[0] if found else None


# Methods


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_the_methods_it_knows(method: str) -> None:
    assert accepted(method).method == method


@pytest.mark.parametrize("method", ["POST", "MKCOL", "OPTIONS", "PATCH", "MOVE"])
def test_a_method_it_does_not_offer(method: str) -> None:
    answer = refused(method)
    assert (answer.status, header(answer, "Allow")) == (405, "GET, HEAD, PUT, DELETE")


@pytest.mark.parametrize("method", ["BREW", "get", ""])
def test_a_method_it_does_not_know(method: str) -> None:
    assert refused(method).status == 501


@pytest.mark.parametrize("token", [None, "s3cret"])
@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", b"/a.txt", 200),
        ("HEAD", b"/a.txt", 200),
        ("PUT", b"/a.txt", 405),
        ("DELETE", b"/a.txt", 405),
        ("POST", b"/a.txt", 405),
        ("BREW", b"/a.txt", 501),
        ("GET", b"/.outgrow/list/", 405),
        ("HEAD", b"/.outgrow/list/a/", 405),
        ("PUT", b"/.outgrow/list/", 405),
    ],
)
def test_where_files_are_only_read(
    token: str | None, method: str, target: bytes, status: int
) -> None:
    headers = {"authorization": "Bearer s3cret", "content-length": "3"}
    answer = accept(method, target, headers, Rules(token=token, reads_only=True))
    assert (answer.status if isinstance(answer, Answer) else 200) == status
    if isinstance(answer, Answer):
        assert header(answer, "Allow") == ("GET, HEAD" if status == 405 else None)


# Names


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        (b"/a", ("a",)),
        (b"/a/b.txt?version=2", ("a", "b.txt")),
        (b"/with%20space/%C3%A9t%C3%A9.jpg", ("with space", "été.jpg")),
        (b"/%C3%A9", ("é",)),
        (b"/e%CC%81", ("e\u0301",)),  # another Unicode form is another name
        (b"/100%25", ("100%",)),
        (b"/%252e%252e", ("%2e%2e",)),  # decoded once
        (b"/a.b..c", ("a.b..c",)),
        (b"/C:/x", ("C:", "x")),
        (b"/outgrow-master-id.txt", ("outgrow-master-id.txt",)),
        (b"/" + b"x" * 255, ("x" * 255,)),
        (b"/" + b"/".join([b"y" * 99] * 10), ("y" * 99,) * 10),
    ],
)
def test_names(target: bytes, parts: tuple[str, ...]) -> None:
    assert accepted("GET", target).parts == parts


@pytest.mark.parametrize(
    "target",
    [
        b"",
        b"*",
        b"a",
        b"http://host/a",
        b"/",
        b"//a",
        b"/a/",
        b"/a//b",
        b"/.",
        b"/..",
        b"/../a",
        b"/a/../b",
        b"/a/%2e%2e/b",
        b"/%2E./a",
        b"/.hidden",
        b"/a/.hidden/b",
        b"/.outgrow-new/0123",
        b"/.outgrow/owed",
        b"/a%2Fb",
        b"/..%2F..%2Fetc",
        b"/a%5Cb",
        b"/a\\b",
        b"/a%00b",
        b"/a%0D%0AX:1",
        b"/a%7F",
        b"/a%C2%85",
        b"/a%",
        b"/a%g0",
        b"/a%2",
        b"/a%FF",
        b"/a%C0%AE",  # an over-long form of a dot
        b"/a%ED%A0%80",  # half of a surrogate pair
        b"/" + b"x" * 256,
        b"/" + b"%C3%A9" * 128,  # 128 characters, 256 bytes
        b"/" + b"/".join([b"y" * 99] * 11),
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_names_that_are_refused(method: str, target: bytes) -> None:
    assert refused(method, target).status == 400


@given(st.binary(max_size=60))
@example(b"/%2e%2e/%2e%2e/etc/passwd")
def test_no_name_escapes(target: bytes) -> None:
    wanted = accept("GET", target)
    if isinstance(wanted, Answer):
        assert wanted.status == 400
        return
    for part in wanted.parts:
        assert part
        assert not part.startswith(".")
        assert not set(part) & set("/\\\0\r\n")


# Who may write


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (None, 401),
        ("", 401),
        ("secret", 401),
        ("Bearer", 401),
        ("Bearer wrong", 401),
        ("Basic secret", 401),
        ("Bearer sécret", 401),
        ("Bearer secret", 0),
        ("bearer  secret ", 0),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_the_token(method: str, authorization: str | None, status: int) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    headers["content-length"] = "3"
    answer = accept(method, headers=headers, rules=Rules(token="secret"))
    if not status:
        assert isinstance(answer, Wanted)
        return
    assert isinstance(answer, Answer)
    assert answer.status == status
    assert header(answer, "WWW-Authenticate") == 'Bearer realm="media"'


def test_reading_is_public() -> None:
    assert isinstance(accept("GET", rules=Rules(token="secret")), Wanted)


# The head of an upload


def test_the_length_of_a_body() -> None:
    assert accepted("PUT", headers={"content-length": "12"}).length == 12
    assert accepted("PUT", headers={"transfer-encoding": "chunked"}).length is None


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 411),
        ({"content-length": "-1"}, 400),
        ({"content-length": "3, 3"}, 400),
        ({"content-length": "\u0663"}, 400),
        ({"content-length": "9" * 20}, 400),
        ({"content-range": "bytes 0-2/3"}, 400),
        ({"if-match": "tag"}, 400),
        ({"if-none-match": "no tag"}, 400),
        ({"if-none-match": '"a" "b"'}, 400),
        ({"content-md5": "!"}, 400),
        ({"content-md5": base64.b64encode(b"short").decode()}, 400),
        ({"repr-digest": "sha-256=x"}, 400),
        ({"repr-digest": "sha-256=:AAAA:"}, 400),
        ({"repr-digest": "sha-256=:A:"}, 400),
        ({"repr-digest": "sha-256"}, 400),
    ],
)
def test_uploads_refused_by_their_head(headers: dict[str, str], status: int) -> None:
    if status == 400:
        headers = {"content-length": "3", **headers}
    assert refused("PUT", headers=headers).status == status


def test_the_limit_of_a_body() -> None:
    rules = Rules(max_body=100)
    assert isinstance(accept("PUT", headers={"content-length": "100"}, rules=rules), Wanted)
    answer = accept("PUT", headers={"content-length": "101"}, rules=rules)
    assert isinstance(answer, Answer)
    assert answer.status == 413
    assert isinstance(accept("PUT", headers={"content-length": "1" + "0" * 15}), Wanted)


def test_whether_the_client_waits_for_leave_to_send() -> None:
    assert Request("PUT", b"/a", {"expect": "100-Continue"}).expects_continue
    assert not Request("PUT", b"/a", {}).expects_continue


def test_a_new_file_is_asked_for() -> None:
    assert accepted("PUT", headers={"if-none-match": " * "}).exclusive
    assert not accepted("PUT", headers={"if-none-match": '"a"'}).exclusive
    assert not accepted("PUT").exclusive


# Checksums

_BODY = b"body"
_SHA256 = base64.b64encode(hashlib.sha256(_BODY).digest()).decode()
_SHA512 = base64.b64encode(hashlib.sha512(_BODY).digest()).decode()
_MD5 = base64.b64encode(hashlib.md5(_BODY).digest()).decode()


@pytest.mark.parametrize(
    ("headers", "algorithms"),
    [
        ({}, []),
        ({"content-md5": _MD5}, ["md5"]),
        ({"content-md5": f" {_MD5} "}, ["md5"]),
        ({"repr-digest": f"sha-256=:{_SHA256}:"}, ["sha256"]),
        (
            {"repr-digest": f"sha-512=:{_SHA512}:, sha-256=:{_SHA256}:;x=1"},
            ["sha512", "sha256"],
        ),
        ({"repr-digest": f"crc32c=:AAAA:, sha-256=:{_SHA256}: , odd"}, ["sha256"]),
        ({"repr-digest": "md5=:AAAA:, unixsum=30637"}, []),
        ({"content-md5": _MD5, "repr-digest": f"sha-256=:{_SHA256}:"}, ["md5", "sha256"]),
    ],
)
def test_checksums_that_are_promised(headers: dict[str, str], algorithms: list[str]) -> None:
    digests = accepted("PUT", headers=headers).digests
    assert [digest.algorithm for digest in digests] == algorithms
    sums = {name: hashlib.new(name, _BODY).digest() for name in algorithms}
    protocol.check_digests(digests, sums)
    wrong = {name: hashlib.new(name, b"other").digest() for name in algorithms}
    if algorithms:
        with pytest.raises(Refused) as caught:
            protocol.check_digests(digests, wrong)
        assert caught.value.answer.status == 400


def test_the_refusal_names_the_checksum() -> None:
    with pytest.raises(Refused) as caught:
        protocol.check_digests([Digest("Repr-Digest", "sha256", b"x")], {"sha256": b"y"})
    assert b"Repr-Digest" in caught.value.answer.body


# Reading


def test_a_whole_file() -> None:
    answer = read()
    assert dict(answer.headers) == {
        "Content-Type": "text/plain",
        "Accept-Ranges": "bytes",
        "ETag": FILE.tag,
        "Last-Modified": DATE,
        "Content-Length": "1000",
    }
    assert (answer.status, answer.span) == (200, Span(0, 1000))


@pytest.mark.parametrize("state", [NoFile.MISSING, NoFile.GONE, NoFile.FOLDER, NoFile.BELOW_FILE])
def test_nothing_to_read(state: NoFile) -> None:
    answer = read(state, if_match='"x"')  # RFC 9110 §13.2.1: 404 goes before 412
    assert answer.status == 404
    assert answer.body.decode().startswith("Not Found: ")
    assert header(answer, "Content-Length") == str(len(answer.body))


def test_a_link_is_not_followed() -> None:
    assert read(NoFile.LINK).status == 403


def test_a_tag_names_one_version() -> None:
    others = [File(2, 1000, FILE.mtime_ns), File(1, 999, FILE.mtime_ns), File(1, 1000, 1)]
    assert len({FILE.tag, *(other.tag for other in others)}) == 4
    assert FILE.tag.startswith('"')


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"if_match": "*"}, 200),
        ({"if_match": FILE.tag}, 200),
        ({"if_match": f'"x" , {FILE.tag}'}, 200),
        ({"if_match": '"x,y"'}, 412),
        ({"if_match": f"W/{FILE.tag}"}, 412),  # strong comparison
        ({"if_match": "nonsense"}, 412),
        ({"if_none_match": "*"}, 304),
        ({"if_none_match": FILE.tag}, 304),
        ({"if_none_match": f"W/{FILE.tag}"}, 304),  # weak comparison
        ({"if_none_match": '"x"'}, 200),
        ({"if_none_match": "nonsense"}, 200),
        ({"if_modified_since": DATE}, 304),
        ({"if_modified_since": LATER}, 304),
        ({"if_modified_since": EARLIER}, 200),
        ({"if_modified_since": "yesterday"}, 200),
        ({"if_modified_since": "Tue Nov 14 22:13:20 2023"}, 304),
        ({"if_modified_since": "Tuesday, 14-Nov-23 22:13:20 GMT"}, 304),
        ({"if_unmodified_since": DATE}, 200),
        ({"if_unmodified_since": LATER}, 200),
        ({"if_unmodified_since": EARLIER}, 412),
        ({"if_unmodified_since": "yesterday"}, 200),
        # RFC 9110 §13.2.2: the tag goes before the date
        ({"if_match": FILE.tag, "if_unmodified_since": EARLIER}, 200),
        ({"if_none_match": '"x"', "if_modified_since": LATER}, 200),
        # ... and the first pair before the second
        ({"if_match": '"x"', "if_none_match": FILE.tag}, 412),
        ({"if_unmodified_since": EARLIER, "if_none_match": FILE.tag}, 412),
        ({"if_match": FILE.tag, "if_none_match": FILE.tag}, 304),
        ({"if_unmodified_since": DATE, "if_modified_since": DATE}, 304),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_conditions_of_readers(method: str, headers: dict[str, str], status: int) -> None:
    answer = read(FILE, method, **headers)
    assert answer.status == status
    if status == 304:
        assert dict(answer.headers) == {"ETag": FILE.tag, "Last-Modified": DATE}
        assert answer.span is None


@given(st.text(max_size=60))
@example("Mon, 32 Foo 0000 99:99:99 GMT")
@example("Mon, 01 Jan 0000 00:00:00 GMT")
@example("1 Jan 99999999999999999999 0:0:0 +9999999999999")
@example("Tue, 14 Nov 2023 22:13:20 +0100")
def test_any_text_as_a_date(text: str) -> None:
    assert conditions.parse_date(text) is None or isinstance(conditions.parse_date(text), int)


# Ranges


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-999", 0, 1000),
        ("bytes=0-", 0, 1000),
        ("bytes=10-19", 10, 20),
        ("bytes=990-2000", 990, 1000),
        ("bytes=-1", 999, 1000),
        ("bytes=-5000", 0, 1000),
        ("BYTES= 5-6 ", 5, 7),
    ],
)
def test_one_range(asked: str, start: int, stop: int) -> None:
    answer = read(range=asked)
    assert (answer.status, answer.span) == (206, Span(start, stop))
    assert header(answer, "Content-Range") == f"bytes {start}-{stop - 1}/1000"
    assert header(answer, "Content-Length") == str(stop - start)
    assert header(answer, "ETag") == FILE.tag


@pytest.mark.parametrize("asked", ["bytes=1000-", "bytes=1000-1001", "bytes=-0"])
def test_a_range_beyond_the_file(asked: str) -> None:
    answer = read(range=asked)
    assert answer.status == 416
    assert header(answer, "Content-Range") == "bytes */1000"


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=0-1,5-6",
        "bytes=5-4",
        "bytes=-",
        "bytes=a-b",
        "bytes=1",
        "bytes=--1",
        "bytes=\u0661-",
        "bytes=99999999999999999999-",
        "items=0-1",
        "",
    ],
)
def test_a_range_that_is_ignored(asked: str) -> None:
    answer = read(range=asked)
    assert (answer.status, answer.span) == (200, Span(0, 1000))


def test_a_range_is_for_get_alone() -> None:
    assert read(FILE, "HEAD", range="bytes=0-1").status == 200


@pytest.mark.parametrize(
    ("if_range", "status"),
    [(FILE.tag, 206), ('"x"', 200), (f"W/{FILE.tag}", 200), (DATE, 200)],
)
def test_if_range(if_range: str, status: int) -> None:
    assert read(range="bytes=0-1", if_range=if_range).status == status


def test_a_condition_goes_before_a_range() -> None:
    assert read(range="bytes=0-1", if_none_match=FILE.tag).status == 304


def test_ranges_of_an_empty_file() -> None:
    empty = File(1, 0, 0)
    assert read(empty, range="bytes=0-").status == 416
    assert read(empty, range="bytes=-5").status == 200


@given(size=st.integers(0, 50), first=st.integers(0, 60), last=st.integers(0, 60))
def test_a_range_is_what_a_slice_is(size: int, first: int, last: int) -> None:
    content = bytes(range(size))
    answer = read(File(1, size, 0), range=f"bytes={first}-{last}")
    if last < first:
        assert answer.status == 200
    elif first >= size:
        assert answer.status == 416
    else:
        assert answer.span is not None
        sent = content[answer.span.start : answer.span.stop]
        assert sent == content[first : last + 1]
        assert header(answer, "Content-Length") == str(len(sent))


@given(size=st.integers(0, 50), length=st.integers(0, 60))
def test_a_suffix_is_what_a_slice_is(size: int, length: int) -> None:
    content = bytes(range(size))
    answer = read(File(1, size, 0), range=f"bytes=-{length}")
    if length == 0:
        assert answer.status == 416
        return
    assert answer.span is not None
    assert content[answer.span.start : answer.span.stop] == content[-length:]
    assert answer.status == (206 if size else 200)


@given(st.text(alphabet="bytes=0123456789-, ", max_size=30), st.integers(0, 10**6))
def test_any_range_is_inside_the_file(asked: str, size: int) -> None:
    span = read(File(1, size, 0), range=asked).span
    assert span is None or 0 <= span.start <= span.stop <= size


# Writing


@pytest.mark.parametrize(
    ("state", "put", "delete"),
    [
        (FILE, 0, 0),
        (NoFile.MISSING, 0, 404),
        (NoFile.GONE, 410, 404),
        (NoFile.FOLDER, 409, 409),
        (NoFile.BELOW_FILE, 409, 404),
        (NoFile.SPECIAL, 409, 409),
        (NoFile.LINK, 403, 403),
    ],
)
def test_what_may_be_written_over_or_removed(state: State, put: int, delete: int) -> None:
    assert (write(state, "PUT"), write(state, "DELETE")) == (put, delete)


@pytest.mark.parametrize(
    ("headers", "over_file", "new", "delete"),
    [
        ({"if_none_match": "*"}, 412, 0, 412),
        ({"if_none_match": FILE.tag}, 412, 0, 412),
        ({"if_none_match": '"x"'}, 0, 0, 0),
        ({"if_match": "*"}, 0, 412, 0),
        ({"if_match": FILE.tag}, 0, 412, 0),
        ({"if_match": '"x"'}, 412, 412, 412),
        ({"if_unmodified_since": DATE}, 0, 412, 0),
        ({"if_unmodified_since": EARLIER}, 412, 412, 412),
        ({"if_modified_since": LATER}, 0, 0, 0),  # RFC 9110 §13.1.3: for readers alone
    ],
)
def test_conditions_of_writers(
    headers: dict[str, str], over_file: int, new: int, delete: int
) -> None:
    assert write(FILE, "PUT", **headers) == over_file
    assert write(NoFile.MISSING, "PUT", **headers) == new
    assert write(FILE, "DELETE", **headers) == delete
    # RFC 9110 §13.2.1: what is not there is 404 whatever the conditions
    assert write(NoFile.MISSING, "DELETE", **headers) == 404


def test_what_has_been_done() -> None:
    created = protocol.stored(FILE, created=True)
    assert (created.status, header(created, "ETag")) == (201, FILE.tag)
    replaced = protocol.stored(FILE, created=False)
    assert (replaced.status, header(replaced, "Last-Modified")) == (204, DATE)
    assert protocol.removed(FILE).status == 204
    assert protocol.removed(NoFile.MISSING).status == 404


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (errno.ENOSPC, 507),
        (errno.EDQUOT, 507),
        (errno.EEXIST, 412),
        (errno.EFBIG, 413),
        (errno.ENAMETOOLONG, 400),
        (errno.EISDIR, 409),
        (errno.EMFILE, 503),
        (errno.EIO, 500),
        (errno.EROFS, 500),
    ],
)
def test_what_a_disk_can_refuse(number: int, status: int) -> None:
    assert protocol.failure(OSError(number, "why")).status == status


# Types


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jpg", "image/jpeg"),
        ("A.JPEG", "image/jpeg"),
        ("a.b.webp", "image/webp"),
        ("a.html", "text/html"),
        ("a.tar.gz", "application/gzip"),
        ("a.unknown", "application/octet-stream"),
        ("jpg", "application/octet-stream"),
        ("a.", "application/octet-stream"),
    ],
)
def test_types(name: str, expected: str) -> None:
    assert content_type(name) == expected


def test_a_head_has_a_limit() -> None:
    rules = Rules(max_head=100)
    assert isinstance(protocol.accept(Request("GET", b"/a", {}, 100), rules), Wanted)
    with pytest.raises(Refused) as caught:
        protocol.accept(Request("GET", b"/a", {}, 101), rules)
    assert caught.value.answer.status == 431


@pytest.mark.parametrize(
    ("headers", "follows"),
    [
        ({}, False),
        ({"content-length": "0"}, False),
        ({"content-length": "00"}, False),
        ({"content-length": "10"}, True),
        ({"transfer-encoding": "chunked"}, True),
    ],
)
def test_whether_a_body_follows(headers: dict[str, str], follows: bool) -> None:
    assert Request("GET", b"/a", headers).has_body is follows


@pytest.mark.parametrize(("rate", "said"), [(1024, b"1024 bytes"), (0, b"1 bytes")])
def test_the_answer_to_a_drip(rate: int, said: bytes) -> None:
    answer = protocol.too_slow(rate)
    assert answer.status == 408
    assert said in answer.body


@pytest.mark.parametrize("value", ["gzip", "br", "identity, gzip", "gzip, identity", "x"])
def test_an_encoded_upload_is_415(value: str) -> None:
    answer = refused("PUT", headers={"content-length": "3", "content-encoding": value})
    assert answer.status == 415
    assert ("Accept-Encoding", "identity") in answer.headers


@pytest.mark.parametrize("value", ["", "identity", " Identity "])
def test_identity_is_no_encoding(value: str) -> None:
    assert accepted("PUT", headers={"content-encoding": value}).length == 3


@pytest.mark.parametrize("value", ["gzip, chunked", "chunked, chunked", "gzip", "identity", ""])
def test_a_transfer_coding_but_chunked_is_501(value: str) -> None:
    assert refused("PUT", headers={"transfer-encoding": value}).status == 501


@pytest.mark.parametrize("value", ["chunked", " Chunked "])
def test_a_chunked_upload_has_no_length(value: str) -> None:
    assert accepted("PUT", headers={"transfer-encoding": value}).length is None


HOSTS = [
    ("127.0.0.1", True),
    ("127.0.0.1:8080", True),
    ("10.0.0.11", True),
    ("[::1]", True),
    ("[::1]:8080", True),
    ("localhost", True),
    ("LocalHost:80", True),
    ("media1", True),
    ("media1:8080", True),
    ("Media1", True),
    ("", False),
    ("media2", False),
    ("rebound.example", False),
    ("localhost.rebound.example", False),
    ("127.0.0.1.rebound.example:8080", False),
    ("127.0.0.1, rebound.example", False),
    ("rebound.example, 127.0.0.1", False),
    ("[127.0.0.1]", False),
    ("[rebound.example]", False),
    ("::1:8080x", False),
]


@pytest.mark.parametrize(("host", "ours"), HOSTS)
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_without_a_token_the_name_of_the_host_matters(method: str, host: str, ours: bool) -> None:
    headers = {"content-length": "3", "host": host}
    answer = accept(method, headers=headers, rules=Rules(hosts=frozenset({"media1"})))
    assert isinstance(answer, Wanted) is ours
    assert ours or answer.status == 421


@pytest.mark.parametrize("host", ["rebound.example", ""])
def test_readers_and_those_with_a_token_may_call_it_as_they_like(host: str) -> None:
    assert isinstance(accept("GET", headers={"host": host}), Wanted)
    headers = {"content-length": "3", "host": host, "authorization": "Bearer t"}
    assert isinstance(accept("PUT", headers=headers, rules=Rules(token="t")), Wanted)


ACTIVE_NAMES = ["a.html", "a.HTM", "a.svg", "a.xml", "a.xsl", "a.xhtml", "a.xht", "a.js", "a.mjs"]


@pytest.mark.parametrize("name", ACTIVE_NAMES)
@pytest.mark.parametrize(
    ("method", "more"), [("GET", {}), ("GET", {"range": "bytes=0-1"}), ("HEAD", {})]
)
def test_what_could_run_scripts_is_offered_to_be_saved(
    name: str, method: str, more: dict[str, str]
) -> None:
    wanted = accepted(method, b"/a/" + name.encode(), more)
    answer = protocol.read(wanted, FILE, OPEN)
    assert header(answer, "Content-Disposition") == "attachment"
    assert header(answer, "Content-Security-Policy") == "default-src 'none'; sandbox"
    shown = protocol.read(wanted, FILE, Rules(active=True))
    assert {name for name, _ in shown.headers}.isdisjoint(
        {"Content-Disposition", "Content-Security-Policy"}
    )


@pytest.mark.parametrize("name", ["a.jpg", "a.pdf", "a.txt", "a.css", "a.unknown", "html"])
def test_what_runs_no_scripts_is_shown(name: str) -> None:
    answer = protocol.read(accepted("GET", f"/{name}".encode()), FILE, OPEN)
    assert "Content-Disposition" not in dict(answer.headers)


# Private files


def read_with(query: str, *, token: str = "", now: float = 50.0) -> int:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    request = Request("GET", b"/a%20b.txt", headers, query=query.encode(), now=now)
    try:
        protocol.accept(request, Rules("t", secret="s", prefix="/media"))
    except protocol.Refused as error:
        return error.answer.status
    return 200


def test_a_private_file_needs_a_signed_url_or_the_token() -> None:
    query = sign("/media/a b.txt", 100, "s")
    assert read_with(query) == 200
    assert read_with(query, now=100.0) == 410
    assert read_with(sign("/a b.txt", 100, "s")) == 403
    assert read_with("") == 403
    assert read_with("", token="wrong") == 403
    assert read_with("", token="t") == 200


def test_without_a_token_there_is_only_the_signature() -> None:
    rules = Rules(secret="s")
    signed = Request("GET", b"/a", {}, query=sign("/a", 100, "s").encode(), now=1.0)
    assert protocol.accept(signed, rules).parts == ("a",)
    with pytest.raises(protocol.Refused):
        protocol.accept(Request("GET", b"/a", {"authorization": "Bearer t"}), rules)


# --- listings


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        (b"/.outgrow/list/", ()),
        (b"/.outgrow/list/a/b/", ("a", "b")),
        (b"/.outgrow/list/a/b%20c", ("a", "b c")),
        (b"/.outgrow/list/?x", ()),
    ],
)
def test_a_listing_of_a_folder(target: bytes, parts: tuple[str, ...]) -> None:
    wanted = accept("GET", target)
    assert isinstance(wanted, Wanted)
    assert (wanted.method, wanted.parts) == ("LIST", parts)
    assert isinstance(head := accept("HEAD", target), Wanted)
    assert head.method == "HEAD LIST"


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("PUT", b"/.outgrow/list/", 405),
        ("DELETE", b"/.outgrow/list/a", 405),
        ("GET", b"/.outgrow/list", 400),
        ("GET", b"/.outgrow/list/..", 400),
        ("GET", b"/.outgrow/list/a/../../b", 400),
        ("GET", b"/.outgrow/list/.outgrow-gone", 400),
    ],
)
def test_what_is_no_listing(method: str, target: bytes, status: int) -> None:
    answer = accept(method, target)
    assert isinstance(answer, Answer)
    assert answer.status == status


def test_a_listing_is_for_those_who_may_write() -> None:
    target = b"/.outgrow/list/"
    answer = accept("GET", target, rules=Rules(token="secret"))
    assert isinstance(answer, Answer)
    assert answer.status == 401
    right = {"authorization": "Bearer secret"}
    assert isinstance(accept("GET", target, right, rules=Rules(token="secret")), Wanted)
    # Without a token, a page whose name was made to point here must not read it either.
    rebound = accept("GET", target, {"host": "evil.example"})
    assert isinstance(rebound, Answer)
    assert rebound.status == 421


@pytest.mark.parametrize(
    ("value", "wanted"), [("", False), ("sha-256=1", True), ("SHA-256=10, md5=1", True)]
)
def test_digests_in_a_listing_are_asked_for(value: str, *, wanted: bool) -> None:
    listing = accept("GET", b"/.outgrow/list/", {"want-repr-digest": value})
    assert isinstance(listing, Wanted)
    assert protocol.wants_digests(listing) is wanted
    assert header(protocol.listed(), "Content-Type") == "application/x-ndjson"
