"""The Django application: `INSTALLED_APPS = [..., "outgrow"]`."""

from __future__ import annotations

from contextlib import suppress

from django.apps import AppConfig
from django.core import checks


class OutgrowConfig(AppConfig):
    """Registers the system checks. Brings the management command `outgrow`."""

    name = "outgrow"
    verbose_name = "Outgrow"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks, and prepare the aliases of replicas."""
        from outgrow.checks import (
            check_deployment,
            check_manifest,
            check_media,
            check_moving,
            check_objects,
            check_pooled,
            check_published,
            check_replicas,
            check_replication,
            check_secret_key,
            check_shared_nothing,
            check_topology,
            check_topology_deployment,
        )
        from outgrow.databases.setup import install
        from outgrow.errors import ConfigurationError

        checks.register(check_media, checks.Tags.files)
        checks.register(check_objects, checks.Tags.files)
        checks.register(check_moving, checks.Tags.files)
        checks.register(check_published, checks.Tags.staticfiles)
        checks.register(check_manifest, checks.Tags.staticfiles, deploy=True)
        # Django leaves out what is tagged with databases unless some are named.
        checks.register(check_replication, "outgrow")
        checks.register(check_shared_nothing, "outgrow")
        checks.register(check_topology, "outgrow")
        checks.register(check_pooled, "outgrow")
        checks.register(check_secret_key, "outgrow", deploy=True)
        checks.register(check_deployment, "outgrow", deploy=True)
        checks.register(check_topology_deployment, "outgrow", deploy=True)
        checks.register(check_replicas, checks.Tags.database)
        # A mistake in the settings is the checks' to tell, all of them at once; the router
        # raises it for who runs without them.
        with suppress(ConfigurationError):
            install()
