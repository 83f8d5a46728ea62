"""Uploaded and static files in an object store: S3 and its kind, Google's, Azure's.

`ObjectStorage` is Django's storage API over one location, ``s3://bucket/prefix``. The data
go through obstore (`stores`, `uploads`, `downloads`), which `runtime` makes usable in
processes that were forked; `mishaps` turns what it raises into our errors. URLs are signed
by `sign`, with no request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outgrow.objects.storages import ObjectStorage

__all__ = ["ObjectStorage"]


def __getattr__(name: str) -> object:
    # PEP 562: `outgrow.objects.ObjectStorage` for settings, while the modules that know no
    # Django can be imported without it.
    if name in __all__:
        from outgrow.objects import storages

        return getattr(storages, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
