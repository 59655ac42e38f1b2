"""What is asked of the limiter about a call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from memoro_core.ids import TenantId, UserId
from memoro_core.limits.model import Ask, MethodClass
from memoro_core.tenancy.model import Principal
from memoro_server.call import Method

_MOST_ITEMS: Final = 100
_LONGEST_USER_ID: Final = 128
"""As the contract says; what exceeds them is refused later, and must not fill the limiter's memory before."""
_MAX_REMEMBERED: Final = 10_000


class Asks:
    """Makes the questions about the calls of one method, and remembers those that are asked again and again."""

    def __init__(self, method: Method, method_class: MethodClass) -> None:
        self._method_class = method_class
        self._weight = method.policy.weight
        self._remembered: dict[tuple[TenantId, str], Ask] = {}
        request_class = method.request_class
        fields: Mapping[str, Any] = {} if request_class is None else request_class.DESCRIPTOR.fields_by_name
        items = fields.get("requests")
        # Operators name users of other tenants, whose limits are none of theirs.
        self._names_user = "user_id" in fields and method_class is not MethodClass.ADMIN
        self._names_users = items is not None and "user_id" in items.message_type.fields_by_name

    def of(self, principal: Principal, request: Any) -> Ask:
        """The question about a call."""
        if self._names_users:
            return self._made(principal, _shares([item.user_id for item in request.requests], self._weight))
        user = request.user_id if self._names_user else ""
        limits = principal.limits
        ask = self._remembered.get((principal.tenant_id, user))
        # The same limits are read anew once in a while.
        if ask is None or (ask.limits is not limits and ask.limits.version != limits.version):
            ask = self._made(principal, _shares([user], self._weight))
            if len(user) <= _LONGEST_USER_ID:
                self._remember(user, ask)
        return ask

    def _made(self, principal: Principal, users: Mapping[UserId, int]) -> Ask:
        return Ask(principal.tenant_id, principal.limits, self._method_class, self._weight, users)

    def _remember(self, user: str, ask: Ask) -> None:
        if len(self._remembered) >= _MAX_REMEMBERED:
            self._remembered.clear()
        self._remembered[ask.tenant_id, user] = ask


def _shares(users: list[str], weight: int) -> Mapping[UserId, int]:
    """What each user that is named takes of a call's weight: his share of it by the number of namings, rounded up."""
    count = len(users)
    if count > _MOST_ITEMS:
        return {}
    return {
        UserId(user): -(-weight * named // count)
        for user, named in Counter(users).items()
        if 0 < len(user) <= _LONGEST_USER_ID
    }
