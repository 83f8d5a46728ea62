"""URLs for private files that expire: what nginx's secure_link_md5 checks, and our own server.

    /media/contract.pdf?md5=<digest>&expires=<seconds since the epoch>

The digest is the MD5 of "<expires><path> <secret>", in base64 for URLs without padding, as
in the documentation of ngx_http_secure_link_module. The path is the one that nginx calls
$uri: decoded, with its slash. MD5 is what that module has. The secret stands at the end,
so that nothing can be appended to what was signed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from enum import Enum
from urllib.parse import parse_qsl


class Verdict(Enum):
    """What a signature is worth."""

    GOOD = "good"
    WRONG = "wrong"
    EXPIRED = "expired"


def sign(path: str, expires: int, secret: str) -> str:
    """The query of a URL that is good until `expires`. `path` is not quoted."""
    return f"md5={_digest(path, str(expires), secret)}&expires={expires}"


def check(path: str, query: str, secret: str, now: float) -> Verdict:
    """What the query of a request for `path` is worth now (seconds since the epoch)."""
    # The first of each counts, as nginx's $arg_ variables have it.
    given = dict(reversed(parse_qsl(query, max_num_fields=20)))
    expires, digest = given.get("expires", ""), given.get("md5", "")
    if not (expires.isascii() and expires.isdigit() and len(expires) < 20):
        return Verdict.WRONG
    if not hmac.compare_digest(_digest(path, expires, secret).encode(), digest.encode()):
        return Verdict.WRONG
    return Verdict.GOOD if now < int(expires) else Verdict.EXPIRED


def _digest(path: str, expires: str, secret: str) -> str:
    text = f"{expires}{path} {secret}".encode()
    raw = hashlib.md5(text, usedforsecurity=False).digest()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
