"""What a release still needs at a target: two values are compared, nothing is asked.

The laws:

1. A key is skipped only when what is known of it is this form, and the target lists it.
2. Known is what the served release says; and of assets also what an earlier push of this
   release says, whole or not. Neither counts where another record tells that something else may
   be there.
3. Under a stamped key nothing is ever replaced by another content.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from outgrow.errors import PublishError
from outgrow.publish.forms import Form, Shape
from outgrow.publish.ledger import Record
from outgrow.publish.release import Release


@dataclass(frozen=True)
class Difference:
    """What has to be done, in this order: `assets`, `before_pages`, `pages`; `gone` is deleted.

    `before_pages` are the feeds, scripts and plain files that keep their names; pages are last,
    for they refer to all others. `skipped` counts the forms that are there. `gone` are keys of
    pages that the served release has and this one has not.
    """

    assets: tuple[Form, ...]
    before_pages: tuple[Form, ...]
    pages: tuple[Form, ...]
    gone: tuple[str, ...]
    skipped: int

    def __bool__(self) -> bool:
        return bool(self.count or self.gone)

    @property
    def count(self) -> int:
        """The files that are to be sent."""
        return len(self.assets) + len(self.before_pages) + len(self.pages)


@dataclass(frozen=True)
class Known:
    """What the ledger says of a target.

    `served` is the release that is served. `others` are those that may have written since, or
    before: those that were begun and never served; and all of them where `again` is true, that
    is, where this release itself was begun before, or served.
    """

    served: Record | None = None
    others: tuple[Record, ...] = ()
    again: bool = False


def difference(
    release: Release,
    shape: Shape,
    known: Known,
    listed: Mapping[str, int],
    condemned: Collection[str] = (),
) -> Difference:
    """Compare a release with a target.

    `listed` are the keys that are there with their bytes. `condemned` keys are written again,
    whether they are there or not. Raises PublishError where two contents share a stamp.
    """
    assets, pages = shape.assets(release), shape.pages(release)
    served_assets, served_pages = _forms(known.served)
    others = [_forms(one) for one in known.others]
    _refuse_others(assets, [served_assets, *(one for one, _ in others)])
    mine = {**assets, **served_assets} if known.again else served_assets
    sent = _Sent(listed, condemned)
    missing = sent.missing(assets, mine, [one for one, _ in others])
    changed = sent.missing(pages, served_pages, [one for _, one in others])
    old = {*served_pages, *(key for _, several in others for key in several)}
    # A page may have become an asset of the same name.
    gone = sorted(key for key in old if key in listed and key not in pages and key not in assets)
    skipped = len(assets) + len(pages) - len(missing) - len(changed)
    last = tuple(form for form in changed if _is_page(form))
    first = tuple(form for form in changed if not _is_page(form))
    return Difference(missing, first, last, tuple(gone), skipped)


def _is_page(form: Form) -> bool:
    kind = dict(form.entry.headers).get("Content-Type", "")
    return kind.startswith(("text/html", "application/xhtml"))


def _forms(record: Record | None) -> tuple[Mapping[str, Form], Mapping[str, Form]]:
    if record is None:
        return {}, {}
    return record.shape.assets(record.release), record.shape.pages(record.release)


@dataclass(frozen=True, slots=True)
class _Sent:
    """What was sent before, and is still there."""

    listed: Mapping[str, int]
    condemned: Collection[str]

    def missing(
        self,
        forms: Mapping[str, Form],
        known: Mapping[str, Form],
        others: Sequence[Mapping[str, Form]],
    ) -> tuple[Form, ...]:
        """The forms that have to be sent."""
        return tuple(one for one in forms.values() if not self._is_there(one, known, others))

    def _is_there(
        self, form: Form, known: Mapping[str, Form], others: Sequence[Mapping[str, Form]]
    ) -> bool:
        if form.key not in self.listed or form.key in self.condemned:
            return False
        if form.encoding == "identity" and self.listed[form.key] != form.entry.size:
            return False  # somebody else's hand was at it
        if not form.is_same(known.get(form.key)):
            return False
        return all(form.is_same(one.get(form.key, form)) for one in others)


def _refuse_others(forms: Mapping[str, Form], known: Iterable[Mapping[str, Form]]) -> None:
    for several in known:
        for key, form in several.items():
            mine = forms.get(key)
            if mine is not None and mine.entry.digest != form.entry.digest:
                raise PublishError(
                    f"{mine.entry.name} and an older {form.entry.name} with another content have "
                    f"the same key, {key}. Nothing was replaced: change the file by a byte."
                )
