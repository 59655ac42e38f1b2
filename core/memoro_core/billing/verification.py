"""Checking a ledger: entry by entry as they come, and at the end against what is kept beside it."""

from __future__ import annotations

from collections.abc import Iterable

from memoro_core.billing.ledger import after, difference, problem_of
from memoro_core.billing.model import CreditAccount, LedgerEntry, Verification


class LedgerCheck:
    """A check under way. `replayed` is the account that the entries so far make."""

    def __init__(self, account: CreditAccount) -> None:
        self._account = account
        self.replayed = CreditAccount(account.tenant_id)

    def go_on(self, entries: int, sums: CreditAccount, kept_hash: bytes) -> Verification | None:
        """Goes on after entries that were checked before and make `sums`; what came of it if they are not those.

        `entries` is how many there are of them, `kept_hash` that of the last as it was then.
        """
        self.replayed = sums
        if not sums.last_hash:
            return self._wrong(f"entry {sums.last_seq} is missing", sums.last_seq)
        if sums.last_hash != kept_hash:
            return self._wrong("its hash is not the one that was kept", sums.last_seq)
        if entries != sums.last_seq:
            return self._wrong("an entry before it is missing", sums.last_seq)
        return None

    def add(self, entries: Iterable[LedgerEntry]) -> Verification | None:
        """Checks the entries that follow; what came of it when one is wrong."""
        for entry in entries:
            if problem := problem_of(self.replayed, entry):
                return self._wrong(problem, self.replayed.last_seq + 1)
            self.replayed = after(self.replayed, entry)
        return None

    def broken_off(self) -> Verification:
        """The time is over: nothing is wrong with what was checked."""
        return Verification(self.replayed.last_seq, self.replayed.last_hash, complete=False)

    def end(self, *, last_seq: int, remaining: int, held: int) -> Verification:
        """All entries are there: holds the account against them, and it against what grants have left and holds hold.

        `last_seq` is the highest number of an entry, known to the account or not.
        """
        account, replayed = self._account, self.replayed
        if replayed.last_seq < account.last_seq:
            return self._wrong(f"entry {replayed.last_seq + 1} is missing", replayed.last_seq + 1)
        if last_seq > account.last_seq:
            return self._wrong("the account does not know of it", account.last_seq + 1)
        if problem := difference(account, replayed):
            return self._wrong(problem)
        if remaining != account.available + account.held:
            return self._wrong(f"grants have {remaining} left, and {account.available + account.held} is there")
        if held != account.held:
            return self._wrong(f"jobs hold {held}, and {account.held} is held")
        return Verification(replayed.last_seq, replayed.last_hash)

    def _wrong(self, problem: str, seq: int = 0) -> Verification:
        return Verification(self.replayed.last_seq, self.replayed.last_hash, seq, problem)
