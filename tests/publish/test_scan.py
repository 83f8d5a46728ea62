"""Which files of a folder are published, and what is said of those that can't be."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from outgrow.errors import BadSources
from outgrow.publish.scan import IGNORED, scan


def make(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def found(*roots: tuple[str, Path], **options: bool) -> list[str]:
    return list(scan(roots, **options).sources)  # type: ignore[arg-type]


def wrong(*roots: tuple[str, Path], **options: bool) -> str:
    with pytest.raises(BadSources) as raised:
        scan(roots, **options)  # type: ignore[arg-type]
    return str(raised.value)


def test_every_file_by_its_name(tmp_path: Path) -> None:
    names = ["a b.css", "css/ü.css", "css/deep/er/x.js", "100%.txt", "LICENSE", "a.b/c"]
    make(tmp_path, *names)
    assert found(("", tmp_path)) == sorted(names)
    source = scan([("", tmp_path)]).sources["css/ü.css"]
    assert (source.path, source.size) == (str(tmp_path / "css/ü.css"), 10)
    assert found(("v2/", tmp_path)) == sorted(f"v2/{name}" for name in names)


def test_a_root_may_be_a_file(tmp_path: Path) -> None:
    make(tmp_path, "img/a.png")
    assert found(("", tmp_path / "img/a.png")) == ["a.png"]
    assert found(("x/y.png", tmp_path / "img/a.png")) == ["x/y.png"]


def test_what_is_ignored(tmp_path: Path) -> None:
    make(tmp_path, ".git/x", "a~", "CVS/x", ".DS_Store", "a", ".well-known/security.txt")
    assert found(("", tmp_path)) == [".well-known/security.txt", "a"]
    found_too = scan([("", tmp_path)], ignore=[*IGNORED, "a"]).sources
    assert list(found_too) == [".well-known/security.txt"]


def test_several_roots(tmp_path: Path) -> None:
    one, two = make(tmp_path / "one", "a"), make(tmp_path / "two", "b")
    assert found(("", one), ("", two)) == ["a", "b"]
    assert found(("", one), ("", one)) == ["a"]  # the same file
    make(two, "a")
    assert f"{two}/a can't be published: {one}/a has the same name." in wrong(("", one), ("", two))


def test_a_file_and_a_folder_of_one_name(tmp_path: Path) -> None:
    one, two = make(tmp_path / "one", "a"), make(tmp_path / "two", "a/b/c")
    assert "a can't be published: a/b/c needs a folder of that name." in wrong(("", one), ("", two))


def test_names_that_differ_in_case_alone(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "A.png", "b.png")
    [warning] = scan([("", tmp_path)]).warnings
    assert warning == "A.png and a.png differ in case alone: some disks hold one of them."


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a\\b.txt", "backslash"),
        ("a\nb.txt", "control character"),
        ("a%41.txt", "percent-encoding"),
        ("a./x.txt", "ends with a dot"),
        ("outgrow-publish/x", "holds what Outgrow remembers"),
        ("/".join(["d" * 200] * 5), "longer than 1000 bytes"),
    ],
)
def test_names_that_no_target_takes(tmp_path: Path, name: str, why: str) -> None:
    make(tmp_path, name, "good.txt")
    assert why in wrong(("", tmp_path))


def test_bytes_that_are_no_unicode(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.txt"
    try:
        os.close(os.open(path, os.O_CREAT))
    except OSError:
        return  # such a disk has no such names
    assert "can't be written in UTF-8" in wrong(("", tmp_path))


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    make(tmp_path, "a\\b", "c%41", "good")
    text = wrong(("", tmp_path))
    assert text.startswith("2 files can't be published:")
    assert len(text.splitlines()) == 3


def test_links_inside_are_followed(tmp_path: Path) -> None:
    make(tmp_path, "real/a.css")
    (tmp_path / "file.css").symlink_to("real/a.css")
    (tmp_path / "folder").symlink_to("real")
    assert found(("", tmp_path)) == ["file.css", "folder/a.css", "real/a.css"]


def test_links_out_need_a_word(tmp_path: Path) -> None:
    outside, root = make(tmp_path / "outside", "secret"), make(tmp_path / "root", "a")
    (root / "file").symlink_to(outside / "secret")
    (root / "folder").symlink_to(outside)
    text = wrong(("", root))
    assert f"{root}/file is a link out of {root}." in text
    assert f"{root}/folder is a link out of {root}." in text
    assert found(("", root), follow=True) == ["a", "file", "folder/secret"]


@pytest.mark.parametrize("follow", [False, True])
def test_loops_end(tmp_path: Path, follow: bool) -> None:
    make(tmp_path, "a/b/c")
    (tmp_path / "a/b/up").symlink_to("..")
    assert "up is a link to a folder that it lies in." in wrong(("", tmp_path), follow=follow)


def test_a_link_to_itself_and_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "gone").symlink_to("nothing")
    text = wrong(("", tmp_path))
    assert f"{tmp_path}/self can't be published: Too many levels of symbolic links." in text
    assert f"{tmp_path}/gone can't be published: No such file or directory." in text


def test_what_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.chdir(tmp_path)  # an address of a socket is short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        text = wrong(("", tmp_path))
    assert f"{tmp_path}/fifo can't be published: it is no regular file." in text
    assert f"{tmp_path}/socket can't be published: it is no regular file." in text


def test_what_can_t_be_read(tmp_path: Path) -> None:
    make(tmp_path, "a", "folder/b")
    (tmp_path / "a").chmod(0)
    (tmp_path / "folder").chmod(0)
    try:
        if os.geteuid() == 0:
            assert found(("", tmp_path)) == ["a", "folder/b"]  # root reads everything
        else:
            text = wrong(("", tmp_path))
            assert f"{tmp_path}/a can't be published: it can't be read." in text
            assert f"{tmp_path}/folder can't be listed: Permission denied." in text
    finally:
        (tmp_path / "folder").chmod(0o700)


def test_folders_that_lie_too_deep(tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(7):
        folder /= "d" * 200
    folder.mkdir(parents=True)
    assert "lies too deep" in wrong(("", tmp_path))
