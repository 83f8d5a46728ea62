"""Small requests that find out whether a server of the site does its work."""

from __future__ import annotations

import http.client
import os
import secrets
import socket
import subprocess
import time
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from outgrow.topology.model import Port
from outgrow.topology.output import plain
from outgrow.topology.process import PAUSE, Command

#: Seconds for one answer. An app server's first request imports the whole site.
TIMEOUT: Final = 10.0

#: Seconds for one run of a command, which imports the whole site, too, and does its work.
COMMAND_LIMIT: Final = 60.0


@dataclass(frozen=True, slots=True)
class Answers:
    """Asks for ``/``: ready when the answer's status is below `below`."""

    port: Port
    below: int

    def __str__(self) -> str:
        return f"{self.port.url}/ answers with a status below {self.below}"

    def problem(self) -> str:
        """Why it is not ready, or ""."""
        try:
            status, _ = _ask(self.port, "GET", "/")
        except (OSError, http.client.HTTPException) as error:
            return f"GET {self.port.url}/: {_reason(error)}"
        if status < self.below:
            return ""
        return f"GET {self.port.url}/ was answered with status {status}"


@dataclass(frozen=True, slots=True)
class Runs:
    """Nothing to ask: that the process runs is all that can be seen from outside."""

    def problem(self) -> str:
        """None."""
        return ""


@dataclass(frozen=True, slots=True)
class Replies:
    """Sends `ask` to a server that does not speak HTTP: its reply begins with `begins`."""

    port: Port
    ask: bytes
    begins: bytes

    def __str__(self) -> str:
        return f"{self.port} replies {self.begins.decode()} to {self.ask.decode().strip()}"

    def problem(self) -> str:
        """Why it is not ready, or ""."""
        address = (self.port.host, self.port.number)
        try:
            with socket.create_connection(address, timeout=TIMEOUT) as connection:
                connection.sendall(self.ask)
                # Short enough to come in one piece.
                reply = connection.recv(1024)
        except OSError as error:
            return f"{self.port}: {_reason(error)}"
        if reply.startswith(self.begins):
            return ""
        return f"{self.port} replied {plain(reply)!r}"


@dataclass(frozen=True, slots=True)
class Stores:
    """Puts a file on a media server, reads it, deletes it, and sees that it is gone."""

    port: Port

    def problem(self) -> str:
        """What the server did not do, or ""."""
        path = f"/outgrow-probe-{secrets.token_hex(8)}.txt"
        body = secrets.token_hex(16).encode()
        steps = (("PUT", {200, 201, 204}), ("GET", {200}), ("DELETE", {200, 204}), ("GET", {404}))
        try:
            for method, wanted in steps:
                status, read = _ask(self.port, method, path, body if method == "PUT" else None)
                if status not in wanted:
                    return f"{method} {path} was answered with status {status}"
                if wanted == {200} and read != body:
                    return f"GET {path} did not give what was put there"
        except (OSError, http.client.HTTPException) as error:
            return f"{self.port.url}{path}: {_reason(error)}"
        return ""


@dataclass(frozen=True, slots=True)
class Succeeds:
    """Runs a command that ends by itself, until its status is 0, for at most `seconds`."""

    command: Command
    seconds: float = TIMEOUT

    def __str__(self) -> str:
        return f"this succeeds: {self.command}"

    def problem(self) -> str:
        """The last thing that it said when it failed, or ""."""
        end = time.monotonic() + self.seconds
        while (problem := self._once()) and time.monotonic() < end:
            time.sleep(PAUSE)
        return problem

    def _once(self) -> str:
        try:
            done = subprocess.run(
                self.command.words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=self.command.folder,
                env={**os.environ, **self.command.environment},
                timeout=COMMAND_LIMIT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"it did not end within {COMMAND_LIMIT:g} s"
        if done.returncode == 0:
            return ""
        lines = done.stdout.split(b"\n")
        said = [text for line in lines if (text := plain(line).strip())]
        return said[-1] if said else f"it ended with status {done.returncode}"


def _ask(port: Port, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(port.host, port.number, timeout=TIMEOUT)
    with closing(connection):
        connection.request(method, path, body)
        response = connection.getresponse()
        # No more than a probe needs: a page may be long.
        return response.status, response.read(4096)


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT:g} s"
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    return f"{error}" or type(error).__name__
