"""What works on one application server, and breaks on several: found in a site's settings.

Each server has a memory, a disk and a loopback of its own. What a site keeps there is another
thing on each server, and which one a visitor meets is up to the balancer. Django's own checks
say nothing of it, for they do not know how many servers there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import PurePosixPath
from posixpath import normpath
from typing import Any, Final
from urllib.parse import urlsplit

from outgrow.mistakes import Mistake

_LOOPBACK: Final = ("", "localhost", "127.0.0.1", "::1")
_IN_MEMORY: Final = ("LocMemCache", "DummyCache")
_CACHED_SESSIONS: Final = ("backends.cache", "backends.cached_db")


@dataclass(frozen=True)
class Lock:
    """Where a package has its locks: in a cache, or in files below a folder.

    `path` is that of the setting, or of the one that is not written, and has its default.
    """

    path: str
    cache: str = ""
    folder: str = ""


@dataclass(frozen=True)
class Facts:
    """The settings that matter: CACHES, DATABASES, STORAGES, MEDIA_ROOT, and those of sessions.

    `session_folder` is where the backend of files keeps them. `shared` are the folders that all
    application servers have in common. `throttles` are the classes that limit requests.
    `pooled` are the aliases that lead to a pooler, which each server may have for itself.
    `log_files` are by the path of their setting; `mail_folder` is empty where mails are sent.
    `upload_folder` is where large uploads are while they come, `temporary_folder` that of the
    system. `imports` is the class that keeps what django-import-export asks about, if it is
    installed, and `locks` are those of other packages.
    """

    caches: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    databases: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    storages: Mapping[str, Any] = field(default_factory=dict)
    media_root: str = ""
    session_engine: str = "django.contrib.sessions.backends.db"
    session_cache: str = "default"
    session_folder: str = ""
    shared: tuple[str, ...] = ()
    throttles: tuple[str, ...] = ()
    log_files: Mapping[str, str] = field(default_factory=dict)
    mail_folder: str = ""
    static_root: str = ""
    pooled: tuple[str, ...] = ()
    upload_folder: str = ""
    temporary_folder: str = "/tmp"  # noqa: S108 - nothing is opened
    imports: str = ""
    locks: tuple[Lock, ...] = ()

    def is_shared(self, folder: object) -> bool:
        """Whether a folder is one that they share, or lies in one."""
        return bool(self.share_of(folder))

    def share_of(self, folder: object) -> str:
        """The folder that they share in which another one lies; an empty text without one."""
        path = PurePosixPath(normpath(str(folder)))
        shared = (one for one in self.shared if path.is_relative_to(PurePosixPath(normpath(one))))
        return max(shared, key=len, default="")


def mistakes(facts: Facts) -> Iterator[Mistake]:
    """All that breaks, or is another thing, on each of several application servers."""
    yield from _sessions(facts)
    yield from _throttles(facts)
    yield from _spellings(facts)
    yield from _imports(facts)
    for lock in facts.locks:
        yield from _lock(facts, lock)
    for alias, entry in facts.caches.items():
        yield from _cache(facts, alias, entry)
    for alias, entry in facts.databases.items():
        yield from _database(alias, entry, is_pooled=alias in facts.pooled)
    for alias, entry in facts.storages.items():
        if isinstance(entry, Mapping):
            yield from _storage(facts, alias, entry)


def advice(facts: Facts) -> Iterator[Mistake]:
    """What is right on some sites, and a trap on others: for `check --deploy`."""
    yield from _logs(facts)
    yield from _static(facts)
    yield from _uploads(facts)
    for alias, entry in facts.databases.items():
        yield from _named(alias, entry)


def _sessions(facts: Facts) -> Iterator[Mistake]:
    engine = facts.session_engine
    backend = _backend(facts.caches.get(facts.session_cache, {}))
    if engine.endswith(_CACHED_SESSIONS) and backend in _IN_MEMORY:
        yield Mistake(
            f"Sessions are in CACHES[{facts.session_cache!r}], a {backend}: each process has its "
            "own, and visitors are logged out at random.",
            "Use Redis or memcached for that cache, or keep sessions in the database.",
            "E501",
        )
    if engine.endswith("backends.file") and not facts.is_shared(facts.session_folder):
        yield Mistake(
            f"Sessions are files in {facts.session_folder or 'the temporary folder'}, which each "
            "application server has for itself.",
            "Keep them in the database or in a cache. If all servers share that folder, declare "
            "it: [mounts] of the topology, or OUTGROW['SHARED_FOLDERS'].",
            "E503",
        )


def _cache(facts: Facts, alias: str, entry: Mapping[str, Any]) -> Iterator[Mistake]:
    backend, path = _backend(entry), f"CACHES[{alias!r}]"
    if backend == "LocMemCache":
        yield Mistake(
            f"{path} is a LocMemCache: each process has its own. What is deleted on one server "
            "is served by the others, limits count anew on each, and a lock locks nobody out.",
            "Use Redis or memcached, which all servers ask.",
            "W502",
        )
    if backend == "FileBasedCache" and not facts.is_shared(entry.get("LOCATION", "")):
        yield Mistake(
            f"{path} is in the folder {entry.get('LOCATION')}, which each application server has "
            "for itself.",
            "Use Redis or memcached. If all servers share that folder, declare it: [mounts] of the "
            "topology, or OUTGROW['SHARED_FOLDERS'].",
            "W506",
        )
    if any(_is_here(one) for one in _locations(entry)) and backend not in _OF_NO_SERVER:
        yield Mistake(
            f"{path} is at {', '.join(map(str, _locations(entry)))}: each application server asks "
            "a cache of its own.",
            "Write the address of one that all servers reach.",
            "W509",
        )


def _throttles(facts: Facts) -> Iterator[Mistake]:
    backend = _backend(facts.caches.get("default", {}))
    # Those of the framework count in the default cache; a site's own may count elsewhere.
    own = [one for one in facts.throttles if one.startswith("rest_framework.throttling.")]
    if not own or backend not in _IN_MEMORY:
        return
    counts = "nothing is counted" if backend == "DummyCache" else "each process counts anew"
    yield Mistake(
        f"{own[0]} counts in CACHES['default'], a {backend}: {counts}, and who is over his limit "
        "is let in all the same.",
        "Use Redis or memcached for that cache.",
        "E510",
    )


def _imports(facts: Facts) -> Iterator[Mistake]:
    """One request writes the file, and another one reads it, when the user has confirmed."""
    name = facts.imports.rpartition(".")[2]
    if name == "TempFolderStorage" and not facts.is_shared(facts.temporary_folder):
        yield Mistake(
            f"django-import-export keeps what is to be imported in {facts.temporary_folder}, which "
            "each application server has for itself: when the user confirms, another server has "
            "no such file.",
            "Set IMPORT_EXPORT_TMP_STORAGE_CLASS to import_export.tmp_storages.MediaStorage or "
            "CacheStorage.",
            "W516",
        )


def _lock(facts: Facts, lock: Lock) -> Iterator[Mistake]:
    backend = _backend(facts.caches.get(lock.cache, {})) if lock.cache else ""
    if backend in _IN_MEMORY:
        where = f"in CACHES[{lock.cache!r}], a {backend}"
    elif lock.folder and not facts.is_shared(lock.folder):
        where = f"in files below {lock.folder}, of which each server has its own"
    else:
        return
    yield Mistake(
        f"{lock.path} has its locks {where}: what shall run once runs on each server.",
        "Keep locks in Redis, or in the database.",
        "W518",
    )


def _uploads(facts: Facts) -> Iterator[Mistake]:
    """A file is moved to its place by a rename, and copied where that can't be."""
    folder = facts.upload_folder
    share = facts.share_of(folder) if folder else ""
    if share and share != facts.share_of(facts.media_root):
        yield Mistake(
            f"FILE_UPLOAD_TEMP_DIR is {folder}, below the shared folder {share}, and MEDIA_ROOT is "
            "not: each large upload goes over the network to there, and back, before it is saved.",
            "Leave it out: such a file belongs to one request, and each server may have its own.",
            "I517",
        )


def _spellings(facts: Facts) -> Iterator[Mistake]:
    """Which of several memcached has a key depends on how they are spelt."""
    seen: dict[frozenset[str], tuple[str, frozenset[str]]] = {}
    for alias, entry in facts.caches.items():
        spelt = frozenset(map(str, _locations(entry)))
        if "memcache" not in _backend(entry).lower() or len(spelt) < 2:
            continue
        servers = frozenset(map(_memcached, spelt))
        first, others = seen.setdefault(servers, (alias, spelt))
        if len(servers) < len(spelt) or others != spelt:
            where = "" if first == alias else f" and CACHES[{first!r}]"
            yield Mistake(
                f"CACHES[{alias!r}]{where}: one memcached is spelt in two ways. Which server has "
                "a key depends on the spelling, so what is written by one is not found by the "
                "other.",
                "Write each server once, and always as 'address:port'.",
                "W512",
            )


def _memcached(location: str) -> str:
    """One spelling of a server's address."""
    text = location.strip().lower().removeprefix("inet:")
    host, _, port = text.rpartition(":")
    if not port.isdigit():
        host, port = text, "11211"
    return f"{'127.0.0.1' if host in _LOOPBACK else host}:{port}"


def _logs(facts: Facts) -> Iterator[Mistake]:
    for path, file in facts.log_files.items():
        if not file.startswith(("/dev/", "/proc/")):
            yield Mistake(
                f"{path} writes to {file}, of which each application server has its own: what "
                "happened to a visitor is in one of them.",
                "Log to the standard error, and let the journal be collected. If these files are "
                "collected, silence this.",
                "W513",
            )
    if facts.mail_folder and not facts.is_shared(facts.mail_folder):
        yield Mistake(
            f"EMAIL_BACKEND writes mails to {facts.mail_folder}, on the disk of the server that "
            "was asked: nobody gets them.",
            "Use django.core.mail.backends.smtp.EmailBackend.",
            "W513",
        )


def _static(facts: Facts) -> Iterator[Mistake]:
    entry = facts.storages.get("staticfiles")
    backend = _backend(entry) if isinstance(entry, Mapping) else ""
    if backend.endswith("ManifestStaticFilesStorage") and not facts.is_shared(facts.static_root):
        yield Mistake(
            f"STORAGES['staticfiles'] is a {backend} in {facts.static_root or 'STATIC_ROOT'}: "
            "each application server has the files of its own release alone. While a new one is "
            "brought out, its pages ask servers of the old one for files that they have not, and "
            "the other way round.",
            "Publish static files to a place that keeps those of former releases: "
            "`outgrow publish`.",
            "W514",
        )


def _named(alias: str, entry: Mapping[str, Any]) -> Iterator[Mistake]:
    hosts = [one.strip() for one in str(entry.get("HOST") or "").split(",")]
    named = [one for one in hosts if not _is_here_or_socket(one) and not _is_address(one)]
    if named:
        yield Mistake(
            f"DATABASES[{alias!r}] is at {named[0]}, a name: each new connection waits for a name "
            "server, and fails without one.",
            "Write the address. Where the name is to follow a server that changes its address, "
            "silence this.",
            "I515",
        )


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


#: Caches whose LOCATION is no address.
_OF_NO_SERVER: Final = (*_IN_MEMORY, "FileBasedCache", "DatabaseCache")


def _database(alias: str, entry: Mapping[str, Any], *, is_pooled: bool) -> Iterator[Mistake]:
    engine, path = str(entry.get("ENGINE", "")), f"DATABASES[{alias!r}]"
    is_server = engine and not engine.endswith("dummy")
    if engine.endswith(("sqlite3", "spatialite")):
        yield Mistake(
            f"{path} is SQLite: each application server has rows of its own.",
            "Use PostgreSQL or MariaDB, on one server that all reach.",
            "E504",
        )
    elif is_server and not is_pooled and _is_here_or_socket(entry.get("HOST", "")):
        where = entry.get("HOST") or "a socket of this machine"
        yield Mistake(
            f"{path} is at {where}: each application server asks a database of its own.",
            "Write the address of the database server. If a pooler listens there, name the alias "
            "in OUTGROW['POOLED'].",
            "E508",
        )


def _storage(facts: Facts, alias: str, entry: Mapping[str, Any]) -> Iterator[Mistake]:
    backend = _backend(entry)
    if backend != "FileSystemStorage" or alias == "staticfiles":
        return
    options = entry.get("OPTIONS") or {}
    location = options.get("location") or facts.media_root
    if facts.is_shared(location):
        return
    yield Mistake(
        f"STORAGES[{alias!r}] keeps files in {location or 'MEDIA_ROOT'}, which each application "
        "server has for itself: half of the visitors miss what was uploaded.",
        "Use a HybridStorage with media servers, or an ObjectStorage. If all servers share that "
        "folder, declare it: [mounts] of the topology, or OUTGROW['SHARED_FOLDERS'].",
        "E505",
    )


def _backend(entry: Mapping[str, Any]) -> str:
    """The name of a backend's class."""
    return str(entry.get("BACKEND", "")).rpartition(".")[2]


def _locations(entry: Mapping[str, Any]) -> list[Any]:
    found = entry.get("LOCATION") or []
    return list(found) if isinstance(found, (list, tuple)) else [found]


def _is_here(location: object) -> bool:
    """Whether an address of a cache is this machine's: a URL, `host:port`, or a socket."""
    text = str(location)
    if text.startswith(("unix:", "/")):
        return True
    try:
        host = urlsplit(text if "://" in text else f"//{text}").hostname
    except ValueError:
        return False
    return (host or "") in _LOOPBACK


def _is_here_or_socket(host: object) -> bool:
    return str(host) in _LOOPBACK or str(host).startswith("/")
