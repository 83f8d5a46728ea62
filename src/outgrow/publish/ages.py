"""Lengths of time as people write them."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from outgrow.errors import ConfigurationError

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def age(text: str, path: str) -> timedelta:
    """A time as ``90s``, ``12h``, ``14d`` or ``2w``. Raises ConfigurationError at `path`."""
    number, unit = text[:-1], text[-1:]
    if not (number.isascii() and number.isdecimal()) or len(number) > 6 or unit not in _UNITS:
        raise ConfigurationError(path, f"is {text!r}.", "Write a time as 12h, 14d or 2w.")
    return timedelta(**{_UNITS[unit]: int(number)})
