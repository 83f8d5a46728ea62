"""A word that is not known -> what may have been meant by it."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence


def closest(word: object, known: Collection[str], cutoff: float = 0.6) -> str:
    """The known word that is most like this one; an empty text where none is like it.

    `cutoff` is how much, from 0 to 1 (`difflib.get_close_matches`).
    """
    found = difflib.get_close_matches(str(word), known, n=1, cutoff=cutoff)
    return found[0] if found else ""


def suggestion(word: object, known: Sequence[str]) -> str:
    """A sentence that names what may have been meant, or else all that there is."""
    close = closest(word, known)
    return f"Did you mean {close!r}?" if close else f"There are: {', '.join(known)}."
