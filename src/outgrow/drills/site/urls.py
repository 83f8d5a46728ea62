"""The site's own URLs, behind the views of the drill."""

from __future__ import annotations

import importlib
from typing import Any

from django.urls import path

from outgrow.drills.site import views
from outgrow.drills.site.settings import OUTGROW_DRILL, OUTGROW_DRILL_URLCONF

_site: Any = importlib.import_module(OUTGROW_DRILL_URLCONF)

# Not by `include`, in which a site's `i18n_patterns` may not stand.
urlpatterns = [
    *(path(f"{OUTGROW_DRILL.prefix}{view.__name__}", view) for view in views.EVERY),
    *_site.urlpatterns,
]

globals().update({n: getattr(_site, n) for n in dir(_site) if n.startswith("handler")})
