"""Turns what the SDK raises into errors of ours, without a word of the key or the prompt."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError

from memoro_core.errors import ProviderError

MAX_RETRY_AFTER: Final = 3600.0
_RETRYABLE_STATUSES: Final = frozenset({408, 409, 425, 429})
_NOT_SENT: Final = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout"})
"""Causes of failures that leave no doubt that the provider was not asked. By name: which library they are from depends
on the version of the SDK."""
_CODE: Final = re.compile(r"[a-z][a-z0-9_.-]{0,63}", re.IGNORECASE)


class RejectedError(ProviderError):
    """The provider refused the request as such (400, 413, 422): one of its inputs is to blame."""


def provider_error(error: Exception) -> ProviderError:
    """The error to raise in place of the SDK's. Its text names the status and the provider's error code only.

    A status other than 200 is an answer for which nothing is charged; what is sent and not answered is unaccounted.
    """
    sent = type(error.__cause__).__name__ not in _NOT_SENT
    if isinstance(error, TimeoutError | APITimeoutError):
        return ProviderError("the model provider did not answer in time", retryable=True, unaccounted=sent)
    if isinstance(error, APIConnectionError):
        return ProviderError("the connection to the model provider failed", retryable=True, unaccounted=sent)
    if isinstance(error, APIStatusError):
        return _status_error(error)
    if isinstance(error, APIError):
        return invalid_response("it could not be read", unaccounted=True)
    return ProviderError(f"the model provider's client failed: {type(error).__name__}", retryable=False)


def invalid_response(problem: str, *, unaccounted: bool = False) -> ProviderError:
    """The provider answered, but not what was asked for; `unaccounted`: so that what it used can't be read either."""
    return ProviderError(
        f"the model provider sent an invalid response: {problem}", retryable=False, unaccounted=unaccounted
    )


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """How many seconds the provider asks to wait: `retry-after-ms`, or `retry-after` in seconds or as an HTTP date.

    At least 0 and at most an hour; None when it does not say, or nothing that can be read.
    """
    for name, divisor in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) / divisor
        except (KeyError, ValueError):
            continue
        return min(max(seconds, 0.0), MAX_RETRY_AFTER) if math.isfinite(seconds) else None
    try:
        moment = parsedate_to_datetime(headers["retry-after"])
    except (KeyError, ValueError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max((moment - now).total_seconds(), 0.0), MAX_RETRY_AFTER)


def _status_error(error: APIStatusError) -> ProviderError:
    status = error.status_code
    code = error.code if isinstance(error.code, str) and _CODE.fullmatch(error.code) else None
    text = f"the model provider answered {status}" + (f" ({code})" if code else "")
    metadata = {"http_status": str(status)} | ({"provider_code": code} if code else {})
    if status in {400, 413, 422}:
        return RejectedError(text, retryable=False, metadata=metadata)
    retryable = status in _RETRYABLE_STATUSES or status >= 500
    wait = retry_after(error.response.headers, datetime.now(UTC)) if retryable else None
    return ProviderError(text, retryable=retryable, retry_after=wait, metadata=metadata)
