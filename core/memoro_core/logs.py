"""Structured logs: one line per event, JSON for machines or colours for people; what libraries log included."""

from __future__ import annotations

import logging
import sys
from typing import Final

import structlog

from memoro_core.settings import Settings

_SHARED: Final[tuple[structlog.types.Processor, ...]] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
)
# Never the values of local variables: they hold texts of users, and keys.
_tracebacks: Final = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=30)
)
_CHATTY: Final = ("asyncio", "taskiq", "httpx", "httpcore", "openai", "urllib3", "huggingface_hub")
"""Libraries whose everyday messages would drown ours: heard from warnings on."""


def configure_logging(settings: Settings) -> None:
    """Sends every log line of the process to standard error, from `log_level` on, in `log_format`.

    Call it once, at start. Bind what belongs to a whole call or job with `structlog.contextvars`.
    """
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    render: tuple[structlog.types.Processor, ...]
    if settings.log_format == "json":
        render = (_tracebacks, structlog.processors.JSONRenderer(default=str))
    else:
        render = (
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        )
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(True)
