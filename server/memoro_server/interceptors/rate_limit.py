"""Holds calls to the limits of their tenants and users."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any, Final

from memoro_core.clock import Clock
from memoro_core.errors import MemoroError
from memoro_core.limits.errors import daily_limit, rate_limited
from memoro_core.limits.model import UNLIMITED, Limits, Verdict
from memoro_core.limits.ports import Limiter
from memoro_server.asks import Asks
from memoro_server.call import Call, Handler, Method, Trailers
from memoro_server.metrics import ServerMetrics

LIMIT: Final = "ratelimit-limit"
REMAINING: Final = "ratelimit-remaining"
RESET: Final = "ratelimit-reset"


class RateLimitInterceptor:
    """Refuses calls beyond a limit, or counts them where the tenant's limits are in shadow mode.

    Each call of a tenant that has limits is told, in trailers, how the one stands that is nearest to being used up.
    """

    name: Final = "rate_limit"

    def __init__(self, limiter: Limiter, clock: Clock, metrics: ServerMetrics) -> None:
        self._limiter = limiter
        self._clock = clock
        self._metrics = metrics

    def wrap(self, method: Method, proceed: Handler) -> Handler:
        method_class = method.policy.method_class
        if method_class is None:
            return proceed
        ask_of = Asks(method, method_class).of
        decide_now, decide = self._limiter.decide_now, self._limiter.decide
        told: tuple[Verdict, Trailers] = (UNLIMITED, ())

        async def limited(request: Any, call: Call) -> bytes | None:
            nonlocal told
            ask = ask_of(call.principal, request)
            verdict = decide_now(ask)
            if verdict is None:
                verdict = await decide(ask)
            if verdict.maximum:
                # Calls that are paid from one lease are told the same.
                if verdict is not told[0]:
                    told = verdict, _trailers(verdict)
                call.tell(told[1])
            if not verdict.allowed:
                shadow = ask.limits.shadow
                self._metrics.refused(call.principal.tier, verdict.refused_by, shadow=shadow)
                if not shadow:
                    raise self._refusal(verdict, ask.limits.limits)
            return await proceed(request, call)

        return limited

    def _refusal(self, verdict: Verdict, limits: Limits) -> MemoroError:
        if verdict.retry_after is not None:
            return rate_limited(verdict, limits)
        # Days begin at whole seconds; what the limiter tells was reckoned a moment ago.
        begin = self._clock.now() + timedelta(seconds=verdict.reset + 0.5)
        return daily_limit(verdict.maximum, begin.replace(microsecond=0))


def _trailers(verdict: Verdict) -> Trailers:
    return (
        (LIMIT, str(verdict.maximum)),
        (REMAINING, str(verdict.remaining)),
        (RESET, str(math.ceil(verdict.reset))),
    )
