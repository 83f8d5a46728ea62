"""What obstore raises -> our errors, each of which says what to do.

obstore has few classes of exceptions. What happened stands in their text: the answer's
status, the code in S3's XML, and the causes of a failed connection as Rust prints them.
What is looked for here was seen with obstore 0.12.1, and tests cause each of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from outgrow.errors import (
    BadAnswer,
    ConnectFailed,
    ConnectionLost,
    NoAccess,
    NoBucket,
    ServerError,
    TimedOut,
    UnexpectedStatus,
    WrongRegion,
)
from outgrow.objects import runtime

_CODE: Final = re.compile(r"<Code>\s*([A-Za-z0-9]+)\s*</Code>")
_STATUS: Final = re.compile(r"status code: (\d{3})")
_REGION: Final = re.compile(r"<Region>([a-z0-9-]+)</Region>|expecting '([a-z0-9-]+)'")
_CERTIFICATE: Final = re.compile(r"InvalidCertificate\(\s*(\w+)|InvalidMessage\(\s*(\w+)")

_CLOCKS: Final = "has another time than this machine: set both clocks (NTP)"
_CLOSED: Final = "has closed this account or bucket: ask its provider"

#: A code of S3's (https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html) ->
#: what happened, and what to do.
_ACCESS: Final = {
    "InvalidAccessKeyId": "does not know the access key: is 'access_key' of this store?",
    "SignatureDoesNotMatch": "got a wrong signature: is 'secret_key' right?",
    "RequestTimeTooSkewed": _CLOCKS,
    "RequestExpired": _CLOCKS,
    "ExpiredToken": "got a session token that has expired: get new credentials",
    "InvalidToken": "got a session token that is not valid: get new credentials",
    "AccessDenied": "refuses this to these credentials: give them the permission for it",
    "AccountProblem": _CLOSED,
    "AllAccessDisabled": _CLOSED,
}
_NO_BUCKET: Final = "there is no such bucket: is its name right, and is this the right endpoint?"
CERTIFICATE: Final = "its certificate is not believed: is 'ca' right?"
ANONYMOUS: Final = "got no credentials: set 'access_key' and 'secret_key'"
#: An answer to HEAD has no body that could say more. Without s3:ListBucket S3 answers 403
#: for an object that does not exist.
_DENIED: Final = (
    "refuses this: are the credentials right, and do they have the permission for it "
    "(s3:ListBucket, too: without it a missing object is a refusal)?"
)

#: What stands in the text of a failed connection -> its error and reason, first match first.
_CONNECTION: Final[tuple[tuple[str, type[ServerError], str], ...]] = (
    ("dns error", ConnectFailed, "its name can't be resolved"),
    ("ConnectionRefused", ConnectFailed, "refused the connection"),
    ("InvalidCertificate", NoAccess, CERTIFICATE),
    ("InvalidContentType", NoAccess, "speaks no TLS: is 'endpoint' to begin with http://?"),
    ("kind: Timeout", TimedOut, "no answer in time"),
    ("TimedOut", TimedOut, "no connection in time"),
    ("kind: Connect", ConnectFailed, "no connection"),
    ("IncompleteMessage", ConnectionLost, "closed the connection before its answer was whole"),
    ("Parse(", BadAnswer, "what it answered is not HTTP"),
    ("kind: Interrupted", ConnectionLost, "the connection was lost"),
    ("kind: Request", ConnectionLost, "the connection was lost"),
    ("kind: Decode", ConnectionLost, "closed the connection before its answer was whole"),
)


@contextmanager
def translated(server: str, name: str) -> Iterator[None]:
    """Raise ours for what obstore raises in the body; both arguments are for the message.

    A missing object is Python's FileNotFoundError. What means something to the caller is
    let through: AlreadyExistsError and PreconditionError.
    """
    errors = runtime.library().exceptions
    try:
        yield
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error) or "ContainerNotFound" in str(error):
            raise NoBucket(server, _NO_BUCKET) from error
        raise FileNotFoundError(f"{server} has no file {name!r}.") from error
    except (errors.AlreadyExistsError, errors.PreconditionError):
        raise
    except errors.BaseError as error:
        raise problem(server, str(error)) from error


def problem(server: str, text: str) -> ServerError:
    """The error of ours for the text of one of obstore's."""
    code = next(iter(_CODE.findall(text)), "")
    if code in {"NoSuchBucket", "InvalidBucketName"}:
        return NoBucket(server, _NO_BUCKET)
    if code in _ACCESS:
        return NoAccess(server, f"{_ACCESS[code]} ({code})")
    if code in {"AuthorizationHeaderMalformed", "PermanentRedirect"} or "BareRedirect" in text:
        region = _REGION.search(text)
        where = f": it is in {region[1] or region[2]!r}" if region else ""
        return WrongRegion(server, f"the bucket is in another region{where}")
    found = _STATUS.search(text)
    return _of_status(server, code, int(found[1])) if found else _of_connection(server, text)


def _of_status(server: str, code: str, status: int) -> ServerError:
    if status == 401:
        return NoAccess(server, ANONYMOUS)
    if status == 403 and not code:
        return NoAccess(server, _DENIED)
    return UnexpectedStatus(server, status, f"answered {status}" + (f" {code}" if code else ""))


def _of_connection(server: str, text: str) -> ServerError:
    for mark, kind, reason in _CONNECTION:
        if mark in text:
            found = _CERTIFICATE.search(text) if kind is NoAccess else None
            why = f" ({found[1] or found[2]})" if found else ""
            return kind(server, reason + why)
    return BadAnswer(server, text.partition("\n")[0][:200] or "it failed, and said nothing")
