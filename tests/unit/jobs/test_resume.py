"""Resume tokens."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoro_core.errors import Code, MemoroError, Reason
from memoro_core.ids import JobId, TenantId
from memoro_core.jobs.model import JobRef
from memoro_core.jobs.resume import sequence_of, token

REF = JobRef(TenantId(uuid4()), JobId(uuid4()))


@given(st.uuids(), st.uuids(), st.integers(0, 2**48 - 1))
def test_a_token_leads_back_to_its_place(tenant: UUID, job: UUID, seq: int) -> None:
    ref = JobRef(TenantId(tenant), JobId(job))
    made = token(ref, seq)
    assert sequence_of(ref, made) == seq
    assert len(made) == 20
    assert str(job)[:8] not in made


@pytest.mark.parametrize(
    "other", [JobRef(REF.tenant_id, JobId(uuid4())), JobRef(TenantId(uuid4()), REF.job_id)], ids=["job", "tenant"]
)
def test_a_token_fits_no_other_job(other: JobRef) -> None:
    with pytest.raises(MemoroError) as refused:
        sequence_of(other, token(REF, 7))
    assert (refused.value.code, refused.value.reason) == (Code.INVALID_ARGUMENT, Reason.RESUME_TOKEN_INVALID)
    assert refused.value.violations[0].field == "resume_token"


@given(st.text(min_size=1, max_size=300))
def test_no_other_text_is_a_token(text: str) -> None:
    with pytest.raises(MemoroError) as refused:
        sequence_of(REF, text)
    assert refused.value.reason is Reason.RESUME_TOKEN_INVALID


def test_a_token_that_was_changed_or_cut_is_refused() -> None:
    made = token(REF, 7)
    for broken in (made[:-1], made[1:], made + "AAAA", "A" + made[1:], made.lower(), made + "\n"):
        with pytest.raises(MemoroError):
            sequence_of(REF, broken)
