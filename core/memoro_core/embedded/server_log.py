"""The log file of a server: what it says on standard output and error."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LARGEST = 16 * 1024 * 1024
TAIL = 4_000


class ServerLog:
    """A file that is appended to, put aside as `….1` at a start when it has become large."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._begin = 0

    def begin(self) -> None:
        """From here on it is about a new start."""
        size = self.file.stat().st_size if self.file.exists() else 0
        if size > LARGEST:
            self.file.replace(self.file.with_suffix(".log.1"))
            size = 0
        self._begin = size

    @contextmanager
    def open(self) -> Iterator[int]:
        """A file descriptor that appends to it, for a child's output."""
        descriptor = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def tail(self) -> str:
        """The end of what was written since the start began, at most 4,000 bytes."""
        if not self.file.exists():
            return ""
        with self.file.open("rb") as stream:
            end = stream.seek(0, os.SEEK_END)
            stream.seek(max(self._begin, end - TAIL))
            return stream.read().decode(errors="replace").strip()
