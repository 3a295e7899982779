"""structlog, set up once a process: lines for people on a terminal, JSON for machines. Never a prompt, never a secret."""

import logging
import sys
from typing import Any

import structlog

from shared.settings import Settings


def set_up_logs(settings: Settings, **everywhere: str) -> None:
    """`everywhere` (lane, worker …) stands on every line of this process, those of libraries too: uvicorn, arq, the SDKs."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if settings.log_json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            pad_event_to=0,
            pad_level=False,
            # The default formatter shows local variables: keys and prompts among them.
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso" if settings.log_json else "%H:%M:%S", utc=settings.log_json),
    ]
    last: list[Any] = [structlog.processors.format_exc_info if settings.log_json else _as_is, renderer]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(**everywhere)
    _set_up_libraries(shared, last)


def _set_up_libraries(shared: list[Any], last: list[Any]) -> None:
    """What uses Python's own logging, in the same form, with the logger's name."""
    others = logging.StreamHandler(sys.stderr)
    others.setLevel(logging.WARNING)  # the SDKs set their own loggers' levels (OPENAI_LOG), and at debug they show prompts
    others.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[others])


def _as_is(_logger: Any, _method: str, event: Any) -> Any:
    return event
