"""`manage.py outgrow publish`: the site's static files, found as `collectstatic` finds them."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.core.files.storage import Storage
from django.core.management.base import CommandError

if TYPE_CHECKING:
    from outgrow.publish.configuration import Configuration
    from outgrow.publish.scan import Scan


def add_arguments(parser: ArgumentParser) -> None:
    """The options of `publish`; those of the command without settings, but for the files."""
    to = "s3://BUCKET/PREFIX, or a folder; by default what outgrow.toml or the storage says"
    parser.add_argument("--to", dest="targets", action="append", default=[], help=to)
    parser.add_argument("--config", type=Path, help="the nearest outgrow.toml, if there is one")
    parser.add_argument("--prefix", help="what stands before all names, as in img/")
    parser.add_argument("--manifest", type=Path, help="where the build's manifest is written")
    parser.add_argument(
        "--build", action="store_true", help="write the manifest alone; send nothing"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="do all the work but send and delete nothing"
    )
    parser.add_argument(
        "--verify", metavar="URL", default="", help="then fetch all as a visitor would"
    )
    parser.add_argument("--check", metavar="RELEASE", default="", help="is all of it there?")
    parser.add_argument("--rollback", metavar="RELEASE", default="", help="serve a former one")
    parser.add_argument("--releases", action="store_true", help="list those that are there")
    parser.add_argument(
        "--prune", action="store_true", help="condemn old files; delete those of yesterday"
    )
    parser.add_argument("--keep", type=int, default=5, help="releases, at least (5)")
    parser.add_argument("--older", default="14d", help="since it was last served (14d)")
    parser.add_argument("--max", dest="most", type=int, help="do nothing if it were more files")
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")


def run(options: dict[str, Any]) -> int:
    """Do it; the exit code."""
    # Here, so that the other commands are quick to start.
    from outgrow.publish import command, templates

    here = Path.cwd()
    given = {**options, "stamps": None, "delete": False}
    configuration = command.overridden(_configuration(options, here), given, here)
    request = command.requested(given)
    return command.Command(
        configuration,
        request,
        found,
        look=templates.check,
        out=options.get("stdout"),
        err=options.get("stderr"),
    ).run()


def _configuration(options: dict[str, Any], here: Path) -> Configuration:
    """The option --config, else what the storage says, else the nearest file."""
    from django.contrib.staticfiles.storage import staticfiles_storage

    from outgrow.publish.configuration import Configuration, load, nearest
    from outgrow.publish.storages import PublishedStaticFilesStorage

    path: Path | None = options["config"] or nearest(here)
    if isinstance(staticfiles_storage, PublishedStaticFilesStorage):
        try:
            chosen = load(path) if path and options["config"] else staticfiles_storage.configuration
            manifest = chosen.manifest or staticfiles_storage.manifest_path
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from error
        return replace(chosen, manifest=manifest)
    return load(path) if path else Configuration(here)


def found() -> Scan:
    """The site's static files, by its finders; of two with one name the first counts."""
    paths: dict[str, tuple[Storage, str]] = {}
    for name, storage, path in _found():
        paths.setdefault(name, (storage, path))
    from outgrow.publish.storages import scan

    return scan(paths)


def _found() -> Iterator[tuple[str, Storage, str]]:
    from django.contrib.staticfiles.finders import get_finders

    from outgrow.publish.scan import IGNORED

    for finder in get_finders():
        for path, storage in finder.list(list(IGNORED)):
            prefix = getattr(storage, "prefix", None)
            yield f"{prefix}/{path}" if prefix else path, storage, path
