"""One process that changes a media server's disk, and dies by SIGKILL where it is told.

    python gravedigger.py ROOT WHAT CALLS

WHAT is delete, put, replace, sweep or scrub; the name is always folder/file. CALLS is how
many calls of the system it makes before it kills itself; a large number is never reached.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from outgrow.media import protocol
from outgrow.media.disk import Disk
from outgrow.media.integrity import Scrub
from outgrow.media.protocol import Refused, Wanted
from outgrow.media.quarantine import Replaced
from outgrow.media.scrubber import Scrubber

PARTS = ("folder", "file")


def killer(calls: int) -> Any:
    """A profiler that lets so many calls of the system pass, and kills before the next."""
    left = [calls]

    def before(frame: Any, event: str, function: Any) -> None:
        del frame
        if event != "c_call" or getattr(function, "__module__", None) not in {"posix", "fcntl"}:
            return
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1

    return before


def one_pass(disk: Disk) -> Scrubber:
    """A scrubber that ends when it would rest until the next pass."""
    scrubber = Scrubber(disk, Scrub(rate=10**9), pause=lambda seconds: seconds > 10)
    scrubber.open()
    return scrubber


def main() -> None:
    root, what, calls = sys.argv[1:]
    disk = Disk(Path(root), records=what == "scrub")
    disk.open()
    if what == "replace":
        disk.keep = Replaced(disk).keep
    scrubber = one_pass(disk) if what == "scrub" else None
    wanted = Wanted("PUT", PARTS, {})
    sys.setprofile(killer(int(calls)))
    if what == "delete":
        disk.remove(PARTS, lambda _state: None)
    elif scrubber is not None:
        scrubber.run()
    elif what == "sweep":
        disk.sweep(time.time(), lambda: False)
    else:
        upload = disk.create()
        try:
            upload.write(b"late")
            upload.commit(PARTS, lambda state: protocol.check_write(wanted, state), exclusive=False)
        except Refused as refused:
            print(refused.answer.status, flush=True)
        finally:
            upload.discard()
    sys.setprofile(None)
    print("done", flush=True)


if __name__ == "__main__":
    main()
