"""A company of two projects in which every text says whose it is: whatever one of them reads is searched for the other.

`amber` and `beryl` are the projects, `chalk` is what belongs to nobody, `slate` what only the whole installation knows.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from service.backtest.report import as_json
from service.notify.links import LinkVerb, ProjectClaim, Several
from service.notify.wording import zone_of
from service.store.tables import Backtest, Cycle, Finding, Hold, MeterInterval, SourceState
from tests.api.service_under_test import Api
from tests.backtest.reports import report, stop, totals

MARKS = {"A": "amber", "B": "beryl", "N": "chalk", "S": "slate"}
"""Letter in the table → the word that gives it away."""
METRICS = b'# TYPE x gauge\nx{project="amber"} 1\nx{project="beryl"} 1\nx{source="slate"} 1\n'
"""As a cycle would have rendered them."""


def furnish(api: Api) -> None:
    """Documents, machines, findings, actions, money, holds and faults of everybody."""
    _documents(api)
    for word, project in (("amber", "amber"), ("beryl", "beryl"), ("chalk", None)):
        _machine(api, f"{word}-1", word, project)
        _finding(api, f"{word}-f", f"{word}-1", word, project)
        _action(api, f"{word}-a", f"{word}-1", word, project, finding_id=f"{word}-f")
        if project is not None:
            by = f"token:{word}"
            api.store(Hold(project=project, reason=f"{word} hold", created_by=by, created_at=api.clock.now()))
    # Machines change hands: what was done before belongs to the project that had them, what they are now to the other.
    for id, now, before in (("moved-to-a", "amber", "beryl"), ("moved-to-b", "beryl", "amber")):
        _machine(api, id, now, now)
        _finding(api, f"{before}-old", id, before, before, closed_at=api.clock.now(), status="closed")
        _action(api, f"{before}-old", id, before, before, finding_id=f"{before}-old", undone_at=api.clock.now())
        _meter(api, id, before)
    for id, words in (("amber", ["amber"]), ("beryl", ["beryl"]), ("all", list(MARKS.values()))):
        _backtest(api, f"{id}-b", words, None if id == "all" else id)
    fault = {"code": "Throttled", "sentence": "slate is slow"}
    api.store(
        SourceState(source="research", fault=fault),
        Cycle(
            id="c1",
            started_at=api.clock.now(),
            finished_at=api.clock.now(),
            requested_by="schedule",
            error="slate broke off",
            sources=[{"source": "research", "complete": False, "fault": fault}],
        ),
    )
    api.audit_line(object="policy/slate", reason="slate")


def _documents(api: Api) -> None:
    put = api.admin.put
    put("/api/v1/sources/research", json={"provider": "simulated"})
    for word in ("amber", "beryl"):
        body: dict[str, Any] = {
            "owners": [f"{word}@example.org"],
            "spend_budgets": [{"name": f"{word}-monthly", "period": "month", "amount": 20000}],
        }
        assert put(f"/api/v1/projects/{word}", json=body).status_code == 201
    for name, projects in (("amber", ["amber"]), ("beryl", ["beryl"]), ("both", ["amber", "beryl"]), ("all", [])):
        policy = {"type": "idle", "scope": {"projects": projects}, "rollout": "5%"}
        assert put(f"/api/v1/policies/{name}-idle", json=policy).status_code == 201
        if projects:
            exemption = {"projects": projects, "until": "2026-12-01T00:00:00Z", "reason": f"{name} demo day"}
            assert put(f"/api/v1/exemptions/{name}-demo", json=exemption).status_code == 201
    put("/api/v1/tokens/spare", json={"role": "viewer"})


def _machine(api: Api, id: str, word: str, project: str | None) -> None:
    api.resource(
        id,
        project=project,
        name=f"{word}-trainer",
        external_id=f"i-{word}-{id}",
        owner=f"{word}@example.org",
        tags={"team": word},
        account=word,
        managed_by=word,
    )
    _meter(api, id, project)


def _meter(api: Api, id: str, project: str | None) -> None:
    """A closed hour in which it cost money to that project."""
    now = api.clock.now()
    api.store(
        MeterInterval(
            resource_id=id,
            project=project,
            state="running",
            capacity_type="on_demand",
            activity="idle",
            rate_micros=55_040_000,
            currency="USD",
            price_source="list",
            started_at=now - timedelta(hours=2),
            ended_at=now - timedelta(hours=1),
            base=0,
        )
    )


def _finding(api: Api, id: str, resource: str, word: str, project: str | None, **more: Any) -> None:
    words = {"reason": f"{word} idles", "status_reason": f"{word} was warned", "policy": "all-idle"}
    evidence = {"owner": word}
    api.finding(id, resource_id=resource, project=project, evidence=evidence, **(words | more))
    api.audit_line(project=project, object=f"finding/{id}", reason=f"{word} was warned", actor=f"token:{word}")


def _action(api: Api, id: str, resource: str, word: str, project: str | None, **more: Any) -> None:
    words = {"reason": f"{word} idles", "requested_by": f"token:{word}", "policy": "all-idle"}
    api.action(id, resource_id=resource, project=project, **(words | more))


def _backtest(api: Api, id: str, words: list[str], project: str | None) -> None:
    """One that is done: its report says whose machines it stops."""
    stops = tuple(stop(number, name=f"{word}-trainer", project=word) for number, word in enumerate(words))
    found = as_json(report(policy="both-idle", stops=stops, totals=totals(stops), warned=[], unknown=[], sweep=None))
    values: dict[str, Any] = {"policy": "both-idle", "digest": "d", "horizon_seconds": 7200, "step_seconds": 60}
    now = api.clock.now()
    values |= {"asked_at": now, "started_at": now, "finished_at": now, "alive_at": now}
    row = Backtest(id=id, project=project, status="done", asked_by="token:x", holder="h", report=found, **values)
    api.store(row)


def link_to(api: Api, finding_id: str, verb: LinkVerb) -> str:
    """What stands after `/l/` in a message about that finding."""
    with api.rt.database.reading() as session:
        finding = session.get_one(Finding, finding_id)
    now = api.clock.now()
    made = api.rt.links.all_for(
        finding_id, finding.episode, "amber@example.org", now, zone_of("UTC"), now + timedelta(days=1)
    )
    return made[verb.value].rpartition("/")[2]


def link_to_all(api: Api, *findings: str) -> str:
    """What stands after `/l/all/` in a digest."""
    several = Several(
        findings=tuple((id, 1) for id in findings),
        recipient="amber@example.org",
        expires=api.clock.now() + timedelta(days=1),
    )
    return api.rt.links.url_of_several(several).rpartition("/")[2]


def link_to_page(api: Api, project: str) -> str:
    """What stands after `/p/` in a message about that project's money."""
    expires = api.clock.now() + timedelta(days=1)
    claim = ProjectClaim(project=project, recipient=f"{project}@example.org", expires=expires)
    return api.rt.links.url_of_project(claim).rpartition("/")[2]
