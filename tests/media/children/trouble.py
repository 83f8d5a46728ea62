"""A process whose disk is full, or that may not write, while it saves; then all is well again.

    python trouble.py KIND TROUBLE FOLDER URLS [USER GROUP]

KIND is hybrid, async or distributed; TROUBLE is "limit" (no file may be larger than 100 KB),
"space" (the file system has no room), "permission". FOLDER gets the master, or the uploads on
their way. With USER and GROUP the process gives up being root. It prints what it has seen as
JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import django
from django.conf import settings

BIG, SMALL = 200_000, 10


def main(kind: str, trouble: str, folder: str, urls: str, *user: str) -> None:
    place = Path(folder, "place")
    filler = place / "filler"
    sqlite = {"ENGINE": "django.db.backends.sqlite3"}
    settings.configure(
        INSTALLED_APPS=["outgrow"],
        MEDIA_URL="/media/",
        DATABASES={one: {**sqlite, "NAME": f"{folder}/{one}"} for one in ("default", "outgrow")},
        FILE_UPLOAD_TEMP_DIR=str(place),
    )
    django.setup()

    from django.core.files.base import ContentFile
    from django.core.management import call_command

    from outgrow.media import AsyncStorage, DistributedStorage, HybridStorage
    from outgrow.media.repair import Repair

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    kinds: dict[str, Any] = {"hybrid": HybridStorage, "async": AsyncStorage}

    def make(where: Path) -> Any:
        given: dict[str, Any] = {"servers": urls.split(","), "downtime": 0.05, "base_url": "/"}
        if kind == "distributed":
            return DistributedStorage(**given)
        return kinds[kind](location=where, **given)

    def told(storage: Any) -> None:
        if kind == "async":
            assert storage.background.drain(30)

    if kind == "distributed":
        for alias in ("default", "outgrow"):
            call_command("migrate", "outgrow", database=alias, verbosity=0)
            if user:
                os.chown(f"{folder}/{alias}", int(user[0]), int(user[1]))
    if user:
        # What is imported late, where nobody else may read, is imported now.
        for module in ("django.db.backends.sqlite3.base", "outgrow.media.background"):
            importlib.import_module(module)
        os.setgroups([])
        os.setresgid(*[int(user[1])] * 3)
        os.seteuid(int(user[0]))
    storage = make(place)
    Repair(storage.replication).once(settle=False)
    kept = storage.save("kept.bin", ContentFile(b"x" * SMALL))
    told(storage)
    seen: dict[str, Any] = {"kept": kept}

    def attempt(what: str, act: Any) -> None:
        try:
            act()
        except OSError as error:
            seen[what] = [type(error).__name__, error.errno]
        told(storage)

    def everything() -> set[str]:
        return {str(path) for path in place.rglob("*") if path.is_file() and path != filler}

    before = everything()
    folders = [place, *(path for path in place.rglob("*") if path.is_dir())]
    if trouble == "limit":
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    elif trouble == "space":
        with open(filler, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                pass
    else:
        for one in folders:
            one.chmod(0o555)
        if kind != "distributed":
            attempt("delete", lambda: storage.delete(kept))
    attempt("save", lambda: storage.save("big.bin", ContentFile(b"y" * BIG)))
    seen["left"] = sorted(everything() - before)
    seen["open"] = len(list(storage.journal.attempts()))
    if trouble == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    elif trouble == "space":
        filler.unlink()
    else:
        for one in folders:
            one.chmod(0o755)
    seen["again"] = storage.save("again.bin", ContentFile(b"z" * BIG))
    told(storage)
    report = Repair(storage.replication).once(settle=False)
    seen["complete"] = report.complete
    if kind != "distributed":
        seen["master"] = sorted(
            path.name for path in place.rglob("*.bin") if ".outgrow" not in path.parts
        )
    print(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
