"""Administration: tenants and their keys, workers and queues, spending. Every call needs a key with the scope ADMIN."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from datetime import date, datetime

from memoro import convert, convert_billing, methods, paging, requests, wire
from memoro.enums import AiOperation, AlertSeverity, BudgetScope, DiagnosisStatus, JobKind, JobState
from memoro.tenants import AsyncKeys, AsyncTenants
from memoro.tiers import AsyncTiers
from memoro.transport import Transport
from memoro.types import (
    AiCosts,
    AlertChannelResult,
    AuditEvent,
    ClearResult,
    Diagnosis,
    LedgerVerification,
    Price,
    ProcessingStatus,
    QueueStatus,
    RequeueResult,
    SpendBreaker,
    TriggerResult,
)
from memoro.v1 import admin_service_pb2


class AsyncAdmin:
    """What operators do. A queue is named for the tier whose jobs it holds; "" is all queues."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.tenants = AsyncTenants(transport)
        self.keys = AsyncKeys(transport)
        self.tiers = AsyncTiers(transport)

    async def workers(self, *, timeout: float | None = None) -> ProcessingStatus:
        """Which workers run, since when and on what, and how the queues stand."""
        response = await self._transport.unary(methods.GET_WORKERS, admin_service_pb2.GetWorkersRequest(), timeout)
        return ProcessingStatus(
            workers=tuple(convert.worker(one) for one in response.workers), queues=convert.queues(response.queues)
        )

    async def pause_queue(
        self, queue: str = "", *, request_id: str | None = None, timeout: float | None = None
    ) -> tuple[QueueStatus, ...]:
        """Begins no more jobs of a queue, within a second everywhere; what runs goes on. Returns all queues."""
        request = admin_service_pb2.PauseQueueRequest(request_id=requests.request_id_or_new(request_id), queue=queue)
        return convert.queues((await self._transport.unary(methods.PAUSE_QUEUE, request, timeout)).queues)

    async def resume_queue(
        self, queue: str = "", *, request_id: str | None = None, timeout: float | None = None
    ) -> tuple[QueueStatus, ...]:
        """Lets a paused queue run again. Returns all queues."""
        request = admin_service_pb2.ResumeQueueRequest(request_id=requests.request_id_or_new(request_id), queue=queue)
        return convert.queues((await self._transport.unary(methods.RESUME_QUEUE, request, timeout)).queues)

    async def requeue_jobs(
        self,
        *,
        tenant_id: str = "",
        states: Iterable[JobState] = (),
        kinds: Iterable[JobKind] = (),
        reason: str = "",
        ended_from: datetime | None = None,
        ended_until: datetime | None = None,
        limit: int = 0,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> RequeueResult:
        """Does the work of ended jobs again, each as a new job, oldest first; all that is given must hold.

        `states` are FAILED, the default, and CANCELLED; `reason` is that of the error; at most `limit` jobs, 0 for
        1,000, up to 10,000. A job is never requeued twice.
        """
        request = admin_service_pb2.RequeueJobsRequest(
            request_id=requests.request_id_or_new(request_id),
            tenant_id=tenant_id,
            states=[wire.enum_number(JobState, state) for state in states],
            kinds=[wire.enum_number(JobKind, kind) for kind in kinds],
            reason=reason,
            ended_from=wire.timestamp("ended_from", ended_from),
            ended_until=wire.timestamp("ended_until", ended_until),
            limit=limit,
        )
        response = await self._transport.unary(methods.REQUEUE_JOBS, request, timeout)
        return RequeueResult(response.requeued, response.skipped, response.more)

    async def clear_queue(
        self,
        queue: str = "",
        *,
        tenant_id: str = "",
        all_tenants: bool = False,
        kinds: Iterable[JobKind] = (),
        deferred: bool = False,
        limit: int = 0,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> ClearResult:
        """Cancels jobs that wait, with `deferred` also those put off, oldest first; what runs goes on.

        Name a queue or a tenant, or say `all_tenants`; all that is given must hold. At most `limit` jobs, 0 for 1,000,
        up to 10,000.
        """
        request = admin_service_pb2.ClearQueueRequest(
            request_id=requests.request_id_or_new(request_id),
            queue=queue,
            tenant_id=tenant_id,
            all_tenants=all_tenants,
            kinds=[wire.enum_number(JobKind, kind) for kind in kinds],
            deferred=deferred,
            limit=limit,
        )
        response = await self._transport.unary(methods.CLEAR_QUEUE, request, timeout)
        return ClearResult(response.cancelled, response.more)

    async def trigger_processing(
        self, tenant_id: str = "", *, request_id: str | None = None, timeout: float | None = None
    ) -> TriggerResult:
        """Lets jobs that are put off or between two attempts run now, of one tenant or of all."""
        request = admin_service_pb2.TriggerProcessingRequest(
            request_id=requests.request_id_or_new(request_id), tenant_id=tenant_id
        )
        response = await self._transport.unary(methods.TRIGGER_PROCESSING, request, timeout)
        return TriggerResult(response.released, response.due)

    def audit(
        self,
        *,
        tenant_id: str = "",
        method: str = "",
        from_time: datetime | None = None,
        until_time: datetime | None = None,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[AuditEvent, None]:
        """What operators did or tried, and what was done to credentials, newest first; all that is given must hold.

        `method` is `AdminService/CreateApiKey`; `until_time` itself is not in.
        """
        return paging.items(
            self._transport,
            methods.LIST_AUDIT_EVENTS,
            admin_service_pb2.ListAuditEventsRequest(
                tenant_id=tenant_id,
                method=method,
                from_time=wire.timestamp("from_time", from_time),
                until_time=wire.timestamp("until_time", until_time),
            ),
            lambda response: response.events,
            convert.audit_event,
            limit=limit,
            timeout=timeout,
        )

    async def ai_costs(
        self, day: date | None = None, *, tenant_id: str = "", recent: int = 0, timeout: float | None = None
    ) -> AiCosts:
        """What a day's AI work has cost, of one tenant or of all; with the latest calls, 20 unless `recent` says more.

        None: today. Days are those of the deployment's time zone. At most 100 calls are told.
        """
        request = admin_service_pb2.GetAiCostsRequest(
            date="" if day is None else day.isoformat(), tenant_id=tenant_id, recent=recent
        )
        return convert_billing.ai_costs(await self._transport.unary(methods.GET_AI_COSTS, request, timeout))

    async def breakers(self, tenant_id: str = "", *, timeout: float | None = None) -> tuple[SpendBreaker, ...]:
        """How the daily budgets stand: the deployment's, and a tenant's with those of its users.

        Without a tenant: the deployment's, and all that are not CLOSED.
        """
        request = admin_service_pb2.GetCircuitBreakerRequest(tenant_id=tenant_id)
        response = await self._transport.unary(methods.GET_CIRCUIT_BREAKER, request, timeout)
        return tuple(convert_billing.breaker(one) for one in response.breakers)

    async def reset_breaker(
        self,
        scope: BudgetScope,
        *,
        tenant_id: str = "",
        user_id: str = "",
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> SpendBreaker:
        """Gives a budget as much again as it has for a day, and lets jobs that wait for it run as far as they fit.

        Raises NotFound where there is no such budget.
        """
        request = admin_service_pb2.ResetCircuitBreakerRequest(
            request_id=requests.request_id_or_new(request_id),
            scope=wire.enum_number(BudgetScope, scope),
            tenant_id=tenant_id,
            user_id=user_id,
        )
        response = await self._transport.unary(methods.RESET_CIRCUIT_BREAKER, request, timeout)
        return convert_billing.breaker(response.breaker)

    async def set_budget(
        self,
        scope: BudgetScope,
        limit: int | None,
        *,
        tenant_id: str = "",
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> SpendBreaker | None:
        """Sets what may be spent in a day, in micro-credits; None: there is no limit, and so is what it returns.

        With USER it is the limit of each single user of the tenant. What is committed today counts against it.
        """
        request = admin_service_pb2.SetBudgetRequest(
            request_id=requests.request_id_or_new(request_id),
            scope=wire.enum_number(BudgetScope, scope),
            tenant_id=tenant_id,
            limit=limit,
        )
        response = await self._transport.unary(methods.SET_BUDGET, request, timeout)
        return convert_billing.breaker(response.breaker) if response.HasField("breaker") else None

    async def set_price(
        self,
        provider: str,
        model: str,
        operation: AiOperation,
        *,
        input_price: int = 0,
        output_price: int = 0,
        fee: int = 0,
        valid_from: datetime | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Price:
        """Sets what an operation of a model costs from a time on; None: from now on, within two seconds everywhere.

        Prices are those of the provider for a million tokens, in micro-dollars; the fee is for each text, in
        micro-credits, without margin.
        """
        request = admin_service_pb2.SetPriceRequest(
            request_id=requests.request_id_or_new(request_id),
            provider=provider,
            model=model,
            operation=wire.enum_number(AiOperation, operation),
            input_price=input_price,
            output_price=output_price,
            fee=fee,
            valid_from=wire.timestamp("valid_from", valid_from),
        )
        return convert_billing.price((await self._transport.unary(methods.SET_PRICE, request, timeout)).price)

    async def verify_ledger(
        self,
        tenant_id: str,
        *,
        after_sequence: int = 0,
        after_hash: bytes = b"",
        timeout: float | None = None,
    ) -> LedgerVerification:
        """Checks a ledger: the chain of its hashes, that each entry sums to zero, and the balance. Raises NotFound.

        Calls until all of it is checked, each for at most `timeout` seconds. May go on after an entry that was checked
        before: `entries` and `head_hash` of what was found then.
        """
        while True:
            request = admin_service_pb2.VerifyLedgerRequest(
                tenant_id=tenant_id, after_sequence=after_sequence, after_hash=after_hash
            )
            response = await self._transport.unary(methods.VERIFY_LEDGER, request, timeout)
            if response.complete or not response.valid or response.entries <= after_sequence:
                return convert_billing.ledger_verification(response)
            after_sequence, after_hash = response.entries, response.head_hash

    async def test_alert(
        self,
        severity: AlertSeverity | None = None,
        *,
        message: str = "",
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> tuple[AlertChannelResult, ...]:
        """Sends an alert over each channel that is set up, and tells what came of it. None: WARNING."""
        request = admin_service_pb2.SendTestAlertRequest(
            request_id=requests.request_id_or_new(request_id),
            severity=wire.enum_number(AlertSeverity, severity),
            message=message,
        )
        response = await self._transport.unary(methods.SEND_TEST_ALERT, request, timeout)
        return tuple(AlertChannelResult(one.channel, one.delivered, one.problem) for one in response.results)

    async def diagnose(self, *, timeout: float | None = None) -> tuple[Diagnosis, ...]:
        """Looks at the deployment: roles, row-level security, TLS, keys, versions, clocks. The worst first."""
        request = admin_service_pb2.DiagnoseDeploymentRequest()
        response = await self._transport.unary(methods.DIAGNOSE_DEPLOYMENT, request, timeout)
        return tuple(
            Diagnosis(one.check, wire.enum_of(DiagnosisStatus, one.status), one.message) for one in response.diagnoses
        )
