"""The view that a page's script asks before a browser uploads straight to the store.

Who may upload what was decided when the page was made: its form has an offer for this
visitor, signed, which comes back here. So there is nothing to configure, and nobody without
such a form gets a permit.
"""

from __future__ import annotations

from typing import Final

from django.core.cache import cache
from django.core.exceptions import ImproperlyConfigured
from django.core.files.storage import InvalidStorageError, storages
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_POST

from outgrow.errors import UploadRefused
from outgrow.objects import arrivals
from outgrow.objects.direct import Offer
from outgrow.objects.storages import ObjectStorage

#: Seconds in which a visitor's uploads are counted.
_HOUR: Final = 3600
#: No file's size has more digits than this.
_DIGITS: Final = 18


@never_cache
@csrf_protect
@require_POST
def permit(request: HttpRequest) -> JsonResponse:
    """A permit for one file, as JSON; or 400, 403 or 429 with a `problem` for the visitor.

    POST has the page's `offer`, and the `name` and `size` of the file.
    """
    owner = arrivals.owner_of(request)
    try:
        offer = arrivals.offered(request.POST.get("offer", ""), owner)
    except UploadRefused as error:
        return _no(error.reason, 403)
    if not _is_free(offer):
        return _no(f"you have uploaded {offer.often} files within an hour: wait a little", 429)
    size = request.POST.get("size", "")
    if not size.isascii() or not size.isdigit() or len(size) > _DIGITS:
        return _no("its size is not known", 400)
    try:
        made = arrivals.permit(
            _storage(offer.storage),
            request.POST.get("name", ""),
            int(size),
            owner=owner,
            limits=offer.limits,
        )
    except UploadRefused as error:
        return _no(error.reason, 400)
    return JsonResponse(made.to_json())


def _no(reason: str, status: int) -> JsonResponse:
    return JsonResponse({"problem": reason}, status=status)


def _storage(alias: str) -> ObjectStorage:
    try:
        found = storages[alias]
    except InvalidStorageError as error:
        raise UploadRefused("", "this page is too old: load it again") from error
    if not isinstance(found, ObjectStorage):
        raise ImproperlyConfigured(f"STORAGES[{alias!r}] is no ObjectStorage any more.")
    return found


def _is_free(offer: Offer) -> bool:
    """Count one more upload of a visitor's, by the cache."""
    key = f"outgrow-uploads:{offer.owner}"
    cache.add(key, 0, timeout=_HOUR)
    try:
        return cache.incr(key) <= offer.often
    except ValueError:  # it went between the two lines, as a full cache lets things go
        return True
