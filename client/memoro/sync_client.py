"""The blocking client: the same calls with the same signatures, made over gRPC's blocking stack."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Self

from memoro.admin import AsyncAdmin
from memoro.billing import AsyncBilling
from memoro.blocking import BlockingTransport, Facade, blocking, iterating, run
from memoro.endpoint import DEFAULT_ENDPOINT, Tls, from_environment, parse_endpoint, waits_from_environment
from memoro.enums import Health, JobKind, JobState
from memoro.errors import MemoroError
from memoro.graph import AsyncGraph
from memoro.health import check_health
from memoro.jobs import AsyncJobHandle, AsyncJobs
from memoro.jobs_watch import AsyncJobsWatch
from memoro.memories import AsyncMemories
from memoro.sync_watch import JobsWatch
from memoro.tenants import AsyncKeys, AsyncTenants
from memoro.tiers import AsyncTiers
from memoro.types import ConversationHandle, Job, MemoryHandle
from memoro.webhooks import AsyncWebhooks


class JobHandle(Facade[AsyncJobHandle]):
    """One job, to be followed to its end."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(self._inner).removeprefix("Async")

    @property
    def id(self) -> str:
        """The job's id."""
        return self._inner.id

    @property
    def latest(self) -> Job | None:
        """The job as it was last seen; None before anything was read."""
        return self._inner.latest

    watch = iterating(AsyncJobHandle.watch)
    result = blocking(AsyncJobHandle.result)
    cancel = blocking(AsyncJobHandle.cancel)
    refresh = blocking(AsyncJobHandle.refresh)

    def retry(self, *, request_id: str | None = None, timeout: float | None = None) -> JobHandle:
        """Does the work of this failed or cancelled job again: a handle on the new job. See `jobs.retry`."""
        return JobHandle(run(self._inner.retry(request_id=request_id, timeout=timeout)))


def _created(handle: MemoryHandle[AsyncJobHandle]) -> MemoryHandle[JobHandle]:
    return MemoryHandle(handle.memory, JobHandle(handle.job))


def _updated(handle: MemoryHandle[AsyncJobHandle | None]) -> MemoryHandle[JobHandle | None]:
    return MemoryHandle(handle.memory, None if handle.job is None else JobHandle(handle.job))


def _batch(
    verdicts: tuple[MemoryHandle[AsyncJobHandle] | MemoroError, ...],
) -> tuple[MemoryHandle[JobHandle] | MemoroError, ...]:
    return tuple(verdict if isinstance(verdict, MemoroError) else _created(verdict) for verdict in verdicts)


def _conversation(handle: ConversationHandle[AsyncJobHandle]) -> ConversationHandle[JobHandle]:
    return ConversationHandle(handle.memories, JobHandle(handle.job))


class Memories(Facade[AsyncMemories]):
    """The memories of the tenant's users."""

    __slots__ = ()

    create = blocking(AsyncMemories.create, _created)
    create_batch = blocking(AsyncMemories.create_batch, _batch)
    add_conversation = blocking(AsyncMemories.add_conversation, _conversation)
    get = blocking(AsyncMemories.get)
    list = iterating(AsyncMemories.list)
    update = blocking(AsyncMemories.update, _updated)
    delete = blocking(AsyncMemories.delete)
    search = blocking(AsyncMemories.search)


class Graph(Facade[AsyncGraph]):
    """The graphs of the tenant's users."""

    __slots__ = ()

    entities = iterating(AsyncGraph.entities)
    entity = blocking(AsyncGraph.entity)
    traverse = blocking(AsyncGraph.traverse)


class Jobs(Facade[AsyncJobs]):
    """The jobs of the tenant."""

    __slots__ = ("_transport",)

    def __init__(self, transport: BlockingTransport) -> None:
        super().__init__(AsyncJobs(transport))
        self._transport = transport

    def handle(self, job_id: str) -> JobHandle:
        """A handle on a job by its id; makes no call."""
        return JobHandle(self._inner.handle(job_id))

    get = blocking(AsyncJobs.get)
    list = iterating(AsyncJobs.list)
    watch = iterating(AsyncJobs.watch)
    cancel = blocking(AsyncJobs.cancel)
    retry = blocking(AsyncJobs.retry, JobHandle)

    def watch_all(
        self,
        *,
        states: Iterable[JobState] = (),
        kinds: Iterable[JobKind] = (),
        user_id: str = "",
        resume_token: str = "",
    ) -> JobsWatch:
        """The updates of all jobs that fit, without end, until another thread or a `with` closes it.

        The arguments and the rest are those of `AsyncJobs.watch_all`.
        """
        return JobsWatch(
            self._transport,
            lambda transport: AsyncJobsWatch(
                transport, states=states, kinds=kinds, user_id=user_id, resume_token=resume_token
            ),
        )


class Billing(Facade[AsyncBilling]):
    """The credits of the caller's tenant; to name another tenant by `tenant_id` takes the scope ADMIN."""

    __slots__ = ()

    balance = blocking(AsyncBilling.balance)
    add_credits = blocking(AsyncBilling.add_credits)
    set_balance = blocking(AsyncBilling.set_balance)
    ledger = iterating(AsyncBilling.ledger)
    usage = blocking(AsyncBilling.usage)
    estimate = blocking(AsyncBilling.estimate)
    estimate_batch = blocking(AsyncBilling.estimate_batch)
    estimate_conversation = blocking(AsyncBilling.estimate_conversation)
    prices = blocking(AsyncBilling.prices)


class Webhooks(Facade[AsyncWebhooks]):
    """The tenant's webhook endpoints and their deliveries."""

    __slots__ = ()

    create = blocking(AsyncWebhooks.create)
    list = iterating(AsyncWebhooks.list)
    delete = blocking(AsyncWebhooks.delete)
    rotate = blocking(AsyncWebhooks.rotate)
    deliveries = iterating(AsyncWebhooks.deliveries)
    redeliver = blocking(AsyncWebhooks.redeliver)


class Tenants(Facade[AsyncTenants]):
    """All tenants."""

    __slots__ = ()

    create = blocking(AsyncTenants.create)
    get = blocking(AsyncTenants.get)
    list = iterating(AsyncTenants.list)
    update = blocking(AsyncTenants.update)
    suspend = blocking(AsyncTenants.suspend)
    resume = blocking(AsyncTenants.resume)


class Keys(Facade[AsyncKeys]):
    """The keys of tenants."""

    __slots__ = ()

    create = blocking(AsyncKeys.create)
    rotate = blocking(AsyncKeys.rotate)
    list = iterating(AsyncKeys.list)
    revoke = blocking(AsyncKeys.revoke)


class Tiers(Facade[AsyncTiers]):
    """What the tenants of each tier may do."""

    __slots__ = ()

    list = blocking(AsyncTiers.list)
    put = blocking(AsyncTiers.put)


class Admin(Facade[AsyncAdmin]):
    """What operators do. A queue is named for the tier whose jobs it holds; "" is all queues."""

    __slots__ = ("keys", "tenants", "tiers")

    def __init__(self, inner: AsyncAdmin) -> None:
        super().__init__(inner)
        self.tenants = Tenants(inner.tenants)
        self.keys = Keys(inner.keys)
        self.tiers = Tiers(inner.tiers)

    workers = blocking(AsyncAdmin.workers)
    pause_queue = blocking(AsyncAdmin.pause_queue)
    resume_queue = blocking(AsyncAdmin.resume_queue)
    requeue_jobs = blocking(AsyncAdmin.requeue_jobs)
    clear_queue = blocking(AsyncAdmin.clear_queue)
    trigger_processing = blocking(AsyncAdmin.trigger_processing)
    audit = iterating(AsyncAdmin.audit)
    ai_costs = blocking(AsyncAdmin.ai_costs)
    breakers = blocking(AsyncAdmin.breakers)
    reset_breaker = blocking(AsyncAdmin.reset_breaker)
    set_budget = blocking(AsyncAdmin.set_budget)
    set_price = blocking(AsyncAdmin.set_price)
    verify_ledger = blocking(AsyncAdmin.verify_ledger)
    test_alert = blocking(AsyncAdmin.test_alert)
    diagnose = blocking(AsyncAdmin.diagnose)


class Client:
    """Calls a Memoro server and waits for the answer; use it as a context manager, or `close` it.

    The arguments are those of `AsyncClient`. Threads may share it. Failed calls raise `MemoroError`.
    """

    def __init__(
        self,
        endpoint: str = DEFAULT_ENDPOINT,
        *,
        api_key: str | None = None,
        tls: Tls | bool | None = None,
        wait_for_limits: bool = True,
    ) -> None:
        self._endpoint = parse_endpoint(endpoint, tls)
        self._transport = BlockingTransport(self._endpoint, api_key, wait_for_limits=wait_for_limits)
        self.memories = Memories(AsyncMemories(self._transport))
        self.graph = Graph(AsyncGraph(self._transport))
        self.jobs = Jobs(self._transport)
        self.billing = Billing(AsyncBilling(self._transport))
        self.webhooks = Webhooks(AsyncWebhooks(self._transport))
        self.admin = Admin(AsyncAdmin(self._transport))

    @classmethod
    def from_env(cls) -> Self:
        """The client for the environment variables that `AsyncClient.from_env` reads."""
        endpoint, api_key, tls = from_environment()
        return cls(endpoint, api_key=api_key, tls=tls, wait_for_limits=waits_from_environment())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._endpoint.address!r})"

    def health(self, service: str = "", *, timeout: float | None = None) -> Health:
        """What the server says of itself, or of one service (`memoro.v1.JobsService`)."""
        return run(check_health(self._transport, service, timeout))

    def close(self) -> None:
        """Ends calls under way and gives up the connection."""
        run(self._transport.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
