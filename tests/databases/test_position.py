"""Positions: their texts, their order, and sets of transactions against sets of numbers."""

from __future__ import annotations

import dataclasses
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import outgrow.databases
from outgrow.databases.position import (
    MAX_LENGTH,
    Count,
    DomainGtids,
    GtidSet,
    Lsn,
    Position,
    normalised_insert,
    parse,
)

ONE = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
TWO = "4350f323-7565-4e59-8763-4b1b83a0ce0e"

# Small universes, so that two positions often have something to do with each other.
SOURCES = [ONE, TWO, f"{ONE}:blue", f"{TWO}:_green_1"]
Model = dict[str, set[int]]
MODELS = st.dictionaries(st.sampled_from(SOURCES), st.sets(st.integers(1, 12), min_size=1))


def gtid_set(model: Model) -> GtidSet:
    """Read from a text that names every transaction by itself, in no order."""
    return GtidSet.of(
        ",\n".join(f"{source}:{number}" for source in model for number in model[source])
    )


LSNS = st.builds(Lsn, st.integers(1, 2), st.integers(0, 5))
GTID_SETS = st.builds(gtid_set, MODELS)
DOMAINS = st.dictionaries(
    st.integers(0, 2), st.tuples(st.integers(1, 2), st.integers(1, 3)), max_size=3
)
DOMAIN_GTIDS = st.builds(
    lambda found: DomainGtids(tuple((domain, *found[domain]) for domain in sorted(found))), DOMAINS
)
COUNTS = st.builds(Count, st.sampled_from("ab"), st.integers(0, 5))
KINDS = [LSNS, GTID_SETS, DOMAIN_GTIDS, COUNTS]
POSITIONS = st.one_of(
    *KINDS,
    st.builds(Lsn, st.integers(1, 2**32 - 1), st.integers(0, 2**64 - 1)),
    st.builds(
        lambda domain, server, number: DomainGtids(((domain, server, number),)),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**64 - 1),
    ),
    st.builds(Count, st.from_regex(r"[0-9A-Za-z_.-]{1,64}", fullmatch=True), st.integers(0, 2**63)),
)
#: Two or three of one kind: others have nothing to do with each other.
TWO_OF_A_KIND = st.sampled_from(KINDS).flatmap(lambda kind: st.tuples(kind, kind))
THREE_OF_A_KIND = st.sampled_from(KINDS).flatmap(lambda kind: st.tuples(kind, kind, kind))


# --- texts


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("pg:1:0/16B3748", Lsn(1, 0x16B3748)),
        ("pg:1:0/0", Lsn(1, 0)),
        ("pg:4294967295:FFFFFFFF/FFFFFFFF", Lsn(2**32 - 1, 2**64 - 1)),
        ("pg:26:1A/0", Lsn(26, 0x1A << 32)),
        ("my:", GtidSet(())),
        (f"my:{ONE}:1", GtidSet(((ONE, ((1, 1),)),))),
        (f"my:{ONE}:1-5:7-9", GtidSet(((ONE, ((1, 5), (7, 9))),))),
        (
            f"my:{ONE}:1-5:7:blue:1-3:red:2,{TWO}:blue:9223372036854775807",
            GtidSet(
                (
                    (ONE, ((1, 5), (7, 7))),
                    (f"{ONE}:blue", ((1, 3),)),
                    (f"{ONE}:red", ((2, 2),)),
                    (f"{TWO}:blue", ((2**63 - 1, 2**63 - 1),)),
                )
            ),
        ),
        ("ma:", DomainGtids(())),
        ("ma:0-1-100,1-2-50", DomainGtids(((0, 1, 100), (1, 2, 50)))),
        (
            "ma:4294967295-4294967295-18446744073709551615",
            DomainGtids(((2**32 - 1, 2**32 - 1, 2**64 - 1),)),
        ),
        ("sq:a.b_C-9:17", Count("a.b_C-9", 17)),
        ("sq:0:0", Count("0", 0)),
    ],
)
def test_texts(text: str, position: Position) -> None:
    assert parse(text) == position
    assert str(position) == text
    assert text.partition(":")[2].endswith(position.native)
    assert hash(parse(text)) == hash(position)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        # PostgreSQL 19 pads with zeros.
        ("pg:1:0/016B3748", "pg:1:0/16B3748"),
        ("pg:1:0/16b3748", "pg:1:0/16B3748"),
        (f"my:{ONE}:7-9:1-5", f"my:{ONE}:1-5:7-9"),
        (f"my:{ONE}:1-5:6", f"my:{ONE}:1-6"),
        (f"my:{ONE}:1-5:2-3:5-7", f"my:{ONE}:1-7"),
        (f"my:{ONE}:3-3", f"my:{ONE}:3"),
        (f"my:{ONE.upper()}:BLUE:3", f"my:{ONE}:blue:3"),
        (f"my:{TWO}:1,{ONE}:1,{TWO}:2", f"my:{ONE}:1,{TWO}:1-2"),
        (f"my:{ONE}:blue:1,{ONE}:1", f"my:{ONE}:1:blue:1"),
        (f"my:{ONE}:blue:1:blue:2", f"my:{ONE}:blue:1-2"),
        ("ma:1-2-50,0-1-100", "ma:0-1-100,1-2-50"),
        ("ma:00-01-0100", "ma:0-1-100"),
        ("sq:a:017", "sq:a:17"),
    ],
)
def test_what_says_the_same_is_the_same(text: str, same: str) -> None:
    assert str(parse(text)) == same
    assert parse(text) == parse(same)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "pg",
        "pg:",
        "pg:1",
        "pg:1:",
        "pg:0:0/1",
        "pg:01:0/1",
        "pg:-1:0/1",
        "pg:1:0",
        "pg:1:0/",
        "pg:1:/1",
        "pg:1:0/1/2",
        "pg:1:0/G",
        "pg:1:0/123456789",
        "pg:1:0x0/1",
        "pg:1:0/+1",
        "pg:1:0/1 ",
        "pg:1:0/1\n",
        "PG:1:0/1",
        " pg:1:0/1",
        "pg:\u0661:0/1",
        "pg:1:0/\u0661",
        "pg:99999999999:0/1",
        f"my:{ONE}",
        f"my:{ONE}:",
        f"my:{ONE}:0",
        f"my:{ONE}:0-5",
        f"my:{ONE}:01",
        f"my:{ONE}:5-4",
        f"my:{ONE}:-5",
        f"my:{ONE}:5-",
        f"my:{ONE}:1-2-3",
        f"my:{ONE}:1:",
        f"my:{ONE}::1",
        f"my:{ONE}:blue",
        f"my:{ONE}:1:blue",
        f"my:{ONE}:blue:red:1",
        f"my:{ONE}:b-e:1",
        f"my:{ONE}:{'b' * 33}:1",
        f"my:{ONE}:\u212aelvin:1",
        f"my:{ONE}:10000000000000000000",
        f"my:{ONE}:1,",
        f"my:,{ONE}:1",
        f"my:{ONE}:1, {TWO}:1",
        f"my:{ONE}:1,\n{TWO}:1",
        f"my:{ONE[:-1]}:1",
        f"my:{ONE.replace('-', '')}:1",
        f"my:{{{ONE}}}:1",
        "my:uuid:1-5",
        "my:0-1-100",
        "ma:0-1",
        "ma:0-1-",
        "ma:0-1-2-3",
        "ma:0-1-100,",
        "ma:0-1-100,0-1-101",
        "ma:0-1--1",
        "ma:0-1-x",
        "ma:0-1-123456789012345678901",
        f"ma:{ONE}:1",
        "sq:",
        "sq:a",
        "sq:a:",
        "sq::1",
        "sq:a:b:1",
        "sq:a:-1",
        "sq:a:1.5",
        "sq:ä:1",
        f"sq:{'a' * 65}:1",
        "or:1",
    ],
)
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"position|interval"):
        parse(text)


@given(POSITIONS)
def test_a_text_is_read_back(position: Position) -> None:
    text = str(position)
    assert parse(text) == position
    assert text.isascii()
    assert text.isprintable()
    assert " " not in text


@given(
    st.one_of(
        st.text(max_size=40),
        st.text("pgmysaq:0123456789abcdef-/,", max_size=40).map("my:{}".format),
        st.builds(
            lambda text, at, put: text[:at] + put + text[at + 1 :],
            POSITIONS.map(str),
            st.integers(0, 60),
            st.text(max_size=2),
        ),
    )
)
def test_any_text_is_a_position_or_a_value_error(text: str) -> None:
    try:
        position = parse(text)
    except ValueError:
        return
    assert parse(str(position)) == position


def test_what_the_servers_themselves_write_is_read() -> None:
    # MySQL breaks its lines, and MariaDB may put spaces there.
    assert str(GtidSet.of(f"{ONE}:1-5,\n{TWO}:1-3")) == f"my:{ONE}:1-5,{TWO}:1-3"
    assert str(DomainGtids.of("0-1-100, 1-2-50")) == "ma:0-1-100,1-2-50"
    assert GtidSet.of("") == GtidSet(())
    assert DomainGtids.of("") == DomainGtids(())
    assert Lsn.of(3, "0/16B3748") == Lsn(3, 0x16B3748)
    for kind in (GtidSet.of, DomainGtids.of, Count.of, lambda text: Lsn.of(1, text)):
        with pytest.raises(ValueError, match="position"):
            kind("NULL")


def test_a_run_that_could_not_be_read_back_is_refused() -> None:
    for run, number in (("", 1), ("a:b", 1), ("a b", 1), ("a" * 65, 1), ("a", -1)):
        with pytest.raises(ValueError, match="position"):
            Count(run, number)


def test_a_position_is_a_value() -> None:
    for position in (Lsn(1, 2), GtidSet(()), DomainGtids(()), Count("a", 1)):
        field = dataclasses.fields(position)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(position, field, None)
    assert len({Lsn(1, 2), Lsn(1, 2), GtidSet(()), DomainGtids(())}) == 3


def test_a_text_that_is_too_long_is_refused() -> None:
    longest = f"my:{ONE}:10" + ":1" * ((MAX_LENGTH - 42) // 2)
    assert len(longest) == MAX_LENGTH
    assert str(parse(longest)) == f"my:{ONE}:1:10"
    with pytest.raises(ValueError, match="4097 characters"):
        parse(longest + "0")


@pytest.mark.parametrize(
    "text",
    [
        "9" * (MAX_LENGTH - 3),
        f"{ONE}:" + "1:" * 2000,
        f"{ONE}:" + "1-1:" * 1000 + "x",
        f"{ONE}:" + "a:" * 2000,
        f"{ONE}:" + "a:1:" * 1000,
        "0-1-1," * 600,
        "," * 4000,
        "a" * 4000,
        ":" * 4000,
        "-" * 4000,
    ],
)
def test_hostile_texts_cost_bounded_work(text: str) -> None:
    start = time.process_time()
    for kind in ("pg:", "pg:1:", "my:", "ma:", "sq:", "sq:a:"):
        with pytest.raises(ValueError, match=r"position|interval|domain"):
            parse((kind + text)[:MAX_LENGTH])
    assert time.process_time() - start < 1


# --- order


@pytest.mark.parametrize(
    ("one", "other", "reached", "merged"),
    [
        ("pg:1:0/10", "pg:1:0/10", True, "pg:1:0/10"),
        ("pg:1:0/10", "pg:1:0/11", True, "pg:1:0/11"),
        ("pg:1:0/10", "pg:1:0/F", False, "pg:1:0/10"),
        # As texts, or half by half, these would be the other way round.
        ("pg:1:9/0", "pg:1:10/0", True, "pg:1:10/0"),
        ("pg:1:2/5", "pg:1:1/6", False, "pg:1:2/5"),
        ("pg:1:0/10", "pg:2:0/11", None, None),
        ("pg:2:0/10", "pg:1:0/11", None, None),
        ("my:", "my:", True, "my:"),
        ("my:", f"my:{ONE}:1", True, f"my:{ONE}:1"),
        (f"my:{ONE}:1", "my:", False, f"my:{ONE}:1"),
        (f"my:{ONE}:1", f"my:{TWO}:1-9", False, f"my:{ONE}:1,{TWO}:1-9"),
        (f"my:{ONE}:1-5", f"my:{ONE}:1-9", True, f"my:{ONE}:1-9"),
        (f"my:{ONE}:1-5", f"my:{ONE}:1-4", False, f"my:{ONE}:1-5"),
        (f"my:{ONE}:1-5", f"my:{ONE}:2-9", False, f"my:{ONE}:1-9"),
        # A replica with several appliers may have a gap.
        (f"my:{ONE}:1-5", f"my:{ONE}:1-2:4-9", False, f"my:{ONE}:1-9"),
        (f"my:{ONE}:1-2:5", f"my:{ONE}:1-3:5-9", True, f"my:{ONE}:1-3:5-9"),
        (f"my:{ONE}:1:blue:1", f"my:{ONE}:1", False, f"my:{ONE}:1:blue:1"),
        (f"my:{ONE}:blue:1", f"my:{ONE}:1", False, f"my:{ONE}:1:blue:1"),
        ("ma:", "ma:", True, "ma:"),
        ("ma:0-1-100", "ma:0-1-100", True, "ma:0-1-100"),
        ("ma:0-1-100", "ma:0-1-99", False, "ma:0-1-100"),
        # Another server has become the primary: the numbers go on.
        ("ma:0-1-100", "ma:0-2-101", True, "ma:0-2-101"),
        ("ma:0-2-101", "ma:0-1-100", False, "ma:0-2-101"),
        # Each has written alone.
        ("ma:0-1-100", "ma:0-2-100", None, None),
        ("ma:0-1-100,1-1-1", "ma:0-2-100,1-1-9", None, None),
        ("ma:0-1-100", "ma:1-1-200", False, "ma:0-1-100,1-1-200"),
        ("ma:0-1-100", "ma:0-1-100,1-1-1", True, "ma:0-1-100,1-1-1"),
        ("ma:0-1-100,1-1-1", "ma:0-1-101", False, "ma:0-1-101,1-1-1"),
        ("sq:a:1", "sq:a:1", True, "sq:a:1"),
        ("sq:a:1", "sq:a:2", True, "sq:a:2"),
        ("sq:a:10", "sq:a:9", False, "sq:a:10"),
        ("sq:a:1", "sq:b:2", None, None),
    ],
)
def test_the_order(one: str, other: str, reached: bool | None, merged: str | None) -> None:
    assert parse(one).reached_by(parse(other)) is reached
    expected = None if merged is None else parse(merged)
    assert parse(one).merged(parse(other)) == expected
    assert parse(other).merged(parse(one)) == expected


def test_two_kinds_are_not_compared() -> None:
    positions: list[Position] = [Lsn(1, 1), GtidSet(()), DomainGtids(()), Count("a", 1)]
    for one in positions:
        for other in positions:
            if one is not other:
                assert one.reached_by(other) is None
                assert one.merged(other) is None


@given(THREE_OF_A_KIND)
def test_reached_by_is_a_partial_order(three: tuple[Position, Position, Position]) -> None:
    one, two, last = three
    assert one.reached_by(one) is True
    if one.reached_by(two) and two.reached_by(one):
        assert one == two
    if one.reached_by(two) and two.reached_by(last):
        assert one.reached_by(last) is True
    # Who can't be compared can't be in either direction.
    assert (one.reached_by(two) is None) == (two.reached_by(one) is None)


@given(THREE_OF_A_KIND)
def test_merged_is_the_least_upper_bound(three: tuple[Position, Position, Position]) -> None:
    one, two, other = three
    merged = one.merged(two)
    assert one.merged(one) == one
    assert two.merged(one) == merged
    assert (merged is None) == (one.reached_by(two) is None)
    if merged is None:
        return
    assert one.reached_by(merged) is True
    assert two.reached_by(merged) is True
    assert (merged == two) == bool(one.reached_by(two))
    assert parse(str(merged)) == merged
    if one.reached_by(other) and two.reached_by(other):
        assert merged.reached_by(other) is True


# --- sets of transactions, as sets of numbers


@given(MODELS, MODELS)
def test_gtid_sets_are_sets(one: Model, other: Model) -> None:
    reached = all(one[source] <= other.get(source, set()) for source in one)
    assert gtid_set(one).reached_by(gtid_set(other)) is reached
    union = {
        source: one.get(source, set()) | other.get(source, set())
        for source in one.keys() | other.keys()
    }
    assert gtid_set(one).merged(gtid_set(other)) == gtid_set(union)
    assert numbers(gtid_set(union)) == union


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 5)), min_size=1))
def test_intervals_in_any_order_are_the_numbers_in_them(spans: list[tuple[int, int]]) -> None:
    text = ":".join(f"{first}-{first + more}" for first, more in spans)
    found = GtidSet.of(f"{ONE}:{text}")
    expected = {number for first, more in spans for number in range(first, first + more + 1)}
    assert numbers(found) == {ONE: expected}
    # Sorted, and between two intervals at least one number is missing.
    ((_, intervals),) = found.intervals
    ends = [end for interval in intervals for end in interval]
    assert ends == sorted(ends)
    assert all(after[0] > before[1] + 1 for before, after in pairwise(intervals))


def numbers(found: GtidSet) -> Model:
    return {
        source: {number for first, last in intervals for number in range(first, last + 1)}
        for source, intervals in found.intervals
    }


def test_a_set_with_very_many_gaps_is_compared_in_no_time() -> None:
    many = GtidSet.of(f"{ONE}:" + ":".join(map(str, range(1, 200_000, 2))))
    more = many.merged(GtidSet.of(f"{ONE}:2"))
    start = time.process_time()
    assert more is not None
    assert many.reached_by(more) is True
    assert more.reached_by(many) is False
    assert time.process_time() - start < 2
    assert len(str(many)) > MAX_LENGTH


# --- the log's end

BLOCK, SEGMENT = 8192, 16 * 1024**2


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        # What pg_switch_wal() leaves: a new segment with nothing but its header.
        (3 * SEGMENT + 40, 3 * SEGMENT),
        (40, 0),
        # A record that ended with its page.
        (3 * SEGMENT + BLOCK + 24, 3 * SEGMENT + BLOCK),
        (4 * SEGMENT - BLOCK + 24, 4 * SEGMENT - BLOCK),
        # Anywhere else.
        (3 * SEGMENT, 3 * SEGMENT),
        (3 * SEGMENT + 48, 3 * SEGMENT + 48),
        (3 * SEGMENT + BLOCK, 3 * SEGMENT + BLOCK),
        (3 * SEGMENT + BLOCK + 32, 3 * SEGMENT + BLOCK + 32),
        (3 * SEGMENT + BLOCK + 40, 3 * SEGMENT + BLOCK + 40),
        (3 * SEGMENT + BLOCK - 8, 3 * SEGMENT + BLOCK - 8),
        (0, 0),
    ],
)
def test_the_end_of_the_last_record(value: int, expected: int) -> None:
    assert normalised_insert(value, BLOCK, SEGMENT) == expected
    assert normalised_insert(expected, BLOCK, SEGMENT) == expected


@given(
    st.lists(st.integers(3, 400), max_size=200),
    st.sampled_from([1024, 8192]),
    st.sampled_from([1024**2, 16 * 1024**2]),
    st.integers(0, 3),
    st.integers(1, 125),
)
def test_the_end_of_a_log_that_is_written(
    sizes: list[int], block: int, segment: int, segments: int, words: int
) -> None:
    """Records of whole words of 8 bytes, laid out as PostgreSQL does, with headers between."""

    def header(place: int) -> int:
        return 40 if place % segment == 0 else 24

    border = segments * segment + segment - block  # the last page of a segment
    end = border + 24 + 8 * words
    for size in sizes:
        place = end + header(end) if end % block == 0 else end
        left = size * 8
        while left > (room := block - place % block):
            left -= room
            place += room + header(place + room)
        end = place + left
        inserted = end + header(end) if end % block == 0 else end
        assert normalised_insert(inserted, block, segment) == end


def test_the_package_imports_nothing_by_itself() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = outgrow.databases.Nothing
