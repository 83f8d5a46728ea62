"""obstore's stores for one location, made at their first use.

One store serves all requests. Headers that obstore can't set for one object (`Expires`,
access control lists, and whatever else is neither an attribute nor metadata) are sent by a
store that sends them with each request; a few of those are kept, for most files of a site
have the same. A process that was forked makes its own.
"""

from __future__ import annotations

import configparser
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from outgrow.conf import Location, ObjectOptions
from outgrow.errors import ConfigurationError
from outgrow.objects import runtime

#: Stores with headers of their own that are kept. Each has connections of its own.
_KEPT: Final = 8

#: For one request with its body. A stalled one ends by `timeout`, which is without progress.
_LONGEST: Final = timedelta(days=1)

Headers = tuple[tuple[str, str], ...]

#: The memory of this process, by the bucket's name.
_memories: dict[str, Any] = {}
_lock = threading.Lock()


class Stores:
    """The stores of one location. Thread-safe and fork-safe; nothing is opened to make it."""

    def __init__(self, options: ObjectOptions) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._generation = runtime.generation()
        self._made: OrderedDict[Headers, Any] = OrderedDict()

    def store(self, headers: Headers = ()) -> Any:
        """The store whose requests carry these headers besides obstore's own."""
        if self._generation != runtime.generation():
            self._begin_anew()
        with self._lock:
            found = self._made.pop(headers, None)
            self._made[headers] = found = found or _make(self._options, dict(headers))
            if len(self._made) > _KEPT:
                self._made.popitem(last=False)
            return found

    def _begin_anew(self) -> None:
        # The lock may have been held by a thread of the parent, which is not here.
        runtime.abandon(self._made)
        self._lock, self._made = threading.Lock(), OrderedDict()
        self._generation = runtime.generation()


def _make(options: ObjectOptions, headers: Mapping[str, str]) -> Any:
    kind = options.location.scheme
    return {"s3": _s3, "gs": _gs, "az": _az, "file": _file, "memory": _memory}[kind](
        options, headers
    )


def _s3(options: ObjectOptions, headers: Mapping[str, str]) -> Any:
    # All is said: obstore would take what is left out from the environment, where it may
    # belong to another store.
    config: dict[str, Any] = {
        "region": region(options),
        "skip_signature": options.anonymous,
        "virtual_hosted_style_request": options.addressing == "virtual",
    }
    access_key, secret_key, token = credentials(options)
    if access_key:
        # As a function, for a token can't be said to be none but so.
        keys = {
            "access_key_id": access_key,
            "secret_access_key": secret_key,
            "token": token or None,
            "expires_at": None,
        }
        config["credential_provider"] = lambda: keys
    if place := endpoint(options):
        config["endpoint"] = place
        if options.addressing == "virtual":
            scheme, _, host = place.partition("://")
            config["endpoint"] = f"{scheme}://{options.location.bucket}.{host}"
    return runtime.library().store.S3Store(
        options.location.bucket,
        client_options=_client(options, headers),
        retry_config=_retries(options),
        **config,
    )


def endpoint(options: ObjectOptions) -> str:
    """Where the store is, as the option or the environment says; empty for the provider's own."""
    if options.location.scheme != "s3":
        return options.endpoint
    # https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    given = (os.environ.get(name, "") for name in names)
    return options.endpoint or next(filter(None, given), "")


def region(options: ObjectOptions) -> str:
    """The region of a bucket of S3: as the option, or the environment, says."""
    names = ("AWS_REGION", "AWS_DEFAULT_REGION")
    given = (os.environ.get(name, "") for name in names)
    return options.region or next(filter(None, given), "us-east-1")


def credentials(options: ObjectOptions) -> tuple[str, str, str]:
    """The access key, its secret and the session token; empty where the machine's role is meant.

    From the options, else the profile's in the file of shared credentials, else the
    environment. Raises ConfigurationError for a profile that is not there.
    """
    if options.access_key:
        return options.access_key, options.secret_key, options.session_token
    if options.profile:
        return _profile(options.profile)
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    found = tuple(os.environ.get(name, "") for name in names)
    return (found[0], found[1], found[2]) if found[0] and found[1] else ("", "", "")


def _profile(name: str) -> tuple[str, str, str]:
    # https://docs.aws.amazon.com/sdkref/latest/guide/file-location.html
    path = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")).expanduser()
    place = "OPTIONS['profile']"
    parser = configparser.RawConfigParser()
    try:
        with path.open(encoding="utf-8") as file:
            parser.read_file(file)
    except (OSError, configparser.Error) as error:
        problem = f"is {name!r}, but {path} can't be read: {type(error).__name__}."
        raise ConfigurationError(place, problem, "AWS_SHARED_CREDENTIALS_FILE names it.") from error
    if not parser.has_section(name):
        hint = f"It has: {', '.join(parser.sections()) or 'none'}."
        raise ConfigurationError(place, f"is {name!r}, which {path} has not.", hint)
    keys = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    found = tuple(parser.get(name, key, fallback="") for key in keys)
    if not found[0] or not found[1]:
        problem = f"is {name!r}, which has no pair of keys in {path}."
        raise ConfigurationError(place, problem, "Roles are for the machine's own credentials.")
    return found[0], found[1], found[2]


def _gs(options: ObjectOptions, headers: Mapping[str, str]) -> Any:
    given = {
        "service_account": options.service_account,
        "base_url": options.endpoint,
        "skip_signature": options.anonymous,
    }
    config: dict[str, Any] = {name: value for name, value in given.items() if value}
    return runtime.library().store.GCSStore(
        options.location.bucket,
        client_options=_client(options, headers),
        retry_config=_retries(options),
        **config,
    )


def _az(options: ObjectOptions, headers: Mapping[str, str]) -> Any:
    given = {
        "account_name": options.account,
        "account_key": options.secret_key,
        "endpoint": options.endpoint,
        "skip_signature": options.anonymous,
    }
    config: dict[str, Any] = {name: value for name, value in given.items() if value}
    return runtime.library().store.AzureStore(
        options.location.bucket,
        client_options=_client(options, headers),
        retry_config=_retries(options),
        **config,
    )


def _file(options: ObjectOptions, _headers: Mapping[str, str]) -> Any:
    return runtime.library().store.LocalStore(f"/{options.location.prefix}", mkdir=True)


def _memory(options: ObjectOptions, _headers: Mapping[str, str]) -> Any:
    with _lock:
        found = _memories.get(options.location.bucket)
        if found is None:
            found = _memories[options.location.bucket] = runtime.library().store.MemoryStore()
        return found


def _client(options: ObjectOptions, headers: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "allow_http": endpoint(options).startswith("http://"),
        "connect_timeout": timedelta(seconds=options.connect_timeout),
        "read_timeout": timedelta(seconds=options.timeout),
        "timeout": _LONGEST,
    }
    if options.ca:
        found["root_certificate"] = _read(options.ca)
    if headers:
        found["default_headers"] = dict(headers)
    return found


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError("OPTIONS['ca']", f"can't be read: {error}.") from error


def _retries(options: ObjectOptions) -> dict[str, Any]:
    return {
        "max_retries": 10,
        "retry_timeout": timedelta(seconds=options.deadline),
        "backoff": {
            "init_backoff": timedelta(milliseconds=100),
            "max_backoff": timedelta(seconds=2),
        },
    }


def describe(options: ObjectOptions) -> str:
    """What a message calls the store: its location, and where that is; no credentials."""
    place: Location = options.location
    where = endpoint(options)
    return f"{place} at {where}" if where else str(place)
