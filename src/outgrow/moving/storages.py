"""A storage for the time of a move: it writes to the new one, and reads from both.

The laws:

1. A file is saved to the new storage, under a name that the old one has not either.
2. What the new storage has not, is read from the old one.
3. A delete is carried out at the old storage first, then at the new one. A copy that goes on
   looks at the old one after it has written (law 2 of `copying`), so nothing that was
   deleted comes back.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from threading import Lock
from typing import Any, Final, TypeVar

from django.core.exceptions import ImproperlyConfigured
from django.core.files.base import File
from django.core.files.storage import Storage, storages
from django.db import connections, transaction
from django.utils.functional import cached_property

from outgrow import conf
from outgrow.errors import MasterError, NoCopy, ServerError
from outgrow.media.base import Replicated
from outgrow.media.replication import OTHER_NAMES
from outgrow.moving.places import is_local, is_overwriting, is_unique
from outgrow.twins import AsyncTwins

Answer = TypeVar("Answer")

#: Names of which a process remembers where their files are.
_REMEMBERED: Final = 10_000

#: What a storage raises whose servers are away.
_AWAY: Final = (ServerError, NoCopy)


class MovingStorage(AsyncTwins, Storage):
    """Two storages as one, while a site moves from one to the other.

    The options:

    `to`
        The alias in STORAGES of the new storage. All files are saved there.
    `from`
        The alias of the old one. What the new one has not is read there.

    ``manage.py outgrow media copy`` brings over what the old one has. Names are as the new
    storage gives them. With names that are never used twice a file is also read from the
    old storage while the new one is away. A delete is carried out at both. Thread-safe;
    nothing is opened or sent before the first use.
    """

    def __init__(self, **options: Any) -> None:
        self._given = options

    def deconstruct(self) -> tuple[str, tuple[()], dict[str, Any]]:
        """For migrations: the class alone."""
        return "outgrow.moving.MovingStorage", (), {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_given": self._given}

    # --- the parts

    @cached_property
    def options(self) -> conf.MovingOptions:
        """The checked options. Raises ImproperlyConfigured."""
        checked, problems = conf.moving_options(
            self._given, "MovingStorage(...)", conf.storages().keys()
        )
        if problems:
            raise ImproperlyConfigured("; ".join(map(str, problems))) from problems[0]
        return checked

    @property
    def new(self) -> Storage:
        """The storage that files move to."""
        return storages[self.options.to]

    @property
    def old(self) -> Storage:
        """The storage that files come from."""
        return storages[self.options.source]

    @cached_property
    def _places(self) -> _Remembered:
        return _Remembered()

    @property
    def uses_database(self) -> bool:
        """Whether one of the two does."""
        return any(getattr(one, "uses_database", False) for one in (self.new, self.old))

    # --- names

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        """As the new storage has it; and the old one has no file of that name."""
        if is_unique(self.new) or is_overwriting(self.new):
            return self.new.get_available_name(name, max_length)
        wanted = name
        for _ in range(OTHER_NAMES):
            free = self.new.get_available_name(wanted, max_length)
            if not self.old.exists(free):
                return free
            folder, last = os.path.split(name)
            wanted = os.path.join(folder, self.get_alternative_name(*os.path.splitext(last)))
        raise MasterError(f"{name!r} was not saved: {OTHER_NAMES} names in a row were taken.")

    def generate_filename(self, filename: str | os.PathLike[str]) -> str:
        """As the new storage has it."""
        return str(self.new.generate_filename(filename))

    def get_valid_name(self, name: str) -> str:
        """As the new storage has it."""
        return str(self.new.get_valid_name(name))

    # --- writing

    def save(self, name: str | None, content: Any, max_length: int | None = None) -> str:
        """Save to the new storage, under a name that the old one has not."""
        if is_unique(self.new) or is_overwriting(self.new):
            return self.new.save(name, content, max_length)
        wanted = name if name is not None else content.name
        for _ in range(OTHER_NAMES):
            free = self.get_available_name(wanted, max_length)
            saved = self.new.save(free, content, max_length)
            if saved == free or not self.old.exists(saved):
                return saved
            # Somebody took the name meanwhile, and the new storage chose one by itself.
            self.new.delete(saved)
        raise MasterError(f"{wanted!r} was not saved: {OTHER_NAMES} names in a row were taken.")

    def delete(self, name: str) -> None:
        """Delete a file at the old storage, then at the new one (law 3)."""
        self.old.delete(name)
        self._places.forget(name)
        using = _defers_to(self.old)
        if using and connections[using].in_atomic_block:
            # The old one's delete waits for the commit, and is the first in this line.
            transaction.on_commit(partial(self.new.delete, name), using=using)
            return
        self.new.delete(name)

    # --- reading

    def open(self, name: str, mode: str = "rb") -> File[Any]:
        """Open a file, where it is."""
        return self._read(lambda storage: storage.open(name, mode))

    def exists(self, name: str) -> bool:
        """Whether one of the two has such a file. Raises where that is not known."""
        try:
            return bool(self.new.exists(name) or self.old.exists(name))
        except _AWAY:
            if is_unique(self.new) and self.old.exists(name):
                return True
            raise

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return self._read(lambda storage: storage.size(name))

    def get_modified_time(self, name: str) -> datetime:
        """When a file was written, where it is."""
        return self._read(lambda storage: storage.get_modified_time(name))

    def get_created_time(self, name: str) -> datetime:
        """When a file was made, where it is."""
        return self._read(lambda storage: storage.get_created_time(name))

    def get_accessed_time(self, name: str) -> datetime:
        """When a file was read, where it is."""
        return self._read(lambda storage: storage.get_accessed_time(name))

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        """The folders and files that one of the two has right below a path."""
        folders: set[str] = set()
        files: set[str] = set()
        missing = []
        for storage in (self.new, self.old):
            try:
                found = storage.listdir(path)
            except FileNotFoundError as error:
                missing.append(error)
                continue
            folders.update(found[0])
            files.update(found[1])
        if len(missing) == 2:
            raise missing[0]
        return sorted(folders), sorted(files)

    def _read(self, ask: Callable[[Storage], Answer]) -> Answer:
        """The new storage's answer; where it has no such file, the old one's (law 2)."""
        try:
            return ask(self.new)
        except FileNotFoundError:
            return ask(self.old)
        except _AWAY as error:
            # With names that are used once, the old one's file is the same.
            if not is_unique(self.new):
                raise
            with _instead_of(error):
                return ask(self.old)

    # --- where a file is

    def url(self, name: str | None, **more: Any) -> str:
        """Its URL in the storage that has it. Asks at most once for a name and process.

        `more` is what that storage's `url` takes: `expire`, say.
        """
        if not name:
            raise ValueError("This file has no name, and so no URL.")
        return self._holder(name).url(name, **more)

    def path(self, name: str) -> str:
        """Its path, in the storage that has it, if that has its files on a disk."""
        return self._holder(name).path(name)

    def _holder(self, name: str) -> Storage:
        """The storage that has a file; whichever is easier to ask is asked.

        A file that is in one of them stays there until it is deleted, so each answer can be
        remembered; but not that the old one has it, where the new one may get another.
        """
        remembered = self._places.get(name)
        if remembered is not None:
            return self.new if remembered else self.old
        unique = is_unique(self.new)
        if unique and is_local(self.old) and not is_local(self.new):
            is_new = not self.old.exists(name)
        else:
            is_new = self.new.exists(name)
        if is_new or unique:
            self._places.put(name, is_new)
        return self.new if is_new else self.old


class _Remembered:
    """Where the files of some names are, the last ones asked for. Thread-safe."""

    def __init__(self) -> None:
        self._busy = Lock()
        self._found: OrderedDict[str, bool] = OrderedDict()

    def get(self, name: str) -> bool | None:
        """Whether it is in the new storage; None when nobody knows."""
        with self._busy:
            found = self._found.get(name)
            if found is not None:
                self._found.move_to_end(name)
            return found

    def put(self, name: str, is_new: bool) -> None:
        """Remember it."""
        with self._busy:
            self._found[name] = is_new
            while len(self._found) > _REMEMBERED:
                self._found.popitem(last=False)

    def forget(self, name: str) -> None:
        """It is deleted."""
        with self._busy:
            self._found.pop(name, None)


@contextmanager
def _instead_of(error: Exception) -> Iterator[None]:
    """The first storage's trouble is the answer, where the second can't help."""
    try:
        yield
    except FileNotFoundError:
        raise error from None


def _defers_to(storage: Storage) -> str:
    """The alias of the database whose commit a storage's deletes wait for, or nothing."""
    if isinstance(storage, Replicated) and storage.uses_database:
        return storage.options.using
    return ""
