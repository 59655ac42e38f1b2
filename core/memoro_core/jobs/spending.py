"""What a run spends on providers: the port to those who know what it costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeAlias

from memoro_core.jobs.model import Claim, FreeCall
from memoro_core.llm.model import Usage

Told: TypeAlias = Callable[[Sequence[Usage], FreeCall | None], None]
"""Hears of a call that has ended: what it used, and what to write of it at the run's end; None when it cost something,
and has been written by then."""


class ProviderCall(Protocol):
    """A call of a provider, from before it is asked until it has answered."""

    async def admit(self) -> None:
        """For the provider to await when nothing else stands between the call and its request; see `llm.ports.Admit`.

        Raises LeaseLost, INSUFFICIENT_CREDITS, or UNAVAILABLE: then nothing may be sent.
        """
        ...

    def used(self, usage: Sequence[Usage]) -> None:
        """Adds what the answer has cost. What a ProviderError tells of is added when it leaves the block."""
        ...


class Spending(Protocol):
    """Sees to it that runs spend no more than is set aside for their jobs."""

    def call(self, claim: Claim, bound: Usage, request: bytes, told: Told) -> AbstractAsyncContextManager[ProviderCall]:
        """A block in which a run asks a provider once: `bound` is the most that it may use, `request` what is asked.

        At the end of the block it is written what was used. Raises PRICE_UNKNOWN.
        """
        ...
