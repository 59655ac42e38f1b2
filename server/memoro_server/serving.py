"""Whether the server takes calls."""

from __future__ import annotations

import asyncio


class Serving:
    """Whether the server takes calls, and when that changes. It begins as not serving; once closed, it stays so."""

    def __init__(self) -> None:
        self._value = False
        self._closed = False
        self._changed = asyncio.Event()

    def __bool__(self) -> bool:
        return self._value

    @property
    def closed(self) -> bool:
        """Whether the server is on its way out."""
        return self._closed

    def set(self, value: bool) -> None:
        """Tells everyone who waits, if this is a change."""
        if not self._closed:
            self._set(value)

    def close(self) -> None:
        """Not serving, for good."""
        self._closed = True
        self._set(False)

    def next_change(self) -> asyncio.Event:
        """Is set with the next change. Take it before reading the value, and no change is missed."""
        return self._changed

    def _set(self, value: bool) -> None:
        if value != self._value:
            self._value = value
            self._changed.set()
            self._changed = asyncio.Event()
