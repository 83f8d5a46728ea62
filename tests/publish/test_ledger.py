"""What a target remembers, as values and documents."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgrow.errors import PublishError
from outgrow.publish import ledger
from outgrow.publish.encodings import Encoding
from outgrow.publish.forms import Shape
from outgrow.publish.ledger import Condemned, Pointer, Record, Served
from outgrow.publish.release import Entry, Kind, Release

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
moments = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
ids = st.text("0123456789abcdef", min_size=32, max_size=32)


def entry(name: str, kind: Kind = Kind.ASSET) -> Entry:
    return Entry(name, f"{name}.1", name * 16, 1, "identity", (), kind=kind)


@pytest.mark.parametrize("shape", [Shape(), Shape((Encoding.GZIP,))])
def test_a_record_is_read_back(shape: Shape) -> None:
    record = Record(Release([entry("a"), entry("b", Kind.PAGE)]), shape, NOW)
    found = ledger.read_record(record.document(), "here")
    assert found == record
    assert found.keys() == {"a.1", "b.1", f"outgrow-publish/pages/b.1.{'b' * 16}.identity"}


@given(
    st.builds(
        Pointer,
        ids,
        st.integers(0, 10**6),
        moments,
        st.lists(st.builds(Served, ids, moments), max_size=3).map(tuple),
    )
)
def test_a_pointer_is_read_back(pointer: Pointer) -> None:
    assert ledger.read_pointer(pointer.document(), "here") == pointer


@given(
    st.builds(
        Condemned,
        moments,
        st.frozensets(ids),
        st.frozensets(st.text(max_size=5)),
        st.none() | moments,
    )
)
def test_condemned_keys_are_read_back(condemned: Condemned) -> None:
    assert ledger.read_condemned(condemned.document(), "here") == condemned


READERS = [ledger.read_record, ledger.read_pointer, ledger.read_condemned]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is no JSON"),
        (b"\xff", "is no JSON"),
        (b"[]", "is no document of Outgrow"),
        (b"{}", "has the format None"),
        (b'{"format": 2}', "Was it written by a newer one?"),
        (b'{"format": 1}', "here is no "),
    ],
)
def test_what_is_no_document(read: Any, content: bytes, said: str) -> None:
    with pytest.raises(PublishError, match="here") as raised:
        read(content, "here")
    assert said in str(raised.value)


@given(st.sampled_from(READERS), st.binary(max_size=60))
def test_bytes_that_mean_nothing_are_an_error_and_nothing_else(read: Any, content: bytes) -> None:
    with pytest.raises(PublishError):
        read(content, "here")


DOCUMENTS = [
    (ledger.read_record, Record(Release([entry("a")]), Shape(), NOW).document()),
    (ledger.read_pointer, Pointer("a", 1, NOW, (Served("b", NOW),)).document()),
    (ledger.read_condemned, Condemned(NOW, frozenset("r"), frozenset("k"), NOW).document()),
]


@pytest.mark.parametrize(("read", "content"), DOCUMENTS)
@given(value=st.sampled_from([None, 1, "x", [], {}, [1], [[1, 2]]]), which=st.integers(0, 9))
def test_a_damaged_document_is_an_error(
    read: Any, content: bytes, value: object, which: int
) -> None:
    document = json.loads(content)
    key = sorted(document)[which % len(document)]
    document[key] = value
    # Some values mean something: then it is read. Nothing else is ever raised.
    with suppress(PublishError):
        read(json.dumps(document).encode(), "here")


def test_times_are_in_utc() -> None:
    summer = timezone(timedelta(hours=2))
    assert ledger.moment(NOW.astimezone(summer)) == "2026-05-01T12:00:00.000000Z"


def test_keys() -> None:
    assert ledger.pointer_number(ledger.pointer_key(7)) == 7
    assert ledger.pointer_number("outgrow-publish/served/x.json") is None
    assert ledger.pointer_number("a.json") is None
    assert ledger.record_id(ledger.record_key("abc")) == "abc"
    assert ledger.record_id("outgrow-publish/served/1.json") is None
    assert ledger.is_condemned(ledger.condemned_key("a"))
    assert not ledger.is_condemned(ledger.record_key("a"))


def test_the_pointer_moves() -> None:
    pointer = Pointer()
    everything = {"a", "b", "c", "x"}
    pointer = pointer.moved("a", NOW, [], everything)
    assert pointer == Pointer("a", 1, NOW, ())
    later = NOW + timedelta(days=1)
    pointer = pointer.moved("b", later, ["x"], everything)
    assert pointer == Pointer("b", 2, later, (Served("a", later), Served("x", later)))
    assert pointer.until("a") == later
    assert pointer.until("b") is None
    # Back to the first: it is none of the former any more.
    last = later + timedelta(days=1)
    back = pointer.moved("a", last, ["x", "a"], everything)
    assert back == Pointer("a", 3, last, (Served("b", last), Served("x", later)))
    # The same again, whose pages were pushed anew; and whose record is gone is forgotten.
    again = back.moved("a", last, [], {"a", "x"})
    assert again == Pointer("a", 4, last, (Served("x", later),))


def test_condemned_keys_while_they_are_deleted() -> None:
    condemned = Condemned(NOW, frozenset("r"), frozenset("k"))
    assert condemned.deleting_until is None
    assert condemned.deleting(NOW) == Condemned(NOW, frozenset("r"), frozenset("k"), NOW)
