"""A visitor of the photo site: forms over HTTP, with the standard library alone."""

from __future__ import annotations

import json
import re
import secrets
import urllib.error
import urllib.parse
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

#: Seconds that a visitor waits for a page.
TIMEOUT = 30.0

_TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')
_DELETE = re.compile(r'action="/photos/(\d+)/delete/"')


class Visitor:
    """One browser at one application server. `statuses` gets each answer's code."""

    def __init__(self, address: str, statuses: list[int]) -> None:
        self.address = address
        self.statuses = statuses
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(CookieJar()), _NoErrors()
        )

    def make_album(self, title: str) -> str:
        """Make an album; return its path."""
        token = self._token("/")
        form = urllib.parse.urlencode({"title": title, "csrfmiddlewaretoken": token}).encode()
        kind = "application/x-www-form-urlencoded"
        return urllib.parse.urlsplit(self._send("/", form, kind)[0]).path

    def upload(self, album: str, photographs: list[Path]) -> None:
        """Send photographs through the album's form."""
        body, kind = _multipart(self._token(album), photographs)
        self._send(album, body, kind)

    def delete(self, album: str, number: str) -> None:
        """Press "delete" below one photograph."""
        token = self._token(album)
        form = urllib.parse.urlencode({"csrfmiddlewaretoken": token}).encode()
        self._send(f"/photos/{number}/delete/", form, "application/x-www-form-urlencoded")

    def photographs(self, album: str) -> list[str]:
        """The numbers of the photographs on the album's first page."""
        return _DELETE.findall(self._send(album)[1])

    def look(self, address: str) -> tuple[str, str]:
        """The first page of an application server: which database it came from, and its text."""
        request = urllib.request.Request(f"{address}/")
        with self._opener.open(request, timeout=TIMEOUT) as answer:
            self.statuses.append(answer.status)
            return answer.headers.get("Photos-Read-From", "nowhere"), answer.read().decode()

    def owed(self, server: str) -> int:
        """How many files a media server is owed, as the page's panel says."""
        return int(next(one["owed"] for one in self._servers() if one["name"] == server))

    def all_is_well(self) -> bool:
        """Whether every media server is up and owed nothing."""
        return all(one["up"] and not one["owed"] for one in self._servers())

    def databases(self) -> list[dict[str, Any]]:
        """Each database server, as this application server sees it."""
        return self._panel("databases")

    def _servers(self) -> list[dict[str, Any]]:
        return self._panel("servers")

    def _panel(self, part: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self._send("/servers/")[1])[part]
        return found

    def _token(self, path: str) -> str:
        found = _TOKEN.search(self._send(path)[1])
        # Without one the form is refused, and that is seen in the statuses.
        return found[1] if found else ""

    def _send(self, path: str, body: bytes | None = None, kind: str = "") -> tuple[str, str]:
        """Ask for a page; return where it was found, and its text."""
        headers = {"Content-Type": kind} if kind else {}
        request = urllib.request.Request(self.address + path, body, headers)
        with self._opener.open(request, timeout=TIMEOUT) as answer:
            self.statuses.append(answer.status)
            return answer.url, answer.read().decode()


class _NoErrors(urllib.request.HTTPErrorProcessor):
    """A refused request is an answer like any other: its status is what counts."""

    def http_response(self, request: Any, response: Any) -> Any:
        if response.status < 400:
            return super().http_response(request, response)
        return response


def _multipart(token: str, photographs: list[Path]) -> tuple[bytes, str]:
    """A form with files, as browsers send it (RFC 7578)."""
    boundary = secrets.token_hex(16)
    parts = [_part(boundary, 'name="csrfmiddlewaretoken"', token.encode())]
    for path in photographs:
        disposition = f'name="images"; filename="{path.name}"\r\nContent-Type: image/jpeg'
        parts.append(_part(boundary, disposition, path.read_bytes()))
    body = b"".join(parts) + f"--{boundary}--\r\n".encode()
    return body, f"multipart/form-data; boundary={boundary}"


def _part(boundary: str, disposition: str, content: bytes) -> bytes:
    head = f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n"
    return head.encode() + content + b"\r\n"
