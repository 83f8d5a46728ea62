"""What object stores cost. Each function is one comparison; its docstring is the table's title.

Small files go to an nginx that says yes to each PUT, and keeps nothing: the client is what is
measured. Large ones go to Swift, which knows uploads of several parts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import botocore.config
import obstore
from boto3.s3.transfer import TransferConfig
from django.core.files.base import ContentFile, File
from django.core.files.storage import Storage
from obstore.store import S3Store
from storages.backends.s3 import S3Storage

from benchmarks.measure import Result, in_turn
from outgrow.objects import ObjectStorage
from outgrow.objects.sign import Credentials, Signer, steady
from tests.live.engines import Engine
from tests.live.nginx import Nginx
from tests.live.processes import server_folder
from tests.live.swift import engine_of, running_swift

#: The files of one page.
NAMES = [f"photos/2026/11/{number:05d}-q7h3k2m9x4zp.jpg" for number in range(1000)]
AS_FILE = {"response-content-disposition": 'attachment; filename="photo.jpg"'}
ENDPOINT, BUCKET, REGION, KEYS = "http://127.0.0.1:9000", "photos", "eu-west-3", ("key", "secret")
EXPIRE = 3600


def signing() -> list[Result]:
    """a presigned URL (the last three: with response-content-disposition)"""
    client = boto3.client(
        "s3",
        endpoint_url=ENDPOINT,
        region_name=REGION,
        aws_access_key_id=KEYS[0],
        aws_secret_access_key=KEYS[1],
        config=botocore.config.Config(signature_version="s3v4"),
    )
    store = S3Store(
        BUCKET,
        endpoint=ENDPOINT,
        region=REGION,
        access_key_id=KEYS[0],
        secret_access_key=KEYS[1],
        client_options={"allow_http": True},
    )
    their_storage = S3Storage(
        bucket_name=BUCKET,
        endpoint_url=ENDPOINT,
        region_name=REGION,
        access_key=KEYS[0],
        secret_key=KEYS[1],
        signature_version="s3v4",
    )
    storage = ObjectStorage(
        location=f"s3://{BUCKET}",
        endpoint=ENDPOINT,
        region=REGION,
        access_key=KEYS[0],
        secret_key=KEYS[1],
    )
    signer = Signer(f"{ENDPOINT}/{BUCKET}/", REGION, Credentials(*KEYS))
    now, seconds = steady(1_700_000_000.0, EXPIRE)
    hour = timedelta(seconds=EXPIRE)

    def with_boto3(name: str) -> str:
        return client.generate_presigned_url("get_object", {"Bucket": BUCKET, "Key": name}, EXPIRE)

    def with_boto3_as_file(name: str) -> str:
        disposition = AS_FILE["response-content-disposition"]
        given = {"Bucket": BUCKET, "Key": name, "ResponseContentDisposition": disposition}
        return client.generate_presigned_url("get_object", given, EXPIRE)

    def each(sign: Callable[[str], object]) -> Callable[[], None]:
        def run() -> None:
            for name in NAMES:
                sign(name)

        return run

    candidates = {
        "ObjectStorage.url (ours)": each(storage.url),
        "Signer.url (ours)": each(lambda name: signer.url(name, start=now, expire=seconds)),
        "obstore.sign": each(lambda name: obstore.sign(store, "GET", name, hour)),
        "obstore.sign, 1,000 at once": lambda: obstore.sign(store, "GET", NAMES, hour),
        "boto3": each(with_boto3),
        "django-storages": each(their_storage.url),
        "django-minio-storage": each(minio(ENDPOINT, presign_urls=True).url),
        "ObjectStorage.url, one header": each(lambda name: storage.url(name, AS_FILE)),
        "boto3, one header": each(with_boto3_as_file),
        "django-storages, one header": each(
            lambda name: their_storage.url(
                name, {"ResponseContentDisposition": AS_FILE["response-content-disposition"]}
            )
        ),
    }
    results = in_turn(candidates, count=len(NAMES))
    for result in results:
        result.unit = "us"
    return results


SMALL = os.urandom(4096)
COUNT = 2000
LARGE = 256 << 20
#: Nothing is there yet, and all that is sent is taken, and thrown away.
STUB = """        location / {
            if ($request_method = HEAD) { return 404; }
            client_max_body_size 0;
            default_type application/xml;
            add_header ETag '"00000000000000000000000000000000"';
            return 200;
        }
    }
}
"""


@contextmanager
def stub() -> Iterator[str]:
    """nginx that says yes to what S3 clients PUT; the endpoint."""
    with server_folder("outgrow-bench-") as folder:
        server = Nginx(folder)
        begin, _, _ = server._configuration.partition("        location / {")
        server._configuration = begin + STUB
        server.start()
        try:
            yield server.url.rstrip("/")
        finally:
            server.stop()


def ours(endpoint: str, **options: Any) -> Storage:
    given = {"access_key": "key", "secret_key": "secret", "region": "us-east-1"}
    return ObjectStorage(location="s3://bucket", endpoint=endpoint, **given | options)


def storages(endpoint: str, **options: Any) -> Storage:
    given = {"access_key": "key", "secret_key": "secret", "region_name": "us-east-1"}
    return S3Storage(
        bucket_name="bucket",
        endpoint_url=endpoint,
        # As ours, and what servers other than AWS' need.
        client_config=botocore.config.Config(
            s3={"addressing_style": "path"}, request_checksum_calculation="when_required"
        ),
        **given | options,
    )


def minio(endpoint: str, **options: Any) -> Storage:
    from minio import Minio
    from minio_storage.storage import MinioStorage

    client = Minio(
        endpoint.removeprefix("http://"),
        access_key="key",
        secret_key="secret",
        region="us-east-1",
        secure=False,
    )
    return MinioStorage(
        client, "bucket", auto_create_bucket=False, assume_bucket_exists=True, **options
    )


def objects_small() -> list[Result]:
    """2,000 uploads of 4 KB, one after the other"""

    def uploads(save: Callable[[int], object]) -> None:
        for number in range(COUNT):
            save(number)

    return _uploads(uploads)


def objects_threads() -> list[Result]:
    """2,000 uploads of 4 KB in 16 threads"""

    def uploads(save: Callable[[int], object]) -> None:
        with ThreadPoolExecutor(16) as pool:
            assert len(list(pool.map(save, range(COUNT)))) == COUNT

    return _uploads(uploads)


def _uploads(uploads: Callable[[Callable[[int], object]], None]) -> list[Result]:
    def run(storage: Storage) -> Callable[[], None]:
        return lambda: uploads(lambda n: storage.save(f"{n}.bin", ContentFile(SMALL)))

    with stub() as endpoint:
        candidates = {
            "outgrow": run(ours(endpoint)),
            "django-storages": run(storages(endpoint)),
            "django-minio-storage": run(minio(endpoint)),
        }
        return in_turn(candidates, count=COUNT, rounds=3)


def objects_large() -> list[Result]:
    """a file of 256 MB, up and down, through Swift"""
    with running_swift() as [node], tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        engine = engine_of(node)
        source = Path(folder) / "large.bin"
        with source.open("wb") as file:
            for _ in range(LARGE >> 20):
                file.write(os.urandom(1 << 20))
        with engine.bucket() as bucket:
            return [*_up(engine, bucket, source), *_down(engine, bucket, source)]


def _up(engine: Engine, bucket: str, source: Path) -> list[Result]:
    storage = ObjectStorage(**engine.options(bucket), names="keep", overwrite=True)
    client = engine.client()

    def with_ours() -> None:
        with source.open("rb") as file:
            storage.save("large.bin", File(file))

    def with_boto3() -> None:
        client.upload_file(str(source), bucket, "large.bin")

    return in_turn(
        {"up, outgrow": with_ours, "up, boto3's transfer": with_boto3}, count=1, rounds=3
    )


def _down(engine: Engine, bucket: str, source: Path) -> list[Result]:
    storage, client = ObjectStorage(**engine.options(bucket)), engine.client()
    target = source.with_name("down.bin")

    def with_ours() -> None:
        with storage.open("large.bin") as file, target.open("wb") as to:
            for chunk in file.chunks(1 << 20):
                to.write(chunk)

    def with_boto3() -> None:
        client.download_file(bucket, "large.bin", str(target))

    one = TransferConfig(use_threads=False)

    def with_one_stream() -> None:
        client.download_file(bucket, "large.bin", str(target), Config=one)

    return in_turn(
        {
            "down, outgrow": with_ours,
            "down, boto3's transfer": with_boto3,
            "down, boto3, one thread": with_one_stream,
        },
        count=1,
        rounds=3,
    )


MEMORY = """
import json, os, sys
import django
from django.conf import settings
settings.configure(USE_TZ=True)
django.setup()
from django.core.files.base import File
from outgrow.objects import ObjectStorage
options, path, way = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
storage = ObjectStorage(**options)
with open(path, "rb") as file:
    storage.save("large.bin", File(file))
if way == "down":
    with storage.open("large.bin") as file:
        for chunk in file.chunks(1 << 20):
            pass
# Not of getrusage, which counts what the parent had before this process began.
[line] = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(int(line.split()[1]) >> 10)
"""


def objects_memory() -> list[Result]:
    """most memory of a process (MB) that moves one file up, and up and down"""
    results = []
    with running_swift() as [node], tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        engine = engine_of(node)
        with engine.bucket() as bucket:
            options = json.dumps(engine.options(bucket) | {"overwrite": True})
            for megabytes in (1, 256, 1024):
                source = Path(folder) / "large.bin"
                with source.open("wb") as file:
                    for _ in range(megabytes):
                        file.write(os.urandom(1 << 20))
                for way in ("up", "down"):
                    words = [sys.executable, "-c", MEMORY, options, str(source), way]
                    begin = time.perf_counter()
                    done = subprocess.run(words, capture_output=True, text=True, check=True)
                    took = (time.perf_counter() - begin) * 1000
                    what = f"{megabytes} MB {way}"
                    results.append(Result(what, took, 0.0, ratio=f"{done.stdout.strip()} MB"))
    return results
