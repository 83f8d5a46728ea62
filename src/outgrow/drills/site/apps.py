"""The drill as an app: its label is that of its table."""

from django.apps import AppConfig


class DrillConfig(AppConfig):
    """One table, which only a site that is drilled has."""

    name = "outgrow.drills.site"
    label = "outgrow_drill"
    default_auto_field = "django.db.models.BigAutoField"
