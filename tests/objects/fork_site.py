"""A site whose storage was used before its processes were forked: for gunicorn, and Celery."""

from __future__ import annotations

import json
import os

import django
from celery import Celery
from django.conf import settings
from django.core.files.base import ContentFile
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse
from django.urls import path

from outgrow.objects import ObjectStorage

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="x", USE_TZ=True)
django.setup()

storage = ObjectStorage(**json.loads(os.environ["STORAGE"]))
#: What the master does while it imports the site: all that must not be done, with obstore.
FIRST = storage.save("first.txt", ContentFile(b"before the fork"))
HALF_READ = storage.open(FIRST)
assert HALF_READ.read(6) == b"before"
MASTER = os.getpid()


def work() -> str:
    """Use the storage in every way; say from which process."""
    assert os.getpid() != MASTER
    assert storage.open(FIRST).read() == b"before the fork"
    HALF_READ.seek(0)
    assert HALF_READ.read() == b"before the fork"
    name = storage.save("in-child.txt", ContentFile(b"x" * 100))
    assert storage.size(name) == 100
    assert name in storage.listdir("")[1]
    storage.delete(name)
    assert not storage.exists(name)
    return str(os.getpid())


def view(request: HttpRequest) -> HttpResponse:
    return HttpResponse(work())


urlpatterns = [path("", view)]
application = WSGIHandler()

app = Celery("fork_site", broker=os.environ.get("BROKER"), backend=os.environ.get("BROKER"))
app.conf.broker_connection_retry_on_startup = True
task = app.task(work, name="work")
