"""What an object storage does beyond what every storage does, on real engines."""

from __future__ import annotations

import asyncio
import io
import os
import pickle
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured, SuspiciousFileOperation
from django.core.files.base import ContentFile, File
from django.core.management import call_command
from django.test import override_settings

from outgrow.conf.objects import PART_LEAST
from outgrow.errors import NoAccess, NoBucket, ObjectReplaced
from outgrow.objects import ObjectStorage
from outgrow.objects.uploads import part_size
from tests.live.engines import Engine
from tests.live.nginx import Nginx
from tests.live.processes import server_folder, wait_until
from tests.live.stores import Make
from tests.raw import Peer, RawServer, answer

#: One part, and a bit.
LARGE = PART_LEAST + 12_345


def fetched(url: str) -> tuple[bytes, Any]:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return answer.read(), answer.headers


@contextmanager
def running_nginx_to(place: str) -> Iterator[str]:
    """The site's own server, which passes /media/ on to the store, as the documentation has it."""
    page = Path(__file__).parents[2] / "docs/howto/object-stores.md"
    [block] = re.findall(r"^```nginx\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    assert "http://10.0.0.21:9000/photos/" in block
    media = block.replace("http://10.0.0.21:9000/photos/", place)
    with server_folder("outgrow-nginx-") as folder:
        server = Nginx(folder)
        server._configuration = server._configuration.replace(
            "location / {", media + " location / {"
        )
        server.start()
        try:
            yield server.url
        finally:
            server.stop()


def status(url: str) -> int:
    try:
        fetched(url)
    except urllib.error.HTTPError as error:
        with error:
            return int(error.code)
    return 200


# --- writing


def test_the_headers_of_a_file(storage: ObjectStorage, engine: Engine, bucket: str) -> None:
    name = storage.save("a.css", ContentFile(b"p {}"))
    found = engine.client().head_object(Bucket=bucket, Key=name)
    assert found["ContentType"] == "text/css; charset=utf-8"
    assert "ContentDisposition" not in found


def test_what_a_browser_would_run_is_a_download(make: Make, engine: Engine, bucket: str) -> None:
    client = engine.client()
    name = make().save("a.html", ContentFile(b"<script>"))
    assert client.head_object(Bucket=bucket, Key=name)["ContentDisposition"] == "attachment"
    name = make(active_content="inline").save("a.html", ContentFile(b"<script>"))
    assert "ContentDisposition" not in client.head_object(Bucket=bucket, Key=name)


def test_headers_of_one_s_own(make: Make, engine: Engine, bucket: str) -> None:
    headers = {
        "Cache-Control": "max-age=31536000, immutable",
        "content-disposition": 'attachment; filename="x.txt"',
        "Content-Language": "fr",
        "Expires": timedelta(days=30),
        "x-amz-meta-origin": "a test",
    }
    name = make(headers=headers).save("a.txt", ContentFile(b"x"))
    found = engine.client().head_object(Bucket=bucket, Key=name)
    assert found["CacheControl"] == "max-age=31536000, immutable"
    assert found["ContentDisposition"] == 'attachment; filename="x.txt"'
    assert found["ContentLanguage"] == "fr"
    assert found["Metadata"] == {"origin": "a test"}
    expires = found.get("Expires") or parsedate_to_datetime(found["ExpiresString"])
    assert timedelta(days=30) <= expires - datetime.now(UTC) <= timedelta(days=31)


def test_two_writers_of_a_large_file_leave_the_whole_of_one(
    make: Make, engine: Engine, bucket: str
) -> None:
    """Neither removes what the other wrote, for it is not as large as his own."""
    storage = make(overwrite=True)
    contents = [os.urandom(LARGE), os.urandom(LARGE + 1)]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(3):
            list(pool.map(lambda one: storage.save("a.bin", ContentFile(one)), contents))
            assert engine.held(bucket)["a.bin"] in contents


@pytest.mark.parametrize("size", [1, LARGE])
def test_headers_that_obstore_does_not_know(
    make: Make, engine: Engine, bucket: str, size: int
) -> None:
    name = make(headers={"Expires": "0"}).save("a.bin", ContentFile(bytes(size)))
    found = engine.client().head_object(Bucket=bucket, Key=name)
    assert found["ExpiresString"] == "0"


def by_name(name: str) -> dict[str, str]:
    return {"Cache-Control": "no-store"} if name.startswith("private/") else {}


@pytest.mark.parametrize("headers", [by_name, f"{__name__}.by_name"])
def test_headers_by_a_function(make: Make, engine: Engine, bucket: str, headers: Any) -> None:
    storage, client = make(headers=headers), engine.client()
    kept = storage.save("private/a.txt", ContentFile(b"x"))
    other = storage.save("a.txt", ContentFile(b"x"))
    assert client.head_object(Bucket=bucket, Key=kept)["CacheControl"] == "no-store"
    assert "CacheControl" not in client.head_object(Bucket=bucket, Key=other)


def test_a_function_that_gives_what_is_no_header(make: Make) -> None:
    storage = make(headers=lambda name: {"Cache-Control": "a\nb"})
    with pytest.raises(ImproperlyConfigured, match="a header can't have"):
        storage.save("a.txt", ContentFile(b"x"))
    assert list(storage.walk()) == []


@pytest.mark.parametrize("size", [0, 1, PART_LEAST - 1, PART_LEAST, LARGE, 3 * PART_LEAST])
def test_sizes_around_a_part(
    storage: ObjectStorage, engine: Engine, bucket: str, size: int
) -> None:
    content = os.urandom(size)
    name = storage.save("a.bin", ContentFile(content))
    assert engine.held(bucket) == {name: content}
    assert storage.size(name) == size


class Unsized(File):  # type: ignore[type-arg]
    """A file that does not know how large it is."""

    @property
    def size(self) -> int:
        raise AttributeError("unknown")

    def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
        yield from iter(lambda: self.file.read(100_000), b"")


@pytest.mark.parametrize("size", [5, LARGE])
def test_a_stream_of_unknown_length(
    storage: ObjectStorage, engine: Engine, bucket: str, size: int
) -> None:
    content = os.urandom(size)
    name = storage.save("a.bin", Unsized(io.BytesIO(content)))
    assert engine.held(bucket) == {name: content}


def test_text_is_sent_as_utf_8(storage: ObjectStorage, engine: Engine, bucket: str) -> None:
    name = storage.save("a.txt", ContentFile("é\n"))
    assert engine.held(bucket) == {name: "é\n".encode()}
    with storage.open(name, "r") as file:
        assert file.read() == "é\n"


class Breaks(Unsized):
    """A file whose disk goes bad in the middle."""

    def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
        yield self.file.read(LARGE)
        raise OSError(5, "Input/output error")


def test_a_file_that_can_t_be_read_leaves_nothing(
    storage: ObjectStorage, engine: Engine, bucket: str
) -> None:
    with pytest.raises(OSError, match="Input/output error"):
        storage.save("a.bin", Breaks(io.BytesIO(os.urandom(2 * LARGE))))
    assert engine.held(bucket) == {}
    assert "Uploads" not in engine.client().list_multipart_uploads(Bucket=bucket)


class Sized(File):  # type: ignore[type-arg]
    def __init__(self, size: int) -> None:
        super().__init__(None)
        self.size = size


def test_a_file_never_has_more_parts_than_a_store_takes() -> None:
    assert part_size(Sized(5), 8 << 20) == 8 << 20
    assert part_size(Sized(80_000 << 20), 8 << 20) == 8 << 20
    size = 5 << 40
    part = part_size(Sized(size), 8 << 20)
    assert -(-size // part) <= 10_000


def test_names_that_are_kept(make: Make, engine: Engine, bucket: str) -> None:
    storage = make(names="keep")
    assert storage.save("a.txt", ContentFile(b"1")) == "a.txt"
    second = storage.save("a.txt", ContentFile(b"2"))
    assert second != "a.txt"
    assert engine.held(bucket) == {"a.txt": b"1", second: b"2"}


def test_files_that_are_written_over(make: Make, engine: Engine, bucket: str) -> None:
    storage = make(overwrite=True, names="keep")
    assert storage.save("a.txt", ContentFile(b"1")) == "a.txt"
    assert storage.save("a.txt", ContentFile(b"2")) == "a.txt"
    assert engine.held(bucket) == {"a.txt": b"2"}


def test_a_name_that_another_takes_meanwhile(make: Make, engine: Engine, bucket: str) -> None:
    """Between the question whether a name is free, and the file."""
    storage = make(names="keep")
    engine.client().put_object(Bucket=bucket, Key="a.txt", Body=b"theirs")
    saved = storage._save("a.txt", ContentFile(b"ours"))
    assert saved != "a.txt"
    assert engine.held(bucket) == {"a.txt": b"theirs", saved: b"ours"}


def test_many_writers_of_one_name(make: Make, engine: Engine, bucket: str) -> None:
    """Each has a file of his own, whatever the store does with conditions."""
    storage = make()
    with ThreadPoolExecutor(8) as pool:
        contents = [b"%d" % number for number in range(40)]
        names = list(pool.map(lambda one: storage.save("a.txt", ContentFile(one)), contents))
    assert engine.held(bucket) == dict(zip(names, contents, strict=True))


def test_a_prefix_keeps_storages_apart(make: Make, engine: Engine, bucket: str) -> None:
    one, other = make(prefix="one", names="keep"), make(prefix="on", names="keep")
    one.save("a.txt", ContentFile(b"1"))
    other.save("a.txt", ContentFile(b"2"))
    assert engine.held(bucket) == {"one/a.txt": b"1", "on/a.txt": b"2"}
    assert [name for name, _, _ in other.walk()] == ["a.txt"]
    assert other.listdir("") == ([], ["a.txt"])
    for name in ("../one/a.txt", "/one/a.txt", "a/../../one/a.txt"):
        with pytest.raises(SuspiciousFileOperation):
            other.open(name)
        with pytest.raises(SuspiciousFileOperation):
            other.delete(name)


# --- reading


def test_reading_anywhere(storage: ObjectStorage) -> None:
    content = os.urandom(LARGE)
    with storage.open(storage.save("a.bin", ContentFile(content))) as file:
        assert file.size == LARGE
        for position in (0, 4_000_000, 100, 200, LARGE - 5, 300_000, 600_000):
            file.seek(position)
            assert file.read(1000) == content[position : position + 1000]
            assert file.tell() == min(position + 1000, LARGE)
        file.seek(-10, os.SEEK_END)
        assert file.read() == content[-10:]
        assert file.read() == b""
        file.seek(LARGE + 5)
        assert file.read() == b""
        file.seek(0)
        assert b"".join(file.chunks(1 << 20)) == content


def test_lines(storage: ObjectStorage) -> None:
    name = storage.save("a.txt", ContentFile(b"one\ntwo\nthree"))
    with storage.open(name) as file:
        assert list(file) == [b"one\n", b"two\n", b"three"]


def test_a_file_is_not_written_in_place(storage: ObjectStorage) -> None:
    for mode in ("w", "wb", "a", "r+b"):
        with pytest.raises(io.UnsupportedOperation, match="save"):
            storage.open("a.txt", mode)


def test_an_object_that_is_replaced_while_it_is_read(make: Make) -> None:
    storage = make(names="keep", overwrite=True)
    storage.save("a.bin", ContentFile(b"1" * LARGE))
    with storage.open("a.bin") as file:
        assert file.read(10) == b"1" * 10
        storage.save("a.bin", ContentFile(b"2" * LARGE))
        with pytest.raises(ObjectReplaced, match="open it again"):
            file.seek(LARGE - 10)
            file.read(10)


def test_an_object_that_is_deleted_while_it_is_read(storage: ObjectStorage) -> None:
    name = storage.save("a.bin", ContentFile(b"1" * LARGE))
    with storage.open(name) as file:
        file.read(10)
        storage.delete(name)
        file.seek(LARGE - 10)
        with pytest.raises(FileNotFoundError):
            file.read(10)


def test_folders(storage: ObjectStorage) -> None:
    names = [
        storage.save(f"{path}.txt", ContentFile(b"x")) for path in ("a", "b/c", "b/d", "b/e/f")
    ]
    assert storage.listdir("") == (["b"], [names[0]])
    files = sorted(name.removeprefix("b/") for name in names[1:3])
    assert storage.listdir("b") == storage.listdir("b/") == storage.listdir("/b/") == (["e"], files)
    assert storage.listdir("nothing") == ([], [])
    assert storage.listdir(".") == storage.listdir("./") == storage.listdir("/")
    with pytest.raises(SuspiciousFileOperation):
        storage.listdir("..")
    assert sorted(name for name, _, _ in storage.walk("b")) == sorted(names[1:])


@pytest.mark.parametrize("engine", ["moto"], indirect=True)
def test_more_files_than_one_page_has(make: Make, engine: Engine, bucket: str) -> None:
    """A page has 1,000; moto is the quicker one to write so many."""
    storage = make(names="keep")
    wanted = {f"a/{number:04}.txt" for number in range(1100)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: storage.save(name, ContentFile(b"x")), sorted(wanted)))
    assert {name for name, _, _ in storage.walk()} == wanted
    assert set(storage.listdir("a")[1]) == {name.removeprefix("a/") for name in wanted}
    storage.delete_many(wanted)
    assert engine.held(bucket) == {}


def test_when_it_was_written(storage: ObjectStorage) -> None:
    name = storage.save("a.txt", ContentFile(b"x"))
    age = datetime.now(UTC) - storage.get_modified_time(name)
    assert timedelta(seconds=-2) < age < timedelta(minutes=5)
    with override_settings(USE_TZ=False):
        assert storage.get_modified_time(name).tzinfo is None


def test_deleting(storage: ObjectStorage, engine: Engine, bucket: str) -> None:
    names = [storage.save("a.txt", ContentFile(b"x")) for _ in range(5)]
    storage.delete_many([*names[:3], "missing.txt"])
    storage.delete("missing.txt")
    storage.delete_many([])
    assert set(engine.held(bucket)) == set(names[3:])
    with pytest.raises(ValueError, match="name"):
        storage.delete("")


# --- URLs


def test_a_signed_url_and_what_it_may_ask_for(storage: ObjectStorage) -> None:
    name = storage.save("a b/é+&.txt", ContentFile(b"content"))
    body, headers = fetched(storage.url(name))
    assert body == b"content"
    wanted = {"response-content-disposition": 'attachment; filename="x y.txt"'}
    body, headers = fetched(storage.url(name, parameters=wanted))
    assert headers["Content-Disposition"] == wanted["response-content-disposition"]


def test_what_is_signed_can_t_be_changed(swift: Engine) -> None:
    with swift.bucket() as bucket:
        storage = ObjectStorage(**swift.options(bucket), names="keep")
        storage.save("a.txt", ContentFile(b"mine"))
        storage.save("b.txt", ContentFile(b"not yours"))
        url = storage.url("a.txt", parameters={"response-content-type": "text/plain"})
        for changed in (
            url.replace("a.txt", "b.txt"),
            url.replace("Expires=4500", "Expires=4501"),
            url.replace("text%2Fplain", "text%2Fhtml"),
            url.partition("?")[0],
        ):
            assert changed != url
            assert status(changed) in {400, 403}
        assert fetched(url)[0] == b"mine"
        wrong = ObjectStorage(**swift.options(bucket) | {"secret_key": "wrong"})
        assert status(wrong.url("a.txt")) == 403


def test_a_signed_url_ends(swift: Engine) -> None:
    with swift.bucket() as bucket:
        storage = ObjectStorage(**swift.options(bucket))
        name = storage.save("a.txt", ContentFile(b"x"))
        url = storage.url(name, expire=1)
        assert status(storage.url(name, expire=60)) == 200
        wait_until(lambda: status(url) == 403, "it does not end", seconds=30)


def test_plain_urls() -> None:
    given = {"location": "s3://bucket/pre", "querystring_auth": False}
    for more, expected in [
        ({"region": "eu-west-3"}, "https://bucket.s3.eu-west-3.amazonaws.com/pre/a%20b.txt"),
        ({"region": "cn-north-1"}, "https://bucket.s3.cn-north-1.amazonaws.com.cn/pre/a%20b.txt"),
        (
            {"region": "eu-west-3", "addressing": "path"},
            "https://s3.eu-west-3.amazonaws.com/bucket/pre/a%20b.txt",
        ),
        (
            {"region": "eu-west-3", "location": "s3://buc.ket/pre"},
            "https://s3.eu-west-3.amazonaws.com/buc.ket/pre/a%20b.txt",
        ),
        ({"endpoint": "http://minio:9000"}, "http://minio:9000/bucket/pre/a%20b.txt"),
        (
            {"endpoint": "http://minio:9000/", "addressing": "virtual"},
            "http://bucket.minio:9000/pre/a%20b.txt",
        ),
        ({"base_url": "https://cdn.example.org/x/"}, "https://cdn.example.org/x/a%20b.txt"),
        ({"base_url": "/media/"}, "/media/a%20b.txt"),
        ({"location": "gs://bucket/pre"}, "https://storage.googleapis.com/bucket/pre/a%20b.txt"),
        (
            {"location": "az://box/pre", "account": "me"},
            "https://me.blob.core.windows.net/box/pre/a%20b.txt",
        ),
    ]:
        storage = ObjectStorage(**(given | more))
        assert storage.url("a b.txt") == expected
        assert storage.url("a b.txt", parameters={"v": "1&2"}) == f"{expected}?v=1%262"


def test_a_signed_url_of_a_domain_of_one_s_own() -> None:
    keys = {"access_key": "a", "secret_key": "b", "querystring_auth": True}
    storage = ObjectStorage(location="s3://b/p", base_url="https://files.example.org/", **keys)
    assert storage.url("a.txt").startswith("https://files.example.org/a.txt?X-Amz-Algorithm=")


def test_signed_urls_of_the_site_s_own_server(swift: Engine) -> None:
    """A path that nginx passes on: what is signed is what the store sees."""
    with swift.bucket() as bucket, running_nginx_to(f"{swift.endpoint}/{bucket}/in%20it/") as nginx:
        storage = ObjectStorage(
            **swift.options(f"{bucket}/in it"), base_url="/media/", querystring_auth=True
        )
        name = storage.save("a b.txt", ContentFile(b"content"))
        url = storage.url(name)
        assert url.startswith("/media/a%20b")
        assert fetched(nginx + url)[0] == b"content"
        assert status(nginx + url.replace("a%20b", "c")) == 403


def test_files_without_an_address() -> None:
    with pytest.raises(ValueError, match="base_url"):
        ObjectStorage(location="memory://").url("a.txt")
    with pytest.raises(ValueError, match="no name"):
        ObjectStorage(location="s3://b").url("")


def test_obstore_signs_where_it_alone_has_the_keys(tmp_path: Path) -> None:
    """An account of Azure's, whose shared key is base64; nothing is sent."""
    storage = ObjectStorage(location="az://box", account="me", secret_key="c2VjcmV0")
    url = storage.url("a b.txt", expire=60)
    assert url.startswith("https://me.blob.core.windows.net/box/a%20b.txt?")
    assert "sig=" in url
    with pytest.raises(ValueError, match="takes no parameters"):
        storage.url("a.txt", parameters={"rscd": "x"})


# --- credentials


def test_keys_from_the_environment(
    swift: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with swift.bucket() as bucket:
        options = swift.options(bucket)
        keys = options.pop("access_key"), options.pop("secret_key")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys[0])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys[1])
        storage = ObjectStorage(**options)
        name = storage.save("a.txt", ContentFile(b"x"))
        assert fetched(storage.url(name))[0] == b"x"

        file = tmp_path / "credentials"
        file.write_text(
            f"[site]\naws_access_key_id = {keys[0]}\naws_secret_access_key = {keys[1]}\n[half]\n"
        )
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
        with pytest.raises(NoAccess):
            ObjectStorage(**options).exists(name)
        assert ObjectStorage(**options, profile="site").exists(name)
        for profile, words in [("none", "site, half"), ("half", "no pair of keys")]:
            with pytest.raises(Exception, match=words):
                ObjectStorage(**options, profile=profile).exists(name)


def heads_of_a_save(**options: Any) -> list[str]:
    """What is sent for one file, line by line."""

    def behave(peer: Peer) -> None:
        while True:
            peer.request()
            peer.send(answer(200, "OK", 'ETag: "x"'))

    with RawServer(behave) as server:
        given = {"location": "s3://bucket", "access_key": "ours", "secret_key": "secret"}
        ObjectStorage(**given, endpoint=server.url, **options).save("a.txt", ContentFile(b"x"))
        [head] = server.log
        return head.decode().lower().split("\r\n")


def test_what_stands_in_the_environment_for_another_store_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, text in {
        "AWS_ACCESS_KEY_ID": "theirs",
        "AWS_SECRET_ACCESS_KEY": "theirs",
        "AWS_SESSION_TOKEN": "theirs",
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
        "AWS_BUCKET": "theirs",
        "AWS_ENDPOINT_URL": "http://theirs.invalid",
    }.items():
        monkeypatch.setenv(name, text)
    lines = heads_of_a_save()
    assert "theirs" not in "".join(lines)
    assert lines[0].startswith("put /bucket/a_")
    assert any(line.startswith("authorization: aws4") and "=ours/" in line for line in lines)
    assert not any(line.startswith("x-amz-security-token") for line in lines)
    assert "x-amz-security-token: mine" in heads_of_a_save(session_token="mine")


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_an_endpoint_from_the_environment(
    swift: Engine, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with swift.bucket() as bucket:
        options = swift.options(bucket)
        monkeypatch.setenv(name, options.pop("endpoint"))
        storage = ObjectStorage(**options)
        saved = storage.save("a.txt", ContentFile(b"x"))
        assert fetched(storage.url(saved))[0] == b"x"
        assert swift.endpoint in storage.server


def test_a_wrong_key_and_no_bucket(swift: Engine) -> None:
    with swift.bucket() as bucket:
        good = swift.options(bucket)
        for change in ({"secret_key": "wrong"}, {"access_key": "test:nobody"}):
            with pytest.raises(NoAccess):
                ObjectStorage(**good | change).exists("a.txt")
            with pytest.raises(NoAccess):
                ObjectStorage(**good | change).save("a.txt", ContentFile(b"x"))
        missing = ObjectStorage(**good | {"location": "s3://there-is-none"})
        for action in (missing.exists, missing.open, missing.listdir):
            with pytest.raises(NoBucket, match="no such bucket"):
                action("a.txt")
        with pytest.raises(NoBucket):
            missing.save("a.txt", ContentFile(b"x"))


# --- Django


def test_pickled_it_works_elsewhere(storage: ObjectStorage) -> None:
    name = storage.save("a.txt", ContentFile(b"x"))
    again = pickle.loads(pickle.dumps(storage))
    assert again.open(name).read() == b"x"


def test_several_threads_share_a_storage(storage: ObjectStorage) -> None:
    barrier = threading.Barrier(8)

    def work(number: int) -> bool:
        barrier.wait(30)
        name = storage.save("a.txt", ContentFile(b"%d" % number))
        with storage.open(name) as file:
            return bool(file.read() == b"%d" % number)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


@pytest.mark.parametrize("headers", [{}, {"Cache-Control": "max-age=60", "Expires": "0"}])
def test_collectstatic(
    engine: Engine, bucket: str, headers: dict[str, str], tmp_path: Path
) -> None:
    source = tmp_path / "source"
    (source / "css").mkdir(parents=True)
    (source / "css" / "site.css").write_text("p {}")
    entry = {
        "BACKEND": "outgrow.objects.ObjectStorage",
        "OPTIONS": engine.options(f"{bucket}/static") | {"overwrite": True, "headers": headers},
    }
    with override_settings(
        STORAGES={"staticfiles": entry},
        STATICFILES_DIRS=[source],
        # Not those of the installed apps, ours among them.
        STATICFILES_FINDERS=["django.contrib.staticfiles.finders.FileSystemFinder"],
    ):
        told = io.StringIO()
        call_command("collectstatic", interactive=False, stdout=told, ignore_patterns=["admin"])
        assert engine.held(bucket) == {"static/css/site.css": b"p {}"}
        (source / "css" / "site.css").write_text("p {color: red}")
        os.utime(source / "css" / "site.css", (4e9, 4e9))
        call_command("collectstatic", interactive=False, stdout=told, ignore_patterns=["admin"])
        assert engine.held(bucket) == {"static/css/site.css": b"p {color: red}"}


# --- asynchronous views


def test_the_asynchronous_twins(storage):
    async def act():
        name = await storage.asave("a.txt", ContentFile(b"content"))
        async with await storage.aopen(name) as file:
            assert await file.read() == b"content"
        assert await storage.aexists(name)
        assert await storage.asize(name) == 7
        assert f"X-Amz-Expires={60}" in await storage.aurl(name, expire=60)
        assert await storage.aurl(name)
        await storage.adelete(name)
        return await storage.aexists(name)

    assert asyncio.run(act()) is False
