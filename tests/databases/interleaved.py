"""Django's test client over ASGI, with other requests in flight on the same event loop.

The others do what could leak into the request at hand, or be disturbed by it: they have
routes and blocks of their own, change them, and give way again and again meanwhile. They
use no database, so that what a test counts is its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from asgiref.sync import async_to_sync, iscoroutinefunction
from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.test import AsyncClient
from django.urls import Resolver404, resolve

from outgrow.databases import route as routes
from outgrow.databases import using_primary, using_replica

#: Requests in flight beside each one of a test, and the turns that each of them takes.
OTHERS, TURNS = 6, 25

PATH = "/async/other/"


@transaction.non_atomic_requests  # Django has no transactions around asynchronous views
async def other(request: HttpRequest) -> JsonResponse:
    """Whether this request has kept its own route and blocks, while others took their turns."""
    number = int(request.GET["number"])
    mine, block = routes.current(), (using_primary, using_replica)[number % 2]
    kept = []
    for turn in range(TURNS):
        if turn % 3 == number % 3:
            with block():
                inside = routes.override("default")
                await asyncio.sleep(0)
                kept.append(routes.override("default") is inside)
        await asyncio.sleep(0)
        kept += [routes.current() is mine, routes.override("default") is None]
    return JsonResponse({"kept": mine is not None and all(kept)})


class _Client(AsyncClient):
    """Django's, with an address of its own."""

    address = "127.0.0.1"

    def _base_scope(self, **request: Any) -> dict[str, Any]:
        return {**super()._base_scope(**request), "client": [self.address, 1]}


class InterleavedClient:
    """`django.test.Client`, as far as the tests use it, over Django's ASGI handler."""

    def __init__(self, headers: dict[str, str] | None = None, **options: Any) -> None:
        address = options.pop("REMOTE_ADDR", _Client.address)  # as it is given over WSGI
        self._client = _Client(**options)
        self._client.address = address
        # Those that AsyncClient is made with it never sends.
        self._headers = headers

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not iscoroutinefunction(found):
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            if self._headers:
                options.setdefault("headers", self._headers)
            return async_to_sync(_among)(found, arguments, options)

        return call

    def generic(self, method: str, *arguments: Any, **options: Any) -> Any:
        """A request by any method."""
        return async_to_sync(_among)(self._client.generic, (method, *arguments), options)


async def _among(ask: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    others = [asyncio.create_task(one) for one in _others()]
    await asyncio.sleep(0)
    try:
        return await ask(*arguments, **options)
    finally:
        for answer in await asyncio.gather(*others):
            assert answer.status_code == 200, answer.content
            assert answer.json()["kept"]


def _others() -> Iterator[Any]:
    try:
        resolve(PATH)
    except Resolver404:  # a test with pages of its own
        return
    for number in range(OTHERS):
        # Django tells all clients of an exception, whoever has asked.
        client = AsyncClient(raise_request_exception=False)
        ask = client.post if number % 3 else client.get
        yield ask(f"{PATH}?number={number}")
