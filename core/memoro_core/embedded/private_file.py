"""Files that only their owner may read, written whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_private(file: Path, text: str) -> None:
    """Replace the file by one of mode 0600 with this text; a reader sees the old or the new one, never a part."""
    fresh = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(file)
        sync_folder(file.parent)
    finally:
        fresh.unlink(missing_ok=True)


def kept_secret(file: Path) -> str:
    """The secret in the file, made up and written there the first time: 192 random bits, safe in URLs."""
    if file.exists():
        return file.read_text(encoding="utf-8").strip()
    secret = secrets.token_urlsafe(24)
    write_private(file, secret)
    return secret


def sync_folder(folder: Path) -> None:
    """See to it that what was made or renamed in the folder survives a crash of the machine."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
