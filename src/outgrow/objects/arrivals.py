"""Uploads that a browser has sent straight to the store: permit, look at, take.

`direct` says what is allowed; here are the signature of its tickets, by Django's
SECRET_KEY, and the requests.
"""

from __future__ import annotations

import logging
import time
import urllib.error
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from django.core import signing
from django.core.exceptions import ImproperlyConfigured
from django.utils.crypto import salted_hmac

from outgrow.errors import (
    BadAnswer,
    ConnectionLost,
    NoAccess,
    ServerError,
    UnsafeName,
    UploadRefused,
)
from outgrow.objects import mishaps, requests, runtime, stores
from outgrow.objects.direct import (
    ARRIVES_AS,
    LIFETIME,
    Limits,
    Offer,
    Ticket,
    from_values,
    offer_from_values,
    ticket,
)
from outgrow.objects.downloads import ObjectFile, ObjectReader
from outgrow.objects.sign import Credentials

if TYPE_CHECKING:
    from django.http import HttpRequest

    from outgrow.objects.storages import ObjectStorage

logger = logging.getLogger("outgrow.objects")

_SALT: Final = "outgrow.objects.direct"
_OWNER: Final = "outgrow.objects.direct.owner"
_OFFER: Final = "outgrow.objects.direct.offer"

#: Seconds for which a page may be open before its file input is used.
_OFFERED_FOR: Final = 86_400


@dataclass(frozen=True, slots=True)
class Permit:
    """What a browser needs for one upload; `token` is what the form is given afterwards.

    With ``method="POST"`` the `fields` stand before the file in a form, which is the field
    ``file``; with PUT the file is the body, and the `headers` are sent with it.
    """

    method: str
    url: str = field(repr=False)
    fields: Mapping[str, str] = field(repr=False)
    headers: Mapping[str, str]
    token: str = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Itself, for a JsonResponse."""
        return asdict(self)


class DirectUpload(ObjectFile):
    """An object that a browser has uploaded, open for reading.

    Its own storage saves it by a copy within the store, once; any other reads it.
    """

    def __init__(self, storage: ObjectStorage, claim: Ticket, reader: ObjectReader) -> None:
        super().__init__(reader, claim.name, "rb")
        self.place = storage.server
        self.ticket = claim
        self.etag = reader.etag


def owner_of(request: HttpRequest) -> str:
    """Whose uploads a request may claim: its user's, else its session's.

    A session begins if there is none. What comes back is a digest, for it goes to the
    browser, where a session's key must not be read by scripts.
    """
    user = getattr(request, "user", None)
    if user is not None and user.is_authenticated:
        return salted_hmac(_OWNER, f"user:{user.pk}", algorithm="sha256").hexdigest()
    if not request.session.session_key:
        request.session.create()
    text = f"session:{request.session.session_key}"
    return salted_hmac(_OWNER, text, algorithm="sha256").hexdigest()


def offer(wanted: Offer) -> str:
    """An offer, signed, for the page that has the form. Good for a day."""
    return signing.dumps(wanted.values(), salt=_OFFER)


def offered(text: str, owner: str) -> Offer:
    """The offer that a browser has sent back. Raises UploadRefused for one that is not its own."""
    try:
        found = offer_from_values(signing.loads(text, salt=_OFFER, max_age=_OFFERED_FOR))
    except signing.SignatureExpired as error:
        raise UploadRefused("", "this page is older than a day: load it again") from error
    except signing.BadSignature:
        found = None
    if found is None or not owner or found.owner != owner:
        raise UploadRefused("", "this page is somebody else's: load it again")
    return found


def permit(
    storage: ObjectStorage,
    name: str,
    size: int,
    *,
    owner: str,
    limits: Limits,
    expire: float = LIFETIME,
) -> Permit:
    """Permission to upload one file of `size` bytes, good for `expire` seconds.

    `owner` comes from `owner_of`, and `limits` from the form; neither from the visitor. The
    caller has decided that the visitor may upload. Nothing is sent. Raises UploadRefused for a
    file that the form would not take, ImproperlyConfigured for a storage that can't, and
    NoAccess where only the machine's role has keys.
    """
    _check(storage)
    now = time.time()
    try:
        made = ticket(storage.server, name, size, owner, float(now + expire))
    except UnsafeName as error:
        raise UploadRefused(name, f"its name can't be used: {error.problem}") from error
    if problem := limits.refusal(made.name, size):
        raise UploadRefused(made.name, problem)
    options, key = storage.options, storage.key(made.file)
    signer = requests.signer(options, _keys(storage))
    token = signing.dumps(made.values(), salt=_SALT)
    if options.direct == "post":
        fields = {"key": key, "Content-Type": ARRIVES_AS}
        bucket = options.location.bucket
        form = signer.form(bucket, start=now, expire=expire, fields=fields, size=(size, size))
        return Permit("POST", form.url, form.fields, {}, token)
    # The browser sends the length by itself; signed, no other one is taken.
    headers = {"Content-Type": ARRIVES_AS}
    signed = {**headers, "Content-Length": str(size)}
    url = signer.url(key, start=now, expire=expire, method="PUT", headers=signed)
    return Permit("PUT", url, {}, headers, token)


def accept(storage: ObjectStorage, token: str, *, owner: str, limits: Limits) -> DirectUpload:
    """The upload that a token claims, when it is there and is all that the form asks for.

    Two requests. Raises UploadRefused, or a ServerError where the store does not answer.
    """
    try:
        claim = from_values(signing.loads(token, salt=_SALT))
    except signing.BadSignature:
        claim = None
    if claim is None:
        raise UploadRefused("", "its token is not one of this site")
    if problem := claim.refusal(storage.server, owner, limits, time.time()):
        raise UploadRefused(claim.name, problem)
    if storage.exists(claim.mark):
        raise UploadRefused(claim.name, "it was taken already")
    key = storage.key(claim.file)
    try:
        reader = ObjectReader(storage.stores.store, key, lambda: storage.reading(claim.file))
    except FileNotFoundError as error:
        raise UploadRefused(claim.name, "it did not arrive") from error
    if reader.size != claim.size:
        reader.close()
        problem = f"{reader.size} bytes arrived, of {claim.size} that were to come"
        raise UploadRefused(claim.name, problem)
    return DirectUpload(storage, claim, reader)


def name_in(token: str) -> str:
    """The name that the visitor's file has, by its token; empty for what is no token."""
    try:
        claim = from_values(signing.loads(token, salt=_SALT))
    except signing.BadSignature:
        return ""
    return claim.name if claim else ""


def take(storage: ObjectStorage, name: str, upload: DirectUpload) -> str:
    """Copy an upload to its final name within the store, and remove the temporary object.

    The copy has the headers of every file of that name. Raises UploadRefused when it was
    taken, or replaced, since it was looked at. When it is not known what happened it counts as
    taken. Of two that take it at the same moment, one does, where the store has atomic
    conditions; else each may get a copy of the same object.
    """
    claim = upload.ticket
    _mark(storage, claim)
    try:
        _copy(storage, name, upload)
    except urllib.error.HTTPError as error:
        with error:
            said = error.read().decode(errors="replace")
        if error.code < 500:
            storage.discard(claim.mark)  # nothing was copied: it may be tried again
        if error.code in {404, 412}:
            raise UploadRefused(claim.name, "it was replaced after it was checked") from error
        raise mishaps.problem(storage.server, f"status code: {error.code} {said}") from error
    except ServerError:
        raise
    except OSError as error:
        raise ConnectionLost(storage.server, f"{claim.name!r} may be copied: {error}") from error
    size = storage.size(name)
    if size != claim.size:
        storage.discard(name)
        problem = f"the copy {name!r} had {size} bytes, of {claim.size}; it was removed"
        raise BadAnswer(storage.server, problem)
    try:
        storage.discard(claim.file)
    except ServerError as error:
        # The file is saved. What is left is old one day, and then removed like all such.
        logger.warning("%s: %r was copied, but not removed: %s", storage.server, claim.file, error)
    return name


def _mark(storage: ObjectStorage, claim: Ticket) -> None:
    library = runtime.library()
    store, key = storage.stores.store(), storage.key(claim.mark)
    try:
        with mishaps.translated(storage.server, claim.mark):
            library.put(store, key, b"", mode="create", use_multipart=False)
    except library.exceptions.AlreadyExistsError as error:
        raise UploadRefused(claim.name, "it was taken already") from error


def _copy(storage: ObjectStorage, name: str, upload: DirectUpload) -> None:
    options = storage.options
    source = quote(f"/{options.location.bucket}/{storage.key(upload.ticket.file)}", safe="/~")
    headers = {
        **storage.headers(name),
        "x-amz-copy-source": source,
        "x-amz-copy-source-if-match": upload.etag,
        "x-amz-metadata-directive": "REPLACE",
    }
    said = requests.put(options, _keys(storage), storage.key(name), headers=headers)
    # A copy that fails late has the status 200 and an error in its body
    # (https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html).
    if b"CopyObjectResult" not in said:
        text = f"{name!r} may be copied: {said[:200].decode(errors='replace')}"
        raise BadAnswer(storage.server, text)


def _keys(storage: ObjectStorage) -> Credentials:
    keys = stores.credentials(storage.options)
    if not keys[0]:
        text = "direct uploads are signed here: set 'access_key' and 'secret_key'"
        raise NoAccess(storage.server, text)
    return Credentials(*keys)


def _check(storage: ObjectStorage) -> None:
    options = storage.options
    if options.location.scheme != "s3":
        raise ImproperlyConfigured(f"{storage.server}: only s3:// takes direct uploads.")
    if not options.is_unique:
        raise ImproperlyConfigured(
            f"{storage.server}: direct uploads need names that are used once: leave out "
            "'overwrite', and 'names' or set it to 'unique'."
        )
