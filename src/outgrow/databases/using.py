"""`using_primary` and `using_replica`: for functions, coroutines, generators, views, blocks.

::

    @using_primary
    def pay(request): ...

    @using_replica
    class Report(View): ...

    with using_replica():
        ...

The innermost wins. Neither lets a client miss what he wrote: in a request that wrote, and in
a transaction, `using_replica` reads the primary, unless it is called with `stale=True`.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from functools import wraps
from typing import Any, Final, TypeVar, cast, overload

from asgiref.sync import iscoroutinefunction

from outgrow.conf import replication
from outgrow.databases.route import PRIMARY, REPLICA, enter, leave
from outgrow.errors import ConfigurationError

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

#: On a decorated view: the mode by cluster, "" for all. `functools.wraps` carries it on.
MARK: Final = "_outgrow_route"


def marked(view: object, cluster: str) -> str:
    """The mode in which a view was decorated to run on this cluster; empty for none."""
    marks: Mapping[str, str] = getattr(view, MARK, {})
    return marks.get(cluster) or marks.get("", "")


class Using:
    """A block, or a decorator, in which reads go to the primary or to a replica.

    One can be entered any number of times, nested and by several threads at once.
    """

    def __init__(self, mode: str, clusters: tuple[str, ...], *, stale: bool = False) -> None:
        known = [cluster.primary for cluster in replication()]
        for cluster in clusters:
            if cluster not in known:
                raise ConfigurationError(
                    f"using_{mode}",
                    f"{cluster!r} is not a primary in OUTGROW['REPLICATION'].",
                    f"There are: {', '.join(known) or 'none'}.",
                )
        self._mode = mode
        self._clusters = clusters
        self._stale = stale

    def __enter__(self) -> None:
        enter(self._mode, self._clusters, stale=self._stale, owner=self)

    def __exit__(self, *_: object) -> None:
        leave(self)

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        leave(self)

    def __call__(self, target: Decorated) -> Decorated:
        """Decorate a function, coroutine function, generator function, or a view's class."""
        if inspect.isclass(target):
            return cast("Decorated", self._class(target))
        if not callable(target):
            raise TypeError(f"{target!r} can't be decorated: it is neither function nor class.")
        wrapped = self._wrapped(target)
        inner = getattr(target, MARK, {})
        # The innermost wins, and so it does here.
        marks = dict.fromkeys(self._clusters or ("",), self._mode)
        setattr(wrapped, MARK, {**marks, **inner} if "" not in inner else inner)
        return cast("Decorated", wrapped)

    def _class(self, target: type) -> type:
        dispatch = getattr(target, "dispatch", None)
        if dispatch is None:
            raise TypeError(f"{target.__name__} is no view: it has no method dispatch().")
        target.dispatch = self(dispatch)  # type: ignore[attr-defined]
        return target

    def _wrapped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.isasyncgenfunction(function):
            return _stepped_async(self, function)
        if inspect.isgeneratorfunction(function):
            return _stepped(self, function)
        if iscoroutinefunction(function):

            @wraps(function)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return await function(*args, **kwargs)

            return awaited

        @wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            with self:
                result = function(*args, **kwargs)
            # Such as View.dispatch of asynchronous views, which is no coroutine function.
            return self._awaited(result) if inspect.iscoroutine(result) else result

        return called

    async def _awaited(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        with self:
            return await coroutine


def _stepped(using: Using, function: Callable[..., Any]) -> Callable[..., Any]:
    """A generator whose every step runs in the block, and whose caller's steps don't.

    A `with` inside the generator would go on holding between two steps.
    """

    @wraps(function)
    def stepped(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        generator = function(*args, **kwargs)
        step: Callable[[Any], Any] = generator.send
        value: Any = None
        while True:
            try:
                with using:
                    item = step(value)
            except StopIteration as end:
                return end.value
            try:
                step, value = generator.send, (yield item)
            except GeneratorExit:
                with using:
                    generator.close()
                raise
            except BaseException as error:  # noqa: BLE001 - it is the generator's to handle
                step, value = generator.throw, error

    return stepped


def _stepped_async(using: Using, function: Callable[..., Any]) -> Callable[..., Any]:
    """The same for an asynchronous generator."""

    @wraps(function)
    async def stepped(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        generator = function(*args, **kwargs)
        step: Callable[[Any], Any] = generator.asend
        value: Any = None
        while True:
            try:
                with using:
                    item = await step(value)
            except StopAsyncIteration:
                return
            try:
                step, value = generator.asend, (yield item)
            except GeneratorExit:
                with using:
                    await generator.aclose()
                raise
            except BaseException as error:  # noqa: BLE001 - it is the generator's to handle
                step, value = generator.athrow, error

    return stepped


@overload
def using_primary(target: Decorated, /) -> Decorated: ...
@overload
def using_primary(*clusters: str) -> Using: ...
def using_primary(*given: Any) -> Any:
    """Read the primary: in a block, or in whatever is decorated.

    Without arguments of all clusters, else of those whose primaries are named. Works on
    functions, methods, coroutines, generators and classes of views. Raises
    `ConfigurationError` for an alias that is no primary, `TypeError` for what
    can't be decorated.
    """
    return _using(PRIMARY, given)


@overload
def using_replica(target: Decorated, /) -> Decorated: ...
@overload
def using_replica(*clusters: str, stale: bool = False) -> Using: ...
def using_replica(*given: Any, stale: bool = False) -> Any:
    """Read a replica that is up, fresh enough and has what the client wrote before.

    The primary serves all the same in a transaction, and after the request itself wrote.
    With `stale` a replica that is fresh enough for anybody serves the writer, too, whatever he
    wrote: for reports. In a transaction the primary serves even then. The
    arguments are those of `using_primary`.
    """
    return _using(REPLICA, given, stale=stale)


def _using(mode: str, given: tuple[Any, ...], *, stale: bool = False) -> Any:
    if len(given) == 1 and not isinstance(given[0], str):
        return Using(mode, (), stale=stale)(given[0])
    return Using(mode, given, stale=stale)
