"""Calls of providers that cost something: what is written of them, and whether what is set aside covers them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from hashlib import sha256
from typing import Protocol

from memoro_core.billing.model import Cost, Price
from memoro_core.billing.money import charge
from memoro_core.ids import JobId, TenantId
from memoro_core.jobs.model import Claim
from memoro_core.llm.model import Usage


@dataclass(frozen=True, slots=True)
class NewCall:
    """A call that is about to be made. `bound` is the most that it may use, `day` the one that it counts for."""

    claim: Claim
    bound: Usage
    price: Price
    request_hash: bytes
    day: date
    at: datetime

    @property
    def most(self) -> Cost:
        """What it may cost at most."""
        return cost_of(self.price, self.bound)


@dataclass(frozen=True, slots=True)
class CallId:
    """Names a call: of a job, in an attempt, its number there."""

    tenant_id: TenantId
    job_id: JobId
    attempt: int
    call: int


@dataclass(frozen=True, slots=True)
class CallEnd:
    """What a call has used, now that its answer is there. One that failed has no texts to pay a fee for."""

    id: CallId
    input_tokens: int
    output_tokens: int
    failed: bool
    at: datetime


class CallStore(Protocol):
    """Calls in the database. What either method has returned of, a crash does not take back."""

    async def open(self, call: NewCall) -> CallId:
        """Writes a call down at its most, having seen to it that the job's hold covers it.

        Raises LeaseLost when the run has lost its job, and INSUFFICIENT_CREDITS when the hold can't be extended as far
        as it would have to be; nothing is written of the call then.
        """
        ...

    async def still_holds(self, claim: Claim) -> None:
        """Raises LeaseLost when the run has lost its job."""
        ...

    async def close(self, end: CallEnd) -> None:
        """Writes what a call has used, also above its most; nothing if the job has been settled without it."""
        ...


def cost_of(price: Price, usage: Usage) -> Cost:
    """What that much costs at this price."""
    pico_dollars = price.cost(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens)
    return Cost(pico_dollars, price.fee * usage.items)


def is_free(price: Price) -> bool:
    """Whether nothing that is used at this price costs anything."""
    return not (price.input_price or price.output_price or price.fee)


def shortage(held: int, spent: Cost, asked: Iterable[Cost], *, margin_basis_points: int) -> int:
    """How many micro-credits more must be set aside, so that what is spent and what is asked for are covered."""
    total = sum(asked, spent)
    return max(0, charge(total.pico_dollars, total.fees, margin_basis_points=margin_basis_points) - held)


def hash_of(usage: Usage, request: bytes) -> bytes:
    """Tells that two calls ask the same of the same model."""
    model = "\0".join((usage.provider, usage.model, usage.operation)).encode()
    return sha256(len(model).to_bytes(4) + model + request).digest()
