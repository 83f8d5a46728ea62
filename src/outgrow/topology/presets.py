"""The figures of a site's growth, as topology files to begin with.

The path is that of The Django Book's chapter on deployment (2006): one server; the database on
another; the media on a third; several of each behind balancers; and many. https://django-book.readthedocs.io/en/latest/chapter12.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final

_SITE: Final = """\
[site]
name = {name}
settings = "{module}.settings"
wsgi = "{module}.wsgi:application"
domains = [{domain}]
"""

_MEDIA_ROOT: Final = """\
media_root = "media"
"""

_SQLITE: Final = """
[database]
engine = "sqlite"
name = "{module}.sqlite3"
"""

_DATABASE: Final = """
[database]
engine = "postgresql"
name = "{module}"
# The environment variable that holds its password, on each server with the role "app".
password_env = "{variable}_DATABASE_PASSWORD"
"""

_WEB_WITH_MEDIA: Final = """
# Visitors come here: nginx, the application behind it, and the files that they upload.
[servers.web]
roles = ["balancer", "app", "media"]
address = "10.0.0.1"
"""

_WEB: Final = """
# Visitors come here: nginx, and the application behind it.
[servers.web]
roles = ["balancer", "app"]
address = "10.0.0.1"
"""

_DB: Final = """
[servers.db]
roles = ["primary"]
address = "10.0.0.{number}"
"""

_MEDIA: Final = """
# The files that visitors upload, so that the application has time for pages.
[servers.media]
roles = ["media"]
address = "10.0.0.2"
engine = "nginx"
"""

_REDUNDANT_MEDIA: Final = """
# Uploads are on the media servers alone; two of three have a file before its upload succeeds.
[media]
storage = "distributed"
need = "majority"
engine = "nginx"
"""

_SYNCHRONOUS: Final = """\
# A commit waits until a replica has it, too: the primary may be lost with its disk.
synchronous = true
"""

_BALANCERS: Final = """
# Visitors come to any of them: the domain has the addresses of all.
[servers.lb1]
roles = ["balancer"]
address = "10.0.0.1"

[servers.lb2]
roles = ["balancer"]
address = "10.0.0.2"
"""

_CACHE: Final = """
[cache]
engine = "memcached"
memory = 256
"""

_HEADS: Final = {
    "single": "# One server does all of it.\n",
    "database": "# The database has a server of its own: put the addresses of both.\n",
    "media": "# Application, media and database each have a server: put their addresses.\n",
    "redundant": "# Any one server can die, its disk with it: put the addresses of all.\n",
    "big": "# Several of everything: put the addresses of all.\n",
}


def _several(*, web: int, caches: int) -> str:
    """So many application servers and caches, with two or three of all else."""
    return "".join(
        (
            _SITE,
            _REDUNDANT_MEDIA,
            _DATABASE,
            _SYNCHRONOUS,
            _CACHE if caches else "",
            _BALANCERS,
            *_servers("web", "app", 10, web),
            *_servers("media", "media", 20, 3),
            *_servers("db", "primary", 30, 1),
            *_servers("db", "replica", 31, 2, first=2),
            *_servers("cache", "cache", 40, caches),
        )
    )


def _servers(name: str, role: str, address: int, count: int, first: int = 1) -> Iterator[str]:
    for number in range(count):
        yield (
            f'\n[servers.{name}{first + number}]\nroles = ["{role}"]\n'
            f'address = "10.0.0.{address + number + 1}"\n'
        )


_BODIES: Final = {
    "single": _SITE + _MEDIA_ROOT + _SQLITE + _WEB_WITH_MEDIA,
    "database": _SITE + _MEDIA_ROOT + _DATABASE + _WEB_WITH_MEDIA + _DB.replace("{number}", "2"),
    "media": _SITE + _MEDIA_ROOT + _DATABASE + _WEB + _MEDIA + _DB.replace("{number}", "3"),
    "redundant": _several(web=2, caches=0),
    "big": _several(web=4, caches=2),
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
