"""OUTGROW["REPLICATION"] -> frozen dataclasses, one for each cluster.

Every mistake is found here, once: the router raises the first, and the system
checks list them all.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final

from outgrow.conf import site
from outgrow.errors import ConfigurationError
from outgrow.servers import DOWNTIME, Server
from outgrow.suggestions import suggestion

PATH: Final = "OUTGROW['REPLICATION']"

WHEN_BEHIND: Final = ("primary", "wait", "stale")
WRITE_ON_READ: Final = ("pin", "refuse", "log")
REMEMBER: Final = ("cookie", "cache", "both")
ROUTES: Final = ("primary", "replica")

#: Seconds that are left for the clocks of two machines, beside what lag may be.
CLOCKS: Final = 5

#: A time option in seconds is no longer than that.
_LONGEST: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Remember:
    """Where it is remembered what a client has written.

    `cache` is an alias of CACHES, and `key` gives the user's key for a request: a
    function, or its dotted path.
    """

    where: str = "cookie"
    cache: str = "default"
    key: Callable[[Any], str | None] | str = ""

    @property
    def in_cookie(self) -> bool:
        """Whether the client keeps it."""
        return self.where != "cache"

    @property
    def in_cache(self) -> bool:
        """Whether a cache that all application servers share keeps it."""
        return self.where != "cookie"


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """One primary and its replicas. Times are in seconds.

    A replica's `Server` has its alias in DATABASES as name and address.
    """

    primary: str
    replicas: tuple[Server, ...] = ()
    #: A replica that failed is left alone for so long.
    downtime: float = DOWNTIME
    #: A replica that is further behind serves nobody.
    max_lag: float = 10.0
    #: From one look at each server to the next.
    check_every: float = 5.0
    #: For so long a client reads what he wrote, wherever he reads it.
    pin_for: float = 60.0
    when_behind: str = "primary"
    wait: float = 0.1
    write_on_read: str = "pin"
    #: Tables that a request which reads may write all the same: no error, and no line in the log.
    write_on_read_except: tuple[str, ...] = ("django_session",)
    #: What a replica that does not answer a read costs at most.
    read_timeout: float = 10.0
    #: By view name, import path or pattern of the path: "primary" or "replica".
    views: Mapping[str, str] = field(default_factory=dict)
    remember: Remember = field(default_factory=Remember)
    cookie_name: str = "outgrow"
    #: A header that forces the route, and the networks of the proxies that may send it.
    header: str = ""
    trusted_proxies: tuple[str, ...] = ()

    @property
    def aliases(self) -> tuple[str, ...]:
        """The aliases of the replicas."""
        return tuple(server.address for server in self.replicas)


def replication() -> tuple[ClusterOptions, ...]:
    """The clusters of the setting. Raises the first `ConfigurationError`."""
    found, problems = cluster_options(site.outgrow(), site.databases())
    if problems:
        raise problems[0]
    return found


def cluster_options(
    given: Any, databases: Mapping[str, Mapping[str, Any]]
) -> tuple[tuple[ClusterOptions, ...], list[ConfigurationError]]:
    """Check the setting OUTGROW. Returns what can be used, and every problem."""
    problems: list[ConfigurationError] = []
    if not isinstance(given, Mapping):
        hint = "Write {'REPLICATION': {'default': {'replicas': ['replica1']}}}."
        return (), [ConfigurationError("OUTGROW", f"is {given!r}, no mapping.", hint)]
    for name in given:
        if name not in site.OUTGROW_SETTINGS:
            hint = suggestion(str(name), site.OUTGROW_SETTINGS)
            problems.append(ConfigurationError(f"OUTGROW[{name!r}]", "is not a setting.", hint))
    clusters = given.get("REPLICATION", {})
    if not isinstance(clusters, Mapping):
        hint = "Write {'default': {'replicas': ['replica1']}}: primaries, and what each has."
        return (), [ConfigurationError(PATH, f"is {clusters!r}, no mapping.", hint)]
    found = tuple(
        _cluster(primary, options, databases, problems) for primary, options in clusters.items()
    )
    problems += _among(found)
    return found, problems


def _cluster(
    primary: str,
    given: Any,
    databases: Mapping[str, Mapping[str, Any]],
    problems: list[ConfigurationError],
) -> ClusterOptions:
    path = f"{PATH}[{primary!r}]"
    if primary not in databases:
        hint = f"There are: {', '.join(sorted(databases))}."
        problems.append(ConfigurationError(path, "is not an alias in DATABASES.", hint))
    if not isinstance(given, Mapping):
        hint = "Write a mapping with at least 'replicas'."
        problems.append(ConfigurationError(path, f"is {given!r}.", hint))
        return ClusterOptions(primary)
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name in _OUTSIDE:
            continue
        check = _CHECKS.get(name)
        problem = check(value) if check else ("is not an option.", suggestion(str(name), _KNOWN))
        if problem:
            problems.append(ConfigurationError(f"{path}[{name!r}]", *problem))
        elif name in _REMEMBER:
            continue
        else:
            values[name] = tuple(value) if name in _LISTS else value
    values["replicas"] = _replicas(primary, given, databases, path, problems)
    values["remember"] = _remember(given, path, problems)
    options = ClusterOptions(primary, **values)
    problems += _together(options, given, path)
    return options


def _replicas(
    primary: str,
    given: Mapping[str, Any],
    databases: Mapping[str, Mapping[str, Any]],
    path: str,
    problems: list[ConfigurationError],
) -> tuple[Server, ...]:
    names, place = given.get("replicas", ()), f"{path}['replicas']"
    if isinstance(names, (str, bytes)) or not isinstance(names, Sequence):
        hint = "Write a list of aliases, as in ['replica1', 'replica2']."
        problems.append(ConfigurationError(place, f"is {names!r}.", hint))
        return ()
    weights = _weights(names, given.get("weights", {}), path, problems)
    servers = []
    for index, name in enumerate(names):
        problem = _replica(name, primary, list(names[:index]), databases)
        if problem:
            problems.append(ConfigurationError(f"{place}[{index}]", *problem))
        else:
            servers.append(Server(name, name, weight=weights.get(name, 1)))
    return tuple(servers)


def _replica(
    name: object, primary: str, before: list[object], databases: Mapping[str, Mapping[str, Any]]
) -> Problem:
    if not isinstance(name, str) or name not in databases:
        known = f"There are: {', '.join(sorted(databases))}."
        return f"is {name!r}, which is not an alias in DATABASES.", known
    if name == primary:
        return f"is {name!r}, its own primary.", "Leave it out: the primary serves without this."
    if name in before:
        return f"is {name!r}, for the second time.", "Set its 'weights' for a larger share."
    host = str(databases[name].get("HOST", ""))
    if "," in host:
        return (
            f"is {name!r}, whose HOST names several servers: {host!r}.",
            "Give each server an alias of its own: what one has replayed says nothing of another.",
        )
    ours, theirs = databases[name].get("ENGINE"), databases.get(primary, {}).get("ENGINE")
    if theirs is not None and ours != theirs:
        return (
            f"is {name!r}, whose ENGINE is {ours!r}, and the primary's is {theirs!r}.",
            "A replica runs what its primary runs.",
        )
    return None


def _weights(
    names: Sequence[Any], given: Any, path: str, problems: list[ConfigurationError]
) -> Mapping[Any, int]:
    place, hint = f"{path}['weights']", "Write {'replica1': 2}: whole numbers from 0."
    if not isinstance(given, Mapping):
        problems.append(ConfigurationError(place, f"is {given!r}.", hint))
        return {}
    good = {}
    for name, weight in given.items():
        if name not in names:
            text = f"has {name!r}, which is not in 'replicas'."
            problems.append(ConfigurationError(place, text, hint))
        elif isinstance(weight, bool) or not isinstance(weight, int) or weight < 0:
            problems.append(ConfigurationError(place, f"has {weight!r} for {name!r}.", hint))
        else:
            good[name] = weight
    return good


def _remember(given: Mapping[str, Any], path: str, problems: list[ConfigurationError]) -> Remember:
    where = given.get("remember", "cookie")
    key, cache = given.get("key", ""), given.get("cache", "default")
    good = where in REMEMBER
    if good and where != "cookie" and not key:
        hint = "Write a function of the request that gives a text for its user, or None."
        problems.append(ConfigurationError(f"{path}['key']", "is missing, for the cache.", hint))
    if good and where == "cookie" and key:
        hint = "Set 'remember' to 'cache' or 'both', or leave 'key' out."
        problems.append(ConfigurationError(f"{path}['key']", "has no meaning for cookies.", hint))
    return Remember(where if good else "cookie", cache, key)


def _together(
    options: ClusterOptions, given: Mapping[str, Any], path: str
) -> Iterator[ConfigurationError]:
    """What options are wrong beside each other."""
    least = options.max_lag + 2 * options.check_every + CLOCKS
    if options.pin_for < least:
        yield ConfigurationError(
            f"{path}['pin_for']",
            f"is {options.pin_for:g} s, but a replica may be used that is {least:g} s behind.",
            f"Write at least {least:g} (max_lag + 2 * check_every + {CLOCKS}), or lower those.",
        )
    if options.max_lag < options.check_every * 2:
        yield ConfigurationError(
            f"{path}['max_lag']",
            f"is {options.max_lag:g} s, and a server is looked at every {options.check_every:g} s "
            "only: an equal replica would count as behind.",
            "Write at least twice 'check_every'.",
        )
    if options.header and not options.trusted_proxies:
        hint = "Set 'trusted_proxies' to the addresses of the proxies that set it."
        yield ConfigurationError(f"{path}['header']", "may be sent by everybody.", hint)
    if options.trusted_proxies and not options.header:
        hint = "Set 'header' to the name of the header, or leave the proxies out."
        yield ConfigurationError(f"{path}['trusted_proxies']", "have no header.", hint)
    if "replicas" in given and not given["replicas"] and not isinstance(given["replicas"], str):
        hint = "Name at least one alias, or leave this cluster out."
        yield ConfigurationError(f"{path}['replicas']", "is empty.", hint)
    if "replicas" not in given:
        hint = "Write a list of aliases, as in ['replica1', 'replica2']."
        yield ConfigurationError(f"{path}['replicas']", "is missing.", hint)


def _among(clusters: Sequence[ClusterOptions]) -> Iterator[ConfigurationError]:
    """What is wrong between clusters."""
    owners: dict[str, str] = {cluster.primary: cluster.primary for cluster in clusters}
    for cluster in clusters:
        for alias in cluster.aliases:
            other = owners.setdefault(alias, cluster.primary)
            if other != cluster.primary:
                yield ConfigurationError(
                    f"{PATH}[{cluster.primary!r}]['replicas']",
                    f"has {alias!r}, which belongs to the cluster {other!r}.",
                    "A server has one primary.",
                )
    names = [cluster.cookie_name for cluster in clusters]
    for cluster, name in zip(clusters, names, strict=True):
        if name != names[0]:
            hint = "One cookie holds what a client wrote to all clusters."
            path = f"{PATH}[{cluster.primary!r}]['cookie_name']"
            yield ConfigurationError(path, f"is {name!r}, and another's is {names[0]!r}.", hint)


Problem = tuple[str, str] | None


def _seconds(value: object) -> Problem:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and math.isfinite(value) and 0 < value <= _LONGEST:  # type: ignore[arg-type,operator]
        return None
    return f"is {value!r}.", f"Write a number of seconds above 0, and at most {_LONGEST}."


def _one_of(words: Sequence[str]) -> Callable[[object], Problem]:
    def check(value: object) -> Problem:
        if value in words:
            return None
        return f"is {value!r}.", f"Write one of {', '.join(map(repr, words))}."

    return check


def _views(value: object) -> Problem:
    hint = "Write {'app:view': 'primary', '/reports/*': 'replica'}."
    if not isinstance(value, Mapping):
        return f"is {value!r}.", hint
    for name, route in value.items():
        if route not in ROUTES or not isinstance(name, str):
            return f"has {route!r} for {name!r}.", hint
        if not name.startswith("/") and set(name) & set("/*?["):
            # A path always has its slash, and no name of a view has these.
            problem = f"has {name!r}, which is no name of a view and matches no path."
            return problem, f"Write {'/' + name!r} for a pattern of the path."
    return None


def _tables(value: object) -> Problem:
    if isinstance(value, (list, tuple)) and all(isinstance(one, str) and one for one in value):
        return None
    return f"is {value!r}.", "Write a list of tables, as in ['django_session']."


def _word(value: object) -> Problem:
    # RFC 6265 §4.1.1 and RFC 9110 §5.6.2: the names of cookies and headers are tokens.
    if isinstance(value, str) and value and value.replace("-", "a").replace("_", "a").isalnum():
        return None if value.isascii() else (f"is {value!r}.", "Use ASCII letters.")
    return f"is {value!r}.", "Use letters, digits, '-' and '_'."


def _text(value: object) -> Problem:
    return None if isinstance(value, str) and value else (f"is {value!r}.", "Write a text.")


def _key(value: object) -> Problem:
    if callable(value) or (isinstance(value, str) and "." in value):
        return None
    return f"is {value!r}.", "Write a function of the request, or its dotted path."


def _networks(value: object) -> Problem:
    hint = "Write a list of addresses or networks, as in ['10.0.0.0/8']."
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        return f"is {value!r}.", hint
    for network in value:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            return f"has {network!r}: {error}.", hint
    return None


_CHECKS: Final[dict[str, Callable[[object], Problem]]] = {
    "downtime": _seconds,
    "max_lag": _seconds,
    "check_every": _seconds,
    "pin_for": _seconds,
    "when_behind": _one_of(WHEN_BEHIND),
    "wait": _seconds,
    "write_on_read": _one_of(WRITE_ON_READ),
    "write_on_read_except": _tables,
    "read_timeout": _seconds,
    "views": _views,
    "remember": _one_of(REMEMBER),
    "cache": _text,
    "key": _key,
    "cookie_name": _word,
    "header": _word,
    "trusted_proxies": _networks,
}
#: These are looked at together with others.
_OUTSIDE: Final = ("replicas", "weights")
_REMEMBER: Final = ("remember", "cache", "key")
#: Options that are lists, and are kept as tuples.
_LISTS: Final = ("trusted_proxies", "write_on_read_except")
_KNOWN: Final = (*_OUTSIDE, *_CHECKS)

# A new option has a check, or its values would be believed.
assert {one.name for one in fields(ClusterOptions)} <= {*_KNOWN, "primary"}
