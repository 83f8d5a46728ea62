"""Where the programs are that a site on this machine needs; each missing one is named."""

from __future__ import annotations

import grp
import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
from typing import Final

from outgrow.errors import MissingExtra, TopologyError
from outgrow.topology.keys import join
from outgrow.topology.model import Site
from outgrow.topology.plan import Programs

#: Where nginx may be beside PATH: Debian's is not in that of a plain user.
SYSTEM_PROGRAMS: Final = "/usr/sbin:/usr/local/sbin"


def find(site: Site) -> Programs:
    """The programs for `site`. Raises `MissingExtra`, and `TopologyError` for nginx."""
    if importlib.util.find_spec("gunicorn") is None:
        raise MissingExtra("outgrow up", "gunicorn", "local")
    media = site.services("media")
    if any(s.engine == "outgrow" for s in media) and importlib.util.find_spec("uvicorn") is None:
        raise MissingExtra("The embedded media server", "uvicorn", "local")
    using_nginx = [host for host in site.hosts if any(s.engine == "nginx" for s in host.services)]
    if not using_nginx:
        return Programs(sys.executable)
    where = join(join("servers", using_nginx[0].name), "engine")
    return Programs(sys.executable, _nginx(where), _nginx_user())


def _nginx(where: str) -> str:
    """The path of an nginx that can store files. `where` asks for it."""
    install = 'Install it (Debian, Ubuntu: nginx-light), or write engine = "outgrow".'
    path = shutil.which("nginx") or shutil.which("nginx", path=SYSTEM_PROGRAMS)
    if path is None:
        raise TopologyError(where, "nginx is not installed.", install)
    version = subprocess.run([path, "-V"], capture_output=True, text=True, timeout=10, check=False)
    if "http_dav_module" not in version.stderr:
        raise TopologyError(where, f"{path} has no module for DAV, so it can't store.", install)
    return path


def _nginx_user() -> str:
    """Whom nginx's workers run as: ourselves; root's would become somebody else."""
    if os.geteuid() != 0:
        return ""
    return f"{pwd.getpwuid(os.geteuid()).pw_name} {grp.getgrgid(os.getegid()).gr_name}"
