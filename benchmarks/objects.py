"""What object stores cost. Each function is one comparison; its docstring is the table's title."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import boto3
import botocore.config
import obstore
from obstore.store import S3Store
from storages.backends.s3 import S3Storage

from benchmarks.measure import Result, in_turn
from outgrow.objects import ObjectStorage
from outgrow.objects.sign import Credentials, Signer, steady

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
