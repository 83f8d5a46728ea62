"""What a statement of SQL does, and what a database's error means.

Both are judged from outside, without a parser for each database. The laws say which mistakes
are possible:

1. `is_read` says True only if the statement surely changes nothing that a later request could
   read. What it doesn't know is a write: a read that is taken for a write costs a trip to the
   primary, a write that is taken for a read costs its author the sight of it.
2. Databases differ in where literals and comments end. A statement is a read if each dialect
   that can make sense of it says so.
3. A function that writes looks like any other. Those of the databases are known, and a name
   such as `update_totals` is taken at its word; what else a site's own functions write is
   not seen here.
4. Work and memory grow with a statement's length and no faster.
5. REFUSED means that nothing was carried out. After LOST that is unknown.

No driver is imported: an error comes as its vendor, code and text.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import dropwhile
from typing import Final

from outgrow.databases.dialects import readings

#: Longer statements are judged anew each time, so that what is remembered stays small.
_MEMORABLE: Final = 4096


def is_read(sql: str) -> bool:
    """Whether this surely changes nothing that a later request could read.

    Locks, the settings of a session and the borders of a transaction change nothing.
    Statements that come again, as an ORM's do, are remembered. Thread-safe.
    """
    return _remembered(sql) if len(sql) <= _MEMORABLE else _judged(sql)


def _judged(sql: str) -> bool:
    first = _FIRST.match(sql)
    if first is not None and first[1].upper() not in _RULES:
        return False  # most writes; a long one is not looked through
    statements = [one for words in readings(sql) for one in _statements(words)]
    return bool(statements) and all(one[0] in _RULES and _RULES[one[0]](one) for one in statements)


_remembered: Final = lru_cache(1024)(_judged)


def _statements(words: list[str]) -> Iterator[list[str]]:
    """The statements between the semicolons, without the "(" before them."""
    statement: list[str] = []
    for word in (*words, ";"):
        if word == ";":
            if statement:
                yield statement
            statement = []
        elif statement or word != "(":
            statement.append(word)


#: The first word, if no comment stands before it.
_FIRST: Final = re.compile(r"[\s(;]*+([A-Za-z]+)")


# --- from words to a verdict


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


def _always(_words: list[str]) -> bool:
    return True


def _query(words: list[str]) -> bool:
    return _WRITING.isdisjoint(words) and not any(map(_writes, words, words[1:]))


_WRITING: Final = _names("INTO INSERT DELETE MERGE NEXTVAL")


def _writes(word: str, following: str) -> bool:
    if following == "(":
        return _WRITER.fullmatch(word) is not None
    if following == "UPDATE":
        return word not in {"FOR", "KEY"}  # FOR UPDATE, FOR NO KEY UPDATE
    return word == "NEXT" and following == "VALUE"  # NEXT VALUE FOR a sequence


#: Functions that write: sequences, large objects, what a server does for its operator, PostGIS
#: and SpatiaLite.
_WRITER: Final = re.compile(
    r"""(?:NEXTVAL|SETVAL|DBLINK\w*
    |(?:CREATE|ALTER|DROP|TRUNCATE|INSERT|UPSERT|UPDATE|DELETE)_\w+
    |LO_(?:CREATE?|FROM_BYTEA|IMPORT|PUT|TRUNCATE|TRUNCATE64|UNLINK)|LOWRITE
    |PG_(?:NOTIFY|PROMOTE|SWITCH_WAL|(?:COPY|CREATE|DROP|IMPORT|LOGICAL|REPLICATION|RESTORE)_\w+)
    |LOAD_EXTENSION
    |(?:ADD|DISCARD|DROP|RECOVER)GEOMETRY\w+|UPDATEGEOMETRYSRID|POPULATE_GEOMETRY_COLUMNS
    |(?:CREATE|DISABLE)SPATIALINDEX|INITSPATIALMETADATA\w*)["`]?""",
    re.VERBOSE,
)


def _explain(words: list[str]) -> bool:
    """EXPLAIN carries nothing out without ANALYZE, and then what a read would."""
    explained = list(dropwhile(_is_option, words[1:]))
    if explained and explained[0] in _QUERIES:
        return _query(explained)
    # An option's name may be quoted, and so not be seen here.
    return words[1:2] != ["("] and _ANALYZE.isdisjoint(words)


def _is_option(word: str) -> bool:
    return word in _OPTIONS or word in _ANALYZE or word[0].isdigit()


_QUERIES: Final = _names("SELECT TABLE VALUES WITH")
_ANALYZE: Final = _names("ANALYZE ANALYSE")
_OPTIONS: Final = _names(
    "( ) = FORMAT TEXT XML JSON YAML TREE VERBOSE COSTS SETTINGS GENERIC_PLAN BUFFERS SERIALIZE"
    " NONE BINARY WAL TIMING SUMMARY MEMORY ON OFF TRUE FALSE"
)


def _set(words: list[str]) -> bool:
    """A setting of the session; MySQL has some for the server and its users as well."""
    return words[1:2] != ["DEFAULT"] and _LASTING.isdisjoint(words) and _query(words)


def _reset(words: list[str]) -> bool:
    return _LASTING.isdisjoint(words)


_LASTING: Final = _names(
    # of SET, and of RESET
    "GLOBAL PERSIST PERSIST_ONLY PASSWORD RESOURCE STATEMENT MASTER SLAVE REPLICA BINARY QUERY"
)


def _begin(words: list[str]) -> bool:
    """Whether it begins a transaction, and no block of statements (MariaDB)."""
    return _BEGINNING.issuperset(words)


_BEGINNING: Final = _names(
    "BEGIN START WORK TRANSACTION DEFERRED IMMEDIATE EXCLUSIVE ISOLATION LEVEL SERIALIZABLE"
    " REPEATABLE READ COMMITTED UNCOMMITTED ONLY WRITE NOT DEFERRABLE WITH CONSISTENT"
    " SNAPSHOT"
)


def _end(words: list[str]) -> bool:
    """The end of a transaction of this session; one that was prepared holds new writes."""
    return "PREPARED" not in words


def _pragma(words: list[str]) -> bool:
    """SQLite's: those that tell about the database, and do nothing else."""
    if "=" in words:
        return False
    if "(" in words:
        return words[words.index("(") - 1] in _TELLING
    return words[-1] not in {"PRAGMA", "INCREMENTAL_VACUUM", "OPTIMIZE", "WAL_CHECKPOINT"}


_TELLING: Final = _names(
    "FOREIGN_KEY_CHECK FOREIGN_KEY_LIST INDEX_INFO INDEX_LIST INDEX_XINFO INTEGRITY_CHECK"
    " QUICK_CHECK TABLE_INFO TABLE_LIST TABLE_XINFO"
)


def _copy(words: list[str]) -> bool:
    """COPY ... TO, of a table or a query; not to a program."""
    outside: list[str] = []
    depth = 0
    for word in words:
        depth += (word == "(") - (word == ")")
        if depth == 0:
            outside.append(word)
    return "TO" in outside and not {"FROM", "PROGRAM"} & set(outside) and _query(words)


_RULES: Final[dict[str, Callable[[list[str]], bool]]] = {
    **dict.fromkeys([*_QUERIES, "SHOW", "DECLARE"], _query),
    **dict.fromkeys(["EXPLAIN", "DESCRIBE", "DESC"], _explain),
    "SET": _set,
    "RESET": _reset,
    **dict.fromkeys(["BEGIN", "START"], _begin),
    **dict.fromkeys(["COMMIT", "ROLLBACK"], _end),
    **dict.fromkeys(["END", "ABORT", "SAVEPOINT", "RELEASE"], _always),
    **dict.fromkeys(["FETCH", "MOVE", "CLOSE"], _always),
    **dict.fromkeys(["USE", "LISTEN", "UNLISTEN", "DISCARD", "DEALLOCATE"], _always),
    "PRAGMA": _pragma,
    "COPY": _copy,
}


# --- errors


class Failure(enum.Enum):
    """What an error of a database means for who asked."""

    LOST = "lost"  # the connection is gone: whether the statement was carried out is unknown
    REFUSED = "refused"  # there was no connection: nothing was carried out
    CONFLICT = "conflict"  # a standby stopped the statement, to go on replaying
    READ_ONLY = "read only"  # a write, and this server takes none
    SCHEMA = "schema"  # no such table or column: a replica may only be behind
    OTHER = "other"


def kind_of(vendor: str, code: str | int | None, text: str) -> Failure:
    """What an error means.

    `vendor` is what Django calls it; `code` PostgreSQL's SQLSTATE, the number of MySQL and
    MariaDB, or None if the driver has none; `text` the message. For what happens to a
    connection PostgreSQL's drivers have no code: then the text decides, which libpq writes in
    English. Nothing is known of other vendors: OTHER.
    """
    if vendor == "postgresql":
        return _by_sqlstate(str(code), text) if code else _by_text(_LIBPQ, text)
    if vendor == "mysql":
        return _MYSQL.get(code) or _by_text(_OPTION if code == 1290 else {}, text)
    return _by_text(_SQLITE if vendor == "sqlite" else {}, text)


def _by_sqlstate(code: str, text: str) -> Failure:
    if code in {"40001", "40P01"} and "conflict with recovery" in text:
        return Failure.LOST if "terminating connection" in text else Failure.CONFLICT
    if code in {"55000", "0A000"} and _RECOVERY.search(text):
        return Failure.READ_ONLY
    return _SQLSTATES.get(code) or (Failure.LOST if code.startswith("08") else Failure.OTHER)


def _by_text(meanings: dict[re.Pattern[str], Failure], text: str) -> Failure:
    found = (failure for pattern, failure in meanings.items() if pattern.search(text))
    return next(found, Failure.OTHER)


#: Classes 08 and 57 are about connections (PostgreSQL's appendix "Error Codes").
_SQLSTATES: Final[dict[str, Failure]] = {
    **dict.fromkeys(["57P01", "57P02", "57P04", "57P05", "25P03", "25P04"], Failure.LOST),
    **dict.fromkeys(["57P03", "53300", "08001", "08004"], Failure.REFUSED),
    "25006": Failure.READ_ONLY,
    # Tables, columns, functions, types and schemas: a migration makes them all.
    **dict.fromkeys(["42P01", "42703", "42883", "42704", "3F000"], Failure.SCHEMA),
}

#: LOCK TABLE, nextval() and others say it with codes that mean more than that.
_RECOVERY: Final = re.compile("recovery is in progress|during recovery|in a hot standby")

#: REFUSED stands first: its texts say more on, such as that the server closed the connection.
_LIBPQ: Final = {
    re.compile(
        r"connection failed|connection to server (?:at|on) |could not connect|timeout expired"
        r"|could not translate host name|failed to resolve host|the database system is "
        r"|too many (?:clients|connections)|connection slots are reserved"
    ): Failure.REFUSED,
    re.compile(
        r"connection (?:has been |is |already |unexpectedly )?(?:closed|lost|bad|reset)"
        r"|closed the connection|no connection to the server|connection not open"
        r"|terminating connection|could not (?:receive data from|send data to) (?:server|client)"
        r"|SSL SYSCALL error|Connection reset|Broken pipe|lost synchronization"
    ): Failure.LOST,
}

_MYSQL: Final[dict[str | int | None, Failure]] = {
    # 0 is what mysqlclient and PyMySQL say of a connection that they have closed.
    **dict.fromkeys([0, 2006, 2013, 2026, 2027, 2055, 4031], Failure.LOST),
    **dict.fromkeys([1053, 1077, 1078, 1079, 1080, 1927], Failure.LOST),
    **dict.fromkeys([1152, 1158, 1159, 1160, 1161, 1184], Failure.LOST),
    **dict.fromkeys([2001, 2002, 2003, 2004, 2005, 2012], Failure.REFUSED),
    **dict.fromkeys([1040, 1045, 1049, 1129, 1130, 1203, 1226, 3032], Failure.REFUSED),
    **dict.fromkeys([1792, 1836, 1874], Failure.READ_ONLY),
    **dict.fromkeys([1054, 1146, 1305, 1356], Failure.SCHEMA),
}

#: 1290 is said of any option that prevents a statement.
_OPTION: Final = {re.compile("read[-_]only"): Failure.READ_ONLY}

_SQLITE: Final = {
    re.compile("readonly database"): Failure.READ_ONLY,
    re.compile("no such (?:table|column)"): Failure.SCHEMA,
    re.compile("unable to open database"): Failure.REFUSED,
    re.compile("closed database"): Failure.LOST,
}
