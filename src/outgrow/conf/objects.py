"""The options of an object storage -> a frozen dataclass.

As with the media storages, every mistake is found here: the constructor raises the first,
and the system checks list them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from outgrow import header_fields, names
from outgrow.conf.media import Problem, checked
from outgrow.errors import ConfigurationError
from outgrow.suggestions import suggestion

#: S3's limits on parts: at least 5 MiB but for the last, at most 5 GiB
#: (https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html).
PART_LEAST: Final = 5 << 20
PART_MOST: Final = 5 << 30

#: Bytes of one part, and of the largest file that is sent in one request. Larger parts are fewer
#: requests: with 16 MiB 256 MB take a fifth less time than with 8 (docs/performance.md).
PART: Final = 16 << 20

#: S3's longest presigned URL, in seconds: 7 days
#: (https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html).
LONGEST_URL: Final = 604_800

_SCHEMES: Final = {
    "s3": "a bucket of S3 or of its kind",
    "gs": "a bucket of Google Cloud Storage",
    "az": "a container of Azure Blob Storage",
    "file": "a folder",
    "memory": "the memory of this process",
}
#: Those with a server, which can sign and serve.
_BUCKETS: Final = ("s3", "gs", "az")

HeaderValue = str | timedelta
Headers = Mapping[str, HeaderValue] | Callable[[str], Mapping[str, HeaderValue]] | str


@dataclass(frozen=True, slots=True)
class Location:
    """Where the files lie: ``s3://bucket/prefix``, taken apart.

    `prefix` neither begins nor ends with a slash. `bucket` is a container with Azure, a
    name with ``memory``, and empty with ``file``, whose `prefix` is a whole path.
    """

    scheme: str
    bucket: str
    prefix: str

    def __str__(self) -> str:
        slash = "/" if self.scheme == "file" or self.prefix else ""
        return f"{self.scheme}://{self.bucket}{slash}{self.prefix}"


@dataclass(frozen=True, slots=True)
class ObjectOptions:
    """The options of an object storage, checked. Times are in seconds, sizes in bytes."""

    location: Location = Location("memory", "", "")
    endpoint: str = ""
    region: str = ""
    addressing: str = ""
    access_key: str = field(default="", repr=False)
    secret_key: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)
    profile: str = ""
    anonymous: bool = False
    #: Azure's account, and the file of a Google service account's key.
    account: str = ""
    service_account: str = ""
    #: A file of certificate authorities, in PEM, beside those of the system.
    ca: str = ""
    base_url: str = ""
    #: None: as `is_signed` says.
    querystring_auth: bool | None = None
    querystring_expire: float = 3600.0
    headers: Headers = field(default_factory=dict)
    #: What browsers would run as a page: "download" or "inline".
    active_content: str = "download"
    #: How browsers upload straight to the store: "post", a form, or "put".
    direct: str = "post"
    auto_create_bucket: bool = False
    #: What `outgrow buckets` sets up; what is not given is left as it is. Who may read below the
    #: prefix without a signature: nobody ("none"), or all ("read").
    policy: str = ""
    #: The origins whose pages may upload, as `https://www.example.org`.
    cors: tuple[str, ...] | None = None
    #: Days, by what is done then; see `LIFECYCLE`.
    lifecycle: Mapping[str, Any] | None = None
    versioning: bool | None = None
    #: Where a copy of each deleted file is left, and what stands before its name there: a format
    #: of strftime.
    backup_bucket: str = ""
    backup_format: str = "%Y-%m-%d/"
    names: str = "unique"
    overwrite: bool = False
    timeout: float = 60.0
    connect_timeout: float = 5.0
    deadline: float = 15.0
    part_size: int = PART
    concurrency: int = 3

    @property
    def is_unique(self) -> bool:
        """Whether no name is ever used twice."""
        return self.names == "unique" and not self.overwrite

    @property
    def is_signed(self) -> bool:
        """Whether the URLs of files are signed: where a bucket is, unless a `base_url` is."""
        if self.querystring_auth is not None:
            return self.querystring_auth
        plain = self.base_url or self.anonymous or self.policy == "read"
        return self.location.scheme in _BUCKETS and not plain


#: What the option `lifecycle` may hold: days after which uploads that nobody ended are given up,
#: after which old versions go, and, by a prefix of names, after which files go.
LIFECYCLE: Final = ("abort_uploads_after", "old_versions_after", "expire")

OBJECT_OPTIONS: Final = tuple(option.name for option in fields(ObjectOptions))

#: Options of django-storages and django-minio-storage, and what they are here.
THEIRS: Final = {
    "bucket_name": "location",
    "container": "location",
    "azure_container": "location",
    "endpoint_url": "endpoint",
    "region_name": "region",
    "addressing_style": "addressing",
    "security_token": "session_token",
    "session_profile": "profile",
    "object_parameters": "headers",
    "file_overwrite": "overwrite",
    "custom_domain": "base_url",
    "url_protocol": "base_url",
    "default_acl": "headers",
    "verify": "ca",
    "account_name": "account",
    "account_key": "secret_key",
    "use_https": "endpoint",
}


def object_options(
    given: Mapping[str, Any], path: str = "OPTIONS"
) -> tuple[ObjectOptions, list[ConfigurationError]]:
    """Check the options of an object storage. Returns what can be used, and every problem.

    `path` says where the options stand, for the messages.
    """
    problems = list(_unknown(given, path))
    place: dict[str, Any] = {}
    try:
        place["location"] = location(given.get("location"), f"{path}['location']")
    except ConfigurationError as error:
        problems.append(error)
    values = {**place, **checked(given, _CHECKS, path, problems)}
    if "cors" in values:
        values["cors"] = tuple(values["cors"])
    problems += _together(given, values, path)
    return ObjectOptions(**values), problems


def location(value: object, path: str) -> Location:
    """Take a location apart. Raises ConfigurationError."""
    hint = "Write 's3://BUCKET' or 's3://BUCKET/PREFIX'."
    if not value or not isinstance(value, str):
        problem = f"is {value!r}, not a URL." if value else "is missing."
        raise ConfigurationError(path, problem, hint)
    try:
        parts = urlsplit(value)
    except ValueError as error:
        raise ConfigurationError(path, f"is no URL: {error}.", hint) from error
    if parts.scheme not in _SCHEMES:
        known = "; ".join(f"{scheme}:// for {what}" for scheme, what in _SCHEMES.items())
        raise ConfigurationError(path, f"has no scheme that is known ({value!r}).", f"{known}.")
    if "@" in parts.netloc:
        problem = "holds credentials."
        raise ConfigurationError(path, problem, "Give them as 'access_key' and 'secret_key'.")
    if parts.query or parts.fragment:
        raise ConfigurationError(path, f"has a query or a fragment ({value!r}).", hint)
    if parts.scheme == "file":
        return _folder(parts.netloc, parts.path, path)
    if parts.scheme != "memory" and not parts.netloc:
        raise ConfigurationError(path, f"names no bucket ({value!r}).", hint)
    prefix = unquote(parts.path).strip("/")
    if any(part in {"", ".", ".."} for part in prefix.split("/")) and prefix:
        problem = f"has '.', '..' or two slashes in its prefix ({value!r})."
        raise ConfigurationError(path, problem, hint)
    return Location(parts.scheme, parts.netloc, prefix)


def _folder(host: str, folder: str, path: str) -> Location:
    if host or not folder.strip("/"):
        raise ConfigurationError(path, "is no folder.", "Write 'file:///THE/WHOLE/PATH'.")
    return Location("file", "", unquote(folder).strip("/"))


def _together(
    given: Mapping[str, Any], values: Mapping[str, Any], path: str
) -> Iterator[ConfigurationError]:
    """What options are wrong beside each other."""
    scheme = values["location"].scheme if "location" in values else ""
    keys = [name for name in ("access_key", "secret_key") if given.get(name)]
    if scheme == "s3" and len(keys) == 1:
        (other,) = {"access_key", "secret_key"} - set(keys)
        hint = "Give both, or neither: then the environment and the machine's role are asked."
        yield ConfigurationError(f"{path}[{other!r}]", f"is missing beside {keys[0]!r}.", hint)
    if keys and values.get("anonymous"):
        hint = "Leave out one of the two."
        yield ConfigurationError(f"{path}['anonymous']", f"stands beside {keys[0]!r}.", hint)
    if keys and values.get("profile"):
        hint = "Leave out one of the two."
        yield ConfigurationError(f"{path}['profile']", f"stands beside {keys[0]!r}.", hint)
    if given.get("querystring_auth") and values.get("anonymous"):
        hint = "Leave out one of the two: what is signed has keys."
        yield ConfigurationError(f"{path}['querystring_auth']", "stands beside 'anonymous'.", hint)
    if scheme == "az" and not values.get("account") and not values.get("endpoint"):
        hint = "Write the name of the storage account."
        yield ConfigurationError(f"{path}['account']", "is missing.", hint)
    for name in sorted(_ONLY):
        if scheme and name in given and scheme not in _ONLY[name]:
            text = f"has no meaning with {scheme}://."
            yield ConfigurationError(f"{path}[{name!r}]", text, "Leave it out.")
    if scheme and values.get("backup_bucket") == values["location"].bucket:
        text = "is the bucket itself, where the copies would be files of the site."
        yield ConfigurationError(f"{path}['backup_bucket']", text, "Name another bucket.")
    yield from _names(given, values, path)


def _names(
    given: Mapping[str, Any], values: Mapping[str, Any], path: str
) -> Iterator[ConfigurationError]:
    if values.get("overwrite") and given.get("names") == "unique":
        text = "is True, but names that are never used twice overwrite nothing."
        hint = "Leave one of the two out: with 'overwrite' names are kept."
        yield ConfigurationError(f"{path}['overwrite']", text, hint)


#: Options that only some kinds of stores have.
_ONLY: Final[Mapping[str, tuple[str, ...]]] = {
    "endpoint": _BUCKETS,
    "anonymous": _BUCKETS,
    "querystring_auth": _BUCKETS,
    "querystring_expire": _BUCKETS,
    "auto_create_bucket": ("s3",),
    "direct": ("s3",),
    "policy": ("s3",),
    "cors": ("s3",),
    "lifecycle": ("s3",),
    "versioning": ("s3",),
    "backup_bucket": ("s3",),
    "backup_format": ("s3",),
    "region": ("s3",),
    "addressing": ("s3",),
    "session_token": ("s3",),
    "profile": ("s3",),
    "account": ("az",),
    "service_account": ("gs",),
    "access_key": ("s3",),
    "secret_key": ("s3", "az"),
}


def _unknown(given: Mapping[str, Any], path: str) -> Iterator[ConfigurationError]:
    for name in given:
        if name in OBJECT_OPTIONS:
            continue
        hint = suggestion(name, OBJECT_OPTIONS)
        if name in THEIRS:
            hint = f"Here it is a part of {THEIRS[name]!r}: see docs/migrating.md."
        yield ConfigurationError(f"{path}[{name!r}]", "is not an option.", hint)


def header_problem(name: object, value: object) -> str:
    """What is wrong with a header of an object, or an empty text."""
    if not isinstance(name, str) or not header_fields.NAME.match(name):
        return f"has {name!r}, which can't be the name of a header"
    if isinstance(value, timedelta):
        return "" if name.lower() == "expires" else f"gives {name!r} a time; only Expires has one"
    if not isinstance(value, str) or not header_fields.VALUE.match(value):
        return f"gives {name!r} the value {value!r}, which a header can't have"
    return ""


def _text(value: object) -> Problem:
    if isinstance(value, str) and value.isprintable():
        return None
    return "is not a text.", "Write a text of printable characters."


def _secret(value: object) -> Problem:
    # Its value is never shown.
    if isinstance(value, str) and value.isprintable() and value == value.strip():
        return None
    return "is no usable text.", "Write printable characters, with no space around them."


def _boolean(value: object) -> Problem:
    return None if isinstance(value, bool) else (f"is {value!r}.", "Write True or False.")


def _url(value: object) -> Problem:
    hint = "Write 'https://HOST' or 'http://HOST:PORT'."
    try:
        parts = urlsplit(value) if isinstance(value, str) else None
        port = parts is not None and (parts.port is None or parts.port)
    except ValueError as error:
        return f"is no URL: {error}.", hint
    if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname or not port:
        return f"is {value!r}, which is no http:// or https:// URL.", hint
    if "@" in parts.netloc:
        return "holds credentials.", "Give them as 'access_key' and 'secret_key'."
    if parts.query or parts.fragment:
        return f"has a query or a fragment ({value!r}).", hint
    return None


def _base_url(value: object) -> Problem:
    if isinstance(value, str) and value.startswith("/") and value.endswith("/"):
        return None
    problem = _url(value)
    if problem is not None:
        return problem[0], "Write 'https://media.example.org/', or a path with slashes around it."
    if not str(value).endswith("/"):
        return f"is {value!r}, which does not end with a slash.", "Add one."
    return None


def _seconds(value: object) -> Problem:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return f"is {value!r}.", "Write a number of seconds."
    if not 0 < value <= LONGEST_URL:
        return f"is {value!r}.", f"Write a number of seconds above 0, and at most {LONGEST_URL}."
    return None


def _headers(value: object) -> Problem:
    hint = "Write {'Cache-Control': 'max-age=3600'}, or a function of a file's name."
    if callable(value) or (isinstance(value, str) and "." in value):
        return None
    if not isinstance(value, Mapping):
        return "is neither a mapping nor a function.", hint
    found = next(filter(None, (header_problem(*item) for item in value.items())), "")
    return (f"{found}.", hint) if found else None


def _origins(value: object) -> Problem:
    hint = "Write a list of origins: ['https://www.example.org']."
    if not isinstance(value, (list, tuple)):
        return f"is {value!r}, not a list.", hint
    for one in value:
        if one == "*":
            continue
        problem = _url(one)
        if problem is not None or str(one).count("/") != 2:
            return f"has {one!r}, which is no origin.", hint
    return None


def _lifecycle(value: object) -> Problem:
    hint = "Write {'abort_uploads_after': 7, 'old_versions_after': 30, 'expire': {'tmp/': 1}}."
    if not isinstance(value, Mapping):
        return f"is {value!r}, not a mapping.", hint
    for name, days in value.items():
        if name not in LIFECYCLE:
            return f"has {name!r}, which is not known.", hint
        if name == "expire":
            wrong = not isinstance(days, Mapping) or not all(
                isinstance(prefix, str) and _are_days(one) for prefix, one in days.items()
            )
        else:
            wrong = not _are_days(days)
        if wrong:
            return f"has {days!r} as {name!r}; days are whole numbers from 1 on.", hint
    return None


def _are_days(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _bucket(value: object) -> Problem:
    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html; others take
    # more, but no slash.
    if isinstance(value, str) and value.isprintable() and "/" not in value:
        return None
    return f"is {value!r}, not the name of a bucket.", "Write the name alone: 'deleted-photos'."


def _format(value: object) -> Problem:
    hint = "Write a format of strftime that gives a part of a name: '%Y-%m-%d/'."
    if not isinstance(value, str):
        return f"is {value!r}, not a text.", hint
    made = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).strftime(value)
    return None if names.is_safe(f"{made}a") else (f"is {value!r}, which makes no name.", hint)


def _one_of(*words: str) -> Callable[[object], Problem]:
    wanted = " or ".join(map(repr, words))

    def check(value: object) -> Problem:
        return None if value in words else (f"is {value!r}.", f"Write {wanted}.")

    return check


def _part_size(value: object) -> Problem:
    if isinstance(value, int) and PART_LEAST <= value <= PART_MOST:
        return None
    return f"is {value!r}.", f"Write a number of bytes from {PART_LEAST} to {PART_MOST}."


def _concurrency(value: object) -> Problem:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 64:
        return None
    return f"is {value!r}.", "Write a number of requests at a time, from 1 to 64."


def _file(value: object) -> Problem:
    if isinstance(value, str) and value.startswith("/"):
        return None
    return f"is {value!r}.", "Write the whole path of a file, beginning with a slash."


_CHECKS: Final[dict[str, Callable[[object], Problem]]] = {
    "endpoint": _url,
    "region": _text,
    "addressing": _one_of("path", "virtual"),
    "access_key": _secret,
    "secret_key": _secret,
    "session_token": _secret,
    "profile": _text,
    "anonymous": _boolean,
    "account": _text,
    "service_account": _file,
    "ca": _file,
    "base_url": _base_url,
    "querystring_auth": _boolean,
    "querystring_expire": _seconds,
    "headers": _headers,
    "active_content": _one_of("download", "inline"),
    "direct": _one_of("post", "put"),
    "names": _one_of("unique", "keep"),
    "auto_create_bucket": _boolean,
    "policy": _one_of("none", "read"),
    "cors": _origins,
    "lifecycle": _lifecycle,
    "versioning": _boolean,
    "backup_bucket": _bucket,
    "backup_format": _format,
    "overwrite": _boolean,
    "timeout": _seconds,
    "connect_timeout": _seconds,
    "deadline": _seconds,
    "part_size": _part_size,
    "concurrency": _concurrency,
}
