"""Statements that are reads and those that are not; literals that hide words; errors."""

from __future__ import annotations

import contextlib
import sqlite3
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from outgrow.databases.dialects import readings
from outgrow.databases.statements import Failure, is_read, kind_of

# One statement a line; a pilcrow stands for the end of a line within one.

READS = r"""
SELECT 1
select 1
SeLeCt 1
  SELECT 1
SELECT * FROM t
SELECT*FROM t
SELECT"a"FROM"t"
SELECT 1;
SELECT 1; SELECT 2
SELECT 1 ; ;
;SELECT 1
(SELECT 1)
((SELECT 1) UNION (SELECT 2)) ORDER BY 1
(SELECT "a" FROM "t") UNION ALL (SELECT "b" FROM "t")
SELECT "t"."id", "t"."into" FROM "t" WHERE "t"."delete" = %s
SELECT `t`.`id`, `t`.`into` FROM `t` WHERE `t`.`update` = %s
SELECT 'INTO'
SELECT 'it''s INTO', 'DELETE'
SELECT "a""INTO""b" FROM t
SELECT U&'\0441INTO'
SELECT E'\n INTO'
SELECT E'INTO \\' FROM t
SELECT 1 AS intone, "t".reinto FROM t
SELECT t.a$into FROM t
SELECT $$it's; DELETE FROM t$$
SELECT $tag$ $$ it's ; DELETE FROM t $$ $tag$
SELECT $1, $2
SELECT %s, %(into)s, %(delete)b
SELECT ?, :into_, @x
SELECT a LIKE %s ESCAPE '\' OR b LIKE %s ESCAPE '\' FROM t
SELECT "into" FROM t WHERE a LIKE %s ESCAPE '\'
SELECT a #> '{x,y}', a #>> '{INTO}' FROM t WHERE a ->> 'x' = 'y'
SELECT "t"."data" #>> %s FROM "t" WHERE NOT ("t"."data" ? %s)
SELECT ARRAY['a', 'b']['1'], a[1:2] FROM t
SELECT a FROM t WHERE a && ARRAY[1, 2] AND b = 5 - 3
SELECT 1.5e3, .5, 1e-5, 0x1F FROM t
SELECT -- INTO x¶ 1
SELECT /* INTO x */ 1
SELECT /* /* INTO */ */ 1
/* a comment */ SELECT 1
/* one /* nested */ */ SELECT 1
-- a comment¶SELECT 1
# a comment of MySQL¶SELECT 1
SELECT 1 -- the end
SELECT 1; -- the end
SELECT 1 /* the end */
SELECT /*+ SeqScan(t) */ * FROM t
SELECT REPLACE(a, 'x', 'y'), UPPER("into") FROM t
SELECT JSON_INSERT(a, '$.x', 1), JSON_REPLACE(a, '$.y', 2) FROM t
SELECT COUNT(*) FROM "t" WHERE "t"."a" IN (SELECT U0."a" FROM "t" U0)
SELECT DATE_ADD(a, INTERVAL 1 DAY), jsonb_set(b, '{a}', '1') FROM t
SELECT a FROM t FETCH NEXT 5 ROWS ONLY
SELECT TRUNCATE(a, 1), UPDATEXML(a, b, '') FROM t
SELECT r.update_rule, r.delete_rule FROM information_schema.referential_constraints r
SELECT currval('s'), lastval(), lo_get(5), PREVIOUS VALUE FOR s
SELECT pg_advisory_xact_lock(1), pg_current_wal_lsn(), txid_current()
SELECT GET_LOCK('x', 1), LAST_INSERT_ID(), @x := 1
SELECT * FROM t FOR UPDATE
SELECT * FROM t FOR NO KEY UPDATE OF t SKIP LOCKED
SELECT * FROM t FOR KEY SHARE NOWAIT
SELECT * FROM t LOCK IN SHARE MODE
SELECT * FROM pragma_table_info('t')
SELECT @@GLOBAL.gtid_executed
WITH x AS (SELECT 1) SELECT * FROM x
WITH x AS (SELECT 'DELETE') SELECT * FROM x FOR UPDATE
WITH RECURSIVE "x" ("a") AS (VALUES (1) UNION SELECT "a" + 1 FROM "x") TABLE "x"
WITH "insert" AS (SELECT 1) SELECT * FROM "insert"
WITH "delete" ("update") AS (SELECT 1) SELECT * FROM "delete"
VALUES (1), (2)
VALUES ROW(1, 2)
TABLE t
SHOW TABLES
SHOW CREATE TABLE t
SHOW GLOBAL STATUS LIKE 'Com_insert'
SHOW search_path
EXPLAIN SELECT 1
EXPLAIN DELETE FROM t
EXPLAIN QUERY PLAN DELETE FROM t
EXPLAIN VERBOSE UPDATE t SET a = 1
EXPLAIN FORMAT=JSON INSERT INTO t VALUES (1)
EXPLAIN ANALYZE SELECT 1
EXPLAIN ANALYZE VERBOSE WITH x AS (SELECT 1) SELECT * FROM x
EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT 1
EXPLAIN (ANALYZE) (SELECT 1)
EXPLAIN ANALYZE FORMAT=TREE SELECT 1
EXPLAIN (ANALYZE TRUE, VERBOSE OFF, COSTS ON, SETTINGS FALSE, GENERIC_PLAN, FORMAT YAML) TABLE t
EXPLAIN (ANALYSE, SERIALIZE NONE, WAL, TIMING, SUMMARY, MEMORY, FORMAT XML) VALUES (1)
EXPLAIN (ANALYZE 1, SERIALIZE BINARY, FORMAT TEXT) SELECT 1
EXPLAIN EXTENDED SELECT 1
EXPLAIN FOR CONNECTION 5
DESCRIBE t
DESC t
SET search_path TO a, b
SET LOCAL statement_timeout = '5s'
SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED
SET SQL_AUTO_IS_NULL = 0
SET NAMES utf8mb4
SET @x = (SELECT MAX(a) FROM t)
SET x TO DEFAULT
SET CONSTRAINTS ALL IMMEDIATE
RESET ALL
RESET statement_timeout
BEGIN
BEGIN;
BEGIN WORK
BEGIN IMMEDIATE
BEGIN EXCLUSIVE
BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE
BEGIN ISOLATION LEVEL READ UNCOMMITTED
BEGIN ISOLATION LEVEL SERIALIZABLE
BEGIN DEFERRED TRANSACTION
BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY, NOT DEFERRABLE
START TRANSACTION
START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY
COMMIT
COMMIT AND CHAIN
END
ROLLBACK
ROLLBACK TO SAVEPOINT "x"
ABORT
SAVEPOINT "s1_x2"
RELEASE SAVEPOINT `s1_x2`
RELEASE x
BEGIN; SELECT 1; COMMIT
DECLARE c NO SCROLL CURSOR WITH HOLD FOR SELECT * FROM t
FETCH FORWARD 100 FROM c
MOVE 5 IN c
CLOSE c
USE other
LISTEN x
UNLISTEN *
DISCARD ALL
DEALLOCATE p
PRAGMA foreign_key_check
PRAGMA table_info("t")
PRAGMA main.table_xinfo('t')
PRAGMA foreign_key_list("t")
PRAGMA foreign_key_check(t)
PRAGMA index_info(i)
PRAGMA index_list(t)
PRAGMA index_xinfo(i)
PRAGMA integrity_check(10)
PRAGMA quick_check(t)
PRAGMA table_list(t)
PRAGMA user_version
PRAGMA journal_mode
COPY t TO STDOUT
COPY "t" ("a", "from") TO STDOUT WITH (FORMAT csv, HEADER)
COPY (SELECT * FROM t) TO STDOUT
"""

WRITES = r"""
INSERT INTO t VALUES (1)
insert into t select 1
INSERT t VALUES ('SELECT')
UPDATE t SET a = 1
DELETE FROM t
MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN DELETE
REPLACE INTO t VALUES (1)
REPLACE t VALUES (1)
TRUNCATE t
CREATE TABLE t (a int)
CREATE TEMP TABLE x AS SELECT 1
ALTER TABLE t ADD b int
DROP TABLE t
RENAME TABLE t TO u
GRANT SELECT ON t TO x
REVOKE ALL ON t FROM x
COMMENT ON TABLE t IS 'SELECT'
VACUUM
ANALYZE
ANALYZE t
ANALYZE FORMAT=JSON UPDATE t SET a = 1
REINDEX TABLE t
CLUSTER t
REFRESH MATERIALIZED VIEW v
CHECKPOINT
OPTIMIZE TABLE t
CALL p()
DO $$ BEGIN DELETE FROM t; END $$
DO SLEEP(1)
EXECUTE p
EXECUTE IMMEDIATE 'DELETE FROM t'
PREPARE p AS SELECT 1
PREPARE p FROM 'DELETE FROM t'
PREPARE TRANSACTION 'x'
COMMIT PREPARED 'x'
ROLLBACK PREPARED 'x'
XA COMMIT 'x'
LOCK TABLE t
LOCK TABLES t WRITE
UNLOCK TABLES
NOTIFY x
HANDLER t OPEN
LOAD DATA INFILE 'x' INTO TABLE t
FLUSH TABLES
KILL 5
ATTACH DATABASE 'x' AS y
SECURITY LABEL ON TABLE t IS 'x'
IMPORT FOREIGN SCHEMA s FROM SERVER x INTO y
SELECT 1 INTO t
SELECT * INTO TEMP x FROM t
SELECT a INTO OUTFILE '/tmp/x' FROM t
SELECT a INTO @x FROM t
SELECT 1 into t
SELECT 1/**/INTO/**/t
SELECT "a"INTO"t"
SELECT 'a'INTO t
SELECT 1INTO t
SELECT 1e5INTO t
SELECT 1.e5INTO t
SELECT .5e-5INTO t
SELECT $1INTO t
SELECT %sINTO t
SELECT %(x)sINTO t
SELECT (1)INTO t
(SELECT 1) INTO t
TABLE t INTO OUTFILE '/tmp/x'
VALUES ROW(1) INTO @x
SELECT 1; DELETE FROM t
SELECT 1;DELETE FROM t;SELECT 2
SELECT ';'; DELETE FROM t
BEGIN; DELETE FROM t; COMMIT
COMMIT; INSERT INTO t VALUES (1)
SELECT nextval('s')
SELECT "nextval"('s')
SELECT pg_catalog."setval" /* x */ ('s', 1)
SELECT setval(pg_get_serial_sequence('"t"','id'), coalesce(max("id"), 1)) FROM "t"
SELECT NEXTVAL(s)
SELECT s.nextval
SELECT NEXT VALUE FOR s
VALUES (nextval('s'))
SET @x = NEXTVAL(s)
SELECT lo_create(0)
SELECT lo_unlink (5)
SELECT lowrite(1, 'x')
SELECT pg_notify('x', '')
SELECT pg_create_restore_point('x')
SELECT pg_logical_emit_message(true, 'x', 'y')
SELECT * FROM dblink('x', 'DELETE FROM t') AS t (a int)
SELECT create_hypertable('t', 'a')
SELECT update_totals()
SELECT `drop_chunks`(5)
SELECT AddGeometryColumn('t', 'a', 4326, 'POINT', 2)
SELECT CreateSpatialIndex('t', 'a')
SELECT load_extension('x')
WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x
WITH x AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM x
WITH x AS (UPDATE t SET a = 1 RETURNING *) SELECT * FROM x
WITH x AS MATERIALIZED (update t set a = 1 returning *) TABLE x
WITH x AS (MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE RETURNING *) TABLE x
WITH x AS (SELECT 1) DELETE FROM t
WITH x AS (SELECT 1) UPDATE t SET a = 1
WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x
WITH x AS (SELECT 1) INSERT t SELECT * FROM x
WITH x AS (SELECT 1) MERGE t USING x
WITH x AS (SELECT 1) REPLACE INTO t SELECT * FROM x
WITH x AS (SELECT 1) SELECT * INTO y FROM x
EXPLAIN ANALYZE DELETE FROM t
EXPLAIN ANALYSE DELETE FROM t
EXPLAIN ANALYZE VERBOSE UPDATE t SET a = 1
EXPLAIN (ANALYZE) DELETE FROM t
EXPLAIN (FORMAT JSON, ANALYZE) INSERT INTO t VALUES (1)
EXPLAIN ("analyze") DELETE FROM t
EXPLAIN ANALYZE CREATE TABLE x AS SELECT 1
EXPLAIN ANALYZE EXECUTE p
EXPLAIN ANALYZE SELECT 1 INTO x
EXPLAIN ANALYZE WITH x AS (DELETE FROM t RETURNING *) TABLE x
DESC ANALYZE DELETE FROM t
DESCRIBE ANALYZE DELETE FROM t
SHOW STATUS WHERE NEXTVAL(s)
SET GLOBAL read_only = 0
SET @@GLOBAL.read_only = 0
SET a = 1, PERSIST b = 2
SET PERSIST_ONLY x = 1
SET PASSWORD = 'x'
SET PASSWORD FOR u = 'x'
SET DEFAULT ROLE x TO u
SET STATEMENT max_statement_time = 1 FOR CALL p()
SET RESOURCE GROUP x
RESET MASTER
RESET SLAVE
RESET REPLICA ALL
RESET QUERY CACHE
RESET BINARY LOGS AND GTIDS
RESET PERSIST
START SLAVE
START REPLICA
STOP REPLICA
CHANGE MASTER TO MASTER_HOST = 'x'
BEGIN NOT ATOMIC DELETE FROM t; END
BEGIN NOT ATOMIC CALL p(); END
IF 1 THEN DELETE FROM t; END IF
DECLARE c CURSOR FOR SELECT nextval('s')
DECLARE x INT; BEGIN CALL p(); END
PRAGMA user_version = 5
PRAGMA user_version(5)
PRAGMA main.user_version(5)
PRAGMA journal_mode(WAL)
PRAGMA foreign_keys = ON
PRAGMA optimize
PRAGMA main.incremental_vacuum
PRAGMA wal_checkpoint
PRAGMA
PRAGMA ("x")
COPY t FROM STDIN
COPY t (a, "to") FROM STDIN
COPY "to" FROM STDIN
COPY t FROM '/tmp/to' WITH (FORMAT csv)
COPY (DELETE FROM t RETURNING *) TO STDOUT
COPY (SELECT nextval('s')) TO STDOUT
COPY t TO PROGRAM 'cat'
/*! INSERT INTO t VALUES (1) */
/*!50000 DELETE FROM t */
SELECT 1 /*!50000 INTO OUTFILE '/tmp/x' */
SELECT 1 /*M!100100 INTO @x */
SELECT /*!99999 ' */ 1 /*! INTO @x -- ' */
/* SELECT */ DELETE FROM t
-- SELECT 1¶DELETE FROM t
# SELECT¶DELETE FROM t
SELECT 1 -- \¶INTO t
SELECT 1 --1 INTO t
SELECT 5--1 INTO t
SELECT 1 # 2 INTO t
SELECT 1 # '¶INTO @x #'
SELECT 1 /* /* */ INTO t /* */ */
SELECT 1 /* */ */ INTO t /* */
SELECT 1 /* /* */ ' */ INTO t --'
SELECT 1 /*/*/*/*/*/* */ ' */*/*/*/*/ INTO t --'
SELECT 'a\'; DELETE FROM t; --'
SELECT 'a\' INTO t --'
SELECT "a\" INTO t --"
SELECT 'a\\' INTO t
SELECT 'a\\', '\' INTO t --'
SELECT E'a\' ', ' INTO t --'
SELECT E'a\\' INTO t
SELECT E'\'', '\', 5 INTO t --'
SELECT 'a\', 5--1 INTO @x -- '
SELECT 'a\'', "b\", 5--1 INTO @x -- "
SELECT 'a\'', "b\"", 5--1 INTO @x
SELECT E'a''\' INTO t, ' INTO u, '
SELECT aE'a\' INTO t --'
SELECT E'a' '\' INTO t --'
SELECT E'a'¶'\'', 5 INTO t --'
SELECT $a$ ' $a$, aE'\', 5 INTO t --'
SELECT "\"", 5--1 INTO @x -- "
SELECT "\""; DELETE FROM t; '-- "
SELECT $a$ ' $a$ INTO t --'
SELECT a$b$, c INTO t -- $b$
SELECT $$ INTO t
SELECT [into] FROM t
SELECT [a'] FROM t; DELETE FROM t --'
SELECT $a$ $$ ; DELETE FROM t $$ $a$
SELECT ARRAY[1, '] INTO t --'] INTO t
SELECT `a' ` INTO t --'
SELECT "a' " INTO t --'
SELECT 'unfinished
DELETE FROM t; SELECT 'unfinished
SELECT 1; DELETE FROM t; SELECT 'unfinished
SELECT 1; DELETE FROM t; SELECT 'it''s \'
SELECT "unfinished
DELETE"x"
SELECTED 1
SELECT_x()
?
SELECT? ; DELETE FROM t
"""


def listed(text: str) -> list[str]:
    return [line.replace("¶", "\n") for line in text.strip("\n").split("\n")]


@pytest.mark.parametrize("sql", listed(READS))
def test_reads(sql: str) -> None:
    assert is_read(sql)
    assert is_read(f"{sql}\n;{READS.splitlines()[1]}")
    assert not is_read(f"{sql}\n;{WRITES.splitlines()[1]}")


@pytest.mark.parametrize(
    "sql", [*listed(WRITES), "", " ", ";", "()", "SELECT 1\0", "SELECT 1 --\r INTO t"]
)
def test_writes(sql: str) -> None:
    assert not is_read(sql)


@pytest.mark.parametrize("sql", [*listed(READS), *listed(WRITES)])
def test_neither_case_nor_space_nor_length_matter(sql: str) -> None:
    expected = is_read(sql)
    if "/*M!" not in sql:
        assert is_read(sql.swapcase()) is expected
    assert is_read("\t \r\n" + sql) is expected
    assert is_read(sql + "\n" * 5000) is expected


def test_what_has_no_end_is_refused_by_the_database_itself() -> None:
    assert is_read("SELECT 1; SELECT 'unfinished; DELETE FROM t")


# --- literals hide whatever is in them

ANYTHING = st.one_of(
    st.text(),
    st.lists(
        st.sampled_from(["'", '"', "`", "--", "\n", "/*", "*/", "#", "$$", ";", " INTO "]),
        max_size=9,
    ).map("".join),
).map(lambda text: text.replace("\\", "").replace("\0", ""))


@given(ANYTHING)
def test_a_literal_hides_whatever_is_in_it(text: str) -> None:
    for quote in "'\"`":
        literal = quote + text.replace(quote, 2 * quote) + quote
        assert is_read(f"SELECT {literal} FROM t")
        assert is_read(f"SELECT {literal}, {literal} FROM t")
        assert not is_read(f"SELECT {literal} INTO t")
        assert not is_read(f"SELECT {literal}; DELETE FROM t")


@given(ANYTHING)
def test_a_comment_hides_whatever_is_in_it(text: str) -> None:
    text = text.replace("*", "").replace("/", "")
    assert is_read(f"SELECT 1 /* {text} */ FROM t")
    assert not is_read(f"SELECT 1 /* {text} */ INTO t")
    line = "".join(text.split("\n")).replace("\r", "")
    assert is_read(f"SELECT 1 -- {line}\n FROM t")
    assert not is_read(f"SELECT 1 -- {line}\n INTO t")


#: What opens, closes and escapes in some dialect, and a little of what stands between.
PIECES = ["'", '"', "`", "[", "]", "\\", "--", "-- ", "\n", "/*", "*/", "#", "$$", "$a$", "E'"]
PIECES += ["''", "'a'", '"b"', "/* c */", "1", "x", " ", ";", "(", ")", ",", "AS", "*", "/"]
SOUPS = st.lists(st.sampled_from(PIECES), max_size=6).map("".join)


@given(st.sampled_from(["SELECT 1", "SELECT 1 AS ", "(SELECT 1)"]), SOUPS, SOUPS)
@example("SELECT 1", "/*'*/", "")
@example("SELECT 1", "", ";'")
def test_what_a_real_sqlite_writes_is_a_write(begin: str, before: str, after: str) -> None:
    sql = f"{begin}{before}; DELETE FROM t{after}"
    if is_read(sql):
        assert not sqlite_deletes(sql)


def sqlite_deletes(sql: str) -> bool:
    """Whether the row of a table is gone when a real SQLite has been given this."""
    connection = sqlite3.connect(":memory:")
    connection.executescript("CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 2)")
    with contextlib.suppress(sqlite3.Error):
        connection.executescript(sql)
    deleted = connection.execute("SELECT COUNT(*) FROM t").fetchone() == (0,)
    connection.close()
    return deleted


def test_a_real_sqlite_is_asked() -> None:
    assert sqlite_deletes("SELECT 1; DELETE FROM t")
    assert sqlite_deletes("SELECT 1; DELETE FROM t; '")
    assert not sqlite_deletes("SELECT 1; -- DELETE FROM t")


@given(st.text())
def test_every_text_has_an_answer(text: str) -> None:
    assert is_read(text) in {True, False}
    assert not is_read(f"DELETE {text}")


FUNCTIONS = """
    nextval setval dblink dblink_exec lo_creat lo_create lo_from_bytea lo_import lo_put
    lo_truncate lo_truncate64 lo_unlink lowrite pg_notify pg_promote pg_switch_wal
    pg_create_physical_replication_slot pg_drop_replication_slot pg_copy_logical_replication_slot
    pg_import_system_collations pg_logical_slot_get_changes pg_replication_origin_advance
    pg_restore_relation_stats load_extension AddGeometryColumn DropGeometryTable
    RecoverGeometryColumn DiscardGeometryColumn UpdateGeometrySRID Populate_Geometry_Columns
    CreateSpatialIndex DisableSpatialIndex InitSpatialMetaData create_hypertable drop_chunks
    alter_job truncate_all insert_one upsert_one update_totals delete_old
"""


@pytest.mark.parametrize("name", FUNCTIONS.split())
def test_functions_that_write(name: str) -> None:
    for called in (f"{name}()", f"s.{name} (1)", f'"{name}"()', f"`{name}` /* x */ ('a')"):
        assert not is_read(f"SELECT {called}")
        assert not is_read(f"WITH x AS (SELECT {called}) SELECT * FROM x")
    # A column may be called so, and a function may have it in its name.
    assert is_read(f'SELECT "{name}", x_{name}(1), {name}_x FROM t')


# --- words


def test_words_are_those_outside_of_literals() -> None:
    assert (
        readings("""select "t"."a", count(*) from "t" where b = 'x' -- no\n;""")
        == [["SELECT", "COUNT", "(", ")", "FROM", "WHERE", "B", "=", ";"]] * 5
    )
    assert readings("""SELECT "f" (1), `g`/**/(%s, 2.5e3)""")[0] == [
        *["SELECT", 'F"', "(", "1", ")", "G`", "(", "%S", "2.5E3", ")"]
    ]


def test_one_reading_is_enough_where_all_are_the_same() -> None:
    assert len(readings("""SELECT "a", 'b', `c` FROM t WHERE a = 1""")) == 1
    assert len(readings("SELECT 'a\\n'")) == 5


def test_dialects_disagree() -> None:
    assert readings("SELECT 'a\\'; INTO --'") == [
        *([["SELECT", ";", "INTO"]] * 2),
        *([["SELECT"]] * 2),
        ["SELECT", ";"],
    ]


# --- work


@pytest.mark.parametrize(
    "piece",
    [
        *["a", "a ", "a,", "1", "1.1e", "(", "a(", ")", ";", "; SELECT 1", "%(", "%s", "=", " "],
        *["'", "'a',", '"a" ', '"a', "`\"'", "'\\", "\\", "E'", "e' ", "E'' ", "E'\\'", "E'a\n"],
        *["[", "[a] ", "]", "-", "--\n", "-- ", "--a", "#", "#\n", "# '\n", "\n"],
        *["/", "*", "/*", "/**/", "*/", "/*/", "/* * /", "/*!", "/*M!", "/*/*/*/*/*"],
        *["$", "$$", "$a$", "$a$ $b$", "$a", "a$", "$aaaaaaaaaaaaaaaa", "$1", "\u00e9", "\u00e9$"],
    ],
)
def test_a_long_statement_costs_no_more_than_its_length(piece: str) -> None:
    start = time.process_time()
    for begin in (
        "SELECT ",
        "SELECT '\\' ",
        "SELECT E'",
        "SELECT $x$",
        "SELECT [",
        "SELECT /*",
        "",
    ):
        is_read(begin + piece * (100_000 // len(piece)))
    assert time.process_time() - start < 10


@pytest.mark.parametrize("piece", ["a, ", "'\\", "E'\\'", '"a" (', "$a$ $b$", "/*/", "[", "%("])
def test_nor_does_a_megabyte(piece: str) -> None:
    start = time.process_time()
    is_read("SELECT " + piece * (1_000_000 // len(piece)))
    assert time.process_time() - start < 10


def test_nor_do_many_tags() -> None:
    start = time.process_time()
    is_read("SELECT " + " ".join(f"$a{number}$" for number in range(100_000)))
    assert time.process_time() - start < 10


def test_a_write_is_not_looked_through() -> None:
    sql = "INSERT INTO t VALUES " + "('\\', $$a$$)," * 100_000
    start = time.process_time()
    for _ in range(100):
        assert not is_read(sql)
    assert time.process_time() - start < 1


# --- errors

LOST, REFUSED, CONFLICT = Failure.LOST, Failure.REFUSED, Failure.CONFLICT
READ_ONLY, SCHEMA, OTHER = Failure.READ_ONLY, Failure.SCHEMA, Failure.OTHER
SERVER = 'connection failed: connection to server at "h", port 5 failed: '
UNEXPECTED = "server closed the connection unexpectedly\n\tThis probably means the server ..."


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        # What psycopg says when a server is killed, stopped, started or overloaded.
        ("57P01", "terminating connection due to administrator command", LOST),
        ("57P02", "terminating connection because of crash of another server process", LOST),
        ("57P05", "terminating connection due to idle-session timeout", LOST),
        ("25P03", "terminating connection due to idle-in-transaction timeout", LOST),
        ("08006", "", LOST),
        ("08P01", "server conn crashed?", LOST),
        (None, "the connection is closed", LOST),
        (None, "the connection is lost", LOST),
        (None, f"consuming input failed: {UNEXPECTED}", LOST),
        (None, "consuming input failed: SSL SYSCALL error: EOF detected", LOST),
        (None, "SSL connection has been closed unexpectedly", LOST),
        (None, "could not receive data from server: Connection reset by peer", LOST),
        (None, "could not send data to server: Broken pipe", LOST),
        (None, "sending query failed: no connection to the server", LOST),
        (None, "connection already closed", LOST),
        (None, f"{SERVER}Connection refused\n\tIs the server running on that host?", REFUSED),
        (None, f"{SERVER}FATAL:  the database system is starting up", REFUSED),
        (None, f"{SERVER}FATAL:  sorry, too many clients already", REFUSED),
        (None, f"{SERVER}FATAL:  password authentication failed", REFUSED),
        (None, f"{SERVER}{UNEXPECTED}", REFUSED),
        (None, 'connection is bad: connection to server on socket "/x" failed: No', REFUSED),
        (None, "could not connect to server: Connection refused", REFUSED),
        (None, "failed to resolve host 'h': [Errno -2] Name or service not known", REFUSED),
        (None, 'could not translate host name "h" to address', REFUSED),
        (None, "connection timeout expired", REFUSED),
        (None, "FATAL:  remaining connection slots are reserved for", REFUSED),
        ("57P03", "the database system is shutting down", REFUSED),
        ("53300", "sorry, too many clients already", REFUSED),
        ("40001", "canceling statement due to conflict with recovery\nDETAIL: ...", CONFLICT),
        ("40P01", "canceling statement due to conflict with recovery", CONFLICT),
        ("40001", "terminating connection due to conflict with recovery", LOST),
        ("40001", "could not serialize access due to concurrent update", OTHER),
        ("40P01", "deadlock detected", OTHER),
        ("25006", "cannot execute INSERT in a read-only transaction", READ_ONLY),
        ("25006", "cannot execute nextval() during recovery", READ_ONLY),
        ("55000", "recovery is in progress", READ_ONLY),
        ("55000", "cannot assign TransactionIds during recovery", READ_ONLY),
        ("0A000", "cannot use serializable mode in a hot standby", READ_ONLY),
        ("55000", 'currval of sequence "s" is not yet defined in this session', OTHER),
        ("0A000", "cannot change number of columns in view", OTHER),
        ("42P01", 'relation "nope" does not exist', SCHEMA),
        ("42703", 'column "nope" does not exist', SCHEMA),
        ("42883", "function f() does not exist", SCHEMA),
        ("3F000", 'schema "nope" does not exist', SCHEMA),
        # With a code the text may hold anything.
        ("23505", "Key (a)=(the connection is closed) already exists.", OTHER),
        ("57014", "canceling statement due to statement timeout", OTHER),
        ("42601", "syntax error", OTHER),
        (None, "another command is already in progress", OTHER),
        ("", "", OTHER),
    ],
)
def test_errors_of_postgresql(code: str | None, text: str, kind: Failure) -> None:
    assert kind_of("postgresql", code, text) is kind


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (2006, "MySQL server has gone away", LOST),
        (2013, "Lost connection to MySQL server during query", LOST),
        (1927, "Connection was killed", LOST),
        (1053, "Server shutdown in progress", LOST),
        (4031, "The client was disconnected by the server because of inactivity.", LOST),
        (0, "", LOST),
        (2002, "Can't connect to local MySQL server through socket", REFUSED),
        (2003, "Can't connect to MySQL server on 'h' (111)", REFUSED),
        (1040, "Too many connections", REFUSED),
        (1203, "User x already has more than 'max_user_connections' active", REFUSED),
        (1045, "Access denied for user 'x'@'h'", REFUSED),
        (1290, "The MariaDB server is running with the --read-only option so", READ_ONLY),
        (1290, "The MySQL server is running with the --super-read-only option", READ_ONLY),
        (1290, "The MariaDB server is running with the --secure-file-priv option", OTHER),
        (1792, "Cannot execute statement in a READ ONLY transaction", READ_ONLY),
        (1836, "Running in read-only mode", READ_ONLY),
        (1146, "Table 'x.nope' doesn't exist", SCHEMA),
        (1054, "Unknown column 'nope' in 'SELECT'", SCHEMA),
        (1213, "Deadlock found when trying to get lock", OTHER),
        (1062, "Duplicate entry 'gone away' for key 'a'", OTHER),
        (None, "MySQL server has gone away", OTHER),
        ("text", "", OTHER),
    ],
)
def test_errors_of_mysql(code: int | str | None, text: str, kind: Failure) -> None:
    assert kind_of("mysql", code, text) is kind


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("INSERT INTO t VALUES (1)", READ_ONLY),
        ("SELECT * FROM nope", SCHEMA),
        ("SELECT nope FROM t", SCHEMA),
        ("SELECT", OTHER),
    ],
)
def test_errors_of_sqlite(sql: str, kind: Failure) -> None:
    connection = sqlite3.connect(":memory:")
    connection.executescript("CREATE TABLE t (a); PRAGMA query_only = ON")
    with pytest.raises(sqlite3.Error) as caught:
        connection.execute(sql)
    assert kind_of("sqlite", caught.value.sqlite_errorcode, str(caught.value)) is kind
    connection.close()
    with pytest.raises(sqlite3.Error) as caught:
        connection.execute(sql)
    assert kind_of("sqlite", None, str(caught.value)) is LOST
    with pytest.raises(sqlite3.Error) as caught:
        sqlite3.connect("/nowhere/at/all")
    assert kind_of("sqlite", None, str(caught.value)) is REFUSED


def test_nothing_is_known_of_other_vendors() -> None:
    assert kind_of("oracle", 12541, "no listener; the connection is closed") is OTHER
