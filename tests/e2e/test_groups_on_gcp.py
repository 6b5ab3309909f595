"""Google Cloud from outside: groups and node pools to zero and back as they were, machines and notebooks that stop and
start, and what of it fails late. What happened is asked of the stand-in, and not of Curfew.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.process import Curfew, curfew
from tests.e2e.test_spine_on_kubernetes import text_of
from tests.notify.conftest import Sink
from tests.providers.gcp.cloud import PROJECT, Cloud
from tests.providers.gcp.cloud_operations import no_capacity
from tests.providers.gcp.conftest import cloud
from tests.providers.gcp.templates import telling_templates

__all__ = ["cloud"]

LEAD = "vision-lead@example.org"
GRACE = 1.2
DOCUMENTS = """
kind: source
name: google
provider: gcp
projects: [{project}]
credentials: anonymous
endpoint: {endpoint}
telemetry_interval: 0s
---
kind: project
name: vision
owners: [{lead}]
match:
  - accounts: [{project}]
"""
IDLE = """
---
kind: policy
name: {name}
type: idle
mode: enforce
scope: {scope}
idle: {{for: 10m, warm_up: 1m}}
grace: 1s
action: stop
accept_loss: {accept_loss}
disruption_budget: {{max: 100%}}
"""
GROUPS = IDLE.format(name="idle-groups", scope="{kinds: [node_group]}", accept_loss="[group_members]")


@dataclass
class Here:
    """Everything a test reaches for."""

    curfew: Curfew
    cloud: Cloud
    sink: Sink

    def documents(self, more: str) -> None:
        self.curfew.apply(DOCUMENTS.format(project=PROJECT, endpoint=self.cloud.endpoint, lead=LEAD) + more)

    def worked(self, machine: str, *, percent: float, hours: float = 2) -> None:
        """A machine that was started so many hours ago, and what its GPUs did in the last one."""
        instance = self.cloud.compute.instances[machine]
        now = int(time.time())  # a whole second, as Curfew counts: of a fraction it would count a second less
        started = datetime.fromtimestamp(now, UTC) - timedelta(hours=hours)
        instance["lastStartTimestamp"] = started.isoformat(timespec="milliseconds")
        kind = self.cloud.catalogue.machine_types[instance["machineType"].rpartition("/")[2]]
        for gpu in range(kind.accelerators):
            self.cloud.monitoring.push(
                machine,
                [(now - 60 * minute, percent) for minute in range(70)],
                labels={"gpu_number": str(gpu), "model": "NVIDIA", "uuid": f"GPU-{gpu}"},
            )

    def cycle(self) -> None:
        """One, and then all that it has begun comes to its end."""
        assert self.curfew.cycle()["error"] is None
        self.cloud.settle()

    def warned_and_due(self, more: str) -> None:
        self.documents(more)
        self.cycle()
        assert {finding["status"] for finding in self.curfew.findings()} == {"warned"}
        time.sleep(GRACE)

    def act(self) -> dict[str, Any]:
        """The one that there was."""
        [act] = [action for action in self.curfew.get("/actions")["items"] if action["undoes"] is None]
        found: dict[str, Any] = act
        return found

    def undo(self) -> Callable[[], dict[str, Any]]:
        """Ask to put back what was done; answered is what became of that."""
        undo = self.curfew.post(f"/actions/{self.act()['id']}/undo")
        return lambda: self.curfew.get(f"/actions/{undo['id']}")

    def changes(self) -> list[str]:
        return [call.method.rpartition(".")[2] for call in self.cloud.calls if call.changes]


@pytest.fixture
def here(tmp_path: Path, cloud: Cloud, sink: Sink) -> Iterator[Here]:
    """Curfew at the ceiling `enforce`, and an empty project."""
    cloud.rules.append(telling_templates(cloud))
    environment = {
        "CURFEW_CEILING": "enforce",
        "CURFEW_BREAKER": "100%",
        "CURFEW_MAIL": f"mailto://127.0.0.1:{sink.port}/?from=curfew@example.org&to={{to}}&mode=insecure",
        "CURFEW_ALLOW_TARGETS": "127.0.0.1",
        "CURFEW_ALLOW_ENDPOINTS": "127.0.0.1",
    }
    with curfew(tmp_path, **environment) as service:
        yield Here(curfew=service, cloud=cloud, sink=sink)


# Managed instance groups.


def an_idle_group(here: Here) -> str:
    path = here.cloud.groups.group("trainers", size=2, autoscaled=(1, 5), mode="ONLY_SCALE_OUT")
    for member in here.cloud.groups.members[path]:
        here.worked(member, percent=0)
    return path


def group_settings(cloud: Cloud, path: str) -> Any:
    """All that somebody could have set on it and on its autoscaler."""
    group = {key: value for key, value in cloud.groups.groups[path].items() if key != "fingerprint"}
    return json.loads(json.dumps([group, cloud.groups.autoscalers]))


def autoscaler(cloud: Cloud) -> str:
    [found] = cloud.groups.autoscalers.values()
    mode: str = found["autoscalingPolicy"]["mode"]
    return mode


def test_an_idle_group_goes_to_zero_and_comes_back_as_it_was(here: Here) -> None:
    path = an_idle_group(here)
    before, members = group_settings(here.cloud, path), list(here.cloud.groups.members[path])
    here.warned_and_due(GROUPS)
    resource = here.curfew.resources()[path]
    assert (resource["kind"], resource["state"], resource["gpu_count"]) == ("node_group", "running", 2)
    [finding] = here.curfew.findings()
    assert (finding["resource"], finding["status"]) == (resource["id"], "warned")
    assert finding["reason"].startswith("Every member that runs is in breach")

    here.cycle()
    here.cycle()
    assert (here.cloud.groups.size(path), here.cloud.groups.members[path]) == (0, [])
    assert autoscaler(here.cloud) == "OFF"
    assert (here.act()["verb"], here.act()["status"]) == ("scale_to_zero", "verified")

    undo = here.undo()
    here.cycle()
    here.cycle()
    assert group_settings(here.cloud, path) == before
    assert len(here.cloud.groups.members[path]) == 2
    assert set(here.cloud.groups.members[path]).isdisjoint(members)
    assert undo()["status"] == "verified"


def test_one_busy_member_spares_the_group(here: Here) -> None:
    path = an_idle_group(here)
    before = group_settings(here.cloud, path)
    here.worked(here.cloud.groups.members[path][0], percent=91)
    here.documents(GROUPS)
    here.cycle()
    time.sleep(GRACE)
    here.cycle()
    assert group_settings(here.cloud, path) == before
    assert here.curfew.findings() == []


# Node pools.


def an_idle_pool(here: Here, **how: Any) -> str:
    path = here.cloud.gke.pool(here.cloud.gke.cluster(), "gpus", size=1, **how)
    for node in nodes(here.cloud, path):
        here.worked(node, percent=0)
    return path


def nodes(cloud: Cloud, path: str) -> list[str]:
    return [node for group in cloud.gke.groups(path) for node in cloud.groups.members[group]]


def pool_settings(cloud: Cloud, path: str) -> Any:
    sizes = {group: cloud.groups.size(group) for group in cloud.gke.groups(path)}
    return json.loads(json.dumps([cloud.gke.pools[path], sizes]))


def test_an_idle_node_pool_goes_to_zero_and_comes_back_as_it_was(here: Here) -> None:
    path = an_idle_pool(here, autoscaled=(1, 4))
    before = pool_settings(here.cloud, path)
    here.warned_and_due(GROUPS)
    resource = here.curfew.resources()[path]
    assert (resource["gpu_count"], resource["remarks"]) == (
        3,
        ["cluster autoscaler sets its size (1 to 4 nodes in each zone)"],
    )

    here.cycle()
    here.cycle()
    assert nodes(here.cloud, path) == []
    assert here.cloud.gke.pools[path]["autoscaling"] == {}
    assert here.act()["status"] == "verified"

    undo = here.undo()
    here.cycle()
    here.cycle()
    assert pool_settings(here.cloud, path) == before
    assert len(nodes(here.cloud, path)) == 3
    assert undo()["status"] == "verified"


def test_what_takes_longer_than_an_act_may_last_is_finished_by_the_next_cycle(here: Here) -> None:
    """Operations on a cluster may take minutes, and while one lasts nothing else is possible."""
    path = an_idle_pool(here, autoscaled=(0, 4))
    before = pool_settings(here.cloud, path)
    here.warned_and_due(GROUPS)
    here.cloud.operations.looks = None

    here.curfew.cycle()
    assert (here.act()["status"], here.changes()) == ("intended", ["setAutoscaling"])
    here.curfew.cycle()
    assert (here.act()["status"], here.changes()) == ("intended", ["setAutoscaling"])
    here.cloud.settle()
    here.cycle()
    here.cycle()
    assert (here.act()["status"], here.changes()) == ("verified", ["setAutoscaling", "setSize"])
    assert nodes(here.cloud, path) == []

    undo = here.undo()
    for _ in range(3):
        here.cycle()
    assert pool_settings(here.cloud, path) == before
    assert undo()["status"] == "verified"
    assert here.changes() == ["setAutoscaling", "setSize"] * 2


def test_who_begins_to_work_meanwhile_has_autoscaling_again(here: Here) -> None:
    """Its cluster is at something else just then; that too is waited for."""
    path = an_idle_pool(here, autoscaled=(1, 4))
    other = here.cloud.gke.pool(path.partition("/nodePools/")[0], "others", machine_type="e2-standard-4")
    before = pool_settings(here.cloud, path)
    here.warned_and_due(GROUPS)
    here.cloud.operations.looks = None
    here.curfew.cycle()
    here.cloud.settle()
    assert here.cloud.gke.pools[path]["autoscaling"] == {}

    here.worked(nodes(here.cloud, path)[0], percent=91)
    httpx.post(f"{here.cloud.endpoint}/v1/{other}:setSize", json={"nodeCount": 2}).raise_for_status()
    here.curfew.cycle()
    assert here.act()["status"] == "intended"
    assert "is given back" in here.act()["error"]
    here.cloud.settle()
    here.cycle()
    assert here.act()["status"] == "abandoned"
    assert "one member spares it" in here.act()["error"]
    assert pool_settings(here.cloud, path) == before
    assert len(nodes(here.cloud, path)) == 3


# Machines and notebooks.


def test_what_is_on_local_ssd_is_erased_only_where_that_was_accepted(here: Here) -> None:
    kept = here.cloud.compute.machine("kept", machine_type="a2-ultragpu-1g", labels={"disks": "kept"})
    scratch = here.cloud.compute.machine("scratch", machine_type="a2-ultragpu-1g", labels={"disks": "scratch"})
    for machine in (kept, scratch):
        here.worked(machine, percent=0)
    here.documents(
        IDLE.format(name="kept", scope="{tags: {disks: kept}}", accept_loss="[]")
        + IDLE.format(name="scratch", scope="{tags: {disks: scratch}}", accept_loss="[local_disks]")
    )
    here.cycle()
    [refused] = here.curfew.findings(policy="kept")
    assert refused["status"] == "refused"
    assert "375 GB of Local SSD would be erased. That needs accept_loss: [local_disks]." in refused["status_reason"]
    [mail] = here.sink.arrived
    assert "375 GB of Local SSD would be erased" in text_of(mail)

    time.sleep(GRACE)
    here.cycle()
    here.cycle()
    assert (here.cloud.compute.status(kept), here.cloud.compute.status(scratch)) == ("RUNNING", "TERMINATED")
    assert (here.cloud.compute.discarded, here.changes()) == ([scratch], ["stop"])


def test_an_idle_notebook_stops_and_starts(here: Here) -> None:
    path = here.cloud.workbench.notebook("lab")
    machine = here.cloud.workbench.machine_of(path)
    here.worked(machine, percent=0)
    here.warned_and_due(IDLE.format(name="idle-notebooks", scope="{kinds: [notebook]}", accept_loss="[]"))
    assert set(here.curfew.resources()) == {path}, "its machine is not there a second time"

    here.cycle()
    here.cycle()
    assert (here.cloud.compute.status(machine), here.act()["status"]) == ("TERMINATED", "verified")
    assert here.changes() == ["stop"]
    assert here.curfew.resources()[path]["state"] == "stopped"

    undo = here.undo()
    here.cycle()
    here.cycle()
    assert (here.cloud.compute.status(machine), undo()["status"]) == ("RUNNING", "verified")


def test_a_start_for_which_there_is_no_room_is_told_in_googles_words(here: Here) -> None:
    path = here.cloud.compute.machine("trainer")
    here.worked(path, percent=0)
    here.warned_and_due(IDLE.format(name="idle-gpus", scope="{}", accept_loss="[]"))
    here.cycle()
    here.cycle()
    assert (here.act()["status"], here.cloud.compute.status(path)) == ("verified", "TERMINATED")

    here.cloud.operations.fail_next("start", no_capacity("us-central1-a"), target=path)
    undo = here.undo()
    here.cycle()
    assert undo()["status"] == "taken", "Google accepts it first"
    here.cycle()
    words = "does not have enough resources available to fulfill the request"
    assert undo()["status"] == "failed"
    assert undo()["error"].startswith(f"the cloud accepted it and failed later: start of {path}: The zone ")
    assert words in undo()["error"]
    assert here.cloud.compute.status(path) == "TERMINATED"
    here.cycle()
    assert any(words in " ".join(text_of(mail).split()) for mail in here.sink.arrived)

    again = here.undo()
    here.cycle()
    here.cycle()
    assert (again()["status"], here.cloud.compute.status(path)) == ("verified", "RUNNING")


# What Google itself ends.

LIFETIME = """
---
kind: policy
name: three-days
type: lifetime
mode: enforce
lifetime: {max: 72h, backstop: 6h}
grace: 30m
cool_down: 4h
action: stop
accept_loss: [local_disks]
"""
RAN = timedelta(hours=2)
MOST = timedelta(hours=72 + 6 + 4, minutes=30) - RAN


def limit(here: Here, path: str) -> int | None:
    told = here.cloud.compute.instances[path]["scheduling"].get("maxRunDuration")
    return None if told is None else int(told["seconds"])


def stopped_by_hand(here: Here, *paths: str) -> None:
    for path in paths:
        here.cloud.compute.enter(here.cloud.compute.instances[path], "TERMINATED")


def test_a_machine_that_was_stopped_gets_a_limit_that_google_keeps(here: Here) -> None:
    """For the time that no Curfew is there. It comes later than anything the policy does, and is taken back."""
    path = here.cloud.compute.machine("trainer", machine_type="a2-ultragpu-1g")
    theirs = {"maxRunDuration": {"seconds": "3600"}, "instanceTerminationAction": "STOP"}
    others = here.cloud.compute.machine("their-own", scheduling=theirs)
    old = here.cloud.compute.machine("of-the-old-kind", scheduling={"preemptible": True})
    for machine in (path, others, old):
        here.worked(machine, percent=91)
    rest = dict(here.cloud.compute.instances[path]["scheduling"])
    here.documents(LIFETIME)
    here.cycle()
    assert here.changes() == [], "while it runs, Google takes no limit"

    stopped_by_hand(here, path, others, old)
    here.cycle()
    seconds = limit(here, path)
    assert seconds is not None
    assert timedelta() <= MOST - timedelta(seconds=seconds) < timedelta(minutes=2)
    assert here.cloud.compute.instances[path]["scheduling"] == {
        **rest,
        "maxRunDuration": {"seconds": str(seconds)},
        "instanceTerminationAction": "STOP",
        "onInstanceStopAction": {"discardLocalSsd": True},
    }
    assert limit(here, others) == 3600
    asked = len(here.cloud.calls)
    here.cycle()
    assert here.changes() == ["setScheduling"]
    again = [call.method for call in here.cloud.calls[asked:] if call.path.endswith("/of-the-old-kind")]
    assert again == [], "what takes none is not asked each time"
    resource = here.curfew.resources()[path]
    assert (resource["run_limit_seconds"], resource["remarks"]) == (
        seconds,
        [f"Google Cloud itself stops it {seconds // 3600} h 30 min after each start (maxRunDuration)"],
    )
    lines = [line["verb"] for line in here.curfew.get("/audit")["items"] if "limit" in line["verb"]]
    assert lines == ["limit runs"]

    here.documents(LIFETIME.replace(", backstop: 6h", ""))
    here.cycle()
    assert limit(here, path) is None
    assert limit(here, others) == 3600
