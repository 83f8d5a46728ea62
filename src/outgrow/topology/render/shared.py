"""A site on shared hosting: a script that Apache's mod_fcgid starts, and rules that lead to it.

Sources: https://httpd.apache.org/mod_fcgid/mod/mod_fcgid.html; mod_rewrite's documentation of
`.htaccess`, where a pattern is for the path below its folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from outgrow.errors import ConfigurationError
from outgrow.topology.model import Site
from outgrow.topology.render import File
from outgrow.topology.render.systemd import Places

#: Bytes of a first line of a script that Linux reads (BINPRM_BUF_SIZE in linux/binfmts.h).
_FIRST_LINE: Final = 256

_HTACCESS: Final = """\
# Written by outgrow. Changes here are lost.
AddHandler fcgid-script .fcgi
Options +ExecCGI -MultiViews
DirectoryIndex disabled
RewriteEngine On
# Files that are there are Apache's; all other paths are the site's. The script reads the path
# from what was asked for: a rule would decode it a second time.
RewriteCond %{{REQUEST_FILENAME}} !-f
RewriteRule ^ {script} [END]
"""

_SCRIPT: Final = """\
#!{python}
# Written by outgrow. Changes here are lost. To restart the site, put another file of this
# name in this one's place: `cp {script} new && mv new {script}`. `touch` does nothing.
import os
import sys

sys.path.insert(0, {folder!r})
os.environ["DJANGO_SETTINGS_MODULE"] = {settings!r}

from outgrow.fastcgi import runfastcgi

# Apache starts as many processes as it needs, and asks each one thing at a time.
runfastcgi(method="threaded")
"""


def render(site: Site, places: Places) -> Iterator[File]:
    """Both files. Raises `ConfigurationError` for what the script's first line can't hold."""
    script = f"{site.name}.fcgi"
    python = places.python
    if not python.startswith("/") or set(python) & set(" \t\r\n") or len(python) > _FIRST_LINE - 4:
        problem = "can't stand in the first line of a script."
        raise ConfigurationError(f"--python {python!r}", problem, "Write its path, without spaces.")
    yield File(".htaccess", _HTACCESS.format(script=script))
    content = _SCRIPT.format(
        python=python, script=script, folder=str(site.folder), settings=site.settings
    )
    yield File(script, content, executable=True)
