"""The models of the app: Django looks for them here."""

from __future__ import annotations

from typing import ClassVar

from outgrow.media.tables import Fact, File, Live, Owed

__all__ = ["Fact", "File", "Live", "MediaServer", "Owed"]


class MediaServer(Fact):
    """What the page of Django's admin stands for, and the permissions for it; has no rows.

    A proxy, since `dumpdata` would ask an unmanaged model for a table that is not there.
    """

    class Meta:
        """Nobody adds, changes or deletes a server here: the settings say which there are."""

        app_label = "outgrow"
        proxy = True
        verbose_name = "media server"
        verbose_name_plural = "media servers"
        default_permissions = ("view",)
        permissions: ClassVar = [("repair_media", "Can repair media servers")]
