"""Object stores: ours and the peers', against the same server, in one run.

Small files go to nginx, which takes any PUT at once and checks nothing, so that the client
is what is measured; large ones to Swift, which knows uploads of several parts.
"""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import botocore.config
from boto3.s3.transfer import TransferConfig
from django.core.files.base import ContentFile, File
from django.core.files.storage import Storage

from benchmarks.measure import Result, in_turn
from outgrow.objects import ObjectStorage
from tests.live.engines import Engine
from tests.live.nginx import Nginx
from tests.live.processes import server_folder
from tests.live.swift import engine_of, running_swift

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
    from storages.backends.s3 import S3Storage

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


def minio(endpoint: str) -> Storage:
    from minio import Minio
    from minio_storage.storage import MinioStorage

    client = Minio(
        endpoint.removeprefix("http://"),
        access_key="key",
        secret_key="secret",
        region="us-east-1",
        secure=False,
    )
    return MinioStorage(client, "bucket", auto_create_bucket=False, assume_bucket_exists=True)


def objects_small() -> list[Result]:
    """2,000 uploads of 4 KB, one after the other"""
    with stub() as endpoint:
        candidates = {
            "outgrow": ours(endpoint),
            "django-storages": storages(endpoint),
            "django-minio-storage": minio(endpoint),
        }

        def run(storage: Storage) -> Callable[[], None]:
            def uploads() -> None:
                for number in range(COUNT):
                    storage.save(f"{number}.bin", ContentFile(SMALL))

            return uploads

        return in_turn(
            {name: run(storage) for name, storage in candidates.items()}, count=COUNT, rounds=3
        )


def objects_threads() -> list[Result]:
    """2,000 uploads of 4 KB in 16 threads"""
    with stub() as endpoint:
        candidates = {
            "outgrow": ours(endpoint),
            "django-storages": storages(endpoint),
            "django-minio-storage": minio(endpoint),
        }

        def run(storage: Storage) -> Callable[[], None]:
            def uploads() -> None:
                with ThreadPoolExecutor(16) as pool:
                    each = pool.map(
                        lambda n: storage.save(f"{n}.bin", ContentFile(SMALL)), range(COUNT)
                    )
                    assert len(list(each)) == COUNT

            return uploads

        return in_turn(
            {name: run(storage) for name, storage in candidates.items()}, count=COUNT, rounds=3
        )


def objects_urls() -> list[Result]:
    """1,000 signed URLs of a page"""
    endpoint = "http://s3.example.org"
    names = [f"photos/2026/11/picture_{number:04}_abcdefghijklm.jpg" for number in range(1000)]

    def run(storage: Storage) -> Callable[[], None]:
        def urls() -> None:
            for name in names:
                storage.url(name)

        return urls

    candidates = {
        "outgrow": run(ours(endpoint)),
        "django-storages": run(storages(endpoint)),
        "django-minio-storage": run(minio(endpoint)),
    }
    results = in_turn(candidates, count=1000)
    for result in results:
        result.unit = "us"
    return results


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
