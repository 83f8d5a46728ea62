"""What `outgrow render` writes for balancers and caches, as the real programs see it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path, PurePath

import pytest

from outgrow.testing import free_port
from outgrow.topology import rendering
from outgrow.topology.model import Site, parse
from outgrow.topology.presets import PRESETS, preset
from outgrow.topology.render.systemd import Places
from tests.live.processes import missing
from tests.topology.test_systemd import service, verify

SBIN = "/usr/sbin:/usr/bin:/usr/local/sbin"


def program(name: str) -> str:
    found = shutil.which(name, path=SBIN)
    if found is None:
        missing(f"{name} is not installed", f"apt-get install {name}")
    return str(found)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    (tmp_path / "state").mkdir()
    return Places(
        python=sys.executable,
        nginx=program("nginx"),
        haproxy=program("haproxy"),
        memcached=program("memcached"),
        redis=program("redis-server"),
        balancer_state=str(tmp_path / "state"),
        pem=str(tmp_path / "both.pem"),
    )


def big(balancer: str, cache: str, folder: Path, *, tls: bool) -> Site:
    content = tomllib.loads(preset("big", "shop", "shop.example.org"))
    content["balancer"] = {"engine": balancer}
    if tls:
        content["balancer"] |= {"certificate": "site.pem", "certificate_key": "site.key"}
    content["cache"]["engine"] = cache
    if cache == "redis":
        del content["servers"]["cache2"]
    return parse(content, folder)


def certified(folder: Path) -> None:
    import trustme

    made = trustme.CA().issue_cert("shop.example.org")
    key, chain = made.private_key_pem.bytes(), made.cert_chain_pems[0].bytes()
    (folder / "site.key").write_bytes(key)
    (folder / "site.pem").write_bytes(chain)
    (folder / "both.pem").write_bytes(chain + key)


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize(("balancer", "cache"), [("nginx", "memcached"), ("haproxy", "redis")])
def test_the_programs_take_what_is_written(
    tmp_path: Path, places: Places, balancer: str, cache: str, *, tls: bool
) -> None:
    certified(tmp_path)
    files = rendering.plan(big(balancer, cache, tmp_path, tls=tls), places)
    found = {file.name: file.content for file in files}
    name = "balancer.conf" if balancer == "nginx" else "haproxy.cfg"
    configuration = tmp_path / name
    text = found[f"lb1/{name}"]
    # nginx wants to listen when it is only asked whether it could.
    for port in (443, 80):
        text = text.replace(f" 10.0.0.1:{port}", f" 127.0.0.1:{free_port()}")
    configuration.write_text(text)
    words = {
        "nginx": [places.nginx, "-e", "stderr", "-t", "-c", str(configuration)],
        "haproxy": [places.haproxy, "-c", "-f", str(configuration)],
    }[balancer]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr.lower()
    for unit in ("lb1/outgrow-balancer.service", "cache1/outgrow-cache.service"):
        assert verify(tmp_path, found[unit]) == ""
    assert service(found["lb1/outgrow-balancer.service"])["AmbientCapabilities"] == (
        "CAP_NET_BIND_SERVICE"
    )
    assert ("cache1/redis.conf" in found) is (cache == "redis")


@pytest.mark.parametrize("kind", PRESETS)
def test_every_preset_is_rendered(kind: str) -> None:
    site = parse(tomllib.loads(preset(kind, "shop", "shop.example.org")), PurePath("/srv/shop"))
    names = {file.name for file in rendering.plan(site, Places())}
    for host in site.hosts:
        roles = {one.role for one in host.services}
        assert (f"{host.name}/outgrow-balancer.service" in names) is ("balancer" in roles)
        assert (f"{host.name}/outgrow-cache.service" in names) is ("cache" in roles)
        assert (f"{host.name}/outgrow-media.service" in names) is ("media" in roles)
