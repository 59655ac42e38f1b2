"""What a worker process tells Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class WorkerMetrics:
    """The figures of one process, in a registry of their own."""

    def __init__(self, running: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self.attempts = Counter(
            "memoro_job_attempts_total", "Attempts that ended here, by state", ["state"], registry=self.registry
        )
        self.seconds = Histogram(
            "memoro_job_attempt_seconds",
            "How long attempts took",
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
            registry=self.registry,
        )
        self.hints = Counter(
            "memoro_job_hints_total", "Hints read, by whether they led to a run", ["outcome"], registry=self.registry
        )
        self.webhook_attempts = Counter(
            "memoro_webhook_attempts_total",
            "Attempts to deliver an event, by the state they left the delivery in",
            ["state"],
            registry=self.registry,
        )
        self.alert_attempts = Counter(
            "memoro_alert_attempts_total",
            "Attempts to send an alert, by the state they left it in",
            ["state"],
            registry=self.registry,
        )
        self.leads = Gauge("memoro_scheduler_leads", "1 while this process schedules", registry=self.registry)
        Gauge("memoro_jobs_running", "Jobs that run here", registry=self.registry).set_function(running)
