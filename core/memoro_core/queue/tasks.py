"""The task that workers know, and what its messages hold: which job waits, and nothing else."""

from __future__ import annotations

from typing import Final

from pydantic_core import to_json

from memoro_core.ids import JobId, TenantId, parse_id
from memoro_core.jobs.model import JobRef

RUN_JOB: Final = "memoro.run_job"
"""The name of the task that runs one attempt of a job."""
FIELD: Final = b"data"
"""Where in a stream's entry the message is."""


def encode(ref: JobRef) -> bytes:
    """A task message in Taskiq's JSON form. Made here, because Taskiq's own way takes thirty times as long."""
    job_id = str(ref.job_id)
    return to_json(
        {
            "task_id": job_id,
            "task_name": RUN_JOB,
            "labels": {},
            "labels_types": {},
            "args": [str(ref.tenant_id), job_id],
            "kwargs": {},
        }
    )


def decode(tenant_id: str, job_id: str) -> JobRef | None:
    """The job that a message's arguments name; None for what is no id."""
    tenant, job = parse_id(tenant_id), parse_id(job_id)
    return JobRef(TenantId(tenant), JobId(job)) if tenant and job else None
