"""The settings of the site that is drilled, and what the drill adds to them.

`outgrow up` tells every process where the topology file of its run is; beside it lies what the
drill is to know. So no process needs more in its environment than it has otherwise.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path

from outgrow.drills.wiring import FILE, read
from outgrow.topology.load import VARIABLE

OUTGROW_DRILL = read(Path(os.environ[VARIABLE]).with_name(FILE))

_site = importlib.import_module(OUTGROW_DRILL.settings)
globals().update({name: getattr(_site, name) for name in dir(_site) if name.isupper()})

#: The site's own, behind the views of the drill.
OUTGROW_DRILL_URLCONF: str = _site.ROOT_URLCONF
ROOT_URLCONF = "outgrow.drills.site.urls"
INSTALLED_APPS = [*_site.INSTALLED_APPS, "outgrow.drills.site"]

# A laptop's balancer speaks HTTP: with these a site would redirect all that it is asked, and
# cookies would not come back.
SECURE_SSL_REDIRECT = False
SESSION_COOKIE_SECURE = False
CSRF_COOKIE_SECURE = False
