"""What the load asks for. All of it passes through the site's own middleware."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable
from typing import Final

from django.contrib.auth.decorators import login_not_required
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import router
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST

from outgrow.drills.site.models import Execution
from outgrow.drills.site.settings import OUTGROW_DRILL
from outgrow.drills.wiring import UPLOADS

View = Callable[[HttpRequest], HttpResponse]

#: Rows in one answer.
PAGE: Final = 5000


@require_GET
def read(request: HttpRequest) -> HttpResponse:
    """How many rows a write has made; without one, any page that reads."""
    if not OUTGROW_DRILL.rows:
        return HttpResponse("0")
    if wanted := request.GET.get("request"):
        return HttpResponse(str(Execution.objects.filter(request=wanted).count()))
    return HttpResponse(str(Execution.objects.order_by("-id")[:1].count()))


@require_POST
def write(request: HttpRequest) -> HttpResponse:
    """One row, which says whose it is; the answer is the id of the request."""
    wanted = request.GET["request"]
    Execution.objects.create(request=wanted, execution=secrets.token_hex(16))
    return HttpResponse(wanted)


@require_POST
def upload(request: HttpRequest) -> HttpResponse:
    """The body as a file; the answer is its name and its digest."""
    name = default_storage.save(f"{UPLOADS}/upload.bin", ContentFile(request.body))
    return JsonResponse({"name": name, "digest": hashlib.sha256(request.body).hexdigest()})


@require_POST
def delete(request: HttpRequest) -> HttpResponse:
    """Delete what `upload` has made, and nothing else."""
    name = request.GET["name"]
    if not name.startswith(f"{UPLOADS}/"):
        return HttpResponseBadRequest(f"{name} is no file of the drill")
    default_storage.delete(name)
    return HttpResponse(name)


@require_POST
def executions(request: HttpRequest) -> HttpResponse:
    """A page of the rows as the primary has them, after an id."""
    rows = Execution.objects.using(router.db_for_write(Execution))
    after = int(request.GET["after"])
    page = rows.filter(id__gt=after).order_by("id").values_list("id", "request")[:PAGE]
    return JsonResponse({"rows": list(page)})


@require_POST
def digests(request: HttpRequest) -> HttpResponse:
    """The digests of these files, as the storage has them; nothing for those that are not there."""
    found = {}
    for name in json.loads(request.body):
        if default_storage.exists(name):
            with default_storage.open(name) as stream:
                found[name] = hashlib.sha256(stream.read()).hexdigest()
    return JsonResponse(found)


def _open(view: View) -> View:
    """The load has no session: its path is the secret."""
    opened: View = csrf_exempt(login_not_required(view))
    return opened


EVERY: Final = tuple(map(_open, (read, write, upload, delete, executions, digests)))
