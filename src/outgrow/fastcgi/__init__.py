"""A site behind a web server's FastCGI: `manage.py runfcgi`, and `runfastcgi()` for shared hosting.

Django had both until version 1.8. The protocol is flup's; how processes and threads are
started, stopped and replaced stands in `servers`, the words of the command in `options`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outgrow.fastcgi.running import runfastcgi

__all__ = ["runfastcgi"]


def __getattr__(name: str) -> object:
    if name in __all__:  # PEP 562: `options` knows no Django
        from outgrow.fastcgi.running import runfastcgi

        return runfastcgi
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
