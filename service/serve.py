"""Runs the service: migrations, documents given at start, the jobs, the HTTP server; and ends them in order."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import structlog
import uvicorn

from service.app import create_app
from service.apply import apply_paths
from service.jobs import Jobs
from service.runtime import compose
from service.settings import Settings


def serve(settings: Settings, *, host: str = "127.0.0.1", port: int = 8080) -> None:
    """Until it is told to stop. Raises ValueError for settings or documents that cannot work."""
    configure_logs()
    rt = compose(settings)
    rt.database.upgrade()
    apply_paths(rt, [Path(path) for path in settings.apply.split(":") if path], by="start")
    jobs = Jobs(rt)
    app = create_app(rt)
    jobs.start()
    try:
        uvicorn.run(app, host=host, port=port, **server_options(settings))
    finally:
        jobs.stop()
        rt.database.close()


def server_options(settings: Settings) -> dict[str, Any]:
    """For uvicorn. Who a request comes from is what the connection says, unless a proxy we know says more."""
    return {
        "log_config": None,
        "access_log": False,
        "timeout_graceful_shutdown": 10,
        "proxy_headers": bool(settings.trusted_proxies),
        "forwarded_allow_ips": list(settings.trusted_proxies),
    }


def configure_logs() -> None:
    """One JSON line per event on standard error; people read the pages and the audit log."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
