"""Where Celery looks for the tasks of an app in INSTALLED_APPS. They are in `media.jobs`."""

from outgrow.media.jobs import replicate

__all__ = ["replicate"]
