"""The photo site in Django's admin."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from photos.models import Album, Photo


@admin.register(Album)
class AlbumAdmin(admin.ModelAdmin):
    """Albums."""

    list_display = ["title", "created"]


@admin.register(Photo)
class PhotoAdmin(admin.ModelAdmin):
    """Photographs. Deleting one here deletes its files too."""

    list_display = ["title", "album", "uploaded"]
    list_filter = ["album"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        """They are added by uploading, which makes the thumbnail."""
        return False

    def delete_model(self, request: HttpRequest, obj: Photo) -> None:
        obj.delete_with_files()

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Photo]) -> None:
        for photo in queryset:
            photo.delete_with_files()
