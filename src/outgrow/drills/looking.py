"""What is there in the end: the rows of the primary, and the files of each media server."""

from __future__ import annotations

import hashlib
import http.client
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Any, Final
from urllib.parse import quote

from outgrow.drills.judge import Found, Request, expected
from outgrow.errors import ProcessFailed
from outgrow.topology.model import Port, Service, Site

#: Seconds for one answer: it may be one of the first after a fault.
TIMEOUT: Final = 30.0

#: Names in one question to the site.
_NAMES: Final = 500

#: Under this name stands what the site's own storage has, where there is no media server.
STORAGE: Final = "storage"


def reach(site: Site, prefix: str) -> None:
    """See that every application server has the drill's views. Raises `ProcessFailed`."""
    for app in site.services("app"):
        connection = _connection(app.port)
        with closing(connection):
            status, _ = _ask(connection, app, "GET", f"/{prefix}read")
        _check(app, status)


def look(site: Site, prefix: str, requests: Iterable[Request], *, rows: bool) -> Found:
    """Ask for all that the acknowledgements promise. Raises `ProcessFailed`."""
    files = expected(requests)
    names = sorted({*files.kept, *files.gone})
    app = site.services("app")[0]
    executions = _executions(app, prefix) if rows else {}
    media = site.services("media")
    if not media:
        return Found(executions, {STORAGE: _of_storage(app, prefix, names)})
    return Found(executions, {server.name: _of_server(server, names) for server in media})


def _executions(app: Service, prefix: str) -> Counter[str]:
    found: Counter[str] = Counter()
    after = 0
    while rows := _post(app, f"/{prefix}executions?after={after}")["rows"]:
        found.update(request for _, request in rows)
        after = rows[-1][0]
    return found


def _of_storage(app: Service, prefix: str, names: list[str]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for begin in range(0, len(names), _NAMES):
        asked = json.dumps(names[begin : begin + _NAMES]).encode()
        found |= _post(app, f"/{prefix}digests", asked)
    return found


def _of_server(server: Service, names: list[str]) -> Mapping[str, str]:
    connection = _connection(server.port)
    found = {}
    with closing(connection):
        for name in names:
            status, body = _ask(connection, server, "GET", f"/{quote(name)}")
            if status == 200:
                found[name] = hashlib.sha256(body).hexdigest()
            elif status not in {404, 410}:
                raise ProcessFailed(
                    f"{server.name} answered GET /{name} with status {status}: whether it has "
                    "the file is not known. Look at what it printed."
                )
    return found


def _post(app: Service, path: str, body: bytes = b"") -> Any:
    connection = _connection(app.port)
    with closing(connection):
        status, said = _ask(connection, app, "POST", path, body)
    _check(app, status)
    return json.loads(said)


def _check(app: Service, status: int) -> None:
    if status != 200:
        raise ProcessFailed(
            f"{app.name} answered the drill's question with status {status}. Its WSGI "
            "application must take DJANGO_SETTINGS_MODULE from the environment, and the site's "
            "middleware must let the drill's views through; see what it printed."
        )


def _connection(port: Port) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(port.host, port.number, timeout=TIMEOUT)


def _ask(
    connection: http.client.HTTPConnection,
    server: Service,
    method: str,
    path: str,
    body: bytes = b"",
) -> tuple[int, bytes]:
    try:
        connection.request(method, path, body or None)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise ProcessFailed(
            f"{server.name} did not answer {method} {path}: {error!r}. "
            "What it has is not known; look at what it printed."
        ) from error
