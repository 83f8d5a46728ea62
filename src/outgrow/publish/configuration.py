"""What is published, where to, and how: a table of TOML, or the options of a storage.

::

    [publish]
    root = "static"                      # a folder beside this file, or several
    to = "s3://assets.example.org/site"  # or a folder, or a list of both

``storage:ALIAS`` are the servers of a `HybridStorage` of STORAGES. With more to say of a target it
is a table of its own; what it may hold beside `url` are the options of an `ObjectStorage`, and
`siblings` for a folder and for servers::

    [[publish.to]]
    url = "s3://assets/site"
    endpoint = "https://s3.eu-west-3.amazonaws.com"
    secret_env = "ASSETS_SECRET"         # the name of an environment variable
    access_key = "AKIA..."

Secrets do not belong into a file that is in a repository.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from outgrow import conf
from outgrow.errors import ConfigurationError
from outgrow.publish import policy, tables
from outgrow.publish.build import Build, Settings
from outgrow.publish.cache import Cache, default_folder
from outgrow.publish.encodings import Encoding
from outgrow.publish.scan import IGNORED, Scan
from outgrow.publish.targets import SIBLINGS, FolderTarget, StoreTarget, Target

#: The file that says all of it, in the folder of a project.
FILE: Final = "outgrow.toml"

KEYS: Final = (
    "cache",
    "encoding",
    "follow",
    "headers",
    "ignore",
    "immutable",
    "invalidate",
    "keep",
    "manifest",
    "may_miss",
    "no_transform",
    "prefix",
    "root",
    "stamps",
    "to",
    "types",
    "url",
)

_ENCODINGS: Final = {"gzip": Encoding.GZIP, "br": Encoding.BROTLI, "none": Encoding.IDENTITY}
_SIBLINGS: Final = {one.value: one for one in SIBLINGS}
_STORES: Final = ("s3", "gs", "az", "memory")


@dataclass(frozen=True)
class TargetOptions:
    """Where to: a folder, or servers, with compressed files beside; or an object store's options.

    `alias` is one of STORAGES.
    """

    folder: Path | None = None
    alias: str = ""
    siblings: tuple[Encoding, ...] = SIBLINGS
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def target(self) -> Target:
        """The target. Nothing is opened. Raises ConfigurationError without Django's settings."""
        if self.folder is not None:
            return FolderTarget(self.folder, self.siblings)
        if self.alias:
            return _servers(self.alias, self.siblings)
        return StoreTarget(**self.options)


@dataclass(frozen=True)
class Configuration:
    """A checked table. `folder` is what its paths are relative to.

    `manifest` is where the manifest of a build is written, for the application's own use;
    `cache` where results are kept, None for the user's own folder. `invalidate` are the words of
    a command that is told, on its input, which URLs without a hash have changed.
    """

    folder: Path
    roots: tuple[Path, ...] = ()
    targets: tuple[TargetOptions, ...] = ()
    prefix: str = ""
    settings: Settings = Settings()  # noqa: RUF009 - it is frozen
    ignore: tuple[str, ...] = IGNORED
    follow: bool = False
    manifest: Path | None = None
    cache: Path | None = None
    invalidate: tuple[str, ...] = ()

    def build(self, scan: Scan) -> Build:
        """How a release is made of these files. Nothing is read yet."""
        return Build(scan, self.settings, cache=Cache(self.cache or default_folder()))


def nearest(start: Path) -> Path | None:
    """The configuration of a folder: its own, or that of the nearest folder above it."""
    for folder in (start, *start.parents):
        path = folder / FILE
        if path.is_file():
            return path
    return None


def load(path: Path) -> Configuration:
    """Read a file. Raises ConfigurationError with the path of the key that is wrong."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(str(path), f"can't be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(str(path), f"is no TOML: {error}.") from error
    table = content.get("publish", {})
    if not isinstance(table, dict):
        raise ConfigurationError("publish", "is not a table.", "Write [publish].")
    return parse(table, path.parent.absolute())


def parse(content: Mapping[str, Any], folder: Path, path: str = "publish") -> Configuration:
    """Check a table. Raises ConfigurationError for the first key that is wrong."""
    tables.refuse_unknown(content, KEYS, path)
    return Configuration(
        folder,
        tuple(folder / one for one in _texts(content.get("root", []), f"{path}.root")),
        tuple(_targets(content.get("to", []), folder, f"{path}.to")),
        _prefix(content.get("prefix", ""), f"{path}.prefix"),
        Settings(
            policy.parse(content, path),
            _url_path(content.get("url", "/static/"), f"{path}.url"),
            _choice(content.get("encoding", "gzip"), _ENCODINGS, f"{path}.encoding"),
            stamps=tables.flag(content.get("stamps", True), f"{path}.stamps"),
        ),
        (*IGNORED, *_texts(content.get("ignore", []), f"{path}.ignore")),
        tables.flag(content.get("follow", False), f"{path}.follow"),
        _file(content.get("manifest", ""), folder, f"{path}.manifest"),
        _file(content.get("cache", ""), folder, f"{path}.cache"),
        _texts(content.get("invalidate", []), f"{path}.invalidate"),
    )


def _targets(given: object, folder: Path, path: str) -> Iterator[TargetOptions]:
    if isinstance(given, (str, os.PathLike, Mapping)):
        yield target(given, folder, path)
        return
    if not isinstance(given, (list, tuple)):
        hint = "Write a URL, a folder, a table, or a list."
        raise ConfigurationError(path, f"is {given!r}.", hint)
    for number, one in enumerate(given):
        yield target(one, folder, f"{path}[{number}]")


def target(given: object, folder: Path, path: str = "--to") -> TargetOptions:
    """One target: a URL, a folder, or a table. Raises ConfigurationError."""
    table = dict(given) if isinstance(given, Mapping) else {"url": given}
    url = table.pop("url", None)
    if isinstance(url, os.PathLike):
        url = os.fspath(url)
    if not isinstance(url, str) or not url:
        hint = "Write 's3://BUCKET/PREFIX', or a folder."
        raise ConfigurationError(
            f"{path}.url", "is missing." if url is None else "is no URL.", hint
        )
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme in _STORES:
        return TargetOptions(options=_store(url, table, path))
    alias = url.removeprefix("storage:") if url.startswith("storage:") else ""
    if scheme not in {"", "file"}:
        hint = "Write 's3://BUCKET/PREFIX', 'gs://...', 'az://...', or a folder."
        raise ConfigurationError(f"{path}.url", f"has the scheme {scheme!r}.", hint)
    siblings = table.pop("siblings", [one.value for one in SIBLINGS])
    for key in table:
        what = "servers" if alias else "a folder"
        raise ConfigurationError(f"{path}.{key}", f"has no meaning for {what}.", "Leave it out.")
    chosen = tuple(
        _choice(one, _SIBLINGS, f"{path}.siblings") for one in _texts(siblings, f"{path}.siblings")
    )
    if alias:
        return TargetOptions(alias=alias, siblings=chosen)
    return TargetOptions(folder / url.removeprefix("file://"), siblings=chosen)


def _servers(alias: str, siblings: tuple[Encoding, ...]) -> Target:
    """The storage of an alias, which only Django's settings tell."""
    from django.core.exceptions import ImproperlyConfigured
    from django.core.files.storage import InvalidStorageError, storages

    from outgrow.publish.servers import ServersTarget

    try:
        return ServersTarget(alias, storages[alias], siblings)
    except InvalidStorageError as error:
        problem = f"is 'storage:{alias}', and STORAGES has no {alias!r}."
        raise ConfigurationError("publish.to", problem) from error
    except ImproperlyConfigured as error:
        problem = f"is 'storage:{alias}', which only Django's settings tell: {error}"
        raise ConfigurationError("publish.to", problem, "Use manage.py outgrow publish.") from error


def _store(url: str, table: dict[str, Any], path: str) -> dict[str, Any]:
    for key in ("overwrite", "names", "headers", "active_content"):
        if key in table:
            hint = "Names and headers are the release's: see publish.headers."
            raise ConfigurationError(f"{path}.{key}", "has no meaning here.", hint)
    variable = table.pop("secret_env", "")
    if variable:
        secret = os.environ.get(variable, "")
        if not secret:
            problem = f"is {variable!r}, which is not set in the environment."
            raise ConfigurationError(f"{path}.secret_env", problem)
        table["secret_key"] = secret
    options = {"location": url, **table}
    _checked, problems = conf.object_options(options, path)
    if problems:
        raise problems[0]
    return options


def _texts(given: object, path: str) -> tuple[str, ...]:
    several = [given] if isinstance(given, (str, os.PathLike)) else given
    if not isinstance(several, (list, tuple)):
        raise ConfigurationError(path, f"is {given!r}.", "Write a text, or a list of texts.")
    for one in several:
        if not isinstance(one, (str, os.PathLike)) or not os.fspath(one):
            raise ConfigurationError(path, f"holds {one!r}, which is no text.")
    return tuple(os.fspath(one) for one in several)


def _prefix(given: object, path: str) -> str:
    text = given.strip("/") if isinstance(given, str) else None
    if text is None or any(part in {".", ".."} for part in text.split("/")):
        raise ConfigurationError(
            path, f"is {given!r}.", "Write what stands before all names: 'img/'."
        )
    return f"{text}/" if text else ""


def _url_path(given: object, path: str) -> str:
    if not isinstance(given, str) or not given.endswith("/"):
        raise ConfigurationError(path, f"is {given!r}.", "Write STATIC_URL: '/static/'.")
    return urlsplit(given).path or "/"


def _choice(given: object, known: Mapping[str, Encoding], path: str) -> Encoding:
    if isinstance(given, str) and given in known:
        return known[given]
    raise ConfigurationError(path, f"is {given!r}.", f"Write one of {', '.join(known)}.")


def _file(given: object, folder: Path, path: str) -> Path | None:
    if not isinstance(given, (str, os.PathLike)):
        raise ConfigurationError(path, f"is {given!r}.", "Write the path of a file.")
    return folder / os.fspath(given) if os.fspath(given) else None
