"""The upload form: several photographs at once."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from photos.models import Album

#: Bytes of one photograph.
SIZE_LIMIT = 20 * 1024 * 1024


class SeveralFiles(forms.ClearableFileInput):
    """A file input that takes more than one file."""

    allow_multiple_selected = True


class ImagesField(forms.ImageField):
    """Several images. One that is none refuses all, so that nothing is half uploaded."""

    widget = SeveralFiles(attrs={"accept": "image/*"})

    def clean(self, data: Any, initial: Any = None) -> list[Any]:
        """Check each file with Pillow, and name the one that is wrong."""
        files = data if isinstance(data, list) else [data] if data else []
        if not files:
            raise ValidationError("Choose at least one photograph.")
        return [self._clean_one(file, initial) for file in files]

    def _clean_one(self, file: Any, initial: Any) -> Any:
        if file.size > SIZE_LIMIT:
            raise ValidationError(f"{file.name} is larger than {SIZE_LIMIT // 2**20} MB.")
        try:
            return super().clean(file, initial)
        except ValidationError as error:
            raise ValidationError(f"{file.name} is not an image that we can read.") from error


class UploadForm(forms.Form):
    """Photographs for an album."""

    images = ImagesField(label="Photographs")


class AlbumForm(forms.ModelForm):
    """A new album."""

    class Meta:
        model = Album
        fields = ["title"]
