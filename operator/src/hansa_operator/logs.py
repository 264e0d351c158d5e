"""Log lines on stderr: JSON objects, or text for people."""

import logging
import sys
from datetime import UTC, datetime

import msgspec


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, event, and the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def configure(form: str, level: str) -> None:
    """Have everything in this process log so. kopf says what it does only when that is asked for."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    quiet = logging.WARNING if level != "DEBUG" else logging.DEBUG
    for name in ("kopf", "asyncio", "aiohttp"):
        logging.getLogger(name).setLevel(quiet)
    # Each of its seven watches tells each of its attempts, as an error; that a server is away is told once, by who looks for it.
    logging.getLogger("kopf._cogs.clients").setLevel(logging.CRITICAL if level != "DEBUG" else logging.DEBUG)
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)  # it runs in a thread on purpose, and warns of that
