"""What should not be in a site's folder, and is; and targets that take no more.

Here is what needs a real target, or a process of its own. The rest of it: odd names, links and
what is no file in test_scan.py; circles, references that lead nowhere, files that change and
UTF-16 in test_build.py; broken style sheets, scripts and pages in the tests of their scanners; a
file that changes meanwhile, and wrong credentials in the middle, in test_push.py.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from outgrow.conf.objects import PART_LEAST
from outgrow.errors import BadSources, UnexpectedStatus
from outgrow.publish.build import Settings
from outgrow.publish.forms import Shape
from tests.live.engines import Engine
from tests.live.faults import FaultyProxy, hand_on, refuse
from tests.live.processes import server_folder, unprivileged
from tests.publish.sites import FILES, built, publish, target_of, write
from tests.publish.subjects import Place, store_place
from tests.publish.test_push import broken, decoded, looked_up, plain

ROOT = Path(__file__).parents[2]

#: Nothing keeps its name but pages.
SETTINGS = Settings()

ODD = ["b c.png", "ü/ß—漢字.png", "100%.png", "x#y?z.png", "a+b&c;d=e@f.png", "'\"(x).png", "e.js"]


def test_odd_names(place: Place, source: Path) -> None:
    """They are at the target under these names, and whoever follows a reference gets there."""
    urls = "b%20c.png ü/ß—漢字.png 100%25.png x%23y%3Fz.png a+b&c;d=e@f.png %27%22%28x%29.png e.js"
    sheet = "".join(f'a {{ background: url("{url}") }}\n' for url in urls.split())
    write(
        source,
        {
            **{name: name.encode() for name in ODD},
            "the sheet.css": sheet.encode(),
            "leer": b"",
            "e.js": b"",
            "index.html": b"",
        },
    )
    publish(place.target(), source, settings=SETTINGS)
    files = {
        key: decoded(content)
        for key, content in place.files().items()
        if not key.endswith((".gz", ".br", ".zst"))
    }
    stamped = {re.sub(r"\.[0-9a-f]{12}(?=\.|$)", "", key): key for key in files}
    assert set(stamped) == {*ODD, "the sheet.css", "leer", "index.html"}
    assert files[stamped["leer"]] == files[stamped["e.js"]] == files["index.html"] == b""
    written = re.findall(r'url\("([^"]*)"\)', files[stamped["the sheet.css"]].decode())
    assert [unquote(url) for url in written] == [stamped[name] for name in ODD]
    assert publish(place.target(), source, settings=SETTINGS).sent == 0


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("x" * 234 + ".css", True),  # with the hash and .zst: 255
        ("x" * 235 + ".css", False),
        ("ä" * 117 + ".css", True),
        ("ä" * 118 + ".css", False),
        ("x" * 206 + ".html", True),  # its copy has 16 digits, an encoding, and .zst
        ("x" * 225 + ".html", False),
        ("/".join(["d" * 199] * 4 + ["e" * 179 + ".css"]), True),  # 983 bytes
        ("/".join(["d" * 199] * 4 + ["e" * 180 + ".css"]), False),
    ],
)
def test_long_names(place: Place, source: Path, name: str, fits: bool) -> None:
    """What is too long with its hash is told before anything is sent."""
    write(source, {name: b"p { color: red }\n" * 40, "a.png": b"x"})
    if fits:
        publish(place.target(), source, settings=SETTINGS)
        assert name in {plain(key) for key in place.files()}
        return
    with pytest.raises(BadSources, match=r"can't be published: with its hash it"):
        publish(place.target(), source, settings=SETTINGS)
    assert place.held() == {}


def test_names_that_differ_in_case_alone_are_two_files(place: Place, source: Path) -> None:
    write(source, {"a.png": b"small", "A.png": b"large", "s.css": b"a{b:url(A.png) url(a.png)}"})
    publish(place.target(), source, settings=SETTINGS)
    files = place.files()
    [sheet] = [key for key in files if key.startswith("s.")]
    urls = re.findall(rb"url\(([^)]*)\)", decoded(files[sheet]))
    assert [files[looked_up(sheet, url.decode())] for url in urls] == [b"large", b"small"]


def troubled(*words: object, before: tuple[str, ...] = ()) -> dict[str, Any]:
    """What a publisher in a process of its own saw."""
    child = [*before, sys.executable, "-m", "tests.publish.troubled", *map(str, words)]
    done = subprocess.run(child, cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_what_can_t_be_read() -> None:
    """All of it is told; nothing is sent."""
    with server_folder("outgrow-unreadable-") as folder:
        source = folder / "source"
        write(source, {"a.css": b"p {}", "b.css": b"q {}", "in/c.css": b"", "good.css": b""})
        for name in ("a.css", "b.css", "in"):
            (source / name).chmod(0)
        seen = troubled("unreadable", source, folder / "target", *(unprivileged() or ()))
        assert seen["code"] == 1
        assert "3 files can't be published" in seen["output"]
        for text in ("a.css can't be published: it can't be read", "b.css can't be", "in can't be"):
            assert text in seen["output"]
        assert not (folder / "target").exists()
        (source / "in").chmod(0o700)


def test_a_full_disk() -> None:
    """A real one: a small file system in memory, in a name space of mounts of its own."""
    with server_folder("outgrow-full-") as folder:
        source, target = folder / "source", folder / "target"
        write(source, {"index.html": b"<img src=a.png>", "a.png": b"x"})
        target.mkdir()
        as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
        mount = f'mount -t tmpfs -o size=1m,mode=777 tmpfs {target} && exec "$@"'
        before = ("unshare", "--mount", *as_root, "sh", "-c", mount, "sh")
        if subprocess.run([*before, "true"], capture_output=True).returncode:
            pytest.skip("this user may not mount a file system of his own")
        seen = troubled("full", source, target, before=before)
    assert re.search(r"large\.\w+\.bin can't be written: No space left on device", seen["error"])
    assert seen["same"]  # what is served, to the last byte
    assert seen["half"] == []
    assert seen["again"]
    assert seen["page"]


def test_a_full_store(engine_named: Callable[[str], Engine], source: Path) -> None:
    """What is served stays; told is which store it was. And then there is room."""
    engine = engine_named("swift")
    with store_place(engine) as place, FaultyProxy(engine.endpoint) as proxy:
        publish(place.target(), source)
        page = place.files()["site.css"]
        write(source, {**FILES, "img/back.png": b"\x89PNG another picture"})
        proxy.break_at("PUT", hand_on, times=1)  # the record
        proxy.break_at("PUT", refuse(507, "InsufficientStorage"), times=1000)
        described = json.loads(place.described.replace(engine.endpoint, proxy.url))
        with pytest.raises(UnexpectedStatus, match=re.escape(proxy.url) + ".*507"):
            publish(target_of(json.dumps({**described, "deadline": 2.0})), source)
        assert place.files()["site.css"] == page
        assert broken(place, "site.css") == []
        assert publish(place.target(), source).has_moved
        assert broken(place) == []


#: More than the largest file in one request; less than a machine of CI writes in minutes. Five
#: gigabytes and one byte were published to a folder by hand: at 120 MB/s it takes longer than all
#: other tests here.
MEGABYTES = 200


def film(folder: Path, megabytes: int) -> Path:
    """A folder with one file, which takes no room."""
    folder.mkdir()
    with (folder / "film.mp4").open("wb") as file:
        file.truncate(megabytes << 20)
    return folder


def test_a_large_file_to_a_folder_in_constant_memory(tmp_path: Path) -> None:
    peaks = []
    for megabytes in (1, MEGABYTES):
        target = tmp_path / f"target{megabytes}"
        source = film(tmp_path / str(megabytes), megabytes)
        seen = troubled("large", source, json.dumps({"folder": str(target)}))
        [there] = target.glob("film.*.mp4")
        assert there.stat().st_size == seen["bytes"] == megabytes << 20
        peaks.append(seen["peak"])
    assert peaks[1] - peaks[0] < 20_000  # kilobytes


def test_a_large_file_to_a_store_in_constant_memory(swift: Engine, tmp_path: Path) -> None:
    """In parts, as 5 GB would be: everything is that is larger than one part.

    Parts here are as small as they may be: eight of them, and forty.
    """
    peaks = []
    for megabytes in (40, MEGABYTES):
        source = film(tmp_path / str(megabytes), megabytes)
        with store_place(swift) as place:
            options = json.loads(place.described)
            seen = troubled("large", source, json.dumps({**options, "part_size": PART_LEAST}))
            bucket, _, prefix = options["location"].removeprefix("s3://").partition("/")
            listed = swift.client().list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/film.")
            [there] = listed["Contents"]
            assert there["Size"] == seen["bytes"] == megabytes << 20
            assert there["ETag"].endswith(f'-{megabytes // 5}"')  # so many parts
        peaks.append(seen["peak"])
    assert peaks[1] - peaks[0] < 30_000  # kilobytes; six parts are on their way at most


def test_wrong_encodings(tmp_path: Path) -> None:
    """Files in Latin-1 and with broken UTF-8: references are rewritten, no other byte changes."""
    source = write(
        tmp_path,
        {
            "a.css": b"/* \xfcber */ a { background: url(img.png); content: '\xe9\xff' }",
            "a.js": b'import "./b.js"; const text = "\xe4\xf6\xfc \xc3";',
            "b.js": b"\xef\xbb\xbflet b",  # a mark of UTF-8
            "index.html": b'<meta charset=latin1><p title="\xe9"><img src=img.png>\xff',
            "img.png": b"x",
        },
    )
    made = built(source, SETTINGS)
    keys = {entry.name: entry.key for entry in made.release}
    for name in ("a.css", "a.js", "index.html"):
        *_, form = Shape(()).forms(made.release.entries[name])
        with made.open(form) as file:
            found = b"".join(file.chunks())
        wanted = (source / name).read_bytes()
        for one in ("img.png", "b.js"):
            wanted = wanted.replace(one.encode(), keys[one].encode())
        assert found == wanted != (source / name).read_bytes()


@pytest.mark.parametrize("json_", [False, True])
def test_a_message_about_bytes_that_are_no_text_can_be_printed(tmp_path: Path, json_: bool) -> None:
    files = {"a.css": b"a { background: url(\xfc.png) }", "b.css": b"/*# sourceMappingURL=\xe9 */"}
    write(tmp_path / "site", files)
    words = [sys.executable, "-m", "outgrow", "publish", "site", "--to", "out"]
    words += ["--json"] if json_ else []
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, timeout=60)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert b"a.css:1: the url" in done.stderr
    (tmp_path / "site/a.css").unlink()
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert b"b.css:1: the source map" in (done.stdout if json_ else done.stderr)
