"""What tests know of a server that speaks S3: where it is, and what it can."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
import botocore.config

from outgrow.names import token


@dataclass(frozen=True)
class Engine:
    """One running server.

    `verifies`: it refuses a wrong signature. `is_atomic`: of several writers of one name with
    ``If-None-Match: *`` one wins, always. What is not in it is the same everywhere.
    """

    name: str
    endpoint: str
    access_key: str
    secret_key: str
    region: str
    verifies: bool
    has_policies: bool
    has_forms: bool
    is_atomic: bool

    def client(self) -> Any:
        """The vendor's client: what another pair of eyes sees."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            config=botocore.config.Config(
                # For URLs and forms boto3 still takes the second version if it is not told.
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                retries={"total_max_attempts": 3},
            ),
        )

    def options(self, bucket: str) -> dict[str, Any]:
        """What an ObjectStorage is given to use a bucket there."""
        return {
            "location": f"s3://{bucket}",
            "endpoint": self.endpoint,
            "access_key": self.access_key,
            "secret_key": self.secret_key,
            "region": self.region,
        }

    @contextmanager
    def bucket(self) -> Iterator[str]:
        """An empty bucket for as long as the block lasts."""
        client, name = self.client(), f"outgrow-{token()}"
        client.create_bucket(Bucket=name)
        try:
            yield name
        finally:
            for upload in client.list_multipart_uploads(Bucket=name).get("Uploads", []):
                client.abort_multipart_upload(
                    Bucket=name, Key=upload["Key"], UploadId=upload["UploadId"]
                )
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=name):
                for one in page.get("Contents", []):
                    client.delete_object(Bucket=name, Key=one["Key"])
            client.delete_bucket(Bucket=name)

    def held(self, bucket: str) -> dict[str, bytes]:
        """Everything in a bucket, by its key."""
        client, found = self.client(), {}
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for one in page.get("Contents", []):
                answer = client.get_object(Bucket=bucket, Key=one["Key"])
                found[one["Key"]] = answer["Body"].read()
        return found
