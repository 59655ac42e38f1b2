"""What operators do with alerts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog
from pydantic import TypeAdapter

from memoro_core.alerts.model import Alert, AlertKind, ChannelResult, Severity
from memoro_core.alerts.routing import AlertRouter
from memoro_core.billing.model import DEPLOYMENT
from memoro_core.clock import Clock
from memoro_core.errors import Code, MemoroError, Reason
from memoro_core.idempotency import Idempotency
from memoro_core.ids import AlertId, new_id
from memoro_core.jobs.operation_ports import AnswerStore
from memoro_core.tenancy.model import Principal

TEST_TITLE: Final = "This is a test: alerts arrive here."
_RESULTS: Final = TypeAdapter(list[ChannelResult])
_log: Final = structlog.get_logger(__name__)


class AlertService:
    """Alerts as operators ask for them; callers have shown the scope admin."""

    def __init__(self, router: AlertRouter, answers: AnswerStore, clock: Clock) -> None:
        self._router = router
        self._answers = answers
        self._clock = clock

    async def send_test(
        self,
        principal: Principal,
        severity: Severity = Severity.WARNING,
        message: str = "",
        *,
        idempotency: Idempotency | None = None,
    ) -> Sequence[ChannelResult]:
        """Sends an alert from here and now; a result per channel, the log's first, then in the order of the settings.

        A repeated request sends nothing, and tells what came of it the first time. Raises REQUEST_ID_REUSED, and
        UNAVAILABLE while the first one is under way, or when there is a request id and the database is away.
        """
        now = self._clock.now()
        if idempotency is not None:
            answer = await self._answers.claim(principal.tenant_id, idempotency, now=now)
            if answer is not None:
                if "results" not in answer:
                    raise _under_way(idempotency.request_id)
                return _RESULTS.validate_python(answer["results"])
        alert = Alert(
            id=AlertId(new_id()),
            tenant_id=DEPLOYMENT,
            dedupe_key="",
            kind=AlertKind.TEST,
            severity=severity,
            title=message or TEST_TITLE,
            created_at=now,
            details=principal.credential,
        )
        results = await self._router.send(alert)
        _log.info(
            "test_alert_sent",
            **principal.credential,
            delivered=[result.channel for result in results if result.delivered],
            failed=[result.channel for result in results if result.failed],
        )
        if idempotency is not None:
            told = {"results": _RESULTS.dump_python(list(results), mode="json")}
            await self._answers.answer(principal.tenant_id, idempotency, told)
        return results


def _under_way(request_id: str) -> MemoroError:
    """UNAVAILABLE: the same request is being worked on, or whoever did so is gone."""
    return MemoroError(
        Code.UNAVAILABLE,
        Reason.DEPENDENCY_UNAVAILABLE,
        f"the alert of request id {request_id} is being sent: ask again; if that goes on, use a new id",
        metadata={"dependency": "alerts"},
        retry_after=1.0,
    )
