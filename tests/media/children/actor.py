"""One process of a drill: it saves, deletes or repairs, and dies by SIGKILL where it is told.

    python actor.py FOLDER SERVERS WHAT STEP [NAME]

FOLDER is the master, SERVERS are URLs with commas between. WHAT is save, delete,
repair or loop. With CATALOGUE in the environment, a folder, the storage is a distributed
one whose databases lie there, and the site saves in a transaction.
STEP is how many steps it takes before it kills itself; -1 for all. With a "c" before the
number it is not the protocol's steps that are counted but the calls of the system that
change something, and the statements of a database: the finest grain at which a process
can die.
What was confirmed is printed before anything else happens.
"""

from __future__ import annotations

import os
import signal
import sys
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


def databases(folder: str) -> dict[str, Any]:
    """The site's, and that of the catalogue."""
    return {
        alias: {"ENGINE": "django.db.backends.sqlite3", "NAME": str(Path(folder, alias))}
        for alias in ("default", "outgrow")
    }


def main() -> None:
    folder, servers, what, step, *rest = sys.argv[1:]
    catalogue = os.environ.get("CATALOGUE")
    settings.configure(
        MEDIA_ROOT=folder,
        MEDIA_URL="/media/",
        DATABASES=databases(catalogue) if catalogue else {},
        INSTALLED_APPS=["outgrow"],
        FILE_UPLOAD_TEMP_DIR=catalogue,
    )
    django.setup()

    from django.core.files.base import ContentFile
    from django.db import transaction

    from outgrow.media import DistributedStorage, HybridStorage
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

    class Storage(HybridStorage):
        def drive(self, steps: Any) -> Any:
            return drive(steps)

    class Distributed(DistributedStorage):
        def drive(self, steps: Any) -> Any:
            return drive(steps)

    urls = servers.split(",")
    given = {"servers": urls, "timeout": 1.0, "downtime": 0.2}
    storage = Distributed(**given) if catalogue else Storage(location=folder, **given)
    if step.startswith("c"):
        sys.setprofile(_killer(int(step[1:])))
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
    elif what == "loop":
        plain = HybridStorage(location=folder, servers=servers.split(","), timeout=1.0)
        for number in range(1000):
            content = f"content {number}".encode() * 50
            name = plain.save(f"loop/{number}.bin", ContentFile(content))
            print("saved", name, number, flush=True)
            if number % 3 == 0:
                print("deleting", name, flush=True)
                plain.delete(name)


if __name__ == "__main__":
    main()
