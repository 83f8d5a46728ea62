"""One mistake in a site's settings, as a system check tells it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong, what to do, and the number of the check.

    Its letter says how bad it is: E for an error, W for a warning, I for advice that is right to
    leave on some sites.
    """

    text: str
    hint: str
    number: str

    @property
    def is_error(self) -> bool:
        """Whether the site can't go out like this."""
        return self.number.startswith("E")
