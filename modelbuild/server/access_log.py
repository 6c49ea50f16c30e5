"""The access log: one JSON object per answered request, on standard error."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

_LOGGER = "modelbuild.access"
_PATH_LIMIT = 200


def access_logger() -> logging.Logger:
    """The logger that writes bare lines to standard error."""
    logger = logging.getLogger(_LOGGER)
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
        logger.propagate = False
    logger.setLevel(logging.INFO)
    return logger


class AccessLog(AbstractAccessLogger):
    """Writes the line of a request; values of the client are JSON strings, so they cannot forge lines."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """One request: when it came, from where, what it wanted, what it got and how long that took in seconds."""
        record = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "client": request.remote or "",
            "method": request.method,
            "path": request.path[:_PATH_LIMIT],
            "status": response.status,
            "bytes": response.body_length,
            "seconds": round(time, 6),
        }
        self.logger.info(json.dumps(record, ensure_ascii=True, separators=(",", ":")))
