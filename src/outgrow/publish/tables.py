"""What the tables of outgrow.toml have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from outgrow.errors import ConfigurationError
from outgrow.suggestions import suggestion


def refuse_unknown(given: Iterable[str], known: Sequence[str], path: str) -> None:
    """Raise ConfigurationError for the first key that is not known."""
    for key in given:
        if key not in known:
            raise ConfigurationError(f"{path}.{key}", "is not a known key.", suggestion(key, known))


def flag(given: object, path: str) -> bool:
    """True or false. Raises ConfigurationError for anything else."""
    if not isinstance(given, bool):
        raise ConfigurationError(path, f"is {given!r}.", "Write true or false.")
    return given
