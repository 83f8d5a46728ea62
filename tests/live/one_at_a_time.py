"""One request after the other, for Django's live server over SQLite in memory.

The live server's threads share one connection then, which can't do two things at once: a query of
one request takes the rows of another's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from django.http import HttpRequest, HttpResponseBase

_lock = threading.Lock()


def one_at_a_time(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """The middleware; to be the first."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        with _lock:
            return get_response(request)

    return middleware
