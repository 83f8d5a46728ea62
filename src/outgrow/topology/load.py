"""topology.toml -> `Site`."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Final

from outgrow.errors import TopologyError
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
    `outgrow up`. Raises what `load` raises.
    """
    return load(os.environ.get(VARIABLE) or default)
