"""The page of a running site: its figure, each server in the colour of its state.

The laws:

1. It listens on the loopback address alone, answers GET alone, and changes nothing.
2. A page of another site gets nothing of it: a name that leads here is refused by the
   `Host` header (DNS rebinding), and no header lets another origin read an answer.
3. The page runs its own script and no other: its policy names that by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
import socketserver
import time
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Final, Self

from outgrow.errors import ControlFailed
from outgrow.topology.figure import figure
from outgrow.topology.listening import Listening, Served
from outgrow.topology.local import LocalSite
from outgrow.topology.look import Looker
from outgrow.topology.model import LOOPBACK
from outgrow.topology.render import svg
from outgrow.topology.states import (
    SIGNS,
    State,
    Status,
    shown,
    shown_age,
    shown_memory,
    worst,
)

#: Seconds that a client may be silent.
TIMEOUT: Final = 5.0

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #24292f; --soft: #57606a; --line: #d0d7de;
  --page: #ffffff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9198a1; --line: #30363d; --page: #0d1117; }
}
body { margin: 0 auto; padding: 24px; max-width: 1100px; background: var(--page);
  color: var(--ink); font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
header { display: flex; align-items: baseline; gap: 16px; flex-wrap: wrap; }
h1 { font-size: 22px; margin: 0 0 8px; }
#news { color: var(--soft); }
#news.lost { color: #cf222e; font-weight: 600; }
figure { margin: 8px 0 24px; overflow-x: auto; }
figure svg { display: block; margin: 0 auto; max-width: 100%; height: auto; }
.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { color: var(--soft); font-weight: 600; }
td.number, th.number { text-align: right; }
td:first-child { font-weight: 600; }
td.word { color: var(--state); font-weight: 600; }
td.problem { white-space: normal; color: var(--soft); overflow-wrap: anywhere; }
.lost-site { opacity: 0.45; }
""".strip()

_SCRIPT: Final = """
"use strict";
const news = document.getElementById("news");
const rows = document.querySelector("tbody");
const shown = document.querySelectorAll("figure, .table");
function draw(state) {
  for (const box of document.querySelectorAll(".server")) {
    const found = state.servers[box.dataset.server];
    if (!found) continue;
    box.setAttribute("class", "server is-" + found.state);
    box.querySelector(".state").textContent = found.shown;
  }
  rows.replaceChildren(...state.rows.map((cells) => {
    const row = document.createElement("tr");
    cells.forEach((text, number) => {
      const cell = row.insertCell();
      cell.textContent = text;
      cell.className = ["", "", "word is-" + text.split(" ")[1], "number", "", "number",
        "number", "problem"][number];
    });
    return row;
  }));
}
async function look() {
  let lost = "";
  try {
    const answer = await fetch("/state.json", { signal: AbortSignal.timeout(10000) });
    if (!answer.ok) throw new Error(answer.status);
    const state = await answer.json();
    draw(state);
    news.textContent = state.news;
  } catch {
    lost = "The site does not answer: what you see is old.";
    news.textContent = lost;
  }
  news.classList.toggle("lost", lost !== "");
  shown.forEach((one) => one.classList.toggle("lost-site", lost !== ""));
  setTimeout(look, 1000);
}
look();
""".strip()

_HEADINGS: Final = ("server", "role", "state", "for", "address", "process", "memory", "")
_NUMBERS: Final = {"for", "process", "memory"}


class Web(Served):
    """Serves the page while it is entered as a context. `port` 0 chooses a free one.

    Raises `ControlFailed` when the port is taken.
    """

    def __init__(self, local: LocalSite, looker: Looker, port: int) -> None:
        self._local = local
        self._looker = looker
        self._port = port

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{LOOPBACK}:{self._port}/"

    @property
    def hosts(self) -> frozenset[str]:
        """What a browser that came here knowingly sends as `Host`."""
        return frozenset({f"{LOOPBACK}:{self._port}", f"localhost:{self._port}"})

    def __enter__(self) -> Self:
        try:
            self._server = _Server(self, self._port)
        except OSError as error:
            raise ControlFailed(
                f"--web can't listen on {LOOPBACK}:{self._port}: {error.strerror}. Choose another "
                "port, or none: then a free one is taken."
            ) from error
        self._port = self._server.server_port
        self._server.serve("outgrow page")
        return self

    def page(self) -> str:
        """The page, as it is before its script runs."""
        statuses = self._looker.look()
        title = escape(self._local.site.name)
        states = {name: shown(state) for name, state in worst(statuses).items()}
        heads = "".join(
            f"<th{' class=number' if head in _NUMBERS else ''}>{head}</th>" for head in _HEADINGS
        )
        return (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<style>{_STYLE}</style></head>\n"
            f'<body><header><h1>{title}</h1><span id="news" role="status">{_news(statuses)}'
            f"</span></header>\n<figure>{svg.render(figure(self._local.site), states)}</figure>\n"
            f'<div class="table"><table><thead><tr>{heads}</tr></thead><tbody></tbody></table>'
            f"</div>\n<script>{_SCRIPT}</script></body></html>\n"
        )

    def state(self) -> dict[str, Any]:
        """What the page's script asks for."""
        statuses = self._looker.look()
        return {
            "news": _news(statuses),
            "servers": {
                name: {"state": state, "shown": shown(state)}
                for name, state in worst(statuses).items()
            },
            "rows": [row(status, time.time()) for status in statuses],
        }


def row(status: Status, now: float) -> list[str]:
    """A process as the cells of a table."""
    return [
        status.name,
        status.role,
        shown(status.state),
        shown_age(now - status.since),
        status.address.rpartition("/")[2],
        str(status.pid or ""),
        shown_memory(status.memory),
        status.problem,
    ]


def _news(statuses: tuple[Status, ...]) -> str:
    """All in one line."""
    counts = {state: sum(one.state is state for one in statuses) for state in State}
    return ", ".join(f"{SIGNS[state]} {count} {state}" for state, count in counts.items() if count)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


#: What the page may do (CSP3): its own script and styles, and questions to this server.
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        f"script-src {_hash(_SCRIPT)}",
        f"style-src {_hash(_STYLE)} {_hash(svg.style(states=True))}",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = TIMEOUT
    server_version = "outgrow"
    sys_version = ""

    def do_GET(self) -> None:
        """The page, or its state."""
        web = self.server.web
        if self.headers.get("Host") not in web.hosts:
            self._answer("text/plain", "Open it as localhost.\n", HTTPStatus.MISDIRECTED_REQUEST)
        elif self.path == "/":
            self._answer("text/html", web.page())
        elif self.path == "/state.json":
            self._answer("application/json", json.dumps(web.state()))
        else:
            self._answer("text/plain", "Nothing is here.\n", HTTPStatus.NOT_FOUND)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base refuses: methods that there are not, and no HTTP."""
        if code == HTTPStatus.NOT_IMPLEMENTED:
            code, message = HTTPStatus.METHOD_NOT_ALLOWED, "GET only"
        super().send_error(code, message, explain)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Nothing: the output is the site's."""

    def _answer(self, kind: str, text: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in (
            ("Content-Type", f"{kind}; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Content-Security-Policy", _POLICY),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Cache-Control", "no-store"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class _Server(Listening, HTTPServer):
    def __init__(self, web: Web, port: int) -> None:
        super().__init__((LOOPBACK, port), _Handler)
        self.web = web

    def server_bind(self) -> None:
        # The base's asks a name server for our name.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = LOOPBACK, self.server_address[1]
