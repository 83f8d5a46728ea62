"""A copy of each file that is deleted, in another bucket of the same store (`backup_bucket`).

The store copies by itself: nothing goes through this machine. For that both buckets must be
reached with the same keys. One request copies up to 5 GiB
(https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html).
"""

from __future__ import annotations

import urllib.error
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import quote

from outgrow.conf import Location, ObjectOptions
from outgrow.errors import BadAnswer, ConnectionLost, NoAccess, NoBucket
from outgrow.objects import mishaps, requests, stores
from outgrow.objects.sign import Credentials


def keep(options: ObjectOptions, key: str, name: str) -> bool:
    """Leave a copy of an object in the backup bucket, under the time and its name.

    Returns False for an object that is not there. Raises a ServerError; NoAccess where only
    the machine's role has keys.
    """
    server = stores.describe(options)
    keys = stores.credentials(options)
    if not keys[0]:
        text = "deleted files are copied aside only with 'access_key' and 'secret_key'"
        raise NoAccess(server, text)
    there = replace(options, location=Location("s3", options.backup_bucket, ""))
    source = quote(f"/{options.location.bucket}/{key}", safe="/~")
    target = f"{datetime.now(UTC).strftime(options.backup_format)}{name}"
    headers = {"x-amz-copy-source": source}
    try:
        said = requests.put(there, Credentials(*keys), target, headers=headers)
    except urllib.error.HTTPError as error:
        with error:
            told = error.read().decode(errors="replace")
        if "NoSuchKey" in told:
            return False
        found = mishaps.problem(server, f"status code: {error.code} {told}")
        if isinstance(found, NoBucket):
            found.reason = f"there is no bucket {options.backup_bucket!r} for deleted files"
        raise found from error
    except OSError as error:
        text = f"nothing was deleted: {name!r} could not be copied aside: {error}"
        raise ConnectionLost(server, text) from error
    # A copy that fails late has the status 200 and an error in its body.
    if b"CopyObjectResult" not in said:
        text = f"nothing was deleted: {name!r} could not be copied aside: {said[:200]!r}"
        raise BadAnswer(server, text)
    return True
