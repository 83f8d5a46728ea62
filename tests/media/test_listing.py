"""Listings of media servers: what is read, what is refused, and what differs."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgrow.media import listing
from outgrow.media.listing import (
    Autoindex,
    BadListing,
    Child,
    Difference,
    Entry,
    Lines,
    Multistatus,
    Wrong,
    compare,
    in_order,
)

PARTS = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1, max_size=8
).filter(lambda part: not part.startswith("."))
NAMES = st.lists(PARTS, min_size=1, max_size=3).map("/".join)
ENTRIES = st.builds(Entry, NAMES, st.integers(0, 2**40), st.just("1700000000"), st.just(""))
FEW = st.lists(st.sampled_from(["a", "a.b", "a0", "b"]), min_size=1, max_size=3).map("/".join)
TREES = st.dictionaries(FEW, st.integers(0, 3), max_size=30)


def feed(parser, data: bytes, *sizes: int) -> list:
    """What a parser finds when the data comes in pieces."""
    found = []
    for size in sizes:
        found += parser.feed(data[:size])
        data = data[size:]
    found += parser.feed(data)
    parser.close()
    return found


# --- comparing


@given(TREES, TREES)
def test_the_differences_are_those_of_the_two_sets(ours, theirs):
    found = list(compare(_entries(ours), _entries(theirs)))
    expected = [
        (Wrong.MISSING if name not in theirs else Wrong.EXTRA, name)
        for name in ours.keys() ^ theirs.keys()
    ]
    both = ours.keys() & theirs.keys()
    expected += [(Wrong.DIFFERENT, name) for name in both if ours[name] != theirs[name]]
    assert [(one.kind, one.name) for one in found] == sorted(expected, key=lambda one: one[1])
    for one in found:
        assert (one.wanted, one.found) == (ours.get(one.name, -1), theirs.get(one.name, -1))
        assert Difference.read(json.loads(json.dumps(one))) == one


def _entries(tree: dict[str, int]) -> list[Entry]:
    return [Entry(name, size) for name, size in sorted(tree.items())]


@pytest.mark.parametrize(
    ("ours", "theirs", "differ"),
    [("a", "b", True), ("a", "a", False), ("", "a", False), ("a", "", False), ("", "", False)],
)
def test_digests_count_where_both_are_known(ours, theirs, differ):
    one, other = Entry("f", 1, "", ours), Entry("f", 1, "", theirs)
    expected = [Difference("f", Wrong.DIFFERENT, 1, 1)] if differ else []
    assert list(compare([one], [other])) == expected


@pytest.mark.parametrize("names", [["b", "a"], ["a", "a"]])
def test_a_listing_out_of_order_is_refused(names):
    with pytest.raises(BadListing, match="not in order"):
        list(in_order(Entry(name, 1) for name in names))


def test_a_listing_in_order_is_left_as_it_is():
    entries = [Entry("a", 1), Entry("a/b", 1), Entry("b", 1)]
    assert list(in_order(entries)) == entries


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        ("1700000000", 1_700_000_000.0),
        ("Tue, 14 Nov 2023 22:13:20 GMT", 1_700_000_000.0),
        ("", None),
        ("yesterday", None),
        ("Tue, 14 Nov 99999 22:13:20 GMT", None),
    ],
)
def test_when_a_file_was_changed(date, seconds):
    assert Entry("f", 1, date).modified == seconds


# --- our own listing


@given(st.lists(ENTRIES, max_size=20), st.lists(st.integers(1, 40), max_size=20))
def test_our_own_listing_comes_back_as_it_was_written(entries, sizes):
    data = b"".join(map(listing.line, entries)) + listing.end(len(entries))
    assert feed(Lines(), data, *sizes) == entries


def test_digests_and_signs_of_life():
    entry = Entry("f", 1, "5", "0" * 64)
    assert feed(Lines(), b"\n\n" + listing.line(entry) + b"\n" + listing.end(1)) == [entry]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "cut after 0"),
        (b'["a",1,""]\n', "cut after 1"),
        (b'["a",1,""]\n{"count":1}', "cut after 1"),
        (b'["a",1,""]\n{"count":2}\n', "after 1 entries"),
        (b'{"count":0}\n["a",1,""]\n', "behind its end"),
        (b'{"count":0}\n{"count":0}\n', "behind its end"),
        (b"nonsense\n", "not JSON"),
        (b"[" * 100_000 + b"\n", "not JSON"),
        (b"7\n", "not an entry"),
        (b'["a"]\n', "not an entry"),
        (b'["a",-1,""]\n', "not an entry"),
        (b'["a",-1,"",""]\n', "not an entry"),
        (b'["a",1,"","x"]\n', "not an entry"),
        (b'["a",1,"",7]\n', "not an entry"),
        (b'["../a",1,""]\n', "no name of a file"),
        (b'["a//b",1,""]\n', "no name of a file"),
        (b'["/etc/passwd",1,""]\n', "no name of a file"),
        (b'["a\\u0000",1,""]\n', "no name of a file"),
        (b"x" * 70_000, "longer than"),
    ],
)
def test_what_is_no_listing_of_ours(data, why):
    with pytest.raises(BadListing, match=why):
        feed(Lines(), data)


# --- nginx

NGINX = b"""[
{ "name":"album", "type":"directory", "mtime":"Tue, 14 Nov 2023 22:13:20 GMT" },
{ "name":".hidden", "type":"file", "mtime":"Tue, 14 Nov 2023 22:13:20 GMT", "size":3 },
{ "name":".folder", "type":"directory", "mtime":"Tue, 14 Nov 2023 22:13:20 GMT" },
{ "name":"socket", "type":"other", "mtime":"Tue, 14 Nov 2023 22:13:20 GMT" },
{ "name":"a \\"b\\".txt", "type":"file", "mtime":"Tue, 14 Nov 2023 22:13:20 GMT", "size":12 }
]
"""
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"


@given(st.lists(st.integers(1, 60), max_size=12))
def test_nginx(sizes):
    assert feed(Autoindex(), NGINX, *sizes) == [
        Child("album/"),
        Child('a "b".txt', 12, DATE),
    ]


@pytest.mark.parametrize("data", [b"[\n]\n", b"[\n]", b"[]"])
def test_an_empty_folder_of_nginx(data):
    assert feed(Autoindex(), data) == []


_FILE = '{{"name":{name}, "type":"file", "mtime":"x", "size":{size}}}'


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "was cut"),
        (b"[\n", "was cut"),
        (b'[\n{"name":"a","type":"directory"},\n', "was cut"),
        (b'[\n{"name":"a","type":"directory"}', "cut behind a name"),
        (b"<html>", "autoindex_format"),
        (b"[\n]\n[\n", "not JSON"),
        (b"[\nx\n]", "not JSON"),
        (b"[\n7\n]", "not an entry"),
        (b'[\n{"name":"a","type":"file"}\n]', "not an entry"),
        (b'[\n{"name":"a","type":"symlink","size":1,"mtime":""}\n]', "not an entry"),
        (b'[\n{"name":7,"type":"directory"}\n]', "not an entry"),
        (b'[\n{"name":"","type":"directory"}\n]', "no name"),
        (b'[\n{"name":"..","type":"directory"}\n]', None),
        (b'[\n{"name":"a/b","type":"directory"}\n]', "no name of a file"),
        (f"[\n{_FILE.format(name=json.dumps('a/../b'), size=1)}\n]".encode(), "no name"),
        (f"[\n{_FILE.format(name=json.dumps('a'), size=-1)}\n]".encode(), "not an entry"),
        (b"[" + b"x" * 70_000, "longer than"),
    ],
)
def test_what_is_no_listing_of_nginx(data, why):
    if why is None:  # a dotfile, and so left out
        assert feed(Autoindex(), data) == []
        return
    with pytest.raises(BadListing, match=why):
        feed(Autoindex(), data)


def test_nothing_follows_the_end_of_nginx():
    with pytest.raises(BadListing, match="behind its end"):
        feed(Autoindex(), b"[\n]\n[\n", 4)


# --- WebDAV


def multistatus(*responses: str) -> bytes:
    body = "".join(f"<D:response>{one}</D:response>" for one in responses)
    return f'<?xml version="1.0"?><D:multistatus xmlns:D="DAV:">{body}</D:multistatus>'.encode()


def file(href: str, size: str = "3") -> str:
    return (
        f"<D:href>{href}</D:href><D:propstat><D:prop><D:resourcetype/><D:getcontentlength>{size}"
        f"</D:getcontentlength><D:getlastmodified>{DATE}</D:getlastmodified></D:prop></D:propstat>"
    )


def folder(href: str) -> str:
    kind = "<D:resourcetype><D:collection/></D:resourcetype>"
    return f"<D:href>{href}</D:href><D:propstat><D:prop>{kind}</D:prop></D:propstat>"


DAV = multistatus(
    folder("/media/a%20b/"),
    folder("/media/a%20b/deeper/"),
    file("http://media1:80/media/a%20b/f%C3%BC.txt", "12"),
    file("/media/a%20b/.davfs.tmp01"),
    file("/media/a%20b/odd%FF"),
)


@given(st.lists(st.integers(1, 200), max_size=12))
def test_webdav(sizes):
    assert feed(Multistatus("/media/a b/"), DAV, *sizes) == [
        Child("deeper/"),
        Child("fü.txt", 12, DATE),
    ]


BOMB = b"""<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>
<D:multistatus xmlns:D="DAV:">&b;</D:multistatus>"""


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not XML"),
        (b"<html></html>", "no answer to PROPFIND"),
        (DAV[:-10], "not XML"),
        (BOMB, "DOCTYPE"),
        (multistatus(file("/elsewhere/f")), "not in the folder"),
        (multistatus(file("/media/a b/deeper/f")), "not in the folder"),
        (multistatus(file("/media/a b/..")), "no name of a file"),
        (multistatus(file("/media/a b/f", "many")), "how long"),
        (multistatus(file("/media/a b/f", "9" * 5000)), "how long"),
        (multistatus(file("/media/a b/" + "f" * 70_000)), "longer than"),
    ],
)
def test_what_is_no_listing_of_webdav(data, why):
    with pytest.raises(BadListing, match=why):
        feed(Multistatus("/media/a b/"), data)


# --- listings without end


def test_blank_lines_without_end():
    lines = Lines()
    with pytest.raises(BadListing, match="nothing is in"):
        for _ in range(1000):
            list(lines.feed(b"\n" * 65536))


def test_a_comment_without_end():
    found = Multistatus("/")
    list(found.feed(b'<multistatus xmlns="DAV:"><!--'))
    with pytest.raises(BadListing, match="nothing is in"):
        for _ in range(1000):
            list(found.feed(b"x" * 65536))


def test_what_is_left_out_without_end():
    found = Autoindex()
    list(found.feed(b"[\n"))
    with pytest.raises(BadListing, match="nothing is in"):
        for _ in range(10000):
            list(found.feed(b'{"name":"x","type":"other"},\n' * 2000))


def test_elements_within_each_other():
    with pytest.raises(BadListing, match="within each other"):
        list(Multistatus("/").feed(b'<multistatus xmlns="DAV:">' + b"<a>" * 100))


def test_an_address_that_is_none():
    with pytest.raises(BadListing, match="is no address"):
        feed(Multistatus("/"), multistatus("<D:href>http://[x/y</D:href>"))


def test_names_that_are_no_utf_8_are_left_out():
    assert feed(Lines(), b'["a\xff",1,""]\n["b",1,""]\n{"count":2}\n') == [Entry("b", 1)]
    latin = b'[\n{"name":"a\xff","type":"directory"},\n{"name":"b","type":"directory"}\n]'
    assert feed(Autoindex(), latin) == [Child("b/")]
