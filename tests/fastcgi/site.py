"""A small site that says what reached it."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import re_path

SECRET_KEY = "tests"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = __name__
INSTALLED_APPS = ["outgrow"]
USE_TZ = True
DATABASES: dict[str, object] = {}
DATA_UPLOAD_MAX_MEMORY_SIZE = None
WSGI_APPLICATION = None
LOGGING_CONFIG = None

#: What a front says of a visitor.
FORWARDED = (
    *("X_FORWARDED_FOR", "X_FORWARDED_PROTO", "X_FORWARDED_HOST", "X_FORWARDED_PORT"),
    "FORWARDED",
)


def echo(request: HttpRequest) -> HttpResponse:
    """Everything that a front could get wrong."""
    files = {name: hashlib.sha256(one.read()).hexdigest() for name, one in request.FILES.items()}
    body = b"" if files else request.body
    answer = JsonResponse(
        {
            "method": request.method,
            "path": request.path,
            "query": request.META["QUERY_STRING"],
            "script": request.META["SCRIPT_NAME"],
            "url": request.build_absolute_uri(),
            "client": request.META["REMOTE_ADDR"],
            "proxy": request.META.get("HTTP_PROXY", ""),
            "scheme": request.scheme,
            "secure": request.is_secure(),
            "forwarded": {
                name: request.META[f"HTTP_{name}"]
                for name in FORWARDED
                if f"HTTP_{name}" in request.META
            },
            "cookies": request.COOKIES,
            "form": dict(request.POST),
            "files": files,
            "size": len(body),
            "digest": hashlib.sha256(body).hexdigest(),
            "pid": os.getpid(),
        }
    )
    answer.set_cookie("one", "1")
    answer.set_cookie("two", "2")
    return answer


def stream(request: HttpRequest) -> StreamingHttpResponse:
    """Pieces; the second comes when the file that is named is there."""

    def pieces() -> Iterator[bytes]:
        yield b"first\n" * 2000
        while not Path(request.GET["file"]).exists():
            time.sleep(0.005)
        yield b"second\n"

    return StreamingHttpResponse(pieces(), content_type="text/plain")


def slow(request: HttpRequest) -> HttpResponse:
    """Says that it is there, and answers when it is let."""
    Path(request.GET["here"]).write_text(str(os.getpid()))
    while not Path(request.GET["go"]).exists():
        time.sleep(0.005)
    return HttpResponse(b"done")


def fails(_request: HttpRequest) -> HttpResponse:
    raise RuntimeError("as it was asked to")


urlpatterns = [
    re_path(r"^stream$", stream),
    re_path(r"^slow$", slow),
    re_path(r"^fails$", fails),
    re_path(r"", echo),
]
