"""obstore, in processes that may have been forked.

obstore runs its requests on threads of its own (Tokio's), made at its first use and kept in
variables of its shared library. Threads do not survive a fork, and those variables do: in
the child every call would wait for ever (obstore, pull request 441; measured with 0.12.1).
It would break its parent, too, for both have one epoll: of 40 parents whose child had tried,
5 crashed or hung.

So a child that was forked after obstore had been loaded loads a second copy of the library,
which has variables of its own, and makes its stores there. What it inherited is never
touched again, nor freed: to close it would need the threads that are gone. A copy costs
15 MB of memory and some 60 ms, at the child's first use; children that use no object store
pay nothing, and neither do those whose parent had not loaded obstore.

A fork waits while another thread loads the library: the child could not load it any more,
for the lock of that import would be held by a thread that it has not.

Thread-safe.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from types import ModuleType
from typing import Any, Final

from outgrow.errors import ForkedProcess, MissingExtra

_PACKAGE: Final = "obstore"
_LIBRARY: Final = "obstore._obstore"


class _State:
    """Which copy this process uses."""

    def __init__(self) -> None:
        # Reentrant, for what is loaded may itself fork.
        self.lock = threading.RLock()
        self.module: ModuleType | None = None
        #: Whether the copy in `sys.modules` was made before a fork.
        self.inherited = False
        #: Counts the forks since it was loaded, from this process' point of view.
        self.generation = 0
        #: What was inherited, so that nothing of it is ever freed.
        self.abandoned: list[object] = []


_state = _State()


def generation() -> int:
    """A number that differs in a child from its parent's: what was made before is of no use."""
    return _state.generation


def abandon(inherited: object) -> None:
    """Keep what a parent made, and this process can't use, until it ends."""
    _state.abandoned.append(inherited)


def library() -> Any:
    """The package `obstore`, of which this process may call everything.

    Raises MissingExtra where it is not installed, and ForkedProcess where a forked process
    can't have a copy of its own.
    """
    module = _state.module
    if module is not None:
        return module
    with _state.lock:
        if _state.module is None:
            _state.module = _own_copy() if _state.inherited else _plain()
        return _state.module


def _plain() -> ModuleType:
    try:
        return importlib.import_module(_PACKAGE)
    except ModuleNotFoundError as error:
        if error.name != _PACKAGE:
            raise
        raise MissingExtra("An object store", _PACKAGE, "objects") from error


def _own_copy() -> ModuleType:
    """The whole package again, under the same names, in nobody's sight."""
    spec = importlib.util.find_spec(_LIBRARY)
    if spec is None or spec.origin is None:
        raise ForkedProcess("the file of obstore's library is not known")
    inherited = _taken_out()
    finder = _Finder(spec.origin)
    sys.meta_path.insert(0, finder)
    try:
        module = importlib.import_module(_PACKAGE)
        importlib.import_module(f"{_PACKAGE}.store")
        return module
    except (ImportError, OSError) as error:
        raise ForkedProcess(str(error)) from error
    finally:
        sys.meta_path.remove(finder)
        abandon(_taken_out())
        sys.modules.update(inherited)


def _taken_out() -> dict[str, ModuleType]:
    """Remove the package from the table of modules, and return what stood there."""
    names = [name for name in sys.modules if name.partition(".")[0] == _PACKAGE]
    return {name: sys.modules.pop(name) for name in names}


class _Finder:
    """Finds the library in a file of its own, and leaves all else to Python."""

    def __init__(self, origin: str) -> None:
        self._origin = origin

    def find_spec(self, name: str, *_more: object) -> ModuleSpec | None:
        """See importlib.abc.MetaPathFinder."""
        if name != _LIBRARY:
            return None
        return importlib.util.spec_from_loader(name, _Loader(name, self._origin))


class _Loader(ExtensionFileLoader):
    """Loads the library from a copy of its file: the linker knows a file by its inode."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """See importlib.abc.Loader. Raises ImportError or OSError."""
        failed: OSError | ImportError | None = None
        for copy in (_in_memory, _in_folder):
            try:
                with copy(self.path) as path:
                    spec.origin = self.path = path
                    return super().create_module(spec)
            except (ImportError, OSError, AttributeError) as error:
                # No memfd_create on this system, or a mount that forbids to execute.
                failed = error if isinstance(error, (ImportError, OSError)) else failed
        raise failed or ImportError(f"there is no place for a copy of {self.path}")


@contextlib.contextmanager
def _in_memory(path: str) -> Iterator[str]:
    """A copy in memory, on Linux."""
    descriptor = os.memfd_create("obstore", os.MFD_CLOEXEC)
    try:
        with open(path, "rb") as source, open(descriptor, "wb", closefd=False) as copy:
            shutil.copyfileobj(source, copy)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _in_folder(path: str) -> Iterator[str]:
    """A copy on the disk. It may be removed when it is loaded."""
    with tempfile.TemporaryDirectory(prefix="outgrow-") as folder:
        yield shutil.copy(path, os.path.join(folder, os.path.basename(path)))


def _before() -> None:
    """Before a fork: nobody is loading the library."""
    _state.lock.acquire()


def _in_parent() -> None:
    _state.lock.release()


def _in_child() -> None:
    """After a fork, in the child, which has but this thread."""
    _state.lock = threading.RLock()
    _state.generation += 1
    # A module that somebody else has loaded may have been used by him as well.
    _state.inherited = _state.inherited or _PACKAGE in sys.modules
    if _state.module is not None:
        abandon(_state.module)
        _state.module = None


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
