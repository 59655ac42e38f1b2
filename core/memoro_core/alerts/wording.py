"""What people read of an alert. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC
from typing import Final

from pydantic import JsonValue

from memoro_core.alerts.model import Alert

MAX_TITLE: Final = 500
"""Characters of a title that are shown."""
MAX_VALUE: Final = 200
"""Characters of a figure or an id that are shown."""
MAX_LINES: Final = 40
"""Details that are shown."""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def one_line(text: str, limit: int) -> str:
    """The text without line breaks and other control characters, cut to so many characters."""
    plain = _CONTROL.sub(" ", text).strip()
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"


def subject(alert: Alert) -> str:
    """One line that says how urgent it is, and what it is."""
    return f"[Memoro] {alert.severity}: {one_line(alert.title, MAX_TITLE)}"


def body(alert: Alert) -> str:
    """The whole alert as plain text."""
    facts = "\n".join(f"{name}: {value}" for name, value in _facts(alert))
    return f"{one_line(alert.title, MAX_TITLE)}\n\n{facts}\n"


def mrkdwn(alert: Alert) -> str:
    """The whole alert in Slack's markup; nothing in it addresses anybody or links anywhere."""
    facts = "\n".join(f"> {_escaped(name)}: {_escaped(value)}" for name, value in _facts(alert))
    return f"*{alert.severity}* {_escaped(one_line(alert.title, MAX_TITLE))}\n{facts}"


def _facts(alert: Alert) -> Iterator[tuple[str, str]]:
    given = [(name, value) for name, value in alert.details.items() if value not in (None, "")]
    for name, value in given[:MAX_LINES]:
        yield one_line(name, MAX_VALUE), one_line(_shown(value), MAX_VALUE)
    yield "kind", alert.kind
    if alert.tenant_id.int:
        yield "tenant", str(alert.tenant_id)
    yield "raised", alert.created_at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    yield "alert", str(alert.id)


def _shown(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
