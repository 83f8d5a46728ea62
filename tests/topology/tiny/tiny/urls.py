"""A page, an upload, and the ways in which a site can fail."""

import os
import signal
import time

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.http import HttpRequest, HttpResponse
from django.urls import path


def index(_request: HttpRequest) -> HttpResponse:
    return HttpResponse(os.environ["OUTGROW_SERVER"])


def save(request: HttpRequest) -> HttpResponse:
    name = default_storage.save("notes/note.txt", ContentFile(request.GET["text"].encode()))
    return HttpResponse(name)


def crash(_request: HttpRequest) -> HttpResponse:
    """End the whole server, not this worker alone."""
    os.kill(os.getppid(), signal.SIGKILL)
    return HttpResponse()


def slow(_request: HttpRequest) -> HttpResponse:
    """Longer than gunicorn waits for a request when it is told to stop."""
    print("a slow request begins")
    time.sleep(30)
    return HttpResponse()


def write(request: HttpRequest) -> HttpResponse:
    from tiny.rows.models import Note

    Note.objects.create(text=request.GET["text"])
    return HttpResponse()


def remember(request: HttpRequest) -> HttpResponse:
    """What is remembered under a key; with a text it is remembered first."""
    from django.core.cache import cache

    if "text" in request.GET:
        cache.set(request.GET["key"], request.GET["text"])
    return HttpResponse(cache.get(request.GET["key"], "nothing"))


def read(request: HttpRequest) -> HttpResponse:
    from tiny.rows.models import Note

    notes = Note.objects.using(request.GET["alias"]).order_by("id")
    return HttpResponse(" ".join(notes.values_list("text", flat=True)))


urlpatterns = [
    path("", index),
    path("save", save),
    path("crash", crash),
    path("slow", slow),
    path("write", write),
    path("read", read),
    path("remember", remember),
]
