"""Page requests and page tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from google.protobuf.message import Message

from memoro_core.paging import decode_token, encode_token, page_size
from memoro_server.call import Call


class _PageRequest(Protocol):
    @property
    def page_size(self) -> int: ...
    @property
    def page_token(self) -> str: ...


class PageSpot:
    """Which page a list request asks for: how many items at most, and after which position.

    Its tokens are bound to the tenant, the method and the filter. Raises INVALID_FIELD and PAGE_TOKEN_INVALID.
    """

    __slots__ = ("_key", "position", "size")

    def __init__(
        self, request: _PageRequest, call: Call, *, default: int | None = None, maximum: int | None = None
    ) -> None:
        assert isinstance(request, Message)
        limits = {} if default is None or maximum is None else {"default": default, "maximum": maximum}
        self.size = page_size(request.page_size, **limits)
        self._key = _list_key(request, call)
        self.position = decode_token(self._key, request.page_token)

    def token(self, position: Sequence[str] | None) -> str:
        """The token of the page after this one; empty for None."""
        return encode_token(self._key, position)


def _list_key(request: Message, call: Call) -> str:
    the_filter = type(request)()
    the_filter.CopyFrom(request)
    the_filter.ClearField("page_size")
    the_filter.ClearField("page_token")
    return f"{call.tenant_id}{call.method.path}{the_filter.SerializeToString(deterministic=True).hex()}"
