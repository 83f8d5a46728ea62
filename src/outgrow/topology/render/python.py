"""Settings as lines of Python, one key a line, for people to read and to compare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def render(settings: Mapping[str, Any]) -> str:
    """A line ``NAME = value`` for each setting, mappings over several lines."""
    return "".join(f"{name} = {_text(value, '')}\n" for name, value in settings.items())


def _text(value: object, indent: str) -> str:
    if not isinstance(value, Mapping) or not value:
        return repr(value)
    inside = f"{indent}    "
    lines = (f"{inside}{key!r}: {_text(one, inside)},\n" for key, one in value.items())
    return f"{{\n{''.join(lines)}{indent}}}"
