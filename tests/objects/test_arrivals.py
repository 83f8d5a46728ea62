"""Uploads straight to the store, as a browser sends them, and the forms that take them."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from django import forms
from django.core import signing
from django.core.exceptions import ImproperlyConfigured
from django.core.files.storage import storages
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import models
from django.db.models.fields.files import FileDescriptor
from django.test import RequestFactory, override_settings
from django.utils.datastructures import MultiValueDict
from PIL import Image

from outgrow.errors import NoAccess, UploadRefused
from outgrow.objects import ObjectStorage
from outgrow.objects.arrivals import Permit, accept, owner_of, permit
from outgrow.objects.direct import Limits
from outgrow.objects.forms import DirectFileField, DirectImageField
from tests.live.engines import Engine
from tests.objects.test_sign_live import send

LIMITS = Limits(1000)
SALT = "outgrow.objects.direct"


def direct(engine: Engine, bucket: str, **options: Any) -> ObjectStorage:
    way = "post" if engine.has_forms else "put"
    given = engine.options(bucket) | {"direct": way} | options
    return ObjectStorage(**given)


@pytest.fixture
def store(engine: Engine, bucket: str) -> Iterator[ObjectStorage]:
    given = direct(engine, f"{bucket}/media")
    entry = {"BACKEND": "outgrow.objects.ObjectStorage", "OPTIONS": given._options}
    with override_settings(STORAGES={"default": entry}):
        yield cast("ObjectStorage", storages["default"])


@pytest.fixture
def putting(swift: Engine, swift_bucket: str) -> ObjectStorage:
    return direct(swift, f"{swift_bucket}/media")


def allowed(storage: ObjectStorage, content: bytes, name: str = "a.txt", **more: Any) -> Permit:
    return permit(storage, name, len(content), **{"owner": "me", "limits": LIMITS, **more})


def sent(given: Permit, content: bytes) -> int:
    """What the store answers to a browser that uploads."""
    if given.method == "PUT":
        return send("PUT", given.url, content, given.headers)[0]
    mark = "outgrow-boundary"
    parts = [
        f'--{mark}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in given.fields.items()
    ]
    head = f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    body = "".join(parts).encode() + head.encode() + content + f"\r\n--{mark}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={mark}"}
    return send("POST", given.url, body, headers)[0]


def uploaded(storage: ObjectStorage, content: bytes, name: str = "a.txt", **more: Any) -> str:
    given = allowed(storage, content, name, **more)
    assert sent(given, content) in {200, 201, 204}
    return given.token


def taken(storage: ObjectStorage, token: str, owner: str = "me") -> Any:
    return accept(storage, token, owner=owner, limits=LIMITS)


def names_in(engine: Engine, bucket: str) -> set[str]:
    return set(engine.held(bucket))


def test_an_upload_is_copied_to_its_final_name(store, engine, bucket):
    token = uploaded(store, b"content")
    name = store.save("docs/a.txt", taken(store, token))
    with store.open(name) as file:
        assert file.read() == b"content"
    held = engine.held(bucket)
    assert held.pop(f"media/{name}") == b"content"
    [(mark, empty)] = held.items()
    assert mark.startswith("media/outgrow-incoming/")
    assert mark.endswith(".taken")
    assert empty == b""


def test_the_copy_has_the_headers_of_its_name_and_none_of_the_visitor(store, engine, bucket):
    for given, kind, disposition in [
        ("a.html", "text/html; charset=utf-8", "attachment"),
        ("a.png", "image/png", None),
    ]:
        name = store.save(given, taken(store, uploaded(store, b"<script>", given)))
        found = engine.client().head_object(Bucket=bucket, Key=f"media/{name}")
        assert found["ContentType"] == kind
        assert found.get("ContentDisposition") == disposition


def test_what_has_just_arrived_is_no_page(store, engine, bucket):
    uploaded(store, b"<script>", "a.html")
    [key] = names_in(engine, bucket)
    found = engine.client().head_object(Bucket=bucket, Key=key)
    assert found["ContentType"] == "application/octet-stream"


def test_another_storage_reads_it(store, tmp_path):
    upload = taken(store, uploaded(store, b"content"))
    other = ObjectStorage(location=f"file://{tmp_path}")
    with other.open(other.save("a.txt", upload)) as file:
        assert file.read() == b"content"


def test_a_token_is_good_once_even_if_the_object_is_sent_again(store, engine, bucket):
    given = allowed(store, b"content")
    sent(given, b"content")
    upload, second = taken(store, given.token), taken(store, given.token)
    store.save("a.txt", upload)
    assert sent(given, b"another") in {200, 201, 204}  # the permission is still good
    with pytest.raises(UploadRefused, match="taken already"):
        taken(store, given.token)
    with pytest.raises(UploadRefused, match="taken already"):
        store.save("b.txt", second)
    assert not any(key.startswith("media/b") for key in names_in(engine, bucket))


def test_what_was_swapped_after_the_check_is_not_taken(putting, swift, swift_bucket):
    given = allowed(putting, b"content")
    sent(given, b"content")
    upload = taken(putting, given.token)
    sent(given, b"swapped")
    with pytest.raises(UploadRefused, match="replaced"):
        putting.save("a.txt", upload)
    [key] = names_in(swift, swift_bucket)
    assert not key.endswith(".taken")  # it may be submitted again, and is checked again
    putting.save("a.txt", taken(putting, given.token))


@pytest.mark.parametrize("content", [b"", b"longer than it said", b"short"])
def test_the_store_takes_no_other_size(putting, swift, swift_bucket, content):
    assert sent(allowed(putting, b"content"), content) == 403
    assert names_in(swift, swift_bucket) == set()


def test_the_store_takes_no_other_type_and_no_other_key(putting, swift, swift_bucket):
    given = allowed(putting, b"content")
    assert send("PUT", given.url, b"content", {"Content-Type": "text/html"})[0] == 403
    path = urlsplit(given.url).path
    elsewhere = given.url.replace(path, f"{path}.taken")
    assert send("PUT", elsewhere, b"content", given.headers)[0] == 403
    assert names_in(swift, swift_bucket) == set()


def test_another_size_under_the_same_key_is_seen(putting, swift, swift_bucket):
    given = allowed(putting, b"content")
    key = urlsplit(given.url).path.split("/", 2)[2]
    swift.client().put_object(Bucket=swift_bucket, Key=key, Body=b"more than it said")
    with pytest.raises(UploadRefused, match="17 bytes arrived, of 7"):
        taken(putting, given.token)


def test_tokens_that_are_refused(store, engine, bucket):
    token = uploaded(store, b"content")
    with pytest.raises(UploadRefused, match="somebody else"):
        taken(store, token, owner="other")
    with pytest.raises(UploadRefused, match="somebody else"):
        taken(store, token, owner="")
    with pytest.raises(UploadRefused, match="another place"):
        taken(direct(engine, f"{bucket}/other"), token)
    with pytest.raises(UploadRefused, match="not one of this site"):
        taken(store, f"{token[:-1]}{'A' if token[-1] != 'A' else 'B'}")
    with pytest.raises(UploadRefused, match="not one of this site"):
        taken(store, signing.dumps(signing.loads(token, salt=SALT)))  # another salt
    with pytest.raises(UploadRefused, match="at most 6"):
        accept(store, token, owner="me", limits=Limits(6))
    with pytest.raises(UploadRefused, match="did not arrive"):
        taken(store, allowed(store, b"content").token)
    values = signing.loads(token, salt=SALT)
    expired = signing.dumps({**values, "until": time.time() - 1}, salt=SALT)
    with pytest.raises(UploadRefused, match="expired"):
        taken(store, expired)


def test_what_the_form_would_not_take_gets_no_permission(store):
    with pytest.raises(UploadRefused, match="at most 1000"):
        permit(store, "a.txt", 1001, owner="me", limits=LIMITS)
    with pytest.raises(UploadRefused, match="begins with a dot"):
        permit(store, ".htaccess", 5, owner="me", limits=LIMITS)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"location": "memory://b"}, ImproperlyConfigured),
        ({"location": "s3://b", "overwrite": True}, ImproperlyConfigured),
        ({"location": "s3://b", "names": "keep"}, ImproperlyConfigured),
        ({"location": "s3://b"}, NoAccess),
    ],
)
def test_storages_that_take_no_direct_uploads(options, error, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(error):
        allowed(ObjectStorage(**options), b"content")


def test_a_permit_shows_no_secret(putting):
    given = allowed(putting, b"content")
    assert given.token not in repr(given)
    assert "Signature" not in repr(given)
    assert given.to_json()["token"] == given.token


# --- owners


def request_of(user: Any = None, key: str = "") -> Any:
    class Session:
        session_key = key

        def create(self) -> None:
            self.session_key = "made"

    request: Any = RequestFactory().get("/")
    request.session = Session()
    if user:
        request.user = user
    return request


def test_owners_are_users_else_sessions_and_name_neither():
    class User:
        is_authenticated = True

        def __init__(self, pk: str) -> None:
            self.pk = pk

    found = [
        owner_of(request_of(User("1"), "a")),
        owner_of(request_of(User("2"), "a")),
        owner_of(request_of(key="1")),
        owner_of(request_of(key="thekey")),
    ]
    assert len(set(found)) == 4
    assert "thekey" not in "".join(found)
    assert owner_of(request_of(User("1"), "b")) == found[0]
    assert owner_of(request_of(key="thekey")) == found[3]
    new = request_of()
    assert owner_of(new) == owner_of(new)
    assert new.session.session_key == "made"


# --- forms


def form_for(storage: Any, owner: str = "me", kind: Any = DirectFileField, **more: Any) -> Any:
    class Form(forms.Form):
        file = kind(storage=storage, limits=LIMITS, owner=owner, **more)

    return Form


def posted(kind: Any, token: str = "", **files: Any) -> Any:
    return kind({"file-direct": token}, MultiValueDict({k: [v] for k, v in files.items()}))


def test_a_form_takes_a_token(store):
    form = posted(form_for(store), uploaded(store, b"content"))
    assert form.is_valid(), form.errors
    file = form.cleaned_data["file"]
    assert (file.name, file.size, file.read()) == ("a.txt", 7, b"content")
    with store.open(store.save(file.name, file)) as saved:
        assert saved.read() == b"content"


def test_a_form_takes_an_image(store):
    made = io.BytesIO()
    Image.new("RGB", (4, 3)).save(made, "PNG")
    kind = form_for(store, kind=DirectImageField)
    form = posted(kind, uploaded(store, made.getvalue(), "a.png"))
    assert form.is_valid(), form.errors
    assert form.cleaned_data["file"].image.size == (4, 3)
    name = store.save("a.png", form.cleaned_data["file"])
    assert store.size(name) == len(made.getvalue())
    form = posted(kind, uploaded(store, b"no image", "a.png"))
    assert "file" in form.errors


def test_a_models_field_takes_what_the_form_took(store, engine, bucket):
    field = models.FileField(storage=store, upload_to="films")
    field.set_attributes_from_name("film")

    class Film:
        film = FileDescriptor(field)

    form = posted(form_for(store), uploaded(store, b"content"))
    assert form.is_valid(), form.errors
    film: Any = Film()
    film.film = form.cleaned_data["file"]
    saved = field.pre_save(film, add=True)
    assert saved.name.startswith("films/a_")
    held = engine.held(bucket)
    assert held.pop(f"media/{saved.name}") == b"content"
    assert [key[-6:] for key in held] == [".taken"]


@pytest.mark.parametrize("owner", ["other", ""])
def test_a_form_of_another_owner_refuses_it_and_says_why(store, owner):
    form = posted(form_for(store, owner), uploaded(store, b"content"))
    assert "somebody else uploaded it" in str(form.errors["file"])


def test_without_javascript_it_is_an_ordinary_upload():
    kind = form_for("default")
    form = posted(kind, file=SimpleUploadedFile("a.txt", b"content"))
    assert form.is_valid(), form.errors
    assert form.cleaned_data["file"].read() == b"content"
    large = posted(kind, file=SimpleUploadedFile("a.txt", b"x" * 1001))
    assert "at most 1000" in str(large.errors["file"])
    assert "required" in str(posted(kind).errors["file"])


def test_a_file_comes_before_a_token():
    form = posted(form_for("default"), "a token", file=SimpleUploadedFile("a.txt", b"content"))
    assert form.is_valid(), form.errors


def test_a_token_for_a_storage_that_takes_none():
    form = posted(form_for("default"), "a token")
    assert "only with the form" in str(form.errors["file"])


def test_a_form_that_is_shown_again_keeps_its_token():
    kind = form_for("default")
    assert 'name="file-direct" value="&lt;t&gt;"' in str(posted(kind, "<t>")["file"])
    assert 'name="file-direct" value=""' in str(kind()["file"])
    widget = kind().fields["file"].widget
    assert not widget.value_omitted_from_data({"file-direct": "t"}, MultiValueDict(), "file")
    assert widget.value_omitted_from_data({}, MultiValueDict(), "file")


def test_what_was_there_stays_and_can_be_cleared():
    kind = form_for("default", required=False)
    kept = kind({}, {}, initial={"file": "old.txt"})
    assert kept.is_valid()
    assert kept.cleaned_data["file"] == "old.txt"
    cleared = kind({"file-clear": "on"}, {}, initial={"file": "old.txt"})
    assert cleared.is_valid()
    assert cleared.cleaned_data["file"] is False
