"""What the documentation says of the engines is what they were seen to do.

tests/live/test_engines.py holds each of these facts against the engine itself.
"""

from __future__ import annotations

from pathlib import Path

from tests.live.engines import Engine

PAGE = (Path(__file__).parents[2] / "docs/howto/object-stores.md").read_text()

#: The beginning of a row -> the fact.
ROWS = {
    "a wrong signature is refused": "verifies",
    "of several writers of one name": "is_atomic",
    "bucket policies": "has_policies",
    "upload forms (POST)": "has_forms",
}


def test_the_table_is_what_the_engines_do(engine: Engine) -> None:
    # Not its version: what was true of that one is held against each that is installed.
    [heading] = [one for one in PAGE.splitlines() if one.startswith("| | Swift ")]
    [column] = [n for n, one in enumerate(heading.lower().split("|")[1:]) if engine.name in one]
    for beginning, fact in ROWS.items():
        [line] = [one for one in PAGE.splitlines() if one.startswith(f"| {beginning}")]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[column] == ("yes" if getattr(engine, fact) else "no"), beginning
