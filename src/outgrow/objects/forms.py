"""Form fields that take an ordinary upload, or the token of one that is in the store already."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from django import forms
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.files.storage import DefaultStorage, Storage, storages
from django.forms.renderers import BaseRenderer
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.datastructures import MultiValueDict
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from outgrow import conf
from outgrow.errors import UploadRefused
from outgrow.objects.arrivals import accept, name_in, offer, owner_of
from outgrow.objects.direct import MOST, OFTEN, Limits, Offer
from outgrow.objects.storages import ObjectStorage

AnyForm = TypeVar("AnyForm", bound=forms.BaseForm)

#: What the script says to visitors.
TEXTS: Final = {
    "uploading": _("Uploading %(name)s"),
    "done": _("%(name)s is uploaded"),
    "cancel": _("Cancel"),
    "remove": _("Remove"),
    "refused": _("%(name)s was not taken: %(reason)s"),
    "failed": _("%(name)s could not be uploaded now. It is sent with the form."),
    "waiting": _("The form is sent when the upload has ended."),
}


class Token(str):
    """What a form was given in place of a file."""

    __slots__ = ()


class DirectClearableFileInput(forms.ClearableFileInput):
    """A file input with a hidden field ``NAME-direct`` beside it, for the token.

    A file that was chosen comes first: without JavaScript nothing is different. With an
    `offer`, which its field sets, the script of `media` uploads what is chosen.
    """

    offer: Offer | None = None

    class Media:
        """The script; it needs ``outgrow`` in INSTALLED_APPS, for the static files."""

        js = ("outgrow/uploads.js",)

    def value_from_datadict(
        self, data: Mapping[str, Any], files: MultiValueDict[str, Any], name: str
    ) -> Any:
        """The file, else the token, else what the ordinary input says."""
        given = super().value_from_datadict(data, files, name)
        token = data.get(f"{name}-direct")
        return Token(token) if token and not given and given is not False else given

    def value_omitted_from_data(
        self, data: Mapping[str, Any], files: MultiValueDict[str, Any], name: str
    ) -> bool:
        """Whether neither a file nor a token was sent, nor the box to clear it ticked."""
        omitted = super().value_omitted_from_data(data, files, name)
        return omitted and f"{name}-direct" not in data

    def render(
        self,
        name: str,
        value: Any,
        attrs: dict[str, Any] | None = None,
        renderer: BaseRenderer | None = None,
    ) -> SafeString:
        """The input and the hidden field; a form that is shown again keeps its token."""
        token = value if isinstance(value, Token) else ""
        given = {**(attrs or {}), **self._for_the_script()}
        if self.offer is not None:
            given["data-outgrow-required"] = "yes" if given.get("required") else "no"
        if token:
            # It is there; what was not chosen again is not missing.
            given |= {"required": False, "data-outgrow-uploaded": name_in(token)}
        shown = super().render(name, None if token else value, given, renderer)
        return format_html(
            '{}<input type="hidden" name="{}-direct" value="{}">', shown, name, token
        )

    def _for_the_script(self) -> dict[str, str]:
        """What the script must know; nothing, without an owner."""
        if self.offer is None:
            return {}
        try:
            url = reverse("outgrow-uploads:permit")
        except NoReverseMatch as error:
            raise ImproperlyConfigured(
                "A form has a field for direct uploads, and the view that permits them has no "
                "URL. Add to your urlpatterns: path('uploads/', include('outgrow.objects.urls'))"
            ) from error
        texts = {key: str(text) for key, text in TEXTS.items()}
        return {
            "data-outgrow-permit": url,
            "data-outgrow-offer": offer(self.offer),
            "data-outgrow-texts": json.dumps(texts),
        }


class DirectFileField(forms.FileField):
    """A file, as ever, or the token of an upload that is in the store already.

    `storage` is one of STORAGES: its alias, or itself; `limits` hold for both kinds. `often`
    is how many files one visitor may upload in an hour. `for_request` says whose form it is;
    until then no token is taken, and none given.
    """

    widget = DirectClearableFileInput
    default_error_messages = {  # noqa: RUF012 - as Django has it
        "refused": _("This file was not taken: %(reason)s. Choose it again."),
    }

    def __init__(
        self,
        *,
        storage: Storage | str = "default",
        limits: Limits | None = None,
        often: int = OFTEN,
        owner: str = "",
        **given: Any,
    ) -> None:
        super().__init__(**given)
        self.storage = storage
        self.limits = limits or Limits(MOST)
        self.often = often
        self.owner = owner

    @property
    def owner(self) -> str:
        """Whose uploads the field takes, by `arrivals.owner_of`; nobody's, if it is empty."""
        return self._owner

    @owner.setter
    def owner(self, owner: str) -> None:
        self._owner = owner
        if isinstance(self.widget, DirectClearableFileInput):
            self.widget.offer = self._offer() if owner else None

    def _offer(self) -> Offer | None:
        """What a visitor may upload; nothing where the storage does not take it."""
        alias = alias_of(self.storage)
        if not is_direct(storages[alias]):
            return None
        limits = self.limits
        return Offer(alias, limits.most, limits.least, limits.types, self.often, self.owner)

    def bound_data(self, data: Any, initial: Any) -> Any:
        """A token is shown again; else what was there before, as Django has it."""
        return data if isinstance(data, Token) else super().bound_data(data, initial)

    def clean(self, data: Any, initial: Any = None) -> Any:
        """The file, as Django's field has it. Raises ValidationError, and ServerError."""
        if isinstance(data, Token):
            data = self._accepted(data)
        cleaned = super().clean(data, initial)
        if data and cleaned is not initial:
            self._check(cleaned.name, cleaned.size)
        return cleaned

    def _accepted(self, token: Token) -> Any:
        given = self.storage
        store = storages[given] if isinstance(given, str) else itself(given)
        if not isinstance(store, ObjectStorage):
            raise self._refused("this site takes it only with the form")
        try:
            return accept(store, token, owner=self.owner, limits=self.limits)
        except UploadRefused as error:
            raise self._refused(error.reason) from error

    def _check(self, name: str, size: int) -> None:
        if problem := self.limits.refusal(name, size):
            raise self._refused(problem)

    def _refused(self, reason: str) -> ValidationError:
        text = self.error_messages["refused"]
        return ValidationError(text, code="refused", params={"reason": reason})


class DirectImageField(DirectFileField, forms.ImageField):
    """The same for an image, which Pillow reads through, from the store where it is there."""


def for_request(form: AnyForm, request: HttpRequest) -> AnyForm:
    """Say whose form it is: its direct fields take this visitor's uploads. Returns the form."""
    for field in form.fields.values():
        if isinstance(field, DirectFileField):
            field.owner = owner_of(request)
    return form


def itself(storage: Storage) -> Storage:
    """The storage that `default_storage` stands for; any other is itself."""
    return storages["default"] if isinstance(storage, DefaultStorage) else storage


def is_direct(storage: Storage) -> bool:
    """Whether browsers can upload straight to a storage."""
    storage = itself(storage)
    if not isinstance(storage, ObjectStorage):
        return False
    options = storage.options
    return options.location.scheme == "s3" and options.is_unique and not options.anonymous


def alias_of(storage: Storage | str) -> str:
    """The alias of a storage in STORAGES. Raises ImproperlyConfigured for one without."""
    if isinstance(storage, str):
        return storage
    storage = itself(storage)
    for alias in conf.storages():
        if storages[alias] is storage:
            return alias
    raise ImproperlyConfigured(
        f"A field for direct uploads has {storage!r}, which is not one of STORAGES, so the view "
        "that permits them can't find it. Put it there, and give the field its alias."
    )
