"""Signature V4: URLs and upload forms that whoever holds them may use for a while; requests.

Rules: https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html for URLs,
.../sigv4-HTTPPOSTForms.html, .../sigv4-post-example.html for forms, and
.../sig-v4-header-based-auth.html for requests. Google's and others' stores that speak S3 take
the same.

Nothing here asks a clock, or sends anything. What is the same for many URLs is computed once:
the key of the day and all of the query but its signature.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote

from outgrow.objects import canonical

#: The longest that a signature may be good for, in seconds: 7 days (the first page above).
LONGEST: Final = 604_800

#: From here on, in seconds, URLs stay the same for a while (`steady`).
STEADY_FROM: Final = 600

#: The hash of a request that has no body, and what stands for one that is not told.
EMPTY_PAYLOAD: Final = hashlib.sha256(b"").hexdigest()
UNSIGNED_PAYLOAD: Final = "UNSIGNED-PAYLOAD"

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_METHODS: Final = frozenset({"DELETE", "GET", "HEAD", "POST", "PUT"})
#: The last of the signature's own parameters, in the order in which they are signed.
_LAST: Final = ("X-Amz-SignedHeaders", "host")
#: What a store puts the name in for that a file has on the visitor's disk.
_FILENAME: Final = "${filename}"
_NOTHING: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True)
class Credentials:
    """The keys of an account; `token` belongs to those that expire. Secrets are not shown."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Form:
    """Where a browser may POST a file, and the fields that must stand before it."""

    url: str
    fields: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Moment:
    """What all signatures of one moment share."""

    date: str  # 20130524T000000Z
    scope: str  # 20130524/us-east-1/s3/aws4_request
    head: str  # what stands before the request's digest in what is signed
    key: bytes = field(repr=False)

    def signature(self, request: str) -> str:
        """The signature of a canonical request."""
        digest = hashlib.sha256(request.encode()).hexdigest()
        return hmac.digest(self.key, f"{self.head}{digest}".encode(), "sha256").hex()


@dataclass(frozen=True, slots=True)
class _Usual:
    """What all URLs share that are good for `seconds` from `second` on.

    `pairs` are the query's, but for `query`, which is whole where nothing is special; then
    `rest` follows the path in the canonical request.
    """

    second: int
    seconds: int
    moment: _Moment
    pairs: Sequence[canonical.Pair]
    query: str
    rest: str


class Signer:
    """Signs for what lies below one URL.

    `base` is that URL, with a slash at its end, as clients see it. The store must get its host
    and its path unchanged, for they are signed. If a proxy changes them, `seen` is the URL
    that the store sees; then `base` may be a path alone. `region` is the bucket's.

    Thread-safe and fork-safe: what is kept are values. Its repr shows no secret. Raises
    ValueError for a URL that has no host, and for empty keys.
    """

    def __init__(self, base: str, region: str, credentials: Credentials, *, seen: str = "") -> None:
        if not credentials.access_key or not credentials.secret_key or not region:
            raise ValueError("Without an access key, its secret and a region nothing is signed.")
        self.base = base
        self.region = region
        self.credentials = credentials
        self._shown = canonical.place(base, may_be_path=bool(seen))
        self._seen = canonical.place(seen) if seen else self._shown
        # Both are replaced whole, so that threads see one or the other.
        self._day: tuple[str, bytes] = ("", b"")
        self._last: _Usual | None = None

    def url(
        self,
        key: str,
        *,
        start: float,
        expire: float,
        method: str = "GET",
        parameters: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """A URL for one request, good for `expire` seconds from `start`.

        `start` is in seconds since the epoch; both count to whole seconds. `parameters` are
        signed too, as the ``response-...`` ones of GET, which may have the names that they have
        in boto3; `headers` must be sent with the request as they are given here, as
        Content-Type with PUT. With a session token the URL ends when that does.

        A key is signed as it is; "a//b" is another one than "a/b". Browsers can't ask for one
        with "." or ".." between slashes.

        Raises ValueError for an `expire` that is not between 1 second and 7 days, and for a
        method, a parameter or a header that can't be signed.
        """
        usual = self._usual(int(start), _whole("A signed URL", expire))
        if method not in _METHODS:
            raise ValueError(f"{method!r} can't be signed, only {', '.join(sorted(_METHODS))}.")
        query, rest = usual.query, usual.rest
        if parameters or headers:
            query, rest = self._special(usual, parameters or _NOTHING, headers or _NOTHING)
        name = quote(key, safe="/~")
        signature = usual.moment.signature(f"{method}\n{self._seen.path}{name}{rest}")
        return f"{self._shown.origin}{self._shown.path}{name}?{query}&X-Amz-Signature={signature}"

    def request(
        self,
        method: str,
        key: str = "",
        *,
        now: float,
        parameters: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        payload_hash: str = EMPTY_PAYLOAD,
    ) -> tuple[str, dict[str, str]]:
        """The URL and the headers of a request that is sent at once, signed in a header.

        An empty `key` is the bucket. `headers` are signed with it; those that the signature
        needs are added, Host too. `payload_hash` is the SHA-256 of the body, in hex, or
        UNSIGNED_PAYLOAD. Stores take it for 15 minutes from `now`, in seconds since the epoch.
        Raises ValueError for a parameter or a header that can't be signed.
        """
        canonical.refuse("header", headers or _NOTHING)
        moment, token = self._at(int(now)), self.credentials.token
        sent = {
            "Host": self._seen.host,
            **(headers or _NOTHING),
            "X-Amz-Content-SHA256": payload_hash,
            "X-Amz-Date": moment.date,
            **({"X-Amz-Security-Token": token} if token else {}),
        }
        names, lines = canonical.headers(sent)
        query = canonical.query(canonical.parameters(parameters or _NOTHING))
        name = quote(key, safe="/~")
        path = f"{self._seen.path}{name}"
        signature = moment.signature(f"{method}\n{path}\n{query}\n{lines}\n{names}\n{payload_hash}")
        sent["Authorization"] = (
            f"{_ALGORITHM} Credential={self.credentials.access_key}/{moment.scope}, "
            f"SignedHeaders={names}, Signature={signature}"
        )
        url = f"{self._shown.origin}{self._shown.path}{name}"
        return (f"{url}?{query}" if query else url), sent

    def form(
        self,
        bucket: str,
        *,
        start: float,
        expire: float,
        fields: Mapping[str, str],
        prefixes: Mapping[str, str] | None = None,
        size: tuple[int, int],
    ) -> Form:
        """A form that uploads one file, good for `expire` seconds from `start`.

        `fields` must come as they are: ``key`` and what else, as ``Content-Type``. A key may
        end with ``${filename}``, for which the store puts in the name that the file has with
        the visitor. Of `prefixes` only the beginning must be so: ``{"Content-Type":
        "image/"}``; the browser adds those fields. `size` is the least and the most bytes of
        the file. Raises ValueError as `url` does, or when there is no `key`.
        """
        good_for = _whole("A form", expire)
        started = dict(prefixes or {})
        if "key" not in {**fields, **started}:
            raise ValueError("A form needs a 'key', or the beginning of one.")
        if not 0 <= size[0] <= size[1]:
            raise ValueError(f"A file can't have {size[0]} to {size[1]} bytes.")
        canonical.refuse("field", (*fields, *started))
        moment = self._at(int(start))
        signed = {
            **fields,
            "x-amz-algorithm": _ALGORITHM,
            "x-amz-credential": f"{self.credentials.access_key}/{moment.scope}",
            "x-amz-date": moment.date,
        }
        if self.credentials.token:
            signed["x-amz-security-token"] = self.credentials.token
        conditions: list[Any] = [{"bucket": bucket}, *map(_condition, signed.items())]
        conditions += [["starts-with", f"${name}", text] for name, text in started.items()]
        conditions.append(["content-length-range", *size])
        policy = _policy(int(start) + good_for, conditions)
        signature = self.policy_signature(policy, day=moment.date[:8])
        return Form(self.base, {**signed, "policy": policy, "x-amz-signature": signature})

    def policy_signature(self, policy: str, *, day: str) -> str:
        """The signature of a form's policy, in base64, by the key of a day, as 20130524."""
        return hmac.digest(self._key(day), policy.encode(), "sha256").hex()

    # --- what is shared

    def _at(self, second: int) -> _Moment:
        """What all signatures of a second share."""
        date = datetime.fromtimestamp(second, UTC).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{date[:8]}/{self.region}/s3/aws4_request"
        return _Moment(date, scope, f"{_ALGORITHM}\n{date}\n{scope}\n", self._key(date[:8]))

    def _key(self, day: str) -> bytes:
        """The signing key of a day, as 20130524."""
        known, key = self._day
        if known != day:
            key = f"AWS4{self.credentials.secret_key}".encode()
            for part in (day, self.region, "s3", "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._day = (day, key)
        return key

    def _usual(self, second: int, seconds: int) -> _Usual:
        last = self._last
        if last is not None and last.second == second and last.seconds == seconds:
            return last
        moment, token = self._at(second), self.credentials.token
        given = {
            "X-Amz-Algorithm": _ALGORITHM,
            "X-Amz-Credential": f"{self.credentials.access_key}/{moment.scope}",
            "X-Amz-Date": moment.date,
            "X-Amz-Expires": str(seconds),
            **({"X-Amz-Security-Token": token} if token else {}),
        }
        pairs = canonical.encoded(given)
        query = canonical.query([*pairs, _LAST])
        rest = f"\n{query}\nhost:{self._seen.host}\n\nhost\n{UNSIGNED_PAYLOAD}"
        self._last = made = _Usual(second, seconds, moment, pairs, query, rest)
        return made

    def _special(
        self, usual: _Usual, parameters: Mapping[str, str], headers: Mapping[str, str]
    ) -> tuple[str, str]:
        """The query, and what follows the path, with these as well."""
        pairs = canonical.parameters(parameters)
        names, lines = "host", f"host:{self._seen.host}\n"
        if not headers and min(pairs) > _LAST:
            # Most have names in lower case, and so the whole query of the others before them.
            query = f"{usual.query}&{canonical.query(pairs)}"
            return query, f"\n{query}\n{lines}\n{names}\n{UNSIGNED_PAYLOAD}"
        if headers:
            canonical.refuse("header", headers)
            names, lines = canonical.headers({**headers, "host": self._seen.host})
        own = (_LAST[0], quote(names, safe=""))
        query = canonical.query([*usual.pairs, own, *pairs])
        return query, f"\n{query}\n{lines}\n{names}\n{UNSIGNED_PAYLOAD}"

    def __repr__(self) -> str:
        return f"Signer({self.base!r}, {self.region!r})"


def steady(now: float, expire: float) -> tuple[int, int]:
    """From when on, and for how many seconds, a URL that is to be good for `expire` is signed.

    From ten minutes on it is good for up to a quarter longer, and is the same for that
    quarter, on every server: so browsers and caches find what they have. It is never good for
    less, for the quarter that may have gone by is added. Shorter ones, and those at the limit
    of 7 days, are exact: they count from the second that has begun.
    """
    seconds = math.ceil(expire)
    step = min(seconds // 4, LONGEST - seconds) if seconds >= STEADY_FROM else 0
    if step < 1:
        return int(now), seconds
    return int(now) // step * step, seconds + step


def _whole(what: str, expire: float) -> int:
    """Whole seconds for which something is good."""
    if not 0 < expire <= LONGEST:  # neither is NaN
        raise ValueError(
            f"{what} can't be good for {expire:g} seconds: only for 1 to {LONGEST} (7 days)."
        )
    return math.ceil(expire)


def _condition(item: tuple[str, str]) -> Any:
    """What a form's policy says of a field that the form itself has."""
    name, text = item
    if name != "key" or _FILENAME not in text:
        return {name: text}
    # The policy is about the key with the name put in.
    beginning, _, rest = text.partition(_FILENAME)
    if rest:
        raise ValueError(f"The key {text!r} has {_FILENAME} before its end.")
    return ["starts-with", "$key", beginning]


def _policy(until: float, conditions: Sequence[Any]) -> str:
    moment = datetime.fromtimestamp(0, UTC) + timedelta(seconds=int(until))
    document = {"expiration": moment.strftime("%Y-%m-%dT%H:%M:%S.000Z"), "conditions": conditions}
    return base64.b64encode(json.dumps(document).encode()).decode()
