"""What is sent, skipped and deleted, by values alone."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgrow.errors import PublishError
from outgrow.publish.difference import Known, difference
from outgrow.publish.encodings import Encoding
from outgrow.publish.forms import Shape
from outgrow.publish.ledger import Record
from outgrow.publish.release import Entry, Kind, Release, stamp

NOW = datetime(2026, 5, 1, tzinfo=UTC)
HTML = (("Content-Type", "text/html"),)


def entry(name: str, content: str = "", kind: Kind = Kind.ASSET, headers: str = "") -> Entry:
    digest = (content or name) * 64
    key = name if kind is not Kind.ASSET else f"{name}.{stamp(digest, '', 'identity')}"
    held = HTML if kind is Kind.PAGE else (("Cache-Control", headers),)
    return Entry(name, key, digest[:64], len(content or name), "identity", held, kind=kind)


STORE = Shape()


def record(*entries: Entry, shape: Shape = STORE) -> Record:
    return Record(Release(entries), shape, NOW)


def listed(*records: Record) -> dict[str, int]:
    found = {}
    for one in records:
        forms = {**one.shape.assets(one.release), **one.shape.pages(one.release)}
        found |= {key: form.entry.size for key, form in forms.items()}
    return found


A, B = entry("a"), entry("b")
PAGE = entry("index.html", "1", Kind.PAGE)
PLAIN = entry("feed.xml", "1", Kind.PLAIN)


def test_everything_at_an_empty_target_pages_last() -> None:
    found = difference(Release([A, PAGE, PLAIN]), Shape(), Known(), {})
    assert [form.entry.name for form in found.assets] == ["a", "index.html"]
    assert [form.key for form in found.before_pages] == ["feed.xml"]
    assert [form.key for form in found.pages] == ["index.html"]
    assert (found.gone, found.skipped) == ((), 0)
    assert found


def test_nothing_when_all_is_there() -> None:
    there = record(A, PAGE, PLAIN)
    found = difference(there.release, Shape(), Known(there), listed(there))
    assert not found
    assert found.skipped == 4


def test_what_is_listed_and_not_known_is_sent() -> None:
    there = record(A, PAGE)
    found = difference(there.release, Shape(), Known(), listed(there))
    assert len(found.assets) == 2
    assert len(found.pages) == 1


def test_an_earlier_try_is_known_for_assets_and_not_for_pages() -> None:
    there = record(A, PAGE)
    found = difference(there.release, Shape(), Known(again=True), listed(there))
    assert found.assets == ()
    assert len(found.pages) == 1


def test_other_headers_are_sent_and_those_of_a_try_are_not_believed() -> None:
    there, begun = record(A), record(entry("a", headers="max-age=1"))
    assert difference(begun.release, Shape(), Known(there), listed(there)).assets
    # Somebody began to send other headers: which ones are there, nobody knows.
    found = difference(there.release, Shape(), Known(there, (begun,)), listed(there))
    assert [form.entry for form in found.assets] == [A]
    # An earlier try of this one, and one of the other.
    found = difference(begun.release, Shape(), Known(None, (there,), again=True), listed(there))
    assert found.assets


def test_a_file_of_another_size_is_sent() -> None:
    there = record(A)
    sizes = {key: size + 1 for key, size in listed(there).items()}
    assert difference(there.release, Shape(), Known(there), sizes).assets


def test_the_size_of_what_is_encoded_is_not_known() -> None:
    one = Entry("a", "a.1", "d" * 64, 1000, "gzip", ())
    found = difference(Release([one]), Shape(), Known(record(one)), {"a.1": 17})
    assert not found


def test_condemned_keys_are_sent_again() -> None:
    there = record(A, B)
    found = difference(there.release, Shape(), Known(there), listed(there), {A.key})
    assert [form.entry for form in found.assets] == [A]


def test_pages_that_are_gone() -> None:
    there = record(A, PAGE, PLAIN)
    found = difference(Release([A]), Shape(), Known(there), listed(there))
    assert found.gone == ("feed.xml", "index.html")
    # Those of a release that was never finished, too; what is not listed needs no deletion.
    begun = record(entry("about.html", "1", Kind.PAGE))
    found = difference(Release([A]), Shape(), Known(record(A), (begun,)), {"about.html": 1})
    assert found.gone == ("about.html",)
    found = difference(Release([A]), Shape(), Known(there), {A.key: 1})
    assert found.gone == ()


def test_a_page_that_becomes_a_file_with_that_key_stays() -> None:
    there = record(entry("a.js", "1", Kind.PLAIN))
    now = Entry("a.js", "a.js", "1" * 64, 1, "identity", ())
    found = difference(Release([now]), Shape(), Known(there), listed(there))
    assert found.gone == ()


def test_siblings_of_pages_go_with_them() -> None:
    shape = Shape((Encoding.GZIP,))
    large = Entry("index.html", "index.html", "1" * 64, 999, "identity", HTML, kind=Kind.PAGE)
    there = record(large, shape=shape)
    small = Entry("index.html", "index.html", "2" * 64, 9, "identity", HTML, kind=Kind.PAGE)
    found = difference(Release([small]), shape, Known(there), listed(there))
    assert found.gone == ("index.html.gz",)


@pytest.mark.parametrize("where", ["served", "begun"])
def test_two_contents_under_one_key_are_refused(where: str) -> None:
    other = Entry("a", A.key, "f" * 64, 1, "identity", ())
    known = Known(record(other)) if where == "served" else Known(None, (record(other),))
    with pytest.raises(PublishError, match=r"a and an older a .* the same key"):
        difference(Release([A]), Shape(), known, {})


# --- whatever there is

several = st.lists(
    st.builds(
        entry,
        st.sampled_from("abcd"),
        st.sampled_from("123"),
        st.sampled_from(Kind),
        st.sampled_from(["", "x"]),
    ),
    max_size=4,
    unique_by=lambda one: one.name,
)
shapes = st.sampled_from([Shape(), Shape((Encoding.GZIP,))])


@given(several, several, st.lists(several, max_size=2), shapes, st.booleans(), st.data())
def test_what_is_skipped_is_there_and_known(
    wanted: list[Entry],
    served: list[Entry],
    others: list[list[Entry]],
    shape: Shape,
    again: bool,
    data: st.DataObject,
) -> None:
    release = Release(wanted)
    known = Known(
        record(*served, shape=shape),
        tuple(record(*one, shape=shape) for one in others),
        again,
    )
    everything = [record(*wanted, shape=shape), known.served, *known.others]
    sizes = listed(*(one for one in everything if one))
    there = {key: size for key, size in sizes.items() if data.draw(st.booleans())}
    condemned = {key for key in sizes if data.draw(st.booleans())}
    found = difference(release, shape, known, there, condemned)
    forms = [*shape.assets(release).values(), *shape.pages(release).values()]
    sent = {*found.assets, *found.before_pages, *found.pages}
    assert found.skipped == len(forms) - len(sent)
    for form in set(forms) - sent:
        assert form.key in there
        assert form.key not in condemned
        states = [one for one in (known.served, *known.others) if one]
        says = [{**shape.assets(one.release), **shape.pages(one.release)} for one in states]
        assert all(form.is_same(one.get(form.key, form)) for one in says)
        assert again or form.key in says[0]
    assert not {form.key for form in forms} & set(found.gone)
    assert set(found.gone) <= set(there)
    # To do it all, and look again: there is nothing left to do.
    after = {key: size for key, size in there.items() if key not in found.gone}
    after |= {form.key: form.entry.size for form in sent}
    assert not difference(release, shape, Known(record(*wanted, shape=shape)), after)
