"""The task that workers know, and what its messages hold: which jobs wait, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import structlog
from pydantic_core import to_json

from memoro_core.ids import JobId, TenantId, parse_id
from memoro_core.jobs.hints import HINT_SIZE
from memoro_core.jobs.model import JobRef

_log = structlog.get_logger(__name__)
RUN_JOBS: Final = "memoro.run_jobs"
"""The name of the task that runs one attempt of each of a few jobs."""


def encode(refs: Sequence[JobRef]) -> bytes:
    """A task message in Taskiq's JSON form, for 1 to `HINT_SIZE` jobs.

    Made here, because Taskiq's own way takes thirty times as long.
    """
    return to_json(
        {
            "task_id": str(refs[0].job_id),
            "task_name": RUN_JOBS,
            "labels": {},
            "labels_types": {},
            "args": [[[str(ref.tenant_id), str(ref.job_id)] for ref in refs]],
            "kwargs": {},
        }
    )


def decode(jobs: object = None) -> Sequence[JobRef]:
    """The jobs that a message's argument names, each once. What is no pair of ids is left out, and told in the log."""
    if not isinstance(jobs, list) or len(jobs) > HINT_SIZE:
        _log.warning("hint_not_understood")
        return []
    refs = [_ref(job) for job in jobs]
    if None in refs:
        _log.warning("hint_not_understood", jobs=refs.count(None))
    return list(dict.fromkeys(ref for ref in refs if ref is not None))


# The jobs of one tenant come together.
_parse_tenant = lru_cache(maxsize=1024)(parse_id)


def _ref(named: object) -> JobRef | None:
    match named:
        case [str(tenant_id), str(job_id)]:
            tenant, job = _parse_tenant(tenant_id), parse_id(job_id)
            return JobRef(TenantId(tenant), JobId(job)) if tenant and job else None
    return None
