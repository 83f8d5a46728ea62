"""`outgrow buckets` on real engines: what they know, what they do not, and what is said."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.core.management import CommandError, call_command
from django.test import override_settings

from outgrow.errors import ConfigurationError
from outgrow.names import token
from outgrow.objects import ObjectStorage
from outgrow.objects.administration import Administration
from outgrow.testing import free_port
from tests.live.engines import Engine
from tests.live.nginx import Nginx
from tests.live.processes import server_folder
from tests.raw import RawServer, answer, answering

ORIGIN = "https://www.example.org"
WISHES: dict[str, Any] = {
    "policy": "read",
    "cors": [ORIGIN],
    "lifecycle": {"abort_uploads_after": 7, "expire": {"tmp/": 2}},
    "versioning": True,
}


@contextmanager
def site(engine: Engine, bucket: str, prefix: str = "", **options: Any):
    given = engine.options(bucket) | options
    if prefix:
        given["location"] += f"/{prefix}"
    entry = {"BACKEND": "outgrow.objects.ObjectStorage", "OPTIONS": given}
    with override_settings(STORAGES={"default": entry}):
        yield storages["default"]


def buckets(*words: str) -> tuple[int, str]:
    """`outgrow buckets`: its exit code, and what it says."""
    out = io.StringIO()
    try:
        call_command("outgrow", "buckets", *words, stdout=out, stderr=io.StringIO())
    except SystemExit as end:
        return int(str(end.code)), out.getvalue()
    return 0, out.getvalue()


def facts(*words: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in buckets(*words, "--json")[1].splitlines()]


@pytest.fixture
def moto(engine_named) -> Engine:
    return engine_named("moto")


@pytest.fixture
def missing(engine: Engine):
    """The name of a bucket that is not there; whatever was made is removed."""
    name = f"outgrow-{token()}"
    yield name
    with suppress(botocore.exceptions.ClientError):
        engine.client().delete_bucket(Bucket=name)


def exists(engine: Engine, bucket: str) -> bool:
    return bucket in {one["Name"] for one in engine.client().list_buckets()["Buckets"]}


# --- set up


def test_the_bucket_is_made_once(engine: Engine, missing: str) -> None:
    with site(engine, missing):
        code, said = buckets("plan")
        assert code == 1
        assert f"make the bucket '{missing}'" in said
        assert not exists(engine, missing)
        assert buckets("create")[1].rstrip().endswith("is made")
        assert exists(engine, missing)
        assert buckets("create")[1].rstrip().endswith("is there already")
        assert buckets("plan")[0] == 0


def test_all_is_set_up_and_a_second_time_nothing(moto: Engine) -> None:
    bucket = f"outgrow-{token()}"
    client = moto.client()
    try:
        with site(moto, bucket, "photos", **WISHES) as storage:
            assert buckets("apply", "--dry-run")[0] == 0
            assert not exists(moto, bucket)
            code, said = buckets("apply")
            assert code == 0, said
            assert said.splitlines() == [
                f"bucket     make the bucket '{bucket}'",
                "policy     let all read the files below photos/",
                f"cors       let pages of {ORIGIN} upload",
                (
                    "lifecycle  give up uploads that nobody ended after 7 days; remove files below "
                    "'tmp/' after 2 days"
                ),
                "versioning keep old versions",
            ]
            assert buckets("plan") == (0, f"{storage.server} is as it is to be\n")
            assert buckets("apply") == (0, f"{storage.server} is as it is to be\n")

            rules = client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
            assert [rule["Filter"]["Prefix"] for rule in rules] == ["photos/", "photos/tmp/"]
            assert client.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"

        nothing = {"policy": "none", "cors": [], "lifecycle": {}, "versioning": False}
        with site(moto, bucket, "photos", **nothing):
            assert buckets("apply")[0] == 0
            assert [buckets("plan")[0], facts("plan")] == [0, []]
    finally:
        client.delete_bucket(Bucket=bucket)


def test_what_others_have_set_up_stays(moto: Engine) -> None:
    client = moto.client()
    with moto.bucket() as bucket:
        theirs = {
            "Sid": "Theirs",
            "Effect": "Allow",
            "Principal": "*",
            "Action": "s3:GetObject",
            "Resource": f"arn:aws:s3:::{bucket}/theirs/*",
        }
        client.put_bucket_policy(
            Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [theirs]})
        )
        rule = {"ID": "theirs", "AllowedOrigins": ["https://x.example"], "AllowedMethods": ["GET"]}
        client.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [rule]})
        with site(moto, bucket, "ours", **WISHES):
            assert buckets("apply")[0] == 0
        policy = json.loads(client.get_bucket_policy(Bucket=bucket)["Policy"])
        assert [one["Sid"] == "Theirs" for one in policy["Statement"]] == [True, False]
        origins = [r["AllowedOrigins"] for r in client.get_bucket_cors(Bucket=bucket)["CORSRules"]]
        assert origins == [["https://x.example"], [ORIGIN]]


def test_an_engine_that_does_not_know_it_says_so(swift: Engine, swift_bucket: str) -> None:
    with site(swift, swift_bucket, **{k: v for k, v in WISHES.items() if k != "versioning"}):
        code, said = buckets("apply")
        assert code == 1
        lines = said.splitlines()
        assert [line.split()[0] for line in lines] == ["policy", "cors", "lifecycle"]
        assert all("not known here (answered " in line for line in lines)
        unknown = "answered 501 NotImplemented"
        reasons = [unknown, unknown, "answered with a listing of the bucket"]
        assert [one["refused"] for one in facts("plan")] == reasons


@pytest.mark.parametrize("page", ["buckets", "browser-uploads"])
def test_the_commands_of_the_pages_run(moto: Engine, page: str) -> None:
    text = (Path(__file__).parents[2] / f"docs/howto/{page}.md").read_text()
    lines = re.findall(r"^\$ python manage.py (outgrow .*)$", text, re.MULTILINE)
    assert lines
    ended = {}
    with moto.bucket() as bucket, site(moto, bucket, **WISHES | {"versioning": False}):
        for line in lines:
            try:
                call_command(*shlex.split(line), stdout=io.StringIO(), stderr=io.StringIO())
            except SystemExit as end:
                ended[line] = end.code
    assert ended == {}


# --- what goes wrong


def refusal(*words: str) -> str:
    with pytest.raises(CommandError) as found:
        buckets(*words)
    return str(found.value)


def test_a_wrong_key(swift: Engine, swift_bucket: str) -> None:
    with site(swift, swift_bucket, secret_key="wrong", policy="read"):
        assert "got a wrong signature: is 'secret_key' right?" in refusal("plan")


def test_nobody_listens() -> None:
    options = {"location": "s3://b", "endpoint": f"http://127.0.0.1:{free_port()}"}
    keys = {"access_key": "a", "secret_key": "b", "connect_timeout": 1}
    entry = {"BACKEND": "outgrow.objects.ObjectStorage", "OPTIONS": options | keys}
    with override_settings(STORAGES={"default": entry}):
        assert "no connection: is it running, and is 'endpoint' right?" in refusal("plan")
        code, said = buckets("check")
        assert code == 1
        assert "bad: write: " in said
        assert "refused the connection" in said


ANSWER = '<?xml version="1.0"?><Error><Code>{}</Code><Message>no</Message></Error>'


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (409, "BucketAlreadyExists", "this name is taken by somebody else's bucket"),
        (403, "AccessDenied", "refuses this to these credentials: give them the permission"),
        (403, "RequestTimeTooSkewed", "has another time than this machine: set both clocks"),
        (500, "InternalError", "answered 500 InternalError"),
    ],
)
def test_what_an_engine_says_is_told(status: int, code: str, said: str) -> None:
    told = answering(answer(status, body=ANSWER.format(code).encode()))
    with RawServer(told) as server:
        options = {"location": "s3://b", "endpoint": server.url}
        keys = {"access_key": "a", "secret_key": "b"}
        entry = {"BACKEND": "outgrow.objects.ObjectStorage", "OPTIONS": options | keys}
        with override_settings(STORAGES={"default": entry}):
            assert said in refusal("create")


def test_only_buckets_of_s3_are_set_up() -> None:
    with pytest.raises(ConfigurationError, match="only buckets of S3 and its kind are set up"):
        Administration(ObjectStorage(location="gs://b").options)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("plan", "--storage", "other"), "is not an object storage. There are: 'default'"),
        (("leftovers", "--older-than", "x"), "'x' is not a number of hours"),
    ],
)
def test_wrong_words(words: tuple[str, ...], said: str) -> None:
    entry = {"BACKEND": "outgrow.objects.ObjectStorage", "OPTIONS": {"location": "s3://b"}}
    with override_settings(STORAGES={"default": entry}):
        assert said in refusal(*words)
    files = {"BACKEND": "django.core.files.storage.InMemoryStorage"}
    with override_settings(STORAGES={"default": files}):
        assert "STORAGES has no object storage" in refusal("plan")


# botocore may be there without boto3 (aiobotocore brings it), or be missing with it.
@pytest.mark.parametrize("hidden", ["boto3", "boto3 botocore"])
def test_without_boto3_the_extra_is_named(hidden: str) -> None:
    script = """
import sys
from datetime import UTC, datetime
sys.modules.update(dict.fromkeys(sys.argv[1].split()))
from django.conf import settings
settings.configure()
from outgrow.errors import MissingExtra
from outgrow.objects import ObjectStorage
from outgrow.objects.administration import Administration, Leftover
from outgrow.objects.bucket import Change, Part
bucket = Administration(ObjectStorage(location="s3://b").options)
for use in (
    lambda: bucket.look([Part.BUCKET]),
    lambda: bucket.apply(Change(Part.BUCKET, "make it")),
    lambda: list(bucket.leftovers()),
    lambda: bucket.abort(Leftover("a.bin", "1", datetime.now(UTC), 1, 1)),
):
    try:
        use()
    except MissingExtra as error:
        print(error)
"""
    line = [sys.executable, "-c", script, hidden]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.stdout.count("pip install 'outgrow[buckets]'") == 4, done.stderr


def test_boto3_is_imported_only_where_it_is_used() -> None:
    script = "import django, sys; django.setup(); import outgrow.management.commands.outgrow"
    line = [sys.executable, "-c", f"{script}; print('boto3' in sys.modules)"]
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings"}
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, env=environment)
    assert done.stdout == "False\n", done.stderr


# --- what the store really does


def found(*words: str) -> tuple[int, dict[str, str]]:
    """The exit code, and the results by their checks."""
    code, said = buckets("check", "--json", *words)
    (fact,) = map(json.loads, said.splitlines())
    return code, {one["check"]: one["result"] for one in fact["findings"]}


def test_a_check_of_swift(swift: Engine, swift_bucket: str) -> None:
    with site(swift, swift_bucket, "photos"):
        code, results = found()
        assert code == 0
        assert results == {
            "write": "ok",
            "read": "ok",
            "parts": "ok",
            "list": "ok",
            "taken names": "ok",
            "visitor": "ok",
            "headers": "ok",
            "stranger": "ok",
            "signature": "ok",
            "delete": "ok",
        }
    assert swift.held(swift_bucket) == {}


def test_a_check_finds_that_moto_looks_at_no_signature(moto: Engine) -> None:
    with moto.bucket() as bucket, site(moto, bucket):
        code, results = found()
        assert code == 1
        assert [check for check, result in results.items() if result == "bad"] == ["signature"]
        said = buckets("check")[1]
        assert "It does not look at signatures: it protects no file." in said
        assert moto.held(bucket) == {}


def test_a_check_finds_what_all_may_read(moto: Engine) -> None:
    with moto.bucket() as bucket:
        with site(moto, bucket, policy="read"):
            assert found()[1]["stranger"] == "bad"
            assert "Run: manage.py outgrow buckets apply" in buckets("check")[1]
            assert buckets("apply")[0] == 0
            code, results = found()
            assert (code, results["stranger"], results["visitor"]) == (0, "ok", "ok")
        with site(moto, bucket):
            # The site signs its URLs, and they protect nothing.
            assert found()[1]["stranger"] == "bad"


def test_a_check_of_what_pages_of_other_origins_may(moto: Engine, swift: Engine) -> None:
    for engine in (moto, swift):
        way = "post" if engine.has_forms else "put"
        with engine.bucket() as bucket, site(engine, bucket, cors=[ORIGIN], direct=way):
            assert found()[1]["preflight"] == "ok"
    with moto.bucket() as bucket, a_server_that_refuses_preflights(moto) as url:
        with site(moto, bucket, cors=[ORIGIN], endpoint=url):
            assert found()[1]["preflight"] == "bad"
            said = buckets("check")[1]
        assert f"a preflight for {ORIGIN}: 403, and no Access-Control-Allow-Origin" in said


@contextmanager
def a_server_that_refuses_preflights(engine: Engine) -> Iterator[str]:
    """In front of an engine that knows no CORS, which both of ours do."""
    refusal = "if ($request_method = OPTIONS) { return 403; }"
    rule = f"client_max_body_size 0; {refusal} proxy_pass {engine.endpoint};"
    with server_folder("outgrow-nginx-") as folder:
        server = Nginx(folder)
        before, _, after = server._configuration.partition("location / {")
        server._configuration = f"{before}location / {{ {rule} }} location /unused/ {{{after}"
        server.start()
        try:
            yield server.url
        finally:
            server.stop()


def test_a_check_of_a_folder(tmp_path) -> None:
    entry = {"BACKEND": "outgrow.objects.ObjectStorage", "OPTIONS": {"location": tmp_path.as_uri()}}
    with override_settings(STORAGES={"default": entry}):
        code, results = found()
        assert code == 0
        assert set(results.values()) == {"ok"}
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_check_without_a_bucket(engine: Engine) -> None:
    with site(engine, "outgrow-nowhere"):
        code, said = buckets("check")
        assert code == 1
        assert "there is no such bucket" in said


# --- files


def test_files_are_listed_and_deleted(engine: Engine, bucket: str) -> None:
    engine.client().put_object(Bucket=bucket, Key="others/x.txt", Body=b"theirs")
    with site(engine, bucket, "ours") as storage:
        names = sorted(storage.save(f"{n}/f.txt", ContentFile(b"12345")) for n in range(3))
        said = buckets("ls")[1]
        assert [line.split()[-1] for line in said.splitlines()[:-1]] == names
        assert said.splitlines()[-1] == "3 files, 15 bytes"
        assert [one["name"] for one in facts("ls", "--prefix", "1/f")] == [names[1]]

        assert "3 files of" in buckets("empty", "--dry-run")[1]
        assert buckets("empty", "--prefix", "1/", "--yes")[1] == "1 files deleted\n"
        assert len(engine.held(bucket)) == 3
        assert facts("empty", "--yes") == [{"storage": "default", "files": 2, "deleted": 2}]
        assert buckets("empty")[1] == "no file is there\n"
    assert engine.held(bucket) == {"others/x.txt": b"theirs"}


def test_it_asks_before_it_deletes(
    swift: Engine, swift_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with site(swift, swift_bucket) as storage:
        storage.save("f.txt", ContentFile(b"1"))
        for answer in ("", "y\n", "other\n"):
            monkeypatch.setattr("sys.stdin", io.StringIO(answer))
            assert "Nothing was changed" in refusal("empty")
        assert len(swift.held(swift_bucket)) == 1
        monkeypatch.setattr("sys.stdin", io.StringIO("default\n"))
        assert buckets("empty")[1].endswith("1 files deleted\n")
        assert swift.held(swift_bucket) == {}


# --- uploads that nobody ended


def test_leftovers_are_found_and_given_up(engine: Engine, bucket: str) -> None:
    client = engine.client()
    for key in ("ours/a.bin", "others/b.bin"):
        upload = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
        client.upload_part(
            Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=bytes(5 << 20)
        )
    with site(engine, bucket, "ours"):
        if engine.name == "swift":  # moto says of all that they were begun in 2010
            # One may be under way: what was begun a moment ago is left alone.
            assert buckets("leftovers") == (0, "0 uploads left, 0 bytes\n")
        code, said = buckets("leftovers", "--older-than", "0")
        assert code == 1
        assert said.splitlines()[0].endswith("5,242,880 ours/a.bin (1 parts)")
        assert said.splitlines()[1] == "1 uploads left, 5.0 MB"

        (fact,) = facts("leftovers", "--older-than", "0", "--abort")
        assert (fact["key"], fact["aborted"]) == ("ours/a.bin", True)
        assert buckets("leftovers", "--older-than", "0")[0] == 0
    left = client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    assert [one["Key"] for one in left] == ["others/b.bin"]


def test_what_a_killed_process_has_left_is_found(engine: Engine, bucket: str, tmp_path) -> None:
    script = """
import json, os, signal, sys, time
from django.conf import settings
settings.configure(USE_TZ=True)
from django.core.files.base import File
from outgrow.objects import ObjectStorage
from outgrow.objects.administration import Administration
class Deadly(File):
    def chunks(self, chunk_size=None):
        for _ in range(3):
            yield bytes(5 << 20)
        while not sum(one.parts for one in administration.leftovers()):
            time.sleep(0.05)  # until a part has arrived
        os.kill(os.getpid(), signal.SIGKILL)
storage = ObjectStorage(**json.loads(sys.argv[1]))
administration = Administration(storage.options)
storage.save("a.bin", Deadly(open(os.devnull, "rb"), "a.bin"))
"""
    options = engine.options(bucket) | {"part_size": 5 << 20}
    line = [sys.executable, "-c", script, json.dumps(options)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == -9, done.stderr
    with site(engine, bucket):
        assert engine.held(bucket) == {}
        said = buckets("leftovers", "--older-than", "0", "--abort")[1]
        assert "1 uploads given up" in said
        assert buckets("leftovers", "--older-than", "0") == (0, "0 uploads left, 0 bytes\n")


def test_a_public_file_is_read_by_a_plain_url(moto: Engine) -> None:
    with moto.bucket() as bucket, site(moto, bucket, policy="read") as storage:
        name = storage.save("a.txt", ContentFile(b"public"))
        assert "?" not in storage.url(name)
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(storage.url(name), timeout=10)
        buckets("apply")
        with urllib.request.urlopen(storage.url(name), timeout=10) as answer:
            assert answer.read() == b"public"
