"""Every documented setting of those whom one may come from has a row in docs/migrating.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from outgrow.conf import object_options
from outgrow.conf.objects import OBJECT_OPTIONS, THEIRS

PAGE = (Path(__file__).parents[2] / "docs/migrating.md").read_text()

#: Of django-storages 1.14.6 (its S3 backend; the last one is in its source alone) and of
#: django-minio-storage 0.6.0.
S3 = """
AWS_S3_ACCESS_KEY_ID AWS_ACCESS_KEY_ID AWS_S3_SECRET_ACCESS_KEY AWS_SECRET_ACCESS_KEY
AWS_SESSION_TOKEN AWS_SECURITY_TOKEN AWS_S3_SESSION_PROFILE AWS_S3_FILE_OVERWRITE
AWS_S3_OBJECT_PARAMETERS AWS_STORAGE_BUCKET_NAME AWS_QUERYSTRING_AUTH AWS_QUERYSTRING_EXPIRE
AWS_S3_SIGNATURE_VERSION AWS_LOCATION AWS_S3_CUSTOM_DOMAIN AWS_CLOUDFRONT_KEY_ID
AWS_CLOUDFRONT_KEY AWS_S3_ADDRESSING_STYLE AWS_S3_FILE_NAME_CHARSET AWS_IS_GZIPPED
GZIP_CONTENT_TYPES AWS_S3_URL_PROTOCOL AWS_S3_ENDPOINT_URL AWS_S3_PROXIES AWS_S3_REGION_NAME
AWS_S3_USE_SSL AWS_S3_VERIFY AWS_S3_MAX_MEMORY_SIZE AWS_DEFAULT_ACL AWS_S3_USE_THREADS
AWS_S3_TRANSFER_CONFIG AWS_S3_CLIENT_CONFIG AWS_S3_FILE_BUFFER_SIZE
""".split()
MINIO = """
ENDPOINT ACCESS_KEY SECRET_KEY USE_HTTPS REGION MEDIA_BUCKET_NAME MEDIA_URL
AUTO_CREATE_MEDIA_BUCKET MEDIA_USE_PRESIGNED AUTO_CREATE_MEDIA_POLICY MEDIA_OBJECT_METADATA
MEDIA_BACKUP_FORMAT MEDIA_BACKUP_BUCKET ASSUME_MEDIA_BUCKET_EXISTS STATIC_BUCKET_NAME STATIC_URL
AUTO_CREATE_STATIC_BUCKET STATIC_USE_PRESIGNED AUTO_CREATE_STATIC_POLICY STATIC_OBJECT_METADATA
ASSUME_STATIC_BUCKET_EXISTS
""".split()


@pytest.mark.parametrize("name", [*S3, *(f"MINIO_STORAGE_{name}" for name in MINIO)])
def test_every_setting_has_a_row(name: str) -> None:
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("name", sorted(THEIRS.keys() - set(OBJECT_OPTIONS)))
def test_an_option_of_theirs_is_known(name: str) -> None:
    problems = object_options({"location": "s3://bucket", name: "x"})[1]
    assert f"part of {THEIRS[name]!r}" in problems[0].hint
