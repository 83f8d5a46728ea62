"""Uploads that go from a browser straight to the store: what is allowed, and to whom.

The laws, which `arrivals` applies:

1. The site decides the key: random, and below one folder for what has just arrived. Nothing
   of what the visitor says is in it.
2. What lies there is bytes, not a page: it is uploaded as `ARRIVES_AS`, which is signed. Its
   real type follows from its name's extension, as with every upload.
3. A ticket names the store, the key, the size and the owner. It is good until a moment, for
   its owner, for one object. Its signature is the caller's business.
4. The upload's permission outlives its use: whoever has it may upload again after the object
   was taken. So a mark is left beside the key, which the permission does not reach, until
   both have expired.

Nothing here asks a clock, or sends anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from outgrow import content_types, names
from outgrow.errors import UnsafeName

#: Where uploads arrive, below the storage's prefix.
FOLDER: Final = "outgrow-incoming"

#: The type of everything that has just arrived; no browser shows it.
ARRIVES_AS: Final = content_types.OCTETS

#: For how long, in seconds, an upload may last together with the filling in of its form.
LIFETIME: Final = 3600.0

#: Files that one visitor may upload in an hour, where the field says nothing else. It keeps a
#: single one from filling the store; a site that has anonymous visitors needs more than that.
OFTEN: Final = 100

#: S3's limit on what is sent, or copied, in one request: 5 GiB
#: (https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html).
MOST: Final = 5 << 30

_TAKEN: Final = ".taken"
_NAME: Final = re.compile(rf"{FOLDER}/[a-z2-7]{{13}}\Z")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a form takes: from `least` to `most` bytes, and types that begin with one of `types`.

    Without `types` all are taken. Raises ValueError for sizes that no store takes.
    """

    most: int
    least: int = 1
    types: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most <= MOST:
            raise ValueError(
                f"{self.least} to {self.most} bytes: a direct upload has 0 to {MOST} (5 GiB)."
            )

    def refusal(self, name: str, size: int) -> str:
        """Why a file is not taken, or an empty text."""
        if size < self.least:
            return f"it has {size} bytes, and must have at least {self.least}"
        if size > self.most:
            return f"it has {size} bytes, and may have at most {self.most}"
        kind = content_types.content_type(name)
        if self.types and not kind.startswith(self.types):
            return f"its type is {kind}, and may be {', '.join(self.types)}"
        return ""


@dataclass(frozen=True, slots=True)
class Ticket:
    """Permission for one upload, and later the claim to it.

    `place` is the store, `file` the name there, `name` the one that the visitor's file has,
    `size` its bytes, and `until` the end of it, in seconds since the epoch.
    """

    place: str
    file: str
    name: str
    size: int
    owner: str
    until: float

    def refusal(self, place: str, owner: str, limits: Limits, now: float) -> str:
        """Why it is not good for this form, or an empty text."""
        if now >= self.until:
            return "it has expired"
        if not owner or self.owner != owner:
            return "somebody else uploaded it"
        if self.place != place or not _NAME.match(self.file):
            return "it was uploaded to another place"
        return limits.refusal(self.name, self.size)

    @property
    def mark(self) -> str:
        """The name of the mark that says that it was taken."""
        return self.file + _TAKEN

    def values(self) -> dict[str, Any]:
        """Itself, as plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Offer:
    """What a page's file input may upload: to which of STORAGES, within which limits, for whom.

    `often` is how many files its owner may upload in an hour.
    """

    storage: str
    most: int
    least: int
    types: tuple[str, ...]
    often: int
    owner: str

    @property
    def limits(self) -> Limits:
        """What the form takes."""
        return Limits(self.most, self.least, self.types)

    def values(self) -> dict[str, Any]:
        """Itself, as plain values."""
        return {**asdict(self), "types": list(self.types)}


def offer_from_values(values: Any) -> Offer | None:
    """The offer whose `values` they are; None where they are not those of one."""
    kinds = {"storage": str, "most": int, "least": int, "types": list, "often": int, "owner": str}
    if not _are(values, kinds) or not all(isinstance(one, str) for one in values["types"]):
        return None
    return Offer(**{**values, "types": tuple(values["types"])})


def _are(values: Any, kinds: Mapping[str, type]) -> bool:
    """Whether it is a mapping of just these names, to values of just these kinds."""
    if not isinstance(values, Mapping) or set(values) != set(kinds):
        return False
    return all(type(values[name]) is kind for name, kind in kinds.items())


def ticket(place: str, name: str, size: int, owner: str, until: float) -> Ticket:
    """A ticket for a new upload. Raises `UnsafeName` for a name that may not be used.

    Of `name` only what follows its last slash or backslash is kept, as Django does.
    """
    last = name.replace("\\", "/").rpartition("/")[2]
    return Ticket(place, f"{FOLDER}/{names.token()}", names.check(last), size, owner, until)


def from_values(values: Any) -> Ticket | None:
    """The ticket whose `values` they are; None where they are not those of one."""
    kinds = {"place": str, "file": str, "name": str, "size": int, "owner": str, "until": float}
    if not _are(values, kinds):
        return None
    try:
        names.check(values["name"])
    except UnsafeName:
        return None
    return Ticket(**values)
