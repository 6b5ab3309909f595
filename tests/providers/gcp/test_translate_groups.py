"""What one answer of a managed instance group or a node pool means, with no cloud near."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from providers.gcp import translate, translate_groups
from providers.gcp.translate import builtin_types
from providers.gcp.translate_groups import Autoscaler, Launch, Seen
from providers.records import CapacityType, LossName, ResourceRecord, State, Verb
from tests.providers.gcp import discovery

PROJECT, PLACE = "research", "zones/us-central1-a"
BASE = "https://www.googleapis.com/compute/v1/projects/research"
GROUP = f"{PLACE}/instanceGroupManagers/trainers"
TEMPLATE = f"{BASE}/global/instanceTemplates/trainers-7"
LAUNCH = Launch(skus=("a2-highgpu-1g",), capacity_type=CapacityType.ON_DEMAND)


def machine(number: int = 1, *, sku: str = "a2-highgpu-1g", zone: str = "us-central1-a", **said: Any) -> ResourceRecord:
    answer = {
        "id": str(7_000_000 + number),
        "name": f"trainers-{number}",
        "machineType": f"{BASE}/zones/{zone}/machineTypes/{sku}",
        "status": "RUNNING",
        **said,
    }
    return translate.record(answer, account=PROJECT, zone=zone, machine=builtin_types()[sku], group=GROUP)


def seen(*machines: ResourceRecord, **known: Any) -> Seen:
    by_id = {one.ref.external_id: one for one in machines}
    known = {"launches": (LAUNCH,), "members": tuple(by_id), **known}
    return Seen(instances=by_id, types=builtin_types().get, **known)


def group(**said: Any) -> dict[str, Any]:
    return {
        "id": "5000",
        "name": "trainers",
        "creationTimestamp": "2026-11-01T00:00:00.000-08:00",
        "targetSize": 2,
        "instanceTemplate": TEMPLATE,
        "versions": [{"instanceTemplate": TEMPLATE}],
        **said,
    }


def record(answer: Mapping[str, Any], known: Seen, place: str = PLACE) -> ResourceRecord:
    found = translate_groups.record_of_group(answer, known, account=PROJECT, place=place, fully_described=True)
    assert found is not None
    return found


def codes(found: ResourceRecord) -> list[str]:
    return [blocker.code for blocker in found.blockers if blocker.verb is Verb.SCALE_TO_ZERO]


class TestAGroup:
    def test_is_what_its_machines_are_together(self) -> None:
        machines = machine(1), machine(2, sku="a2-highgpu-8g")
        found = record(group(), seen(*machines))
        assert found.ref.external_id == "projects/research/zones/us-central1-a/instanceGroupManagers/trainers"
        assert (found.ref.region, found.zone, found.incarnation) == ("us-central1", "us-central1-a", "5000")
        assert (found.gpu_model, found.gpu_count, found.sku) == ("A100", 9, "a2-highgpu-1g, a2-highgpu-8g")
        assert found.members == tuple(one.ref.external_id for one in machines)
        assert found.created_at == datetime(2026, 11, 1, 8, tzinfo=UTC)
        assert (found.listed_in, found.managed_by, found.state) == ("instance groups", None, State.RUNNING)

    def test_of_a_region_is_in_no_zone(self) -> None:
        found = record(group(), seen(machine()), place="regions/us-east4")
        assert found.ref.external_id == "projects/research/regions/us-east4/instanceGroupManagers/trainers"
        assert (found.ref.region, found.zone) == ("us-east4", None)

    def test_without_machines_is_what_it_would_launch(self) -> None:
        found = record(group(targetSize=0), seen())
        assert (found.gpu_model, found.gpu_count, found.sku) == ("A100", 0, "a2-highgpu-1g")
        assert (found.state, found.members, found.losses) == (State.STOPPED, (), ())

    @pytest.mark.parametrize(
        ("launch", "meant"),
        [
            (Launch(skus=("n1-standard-8",), own_devices=translate.accelerator("nvidia-tesla-t4", 4)), "T4"),
            (Launch(skus=("a2-highgpu-1g",), own_devices=translate.accelerator("nvidia-tesla-a100", 1)), "A100"),
            (Launch(skus=("e2-standard-4",)), None),
            (Launch(), None),
        ],
        ids=["GPUs attached", "GPUs of its type, told twice", "none", "a template that says nothing"],
    )
    def test_would_launch(self, launch: Launch, meant: str | None) -> None:
        found = translate_groups.record_of_group(
            group(targetSize=0), seen(launches=(launch,)), account=PROJECT, place=PLACE, fully_described=False
        )
        assert (found.gpu_model if found else None) == meant

    def test_its_flexibility_names_types_before_its_template(self) -> None:
        flexible = {
            "instanceFlexibilityPolicy": {
                "instanceSelections": {
                    "second": {"rank": 2, "machineTypes": ["g2-standard-24"]},
                    "first": {"rank": 1, "machineTypes": ["a3-highgpu-8g", "g2-standard-24"]},
                }
            }
        }
        found = record(group(targetSize=0, **flexible), seen())
        assert (found.sku, found.gpu_model) == ("a3-highgpu-8g, g2-standard-24", None)

    def test_its_labels_are_those_its_machines_get(self) -> None:
        launch = Launch(skus=LAUNCH.skus, labels={"project": "vision", "tier": "dev"})
        overridden = {"allInstancesConfig": {"properties": {"labels": {"tier": "prod"}}}}
        assert record(group(**overridden), seen(launches=(launch,))).tags == {"project": "vision", "tier": "prod"}


STATES: dict[str, tuple[int, list[str], State]] = {
    "all there": (2, ["RUNNING", "RUNNING"], State.RUNNING),
    "some there": (2, ["RUNNING", "STAGING"], State.RUNNING),
    "all of it coming": (2, ["PROVISIONING", "STAGING"], State.PENDING),
    "none of it yet": (2, [], State.PENDING),
    "the last ones going": (0, ["STOPPING"], State.STOPPING),
    "none wanted": (0, [], State.STOPPED),
    "none wanted but those it keeps at hand, stopped": (0, ["TERMINATED", "SUSPENDED"], State.STOPPED),
    "some wanted, and some kept at hand": (1, ["RUNNING", "TERMINATED"], State.RUNNING),
}


class TestItsState:
    @pytest.mark.parametrize(("wanted", "statuses", "meant"), STATES.values(), ids=STATES)
    def test_is_that_of_its_machines(self, wanted: int, statuses: list[str], meant: State) -> None:
        machines = [machine(number, status=status) for number, status in enumerate(statuses)]
        assert record(group(targetSize=wanted), seen(*machines)).state is meant


def of_kind(capacity: CapacityType) -> Launch:
    return Launch(skus=LAUNCH.skus, capacity_type=capacity)


class TestWhatItLaunchesNext:
    @pytest.mark.parametrize(
        ("launches", "meant"),
        [
            ((of_kind(CapacityType.SPOT),), CapacityType.SPOT),
            ((of_kind(CapacityType.SPOT), of_kind(CapacityType.ON_DEMAND)), CapacityType.ON_DEMAND),
            ((of_kind(CapacityType.SPOT), of_kind(CapacityType.FLEX_START)), CapacityType.UNKNOWN),
        ],
        ids=["by its template", "on demand, where some of it is", "one thing or the other"],
    )
    def test_is_what_its_templates_say(self, launches: tuple[Launch, ...], meant: CapacityType) -> None:
        assert record(group(), seen(machine(), launches=launches)).capacity_type is meant

    def test_is_what_its_machines_are_where_no_template_is_told(self) -> None:
        spot = machine(scheduling={"provisioningModel": "SPOT"})
        assert record(group(), seen(spot, launches=())).capacity_type is CapacityType.SPOT

    def test_a_template_is_read(self) -> None:
        launch = translate_groups.launch_of(
            {
                "name": "trainers-7",
                "properties": {
                    "machineType": "n1-standard-8",
                    "guestAccelerators": [{"acceleratorType": "nvidia-tesla-t4", "acceleratorCount": 2}],
                    "scheduling": {"provisioningModel": "RESERVATION_BOUND"},
                    "labels": {"batch-job-id": "fold-1"},
                },
            }
        )
        assert launch.skus == ("n1-standard-8",)
        assert launch.own_devices == translate.accelerator("nvidia-tesla-t4", 2)
        assert (launch.capacity_type, launch.reservation_bound) == (CapacityType.RESERVED, True)
        assert launch.managed_by == "batch:fold-1"

    def test_templates_are_those_of_its_versions(self) -> None:
        other = f"{BASE}/regions/us-central1/instanceTemplates/trainers-8"
        both = group(versions=[{"instanceTemplate": TEMPLATE}, {"instanceTemplate": other}])
        assert translate_groups.templates_of(both) == (
            "global/instanceTemplates/trainers-7",
            "regions/us-central1/instanceTemplates/trainers-8",
        )
        assert translate_groups.templates_of(group(versions=[])) == ("global/instanceTemplates/trainers-7",)


class TestWhatStandsInTheWay:
    def test_of_a_plain_group_is_nothing(self) -> None:
        assert codes(record(group(), seen(machine()))) == []

    @pytest.mark.parametrize(
        "said",
        [{"status": {"stateful": {"hasStatefulConfig": True}}}, {"statefulPolicy": {"preservedState": {"disks": {}}}}],
        ids=["state of single machines", "a policy to keep some"],
    )
    def test_is_what_new_machines_would_not_have(self, said: dict[str, Any]) -> None:
        assert codes(record(group(**said), seen(machine()))) == ["Stateful"]

    def test_is_a_reservation_that_is_paid_for(self) -> None:
        bound = Launch(skus=LAUNCH.skus, capacity_type=CapacityType.RESERVED, reservation_bound=True)
        assert codes(record(group(), seen(machine(), launches=(bound,)))) == ["ReservationBound"]

    def test_what_would_be_lost_are_its_machines(self) -> None:
        (loss,) = record(group(), seen(machine(1), machine(2))).losses
        assert (loss.verb, loss.name) == (Verb.SCALE_TO_ZERO, LossName.GROUP_MEMBERS)
        assert loss.sentence.startswith("its 2 machines would be deleted, with their local and boot disks")
        (loss,) = record(group(), seen(machine())).losses
        assert loss.sentence.startswith("its 1 machine would be deleted, with its local")

    def test_what_protects_a_machine_protects_its_group(self) -> None:
        found = record(group(), seen(machine(1), machine(2, labels={"curfew-protect": "paper"})))
        (protection,) = found.protections
        assert protection.source == "curfew-protect"
        assert protection.sentence.startswith("of its member trainers-2:")


class TestWhoseItIs:
    def test_a_template_says(self) -> None:
        launch = Launch(skus=LAUNCH.skus, managed_by="dataproc:etl")
        assert record(group(), seen(machine(), launches=(launch,))).managed_by == "dataproc:etl"

    def test_a_machine_says_where_no_template_does(self) -> None:
        worker = machine(labels={"slurm_cluster_name": "hpc"})
        assert record(group(), seen(worker, launches=())).managed_by == "slurm:hpc"

    def test_that_its_machines_are_its_own_makes_it_nobodys(self) -> None:
        assert record(group(), seen(machine(), launches=())).managed_by is None


class TestItsMembers:
    def test_are_those_that_are_there(self) -> None:
        url = f"{BASE}/zones/us-central1-a/instances"
        listed = [
            {"instance": f"{url}/running", "id": "1", "instanceStatus": "RUNNING", "currentAction": "NONE"},
            {"instance": f"{url}/going", "id": "2", "instanceStatus": "STOPPING", "currentAction": "DELETING"},
            {"instance": f"{url}/not-made-yet", "currentAction": "CREATING"},
            {"instance": f"{url}/let-go", "id": "3", "instanceStatus": "RUNNING", "currentAction": "ABANDONING"},
        ]
        assert translate_groups.member_ids(listed, PROJECT) == (
            "projects/research/zones/us-central1-a/instances/running",
            "projects/research/zones/us-central1-a/instances/going",
        )

    def test_are_counted_by_the_group_itself(self) -> None:
        assert translate_groups.size_told(group(currentActions={"none": 2, "creating": 1, "deleting": 0})) == 3
        assert translate_groups.size_told(group()) is None


class TestAutoscalers:
    @pytest.mark.parametrize(
        ("policy", "remark"),
        [
            (
                {"mode": "ON", "minNumReplicas": 1, "maxNumReplicas": 4},
                "an autoscaler sets its size (mode ON, 1 to 4 machines)",
            ),
            (
                {"minNumReplicas": 0, "maxNumReplicas": 10},
                "an autoscaler sets its size (mode ON, 0 to 10 machines)",
            ),
            (
                {"mode": "OFF", "minNumReplicas": 1, "maxNumReplicas": 4},
                "an autoscaler is off (mode OFF, 1 to 4 machines)",
            ),
            (
                {"mode": "ONLY_SCALE_OUT", "maxNumReplicas": 4},
                "an autoscaler only adds machines (mode ONLY_SCALE_OUT, 0 to 4 machines)",
            ),
        ],
        ids=["on", "of before there were modes", "off", "one way only"],
    )
    def test_are_told_of(self, policy: dict[str, Any], remark: str) -> None:
        found = translate_groups.autoscaler({"target": f"{BASE}/{GROUP}", "autoscalingPolicy": policy})
        assert (found.group, found.remark) == (GROUP, remark)

    def test_are_a_remark_of_the_group(self) -> None:
        scaler = Autoscaler(group=GROUP, mode="ON", least=1, most=4)
        assert record(group(), seen(machine(), autoscaler=scaler)).remarks == (scaler.remark,)


# Node pools.


def cluster(**said: Any) -> dict[str, Any]:
    return {
        "name": "main",
        "id": "c1",
        "location": "us-central1",
        "status": "RUNNING",
        "resourceLabels": {"project": "vision"},
        **said,
    }


def pool(**said: Any) -> dict[str, Any]:
    zones = ["us-central1-a", "us-central1-b"]
    return {
        "name": "gpus",
        "status": "RUNNING",
        "locations": zones,
        "config": {
            "machineType": "n1-standard-8",
            "accelerators": [{"acceleratorType": "nvidia-tesla-t4", "acceleratorCount": "2"}],
        },
        "instanceGroupUrls": [f"{BASE}/zones/{zone}/instanceGroupManagers/gke-main-gpus-{zone}-grp" for zone in zones],
        **said,
    }


def pooled(
    answer: Mapping[str, Any] | None = None,
    of: Mapping[str, Any] | None = None,
    *,
    size: int = 0,
    known: Seen | None = None,
) -> ResourceRecord:
    found = translate_groups.record_of_node_pool(
        of or cluster(),
        answer or pool(),
        [{"targetSize": size}],
        known or Seen(types=builtin_types().get),
        account=PROJECT,
        fully_described=True,
    )
    assert found is not None
    return found


class TestANodePool:
    def test_is_named_by_its_full_path(self) -> None:
        found = pooled()
        assert found.ref.external_id == "projects/research/locations/us-central1/clusters/main/nodePools/gpus"
        assert (found.ref.region, found.zone, found.name, found.incarnation) == ("us-central1", None, "gpus", "c1/gpus")
        assert (found.listed_in, found.tags) == ("GKE node pools", {"project": "vision"})

    def test_of_a_zone_is_in_it(self) -> None:
        zonal = cluster(location=None, zone="us-central1-b")
        found = pooled(pool(locations=["us-central1-b"]), zonal)
        assert found.ref.external_id.startswith("projects/research/locations/us-central1-b/clusters/")
        assert (found.ref.region, found.zone) == ("us-central1", "us-central1-b")

    def test_without_nodes_is_what_it_would_have(self) -> None:
        found = pooled()
        assert (found.gpu_model, found.gpu_count, found.state) == ("T4", 0, State.STOPPED)

    def test_with_nodes_is_what_they_are(self) -> None:
        nodes = seen(machine(1), machine(2, zone="us-central1-b"))
        found = pooled(size=2, known=nodes)
        assert (found.gpu_count, found.members, found.state) == (2, nodes.members, State.RUNNING)

    def test_of_tpus_goes_by_its_machine_type(self) -> None:
        assert pooled(pool(config={"machineType": "ct5lp-hightpu-4t"})).gpu_model == "TPU v5e"

    def test_without_accelerators_is_none_of_ours(self) -> None:
        plain = pool(config={"machineType": "e2-standard-4"})
        found = translate_groups.record_of_node_pool(
            cluster(), plain, [], Seen(types=builtin_types().get), account=PROJECT, fully_described=False
        )
        assert found is None

    def test_its_groups_are_told_by_url(self) -> None:
        assert translate_groups.pool_groups(pool()) == (
            "zones/us-central1-a/instanceGroupManagers/gke-main-gpus-us-central1-a-grp",
            "zones/us-central1-b/instanceGroupManagers/gke-main-gpus-us-central1-b-grp",
        )
        of_old = pool(instanceGroupUrls=[f"{BASE}/zones/us-central1-a/instanceGroups/gke-a-grp"])
        assert translate_groups.pool_groups(of_old) == ("zones/us-central1-a/instanceGroupManagers/gke-a-grp",)

    @pytest.mark.parametrize(
        ("config", "said", "meant"),
        [
            ({}, {}, CapacityType.ON_DEMAND),
            ({"spot": True}, {}, CapacityType.SPOT),
            ({"preemptible": True}, {}, CapacityType.SPOT),
            ({"flexStart": True}, {}, CapacityType.FLEX_START),
            ({}, {"queuedProvisioning": {"enabled": True}}, CapacityType.FLEX_START),
            (
                {"reservationAffinity": {"consumeReservationType": "SPECIFIC_RESERVATION"}},
                {},
                CapacityType.RESERVED,
            ),
            ({"reservationAffinity": {"consumeReservationType": "ANY_RESERVATION"}}, {}, CapacityType.ON_DEMAND),
        ],
    )
    def test_capacity(self, config: dict[str, Any], said: dict[str, Any], meant: CapacityType) -> None:
        assert pooled(pool(config={**pool()["config"], **config}, **said)).capacity_type is meant

    @pytest.mark.parametrize(
        ("of", "said", "owner"),
        [
            ({}, {}, None),
            ({}, {"autoscaling": {"enabled": True}}, None),
            ({}, {"autoscaling": {"enabled": True, "autoprovisioned": True}}, "gke-node-auto-provisioning:main"),
            ({"autopilot": {"enabled": True}}, {}, "gke-autopilot:main"),
        ],
        ids=["nobody's", "its size may be an autoscaler's", "made by the cluster itself", "Autopilot's"],
    )
    def test_whose_it_is(self, of: dict[str, Any], said: dict[str, Any], owner: str | None) -> None:
        assert pooled(pool(**said), cluster(**of)).managed_by == owner

    @pytest.mark.parametrize(
        ("of", "said", "meant"),
        [
            ({}, {}, []),
            ({}, {"status": "RUNNING_WITH_ERROR"}, []),
            ({}, {"status": "PROVISIONING"}, ["Creating"]),
            ({}, {"status": "RECONCILING"}, []),
            ({}, {"status": "STOPPING"}, ["Deleting"]),
            ({"status": "RECONCILING"}, {}, []),
            ({"status": "STOPPING"}, {"status": "STOPPING"}, ["Deleting", "ClusterDeleting"]),
        ],
    )
    def test_what_stands_in_the_way(self, of: dict[str, Any], said: dict[str, Any], meant: list[str]) -> None:
        assert codes(pooled(pool(**said), cluster(**of))) == meant

    def test_what_google_says_of_an_error_is_passed_on(self) -> None:
        (blocker,) = pooled(pool(status="ERROR", conditions=[{"message": "Quota is used up."}])).blockers
        assert blocker.sentence == "Kubernetes Engine calls it unusable: Quota is used up"

    @pytest.mark.parametrize(
        ("scaling", "meant"),
        [
            ({}, ()),
            (
                {"enabled": True, "minNodeCount": 1, "maxNodeCount": 4},
                ("cluster autoscaler sets its size (1 to 4 nodes in each zone)",),
            ),
            (
                {"enabled": True, "totalMinNodeCount": 0, "totalMaxNodeCount": 9},
                ("cluster autoscaler sets its size (0 to 9 nodes)",),
            ),
        ],
    )
    def test_its_autoscaler_is_told_of(self, scaling: dict[str, Any], meant: tuple[str, ...]) -> None:
        assert pooled(pool(autoscaling=scaling)).remarks == meant

    def test_statuses_are_among_those_google_documents(self) -> None:
        schemas = discovery.service("container").document["schemas"]
        assert set(translate_groups.POOL_STATUSES) <= set(schemas["NodePool"]["properties"]["status"]["enum"])
        assert set(translate_groups.CLUSTER_STATUSES) <= set(schemas["Cluster"]["properties"]["status"]["enum"])


class TestWhatIsAskedFor:
    """A field that Google does not have would make it refuse the whole list."""

    @pytest.mark.parametrize(
        ("path", "mask"),
        [
            ("/compute/v1/projects/p/aggregated/instances", f"items/*/instances({translate.FIELDS})"),
            (
                "/compute/v1/projects/p/aggregated/instanceGroupManagers",
                f"items/*/instanceGroupManagers({translate_groups.GROUP_FIELDS})",
            ),
            (
                "/compute/v1/projects/p/aggregated/instanceTemplates",
                f"items/*/instanceTemplates({translate_groups.TEMPLATE_FIELDS})",
            ),
            (
                "/compute/v1/projects/p/aggregated/autoscalers",
                f"items/*/autoscalers({translate_groups.AUTOSCALER_FIELDS})",
            ),
            (
                "/v1/projects/p/locations/-/clusters",
                f"clusters({translate_groups.CLUSTER_FIELDS},nodePools({translate_groups.POOL_FIELDS}))",
            ),
            ("/v2/projects/p/locations/-/instances", f"instances({translate.NOTEBOOK_FIELDS})"),
            ("/v2/projects/p/locations/-/nodes", f"nodes({translate.TPU_FIELDS})"),
        ],
    )
    def test_is_there(self, path: str, mask: str) -> None:
        [(method, _)] = discovery.candidates("GET", path)
        assert method.pick({}, mask) == {}
