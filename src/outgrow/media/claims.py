"""What a debt becomes while a request is out for it, and afterwards. Both journals share it.

A claim is made by one step that only one process can take: of two that find the same
debt, one has it.
"""

from __future__ import annotations

from collections.abc import Callable

from outgrow.media.journal import KEEP_TOMBSTONES, Debt


class Claims:
    """The four verbs, over a journal that can exchange and remove a record."""

    _clock: Callable[[], float]
    _token: Callable[[int], str]

    def _move(self, old: Debt, new: Debt) -> bool:
        """Exchange a record, in one step. False when it is not there (any more)."""
        raise NotImplementedError

    def forget(self, debt: Debt) -> None:
        """Remove a record that was read before the look that made it needless."""
        raise NotImplementedError

    def claim(self, debt: Debt) -> Debt | None:
        """See `Journal`. None when another process has it."""
        claimed = debt.claimed(self._clock(), self._token(4))
        return claimed if self._move(debt, claimed) else None

    def confirm(self, found: Debt, claimed: Debt) -> None:
        """See `Journal`. `found` is the record as it was read before the look."""
        watched = claimed.confirmed(found, self._clock())
        if watched is None:
            self.forget(claimed)
        else:
            self._move(claimed, watched)

    def release(self, found: Debt, claimed: Debt) -> None:
        """The server surely did not do it: the debt is what it was."""
        self._move(claimed, found)

    def is_abandoned(self, debt: Debt) -> bool:
        """Whether a debt for a name that the master never had, or lost, is given up."""
        return self._clock() - debt.since > KEEP_TOMBSTONES
