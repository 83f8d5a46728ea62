"""Runs every drill on the example site in each of the five presets; prints a table of Markdown.

    python tools/drill_table.py [PRESET...] > table.md

docs/explanation/drills.md has what it printed. Takes some ten minutes on two cores. Counts are
promises; times are those of one run on one machine. Exit status 1 when a promise was broken.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from outgrow.drills.report import PROMISES
from outgrow.topology.presets import PRESETS

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples/photos"

HEADINGS = ("drill", "server", "requests", "failed", *PROMISES, "normal after", "no writes")


def main(names: list[str]) -> int:
    """Drill each; the exit status."""
    holds = True
    for preset in names or list(PRESETS):
        report = drilled(preset)
        holds = holds and report["holds"]
        print("\n".join(section(preset, report)), flush=True)
    return 0 if holds else 1


def drilled(preset: str) -> dict[str, Any]:
    """The report of all drills on the example site in this preset."""
    with tempfile.TemporaryDirectory(prefix="outgrow-drill-table-") as folder:
        # So that the account of database servers can pass through.
        Path(folder).chmod(0o711)
        copy = Path(folder) / "photos"
        shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("var", "__pycache__"))
        outgrow(copy, "new", preset, "--name", "photos", "--to", "site.toml")
        done = outgrow(copy, "drill", "all", "--topology", "site.toml", "--json")
        report: dict[str, Any] = json.loads(done)
        return report


def outgrow(folder: Path, *words: str) -> str:
    """What the command printed. 1 of a drill says that a promise was broken: the report has it."""
    done = subprocess.run(
        [sys.executable, "-m", "outgrow", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode not in {0, 1} or not (done.stdout or words[0] == "new"):
        raise SystemExit(f"outgrow {' '.join(words)} ended with status {done.returncode}.")
    return done.stdout


def section(preset: str, report: dict[str, Any]) -> Iterator[str]:
    """A heading, the table, and what the preset can't have."""
    yield f"## {preset}\n"
    yield f"| {' | '.join(HEADINGS)} |"
    yield f"|{'---|' * len(HEADINGS)}"
    for one in report["drills"]:
        counts = (one[name] for name in ("sent", "failed", *PROMISES))
        times = (f"{one['until_normal']} s", f"{one['without_writes']} s")
        cells = (f"`{one['name']}`", ", ".join(one["servers"]), *map(str, counts), *times)
        yield f"| {' | '.join(cells)} |"
    for one in report["drills"]:
        yield from (f"\n`{one['name']}`: {note}" for note in one["notes"])
    skipped = report["skipped"]
    if skipped:
        yield f"\nNot here: {', '.join(f'`{name}`' for name in skipped)}."
    yield ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
