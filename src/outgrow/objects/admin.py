"""Django's admin with file inputs that upload straight to the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.widgets import AdminFileWidget
from django.db import models
from django.http import HttpRequest

from outgrow.objects.arrivals import owner_of
from outgrow.objects.direct import MOST, Limits
from outgrow.objects.forms import (
    DirectClearableFileInput,
    DirectFileField,
    DirectImageField,
    is_direct,
)

if TYPE_CHECKING:
    Base = admin.options.BaseModelAdmin[models.Model]
else:
    Base = object


class DirectAdminFileWidget(DirectClearableFileInput, AdminFileWidget):
    """As the admin's own file input looks."""


class DirectUploadAdmin(Base):
    """A mixin for ModelAdmin and for inlines, before these.

    Each FileField and ImageField whose storage takes direct uploads gets one; the others stay
    as they are. Override `direct_limits` for less than a store takes.
    """

    def direct_limits(self, field: models.FileField, request: HttpRequest) -> Limits:
        """What a field takes."""
        del field, request
        return Limits(MOST)

    def formfield_for_dbfield(
        self, db_field: models.Field[Any, Any], request: HttpRequest, **given: Any
    ) -> Any:
        """Django's form field, or one for direct uploads by this request's user."""
        if not isinstance(db_field, models.FileField) or not is_direct(db_field.storage):
            return super().formfield_for_dbfield(db_field, request, **given)
        kind = DirectImageField if isinstance(db_field, models.ImageField) else DirectFileField
        return db_field.formfield(
            form_class=kind,
            widget=DirectAdminFileWidget,
            storage=db_field.storage,
            limits=self.direct_limits(db_field, request),
            owner=owner_of(request),
            **given,
        )
