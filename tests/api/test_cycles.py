"""How far a cycle is, told while it runs: since when a source is asked, which parts answered, its last success."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from service.runtime import Runtime
from service.store.tables import Cycle, SourceState
from tests.api.service_under_test import Api
from tests.under_way import has_answered, owes, running, source

EARLIER = timedelta(minutes=7)


def started(api: Api, id: str = "c1") -> None:
    api.store(Cycle(id=id, started_at=api.clock.now(), requested_by="schedule"))


def progress(api: Api) -> Any:
    [listed] = api.admin.get("/api/v1/cycles").json()["items"]
    assert api.admin.get(f"/api/v1/cycles/{listed['id']}").json() == listed
    return listed["progress"]


def test_a_source_that_is_stuck_is_told_from_those_that_have_answered(api: Api) -> None:
    now = api.clock.now()
    started(api)
    api.store(SourceState(source="company", succeeded_at=now - EARLIER), SourceState(source="lab"))
    running(
        api.rt,
        "c1",
        owes(source("company", answered=("1/us-east-1", "2/us-east-1"), waiting=("1/eu-west-1",)), now, "listing"),
        has_answered(source("lab", answered=("us-east-1",)), now, "listing"),
        owes(source("metrics"), now - EARLIER, "telemetry"),
    )

    assert progress(api) == {
        "unknown": None,
        "step": "collect",
        "sources": [
            {
                "source": "company",
                "awaited": [{"about": "listing", "since": "2026-11-16T09:00:00Z"}],
                "parts": {"answered": ["1/us-east-1", "2/us-east-1"], "waiting": ["1/eu-west-1"]},
                "last_success": "2026-11-16T08:53:00Z",
                "fault": None,
            },
            {
                "source": "lab",
                "awaited": [],
                "parts": {"answered": ["us-east-1"], "waiting": []},
                "last_success": None,
                "fault": None,
            },
            {
                "source": "metrics",
                "awaited": [{"about": "telemetry", "since": "2026-11-16T08:53:00Z"}],
                "parts": None,
                "last_success": None,
                "fault": None,
            },
        ],
    }


def test_the_steps_that_are_done_are_told_before_the_last_one_is(api: Api) -> None:
    started(api)
    running(api.rt, "c1", step="decide")

    answer = api.admin.get("/api/v1/cycles/c1").json()

    assert ([step["step"] for step in answer["steps"]], answer["progress"]["step"]) == (["read"], "decide")


def nothing(rt: Runtime) -> None:
    """As on a replica that does not govern."""


def another(rt: Runtime) -> None:
    running(rt, "c2", owes(source("company"), rt.clock.now(), "listing"))


@pytest.mark.parametrize("runs", [nothing, another])
def test_whoever_does_not_run_it_says_that_it_does_not_know(api: Api, runs: Any) -> None:
    started(api)
    runs(api.rt)

    told = progress(api)

    assert "only that one knows how far it is" in told.pop("unknown")
    assert told == {"step": None, "sources": []}


def test_of_one_that_has_finished_there_is_no_progress(api: Api) -> None:
    api.cycle("c1", api.clock.now())
    running(api.rt, "c1", owes(source("company"), api.clock.now(), "telemetry"))

    assert progress(api) is None
