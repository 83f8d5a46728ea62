"""Uploaded files on every media server, over plain HTTP.

`HybridStorage` keeps a master copy on the local disk and sends every change to
all media servers; `AsyncStorage` does so in the background; `DistributedStorage` keeps
none but theirs, and a catalogue in the database. What a server missed is
owed to it in a journal beside the master (`journal`), and repaired from there
(`repair`). The protocol's laws stand at the head of `replication`; how one server is
spoken to in `transport`.
`server` is a media server of our own, for those who run no nginx; `protocol`
decides what it answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outgrow.media.distributed import DistributedStorage
    from outgrow.media.storages import AsyncStorage, HybridStorage

__all__ = ["AsyncStorage", "DistributedStorage", "HybridStorage"]


def __getattr__(name: str) -> object:
    # PEP 562: `outgrow.media.HybridStorage` for settings, while the modules that
    # know no Django can be imported without it.
    if name == "DistributedStorage":
        from outgrow.media.distributed import DistributedStorage

        return DistributedStorage
    if name in __all__:
        from outgrow.media import storages

        return getattr(storages, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
