"""The data directory: one Memoro at a time, told apart from a second by a lock that dies with its holder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from memoro_core.embedded.errors import DataDirInUseError, DataDirUnusableError


@contextmanager
def held_data_dir(path: Path) -> Iterator[Path]:
    """Make the directory if need be and hold it exclusively; yields it with symbolic links resolved.

    Raises `DataDirInUseError`, naming the process that holds it, and `DataDirUnusableError`.
    """
    directory = path.expanduser().resolve()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise DataDirUnusableError(f"{directory}: {error.strerror}") from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise DataDirUnusableError(f"{directory}: not writable by this user")
    holder = directory / "holder"
    lock = FileLock(directory / "lock", thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        who = holder.read_text().strip() if holder.exists() else "unknown"
        raise DataDirInUseError(f"({directory} is held by process {who}.)") from None
    try:
        holder.write_text(f"{os.getpid()}\n")
        yield directory
    finally:
        holder.unlink(missing_ok=True)
        lock.release()
