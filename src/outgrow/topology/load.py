"""topology.toml -> `Site`."""

from __future__ import annotations

import os
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Final

from outgrow.errors import TopologyError
from outgrow.topology.database import Database
from outgrow.topology.model import Site, parse

#: Where `outgrow up` tells the processes that it starts which file to read.
VARIABLE: Final = "OUTGROW_TOPOLOGY"


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


def current(default: str | os.PathLike[str]) -> Site:
    """The site that this process runs in: for a site's settings.py.

    That of the file `default`, or of the one that the environment variable
    OUTGROW_TOPOLOGY names: so the same settings run in production and below
    `outgrow up`. It knows the password of the database. Raises what `load` raises, and
    `TopologyError` when the password is not where the file says.
    """
    site = load(os.environ.get(VARIABLE) or default)
    if site.database is None:
        return site
    return replace(site, database=replace(site.database, password=_password(site.database)))


def _password(database: Database) -> str:
    if database.password_env:
        variable = database.password_env
        if password := os.environ.get(variable):
            return password
        hint = "Set it for every process of the site, manage.py too."
        problem = f"the environment variable {variable} is not set."
        raise TopologyError("database.password_env", problem, hint)
    if database.password_file:
        try:
            # As an editor or `echo` leaves it, with the end of a line.
            password = Path(database.password_file).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            problem = f"{database.password_file} can't be read: {error}."
            raise TopologyError("database.password_file", problem) from error
        if not password:
            problem = f"{database.password_file} is empty."
            raise TopologyError("database.password_file", problem)
        return password
    return ""
