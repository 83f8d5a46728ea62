"""TLS and credentials: who is believed, what is said, and what is never shown."""

from __future__ import annotations

import base64
import logging
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.test import override_settings

from outgrow.checks import check_media
from outgrow.errors import NotEnoughServers, ServerError
from outgrow.media import AsyncStorage, DistributedStorage, HybridStorage
from outgrow.names import MASTER_ID_FILE
from outgrow.status import snapshot_of
from outgrow.testing import MediaServer
from tests.raw import Peer, RawServer, answer

SECRETS = ("hunter2", "correct horse", "tok3n", "s1gned", "br0ker")


def vault(server: str) -> str:
    """Credentials from elsewhere, by the name of a server."""
    return {"media1": "outgrow:hunter2", "media2": "tok3n"}[server]


def behave(peer: Peer) -> None:
    """Answer everything as a server would that has nothing yet."""
    held: dict[str, bytes] = {}
    while True:
        head, body = peer.request()
        method, path, _ = head.split(b" ", 2)
        name = path.decode().rpartition("/")[2]
        if method == b"PUT":
            held[name] = body
            peer.send(answer(201))
        elif method == b"GET" and name in held:
            peer.send(answer(200, body=held[name]))
        else:
            peer.send(answer(204 if method == b"DELETE" else 404))


# --- credentials


def authorization(head: bytes) -> str:
    lines = head.decode().split("\r\n")
    return next((line for line in lines if line.lower().startswith("authorization:")), "")


def basic(secret: str) -> str:
    return f"Authorization: Basic {base64.b64encode(secret.encode()).decode()}"


@pytest.mark.parametrize(
    ("url", "options", "expected"),
    [
        ("http://user:hunter2@{host}", {}, basic("user:hunter2")),
        ("http://us%40er:p%2F%3A%C3%BC@{host}/x/", {}, basic("us@er:p/:ü")),
        (
            "http://{host}",
            {"credentials": {"media1": "user:correct horse"}},
            basic("user:correct horse"),
        ),
        ("http://{host}", {"credentials": {"media1": "tok3n"}}, "Authorization: Bearer tok3n"),
        (
            "http://{host}",
            {"credentials": {"other": "x:y"}, "token": "tok3n"},
            "Authorization: Bearer tok3n",
        ),
        ("http://{host}", {"credentials": vault}, basic("outgrow:hunter2")),
        ("http://{host}", {"credentials": f"{__name__}.vault"}, basic("outgrow:hunter2")),
        ("http://{host}", {"token": "tok3n"}, "Authorization: Bearer tok3n"),
        ("http://{host}", {}, ""),
    ],
)
def test_each_server_is_told_its_own(tmp_path, url, options, expected):
    with RawServer(behave) as server:
        given = {"media1": url.format(host=f"127.0.0.1:{server.port}")}
        storage = HybridStorage(location=tmp_path, servers=given, **options)
        storage.delete(storage.save("f.txt", ContentFile(b"x")))
        assert len(server.log) >= 4
        assert {authorization(head) for head in server.log} == {expected}


@pytest.mark.parametrize(
    ("servers", "options", "problem"),
    [
        ({"a": "http://user@host/"}, {}, "no user and password before it"),
        ({"a": "http://us:er:x@ho@st/"}, {}, "no user and password before it"),
        ({"a": "http://user:x%0d%0aEvil@host/"}, {}, "printable characters"),
        ({"a": "http://host/"}, {"credentials": {"a": "x\r\ny"}}, "printable characters"),
        ({"a": "http://host/"}, {"credentials": {"a": "täken"}}, "printable characters"),
        ({"a": "http://host/"}, {"credentials": {"a": ""}}, "printable characters"),
        ({"a": "http://host/"}, {"credentials": 3}, "neither a mapping nor a function"),
        ({"a": "http://u:p@host/"}, {"credentials": vault}, "Leave them out of the URLs"),
        ({"a": "http://host/"}, {"key": "/k.pem"}, "has no certificate"),
        ({"a": "http://host/"}, {"ca": "relative.pem"}, "the whole path of a file"),
    ],
)
def test_what_is_wrong_is_told_at_once(servers, options, problem):
    with pytest.raises(ImproperlyConfigured, match=problem):
        HybridStorage(servers=servers, **options)


@pytest.mark.django_db(transaction=True, databases=["default", "outgrow"])
@pytest.mark.parametrize("kind", [HybridStorage, AsyncStorage, DistributedStorage])
def test_secrets_are_never_shown(tmp_path, caplog, kind):
    options = {
        "servers": {"media1": "http://user:hunter2@127.0.0.1:9/", "media2": "http://127.0.0.1:10"},
        "credentials": {"media2": "user:correct horse"},
        "token": "tok3n",
        "secret": "s1gned",
        "show_traceback": True,
    }
    if kind is not DistributedStorage:
        options["location"] = str(tmp_path)
    if kind is AsyncStorage:
        options |= {"background": "rq", "broker": "redis://:br0ker@127.0.0.1:9/0"}
    entry = {"BACKEND": f"outgrow.media.{kind.__name__}", "OPTIONS": options}
    with override_settings(STORAGES={"default": entry}), caplog.at_level(logging.DEBUG):
        storage = storages["default"]
        shown = [repr(storage), repr(storage.options), repr(storage.access), storage.deconstruct()]
        shown += [repr(storage.options.servers), repr(storage.transport)]
        shown.append(str(storage.transport.servers))
        if kind is AsyncStorage:
            storage.save("f.txt", ContentFile(b"x"))
            assert "no job could be queued" in caplog.text
        else:
            with pytest.raises(NotEnoughServers) as raised:
                storage.save("f.txt", ContentFile(b"x"))
            shown += [str(raised.value), repr(raised.value)]
        shown.append(snapshot_of("default", storage, probe=True).to_json())
        shown += map(str, check_media())
    shown += [logging.Formatter().format(record) for record in caplog.records]
    with pytest.raises(ImproperlyConfigured) as wrong:
        kind(**(options | {"nead": 1, "timeout": -1}))
    shown.append(str(wrong.value))
    text = " ".join(map(str, shown))
    assert not [secret for secret in SECRETS if secret in text]
    assert base64.b64encode(b"user:hunter2").decode() not in text


# --- TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca(authority, tmp_path) -> str:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return str(tmp_path / "ca.pem")


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    return context


def save_over(context: ssl.SSLContext, folder: Path, **options) -> ServerError | None:
    """Save one file on a server with TLS; its error, if it did not take it."""
    with RawServer(behave, context=context) as server:
        url = f"https://127.0.0.1:{server.port}"
        storage = HybridStorage(location=folder / "master", servers={"media1": url}, **options)
        try:
            storage.save("f.txt", ContentFile(b"x"))
        except NotEnoughServers as error:
            return error.missed["media1"]
    return None


def test_an_authority_of_ones_own_is_believed(authority, ca, tmp_path):
    context = server_context(authority.issue_cert("127.0.0.1"))
    assert save_over(context, tmp_path, ca=ca) is None


def expired(authority: trustme.CA) -> trustme.LeafCert:
    from datetime import UTC, datetime, timedelta

    return authority.issue_cert("127.0.0.1", not_after=datetime.now(UTC) - timedelta(days=1))


@pytest.mark.parametrize(
    ("certificate", "problem"),
    [
        (lambda _: trustme.CA().issue_cert("127.0.0.1"), "unable to get local issuer"),
        (lambda authority: authority.issue_cert("media9.example"), "IP address mismatch"),
        (expired, "certificate has expired"),
    ],
)
def test_a_certificate_that_is_not_right_is_refused(authority, ca, tmp_path, certificate, problem):
    error = save_over(server_context(certificate(authority)), tmp_path, ca=ca)
    assert "its certificate is not accepted" in str(error)
    assert problem in str(error)


def test_the_systems_authorities_do_not_know_ours(authority, tmp_path):
    error = save_over(server_context(authority.issue_cert("127.0.0.1")), tmp_path)
    assert "its certificate is not accepted" in str(error)


def test_a_server_may_want_to_know_its_client(authority, ca, tmp_path):
    context = server_context(authority.issue_cert("127.0.0.1"))
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    own = authority.issue_cert("app1.example")
    own.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    own.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    ours = {"certificate": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}
    assert save_over(context, tmp_path, ca=ca, **ours) is None
    assert save_over(context, tmp_path / "without", ca=ca) is not None


def test_storages_with_other_certificates_share_nothing(authority, ca, tmp_path):
    with RawServer(behave, context=server_context(authority.issue_cert("127.0.0.1"))) as server:
        servers = {"media1": f"https://127.0.0.1:{server.port}"}
        knows = HybridStorage(location=tmp_path / "a", servers=servers, ca=ca)
        knows.save("f.txt", ContentFile(b"x"))
        does_not = HybridStorage(location=tmp_path / "b", servers=servers)
        with pytest.raises(NotEnoughServers, match="certificate is not accepted"):
            does_not.save("f.txt", ContentFile(b"x"))


def check(**options) -> list[CheckMessage]:
    given = {"servers": ["https://a:1"]} | options
    media = {"BACKEND": "outgrow.media.HybridStorage", "OPTIONS": given}
    with override_settings(STORAGES={"default": media}, MEDIA_ROOT="/srv/media"):
        return check_media()


def test_files_that_are_no_certificates_are_found_by_the_check(ca, tmp_path):
    assert check(ca=ca) == []
    (tmp_path / "nonsense.pem").write_text("nonsense")
    for file in ("nonsense.pem", "missing.pem"):
        (found,) = check(ca=str(tmp_path / file))
        assert found.id == "outgrow.E006"
        assert file in found.msg


def test_a_file_that_went_missing_is_that_servers_error(tmp_path):
    context = server_context(trustme.CA().issue_cert("127.0.0.1"))
    error = save_over(context, tmp_path, ca=str(tmp_path / "missing.pem"))
    assert "missing.pem: No such file or directory" in str(error)
    assert "is it running" not in str(error)


# --- trouble of other kinds


@pytest.fixture
def media(tmp_path) -> Iterator[tuple[HybridStorage, MediaServer]]:
    with MediaServer() as server:
        storage = HybridStorage(
            location=tmp_path, servers={"media1": server.url}, timeout=0.5, downtime=0.01
        )
        storage.save("first.txt", ContentFile(b"x"))
        yield storage, server


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (301, "a redirect to"),
        (401, "it wants other credentials"),
        (403, "does not let this machine write"),
        (405, "does not allow PUT"),
        (413, "limits the size of bodies"),
        (429, "429"),
        (500, "500"),
        (503, "503"),
        (507, "its disk is full"),
    ],
)
def test_an_answer_of_trouble_names_the_server_and_leaves_nothing(media, status, text):
    storage, server = media
    time.sleep(0.02)
    server.answer_with(status, method="PUT")
    with pytest.raises(NotEnoughServers, match=f"media1: .*{text}"):
        storage.save("f.txt", ContentFile(b"x"))
    assert len(server.files.keys() - {MASTER_ID_FILE}) == 1
    assert len(storage.listdir("")[1]) == 1


def test_a_name_that_has_no_address(tmp_path):
    storage = HybridStorage(location=tmp_path, servers={"media1": "http://nowhere.invalid:1"})
    with pytest.raises(NotEnoughServers, match="has no address"):
        storage.save("f.txt", ContentFile(b"x"))
