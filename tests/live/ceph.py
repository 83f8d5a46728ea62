"""Ceph with its S3 gateway: policies, rules for browsers, upload forms, atomic conditions.

One monitor, one OSD that keeps all in memory, and the gateway; no manager. Everything runs as
the unprivileged user, on loopback, without authentication inside the cluster; the gateway
checks signatures. https://docs.ceph.com/en/pacific/install/manual-deployment/ has the steps.
"""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from outgrow.testing import free_port
from tests.live.engines import Engine
from tests.live.processes import missing, server_folder, unprivileged, wait_until

ACCESS_KEY: Final = "outgrow"
SECRET_KEY: Final = "testing"
PROGRAMS: Final = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph", "monmaptool")

CONFIGURATION: Final = """
[global]
fsid = {cluster}
mon_host = [v1:127.0.0.1:{monitor}]
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
public_addr = 127.0.0.1
ms_bind_ipv6 = false
run_dir = {folder}
admin_socket = {folder}/$name.$pid.asok
log_file = {folder}/$name.log
pid_file =
crash_dir = {folder}
# One OSD with one copy.
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_pool_default_pg_autoscale_mode = off
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
osd_crush_chooseleaf_type = 0
# What an OSD says at its start it may say before it has the monitor's map; it ends then
# ("mon_cmd_maybe_osd_create fail: 'wrong fsid'", 2 of 15 starts of Ceph 16.2).
osd_class_update_on_start = false
osd_crush_update_on_start = false
osd_objectstore = memstore
memstore_device_bytes = 1073741824
mon_data_avail_crit = 1
[mon.a]
mon_data = {folder}/mon
[osd.0]
osd_data = {folder}/osd
[client.rgw]
rgw_frontends = beast endpoint=127.0.0.1:{port}
rgw_data = {folder}/rgw
rgw_enable_usage_log = false
rgw_run_sync_thread = false
"""


#: What `ceph` says of a monitor that does not tell it yet which commands there are.
_ASK_AGAIN = "problem getting command descriptions from mon"


class Ceph:
    """One cluster in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._running: list[subprocess.Popen[bytes]] = []
        self._cluster = str(uuid.uuid4())
        self._monitor = free_port()
        self._configuration = folder / "ceph.conf"
        self._configuration.write_text(
            CONFIGURATION.format(
                cluster=self._cluster, monitor=self._monitor, folder=folder, port=self.port
            )
        )
        for name in ("mon", "osd", "rgw"):
            (folder / name).mkdir()
        if user := unprivileged():
            for path in folder.iterdir():
                os.chown(path, *user)

    def start(self) -> None:
        """Make the cluster, and a user of the gateway."""
        # A v1 address alone: with both versions the monitor needs two ports.
        place = f"v1:127.0.0.1:{self._monitor}"
        words = ["monmaptool", "--create", "--fsid", self._cluster, "--addv", "a", f"[{place}]"]
        self._do(*words, str(self.folder / "monmap"))
        self._do("ceph-mon", "--mkfs", "-i", "a", "--monmap", str(self.folder / "monmap"))
        self._begin("ceph-mon", "-f", "-i", "a")
        osd = str(uuid.uuid4())
        self._do("ceph", "--connect-timeout", "60", "osd", "new", osd)
        self._do("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._do("ceph", "osd", "crush", "add", "osd.0", "1.0", "host=here", "root=default")
        self._begin("ceph-osd", "-f", "-i", "0")
        keys = ["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY]
        names = ["--uid", "outgrow", "--display-name", "Outgrow"]
        self._do("radosgw-admin", "-n", "client.rgw", "user", "create", *names, *keys)
        self._begin("radosgw", "-f", "-n", "client.rgw")
        wait_until(self._answers, "Ceph's gateway does not answer", seconds=120)

    def _words(self, program: str, *words: str) -> list[str]:
        user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        prefix = user if unprivileged() else []
        return [*prefix, program, "-c", str(self._configuration), *words]

    def _do(self, program: str, *words: str) -> None:
        self._check()
        line = self._words(program, *words)
        if program == "monmaptool":
            line = [word for word in line if word not in {"-c", str(self._configuration)}]
        done = self._run(line)
        end = time.monotonic() + 120
        # A monitor that is busy with its first election knows no commands for a moment.
        while _ASK_AGAIN in done.stderr and time.monotonic() < end:
            time.sleep(0.5)
            done = self._run(line)
        if done.returncode:
            raise RuntimeError(f"{' '.join(line)}: {done.stdout}{done.stderr}")

    def _run(self, line: list[str]) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                line, capture_output=True, text=True, timeout=180, cwd=self.folder
            )
        except subprocess.TimeoutExpired:
            self._check()  # what has ended is why
            raise

    def _begin(self, program: str, *words: str) -> None:
        with (self.folder / f"{program}.out").open("ab") as log:
            process = subprocess.Popen(
                self._words(program, *words),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )
        self._running.append(process)

    def _check(self) -> None:
        """All that was started still runs."""
        for process in self._running:
            if process.poll() is not None:
                logs = "\n".join(path.read_text() for path in self.folder.glob("*.out"))
                raise RuntimeError(f"Ceph ended with {process.returncode}: {logs[-3000:]}")

    def _answers(self) -> bool:
        self._check()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        with closing(connection), suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/")
            return connection.getresponse().status == 200
        return False

    def stop(self) -> None:
        """End all of it, for certain."""
        for process in reversed(self._running):
            process.kill()
        for process in self._running:
            process.wait(30)


@contextmanager
def running_ceph() -> Iterator[Engine]:
    """One for as long as the block lasts; all that it has is in its memory."""
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    if lacking:
        missing(f"Ceph is not installed ({', '.join(lacking)})", "tools/servers.sh ceph")
    with server_folder("outgrow-ceph-") as folder:
        cluster = Ceph(folder)
        try:
            cluster.start()
            yield Engine(
                name="ceph",
                endpoint=f"http://127.0.0.1:{cluster.port}",
                access_key=ACCESS_KEY,
                secret_key=SECRET_KEY,
                region="default",
                verifies=True,
                has_policies=True,
                has_forms=True,
                is_atomic=True,
            )
        finally:
            cluster.stop()
