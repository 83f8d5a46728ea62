"""Django's settings -> frozen dataclasses. The one package that reads them.

`media` has the options of a media storage, `objects` those of an object storage, `moving`
those of a move from one storage to another, `databases` those of the replication of
databases, and `site` the settings of Django's own that several parts need.
"""

from __future__ import annotations

from outgrow.conf.databases import PATH as REPLICATION_PATH
from outgrow.conf.databases import (
    ClusterOptions,
    Remember,
    cluster_options,
    replication,
)
from outgrow.conf.media import (
    ASYNC_OPTIONS,
    BACKGROUND_WORDS,
    DISTRIBUTED_OPTIONS,
    HYBRID_OPTIONS,
    MediaOptions,
    is_secret,
    media_options,
)
from outgrow.conf.moving import MovingOptions, moving_options
from outgrow.conf.objects import (
    Headers,
    Location,
    ObjectOptions,
    header_problem,
    object_options,
)
from outgrow.conf.site import (
    app_servers,
    caches,
    databases,
    debug,
    is_installed,
    media_root,
    media_url,
    middleware,
    outgrow,
    pooled,
    routers,
    session_cookie,
    sessions,
    settings_module,
    shared_folders,
    signing_keys,
    storages,
    storages_of,
    task_backend,
    task_queue,
    tasks_package,
    upload_folder,
    use_tz,
)

__all__ = [
    "ASYNC_OPTIONS",
    "BACKGROUND_WORDS",
    "DISTRIBUTED_OPTIONS",
    "HYBRID_OPTIONS",
    "REPLICATION_PATH",
    "ClusterOptions",
    "Headers",
    "Location",
    "MediaOptions",
    "MovingOptions",
    "ObjectOptions",
    "Remember",
    "app_servers",
    "caches",
    "cluster_options",
    "databases",
    "debug",
    "header_problem",
    "is_installed",
    "is_secret",
    "media_options",
    "media_root",
    "media_url",
    "middleware",
    "moving_options",
    "object_options",
    "outgrow",
    "pooled",
    "replication",
    "routers",
    "session_cookie",
    "sessions",
    "settings_module",
    "shared_folders",
    "signing_keys",
    "storages",
    "storages_of",
    "task_backend",
    "task_queue",
    "tasks_package",
    "upload_folder",
    "use_tz",
]
