"""Compressed files, and results that are kept for the next time."""

from __future__ import annotations

import gzip
import hashlib
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import brotli
import pytest
import zstandard

from outgrow.errors import MissingExtra
from outgrow.publish import cache as caching
from outgrow.publish import compress as compressing
from outgrow.publish.cache import Cache, default_folder
from outgrow.publish.compress import compress, compressed
from outgrow.publish.encodings import Encoding

CONTENT = b"p { color: red }\n" * 500

DECODERS: dict[Encoding, Callable[[bytes], bytes]] = {
    Encoding.IDENTITY: bytes,
    Encoding.GZIP: gzip.decompress,
    Encoding.BROTLI: brotli.decompress,
    Encoding.ZSTD: lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("content", [b"", b"x", CONTENT, os.urandom(5000)])
def test_another_decoder_gives_it_back(encoding: Encoding, content: bytes) -> None:
    packed = compress(content, encoding)
    assert DECODERS[encoding](packed) == content
    assert compress(content, encoding) == packed
    if content is CONTENT and encoding is not Encoding.IDENTITY:
        assert len(packed) < len(content) / 50


def test_no_time_stands_in_it() -> None:
    assert compress(CONTENT, Encoding.GZIP)[4:8] == bytes(4)


def test_smaller_than_the_standard_library_s() -> None:
    text = Path(compressing.__file__).read_bytes() * 3 + Path(caching.__file__).read_bytes()
    assert len(compress(text, Encoding.GZIP)) < len(zlib.compress(text, 9))
    assert len(compress(text, Encoding.BROTLI)) < len(compress(text, Encoding.GZIP))


@pytest.mark.parametrize(
    ("encoding", "module"),
    [(Encoding.GZIP, "deflate"), (Encoding.BROTLI, "brotli"), (Encoding.ZSTD, "zstandard")],
)
def test_a_library_that_is_missing(
    encoding: Encoding, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compressing._library.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=r"outgrow\[publish\]"):
        compress(CONTENT, encoding)
    compressing._library.cache_clear()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_what_was_compressed_once_is_not_again(tmp_path: Path) -> None:
    asked: list[int] = []

    def content() -> bytes:
        asked.append(1)
        return CONTENT

    cache = Cache(tmp_path)
    results = {compressed(content, digest(CONTENT), Encoding.GZIP, cache) for _ in range(3)}
    assert results == {compress(CONTENT, Encoding.GZIP)}
    assert len(asked) == 1
    assert (cache.hits, cache.misses) == (2, 1)
    # By another process, as by another object.
    compressed(content, digest(CONTENT), Encoding.GZIP, Cache(tmp_path))
    assert len(asked) == 1
    compressed(content, digest(CONTENT), Encoding.BROTLI, cache)
    assert len(asked) == 2
    assert compressed(content, digest(CONTENT), Encoding.IDENTITY, cache) == CONTENT


def entries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("damage", [b"", b"short", bytes(300)])
def test_a_damaged_entry_is_as_good_as_none(tmp_path: Path, damage: bytes) -> None:
    cache = Cache(tmp_path)
    cache.put("ab" * 32, CONTENT)
    [path] = entries(tmp_path)
    path.write_bytes(damage)
    assert cache.get("ab" * 32) is None
    cache.put("ab" * 32, CONTENT)
    assert cache.get("ab" * 32) == CONTENT
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert cache.get("ab" * 32) is None


def test_nothing_is_opened_before_the_first_use_and_it_is_private(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    assert cache.get("ab" * 32) is None
    cache.put("ab" * 32, b"x")
    assert (tmp_path / "cache/ab").stat().st_mode & 0o077 == 0


def test_a_folder_that_can_t_be_written_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = Cache(tmp_path / "file")
    cache.put("ab" * 32, b"x")
    assert "nothing is kept for the next time" in cache.problem
    cache.put("cd" * 32, b"x")
    assert cache.get("ab" * 32) is None


def test_without_a_folder_nothing_is_kept() -> None:
    cache = Cache(None)
    cache.put("ab" * 32, b"x")
    assert cache.get("ab" * 32) is None
    assert cache.problem == ""


def test_what_was_used_longest_ago_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caching, "_LOOK", 1)  # each time, not one of 64
    cache = Cache(tmp_path, limit=256 * 3000)
    for number in range(5):
        key = f"aa{number:062}"
        cache.put(key, bytes(1000))
        os.utime(tmp_path / "aa" / key[2:], (number, number))
    assert len(entries(tmp_path)) <= 3
    # A hit is a use.
    oldest = min(entries(tmp_path), key=lambda path: path.stat().st_mtime)
    assert cache.get("aa" + oldest.name) is not None
    assert time.time() - oldest.stat().st_mtime < 60


def test_half_files_go_some_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching, "_LOOK", 1)
    (tmp_path / "aa").mkdir()
    old, new = tmp_path / "aa/.old", tmp_path / "aa/.new"
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    Cache(tmp_path).put("aa" * 32, b"x")
    assert not old.exists()
    assert new.exists()


def test_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_folder() == Path("/somewhere/outgrow/publish")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_folder() == Path.home() / ".cache/outgrow/publish"

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert default_folder() is None


FILL = """
import sys
from outgrow.publish.cache import Cache
cache = Cache(sys.argv[1])
number = 0
print("ready", flush=True)
while True:
    number += 1
    cache.put(f"{number % 500:064x}", b"%d" % (number % 500) * 20000)
"""


def test_who_is_killed_leaves_nothing_that_is_half(tmp_path: Path) -> None:
    """Several processes fill one folder, and are killed again and again."""
    for _ in range(5):
        running = [
            subprocess.Popen([sys.executable, "-c", FILL, str(tmp_path)], stdout=subprocess.PIPE)
            for _ in range(2)
        ]
        for process in running:
            assert process.stdout
            assert process.stdout.readline() == b"ready\n"
        deadline = time.monotonic() + 20
        while len(entries(tmp_path)) < 50 and time.monotonic() < deadline:
            time.sleep(0.01)
        for process in running:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    cache, seen = Cache(tmp_path), 0
    for number in range(500):
        found = cache.get(f"{number:064x}")
        assert found in {None, b"%d" % number * 20000}
        seen += found is not None
    assert seen >= 50
