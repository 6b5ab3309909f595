"""Every operation of the OpenAPI, asked by everybody for whatever its schema allows and forbids.

Whoever asks and whatever they send: no 5xx, nothing that OpenAPI does not tell of, nothing of somebody else's project,
nothing secret. The cases are the same in every run.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.core.transport import Response
from schemathesis.specs.openapi import checks

from service.documents import COLLECTIONS
from service.store.database import Database
from service.store.tables import Action, Backtest, Cycle, Finding, Resource
from tests.fuzz.company import MARK, THEIRS, Served, served

EXAMPLES = {GenerationMode.POSITIVE: 12, GenerationMode.NEGATIVE: 6}
"""Of each operation and caller."""
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
REFUSED = checks.negative_data_rejection
"""What is sent against the schema is refused; that a version does not match (412) is a refusal it does not know of."""
CALLERS: dict[str, tuple[str, ...]] = {
    "nobody": (),
    "viewer of amber": ("viewer", "amber"),
    "owner of amber": ("owner", "amber"),
    "operator": ("operator",),
    "admin": ("admin",),
}
WHY = {"reason": "it is wanted"}
BODIES: dict[str, Any] = {
    "POST /api/v1/findings/{finding_id}/snooze": {"for": "1h", **WHY},
    "POST /api/v1/findings/{finding_id}/dismiss": WHY,
    "PUT /api/v1/hold": {"project": "amber", "for": "1h"},
    "POST /api/v1/policies/preview": {"name": "new", "type": "idle", "mode": "enforce"},
    "POST /api/v1/policies/backtest": {"policy": {"name": "new", "type": "idle"}, "project": "amber"},
    "POST /api/v1/policies/{name}/rollout/resume": WHY,
    "PUT /api/v1/sources/{name}": {"provider": "simulated", "company": "demo", "cloud": "aws"},
    "PUT /api/v1/projects/{name}": {"owners": ["lead@example.org"], "match": [{"tags": {"project": "amber"}}]},
    "PUT /api/v1/policies/{name}": {"type": "idle", "scope": {"projects": ["amber"]}, "idle": {"for": "45m"}},
    "PUT /api/v1/exemptions/{name}": {"projects": ["amber"], "until": "2026-12-01T00:00:00Z", **WHY},
    "PUT /api/v1/tokens/{name}": {"role": "viewer", "projects": ["amber"]},
    "POST /api/v1/apply": [{"kind": "policy", "name": "new", "type": "idle"}],
}
"""Operation → what somebody might really send."""


@pytest.fixture
def company(sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    database = Database(sqlite_url)
    with served(database, tmp_path / "home", monkeypatch) as made:
        yield made
    database.close()


@dataclass
class Interview:
    """One caller asks everything."""

    company: Served
    token: str | None
    confined: bool
    secrets: list[str]
    real: Mapping[str, Sequence[str]]
    """Parameter → what really exists, of everybody."""
    http: requests.Session = field(default_factory=requests.Session)
    asked: Counter[str] = field(default_factory=Counter)
    wrong: dict[str, str] = field(default_factory=dict)
    answered: dict[str, set[int]] = field(default_factory=dict)
    """Operation → the statuses it was answered with."""

    def ask(self, case: Case[Any]) -> None:
        label = case.operation.label
        mended = self._made_plausible(case, label)
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        answer = case.call(base_url=self.company.url, session=self.http, headers=headers, timeout=30)
        self.answered.setdefault(label, set()).add(answer.status_code)
        as_drawn = not mended and answer.status_code != 412
        try:
            case.validate_response(
                answer, checks=[*CHECKS, *([REFUSED] if as_drawn and answer.status_code != 412 else [])]
            )
        except FailureGroup as failures:
            self.wrong.setdefault(label, str(failures.exceptions[0]) + "\n" + case.as_curl_command())
        self._tells_nothing(case, label, answer)

    def _made_plausible(self, case: Case[Any], label: str) -> bool:
        """In most cases it gets names that exist, in half of them all else is well formed: whether it is."""
        self.asked[label] += 1
        drawn = zlib.crc32(f"{label} {self.asked[label]}".encode())
        for name in case.path_parameters or ():
            some = self.real[f"{label.split('/')[3]}/{name}"]
            if drawn % 4:
                case.path_parameters[name] = some[drawn // 4 % len(some)]
        mended = label in BODIES and drawn % 2 == 1
        if mended:
            case.body, case.query = BODIES[label], {}
            case.headers.clear()
        return mended

    def _tells_nothing(self, case: Case[Any], label: str, answer: Response) -> None:
        text = f"{answer.text}\n{answer.headers}"
        made = re.search(r'"token": ?"([^"]+)"', answer.text) if label == "PUT /api/v1/tokens/{name}" else None
        if made:
            text = text.replace(made[1], "")
            self.secrets.append(made[1])
        if any(secret in text for secret in (MARK, *self.secrets)):
            self.wrong[f"{label} tells a secret"] = text
        if self.confined:
            for asked_for in (case.path_parameters or {}).values():
                text = text.replace(str(asked_for), "")
            for theirs in (THEIRS, *self.real["theirs"]):
                if theirs in text:
                    self.wrong[f"{label} tells of {theirs}"] = text


def interview(company: Served, who: str) -> Interview:
    given = CALLERS[who]
    spare = company.token("spare", "viewer")
    token = company.token("caller", *given) if given else None
    real = {
        "findings/finding_id": company.ids(Finding),
        "actions/action_id": company.ids(Action),
        "resources/resource_id": company.ids(Resource),
        "cycles/cycle_id": company.ids(Cycle),
        "backtests/backtest_id": company.ids(Backtest),
        "tokens/name": ["spare", "new"],
        "theirs": [id for table in (Finding, Action, Resource, Backtest) for id in company.ids(table, of=THEIRS)],
    }
    for collection, kind in COLLECTIONS.items():
        real[f"{collection}/name"] = [*company.names(kind), "new"]
    return Interview(
        company=company,
        token=token,
        confined="amber" in given,
        secrets=[spare, *filter(None, [token])],
        real=real,
    )


def operations(openapi: dict[str, Any], *, with_token: bool) -> list[Any]:
    """Everything that can be asked; what leaves less to be asked for at the end."""
    if with_token:  # else the schema's own idea of a token would be tried, too
        for described in openapi["paths"].values():
            for operation in described.values():
                operation.pop("security", None)
    found = [result.ok() for result in _results(openapi)]
    return sorted(found, key=lambda one: (one.method == "delete", one.path.endswith(("/dismiss", "/snooze"))))


def _results(openapi: dict[str, Any]) -> Iterator[Ok[Any]]:
    for result in schemathesis.openapi.from_dict(openapi).get_all_operations():
        assert isinstance(result, Ok), result
        yield result


def _forbids_something(operation: Mapping[str, Any]) -> bool:
    """Whether anything could be sent that its schema does not allow: any text will do for a path."""
    return "requestBody" in operation or any(given["in"] != "path" for given in operation.get("parameters", ()))


@pytest.mark.parametrize("who", CALLERS)
def test_whoever_asks_whatever(company: Served, who: str) -> None:
    here = interview(company, who)
    openapi = here.http.get(f"{company.url}/openapi.json", timeout=30).json()
    for operation in operations(openapi, with_token=here.token is not None):
        for mode, examples in EXAMPLES.items():
            if mode is GenerationMode.NEGATIVE and not _forbids_something(operation.definition.raw):
                continue

            @settings(
                max_examples=examples if here.token else examples // 3,
                derandomize=True,
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Case[Any]) -> None:
                here.ask(case)

            ask()
    here.http.close()
    log = company.log.getvalue()
    assert not here.wrong, "\n\n".join(f"{label}: {what}" for label, what in here.wrong.items())
    assert not [secret for secret in (MARK, *here.secrets) if secret in log]
    assert "Traceback" not in log
    if who == "admin":
        refused = [label for label, statuses in here.answered.items() if not statuses & {200, 201, 202, 204}]
        assert not refused, "what never succeeds proves nothing"
