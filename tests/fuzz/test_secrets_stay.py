"""A secret goes where a document sends it and nowhere else: into no answer, no log line, no metric, no table.

Every text of every document is replaced by a secret's name, one at a time, and the service lives on with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from providers.prometheus.telemetry import PrometheusTelemetry
from service.documents import COLLECTIONS
from service.store.database import Database
from tests.fuzz.company import MARK, SECRETS, Served, served
from tests.spine.company import minutes

NOBODY = "http://127.0.0.1:9"
DOCUMENTS: list[dict[str, Any]] = [
    {
        "kind": "source", "name": "metrics", "provider": "prometheus", "url": NOBODY, "username": "curfew",
        "password": "${PROM}", "telemetry_interval": "1s",
    },
    {
        "kind": "source", "name": "metrics", "provider": "prometheus", "url": f"{NOBODY}/${{HOOK}}",
        "bearer_token": "${PROM}",
    },
    {
        "kind": "source", "name": "cloud", "provider": "aws", "regions": ["us-east-1"], "endpoint": NOBODY,
        "role_arn": "arn:aws:iam::123456789012:role/curfew", "external_id": "${HOOK}",
    },
    {
        "kind": "source", "name": "cloud", "provider": "aws", "regions": ["us-east-1"], "endpoint": NOBODY,
        "profile": "curfew",
    },
    {
        "kind": "source", "name": "research", "provider": "simulated", "company": "demo", "cloud": "aws",
        "ceiling": "warn",
    },
    {
        "kind": "project", "name": "amber", "owners": ["lead@example.org"], "timezone": "UTC", "currency": "USD",
        "match": [{"tags": {"project": "amber"}}], "notify": ["json://127.0.0.1:9/x", "json://127.0.0.1:9/y?z=1"],
        "spend_budgets": [{"name": "monthly", "period": "month", "amount": "100", "alert_at": ["50%"]}],
        "description": "it trains",
    },
    {
        "kind": "policy", "name": "amber-idle", "type": "idle", "mode": "warn",
        "scope": {"projects": ["amber"], "where": "gpu_count > 1"}, "idle": {"for": "45m", "when": "gpu_count > 1"},
        "grace": "30m", "notify": ["json://127.0.0.1:9/x"],
    },
    {"kind": "policy", "name": "hours", "type": "schedule", "schedule": {"on": "Mo-Fr 08:00-20:00", "holidays": "VN"}},
    {
        "kind": "exemption", "name": "demo", "projects": ["amber"], "until": "2026-12-01T00:00:00Z",
        "reason": "it is wanted",
    },
]  # fmt: skip
"""Together they have every sort of text there is."""


def texts_of(value: Any, *path: str | int) -> Iterator[tuple[str | int, ...]]:
    """The place of every text in a document, but for what says which document it is."""
    match value:
        case str():
            yield path
        case dict():
            for key, entry in value.items():
                if path or key not in ("kind", "name", "provider", "type"):
                    yield from texts_of(entry, *path, key)
        case list():
            for number, entry in enumerate(value):
                yield from texts_of(entry, *path, number)


def replaced(value: Any, path: tuple[str | int, ...]) -> Any:
    """The same document with a secret's name at that place."""
    if not path:
        return "${HOOK}"
    entries = dict(value) if isinstance(value, dict) else list(value)
    entries[path[0]] = replaced(value[path[0]], path[1:])  # type: ignore[index]
    return entries


@pytest.fixture
def company(sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    database = Database(sqlite_url)
    with served(database, tmp_path / "home", monkeypatch) as made:
        yield made
    database.close()


def test_a_secret_in_any_text_of_any_document_is_shown_nowhere(company: Served) -> None:
    told: dict[str, str] = {}
    taken = 0
    with httpx.Client(base_url=company.url, timeout=30) as http:
        http.headers["Authorization"] = f"Bearer {SECRETS['CURFEW_ADMIN_TOKEN']}"
        for document in DOCUMENTS:
            where = f"/api/v1/{next(name for name, kind in COLLECTIONS.items() if kind == document['kind'])}"
            for path in [(), *texts_of(document)]:
                tried = replaced(document, path) if path else document
                answer = http.put(f"{where}/{document['name']}", json=tried)
                assert answer.status_code in (200, 201, 422), answer.text
                if answer.status_code == 422:
                    assert path, answer.text
                    told[f"{document['name']} {path}"] = answer.text
                    continue
                taken += 1
                company.here.cycle(after=minutes(1))
                told[f"{document['name']} {path}"] = everything_said(http) + answer.text
            http.put(f"{where}/{document['name']}", json=document)
    assert taken >= 20
    assert not [place for place, text in told.items() if MARK in text]
    assert MARK not in company.log.getvalue()
    assert MARK not in everything_stored(company)


def test_a_secret_that_an_unforeseen_error_quotes_is_not_in_the_log(
    company: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(
            f"what a library says of {SECRETS['CURFEW_SECRET_PROM']} and {SECRETS['CURFEW_ADMIN_TOKEN']}"
        )

    monkeypatch.setattr(PrometheusTelemetry, "samples", broken)
    assert company.here.cycle(after=minutes(6)).error is None
    log = company.log.getvalue()
    assert "what a library says of ${PROM} and ***" in log
    assert MARK not in log


def everything_said(http: httpx.Client) -> str:
    """What the API, the metrics and the pages tell an admin."""
    lists = ("resources", "findings", "actions", "cycles", "audit", "tokens", "hold", *COLLECTIONS)
    resources = http.get("/api/v1/resources").json()["items"]
    paths = [f"/api/v1/{name}" for name in lists]
    paths += [f"/api/v1/resources/{resource['id']}/explain" for resource in resources[:1]]
    return "".join(http.get(path).text for path in (*paths, "/metrics"))


def everything_stored(company: Served) -> str:
    """Every row of every table."""
    with company.rt.database.reading() as session:
        tables = session.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'")).scalars().all()
        return "\n".join(str(row) for table in tables for row in session.execute(text(f'SELECT * FROM "{table}"')))
