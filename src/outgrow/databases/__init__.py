"""Writes to the primary, reads from its replicas, and nobody reads older data than he wrote.

`position` is what a server has written or replayed, as a value; `statements` says
which SQL is a read, and what a database's error means.
"""

from __future__ import annotations

__all__: list[str] = []


def __getattr__(name: str) -> object:
    # PEP 562, as in outgrow.media: the pure modules are imported without Django.
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
