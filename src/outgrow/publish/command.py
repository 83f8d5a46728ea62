"""What `outgrow publish` does, with Django's settings or without them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from outgrow.errors import ConfigurationError, PublishError
from outgrow.publish import configuration as configuring
from outgrow.publish import inspection, survey
from outgrow.publish.ages import age
from outgrow.publish.build import Build
from outgrow.publish.configuration import Configuration
from outgrow.publish.difference import Difference
from outgrow.publish.manifest import write
from outgrow.publish.policy import Policy as Naming
from outgrow.publish.prune import Policy, Prune
from outgrow.publish.push import Publisher, Report, publish_together, serve_again
from outgrow.publish.release import Kind, Release
from outgrow.publish.scan import Scan, scan
from outgrow.publish.targets import Target

#: Lines of each kind that are told to people; --json has all.
_SHOWN: Final = 20

#: Digits of an id that people are shown.
_SHORT: Final = 12


@dataclass(frozen=True)
class Request:
    """What is to be done, as the command line says.

    One of `check`, `rollback` (with the id of a release, or its beginning), `prune` and
    `releases`; none of them: publish. With `build` the manifest is written, and nothing is sent.
    `verify` is the URL below which visitors find the files.
    """

    build: bool = False
    check: str = ""
    rollback: str = ""
    releases: bool = False
    prune: bool = False
    keep: int = Policy.keep
    older: timedelta = Policy.older
    most: int | None = None
    delete: bool = False
    dry_run: bool = False
    verify: str = ""
    json: bool = False


class Command:
    """One run. `find` gives the files; `out` takes results, and `err` progress and warnings, by
    default the process's own.

    `look` gives warnings about a release, or raises a PublishError: does the site name what is not
    there?
    """

    def __init__(
        self,
        configuration: Configuration,
        request: Request,
        find: Callable[[], Scan],
        *,
        look: Callable[[Release, Naming], list[str]] = lambda _release, _policy: [],
        out: IO[str] | None = None,
        err: IO[str] | None = None,
    ) -> None:
        self._configuration = configuration
        self._request = request
        self._find = find
        self._look = look
        self._out = Console(file=out, highlight=False, soft_wrap=True)
        self._err = Console(file=err, stderr=err is None, highlight=False, soft_wrap=True)
        self._advance: Callable[[], None] = _nothing

    def run(self) -> int:
        """Do it; the exit code. Raises what is told to people: OutgrowError, FileNotFoundError."""
        if self._request.build:
            return self._write_manifest()
        if not self._configuration.targets:
            raise ConfigurationError(
                "publish.to", "is missing.", "Say where to: --to s3://BUCKET/PREFIX, or a folder."
            )
        targets = [one.target() for one in self._configuration.targets]
        request = self._request
        if request.releases:
            return self._releases(targets)
        if request.check:
            return self._check(targets)
        if request.rollback:
            return self._roll_back(targets)
        code = self._publish(targets) if not request.prune else 0
        return max(code, self._prune(targets)) if request.prune else code

    # --- publishing

    def _write_manifest(self) -> int:
        path = self._configuration.manifest
        if path is None:
            hint = "Say where the manifest of the build is to be written: --manifest PATH."
            raise ConfigurationError("publish.manifest", "is missing.", hint)
        build = self._built()
        self._warn(build.warnings)
        write(path, build.release)
        if self._request.json:
            self._json({"manifest": str(path), **_release_facts(build.release, build.warnings)})
        else:
            self._out.print(f"{escape(str(path))}: release {build.release.id}")
        return 0

    def _publish(self, targets: Sequence[Target]) -> int:
        build = self._built()
        warnings = build.warnings
        self._warn(warnings)
        publishers = [self._publisher(target, build) for target in targets]
        if self._request.dry_run:
            return self._show_plans(build.release, publishers, warnings)
        if self._configuration.manifest is not None:
            write(self._configuration.manifest, build.release)
        reports = publish_together(publishers, partial(self._bar, "publishing"))
        wrong = self._verify(build.release)
        self._invalidate(reports)
        self._show(reports, _release_facts(build.release, warnings), wrong)
        return 1 if wrong else 0

    def _built(self) -> Build:
        build = self._configuration.build(self._find())
        if not len(build.release):
            raise PublishError("There is nothing to publish: no file was found.")
        build.warnings += self._look(build.release, self._configuration.settings.policy)
        return build

    def _publisher(self, target: Target, build: Build) -> Publisher:
        release = build.release
        if not self._configuration.settings.stamps and not self._request.delete:
            release = _with_former(target, release)
        return Publisher(target, release, build, told=self._told)

    def _told(self, _key: str, _size: int) -> None:
        self._advance()

    @contextmanager
    def _bar(self, what: str, total: int) -> Iterator[None]:
        if self._request.json or not self._err.is_terminal or not total:
            yield
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("files"),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._err, transient=True) as progress:
            files = progress.add_task(what, total=total)
            self._advance = partial(progress.advance, files)
            try:
                yield
            finally:
                self._advance = _nothing

    def _verify(self, release: Release) -> list[str]:
        """What visitors get wrong; nothing where that was not asked for."""
        if not self._request.verify:
            return []
        with self._bar("verifying", len(release)):
            wrong = inspection.verify(release, self._request.verify, lambda _key: self._advance())
        for line in wrong[:_SHOWN]:
            self._err.print(f"[red]wrong[/]: {escape(line)}")
        return wrong

    def _invalidate(self, reports: Sequence[Report]) -> None:
        """Tell the site's own command which names without a hash have changed."""
        words = self._configuration.invalidate
        changed = sorted({key for report in reports for key in report.changed})
        if not words or not changed:
            return
        try:
            subprocess.run(
                words, input="".join(f"{key}\n" for key in changed), text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError) as error:
            raise PublishError(
                f"Everything is published, but the command of 'invalidate' failed: {error}. "
                f"Caches may hold the old {', '.join(changed[:3])}."
            ) from error

    # --- the rest

    def _releases(self, targets: Sequence[Target]) -> int:
        found = {target.name: list(_facts(target)) for target in targets}
        if self._request.json:
            self._json([fact for facts in found.values() for fact in facts])
            return 0
        for name, facts in found.items():
            table = Table(title=f"Releases at {escape(name)}", title_justify="left")
            for heading in ("release", "begun", "served", "files"):
                table.add_column(heading, justify="right" if heading == "files" else "left")
            for fact in facts:
                state = "now" if fact["is_served"] else fact["until"] or "never"
                short = fact["release"][:_SHORT]
                table.add_row(short, fact["begun"], state, str(fact["files"]))
            self._out.print(table)
        return 0

    def _check(self, targets: Sequence[Target]) -> int:
        found = {}
        for target in targets:
            identifier = inspection.resolved(target, self._request.check)
            found[target.name] = inspection.missing(target, identifier)
        if self._request.json:
            self._json(found)
        for name, keys in found.items() if not self._request.json else ():
            if not keys:
                self._out.print(f"{escape(name)}: everything is there.")
            for key in keys[:_SHOWN]:
                self._out.print(f"{escape(name)}: [red]missing[/]: {escape(key)}")
            if len(keys) > _SHOWN:
                self._out.print(f"{escape(name)}: and {len(keys) - _SHOWN} more.")
        return 1 if any(found.values()) else 0

    def _roll_back(self, targets: Sequence[Target]) -> int:
        identifiers = [inspection.resolved(one, self._request.rollback) for one in targets]
        if self._request.dry_run:
            for target, identifier in zip(targets, identifiers, strict=True):
                self._out.print(f"{escape(target.name)}: would serve {identifier} again.")
            return 0
        reports = [
            serve_again(target, identifier)
            for target, identifier in zip(targets, identifiers, strict=True)
        ]
        self._invalidate(reports)
        self._show(reports)
        return 0

    def _prune(self, targets: Sequence[Target]) -> int:
        policy = Policy(self._request.keep, self._request.older)
        facts = []
        for target in targets:
            prune = Prune(target, policy, most=self._request.most)
            plan = prune.plan() if self._request.dry_run else prune.apply()
            facts.append(
                {
                    "target": target.name,
                    "condemned": sorted(plan.condemn),
                    "deleted": sorted(plan.delete),
                    "kept": sorted(plan.kept),
                    "dry_run": self._request.dry_run,
                }
            )
            if self._request.json:
                continue
            would = "would be " if self._request.dry_run else ""
            self._out.print(
                f"{escape(target.name)}: {len(plan.condemn)} files {would}condemned, "
                f"{len(plan.delete)} {would}deleted, {len(plan.kept)} releases kept"
            )
            if self._request.dry_run:
                self._lines("condemn", sorted(plan.condemn))
                self._lines("delete", sorted(plan.delete))
        if self._request.json:
            self._json(facts)
        return 0

    # --- what people see

    def _warn(self, warnings: Sequence[str]) -> None:
        for line in warnings[:_SHOWN]:
            self._err.print(f"[yellow]warning[/]: {escape(line)}")
        if len(warnings) > _SHOWN:
            self._err.print(f"[yellow]warning[/]: and {len(warnings) - _SHOWN} more")

    def _show_plans(
        self, release: Release, publishers: Sequence[Publisher], warnings: Sequence[str]
    ) -> int:
        plans = [(publisher.name, publisher.plan()) for publisher in publishers]
        if self._request.json:
            self._json(
                {
                    **_release_facts(release, warnings),
                    "dry_run": True,
                    "targets": [{"target": name, **_plan_facts(plan)} for name, plan in plans],
                }
            )
            return 0
        for name, plan in plans:
            self._out.print(f"{escape(name)}: release {release.id[:_SHORT]}, nothing was sent")
            self._lines("put", [form.key for form in plan.assets])
            self._lines("put", [form.key for form in (*plan.before_pages, *plan.pages)])
            self._lines("delete", plan.gone)
            self._out.print(f"  {plan.count} to do, {plan.skipped} unchanged")
        return 0

    def _lines(self, what: str, keys: Sequence[str]) -> None:
        for key in keys:
            self._out.print(f"  {what} {escape(key)}")

    def _show(
        self,
        reports: Sequence[Report],
        facts: Mapping[str, Any] | None = None,
        wrong: Sequence[str] = (),
    ) -> None:
        if self._request.json:
            found = {"targets": [asdict(report) for report in reports], **(facts or {})}
            self._json(found | ({"wrong": wrong} if self._request.verify else {}))
            return
        for report in reports:
            for line in report_lines(report):
                self._out.print(escape(line))
        if self._request.verify and not wrong:
            self._out.print(f"{self._request.verify}: visitors get what was published.")

    def _json(self, facts: Any) -> None:
        self._out.file.write(f"{json.dumps(facts, indent=2)}\n")


def report_lines(report: Report) -> Iterator[str]:
    """What was done at one target, for people."""
    short = report.release[:_SHORT]
    if not report.has_moved:
        yield f"{report.target}: release {short} is there already, {report.skipped} files unchanged"
        return
    yield f"{report.target}: release {short} is served"
    saved = report.plain_bytes - report.bytes
    packed = f", {size_text(saved)} saved by compression" if saved > 0 else ""
    yield f"  {report.sent} files sent, {size_text(report.bytes)}{packed}"
    deleted = f", {report.deleted} pages deleted" if report.deleted else ""
    yield f"  {report.skipped} unchanged{deleted}"


def size_text(size: float) -> str:
    """Bytes for people: "512 B", "3.4 KB", "12 MB"."""
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _nothing() -> None:
    pass


def _release_facts(release: Release, warnings: Sequence[str]) -> dict[str, Any]:
    return {"release": release.id, "files": len(release), "warnings": warnings}


def _plan_facts(plan: Difference) -> dict[str, Any]:
    return {
        "put": [form.key for form in (*plan.assets, *plan.before_pages, *plan.pages)],
        "delete": list(plan.gone),
        "unchanged": plan.skipped,
    }


def _facts(target: Target) -> Iterator[dict[str, Any]]:
    seen = survey.look(target)
    records = ((one, survey.record_if_any(target, one)) for one in seen.records)
    known = [(one, record) for one, record in records if record is not None]
    for identifier, record in sorted(known, key=lambda pair: pair[1].written, reverse=True):
        until = seen.pointer.until(identifier)
        yield {
            "target": target.name,
            "release": identifier,
            "begun": _time(record.written),
            "until": _time(until) if until else None,
            "is_served": identifier == seen.pointer.id,
            "files": len(record.release),
        }


def _time(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _with_former(target: Target, release: Release) -> Release:
    """The release, and the plain files that are served and are not among these."""
    served = survey.pointer(target).id
    record = survey.record_if_any(target, served) if served else None
    if record is None:
        return release
    former = [
        entry
        for entry in record.release
        if entry.kind is Kind.PLAIN and entry.name not in release.entries
    ]
    return Release([*release, *former])


# --- which files


def files_of(
    configuration: Configuration, paths: Sequence[str], here: Path, listed: Iterator[str]
) -> Scan:
    """The files that a command line means. `-` takes names from `listed`, one a line.

    A folder's files are named as they lie in it; a single file as it lies below the folder of the
    configuration, or else below `here`. Without paths it is what the configuration says; and of
    that, where names are kept, the folder that one is in.
    """
    if not paths:
        return scan(
            _configured(configuration, here),
            ignore=configuration.ignore,
            follow=configuration.follow,
        )
    roots: list[tuple[str, Path]] = []
    for path in paths:
        several = (line.rstrip("\n") for line in listed) if path == "-" else [path]
        roots += [_root(configuration, one, here) for one in several if one]
    return scan(roots, ignore=configuration.ignore, follow=configuration.follow)


def _configured(configuration: Configuration, here: Path) -> list[tuple[str, Path]]:
    if not configuration.roots:
        hint = "Say which folder: outgrow publish FOLDER, or write it into outgrow.toml."
        raise ConfigurationError("publish.root", "is missing.", hint)
    for root in configuration.roots:
        if not root.exists():
            raise ConfigurationError("publish.root", f"is {root}, which is not there.")
        is_inside = here.is_relative_to(root) and here != root
        if is_inside and not configuration.settings.stamps:
            return [(f"{configuration.prefix}{here.relative_to(root).as_posix()}/", here)]
    return [(configuration.prefix, root) for root in configuration.roots]


def _root(configuration: Configuration, path: str, here: Path) -> tuple[str, Path]:
    whole = Path(os.path.abspath(here / path))  # links stay as they are
    if not whole.exists():
        raise PublishError(f"{path} is not there.")
    if whole.is_dir():
        return configuration.prefix, whole
    for base in (*configuration.roots, configuration.folder, here):
        if whole.is_relative_to(base):
            return f"{configuration.prefix}{whole.relative_to(base).as_posix()}", whole
    return f"{configuration.prefix}{whole.name}", whole


def lines_of_input() -> Iterator[str]:
    """Names from the standard input; those of `find -print0` too."""
    text = sys.stdin.read()
    yield from text.split("\0") if "\0" in text else text.splitlines()


# --- what the command line says


def configured(given: Mapping[str, Any], here: Path) -> Configuration:
    """The configuration: `config`, or the nearest file; and over it what the command line says.

    Raises ConfigurationError.
    """
    path = given["config"] or configuring.nearest(here)
    found = configuring.load(path) if path else Configuration(here)
    return overridden(found, given, here)


def overridden(found: Configuration, given: Mapping[str, Any], here: Path) -> Configuration:
    """The same, with what the command line says."""
    changes: dict[str, Any] = {}
    if given["targets"]:
        changes["targets"] = tuple(configuring.target(one, here) for one in given["targets"])
    if given["prefix"] is not None:
        changes["prefix"] = configuring.parse({"prefix": given["prefix"]}, here, "--prefix").prefix
    if given["manifest"] is not None:
        changes["manifest"] = here / given["manifest"]
    if given["stamps"] is not None:
        changes["settings"] = replace(found.settings, stamps=given["stamps"])
    return replace(found, **changes)


def requested(given: Mapping[str, Any]) -> Request:
    """What is to be done. Raises ConfigurationError."""
    return Request(
        build=given["build"],
        check=given["check"],
        rollback=given["rollback"],
        releases=given["releases"],
        prune=given["prune"],
        keep=given["keep"],
        older=age(given["older"], "--older"),
        most=given["most"],
        delete=given["delete"],
        dry_run=given["dry_run"],
        verify=given["verify"],
        json=given["json"],
    )
