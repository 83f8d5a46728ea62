"""Albums and their photographs."""

from __future__ import annotations

from django.db import models
from django.urls import reverse


class Album(models.Model):
    """Some photographs under one title."""

    title = models.CharField(max_length=80, unique=True)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["title"]

    def __str__(self) -> str:
        return self.title

    def get_absolute_url(self) -> str:
        return reverse("album", args=[self.pk])


class Photo(models.Model):
    """One photograph, and a small one of it.

    The thumbnail is a field of its own, made once at the upload and saved through
    the same storage. Its name is in the row, so nobody has to compute it: names in
    the storage are unique and can't be guessed.
    """

    album = models.ForeignKey(Album, on_delete=models.CASCADE, related_name="photos")
    title = models.CharField(max_length=80)
    image = models.ImageField(upload_to="photos/%Y/%m")
    thumbnail = models.ImageField(upload_to="thumbnails/%Y/%m", editable=False)
    uploaded = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-uploaded", "-pk"]

    def __str__(self) -> str:
        return self.title

    def delete_with_files(self) -> None:
        """Delete the row, then its files: a row must never refer to a file that is gone."""
        files = [self.image, self.thumbnail]
        self.delete()
        for file in files:
            file.delete(save=False)
