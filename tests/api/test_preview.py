"""What a policy would do right now, asked over HTTP of a company that has been looked at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from sqlmodel import select

from providers.simulated.activity import Busy, Silent
from service.app import create_app
from service.clock import SetClock
from service.store.database import Database
from service.store.tables import Audit, Document, Finding, Outbox
from tests.api.service_under_test import ADMIN, Client
from tests.spine.company import Company, company

RATE = 55_040_000
IDLE: dict[str, Any] = {
    "kind": "policy",
    "name": "new",
    "type": "idle",
    "mode": "enforce",
    "accept_loss": ["local_disks"],
    "disruption_budget": {"max": "100%"},
}
STORED = {key: value for key, value in IDLE.items() if key != "kind"}


@dataclass
class Looked:
    """A company and somebody who asks."""

    company: Company
    admin: Client

    def preview(self, *, cycle: bool = True, query: str = "", **policy: Any) -> dict[str, Any]:
        if cycle:
            assert self.company.cycle().error is None
        answer = self.admin.post(f"/api/v1/policies/preview{query}", json=IDLE | policy)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@pytest.fixture
def here(sqlite_url: str, clock: SetClock) -> Iterator[Looked]:
    database = Database(sqlite_url)
    with company(database, clock, admin_token=ADMIN) as made:
        made.rt.ask_for_cycle = lambda by: "cycle-1"
        yield Looked(company=made, admin=Client(create_app(made.rt)))
    database.close()


def about(found: dict[str, Any], name: str = "trainer") -> dict[str, Any]:
    (entry,) = [entry for entry in found["resources"]["items"] if entry["name"] == name]
    return entry  # type: ignore[no-any-return]


def test_before_the_first_cycle_there_is_nothing_to_judge(here: Looked) -> None:
    answer = here.admin.post("/api/v1/policies/preview", json=IDLE)

    assert (answer.status_code, answer.json()["code"]) == (409, "NoCycleYet")


def test_everything_is_told_and_nothing_is_stored(here: Looked) -> None:
    here.company.machine()
    here.company.machine("worker", activity=Busy())
    here.company.machine("dark", activity=Silent())
    here.company.cycle()
    tables = (Document, Finding, Outbox, Audit)
    with here.company.rt.database.reading() as session:
        before = [len(session.exec(select(table)).all()) for table in tables]

    found = here.preview(cycle=False)

    assert found["counts"] == {
        "in_scope": 3,
        "breach": 1,
        "foreseen": 0,
        "unknown": 1,
        "would_act": 1,
        "could_not": 0,
        "warned": 0,
        "acted_on": 1,
    }
    money = {"amount_micros": RATE, "currency": "USD"}
    assert found["totals"] == [
        {
            "currency": "USD",
            "breach_per_hour": money,
            "would_act_per_hour": money,
            "would_act_per_day": {"amount_micros": 24 * RATE, "currency": "USD"},
        }
    ]
    assert found["hours"] == [{"hour": 1, "resources": 1, "gpus": 8.0, "per_hour": [money]}]
    assert [entry["name"] for entry in found["resources"]["items"]] == ["trainer", "dark"]
    idle = about(found)
    assert idle["reason"].startswith("All 8 H100 have been idle for ")
    assert idle["why"] == "Its people are warned; 30m after that: stop."
    assert (idle["then"], idle["verb"], idle["hour"], idle["saves_per_hour"]) == ("acted_on", "stop", 1, money)
    assert idle["losses"]
    assert about(found, "dark")["then"] == "unknown"
    with here.company.rt.database.reading() as session:
        assert [len(session.exec(select(table)).all()) for table in tables] == before
    assert here.company.cloud.acts == []


MODES: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "the policy observes": ({"mode": "observe"}, {}, "nothing", "The policy's mode is observe"),
    "the policy warns": ({"mode": "warn"}, {}, "warned", "Its people are warned. The policy's mode is warn"),
    "the installation observes": ({}, {"ceiling": "observe"}, "nothing", "this installation's ceiling is observe"),
    "the installation warns": ({}, {"ceiling": "warn"}, "warned", "this installation's ceiling is warn"),
    "nobody can answer a warning": ({}, {"public_url": ""}, "warned", "Without a usable CURFEW_PUBLIC_URL"),
    "the policy only notifies": ({"action": "notify"}, {}, "warned", "The policy only notifies."),
}


@pytest.mark.parametrize("case", MODES)
def test_less_happens_than_could_when(case: str, sqlite_url: str, clock: SetClock) -> None:
    policy, settings, then, why = MODES[case]
    database = Database(sqlite_url)
    with company(database, clock, admin_token=ADMIN, **settings) as made:
        made.machine()
        found = Looked(company=made, admin=Client(create_app(made.rt))).preview(**policy)
    database.close()

    assert about(found)["then"] == then
    assert why in about(found)["why"]
    assert found["counts"]["would_act"] == (policy.get("action") != "notify")
    assert (found["counts"]["acted_on"], found["counts"]["could_not"]) == (0, 0)


HINDRANCES: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "its disks would be erased": ({}, {"accept_loss": []}, "refused", "accept_loss: [local_disks]"),
    "it is a member of a group": ({"managed_by": "asg/training"}, {}, "refused", "It is a member of asg/training"),
    "it is protected": ({"tags": {"curfew-protect": "true"}}, {}, "refused", "It is protected"),
    "it must never come back": ({}, {"action": "terminate"}, "refused", "accept_loss: [terminate]"),
    "no hour has room for it": (
        {},
        {"disruption_budget": {"max": 1, "max_hourly_cost": 50}},
        "left_alone",
        "No hour has room for it. Waits for the disruption budget: with it, 55.04 USD per hour",
    ),
    "its price is in another currency than the disruption budget": (
        {},
        {"disruption_budget": {"max": 1, "max_hourly_cost": {"amount": 500, "currency": "EUR"}}},
        "left_alone",
        "its price is in USD, and the disruption budget is in EUR.",
    ),
    "nothing may be disturbed": ({}, {"disruption_budget": {"max": 0}}, "left_alone", "No hour has room for it."),
}


@pytest.mark.parametrize("mode", ["enforce", "observe"])
@pytest.mark.parametrize("case", HINDRANCES)
def test_what_could_not_be_acted_on_is_counted_by_its_reason(here: Looked, case: str, mode: str) -> None:
    machine, policy, then, why = HINDRANCES[case]
    for name in ("trainer", "twin"):
        here.company.machine(name, **machine)

    found = here.preview(mode=mode, **policy)

    (reason,) = found["could_not"]
    assert reason["count"] == 2
    assert why in reason["reason"]
    assert (found["counts"]["breach"], found["counts"]["would_act"], found["counts"]["could_not"]) == (2, 0, 2)
    assert (about(found)["then"], about(found)["why"]) == (then, reason["reason"])
    assert (found["hours"], found["totals"][0]["would_act_per_hour"]["amount_micros"]) == ([], 0)


def test_an_exemption_a_snooze_and_a_no_leave_alone(here: Looked) -> None:
    refs = {name: here.company.machine(name) for name in ("exempt", "snoozed", "dismissed", "trainer")}
    now = here.company.clock.now()
    here.company.document(
        "exemption", name="demo", resources=["exempt"], until=(now + timedelta(days=1)).isoformat(), reason="demo day"
    )
    here.company.cycle()
    with here.company.rt.database.transaction() as session:
        for status, more in (("snoozed", {"quiet_until": now + timedelta(hours=4)}), ("dismissed", {"closed_at": now})):
            row = session.get_one(Finding, here.company.finding(refs[status]).id)
            for key, value in {"status": status, "status_reason": "As they asked.", **more}.items():
                setattr(row, key, value)
            session.add(row)

    found = here.preview(cycle=False, name="idle-gpus")

    assert {entry["name"]: entry["then"] for entry in found["resources"]["items"]} == {
        "trainer": "acted_on",
        "exempt": "exempt",
        "snoozed": "snoozed",
        "dismissed": "dismissed",
    }
    assert found["counts"]["could_not"] == 3


def test_the_disruption_budget_spreads_acts_over_hours_as_the_cycle_would(here: Looked) -> None:
    for name in ("a", "b", "c", "d", "e"):
        here.company.machine(name)

    found = here.preview(disruption_budget={"max": 2})

    assert [(wave["hour"], wave["resources"], wave["gpus"]) for wave in found["hours"]] == [
        (1, 2, 16),
        (2, 2, 16),
        (3, 1, 8),
    ]
    last = found["resources"]["items"][-1]
    assert last["why"].endswith(" The disruption budget makes it wait: it is met in hour 3.")

    here.company.document("policy", name="idle-gpus", type="idle", scope={"where": "gpu_count < 0"})
    here.company.document("policy", **{**STORED, "disruption_budget": {"max": 2}})
    here.company.cycles(timedelta(hours=4), every=timedelta(minutes=15))
    by_hour = {entry["name"]: entry["hour"] for entry in found["resources"]["items"]}
    acted = [here.company.cloud.machines[act.external_id].name for act in here.company.cloud.acts]
    assert [by_hour[name] for name in acted] == [1, 1, 2, 2, 3]


def test_what_was_disturbed_within_the_hour_counts_against_the_first(here: Looked) -> None:
    for name in ("a", "b"):
        here.company.machine(name)
    here.company.cycle()
    here.company.cycle(after=timedelta(minutes=30))
    assert len(here.company.cloud.acts) == 2
    for name in ("c", "d"):
        here.company.machine(name)

    found = here.preview(name="idle-gpus", disruption_budget={"max": 3})

    assert [(wave["hour"], wave["resources"]) for wave in found["hours"]] == [(1, 1), (2, 1)]


def test_the_breaker_that_the_first_hour_would_trip_is_told(here: Looked) -> None:
    for name in ("a", "b"):
        here.company.machine(name)
    here.company.cycle()
    object.__setattr__(here.company.rt.view.limits, "breaker", 0.3)  # type: ignore[union-attr]

    assert "more than the 30% the breaker allows" in here.preview(cycle=False)["breaker"]
    assert here.preview(cycle=False, disruption_budget={"max": 1})["breaker"] is None


def test_a_window_longer_than_the_samples_is_unknown_and_says_so(here: Looked) -> None:
    here.company.machine()

    found = here.preview(idle={"for": "6h"})

    assert found["counts"]["unknown"] == 1
    assert about(found)["why"] == "No samples reach so far back yet. Unknown is never acted on."
    (note,) = found["notes"]
    assert "samples of the last 6h8m" in note
    assert "of the last 53m only" in note


def test_a_hold_and_an_approval_are_told(here: Looked) -> None:
    here.company.machine()
    assert here.admin.put("/api/v1/hold", json={"project": "vision", "reason": "a deadline"}).status_code == 200

    why = about(here.preview(approval="required"))["why"]

    assert "A person must approve it first." in why
    assert "Project vision is on hold until somebody lifts it: a deadline." in why


OTHER_TYPES: dict[str, dict[str, Any]] = {
    "lifetime": {"lifetime": {"max": "20h"}},
    "residency": {"residency": {"allowed_regions": ["eu-*"]}},
    "quota": {"quota": {"max_gpus": 4}},
    "spot": {"spot": {"allowed_on_demand": "10%"}},
    "expression": {"expression": {"when": "hourly_cost > 50"}},
    "ownership": {"ownership": {"require": ["project"]}},
    "schedule": {"schedule": {"on": "off"}},
}


@pytest.mark.parametrize("type", OTHER_TYPES)
def test_every_type_is_previewed(here: Looked, type: str) -> None:
    here.company.machine(tags={})

    found = here.preview(type=type, **OTHER_TYPES[type])

    assert (found["type"], found["counts"]["breach"], about(found)["then"]) == (type, 1, "acted_on")


def test_a_budget_is_previewed_with_what_is_spent(here: Looked) -> None:
    here.company.document(
        "project",
        name="vision",
        match=[{"tags": {"project": "vision"}}],
        spend_budgets=[{"name": "monthly", "period": "month", "amount": 50}],
    )
    here.company.machine()
    here.company.cycle()
    here.company.cycle(after=timedelta(hours=1))

    found = here.preview(type="budget", budget={"budget": "monthly"}, cycle=False)

    assert found["counts"]["breach"] == 1
    assert "monthly" in about(found)["reason"]


def test_a_foreseen_breach_is_met_once_it_is_one(here: Looked) -> None:
    here.company.machine()

    found = here.preview(type="lifetime", lifetime={"max": "24h10m"})

    assert (found["counts"]["foreseen"], found["counts"]["would_act"]) == (1, 1)
    assert about(found)["why"] == "Its people are warned; 30m after that: stop if it is a breach by then."


def test_pages_follow_each_other_without_gap_or_repetition(here: Looked) -> None:
    for index in range(7):
        here.company.machine(f"m{index}", activity=Silent() if index > 4 else Busy(level=0.01))
    here.company.cycle()
    whole = [entry["id"] for entry in here.preview(cycle=False)["resources"]["items"]]
    paged: list[str] = []
    query = "?limit=3"
    while query:
        page = here.preview(cycle=False, query=query)["resources"]
        paged += [entry["id"] for entry in page["items"]]
        query = f"?limit=3&cursor={page['next']}" if page["next"] else ""

    assert len(whole) == 7
    assert paged == whole
    assert here.admin.post("/api/v1/policies/preview?cursor=nothing", json=IDLE).json()["code"] == "BadCursor"


WRONG = {
    "a mistake in the policy": ("kind: policy\nname: p\ntype: idel\n", "body:3:1", "did you mean 'idle'"),
    "a project that does not exist": (
        "kind: policy\nname: p\ntype: idle\nscope: {projects: [vison]}\n",
        "body:4:",
        "did you mean 'vision'",
    ),
    "no policy": ("kind: project\nname: p\n", "", "there is no policy in the body"),
    "two policies": (
        "kind: policy\nname: p\ntype: idle\n---\nkind: policy\nname: q\ntype: idle\n",
        "",
        "say ?policy=NAME",
    ),
    "nothing": ("", "", "there is no policy in the body"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_previewed_says_why(here: Looked, case: str) -> None:
    text, place, says = WRONG[case]

    answer = here.admin.post("/api/v1/policies/preview", content=text, headers={"Content-Type": "application/yaml"})

    assert answer.status_code == 422
    assert place in answer.json()["detail"]
    assert says in answer.json()["detail"]


def test_a_body_as_long_as_a_book_is_not_looked_through(here: Looked) -> None:
    text = "kind: policy\nname: p\ntype: idle\n" + "# a line\n" * 40_000
    answer = here.admin.post("/api/v1/policies/preview", content=text, headers={"Content-Type": "application/yaml"})
    assert (answer.status_code, answer.json()["code"]) == (413, "TooLarge")


def test_one_of_several_is_chosen_by_name(here: Looked) -> None:
    here.company.cycle()
    text = "kind: policy\nname: p\ntype: idle\n---\nkind: policy\nname: q\ntype: residency\n"
    text += "residency: {allowed_regions: ['*']}\nscope: {projects: [fresh]}\n---\nkind: project\nname: fresh\n"
    body = {"files": [{"name": "all.yaml", "text": text}]}

    found = here.admin.post("/api/v1/policies/preview?policy=q", json=body).json()

    assert (found["policy"], found["counts"]["in_scope"]) == ("q", 0)
    assert found["notes"] == ["The project 'fresh' is not applied yet, so nothing belongs to it."]
    other = here.admin.post("/api/v1/policies/preview?policy=pp", json=body)
    assert "did you mean 'p'" in other.json()["detail"]


def test_whoever_sees_everything_may_preview_and_nobody_else(here: Looked) -> None:
    here.company.machine()
    here.company.cycle()
    tokens: dict[str, tuple[dict[str, Any], int]] = {
        "viewer": ({"role": "viewer"}, 200),
        "viewer of vision": ({"role": "viewer", "projects": ["vision"]}, 403),
        "owner of vision": ({"role": "owner", "projects": ["vision"]}, 403),
    }
    for index, (body, status) in enumerate(tokens.values()):
        made = here.admin.put(f"/api/v1/tokens/t{index}", json=body).json()
        client = Client(here.admin.app, token=made["token"])
        assert client.post("/api/v1/policies/preview", json=IDLE).status_code == status
    assert Client(here.admin.app, token=None).post("/api/v1/policies/preview", json=IDLE).status_code == 401
