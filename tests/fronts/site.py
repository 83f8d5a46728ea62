"""The site of the FastCGI tests, as it stands behind a balancer, and views that break things."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import re_path

from tests.fastcgi.site import *  # noqa: F403 - settings
from tests.fastcgi.site import echo, fails

ROOT_URLCONF = __name__
# What outgrow.topology.settings says for a site with balancers.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")


def stream(request: HttpRequest) -> StreamingHttpResponse:
    """Two pieces; the second comes when the file that is named is there."""
    go = Path(request.GET["file"])
    pieces = _later(go) if isinstance(request, ASGIRequest) else _now(go)
    answer = StreamingHttpResponse(pieces, content_type="text/plain")
    if "unbuffered" in request.GET:
        answer["X-Accel-Buffering"] = "no"
    return answer


def _now(go: Path) -> Iterator[bytes]:
    yield b"first\n"
    while not go.exists():
        time.sleep(0.005)
    yield b"second\n"


async def _later(go: Path) -> AsyncIterator[bytes]:
    yield b"first\n"
    while not go.exists():  # noqa: ASYNC110, ASYNC240 - a test's file
        await asyncio.sleep(0.005)
    yield b"second\n"


def count(request: HttpRequest) -> HttpResponse:
    """Writes down that it was carried out, and by whom; then it may die, or wait."""
    line = f"{request.GET['id']} {os.getpid()}\n"
    descriptor = os.open(request.GET["file"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(descriptor, line.encode())
    os.close(descriptor)
    if "die" in request.GET:
        os.kill(os.getpid(), signal.SIGKILL)
    while "go" in request.GET and not Path(request.GET["go"]).exists():
        time.sleep(0.005)
    return HttpResponse(request.GET["id"])


urlpatterns = [
    re_path(r"^stream$", stream),
    re_path(r"^count$", count),
    re_path(r"^fails$", fails),
    re_path(r"", echo),
]
