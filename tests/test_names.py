"""Hostile names of every kind are refused; unique names fit, and keep what matters."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgrow import names
from outgrow.errors import UnsafeName

MARK = "abcdefghijklm"

GOOD = [
    "a",
    "photo.jpg",
    "2024/05/photo.jpg",
    "Ünïcödé/日本語/🎉.png",
    "with space.txt",
    "100% sure.txt",
    "50%zz.txt",
    "a%2",
    "what?.txt",
    "a#b;c&d=e+f.txt",
    "~user/file",
    "-rf",
    "ab:c",
    "folder/C:file",
    "'quoted\" <tag>.txt",
    "e\u0301.txt",  # the two Unicode forms of one letter are two names
    "\u00e9.txt",
    "a..b",
    "a.b.c.tar.gz",
    "outgrow-master-id.txt.jpg",
    "folder/outgrow-master-id.txt",
    "a" * 255,
    "/".join(["a" * 199] * 5),
]

HOSTILE = {
    "empty": [""],
    "slash": ["/", "/a", "//a", "a/", "a//b", "a/b/", "//host/share/a"],
    "dot": [".", "..", "./a", "../a", "a/../b", "a/..", "a/./b", ".outgrow/owed/x", ".htaccess"],
    "dotfile below": ["a/.git/config", "a/.outgrow", "...", "a/.../b", ".well-known/x"],
    "dot or space at an end": ["a.", "a ", " a", "a./b", "a /b", "a/ b", "a..", "a. "],
    "backslash": ["a\\b", "..\\a", "\\a", "\\\\host\\share", "C:\\a"],
    "drive": ["C:a", "c:/a", "z:"],
    "NUL": ["\0", "a\0.jpg", "a/\0"],
    "control": ["a\nb", "a\r\nX-Evil: 1", "a\tb", "\x1b[31m", "a\x7f", "a\x85b", "a\x9f"],
    "line separator": ["a\u2028b", "a\u2029b"],
    "percent-encoding": ["%2e%2e/a", "a%2Fb", "a%00", "%5c", "a%0d%0ab", "a%25b", "%2E"],
    "surrogate": ["\ud800", "a\udcff.jpg"],
    "reserved": [
        names.MASTER_ID_FILE,
        names.MASTER_ID_FILE.upper(),
        "Outgrow-Master-Id.TXT",
        "outgrow-ma\u017fter-id.txt",  # a long s, which folds to an s
    ],
    "long part": ["a" * 256, "é" * 128, "x/" + "a" * 256 + "/y"],
    "long whole": ["a/" * 500 + "b", "/".join(["é" * 100] * 5)],
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_name_is_given_back(name: str) -> None:
    assert names.check(name) == name


@pytest.mark.parametrize(
    "name", [name for kind in HOSTILE.values() for name in kind], ids=lambda name: ascii(name)[:40]
)
def test_a_hostile_name_is_refused(name: str) -> None:
    with pytest.raises(UnsafeName) as caught:
        names.check(name)
    assert caught.value.name == name
    assert caught.value.problem
    # The message can be logged and printed: no control characters, no surrogates.
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300
    str(caught.value).encode()


@given(st.text(st.characters()) | st.text("./\\%2eE:aC \0\r\n~", max_size=12))
def test_what_passes_stays_below_the_root(name: str) -> None:
    try:
        names.check(name)
    except UnsafeName:
        return
    parts = name.split("/")
    assert all(part and part[0] != "." and part[-1] not in ". " for part in parts)
    assert not re.search(r"[\x00-\x1f\x7f\\]", name)
    assert len(name.encode()) <= 1000
    assert all(len(part.encode()) <= 255 for part in parts)


def test_tokens_are_random_and_told_apart_by_every_file_system() -> None:
    tokens = {names.token() for _ in range(2000)}
    assert len(tokens) == 2000
    # 13 characters out of 32 are 65 bits.
    assert all(re.fullmatch(r"[a-z2-7]{13}", token) for token in tokens)
    assert {character for token in tokens for character in token} == set(
        "abcdefghijklmnopqrstuvwxyz234567"
    )


@pytest.mark.parametrize(
    ("name", "max_length", "expected"),
    [
        ("photo.jpg", None, f"photo_{MARK}.jpg"),
        ("photo", None, f"photo_{MARK}"),
        ("a/b/photo.jpg", None, f"a/b/photo_{MARK}.jpg"),
        ("backup.tar.gz", None, f"backup_{MARK}.tar.gz"),
        ("BACKUP.Tar.GZ", None, f"BACKUP_{MARK}.Tar.GZ"),
        ("x.tar.gz", 22, f"x_{MARK}.tar.gz"),
        ("archive.tar", None, f"archive_{MARK}.tar"),
        ("tar.gz", None, f"tar_{MARK}.gz"),
        ("a.b.c", None, f"a.b_{MARK}.c"),
        ("p" * 200 + ".jpg", 100, "p" * 82 + f"_{MARK}.jpg"),
        ("photos/" + "p" * 93, 100, "photos/" + "p" * 79 + f"_{MARK}"),
        ("photo.jpg", 19, f"p_{MARK}.jpg"),
        # Too long for a file system, and cut between letters.
        ("é" * 200 + ".jpg", None, "é" * 118 + f"_{MARK}.jpg"),
        ("日" * 90 + ".tar.gz", 100, "日" * 78 + f"_{MARK}.tar.gz"),
        # A sentence after a full stop is no extension, and gives way.
        ("v1." + "a sentence " * 12 + "ends", 100, "v1." + ("a sentence " * 8)[:83] + f"_{MARK}"),
        ("x." + "y" * 400, None, "x." + "y" * 239 + f"_{MARK}"),
    ],
)
def test_unique_names(name: str, max_length: int | None, expected: str) -> None:
    unique = names.unique(name, MARK, max_length)
    assert unique == expected
    assert max_length is None or len(unique) <= max_length


def test_the_stem_gives_way_to_the_limit_of_the_whole_name() -> None:
    folder = "/".join(["a" * 194] * 5)
    unique = names.unique(f"{folder}/{'p' * 200}.jpg", MARK)
    assert unique == f"{folder}/{'p' * 7}_{MARK}.jpg"
    assert len(unique) == names.NAME_LIMIT


@pytest.mark.parametrize(
    ("name", "max_length"),
    [("photo.jpg", 18), ("folder/photo.jpg", 25), ("f" * 90 + "/photo.jpg", 100), ("a", 0)],
)
def test_no_room_is_an_error_that_says_so(name: str, max_length: int) -> None:
    with pytest.raises(UnsafeName, match=f"no room for 13 random characters in {max_length}"):
        names.unique(name, MARK, max_length)


def test_no_room_below_long_folders() -> None:
    with pytest.raises(UnsafeName, match="no room"):
        names.unique("/".join(["a" * 196] * 5) + "/photo.jpg", MARK)
    with pytest.raises(UnsafeName, match="longer than 255 bytes"):
        names.unique("a" * 256 + "/photo.jpg", MARK)


@pytest.mark.parametrize("name", ["", "../a.jpg", "a/", ".jpg", "a\\b", names.MASTER_ID_FILE])
def test_a_hostile_name_is_not_made_unique(name: str) -> None:
    with pytest.raises(UnsafeName):
        names.unique(name, MARK)


PARTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300)
EXTENSIONS = st.sampled_from(["", ".jpg", ".tar.gz", ".TAR.bz2", ".é", ".日本", ".a b"])


@given(st.lists(PARTS, max_size=2), PARTS, EXTENSIONS, st.none() | st.integers(0, 300))
def test_a_unique_name_passes_fits_and_keeps_its_extension(
    folders: list[str], stem: str, extension: str, max_length: int | None
) -> None:
    name = "/".join([*folders, stem + extension])
    try:
        unique = names.unique(name, MARK, max_length)
    except UnsafeName:
        return
    assert names.check(unique) == unique
    assert unique.endswith(extension)
    assert MARK in unique
    assert unique.rpartition("/")[0] == name.rpartition("/")[0]
    assert max_length is None or len(unique) <= max_length


@given(st.text("aé日🎉 .-_", min_size=1, max_size=120), EXTENSIONS)
def test_an_ordinary_name_always_fits_djangos_default(stem: str, extension: str) -> None:
    name = f"p{stem}p{extension}"
    unique = names.unique(name, MARK, 100)
    assert len(unique) <= 100
    assert unique.endswith(extension)


@pytest.mark.parametrize(("name", "safe"), [("a/b.txt", True), (".htaccess", False), ("", False)])
def test_whether_a_name_is_safe(name: str, *, safe: bool) -> None:
    assert names.is_safe(name) is safe
