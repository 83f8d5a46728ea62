"""A bucket that is made when the first file is saved to it (option `auto_create_bucket`).

obstore makes no buckets, and one request is no reason for a second client: `requests` sends
it.
"""

from __future__ import annotations

import urllib.error
from typing import Final

from outgrow.conf import ObjectOptions
from outgrow.errors import ConnectFailed, NoAccess, NoBucket, ServerError
from outgrow.objects import mishaps, requests, stores
from outgrow.objects.sign import Credentials

#: The region whose buckets are made without a word about it
#: (https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateBucket.html).
_FIRST: Final = "us-east-1"

#: Somebody was quicker, and it is ours.
_THERE: Final = "BucketAlreadyOwnedByYou"


def create(options: ObjectOptions) -> None:
    """Make the bucket of a storage; one that is ours already is left as it is.

    Raises a ServerError, and NoAccess where only the machine's role has keys: those are not
    known here.
    """
    server = stores.describe(options)
    keys = stores.credentials(options)
    if not keys[0]:
        text = "the bucket is missing, and can be made only with 'access_key' and 'secret_key'"
        raise NoAccess(server, text)
    try:
        _send(options, Credentials(*keys))
    except urllib.error.HTTPError as error:
        with error:
            said = error.read().decode(errors="replace")
        if _THERE in said:
            return
        problem = mishaps.problem(server, f"status code: {error.code} {said}")
        raise _told(problem) from error
    except OSError as error:
        raise ConnectFailed(server, f"the bucket could not be made: {error}") from error


def _send(options: ObjectOptions, keys: Credentials) -> None:
    region = stores.region(options)
    body = b"" if region == _FIRST or stores.endpoint(options) else _constraint(region)
    requests.put(options, keys, body=body)


def _constraint(region: str) -> bytes:
    inside = f"<LocationConstraint>{region}</LocationConstraint>"
    name = "CreateBucketConfiguration"
    return f'<{name} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{inside}</{name}>'.encode()


def _told(problem: ServerError) -> ServerError:
    """The same error, which says that it was about the bucket itself."""
    if isinstance(problem, NoBucket):
        return problem
    problem.reason = f"the bucket could not be made: {problem.reason}"
    return problem
