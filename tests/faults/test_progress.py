"""A region hangs while a cycle runs: whoever asks sees which source is stuck, and where, and who has answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any

import pytest

from service.app import create_app
from service.runtime import compose
from service.settings import Settings
from tests.api.service_under_test import ADMIN, Client
from tests.faults.installation import REGIONS, SOURCE, Installation
from tests.providers.aws.front import Call, Front, Reply

NEAR, FAR = REGIONS


@pytest.fixture
def far_hangs(front: Front) -> Iterator[Callable[[], None]]:
    """From when it is called the far region answers nothing, until the test is over."""
    over = threading.Event()

    def rule(call: Call) -> Reply | None:
        if call.region == FAR:
            over.wait(60)
        return None

    yield lambda: front.rules.insert(0, rule)
    over.set()


def told(client: Client) -> Mapping[str, Any] | None:
    """Of the newest cycle."""
    found: Mapping[str, Any] | None = client.get("/api/v1/cycles").json()["items"][0]["progress"]
    return found


def until(client: Client, seen: Callable[[Mapping[str, Mapping[str, Any]]], bool]) -> Mapping[str, Mapping[str, Any]]:
    """What is told of each source, once it is that."""
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        progress = told(client)
        sources = {one["source"]: one for one in progress["sources"]} if progress else {}
        if seen(sources):
            return sources
        time.sleep(0.02)
    raise AssertionError(f"last told: {told(client)}")


def test_while_a_region_hangs_it_is_seen_which_one_and_that_the_others_have_answered(
    here: Installation, far_hangs: Callable[[], None]
) -> None:
    here.document("source", name="near", provider="aws", regions=[NEAR], endpoint=here.front.endpoint)
    assert here.cycle().error is None
    looked = here.clock.now()
    here.clock.forward(timedelta(minutes=1))
    client = Client(create_app(here.rt))
    replica = compose(Settings(admin_token=ADMIN, secret_key="s" * 32), clock=here.clock, database=here.rt.database)  # type: ignore[arg-type]
    far_hangs()
    cycle = threading.Thread(target=here.cycle)
    cycle.start()
    try:
        sources = until(
            client,
            lambda told: bool(told) and bool(told[SOURCE]["parts"]["answered"]) and told["near"]["awaited"] == [],
        )
        stuck, well = sources[SOURCE], sources["near"]
        assert stuck["awaited"] == [{"about": "listing", "since": here.clock.now().isoformat().replace("+00:00", "Z")}]
        assert stuck["parts"] == {"answered": [NEAR], "waiting": [FAR]}
        assert stuck["last_success"] == looked.isoformat().replace("+00:00", "Z")
        assert well["parts"] == {"answered": [NEAR], "waiting": []}

        elsewhere = told(Client(create_app(replica)))
        assert elsewhere is not None
        assert "another process runs it" in elsewhere["unknown"]
    finally:
        here.rt.fleet.end()  # nobody waits any longer
        cycle.join(30)
    assert told(client) is None
