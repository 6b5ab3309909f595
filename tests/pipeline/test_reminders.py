"""How often somebody is told again."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.pipeline.plan import reminders_after

ages = st.timedeltas(min_value=timedelta(days=-1), max_value=timedelta(days=900))


@pytest.mark.parametrize(
    ("age", "count"),
    [
        (timedelta(days=-1), 0),
        (timedelta(hours=23, minutes=59), 0),
        (timedelta(days=1), 1),
        (timedelta(days=3) - timedelta(seconds=1), 1),
        (timedelta(days=3), 2),
        (timedelta(days=10) - timedelta(seconds=1), 2),
        (timedelta(days=10), 3),
        (timedelta(days=17), 4),
    ],
)
def test_after_a_day_after_three_then_once_a_week(age: timedelta, count: int) -> None:
    assert reminders_after(age) == count


@given(age=ages)
def test_never_more_than_once_a_day(age: timedelta) -> None:
    assert 0 <= reminders_after(age + timedelta(days=1)) - reminders_after(age) <= 1
