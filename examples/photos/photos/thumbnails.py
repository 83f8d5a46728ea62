"""Small versions of photographs."""

from __future__ import annotations

from io import BytesIO
from typing import IO

from django.core.files.base import ContentFile
from PIL import Image, ImageOps

#: Pixels of the longer side.
SIDE = 480


def thumbnail(image: IO[bytes]) -> ContentFile[bytes]:
    """A JPEG of at most SIDE x SIDE pixels, the right way up. `image` stays open."""
    image.seek(0)
    with Image.open(image) as picture:
        small = ImageOps.exif_transpose(picture).convert("RGB")
        small.thumbnail((SIDE, SIDE))
    image.seek(0)
    target = BytesIO()
    small.save(target, "JPEG", quality=80)
    return ContentFile(target.getvalue())
