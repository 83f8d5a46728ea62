"""One row for each time that a write was carried out."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class Execution(models.Model):
    """A write has been carried out; two of them with one `request` are one too many."""

    id = models.BigAutoField(primary_key=True)
    request = models.CharField(max_length=64, db_index=True)
    execution = models.CharField(max_length=64)

    objects: ClassVar[models.Manager[Execution]] = models.Manager()

    class Meta:
        """Its app may be asked for before it is installed: by tools that read the source."""

        app_label = "outgrow_drill"

    def __str__(self) -> str:
        return f"{self.request}: {self.execution}"
