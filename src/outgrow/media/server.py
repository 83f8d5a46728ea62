"""The embedded media server: an ASGI application, and `serve`, which runs it.

It is meant for development, for tests and for a team that runs no nginx. It is run
by uvicorn, with `connections` of our own that may cost no more than `limits` say.
"""

from __future__ import annotations

import asyncio
import logging
import re
import resource
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from outgrow.errors import ConfigurationError, MissingExtra
from outgrow.media.disk import Disk
from outgrow.media.doors import Door, Place, open_doors
from outgrow.media.handler import Exchange, Message, Receive, Send
from outgrow.media.integrity import Scrub
from outgrow.media.limits import Limits
from outgrow.media.protocol import Rules
from outgrow.media.quarantine import Replaced
from outgrow.media.scrubber import Scrubber
from outgrow.media.tombstones import EVERYTHING, Parts

logger = logging.getLogger("outgrow.media.server")

#: Seconds from one sweep of old tombstones to the next; the first is at the start.
SWEEP_EVERY = 3600

#: Seconds that running requests are given when the server is stopped.
GRACE = 1


class MediaApplication:
    """An ASGI application that serves and stores the files below `root`.

    Writing needs the header ``Authorization: Bearer <token>``; without a token in
    `rules` whoever can connect may write. `fsync`: an upload is on the disk before
    it is answered. `reused`: names that may be put again after they were deleted; any
    other is gone for a week (see `tombstones`). `scrub`: all files are compared with their
    checksums, at that rate (see `scrubber`). The `limits` of what is not a body are kept
    by the server that runs it (see `connections`).

    It needs ASGI's lifespan, which opens the root; that raises ConfigurationError
    when the root can't be used. Several processes may use one root at a time;
    conditions but ``If-None-Match: *`` are atomic within one process only.
    """

    def __init__(
        self,
        root: Path,
        *,
        rules: Rules = Rules(),  # noqa: B008 - frozen
        limits: Limits = Limits(),  # noqa: B008 - frozen
        fsync: bool = True,
        reused: Iterable[Parts] = (),
        scrub: Scrub | None = None,
    ) -> None:
        self.disk = Disk(root, fsync=fsync, reused=reused, records=scrub is not None)
        self.disk.keep = Replaced(self.disk).keep
        self._scrubber = Scrubber(self.disk, scrub) if scrub else None
        self.rules = replace(rules, max_head=limits.max_head)
        self.limits = limits
        self._running: set[asyncio.Task[Any]] = set()
        self._stopping = asyncio.Event()

    def open(self) -> None:
        """Take hold of the root. Raises ConfigurationError when it can't be used."""
        self.disk.open()
        if self._scrubber is not None:
            self._scrubber.open()

    def close(self) -> None:
        """Let go of the root. Harmless when closed."""
        if self._scrubber is not None:
            self._scrubber.close()
        self.disk.close()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request, or the application's life (ASGI 3)."""
        await self._serve(self.rules, scope, receive, send)

    def behind(self, door: Door) -> Callable[[Message, Receive, Send], Awaitable[None]]:
        """The same application, for those who come in by this door."""
        rules = replace(door.rules, max_head=self.limits.max_head)

        async def serve(scope: Message, receive: Receive, send: Send) -> None:
            await self._serve(rules, scope, receive, send)

        return serve

    async def _serve(self, rules: Rules, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._exchange(rules, scope, receive, send)

    async def _exchange(self, rules: Rules, scope: Message, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            exchange = Exchange(self.disk, rules, self.limits, scope, receive, send)
            await exchange.run()
        finally:
            self._running.discard(task)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        self.open()
        self._begin(self._sweep())
        if self._scrubber is not None:
            self._begin(self._run_aside(self._scrubber))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._stopping.set()
        if self._scrubber is not None:
            self._scrubber.stop()
        # Cancelled requests still wait for their threads, which use the root. One
        # that a dead disk holds for longer keeps it open; the process ends anyway.
        if self._running:
            await asyncio.wait(self._running, timeout=GRACE)
        if not self._running:
            self.close()
        await send({"type": "lifespan.shutdown.complete"})

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run_aside(self, scrubber: Scrubber) -> None:
        """Scrub in a thread that no request waits for."""
        thread = ThreadPoolExecutor(1, "outgrow-scrubber")
        try:
            await asyncio.get_running_loop().run_in_executor(thread, scrubber.run)
        except OSError as error:
            logger.error("The files can't be scrubbed: %s", error)  # noqa: TRY400 - one line
        finally:
            thread.shutdown(wait=False)

    async def _sweep(self) -> None:
        while not self._stopping.is_set():
            try:
                await asyncio.to_thread(self.disk.sweep, time.time(), self._stopping.is_set)
            except OSError as error:
                logger.error("Old tombstones can't be removed: %s", error)  # noqa: TRY400 - one line
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), SWEEP_EVERY)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def serve(
    root: Path,
    bind: str = "127.0.0.1:8080",
    *,
    rules: Rules = Rules(),  # noqa: B008 - frozen
    limits: Limits = Limits(),  # noqa: B008 - frozen
    fsync: bool = True,
    reused: Iterable[Parts] = (),
    scrub: Scrub | None = None,
    fd: int | None = None,
    write_bind: str | None = None,
    write_fd: int | None = None,
    ready: Callable[[str], None] = _say,
) -> None:
    """Run a media server until SIGTERM or SIGINT.

    `bind` is ``host:port``; port 0 chooses one. `fd` is a listening socket that
    was inherited, used instead of `bind`. With `write_bind` or `write_fd` files are
    written and listed there alone. `ready` gets one line, with the addresses
    and the root, when requests are answered. The other arguments are those of
    `MediaApplication`. Call it in the main thread.

    Raises MissingExtra without uvicorn, and ConfigurationError for a bad address,
    for a root that can't be used, and without a token where others could write.
    """
    try:
        import uvicorn
    except ModuleNotFoundError as error:
        raise MissingExtra("The media server", "uvicorn", "server") from error

    if rules.secret and rules.token is None:
        raise ConfigurationError(
            "secret",
            "files are private, but without a token Outgrow itself could not read them.",
            "Give a token (--token-file, or OUTGROW_MEDIA_TOKEN).",
        )
    application = MediaApplication(
        root, rules=rules, limits=limits, fsync=fsync, reused=reused, scrub=scrub
    )
    doors = open_doors(
        Place("bind" if fd is None else "fd", bind, fd),
        _writing_place(write_bind, write_fd),
        rules,
    )
    _allow_files(limits.max_files * len(doors))
    # So that a root that can't be used is our error, not uvicorn's traceback.
    application.open()
    application.close()

    addresses = "; files are written at ".join(door.address for door in doors)
    line = f"Serving {root.resolve()} on {addresses}"
    _run(uvicorn, application, doors, lambda: ready(line))


def _run(
    uvicorn: Any, application: MediaApplication, doors: Iterable[Door], ready: Callable[[], None]
) -> None:
    """Let uvicorn serve at all doors. It starts at one, and stops all in one order."""
    first, *more = [(_uvicorn_config(uvicorn, application, door), door.listener) for door in doors]

    class Server(uvicorn.Server):  # type: ignore[misc]
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            for config, listener in more:
                connect = partial(
                    config.http_protocol_class,
                    config=config,
                    server_state=self.server_state,
                    app_state=self.lifespan.state,
                )
                loop = asyncio.get_running_loop()
                self.servers.append(
                    await loop.create_server(connect, sock=listener, backlog=config.backlog)
                )
            ready()

    # uvicorn stops in order, and then raises the signal again for its caller.
    with suppress(KeyboardInterrupt):
        Server(first[0]).run([first[1]])


def _writing_place(bind: str | None, fd: int | None) -> Place | None:
    if bind is None and fd is None:
        return None
    return Place("write-bind" if fd is None else "write-fd", bind or "", fd)


def _uvicorn_config(uvicorn: Any, application: MediaApplication, door: Door) -> Any:
    from outgrow.media.connections import limited

    config = uvicorn.Config(
        application.behind(door),
        http=limited(application.limits),
        ws="none",
        lifespan="on",
        log_level="error",
        access_log=False,
        # Nothing here depends on who the client is said to be.
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=application.limits.keep_alive,
        timeout_graceful_shutdown=GRACE,
    )
    config.load()
    return config


def _allow_files(wanted: int) -> None:
    """Raise the soft limit of open files as far as it may be: 1024 is usual, and little."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def parse_reused(names: str, folders: Iterable[str]) -> list[Parts]:
    """The names that are used again, from ``unique`` or ``keep`` and from folders.

    Raises ConfigurationError for a folder that no name can be in.
    """
    reused = [] if names == "unique" else [EVERYTHING]
    for folder in folders:
        parts = tuple(folder.strip("/").split("/"))
        if any(part.startswith(".") or not part for part in parts):
            raise ConfigurationError(
                "reused", f"{folder!r} is no folder of files.", "Write thumbnails, or a/b."
            )
        reused.append(parts)
    return reused


def parse_size(text: str) -> int:
    """Bytes from ``1000``, ``64K``, ``10M`` or ``2G``. Raises ConfigurationError."""
    found = re.fullmatch(r"([0-9]{1,15})([KMG]?)", text.strip().upper())
    if found is None:
        raise ConfigurationError("size", f"{text!r} is not a size.", "Write 500K, 10M or 2G.")
    return int(found[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[found[2]]


def parse_scrub(rate: str, every: str) -> Scrub | None:
    """Bytes a second, as in ``5M``, and days, as in ``7d``; None for a rate of 0.

    Raises ConfigurationError for what is neither, and for less than a day.
    """
    days = re.fullmatch(r"([0-9]{1,4})d", every.strip().lower())
    if days is None or int(days[1]) < 1:
        raise ConfigurationError("scrub-every", f"{every!r} is no number of days.", "Write 7d.")
    speed = parse_size(rate)
    return Scrub(speed, int(days[1]) * 86400.0) if speed else None


def read_token(
    file: Path | None, environment: Mapping[str, str], variable: str = "OUTGROW_MEDIA_TOKEN"
) -> str | None:
    """The token from `file`, else from the environment, else None.

    Raises ConfigurationError for a token that is empty or can't be a header's value.
    """
    where, token = variable, environment.get(variable)
    if file is not None:
        where, token = str(file), _read_line(file)
    if token is not None and not re.fullmatch(r"[\x21-\x7e]+", token.strip()):
        raise ConfigurationError(
            where, "this is no token.", "It must be one line of visible ASCII characters."
        )
    return None if token is None else token.strip()


def _read_line(file: Path) -> str:
    try:
        return file.read_text("utf-8", "replace")
    except OSError as error:
        raise ConfigurationError(
            str(file), f"the token can't be read: {error.strerror}."
        ) from error
