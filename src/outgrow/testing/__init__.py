"""For tests of sites that use Outgrow: a media server with faults, a clock, and replicas.

::

    from outgrow.testing import MediaServer

    with MediaServer() as server:
        save_a_photo(server.url)
        assert server.log == [("PUT", "/photos/a.jpg", 201)]

With pytest the fixture `media_server` gives one that runs, and the fixture `replicas` is
`replicas()` around the test; both are found as soon as Outgrow is installed.

The replicas need Django; the rest needs no Django and no package of the extras.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from outgrow.testing.media_server import (
    FakeClock,
    FolderFiles,
    Hang,
    MediaServer,
    entity_tag,
    free_port,
)

if TYPE_CHECKING:
    from outgrow.testing.databases import assert_routed, lagging, replicas

__all__ = [
    "FakeClock",
    "FolderFiles",
    "Hang",
    "MediaServer",
    "assert_routed",
    "entity_tag",
    "free_port",
    "lagging",
    "replicas",
]

_OF_DATABASES: Final = {"assert_routed", "lagging", "replicas"}


def __getattr__(name: str) -> object:
    # PEP 562: a media server is there for those, too, who have no Django.
    if name in _OF_DATABASES:
        return getattr(import_module("outgrow.testing.databases"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
