"""The simulated cloud's own knobs: time, faults, people, and what it writes down."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.contract import BuildContext, Provider
from providers.errors import (
    Conflict,
    Forbidden,
    Misconfigured,
    NoCapacity,
    NotFound,
    Protected,
    ProviderError,
    Throttled,
    Unreachable,
    Unsupported,
)
from providers.records import Blocker, Kind, ResourceRecord, ResourceRef, Series, Signal, State, Verb
from providers.simulated import Config, build, clouds, forget, provider_of
from providers.simulated.activity import Activity, Busy, Hours, Idle, Serving, Silent, Spare, Thin, Until
from providers.simulated.catalogue import SKUS
from providers.simulated.cloud import Machine, SimulatedCloud

NOON = datetime(2026, 11, 14, 12, 0, tzinfo=UTC)


class Lab:
    """A cloud with one machine and a clock to turn."""

    def __init__(self, *, activity: Activity | None = None, **fields: Any) -> None:
        self.moment = NOON
        self.cloud = SimulatedCloud(lambda: self.moment)
        self.machine = Machine(
            name="trainer", activity=activity or Busy(), launched_at=NOON - timedelta(days=2), sku=SKUS["p5.48xlarge"]
        )
        for name, value in fields.items():
            assert hasattr(self.machine, name)
            setattr(self.machine, name, value)
        self.ref = self.cloud.add(self.machine)
        self.provider = provider_of(self.cloud)

    def forward(self, **by: float) -> None:
        self.moment += timedelta(**by)

    def describe(self) -> ResourceRecord:
        assert self.provider.inventory is not None
        return self.provider.inventory.describe(self.ref)

    def act(self, verb: Verb = Verb.STOP, request_id: str = "curfew-1") -> None:
        assert self.provider.actuator is not None
        self.provider.actuator.act(self.ref, verb, request_id=request_id)

    def restore(self, request_id: str = "curfew-2", state: str = "running") -> None:
        assert self.provider.actuator is not None
        self.provider.actuator.restore(self.ref, {"verb": "stop", "state": state}, request_id=request_id)

    def series(self, start: datetime, end: datetime, signal: Signal = Signal.UTILISATION) -> list[Series]:
        assert self.provider.telemetry is not None
        answer = self.provider.telemetry.samples([self.describe()], start=start, end=end)
        return [series for series in answer.series if series.signal is signal]


def test_stopping_and_starting_take_a_while() -> None:
    lab = Lab()
    lab.act()
    seen = [lab.describe().state]
    lab.forward(seconds=59)
    seen.append(lab.describe().state)
    lab.forward(seconds=1)
    seen.append(lab.describe().state)
    lab.restore()
    seen.append(lab.describe().state)
    lab.forward(seconds=60)
    seen.append(lab.describe().state)
    assert seen == [State.STOPPING, State.STOPPING, State.STOPPED, State.PENDING, State.RUNNING]
    assert lab.describe().launched_at == NOON + timedelta(seconds=60)


def test_what_still_stops_cannot_be_started() -> None:
    lab = Lab()
    lab.act()
    with pytest.raises(Conflict):
        lab.restore()


def test_what_was_stopped_before_is_not_started_by_a_restore() -> None:
    lab = Lab()
    lab.cloud.stop(lab.ref.external_id)
    lab.forward(minutes=5)
    lab.restore(state="stopped")
    assert lab.describe().state is State.STOPPED


def test_a_terminated_machine_is_listed_for_an_hour_and_never_comes_back() -> None:
    lab = Lab()
    lab.act(Verb.TERMINATE)
    lab.forward(minutes=2)
    assert lab.provider.inventory is not None
    assert [record.state for record in lab.provider.inventory.list().records] == [State.TERMINATED]
    with pytest.raises(NotFound):
        lab.restore()
    lab.forward(hours=1)
    assert lab.provider.inventory.list().records == ()
    assert lab.describe().state is State.TERMINATED


def test_a_stopped_machine_can_still_be_terminated() -> None:
    lab = Lab()
    lab.act()
    lab.forward(minutes=5)
    lab.act(Verb.TERMINATE, request_id="curfew-2")
    lab.forward(minutes=5)
    assert lab.describe().state is State.TERMINATED


REFUSALS: dict[str, tuple[dict[str, Any], type[ProviderError]]] = {
    "the cloud's own protection": ({"locked": True}, Protected),
    "a blocker of that verb": (
        {"blockers": (Blocker(verb=Verb.STOP, code="OneTimeSpot", sentence="one-time spot"),)},
        Unsupported,
    ),
    "a kind that knows no such verb": ({"kind": Kind.NODE}, Unsupported),
}


@pytest.mark.parametrize(("fields", "error"), REFUSALS.values(), ids=REFUSALS)
def test_the_cloud_refuses_for(fields: dict[str, Any], error: type[ProviderError]) -> None:
    lab = Lab(**fields)
    with pytest.raises(error):
        lab.act()
    assert lab.describe().state is State.RUNNING
    assert [(act.changed, act.error) for act in lab.cloud.acts] == [(False, error.code)]


def test_a_refused_request_may_succeed_later_under_the_same_id() -> None:
    lab = Lab(locked=True)
    with pytest.raises(Protected):
        lab.act()
    lab.machine.locked = False
    lab.act()
    assert lab.describe().state is State.STOPPING


def test_every_act_is_written_down_and_each_request_id_changes_once() -> None:
    lab = Lab()
    lab.act(request_id="one")
    lab.forward(minutes=2)
    lab.cloud.start(lab.ref.external_id)
    lab.forward(minutes=2)
    lab.act(request_id="one")
    assert [(act.request_id, act.verb, act.changed, act.error) for act in lab.cloud.acts] == [
        ("one", Verb.STOP, True, None),
        ("one", Verb.STOP, False, None),
    ]
    assert lab.describe().state is State.RUNNING


def test_an_answer_may_be_lost_after_the_deed() -> None:
    lab = Lab()
    lab.cloud.fail(Unreachable("the answer never came"), "act", after=True, times=1)
    with pytest.raises(Unreachable):
        lab.act()
    assert lab.describe().state is State.STOPPING
    assert [(act.changed, act.error) for act in lab.cloud.acts] == [(True, "Unreachable")]
    lab.act()
    assert [act.changed for act in lab.cloud.acts] == [True, False]


def test_an_act_may_be_accepted_and_never_take_effect() -> None:
    lab = Lab(stubborn=True)
    lab.act()
    lab.forward(hours=1)
    assert lab.describe().state is State.RUNNING
    assert [(act.changed, act.error) for act in lab.cloud.acts] == [(False, None)]


def test_a_failure_is_met_as_often_as_it_says() -> None:
    lab = Lab()
    lab.cloud.fail(Throttled("slowly", retry_after=2.0), "describe", times=2)
    for _ in range(2):
        with pytest.raises(Throttled) as told:
            lab.describe()
        assert told.value.retry_after == 2.0
    assert lab.describe().state is State.RUNNING


def test_a_failure_may_be_of_one_machine_only() -> None:
    lab = Lab()
    other = lab.cloud.add(Machine(name="other", launched_at=NOON))
    lab.cloud.fail(Forbidden("no", permission="ec2:StopInstances"), "act", external_id=lab.ref.external_id)
    with pytest.raises(Forbidden) as told:
        lab.act()
    assert told.value.permission == "ec2:StopInstances"
    assert lab.provider.actuator is not None
    lab.provider.actuator.act(other, Verb.STOP, request_id="curfew-2")
    assert lab.cloud.machines[other.external_id].state_at(NOON) is State.STOPPING


def test_failures_heal_one_by_one_or_all_at_once() -> None:
    lab = Lab()
    first = lab.cloud.fail(Throttled("a"), "describe")
    lab.cloud.fail(Unreachable("b"), "describe")
    lab.cloud.heal(first)
    with pytest.raises(Unreachable):
        lab.describe()
    lab.cloud.heal()
    assert lab.describe().state is State.RUNNING


def test_a_cloud_may_have_no_capacity_left() -> None:
    lab = Lab()
    lab.act()
    lab.forward(minutes=2)
    with lab.cloud.failing(NoCapacity("no p5 left in us-east-1"), "restore"), pytest.raises(NoCapacity):
        lab.restore()
    lab.restore()
    assert lab.describe().state is State.PENDING


def test_another_account_may_answer() -> None:
    lab = Lab()
    lab.cloud.account = "999988887777"
    assert lab.provider.inventory is not None
    assert lab.provider.inventory.list().identity == "999988887777"
    with pytest.raises(Misconfigured):
        lab.describe()


def test_what_should_happen_happens_at_its_moment_however_late_one_looks() -> None:
    lab = Lab()
    lab.cloud.later(NOON + timedelta(hours=2), lambda at: lab.cloud.start(lab.ref.external_id, at))
    lab.cloud.later(NOON + timedelta(hours=1), lambda at: lab.cloud.stop(lab.ref.external_id, at))
    lab.forward(hours=5)
    assert lab.describe().launched_at == NOON + timedelta(hours=2)
    assert [state for _, state in lab.machine.history] == [
        State.RUNNING,
        State.STOPPING,
        State.STOPPED,
        State.PENDING,
        State.RUNNING,
    ]


def test_what_does_not_run_has_no_samples() -> None:
    lab = Lab()
    lab.act()
    lab.forward(minutes=30)
    lab.restore()
    lab.forward(minutes=30)
    off = NOON.timestamp(), (NOON + timedelta(minutes=31)).timestamp()
    found = lab.series(NOON - timedelta(minutes=10), lab.moment)
    assert len(found) == 8
    for series in found:
        assert len(series.times) == 10 + 29
        assert not [t for t in series.times if off[0] <= t < off[1]]


def test_samples_are_never_from_the_future_and_may_arrive_late() -> None:
    lab = Lab()
    (first, *_) = lab.series(NOON - timedelta(minutes=10), NOON + timedelta(hours=1))
    assert first.times[-1] == NOON.timestamp()
    lab.cloud.lag = timedelta(minutes=4)
    (first, *_) = lab.series(NOON - timedelta(minutes=10), NOON + timedelta(hours=1))
    assert first.times[-1] == (NOON - timedelta(minutes=4)).timestamp()


def test_a_series_that_matches_two_machines_is_nobodys() -> None:
    lab = Lab(ambiguous=True)
    assert lab.provider.telemetry is not None
    answer = lab.provider.telemetry.samples([lab.describe()], start=NOON - timedelta(hours=1), end=NOON)
    assert answer.series == ()
    assert answer.ambiguous == {lab.ref}


def test_memory_held_is_not_work() -> None:
    lab = Lab(activity=Idle(memory=0.5))
    start = NOON - timedelta(minutes=5)
    (held, *_) = lab.series(start, NOON, Signal.MEMORY_USED_MIB)
    (power, *_) = lab.series(start, NOON, Signal.POWER_WATTS)
    assert set(held.values) == {81559 * 0.5}
    assert max(power.values) < 150
    assert {value for series in lab.series(start, NOON) for value in series.values} == {0.0}


def test_a_server_counts_its_requests() -> None:
    lab = Lab(activity=Serving(every=timedelta(minutes=20)))
    (requests,) = lab.series(NOON - timedelta(hours=1), NOON, Signal.REQUESTS_TOTAL)
    assert requests.values[-1] - requests.values[0] == 2
    assert list(requests.values) == sorted(requests.values)


ACTIVITIES: dict[str, Callable[[], Activity]] = {
    "busy": Busy,
    "idle": Idle,
    "silent": Silent,
    "until": lambda: Until(moment=NOON),
    "spare": lambda: Spare(devices=frozenset({0})),
    "hours": Hours,
    "nights": lambda: Hours(zone="Asia/Ho_Chi_Minh", start=22, end=5),
    "serving": lambda: Serving(every=timedelta(minutes=20)),
    "thin": Thin,
}


@given(
    second=st.integers(1_700_000_000, 1_900_000_000), device=st.integers(0, 15), name=st.sampled_from(list(ACTIVITIES))
)
def test_activity_is_a_function_of_time_within_its_bounds(second: int, device: int, name: str) -> None:
    load = ACTIVITIES[name]()(device, second)
    assert load == ACTIVITIES[name]()(device, second)
    assert load is None or (0 <= load.utilisation <= 1 and 0 <= load.memory <= 1)


@given(
    offset=st.integers(-7200, 7200),
    lengths=st.tuples(st.integers(0, 5400), st.integers(0, 5400)),
    stopped=st.booleans(),
)
def test_two_windows_side_by_side_tell_what_one_window_tells(
    offset: int, lengths: tuple[int, int], *, stopped: bool
) -> None:
    lab = Lab()
    if stopped:
        lab.cloud.stop(lab.ref.external_id, NOON)
        lab.cloud.start(lab.ref.external_id, NOON + timedelta(minutes=31))
    lab.forward(hours=6)
    start = NOON + timedelta(seconds=offset)
    middle = start + timedelta(seconds=lengths[0])
    end = middle + timedelta(seconds=lengths[1])

    def told(*windows: tuple[datetime, datetime]) -> dict[str, list[tuple[int, float]]]:
        found: dict[str, list[tuple[int, float]]] = {}
        for window in windows:
            for series in lab.series(*window):
                found.setdefault(series.device, []).extend(zip(series.times, series.values, strict=True))
        return found

    assert told((start, middle), (middle, end)) == told((start, end))


def test_building_a_source_twice_reaches_the_same_cloud_until_it_is_forgotten() -> None:
    context = BuildContext(source="test-cloud-state", now=lambda: NOON)

    def only_running(provider: Provider) -> dict[ResourceRef, State]:
        assert provider.inventory is not None
        return {record.ref: record.state for record in provider.inventory.list().records}

    forget("test-cloud-state")
    first = only_running(build(Config(cloud="gcp"), context))
    stopped = clouds["test-cloud-state"].machines[next(iter(first)).external_id]
    clouds["test-cloud-state"].stop(stopped.external_id)
    assert only_running(build(Config(cloud="gcp"), context)) != first
    forget("test-cloud-state")
    assert only_running(build(Config(cloud="gcp"), context)) == first
    forget("test-cloud-state")


def test_a_test_may_put_its_own_cloud_under_a_sources_name() -> None:
    clouds["test-own-cloud"] = Lab().cloud
    provider = build(Config(), BuildContext(source="test-own-cloud", now=lambda: NOON))
    assert provider.inventory is not None
    assert [record.name for record in provider.inventory.list().records] == ["trainer"]
    assert provider.capabilities.simulated
    forget("test-own-cloud")


@pytest.mark.parametrize("fields", [{"cloud": "oracle"}, {"company": "acme"}, {"region": "us-east-1"}])
def test_unknown_settings_are_refused(fields: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        Config.model_validate(fields)
