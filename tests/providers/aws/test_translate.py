"""What EC2 answers, as records: tables of what is said and what it means."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from providers.aws import translate
from providers.aws.translate import Devices, MachineType
from providers.records import CapacityType, Initiator, LossName, ResourceRecord, State, Verb
from tests.real_data import REAL_DATA, needs

TYPES = "cloud_api/aws_describe_instance_types_accelerated_moto.json"
"""Of the real data: what DescribeInstanceTypes answers of everything with an accelerator."""
H100 = Devices(vendor="nvidia", model="H100", count=8, memory_mib=81920)
ATTACHED = datetime(2026, 11, 1, 8, tzinfo=UTC)


MODELS = {
    "dl2q": ("qualcomm", "AI100"),
    "f2": None,
    "g4ad": ("amd", "Radeon Pro V520"),
    "g4dn": ("nvidia", "T4"),
    "g5": ("nvidia", "A10G"),
    "g5g": ("nvidia", "T4G"),
    "g6": ("nvidia", "L4"),
    "g6e": ("nvidia", "L40S"),
    "g6f": ("nvidia", "L4"),
    "g7": ("nvidia", "RTX PRO 4500"),
    "g7e": ("nvidia", "RTX PRO 6000"),
    "gr6": ("nvidia", "L4"),
    "gr6f": ("nvidia", "L4"),
    "inf1": ("aws", "Inferentia1"),
    "inf2": ("aws", "Inferentia2"),
    "p3dn": ("nvidia", "V100"),
    "p4d": ("nvidia", "A100"),
    "p4de": ("nvidia", "A100-80GB"),
    "p5": ("nvidia", "H100"),
    "p5e": ("nvidia", "H200"),
    "p5en": ("nvidia", "H200"),
    "p6-b200": ("nvidia", "B200"),
    "p6-b300": ("nvidia", "B300"),
    "trn1": ("aws", "Trainium1"),
    "trn1n": ("aws", "Trainium1"),
    "trn2": ("aws", "Trainium2"),
}
"""What each family in EC2's own list of types presents; None for none of ours."""


def gpus(maker: str, name: str, *, memory: int | None = None) -> dict[str, Any]:
    size = {} if memory is None else {"MemoryInfo": {"SizeInMiB": memory}}
    return {"GpuInfo": {"Gpus": [{"Name": name, "Manufacturer": maker, "Count": 3, "LogicalGpuCount": 3, **size}]}}


def neurons(name: str) -> dict[str, Any]:
    return {"NeuronInfo": {"NeuronDevices": [{"Name": name, "Count": 3, "CoreInfo": {"Count": 5, "Version": 1}}]}}


def accelerators(maker: str, name: str) -> dict[str, Any]:
    return {"InferenceAcceleratorInfo": {"Accelerators": [{"Name": name, "Manufacturer": maker, "Count": 3}]}}


NAMED: dict[str, tuple[dict[str, Any], tuple[str, str]]] = {
    "an A100 of 40 GB": (gpus("NVIDIA", "A100", memory=40_000), ("nvidia", "A100")),
    "an A100 of 80 GB, by the same name": (gpus("NVIDIA", "A100", memory=80_000), ("nvidia", "A100-80GB")),
    "an A100 of which no memory is told": (gpus("NVIDIA", "A100"), ("nvidia", "A100")),
    "a T4g": (gpus("NVIDIA", "T4g"), ("nvidia", "T4G")),
    "a workstation's card, as a server's": (gpus("NVIDIA", "RTX PRO Server 6000"), ("nvidia", "RTX PRO 6000")),
    "one of AMD's": (gpus("AMD", "Radeon Pro V520"), ("amd", "Radeon Pro V520")),
    "one of Habana's": (gpus("Habana", "Gaudi HL-205"), ("habana", "Gaudi")),
    "one of Qualcomm's": (accelerators("Qualcomm", "Qualcomm AI100"), ("qualcomm", "AI100")),
    "the first Trainium, whose maker goes without saying": (neurons("Trainium"), ("aws", "Trainium1")),
    "the second": (neurons("Trainium2"), ("aws", "Trainium2")),
    "the first Inferentia, told twice": (
        neurons("Inferentia") | accelerators("AWS", "Inferentia"),
        ("aws", "Inferentia1"),
    ),
    "the second, told twice": (neurons("Inferentia2") | accelerators("AWS", "Inferentia2"), ("aws", "Inferentia2")),
}
"""What DescribeInstanceTypes answers of three devices, in each of its forms, and whose and which model they are."""


def an_instance(**said: Any) -> dict[str, Any]:
    """What DescribeInstances says of a plain running machine, and whatever else is wanted."""
    return {
        "InstanceId": "i-0abc",
        "InstanceType": "p5.48xlarge",
        "State": {"Name": "running"},
        "RootDeviceType": "ebs",
        "Placement": {"AvailabilityZone": "us-east-1a"},
        "LaunchTime": ATTACHED,
        **said,
    }


def a_record(machine: MachineType | None = None, **said: Any) -> ResourceRecord:
    return translate.record(
        an_instance(**said), account="123456789012", region="us-east-1", machine=machine or MachineType(devices=H100)
    )


def tagged(**tags: str) -> ResourceRecord:
    return a_record(Tags=[{"Key": key, "Value": value} for key, value in tags.items()])


def stop_blockers(record: ResourceRecord) -> list[str]:
    return [blocker.code for blocker in record.blockers if blocker.verb is Verb.STOP]


class TestMachineTypes:
    @needs(TYPES)
    def test_every_type_ec2_lists_is_understood(self) -> None:
        listed = json.loads((REAL_DATA / TYPES).read_text("utf-8"))
        assert len(listed) > 80
        for sku, answer in listed.items():
            devices = translate.machine_type(answer).devices
            assert (devices and (devices.vendor, devices.model)) == MODELS[sku.split(".")[0]], sku
            if devices:
                assert devices.count >= 1, sku
                assert 0 < devices.share <= 1, sku

    @needs(TYPES)
    def test_the_builtin_table_says_what_ec2_says(self) -> None:
        listed = json.loads((REAL_DATA / TYPES).read_text("utf-8"))
        said = {sku: translate.machine_type(answer) for sku, answer in listed.items()}
        accelerated = {sku: machine for sku, machine in said.items() if machine.devices}
        builtin = {sku: row.machine for sku, row in translate.builtin_types().items() if sku in accelerated}
        assert builtin == accelerated

    @pytest.mark.parametrize(("answer", "named"), NAMED.values(), ids=NAMED)
    def test_devices_are_named_as_everyone_names_them(self, answer: dict[str, Any], named: tuple[str, str]) -> None:
        devices = translate.machine_type(answer).devices
        assert devices is not None
        assert (devices.vendor, devices.model, devices.count) == (*named, 3)

    def test_disks_of_the_host_are_counted(self) -> None:
        storage = {"InstanceStorageInfo": {"TotalSizeInGB": 700, "Disks": [{"Count": 2, "SizeInGB": 350}]}}
        assert translate.machine_type(gpus("NVIDIA", "T4") | storage).local_storage_gb == 700
        assert translate.machine_type(gpus("NVIDIA", "T4")).local_storage_gb == 0

    def test_the_builtin_table_names_devices_in_the_same_way(self) -> None:
        told = {
            sku: (row.machine.devices.vendor, row.machine.devices.model)
            for sku, row in translate.builtin_types().items()
            if row.machine.devices and sku.split(".")[0] in MODELS
        }
        assert len(told) > 70
        assert told == {sku: MODELS[sku.split(".")[0]] for sku in told}

    def test_the_builtin_table_keeps_types_ec2_no_longer_lists(self) -> None:
        assert translate.builtin_types()["p3.16xlarge"].machine.devices == Devices(
            vendor="nvidia", model="V100", count=8, memory_mib=16384
        )

    def test_an_eighth_of_a_gpu_is_one_device(self) -> None:
        gpu = {
            "Name": "L4",
            "Manufacturer": "NVIDIA",
            "Count": 0,
            "LogicalGpuCount": 1,
            "GpuPartitionSize": 0.125,
            "MemoryInfo": {"SizeInMiB": 2861},
        }
        assert translate.machine_type({"GpuInfo": {"Gpus": [gpu]}}).devices == Devices(
            vendor="nvidia", model="L4", count=1, share=0.125, memory_mib=2861
        )

    def test_an_answer_of_before_fractions_counts_whole_gpus(self) -> None:
        gpu = {"Name": "V100", "Manufacturer": "NVIDIA", "Count": 4, "MemoryInfo": {"SizeInMiB": 16384}}
        assert translate.machine_type({"GpuInfo": {"Gpus": [gpu]}}).devices == Devices(
            vendor="nvidia", model="V100", count=4, memory_mib=16384
        )

    def test_a_gpu_of_tomorrow_keeps_its_name(self) -> None:
        gpu = {"Name": "R100", "Manufacturer": "NVIDIA", "LogicalGpuCount": 8}
        assert translate.machine_type({"GpuInfo": {"Gpus": [gpu]}}).devices == Devices(
            vendor="nvidia", model="R100", count=8
        )

    @pytest.mark.parametrize("answer", [{}, {"FpgaInfo": {"Fpgas": [{"Count": 8}]}}, {"GpuInfo": {"Gpus": []}}])
    def test_what_cannot_train_or_infer_is_not_ours(self, answer: dict[str, Any]) -> None:
        assert translate.machine_type(answer).devices is None


@pytest.mark.parametrize(
    ("state", "code", "who"),
    [
        pytest.param("stopped", "Client.UserInitiatedShutdown", Initiator.PERSON, id="a call to the API"),
        pytest.param("stopping", "Client.UserInitiatedShutdown", Initiator.PERSON, id="a call, still going down"),
        pytest.param("stopped", "Client.InstanceInitiatedShutdown", Initiator.PERSON, id="a shutdown from inside"),
        pytest.param("stopped", "Client.UserInitiatedHibernate", Initiator.PERSON, id="a person who hibernated it"),
        pytest.param("stopped", "Server.SpotInstanceShutdown", Initiator.CLOUD, id="a spot interruption"),
        pytest.param("terminated", "Server.SpotInstanceTermination", Initiator.CLOUD, id="one that took it away"),
        pytest.param("shutting-down", "Server.SpotInstanceTermination", Initiator.CLOUD, id="one that is taking it"),
        pytest.param("stopped", "Server.ScheduledStop", Initiator.CLOUD, id="a scheduled retirement"),
        pytest.param("terminated", "Server.InternalError", Initiator.CLOUD, id="a failure of AWS's"),
        pytest.param("terminated", "Server.InsufficientInstanceCapacity", Initiator.CLOUD, id="no capacity"),
        pytest.param("terminated", "Client.VolumeLimitExceeded", None, id="neither"),
        pytest.param("stopped", "Server.AWordOfTomorrow", None, id="a word of tomorrow"),
        pytest.param("stopped", "", None, id="no word"),
        pytest.param("running", "Server.SpotInstanceShutdown", None, id="a reason that outlived a restart"),
        pytest.param("pending", "Client.UserInitiatedShutdown", None, id="a reason on its way out"),
    ],
)
def test_who_brought_it_down(state: str, code: str, who: Initiator | None) -> None:
    assert a_record(State={"Name": state}, StateReason={"Code": code, "Message": "because"}).stopped_by is who


def test_nobody_brought_down_what_ec2_says_nothing_of() -> None:
    assert a_record(State={"Name": "stopped"}).stopped_by is None


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("pending", State.PENDING),
        ("running", State.RUNNING),
        ("stopping", State.STOPPING),
        ("stopped", State.STOPPED),
        ("shutting-down", State.TERMINATED),
        ("terminated", State.TERMINATED),
        ("hovering", State.UNKNOWN),
    ],
)
def test_state(said: str, state: State) -> None:
    assert a_record(State={"Name": said}).state is state


@pytest.mark.parametrize(
    ("said", "capacity_type"),
    [
        pytest.param({}, CapacityType.ON_DEMAND, id="nothing said is on demand"),
        pytest.param({"InstanceLifecycle": "spot"}, CapacityType.SPOT, id="spot"),
        pytest.param({"InstanceLifecycle": "scheduled"}, CapacityType.RESERVED, id="a scheduled reservation"),
        pytest.param({"CapacityReservationId": "cr-1"}, CapacityType.RESERVED, id="in a capacity reservation"),
        pytest.param({"InstanceLifecycle": "capacity-block"}, CapacityType.CAPACITY_BLOCK, id="a capacity block"),
        pytest.param(
            {"InstanceLifecycle": "capacity-block", "CapacityReservationId": "cr-1"},
            CapacityType.CAPACITY_BLOCK,
            id="a capacity block is a reservation too",
        ),
        pytest.param({"CapacityBlockId": "cb-1"}, CapacityType.CAPACITY_BLOCK, id="a capacity block by its id"),
        pytest.param({"InstanceLifecycle": "borrowed"}, CapacityType.UNKNOWN, id="a word of tomorrow is unknown"),
    ],
)
def test_capacity_type(said: dict[str, Any], capacity_type: CapacityType) -> None:
    assert a_record(**said).capacity_type is capacity_type


@pytest.mark.parametrize(
    ("tags", "owner"),
    [
        pytest.param({}, None, id="nobody's"),
        pytest.param({"aws:cloudformation:stack-name": "lab"}, None, id="CloudFormation does not own its state"),
        pytest.param({"aws:autoscaling:groupName": "trainers"}, "autoscaling:trainers", id="a scaling group's"),
        pytest.param({"kubernetes.io/cluster/ml": "owned"}, "kubernetes:ml", id="a node by cluster tag"),
        pytest.param({"kubernetes.io/cluster/ml": "shared"}, "kubernetes:ml", id="a node by shared cluster tag"),
        pytest.param({"KubernetesCluster": "ml"}, "kubernetes:ml", id="a node by the old tag"),
        pytest.param(
            {"eks:cluster-name": "ml", "eks:nodegroup-name": "gpu", "aws:autoscaling:groupName": "eks-gpu-1"},
            "eks-nodegroup:gpu",
            id="an EKS node group's, not its scaling group's",
        ),
        pytest.param({"eks:cluster-name": "ml"}, "kubernetes:ml", id="a self-managed node of EKS"),
        pytest.param(
            {"karpenter.sh/nodepool": "gpu", "kubernetes.io/cluster/ml": "owned"}, "karpenter:gpu", id="Karpenter's"
        ),
        pytest.param({"karpenter.sh/nodeclaim": "gpu-x7"}, "karpenter:gpu-x7", id="Karpenter's, by claim"),
        pytest.param(
            {"kubernetes.io/cluster/ml": "owned", "aws:autoscaling:groupName": "workers"},
            "kubernetes:ml",
            id="a node in a scaling group is Kubernetes' before it is the group's",
        ),
        pytest.param({"aws:elasticmapreduce:job-flow-id": "j-1"}, "emr:j-1", id="EMR's"),
        pytest.param({"parallelcluster:cluster-name": "hpc"}, "parallelcluster:hpc", id="ParallelCluster's"),
        pytest.param({"AWSBatchServiceTag": "batch"}, "batch:batch", id="Batch's"),
        pytest.param({"aws:ec2:fleet-id": "fleet-1"}, "ec2-fleet:fleet-1", id="a fleet's, which replaces what is down"),
    ],
)
def test_managed_by(tags: dict[str, str], owner: str | None) -> None:
    assert tagged(**tags).managed_by == owner


def test_managed_by_a_service_that_says_so() -> None:
    said = {"Managed": True, "Principal": "ecs.amazonaws.com"}
    assert a_record(Operator=said).managed_by == "operator:ecs.amazonaws.com"
    assert a_record(Operator={"Managed": False}).managed_by is None


@pytest.mark.parametrize(
    ("tags", "sources"),
    [
        pytest.param({}, [], id="nothing protects"),
        pytest.param({"curfew-protect": "demo for a customer"}, ["curfew-protect"], id="ours, by any words"),
        pytest.param({"curfew-protect": ""}, ["curfew-protect"], id="ours, by no words"),
        pytest.param({"curfew-protect": "False"}, [], id="ours, called off"),
        pytest.param({"karpenter.sh/do-not-disrupt": "true"}, ["karpenter.sh/do-not-disrupt"], id="Karpenter's"),
        pytest.param({"downscaler/exclude": "true"}, ["downscaler/exclude"], id="the downscaler's"),
        pytest.param({"downscaler/exclude": "false"}, [], id="the downscaler's, called off"),
        pytest.param({"maid_offhours": "off"}, ["maid_offhours"], id="Cloud Custodian's opt-out"),
        pytest.param({"maid_offhours": "off=(M-F,19);tz=pt"}, [], id="a schedule is no protection"),
        pytest.param({"Schedule": "office-hours"}, [], id="nor is Instance Scheduler's"),
    ],
)
def test_protections(tags: dict[str, str], sources: list[str]) -> None:
    assert [protection.source for protection in tagged(**tags).protections] == sources


@pytest.mark.parametrize(
    ("value", "until"),
    [
        ("2026-12-01T18:00:00Z", datetime(2026, 12, 1, 18, tzinfo=UTC)),
        ("2026-12-01T18:00:00+07:00", datetime(2026, 12, 1, 11, tzinfo=UTC)),
        ("2026-12-01", datetime(2026, 12, 1, tzinfo=UTC)),
        ("end of the year", None),
    ],
)
def test_a_protection_with_an_end_has_it_and_a_misspelt_end_is_none(value: str, until: datetime | None) -> None:
    (protection,) = tagged(**{"downscaler/exclude-until": value}).protections
    assert protection.until == until


class TestBlockers:
    @pytest.mark.parametrize(
        ("said", "code"),
        [
            ({"State": {"Name": "terminated"}}, "Terminated"),
            ({"State": {"Name": "shutting-down"}}, "Terminated"),
            ({"RootDeviceType": "instance-store"}, "InstanceStoreRoot"),
            ({"InstanceLifecycle": "capacity-block"}, "CapacityBlock"),
        ],
    )
    def test_what_forbids_a_stop(self, said: dict[str, Any], code: str) -> None:
        assert stop_blockers(a_record(**said)) == [code]

    def test_nothing_forbids_stopping_a_plain_machine(self) -> None:
        assert stop_blockers(a_record()) == []

    @pytest.mark.parametrize(
        ("request_said", "codes"),
        [
            pytest.param(None, ["SpotRequestUnknown"], id="no request found"),
            pytest.param({"Type": "one-time", "State": "active"}, ["OneTimeSpot"], id="one-time"),
            pytest.param({"Type": "persistent", "State": "active"}, [], id="persistent"),
            pytest.param({"Type": "persistent", "State": "cancelled"}, ["SpotRequestGone"], id="cancelled"),
            pytest.param(
                {"Type": "persistent", "State": "active", "LaunchGroup": "pair"}, ["SpotGroup"], id="in a launch group"
            ),
            pytest.param({"State": "active"}, ["OneTimeSpot"], id="of a type not said, which counts as one-time"),
        ],
    )
    def test_what_a_spot_request_forbids(self, request_said: dict[str, Any] | None, codes: list[str]) -> None:
        record = translate.with_spot_request(a_record(InstanceLifecycle="spot"), request_said)
        assert stop_blockers(record) == codes

    def test_hibernation_must_have_been_configured_at_launch(self) -> None:
        assert [blocker.code for blocker in a_record().blockers] == ["HibernationNotConfigured"]
        assert a_record(HibernationOptions={"Configured": True}).blockers == ()


def test_local_disks_are_a_loss_and_say_how_much() -> None:
    record = a_record(MachineType(devices=H100, local_storage_gb=30400))
    (loss,) = [loss for loss in record.losses if loss.verb is Verb.STOP]
    assert loss.name is LossName.LOCAL_DISKS
    assert loss.sentence == "30,400 GB of NVMe instance storage would be erased"
    assert a_record(MachineType(devices=H100)).losses == ()


class TestIdentity:
    def test_the_name_is_the_tag_else_the_id(self) -> None:
        assert tagged(Name="trainer").name == "trainer"
        assert tagged(Name="").name == "i-0abc"
        assert tagged().name == "i-0abc"

    def test_ec2_never_gives_an_id_twice(self) -> None:
        assert a_record().incarnation == a_record().ref.external_id == "i-0abc"

    def test_it_was_created_when_the_first_thing_was_attached(self) -> None:
        record = a_record(
            LaunchTime=ATTACHED + timedelta(days=3),
            NetworkInterfaces=[{"Attachment": {"AttachTime": ATTACHED}}, {}],
            BlockDeviceMappings=[{"Ebs": {"AttachTime": ATTACHED + timedelta(seconds=2)}}],
        )
        assert record.created_at == ATTACHED
        assert record.launched_at == ATTACHED + timedelta(days=3)

    def test_a_terminated_machine_has_nothing_attached_any_more(self) -> None:
        assert a_record(NetworkInterfaces=[], BlockDeviceMappings=[]).created_at is None

    def test_times_are_utc_whatever_the_sdk_makes_of_them(self) -> None:
        hanoi = timezone(timedelta(hours=7))
        launched = a_record(LaunchTime=ATTACHED.astimezone(hanoi)).launched_at
        assert launched == ATTACHED
        assert launched.tzinfo is UTC

    def test_only_a_machine_whose_every_question_was_answered_is_fully_described(self) -> None:
        record = a_record()
        assert not record.fully_described
        assert translate.fully_described(record, stop_protection=False, termination_protection=False).protections == ()
        protected = translate.fully_described(record, stop_protection=True, termination_protection=False)
        assert protected.fully_described
        assert [protection.source for protection in protected.protections] == ["disableApiStop"]
