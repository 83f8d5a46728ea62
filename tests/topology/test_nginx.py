"""What nginx is given, as text and as the real nginx sees it."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from outgrow.errors import ConfigurationError, TopologyError
from outgrow.topology.load import load
from outgrow.topology.model import Site, local
from outgrow.topology.render import File, nginx
from tests.live.nginx import binary
from tests.live.processes import server_folder
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
    assert "text/html" not in text
    assert "svg" not in text


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
        for moved in (on_laptop, replace(site, hosts=(*site.hosts[:2], *on_laptop.hosts[2:]))):
            [file] = nginx.render(moved, moved.service("media1"), folder, folder)
            (folder / file.name).write_text(file.content)
            words = [program, "-t", "-q", "-p", str(folder), "-e", "stderr", "-c", file.name]
            seen = subprocess.run(words, capture_output=True, text=True, timeout=10, check=False)
            assert (seen.returncode, seen.stderr) == (0, "")
