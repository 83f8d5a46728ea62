"""Storages that end their process at a step of a copy, as the kernel would."""

from __future__ import annotations

import os
import signal
from typing import Any

from django.core.files.base import File
from django.core.files.storage import FileSystemStorage

from outgrow.media import DistributedStorage


def die() -> None:
    """As by the kernel: nothing is tidied up."""
    os.kill(os.getpid(), signal.SIGKILL)


class DiesWhenOpened(FileSystemStorage):
    """Before anything was written."""

    def open(self, name: str, mode: str = "rb") -> File[Any]:
        die()
        return super().open(name, mode)


class DiesWhileRead(FileSystemStorage):
    """While the file is on its way."""

    def open(self, name: str, mode: str = "rb") -> File[Any]:
        file = super().open(name, mode)

        class Dying(type(file)):  # type: ignore[misc]
            def chunks(self, chunk_size: int | None = None) -> Any:
                yield from list(super().chunks(chunk_size))[:1]
                die()

        file.__class__ = Dying
        return file


class DiesAtTheSecondLook(FileSystemStorage):
    """After the file was written; and the site deletes it in the same moment."""

    def exists(self, name: str) -> bool:
        self.delete(name)
        die()
        return False


class DiesOnItsWay(DistributedStorage):
    """When the name is on record, and before a server has the file."""

    def drive(self, steps: Any) -> Any:
        for step in steps:
            if step == "committed":
                die()
        return None
