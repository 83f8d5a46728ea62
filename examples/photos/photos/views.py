"""The pages of the photo site."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from django.contrib import messages
from django.core.exceptions import SuspiciousFileOperation
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import UploadedFile
from django.core.paginator import Paginator
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from outgrow.databases import server_states
from outgrow.errors import NotEnoughServers, ServerError
from outgrow.status import Snapshot, media_storages, snapshot
from photos.forms import AlbumForm, UploadForm
from photos.models import Album, Photo
from photos.thumbnails import thumbnail

#: Photographs on one page of an album.
PER_PAGE = 24


def home(request: HttpRequest) -> HttpResponse:
    """All albums, and a form for a new one."""
    form = AlbumForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        return redirect(form.save())
    albums = [(album, album.photos.first()) for album in Album.objects.all()]
    return _page(request, "photos/home.html", {"form": form, "albums": albums})


def album(request: HttpRequest, pk: int) -> HttpResponse:
    """One album; a POST uploads photographs to it."""
    found = get_object_or_404(Album, pk=pk)
    form = UploadForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        return _upload(request, found, form.cleaned_data["images"])
    page = Paginator(found.photos.all(), PER_PAGE).get_page(request.GET.get("page"))
    status = 400 if form.errors else 200
    return _page(request, "photos/album.html", {"album": found, "form": form, "page": page}, status)


def _upload(request: HttpRequest, found: Album, images: list[UploadedFile]) -> HttpResponse:
    try:
        for image in images:
            _save(found, image)
    except (NotEnoughServers, ServerError) as error:
        # What was saved before stays; the rest can be tried again.
        messages.error(request, "The uploads' servers are not reachable. Try again in a minute.")
        return _page(request, "photos/unavailable.html", {"error": error}, 503)
    messages.success(request, f"{len(images)} uploaded.")
    return redirect(found)


def _save(found: Album, image: UploadedFile) -> None:
    """Files first, then the row: a row must never refer to a file that is not there."""
    stem = PurePosixPath(image.name or "photo").stem[:80]
    photo = Photo(album=found, title=stem.replace("_", " "))
    photo.thumbnail.save(f"{stem}.jpg", thumbnail(image), save=False)
    photo.image.save(image.name or "photo", image, save=False)
    photo.save()


@require_POST
def delete(request: HttpRequest, pk: int) -> HttpResponse:
    """Delete one photograph."""
    photo = get_object_or_404(Photo, pk=pk)
    photo.delete_with_files()
    messages.success(request, f"{photo} is deleted.")
    return redirect(photo.album)


@require_safe
def servers(request: HttpRequest) -> JsonResponse:
    """Each media server and each database, for the panel that refreshes itself."""
    databases = [one.facts() for one in server_states()]
    media = _media_servers()
    return JsonResponse({**(media.to_json() if media else {"servers": []}), "databases": databases})


@require_safe
def media(request: HttpRequest, name: str) -> FileResponse:
    """The master's copy of a file.

    On a laptop there is no web server in front, so Django serves the files. In
    production it asks the media servers, and takes the next one when one is dead.
    """
    try:
        file = default_storage.open(name)
    except (OSError, SuspiciousFileOperation) as error:
        raise Http404(name) from error
    response = FileResponse(file)
    response["Cache-Control"] = "public, max-age=31536000, immutable"
    response["X-Content-Type-Options"] = "nosniff"
    return response


def _media_servers() -> Snapshot | None:
    """Those of the site; None where its uploads lie in an object store."""
    return next((snapshot(alias) for alias, _ in media_storages()), None)


def _page(
    request: HttpRequest, template: str, context: dict[str, Any], status: int = 200
) -> HttpResponse:
    read_from = Album.objects.all().db
    servers = {"snapshot": _media_servers(), "databases": server_states(), "read_from": read_from}
    response = render(request, template, {**servers, **context}, status=status)
    response["Photos-Read-From"] = read_from
    return response
