"""Composes the HTTP application out of its routes, over a runtime that is already there. Starts nothing itself."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI

from service.api import (
    actions,
    admission,
    audit,
    backtests,
    cycles,
    documents,
    findings,
    health,
    hold,
    notify,
    preview,
    problems,
    reference,
    resources,
    rollouts,
    spend,
    tokens,
)
from service.api.auth import FailedLogins
from service.api.guard import Guard, only_known_parameters
from service.console import backtests as backtest_pages
from service.console import links, pages, policies, project, together
from service.runtime import Runtime

DESCRIPTION = """Sees what GPUs cost, warns the people who own them, and stops what idles.

Lists are pages: `?limit=&cursor=` → `{"items": […], "next": …}`. Writes take an `Idempotency-Key`. Everything that is
refused is an RFC 9457 problem with a stable `code`."""


def create_app(runtime: Runtime) -> FastAPI:
    """The whole HTTP surface."""
    app = FastAPI(
        title="Curfew",
        version=version("gpu-curfew"),
        description=DESCRIPTION,
        docs_url=None,  # Swagger's page loads scripts from elsewhere; ours is `service.api.reference`
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.runtime = runtime
    app.state.failed_logins = FailedLogins()
    app.state.started_at = runtime.clock.now()
    app.add_middleware(Guard, https=runtime.settings.public_url.startswith("https://"))
    problems.install(app)
    app.include_router(health.router)
    app.include_router(reference.router)
    for module in (
        resources,
        findings,
        actions,
        hold,
        notify,
        cycles,
        audit,
        preview,
        backtests,
        spend,
        rollouts,
        documents,
        tokens,
        admission,
    ):
        app.include_router(module.router, prefix="/api/v1", dependencies=[Depends(only_known_parameters)])
    for console in (links, together, project, policies, backtest_pages, pages):
        app.include_router(console.router)
    _describe(app)
    return app


def _describe(app: FastAPI) -> None:
    """OpenAPI with the schemas that routes only refer to."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schemas = plain().setdefault("components", {}).setdefault("schemas", {})
            schemas |= {"Problem": problems.SCHEMA, **documents.schemas()}
        assert app.openapi_schema is not None  # `plain` keeps it
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way
