"""One process of a drill: it saves, deletes or repairs, and dies by SIGKILL where it is told.

    python actor.py FOLDER SERVERS WHAT STEP [NAME [COUNT]]
    python actor.py --fork

FOLDER is the master, SERVERS are URLs with commas between. WHAT is save, delete,
repair, loop, or one of the NAMES: then it saves NAME COUNT times. With CATALOGUE in the
environment, a folder, the storage is a distributed one whose databases lie there, and the
site saves in a transaction; with ASYNC it is an asynchronous one, which is given the time
to tell the servers.
STEP is how many steps it takes before it kills itself; -1 for all. With a "c" before the
number it is not the protocol's steps that are counted but the calls of the system that
change something, and the statements of a database: the finest grain at which a process
can die.
What was confirmed is printed before anything else happens.

With --fork it reads such words from its input, as JSON, a line each, and makes a process
for each by a fork: that is ten times as quick as to begin with the imports. It answers
with the exit code.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import signal
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import django
from django.conf import settings

#: What changes a file, a folder or a server. `open` may make one; `close` changes nothing.
CALLS = {
    "open",
    "write",
    "link",
    "unlink",
    "remove",
    "rename",
    "replace",
    "mkdir",
    "chmod",
    "sendmsg",
    "sendfile",
    "execute",  # of a database
}


def _killer(calls: int) -> Any:
    """A profiler that lets so many calls pass, and kills the process before the next."""
    left = [calls]

    def before(frame: Any, event: str, function: Any) -> None:
        del frame
        if event != "c_call" or function.__name__ not in CALLS:
            return
        if getattr(function, "__module__", None) not in {"posix", "io", None}:
            return
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1

    return before


#: How a name is used that several processes save: a new one each time; one that is free;
#: the same.
NAMES: dict[str, dict[str, Any]] = {
    "unique": {"names": "unique"},
    "keep": {"names": "keep"},
    "overwrite": {"names": "keep", "allow_overwrite": True},
}


def prepare() -> None:
    """What is the same for every process."""
    sqlite = {
        "ENGINE": "django.db.backends.sqlite3",
        # These drills kill processes, and no machine: what was written stays.
        "OPTIONS": {"init_command": "PRAGMA synchronous=OFF"},
    }
    settings.configure(
        MEDIA_URL="/media/",
        INSTALLED_APPS=["outgrow"],
        # The site's, and that of the catalogue. Where they are, each process is told.
        DATABASES={alias: {**sqlite, "NAME": ""} for alias in ("default", "outgrow")},
    )
    django.setup()

    for name in ("outgrow.media.storages", "outgrow.media.repair"):
        importlib.import_module(name)


def main(folder: str, servers: str, what: str, step: str, *rest: str) -> None:
    catalogue = os.environ.get("CATALOGUE")
    settings.MEDIA_ROOT = folder
    settings.FILE_UPLOAD_TEMP_DIR = catalogue

    from django.core.files.base import ContentFile
    from django.db import connections, transaction

    from outgrow.media import AsyncStorage, DistributedStorage, HybridStorage
    from outgrow.media.repair import Repair

    left = [-1 if step.startswith("c") else int(step)]

    def drive(steps: Any) -> Any:
        """Take so many steps in all, and then die as if the power of the process went."""
        while True:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            try:
                print("step", next(steps), flush=True)
            except StopIteration as end:
                return end.value

    class Hybrid(HybridStorage):
        def drive(self, steps: Any) -> Any:
            return drive(steps)

    class Async(AsyncStorage):
        def drive(self, steps: Any) -> Any:
            return drive(steps)

    class Distributed(DistributedStorage):
        def drive(self, steps: Any) -> Any:
            return drive(steps)

    for alias in connections if catalogue else ():
        connections.settings[alias]["NAME"] = str(Path(catalogue or "", alias))
    urls = servers.split(",")
    given: dict[str, Any] = {"servers": urls, "timeout": 1.0, "downtime": 0.2}
    given |= NAMES.get(what, {})
    storage: Any
    if catalogue:
        storage = Distributed(**given)
    elif "ASYNC" in os.environ:
        storage = Async(location=folder, **given)
    else:
        storage = Hybrid(location=folder, **given)
    if step.startswith("c"):
        killer = _killer(int(step[1:]))
        threading.setprofile(killer)  # for the thread of an asynchronous storage
        sys.setprofile(killer)
    if what == "save":
        with transaction.atomic() if catalogue else nullcontext():
            name = storage.save("folder/file.bin", ContentFile(b"content of the drill"))
        print("saved", name, flush=True)
    elif what == "delete":
        storage.delete(rest[0])
        print("deleted", rest[0], flush=True)
    elif what == "repair":
        Repair(storage.replication, drive=drive).once(settle=False)
        print("repaired", flush=True)
    elif what in NAMES:
        for number in range(int(rest[1])):
            content = f"{os.getpid()} {number}"
            print("saved", storage.save(rest[0], ContentFile(content)), content, flush=True)
    elif what == "loop":
        plain = HybridStorage(location=folder, servers=servers.split(","), timeout=1.0)
        for number in range(1000):
            content = f"content {number}".encode() * 50
            name = plain.save(f"loop/{number}.bin", ContentFile(content))
            print("saved", name, number, flush=True)
            if number % 3 == 0:
                print("deleting", name, flush=True)
                plain.delete(name)
    if isinstance(storage, AsyncStorage):
        # Its thread looks for what others have left, too, as soon as nobody waits.
        while storage.background._behind:
            time.sleep(0.001)
        assert storage.background.drain(30)
        print("told", flush=True)


def fork() -> list[str]:
    """Do as the lines of the input say. In each child, return the words for `main`."""
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            for number, path in enumerate([os.devnull, order["output"], order["errors"]]):
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                os.dup2(descriptor, number)
            os.environ.update(order["environment"])
            faulthandler.dump_traceback_later(order["limit"])  # who hangs says where
            return list(order["words"])
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    sys.exit()


if __name__ == "__main__":
    prepare()
    main(*(fork() if sys.argv[1:] == ["--fork"] else sys.argv[1:]))
