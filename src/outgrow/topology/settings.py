"""`Site` -> Django's settings.

A site's settings.py writes two lines::

    from outgrow.topology import current, django_settings

    globals().update(django_settings(current(BASE_DIR / "topology.toml")))
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from outgrow.topology.model import Site


def django_settings(site: Site) -> dict[str, Any]:
    """ALLOWED_HOSTS, MEDIA_ROOT, MEDIA_URL and STORAGES for this site.

    Options that the file leaves out are left out here, so that the storage's own
    defaults hold. The static files' storage is Django's default.
    """
    options = {key: value for key, value in asdict(site.media).items() if value is not None}
    return {
        "ALLOWED_HOSTS": list(site.domains),
        "MEDIA_ROOT": str(site.media_root),
        "MEDIA_URL": site.media_url,
        "STORAGES": {
            "default": {
                "BACKEND": "outgrow.media.HybridStorage",
                "OPTIONS": {
                    "servers": {server.name: server.address for server in site.media_servers()},
                    "location": str(site.media_root),
                    "base_url": site.media_url,
                    **options,
                },
            },
            "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
        },
    }
