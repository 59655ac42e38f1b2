"""The system user that PostgreSQL runs as when Memoro runs as root, as in many containers."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from memoro_core.embedded.errors import NoServiceAccountError

ACCOUNT = "embedded_postgres"
FALLBACK = "postgres"
CREATE_TIMEOUT = 20.0


@dataclass(frozen=True, slots=True)
class Account:
    """A system user by its numbers."""

    uid: int
    gid: int


def service_account(data: Path) -> Account | None:
    """Who is to run PostgreSQL on this data directory; None when it is whoever runs Memoro.

    Data that already belong to an ordinary user stay that user's. Otherwise the user `embedded_postgres` is made once,
    without a home or a shell. Raises `NoServiceAccountError`.
    """
    if os.geteuid() != 0:
        return None
    if data.exists() and (owner := data.stat()).st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    entry = _entry(ACCOUNT) or _create() or _entry(FALLBACK)
    if entry is None:
        raise NoServiceAccountError(f"(useradd {ACCOUNT} failed.)")
    return Account(entry.pw_uid, entry.pw_gid)


def _entry(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _create() -> pwd.struct_passwd | None:
    """Make the account with whatever this system has for it; the answer is in the user database, not in exit codes."""
    nologin = shutil.which("nologin", path="/usr/sbin:/sbin:/usr/bin:/bin") or "/bin/false"
    for command in (
        ["useradd", "--system", "--no-create-home", "--shell", nologin, ACCOUNT],
        ["adduser", "-S", "-D", "-H", "-s", nologin, ACCOUNT],
    ):
        program = shutil.which(command[0], path="/usr/sbin:/sbin:/usr/bin:/bin")
        if program is None:
            continue
        try:
            subprocess.run([program, *command[1:]], capture_output=True, timeout=CREATE_TIMEOUT, check=False)  # noqa: S603 - constant words
        except (OSError, subprocess.TimeoutExpired):
            continue
        if (entry := _entry(ACCOUNT)) is not None:
            return entry
    return None


def let_in(account: Account, path: Path) -> None:
    """Let the account reach `path`: permission to pass those folders above it that would shut it out.

    Nothing more is given: a folder's names stay unreadable, and so does every file in it.
    """
    for folder in path.parents:
        _allow(account, folder, stat.S_IXOTH)


def let_read(account: Account, tree: Path) -> None:
    """Let the account read and run what is in `tree`: an umask of 077 at installation would shut it out."""
    for path in _walk(tree):
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode) or mode & stat.S_IXUSR:
            _allow(account, path, stat.S_IROTH | stat.S_IXOTH)
        else:
            _allow(account, path, stat.S_IROTH)


def _walk(tree: Path) -> Iterator[Path]:
    yield tree
    for folder, folders, files in os.walk(tree):
        for name in (*folders, *files):
            yield Path(folder, name)


def _allow(account: Account, path: Path, wanted: int) -> None:
    """Give the account the permissions that `wanted` names, in the bits for others, if it lacks them."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return
    shift = 6 if status.st_uid == account.uid else 3 if status.st_gid == account.gid else 0
    mode = stat.S_IMODE(status.st_mode)
    if (mode >> shift) & wanted != wanted:
        path.chmod(mode | wanted << shift)
