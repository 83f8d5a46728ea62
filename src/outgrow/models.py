"""The models of the app: Django looks for them here."""

from outgrow.media.tables import Fact, File, Live, Owed

__all__ = ["Fact", "File", "Live", "Owed"]
