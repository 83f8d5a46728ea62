"""One request that obstore does not know, signed by `sign` and sent by the standard library."""

from __future__ import annotations

import ssl
import time
import urllib.request
from collections.abc import Mapping

from outgrow.conf import ObjectOptions
from outgrow.objects import stores
from outgrow.objects.addresses import base_of
from outgrow.objects.sign import UNSIGNED_PAYLOAD, Credentials, Signer


def signer(options: ObjectOptions, keys: Credentials) -> Signer:
    """What signs requests to the bucket itself."""
    return Signer(base_of(options), stores.region(options), keys)


def put(
    options: ObjectOptions,
    keys: Credentials,
    key: str = "",
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
) -> bytes:
    """PUT an object, or with an empty key the bucket; returns the answer's body.

    Raises what urllib raises: HTTPError for a refusal, another OSError when it is not known
    what happened.
    """
    url, signed = signer(options, keys).request(
        "PUT", key, now=time.time(), headers=headers, payload_hash=UNSIGNED_PAYLOAD
    )
    sent = {**signed, "Content-Length": str(len(body))}
    request = urllib.request.Request(url, body, sent, method="PUT")  # noqa: S310 - our own URL
    context = (
        ssl.create_default_context(cafile=options.ca or None) if url.startswith("https:") else None
    )
    with urllib.request.urlopen(request, timeout=options.timeout, context=context) as answer:  # noqa: S310
        return bytes(answer.read())
