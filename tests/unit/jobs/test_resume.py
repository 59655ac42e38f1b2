"""Resume tokens."""

from __future__ import annotations

import base64
from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoro_core.errors import Code, MemoroError, Reason
from memoro_core.ids import JobId, TenantId, UserId
from memoro_core.jobs.feed_ports import FeedFilter, FeedOrigin, FeedPosition, before_transaction
from memoro_core.jobs.model import JobKind, JobRef, JobState
from memoro_core.jobs.resume import FeedSpot, FeedTokens, sequence_of, token

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
    for broken in (
        made[:-1],
        made[1:],
        made + "AAAA",
        ("B" if made[0] == "A" else "A") + made[1:],
        made.swapcase(),
        made + "\n",
    ):
        with pytest.raises(MemoroError):
            sequence_of(REF, broken)


BIGINT = st.integers(0, 2**63 - 1)
SPOTS = st.builds(
    FeedSpot,
    st.builds(FeedPosition, BIGINT, st.uuids(), BIGINT),
    st.builds(FeedOrigin, BIGINT, BIGINT),
    st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)),
)
FILTERS = (
    FeedFilter(),
    FeedFilter(states=frozenset({JobState.FAILED})),
    FeedFilter(states=frozenset({JobState.FAILED, JobState.SUCCEEDED})),
    FeedFilter(kinds=frozenset({JobKind.MEMORY_ENRICH})),
    FeedFilter(user_id=UserId("FAILED")),
)
TENANTS = (REF.tenant_id, TenantId(uuid4()))


@given(st.uuids(), SPOTS)
def test_a_token_of_a_feed_leads_back_to_its_spot(tenant: UUID, spot: FeedSpot) -> None:
    tokens = FeedTokens(TenantId(tenant), FILTERS[1])
    made = tokens.token(spot)
    assert tokens.spot(made) == spot
    assert len(made) == 92


@given(BIGINT, st.uuids())
def test_a_token_among_the_snapshots_knows_how_far_they_are_told(transaction_id: int, job: UUID) -> None:
    spot = FeedSpot(
        before_transaction(transaction_id),
        FeedOrigin(1, 2),
        datetime(2026, 1, 1, tzinfo=UTC),
        snapshots_after=JobId(job),
    )
    tokens = FeedTokens(REF.tenant_id, FILTERS[0])
    assert tokens.spot(tokens.token(spot)) == spot


def test_a_token_of_a_feed_fits_no_other_tenant_or_filter() -> None:
    spot = FeedSpot(before_transaction(7), FeedOrigin(1, 2), datetime(2026, 1, 1, tzinfo=UTC))
    all_tokens = [FeedTokens(tenant, one) for tenant in TENANTS for one in FILTERS]
    for maker in all_tokens:
        for reader in all_tokens:
            if reader is not maker:
                with pytest.raises(MemoroError) as refused:
                    reader.spot(maker.token(spot))
                assert refused.value.reason is Reason.RESUME_TOKEN_INVALID


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode()


@given(st.text(min_size=1, max_size=300) | st.binary(min_size=69, max_size=69).map(b64))
def test_no_other_text_is_a_token_of_a_feed(text: str) -> None:
    with pytest.raises(MemoroError) as refused:
        FeedTokens(REF.tenant_id, FILTERS[0]).spot(text)
    assert refused.value.reason is Reason.RESUME_TOKEN_INVALID


@given(st.binary(min_size=57, max_size=57))
def test_whatever_stands_behind_the_digest_is_read_or_refused(rest: bytes) -> None:
    tokens = FeedTokens(REF.tenant_id, FILTERS[0])
    digest = base64.urlsafe_b64decode(
        tokens.token(FeedSpot(before_transaction(7), FeedOrigin(1, 2), datetime(2026, 1, 1, tzinfo=UTC)))
    )[:12]
    with suppress(MemoroError):
        spot = tokens.spot(b64(digest + rest))
        assert max(spot.position.transaction_id, spot.position.seq) < 2**63
