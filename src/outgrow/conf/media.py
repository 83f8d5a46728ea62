"""The options of a media storage -> a frozen dataclass.

Every mistake is found here, once, and told in two ways: the constructor of a
storage raises the first, and the system checks list them all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from outgrow.conf import site
from outgrow.endpoint import endpoint
from outgrow.errors import ConfigurationError
from outgrow.exchange import TIMEOUT
from outgrow.fanout import DEADLINE
from outgrow.servers import DOWNTIME, Server
from outgrow.suggestions import suggestion

_NAME: Final = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9._:\[\]-]{0,99}\Z")
_HOST_AND_PORT: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]+\Z")

_SERVERS_HINT: Final = (
    "Give a list of URLs, as in ['http://media1:8080'], or a mapping of names to URLs."
)

#: Seconds in a time option. poll(2) counts milliseconds in a C int, some 24 days.
_LONGEST: Final = 1_000_000

#: Files that may wait for a thread. Each is some hundred bytes of memory.
_LARGEST: Final = 1_000_000

BACKGROUND_WORDS: Final = ("thread", "tasks", "celery", "rq")
NEED_WORDS: Final = ("majority", "all")
NAMES_WORDS: Final = ("unique", "keep")
JOURNAL_WORDS: Final = ("database", "none")
READ_WORDS: Final = ("any", "majority")


@dataclass(frozen=True, slots=True)
class MediaOptions:
    """The options of a media storage, checked. Times are in seconds.

    `need` is a number of servers. `transport` makes another transport than plain
    HTTP: it is called with the servers and the journal.
    """

    servers: tuple[Server, ...] = ()
    need: int = 1
    names: str = "unique"
    timeout: float = TIMEOUT
    deadline: float = DEADLINE
    downtime: float = DOWNTIME
    fsync: bool = False
    show_traceback: bool = False
    token: str = field(default="", repr=False)
    #: By server: "user:password" or a token. Or what is called with a server's name and
    #: gives that: a function, or its dotted path.
    credentials: Mapping[str, str] | Callable[[str], str] | str = field(
        default_factory=dict, repr=False
    )
    ca: str = ""
    certificate: str = ""
    key: str = field(default="", repr=False)
    transport: Callable[..., Any] | None = None
    #: By server: what stands before a name in the URL for visitors; ends with a slash.
    public_urls: Mapping[str, str] = field(default_factory=dict)
    #: URLs are signed with `secret`, and good for so many seconds.
    querystring_auth: bool = False
    querystring_expire: float = 3600.0
    secret: str = field(default="", repr=False)
    #: A delete in a transaction of `using` happens after its commit.
    delete_on_commit: bool = False
    using: str = "default"
    #: Of an asynchronous storage: who does the work, how much may wait for a thread and
    #: how long at exit; the name of the queue, and where Redis is (for RQ).
    background: str = "thread"
    backlog: int = 1000
    drain: float = 10.0
    queue: str = ""
    broker: str = field(default="", repr=False)
    #: Of a distributed storage: "none" for no catalogue; the catalogue's own alias, its name,
    #: seconds for which a transaction may last, and what `exists` believes.
    journal: str = "database"
    database: str = "outgrow"
    catalogue: str = "media"
    grace: float = 86400.0
    read: str = "any"


_ASYNC_ONLY: Final = ("background", "backlog", "drain", "queue", "broker")
_DISTRIBUTED_ONLY: Final = ("journal", "database", "catalogue", "grace", "read")
_ALL: Final = tuple(option.name for option in fields(MediaOptions))

#: The options of a storage that saves on the servers, and of one that does so later.
HYBRID_OPTIONS: Final = tuple(
    name for name in _ALL if name not in {*_ASYNC_ONLY, *_DISTRIBUTED_ONLY}
)
ASYNC_OPTIONS: Final = tuple(name for name in _ALL if name not in {"need", *_DISTRIBUTED_ONLY})
DISTRIBUTED_OPTIONS: Final = tuple(
    name for name in _ALL if name not in {*_ASYNC_ONLY, "names", "fsync", "delete_on_commit"}
)

#: The options that a media storage passes on to Django's FileSystemStorage.
DJANGO_OPTION_NAMES: Final = (
    "location",
    "base_url",
    "file_permissions_mode",
    "directory_permissions_mode",
    "allow_overwrite",
)


def media_options(
    given: Mapping[str, Any], path: str = "OPTIONS", known: Sequence[str] = HYBRID_OPTIONS
) -> tuple[MediaOptions, list[ConfigurationError]]:
    """Check the options of a media storage, which has those that are `known`.

    Returns what can be used and every problem. `path` says where the options
    stand, for the messages.
    """
    problems = list(_unknown(given, path, known))
    servers: tuple[Server, ...] = ()
    in_urls: dict[str, str] = {}
    try:
        place, base_url = f"{path}['servers']", given.get("base_url")
        servers, in_urls = _servers(given.get("servers"), place, base_url)
    except ExceptionGroup as group:
        problems += [error for error in group.exceptions if isinstance(error, ConfigurationError)]
    values = {"servers": servers, **checked(given, _CHECKS, path, problems)}
    values["need"] = _needed(given, known, len(servers), path, problems)
    values["credentials"] = _secrets(values.get("credentials"), in_urls, path, problems)
    problems += _together(given, values, path)
    return MediaOptions(**values), problems


def checked(
    given: Mapping[str, Any],
    checks: Mapping[str, Callable[[object], Problem]],
    path: str,
    problems: list[ConfigurationError],
) -> dict[str, Any]:
    """Those options that pass their checks; what is wrong with the others is added."""
    values: dict[str, Any] = {}
    for name, check in checks.items():
        if name not in given:
            continue
        problem = check(given[name])
        if problem:
            problems.append(ConfigurationError(f"{path}[{name!r}]", *problem))
        else:
            values[name] = given[name]
    return values


def _needed(
    given: Mapping[str, Any],
    known: Sequence[str],
    count: int,
    path: str,
    problems: list[ConfigurationError],
) -> int:
    """The option `need`, as far as this kind of storage has it."""
    if "need" not in known:
        return 0  # it waits for no server
    without_master = "database" in known
    if given.get("journal") == "none":
        if given.get("need", "all") != "all":
            problems.append(
                ConfigurationError(
                    f"{path}['need']",
                    f"is {given['need']!r}, but without a catalogue nobody could tell the other "
                    "servers later.",
                    "Leave it out: all servers must take a file.",
                )
            )
        return count
    need = given.get("need", "majority" if without_master else 1)
    if without_master and need == 0:
        problems.append(
            ConfigurationError(
                f"{path}['need']",
                "is 0, but there is no master copy: a file that no server took would be lost.",
                "Write a number from 1, 'majority' or 'all'.",
            )
        )
    return _need(need, count, f"{path}['need']", problems)


def _secrets(
    apart: Any, in_urls: Mapping[str, str], path: str, problems: list[ConfigurationError]
) -> Any:
    """The option `credentials`, with those that stand in URLs."""
    if apart is None or isinstance(apart, Mapping):
        return {**in_urls, **(apart or {})}
    if in_urls:
        text = "stand in the URLs of servers, too."
        hint = "Leave them out of the URLs."
        problems.append(ConfigurationError(f"{path}['credentials']", text, hint))
    return apart


def _together(
    given: Mapping[str, Any], values: Mapping[str, Any], path: str
) -> Iterator[ConfigurationError]:
    """What options are wrong beside each other."""
    if values.get("key") and not values.get("certificate"):
        hint = "Set 'certificate' to the file of the certificate, too."
        yield ConfigurationError(f"{path}['key']", "has no certificate.", hint)
    if values.get("querystring_auth") and not values.get("secret"):
        hint = "Set 'secret' to the text that the media servers check signatures with."
        yield ConfigurationError(f"{path}['querystring_auth']", "needs a secret.", hint)
    servers = {server.name for server in values["servers"]}
    for name in values.get("public_urls", {}):
        if servers and name not in servers:
            text = f"has {name!r}, which is not in 'servers'."
            hint = f"There are: {', '.join(sorted(servers))}."
            yield ConfigurationError(f"{path}['public_urls']", text, hint)
    timeout, deadline = values.get("timeout", TIMEOUT), values.get("deadline", DEADLINE)
    if deadline < timeout:
        yield ConfigurationError(
            f"{path}['deadline']",
            f"is {deadline:g} s, less than the {timeout:g} s of 'timeout'.",
            "A save needs time for at least one answer: write more, or a smaller 'timeout'.",
        )
    if values.get("background") == "rq" and not values.get("broker"):
        hint = "Write the URL of Redis, as in 'redis://127.0.0.1:6379/0'."
        yield ConfigurationError(f"{path}['broker']", "is missing, for RQ.", hint)
    if given.get("allow_overwrite") and values.get("names", "unique") == "unique":
        yield ConfigurationError(
            f"{path}['allow_overwrite']",
            "has no meaning with names that are never used twice.",
            "Set names='keep' as well, or leave it out.",
        )


def _unknown(
    given: Mapping[str, Any], path: str, options: Sequence[str]
) -> Iterator[ConfigurationError]:
    django = ("base_url",) if "database" in options else DJANGO_OPTION_NAMES
    known = (*options, *django)
    for name in given:
        if name not in known:
            hint = suggestion(name, known)
            yield ConfigurationError(f"{path}[{name!r}]", "is not an option.", hint)


def _servers(
    given: object, path: str, base_url: object
) -> tuple[tuple[Server, ...], dict[str, str]]:
    """The servers of an option, and the credentials in their URLs.

    Raises a group of `ConfigurationError`.
    """
    if not given or isinstance(given, (str, bytes)):
        problem = "is a text, not a list." if given else "is missing or empty."
        raise ExceptionGroup("servers", [ConfigurationError(path, problem, _SERVERS_HINT)])
    problems: list[ConfigurationError] = []
    servers = []
    credentials = {}
    for place, name, value in _entries(given, path, problems):
        try:
            plain, secret = _divided(value, place)
            servers.append(_server(place, name, plain, base_url))
            if secret:
                credentials[servers[-1].name] = secret
        except ConfigurationError as error:
            problems.append(error)
            continue
        problems += _twice(servers, place)
    if problems:
        raise ExceptionGroup("servers", problems)
    return tuple(servers), credentials


def _divided(value: object, place: str) -> tuple[object, str]:
    """A URL without its user and password, and those."""
    if not isinstance(value, str) or "@" not in value:
        return value, ""
    found = re.fullmatch(r"(https?://)([^/@:?#\s]+:[^/@?#\s]*)@([^/@]+(?:/.*)?)", value, re.DOTALL)
    if found is None:
        raise ConfigurationError(
            place,
            "holds an '@', but no user and password before it.",
            "Write 'https://USER:PASSWORD@HOST/', with '@', '/' and ':' in them as %40, %2F and "
            "%3A; or use the option 'credentials'.",
        )
    secret = unquote(found[2])
    problem = _secret(secret)
    if problem:
        raise ConfigurationError(place, *problem)
    return f"{found[1]}{found[3]}", secret


def _entries(
    given: object, path: str, problems: list[ConfigurationError]
) -> Iterator[tuple[str, str, object]]:
    """The entries of a list or a mapping: where it stands, its name if it has one, its value."""
    if isinstance(given, Mapping):
        for name, value in given.items():
            yield f"{path}[{name!r}]", str(name), value
    elif isinstance(given, Sequence):
        for index, value in enumerate(given):
            yield f"{path}[{index}]", "", value
    else:
        problems.append(ConfigurationError(path, "is neither a list nor a mapping.", _SERVERS_HINT))


def _server(place: str, name: str, value: object, base_url: object) -> Server:
    if not isinstance(value, str):
        raise ConfigurationError(place, f"is {value!r}, not a URL.", "Write 'http://HOST:PORT'.")
    url = value
    if _HOST_AND_PORT.match(value):
        # As django-resto had it: files lie under the path of MEDIA_URL.
        url = f"http://{value}{_media_path(base_url)}"
    try:
        where = endpoint(url)
    except ValueError as error:
        raise ConfigurationError(
            place,
            f"{_masked(value)!r} {error}.",
            "Write 'http://HOST:PORT' or 'https://HOST/PATH/'.",
        ) from error
    name = name or where.netloc
    if not _NAME.match(name):
        raise ConfigurationError(
            place, f"{name!r} can't be a server's name.", "Use letters, digits, '.', '-' and '_'."
        )
    return Server(name, f"{where.scheme}://{where.netloc}{where.path}")


def _masked(url: str) -> str:
    """A URL without what may be a password, which may itself hold '@' and '/'."""
    return re.sub(r"//.*@", "//...@", url, flags=re.DOTALL)


def _media_path(base_url: object) -> str:
    """The path of MEDIA_URL, below which django-resto put files on a bare host."""
    url = site.media_url() if base_url is None else base_url
    path = urlsplit(str(url)).path
    return path if path.startswith("/") else f"/{path}"


def _twice(servers: list[Server], place: str) -> Iterator[ConfigurationError]:
    newest = servers[-1]
    for other in servers[:-1]:
        if other.name == newest.name:
            yield ConfigurationError(
                place,
                f"is the second server named {newest.name!r}.",
                "Give each a name of its own: {'media1': 'http://HOST:PORT', ...}.",
            )
        elif endpoint(other.address) == endpoint(newest.address):
            yield ConfigurationError(
                place,
                f"is the same server as {other.name!r}: {newest.address}.",
                "Each copy must lie on a server of its own.",
            )


def _need(given: object, count: int, path: str, problems: list[ConfigurationError]) -> int:
    """The option `need` as a number of servers."""
    if given == "all":
        return count
    if given == "majority":
        return count // 2 + 1
    if isinstance(given, bool) or not isinstance(given, int):
        hint = "Write a number of servers, 'majority', 'all', or 0."
        problems.append(ConfigurationError(path, f"is {given!r}.", hint))
        return 1
    if given < 0 or (count and given > count):
        problems.append(
            ConfigurationError(
                path,
                f"is {given}, but there are {count} servers.",
                f"Write a number from 0 to {count}.",
            )
        )
        return 1
    return given


Problem = tuple[str, str] | None


def _positive(value: object) -> Problem:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"is {value!r}.", "Write a number of seconds."
    if not 0 < value <= _LONGEST:
        return f"is {value!r}.", f"Write a number of seconds above 0, and at most {_LONGEST}."
    return None


def _boolean(value: object) -> Problem:
    return None if isinstance(value, bool) else (f"is {value!r}.", "Write True or False.")


def _token(value: object) -> Problem:
    if isinstance(value, str) and all(32 < ord(character) < 127 for character in value):
        return None
    return "is not a token.", "Write a text of visible ASCII characters, without spaces."


def _secret(value: object) -> Problem:
    # A password may be any text in UTF-8 (RFC 7617 §2.1); a token is ASCII.
    if isinstance(value, str) and value and value.isprintable() and ":" in value:
        return None
    if value and _token(value) is None:
        return None
    return "holds no usable secret.", "Write 'user:password' or a token, in printable characters."


def is_secret(value: object) -> bool:
    """Whether a server can be sent this: "user:password", or a token."""
    return _secret(value) is None


def _credentials(value: object) -> Problem:
    if callable(value) or (isinstance(value, str) and "." in value):
        return None
    if not isinstance(value, Mapping):
        return "are neither a mapping nor a function.", (
            "Write {'media1': 'user:password'}, a function of a server's name, or its dotted path."
        )
    return next(filter(None, map(_secret, value.values())), None)


def _path(value: object) -> Problem:
    if isinstance(value, str) and value.startswith("/"):
        return None
    return f"is {value!r}.", "Write the whole path of a file, beginning with a slash."


def _names(value: object) -> Problem:
    if value in NAMES_WORDS:
        return None
    return f"is {value!r}.", "Write 'unique' or 'keep'."


def _transport(value: object) -> Problem:
    return None if value is None or callable(value) else ("can't be called.", "Give a class.")


def _journal(value: object) -> Problem:
    if value in JOURNAL_WORDS:
        return None
    return f"is {value!r}.", "Write 'database' or 'none'."


def _public_urls(value: object) -> Problem:
    hint = "Write {'media1': 'https://media1.example.org/media/'}."
    if not isinstance(value, Mapping):
        return "is no mapping of servers to addresses.", hint
    for name, url in value.items():
        parts = urlsplit(url) if isinstance(url, str) else None
        if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname:
            return f"has {url!r} for {name!r}, which is no http:// or https:// URL.", hint
        if parts.query or parts.fragment or parts.username or not url.endswith("/"):
            return f"has {url!r} for {name!r}, which must end with a slash after its path.", hint
    return None


def _background(value: object) -> Problem:
    if value in BACKGROUND_WORDS:
        return None
    return f"is {value!r}.", f"Write one of {', '.join(map(repr, BACKGROUND_WORDS))}."


def _backlog(value: object) -> Problem:
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LARGEST:
        return None
    return f"is {value!r}.", f"Write a number of files from 1 to {_LARGEST}."


def _read(value: object) -> Problem:
    return None if value in READ_WORDS else (f"is {value!r}.", "Write 'any' or 'majority'.")


def _text(value: object) -> Problem:
    return None if isinstance(value, str) else (f"is {value!r}.", "Write a text.")


_CHECKS: Final[dict[str, Callable[[object], Problem]]] = {
    "names": _names,
    "timeout": _positive,
    "deadline": _positive,
    "downtime": _positive,
    "fsync": _boolean,
    "delete_on_commit": _boolean,
    "querystring_auth": _boolean,
    "querystring_expire": _positive,
    "secret": _token,
    "show_traceback": _boolean,
    "token": _token,
    "credentials": _credentials,
    "ca": _path,
    "certificate": _path,
    "key": _path,
    "transport": _transport,
    "public_urls": _public_urls,
    "background": _background,
    "backlog": _backlog,
    "drain": _positive,
    "queue": _text,
    "broker": _text,
    "journal": _journal,
    "database": _text,
    "using": _text,
    "catalogue": _text,
    "grace": _positive,
    "read": _read,
}
