"""What the server counts and measures."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from memoro_core.limits.counts import LimitCounts

_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)


class MethodMetrics:
    """The numbers of one method, found once and kept: finding them costs more than counting."""

    __slots__ = ("_by_code", "_calls", "_method", "_seconds")

    def __init__(self, method: str, calls: Counter, seconds: Histogram) -> None:
        self._method = method
        self._calls = calls
        self._by_code: dict[str, Counter] = {}
        self._seconds = seconds.labels(method=method)

    def record(self, code: str, seconds: float) -> None:
        """Counts a call that has ended with the status of that name."""
        counter = self._by_code.get(code)
        if counter is None:
            counter = self._by_code[code] = self._calls.labels(method=self._method, code=code)
        counter.inc()
        self._seconds.observe(seconds)


class ServerMetrics:
    """All numbers of a server process, in a registry of its own.

    With PROMETHEUS_MULTIPROC_DIR set before the start, several processes keep theirs where one of them can add them up.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._calls = Counter(
            "memoro_server_calls", "Calls that have ended.", ("method", "code"), registry=self.registry
        )
        self._seconds = Histogram(
            "memoro_server_call_seconds", "How long calls took.", ("method",), buckets=_BUCKETS, registry=self.registry
        )
        self.in_flight = Gauge(
            "memoro_server_calls_in_flight",
            "Calls under way, open streams among them.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self._refused = Counter(
            "memoro_limits_refused",
            "Calls beyond a limit: refused, or in shadow mode let pass.",
            ("tier", "limit", "mode"),
            registry=self.registry,
        )
        self._decisions = Counter(
            "memoro_limits_decisions",
            "Calls decided about: by leases, by the buckets in Redis, or by this process alone.",
            ("by",),
            registry=self.registry,
        )
        self._told = LimitCounts()
        self._breaker_open = Gauge(
            "memoro_limits_breaker_open",
            "1 while limits are kept without Redis; of several processes, how many do.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.database_connections = Gauge(
            "memoro_database_connections",
            "Connections of the pool to PostgreSQL: open, and of these lent at the moment.",
            ("state",),
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.loop_lag = Gauge(
            "memoro_event_loop_lag_seconds",
            "By how much the event loop was last late; of several processes, the latest.",
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self.serving = Gauge(
            "memoro_server_serving",
            "1 while the server takes calls; of several processes, how many do.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )

    def of_method(self, path: str) -> MethodMetrics:
        """The numbers of one method."""
        return MethodMetrics(path, self._calls, self._seconds)

    def refused(self, tier: str, limit: str, *, shadow: bool) -> None:
        """Counts a call that was beyond a limit of its tenant's tier."""
        self._refused.labels(tier=tier, limit=limit, mode="shadow" if shadow else "refuse").inc()

    def limits(self, counts: LimitCounts) -> None:
        """Takes over what the limiter has counted since the last time."""
        told = self._told
        for by, before, now in (
            ("lease", told.leased, counts.leased),
            ("redis", told.shared, counts.shared),
            ("local", told.local, counts.local),
        ):
            self._decisions.labels(by=by).inc(now - before)
        told.leased, told.shared, told.local = counts.leased, counts.shared, counts.local
        self._breaker_open.set(counts.away)
