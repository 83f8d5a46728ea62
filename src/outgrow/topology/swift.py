r"""OpenStack Swift with its S3 API on this machine: a real object store for `outgrow up`.

It is one node with one copy: four processes (a proxy, which clients speak to, and a server
each for accounts, containers and objects), which this one starts, and which end with it.
Swift checks each signature, as the clouds' stores do. Configuration:
https://docs.openstack.org/swift/latest/development_saio.html.

    python -m outgrow.topology.swift --folder FOLDER --port PORT --key ACCOUNT:USER \
        --secret-file FILE
"""

from __future__ import annotations

import argparse
import configparser
import getpass
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from outgrow.topology import ports
from outgrow.topology.model import LOOPBACK
from outgrow.topology.objects import REGION

KINDS: Final = ("account", "container", "object")
PIPELINE: Final = (
    "catch_errors gatekeeper healthcheck bulk s3api tempauth copy slo dlo proxy-server"
)

#: One process makes the three rings: to import Swift takes longer than to make them.
RINGS: Final = """
import sys
from swift.common.ring import RingBuilder
folder, copies, *devices = sys.argv[1:]
for kind in ("account", "container", "object"):
    builder = RingBuilder(4, float(copies), 1)  # 2 ** 4 partitions: there are few disks
    for number, device in enumerate(devices):
        ip, *ports = device.split(",")
        port = int(ports[("account", "container", "object").index(kind)])
        builder.add_dev({"id": number, "region": 1, "zone": number, "weight": 1.0, "ip": ip,
                         "port": port, "device": "disk", "meta": "", "replication_ip": ip,
                         "replication_port": port})
    builder.rebalance(seed=1)
    builder.get_ring().save(f"{folder}/{kind}.ring.gz")
"""

#: Hashes of names are salted with these; who can't reach the disks need not know them.
SWIFT_CONF: Final = "[swift-hash]\nswift_hash_path_suffix = a\nswift_hash_path_prefix = b\n"

#: What of the four must be in the folder of the interpreter.
PROGRAM: Final = "swift-proxy-server"


def program(kind: str) -> Path:
    """The program that serves a kind, which `pip install` puts beside the interpreter."""
    return Path(sys.executable).with_name(f"swift-{kind}-server")


def configuration(
    kind: str, *, address: str, port: int, rings: Path, folder: Path, user: str, account: str = ""
) -> configparser.RawConfigParser:
    """What one of the four servers reads. `account` is for the proxy: "ACCOUNT:USER:SECRET"."""
    found = configparser.RawConfigParser()
    found["DEFAULT"] = {
        "bind_ip": address,
        "bind_port": str(port),
        "workers": "0",
        "user": user,
        "swift_dir": str(rings),
        "devices": str(folder / "disks"),
        "mount_check": "false",
        "disable_fallocate": "true",
        "log_address": str(folder / "no-syslog"),
        "recon_cache_path": str(folder),
        # A node that is stopped is noticed soon.
        "conn_timeout": "0.5",
    }
    if kind != "proxy":
        found["pipeline:main"] = {"pipeline": f"{kind}-server"}
        found[f"app:{kind}-server"] = {"use": f"egg:swift#{kind}"}
        return found
    found["pipeline:main"] = {"pipeline": PIPELINE}
    found["app:proxy-server"] = {"use": "egg:swift#proxy", "account_autocreate": "true"}
    for part in PIPELINE.split()[:-1]:
        found[f"filter:{part}"] = {"use": f"egg:swift#{part}"}
    found["filter:s3api"]["location"] = REGION
    # Browsers may upload from the site's pages, whose port is another one. It listens on
    # loopback, and looks at signatures all the same.
    found["filter:s3api"]["cors_preflight_allow_origin"] = "*"
    found["app:proxy-server"]["cors_allow_origin"] = "*"
    name, person, secret = account.split(":")
    found["filter:tempauth"][f"user_{name}_{person}"] = f"{secret} .admin"
    return found


def serve(folder: Path, port: int, account: str) -> int:
    """Run one node until one of its servers ends; the proxy listens on `port`."""
    behind = ports.choose(len(KINDS), shuffle=random.SystemRandom())
    (folder / "disks" / "disk").mkdir(parents=True, exist_ok=True)
    (folder / "swift.conf").write_text(SWIFT_CONF, encoding="utf-8")
    device = ",".join([LOOPBACK, *map(str, behind)])
    subprocess.run([sys.executable, "-c", RINGS, str(folder), "1", device], check=True)
    for kind, number in zip(("proxy", *KINDS), (port, *behind), strict=True):
        found = configuration(
            kind,
            address=LOOPBACK,
            port=number,
            rings=folder,
            folder=folder,
            user=getpass.getuser(),
            account=account,
        )
        if kind == "proxy":
            # There is no other node to ask while one that has failed is left in peace, which
            # is a minute otherwise.
            found["app:proxy-server"]["error_suppression_interval"] = "1"
        path = folder / f"{kind}-server.conf"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            found.write(file)
    running: list[subprocess.Popen[bytes]] = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        _run(running, folder, behind)
        return 1
    finally:
        for one in running:
            one.terminate()
        for one in running:
            one.wait()


def _run(running: list[subprocess.Popen[bytes]], folder: Path, behind: Sequence[int]) -> None:
    """Start the four, the proxy last: who finds it finds a store that works."""

    def start(kind: str) -> None:
        words = [program(kind), folder / f"{kind}-server.conf"]
        running.append(subprocess.Popen(words, stdin=subprocess.DEVNULL))

    def run_on() -> bool:
        return all(one.poll() is None for one in running)

    for kind in KINDS:
        start(kind)
    while run_on() and not all(map(_listens, behind)):
        time.sleep(0.02)
    if run_on():
        start("proxy")
    while run_on():
        time.sleep(0.2)


def _listens(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
        return True
    except OSError:
        return False


def main(words: Sequence[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description="Run Swift on this machine.")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--secret-file", type=Path, required=True)
    given = parser.parse_args(words)
    secret = given.secret_file.read_text(encoding="utf-8").strip()
    return serve(given.folder, given.port, f"{given.key}:{secret}")


if __name__ == "__main__":
    sys.exit(main())
