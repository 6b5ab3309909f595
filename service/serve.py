"""Runs the service: migrations, documents given at start, the jobs, the HTTP server; and ends them in order."""

from __future__ import annotations

import errno
import logging
import signal
import socket
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import structlog
import uvicorn

from service.app import create_app
from service.apply import apply_paths
from service.history.layout import credentials
from service.holder import is_gone
from service.jobs import Jobs
from service.runtime import compose
from service.secrets import Secrets
from service.settings import SHORTEST_TOKEN, Settings
from service.store import backtests

log = structlog.get_logger()


def serve(
    settings: Settings, *, host: str = "127.0.0.1", port: int = 8080, say: Callable[[str], None] = lambda _: None
) -> None:
    """Until it is told to stop. `say` hears where it listens, once it does.

    Raises ValueError for settings or documents that cannot work.
    """
    with _listen(host, port) as listening:
        configure_logs(mask_of(settings))
        _serve(settings, listening, say)


def _serve(settings: Settings, listening: socket.socket, say: Callable[[str], None]) -> None:
    rt = compose(settings)
    rt.database.upgrade()
    rt.database.check_writable()
    with rt.database.transaction() as session:
        backtests.give_up(session, now=rt.clock.now(), is_gone=is_gone)
    apply_paths(rt, [Path(path) for path in settings.apply.split(":") if path], by="start")
    jobs = Jobs(rt)
    app = create_app(rt)
    jobs.start()
    # uvicorn raises it once more when it has stopped, which would end us before a running cycle has ended in order.
    signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        config = uvicorn.Config(app, **server_options(settings))
        _Server(config, settings, rt.database.kind, say).run(sockets=[listening])
    finally:
        jobs.stop()
        rt.backtests.stop()
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


class _Server(uvicorn.Server):
    """Says where it listens once it does."""

    def __init__(self, config: uvicorn.Config, settings: Settings, database: str, say: Callable[[str], None]) -> None:
        super().__init__(config)
        self._settings = settings
        self._database = database
        self._say = say

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.started or not sockets:
            return
        host, port = sockets[0].getsockname()[:2]
        url = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
        self._say(f"Curfew listens at {url}{_which_token(self._settings)}")
        log.info(
            "serving",
            url=url,
            version=version("gpu-curfew"),
            ceiling=self._settings.ceiling.value,
            database=self._database,
        )


def _which_token(settings: Settings) -> str:
    """The demo's token is no secret; one as long as a real one is not shown even there."""
    token = settings.admin_token.get_secret_value() if settings.admin_token else ""
    return f" (the token is {token})" if settings.demo_speed > 0 and 0 < len(token) < SHORTEST_TOKEN else ""


def _listen(host: str, port: int) -> socket.socket:
    """Before anything is written: who cannot listen here has no business with the database."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = "something listens there already; --port names another port, 0 any that is free"
        else:
            reason = error.strerror or str(error)
        raise ValueError(f"cannot listen on {host} port {port}: {reason}") from None


def configure_logs(mask: Callable[[str], str]) -> None:
    """One JSON line per event on standard error; people read the pages and the audit log. Of the libraries only what
    they warn of. Whatever an error quotes, `mask` takes the secrets out.
    """

    class Masked(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return mask(super().format(record))

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Masked("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    structlog.configure(
        processors=log_processors(mask),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def log_processors(mask: Callable[[str], str]) -> list[structlog.typing.Processor]:
    """From what is said to the line that tells of it."""

    def masked(value: Any) -> Any:
        match value:
            case str():
                return mask(value)
            case dict():
                return {key: masked(entry) for key, entry in value.items()}
            case list() | tuple():
                return [masked(entry) for entry in value]
        return value

    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        lambda _logger, _method, event: cast(dict[str, Any], masked(dict(event))),
        structlog.processors.JSONRenderer(),
    ]


def mask_of(settings: Settings) -> Callable[[str], str]:
    """Takes the secrets of documents and our own out of a text."""
    secrets = Secrets(folder=settings.secrets_dir)
    ours = [secret.get_secret_value() for secret in (settings.admin_token, settings.secret_key) if secret]
    logins = credentials(settings.resolved_history or "")

    def mask(text: str) -> str:
        for secret in ours:
            text = text.replace(secret, "***") if len(secret) >= SHORTEST_TOKEN else text  # the demo's is no secret
        for login in logins:
            text = text.replace(login, "***")
        return secrets.mask(text)

    return mask
