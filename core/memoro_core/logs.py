"""Structured logs: one line per event, JSON for machines or colours for people; what libraries log included."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final

import structlog
from pydantic_core import to_json

from memoro_core.settings import Settings

_CHATTY: Final = ("asyncio", "taskiq", "httpx", "httpcore", "openai", "urllib3", "huggingface_hub")
"""Libraries whose everyday messages would drown ours: heard from warnings on."""


def configure_logging(settings: Settings) -> None:
    """Sends every log line of the process to standard error, from `log_level` on, in `log_format`.

    Call it once, at start. Bind what belongs to a whole call or job with `structlog.contextvars`.
    """
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    as_json = settings.log_format == "json"
    # Our own lines go straight to the stream: a server writes one per call, and the standard library's way costs twice
    # as much as all the rest of it.
    structlog.configure(
        processors=[*_common(_own_logger_name), *(_json() if as_json else _console())],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_Lines(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_common(structlog.stdlib.add_logger_name),
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *(_json() if as_json else _console()),
                _as_text,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(True)


class _Line(structlog.BytesLogger):
    """Writes lines, and remembers the name it was asked for by."""

    def __init__(self, name: str) -> None:
        super().__init__(sys.stderr.buffer)
        self.name = name


class _Lines:
    def __call__(self, *names: str) -> _Line:
        return _Line(names[0] if names else "memoro")


def _common(logger_name: structlog.types.Processor) -> list[structlog.types.Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        logger_name,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _json() -> list[structlog.types.Processor]:
    # Never the values of local variables: they hold texts of users, and keys.
    tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=30)
    return [structlog.processors.ExceptionRenderer(tracebacks), _to_json]


def _console() -> list[structlog.types.Processor]:
    plain = structlog.dev.plain_traceback
    console = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    return [console, _as_bytes]


def _own_logger_name(logger: Any, _: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event["logger"] = logger.name
    return event


def _to_json(_: Any, __: str, event: MutableMapping[str, Any]) -> bytes:
    return to_json(event, fallback=str)


def _as_bytes(_: Any, __: str, line: Any) -> bytes:
    return str(line).encode()


def _as_text(_: Any, __: str, line: Any) -> str:
    text: str = line.decode()
    return text
