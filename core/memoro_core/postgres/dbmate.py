"""Running dbmate, which applies the files of `migrations/`."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import sysconfig
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from memoro_core.postgres.migration_errors import DbmateMissingError, MigrationFailedError, RightMissingError

# lib/pq has no "if the server offers it", which is what asyncpg does unless told otherwise.
UNDECIDED_SSL_MODES = frozenset({"", "prefer", "allow"})


def dbmate_url(url: str, *, user: str, database: str, encrypted: bool) -> str:
    """The URL of an open session in the words of lib/pq: who, which database, and whether the session is encrypted."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if query.get("sslmode", "") in UNDECIDED_SSL_MODES:
        query["sslmode"] = "require" if encrypted else "disable"
    credentials, at, address = parts.netloc.rpartition("@")
    if not at:
        credentials = quote(user, safe="")
    return urlunsplit(("postgres", f"{credentials}@{address}", f"/{quote(database, safe='')}", urlencode(query), ""))


async def run_dbmate(url: str, directory: Path) -> None:
    """Apply every migration in the directory that the database lacks, in order, each in a transaction.

    The URL, which holds the password, goes through the environment. Raises `MigrationFailedError` with dbmate's words,
    `RightMissingError` and `DbmateMissingError`.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DBMATE_", "PG"))}
    process = await asyncio.create_subprocess_exec(
        str(_program()),
        *("--env-file", os.devnull, "--migrations-dir", str(directory), "--no-dump-schema", "migrate", "--strict"),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=STDOUT,
        env={**kept, "DATABASE_URL": url},
    )
    try:
        output, _ = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        words = _without_password(output.decode(errors="replace"), url).strip()
        raise (RightMissingError if "permission denied" in words else MigrationFailedError)(f"dbmate says:\n{words}")


def _program() -> Path:
    """dbmate beside this Python, where pip puts a wheel's programs, else on PATH."""
    for folder in (Path(sys.executable).parent, Path(sysconfig.get_path("scripts"))):
        if os.access(folder / "dbmate", os.X_OK):
            return folder / "dbmate"
    found = shutil.which("dbmate")
    if found is None:
        raise DbmateMissingError
    return Path(found)


def _without_password(text: str, url: str) -> str:
    password = urlsplit(url).password
    if not password:
        return text
    return text.replace(password, "…").replace(unquote(password), "…")
