"""The protovalidate rules of the contract, with answers that a caller can act on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from google.protobuf.message import Message
from protovalidate import Validator, Violation

from memoro_core.errors import Code, FieldViolation, MemoroError, Reason

PATTERN_TEXTS: Final = {
    r"^[\x21-\x7e]*$": "must hold only visible ASCII characters, no spaces",
    r"^[^\x00-\x1f\x7f]*$": "must not hold control characters",
    r"^[^\x00]*[^\s\p{Z}\p{Cc}\p{Cf}][^\x00]*$": "must hold at least one visible character, and no NUL",
    r"^[A-Z0-9_]*$": "must be upper snake case, e.g. WORKS_AT",
    r"^[A-Z_]{0,64}$": "must be a reason in upper snake case, e.g. PROVIDER_FAILED, of at most 64 characters",
    r"^[a-z][a-z0-9-]{0,31}$": "must be a name of 1 to 32 lower case letters, digits and hyphens, e.g. pro",
    r"^([a-z][a-z0-9-]{0,31})?$": "must be empty or a name of 1 to 32 lower case letters, digits and hyphens",
    r"^([A-Za-z]{1,64}/[A-Za-z]{1,64})?$": "must be a method as AdminService/CreateApiKey, or empty",
    r"^([0-9]{4}-[0-9]{2}-[0-9]{2})?$": "must be a day, as 2026-01-31",
    r"^[a-z][a-z0-9_-]{0,31}$": (
        "must be the name of a provider, e.g. openai: 1 to 32 lower case letters, digits, hyphens and underscores, "
        "beginning with a letter"
    ),
    r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$": (
        "must be 1 to 63 lower case letters, digits and hyphens, not beginning or ending with a hyphen"
    ),
}
"""What each pattern of the contract means."""


class Rules:
    """Checks messages against the rules in their descriptors."""

    def __init__(self) -> None:
        self._validator = Validator()

    def prepare(self, message_class: type[Message]) -> None:
        """Compiles the rules of a message before its first call. Raises CompilationError for a rule without sense."""
        self._validator.collect_violations(message_class())

    def check(self, message: Message) -> None:
        """Raises INVALID_FIELD with a violation for each rule that the message breaks."""
        violations = self._validator.collect_violations(message)
        if violations:
            raise invalid_fields([FieldViolation(_path(it), _text(it)) for it in violations])


def invalid_fields(violations: Sequence[FieldViolation]) -> MemoroError:
    """INVALID_ARGUMENT / INVALID_FIELD for several fields; the message tells the first."""
    first = violations[0]
    more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
    return MemoroError(
        Code.INVALID_ARGUMENT,
        Reason.INVALID_FIELD,
        f"{first.field}: {first.description}{more}",
        violations=violations,
    )


@contextmanager
def beneath(path: str) -> Iterator[None]:
    """Names the bad fields of a message that is part of another one by their paths in that one."""
    try:
        yield
    except MemoroError as error:
        if error.reason is not Reason.INVALID_FIELD:
            raise
        inner = [FieldViolation(f"{path}.{it.field}", it.description) for it in error.violations]
        raise invalid_fields(inner) from None


def _path(violation: Violation) -> str:
    path = ""
    field = violation.proto.field
    for element in field.elements if field is not None else ():
        path += f".{element.field_name}" if path else element.field_name
        subscript = element.subscript
        if subscript is not None:
            path += f'["{subscript.value}"]' if subscript.field == "string_key" else f"[{subscript.value}]"
    return path or "request"


def _text(violation: Violation) -> str:
    proto = violation.proto
    if proto.rule_id == "string.pattern" and violation.rule_value in PATTERN_TEXTS:
        return PATTERN_TEXTS[violation.rule_value]
    if proto.rule_id == "string.in":
        return f"must be one of {', '.join(choice for choice in violation.rule_value if choice)}"
    if proto.rule_id == "string.uuid":
        return "must be a UUID, as the service makes them"
    if proto.rule_id == "string.min_len" and violation.rule_value == 1:
        return "must not be empty"
    return proto.message or "breaks a rule"
