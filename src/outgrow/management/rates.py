"""How fast a command may be, as people write it."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from typing import Final

_UNITS: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


def rate(text: str) -> float:
    """Bytes a second, of a text such as 500K or 20M. For argparse."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([KMG]?)", text.upper())
    if found is None or float(found[1]) == 0:
        raise ArgumentTypeError(f"{text!r} is not bytes a second, such as 500K or 20M")
    return float(found[1]) * _UNITS[found[2]]
