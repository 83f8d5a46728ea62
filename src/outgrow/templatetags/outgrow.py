"""``{% load outgrow %}``: what templates need of a release of static files."""

from __future__ import annotations

from django import template
from django.contrib.staticfiles.storage import staticfiles_storage
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()


@register.simple_tag
def integrity(name: str) -> SafeString | str:
    """The attributes by which browsers refuse a script or a style sheet that was changed.

    ``<script src="{% static "js/app.js" %}" {% integrity "js/app.js" %}></script>``; nothing
    with DEBUG, for files that the manifest does not have, and for other storages.
    """
    find = getattr(staticfiles_storage, "integrity", None)
    found = find(name) if find else ""
    # Without CORS a browser may not look into what comes from another origin (SRI, 3.3).
    return format_html('integrity="{}" crossorigin="anonymous"', found) if found else ""
