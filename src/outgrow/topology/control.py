"""The socket of a running `outgrow up`, and who asks it: one request and one answer each.

The laws:

1. Only who runs the site can connect: the socket has mode 0600 before it listens.
2. A connection costs a thread, for REQUEST_LIMIT seconds at most until it has said what
   it wants; a request has LONGEST_REQUEST bytes at most, an answer LONGEST_ANSWER.
3. The socket is in the run's folder, or where the link of its name there leads to: the
   path of a Unix socket has 107 bytes at most (104 on macOS, with the zero at its end).
4. Whoever has the lock of the folder owns the name; what the last run left is removed.

A request is a line of JSON: ``{"do": "kill", "name": "app1"}``, or ``{"do": "look"}``. So
is the answer: ``{"said": ...}``, ``{"found": [...]}`` or ``{"problem": ...}``. A promotion
has two words more, and its answer is ``{"promotion": {...}}``.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import socketserver
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final, Self

from outgrow.errors import ControlFailed, OutgrowError
from outgrow.topology import runfolder
from outgrow.topology.acts import Acts
from outgrow.topology.listening import Listening, Served
from outgrow.topology.look import Looker
from outgrow.topology.states import Status, as_json, from_json

SOCKET: Final = "_control"

#: Bytes of the longest path that a Unix socket may have everywhere.
LONGEST_PATH: Final = 100

#: Seconds for a client to say what it wants; bytes that it may say it in.
REQUEST_LIMIT: Final = 5.0
LONGEST_REQUEST: Final = 4096

#: Seconds for what was asked to be done: turns, stopping, starting.
ANSWER_LIMIT: Final = 150.0
#: For what may copy or rewrite a whole database.
LONG_LIMIT: Final = 1200.0
_LONG: Final = frozenset({"promote", "prepare"})
LONGEST_ANSWER: Final = 1 << 20

# Of the folder of a socket whose path would be too long.
_PREFIX: Final = "outgrow-control-"


class Control(Served):
    """The server of one site: listens while it is entered as a context.

    `withdraw` takes the name away, and must be called while the folder is still locked.
    """

    def __init__(self, acts: Acts, looker: Looker, folder: Path) -> None:
        self._acts = acts
        self._looker = looker
        self._folder = folder

    def __enter__(self) -> Self:
        path = _make_place(self._folder)
        self._server = _Server(self, path)
        self._server.serve("outgrow control")
        return self

    def withdraw(self) -> None:
        """Nobody finds the socket any more."""
        _clear_place(self._folder)

    def answer(self, request: object) -> dict[str, Any]:
        """The answer to a request."""
        match request:
            case {"do": "look"}:
                return {"found": as_json(self._looker.look())}
            case {
                "do": "promote",
                "name": str(name),
                "dry_run": bool(dry_run),
                "accept_loss": bool(accept),
            }:
                return _tried(
                    "promotion",
                    lambda: self._acts.promote(name, dry_run=dry_run, accept_loss=accept),
                )
            case {"do": "prepare", "name": str(name)}:
                return _tried("said", lambda: self._acts.prepare(name))
            case {"do": str(word), "name": str(name)}:
                return _tried("said", lambda: self._acts.act(word, name))
        return {"problem": "The request is none that this version knows."}


def _tried(key: str, act: Callable[[], object]) -> dict[str, Any]:
    try:
        return {key: act()}
    except OutgrowError as error:
        return {"problem": str(error)}


def look(folder: Path) -> tuple[Status, ...]:
    """Every process of the site that runs in this folder. Raises `ControlFailed`."""
    found = _ask(folder, {"do": "look"})
    try:
        return from_json(found["found"])
    except (KeyError, TypeError, ValueError) as error:
        raise _strange(folder) from error


def act(folder: Path, word: str, name: str) -> str:
    """Have it done to a server of that site; what was done. Raises `ControlFailed`."""
    return str(_ask(folder, {"do": word, "name": name}).get("said", ""))


def prepare(folder: Path, name: str) -> str:
    """Have it done before a new version comes; what was done. Raises `ControlFailed`."""
    return str(_ask(folder, {"do": "prepare", "name": name}).get("said", ""))


def promote(folder: Path, name: str, *, dry_run: bool, accept_loss: bool) -> dict[str, Any]:
    """Have a replica promoted; what was done, or would be. Raises `ControlFailed`."""
    request = {"do": "promote", "name": name, "dry_run": dry_run, "accept_loss": accept_loss}
    found = _ask(folder, request).get("promotion")
    if not isinstance(found, dict):
        raise _strange(folder)
    return found


def _ask(folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    limit = LONG_LIMIT if request["do"] in _LONG else ANSWER_LIMIT
    try:
        with closing(_connected(folder)) as connection:
            connection.sendall(json.dumps(request).encode() + b"\n")
            line = _read_line(connection, LONGEST_ANSWER, limit)
        answer = json.loads(line)
    except TimeoutError as error:
        raise ControlFailed(
            f"The site in {folder} gave no answer for {limit:g} s. Is its `outgrow up` frozen?"
        ) from error
    except OSError as error:
        raise ControlFailed(f"The site in {folder} stopped before it answered: {error}.") from error
    except ValueError as error:
        raise _strange(folder) from error
    if not isinstance(answer, dict):
        raise _strange(folder)
    if "problem" in answer:
        raise ControlFailed(str(answer["problem"]))
    return answer


def _strange(folder: Path) -> ControlFailed:
    return ControlFailed(
        f"The site in {folder} gave an answer that this version does not know. Was Outgrow "
        "updated while it ran? Then start the site again."
    )


def _connected(folder: Path) -> socket.socket:
    path = _place(folder)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(REQUEST_LIMIT)
    try:
        connection.connect(path)
    except TimeoutError:
        connection.close()
        raise
    except OSError as error:
        connection.close()
        raise _absent(folder, error) from error
    return connection


def _absent(folder: Path, error: OSError) -> ControlFailed:
    if isinstance(error, PermissionError):
        return ControlFailed(f"The site in {folder} is another user's: {error}.")
    if runfolder.is_locked(folder):
        return ControlFailed(
            f"The site in {folder} is starting or stopping. Try again in a moment."
        )
    return ControlFailed(
        f"No site runs in {folder}. Start it with `outgrow up`, or say where it runs: "
        "--topology FILE, or --folder FOLDER."
    )


def _read_line(connection: socket.socket, longest: int, limit: float) -> bytes:
    """One line, which may take `limit` seconds. Raises OSError; ValueError if it is too long."""
    data = b""
    end = time.monotonic() + limit
    while not data.endswith(b"\n"):
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        more = connection.recv(65536)
        if not more:
            raise ConnectionResetError("the connection was closed")
        data += more
        if len(data) > longest:
            raise ValueError("the line is too long")
    return data


# --- where the socket is


def _place(folder: Path) -> str:
    """The path to connect to."""
    path = folder.absolute() / SOCKET
    with suppress(OSError):
        return str(path.readlink())
    return str(path)


def _make_place(folder: Path) -> str:
    """A path where there is nothing yet; what the last run left is removed."""
    _clear_place(folder)
    path = folder.absolute() / SOCKET
    if len(os.fsencode(path)) <= LONGEST_PATH:
        return str(path)
    # mkdtemp's folder is ours alone.
    elsewhere = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_short_folder())) / SOCKET
    path.symlink_to(elsewhere)
    return str(elsewhere)


def _short_folder() -> str | None:
    """The folder for temporary files, unless its path is long, too."""
    return None if len(os.fsencode(tempfile.gettempdir())) <= LONGEST_PATH // 2 else "/tmp"  # noqa: S108


def _clear_place(folder: Path) -> None:
    path = folder.absolute() / SOCKET
    with suppress(OSError):
        target = path.readlink()
        if target.parent.name.startswith(_PREFIX):
            shutil.rmtree(target.parent, ignore_errors=True)
    path.unlink(missing_ok=True)


# --- the server


class _Handler(socketserver.BaseRequestHandler):
    server: _Server
    request: socket.socket

    def handle(self) -> None:
        try:
            request = json.loads(_read_line(self.request, LONGEST_REQUEST, REQUEST_LIMIT))
        except ValueError:
            answer: dict[str, Any] = {"problem": "The request is no line of JSON, or too long."}
        else:
            answer = self.server.control.answer(request)
        self.request.settimeout(REQUEST_LIMIT)
        self.request.sendall(json.dumps(answer).encode() + b"\n")


class _Server(Listening, socketserver.UnixStreamServer):
    def __init__(self, control: Control, path: str) -> None:
        super().__init__(path, _Handler, bind_and_activate=False)
        self.control = control
        try:
            self.server_bind()
            Path(path).chmod(0o600)
            self.server_activate()
        except BaseException:
            self.server_close()
            raise
