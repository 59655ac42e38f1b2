"""What can go wrong with the embedded servers; an error's docstring is the beginning of its message."""

from __future__ import annotations

import inspect


class EmbeddedError(Exception):
    """An embedded server failed."""

    def __init__(self, detail: str = "") -> None:
        text = inspect.getdoc(type(self)) or ""
        super().__init__(f"{text} {detail}".strip())


class BinaryMissingError(EmbeddedError):
    """A server's program was not found."""


class DataDirInUseError(EmbeddedError):
    """The data directory is in use by another Memoro; stop that one, or choose another with --data-dir."""


class DataDirUnusableError(EmbeddedError):
    """The data directory cannot be used."""


class NoServiceAccountError(EmbeddedError):
    """PostgreSQL does not run as root, and no system user could be made for it; run Memoro as an ordinary user."""


class PortTakenError(EmbeddedError):
    """The port is taken by another program."""


class StartFailedError(EmbeddedError):
    """A server did not start."""
