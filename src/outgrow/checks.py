"""Django's system checks: every mistake in the settings, with its path and its remedy.

- outgrow.E001: an option of a media storage is wrong.
- outgrow.E002: the master copy has no place: MEDIA_ROOT is not set.
- outgrow.E003: the package that runs the jobs of a storage is not installed, or takes none.
- outgrow.E004: the catalogue of a distributed storage has no database connection of its own.
- outgrow.E005: the tables of the catalogue are missing: the app is not installed.
- outgrow.E006: the certificates for TLS can't be used.
- outgrow.W001: Django's tasks have a backend that has no worker.
- outgrow.E201: an option of an object storage is wrong.
- outgrow.E202: the package that speaks to object stores is not installed.
- outgrow.E203: collectstatic would give every file another name.
- outgrow.W204: the URLs of static files are signed, and end.
- outgrow.E301: an option of a storage that moves files is wrong.
- outgrow.E401: an option of the storage of published static files is wrong.
- outgrow.E402: a package that publishing needs is not installed.
- outgrow.W403: the manifest of this build is not there (with --deploy).
- outgrow.E101: an option of OUTGROW["REPLICATION"] is wrong.
- outgrow.E102: the router is missing, or not the first.
- outgrow.E103: the middleware is missing, or stands after that of the sessions.
- outgrow.E104: a replica is no mirror of its primary in tests.
- outgrow.W105: a replica's connections are not kept.
- outgrow.E106: what users wrote can't be remembered in this cache, or by this key.

With ``check --database ALIAS`` the servers are asked:

- outgrow.W107: a replica does not answer.
- outgrow.E108: behind one alias there are several servers.
- outgrow.E109: a replica can be written to.
- outgrow.E110: a replica replays a part only.
- outgrow.W111: a replica tells no position.

With several application servers, as OUTGROW["APP_SERVERS"] says (`shared_nothing`):

- outgrow.E500: APP_SERVERS or SHARED_FOLDERS is wrong.
- outgrow.E501: sessions are in the memory of one process.
- outgrow.W502: a cache is in the memory of one process.
- outgrow.E503: sessions are files of one server.
- outgrow.E504: a database is SQLite.
- outgrow.E505: a storage keeps files on the disk of one server.
- outgrow.W506: a cache is in files of one server.
- outgrow.E507: SECRET_KEY, or what else all processes must have alike, is another one each time
  the settings are loaded (with --deploy).
- outgrow.E508: a database is at the address of this machine.
- outgrow.W509: a cache is at the address of this machine.
- outgrow.E510: limits of requests are counted in the memory of one process.
- outgrow.W512: one memcached of several is spelt in two ways.
- outgrow.W513: logs or mails are files of one server (with --deploy).
- outgrow.W514: each server has the static files of its own release alone (with --deploy).
- outgrow.I515: a database is at a name, which must be looked up (with --deploy).
- outgrow.W516: what django-import-export asks about is on the disk of one server.
- outgrow.I517: uploads go over the network twice before they are saved (with --deploy).
- outgrow.W518: the locks of a package hold on one server alone.

With a pooler between Django and PostgreSQL (`pooled`):

- outgrow.E520: OUTGROW["POOLED"] is wrong.
- outgrow.E521: cursors of the server, where a session is lent for a transaction.
- outgrow.W522: the same, where the port is PgBouncer's and nothing says how it lends.
- outgrow.E523: a pool in Django, and connections that are kept.
- outgrow.E524: statements are prepared, or a role is taken, where a session is lent.

With a topology file that `outgrow.topology.current` has read (`topology.contradictions`):

- outgrow.E601: ALLOWED_HOSTS has not all domains.
- outgrow.W602: ALLOWED_HOSTS has "*" (with --deploy).
- outgrow.W603: a header is believed that no balancer writes anew (with --deploy).
- outgrow.W604: the site takes larger forms than the balancers.
- outgrow.W605: a media server gets no files.
- outgrow.W606: scheduled tasks are started by several workers.
- outgrow.W607: a server needs more than it has, or takes (with --deploy).
- outgrow.I608: something stops or is lost when one server dies (with --deploy).
- outgrow.E609: MEDIA_ROOT is another folder than that of [mounts.media].
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from django.apps import AppConfig
from django.conf import STATICFILES_STORAGE_ALIAS
from django.core.checks import CheckMessage, Error, Info
from django.core.checks import Warning as Advice
from django.core.exceptions import ImproperlyConfigured

from outgrow import conf
from outgrow.errors import ConfigurationError

if TYPE_CHECKING:
    from outgrow.media.base import Replicated
    from outgrow.mistakes import Mistake
    from outgrow.objects import ObjectStorage
    from outgrow.publish.storages import PublishedStaticFilesStorage
    from outgrow.shared_nothing import Facts
    from outgrow.topology.contradictions import Said


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
    alias: str, options: Mapping[str, Any], storage: type[Replicated]
) -> Iterator[CheckMessage]:
    path, kind = f"STORAGES[{alias!r}]['OPTIONS']", storage.__name__
    if not isinstance(options, Mapping):
        hint = "Write a dictionary with at least 'servers'."
        yield Error(f"{path} is {options!r}.", hint=hint, obj=kind, id="outgrow.E001")
        return
    for problem in conf.media_options(options, path, storage.option_names)[1]:
        message = f"{problem.path}: {problem.problem}"
        yield Error(message, hint=problem.hint or None, obj=kind, id="outgrow.E001")
    yield from _check_tls(options, path, kind)
    if "database" in storage.option_names:
        yield from _check_catalogue(options, path, kind)
        return
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

    problem = jobs.problem(str(runner))
    if problem is not None:
        yield Error(f"{path}['background']: {problem}", obj=kind, id="outgrow.E003")
    elif runner == "tasks":
        yield from _check_worker(path, kind)


#: The backends that Django ships, by the name of their class, and what they come to.
_NO_WORKER: Final = {
    "ImmediateBackend": "runs each job at once, so that save() waits for every server",
    "DummyBackend": "runs no job at all, so that the servers are told by repair passes alone",
}


def _check_worker(path: str, kind: str) -> Iterator[CheckMessage]:
    """Whether Django's tasks are run elsewhere."""
    backend = conf.task_backend()
    effect = _NO_WORKER.get(backend.rpartition(".")[2])
    if effect is not None:
        text = (
            f"{path}['background'] is 'tasks', and TASKS['default'] has {backend!r}. It {effect}."
        )
        hint = "Take a backend with a worker (django-tasks-db, for one), or background='thread'."
        yield Advice(text, hint=hint, obj=kind, id="outgrow.W001")


def _check_tls(options: Mapping[str, Any], path: str, kind: str) -> Iterator[CheckMessage]:
    """Whether the files of TLS are there and of use."""
    from outgrow import access

    files = [options.get(name, "") for name in ("ca", "certificate", "key")]
    if not any(files) or not all(isinstance(file, str) for file in files):
        return
    try:
        access.tls_context(*files)
    except ConfigurationError as error:
        text = f"{path}[{error.path!r}]: {error.problem}"
        yield Error(text, hint=error.hint, obj=kind, id="outgrow.E006")


def _check_catalogue(options: Mapping[str, Any], path: str, kind: str) -> Iterator[CheckMessage]:
    """Two connections: one that the site's transactions never touch."""
    if options.get("journal") == "none":
        return
    own, site = options.get("database", "outgrow"), options.get("using", "default")
    for name, alias in (("database", own), ("using", site)):
        if alias not in conf.databases():
            hint = (
                f"Add DATABASES[{alias!r}]: a second entry for the primary database with the same "
                "host and name, or a file of its own with SQLite."
            )
            text = f"{path}[{name!r}] is {alias!r}, which DATABASES has not."
            yield Error(text, hint=hint, obj=kind, id="outgrow.E004")
            return
    problem = _shared(own, site)
    if problem:
        hint = "Give the catalogue an alias of its own in DATABASES, and name it in 'database'."
        yield Error(f"{path}['database']: {problem}", hint=hint, obj=kind, id="outgrow.E004")
    if not conf.is_installed():
        hint = "Add 'outgrow' to INSTALLED_APPS and run 'manage.py migrate' for both aliases."
        text = f"{path}: the tables of the catalogue belong to an app that is not installed."
        yield Error(text, hint=hint, obj=kind, id="outgrow.E005")


def _shared(own: str, site: str) -> str:
    """What is wrong with these two aliases, or an empty text."""
    catalogue, others = conf.databases()[own], conf.databases()[site]
    if own == site:
        return f"{own!r} is the site's own alias, whose transactions may be rolled back."
    if catalogue.get("ATOMIC_REQUESTS"):
        return f"DATABASES[{own!r}] has ATOMIC_REQUESTS, so it would be rolled back with a view."
    if _sqlite_file(catalogue) and _sqlite_file(catalogue) == _sqlite_file(others):
        return (
            f"DATABASES[{own!r}] is the same SQLite file as {site!r}: a save in a transaction "
            "would wait for itself."
        )
    return ""


def check_replication(
    app_configs: Sequence[AppConfig] | None = None,  # noqa: ARG001 - Django's signature
    **kwargs: object,  # noqa: ARG001
) -> list[CheckMessage]:
    """Check the setting OUTGROW["REPLICATION"] and what belongs to it. Opens nothing."""
    from outgrow.databases.mistakes import settings_mistakes

    return [_message(one) for one in settings_mistakes()]


def check_replicas(
    app_configs: Sequence[AppConfig] | None = None,  # noqa: ARG001 - Django's signature
    databases: Sequence[str] | None = None,
    **kwargs: object,  # noqa: ARG001
) -> list[CheckMessage]:
    """Ask the replicas among these aliases whether they are ones; for ``check --database``."""
    from outgrow.databases.mistakes import live_mistakes

    return [_message(one) for one in live_mistakes(list(databases or ()))]


#: What Django calls a mistake, by the letter of its number.
_KINDS: Final[Mapping[str, type[Error | Advice | Info]]] = {"E": Error, "W": Advice, "I": Info}


def _message(mistake: Mistake) -> CheckMessage:
    kind = _KINDS[mistake.number[0]]
    return kind(mistake.text, hint=mistake.hint, id=f"outgrow.{mistake.number}")


def check_shared_nothing(
    app_configs: Sequence[AppConfig] | None = None,  # noqa: ARG001 - Django's signature
    **kwargs: object,  # noqa: ARG001
) -> list[CheckMessage]:
    """Look for what is another thing on each of several application servers. Opens nothing."""
    from outgrow.shared_nothing import mistakes

    servers, wrong = conf.app_servers()
    shared, problems = conf.shared_folders()
    found: list[CheckMessage] = [
        Error(f"{one.path}: {one.problem}", hint=one.hint, id="outgrow.E500")
        for one in [*wrong, *problems]
    ]
    if servers == 1 or found:
        return found
    return [_message(one) for one in mistakes(_facts(shared))]


def check_deployment(
    app_configs: Sequence[AppConfig] | None = None,  # noqa: ARG001 - Django's signature
    **kwargs: object,  # noqa: ARG001
) -> list[CheckMessage]:
    """What is a trap on some sites with several application servers: for `check --deploy`."""
    from outgrow.shared_nothing import advice

    if conf.app_servers()[0] == 1:
        return []
    return [_message(one) for one in advice(_facts(conf.shared_folders()[0]))]


def _facts(shared: tuple[str, ...]) -> Facts:
    from outgrow.shared_nothing import Facts, Lock

    caches = (Lock(path, cache=alias) for path, alias in conf.lock_caches().items())
    folders = (Lock(path, folder=folder) for path, folder in conf.lock_folders().items())
    engine, cache, folder = conf.sessions()
    return Facts(
        caches=conf.caches(),
        databases=conf.databases(),
        pooled=tuple(conf.pooled()[0]),
        storages=conf.storages(),
        media_root=conf.media_root(),
        session_engine=engine,
        session_cache=cache,
        session_folder=folder,
        shared=shared,
        throttles=tuple(conf.throttles()),
        log_files=conf.log_files(),
        mail_folder=conf.mail_folder(),
        static_root=conf.static_root(),
        upload_folder=conf.upload_folder(),
        temporary_folder=conf.temporary_folder(),
        imports=conf.imports(),
        locks=(*caches, *folders),
    )


def check_topology(
    app_configs: Sequence[AppConfig] | None = None,  # noqa: ARG001 - Django's signature
    **kwargs: object,  # noqa: ARG001
) -> list[CheckMessage]:
    """Compare the settings with the topology that they were made of."""
    from outgrow.topology.contradictions import contradictions
    from outgrow.topology.load import used

    site = used()
    return [_message(one) for one in contradictions(site, _said())] if site else []


def check_topology_deployment(
    app_configs: Sequence[AppConfig] | None = None,  # noqa: ARG001 - Django's signature
    **kwargs: object,  # noqa: ARG001
) -> list[CheckMessage]:
    """The same, of what is right on some sites: for `check --deploy`."""
    from outgrow.topology.contradictions import advice
    from outgrow.topology.load import used

    site = used()
    return [_message(one) for one in advice(site, _said())] if site else []


def _said() -> Said:
    from outgrow.topology.contradictions import Said

    return Said(
        tuple(conf.allowed_hosts()),
        conf.trusted_headers(),
        conf.max_form(),
        conf.storages(),
        conf.media_root(),
    )


def check_pooled(
    app_configs: Sequence[AppConfig] | None = None,  # noqa: ARG001 - Django's signature
    **kwargs: object,  # noqa: ARG001
) -> list[CheckMessage]:
    """Check what a pooler between Django and PostgreSQL does not do. Opens and sends nothing."""
    from outgrow.pooled import mistakes

    poolers, problems = conf.pooled()
    if problems:
        return [
            Error(f"{one.path}: {one.problem}", hint=one.hint, id="outgrow.E520")
            for one in problems
        ]
    return [_message(one) for one in mistakes(conf.databases(), poolers)]


def check_secret_key(
    app_configs: Sequence[AppConfig] | None = None,  # noqa: ARG001 - Django's signature
    **kwargs: object,  # noqa: ARG001
) -> list[CheckMessage]:
    """Load the settings once more, in a process of their own: are they the same?"""
    if conf.app_servers()[0] == 1 or not conf.settings_module():
        return []
    words = [sys.executable, "-c", _TELL_SETTINGS]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment["DJANGO_SETTINGS_MODULE"] = conf.settings_module()
    done = subprocess.run(
        words, env=environment, capture_output=True, text=True, timeout=_LOADING, check=False
    )
    # Settings may print something, too. What can't be loaded twice is told by whoever loads it.
    told = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    if done.returncode or not told:
        return []
    again = json.loads(told[-1].removeprefix(_MARK))
    differ = [name for name, digest in _digests().items() if again.get(name) != digest]
    if not differ:
        return []
    return [
        Error(
            f"{' and '.join(differ)}: another one each time the settings are loaded. What one "
            "process signs, no other believes, and what it keeps no other finds: sessions and "
            "reset links hold by chance.",
            hint="Take it from the environment or from a file that all servers have.",
            id="outgrow.E507",
        )
    ]


#: Seconds for the settings to be loaded.
_LOADING: Final = 60

#: Where in what it prints the other process tells its settings.
_MARK: Final = "outgrow settings: "

_TELL_SETTINGS: Final = (
    "import json; from outgrow.checks import _MARK, _digests; "
    "print(); print(_MARK + json.dumps(_digests()))"
)


def _digests() -> dict[str, str]:
    """Something by which settings can be compared, and not found."""
    return {
        name: hashlib.sha256(text.encode()).hexdigest()
        for name, text in conf.common_settings().items()
    }


def check_objects(
    app_configs: Sequence[AppConfig] | None = None,  # noqa: ARG001 - Django's signature
    **kwargs: object,  # noqa: ARG001
) -> list[CheckMessage]:
    """Check each object storage in STORAGES. Opens and sends nothing."""
    from outgrow.objects import ObjectStorage

    return [
        message
        for alias, entry, kind in conf.storages_of(ObjectStorage)
        for message in _check_objects(alias, entry.get("OPTIONS", {}), kind)
    ]


def _check_objects(
    alias: str, given: object, storage: type[ObjectStorage]
) -> Iterator[CheckMessage]:
    path, kind = f"STORAGES[{alias!r}]['OPTIONS']", storage.__name__
    if not isinstance(given, Mapping):
        hint = "Write a dictionary with at least 'location'."
        yield Error(f"{path} is {given!r}.", hint=hint, obj=kind, id="outgrow.E201")
        return
    options, problems = conf.object_options({**storage.defaults, **given}, path)
    for problem in problems:
        message = f"{problem.path}: {problem.problem}"
        yield Error(message, hint=problem.hint or None, obj=kind, id="outgrow.E201")
    if find_spec("obstore") is None:
        hint = "Install it with: pip install 'outgrow[objects]'"
        text = f"{path}: an object storage needs the package 'obstore', which is not installed."
        yield Error(text, hint=hint, obj=kind, id="outgrow.E202")
    if alias == STATICFILES_STORAGE_ALIAS and not problems:
        yield from _check_static(options, path, kind)


def _check_static(options: conf.ObjectOptions, path: str, kind: str) -> Iterator[CheckMessage]:
    if not options.overwrite:
        text = f"{path}: static files are written again under their names, which this forbids."
        yield Error(text, hint="Set 'overwrite': True.", obj=kind, id="outgrow.E203")
    if options.is_signed:
        text = f"{path}: the URLs of static files are signed, and end; a style sheet's are not."
        hint = "Let all read them, and set 'querystring_auth': False, or 'base_url'."
        yield Advice(text, hint=hint, obj=kind, id="outgrow.W204")


def check_moving(
    app_configs: Sequence[AppConfig] | None = None,  # noqa: ARG001 - Django's signature
    **kwargs: object,  # noqa: ARG001
) -> list[CheckMessage]:
    """Check each MovingStorage in STORAGES. Opens and sends nothing."""
    from outgrow.moving import MovingStorage

    return [
        message
        for alias, entry, kind in conf.storages_of(MovingStorage)
        for message in _check_moving(alias, entry.get("OPTIONS", {}), kind.__name__)
    ]


def _check_moving(alias: str, given: object, kind: str) -> Iterator[CheckMessage]:
    path = f"STORAGES[{alias!r}]['OPTIONS']"
    if not isinstance(given, Mapping):
        hint = "Write {'to': ALIAS, 'from': ALIAS}."
        yield Error(f"{path} is {given!r}.", hint=hint, obj=kind, id="outgrow.E301")
        return
    for problem in conf.moving_options(given, path, conf.storages().keys(), alias)[1]:
        message = f"{problem.path}: {problem.problem}"
        yield Error(message, hint=problem.hint, obj=kind, id="outgrow.E301")


def check_published(
    app_configs: Sequence[AppConfig] | None = None,  # noqa: ARG001 - Django's signature
    **kwargs: object,  # noqa: ARG001
) -> list[CheckMessage]:
    """Check the storage of published static files. Opens and sends nothing."""
    return [message for storage in _published() for message in _check_published(storage)]


def check_manifest(
    app_configs: Sequence[AppConfig] | None = None,  # noqa: ARG001 - Django's signature
    **kwargs: object,  # noqa: ARG001
) -> list[CheckMessage]:
    """Look for the manifest of this build: for `check --deploy`."""
    return [
        Advice(
            f"The manifest {storage.manifest_path} is not there: static files have plain names.",
            hint="Run manage.py outgrow publish, or collectstatic, and ship it with the code.",
            obj=type(storage).__name__,
            id="outgrow.W403",
        )
        for storage in _published()
        if not list(_check_published(storage)) and not storage.manifest_path.exists()
    ]


def _published() -> Iterator[PublishedStaticFilesStorage]:
    from outgrow.publish.storages import PublishedStaticFilesStorage

    for _alias, entry, kind in conf.storages_of(PublishedStaticFilesStorage):
        options = entry.get("OPTIONS", {})
        yield kind(**options) if isinstance(options, Mapping) else kind()


def _check_published(storage: PublishedStaticFilesStorage) -> Iterator[CheckMessage]:
    kind = type(storage).__name__
    try:
        configuration = storage.configuration
        _ = storage.manifest_path
    except ImproperlyConfigured as error:
        yield Error(str(error), obj=kind, id="outgrow.E401")
        return
    wanted = {"deflate", "tree_sitter", "tree_sitter_javascript"}
    if any(target.options for target in configuration.targets):
        wanted.add("obstore")
    for package in sorted(one for one in wanted if find_spec(one) is None):
        extra = "objects" if package == "obstore" else "publish"
        text = f"Publishing needs the package {package.replace('_', '-')!r}: it is not installed."
        hint = f"Install it with: pip install 'outgrow[{extra}]'"
        yield Error(text, hint=hint, obj=kind, id="outgrow.E402")


def _sqlite_file(database: Mapping[str, Any]) -> str:
    """The file that SQLite opens for an entry, by its whole path; nothing for any other.

    A relative path is that of the process. A database in memory that has a name
    (file:NAME?mode=memory&cache=shared) is one for all who open that, and stands for itself.
    """
    name = os.fspath(database.get("NAME") or "")
    if name in {"", ":memory:"} or not str(database.get("ENGINE", "")).endswith("sqlite3"):
        return ""
    if not name.startswith("file:"):  # https://www.sqlite.org/uri.html
        return os.path.realpath(name)
    url = urlsplit(name)
    query = parse_qs(url.query)
    if query.get("mode") == ["memory"] or url.path == ":memory:":
        return name if query.get("cache") == ["shared"] else ""
    return os.path.realpath(unquote(url.path))
