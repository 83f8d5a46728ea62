"""A release as a value, its forms at a target, and its documents."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgrow.errors import PublishError
from outgrow.publish import forms, release
from outgrow.publish.encodings import Encoding, worth
from outgrow.publish.forms import Form, Shape, copy_of
from outgrow.publish.release import Entry, Kind, Release, stamp, stamped

names = st.text(min_size=1, max_size=8)
entries = st.builds(
    Entry,
    names,
    names,
    st.text("0123456789abcdef", min_size=64, max_size=64),
    st.integers(0, 10**12),
    st.sampled_from([one.value for one in Encoding]),
    st.dictionaries(names, st.text(max_size=5), max_size=3).map(lambda d: tuple(sorted(d.items()))),
    st.text(max_size=5),
    st.sampled_from(Kind),
)
releases = st.lists(entries, max_size=5, unique_by=lambda one: one.name).map(Release)


@given(releases)
def test_the_document_is_read_back(one: Release) -> None:
    document = json.loads(json.dumps(one.document()))
    found = release.parse(document, "here")
    assert found == one
    assert found.id == one.id
    assert hash(found) == hash(one)
    assert list(found) == list(one)
    assert len(found) == len(one.entries)


@given(st.lists(entries, max_size=5, unique_by=lambda one: one.name), st.randoms())
def test_the_id_does_not_depend_on_the_order(several: list[Entry], random: Any) -> None:
    before = Release(several).id
    random.shuffle(several)
    assert Release(several).id == before
    assert len(before) == 32


@given(entries, entries)
def test_other_entries_have_another_id(one: Entry, other: Entry) -> None:
    assert (Release([one]).id == Release([other]).id) == (one == other)
    assert Release([one]) != "a release"


def damaged(document: Any, path: list[int], value: Any) -> Any:
    """The document with something else somewhere in it."""
    here = document = copy.deepcopy(document)
    for step in path[:-1]:
        keys = list(here) if isinstance(here, dict) else range(len(here))
        key = keys[step % len(keys)]
        if not isinstance(here[key], (dict, list)) or not here[key]:
            break
        here = here[key]
    keys = list(here) if isinstance(here, dict) else range(len(here))
    here[keys[path[-1] % len(keys)]] = value
    return document


@given(
    st.lists(entries, min_size=1, max_size=3, unique_by=lambda one: one.name).map(Release),
    st.lists(st.integers(0, 9), min_size=1, max_size=4),
    st.sampled_from([None, 1, -7, "x", [], {}, [1], {"a": 1}]),
)
def test_a_damaged_document_is_an_error_and_nothing_else(
    one: Release, path: list[int], value: Any
) -> None:
    document = one.document()
    other = damaged(document, path, value)
    if json.dumps(other) == json.dumps(document):
        assert release.parse(other, "here") == one
        return
    with pytest.raises(PublishError, match="here"):
        release.parse(other, "here")


@pytest.mark.parametrize("document", [None, 1, "x", [], {}, {"format": 2}])
def test_what_is_no_release(document: object) -> None:
    with pytest.raises(PublishError, match="here is no release of Outgrow"):
        release.parse(document, "here")


def test_a_changed_one_is_told() -> None:
    document = Release([Entry("a", "a", "0", 1, "identity", ())]).document()
    document["id"] = "0" * 32
    with pytest.raises(PublishError, match="here was changed"):
        release.parse(document, "here")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("css/base.css", "css/base.0.css"),
        ("a.min.js.map", "a.min.js.0.map"),
        ("LICENSE", "LICENSE.0"),
        ("a.b/c", "a.b/c.0"),
        (".well-known/x", ".well-known/x.0"),
    ],
)
def test_where_the_stamp_stands(name: str, key: str) -> None:
    assert stamped(name, "0") == key


def test_what_a_stamp_depends_on() -> None:
    same = stamp("digest", "text/css", "gzip")
    assert same == stamp("digest", "text/css", "gzip")
    others = [
        ("other", "text/css", "gzip"),
        ("digest", "text/x", "gzip"),
        ("digest", "text/css", "br"),
    ]
    assert len({same, *(stamp(*one) for one in others)}) == 4
    assert len(same) == 12


# --- forms

CSS = (("Access-Control-Allow-Origin", "*"), ("Content-Type", "text/css"), ("X-Amz-Meta-A", "1"))


def entry(name: str = "a.css", **changes: Any) -> Entry:
    values = {
        "key": f"{name}.1",
        "digest": "d" * 64,
        "size": 1000,
        "encoding": "gzip",
        "headers": CSS,
    }
    return Entry(name, **{**values, **changes})


def test_a_store_has_one_form_with_the_headers_that_it_keeps() -> None:
    [form] = Shape().forms(entry())
    assert (form.key, form.encoding) == ("a.css.1", Encoding.GZIP)
    assert dict(form.headers) == {
        "Content-Encoding": "gzip",
        "Content-Type": "text/css",
        "X-Amz-Meta-A": "1",
    }
    [form] = Shape().forms(entry(encoding="identity"))
    assert "Content-Encoding" not in dict(form.headers)


def test_a_folder_has_the_plain_one_last_and_no_headers() -> None:
    shape = Shape((Encoding.GZIP, Encoding.ZSTD))
    found = [(form.key, form.encoding, form.headers) for form in shape.forms(entry())]
    assert found == [
        ("a.css.1.gz", Encoding.GZIP, ()),
        ("a.css.1.zst", Encoding.ZSTD, ()),
        ("a.css.1", Encoding.IDENTITY, ()),
    ]
    assert [form.key for form in shape.forms(entry(size=10))] == ["a.css.1"]
    assert [form.key for form in shape.forms(entry(headers=()))] == ["a.css.1"]


def test_pages_have_a_copy_and_plain_files_have_none() -> None:
    page = entry("index.html", key="index.html", kind=Kind.PAGE)
    plain = entry("a.txt", key="a.txt", kind=Kind.PLAIN)
    one = Release([entry(), page, plain])
    assert set(Shape().assets(one)) == {"a.css.1", copy_of(page)}
    assert set(Shape().pages(one)) == {"index.html", "a.txt"}
    assert copy_of(page).startswith("outgrow-publish/pages/index.html.dddddddddddddddd.")


def test_the_longest_key() -> None:
    page = entry("index.html", key="index.html", kind=Kind.PAGE)
    assert forms.longest(entry()) == "a.css.1.zst"
    assert forms.longest(entry(size=10)) == "a.css.1"
    assert forms.longest(entry(headers=())) == "a.css.1"
    assert forms.longest(page) == f"{copy_of(page)}.zst"


def test_when_two_forms_are_the_same() -> None:
    form = Form("k", entry(), Encoding.GZIP, ())
    assert form.is_same(Form("other", entry("b.css"), Encoding.GZIP, ()))
    assert not form.is_same(None)
    assert not form.is_same(Form("k", entry(), Encoding.IDENTITY, ()))
    assert not form.is_same(Form("k", entry(), Encoding.GZIP, (("A", "b"),)))
    assert not form.is_same(Form("k", entry(digest="e" * 64), Encoding.GZIP, ()))


@pytest.mark.parametrize("shape", [Shape(), Shape(()), Shape((Encoding.BROTLI,))])
def test_a_shape_is_read_back(shape: Shape) -> None:
    assert forms.shape(json.loads(json.dumps(shape.document()))) == shape


@pytest.mark.parametrize("document", ["gzip", {}, 1, ["zip"], [1]])
def test_what_is_no_shape(document: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        forms.shape(document)


# --- encodings


@pytest.mark.parametrize(
    ("kind", "size", "expected"),
    [
        ("text/css; charset=utf-8", 256, True),
        ("text/css", 255, False),
        ("TEXT/CSS", 1000, True),
        ("text/css", 64 << 20, True),
        ("text/css", (64 << 20) + 1, False),
        ("application/json", 1000, True),
        ("application/ld+json", 1000, True),
        ("image/svg+xml", 1000, True),
        ("application/wasm", 1000, True),
        ("font/ttf", 1000, True),
        ("font/woff2", 1000, False),
        ("image/png", 1000, False),
        ("application/gzip", 1000, False),
        ("application/octet-stream", 1000, False),
        ("", 1000, False),
    ],
)
def test_what_is_worth_compressing(kind: str, size: int, expected: bool) -> None:
    assert worth(kind, size) is expected
