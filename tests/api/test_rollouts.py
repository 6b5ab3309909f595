"""How stops were received, and how far rollouts have come, over HTTP: in the metadata of policies, and on their own."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlmodel import select

from policies.policy import Policy
from service.documents import POLICY, written
from service.pipeline import rollout
from service.store import backtests
from service.store.tables import Audit, RolloutState
from tests.api.service_under_test import Api

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
CANARY: dict[str, Any] = {
    "type": "idle",
    "mode": "enforce",
    "rollout": {"share": "30%", "steps": ["60%"], "every": "7d", "max_false_stops": "10%"},
}
PATH = "/api/v1/policies/idle-gpus"


def policy(body: dict[str, Any] = CANARY) -> Policy:
    return POLICY.validate_python({"name": "idle-gpus", **body})


@pytest.fixture
def here(api: Api) -> Api:
    assert api.admin.put(PATH, json=CANARY).status_code == 201
    return api


@pytest.fixture
def everywhere(api_everywhere: Api) -> Api:
    """On both databases, for what is counted by them."""
    assert api_everywhere.admin.put(PATH, json=CANARY).status_code == 201
    return api_everywhere


def at_its_first_share(api: Api, *, ago: timedelta = DAY, fell_back: bool = False) -> None:
    begun = rollout.begun(policy(), api.clock.now() - ago)
    given: dict[str, Any] = {name: getattr(begun, name) for name in RolloutState.model_fields}
    if fell_back:
        given |= {"share": 0.0, "fallen_back_at": api.clock.now() - HOUR, "reason": "2 of 3 stops were regretted."}
    api.store(RolloutState(**given))


def stops(api: Api, count: int, *, regretted: int = 0, ago: timedelta = 3 * HOUR, **more: Any) -> None:
    """So many verified, of which people undid some."""
    at = api.clock.now() - ago
    for number in range(count):
        undone = {"regretted_at": at + HOUR, "regret_why": "undo"} if number < regretted else {}
        name = f"{more.get('project', 'vision')}-{ago}-{number}"
        api.action(name, resource_id=name, intended_at=at, verified_at=at, **undone, **more)


def tried(api: Api, *, decided: int, false_stops: int, body: dict[str, Any] = CANARY, horizon: timedelta = 2 * HOUR,
          project: str | None = None) -> None:  # fmt: skip
    now = api.clock.now()
    with api.rt.database.transaction() as session:
        row = backtests.create(
            session, policy=policy(body), body=written(policy(body)), question={}, project=project, horizon=horizon,
            step=timedelta(minutes=1), asked_by="token:ann", holder="us", now=now,
        )  # fmt: skip
        assert backtests.start(session, row.id, now=now)
        counts = {"stops": decided, "decided": decided, "undecided": 0, "false_stops": false_stops}
        report = {"from": (now - 20 * DAY).isoformat(), "to": now.isoformat(), "totals": counts}
        assert backtests.finish(session, row.id, report, now=now)


def regret(api: Api) -> dict[str, Any]:
    found: dict[str, Any] = api.admin.get(PATH).json()["metadata"]["regret"]
    return found


def test_the_observed_rate_stands_beside_the_predicted_one(everywhere: Api) -> None:
    stops(everywhere, 31, regretted=2)
    tried(everywhere, decided=300, false_stops=3)
    assert regret(everywhere) == {
        "decided": 31,
        "regretted": 2,
        "rate": 2 / 31,
        "predicted": 0.01,
        "words": "2 of 31 stops were regretted (6 %); the back-test predicted 1 %.",
    }
    [listed] = everywhere.admin.get("/api/v1/policies").json()["items"]
    assert listed["metadata"]["regret"] == regret(everywhere)


UNCOUNTED: dict[str, dict[str, Any]] = {
    "not decided yet": {"ago": HOUR},
    "too long ago": {"ago": 91 * DAY},
    "of another policy": {"policy": "other"},
    "asked for by a person": {"requested_by": "token:lead"},
    "an undo itself": {"undoes": "another"},
}


@pytest.mark.parametrize("case", UNCOUNTED)
def test_what_is_not_counted(here: Api, case: str) -> None:
    stops(here, 3, **UNCOUNTED[case])
    assert (regret(here)["decided"], regret(here)["rate"]) == (0, None)
    assert regret(here)["words"].startswith("No stop is decided yet; no back-test of the policy as it is")


OTHERS: dict[str, dict[str, Any]] = {
    "of a policy that has changed since": {"body": {**CANARY, "grace": "1h"}},
    "that looked further ahead": {"horizon": 6 * HOUR},
    "that decided nothing": {"decided": 0, "false_stops": 0},
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_back_test_that_predicts_nothing_here(here: Api, case: str) -> None:
    tried(here, **{"decided": 300, "false_stops": 3, **OTHERS[case]})
    assert regret(here)["predicted"] is None


def test_a_policy_that_cannot_act_has_nothing_to_regret(api: Api) -> None:
    api.admin.put(PATH, json={"type": "idle", "action": "notify"})
    assert {"regret", "rollout"}.isdisjoint(api.admin.get(PATH).json()["metadata"])


def test_whoever_is_confined_reads_of_his_own_projects_alone(here: Api) -> None:
    for name in ("vision", "speech"):
        here.admin.put(f"/api/v1/projects/{name}", json={})
        stops(here, 4, regretted=1, project=name)
    tried(here, decided=300, false_stops=3)
    owner = here.holder("lead", "owner", "vision")
    found = owner.get(PATH).json()["metadata"]["regret"]
    assert (found["decided"], found["regretted"], found["predicted"]) == (4, 1, None)
    assert regret(here)["decided"] == 8


def test_whoever_is_confined_does_not_learn_how_often_others_regretted_it(here: Api) -> None:
    for name in ("vision", "speech"):
        here.admin.put(f"/api/v1/projects/{name}", json={})
    at_its_first_share(here, fell_back=True)
    stops(here, 3, regretted=2, project="speech")
    found = here.holder("lead", "owner", "vision").get(f"{PATH}/rollout").json()
    assert (found["decided"], found["regretted"], found["share"]) == (0, 0, "0%")
    assert found["words"].endswith("changes it: too many of its stops were regretted.")
    assert "2 of 3 stops were regretted" in here.admin.get(f"{PATH}/rollout").json()["words"]


def test_how_far_it_has_come_and_how_the_groups_fare(everywhere: Api) -> None:
    at_its_first_share(everywhere)
    names = [f"m{number}" for number in range(40)]
    inside = [name for name in names if rollout.holds(0.3, "idle-gpus", name)]
    opened = everywhere.clock.now() - 3 * HOUR
    for name in names:
        everywhere.resource(name)
        everywhere.finding(f"f-{name}", resource_id=name, opened_at=opened, closed_at=opened + timedelta(minutes=40))
    everywhere.finding("short", resource_id=inside[0], opened_at=opened + HOUR, closed_at=opened + HOUR)
    everywhere.finding("before", resource_id=inside[0], opened_at=everywhere.clock.now() - 2 * DAY, closed_at=opened)
    for name in inside:
        everywhere.action(f"a-{name}", resource_id=name, intended_at=opened, verified_at=opened + HOUR / 2,
                    regretted_at=opened + HOUR, regret_why="restart")  # fmt: skip
    details = {"policy": "idle-gpus", "resource": inside[0]}
    everywhere.audit_line(verb="snooze", object="finding/x", details=details)
    everywhere.audit_line(verb="snooze", object="finding/y", details=details | {"policy": "another"})

    found = everywhere.admin.get(f"{PATH}/rollout").json()

    count = len(inside)
    assert found["groups"]["enforced"] == {
        "resources": None, "findings": count + 1, "outlasted_grace": count, "stops": count, "snoozes": 1, "undos": 0,
        "restarts": count,
    }  # fmt: skip
    rest = len(names) - count
    assert found["groups"]["observed"] == {
        "resources": None, "findings": rest, "outlasted_grace": rest, "stops": 0, "snoozes": 0, "undos": 0,
        "restarts": 0,
    }  # fmt: skip
    assert found["regret"]["regretted"] == count


def test_a_rollout_that_goes_well_says_when_it_rises(here: Api) -> None:
    at_its_first_share(here)
    stops(here, 6)
    mark = here.admin.get(PATH).json()["metadata"]["rollout"]
    assert (mark["share"], mark["step"], mark["decided"], mark["fallen_back_at"]) == ("30%", 0, 6, None)
    assert mark["next_step_at"] == "2026-11-22T09:00:00Z"
    assert "It rises to 60% at 2026-11-22" in mark["words"]


def test_one_that_fell_back_begins_anew_when_somebody_says_why(everywhere: Api) -> None:
    at_its_first_share(everywhere, fell_back=True)
    stops(everywhere, 3, regretted=2)
    assert everywhere.admin.get(PATH).json()["metadata"]["rollout"]["share"] == "0%"
    assert everywhere.admin.post(f"{PATH}/rollout/resume", json={}).status_code == 422
    answer = everywhere.admin.post(f"{PATH}/rollout/resume", json={"reason": "the exporter was broken"})
    assert (answer.status_code, answer.json()["share"], answer.json()["regretted"]) == (200, "30%", 0)
    again = everywhere.admin.post(f"{PATH}/rollout/resume", json={"reason": "twice"})
    assert (again.status_code, again.json()["code"]) == (409, "NotFallenBack")
    with everywhere.rt.database.reading() as session:
        [line] = session.exec(select(Audit).where(Audit.verb == "resume rollout")).all()
    assert (line.actor, line.object, line.reason) == (
        "token:CURFEW_ADMIN_TOKEN", "policy/idle-gpus", "the exporter was broken",
    )  # fmt: skip


def test_the_page_of_a_policy_says_the_same(here: Api) -> None:
    at_its_first_share(here, fell_back=True)
    stops(here, 31, regretted=2)
    page = here.admin.post("/login", data={"token": here.admin.token})
    cookie = page.headers["set-cookie"].partition(";")[0]
    shown = here.admin.get("/policies/idle-gpus", headers={"Cookie": cookie}).text
    assert "2 of 31 stops were regretted (6 %)" in shown
    assert "It has fallen back." in shown
    assert "Let it begin anew" in shown


def test_an_action_says_that_it_was_regretted(here: Api) -> None:
    stops(here, 1, regretted=1)
    [found] = here.admin.get("/api/v1/actions").json()["items"]
    assert (found["regret_why"], found["regretted_at"]) == ("undo", "2026-11-16T07:00:00Z")
