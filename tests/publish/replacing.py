"""A property of every scanner: what it finds is replaced, and no byte beside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from outgrow.publish.references import Reference, replace

#: A reference: what stands before its URL, the URL, and what stands behind; and two other URLs
#: for it. Or anything that is none.
Part: TypeAlias = "tuple[tuple[bytes, bytes, bytes], str, str] | bytes"


def nothing_else_changes(
    references: Callable[[bytes], Sequence[Reference]], parts: Sequence[Part], between: bytes
) -> None:
    """All references get one URL, then the other, then the first ones: and all is as it was."""
    put = [one for one in parts if isinstance(one, tuple)]
    before = between.join(b"".join(one[0]) if isinstance(one, tuple) else one for one in parts)
    content = before
    for new in ([one[1] for one in put], [one[2] for one in put]):
        found = references(content)
        assert len(found) == len(put)
        content = replace(content, list(zip(found, new, strict=True)))
        assert [one.url for one in references(content)] == new
    old = [one[0][1].decode() for one in put]
    assert replace(content, list(zip(references(content), old, strict=True))) == before
