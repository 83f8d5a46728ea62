"""A process of a site with an asynchronous storage, that ends in some way.

    python background.py FOLDER SERVERS END [COUNT]

It saves COUNT files (3) and prints their names, and then ends: "exit" normally, "kill" by
SIGKILL at once, "fork" with a child that saves one more.
"""

from __future__ import annotations

import os
import signal
import sys

import django
from django.conf import settings


def main() -> None:
    folder, servers, end, *rest = sys.argv[1:]
    settings.configure(MEDIA_ROOT=folder, MEDIA_URL="/media/")
    django.setup()

    from django.core.files.base import ContentFile

    from outgrow.media import AsyncStorage

    storage = AsyncStorage(location=folder, servers=servers.split(","), timeout=1.0, drain=2.0)
    for number in range(int(rest[0]) if rest else 3):
        print("saved", storage.save(f"{number}.txt", ContentFile(b"x")), flush=True)
    if end == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if end == "fork":
        child = os.fork()
        if child == 0:
            print("saved", storage.save("child.txt", ContentFile(b"x")), flush=True)
            drained = storage.background.drain()
            print("drained", drained, flush=True)
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
