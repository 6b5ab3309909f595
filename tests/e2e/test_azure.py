"""Azure from outside: what was shut down and is billed all the same, scale sets and node pools to zero and back as they
were, and what stands in the way. What happened is asked of the stand-in, and not of Curfew.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.process import Curfew, curfew
from tests.e2e.test_spine_on_kubernetes import text_of
from tests.notify.conftest import Sink
from tests.providers.azure.cloud import OTHER, SUBSCRIPTION, Cloud
from tests.providers.azure.cloud_operations import NO_ROOM
from tests.providers.azure.cloud_refusals import forbidden

LEAD = "vision-lead@example.org"
GRACE = 1.2
LIBRARY = Path(__file__).parents[2] / "policies" / "library"
DOCUMENTS = """
kind: source
name: azure
provider: azure
subscriptions: [{subscriptions}]
endpoint: {endpoint}
prices_endpoint: {endpoint}
ca_file: {ca_file}
token_secret: AZURE_TOKEN
telemetry_interval: 0s
---
kind: project
name: vision
owners: [{lead}]
match:
  - accounts: [{subscriptions}]
"""
POLICY = """
---
kind: policy
name: {name}
type: {type}
mode: enforce
scope: {scope}
{type}: {rule}
grace: 1s
action: stop
accept_loss: {accept_loss}
disruption_budget: {{max: 100%}}
"""
NIGHT = '{on: "Mo-Su 00:00-24:00; Jan 01-Dec 31 off"}'


def closed(name: str = "closed", *, scope: str = "{}", accept_loss: str = "[local_disks]") -> str:
    return POLICY.format(name=name, type="schedule", scope=scope, rule=NIGHT, accept_loss=accept_loss)


GROUPS = closed("closed-groups", scope="{kinds: [node_group]}", accept_loss="[group_members]")


@dataclass
class Here:
    """Everything a test reaches for."""

    curfew: Curfew
    cloud: Cloud
    sink: Sink

    def documents(self, more: str, *, subscriptions: Sequence[str] = (SUBSCRIPTION,)) -> None:
        self.curfew.apply(
            DOCUMENTS.format(
                subscriptions=", ".join(subscriptions),
                endpoint=self.cloud.endpoint,
                ca_file=self.cloud.ca_file,
                lead=LEAD,
            )
            + more
        )

    def cycle(self) -> dict[str, Any]:
        """One, and then all that it has begun comes to its end."""
        report = self.curfew.cycle()
        assert report["error"] is None
        self.cloud.settle()
        return report

    def warned_and_due(self, more: str) -> None:
        self.documents(more)
        self.cycle()
        assert {finding["status"] for finding in self.curfew.findings()} == {"warned"}
        time.sleep(GRACE)

    def resource(self, path: str) -> dict[str, Any]:
        return self.curfew.resources()[path]

    def stopped(self) -> dict[str, Any]:
        """Two cycles: what is due is done, and then read back. Answers the one action there is."""
        self.cycle()
        self.cycle()
        [action] = self.curfew.get("/actions")["items"]
        assert action["status"] == "verified", action
        return dict(action)

    def undo(self, action: dict[str, Any]) -> str:
        """The id of the action that will do it."""
        return str(self.curfew.post(f"/actions/{action['id']}/undo")["id"])

    def undone(self, action: dict[str, Any]) -> str:
        """What became of undoing it, after two cycles."""
        undo = self.undo(action)
        self.cycle()
        self.cycle()
        return self.status(undo)

    def status(self, action: str) -> str:
        return str(self.curfew.get(f"/actions/{action}")["status"])

    def changes(self) -> list[str]:
        return [call.method for call in self.cloud.calls if call.changes]


@pytest.fixture
def azure() -> Iterator[Cloud]:
    """Two empty subscriptions."""
    with Cloud((SUBSCRIPTION, OTHER)).serving() as azure:
        azure.operations.retry_after = azure.operations.looks = None
        yield azure
    assert azure.bugs == []


@pytest.fixture
def here(tmp_path: Path, azure: Cloud, sink: Sink) -> Iterator[Here]:
    """Curfew at the ceiling `enforce`."""
    environment = {
        "CURFEW_CEILING": "enforce",
        "CURFEW_BREAKER": "100%",
        "CURFEW_MAIL": f"mailto://127.0.0.1:{sink.port}/?from=curfew@example.org&to={{to}}&mode=insecure",
        "CURFEW_ALLOW_TARGETS": "127.0.0.1",
        "CURFEW_ALLOW_ENDPOINTS": "127.0.0.1",
        "CURFEW_SECRET_AZURE_TOKEN": "a-token",
    }
    with curfew(tmp_path, **environment) as service:
        yield Here(curfew=service, cloud=azure, sink=sink)


# Machines.


def test_what_was_shut_down_from_inside_is_shown_to_cost_and_is_deallocated(here: Here) -> None:
    """By the starter policy, told to enforce and to accept the loss of the temporary disk."""
    path = here.cloud.compute.machine("trainer", power="stopped")
    starter = (LIBRARY / "off-but-billed.yaml").read_text("utf-8")
    here.documents(f"---\n{starter}")
    here.cycle()
    off = here.resource(path)
    assert (off["state"], off["powered_off"]) == ("running", True)
    assert off["remarks"] == ["it is stopped but not deallocated, so Azure still bills it"]
    assert off["hourly_cost"] == {"amount_micros": 4_775_000, "currency": "USD"}
    time.sleep(1.1)
    here.cycle()
    assert cost(here, path) > 0
    assert [finding["status"] for finding in here.curfew.findings()] == ["open"]
    assert (here.sink.arrived, here.changes()) == ([], [])

    enforced = starter.replace("mode: observe", "mode: enforce").replace("grace: 1h", "grace: 1s")
    here.warned_and_due(f"---\n{enforced}accept_loss: [local_disks]\n")
    [mail] = here.sink.arrived
    assert (mail["To"], here.cloud.compute.power(path)) == (LEAD, "stopped")
    stop = here.stopped()
    assert (stop["verb"], here.cloud.compute.power(path)) == ("stop", "deallocated")
    resource = here.resource(path)
    assert (resource["state"], resource["powered_off"], resource["remarks"]) == ("stopped", False, [])
    assert resource["hourly_cost"]["amount_micros"] == 0
    spent = cost(here, path)
    time.sleep(1.1)
    here.cycle()
    assert cost(here, path) == spent

    assert (here.undone(stop), here.cloud.compute.power(path)) == ("verified", "running")
    assert here.changes() == ["VirtualMachines_Deallocate", "VirtualMachines_Start"]


def cost(here: Here, path: str) -> int:
    micros: int = here.resource(path)["cost_to_date"]["amount_micros"]
    return micros


def test_what_deallocating_would_lose_is_lost_only_where_that_was_accepted(here: Here) -> None:
    kept = here.cloud.compute.machine("kept", tags={"disks": "kept"})
    scratch = here.cloud.compute.machine("scratch", tags={"disks": "scratch"})
    here.cloud.resources.public_address(kept)
    here.documents(
        closed("kept", scope="{tags: {disks: kept}}", accept_loss="[]")
        + closed("scratch", scope="{tags: {disks: scratch}}")
    )
    here.cycle()
    lost = "of temporary disk would be erased, and its dynamic public address 203.0.113.7 would be given up"
    [refused] = here.curfew.findings(policy="kept")
    assert refused["status"] == "refused"
    assert f"{lost}. That needs accept_loss: [local_disks]." in refused["status_reason"]
    [mail] = here.sink.arrived
    assert "of temporary disk would be erased" in text_of(mail)

    time.sleep(GRACE)
    here.stopped()
    assert (here.cloud.compute.power(kept), here.cloud.compute.power(scratch)) == ("running", "deallocated")
    assert here.cloud.compute.lost_disks == [scratch.lower()]


def test_a_start_for_which_there_is_no_room_is_told_in_azures_words(here: Here) -> None:
    path = here.cloud.compute.machine("trainer")
    here.warned_and_due(closed())
    stop = here.stopped()
    assert here.cloud.compute.power(path) == "deallocated"

    here.cloud.operations.fail_next("start", NO_ROOM, target=path)
    start = here.undo(stop)
    here.curfew.cycle()
    assert (here.status(start), here.cloud.compute.power(path)) == ("taken", "starting"), "Azure accepts it first"
    here.cloud.settle()
    here.cycle()
    undo, words = (
        here.curfew.get(f"/actions/{start}"),
        "We do not have sufficient capacity for the requested VM size in this region",
    )
    assert undo["status"] == "failed"
    assert undo["error"].startswith(f"the cloud accepted it and failed later: start of {path}: Allocation failed.")
    assert words in undo["error"]
    assert here.cloud.compute.power(path) == "deallocated"
    here.cycle()
    assert any(words in " ".join(text_of(mail).split()) for mail in here.sink.arrived)

    assert (here.undone(stop), here.cloud.compute.power(path)) == ("verified", "running")


def test_a_lock_protects_even_one_that_comes_after_the_warning(here: Here) -> None:
    locked = here.cloud.compute.machine("locked", lock="ReadOnly")
    later = here.cloud.compute.machine("later", group="rg-later")
    here.documents(closed())
    here.cycle()
    resource = here.resource(locked)
    sentence = "the lock 'keep' on it lets it be read only"
    assert (resource["protected"], resource["protections"]) == (True, [sentence])
    [warned] = [finding for finding in here.curfew.findings() if finding["status"] == "warned"]
    assert warned["resource"] == here.resource(later)["id"]

    here.cloud.locks.lock(f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-later", "ReadOnly", name="month-end")
    time.sleep(GRACE)
    here.cycle()
    here.cycle()
    assert [here.cloud.compute.power(path) for path in (locked, later)] == ["running", "running"]
    assert here.changes() == []
    assert here.resource(later)["protections"] == ["the lock 'month-end' on its resource group lets it be read only"]


# Scale sets.


def set_settings(cloud: Cloud, path: str) -> Any:
    """All that somebody could have set on it, and what sets its size."""
    return json.loads(json.dumps([cloud.scale_sets.scale_sets[path.lower()].body, cloud.monitor.autoscale]))


def autoscaled(cloud: Cloud) -> bool:
    [found] = cloud.monitor.autoscale.values()
    on: bool = found["properties"]["enabled"]
    return on


@pytest.mark.parametrize("flexible", [False, True], ids=["uniform", "flexible"])
def test_a_scale_set_goes_to_zero_and_comes_back_as_it_was(here: Here, flexible: bool) -> None:
    path = here.cloud.scale_sets.scale_set("workers", capacity=2, flexible=flexible)
    here.cloud.monitor.autoscale_setting(path, least=1, most=4)
    before, members = set_settings(here.cloud, path), here.cloud.scale_sets.members(path)
    here.warned_and_due(GROUPS)
    resource = here.resource(path)
    assert (resource["kind"], resource["state"], resource["gpu_count"]) == ("node_group", "running", 2)
    assert resource["remarks"] == ["the autoscale setting 'scale' sets its size (1 to 4 instances)"]
    assert {here.resource(member)["managed_by"] for member in members} == {"vmss:workers"}
    [finding] = here.curfew.findings()
    assert (finding["resource"], finding["status"]) == (resource["id"], "warned")

    stop = here.stopped()
    assert stop["verb"] == "scale_to_zero"
    assert (here.cloud.scale_sets.capacity(path), here.cloud.scale_sets.members(path)) == (0, [])
    assert not autoscaled(here.cloud)

    assert here.undone(stop) == "verified"
    assert set_settings(here.cloud, path) == before
    assert len(here.cloud.scale_sets.members(path)) == 2
    assert set(here.cloud.scale_sets.members(path)).isdisjoint(members)


# Node pools of AKS.

VOLATILE = ("eTag", "provisioningState")


def pool_settings(cloud: Cloud, path: str) -> Any:
    pool = cloud.aks.truth(path)
    assert pool is not None
    return json.loads(json.dumps({key: value for key, value in pool.items() if key not in VOLATILE}))


def test_a_node_pool_goes_to_zero_and_comes_back_as_it_was(here: Here) -> None:
    path = here.cloud.aks.pool(here.cloud.aks.cluster(), count=2, autoscaling=(1, 4))
    nodes = here.cloud.aks.scale_set(path)
    before = pool_settings(here.cloud, path)
    here.warned_and_due(GROUPS)
    resource = here.resource(path)
    assert (resource["gpu_count"], resource["remarks"]) == (2, ["cluster autoscaler sets its size (1 to 4 nodes)"])
    shown = [one for one in here.curfew.resources().values() if one["kind"] == "node_group"]
    assert [one["external_id"] for one in shown] == [path], "its scale set is not there a second time"

    stop = here.stopped()
    assert stop["verb"] == "scale_to_zero"
    assert here.cloud.scale_sets.members(nodes) == []
    there = pool_settings(here.cloud, path)
    assert (there["count"], there["enableAutoScaling"]) == (0, False)

    assert here.undone(stop) == "verified"
    assert pool_settings(here.cloud, path) == before
    assert len(here.cloud.scale_sets.members(nodes)) == 2
    assert here.changes() == ["AgentPools_CreateOrUpdate"] * 2


# Compute instances of Azure Machine Learning.


def test_an_idle_compute_instance_is_stopped_and_started(here: Here) -> None:
    workspace = here.cloud.ml.workspace()
    started = here.cloud.stamp(datetime.now(UTC) - timedelta(hours=2))
    done = {"operationName": "Start", "operationTime": started, "operationStatus": "Succeeded"}
    path = here.cloud.ml.instance(workspace, "ada", lastOperation={**done, "operationTrigger": "User"})
    here.cloud.ml.cluster(workspace, nodes=1)
    now = int(time.time())
    here.cloud.monitor.push(
        workspace,
        "GpuUtilizationPercentage",
        [(now - 60 * minute, 0.0) for minute in range(70)],
        dimensions={"ComputeName": "ada", "InstanceId": "tvmps_1", "DeviceId": "0"},
    )
    idle = "{for: 10m, warm_up: 1m}"
    here.warned_and_due(
        POLICY.format(
            name="idle-notebooks",
            type="idle",
            scope="{kinds: [notebook]}",
            rule=idle,
            accept_loss="[local_disks]",
        )
    )
    assert set(here.curfew.resources()) == {path}
    resource = here.resource(path)
    assert (resource["kind"], resource["gpu_model"], resource["activity"]) == ("notebook", "A100-80GB", "idle")
    assert resource["hourly_cost"]["amount_micros"] == 4_775_000

    stop = here.stopped()
    assert (here.cloud.ml.power(path), here.resource(path)["state"]) == ("Stopped", "stopped")
    assert (here.undone(stop), here.cloud.ml.power(path)) == ("verified", "Running")
    assert here.changes() == ["Compute_Stop", "Compute_Start"]


# Several subscriptions.


def test_of_a_subscription_that_is_forbidden_nothing_vanishes(here: Here) -> None:
    mine = here.cloud.compute.machine("mine")
    theirs = here.cloud.compute.machine("theirs", subscription=OTHER)
    here.documents("", subscriptions=(SUBSCRIPTION, OTHER))
    [source] = here.cycle()["sources"]
    assert source["complete"], source

    machines = f"/subscriptions/{OTHER}"
    here.cloud.refuse(
        "Microsoft.Compute", forbidden("Microsoft.Compute/virtualMachines/read", machines), subscription=OTHER
    )
    here.cloud.compute.machine("new")
    here.cloud.compute.vanish(mine)
    for _ in range(3):
        [source] = here.cycle()["sources"]
    assert not source["complete"]
    assert "Microsoft.Compute/virtualMachines/read" in json.dumps(source)
    there = here.curfew.resources()
    assert (there[theirs]["state"], there[theirs]["ended_at"], there[theirs]["orphaned_at"]) == ("running", None, None)
    assert there[mine]["ended_at"] is not None, "what the other one tells counts"
    assert len(there) == 3

    here.cloud.rules.clear()
    [source] = here.cycle()["sources"]
    assert source["complete"]
    assert here.resource(theirs)["state"] == "running"
