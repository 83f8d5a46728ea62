"""The Django application: `INSTALLED_APPS = [..., "outgrow"]`."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks


class OutgrowConfig(AppConfig):
    """Registers the system checks. Brings the management command `outgrow`."""

    name = "outgrow"
    verbose_name = "Outgrow"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks."""
        from outgrow.checks import check_media

        checks.register(check_media, checks.Tags.files)
