"""One file says which servers a site has; everything else is made from it.

`model` is the site as a value, `load` reads it from topology.toml, `settings`
gives Django its settings, `render` writes configurations, `plan` says which
processes run, and `local` runs the whole site on one machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outgrow.topology.load import current
    from outgrow.topology.settings import django_settings

__all__ = ["current", "django_settings"]


def __getattr__(name: str) -> object:
    # PEP 562, as in outgrow.media: what a site's settings.py writes stays short.
    if name == "current":
        from outgrow.topology.load import current

        return current
    if name == "django_settings":
        from outgrow.topology.settings import django_settings

        return django_settings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
