"""Django's settings that belong to nobody in particular."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any, Final, TypeVar

from django.apps import apps
from django.conf import settings
from django.utils.module_loading import import_string

from outgrow.errors import ConfigurationError

Kind = TypeVar("Kind")

#: What OUTGROW may hold.
OUTGROW_SETTINGS: Final = ("REPLICATION", "APP_SERVERS", "SHARED_FOLDERS", "POOLED")


def storages() -> Mapping[str, Mapping[str, Any]]:
    """The setting STORAGES."""
    found: Mapping[str, Mapping[str, Any]] = settings.STORAGES
    return found


def storages_of(kind: type[Kind]) -> Iterator[tuple[str, Mapping[str, Any], type[Kind]]]:
    """The storages of one kind among STORAGES: alias, entry and class. Makes none of them."""
    for alias, entry in storages().items():
        if not isinstance(entry, Mapping):
            continue  # Django says so itself
        backend = entry.get("BACKEND")
        try:
            found = import_string(backend) if isinstance(backend, str) else backend
        except ImportError:
            continue  # Django says so itself when that storage is used
        if isinstance(found, type) and issubclass(found, kind):
            yield alias, entry, found


def media_root() -> str:
    """The setting MEDIA_ROOT; an empty text when it is not set."""
    return os.fspath(settings.MEDIA_ROOT)


def upload_folder() -> str:
    """The setting FILE_UPLOAD_TEMP_DIR; an empty text when it is not set."""
    return os.fspath(settings.FILE_UPLOAD_TEMP_DIR or "")


def media_url() -> str:
    """The setting MEDIA_URL."""
    return str(settings.MEDIA_URL)


def debug() -> bool:
    """The setting DEBUG."""
    return bool(settings.DEBUG)


def use_tz() -> bool:
    """The setting USE_TZ."""
    return bool(settings.USE_TZ)


def databases() -> Mapping[str, Mapping[str, Any]]:
    """The setting DATABASES."""
    found: Mapping[str, Mapping[str, Any]] = settings.DATABASES
    return found


def task_backend() -> str:
    """The backend of Django's default tasks; the one that runs them at once is Django's own."""
    return str(_default_tasks().get("BACKEND", "ImmediateBackend"))


def task_queue() -> str:
    """A queue that the backend of Django's default tasks takes: "default", or its first."""
    queues = _default_tasks().get("QUEUES") or ["default"]
    return "default" if "default" in queues else str(next(iter(queues)))


def _default_tasks() -> Mapping[str, Any]:
    found: Mapping[str, Any] = (getattr(settings, "TASKS", None) or {}).get("default", {})
    return found


def tasks_package() -> str:
    """Where tasks are: Django's own package, since 6.0, or the backport's, there or not."""
    return "django.tasks" if find_spec("django.tasks") else "django_tasks"


def is_installed() -> bool:
    """Whether INSTALLED_APPS has this app, and so its tables."""
    return apps.is_installed("outgrow")


def middleware() -> list[str]:
    """The setting MIDDLEWARE."""
    return list(settings.MIDDLEWARE)


def routers() -> list[Any]:
    """The setting DATABASE_ROUTERS."""
    return list(settings.DATABASE_ROUTERS)


def outgrow() -> Any:
    """The setting OUTGROW; an empty mapping when it is not set."""
    return getattr(settings, "OUTGROW", {})


def app_servers() -> tuple[int, list[ConfigurationError]]:
    """OUTGROW["APP_SERVERS"]: on how many servers the application runs. 1 where nothing says it."""
    found = _of_outgrow("APP_SERVERS", 1)
    if isinstance(found, int) and not isinstance(found, bool) and found >= 1:
        return found, []
    path, hint = "OUTGROW['APP_SERVERS']", "Write on how many servers the application runs."
    return 1, [ConfigurationError(path, f"is {found!r}.", hint)]


def shared_folders() -> tuple[tuple[str, ...], list[ConfigurationError]]:
    """OUTGROW["SHARED_FOLDERS"]: the folders that all application servers have in common."""
    found = _of_outgrow("SHARED_FOLDERS", [])
    path, hint = "OUTGROW['SHARED_FOLDERS']", "Write a list of absolute paths."
    if not isinstance(found, (list, tuple)):
        return (), [ConfigurationError(path, f"is {found!r}.", hint)]
    wrong = [one for one in found if not isinstance(one, (str, os.PathLike)) or not _is_whole(one)]
    if wrong:
        return (), [ConfigurationError(path, f"holds {wrong[0]!r}.", hint)]
    return tuple(map(os.fspath, found)), []


def pooled() -> tuple[Mapping[str, str], list[ConfigurationError]]:
    """OUTGROW["POOLED"]: the aliases that lead to a pooler, and by what it lends a session."""
    found = _of_outgrow("POOLED", {})
    path, hint = "OUTGROW['POOLED']", "Write {'default': 'transaction'}, or 'session'."
    if not isinstance(found, Mapping):
        return {}, [ConfigurationError(path, f"is {found!r}.", hint)]
    for alias, mode in found.items():
        if mode not in {"transaction", "session"}:
            return {}, [ConfigurationError(f"{path}[{alias!r}]", f"is {mode!r}.", hint)]
    return found, []


def _is_whole(path: str | os.PathLike[str]) -> bool:
    return os.path.isabs(os.fspath(path))


def _of_outgrow(name: str, default: object) -> Any:
    given = outgrow()  # what is no mapping is told where replication is checked
    return given.get(name, default) if isinstance(given, Mapping) else default


def sessions() -> tuple[str, str, str]:
    """The engine of sessions, its cache, and the folder of those that are files."""
    folder = settings.SESSION_FILE_PATH or tempfile.gettempdir()
    return settings.SESSION_ENGINE, settings.SESSION_CACHE_ALIAS, os.fspath(folder)


#: What all processes of a site must have alike, or one does not know what another has signed.
_SIGNING: Final = (
    "SECRET_KEY",
    "SECRET_KEY_FALLBACKS",
    "SIGNING_BACKEND",
    "SESSION_COOKIE_NAME",
    "SESSION_ENGINE",
    "SESSION_SERIALIZER",
    "CSRF_COOKIE_NAME",
    "CSRF_USE_SESSIONS",
    "MESSAGE_STORAGE",
)


def common_settings() -> dict[str, str]:
    """Settings that must be the same in every process, by their names, each as a text."""
    found = {name: repr(getattr(settings, name)) for name in _SIGNING}
    for alias, entry in caches().items():
        place = [entry.get(key) for key in ("LOCATION", "KEY_PREFIX", "VERSION")]
        found[f"CACHES[{alias!r}]"] = repr(place)
    return found


def settings_module() -> str:
    """The name of the settings' module; an empty text where there is none."""
    return str(getattr(settings, "SETTINGS_MODULE", None) or "")


def caches() -> Mapping[str, Mapping[str, Any]]:
    """The setting CACHES."""
    found: Mapping[str, Mapping[str, Any]] = settings.CACHES
    return found


def log_files() -> dict[str, str]:
    """The files that handlers of LOGGING write to, by the path of the setting."""
    handlers = (settings.LOGGING or {}).get("handlers", {})
    return {
        f"LOGGING['handlers'][{name!r}]": os.fspath(one["filename"])
        for name, one in handlers.items()
        if isinstance(one, Mapping) and isinstance(one.get("filename"), (str, os.PathLike))
    }


def mail_folder() -> str:
    """Where mails are written to, instead of being sent; an empty text where they are sent."""
    # Asked for only where it is set: newer versions of Django have MAILERS, and a check of it.
    if not _is_set("EMAIL_BACKEND"):
        return ""
    is_file = str(settings.EMAIL_BACKEND).endswith("filebased.EmailBackend")
    return os.fspath(getattr(settings, "EMAIL_FILE_PATH", None) or "a folder") if is_file else ""


def static_root() -> str:
    """The setting STATIC_ROOT; an empty text when it is not set."""
    return os.fspath(settings.STATIC_ROOT or "")


def throttles() -> list[str]:
    """The throttles that Django REST framework has for all views: dotted paths."""
    given = getattr(settings, "REST_FRAMEWORK", None) or {}
    return [str(one) for one in given.get("DEFAULT_THROTTLE_CLASSES") or ()]


def temporary_folder() -> str:
    """Where Python has temporary files."""
    return tempfile.gettempdir()


def imports() -> str:
    """The class that keeps files of django-import-export between two requests; "" without it."""
    if not apps.is_installed("import_export"):
        return ""
    default = "import_export.tmp_storages.TempFolderStorage"
    found = getattr(settings, "IMPORT_EXPORT_TMP_STORAGE_CLASS", None) or default
    # It may be the class itself.
    return found if isinstance(found, str) else getattr(found, "__qualname__", "")


def lock_caches() -> dict[str, str]:
    """The caches in which packages have their locks, by the path of the setting."""
    if _cron_lock() != "CacheLock":
        return {}
    return {"DJANGO_CRON_CACHE": str(getattr(settings, "DJANGO_CRON_CACHE", "default"))}


def lock_folders() -> dict[str, str]:
    """The folders in which packages have their locks, by the path of the setting."""
    found = {}
    if _cron_lock() == "FileLock":
        folder = getattr(settings, "DJANGO_CRON_LOCKFILE_PATH", "/tmp")  # noqa: S108 - its default
        found["DJANGO_CRON_LOCKFILE_PATH"] = os.fspath(folder)
    once = getattr(settings, "CELERY_ONCE", None)
    if isinstance(once, Mapping) and once.get("backend") == "celery_once.backends.File":
        given = once.get("settings") or {}
        path = "CELERY_ONCE['settings']['location']"
        found[path] = os.fspath(given.get("location") or f"{tempfile.gettempdir()}/celery_once")
    return found


def _cron_lock() -> str:
    """The class with which django-cron locks; "" where it is not installed."""
    if not apps.is_installed("django_cron"):
        return ""
    default = "django_cron.backends.lock.cache.CacheLock"
    found = str(getattr(settings, "DJANGO_CRON_LOCK_BACKEND", default))
    return found.rpartition(".")[2] if found.startswith("django_cron.") else ""


def allowed_hosts() -> list[str]:
    """The setting ALLOWED_HOSTS."""
    return [str(one) for one in settings.ALLOWED_HOSTS]


def trusted_headers() -> dict[str, str]:
    """The headers of a front that the site believes, by the names of the settings."""
    found = {}
    if settings.SECURE_PROXY_SSL_HEADER:
        found["SECURE_PROXY_SSL_HEADER"] = str(settings.SECURE_PROXY_SSL_HEADER[0])
    for name in ("HOST", "PORT"):
        if getattr(settings, f"USE_X_FORWARDED_{name}"):
            found[f"USE_X_FORWARDED_{name}"] = f"HTTP_X_FORWARDED_{name}"
    return found


def max_form() -> int | None:
    """The setting DATA_UPLOAD_MAX_MEMORY_SIZE, in bytes; None for no limit, or Django's own."""
    if not _is_set("DATA_UPLOAD_MAX_MEMORY_SIZE"):
        return None
    found: int | None = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    return found


def _is_set(name: str) -> bool:
    """Whether the site has this setting of its own."""
    found: bool = settings.is_overridden(name)  # type: ignore[misc]  # the stubs do not know it
    return found


def session_cookie() -> tuple[str | None, Any, bool]:
    """The domain, SameSite and Secure of the site's session cookie."""
    domain, same_site = settings.SESSION_COOKIE_DOMAIN, settings.SESSION_COOKIE_SAMESITE
    return domain, same_site, bool(settings.SESSION_COOKIE_SECURE)
