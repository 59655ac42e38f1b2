"""Runs a command that must not outlive its parent: `python guard.py PARENT SIGNAL UID GID COMMAND...`.

It is run as a file by an isolated interpreter, gives up root for the numeric user and group (-1 keeps them), asks the
kernel to send SIGNAL once the process PARENT is gone (Linux only), and then becomes COMMAND, under the same pid.
It stands between because a function run in a forked child of a threaded process may deadlock, and because the kernel
forgets the wish when the user changes, so that it must come after.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1
OPEN_FILES = 65_536


def main(arguments: list[str]) -> None:
    """Become the command; exits with 1 when the parent has gone already."""
    parent, death_signal, user, group = (int(argument) for argument in arguments[:4])
    command = arguments[4:]
    # A shell starts background commands with SIGINT ignored, and a child would inherit that.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    allow_open_files()
    if user >= 0:
        os.setgroups([])
        os.setgid(group)
        os.setuid(user)
        os.umask(0o077)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606 - the whole purpose


def allow_open_files() -> None:
    """Raise the limit of open files as far as the system lets us: each connection and watch is one."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if most == resource.RLIM_INFINITY else min(OPEN_FILES, most)
    if now != resource.RLIM_INFINITY and now < wanted:
        # macOS has a lower limit beside this one.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


if __name__ == "__main__":
    main(sys.argv[1:])
