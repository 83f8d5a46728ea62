"""Django's system checks: every mistake in the settings, with its path and its remedy.

- outgrow.E001: an option of a media storage is wrong.
- outgrow.E002: the master copy has no place: MEDIA_ROOT is not set.
- outgrow.E003: the package that runs the jobs of a storage is not installed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error

from outgrow import conf

if TYPE_CHECKING:
    from outgrow.media.storages import HybridStorage


def check_media(
    app_configs: Sequence[AppConfig] | None = None,  # noqa: ARG001 - Django's signature
    **kwargs: object,  # noqa: ARG001
) -> list[CheckMessage]:
    """Check each media storage in STORAGES. Opens and sends nothing."""
    from outgrow.media.storages import configured

    return [
        message
        for alias, entry, kind in configured()
        for message in _check(alias, entry.get("OPTIONS", {}), kind)
    ]


def _check(
    alias: str, options: Mapping[str, Any], storage: type[HybridStorage]
) -> Iterator[CheckMessage]:
    path, kind = f"STORAGES[{alias!r}]['OPTIONS']", storage.__name__
    if not isinstance(options, Mapping):
        hint = "Write a dictionary with at least 'servers'."
        yield Error(f"{path} is {options!r}.", hint=hint, obj=kind, id="outgrow.E001")
        return
    for problem in conf.media_options(options, path, storage.option_names)[1]:
        message = f"{problem.path}: {problem.problem}"
        yield Error(message, hint=problem.hint or None, obj=kind, id="outgrow.E001")
    yield from _check_runner(options.get("background"), path, kind)
    if not options.get("location") and not conf.media_root():
        yield Error(
            f"{path} has no 'location', and MEDIA_ROOT is not set: the master copy has no place.",
            hint="Set MEDIA_ROOT to a folder that all application servers share.",
            obj=kind,
            id="outgrow.E002",
        )


def _check_runner(runner: object, path: str, kind: str) -> Iterator[CheckMessage]:
    if runner not in conf.BACKGROUND_WORDS or runner == "thread":
        return
    from outgrow.media import jobs

    problem = jobs.missing(str(runner))
    if problem is not None:
        yield Error(f"{path}['background']: {problem}", obj=kind, id="outgrow.E003")
