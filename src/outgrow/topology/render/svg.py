"""The figure of a site as SVG: one file, with its own style, for light and for dark pages.

Each server is a group of class `server` with `data-server`, so that a page can colour it.
With states each has its own in words, too, and a class `is-STATE`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from html import escape
from typing import Final

from outgrow.topology.figure import VISITORS, Arrow, Box, Figure, Group

# Everything is in pixels of the picture.
_WIDTH: Final = 172  # of a server
_HEIGHT: Final = 64
_GAP: Final = 14  # between servers
_INSIDE: Final = 16  # between a group's edge and its servers
_TITLE: Final = 28  # of a group's title
_BETWEEN: Final = 28  # groups of one row
_LABELLED: Final = 118  # the same, with an arrow between them
_BELOW: Final = 92  # between rows, for arrows and their labels
_TOP: Final = 62  # where the first row begins, below the visitors
_GUTTER: Final = 64  # beside all, for the way of the visitors' files

#: Servers beside each other in a group, at most: alone in its row, and beside others.
_ALONE: Final = 4
_BESIDE: Final = 2

_STYLE: Final = """
svg { --ink: #24292f; --soft: #57606a; --line: #8c959f; --group: #f6f8fa; --box: #ffffff;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
@media (prefers-color-scheme: dark) {
  svg { --ink: #e6edf3; --soft: #9198a1; --line: #656c76; --group: #151b23; --box: #0d1117; }
}
.group > rect { fill: var(--group); stroke: var(--line); stroke-dasharray: 4 3; }
.group > text { fill: var(--soft); font-size: 13px; }
.server > rect { fill: var(--box); stroke: var(--line); stroke-width: 1.3; }
.name { fill: var(--ink); font-size: 14px; font-weight: 600; }
.note { fill: var(--soft); font-size: 12px; }
.arrow { fill: none; stroke: var(--line); stroke-width: 1.4; }
.label { fill: var(--soft); font-size: 12px; }
.head { fill: var(--line); }
""".strip()

#: The style of states: frame and word in one colour; what does not run has a broken frame.
_STATES: Final = """
:root { --good: #1a7f37; --wait: #9a6700; --bad: #cf222e; --cold: #0969da; --off: #6e7781; }
@media (prefers-color-scheme: dark) {
  :root { --good: #3fb950; --wait: #d29922; --bad: #f85149; --cold: #58a6ff; --off: #8b949e; }
}
.is-ready { --state: var(--good); }
.is-starting, .is-restarting { --state: var(--wait); }
.is-failing, .is-killed { --state: var(--bad); }
.is-frozen { --state: var(--cold); }
.is-stopped { --state: var(--off); }
.server[class*="is-"] > rect { stroke: var(--state); stroke-width: 2.4;
  fill: color-mix(in srgb, var(--state) 9%, var(--box)); }
.is-killed > rect, .is-stopped > rect { stroke-dasharray: 6 4; }
.state { fill: var(--state); font-size: 12px; font-weight: 600; }
""".rstrip()


_HEAD: Final = (
    '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
    'orient="auto"><path class="head" d="M0 0 8 4 0 8Z"/></marker></defs>'
)


#: Letters of a name that have room beside a state.
_BESIDE_STATE: Final = 9


@dataclass(frozen=True, slots=True)
class _Placed:
    """A group and its rectangle."""

    group: Group
    columns: int
    x: int
    y: int

    @property
    def width(self) -> int:
        """With its edges."""
        columns = min(self.columns, len(self.group.boxes))
        return 2 * _INSIDE + columns * (_WIDTH + _GAP) - _GAP

    @property
    def height(self) -> int:
        """With its title."""
        lines = -(-len(self.group.boxes) // self.columns)
        return _TITLE + _INSIDE + lines * (_HEIGHT + _GAP) - _GAP

    @property
    def middle(self) -> int:
        """Its middle, from left to right."""
        return self.x + self.width // 2


def style(*, states: bool = False) -> str:
    """What stands in the file's element `style`, to the letter: for a page's policy."""
    return _STYLE + _STATES if states else _STYLE


def render(figure: Figure, states: Mapping[str, str] | None = None) -> str:
    """The whole file.

    `states` has a word for each server by its name, which a sign may precede: ``● ready``.
    """
    placed = _placed(figure)
    width = max(one.x + one.width for one in placed.values()) + _GUTTER // 2
    height = max(one.y + one.height for one in placed.values()) + _GAP
    first = next(iter(placed.values()))
    title = escape(f"The servers of {figure.title}")
    return "\n".join(
        [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
                f'width="{width}" height="{height}" role="img" aria-label="{title}">'
            ),
            f"<title>{title}</title>",
            f"<style>{style(states=states is not None)}</style>",
            _HEAD,
            f'<text class="name" x="{first.middle}" y="24" text-anchor="middle">visitors</text>',
            *(line for arrow in figure.arrows for line in _arrow(arrow, placed)),
            *(line for one in placed.values() for line in _group(one, states or {})),
            "</svg>\n",
        ]
    )


def _placed(figure: Figure) -> dict[str, _Placed]:
    """Each group's place: rows below each other, each in the middle of the widest."""
    between = {(one.start, one.end) for one in figure.arrows}
    rows: list[list[_Placed]] = []
    y = _TOP
    for row in figure.rows:
        columns, x = _ALONE if len(row) == 1 else _BESIDE, _GUTTER
        placed: list[_Placed] = []
        for group in row:
            if placed:
                is_labelled = (placed[-1].group.key, group.key) in between
                x += placed[-1].width + (_LABELLED if is_labelled else _BETWEEN)
            placed.append(_Placed(group, columns, x, y))
        rows.append(placed)
        y += max(one.height for one in placed) + _BELOW
    widest = max(line[-1].x + line[-1].width for line in rows)
    found: dict[str, _Placed] = {}
    for line in rows:
        by = (widest - line[-1].x - line[-1].width) // 2
        found |= {one.group.key: replace(one, x=one.x + by) for one in line}
    return found


def _arrow(arrow: Arrow, placed: dict[str, _Placed]) -> Iterator[str]:
    end = placed[arrow.end]
    if arrow.start == VISITORS:
        yield from _of_visitors(arrow, end, next(iter(placed.values())))
        return
    start = placed[arrow.start]
    if start.y == end.y:
        y = start.y + start.height // 2
        left, right = start.x + start.width, end.x
        yield _path(f"M{left} {y}H{right}")
        yield _label(arrow.label, (left + right) // 2, y - 8, "middle")
        return
    if between := [one for one in placed.values() if start.y < one.y < end.y]:
        yield from _past(arrow, start, end, between)
        return
    bottom, x = start.y + start.height, end.middle
    # Straight down where the group above is so wide, else round a corner.
    out = min(max(x, start.x + _INSIDE), start.x + start.width - _INSIDE)
    corner = bottom + _BELOW // 3
    yield _path(f"M{out} {bottom}V{corner}H{x}V{end.y}")
    yield _label(arrow.label, x + 8, end.y - _BELOW // 3, "start")


def _past(arrow: Arrow, start: _Placed, end: _Placed, between: list[_Placed]) -> Iterator[str]:
    """Past the rows between, on their left."""
    x = min(end.x, start.x, *(one.x for one in between)) - _GUTTER // 2
    out, into = start.y + start.height // 2, end.y + end.height // 2
    yield _path(f"M{start.x} {out}H{x}V{into}H{end.x}")
    yield _label(arrow.label, x + 8, out - 8, "start")


def _of_visitors(arrow: Arrow, end: _Placed, first: _Placed) -> Iterator[str]:
    if end is first:
        yield _path(f"M{end.middle} 32V{end.y}")
        yield _label(arrow.label, end.middle + 8, 50, "start")
        return
    # Past the first row, on its left.
    x, y = min(end.x, first.x) - _GUTTER // 2, end.y + end.height // 2
    yield _path(f"M{first.middle - 36} 20H{x}V{y}H{end.x}")
    yield _label(arrow.label, x + 8, first.y - 12, "start")


def _path(way: str) -> str:
    return f'<path class="arrow" d="{way}" marker-end="url(#head)"/>'


def _label(text: str, x: int, y: int, anchor: str) -> str:
    return f'<text class="label" x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def _group(one: _Placed, states: Mapping[str, str]) -> Iterator[str]:
    yield (
        f'<g class="group"><rect x="{one.x}" y="{one.y}" width="{one.width}" '
        f'height="{one.height}" rx="8"/>'
    )
    title = escape(one.group.title)
    yield f'<text x="{one.x + _INSIDE}" y="{one.y + 19}">{title}</text></g>'
    for number, box in enumerate(one.group.boxes):
        line, column = divmod(number, one.columns)
        x = one.x + _INSIDE + column * (_WIDTH + _GAP)
        y = one.y + _TITLE + line * (_HEIGHT + _GAP)
        yield from _server(box, x, y, states.get(box.name, ""))


def _server(box: Box, x: int, y: int, state: str) -> Iterator[str]:
    name = escape(box.name)
    kind = f"server is-{escape(state.rsplit(maxsplit=1)[-1])}" if state else "server"
    yield (
        f'<g class="{kind}" data-server="{name}"><rect x="{x}" y="{y}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" rx="6"/>'
    )
    title = box.name
    if state:
        # Where they have no room beside each other, the whole name is shown by the pointer.
        title = _cut(box.name, _BESIDE_STATE)
        yield f"<title>{name}</title>"
        yield (
            f'<text class="state" x="{x + _WIDTH - 10}" y="{y + 20}" text-anchor="end">'
            f"{escape(state)}</text>"
        )
    for number, (kind, text) in enumerate(
        (("name", title), ("note", box.address), ("note", ", ".join(box.notes)))
    ):
        yield (
            f'<text class="{kind}" x="{x + 12}" y="{y + 20 + 17 * number}">'
            f"{escape(_cut(text))}</text>"
        )
    yield "</g>"


def _cut(text: str, longest: int = 25) -> str:
    """What fits into a box."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
