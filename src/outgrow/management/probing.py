"""`manage.py outgrow media probe`: its options, and what it prints.

Exit codes: 0, 1 when something is bad, 2 for wrong usage, 130 when it was broken off.
"""

from __future__ import annotations

import json
import signal
import threading
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError, OutputWrapper
from rich.console import Console

from outgrow.errors import ConfigurationError
from outgrow.exchange import Limits
from outgrow.findings import Finding, Result
from outgrow.management.texts import finding_lines, findings_table, remedy_lines
from outgrow.media.base import Replicated
from outgrow.media.probe import probe
from outgrow.media.server import parse_size
from outgrow.media.transport import HttpTransport
from outgrow.media.visit import MAX_BODY, Setup
from outgrow.servers import Server

#: As a shell says that a command ended by SIGINT.
INTERRUPTED = 130


def add_arguments(parser: ArgumentParser) -> None:
    """The options of this word alone."""
    parser.add_argument(
        "--server", action="append", default=[], metavar="NAME", help="only this one; repeatable"
    )
    parser.add_argument(
        "--max-body",
        type=_size,
        default=MAX_BODY,
        metavar="SIZE",
        help="the largest body to send: 500K, 10M, 2G; 0 for none (64M)",
    )


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ConfigurationError as error:
        raise ArgumentTypeError(f"{error.problem} {error.hint}") from error


def run(
    storages: Sequence[tuple[str, Replicated]],
    options: dict[str, Any],
    out: OutputWrapper,
    err: OutputWrapper,
) -> int:
    """Probe the servers of each storage, one after the other; return an exit code."""
    for alias, storage in storages:
        if not isinstance(storage.transport, HttpTransport):
            raise CommandError(
                f"STORAGES[{alias!r}] has a transport of its own, which can't be probed. Choose "
                "another storage with --storage.",
                returncode=2,
            )
    results: set[Result] = set()
    try:
        with _ended_like_ctrl_c():
            for alias, storage in storages:
                results |= _probe_storage(alias, storage, options, out)
    except KeyboardInterrupt:
        err.write("Broken off. What the probe had made is removed, or named above.")
        return INTERRUPTED
    return int(Result.BAD in results)


@contextmanager
def _ended_like_ctrl_c() -> Iterator[None]:
    """SIGTERM (`timeout`, cron, a shutdown) leaves as little behind as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _probe_storage(
    alias: str, storage: Replicated, options: dict[str, Any], out: OutputWrapper
) -> set[Result]:
    given = storage.options
    chosen = [
        one for one in given.servers if not options["server"] or one.name in options["server"]
    ]
    setup = Setup(
        limits=Limits(timeout=given.timeout),
        access=storage.access,
        deadline=given.deadline,
        keep=given.names == "keep",
        max_body=options["max_body"],
    )
    storage.journal.prepare()
    # All at once: a server that hangs costs its time once.
    problems = storage.transport.probe(chosen, claim=False)
    results: set[Result] = set()
    for server in chosen:
        found: list[Finding] = []
        try:
            probe(server, setup, found.append, problem=problems[server])
        finally:
            _show(alias, server, found, options, out)
        results |= {one.result for one in found}
    return results


def _show(
    alias: str, server: Server, found: list[Finding], options: dict[str, Any], out: OutputWrapper
) -> None:
    if options["json"]:
        facts = {"storage": alias, "server": server.name, "address": server.address}
        out.write(json.dumps({**facts, "findings": [asdict(one) for one in found]}))
    elif out.isatty():
        console = Console(file=out, no_color=options["no_color"])  # type: ignore[arg-type]
        title = f"{server.name}  {server.address}"
        console.print(findings_table(title, found))
        for line in remedy_lines(found):
            out.write(line)
    else:
        for line in finding_lines(found):
            out.write(line)
    out.flush()
