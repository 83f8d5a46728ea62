"""`media probe` against real servers: as the documentation has them, and set up wrongly."""

from __future__ import annotations

import gc
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trustme

from outgrow.errors import ConnectFailed, UnsafeName
from outgrow.exchange import Limits
from outgrow.findings import Finding, Result
from outgrow.http import Access, Pool
from outgrow.media.probe import CHECKS, probe
from outgrow.media.visit import Setup, Visit
from outgrow.servers import Server
from outgrow.testing import MediaServer
from tests.contract.test_media_servers import embedded
from tests.live.nginx import Nginx, binary
from tests.live.processes import server_folder, wait_until
from tests.live.web_servers import Apache, Lighttpd, running
from tests.media.embedded import running as running_embedded
from tests.raw import takes
from tests.test_docs import nginx_of

OK, NOTE, WARNING, BAD = Result.OK, Result.NOTE, Result.WARNING, Result.BAD

#: Quick, and still more than one body: 1 MB and 1.5 MB.
SMALL = Setup(max_body=3 << 19)


@contextmanager
def nginx(*changes: tuple[str, str]) -> Iterator[Nginx]:
    """An nginx whose configuration has these texts replaced."""
    binary()
    with server_folder("outgrow-nginx-") as folder:
        server = Nginx(folder)
        for theirs, ours in changes:
            assert theirs in server._configuration
            server._configuration = server._configuration.replace(theirs, ours)
        try:
            server.start()
            yield server
        finally:
            server.stop()


def changed(kind, *changes: tuple[str, str]):
    """The same server with these texts of its configuration replaced."""
    places = {theirs: ours.replace("{", "{{").replace("}", "}}") for theirs, ours in changes}
    return type(kind.__name__, (kind,), {"places": {**kind.places, **places}})


LIMIT = ("client_max_body_size 0;", "client_max_body_size 1m;")
TYPES = ("text/plain txt;", "text/plain txt; text/html html; image/svg+xml svg;")


def below(*lines: str) -> tuple[str, str]:
    """Lines for the location."""
    return "min_delete_depth 1;", "\n".join(("min_delete_depth 1;", *lines))


def look(server, setup: Setup = SMALL, **more) -> dict[str, Finding]:
    """Every finding by its check; nothing may be left on the server's disk."""
    before = contents(server)
    found: list[Finding] = []
    probe(Server("media1", server.url), setup, found.append, **more)
    assert contents(server) == before
    assert {one.server for one in found} == {"media1"}
    by_check = {one.check: one for one in found}
    assert len(by_check) == len(found), "a check was told twice"
    return by_check


def contents(server) -> dict[str, bytes]:
    """Whatever is below the server's root, but for the deletions that it remembers."""
    return {name: _content(server.root / name) for name in held(server)}


def _content(path: Path) -> bytes:
    return b"" if path.is_dir() else path.read_bytes()


def held(server) -> set[str]:
    """The names below the root, folders with a slash; uploads come and go while this looks."""
    paths = {path.relative_to(server.root) for path in server.root.rglob("*")}
    folders = {path for path in paths if (server.root / path).is_dir()}
    own = {".outgrow-new/", ".outgrow-gone/"}
    names = {f"{path}{'/' * (path in folders)}" for path in paths} - own
    return {name for name in names if not name.startswith(".outgrow-gone/")}


def worse_than(found: dict[str, Finding], limit: Result) -> set[str]:
    order = list(Result)
    return {check for check, one in found.items() if order.index(one.result) > order.index(limit)}


# --- as the documentation has them


@contextmanager
def documented_nginx() -> Iterator[Nginx]:
    """The page's own blocks, on a machine whose nginx has all its types."""
    binary()
    page = Path(__file__).parents[2] / "docs/howto/media-servers.md"
    text = re.search(r"^```nginx\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    with server_folder("outgrow-nginx-") as folder:
        server = Nginx(folder)
        nginx_of(server, text[1])
        try:
            server.start()
            yield server
        finally:
            server.stop()


SERVERS = {
    "nginx": documented_nginx,
    "lighttpd": lambda: running(Lighttpd),
    "Apache": lambda: running(Apache),
    "our own": embedded,
}

#: What is worth a note, for each; all else is well.
NOTES = {
    "nginx": {"identity", "addresses", "if-none-match", "if-match"},
    "lighttpd": {"identity", "addresses", "delete-folder"},
    "Apache": {"identity", "addresses", "delete-folder"},
    "our own": {"identity", "addresses"},
}


@pytest.fixture(params=SERVERS)
def documented(request):
    with SERVERS[request.param]() as server:
        server.called = request.param
        yield server


def test_the_documented_servers_have_nothing_worse_than_notes(documented):
    found = look(documented)
    assert worse_than(found, NOTE) == set()
    assert worse_than(found, OK) == NOTES[documented.called]
    assert "left-behind" not in found
    # Without credentials there is none; without folders one less.
    assert len(found) == len(CHECKS) - (2 if documented.called == "our own" else 1)


def test_what_matters_for_names_that_are_used_again(documented):
    found = look(documented, Setup(max_body=0, keep=True))
    warned = {"nginx": {"if-none-match", "if-match"}, "our own": set()}
    assert worse_than(found, NOTE) == warned.get(documented.called, {"delete-folder"})
    assert "body" not in found


def test_a_server_below_a_path_has_only_its_own_folder_changed(documented):
    (documented.root / "uploads").mkdir()
    os.chmod(documented.root / "uploads", 0o777)
    documented.url += "/uploads"
    assert worse_than(look(documented), NOTE) == set()


def test_a_server_that_holds_the_id_is_no_news(documented):
    (documented.root / "outgrow-master-id.txt").write_text("0" * 32)
    assert look(documented)["identity"].result is OK


# --- set up wrongly, and mended with what the finding says


def mended(found: Finding) -> tuple[str, ...]:
    """The remedy's lines for nginx, without their comments."""
    assert found.remedy
    return tuple(line.partition("  # ")[0] for line in found.remedy.splitlines())


def test_nginx_that_limits_bodies():
    with nginx(LIMIT) as server:
        found = look(server)["body"]
        assert (found.result, found.seen.endswith("1.5 MB: 413")) == (BAD, True)
        assert found.seen.startswith("1 MB in ")
    with nginx((LIMIT[0], found.remedy)) as server:
        assert look(server)["body"].result is OK


FOLDERS = ("create_full_put_path on;", "create_full_put_path off;")
NO_MKCOL = ("dav_methods PUT DELETE MKCOL;", "dav_methods PUT DELETE;")


def test_nginx_that_makes_no_folders():
    with nginx(FOLDERS) as server:
        found = look(server)["folders"]
        # Measured: 500, not the 409 of which RFC 4918 speaks.
        assert found.seen == "PUT into a missing folder: 500, then MKCOL: 201, then PUT: 201"
        assert found.result is BAD
    with nginx(FOLDERS, NO_MKCOL) as server:
        found = look(server)
        assert found["folders"].result is BAD
        # Nothing that follows would mean anything.
        assert list(found) == ["missing", "identity", "folders"]
    with nginx((FOLDERS[0], found["folders"].remedy), NO_MKCOL) as server:
        assert worse_than(look(server), NOTE) == set()


def test_nginx_that_shows_uploads_as_pages():
    with nginx(TYPES) as server:
        found = look(server)["browser"]
        assert (found.result, found.seen) == (WARNING, ".html as text/html, .svg as image/svg+xml")
    in_http, in_location = mended(found)
    with nginx(
        TYPES, ("keepalive_timeout", f"{in_http} keepalive_timeout"), below(in_location)
    ) as s:
        assert look(s)["browser"].result is OK


def test_nginx_that_serves_the_master_s_own_folder():
    def fill(server: Nginx) -> None:
        (server.root / ".outgrow").mkdir()
        (server.root / ".outgrow" / "master").write_text("0" * 32)

    with nginx() as server:
        fill(server)
        found = look(server)["dotfiles"]
        assert found.result is BAD
    rule = ("        location / {", f"{found.remedy}\n        location / {{")
    with nginx(rule) as server:
        fill(server)
        assert look(server)["dotfiles"].result is OK


def test_nginx_that_ignores_conditions_can_be_taught_one():
    with nginx() as server:
        found = look(server, Setup(max_body=0, keep=True))["if-none-match"]
        assert found.result is WARNING
    with nginx(below(found.remedy)) as server:
        assert look(server)["if-none-match"].result is OK


def test_nginx_that_knows_no_ranges():
    with nginx(below("max_ranges 0;")) as server:
        assert look(server)["range"].result is WARNING


def test_nginx_that_lists_nothing():
    with nginx(("^~ /.outgrow/list/", "^~ /.another/list/")) as server:
        found = look(server)["listing"]
        assert found.result is NOTE
        mend = found.remedy.replace("/srv/copies", str(server.folder / "root"))
        mend = mend.replace("10.0.0.0/24", "127.0.0.1")
        server.stop()
        server._configuration = server._configuration.replace(
            "        location / {", f"        {mend}\n        location / {{"
        )
        server.start()
        assert look(server)["listing"].result is OK


def test_nginx_that_has_a_page_for_every_name():
    with nginx(below("try_files $uri /index.html;")) as server:
        (server.root / "index.html").write_text("a page")
        found = look(server)
        assert list(found) == ["missing"]
        assert found["missing"].result is BAD
        assert {method for method, _, _ in server.requests()} == {"GET"}
    with nginx(below(found["missing"].remedy)) as server:
        (server.root / "index.html").write_text("a page")
        assert look(server)["missing"].result is OK


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (("dav_methods PUT DELETE MKCOL;", ""), 405),
        (below("limit_except GET HEAD { deny all; }"), 403),
    ],
)
def test_nginx_that_takes_no_files(change, status):
    with nginx(change) as server:
        found = look(server)
        assert list(found)[-1] == "put"
        assert (found["put"].result, found["put"].seen) == (BAD, f"PUT: {status}")


def test_nginx_that_removes_no_folder_or_no_file():
    depth = "min_delete_depth 1;"
    for number, result in ((2, WARNING), (3, BAD)):
        with nginx((depth, f"min_delete_depth {number};")) as server:
            found: list[Finding] = []
            probe(Server("media1", server.url), SMALL, found.append)
            left = found[-1]
            assert (left.check, left.result) == ("left-behind", result)
            assert told(left) == set(contents(server))


def told(left: Finding) -> set[str]:
    """The names that a finding says are left, folders with a slash."""
    names = set()
    for part in left.seen.split("; "):
        what, _, listed = part.partition(": ")
        names |= {f"{name}{'/' * (what == 'empty folders')}" for name in listed.split(", ")}
    return names


def test_lighttpd_set_up_wrongly():
    limited = (
        ("server.max-request-size = 0", "server.max-request-size = 1024"),
        ('"" => "application/octet-stream"', '".html" => "text/html"'),
        (r'"(?i)\.(html?|xhtml|svgz?|xml|m?js)$"', '"never"'),
    )
    with running(changed(Lighttpd, *limited)) as server:
        found = look(server, Setup(max_body=3 << 19, keep=True))
        assert worse_than(found, NOTE) == {"body", "browser", "delete-folder"}
        assert (found["body"].result, "413" in found["body"].seen) == (BAD, True)
    rules = f"{found['body'].remedy}\n", f"\n{found['browser'].remedy}\n"
    mend = (
        ("server.max-request-size = 0", rules[0]),
        *limited[1:],
        ('webdav.activate = "enable"', f'webdav.activate = "enable"{rules[1]}'),
    )
    with running(changed(Lighttpd, *mend)) as server:
        assert worse_than(look(server), NOTE) == set()


def test_lighttpd_that_shows_no_versions():
    """Its release of 1.4.69 gives no ETag to a file whose type is not listed."""
    untyped = ('".txt" => "text/plain",\n    "" => "application/octet-stream"', "")
    with running(changed(Lighttpd, untyped)) as server:
        found = look(server, Setup(max_body=0, keep=True))["stat"]
        assert found.result is WARNING
    rule = ('webdav.activate = "enable"', f'{found.remedy}\nwebdav.activate = "enable"')
    with running(changed(Lighttpd, untyped, rule)) as server:
        assert look(server)["stat"].result is OK


def test_apache_set_up_wrongly():
    header = "Header always set"
    pages = (f"{header} Content-Disposition", f"{header} X-Nothing")
    policy = (f"{header} Content-Security-Policy", f"{header} X-Nothing-Else")
    types = ("ServerName media1", "ServerName media1\nAddType text/html .html")
    limit = ("LimitRequestBody 0", "LimitRequestBody 1048576")
    with running(changed(Apache, limit, pages, policy, types)) as server:
        found = look(server)
        assert worse_than(found, NOTE) == {"body", "browser"}
        assert "413" in found["body"].seen
    block, nosniff = (
        re.sub("([<>]) (?=H)|(?<=t) (?=<)", r"\1\n", one) for one in mended(found["browser"])
    )
    rule = ("KeepAlive On", f"KeepAlive On\n{block}\n{nosniff}")
    with running(changed(Apache, pages, policy, types, rule)) as server:
        assert worse_than(look(server), NOTE) == set()


def test_our_own_server_set_up_otherwise(tmp_path):
    with running_embedded(tmp_path, "--max-body", "1200K", "--active") as server:
        server.url = f"http://127.0.0.1:{server.port}"
        found = look(server)
        assert worse_than(found, NOTE) == {"body", "browser"}
        assert "--max-body" in found["body"].remedy
        assert "--active" in found["browser"].remedy


# --- who may write


def with_password(secret: str = "outgrow:right") -> Setup:
    return Setup(max_body=0, access=Access(authorize=lambda _: "Basic b3V0Z3JvdzpyaWdodA=="))


def test_a_server_that_does_not_ask_for_the_credentials():
    with nginx() as server:
        found = look(server, with_password())["credentials"]
        assert found.result is BAD
        (server.folder / "passwords").write_text("outgrow:{PLAIN}right\n")
        rule = found.remedy.replace("/etc/nginx/media.htpasswd", str(server.folder / "passwords"))
        server.stop()
        server._configuration = server._configuration.replace(*below(rule))
        server.start()
        found = look(server, with_password())
        assert found["credentials"].result is OK
        assert "401" in found["credentials"].seen
        assert "who has the credentials" in found["addresses"].meaning
        assert "credentials" in look(server, SMALL)["put"].meaning


@pytest.mark.parametrize("token", ["", "tok3n"])
def test_our_own_server_with_and_without_its_token(tmp_path, token):
    env = {"OUTGROW_MEDIA_TOKEN": token} if token else {}
    with running_embedded(tmp_path, env=env) as server:
        server.url = f"http://127.0.0.1:{server.port}"
        setup = Setup(max_body=0, access=Access(authorize=lambda _: "Bearer tok3n"))
        found = look(server, setup)["credentials"]
        assert found.result is (OK if token else BAD)


@pytest.mark.parametrize("verify", ["on", "off"])
def test_a_server_that_wants_a_certificate(tmp_path, verify):
    authority = trustme.CA()
    paths = [str(tmp_path / name) for name in ("ca.pem", "client.pem", "client.key")]
    authority.cert_pem.write_to_path(paths[0])
    client = authority.issue_cert("app1.example")
    client.cert_chain_pems[0].write_to_path(paths[1])
    client.private_key_pem.write_to_path(paths[2])
    own = authority.issue_cert("127.0.0.1")
    with server_folder("outgrow-tls-") as folder:
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        own.private_key_and_cert_chain_pem.write_to_path(str(folder / "own.pem"))
        tls = (
            f"ssl_certificate {folder}/own.pem; ssl_certificate_key {folder}/own.pem; "
            f"ssl_client_certificate {folder}/ca.pem; ssl_verify_client {verify};"
        )
        with nginx((";\n        root", f" ssl; {tls}\n        root")) as server:
            server.url = f"https://127.0.0.1:{server.port}"
            found = look(server, Setup(max_body=3 << 19, access=Access(*paths)))
            assert found["credentials"].result is (OK if verify == "on" else BAD)
            assert worse_than(found, NOTE) == ({"credentials"} if verify == "off" else set())


# --- what goes wrong in the middle


def test_a_server_that_could_not_be_asked_is_left_alone():
    with MediaServer() as server:
        found: list[Finding] = []
        problem = ConnectFailed("media1", "no connection: refused")
        probe(Server("media1", server.url), SMALL, found.append, problem=problem)
        assert [(one.check, one.result) for one in found] == [("answers", BAD)]
        assert server.log == []


class Folders(MediaServer):
    """In memory, and folders can be removed; the `countdown`-th PUT begins a fault."""

    def __init__(self, fault, countdown: int) -> None:
        super().__init__(missing_parent_409=True)
        self.fault, self.countdown = fault, countdown

    def _put(self, name: str, body: bytes) -> int:
        self.countdown -= 1
        if not self.countdown:
            self.fault(self)
        return super()._put(name, body)


class Careful(MediaServer):
    """Removes a folder only when it is empty."""

    def _delete(self, name: str, body: bytes) -> int:
        inside = f"{name.rstrip('/')}/"
        if any(one.startswith(inside) for one in (*self.files, *self.folders)):
            return 409
        return super()._delete(name, body)


def test_folders_are_removed_from_the_inside():
    with Careful(missing_parent_409=True) as server:
        found: list[Finding] = []
        probe(Server("media1", server.url), SMALL, found.append)
        assert (server.files, server.folders) == ({}, set())
        assert "left-behind" not in {one.check for one in found}


@pytest.mark.parametrize("countdown", [1, 2, 3, 9])
@pytest.mark.parametrize(
    "fault",
    [
        lambda server: server.freeze(),
        lambda server: server.answer_with(500),
        lambda server: server.answer_with(403),
        lambda server: setattr(server, "raw_answer", b"nonsense\r\n\r\n"),
        lambda server: setattr(server, "raw_answer", b""),
        lambda server: setattr(server, "cut_body_after", 1),
    ],
)
def test_a_server_that_fails_in_the_middle_is_told_with_what_is_left(fault, countdown):
    with Folders(fault, countdown) as server:
        found: list[Finding] = []
        setup = Setup(Limits(timeout=0.2), max_body=1000)
        with takes(at_most=5):
            probe(Server("media1", server.url), setup, found.append)
        assert any(one.result is BAD for one in found)
        held = {*server.files, *(f"{one}/" for one in server.folders)}
        left = told(found[-1]) if found[-1].check == "left-behind" else set()
        assert held <= left


def test_a_body_has_no_more_time_than_a_save_has():
    """A frozen server takes what the kernel buffers, and carries it out when it thaws."""
    with nginx() as server:
        found: dict[str, Finding] = {}

        def tell(one: Finding) -> None:
            found[one.check] = one
            if one.check == "delete-folder":
                server.pause()

        setup = Setup(Limits(timeout=20), deadline=0.5)
        with takes(at_most=4):
            probe(Server("media1", server.url), setup, tell)
        assert found["body"].result is BAD
        assert "It has 0.5 s" in found["body"].meaning
        left = found["left-behind"]
        server.resume()
        wait_until(lambda: "/body-" in str(server.requests()), "the body was not looked at")
        assert held(server) <= told(left) | {f"{name.rpartition('/')[0]}/" for name in told(left)}


def test_what_was_stored_in_spite_of_the_answer_is_removed():
    with Folders(lambda _: None, 0) as server:
        found: list[Finding] = []

        def tell(one: Finding) -> None:
            found.append(one)
            if one.check == "folders":
                server.answer_with(500, times=1, method="PUT", carry_out=True)

        probe(Server("media1", server.url), SMALL, tell)
        assert [one.check for one in found] == ["missing", "identity", "folders", "put"]
        assert (server.files, server.folders) == ({}, set())


def test_what_comes_before_the_probe_cleans_up_is_removed_and_not_told():
    with Folders(lambda _: None, 0) as server:
        found: list[Finding] = []

        def tell(one: Finding) -> None:
            found.append(one)
            if one.check == "folders":
                server.hang = "before-answer"
            if one.check == "answers":
                server.thaw()
                wait_until(lambda: any(name.endswith("put.txt") for name in server.files), "late")

        probe(Server("media1", server.url), Setup(Limits(timeout=0.2)), tell)
        assert found[-1].check == "answers"
        assert (server.files, server.folders) == ({}, set())


@pytest.mark.parametrize("before", ["MKCOL", "folders", "put", "range"])
def test_what_got_no_answer_is_told_for_it_may_come_late(before):
    """MKCOL; the PUT of a new file; one over it; and that of an unusual name."""

    def hang(server) -> None:
        server.hang = "before-answer"

    with Folders(hang, countdown=1 if before == "MKCOL" else 0) as server:
        found: list[Finding] = []

        def tell(one: Finding) -> None:
            found.append(one)
            if one.check == before:
                hang(server)
            if one.check == "answers":
                server.hang = None  # what is held stays held, what comes now does not

        probe(Server("media1", server.url), Setup(Limits(timeout=0.2)), tell)
        assert (server.files, server.held) == ({}, 1)
        assert found[-1].check == "left-behind"
        assert "may still appear" in found[-1].seen
        server.missing_parent_409 = False  # the late PUT makes its folder
        server.thaw()
        wait_until(lambda: not server.held and server.log[-1][0] != "DELETE", "still held")
        if before == "MKCOL":
            assert {f"{one}/" for one in server.folders} == told(found[-1])
        else:
            assert server.files.keys() == told(found[-1])


class Broken(Exception):
    """What breaks the probe off from outside."""


@pytest.mark.parametrize("error", [KeyboardInterrupt, Broken])
def test_who_breaks_it_off_after_a_finding_leaves_nothing_behind(documented, error):
    before = contents(documented)
    for number in range(1, len(CHECKS), 3):
        listener = Listener(number, error)
        with pytest.raises(error):
            probe(Server("media1", documented.url), SMALL, listener)
        assert contents(documented) == before
        assert len(listener.found) == number


class Listener:
    """Who hears the findings, and breaks off at one."""

    def __init__(self, number: int, error: type[BaseException]) -> None:
        self.found: list[Finding] = []
        self.number, self.error = number, error

    def __call__(self, one: Finding) -> None:
        self.found.append(one)
        if len(self.found) == self.number:
            raise self.error


# A connection is in nobody's hands for a moment when the pool looks at its clock.
@pytest.mark.filterwarnings("ignore:.*unclosed.*:ResourceWarning")
def test_who_breaks_it_off_anywhere_leaves_nothing_that_is_not_told(documented):
    """The clock is read at every step of every request, so it is a place to break off."""
    setup, server = Setup(max_body=100_000), Server("media1", documented.url)
    clock = Breaking(0)
    probe(server, setup, lambda _: None, clock=clock)
    every = range(1, clock.readings, 7)
    left = 0
    may_be: set[str] = set()
    for limit in every:
        found: list[Finding] = []
        # It may need fewer steps this time.
        with suppress(KeyboardInterrupt):
            probe(server, setup, found.append, clock=Breaking(limit))
        names = told(found[-1]) if found and found[-1].check == "left-behind" else set()
        left += bool(names)
        # A file comes with its folder. What was told earlier may come only now.
        may_be.update(names, (f"{name.rpartition('/')[0]}/" for name in names))
        # An upload that was cut off is thrown away when the server comes to it.
        wait_until(lambda: held(documented) <= may_be, f"left after reading {limit}")
    assert left < len(every) / 2, "only what got no answer may be left"
    gc.collect()


class Breaking:
    """A clock that breaks off at one reading."""

    def __init__(self, limit: int) -> None:
        self.limit, self.readings = limit, 0

    def __call__(self) -> float:
        self.readings += 1
        if self.readings == self.limit:
            raise KeyboardInterrupt
        return time.monotonic()


@pytest.mark.parametrize("readings", [1, 4, 40])
@pytest.mark.filterwarnings("ignore:.*unclosed.*:ResourceWarning")
def test_who_breaks_it_off_while_it_cleans_up_leaves_nothing_behind(documented, readings):
    before, found, clock = contents(documented), [], Breaking(0)

    def tell(one: Finding) -> None:
        found.append(one)
        if one.check == "body":
            clock.limit = clock.readings + readings

    with pytest.raises(KeyboardInterrupt):
        probe(Server("media1", documented.url), SMALL, tell, clock=clock)
    assert found[-1].check == "body"
    assert contents(documented) == before
    gc.collect()


def test_a_second_interruption_still_tells_what_is_left():
    with nginx() as server:
        found: list[Finding] = []
        interrupted = False

        def clock() -> float:
            if interrupted:
                raise KeyboardInterrupt
            return time.monotonic()

        def tell(one: Finding) -> None:
            nonlocal interrupted
            found.append(one)
            if one.check == "names":
                interrupted = True
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            probe(Server("media1", server.url), SMALL, tell, clock=clock)
        assert found[-1].check == "left-behind"
        assert set(contents(server)) == told(found[-1])


# --- law 1


def test_nothing_of_anybody_else_s_can_be_changed():
    with MediaServer(missing_parent_409=True) as server:
        server.files["photos/a.jpg"] = b"dear"
        visit = Visit(Server("media1", server.url), SMALL, Pool(), time.monotonic)
        other = f"outgrow-probe-{'0' * 32}/a.txt"
        for name in ("photos/a.jpg", "photos", "photos/", other, f"{visit.folder}x/a.txt"):
            for method in ("DELETE", "MKCOL", "PUT"):
                with pytest.raises(ValueError, match="has not made it"):
                    visit.ask(method, name)
        for name in ("", "/", f"{visit.folder}/../photos", f"{visit.folder}//", ".outgrow/master"):
            with pytest.raises(UnsafeName):
                visit.delete(name)
        assert server.log == []
        assert server.files == {"photos/a.jpg": b"dear"}


def test_each_probe_has_a_folder_of_its_own():
    server = Server("media1", "http://127.0.0.1:1")
    visits = [Visit(server, SMALL, Pool(), time.monotonic) for _ in range(3)]
    assert len({visit.folder for visit in visits}) == 3
    assert all(re.fullmatch("outgrow-probe-[0-9a-f]{32}", visit.folder) for visit in visits)


def test_the_probe_asks_in_the_order_in_which_it_may_stop(tmp_path: Path):
    """A server that can't be used is written to no more than to find that out."""
    with MediaServer(missing_parent_409=True) as server:
        server.read_only = True
        found: list[Finding] = []
        probe(Server("media1", server.url), SMALL, found.append)
        assert [one.check for one in found] == ["missing", "identity", "put"]
        assert [method for method, _, _ in server.log].count("PUT") == 1
