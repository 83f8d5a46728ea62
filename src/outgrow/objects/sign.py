"""Signature V4: URLs and upload forms that whoever holds them may use for a while.

Rules: https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html for URLs,
and .../sigv4-HTTPPOSTForms.html, .../sigv4-post-example.html for forms. Google's and others'
stores that speak S3 take the same.

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
from urllib.parse import quote, urlsplit

#: The longest that a signature may be good for, in seconds: 7 days (the first page above).
LONGEST: Final = 604_800

#: From here on, in seconds, URLs stay the same for a while (`steady`).
STEADY_FROM: Final = 600

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_UNSIGNED: Final = "UNSIGNED-PAYLOAD"


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
    key: bytes


class Signer:
    """Signs for what lies below one URL.

    `base` is that URL, with a slash at its end, as clients and the store see it: the store
    must get its host and its path unchanged. `region` is the bucket's.

    Thread-safe and fork-safe. Its repr shows no secret.
    """

    def __init__(self, base: str, region: str, credentials: Credentials) -> None:
        parts = urlsplit(base)
        self.base = base
        self.region = region
        self.credentials = credentials
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._host = _host(parts.scheme, parts.netloc)
        self._path = parts.path or "/"
        # Both are replaced whole, so that threads see one or the other.
        self._day: tuple[str, bytes] = ("", b"")
        self._moment: tuple[int, _Moment] = (-1, _Moment("", "", "", b""))
        self._plain: tuple[tuple[int, int], str, str] = ((-1, 0), "", "")

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
        signed too, as the ``response-...`` ones of GET; `headers` must be sent with the
        request as they are given here, as Content-Type with PUT.

        Raises ValueError for an `expire` that is not between 1 second and 7 days.
        """
        second, seconds = int(start), math.ceil(expire)
        if not 1 <= seconds <= LONGEST:
            raise ValueError(
                f"A signed URL can't be good for {expire:g} seconds: only for 1 to {LONGEST} "
                "(7 days)."
            )
        moment = self._at(second)
        path = self._path + quote(key, safe="/~")
        if parameters or headers:
            names, lines = self._signed(headers or {})
            query = self._query(moment, seconds, names, parameters or {})
            rest = f"\n{query}\n{lines}\n{names}\n{_UNSIGNED}"
        else:
            query, rest = self._usual(moment, second, seconds)
        digest = hashlib.sha256(f"{method}\n{path}{rest}".encode()).hexdigest()
        text = f"{moment.head}{digest}"
        signature = hmac.digest(moment.key, text.encode(), "sha256").hex()
        return f"{self._origin}{path}?{query}&X-Amz-Signature={signature}"

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

        `fields` must come as they are: ``key`` and what else, as ``Content-Type``. Of
        `prefixes` only the beginning must be so: ``{"Content-Type": "image/"}``; the browser
        adds those fields. `size` is the least and the most bytes of the file. Raises
        ValueError as `url` does, or when there is no `key`.
        """
        if not 1 <= expire <= LONGEST:
            raise ValueError(f"A form can't be good for {expire:g} seconds, only 1 to {LONGEST}.")
        started = dict(prefixes or {})
        if "key" not in {**fields, **started}:
            raise ValueError("A form needs a 'key', or the beginning of one.")
        moment = self._at(int(start))
        signed = {
            **fields,
            "x-amz-algorithm": _ALGORITHM,
            "x-amz-credential": f"{self.credentials.access_key}/{moment.scope}",
            "x-amz-date": moment.date,
        }
        if self.credentials.token:
            signed["x-amz-security-token"] = self.credentials.token
        conditions: list[Any] = [{"bucket": bucket}, *({name: signed[name]} for name in signed)]
        conditions += [["starts-with", f"${name}", text] for name, text in started.items()]
        conditions.append(["content-length-range", *size])
        policy = _policy(start + expire, conditions)
        signature = self.policy_signature(policy, day=moment.date[:8])
        return Form(self.base, {**signed, "policy": policy, "x-amz-signature": signature})

    def policy_signature(self, policy: str, *, day: str) -> str:
        """The signature of a form's policy, in base64, by the key of a day, as 20130524."""
        return hmac.digest(self._key(day), policy.encode(), "sha256").hex()

    # --- what is shared

    def _at(self, second: int) -> _Moment:
        """What all signatures of a second share."""
        known, moment = self._moment
        if known != second:
            date = datetime.fromtimestamp(second, UTC).strftime("%Y%m%dT%H%M%SZ")
            scope = f"{date[:8]}/{self.region}/s3/aws4_request"
            head = f"{_ALGORITHM}\n{date}\n{scope}\n"
            moment = _Moment(date, scope, head, self._key(date[:8]))
            self._moment = (second, moment)
        return moment

    def _key(self, day: str) -> bytes:
        """The signing key of a day, as 20130524."""
        known, key = self._day
        if known != day:
            key = f"AWS4{self.credentials.secret_key}".encode()
            for part in (day, self.region, "s3", "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._day = (day, key)
        return key

    def _usual(self, moment: _Moment, second: int, seconds: int) -> tuple[str, str]:
        """The query, and what follows the path in the request, where nothing is special."""
        known, query, rest = self._plain
        if known != (second, seconds):
            query = self._query(moment, seconds, "host", {})
            rest = f"\n{query}\nhost:{self._host}\n\nhost\n{_UNSIGNED}"
            self._plain = ((second, seconds), query, rest)
        return query, rest

    def _query(
        self, moment: _Moment, seconds: int, names: str, parameters: Mapping[str, str]
    ) -> str:
        token = self.credentials.token
        given = {
            "X-Amz-Algorithm": _ALGORITHM,
            "X-Amz-Credential": f"{self.credentials.access_key}/{moment.scope}",
            "X-Amz-Date": moment.date,
            "X-Amz-Expires": str(seconds),
            **({"X-Amz-Security-Token": token} if token else {}),
            "X-Amz-SignedHeaders": names,
            **parameters,
        }
        pairs = [(quote(key, safe="~"), quote(text, safe="~")) for key, text in given.items()]
        return "&".join(f"{key}={text}" for key, text in sorted(pairs))

    def _signed(self, headers: Mapping[str, str]) -> tuple[str, str]:
        """The names and the lines of the headers that are signed, as the rules write them."""
        lower = {name.lower(): " ".join(text.split()) for name, text in headers.items()}
        lower["host"] = self._host
        names = sorted(lower)
        return ";".join(names), "".join(f"{name}:{lower[name]}\n" for name in names)

    def __repr__(self) -> str:
        return f"Signer({self.base!r}, {self.region!r})"


def steady(now: float, expire: float) -> tuple[int, int]:
    """From when on, and for how many seconds, a URL that is to be good for `expire` is signed.

    From ten minutes on it is good for up to a quarter longer, and is the same for that
    quarter, on every server: so browsers and caches find what they have. Shorter ones, and
    those at the limit of 7 days, are exact.
    """
    seconds = math.ceil(expire)
    step = min(seconds // 4, LONGEST - seconds) if seconds >= STEADY_FROM else 0
    if step < 1:
        return int(now), seconds
    return int(now) // step * step, seconds + step


def _host(scheme: str, location: str) -> str:
    """The header Host, as clients send it: without the port that the scheme has anyway."""
    usual = {"http": ":80", "https": ":443"}[scheme]
    return location.removesuffix(usual).lower()


def _policy(until: float, conditions: Sequence[Any]) -> str:
    moment = datetime.fromtimestamp(0, UTC) + timedelta(seconds=int(until))
    document = {"expiration": moment.strftime("%Y-%m-%dT%H:%M:%S.000Z"), "conditions": conditions}
    return base64.b64encode(json.dumps(document).encode()).decode()
