"""What a request may cost, before it is sent."""

from __future__ import annotations

from collections.abc import Sequence

from memoro.v1 import billing_service_pb2
from memoro_core.billing.money import nano_dollars
from memoro_core.billing.pricing import Estimate, NewWork
from memoro_server.convert.billing import OPERATIONS
from memoro_server.convert.memory import to_items, to_new_conversation, to_new_memory
from memoro_server.rules import Rules, beneath


def to_work(request: billing_service_pb2.EstimateCostRequest, rules: Rules) -> Sequence[NewWork]:
    """What the request would have done, a job each. Raises INVALID_FIELD where the call itself would, or an item of it.

    `rules` check the items of a batch; all else has been checked with the request.
    """
    with beneath(request.WhichOneof("request") or ""):
        match request.WhichOneof("request"):
            case "create_memory":
                return [to_new_memory(request.create_memory)]
            case "add_conversation":
                return [to_new_conversation(request.add_conversation)]
            case _:
                work = []
                for index, item in enumerate(to_items(request.batch_create_memories)):
                    with beneath(f"requests[{index}]"):
                        rules.check(item)
                        work.append(to_new_memory(item))
                return work


def from_estimate(estimate: Estimate) -> billing_service_pb2.EstimateCostResponse:
    """The most that a request may cost, as callers see it."""
    return billing_service_pb2.EstimateCostResponse(
        amount=estimate.amount,
        lines=[
            billing_service_pb2.EstimateLine(
                operation=OPERATIONS[line.usage.operation],
                provider=line.usage.provider,
                model=line.usage.model,
                items=line.usage.items,
                input_tokens=line.usage.input_tokens,
                output_tokens=line.usage.output_tokens,
                cost_nano_dollars=nano_dollars(line.pico_dollars),
            )
            for line in estimate.lines
        ],
        margin_basis_points=estimate.margin_basis_points,
        available=estimate.available,
    )
