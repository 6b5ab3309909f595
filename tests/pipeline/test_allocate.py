"""One machine is one machine, whoever lists it; what it costs is shared out to the last micro-unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.policy import Mode
from providers.machine_ids import machine_key
from providers.records import CapacityType, Kind, Placement, Price, State, Verb
from service.documents import Project
from service.model import Known, Lent
from service.pipeline.allocate import allocate, one_machine_each
from service.pipeline.decide import decide
from service.pipeline.evaluate import of_members
from service.pipeline.meter import meter
from service.pipeline.plan import Standing, why_not
from tests.pipeline.builders import NOW, hours, known, record, warned, world

CLUSTER = "8a3f6f3e-0000-4000-8000-000000000001"


def of_cluster(name: str, kind: Kind, **more: object) -> Known:
    fields = {"provider": "kubernetes", "account": CLUSTER, "region": "", "kind": kind}
    price = more.pop("price", None)
    return known(name, record=record(name, **fields, **more), price=price, source="cluster")


def node(name: str = "node-1", *, machine: str | None = None, price: Price | None = None, **more: object) -> Known:
    return of_cluster(name, Kind.NODE, machine=machine, price=price, **more)


def workload(name: str = "vision/Job/train", *placed: tuple[str, Fraction], **more: object) -> Known:
    placements = tuple(
        Placement(pod=f"pod-{number}", node=at, share=share) for number, (at, share) in enumerate(placed)
    )
    return of_cluster(name, Kind.WORKLOAD, placements=placements, **more)


def dollars(micros: int, currency: str = "USD") -> Price:
    return Price(rate_micros=micros, currency=currency, source="list")


def by_name(resources: Sequence[Known]) -> dict[str, Known]:
    return {known.record.name: known for known in resources}


def allocated(*resources: Known, projects: dict[str, Project] | None = None) -> dict[str, Known]:
    return by_name(allocate(one_machine_each(resources), projects or {}))


# one machine


@pytest.mark.parametrize(
    ("provider", "external_id", "provider_id"),
    [
        ("aws", "i-0abc", "aws:///us-east-1a/i-0abc"),
        ("gcp", "projects/lab/zones/us-central1-a/instances/gke-1", "gce://lab/us-central1-a/gke-1"),
        (
            "azure",
            "/subscriptions/S/resourceGroups/Rg/providers/Microsoft.Compute/virtualMachines/vm-1",
            "azure:///subscriptions/s/resourcegroups/rg/providers/microsoft.compute/virtualmachines/vm-1",
        ),
    ],
)
def test_a_node_and_the_machine_beneath_it_are_one(provider: str, external_id: str, provider_id: str) -> None:
    machine = known(
        "m", record=replace(record("m"), ref=replace(record("m").ref, provider=provider, external_id=external_id))
    )
    found = by_name(one_machine_each([machine, node(machine=provider_id)]))
    assert found["node-1"].same_as == machine.id
    assert not found["node-1"].governed
    assert found["m"].governed


def test_a_node_of_a_cloud_nobody_lists_stands_for_itself() -> None:
    found = by_name(one_machine_each([node(machine="aws:///us-east-1a/i-other"), known("i-1")]))
    assert found["node-1"].same_as is None


def test_a_node_outlives_its_machine_for_a_moment_and_is_not_counted_then() -> None:
    before = replace(node(machine="aws:///us-east-1a/i-1"), same_as="gone")
    assert by_name(one_machine_each([before]))["node-1"].same_as == "gone"


def test_a_node_stands_for_itself_again_when_its_cloud_is_no_longer_a_source() -> None:
    orphan = known("i-1", orphaned_at=NOW)
    before = replace(node(machine="aws:///us-east-1a/i-1"), same_as=orphan.id)
    assert by_name(one_machine_each([before, orphan]))["node-1"].same_as is None


def test_machine_keys_of_clouds_to_come() -> None:
    assert machine_key("oci://ocid1.instance.x") == "ocid1.instance.x"


# what it costs


def test_workloads_carry_their_shares_and_the_machine_what_nobody_requested() -> None:
    found = allocated(
        known("i-1", price=dollars(32_000_000)),
        node(machine="aws:///us-east-1a/i-1"),
        workload("vision/Job/a", ("node-1", Fraction(4, 8))),
        workload("speech/Deployment/b", ("node-1", Fraction(1, 8))),
    )
    assert found["vision/Job/a"].rate_micros == 16_000_000
    assert found["speech/Deployment/b"].rate_micros == 4_000_000
    assert found["i-1"].rate_micros == 12_000_000
    assert found["i-1"].price == dollars(32_000_000), "what it costs is not hidden"


def test_a_machine_that_nobody_holds_anything_of_costs_its_cluster_all_of_it() -> None:
    found = allocated(known("i-1"), node(machine="aws:///us-east-1a/i-1"))
    assert found["i-1"].lent is not None
    assert found["i-1"].rate_micros == known("i-1").rate_micros


def test_what_nobody_requested_is_split_where_the_machines_project_says_so() -> None:
    projects = {"platform": Project(name="platform", idle_capacity="split")}
    found = allocated(
        replace(node(price=dollars(8_000_001)), project="platform"),
        replace(node("node-2", price=dollars(8_000_000)), project="platform"),
        workload("vision/Job/a", ("node-1", Fraction(2, 8))),
        workload("speech/Job/b", ("node-1", Fraction(1, 8))),
        projects=projects,
    )
    assert found["node-1"].rate_micros == 0
    assert found["node-2"].rate_micros == 0, "an empty node is shared out too"
    a, b = found["vision/Job/a"].rate_micros, found["speech/Job/b"].rate_micros
    assert a is not None
    assert b is not None
    assert a + b == 16_000_001
    assert abs(a - 2 * b) <= 4


@pytest.mark.parametrize(
    ("why", "others"),
    [
        ("one of its nodes has no price", [node("node-2")]),
        ("its nodes are paid in two currencies", [node("node-2", price=dollars(5, "EUR"))]),
        ("one of its nodes is not known", []),
    ],
)
def test_what_a_workload_costs_is_unknown_when(why: str, others: list[Known]) -> None:
    spread = workload("vision/Job/a", ("node-1", Fraction(1)), ("node-2", Fraction(1)))
    found = allocated(node(price=dollars(8_000_000)), spread, *others)
    assert found["vision/Job/a"].price is None, why
    machines = [found["node-1"], *(found[other.record.name] for other in others)]
    assert all(machine.rate_micros == (machine.price.rate_micros if machine.price else None) for machine in machines), (
        "nobody else pays for it"
    )


def test_what_cannot_be_given_to_whoever_holds_it_is_not_split_among_others() -> None:
    found = allocated(
        replace(node(price=dollars(8_000_000)), project="platform"),
        workload("vision/Job/a", ("node-1", Fraction(4, 8)), ("nowhere", Fraction(1))),
        workload("speech/Job/b", ("node-1", Fraction(2, 8))),
        projects={"platform": Project(name="platform", idle_capacity="split")},
    )
    assert found["vision/Job/a"].price is None
    assert found["speech/Job/b"].rate_micros == 4_000_000
    assert found["node-1"].rate_micros == 4_000_000


def test_what_nobody_requested_is_split_among_those_who_pay_in_its_currency() -> None:
    found = allocated(
        replace(node(price=dollars(8_000_000)), project="platform"),
        replace(node("node-2", price=dollars(1_000_000, "EUR")), project="platform"),
        replace(node("node-3", price=dollars(3_000, "GBP")), project="platform"),
        workload("vision/Job/a", ("node-1", Fraction(1, 8))),
        workload("speech/Job/b", ("node-2", Fraction(1, 8))),
        projects={"platform": Project(name="platform", idle_capacity="split")},
    )
    prices = {name: known.price for name, known in found.items() if "Job" in name}
    assert {name: (price.rate_micros, price.currency) for name, price in prices.items() if price} == {
        "vision/Job/a": (8_000_000, "USD"),
        "speech/Job/b": (1_000_000, "EUR"),
    }
    assert found["node-3"].rate_micros == 3_000


def test_what_a_complete_answer_lacks_makes_room_at_once_for_what_has_its_name_now() -> None:
    gone = replace(workload("vision/Job/a", ("node-1", Fraction(1))), missing_since=NOW)
    anew = workload("vision/Job/b", ("node-1", Fraction(1)))
    before = replace(node(price=dollars(5)), id="before", missing_since=NOW)
    after = replace(node(price=dollars(8_000_000)), id="after")
    for machines in ([before, after], [after, before]):
        found = {known.id: known for known in allocate([*machines, gone, anew], {})}
        assert (found[gone.id].price, found[anew.id].rate_micros) == (None, 8_000_000)
        assert found["after"].rate_micros == 0


def test_a_node_that_is_not_ready_costs_all_the_same() -> None:
    found = allocated(node(price=dollars(8_000_000), state=State.UNKNOWN))
    assert found["node-1"].rate_micros == 8_000_000


def test_a_workload_that_stopped_costs_nothing_and_keeps_what_it_would_cost() -> None:
    stopped = workload("vision/Job/a", state=State.STOPPED, price=dollars(4_000_000))
    found = allocated(node(price=dollars(8_000_000)), stopped)
    assert (found["vision/Job/a"].rate_micros, found["vision/Job/a"].price) == (0, dollars(4_000_000))
    assert found["node-1"].rate_micros == 8_000_000


NODES = ["node-1", "node-2", "node-3"]
SHARES = st.integers(1, 56).map(lambda count: Fraction(count, 56))
HOLDS = st.lists(st.tuples(st.sampled_from(NODES), SHARES), max_size=4)


@given(
    rates=st.lists(st.integers(0, 10**14), min_size=3, max_size=3),
    holds=st.lists(HOLDS, max_size=6),
    split=st.booleans(),
)
def test_allocation_is_conserved(rates: list[int], holds: list[list[tuple[str, Fraction]]], split: bool) -> None:
    """Whatever pods ask for, even more than there is: all parts together are the machines, at every moment."""
    projects = {"platform": Project(name="platform", idle_capacity="split" if split else "keep")}
    machines = [
        replace(node(name, price=dollars(rate)), project="platform") for name, rate in zip(NODES, rates, strict=True)
    ]
    workloads = [workload(f"vision/Job/{number}", *placed) for number, placed in enumerate(holds)]
    found = allocate([*machines, *workloads], projects)
    assert sum(one.rate_micros or 0 for one in found) == sum(rates)
    assert all((one.rate_micros or 0) >= 0 for one in found)

    intervals = {change.resource_id: change.opened[-1] for change in meter(found, {}, NOW)}
    later = NOW + hours(7.77)
    alone = sum(rate * int(hours(7.77).total_seconds()) for rate in rates)
    assert sum(interval.reached(later) for interval in intervals.values()) == alone


# nodes are never stopped


@pytest.mark.parametrize("in_cluster", [False, True])
def test_a_machine_of_a_cluster_is_never_stopped_though_nothing_on_it_says_that_it_is_a_node(in_cluster: bool) -> None:
    machine = known("i-1")
    asked = world(machine, standing=Standing(findings=(warned(machine),)))
    if in_cluster:
        beneath = node(machine="aws:///us-east-1a/i-1")
        asked = replace(
            asked, known={**asked.known, beneath.id: beneath}, sources={**asked.sources, "cluster": Mode.ENFORCE}
        )
    ruling = decide(asked, NOW)
    assert [intent.resource.id for intent in ruling.plan.intents] == ([] if in_cluster else [machine.id])
    if in_cluster:
        [policy] = asked.policies.values()
        why = why_not(by_name(ruling.resources)["i-1"], policy.policy, asked.limits, NOW)
        assert why is not None
        assert "nodes are never stopped" in why


def test_a_machine_of_a_cluster_stays_one_when_the_cluster_is_no_source_any_more() -> None:
    held = Lent(share=Fraction(1, 2), micros=4_000_000)
    machine = replace(known("i-1", price=dollars(8_000_000)), lent=held)
    orphan = replace(node(machine="aws:///us-east-1a/i-1"), same_as=machine.id, orphaned_at=NOW)
    found = allocated(machine, orphan)["i-1"]
    assert found.lent == Lent(share=held.share, micros=0)
    assert found.rate_micros == 8_000_000
    assert by_name(allocate([found, replace(orphan, ended_at=NOW)], {}))["i-1"].lent is None


def test_a_scaling_group_is_left_alone_while_workloads_hold_gpus_of_a_member() -> None:
    member = replace(known("i-1"), lent=Lent(share=Fraction(1, 8), micros=1))
    group = known("trainers", record=record("trainers", kind=Kind.NODE_GROUP, members=("i-1",)))
    blockers = of_members(group, [member]).record.blockers
    assert {blocker.verb for blocker in blockers} == {Verb.SCALE_TO_ZERO, Verb.MOVE_TO_SPOT}
    free = replace(member, lent=Lent(share=Fraction(), micros=0))
    assert not of_members(group, [free]).record.blockers


def test_what_is_stopping_holds_its_gpus_and_pays_for_them() -> None:
    going = workload("vision/Job/a", ("node-1", Fraction(1, 2)), state=State.STOPPING)
    found = allocated(node(price=dollars(8_000_000)), going)
    assert (found["vision/Job/a"].rate_micros, found["node-1"].rate_micros) == (4_000_000, 4_000_000)


def test_what_no_label_says_the_machines_cloud_knows() -> None:
    spot = replace(record("i-1"), capacity_type=CapacityType.SPOT)
    unlabelled = workload("vision/Job/a", ("node-1", Fraction(1, 2)), capacity_type=CapacityType.UNKNOWN)
    found = allocated(known("i-1", record=spot), node(machine="aws:///us-east-1a/i-1"), unlabelled)
    assert found["vision/Job/a"].record.capacity_type is CapacityType.SPOT
