"""What people read: all that matters, on lines of its own, whatever it is made of."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from memoro_core.alerts.model import Severity
from memoro_core.alerts.wording import MAX_LINES, MAX_TITLE, MAX_VALUE, body, mrkdwn, one_line, subject
from memoro_core.ids import TenantId
from tests.support.alerts import make_alert

TENANT = TenantId(UUID("0199a0a0-0000-7000-8000-000000000001"))
AT = datetime(2025, 3, 4, 12, tzinfo=UTC)


def test_an_alert_as_text() -> None:
    alert = make_alert(
        tenant=TENANT,
        severity=Severity.CRITICAL,
        title="The budget is used up.",
        now=AT,
        details={"percent": 100, "user_id": "ann", "note": "", "spent": 0, "paused": False, "until": None},
    )
    assert subject(alert) == "[Memoro] CRITICAL: The budget is used up."
    assert body(alert) == (
        "The budget is used up.\n\npercent: 100\nuser_id: ann\nspent: 0\npaused: false\nkind: budget.threshold\n"
        f"tenant: {TENANT}\nraised: 2025-03-04T12:00:00Z\nalert: {alert.id}\n"
    )
    assert mrkdwn(alert).startswith("*CRITICAL* The budget is used up.\n> percent: 100\n> user_id: ann\n")


def test_an_alert_of_the_deployment_names_no_tenant() -> None:
    assert "tenant:" not in body(make_alert())


@given(st.text(), st.dictionaries(st.text(), st.text() | st.integers(), max_size=60))
def test_nothing_makes_lines_or_addresses_anybody_or_goes_on_for_ever(
    title: str, details: dict[str, str | int]
) -> None:
    alert = make_alert(title=title, details=dict(details))
    assert len(subject(alert).splitlines()) == 1
    assert len(mrkdwn(alert).split("\n")) == min(sum(value != "" for value in details.values()), MAX_LINES) + 4
    assert len(body(alert)) < MAX_TITLE + (MAX_LINES + 4) * (2 * MAX_VALUE + 3)
    quoted = mrkdwn(alert).replace("\n> ", "\n")
    assert "<" not in quoted
    assert ">" not in quoted


@given(st.text(), st.integers(2, 50))
def test_one_line_is_one_line_and_no_longer(text: str, limit: int) -> None:
    line = one_line(text, limit)
    assert len(line) <= limit
    assert len(line.splitlines()) <= 1
