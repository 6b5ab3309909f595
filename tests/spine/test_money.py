"""The money of whole cycles: metered by activity, on the metrics page, assumed where nobody looked."""

from __future__ import annotations

from datetime import timedelta

from prometheus_client.parser import text_string_to_metric_families

from providers.simulated.activity import Busy, Idle, Until
from service.store import spend
from service.store.spend import By
from tests.spine.company import Company, minutes

HOURLY = 55.04


def funded(here: Company, **budget: object) -> None:
    here.document(
        "project",
        name="vision",
        owners=["lead@example.org"],
        match=[{"tags": {"project": "vision"}}],
        timezone="Asia/Ho_Chi_Minh",
        spend_budgets=[{"name": "monthly", "period": "month", "amount": 1000, "alert_at": []} | budget],
    )


def metrics(here: Company, name: str) -> dict[tuple[str, ...], float]:
    """Values by (project, budget or activity …) of one family."""
    families = {family.name: family for family in text_string_to_metric_families(here.rt.metrics.decode())}
    return {tuple(sample.labels.values()): sample.value for sample in families[name].samples}


def hours(here: Company, by: By) -> dict[str, float]:
    """What vision's machines have run, in hours of one of them."""
    now = here.clock.now()
    with here.rt.database.reading() as session:
        rows = list(spend.metered(session, now=now, projects=["vision"]))
    found = spend.sums(rows, [by], spend.BEGINNING, now, now.tzinfo)  # type: ignore[arg-type]
    return {group[0]: round(cost.micros / HOURLY / 10**6, 3) for (group, _), cost in found.items()}


def test_what_idle_machines_cost_stands_apart(small: Company) -> None:
    here = small
    here.delete("policy", "idle-gpus")
    funded(here)
    start = here.clock.now()
    here.machine("busy", activity=Busy())
    here.machine("soon-idle", activity=Until(moment=start + minutes(30), first=Busy(), then=Idle()))
    here.cycle()
    here.cycles(minutes(120))
    assert hours(here, By.ACTIVITY) == {"busy": 2.5, "idle": 1.5}
    key = ("vision", "aws", "H100", "on_demand", "USD")
    assert metrics(here, "curfew_cost") == {key: 4 * HOURLY}
    assert metrics(here, "curfew_idle_cost") == {key: 1.5 * HOURLY}


def test_budgets_are_on_the_metrics_page(small: Company) -> None:
    here = small
    here.delete("policy", "idle-gpus")
    funded(here)
    here.machine("busy", activity=Busy())
    here.cycle()
    here.cycles(minutes(120))
    key = ("vision", "monthly", "USD")
    assert metrics(here, "curfew_spend_budget_amount") == {key: 1000.0}
    assert metrics(here, "curfew_spend_budget_used_ratio") == {key: 2 * HOURLY / 1000}
    [ratio] = metrics(here, "curfew_spend_budget_forecast_ratio").values()
    left = (24 * 14 + 6) * HOURLY  # until December begins in Ho Chi Minh City
    assert round(ratio, 4) == round((2 * HOURLY + left) / 1000, 4)


def test_a_budget_that_is_not_known_is_absent_and_not_zero(small: Company) -> None:
    here = small
    funded(here, currency="EUR")
    here.machine("busy", activity=Busy())
    here.cycle()
    here.cycles(minutes(10))
    assert metrics(here, "curfew_spend_budget_amount") == {("vision", "monthly", "EUR"): 1000.0}
    assert metrics(here, "curfew_spend_budget_used_ratio") == {}


def test_what_happened_while_we_were_away_is_metered_and_says_so(small: Company) -> None:
    here = small
    here.machine("busy", activity=Busy())
    here.cycle()
    here.cycles(minutes(20))
    here.restart()
    here.cycle(after=timedelta(hours=3))
    here.cycles(minutes(20))
    now = here.clock.now()
    with here.rt.database.reading() as session:
        found = spend.sums(spend.metered(session, now=now, projects=["vision"]), [], spend.BEGINNING, now, now.tzinfo)  # type: ignore[arg-type]
    [cost] = found.values()
    assert round(cost.micros / HOURLY / 10**6, 3) == round(3 + 40 / 60, 3)
    assert cost.assumed_micros == round(3 * HOURLY * 10**6)


def test_what_is_used_never_falls_within_a_period(small: Company) -> None:
    """Whatever machines do: stop, go missing, come back, end, idle; and whoever restarts us."""
    here = small
    here.delete("policy", "idle-gpus")
    funded(here, amount=10**9)
    refs = [here.machine(f"m{index}", activity=Busy()) for index in range(3)]
    events = {
        3: lambda: here.cloud.stop(refs[0].external_id),
        6: lambda: here.cloud.vanish(refs[1].external_id),
        9: here.restart,
        12: lambda: here.cloud.start(refs[0].external_id),
        15: lambda: here.clock.forward(timedelta(hours=2)),
        18: lambda: here.cloud.stop(refs[0].external_id),
    }
    seen = [0]
    for step in range(24):
        events.get(step, lambda: None)()
        assert here.cycle(after=minutes(1)).error is None
        assert here.rt.view is not None
        used = here.rt.view.look.budgets["vision", "monthly"].used_micros
        assert used is not None
        assert used >= seen[-1], f"at step {step}"
        seen.append(used)
        assert sum(metrics(here, "curfew_cost").values()) >= used / 10**6 - 0.001
