"""From one storage to another, while the site runs.

`MovingStorage` writes to the new storage and reads from both. `Copy` brings what the old
one has to the new one: `plan` compares two listings, `copying` carries it out, `places` is
what it needs of a storage of any kind, `unfinished` what survives it being killed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outgrow.moving.storages import MovingStorage

__all__ = ["MovingStorage"]


def __getattr__(name: str) -> object:
    # PEP 562: the plan can be imported without Django.
    if name in __all__:
        from outgrow.moving import storages

        return getattr(storages, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
