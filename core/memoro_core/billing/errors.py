"""What can be wrong with money."""

from __future__ import annotations

from datetime import datetime

from memoro_core.billing.model import BudgetKey
from memoro_core.errors import Code, MemoroError, Reason
from memoro_core.ids import TenantId
from memoro_core.llm.model import Operation


def insufficient_credits(tenant_id: TenantId, need: int, have: int) -> MemoroError:
    """FAILED_PRECONDITION / INSUFFICIENT_CREDITS: a job may cost more than the tenant has available."""
    return MemoroError(
        Code.FAILED_PRECONDITION,
        Reason.INSUFFICIENT_CREDITS,
        f"it may cost {need} micro-credits, and {have} are available: add credits",
        metadata={"tenant_id": str(tenant_id), "need": str(need), "have": str(have)},
    )


def price_unknown(provider: str, model: str, operation: Operation, at: datetime) -> MemoroError:
    """FAILED_PRECONDITION / PRICE_UNKNOWN: what has no price is not done."""
    return MemoroError(
        Code.FAILED_PRECONDITION,
        Reason.PRICE_UNKNOWN,
        f"{operation} by {model} of {provider} has no price at {at.isoformat()}: an operator has to set one",
        metadata={"provider": provider, "model": model, "operation": operation},
    )


def budget_not_found(key: BudgetKey) -> MemoroError:
    """NOT_FOUND / BUDGET_NOT_FOUND: nobody has set that budget."""
    return MemoroError(
        Code.NOT_FOUND,
        Reason.BUDGET_NOT_FOUND,
        "there is no such daily budget: set one first",
        metadata={"scope": key.scope, "tenant_id": str(key.tenant_id), "user_id": key.user_id or ""},
    )
