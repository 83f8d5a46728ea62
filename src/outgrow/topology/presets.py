"""The first figures of a site's growth, as topology files to begin with.

The path is that of The Django Book's chapter on deployment (2006): one server; the database on
another; the media on a third. https://django-book.readthedocs.io/en/latest/chapter12.html
"""

from __future__ import annotations

import json
import re
from typing import Final

_SITE: Final = """\
[site]
name = {name}
settings = "{module}.settings"
wsgi = "{module}.wsgi:application"
domains = [{domain}]
media_root = "media"
"""

_DATABASE: Final = """
[database]
engine = "postgresql"
name = "{module}"
# The environment variable that holds its password, on each server with the role "app".
password_env = "{variable}_DATABASE_PASSWORD"
"""

_WEB_WITH_MEDIA: Final = """
# The application, and the files that visitors upload.
[servers.web]
roles = ["app", "media"]
address = "10.0.0.1"
"""

_WEB: Final = """
[servers.web]
roles = ["app"]
address = "10.0.0.1"
"""

_DB: Final = """
[servers.db]
roles = ["primary"]
address = "10.0.0.{number}"
"""

_MEDIA: Final = """
# Visitors get the files from here, and the application has time for pages.
[servers.media]
roles = ["media"]
address = "10.0.0.2"
engine = "nginx"
"""

_HEADS: Final = {
    "single": "# One server does all of it, and its rows are where its settings say.\n",
    "database": "# The database has a server of its own: put the addresses of both.\n",
    "media": "# Application, media and database each have a server: put their addresses.\n",
}
_BODIES: Final = {
    "single": _SITE + _WEB_WITH_MEDIA,
    "database": _SITE + _DATABASE + _WEB_WITH_MEDIA + _DB.replace("{number}", "2"),
    "media": _SITE + _DATABASE + _WEB + _MEDIA + _DB.replace("{number}", "3"),
}

#: What there is to begin with, the smallest first.
PRESETS: Final = tuple(_HEADS)


def preset(kind: str, name: str, domain: str) -> str:
    """The text of a topology file: one of PRESETS, for a site of this name.

    What can't be a name or a domain is told by whoever reads it.
    """
    module = re.sub(r"\W", "_", name)
    text = _HEADS[kind] + _BODIES[kind]
    # A string of JSON is one of TOML, too (https://toml.io/en/v1.0.0#string).
    return text.format(
        name=json.dumps(name), module=module, variable=module.upper(), domain=json.dumps(domain)
    )
