"""The gate: where an installation requires it, a policy begins to enforce once a back-test of it has passed, or a
person who may answers for it. Asked over HTTP, and of what is applied at start.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter
from sqlmodel import col, select

from policies.policy import BasePolicy, Policy
from service.apply import apply_paths
from service.backtests import Backtests
from service.clock import SetClock
from service.files import Refused
from service.gate import FRESH, VALID_FOR
from service.metrics import _passed
from service.store import backtests
from service.store.database import Database
from service.store.documents import load
from service.store.tables import Audit, Backtest, BacktestOverride
from tests.api.service_under_test import Api, service_on
from tests.waiting import soon

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
REQUIRED = "{days: 14, max_false_stops: 1%, min_stops: 20}"
READ: TypeAdapter[Any] = TypeAdapter(Policy)
PATH = "/api/v1/policies/idle-gpus"
IDLE: dict[str, Any] = {"type": "idle", "idle": {"for": "45m"}, "mode": "enforce"}


@pytest.fixture
def gated(sqlite_url: str, clock: SetClock, tmp_path: Path) -> Iterator[Api]:
    database = Database(sqlite_url)
    with service_on(database, clock, tmp_path, require_backtest=REQUIRED) as api:
        yield api
    database.close()


@pytest.fixture
def gated_everywhere(database: Database, clock: SetClock, tmp_path: Path) -> Iterator[Api]:
    with service_on(database, clock, tmp_path, require_backtest=REQUIRED) as api:
        yield api


def policy_of(body: dict[str, Any], name: str = "idle-gpus") -> BasePolicy:
    policy: BasePolicy = READ.validate_python({"name": name, **body})
    return policy


def tried(
    api: Api,
    body: dict[str, Any] = IDLE,
    *,
    name: str = "idle-gpus",
    project: str | None = None,
    ago: timedelta = DAY,
    days: float = 20,
    ends: timedelta = timedelta(0),
    horizon: timedelta = 2 * HOUR,
    step: timedelta = MINUTE,
    decided: int = 300,
    false_stops: int = 3,
    asks: dict[str, timedelta] | None = None,
    fails: str = "",
) -> str:
    """A back-test that was asked for so long ago, with its end."""
    asked = api.clock.now() - ago
    end = asked - ends
    counts = {"stops": decided + 5, "decided": decided, "undecided": 5, "false_stops": false_stops}
    with api.rt.database.transaction() as session:
        row = backtests.create(
            session,
            policy=policy_of(body, name),
            body=body,
            question={edge: (asked - before).isoformat() for edge, before in (asks or {}).items()},
            project=project,
            horizon=horizon,
            step=step,
            asked_by="token:ann",
            holder="us",
            now=asked,
        )
        backtests.start(session, row.id, now=asked)
        if fails:
            backtests.fail(session, row.id, fails, now=asked)
        else:
            report = {"from": (end - days * DAY).isoformat(), "to": end.isoformat(), "totals": counts}
            backtests.finish(session, row.id, report, now=asked + MINUTE)
    return row.id


def put(api: Api, body: dict[str, Any] = IDLE, *, path: str = PATH, **params: str) -> httpx.Response:
    return api.admin.put(path, json=body, params=params)


def why_not(answer: httpx.Response) -> str:
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert error["field"] == "mode"
    reason: str = error["reason"]
    return reason


def mark(api: Api, path: str = PATH) -> dict[str, Any]:
    found: dict[str, Any] = api.admin.get(path).json()["metadata"]["backtest"]
    return found


def lines(api: Api, verb: str) -> list[Audit]:
    with api.rt.database.reading() as session:
        return list(session.exec(select(Audit).where(Audit.verb == verb).order_by(col(Audit.id))))


# --- what passes and what does not -----------------------------------------------------------------------------------

PASSES: dict[str, dict[str, Any]] = {
    "with enough days, stops and few enough false ones": {},
    "with exactly what is required": {"days": 14, "decided": 20, "false_stops": 0},
    "with a share that is just borne": {"decided": 700, "false_stops": 7},
    "with a longer look after each stop": {"horizon": 12 * HOUR},
    "with more frequent looks": {"step": timedelta(seconds=30)},
    "asked for as long ago as it may be": {"ago": VALID_FOR},
    "whose data end as early as they may": {"ends": FRESH},
    "of a stretch that is long enough": {"asks": {"from": 15 * DAY, "to": DAY}},
}


@pytest.mark.parametrize("case", PASSES)
def test_a_back_test_passes(gated: Api, case: str) -> None:
    id = tried(gated, **PASSES[case])
    assert put(gated).status_code == 201
    shown = mark(gated)
    assert (shown["required"], shown["passed"], shown["by"], shown["backtest"]) == (True, True, "pass", id)
    assert shown["rate"] == shown["false_stops"] / shown["decided"]
    with gated.rt.database.reading() as session:
        assert session.get_one(Backtest, id).relied_on_at == gated.clock.now()


DOES_NOT: dict[str, tuple[dict[str, Any], str]] = {
    "that knew a day too few": ({"days": 13.99}, "looked at 13d23h of history"),
    "that was asked to stop nothing before last week": ({"asks": {"from": 7 * DAY}}, "looked at 7d of history"),
    "that was asked for a time it knows nothing of": ({"asks": {"from": -DAY}}, "looked at 0s of history"),
    "that decided too few stops": ({"decided": 19, "false_stops": 0}, "decided 19 stops; run"),
    "that decided one": ({"decided": 1, "false_stops": 0}, "decided 1 stop; run"),
    "that decided none": ({"decided": 0, "false_stops": 0}, "decided 0 stops; run"),
    "with too many false stops": ({"false_stops": 4}, "decided 300 stops, 4 of them false (1.33%)"),
    "that looked for a minute after each stop": ({"horizon": MINUTE}, "looked for work within 1m after a stop only"),
    "that looked once an hour": ({"step": HOUR}, "looked every 1h only, and Curfew looks every 1m"),
    "of one project": ({"project": "vision"}, "saw only what belongs to vision, and the policy speaks of more"),
    "of a quiet fortnight long ago": ({"ends": FRESH + DAY}, "ends with 07 Nov 2026, and must reach to 7 days"),
    "that was asked to know nothing of lately": ({"asks": {"to": 8 * DAY}}, "ends with 07 Nov 2026, and must reach"),
    "of last season": ({"ago": VALID_FOR + MINUTE}, "there is no back-test of it from the last 90 days"),
    "that failed": ({"fails": "there is no history before yesterday"}, "failed: there is no history before yesterday"),
    "of another threshold": ({"body": {**IDLE, "idle": {"for": "44m"}}}, "it has changed since its back-test"),
    "of another grace": ({"body": {**IDLE, "grace": "45m"}}, "it has changed since its back-test"),
    "of another policy": ({"name": "idle-gpu"}, "there is no back-test of it from the last 90 days"),
}


@pytest.mark.parametrize("case", DOES_NOT)
def test_a_back_test_does_not_pass(gated: Api, case: str) -> None:
    given, says = DOES_NOT[case]
    tried(gated, **given)
    refused = why_not(put(gated))
    assert says in refused
    assert refused.startswith(
        "enforce takes a back-test that passed (at least 14 days of history, at least 20 decided stops, "
        "at most 1% of them false), and "
    )
    assert refused.endswith("; run `curfew backtest -f FILE`, or apply it as an admin with --override-backtest 'why'")
    assert gated.admin.get(PATH).status_code == 404
    assert put(gated, {**IDLE, "mode": "warn"}).status_code == 201
    assert (mark(gated)["passed"], mark(gated)["by"]) == (False, None)
    assert says.removesuffix("; run") in mark(gated)["missing"]


def test_one_that_is_under_way_does_not_count_yet(gated: Api) -> None:
    with gated.rt.database.transaction() as session:
        id = backtests.create(
            session, policy=policy_of(IDLE), body=IDLE, question={}, project=None, horizon=2 * HOUR, step=MINUTE,
            asked_by="token:ann", holder="us", now=gated.clock.now(),
        ).id  # fmt: skip
        backtests.start(session, id, now=gated.clock.now())
    assert "there is no back-test of it" in why_not(put(gated))


def test_of_several_the_newest_decides_and_not_the_best(gated: Api) -> None:
    tried(gated, ago=3 * DAY)
    tried(gated, ago=2 * DAY, false_stops=30)
    assert "30 of them false (10%)" in why_not(put(gated))
    tried(gated, ago=DAY)
    assert put(gated).status_code == 201


def test_one_that_cannot_tell_decides_nothing(gated: Api) -> None:
    tried(gated, ago=5 * DAY)
    for given in ({"decided": 3, "false_stops": 3}, {"project": "vision", "false_stops": 99}, {"days": 2.0}):
        tried(gated, **given)
    assert put(gated).status_code == 201


def test_a_project_is_enough_for_a_policy_of_that_project_alone(gated: Api) -> None:
    for name in ("vision", "speech"):
        gated.admin.put(f"/api/v1/projects/{name}", json={})
    alone, both = ({**IDLE, "scope": {"projects": projects}} for projects in (["vision"], ["vision", "speech"]))
    tried(gated, alone, project="vision")
    assert put(gated, alone).status_code == 201
    tried(gated, both, project="vision")
    assert "saw only what belongs to vision" in why_not(put(gated, both))


def test_one_that_the_service_was_asked_for_opens_the_gate(gated: Api) -> None:
    """From the question over HTTP to the policy that enforces; the document may say `enforce` already."""
    report = {
        "from": (gated.clock.now() - 30 * DAY).isoformat(),
        "to": gated.clock.now().isoformat(),
        "totals": {"stops": 50, "decided": 50, "undecided": 0, "false_stops": 0},
        "stops": [],
    }
    gated.rt.backtests = Backtests(
        gated.rt.database, gated.clock, location="somewhere", holder="us", work=lambda *_: report
    )
    body = {"policy": {"name": "idle-gpus", **IDLE}}
    href = gated.admin.post("/api/v1/policies/backtest", json=body).json()["href"]
    soon(lambda: gated.admin.get(href).json()["status"] == "done", "the back-test is done")
    gated.rt.backtests.stop()
    assert put(gated).status_code == 201
    assert href.endswith(mark(gated)["backtest"])


# --- whom it asks ----------------------------------------------------------------------------------------------------


def test_without_a_requirement_nothing_is_asked(api: Api) -> None:
    assert put(api).status_code == 201
    assert "backtest" not in api.admin.get(PATH).json()["metadata"]


@pytest.mark.parametrize("mode", ["observe", "warn"])
def test_a_policy_that_does_not_enforce_takes_none(gated: Api, mode: str) -> None:
    assert put(gated, {**IDLE, "mode": mode}).status_code == 201


def test_a_policy_that_cannot_act_takes_none(gated: Api) -> None:
    assert put(gated, {**IDLE, "action": "notify"}).status_code == 201
    assert mark(gated) == {
        "required": False, "passed": False, "passed_at": None, "by": None, "backtest": None, "stops": None,
        "decided": None, "false_stops": None, "rate": None, "missing": None, "overridden_by": None, "reason": None,
    }  # fmt: skip
    assert "there is no back-test of it" in why_not(put(gated, {**IDLE, "action": "stop"})), "it would begin to act"


def test_the_step_from_warn_to_enforce_is_asked(gated: Api) -> None:
    put(gated, {**IDLE, "mode": "warn"})
    assert "there is no back-test of it" in why_not(put(gated))
    assert gated.admin.get(PATH).json()["mode"] == "warn"
    tried(gated)
    assert put(gated).status_code == 200


HARMLESS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a description": {"description": "says more"},
    "a channel": {"notify": ["mailto://lead@example.org"]},
    "an approval": {"approval": "required"},
}


@pytest.mark.parametrize("case", HARMLESS)
def test_who_enforces_goes_on_whatever_became_of_its_back_test(gated: Api, case: str) -> None:
    tried(gated)
    put(gated)
    gated.clock.forward(2 * VALID_FOR)
    assert put(gated, {**IDLE, **HARMLESS[case]}).status_code == 200
    assert mark(gated)["passed"] is False


CHANGED: dict[str, dict[str, Any]] = {
    "a stricter threshold": {"idle": {"for": "30m"}},
    "a looser threshold": {"idle": {"for": "2h"}},
    "a longer grace": {"grace": "2h"},
    "a narrower scope": {"scope": {"kinds": ["instance"]}},
    "an accepted loss": {"accept_loss": ["local_disks"]},
}


@pytest.mark.parametrize("case", CHANGED)
def test_a_changed_policy_passes_again_first(gated: Api, case: str) -> None:
    tried(gated)
    put(gated)
    body = {**IDLE, **CHANGED[case]}
    assert "it has changed since its back-test" in why_not(put(gated, body))
    assert put(gated, {**body, "mode": "warn"}).status_code == 200, "it may step back meanwhile"
    tried(gated, body)
    assert put(gated, body).status_code == 200


def test_what_enforces_when_it_is_first_required_goes_on_until_it_changes(
    sqlite_url: str, clock: SetClock, tmp_path: Path
) -> None:
    database = Database(sqlite_url)
    with service_on(database, clock, tmp_path) as before:
        put(before)
    with service_on(database, clock, tmp_path, require_backtest=REQUIRED) as after:
        assert put(after).status_code == 200
        assert mark(after)["passed"] is False
        assert "there is no back-test of it" in why_not(put(after, {**IDLE, "grace": "1h"}))
        after.admin.delete(PATH)
        assert "there is no back-test of it" in why_not(put(after)), "a new one of its name is a new one"
    database.close()


def test_a_policy_under_another_name_is_another(gated: Api) -> None:
    tried(gated)
    put(gated)
    assert "there is no back-test of it" in why_not(put(gated, path="/api/v1/policies/renamed"))


def test_what_cannot_be_tried_takes_a_person(gated: Api) -> None:
    gated.admin.put(
        "/api/v1/projects/vision",
        json={"currency": "USD", "spend_budgets": [{"name": "monthly", "period": "month", "amount": 10}]},
    )
    body = {"type": "budget", "budget": {"budget": "monthly"}, "mode": "enforce"}
    refused = why_not(put(gated, body))
    assert "a budget policy cannot be back-tested, because history does not know what was spent" in refused
    assert refused.endswith("; apply it as an admin with --override-backtest 'why'"), "no vain try is advised"
    assert put(gated, body, override_backtest="the board wants it").status_code == 201


# --- many documents --------------------------------------------------------------------------------------------------

TWO = """
kind: project
name: vision
---
kind: policy
name: idle-gpus
type: idle
mode: enforce
idle: {for: 45m}
"""


def post(api: Api, *, text: str = TWO, **params: Any) -> httpx.Response:
    body = {"files": [{"name": "team/all policies.yaml", "text": text}]}
    return api.admin.post("/api/v1/apply", json=body, params={"set": "team", **params})


@pytest.mark.parametrize("dry_run", [True, False])
def test_an_apply_is_all_or_nothing_and_names_file_and_line(gated: Api, dry_run: bool) -> None:
    answer = post(gated, dry_run=dry_run)
    assert "curfew backtest -f 'team/all policies.yaml'" in why_not(answer)
    assert answer.json()["errors"][0]["message"].startswith("team/all policies.yaml:8:1: policy 'idle-gpus', mode: ")
    assert gated.admin.get("/api/v1/projects/vision").status_code == 404


def test_every_policy_that_may_not_is_named(gated: Api) -> None:
    more = "---\nkind: policy\nname: nights\ntype: schedule\nmode: enforce\nschedule: {on: Mo-Fr 08:00-20:00}\n"
    answer = post(gated, text=TWO + more)
    assert [error["document"] for error in answer.json()["errors"]] == ["policy 'idle-gpus'", "policy 'nights'"]


@pytest.mark.parametrize("dry_run", [True, False])
def test_the_difference_says_what_lets_it_enforce(gated: Api, dry_run: bool) -> None:
    id = tried(gated)
    changes = {change["name"]: change for change in post(gated, dry_run=dry_run).json()["changes"]}
    assert changes["idle-gpus"]["notes"] == [
        f"it may enforce: its back-test {id[:8]} of 15 Nov 2026 decided 300 stops, 3 of them false (1%)"
    ]
    with gated.rt.database.reading() as session:
        assert (session.get_one(Backtest, id).relied_on_at is None) is dry_run


def test_of_two_who_apply_at_once_neither_gets_past_the_gate_by_the_other(gated_everywhere: Api) -> None:
    """One makes what was tried enforce, the other changes it: whoever comes second is judged by what the first left."""
    api = gated_everywhere
    put(api, {**IDLE, "mode": "warn"})
    tried(api)
    with ThreadPoolExecutor(2) as pool:
        enforced = pool.submit(put, api)
        changed = pool.submit(put, api, {"type": "idle", "idle": {"for": "5m"}, "mode": "warn"})
    assert (enforced.result().status_code, changed.result().status_code) == (200, 200)
    shown = api.admin.get(PATH).json()
    assert (shown["mode"], shown["idle"]["for"]) in [("enforce", "45m"), ("warn", "5m")]


def test_of_two_who_let_the_same_policy_enforce_at_once_one_answer_is_kept(gated_everywhere: Api) -> None:
    api = gated_everywhere
    put(api, {**IDLE, "mode": "warn"})
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(put, api, override_backtest=why) for why in ("one", "two")]
    assert {answer.result().status_code for answer in answers} <= {200, 409}
    with api.rt.database.reading() as session:
        (kept,) = session.exec(select(BacktestOverride)).all()
    assert [line.reason for line in lines(api, "override_backtest")] == [kept.reason]


# --- at the start ----------------------------------------------------------------------------------------------------


def test_what_is_applied_at_start_stands_before_the_same_gate(gated: Api, tmp_path: Path) -> None:
    file = tmp_path / "team" / "policies.yaml"
    file.parent.mkdir()
    file.write_text(TWO, encoding="utf-8")
    with pytest.raises(Refused, match="policy 'idle-gpus', mode: enforce takes a back-test that passed"):
        apply_paths(gated.rt, [file.parent], by="start")
    assert gated.admin.get("/api/v1/projects/vision").status_code == 404
    post(gated, override_backtest="agreed")
    assert [change.action for change in apply_paths(gated.rt, [file.parent], by="start")] == ["unchanged"] * 2


# --- the override ----------------------------------------------------------------------------------------------------


def test_an_override_lets_it_enforce_and_is_in_the_audit_log(gated: Api) -> None:
    tried(gated, false_stops=9)
    answer = post(gated, override_backtest=" the owners agreed, all nine were tests ")
    assert answer.status_code == 200
    (line,) = lines(gated, "override_backtest")
    assert (line.actor, line.object) == ("token:CURFEW_ADMIN_TOKEN", "policy/idle-gpus")
    assert line.reason == "the owners agreed, all nine were tests"
    assert "9 of them false (3%)" in line.details["instead"]
    shown = mark(gated)
    assert (shown["passed"], shown["by"], shown["false_stops"]) == (True, "override", 9)
    assert (shown["overridden_by"], shown["reason"]) == (line.actor, line.reason)
    assert shown["passed_at"] == gated.clock.now().isoformat().replace("+00:00", "Z")


def test_a_dry_run_with_an_override_keeps_nothing(gated: Api) -> None:
    (_, policy) = post(gated, override_backtest="agreed", dry_run=True).json()["changes"]
    assert policy["notes"] == ["it may enforce though there is no back-test of it from the last 90 days: agreed"]
    assert lines(gated, "override_backtest") == []
    assert post(gated).status_code == 422


def test_the_same_policy_needs_it_once_and_a_changed_one_anew(gated: Api) -> None:
    put(gated, override_backtest="agreed")
    for _ in range(3):
        assert put(gated).status_code == 200
    assert put(gated, {**IDLE, "mode": "observe"}).status_code == 200
    assert put(gated).status_code == 200, "it holds though the policy stepped back meanwhile"
    assert "there is no back-test of it" in why_not(put(gated, {**IDLE, "grace": "1h"}))
    assert put(gated, {**IDLE, "grace": "1h"}, override_backtest="again").status_code == 200
    assert [line.reason for line in lines(gated, "override_backtest")] == ["agreed", "again"]


@pytest.mark.parametrize("how", ["deleted", "pruned"])
def test_an_override_goes_with_its_policy(gated: Api, how: str) -> None:
    post(gated, override_backtest="agreed")
    if how == "deleted":
        gated.admin.put("/api/v1/policies/other", json=IDLE, params={"override_backtest": "agreed"})
        assert gated.admin.delete("/api/v1/policies/other").status_code == 200
        assert "there is no back-test of it" in why_not(put(gated, path="/api/v1/policies/other"))
        return
    assert post(gated, text="kind: project\nname: vision\n", prune=True).status_code == 200
    assert "there is no back-test of it" in why_not(post(gated))


def test_an_override_of_what_needs_none_is_none(gated: Api) -> None:
    tried(gated)
    put(gated, override_backtest="to be sure")
    assert (mark(gated)["by"], lines(gated, "override_backtest")) == ("pass", [])
    put(gated, {**IDLE, "mode": "warn"}, override_backtest="to be sure")
    put(gated, {**IDLE, "mode": "warn", "grace": "1h"}, override_backtest="to be sure")
    assert lines(gated, "override_backtest") == []


@pytest.mark.parametrize("reason", ["", "  ", "x" * 1001])
def test_an_override_without_a_reason_is_none(gated: Api, reason: str) -> None:
    assert put(gated, override_backtest=reason).status_code == 422
    assert gated.admin.get(PATH).status_code == 404


@pytest.mark.parametrize("role", ["viewer", "owner", "operator"])
def test_an_override_takes_an_admin(gated: Api, role: str) -> None:
    gated.admin.put("/api/v1/projects/vision", json={})
    holder = gated.holder("someone", role, *(["vision"] if role == "owner" else []))
    answer = holder.put(PATH, json=IDLE, params={"override_backtest": "I say so"})
    assert (answer.status_code, answer.json()["code"]) == (403, "RoleTooLow")


# --- what is seen of it ----------------------------------------------------------------------------------------------


def test_numbers_of_the_whole_installation_are_for_those_who_see_it(gated: Api) -> None:
    gated.admin.put("/api/v1/projects/vision", json={})
    tried(gated)
    put(gated)
    confined = gated.holder("lead", "owner", "vision").get(PATH).json()["metadata"]["backtest"]
    assert (confined["required"], confined["passed"], confined["by"]) == (True, True, "pass")
    assert {confined[key] for key in ("backtest", "stops", "decided", "false_stops", "rate", "missing")} == {None}
    everywhere = gated.holder("auditor", "viewer").get(PATH).json()["metadata"]["backtest"]
    assert (everywhere["stops"], everywhere["decided"], everywhere["false_stops"]) == (305, 300, 3)


def test_the_list_says_it_too_and_what_is_shown_can_be_put_back(gated: Api) -> None:
    tried(gated)
    put(gated)
    (shown,) = gated.admin.get("/api/v1/policies").json()["items"]
    assert shown == gated.admin.get(PATH).json()
    assert put(gated, shown).headers["ETag"] == '"1"'


def test_metrics_say_which_policies_may_enforce(gated: Api) -> None:
    tried(gated)
    put(gated)
    put(gated, {**IDLE, "mode": "warn"}, path="/api/v1/policies/untried")
    put(gated, {**IDLE, "action": "notify"}, path="/api/v1/policies/tells")
    with gated.rt.database.reading() as session:
        policies = load(session).policies.values()
        assert _passed(session, gated.rt, policies) == {("idle-gpus",): True, ("untried",): False}
