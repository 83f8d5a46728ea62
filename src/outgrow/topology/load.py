"""topology.toml -> `Site`."""

from __future__ import annotations

import os
import tomllib
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Final

from outgrow.errors import TopologyError
from outgrow.topology.keys import suggestion
from outgrow.topology.model import Site, direct, parse
from outgrow.topology.presets import PRESETS, preset

#: Where `outgrow up` tells the processes that it starts which file to read.
VARIABLE: Final = "OUTGROW_TOPOLOGY"

#: The name of the server in whose place a process runs: for the choice of its own pooler, and
#: for the site itself to show.
SERVER_VARIABLE: Final = "OUTGROW_SERVER"

#: Set to anything, the databases are reached past the poolers: for what needs a session of its
#: own, such as `manage.py test`, a migration, or an advisory lock that outlives a transaction.
DIRECT: Final = "OUTGROW_DIRECT"


def load(path: str | os.PathLike[str]) -> Site:
    """The site that the file describes.

    Raises `TopologyError` when the file can't be read or is not TOML (then with
    line and column), and its subclass `TopologyErrors`, with every problem, when
    its content is wrong.
    """
    file = Path(path)
    try:
        with file.open("rb") as stream:
            content = tomllib.load(stream)
    except OSError as error:
        hint = "Is this the path of your topology.toml?"
        raise TopologyError(str(file), f"can't be read: {error.strerror}.", hint) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TopologyError(str(file), f"is not TOML: {error}.") from error
    return parse(content, file.resolve().parent, source=str(file))


def create(path: Path, kind: str, name: str, domain: str) -> None:
    """Write one of the presets. Raises `TopologyError`, also where a file is there already."""
    if kind not in PRESETS:
        raise TopologyError("new", f'"{kind}" is no preset;', suggestion(kind, PRESETS))
    text = preset(kind, name, domain)
    parse(tomllib.loads(text), path.parent, source="--name and --domain")
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise TopologyError(str(path), f"can't be written: {error.strerror}.") from error


def current(default: str | os.PathLike[str]) -> Site:
    """The site that this process runs in: for a site's settings.py.

    That of the file `default`, or of the one that the environment variable
    OUTGROW_TOPOLOGY names: so the same settings run in production and below
    `outgrow up`. It knows the password of the database, and the secret of the object store.
    With poolers it is that of the server that OUTGROW_SERVER names, and without them where
    OUTGROW_DIRECT is set. The system checks compare the settings with it (`used`).
    Raises what `load` raises, and `TopologyError` when one is not where the file says.
    """
    site = load(os.environ.get(VARIABLE) or default)
    if site.services("pooler"):
        # It is the name of a service: "app1:app" where the server has several roles.
        here = os.environ.get(SERVER_VARIABLE, "").partition(":")[0]
        site = direct(site) if os.environ.get(DIRECT) else replace(site, here=here)
    if rows := site.database:
        password = _secret("database.password", rows.password_env, rows.password_file)
        site = replace(site, database=replace(rows, password=password))
    if store := site.objects:
        secret = _secret("objects.secret", store.secret_env, store.secret_file)
        site = replace(site, objects=replace(store, secret=secret))
    _used[:] = [site]
    return site


#: What `current` has given last.
_used: list[Site] = []


def used() -> Site | None:
    """The site that this process's settings were made of; None where they were made by hand."""
    return _used[0] if _used else None


def _secret(key: str, variable: str, file: PurePath | None) -> str:
    """What a variable or a file holds; `key` and "_env" or "_file" say where it is named."""
    if variable:
        if secret := os.environ.get(variable):
            return secret
        hint = "Set it for every process of the site, manage.py too."
        problem = f"the environment variable {variable} is not set."
        raise TopologyError(f"{key}_env", problem, hint)
    if file is None:
        return ""
    try:
        # As an editor or `echo` leaves it, with the end of a line.
        secret = Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TopologyError(f"{key}_file", f"{file} can't be read: {error}.") from error
    if not secret:
        raise TopologyError(f"{key}_file", f"{file} is empty.")
    return secret
