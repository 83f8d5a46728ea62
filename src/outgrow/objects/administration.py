"""The bucket of a storage: what it has, and the changes of `bucket`, through boto3.

boto3 is imported here alone, at the first use: it is the extra `buckets`. What it raises
becomes our errors, by the tables of `mishaps`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from outgrow.conf import ObjectOptions
from outgrow.errors import (
    ConfigurationError,
    ConnectFailed,
    ConnectionLost,
    MissingExtra,
    NoAccess,
    NoBucket,
    ServerError,
    TimedOut,
)
from outgrow.objects import mishaps, stores
from outgrow.objects.bucket import Change, Found, Part, Refused, Wanted

#: What an engine says of what it does not know. Swift's S3 answers 501, Ceph 405 or 400.
_UNKNOWN: Final = frozenset({"NotImplemented", "MethodNotAllowed", "XNotImplemented", "501", "405"})

#: What it says where a part was never set
#: (https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html).
_UNSET: Final = frozenset(
    {"NoSuchBucketPolicy", "NoSuchCORSConfiguration", "NoSuchLifecycleConfiguration"}
)

#: The region whose buckets are made without a word about it.
_FIRST: Final = "us-east-1"


@dataclass(frozen=True, slots=True)
class Leftover:
    """An upload of several parts that was begun and not ended; `size` is in bytes."""

    key: str
    upload: str
    begun: datetime
    parts: int
    size: int


def wanted(options: ObjectOptions) -> Wanted:
    """What the options of a storage ask of its bucket."""
    lifecycle = options.lifecycle or {}
    return Wanted(
        bucket=options.location.bucket,
        prefix=options.location.prefix,
        public={"read": True, "none": False}.get(options.policy),
        origins=options.cors,
        abort_after=lifecycle.get("abort_uploads_after"),
        old_versions_after=lifecycle.get("old_versions_after"),
        expire=lifecycle.get("expire", {}),
        has_lifecycle=options.lifecycle is not None,
        versioning=options.versioning,
    )


class Administration:
    """What may be done with the bucket of one storage. Nothing is sent to make it.

    Methods raise a ServerError that says what to do. Not for several threads at once.
    """

    def __init__(self, options: ObjectOptions) -> None:
        if options.location.scheme != "s3":
            raise ConfigurationError(
                "OPTIONS['location']",
                f"is {options.location}: only buckets of S3 and its kind are set up from here.",
                "Use the provider's own tool.",
            )
        self.options = options
        self.server = stores.describe(options)
        self.bucket = options.location.bucket
        self._made: Any = None

    @property
    def _client(self) -> Any:
        self._made = self._made or _client(self.options)
        return self._made

    # --- what there is

    def look(self, parts: list[Part]) -> Found:
        """What the bucket has of these parts."""
        with _translated(self.server):
            if not self._exists():
                return Found(exists=False)
            asked = {part.value: self._ask(part) for part in parts if part is not Part.BUCKET}
        return Found(exists=True, **asked)

    def _exists(self) -> bool:
        from botocore.exceptions import ClientError

        try:
            # Not head_bucket: an answer to HEAD has no body that could say why.
            self._client.list_objects_v2(Bucket=self.bucket, MaxKeys=1)
        except ClientError as error:
            if _code(error) == "NoSuchBucket":
                return False
            raise
        return True

    def _ask(self, part: Part) -> Any:
        from botocore.exceptions import ClientError

        try:
            return _READ[part](self._client, self.bucket)
        except ClientError as error:
            if _code(error) in _UNSET:
                return {} if part is Part.POLICY else []
            if _is_unknown(error):
                return Refused(_reason(error))
            raise

    # --- changes

    def apply(self, change: Change) -> str:
        """Carry out one change. Returns what the engine said, where it does not know that."""
        with _translated(self.server):
            from botocore.exceptions import ClientError

            try:
                self._write(change)
            except ClientError as error:
                if _is_unknown(error):
                    return _reason(error)
                if change.part is Part.POLICY and _code(error) == "AccessDenied":
                    raise NoAccess(self.server, _BLOCKED) from error
                raise
        return ""

    def _write(self, change: Change) -> None:
        client, bucket, value = self._client, self.bucket, change.value
        if change.part is Part.BUCKET:
            self._create()
        elif change.part is Part.POLICY and value:
            client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(value))
        elif change.part is Part.POLICY:
            client.delete_bucket_policy(Bucket=bucket)
        elif change.part is Part.CORS and value:
            client.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": value})
        elif change.part is Part.CORS:
            client.delete_bucket_cors(Bucket=bucket)
        elif change.part is Part.LIFECYCLE and value:
            rules = {"Rules": value}
            client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=rules)
        elif change.part is Part.LIFECYCLE:
            client.delete_bucket_lifecycle(Bucket=bucket)
        else:
            status = {"Status": "Enabled" if value else "Suspended"}
            client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration=status)

    def _create(self) -> None:
        region = stores.region(self.options)
        more: dict[str, Any] = {}
        if region != _FIRST and not stores.endpoint(self.options):
            more["CreateBucketConfiguration"] = {"LocationConstraint": region}
        try:
            self._client.create_bucket(Bucket=self.bucket, **more)
        except self._client.exceptions.BucketAlreadyOwnedByYou:
            return  # somebody was quicker, and it is ours

    # --- uploads that nobody ended

    def leftovers(self) -> Iterator[Leftover]:
        """The uploads below the storage's prefix that were begun and not ended.

        One may be under way: look at when it was begun.
        """
        prefix = f"{self.options.location.prefix}/" if self.options.location.prefix else ""
        with _translated(self.server):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self.bucket, Prefix=prefix
            )
            for page in pages:
                for one in page.get("Uploads", []):
                    yield self._leftover(one)

    def _leftover(self, one: dict[str, Any]) -> Leftover:
        key, upload = one["Key"], one["UploadId"]
        pages = self._client.get_paginator("list_parts").paginate(
            Bucket=self.bucket, Key=key, UploadId=upload
        )
        sizes = [part["Size"] for page in pages for part in page.get("Parts", [])]
        return Leftover(key, upload, one["Initiated"], len(sizes), sum(sizes))

    def abort(self, leftover: Leftover) -> None:
        """Give an upload up, and free what its parts take. One that is gone is no error."""
        with _translated(self.server):
            from botocore.exceptions import ClientError

            try:
                self._client.abort_multipart_upload(
                    Bucket=self.bucket, Key=leftover.key, UploadId=leftover.upload
                )
            except ClientError as error:
                if _code(error) != "NoSuchUpload":
                    raise


#: Of AWS's newer buckets
#: (https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-control-block-public-access.html).
_BLOCKED: Final = (
    "refuses a policy that lets all read: give these credentials s3:PutBucketPolicy; on AWS turn "
    "'Block Public Access' off for this bucket first"
)


def _policy(client: Any, bucket: str) -> Any:
    return json.loads(client.get_bucket_policy(Bucket=bucket)["Policy"])


def _cors(client: Any, bucket: str) -> Any:
    return client.get_bucket_cors(Bucket=bucket).get("CORSRules", [])


def _lifecycle(client: Any, bucket: str) -> Any:
    """The rules. Swift, which has none, answers with a listing of the bucket."""
    bodies: list[bytes] = []

    def look(http_response: Any, **_: Any) -> None:
        bodies.append(http_response.content)

    event = "after-call.s3.GetBucketLifecycleConfiguration"
    client.meta.events.register(event, look)
    try:
        found = client.get_bucket_lifecycle_configuration(Bucket=bucket)
    finally:
        client.meta.events.unregister(event, look)
    if b"<ListBucketResult" in bodies[-1]:
        return Refused("answered with a listing of the bucket")
    return found.get("Rules", [])


def _versioning(client: Any, bucket: str) -> Any:
    return client.get_bucket_versioning(Bucket=bucket).get("Status") == "Enabled"


_READ: Final[dict[Part, Callable[[Any, str], Any]]] = {
    Part.POLICY: _policy,
    Part.CORS: _cors,
    Part.LIFECYCLE: _lifecycle,
    Part.VERSIONING: _versioning,
}


def _client(options: ObjectOptions) -> Any:
    """boto3's client, with the keys, the place and the times of the storage."""
    try:
        import boto3
        import botocore.config
    except ImportError as error:
        raise _missing() from error
    access_key, secret_key, token = stores.credentials(options)
    keys: dict[str, Any] = {}
    if access_key:
        keys = {"aws_access_key_id": access_key, "aws_secret_access_key": secret_key}
        keys["aws_session_token"] = token or None
    virtual = options.addressing == "virtual" or not stores.endpoint(options)
    return boto3.session.Session().client(
        "s3",
        endpoint_url=stores.endpoint(options) or None,
        region_name=stores.region(options),
        verify=options.ca or None,
        config=botocore.config.Config(
            signature_version=botocore.UNSIGNED if options.anonymous else "s3v4",
            s3={"addressing_style": "auto" if virtual else "path"},
            connect_timeout=options.connect_timeout,
            read_timeout=options.timeout,
            retries={"total_max_attempts": 3},
            # Not every engine knows the checksums that boto3 sends by itself since 1.36.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
        **keys,
    )


# --- what goes wrong


def _missing() -> MissingExtra:
    return MissingExtra("outgrow buckets", "boto3", "buckets")


@contextmanager
def _translated(server: str) -> Iterator[None]:
    """Raise ours for what boto3 raises in the body."""
    try:
        import botocore.exceptions as theirs
    except ImportError as error:
        raise _missing() from error
    try:
        yield
    except theirs.ClientError as error:
        raise _problem(server, error) from error
    except theirs.NoCredentialsError as error:
        raise NoAccess(server, mishaps.ANONYMOUS) from error
    except theirs.SSLError as error:
        raise NoAccess(server, mishaps.CERTIFICATE) from error
    except (theirs.ConnectTimeoutError, theirs.ReadTimeoutError) as error:
        raise TimedOut(server, "no answer in time") from error
    except theirs.EndpointConnectionError as error:
        raise ConnectFailed(server, "no connection: is it running, and is 'endpoint' right?") from (
            error
        )
    except theirs.HTTPClientError as error:
        raise ConnectionLost(server, f"the connection was lost ({type(error).__name__})") from error
    except (theirs.BotoCoreError, theirs.ParamValidationError) as error:
        raise ConfigurationError("OPTIONS", f"boto3 refuses this: {error}") from error


def _problem(server: str, error: Any) -> ServerError:
    """Ours for an answer that means no, by the tables of `mishaps`."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code, region = _code(error), error.response.get("Error", {}).get("Region", "")
    where = f"<Region>{region}</Region>" if region else ""
    found = mishaps.problem(server, f"status code: {status} <Code>{code}</Code>{where}")
    if code == "BucketAlreadyExists":
        text = "this name is taken by somebody else's bucket: choose another"
        return NoBucket(server, text)
    return found


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _is_unknown(error: Any) -> bool:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return _code(error) in _UNKNOWN or status in {405, 501}


def _reason(error: Any) -> str:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return f"answered {status} {_code(error)}"
