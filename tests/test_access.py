"""TLS with real sockets: who believes whom, and what is said when one side does not."""

from __future__ import annotations

import os
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from outgrow import fanout
from outgrow.access import Access, NoCredentials, refusal
from outgrow.download import Download
from outgrow.errors import ConfigurationError, NoAccess, ServerError
from outgrow.http import FileBody, Pool, Request
from outgrow.servers import Server
from tests.raw import Peer, RawServer, answer, answering

YESTERDAY = datetime.now(UTC) - timedelta(days=1)
TOMORROW = datetime.now(UTC) + timedelta(days=1)
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


class Files:
    """Certificates as files, as the options of a storage have them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.ca = self.write("ca.pem", self.authority.cert_pem.bytes())

    def write(self, name: str, content: bytes) -> str:
        (self.folder / name).write_bytes(content)
        return str(self.folder / name)

    def pair(self, cert: trustme.LeafCert, name: str = "own") -> dict[str, str]:
        return {
            "certificate": self.write(f"{name}.pem", cert.cert_chain_pems[0].bytes()),
            "key": self.write(f"{name}-key.pem", cert.private_key_pem.bytes()),
        }


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def serving(cert: trustme.LeafCert, asks: trustme.CA | None = None) -> ssl.SSLContext:
    """A server with this certificate, which may want one of its client by an authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    cert.configure_cert(context)
    if asks is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        asks.configure_trust(context)
    return context


def put(url: str, access: Access, body: bytes | FileBody = b"hello") -> ServerError | None:
    """Send one file; the error, which must be one that says that nothing was done."""
    server = Server("media1", url)
    request = Request("PUT", "a", frozenset({201}), body=body)
    pool = Pool(access=access)
    outcome = fanout.run(pool, {server: request}, need=1, deadline=time.monotonic() + 10)
    pool.close()
    assert not outcome.unknown
    return outcome.failed.get(server)


def get(url: str, access: Access) -> ServerError | None:
    request = Request("GET", "a", frozenset({200}))
    with Download(Pool(access=access), Server("media1", url), request) as download:
        try:
            download.open()
        except ServerError as error:
            return error
    return None


# --- the server's certificate

Issue = Callable[[trustme.CA], trustme.LeafCert]

SERVERS: list[tuple[str, Issue, str]] = [
    (
        "expired",
        lambda authority: authority.issue_cert("127.0.0.1", not_after=YESTERDAY),
        "certificate has expired (renew it on that server)",
    ),
    (
        "not yet valid",
        lambda authority: authority.issue_cert(
            "127.0.0.1", not_before=TOMORROW, not_after=TOMORROW + timedelta(days=1)
        ),
        "compare the clocks of both machines",
    ),
    (
        "another address",
        lambda authority: authority.issue_cert("10.9.8.7"),
        "write the name that the certificate is for in 'servers'",
    ),
    (
        "another name",
        lambda authority: authority.issue_cert("media9.example"),
        "write the name that the certificate is for in 'servers'",
    ),
    (
        "another authority",
        lambda _: trustme.CA().issue_cert("127.0.0.1"),
        "its authority is not known here: set the option 'ca'",
    ),
]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("ask", [put, get])
@pytest.mark.parametrize(("issue", "phrase"), [(i, p) for _, i, p in SERVERS])
def test_a_certificate_that_is_not_right(files, issue, phrase, version, ask) -> None:
    context = serving(issue(files.authority))
    context.minimum_version = context.maximum_version = version
    with RawServer(answering(answer(201)), context=context) as server:
        error = ask(server.url, Access(files.ca))
        assert isinstance(error, NoAccess)
        assert "media1: its certificate is not accepted" in str(error)
        assert phrase in str(error)
        assert server.log == []


def test_no_option_and_no_environment_turns_verification_off(files, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONHTTPSVERIFY", "0")
    context = Access(files.ca).context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_with_an_authority_of_ones_own_no_other_is_believed(files) -> None:
    known = Access(files.ca).context().get_ca_certs()
    assert [one["serialNumber"] for one in known] != []
    assert len(known) == 1


@pytest.mark.parametrize("ask", [put, get])
def test_what_answers_there_does_not_speak_tls(files, ask) -> None:
    with RawServer(lambda peer: peer.send(answer(400))) as server:
        error = ask(server.url.replace("http:", "https:"), Access(files.ca))
    assert "does not speak TLS (is it http://?)" in str(error)


# --- ours

CLIENTS: list[tuple[str, Callable[[Files], dict[str, str]], str]] = [
    ("none", lambda _: {}, "set the options 'certificate' and 'key'"),
    (
        "of another authority",
        lambda files: files.pair(trustme.CA().issue_cert("app1.example")),
        "it does not know the authority of our certificate",
    ),
    (
        "expired",
        lambda files: files.pair(files.authority.issue_cert("app1.example", not_after=YESTERDAY)),
        "it says that our certificate has expired: renew 'certificate'",
    ),
]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("ask", [put, get])
@pytest.mark.parametrize(("own", "phrase"), [(o, p) for _, o, p in CLIENTS])
def test_a_server_that_does_not_accept_ours(files, own, phrase, version, ask) -> None:
    """Nothing was carried out, though TLS 1.3 lets the request go before the refusal."""
    context = serving(files.authority.issue_cert("127.0.0.1"), asks=files.authority)
    context.minimum_version = context.maximum_version = version
    with RawServer(answering(answer(201)), context=context) as server:
        error = ask(server.url, Access(files.ca, **own(files)))
        assert isinstance(error, NoAccess)
        assert phrase in str(error)
        assert server.log == []


def test_a_refusal_ends_a_large_upload(files, tmp_path) -> None:
    context = serving(files.authority.issue_cert("127.0.0.1"), asks=files.authority)
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 1 << 26)
    with (
        RawServer(answering(answer(201)), context=context, buffer=65536) as server,
        (tmp_path / "large").open("rb") as file,
    ):
        error = put(server.url, Access(files.ca), FileBody(file.fileno(), 1 << 26))
    assert "set the options 'certificate' and 'key'" in str(error)


def test_who_has_the_right_one_gets_in(files) -> None:
    context = serving(files.authority.issue_cert("127.0.0.1"), asks=files.authority)
    own = files.pair(files.authority.issue_cert("app1.example"))
    both = files.write("both.pem", b"".join(Path(file).read_bytes() for file in own.values()))
    with RawServer(answering(answer(201)), context=context) as server:
        assert put(server.url, Access(files.ca, **own)) is None
        assert put(server.url, Access(files.ca, certificate=both)) is None


def test_connections_with_other_certificates_are_never_shared(files) -> None:
    """Two storages, one server: it sees each under its own name, on its own connection."""
    context = serving(files.authority.issue_cert("127.0.0.1"), asks=files.authority)
    seen: list[object] = []

    def behave(peer: Peer) -> None:
        assert isinstance(peer.stream, ssl.SSLSocket)
        while True:
            peer.request()
            found = peer.stream.getpeercert()
            seen.append(found and found["subjectAltName"])
            peer.send(answer(201))

    owns = [
        Access(files.ca, **files.pair(files.authority.issue_cert(f"app{n}.example"), f"app{n}"))
        for n in (1, 2)
    ]
    request = Request("PUT", "a", frozenset({201}), body=b"x")
    with RawServer(behave, context=context) as server:
        pools = [Pool(access=one) for one in owns]
        for pool in pools * 3:
            until = time.monotonic() + 5
            assert fanout.run(pool, {server.server: request}, need=1, deadline=until).done
        assert server.connections == 2
    assert seen == [(("DNS", "app1.example"),), (("DNS", "app2.example"),)] * 3


def test_threads_share_one_context(files) -> None:
    context = serving(files.authority.issue_cert("127.0.0.1"))
    errors: list[object] = []
    with RawServer(answering(answer(201)), context=context) as server:
        access = Access(files.ca)
        threads = [
            threading.Thread(target=lambda: errors.append(put(server.url, access)))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert errors == [None] * 8


def test_a_child_makes_connections_of_its_own(files) -> None:
    context = serving(files.authority.issue_cert("127.0.0.1"))
    request = Request("PUT", "a", frozenset({201}), body=b"x")
    with RawServer(answering(answer(201)), context=context) as server:
        pool = Pool(access=Access(files.ca))

        def send() -> bool:
            until = time.monotonic() + 5
            return bool(fanout.run(pool, {server.server: request}, need=1, deadline=until).done)

        assert send()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 0 if send() else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert send()
        # The parent's first connection is still its own.
        assert server.connections == 2


# --- files


def encrypted(files: Files) -> dict[str, str]:
    own = files.pair(files.authority.issue_cert("app1.example"))
    words = ["openssl", "pkey", "-aes128", "-passout", "pass:x", "-in", own["key"]]
    done = subprocess.run(words, capture_output=True, check=True, stdin=subprocess.DEVNULL)
    return own | {"key": files.write("locked.pem", done.stdout)}


def mismatched(files: Files) -> dict[str, str]:
    own = files.pair(files.authority.issue_cert("app1.example"))
    return own | {"key": files.pair(files.authority.issue_cert("x.example"), "x")["key"]}


BAD: list[tuple[Callable[[Files], dict[str, str]], str, str]] = [
    (lambda f: {"ca": f"{f.folder}/none.pem"}, "ca", "none.pem: No such file"),
    (lambda f: {"ca": str(f.folder)}, "ca", "Is a directory"),
    (lambda f: {"ca": f.write("x.pem", b"\xff\x00")}, "ca", "holds no certificate"),
    (
        lambda f: {
            "ca": f.write("x.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----")
        },
        "ca",
        "holds a certificate that is damaged",
    ),
    (lambda f: {"certificate": f"{f.folder}/none.pem"}, "certificate", "none.pem: No such file"),
    (lambda f: {"certificate": f.ca}, "certificate", "holds no private key"),
    (lambda f: {"certificate": f.ca, "key": f.ca}, "key", "holds no private key"),
    (lambda f: {"certificate": f.ca, "key": f"{f.folder}/none"}, "key", "none: No such file"),
    (mismatched, "key", "does not fit the certificate"),
    (encrypted, "key", "is protected by a passphrase"),
]


@pytest.mark.parametrize(("make", "option", "problem"), BAD)
def test_a_file_that_can_not_be_used(files, make, option, problem) -> None:
    access = Access(**make(files))
    with pytest.raises(ConfigurationError) as caught:
        access.context()
    assert caught.value.path == option
    assert problem in caught.value.problem
    assert caught.value.hint
    # It is that server's error, and it does not sound as if the server were down.
    error = put("https://127.0.0.1:1", access)
    assert "media1: no connection" in str(error)


@pytest.mark.parametrize("ask", [put, get])
def test_such_a_file_is_that_servers_error(files, ask) -> None:
    context = serving(files.authority.issue_cert("127.0.0.1"))
    with RawServer(answering(answer(201)), context=context) as server:
        error = ask(server.url, Access(f"{files.folder}/none.pem"))
    assert isinstance(error, NoAccess)
    assert "media1: ca: " in str(error)
    assert "is it running" not in str(error)


@pytest.fixture
def renewed(files) -> Iterator[tuple[Callable[[], ServerError | None], dict[str, str], Files]]:
    context = serving(files.authority.issue_cert("127.0.0.1"), asks=files.authority)
    own = files.pair(files.authority.issue_cert("app1.example", not_after=YESTERDAY))
    with RawServer(answering(answer(201)), context=context) as server:
        yield lambda: put(server.url, Access(files.ca, **own)), own, files


def test_renewed_files_are_used_without_a_restart(renewed) -> None:
    send, _, files = renewed
    assert "our certificate has expired" in str(send())
    files.pair(files.authority.issue_cert("app1.example"))
    assert send() is None


def test_half_renewed_files_do_not_stop_anything(renewed) -> None:
    send, own, files = renewed
    files.pair(files.authority.issue_cert("app1.example"))
    assert send() is None
    old = Path(own["key"]).read_bytes()
    files.pair(files.authority.issue_cert("app1.example"))
    new = Path(own["key"]).read_bytes()
    files.write("own-key.pem", old)
    assert send() is None
    Path(own["key"]).unlink()
    assert send() is None
    files.write("own-key.pem", new)
    assert send() is None


# --- what is said


def test_other_errors_are_no_refusals() -> None:
    closed = ssl.SSLEOFError(8, "EOF occurred")
    for error in (None, OSError("x"), closed, ssl.SSLError("x")):
        assert refusal(error, has_certificate=False) == ""


def test_a_handshake_that_fails_for_other_reasons_is_not_blamed_on_the_client() -> None:
    error = ssl.SSLError(1, "[SSL: SSLV3_ALERT_HANDSHAKE_FAILURE] sslv3 alert")
    error.reason = "SSLV3_ALERT_HANDSHAKE_FAILURE"
    assert "set the options" in refusal(error, has_certificate=False)
    assert refusal(error, has_certificate=True) == ""


def test_what_a_vault_says_is_in_no_traceback() -> None:
    def vault(server: str) -> str:
        raise LookupError("hunter2")

    with pytest.raises(NoCredentials) as caught:
        Access(authorize=vault).authorization("media1")
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert "LookupError" in str(caught.value)


@pytest.mark.parametrize("value", ["Basic x\r\nEvil: 1", "Bearer é", "Bearer \0", " Bearer x"])
def test_credentials_that_would_break_the_request(value) -> None:
    with pytest.raises(NoCredentials) as caught:
        Access(authorize=lambda _: value).authorization("media1")
    assert value not in str(caught.value)


JUNK = {
    "plain text": b"HTTP/1.1 502 Bad Gateway\r\n\r\n",
    "a record that is too long": b"\x17\x03\x03\xff\xff" + b"j" * 32,
    "a record with a wrong sum": b"\x17\x03\x03\x00\x20" + b"j" * 32,
    "an alert in plain text": b"\x15\x03\x03\x00\x02\x02\x2a",
}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("junk", JUNK)
def test_what_breaks_behind_the_handshake_says_nothing_of_the_request(
    tmp_path: Path, version: ssl.TLSVersion, junk: str
) -> None:
    """The whole PUT was taken in, and then a proxy died: the file may well be stored."""
    files = Files(tmp_path)
    context = serving(files.authority.issue_cert("127.0.0.1"))
    context.minimum_version = context.maximum_version = version
    taken = []

    def behave(peer: Peer) -> None:
        taken.append(peer.request()[1])
        os.write(peer.stream.fileno(), JUNK[junk])
        peer.stream.recv(1)  # until the client has had enough

    with RawServer(behave, context=context) as raw:
        server, pool = Server("m", raw.url), Pool(access=Access(files.ca))
        put = Request("PUT", "a", frozenset({201}), body=b"hello")
        outcome = fanout.run(pool, {server: put}, need=1, deadline=time.monotonic() + 5)
        pool.close()
    assert taken == [b"hello"]
    assert server in outcome.unknown, outcome.failed
