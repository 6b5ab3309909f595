"""Answers that Google once gave, recorded by others: each is read without loss, and a table says what comes of it.

None of them has an accelerator, so by themselves they come to nothing. To see that nothing of them is lost on the way,
each is also read as if every machine type in it came with one. That real GPUs look as we think they do is not shown by
any of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from fnmatch import fnmatch
from typing import Any, cast

import pytest

from providers.errors import Unreachable
from providers.gcp import Config, translate, translate_groups
from providers.gcp.client import Client, NotEnabled, refusal
from providers.gcp.inventory import GcpInventory
from providers.gcp.listing import KINDS
from providers.gcp.projects import Projects
from providers.records import CapacityType, InventoryAnswer, Kind, ResourceRecord, State
from tests.real_data import REAL_DATA, needs

FLIGHTS = "cloud_api/gcp_flights"
HERE = REAL_DATA / FLIGHTS
PROJECT = "cloud-custodian"

pytestmark = needs(FLIGHTS)


def body(flight: str) -> Any:
    """What was answered, by folder and how the file's name ends."""
    folder, _, end = flight.partition("/")
    [path] = (HERE / folder).glob(f"*{end}.json")
    return json.loads(path.read_text("utf-8"))["body"]


class Replay:
    """In the place of the client: answers one list as it was recorded, others as empty or switched off."""

    def __init__(self, path: str, recorded: Any, *, as_if_accelerated: bool) -> None:
        self._answers = {path: recorded}
        self._as_if_accelerated = as_if_accelerated

    def get(self, service: str, path: str, *, query: Mapping[str, Any] | None = None, prompt: bool = False) -> Any:
        del prompt
        if path in self._answers:
            return self._answers[path]
        what = path.rpartition("/")[2]
        if what in KINDS:
            places = {"zones/us-central1-a": {"warning": {"code": "NO_RESULTS_ON_PAGE"}}}
            return {"kind": KINDS[what], "id": f"projects/{PROJECT}/aggregated/{what}", "items": places}
        if what == "machineTypes":
            names = re.findall(r'name = "([^"]*)"', str((query or {})["filter"]))
            t4 = {"guestAcceleratorType": "nvidia-tesla-t4", "guestAcceleratorCount": 1}
            cards = {"accelerators": [t4]} if self._as_if_accelerated else {}
            return {"kind": "compute#machineTypeList", "items": [{"name": name, **cards} for name in names]}
        off = NotEnabled(f"{service} was not recorded")
        off.consumer = PROJECT
        raise off

    def pages(self, service: str, path: str, *, query: Mapping[str, Any] | None = None) -> Iterator[Any]:
        yield self.get(service, path, query=query)


def replayed(path: str, recorded: Any, *, as_if_accelerated: bool) -> InventoryAnswer:
    config = Config(projects=(PROJECT,), credentials="anonymous")
    client = cast(Client, Replay(path, recorded, as_if_accelerated=as_if_accelerated))

    def now() -> datetime:
        return datetime(2026, 11, 22, tzinfo=UTC)

    return GcpInventory(Projects(config, client, now=now), client, now=now).list()


def told(record: ResourceRecord) -> tuple[str, str, State]:
    """As much as tells that it is read right."""
    return record.ref.external_id.removeprefix(f"projects/{PROJECT}/"), record.sku, record.state


# Lists, and what comes of them as if all machines had GPUs; by themselves, nothing.

INSTANCES = f"/compute/v1/projects/{PROJECT}/aggregated/instances"
CLUSTERS = f"/v1/projects/{PROJECT}/locations/-/clusters"
NOTEBOOKS = f"/v2/projects/{PROJECT}/locations/-/instances"
UNTRUE = "zones/us-east4-c/instances/name-123", "projects", State.STOPPED
"""A machine whose type was blackened before it was published."""

LISTS: dict[str, tuple[str, set[tuple[str, str, State]]]] = {
    "filter-metrics-with-metric-key-as-instance-id/aggregated-instances_1": (INSTANCES, {UNTRUE}),
    "filter-no-metrics/aggregated-instances_1": (
        INSTANCES,
        {("zones/us-east4-c/instances/iap-test-webapp", "e2-micro", State.RUNNING)},
    ),
    "instance-asset-query/aggregated-instances_1": (
        INSTANCES,
        {("zones/us-central1-a/instances/instance-1", "n1-standard-1", State.STOPPED)},
    ),
    "instance-create-machine-instance/aggregated-instances_1": (
        INSTANCES,
        {("zones/us-central1-a/instances/test-ingwar", "n1-standard-1", State.STOPPED)},
    ),
    "instance-detach-disks/aggregated-instances_1": (
        INSTANCES,
        {("zones/us-central1-a/instances/test-ingwar", "n1-standard-1", State.STOPPED)},
    ),
    "instance-effective-firewall/aggregated-instances_1": (
        INSTANCES,
        {("zones/us-east4-c/instances/iap-test-webapp", "e2-micro", State.RUNNING)},
    ),
    "instance-pause-resume/aggregated-instances_1": (
        INSTANCES,
        {("zones/us-central1-a/instances/pro-narwhal", "e2-medium", State.RUNNING)},
    ),
    "instance-pause-resume/aggregated-instances_2": (
        INSTANCES,
        {("zones/us-central1-a/instances/pro-narwhal", "e2-medium", State.SUSPENDED)},
    ),
    "instance-remove-metadata/aggregated-instances_1": (
        INSTANCES,
        {("zones/us-central1-a/instances/pleasant-pipefish", "e2-micro", State.RUNNING)},
    ),
    "instance-terminate/aggregated-instances_1": (
        INSTANCES,
        {("zones/us-central1-c/instances/instance-1", "n1-standard-1", State.STOPPING)},
    ),
    # node pools: no group was recorded beside them, so that no node is known
    "gke-cluster-delete/locations---clusters_1": (
        CLUSTERS,
        {
            (
                "locations/us-east1-b/clusters/custodian-cluster-delete-test/nodePools/default-pool",
                "e2-medium",
                State.STOPPED,
            )
        },
    ),
    "gke-cluster-filter-effective-firewall/locations---clusters_1": (CLUSTERS, set()),  # clusters without a pool
    "gke-cluster-filter-server-config/locations---clusters_1": (CLUSTERS, set()),
    "gke-cluster-nodepool-query/locations---clusters_1": (CLUSTERS, set()),  # pools of which no machine type is told
    "gke-cluster-query-resourceLabels/locations---clusters_1": (
        CLUSTERS,
        {("locations/us-central1-c/clusters/cluster-1/nodePools/default-pool", "e2-medium", State.STOPPED)},
    ),
    "gke-cluster-set-label/locations---clusters_1": (
        CLUSTERS,
        {
            (f"locations/us-central1/clusters/standard-cluster-1/nodePools/{pool}", sku, State.STOPPED)
            for pool, sku in {
                "default-pool": "e2-medium",
                "pool-1": "e2-standard-2",
                "pool-2": "e2-standard-4",
                "pool-3": "e2-standard-8",
                "pool-4": "e2-standard-16",
                "pool-5": "e2-standard-32",
            }.items()
        },
    ),
    "gke-cluster-zonal-set-label/locations---clusters_1": (
        CLUSTERS,
        {("locations/us-central1-c/clusters/zonal-cluster-1/nodePools/default-pool", "e2-medium", State.STOPPED)},
    ),
    "notebook_v2/locations---instances_1": (
        NOTEBOOKS,
        {
            (f"locations/us-east1-b/instances/c7n-notebook-{access}-default-e84a", "e2-standard-4", State.RUNNING)
            for access in ("public", "private")
        },
    ),
}


@pytest.mark.parametrize("flight", LISTS)
class TestLists:
    def test_come_to_nothing_without_an_accelerator(self, flight: str) -> None:
        path, _ = LISTS[flight]
        answer = replayed(path, body(flight), as_if_accelerated=False)
        assert (answer.records, answer.complete) == ((), True)

    def test_are_read_without_loss(self, flight: str) -> None:
        path, meant = LISTS[flight]
        answer = replayed(path, body(flight), as_if_accelerated=True)
        assert {told(record) for record in answer.records} == meant
        assert len(answer.records) == len(meant)
        assert answer.complete
        assert [report.fault for report in answer.parts if report.fault] == []


class TestWhatListsTellBesides:
    def test_a_machine_is_read_in_full(self) -> None:
        flight = "instance-pause-resume/aggregated-instances_2"
        [record] = replayed(INSTANCES, body(flight), as_if_accelerated=True).records
        assert record.incarnation == "6898528043909006062"
        assert record.created_at == datetime(2023, 8, 26, 13, 20, 1, 777_000, tzinfo=UTC)
        assert record.launched_at is not None
        assert (record.capacity_type, record.managed_by, record.losses) == (CapacityType.ON_DEMAND, None, ())

    @pytest.mark.parametrize(
        ("flight", "labels"),
        [
            ("instance-remove-metadata/aggregated-instances_1", {"goog-terraform-provisioned": "true"}),
            ("instance-asset-query/aggregated-instances_1", {"quarantined": "testing"}),
            ("filter-no-metrics/aggregated-instances_1", {}),
        ],
    )
    def test_labels_are_its_tags(self, flight: str, labels: dict[str, str]) -> None:
        [record] = replayed(INSTANCES, body(flight), as_if_accelerated=True).records
        assert record.tags == labels
        assert record.managed_by is None

    def test_a_notebook_names_its_machine(self) -> None:
        records = replayed(NOTEBOOKS, body("notebook_v2/locations---instances_1"), as_if_accelerated=True).records
        public = next(record for record in records if "public" in record.name)
        assert public.ref.kind is Kind.NOTEBOOK
        assert (public.incarnation, public.zone) == ("4532768441233380276", "us-east1-b")
        assert public.created_at == datetime(2026, 8, 12, 17, 28, 57, 651_511, tzinfo=UTC)
        assert public.tags["notebooks-product"] == "workbench-instances"

    def test_the_machine_of_a_notebook_says_so_itself(self) -> None:
        """Its labels and metadata are set up with it."""
        for answer in body("notebook_v2/locations---instances_1")["instances"]:
            keys = answer["gceSetup"]["metadata"].keys()
            owner = f"workbench:{answer['name'].split('/')[-1]}"
            assert translate.managed_by(answer["labels"], (), group=None, name="vm") == owner
            assert translate.managed_by({}, keys, group=None, name="vm") == "workbench:vm"

    def test_autopilots_pools_are_its_own(self) -> None:
        records = replayed(
            CLUSTERS, body("gke-cluster-set-label/locations---clusters_1"), as_if_accelerated=True
        ).records
        assert {record.managed_by for record in records} == {"gke-autopilot:standard-cluster-1"}

    def test_groups_of_pools_are_named_as_we_know_them(self) -> None:
        paths = [
            path
            for flight, (of, _) in LISTS.items()
            if of == CLUSTERS
            for cluster in body(flight)["clusters"]
            for pool in cluster.get("nodePools", ())
            for path in translate_groups.pool_groups(pool)
        ]
        assert len(paths) > 20
        assert all(translate_groups.GKE_GROUP.match(path.rpartition("/")[2]) for path in paths)


# One thing, not a list.


class TestSingleThings:
    @pytest.mark.parametrize(
        ("flight", "name", "meant"),
        [
            ("instance-pause-resume/instances-pro-narwhal_1", "pro-narwhal", State.SUSPENDED),
            ("instance-pause-resume/instances-pro-narwhal_2", "pro-narwhal", State.RUNNING),
            ("instance-remove-metadata/instances-pleasant-pipefish_1", "pleasant-pipefish", State.RUNNING),
        ],
    )
    def test_a_machine(self, flight: str, name: str, meant: State) -> None:
        answer = body(flight)
        translate.check_project(answer["selfLink"], PROJECT)
        record = translate.record(answer, account=PROJECT, zone="us-central1-a", machine=translate.PLAIN)
        assert (record.name, record.state, record.gpu_count) == (name, meant, 0)

    @pytest.mark.parametrize(
        ("flight", "names"),
        [
            ("instance-detach-disks/zones-us-central1-a-instances_1", ["test-ingwar"]),
            ("instance-terminate/zones-us-central1-c-instances_1", ["instance-1"]),
        ],
    )
    def test_the_machines_of_a_zone(self, flight: str, names: list[str]) -> None:
        found = [
            translate.record(one, account=PROJECT, zone="us-central1-a", machine=translate.PLAIN)
            for one in body(flight)["items"]
        ]
        assert [record.name for record in found] == names

    @pytest.mark.parametrize(
        ("flight", "pools"),
        [
            ("gke-cluster-get/clusters-standard-cluster-1_1", ["default-pool"]),
            ("gke-cluster-nodepool-get/clusters-standard-cluster-1_1", ["default-pool"]),
            ("gke-cluster-nodepool-query/nodePools_1", ["default-pool"]),
            (
                "gke-cluster-set-label/get-v1-projects-cloud-custodian-locations-us-central1-clusters-standard-cluster-1_1",
                ["default-pool", *(f"pool-{number}" for number in range(1, 6))],
            ),
        ],
    )
    def test_a_cluster(self, flight: str, pools: list[str]) -> None:
        cluster = body(flight)
        ours = [translate_groups.pool_path(cluster, pool) for pool in cluster["nodePools"]]
        assert ours == [
            f"locations/{cluster['location']}/clusters/standard-cluster-1/nodePools/{name}" for name in pools
        ]

    @pytest.mark.parametrize(
        ("flight", "state"),
        [
            ("gke-cluster-delete/locations-us-east1-b-clusters_1", "STOPPING"),
            ("gke-cluster-set-label/locations-us-central1-clusters_1", "RUNNING"),
            ("gke-cluster-zonal-set-label/locations-us-central1-c-clusters_1", "RUNNING"),
        ],
    )
    def test_the_clusters_of_a_place(self, flight: str, state: str) -> None:
        [cluster] = body(flight)["clusters"]
        assert cluster["status"] == state
        for pool in cluster["nodePools"]:
            record = translate_groups.record_of_node_pool(
                cluster,
                {**pool, "config": {**pool["config"], "machineType": "g2-standard-4"}},
                [],
                translate_groups.Seen(types=translate.builtin_types().get),
                account=PROJECT,
                fully_described=True,
            )
            assert record is not None
            assert bool(record.blockers) == (state == "STOPPING")

    def test_a_node_pool(self) -> None:
        pool = body("gke-cluster-nodepool-get/nodePools-pool-1_1")
        assert (pool["name"], translate_groups.pool_sku(pool), translate_groups.pool_groups(pool)) == ("pool-1", "", ())

    def test_an_instance_template(self) -> None:
        [template] = body("instance-template-delete/instanceTemplates_1")["items"]
        launch = translate_groups.launch_of(template)
        assert (launch.skus, launch.own_devices) == (("f1-micro",), None)
        assert (launch.capacity_type, launch.managed_by) == (CapacityType.ON_DEMAND, None)

    def test_a_template_that_is_gone_says_nothing_of_its_group(self) -> None:
        error = body("instance-template-delete/get-*instance-template-to-delete_1")
        path = f"/compute/v1/projects/{PROJECT}/global/instanceTemplates/instance-template-to-delete"
        found = refusal("Compute Engine", path, 404, {}, json.dumps(error).encode())
        assert isinstance(found, Unreachable)

    @pytest.mark.parametrize(
        ("flight", "groups"),
        [
            ("autoscaler-query/aggregated-autoscalers_1", {"micro-instance-group-1-to-10": (1, 10)}),
            (
                "autoscaler-set/aggregated-autoscalers_1",
                {"instance-group-1": (1, 4), **{f"instance-group-{number}": (1, 10) for number in (2, 4, 6, 9)}},
            ),
        ],
    )
    def test_autoscalers(self, flight: str, groups: dict[str, tuple[int, int]]) -> None:
        found = [
            translate_groups.autoscaler(answer)
            for place in body(flight)["items"].values()
            for answer in place.get("autoscalers", ())
        ]
        assert {scaler.mode for scaler in found} == {"ON"}  # of before there were modes
        assert {(scaler.group or "").rpartition("/")[2]: (scaler.least, scaler.most) for scaler in found} == groups

    @pytest.mark.parametrize(
        "flight", ["autoscaler-get/autoscalers-instance-group-1_1", "autoscaler-set/get-*-a-autoscalers_1"]
    )
    def test_an_autoscaler(self, flight: str) -> None:
        answer = body(flight)
        for one in answer.get("items", [answer]):
            assert translate_groups.autoscaler(one).group is not None


# What is none of an inventory's business, and why.

OTHERS: dict[str, str] = {
    "*/get-v3-*timeSeries*": "series of CPU utilisation, which are no GPU's",
    "vertex*/*": "Vertex AI runs jobs and endpoints in projects of its own; no accelerator is in any of them",
    "*/post-*": "the answer to a change",
    "*/delete-*": "the answer to a change",
    "*/patch-*": "the answer to a change",
    "*/put-*": "the answer to a change",
    "project-*/*": "projects, folders and who may do what in them",
    "cloudbilling-*/*": "accounts that pay",
    "sqlinstance-*/*": "databases",
    "test_dataproc_*/*": "clusters whose machines Compute Engine lists, with their labels",
    "*/*serverConfig*": "versions of Kubernetes on offer",
    "*/*getEffectiveFirewalls*": "firewalls",
    "instance-asset-query/*batchGetAssetsHistory*": "what Cloud Asset Inventory remembers",
    "instance-asset-query/*searchAll*": "what Cloud Asset Inventory remembers",
}


def accounted_for() -> Iterator[str]:
    """Patterns of all that is read above, or listed here."""
    for flight in LISTS:
        folder, _, end = flight.partition("/")
        yield f"{folder}/*{end}.json"
    for name, values in vars(TestSingleThings).items():
        for mark in getattr(values, "pytestmark", ()) if name.startswith("test_") else ():
            for case in mark.args[1]:
                folder, _, end = (case if isinstance(case, str) else case[0]).partition("/")
                yield f"{folder}/*{end}.json"
    yield from OTHERS
    yield from ("gke-cluster-nodepool-get/*pool-1_1.json", "instance-template-delete/get-*")


class TestTheRest:
    def test_every_answer_is_accounted_for(self) -> None:
        patterns = [*accounted_for()]
        recorded = [str(path.relative_to(HERE)) for path in sorted(HERE.glob("*/*.json"))]
        assert len(recorded) > 120
        assert [name for name in recorded if not any(fnmatch(name, pattern) for pattern in patterns)] == []

    def test_no_answer_has_an_accelerator(self) -> None:
        """Should one be recorded some day, the table above must say what comes of it."""
        words = re.compile(r'"(guestAccelerators|acceleratorType|acceleratorConfigs?|accelerators)": *[\[{"][^\]}"]')
        assert [path.name for path in HERE.glob("*/*.json") if words.search(path.read_text("utf-8"))] == []

    def test_series_are_of_the_machine_they_were_asked_of(self) -> None:
        recorded = body("filter-metrics-with-metric-key-as-instance-id/timeSeries_1")
        [series] = recorded["timeSeries"]
        machines = body("filter-metrics-with-metric-key-as-instance-id/aggregated-instances_1")
        [record] = replayed(INSTANCES, machines, as_if_accelerated=True).records
        assert series["resource"]["labels"]["instance_id"] == record.incarnation
        assert Config(projects=(PROJECT,)).monitoring.utilisation != series["metric"]["type"]

    def test_dataprocs_machines_are_known_by_the_label_it_puts_on_them(self) -> None:
        [cluster] = body("test_dataproc_clusters_query/clusters_1")["clusters"]
        assert (
            translate.managed_by(cluster["labels"], (), group=None, name="vm") == f"dataproc:{cluster['clusterName']}"
        )
