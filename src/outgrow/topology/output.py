"""What the processes of a site print, line by line, in one place.

One thread reads all of them. Memory is bounded: a line that grows too long is
cut into several, and of each process only its last lines are kept. Control
characters are shown, not passed on: what a visitor makes a server print must
not reach into a terminal.
"""

from __future__ import annotations

import os
import re
import selectors
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Final, TextIO

#: Bytes of one line; what is longer is shown as several.
LONGEST_LINE: Final = 8192

#: Lines kept of each process, for the message of an error.
KEPT_LINES: Final = 60

_CONTROLS: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")

# Of the eight basic colours those that can be read on black and on white.
_COLOURS: Final = (36, 33, 32, 35, 34, 31)


@dataclass(slots=True)
class _Stream:
    name: str
    pipe: IO[bytes]
    ended: threading.Event = field(default_factory=threading.Event)
    rest: bytes = b""


class Lines:
    """Reads the output of processes in one thread, and passes it on line by line.

    `write(name, line)` is called from that thread; when it raises OSError (a
    closed terminal) nothing more is passed on, and reading goes on.
    """

    def __init__(self, write: Callable[[str, str], None]) -> None:
        self._write = write
        self._thread: threading.Thread | None = None
        self._wake = (-1, -1)
        self._lock = threading.Lock()
        self._added: deque[_Stream] = deque()
        self._kept: dict[str, deque[str]] = {}
        self._closing = False
        self.broken = False

    def start(self) -> None:
        """Start the thread."""
        self._wake = os.pipe()
        selector = selectors.DefaultSelector()
        selector.register(self._wake[0], selectors.EVENT_READ)
        self._thread = threading.Thread(
            target=self._run, args=(selector,), name="outgrow output", daemon=True
        )
        self._thread.start()

    def follow(self, name: str, stream: IO[bytes]) -> threading.Event:
        """Read `stream` and close it at its end; the event says that it has ended."""
        new = _Stream(name, stream)
        self._added.append(new)
        os.write(self._wake[1], b"+")
        return new.ended

    def last_lines(self, name: str) -> str:
        """The last lines of this process, indented."""
        with self._lock:
            return "\n".join(f"    {line}" for line in self._kept.get(name, ()))

    def close(self) -> None:
        """Show what is there, and end the thread."""
        if self._thread is None:
            return
        self._closing = True
        os.write(self._wake[1], b"-")
        self._thread.join()
        for end in self._wake:
            os.close(end)
        self._thread = None

    def _run(self, selector: selectors.BaseSelector) -> None:
        with selector:
            while True:
                ready = selector.select(timeout=0 if self._closing else None)
                for key, _ in ready:
                    if key.data is None:
                        os.read(self._wake[0], 512)
                    else:
                        self._read(selector, key.data)
                while self._added:
                    new = self._added.popleft()
                    selector.register(new.pipe, selectors.EVENT_READ, new)
                if self._closing and not ready:
                    return

    def _read(self, selector: selectors.BaseSelector, stream: _Stream) -> None:
        data = os.read(stream.pipe.fileno(), 65536)
        *lines, stream.rest = (stream.rest + data).split(b"\n")
        if len(stream.rest) > LONGEST_LINE or (not data and stream.rest):
            lines.append(stream.rest)
            stream.rest = b""
        for line in lines:
            for start in range(0, len(line) or 1, LONGEST_LINE):
                self._pass_on(stream.name, line[start : start + LONGEST_LINE])
        if not data:
            selector.unregister(stream.pipe)
            stream.pipe.close()
            stream.ended.set()

    def _pass_on(self, name: str, line: bytes) -> None:
        text = plain(line)
        with self._lock:
            self._kept.setdefault(name, deque(maxlen=KEPT_LINES)).append(text)
        if self.broken:
            return
        try:
            self._write(name, text)
        except OSError:
            self.broken = True


class Printer:
    """Writes lines to a stream, each after the name of its process.

    `width` is that of the longest name. Colours are used on a terminal, unless
    NO_COLOR is set (no-color.org) or the terminal is a dumb one. Thread-safe.
    """

    def __init__(self, stream: TextIO, names: tuple[str, ...], *, colours: bool) -> None:
        self._stream = stream
        self._width = max(map(len, names), default=0)
        self._colours = {
            name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(names) if colours
        }

    def __call__(self, name: str, line: str) -> None:
        """Write one line."""
        prefix = f"{name:<{self._width}} |"
        if colour := self._colours.get(name):
            prefix = f"\x1b[{colour}m{prefix}\x1b[0m"
        encoding = self._stream.encoding or "utf-8"
        shown = f"{prefix} {line}\n".encode(encoding, "replace").decode(encoding)
        # One write a line: lines of several threads don't mix.
        self._stream.write(shown)
        self._stream.flush()


def wants_colours(stream: TextIO, environment: dict[str, str] | os._Environ[str]) -> bool:
    """Whether colours are welcome on this stream."""
    if environment.get("NO_COLOR") or environment.get("TERM") == "dumb":
        return False
    with suppress(ValueError):  # a closed stream
        return stream.isatty()
    return False


def plain(line: bytes) -> str:
    """The text of a line, with its control characters shown."""
    text = line.decode("utf-8", "replace").rstrip("\r")
    return _CONTROLS.sub(lambda found: f"\\x{ord(found.group()):02x}", text)
