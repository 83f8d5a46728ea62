"""One mistake in a site's settings, as a system check tells it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong, what to do, and the number of the check.

    A number that begins with I is that of advice, which is right to leave on some sites.
    """

    text: str
    hint: str
    number: str
    is_error: bool = True
