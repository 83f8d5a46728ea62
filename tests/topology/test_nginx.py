"""What nginx is given, as text and as the real nginx sees it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pytest

from outgrow.errors import ConfigurationError, TopologyError
from outgrow.testing import free_port
from outgrow.topology.load import load
from outgrow.topology.model import Site, local
from outgrow.topology.render import File, nginx
from tests.live.nginx import binary
from tests.live.processes import server_folder, wait_until
from tests.topology.sites import tiny_site

ROOT, STATE = PurePosixPath("/srv/media"), PurePosixPath("/srv/nginx")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return load(tiny_site(tmp_path, engine="nginx"))


def rendered(site: Site, root: PurePosixPath = ROOT, user: str = "") -> str:
    [file] = nginx.render(site, site.service("media1"), root, STATE, user=user)
    assert file == File("nginx.conf", file.content)
    return file.content


def test_only_the_app_servers_may_write(site: Site) -> None:
    text = rendered(site)
    assert "allow 10.0.0.11;\n                allow 10.0.0.12;\n                deny all;" in text
    assert "listen 10.0.0.21:8080;" in text
    assert "10.0.0.22" not in text


def test_what_browsers_must_not_get(site: Site) -> None:
    text = rendered(site)
    assert "add_header X-Content-Type-Options nosniff always;" in text
    public, _, rest = text.partition("location ^~ /.outgrow/list/ {")
    listing, _, files = rest.partition("location / {")
    assert "autoindex" not in public + files
    assert listing.rstrip().endswith("deny all;\n        }")


@contextmanager
def running(site: Site, *, active: bool = False) -> Iterator[list[tuple[Path, str, str]]]:
    """The media servers as they are rendered: their folders, addresses, visitors' addresses."""
    program = binary()
    with server_folder("outgrow-rendered-") as folder, ExitStack() as stack:
        ports = {service.name: free_port() for service in site.services()}
        here = local(replace(site, active=active), ports, folder)
        found = []
        for name in (service.name for service in site.services("media")):
            service, visitors, root = here.service(name), free_port(), folder / name
            state = folder / f"{name} state"
            for path in (root, state):
                path.mkdir()
                path.chmod(0o777)
            [file] = nginx.render(here, service, root, state, visitors=visitors)
            (state / file.name).write_text(file.content)
            words = [program, "-p", str(state), "-e", "stderr", "-c", file.name]
            process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
            stack.callback(process.wait, 10)
            stack.callback(process.terminate)
            found.append((root, service.port.url, f"http://127.0.0.1:{visitors}"))
        for _, address, _ in found:
            wait_until(partial(answers, address), f"{address} does not answer")
        yield found


def answers(address: str) -> bool:
    try:
        return ask(f"{address}/nothing").status == 404
    except OSError:
        return False


def ask(url: str, method: str = "GET") -> HTTPResponse:
    """The answer to one request, read to its end."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port or 0, timeout=5)
    with closing(connection):
        connection.request(method, parts.path)
        answer = connection.getresponse()
        answer.content = answer.read()  # type: ignore[attr-defined]
        return answer


def with_a_third(site: Site) -> Site:
    media2 = site.hosts[3]
    port = replace(media2.services[0].port, host="10.0.0.23")
    service = replace(media2.services[0], name="media3", port=port)
    third = replace(media2, name="media3", address="10.0.0.23", services=(service,))
    return replace(site, hosts=(*site.hosts, third))


def test_the_first_peer_that_has_it_answers(site: Site) -> None:
    with running(with_a_third(site)) as [(_, _, visitors), *peers]:
        for number, (root, _, _) in enumerate(peers):
            (root / f"{number}.txt").write_bytes(b"only here")
        # More often than there are peers: whoever is asked first, the other is asked, too.
        for number in (0, 0, 0, 1, 1, 1):
            assert ask(f"{visitors}/{number}.txt").status == 200
        assert ask(f"{visitors}/2.txt").status == 404


def test_visitors_get_what_only_a_peer_has(site: Site) -> None:
    with running(site) as [(_, own, visitors), (root, there, _)]:
        (root / "folder").mkdir()
        (root / "folder" / "f.txt").write_bytes(b"from the peer")
        (root / ".secret").write_bytes(b"never")
        answer = ask(f"{visitors}/folder/f.txt")
        assert (answer.status, answer.content) == (200, b"from the peer")  # type: ignore[attr-defined]
        assert answer.headers.get_all("X-Content-Type-Options") == ["nosniff"]
        # Outgrow must be told that it is missing, or it would never be repaired.
        assert ask(f"{own}/folder/f.txt").status == 404
        assert ask(f"{visitors}/nowhere.txt").status == 404
        assert ask(f"{visitors}/.secret").status == 404
        for method in ("PUT", "DELETE", "MKCOL", "POST"):
            assert ask(f"{visitors}/folder/f.txt", method).status == 403
        assert ask(f"{visitors}/.outgrow/list/").status == 404
        assert ask(f"{there}/folder/f.txt").status == 200


def test_the_only_media_server_has_no_peers(site: Site) -> None:
    alone = replace(site, hosts=site.hosts[:3])
    [file] = nginx.render(alone, alone.service("media1"), ROOT, STATE, visitors=8081)
    assert "listen 10.0.0.21:8081;" in file.content
    assert "peers" not in file.content


@pytest.mark.parametrize("name", ["evil.html", "evil.SVG", "a/evil.xhtml", "evil.xml", "evil.mjs"])
@pytest.mark.parametrize("active", [False, True])
def test_what_a_browser_would_run_is_a_download_unless_allowed(
    site: Site, name: str, active: bool
) -> None:
    kinds = {"html": "text/html", "SVG": "image/svg+xml", "xhtml": "application/xhtml+xml"}
    kinds |= {"xml": "text/xml", "mjs": "text/javascript"}
    with running(site, active=active) as [(root, own, visitors), (other, *_)]:
        for folder, file in ((root, name), (other, f"there/{name}"), (root, "plain.txt")):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text("<script>alert(1)</script>")
        for url in (f"{own}/{name}", f"{visitors}/{name}", f"{visitors}/there/{name}"):
            told = ask(url).headers
            assert told.get_content_type() == kinds[name.rpartition(".")[2]]
            policy = None if active else ["default-src 'none'; sandbox"]
            assert told.get_all("Content-Disposition") == (None if active else ["attachment"])
            assert told.get_all("Content-Security-Policy") == policy
            assert told.get_all("X-Content-Type-Options") == ["nosniff"]
        assert ask(f"{visitors}/plain.txt").headers["Content-Disposition"] is None


def test_the_user_is_for_root_alone(site: Site) -> None:
    assert "\nuser " not in rendered(site)
    assert "\nuser www www;\n" in rendered(site, user="www www")


def test_an_app_server_without_an_ip_address_is_named(site: Site) -> None:
    app1, *others = site.hosts
    named = replace(site, hosts=(replace(app1, address="app1.internal"), *others))
    with pytest.raises(
        TopologyError, match=r'servers\.app1\.address: "app1\.internal" is a host n'
    ):
        rendered(named)


def test_paths_are_quoted(site: Site) -> None:
    assert 'root "/srv/a \\"b\\" \\\\ {;";' in rendered(site, PurePosixPath('/srv/a "b" \\ {;'))
    with pytest.raises(ConfigurationError, match="dollar sign"):
        rendered(site, PurePosixPath("/srv/$uri"))


def test_the_real_nginx_accepts_it(site: Site) -> None:
    program = binary()
    with server_folder("outgrow nginx {") as folder:
        on_laptop = local(site, dict.fromkeys(("app1", "app2", "media1", "media2"), 20000), folder)
        # Of the real addresses there is only the loopback one here; nginx -t binds.
        mixed = replace(site, hosts=(*site.hosts[:2], *on_laptop.hosts[2:]))
        for moved, visitors in ((on_laptop, None), (mixed, None), (on_laptop, 20001)):
            media1 = moved.service("media1")
            [file] = nginx.render(moved, media1, folder, folder, visitors=visitors)
            (folder / file.name).write_text(file.content)
            words = [program, "-t", "-q", "-p", str(folder), "-e", "stderr", "-c", file.name]
            seen = subprocess.run(words, capture_output=True, text=True, timeout=10, check=False)
            assert (seen.returncode, seen.stderr) == (0, "")
