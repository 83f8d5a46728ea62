"""The figure of a site in characters, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from outgrow.topology.figure import VISITORS, Box, Figure, Group

#: Servers beside each other in a group, at most, and columns between groups.
_BESIDE: Final = 3
_BETWEEN: Final = 2


def render(figure: Figure) -> str:
    """The whole figure, as lines."""
    lines = ["visitors"]
    for row in figure.rows:
        keys = {group.key for group in row}
        lines += [f"  │ {text}" for text in _into(figure, keys)]
        lines += _side_by_side([_group(group, len(row)) for group in row])
    return "\n".join([*lines, ""])


def _into(figure: Figure, keys: set[str]) -> Iterator[str]:
    """What goes into the groups of a row, and between them."""
    titles = {group.key: group.title for group in figure.groups}
    for arrow in figure.arrows:
        if arrow.end in keys:
            start = VISITORS if arrow.start == VISITORS else titles[arrow.start]
            yield f"{arrow.label}: {start} → {titles[arrow.end]}"


def _group(group: Group, beside: int) -> list[str]:
    columns = _BESIDE if beside == 1 else 1
    cells = [_cell(box) for box in group.boxes]
    width = max(len(line) for cell in cells for line in cell)
    inside = []
    for start in range(0, len(cells), columns):
        some = cells[start : start + columns]
        for number in range(max(map(len, some))):
            parts = [(cell[number] if number < len(cell) else "").ljust(width) for cell in some]
            inside.append("   ".join(parts))
    wide = max(len(group.title) + 2, *map(len, inside))
    edge = f"┌─ {group.title} {'─' * (wide - len(group.title) - 1)}┐"
    return [edge, *(f"│ {line.ljust(wide)} │" for line in inside), f"└{'─' * (wide + 2)}┘"]


def _cell(box: Box) -> list[str]:
    return [box.name, f"  {box.address}", *([f"  {', '.join(box.notes)}"] if box.notes else [])]


def _side_by_side(blocks: Sequence[Sequence[str]]) -> Iterator[str]:
    tall = max(map(len, blocks))
    for number in range(tall):
        parts = [block[number] if number < len(block) else " " * len(block[0]) for block in blocks]
        yield (" " * _BETWEEN).join(parts).rstrip()
