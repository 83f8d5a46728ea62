"""What a client has written, kept until its next request: by the client, or in a cache.

The laws:

1. Every request that wrote leaves a note of its own, with all that the client is known to have
   written, and takes away only the notes that it has itself read. So responses may
   come in any order: none lowers or removes what another one has left.
2. A request that only read leaves and takes away nothing.
3. A note ends by its deadline alone. That all replicas have what it says is no reason: one that was
   down may come back older.
4. A note that was tampered with, or is over its deadline, or can't be read, is no note. But
   one that is known to exist and can't be had (the cache is away) means the primary.
5. Notes are few: more than `MOST` at once are not read one by one; the primary serves.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.core import signing
from django.core.cache import caches
from django.http import HttpRequest, HttpResponseBase
from django.utils.cache import patch_cache_control, patch_vary_headers
from django.utils.module_loading import import_string

from outgrow.conf import ClusterOptions, session_cookie
from outgrow.databases.position import parse
from outgrow.databases.route import PIN, PRIMARY, Route, Wanted, active

logger: Final = logging.getLogger("outgrow.databases")

#: Notes of one client that are read; a browser has few responses on their way at once.
MOST: Final = 8

#: Characters of one signed note. Browsers keep cookies of 4,096 bytes with name and attributes
#: (RFC 6265 §6.1), and drop longer ones. Sets of GTIDs that are longer become "the primary".
LONGEST: Final = 3500

_SALT: Final = "outgrow.databases"
_PIN: Final = "pin"

Written = Mapping[str, Wanted]


@dataclass(frozen=True, slots=True)
class Found:
    """The notes of a client: what it has written, and how each note is called."""

    written: Written
    notes: tuple[str, ...] = ()


def together(several: Iterable[Written]) -> dict[str, Wanted]:
    """All that was written, by the alias of the primary."""
    found: dict[str, Wanted] = {}
    for written in several:
        for cluster, wanted in written.items():
            found[cluster] = found[cluster].merged(wanted) if cluster in found else wanted
    return found


def packed(written: Written, deadline: float) -> str:
    """A note as text. `deadline` is in seconds of the Unix epoch."""
    positions = {cluster: _text(wanted) for cluster, wanted in written.items()}
    return json.dumps([int(deadline) + 1, positions], separators=(",", ":"))


def _text(wanted: Wanted) -> str:
    return _PIN if wanted.pin else "|".join(map(str, wanted.positions))


def unpacked(text: str, now: float) -> Written:
    """What a note says; nothing when it is over its deadline or can't be read (law 4)."""
    try:
        deadline, positions = json.loads(text)
        if not now < float(deadline):
            return {}
        return {str(cluster): _wanted(str(value)) for cluster, value in positions.items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _wanted(text: str) -> Wanted:
    if text == _PIN:
        return PIN
    return Wanted(tuple(parse(one) for one in text.split("|")))


class Cookies:
    """Notes that the client keeps, in cookies that are signed with SECRET_KEY."""

    def __init__(self, name: str, *, clock: Callable[[], float] = time.time) -> None:
        self._prefix = f"{name}-"
        # Others of the site's cookies, and what a sibling domain has set, are not ours.
        self._name = re.compile(rf"{re.escape(name)}-[0-9a-f]{{8}}\Z")
        self._clock = clock

    def read(self, request: HttpRequest) -> Found:
        """The notes that came with a request."""
        if not request.COOKIES:
            return Found({})
        # What was taken away may still be sent, by Django's test client for one: without a value.
        names = [
            name for name, value in request.COOKIES.items() if value and self._name.match(name)
        ]
        if not names:
            return Found({})
        if len(names) > MOST:
            return Found({"": PIN}, tuple(names))
        notes = [self._open(request.COOKIES[name]) for name in names]
        return Found(together(notes), tuple(names))

    def _open(self, value: str) -> Written:
        try:
            text = signing.Signer(salt=_SALT).unsign_object(value)
        except (signing.BadSignature, ValueError):
            return {}
        return unpacked(text, self._clock()) if isinstance(text, str) else {}

    def write(
        self,
        request: HttpRequest,
        response: HttpResponseBase,
        written: Written,
        pin_for: float,
        notes: Iterable[str],
    ) -> None:
        """Leave a note, for `pin_for` seconds, and take those away that it includes."""
        domain, same_site, secure = session_cookie()
        response.set_cookie(
            f"{self._prefix}{secrets.token_hex(4)}",
            self._signed(written, self._clock() + pin_for),
            max_age=int(pin_for) + 1,
            domain=domain,
            secure=secure or request.is_secure(),
            httponly=True,
            samesite=same_site,
        )
        for name in notes:
            response.delete_cookie(name, domain=domain, samesite=same_site)
        # A cache that serves others must not keep what sets this client's cookie.
        patch_vary_headers(response, ("Cookie",))
        if "no-store" not in response.headers.get("Cache-Control", ""):
            patch_cache_control(response, private=True)

    @staticmethod
    def _signed(written: Written, deadline: float) -> str:
        signer = signing.Signer(salt=_SALT)
        value = signer.sign_object(packed(written, deadline))
        if len(value) <= LONGEST:
            return value
        return signer.sign_object(packed(dict.fromkeys(written, PIN), deadline))


class CacheNotes:
    """Notes in a Redis that all application servers share, by the user's key.

    Each is a member of a sorted set, by its deadline; so a write adds one and
    removes those that it has read in one step, and loses no other's.
    """

    def __init__(self, options: ClusterOptions, *, clock: Callable[[], float] = time.time) -> None:
        self._options = options.remember
        self._clock = clock

    def key(self, request: HttpRequest) -> str | None:
        """The user's key. What the site's function reads, it reads from the primary."""
        function = self._options.key
        if isinstance(function, str):
            function = import_string(function)
        # On a route of its own: what it reads says nothing of the request's.
        with active(Route(PRIMARY)) as own:
            try:
                found = function(request)
            finally:
                own.close()
        return None if found is None else str(found)

    def read(self, request: HttpRequest) -> Found:
        """The notes on a request's user (law 4)."""
        key = self.key(request)
        if key is None:
            return Found({})
        try:
            client, name = self._client(key)
            members = client.zrangebyscore(name, self._clock(), "+inf", start=0, num=MOST + 1)
        except Exception as error:  # noqa: BLE001 - redis is imported by Django's cache alone
            logger.warning("The cache %r is away: %s", self._options.cache, error)
            return Found({"": PIN})
        if len(members) > MOST:
            return Found({"": PIN})
        texts = [_decoded(member) for member in members]
        return Found(together(unpacked(text, self._clock()) for text in texts), tuple(texts))

    def write(
        self, request: HttpRequest, written: Written, pin_for: float, notes: Iterable[str]
    ) -> bool:
        """Leave a note and take away those that it includes; whether that went well."""
        key = self.key(request)
        if key is None:
            return False
        deadline = self._clock() + pin_for
        try:
            client, name = self._client(key)
            with client.pipeline(transaction=True) as pipeline:
                pipeline.zadd(name, {packed(written, deadline): deadline})
                if notes:
                    pipeline.zrem(name, *notes)
                pipeline.zremrangebyscore(name, "-inf", self._clock() - 1)
                pipeline.expire(name, int(pin_for) + 1)
                pipeline.execute()
        except Exception as error:  # noqa: BLE001 - redis is imported by Django's cache alone
            logger.warning("The cache %r is away: %s", self._options.cache, error)
            return False
        return True

    def _client(self, key: str) -> tuple[Any, str]:
        cache: Any = caches[self._options.cache]
        name = cache.make_key(f"outgrow:{key}")
        inner = getattr(cache, "client", None)  # django-redis
        if inner is not None:
            return inner.get_client(write=True), str(name)
        return cache._cache.get_client(name, write=True), str(name)  # noqa: SLF001 - Django's RedisCache


def _decoded(member: bytes | str) -> str:
    return member.decode() if isinstance(member, bytes) else member
