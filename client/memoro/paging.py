"""Walks the pages of a list."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, TypeVar

from memoro.methods import Method
from memoro.transport import Transport

I = TypeVar("I")  # noqa: E741 - an item
T = TypeVar("T")

_LARGEST_PAGE = 500


async def items(
    transport: Transport,
    method: Method[Any, Any],
    request: Any,
    items_of: Callable[[Any], Sequence[I]],
    convert: Callable[[I], T],
    *,
    limit: int | None,
    largest_page: int = _LARGEST_PAGE,
    timeout: float | None = None,
) -> AsyncGenerator[T, None]:
    """The items of all pages, one call per page as they are needed, at most `limit`; `timeout` is for each page."""
    if limit is not None and limit < 0:
        raise ValueError("limit: must not be negative")
    left = limit
    while left is None or left > 0:
        # No page is larger than what is still wanted.
        request.page_size = 0 if left is None else min(left, largest_page)
        response = await transport.unary(method, request, timeout)
        page = items_of(response)
        for item in page if left is None else page[:left]:
            yield convert(item)
        if left is not None:
            left -= len(page)
        if not response.next_page_token:
            return
        request.page_token = response.next_page_token
