"""The words of `runfcgi` -> checked options.

The words are those of Django's own command, which it had until version 1.8:
https://docs.djangoproject.com/en/1.8/howto/deployment/fastcgi/. Not here are the protocols scgi
and ajp, `debug`, and `maxspare` and `minspare` of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from outgrow.errors import ConfigurationError
from outgrow.suggestions import suggestion

METHODS: Final = ("threaded", "prefork")

#: Seconds for which requests that are under way may go on when the server is to stop. What a
#: web server itself waits for an answer: nginx's fastcgi_read_timeout is 60.
GRACE: Final = 60.0

_TRUE: Final = ("1", "on", "t", "true", "y", "yes")
_FALSE: Final = ("0", "f", "false", "n", "no", "off")


@dataclass(frozen=True)
class Options:
    """How the site is served.

    Without `host` and `socket` the server is one that the web server has started, on descriptor
    0. `most` are requests at a time; with `prefork` each has a process, of which `fewest` to
    `spare` are idle, and each ends after `requests` (0: never). `umask` is that of the socket.
    `grace` is in seconds.
    """

    method: str = "prefork"
    host: str = ""
    port: int = 0
    socket: Path | None = None
    umask: int | None = None
    requests: int = 0
    fewest: int = 2
    spare: int = 5
    most: int = 50
    daemonize: bool = False
    pidfile: Path | None = None
    workdir: Path | None = None
    outlog: Path | None = None
    errlog: Path | None = None
    grace: float = GRACE

    @property
    def is_own(self) -> bool:
        """Whether the socket is our own, and not one that the web server gives."""
        return self.socket is not None or bool(self.host)

    @property
    def place(self) -> str:
        """Where it listens, for messages."""
        if not self.is_own:
            return "the web server's own socket"
        return str(self.socket or f"{self.host}:{self.port}")


def parse(words: Iterable[str], given: Mapping[str, Any] | None = None) -> Options:
    """The options from words like ``method=threaded`` and from a mapping.

    Paths are made absolute, for a daemon has another folder. Raises ConfigurationError for the
    first that is wrong.
    """
    found = dict(given or {})
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            hint = "Write NAME=VALUE; `manage.py runfcgi help` has all of them."
            raise ConfigurationError("runfcgi", f"was given {word!r}.", hint)
        found[name] = value
    fields: dict[str, Any] = {}
    for name, value in found.items():
        if name not in _WORDS:
            problem = "is not an option."
            raise ConfigurationError(f"runfcgi {name}", problem, suggestion(name, tuple(_WORDS)))
        field, check = _WORDS[name]
        fields[field] = check(value, f"runfcgi {name}")
    return _together(Options(**fields), found)


def _together(options: Options, found: Mapping[str, Any]) -> Options:
    if options.socket is not None and (options.host or options.port):
        raise ConfigurationError("runfcgi socket", "stands beside host and port.", "Choose one.")
    if bool(options.host) != bool(options.port):
        missing = "port" if options.host else "host"
        raise ConfigurationError(f"runfcgi {missing}", "is missing.", "host and port go together.")
    if options.daemonize and not options.is_own:
        hint = "Say where: host=127.0.0.1 port=3033, or socket=PATH."
        raise ConfigurationError("runfcgi daemonize", "has no place to listen at.", hint)
    if options.method == "threaded":
        for name in ("minspare", "maxspare", "maxrequests"):
            if name in found:
                problem = "is for method=prefork: threads are no processes."
                raise ConfigurationError(f"runfcgi {name}", problem, "Leave it out.")
        return options
    if not options.fewest <= options.spare <= options.most:
        problem = f"is {options.fewest}, of {options.spare} spare and {options.most} in all."
        hint = "minspare <= maxspare <= maxchildren."
        raise ConfigurationError("runfcgi minspare", problem, hint)
    return options


def _number(least: int, most: int) -> Callable[[object, str], int]:
    def check(value: object, path: str) -> int:
        text = str(value)
        if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
            raise ConfigurationError(path, f"is {value!r}.", f"Write a number, {least} to {most}.")
        return int(text)

    return check


def _seconds(value: object, path: str) -> float:
    try:
        seconds = float(str(value))
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86_400:
        raise ConfigurationError(path, f"is {value!r}.", "Write seconds, at most 86400.")
    return seconds


def _umask(value: object, path: str) -> int:
    try:
        mask = int(str(value), 8)
    except ValueError:
        mask = -1
    if not 0 <= mask <= 0o777:
        raise ConfigurationError(path, f"is {value!r}.", "Write an octal number, as in 007.")
    return mask


def _flag(value: object, path: str) -> bool:
    word = str(value).lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise ConfigurationError(path, f"is {value!r}.", "Write true or false.")


def _file(value: object, path: str) -> Path:
    if not value or "\0" in str(value):
        raise ConfigurationError(path, f"is {value!r}.", "Write a path.")
    return Path(str(value)).absolute()


def _host(value: object, path: str) -> str:
    if not isinstance(value, str) or not value or value != value.strip():
        raise ConfigurationError(path, f"is {value!r}.", "Write an address, as in 127.0.0.1.")
    return value


def _method(value: object, path: str) -> str:
    if value in METHODS:
        return str(value)
    raise ConfigurationError(path, f"is {value!r}.", f"Write one of {', '.join(METHODS)}.")


#: What Django called it -> the field, and its check. The order is that of the help.
_WORDS: Final[Mapping[str, tuple[str, Callable[[Any, str], Any]]]] = {
    "method": ("method", _method),
    "host": ("host", _host),
    "port": ("port", _number(1, 65535)),
    "socket": ("socket", _file),
    "umask": ("umask", _umask),
    "maxrequests": ("requests", _number(0, 1_000_000_000)),
    "minspare": ("fewest", _number(1, 1000)),
    "maxspare": ("spare", _number(1, 1000)),
    "maxchildren": ("most", _number(1, 1000)),
    "grace": ("grace", _seconds),
    "daemonize": ("daemonize", _flag),
    "pidfile": ("pidfile", _file),
    "workdir": ("workdir", _file),
    "outlog": ("outlog", _file),
    "errlog": ("errlog", _file),
}

NAMES: Final = tuple(_WORDS)

HELP: Final = """\
Serve this site by FastCGI, behind nginx, Apache or lighttpd.

  manage.py runfcgi NAME=VALUE ...     (or: --NAME VALUE ...)

Where to listen; without any of these the web server has started this process itself:
  host=ADDRESS port=NUMBER   a TCP port
  socket=PATH                a Unix socket, on the same machine
  umask=OCTAL                who may open the socket: 007 for user and group

How:
  method=prefork|threaded    processes (the default), or one process with threads
  maxchildren=NUMBER         requests at a time (50); others wait
  minspare=NUMBER            processes that are idle at least (2)
  maxspare=NUMBER            processes that are idle at most (5)
  maxrequests=NUMBER         requests after which a process is replaced (0: never)
  grace=SECONDS              for which running requests may go on at the end (60)

As a daemon:
  daemonize=true|false       go into the background, once it listens (false)
  pidfile=PATH               where the process id is written
  workdir=PATH               change to this folder (/ for a daemon)
  outlog=PATH errlog=PATH    where output and errors go (nowhere, for a daemon)

SIGTERM ends it when the running requests have ended; SIGKILL loses them.

  manage.py runfcgi method=threaded host=127.0.0.1 port=3033
  manage.py runfcgi socket=/run/site/site.sock pidfile=/run/site/site.pid daemonize=true
"""
