"""Structured logs on stderr, one object a line (or text for people). Third-party loggers go the same way."""

import logging
import sys
from collections.abc import Callable
from typing import Any

import structlog

from hansa.settings import LogSettings


def configure(settings: LogSettings, *, process: str, redact: Callable[[str], str]) -> None:
    """Set up logging for the whole process; called once by the composition root. Each line is what `redact` leaves of it."""
    level = getattr(logging, settings.level.upper(), logging.INFO)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer = structlog.dev.ConsoleRenderer(colors=False) if settings.format == "text" else structlog.processors.JSONRenderer()

    def rendered(logger: Any, method: str, event: Any) -> str:
        return redact(str(renderer(logger, method, event)))

    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, rendered]
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("asyncpg.pool").setLevel(logging.CRITICAL)  # a server that is away is told of by its users
    for noisy in ("httpx2", "httpcore2", "nats", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    structlog.contextvars.bind_contextvars(process=process)
