"""The table of exceptions: the documentation shows it, and nothing in it is beside the point."""

from __future__ import annotations

import re
from pathlib import Path

from tests.fronts.balancers import PROGRAMS
from tests.fronts.exceptions import ANY, ROWS, table
from tests.fronts.servers import APPLICATIONS

ROOT = Path(__file__).parents[2]

PAGE = ROOT / "docs" / "howto" / "fronts.md"


def test_the_documentation_has_it() -> None:
    _, _, behind = PAGE.read_text().partition("## Where a pair differs")
    found = [line for line in behind.partition("\n## ")[0].splitlines() if line.startswith("| ")]
    assert found[1:] == table()


def test_every_row_is_of_a_pair_that_is_tested() -> None:
    for row in ROWS:
        assert row.front in PROGRAMS
        assert row.application in {ANY, *APPLICATIONS}


def test_every_case_is_asked_for() -> None:
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    asked = set(re.findall(r'differs\("([^"]+)"\)', text))
    asked |= set(re.findall(r'differs\("([^"]+)" if', text))
    assert {row.case for row in ROWS} - {"small pieces"} <= asked
