"""What a bucket is to have, and what it has -> what must be changed.

The laws:

1. Only what is ours is changed: statements of the policy and rules by their id, which is made
   of the prefix. What others have put there stays, and so does what no option speaks of.
2. Changing twice changes nothing the second time: what is found is compared by its meaning,
   for engines write it back in other words.
3. What an engine does not know is said (`Refused`), and nothing is guessed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

#: The version of the language of policies
#: (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_version.html).
_LANGUAGE: Final = "2012-10-17"

#: Seconds for which a browser may keep an answer to its preflight; Chromium's limit.
_MAX_AGE: Final = 7200

Rule = dict[str, Any]


class Part(StrEnum):
    """What can be set up of a bucket."""

    BUCKET = "bucket"
    POLICY = "policy"
    CORS = "cors"
    LIFECYCLE = "lifecycle"
    VERSIONING = "versioning"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the options of a storage ask of its bucket; None where they do not speak of it.

    `prefix` neither begins nor ends with a slash. Times are in days.
    """

    bucket: str
    prefix: str = ""
    public: bool | None = None
    origins: tuple[str, ...] | None = None
    abort_after: int | None = None
    old_versions_after: int | None = None
    expire: Mapping[str, int] = field(default_factory=dict)
    has_lifecycle: bool = False  # the options speak of it, if only to say that nothing goes
    versioning: bool | None = None

    @property
    def parts(self) -> list[Part]:
        """What the options speak of; the bucket itself always."""
        asked = {
            Part.POLICY: self.public is not None,
            Part.CORS: self.origins is not None,
            Part.LIFECYCLE: self.has_lifecycle,
            Part.VERSIONING: self.versioning is not None,
        }
        return [Part.BUCKET, *(part for part, is_asked in asked.items() if is_asked)]


@dataclass(frozen=True, slots=True)
class Refused:
    """The engine does not know this, or says no; `reason` is its word."""

    reason: str


@dataclass(frozen=True, slots=True)
class Found:
    """What a bucket has; each part as the engine gives it, or its refusal."""

    exists: bool
    policy: Mapping[str, Any] | Refused = field(default_factory=dict)
    cors: Sequence[Rule] | Refused = ()
    lifecycle: Sequence[Rule] | Refused = ()
    versioning: bool | Refused = False


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a bucket: `text` is for people, `value` the whole part as it is to be.

    With `refused` the engine can't do it, and `text` says what is missing.
    """

    part: Part
    text: str
    value: Any = None
    refused: str = ""


def plan(wanted: Wanted, found: Found) -> list[Change]:
    """What must be changed, in the order in which it can be."""
    changes: list[Change] = []
    if not found.exists:
        changes.append(Change(Part.BUCKET, f"make the bucket {wanted.bucket!r}"))
    for part in wanted.parts[1:]:
        has = getattr(found, part.value)
        if isinstance(has, Refused):
            changes.append(Change(part, _MISSING[part], refused=has.reason))
            continue
        changes += _CHANGES[part](wanted, has)
    return changes


#: What a site has to live without, where an engine does not know a part.
_MISSING: Final = {
    Part.POLICY: "who may read can't be set: visitors need signed URLs, or a server before it",
    Part.CORS: "no page of another origin may upload: let the site's own server pass it on",
    Part.LIFECYCLE: "nothing goes by itself: run 'outgrow buckets leftovers --abort' now and then",
    Part.VERSIONING: "old versions can't be kept",
}


# --- who may read


def _policy(wanted: Wanted, has: Mapping[str, Any]) -> Iterator[Change]:
    sid = _id("OutgrowRead", wanted.prefix)
    statements = _list(has.get("Statement", []))
    others = [one for one in statements if one.get("Sid") != sid]
    ours = [one for one in statements if one.get("Sid") == sid]
    where = f"below {wanted.prefix}/" if wanted.prefix else "of the bucket"
    if not wanted.public:
        if ours:
            yield Change(Part.POLICY, f"let nobody read the files {where}", _document(has, others))
        return
    prefix = f"{wanted.prefix}/" if wanted.prefix else ""
    statement = {
        "Sid": sid,
        "Effect": "Allow",
        "Principal": {"AWS": ["*"]},
        "Action": ["s3:GetObject"],
        "Resource": [f"arn:aws:s3:::{wanted.bucket}/{prefix}*"],
    }
    if [_meaning(one) for one in ours] != [_meaning(statement)]:
        text = f"let all read the files {where}"
        yield Change(Part.POLICY, text, _document(has, [*others, statement]))


def _document(has: Mapping[str, Any], statements: list[Rule]) -> Rule:
    """The whole policy; empty where nothing is left, for S3 takes none without a statement."""
    return {"Version": _LANGUAGE, **has, "Statement": statements} if statements else {}


def _meaning(statement: Mapping[str, Any]) -> str:
    """A statement in one way of writing: "*" and {"AWS": "*"} are the same for everybody."""
    plain = {key: value for key, value in statement.items() if value not in ({}, [], None)}
    principal = plain.get("Principal")
    if isinstance(principal, Mapping):
        principal = principal.get("AWS", principal)
    plain["Principal"] = _list(principal)
    for key in ("Action", "Resource"):
        plain[key] = sorted(_list(plain.get(key)))
    return json.dumps(plain, sort_keys=True)


# --- browsers of other origins


def _cors(wanted: Wanted, has: Sequence[Rule]) -> Iterator[Change]:
    mark = _id("OutgrowUploads", wanted.prefix)
    others = [one for one in has if one.get("ID") != mark]
    ours = [one for one in has if one.get("ID") == mark]
    if not wanted.origins:
        if ours:
            yield Change(Part.CORS, "let no page of another origin upload", others)
        return
    rule: Rule = {
        "ID": mark,
        "AllowedOrigins": list(wanted.origins),
        "AllowedMethods": ["GET", "HEAD", "POST", "PUT"],
        "AllowedHeaders": ["*"],
        "ExposeHeaders": ["ETag"],
        "MaxAgeSeconds": _MAX_AGE,
    }
    if not _is_same(ours, [rule]):
        names = ", ".join(wanted.origins)
        yield Change(Part.CORS, f"let pages of {names} upload", [*others, rule])


# --- what goes by itself


def _lifecycle(wanted: Wanted, has: Sequence[Rule]) -> Iterator[Change]:
    """All rules of the bucket are set at once; ours are those with an id of this prefix."""
    rules = list(_rules(wanted))
    mark = _id("Outgrow", wanted.prefix)
    others = [one for one in has if not str(one.get("ID", "")).startswith(mark)]
    ours = [one for one in has if str(one.get("ID", "")).startswith(mark)]
    if not _is_same(ours, rules):
        texts = [text for _, text in _told(wanted)] or ["let nothing go by itself"]
        yield Change(Part.LIFECYCLE, "; ".join(texts), [*others, *rules])


def _told(wanted: Wanted) -> Iterator[tuple[str, str]]:
    if wanted.abort_after is not None:
        yield "", f"give up uploads that nobody ended after {_days(wanted.abort_after)}"
    if wanted.old_versions_after is not None:
        yield "", f"remove old versions after {_days(wanted.old_versions_after)}"
    for prefix, days in sorted(wanted.expire.items()):
        yield prefix, f"remove files below {prefix!r} after {_days(days)}"


def _rules(wanted: Wanted) -> Iterator[Rule]:
    mark = _id("Outgrow", wanted.prefix)
    inside = f"{wanted.prefix}/" if wanted.prefix else ""
    common: Rule = {"Status": "Enabled", "Filter": {"Prefix": inside}}
    if wanted.abort_after is not None:
        action = {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": wanted.abort_after}}
        yield {"ID": f"{mark}-uploads", **common, **action}
    if wanted.old_versions_after is not None:
        kept = {"NoncurrentVersionExpiration": {"NoncurrentDays": wanted.old_versions_after}}
        yield {"ID": f"{mark}-versions", **common, **kept}
    for prefix, days in sorted(wanted.expire.items()):
        yield {
            "ID": f"{mark}-expire-{_short(prefix)}",
            "Status": "Enabled",
            "Filter": {"Prefix": f"{inside}{prefix}"},
            "Expiration": {"Days": days},
        }


# --- old versions


def _versioning(wanted: Wanted, has: bool) -> Iterator[Change]:
    if wanted.versioning != has:
        text = "keep old versions" if wanted.versioning else "keep no more old versions"
        yield Change(Part.VERSIONING, text, bool(wanted.versioning))


_CHANGES: Final[Mapping[Part, Any]] = {
    Part.POLICY: _policy,
    Part.CORS: _cors,
    Part.LIFECYCLE: _lifecycle,
    Part.VERSIONING: _versioning,
}


def _is_same(found: Sequence[Rule], wanted: Sequence[Rule]) -> bool:
    """Whether these are the same rules, in whatever order, but for what is empty."""
    return sorted(map(_plain, found)) == sorted(map(_plain, wanted))


def _plain(rule: Rule) -> str:
    """A rule in one way of writing: lists in order, and nothing that is empty.

    A prefix may stand beside the filter (the older form) or in it.
    """
    found = dict(rule)
    prefix = found.pop("Prefix", None)
    inside = dict(found.pop("Filter", None) or {})
    found["Filter"] = inside.get("Prefix", prefix) or ""
    for key, value in found.items():
        if isinstance(value, list):
            found[key] = sorted(value)
    return json.dumps({key: one for key, one in found.items() if one}, sort_keys=True)


def _days(count: int) -> str:
    return f"{count} day" if count == 1 else f"{count} days"


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def _id(kind: str, prefix: str) -> str:
    """The id of what is ours, by the prefix: other storages may be in the same bucket.

    Letters and digits, as the ids of statements have it.
    """
    return f"{kind}{_short(prefix)}"


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
