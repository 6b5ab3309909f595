"""Spend budgets as people write them, and what is said of their mistakes."""

from __future__ import annotations

from datetime import date

import pytest

from service import apply
from service.documents import Project, SpendBudget, effective, written
from service.files import Refused
from service.settings import Settings


def read(*budgets: str) -> Project:
    """A project with these budgets, read from a file."""
    text = f"kind: project\nname: vision\ncurrency: EUR\nspend_budgets: [{', '.join(budgets)}]\n"
    [parsed] = apply.check(Settings(secret_key="k" * 32), *apply.read_texts([("vision.yaml", text)]))  # type: ignore[arg-type]
    assert isinstance(parsed.document, Project)
    return parsed.document


def budget(text: str) -> SpendBudget:
    [found] = read(text).spend_budgets
    return found


def test_a_budget_of_a_month() -> None:
    found = budget("{name: monthly, period: month, amount: 20000, alert_at: [100%, 50%, 80%, 50%]}")
    assert (found.name, found.period, found.amount, found.currency) == ("monthly", "month", 20_000_000_000, None)
    assert found.alert_at == (0.5, 0.8, 1.0)


def test_a_budget_of_a_range_in_another_currency() -> None:
    found = budget("{name: sprint, period: range, from: 2026-11-01, until: 2026-12-01, amount: 99.95, currency: USD}")
    assert (found.from_, found.until, found.amount) == (date(2026, 11, 1), date(2026, 12, 1), 99_950_000)
    assert (found.currency, found.alert_at) == ("USD", (0.5, 0.8, 1.0))


def test_it_may_alert_nobody() -> None:
    assert budget("{name: quiet, period: total, amount: 1, alert_at: []}").alert_at == ()


@pytest.mark.parametrize("form", [written, effective])
def test_what_is_stored_reads_back(form: object) -> None:
    project = read(
        "{name: monthly, period: month, amount: 20000, alert_at: [12.5%]}",
        "{name: sprint, period: range, from: 2026-11-01, until: 2026-12-01, amount: 0.000001}",
    )
    body = form(project)  # type: ignore[operator]
    assert Project.model_validate(body) == project
    assert body["spend_budgets"][1]["from"] == "2026-11-01"


MONTH = "name: m, period: month, amount: 1"
MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "a period nobody knows": (
        ("{name: m, period: monthly, amount: 1}",),
        "spend_budgets[0].period: 'monthly' is not one of month, quarter, total, range; did you mean 'month'?",
    ),
    "no amount": (("{name: m, period: month}",), "spend_budgets[0].amount: is missing"),
    "an amount of nothing": (
        ("{name: m, period: month, amount: 0}",),
        "spend_budgets[0].amount: a spend budget of nothing is spent before it begins; write an amount above zero",
    ),
    "an amount below nothing": (
        ("{name: m, period: month, amount: -5}",),
        "spend_budgets[0].amount: -5 is no amount of money; write a number like 200 or 199.95",
    ),
    "a currency that is none": (
        (f"{{{MONTH}, currency: usd}}",),
        "spend_budgets[0].currency: 'usd' is no ISO 4217 currency code; did you mean 'USD'?",
    ),
    "a share without its sign": (
        (f"{{{MONTH}, alert_at: [50%, 80]}}",),
        "spend_budgets[0].alert_at[1]: 80 is no share; write it with its sign, like 10% (0% to 100%)",
    ),
    "an alert at nothing": (
        (f"{{{MONTH}, alert_at: [0%]}}",),
        "spend_budgets[0].alert_at: 0% is reached before anything is spent; write shares above it, like 50%",
    ),
    "a range without its days": (
        ("{name: m, period: range, amount: 1, from: 2026-11-01}",),
        "spend_budgets[0].period: a range needs from and until, like from: 2026-11-01 and until: 2026-12-01",
    ),
    "a month with days": (
        (f"{{{MONTH}, until: 2026-11-01}}",),
        "spend_budgets[0].period: from and until belong to a range; a month has none",
    ),
    "a range that ends before it begins": (
        ("{name: m, period: range, amount: 1, from: 2026-11-01, until: 2026-11-01}",),
        "spend_budgets[0].until: 2026-11-01 must come after 2026-11-01; it is the day after the last one",
    ),
    "a day written otherwise": (
        ("{name: m, period: range, amount: 1, from: 1.11.2026, until: 2026-12-01}",),
        "spend_budgets[0].from: '1.11.2026' is no date; write it like 2026-11-01",
    ),
    "a day that does not exist": (
        ("{name: m, period: range, amount: 1, from: 2026-02-30, until: 2026-12-01}",),
        "spend_budgets[0].from: '2026-02-30' is no date; write it like 2026-11-01",
    ),
    "a day beyond all planning": (
        ("{name: m, period: range, amount: 1, from: 2026-02-01, until: 9999-12-01}",),
        "spend_budgets[0].until: 9999-12-01 lies beyond what anybody budgets for",
    ),
    "two of one name": (
        (f"{{{MONTH}}}", f"{{{MONTH}}}"),
        "spend_budgets: two spend budgets are called 'm'; nobody could tell them apart",
    ),
    "a field nobody knows": (
        (f"{{{MONTH}, alerts_at: [50%]}}",),
        "spend_budgets[0].alerts_at: there is no such field; did you mean 'alert_at'?",
    ),
}


@pytest.mark.parametrize("sentence", MISTAKES)
def test_a_mistake_is_named(sentence: str) -> None:
    budgets, says = MISTAKES[sentence]
    with pytest.raises(Refused) as refused:
        read(*budgets)
    assert [str(mistake).partition("project 'vision', ")[2] for mistake in refused.value.mistakes] == [says]
