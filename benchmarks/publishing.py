"""What publishing costs. Each function is one comparison; its docstring is the table's title."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import django.contrib.admin
import whitenoise.compress

from benchmarks import publishers
from benchmarks.measure import Result, in_turn, processor
from benchmarks.publishers import Candidate, Place, Run, counted
from outgrow.publish import javascript
from outgrow.publish.build import Build, Settings
from outgrow.publish.cache import Cache
from outgrow.publish.configuration import load
from outgrow.publish.encodings import Encoding
from outgrow.publish.policy import Policy
from outgrow.publish.push import Publisher
from outgrow.publish.references import Reference, replace, resolve
from outgrow.publish.release import stamp, stamped
from outgrow.publish.scan import scan

ADMIN = Path(django.contrib.admin.__path__[0]) / "static"
MONACO = "monaco-editor@0.52.2"

#: How a candidate is made for a place.
Make = Callable[[Place], Candidate]


@dataclass(frozen=True)
class Row:
    """A line of a table that has columns of its own."""

    columns: Mapping[str, str]

    def facts(self) -> dict[str, Any]:
        return dict(self.columns)


# --- requests to a bucket


def publish_admin() -> list[Row]:
    """Django admin's static files, to an empty bucket and again (ours: medians of three rounds)"""
    candidates: dict[str, Make] = {
        "outgrow publish": publishers.ours,
        "manage.py outgrow publish": publishers.ours_in_django,
        "django-storages": publishers.collectstatic,
        "collectfasta": publishers.collectfasta,
        "collectfasta, 16 threads": lambda place: publishers.collectfasta(place, threads=16),
    }
    runs: dict[str, list[tuple[Run, Run]]] = {name: [] for name in candidates}
    with _scratch() as folder, counted() as engine:
        for number in range(3):
            for name, make in candidates.items():
                # Theirs take minutes, and the number of their requests is what differs.
                if number and "outgrow" not in name:
                    continue
                source = ADMIN if make is publishers.ours else None
                place = engine.place(folder, source)
                candidate = make(place)
                runs[name].append((engine.run(candidate, place), engine.run(candidate, place)))
    return [row for name, pairs in runs.items() for row in _both(name, pairs)]


#: Fewer to try it out; what is published is measured with all of them.
FILES = int(os.environ.get("OUTGROW_BENCH_FILES", "10000"))
#: Seconds that one run may take. Who needs more is stopped, and his figures are a lower bound.
LIMIT = float(os.environ.get("OUTGROW_BENCH_LIMIT", "1200"))
#: One of `publish_many`'s alone, by the first letters of its name: all of them take an hour.
ONLY = os.environ.get("OUTGROW_BENCH_ONLY", "")


def publish_many() -> list[Row]:
    """10,000 files of 1 to 100 KB to Swift, and again (one round)"""
    candidates: dict[str, Make] = {
        "outgrow, gzip": publishers.ours,
        "outgrow, no encoding": lambda place: publishers.ours(place, encoding="none"),
        "aws s3 sync": publishers.aws_sync,
        "s3cmd sync": publishers.s3cmd_sync,
        "django-storages": publishers.collectstatic,
    }
    rows = []
    with _scratch() as folder:
        source = folder / "source"
        size = make_files(source, FILES)
        for name, make in candidates.items():
            if not name.startswith(ONLY):
                continue
            # A new engine for each: none finds the other's files in its way.
            with counted() as engine:
                place = engine.place(folder, source)
                for what in ("to an empty bucket", "unchanged"):
                    run = engine.run(make(place), place, LIMIT)
                    rows.append(_row(f"{name}, {what}", [run]))
                    # It takes an hour in all: who waits, and who stops it, has something.
                    print(*rows[-1].columns.values(), sep=" | ", file=sys.stderr)
                    if not run.ended:
                        break
    return [_row(f"({FILES} files, {size} bytes)", []), *rows]


def _both(name: str, pairs: Sequence[tuple[Run, Run]]) -> list[Row]:
    return [
        _row(f"{name}, to an empty bucket", [first for first, _ in pairs]),
        _row(f"{name}, unchanged", [second for _, second in pairs]),
    ]


def _row(what: str, runs: Sequence[Run]) -> Row:
    """The medians of some runs; their requests differ little, and the last one's are told."""
    columns = dict.fromkeys(("wall s", "min-max s", "processor s", "requests", "of which"), "")
    if runs:
        walls = [run.wall for run in runs]
        more = "" if all(run.ended for run in runs) else "more than "
        found = runs[-1].requests
        columns = {
            "wall s": f"{more}{statistics.median(walls):.2f}",
            "min-max s": f"{min(walls):.2f}-{max(walls):.2f}",
            "processor s": f"{more}{statistics.median(run.processor for run in runs):.2f}",
            "requests": f"{more}{max(run.count for run in runs)}",
            "of which": ", ".join(f"{kind} {number}" for kind, number in found.most_common()),
        }
    return Row({"what": what, **columns})


#: Endings, and what makes text a file of that kind. One of five is no text.
_FORMS: Mapping[str, tuple[bytes, bytes]] = {
    ".txt": (b"", b""),
    ".css": (b"/* ", b" */"),
    ".svg": (b'<svg xmlns="http://www.w3.org/2000/svg"><desc>', b"</desc></svg>"),
    ".js": (b"/* ", b" */"),
    ".png": (b"\x89PNG\r\n\x1a\n", b""),
}


def make_files(folder: Path, count: int) -> int:
    """Write files that are the same each time; returns their bytes.

    Text is of words, some of which are used often, as in a language; pictures are random bytes.
    """
    chance = random.Random(6)
    words = [
        bytes(chance.choices(b"etaoinshrdlucmfw", k=chance.randint(2, 11))) for _ in range(9000)
    ]
    weights = [1 / (rank + 3) for rank in range(len(words))]
    text = b" ".join(chance.choices(words, weights, k=1_000_000))
    noise = chance.randbytes(4 << 20)
    total = 0
    for number in range(count):
        ending = list(_FORMS)[number % len(_FORMS)]
        begin, end = _FORMS[ending]
        stock = noise if ending == ".png" else text
        size = chance.randint(1 << 10, 100 << 10)
        start = chance.randrange(len(stock) - size)
        head = begin + f"{number} ".encode()
        body = stock[start : start + size - len(head) - len(end)]
        path = folder / f"{number % 100:02d}" / f"file{number:05d}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(head + body + end)
        total += size
    return total


# --- compression


def publish_compressed() -> list[Row]:
    """`.gz` and `.br` beside the plain files (admin: medians of five rounds; monaco: one round)"""
    rows: list[Row] = []
    with _scratch() as folder:
        rows += _compressed(folder / "admin", "admin", ADMIN, rounds=5)
        monaco = npm(MONACO)
        if monaco is None:
            return [*rows, _compressed_row(f"{MONACO}: NOT MEASURED, there is no npm")]
        rows += _compressed(folder / "monaco", MONACO, monaco / "min", rounds=1)
    return rows


def _compressed(folder: Path, name: str, source: Path, *, rounds: int) -> Iterator[Row]:
    """Both keep the names and the contents of the files. WhiteNoise has no cache: each of its
    runs is the first one. All in this process, and what is asked most often as commands, too.
    """
    folder.mkdir()
    theirs, target = folder / "whitenoise", folder / "ours"
    shutil.copytree(source, theirs)
    toml = (
        f'[publish]\nroot = "{source}"\nstamps = false\ncache = "cache"\n'
        f'[[publish.to]]\nurl = "{target}"\nsiblings = ["gzip", "br"]\n'
    )
    path = folder / "outgrow.toml"
    path.write_text(toml, encoding="utf-8")
    arguments = ["--quiet", str(theirs)]

    def ours() -> None:
        found = load(path)
        build = Build(scan([("", source)]), found.settings, cache=Cache(found.cache))
        Publisher(found.targets[0].target(), build.release, build).publish()

    def cold() -> None:
        shutil.rmtree(folder / "cache", ignore_errors=True)
        empty()

    def empty() -> None:
        shutil.rmtree(target, ignore_errors=True)
        os.sync()  # ours waits until all is on the disk, what others have written before, too

    ways: list[tuple[str, Callable[[], None], Callable[[], object]]] = [
        ("WhiteNoise", os.sync, lambda: whitenoise.compress.main(arguments)),
        ("outgrow, nothing in the cache", cold, ours),
        ("outgrow, from the cache, to an empty folder", empty, ours),
        ("outgrow, unchanged", os.sync, ours),
        (
            "WhiteNoise, as a command",
            os.sync,
            _command([sys.executable, "-m", "whitenoise.compress", *arguments], folder),
        ),
        (
            "outgrow, from the cache, to an empty folder, as a command",
            empty,
            _command([publishers.program("outgrow"), "publish"], folder),
        ),
    ]
    runs: dict[str, list[tuple[float, float]]] = {}
    for _ in range(rounds):
        for what, prepare, run in ways:
            prepare()
            before, begin = processor(), time.perf_counter()
            run()
            times = (time.perf_counter() - begin, processor() - before)
            runs.setdefault(what, []).append(times)
    base = statistics.median(used for _, used in runs["WhiteNoise"])
    for what, pairs in runs.items():
        place = theirs if what.startswith("WhiteNoise") else target
        wall, used = (statistics.median(values) for values in zip(*pairs, strict=True))
        yield _compressed_row(
            f"{name}: {what}",
            sum(path.stat().st_size for path in _files(source)),
            _served(place, source, ".gz"),
            _served(place, source, ".br"),
            f"{wall:.3f}",
            f"{used:.3f}",
            f"{used / base:.3f}",
        )


def _command(words: Sequence[str], folder: Path) -> Callable[[], object]:
    return lambda: subprocess.run(
        words, cwd=folder, stdout=subprocess.DEVNULL, check=True, timeout=LIMIT
    )


def _compressed_row(what: str, *values: object) -> Row:
    names = ("bytes", "gzip", "brotli", "wall s", "processor s", "of WhiteNoise's")
    columns = {
        name: str(values[number]) if number < len(values) else ""
        for number, name in enumerate(names)
    }
    return Row({"what": what, **columns})


def _served(place: Path, source: Path, suffix: str) -> int:
    """Bytes that visitors get in all: each file as its sibling, or else as it is."""
    total = 0
    for path in _files(source):
        plain = place / path.relative_to(source)
        packed = plain.with_name(plain.name + suffix)
        total += (packed if packed.exists() else plain).stat().st_size
    return total


# --- references


def publish_rewrite() -> list[Result | Row]:
    """references in monaco-editor's ES modules: to find, and to rewrite (all files together)"""
    monaco = npm(MONACO)
    if monaco is None:
        return [Row({"what": f"{MONACO}: NOT MEASURED, there is no npm"})]
    import tree_sitter_javascript
    from tree_sitter import Language, Parser

    esm = monaco / "esm"
    contents = {
        path.relative_to(esm).as_posix(): path.read_bytes()
        for path in _files(esm)
        if path.suffix == ".js"
    }
    language = Language(tree_sitter_javascript.language())
    names = {name: _final(name, content) for name, content in contents.items()}

    def parse() -> None:
        for content in contents.values():
            Parser(language).parse(content)

    def find() -> None:
        for content in contents.values():
            javascript.references(content)

    def rewrite() -> None:
        for name, content in contents.items():
            replace(content, _changes(name, javascript.references(content), names))

    # It imports without endings, for bundlers; no browser could.
    settings = Settings(Policy(may_miss_in=("vs/editor/editor.main.js",)))

    def build() -> None:
        made = Build(scan([("", esm)]), settings, cache=Cache(None))
        assert len(made.release) >= len(contents)

    results = in_turn(
        {
            "tree-sitter's parse alone": parse,
            "outgrow, references": find,
            "outgrow, references and rewriting": rewrite,
            "outgrow, the whole release, from files": build,
        },
        count=1,
        rounds=3,
    )
    size = sum(map(len, contents.values()))
    results[0].what += f" ({len(contents)} modules, {size} bytes)"
    return [*results]


def _final(name: str, content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    return stamped(name, stamp(digest, "text/javascript", Encoding.GZIP))


def _changes(
    name: str, references: Iterable[Reference], names: Mapping[str, str]
) -> Iterator[tuple[Reference, str]]:
    for reference in references:
        target = resolve(reference.url, name)
        if target is not None and target.name in names:
            yield reference, target.url(names[target.name], names[name])


# --- files


def npm(package: str) -> Path | None:
    """The folder of a package, fetched once, and kept in the system's folder for temporary files.

    None where there is no npm.
    """
    folder = Path(tempfile.gettempdir()) / f"outgrow-bench-npm-{os.getuid()}" / package
    if (folder / "package").is_dir():
        return folder / "package"
    program = shutil.which("npm")
    if program is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    words = [program, "pack", package, "--silent"]
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, check=True, timeout=300
    )
    with tarfile.open(folder / done.stdout.split()[-1]) as archive:
        archive.extractall(folder / "new", filter="data")
    (folder / "new" / "package").rename(folder / "package")
    return folder / "package"


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder on a disk, for /tmp may be memory."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="outgrow-bench-") as folder:
        yield Path(folder)
