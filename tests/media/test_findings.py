"""What the answers to `media probe` mean: values in, findings out."""

from __future__ import annotations

import json

import pytest

from outgrow.answer import Response
from outgrow.errors import (
    AnotherMaster,
    ConnectFailed,
    ConnectionLost,
    ForeignServer,
    OutOfTime,
    TimedOut,
    UnexpectedStatus,
)
from outgrow.findings import Finding, Result
from outgrow.media import findings, transport
from outgrow.media.findings import RoundTrip, Sent, Subject
from outgrow.media.listing import OWN_TYPE
from outgrow.media.remedies import Kind, recognise, remedy

NGINX = Subject("media1", Kind.NGINX)
KEEP = Subject("media1", Kind.NGINX, keep=True)
OK, NOTE, WARNING, BAD = Result.OK, Result.NOTE, Result.WARNING, Result.BAD


def answer(status: int, body: bytes = b"", **headers: str) -> Response:
    return Response(status, {key.replace("_", "-"): text for key, text in headers.items()}, body)


def test_success_is_what_the_transport_takes_for_it():
    assert findings.PUT_DONE == transport.PUT_DONE
    assert findings.DELETE_DONE == transport.DELETE_DONE


# --- which program it is


@pytest.mark.parametrize(
    ("missing", "kind"),
    [
        (answer(404, server="nginx/1.22.1"), Kind.NGINX),
        (answer(404, server="nginx"), Kind.NGINX),
        (answer(404, server="Apache/2.4.71 (Debian)"), Kind.APACHE),
        (answer(404, server="lighttpd/1.4.69"), Kind.LIGHTTPD),
        (answer(404, b"Not Found: there is nothing at this name\n"), Kind.OWN),
        (
            answer(404, b"Not Found: there is nothing at this name\n", server="Caddy"),
            Kind.UNKNOWN,
        ),
        (answer(404, b"Not Found"), Kind.UNKNOWN),
        (answer(404, server="my nginx"), Kind.UNKNOWN),
    ],
)
def test_the_program_is_known_by_its_answer(missing, kind):
    assert recognise(missing) is kind


def test_a_remedy_is_for_the_program_or_for_each():
    assert remedy("body", Kind.NGINX) == "client_max_body_size 0;"
    assert remedy("if-none-match", Kind.APACHE) == ""
    assert remedy("nothing", Kind.UNKNOWN) == ""
    lines = remedy("body", Kind.UNKNOWN).splitlines()
    assert lines[:2] == ["nginx: client_max_body_size 0;", "Apache: LimitRequestBody 0"]
    assert len(lines) == 4


# --- whether it can be probed


@pytest.mark.parametrize(
    ("error", "check", "remedy"),
    [
        (ConnectFailed("media1", "no connection"), "answers", "is it running"),
        (UnexpectedStatus("media1", 401, "answered GET with 401"), "answers", ""),
        (ForeignServer("media1", "lost its id"), "identity", ""),
        (AnotherMaster("media1", "belongs to another"), "identity", ""),
    ],
)
def test_a_server_that_can_not_be_probed(error, check, remedy):
    found = findings.unreachable("media1", error)
    assert (found.check, found.result, found.seen) == (check, BAD, error.reason)
    assert "written" in found.meaning or "not probed" in found.meaning
    assert found.remedy.startswith(remedy)
    assert findings.silent("media1", error).check == "answers"


def test_whose_it_is():
    assert findings.identity(NGINX, answer(200)).result is OK
    new = findings.identity(NGINX, answer(404))
    assert (new.result, "It is new" in new.meaning) == (NOTE, True)


@pytest.mark.parametrize(("status", "result"), [(404, OK), (410, OK), (200, BAD), (403, BAD)])
def test_a_missing_file_must_be_missing(status, result):
    assert findings.missing(NGINX, answer(status)).result is result


# --- writing


def test_folders_are_made_by_the_server_or_by_mkcol():
    assert findings.folders(NGINX, answer(201)).result is OK
    asked = findings.folders(NGINX, answer(409), answer(201), answer(201))
    assert (asked.result, "MKCOL: 201" in asked.seen) == (OK, True)
    otherwise = findings.folders(NGINX, answer(500), answer(201), answer(201))
    assert (otherwise.result, "where 409 says" in otherwise.meaning) == (BAD, True)
    never = findings.folders(NGINX, answer(409), answer(405), answer(409))
    assert (never.result, never.remedy) == (BAD, "create_full_put_path on;")


@pytest.mark.parametrize("status", [401, 403, 405, 413, 500, 507])
def test_a_refused_put_is_bad_whichever_check_it_was(status):
    for found in (
        findings.folders(NGINX, answer(status)),
        findings.stored(NGINX, answer(status), answer(404), b"x"),
        findings.overwrite(NGINX, answer(status), answer(200), b"x"),
        findings.bodies(NGINX, [Sent(1 << 20, answer(status), 0.1)], 25),
    ):
        assert found.result is BAD
        assert str(status) in found.seen
        assert found.meaning


@pytest.mark.parametrize(
    ("got", "result"),
    [(answer(200, b"x"), OK), (answer(200, b"y"), BAD), (answer(404), BAD)],
)
def test_what_was_written_must_be_read(got, result):
    assert findings.stored(NGINX, answer(201), got, b"x").result is result
    assert findings.overwrite(NGINX, answer(204), got, b"x").result is result


def test_head_must_show_length_and_version():
    whole = {"content_length": "5", "etag": '"1"'}
    assert findings.stat(NGINX, answer(200, **whole), 5).seen.endswith("Content-Length, ETag")
    assert findings.stat(NGINX, answer(200, **whole), 6).result is BAD
    assert findings.stat(NGINX, answer(404, **whole), 5).result is BAD
    assert findings.stat(NGINX, answer(200), 5).result is BAD
    for subject, result in ((NGINX, NOTE), (KEEP, WARNING)):
        assert findings.stat(subject, answer(200, content_length="5"), 5).result is result


@pytest.mark.parametrize(("subject", "ignored"), [(NGINX, NOTE), (KEEP, WARNING)])
def test_conditions(subject, ignored):
    for judge in (findings.exclusive, findings.guarded):
        assert judge(subject, answer(412)).result is OK
        assert judge(subject, answer(204)).result is ignored
        unknown = judge(subject, answer(501))
        assert (unknown.result, "does not know" in unknown.meaning) == (ignored, True)
    assert "if (-e" in findings.exclusive(subject, answer(204)).remedy


def test_unusual_names():
    good = RoundTrip(answer(201), answer(200, b"a"), b"a")
    assert findings.names(NGINX, {"a b": good}).result is OK
    trips = {
        "a b": good,
        "refused": RoundTrip(answer(400), answer(404), b"a"),
        "lost": RoundTrip(answer(201), answer(404), b"a"),
        "mixed up": RoundTrip(answer(201), answer(200, b"b"), b"a"),
    }
    found = findings.names(NGINX, trips)
    assert found.result is BAD
    assert "a b" not in found.seen
    for text in ("PUT was answered with 400", "GET with 404", "content of another name"):
        assert text in found.seen


# --- bodies


def test_the_sizes_grow_to_what_was_asked_for():
    mega = 1 << 20
    assert list(findings.sizes(0)) == []
    assert list(findings.sizes(500)) == [500]
    assert list(findings.sizes(64 * mega)) == [mega, 8 * mega, 64 * mega]
    assert list(findings.sizes(300 * mega))[-2:] == [256 * mega, 300 * mega]


def test_bodies_that_are_taken():
    sent = [Sent(1 << 20, answer(201), 0.1), Sent(8 << 20, answer(204), 0.5)]
    found = findings.bodies(NGINX, sent, 25)
    assert (found.result, found.seen) == (OK, "1 MB in 0.10 s, 8 MB in 0.50 s (16 MB/s)")
    assert findings.bodies(NGINX, [Sent(100, answer(201), 0.0)], 25).seen.startswith("100 bytes")


def test_a_limit_is_told_with_its_remedy():
    sent = [Sent(1 << 20, answer(201), 0.1), Sent(8 << 20, answer(413), 0.0)]
    found = findings.bodies(NGINX, sent, 25)
    assert (found.result, found.remedy) == (BAD, "client_max_body_size 0;")
    assert found.seen == "1 MB in 0.10 s; 8 MB: 413"


@pytest.mark.parametrize("kind", [OutOfTime, ConnectionLost])
def test_a_body_without_an_answer(kind):
    sent = [Sent(2048, kind("media1", "was busy"), 25.0)]
    found = findings.bodies(NGINX, sent, 25)
    assert (found.result, found.seen) == (BAD, "2 KB: was busy")
    assert "25 s" in found.meaning


# --- reading


@pytest.mark.parametrize(
    ("got", "result"),
    [
        (answer(206, b"bcd", content_range="bytes 1-3/6"), OK),
        (answer(206, b"abc", content_range="bytes 1-3/6"), BAD),
        (answer(206, b"bcd", content_range="bytes 1-3/*"), BAD),
        (answer(206, b"bcd"), BAD),
        (answer(200, b"abcdef"), WARNING),
        (answer(416), WARNING),
    ],
)
def test_ranges(got, result):
    assert findings.ranged(NGINX, got, b"abcdef", 1, 3).result is result


@pytest.mark.parametrize(
    ("headers", "runs"),
    [
        ({"content_type": "text/html"}, True),
        ({"content_type": "Text/HTML; charset=utf-8"}, True),
        ({"content_type": "image/svg+xml"}, True),
        ({"content_type": "application/xhtml+xml"}, True),
        # A browser does not guess then, but HTML is what it was told.
        ({"content_type": "text/html", "x_content_type_options": "nosniff"}, True),
        ({}, True),
        ({"x_content_type_options": "NoSniff"}, False),
        ({"content_type": "unknown/unknown"}, True),
        ({"content_type": "text/plain"}, False),
        ({"content_type": "application/octet-stream"}, False),
        ({"content_type": "text/html", "content_disposition": "Attachment; filename=a"}, False),
        ({"content_type": "text/html", "content_disposition": "inline"}, True),
        ({"content_type": "text/html", "content_security_policy": "sandbox"}, False),
        (
            {
                "content_type": "text/html",
                "content_security_policy": "img-src 'none'; Sandbox;",
            },
            False,
        ),
        (
            {"content_type": "text/html", "content_security_policy": "sandbox allow-scripts"},
            True,
        ),
        ({"content_type": "text/html", "content_security_policy": "default-src 'none'"}, True),
    ],
)
def test_what_a_browser_runs(headers, runs):
    assert findings.runs(answer(200, **headers)) is runs
    assert findings.runs(answer(403, **headers)) is False
    found = findings.browser(NGINX, {".html": answer(200, **headers), ".svg": answer(404)})
    assert found.result is (WARNING if runs else OK)
    assert ("attachment" in found.remedy) is runs


@pytest.mark.parametrize(("status", "result"), [(200, BAD), (404, NOTE), (410, NOTE), (403, OK)])
def test_dotfiles(status, result):
    assert findings.dotfiles(NGINX, answer(status)).result is result


PROPFIND = b"<D:href>/outgrow-probe/%C3%BC.txt</D:href>"
AUTOINDEX = json.dumps([{"name": "ü.txt", "type": "file", "size": 3}]).encode()


@pytest.mark.parametrize(
    ("propfind", "page", "result"),
    [
        (answer(207, PROPFIND), answer(403), OK),
        (answer(207, b"<D:multistatus/>"), answer(403), NOTE),
        (answer(405), answer(200, AUTOINDEX), OK),
        (answer(405), answer(200, b"[]"), NOTE),
        (answer(405), answer(200, b"[3]"), NOTE),
        (answer(405), answer(200, b'{"name": "\xc3\xbc.txt"}'), NOTE),
        (answer(405), answer(200, b"<html>\xff</html>"), NOTE),
        (answer(405), answer(404), NOTE),
        (answer(405), answer(200, content_type=f"{OWN_TYPE}; charset=utf-8"), OK),
        (answer(405), answer(403, content_type=OWN_TYPE), NOTE),
    ],
)
def test_listings(propfind, page, result):
    assert findings.listing(NGINX, propfind, page, "ü.txt").result is result


# --- who may write


@pytest.mark.parametrize(
    ("reply", "result"),
    [
        (answer(201), BAD),
        (answer(401), OK),
        (answer(403), OK),
        (ConnectFailed("media1", "no TLS connection"), OK),
        (ConnectionLost("media1", "lost the connection"), OK),
        (TimedOut("media1", "no answer"), WARNING),
    ],
)
def test_a_put_without_credentials(reply, result):
    assert findings.anonymous(NGINX, reply).result is result


def test_addresses_can_not_be_told_from_here():
    assert "anybody may" in findings.addresses(NGINX, known=False).meaning
    assert "anybody who has the credentials" in findings.addresses(NGINX, known=True).meaning


# --- removing


def test_a_deleted_file_must_be_gone():
    assert findings.deleted(NGINX, answer(204), answer(404)).result is OK
    assert findings.deleted(NGINX, answer(204), answer(200)).result is BAD
    assert findings.deleted(NGINX, answer(405), answer(200)).result is BAD


@pytest.mark.parametrize(("status", "result"), [(204, OK), (404, OK), (410, OK), (500, BAD)])
def test_deleting_what_is_missing(status, result):
    assert findings.deleted_missing(NGINX, answer(status)).result is result


def test_folders_that_are_deleted_with_all_in_them():
    assert findings.deleted_folder(NGINX, answer(409), answer(200)).result is OK
    assert findings.deleted_folder(NGINX, answer(204), answer(404)).result is NOTE
    assert findings.deleted_folder(KEEP, answer(204), answer(404)).result is WARNING
    assert findings.no_folders(NGINX).result is OK


def test_what_could_not_be_removed():
    assert findings.left_behind("media1", (), (), ()) is None
    files = findings.left_behind("media1", {"f/b", "f/a"}, {"f"}, {"f/a"})
    assert files.seen == "files: f/a, f/b; empty folders: f"
    assert files.result is BAD
    folder = findings.left_behind("media1", (), {"f"}, ())
    assert (folder.result, folder.seen) == (WARNING, "empty folders: f")
    unsure = findings.left_behind("media1", (), (), {"f/a"})
    assert (unsure.result, unsure.seen) == (WARNING, "may still appear: f/a")


def test_a_finding_is_a_value():
    found = findings.identity(NGINX, answer(200))
    assert found == Finding("media1", "identity", OK, "it holds this master's id")
    with pytest.raises(AttributeError):
        found.seen = "x"
