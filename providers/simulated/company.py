"""The demo company as data: what each of its four clouds runs, told as a story that begins on a Saturday morning.

The company's documents (projects, policies) are the service's and lie beside it; here is only what its clouds know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from providers.records import Blocker, CapacityType, Kind, State, Verb
from providers.simulated.activity import Activity, Busy, Hours, Idle, Serving, Silent, Spare, Thin, Until
from providers.simulated.catalogue import SKUS
from providers.simulated.cloud import Group, Machine, SimulatedCloud

START = datetime(2026, 11, 14, 6, 0, tzinfo=UTC)
"""When the demo begins: a Saturday. In Ho Chi Minh City it is 13:00, in Berlin 7:00, in New York 1:00 at night."""

FRIDAY_EVENING = datetime(2026, 11, 13, 19, 40, tzinfo=UTC)
LAST_WEEK = START - timedelta(days=6, hours=5)
A_WHILE_AGO = START - timedelta(days=17)

ONE_TIME_SPOT = Blocker(
    verb=Verb.STOP, code="OneTimeSpot", sentence="a one-time spot machine cannot be stopped, only terminated"
)
CAPACITY_BLOCK = Blocker(
    verb=Verb.STOP, code="CapacityBlock", sentence="its capacity block is paid for ahead; stopping it saves nothing"
)


def found(name: str, now: Callable[[], datetime]) -> SimulatedCloud:
    """One of the company's clouds, as it is at `START` and as its story goes on."""
    return {"aws": _aws, "gcp": _gcp, "azure": _azure, "kubernetes": _kubernetes}[name](now)


def _tags(project: str | None, owner: str | None, **more: str) -> dict[str, str]:
    tags = {"project": project, "owner": owner and f"{owner}@lumen.example"}
    return {key: value for key, value in tags.items() if value is not None} | more


def _machine(
    name: str,
    sku: str,
    activity: Activity,
    *,
    project: str | None = None,
    owner: str | None = None,
    since: datetime = LAST_WEEK,
    region: str = "",
    capacity_type: CapacityType = CapacityType.ON_DEMAND,
    managed_by: str | None = None,
    locked: bool = False,
    blockers: tuple[Blocker, ...] = (),
    stopped_at: datetime | None = None,
    tags: dict[str, str] | None = None,
) -> Machine:
    history = [(since, State.RUNNING)] + ([(stopped_at, State.STOPPED)] if stopped_at else [])
    return Machine(
        name=name,
        sku=SKUS[sku],
        activity=activity,
        launched_at=since,
        region=region,
        capacity_type=capacity_type,
        managed_by=managed_by,
        locked=locked,
        blockers=blockers,
        history=history,
        tags=_tags(project, owner, **({"Name": name} if name else {}), **(tags or {})),
    )


def _aws(now: Callable[[], datetime]) -> SimulatedCloud:
    cloud = SimulatedCloud(now, provider="aws", account="111122223333", regions=("us-east-1", "eu-west-1"))
    for machine in _aws_machines():
        cloud.add(machine)
    tags = _tags("foundation", "platform")
    cloud.add_group(Group(name="trainers", sku=SKUS["g5.12xlarge"], desired=4, minimum=2, maximum=8, tags=tags))
    return cloud


def _aws_machines() -> Iterator[Machine]:
    # A cluster its team forgot over the weekend: $440 an hour for nothing.
    for number in range(8):
        yield _machine(
            f"polaris-{number}",
            "p5.48xlarge",
            Until(moment=FRIDAY_EVENING + timedelta(minutes=number), first=Busy(seed=number), then=Idle(memory=0.6)),
            project="vision",
            owner="linh",
        )
    # A training job that took seven GPUs of eight: the spare one is no reason to stop it.
    yield _machine(
        "aurora-train",
        "p5.48xlarge",
        Spare(devices=frozenset({7}), others=Busy(seed=11)),
        project="vision",
        owner="quang",
        since=START - timedelta(days=2),
    )
    # It ends while one watches.
    yield _machine(
        "ablation-33",
        "g6e.12xlarge",
        Until(moment=START + timedelta(hours=1, minutes=30), first=Busy(seed=12, level=0.7)),
        project="vision",
        owner="quang",
        since=START - timedelta(hours=20),
    )
    # Started for a look at something and just up: loading a model is not idling.
    yield _machine(
        "notebook-mai",
        "g6.xlarge",
        Idle(memory=0.3),
        project="vision",
        owner="mai",
        since=START - timedelta(minutes=4),
    )
    # Machines that serve. One hears of somebody every twenty minutes, the other one twice a night.
    yield _machine(
        "chat-frequent",
        "g6e.12xlarge",
        Serving(every=timedelta(minutes=20)),
        project="assistants",
        owner="jonas",
        region="eu-west-1",
        since=A_WHILE_AGO,
    )
    yield _machine(
        "chat-rare",
        "g6e.12xlarge",
        Serving(every=timedelta(hours=5), at=START + timedelta(hours=4)),
        project="assistants",
        owner="jonas",
        region="eu-west-1",
        since=A_WHILE_AGO,
    )
    for number in range(3):
        yield _machine(
            f"embed-{number}",
            "g6.xlarge",
            Busy(level=0.55, memory=0.7, seed=20 + number),
            project="assistants",
            owner="jonas",
            region="eu-west-1",
            since=A_WHILE_AGO,
        )
    # Nobody ever installed an exporter: unknown for ever, and never stopped.
    yield _machine("silent-box", "g5.12xlarge", Silent(), project="vision", owner="mai", since=A_WHILE_AGO)
    # Telemetry with holes: thin is unknown too.
    yield _machine("flaky-metrics", "g5.12xlarge", Thin(), project="vision", owner="mai", since=A_WHILE_AGO)
    # No name, no project, no owner: somebody's card pays.
    yield _machine("", "p4d.24xlarge", Idle(), since=A_WHILE_AGO)
    # Spot: two work, two wait. One-time spot machines cannot be stopped, and we say so.
    for number in range(4):
        yield _machine(
            f"sweep-{number}",
            "g6.xlarge",
            Busy(seed=30 + number) if number < 2 else Idle(memory=0.1),
            project="vision",
            owner="quang",
            capacity_type=CapacityType.SPOT,
            since=START - timedelta(hours=9),
            blockers=(ONE_TIME_SPOT,),
        )
    # Protected, one by the cloud and one by a tag.
    yield _machine(
        "vault-eval",
        "g6e.12xlarge",
        Idle(memory=0.9),
        project="vision",
        owner="linh",
        locked=True,
        since=A_WHILE_AGO,
    )
    yield _machine(
        "demo-for-board",
        "g5.12xlarge",
        Idle(memory=0.5),
        project="assistants",
        owner="jonas",
        region="eu-west-1",
        tags={"curfew-protect": "2026-11-17T18:00:00+01:00"},
    )
    # Members of a scaling group: met through it, as a whole, and only who accepts their loss loses them.
    for number in range(4):
        yield _machine(
            f"trainers-{number}",
            "g5.12xlarge",
            Idle(),
            project="foundation",
            owner="platform",
            managed_by="autoscaling:trainers",
            tags={"aws:autoscaling:groupName": "trainers"},
        )
    # Busy every night in Viet Nam, idle by day.
    yield _machine(
        "nightly-labels",
        "g6e.12xlarge",
        Hours(zone="Asia/Ho_Chi_Minh", start=22, end=5, days=frozenset(range(7)), inside=Busy(seed=40)),
        project="labels",
        owner="batch",
        since=A_WHILE_AGO,
    )
    # Paid ahead: stopping it would save nothing.
    yield _machine(
        "block-1",
        "p5.48xlarge",
        Idle(),
        project="foundation",
        owner="platform",
        capacity_type=CapacityType.CAPACITY_BLOCK,
        blockers=(CAPACITY_BLOCK,),
    )
    # Somebody remembered.
    yield _machine(
        "polaris-head",
        "g6.xlarge",
        Idle(),
        project="vision",
        owner="linh",
        stopped_at=FRIDAY_EVENING + timedelta(minutes=20),
    )


def _gcp(now: Callable[[], datetime]) -> SimulatedCloud:
    cloud = SimulatedCloud(now, provider="gcp", account="lumen-research", regions=("us-central1", "asia-southeast1"))
    for machine in _gcp_machines():
        cloud.add(machine)
    ids = {machine.name: machine.external_id for machine in cloud.machines.values()}
    # A preemptible machine is taken away, as they are.
    cloud.later(START + timedelta(hours=2), lambda moment: cloud.stop(ids["sweep-east-1"], moment))
    # Minh is back after supper and starts his machine again: whoever restarts is left alone for a while.
    cloud.later(START + timedelta(hours=8), lambda moment: cloud.start(ids["minh-dev"], moment))
    return cloud


def _gcp_machines() -> Iterator[Machine]:
    # The big run, busy all weekend.
    for number in range(4):
        yield _machine(
            f"pretrain-{number}",
            "a3-highgpu-8g",
            Busy(level=0.97, seed=50 + number),
            project="foundation",
            owner="platform",
            since=START - timedelta(days=4),
        )
    # Freelancers, each in a time zone of their own.
    for name, zone, days, start, end in (
        ("minh", "Asia/Ho_Chi_Minh", range(6), 8, 14),
        ("olek", "Europe/Warsaw", range(5), 9, 17),
        ("ana", "America/Sao_Paulo", range(5), 10, 19),
        ("rae", "Australia/Sydney", range(1, 6), 9, 18),
    ):
        yield _machine(
            f"{name}-dev",
            "a2-ultragpu-4g",
            Hours(zone=zone, days=frozenset(days), start=start, end=end, inside=Busy(level=0.6, seed=len(name))),
            project="freelance",
            owner=name,
            region="asia-southeast1" if zone.startswith(("Asia", "Australia")) else "us-central1",
        )
    for number in range(3):
        yield _machine(
            f"rank-{number}",
            "g2-standard-24",
            Busy(level=0.4, memory=0.6, seed=60 + number),
            project="assistants",
            owner="jonas",
            since=A_WHILE_AGO,
        )
    for number in range(2):
        yield _machine(
            f"sweep-east-{number}",
            "g2-standard-12",
            Busy(seed=70 + number),
            project="vision",
            owner="quang",
            region="asia-southeast1",
            capacity_type=CapacityType.SPOT,
            since=START - timedelta(hours=3),
        )
    # An owner, but no project that would pay.
    yield _machine("try-something", "a2-highgpu-1g", Idle(memory=0.2), owner="mai", region="asia-southeast1")


def _azure(now: Callable[[], datetime]) -> SimulatedCloud:
    cloud = SimulatedCloud(
        now,
        provider="azure",
        account="6f1d2c7e-0000-4000-8000-5a1e5f0d0a11",
        regions=("westeurope", "southeastasia"),
        currency="EUR",
    )
    for machine in _azure_machines():
        cloud.add(machine)
    return cloud


def _azure_machines() -> Iterator[Machine]:
    working_week = Hours(zone="Europe/Berlin", start=8, end=19, inside=Busy(level=0.8, seed=80), outside=Idle())
    # Works from Monday to Friday, and is paid for on Saturday.
    yield _machine("grasp-h100", "Standard_ND96isr_H100_v5", working_week, project="robotics", owner="petra")
    # Its own run takes the weekend.
    yield _machine("grasp-mi300", "Standard_ND96isr_MI300X_v5", Busy(seed=81), project="robotics", owner="petra")
    for number, name in enumerate(("petra", "sven", "ioana", "luca")):
        yield _machine(
            f"{name}-sim",
            "Standard_NC24ads_A100_v4",
            working_week if number else Busy(level=0.5, seed=82),
            project="robotics",
            owner=name,
        )
    # Behind the robots' voice, a request every ten minutes.
    yield _machine(
        "voice",
        "Standard_NV36ads_A10_v5",
        Serving(every=timedelta(minutes=10)),
        project="robotics",
        owner="sven",
        since=A_WHILE_AGO,
    )
    # Members of a scale set.
    for number in range(2):
        yield _machine(
            f"render_{number}",
            "Standard_NV36ads_A10_v5",
            Idle(),
            project="robotics",
            owner="ioana",
            region="southeastasia",
            managed_by="vmss:render",
        )
    # Nobody answers for it.
    yield _machine("old-benchmark", "Standard_NC24ads_A100_v4", Idle(), region="southeastasia", since=A_WHILE_AGO)


def _kubernetes(now: Callable[[], datetime]) -> SimulatedCloud:
    cloud = SimulatedCloud(
        now, provider="kubernetes", account="8a3f6f3e-7c0d-4a58-9d0a-2f1f4f6a7b10", regions=("lumen-cluster",)
    )
    for machine in _workloads():
        cloud.add(machine)
    return cloud


def _workloads() -> Iterator[Machine]:
    rows: tuple[tuple[str, str, str, str, Activity, str | None], ...] = (
        ("vision-dev", "Deployment", "notebook-linh", "nvidia-a100-80gb-x1", Idle(memory=0.4), "linh"),
        ("vision-dev", "Deployment", "notebook-quang", "nvidia-a100-80gb-x1", Busy(level=0.3, seed=90), "quang"),
        ("vision", "Job", "finetune-v7", "nvidia-h100-80gb-x8", Busy(seed=91), "linh"),
        # Its process hangs after an error: it holds four GPUs and does nothing.
        (
            "vision",
            "Job",
            "ablation-17",
            "nvidia-a100-80gb-x4",
            Until(moment=FRIDAY_EVENING - timedelta(hours=3), then=Idle(memory=0.9)),
            "quang",
        ),
        ("vision", "Job", "ablation-18", "nvidia-a100-80gb-x4", Busy(seed=92), "quang"),
        ("assistants", "Deployment", "chat", "nvidia-l4-x2", Busy(level=0.5, seed=93), "jonas"),
        (
            "assistants",
            "Deployment",
            "chat-canary",
            "nvidia-l4-x1",
            Serving(every=timedelta(hours=6), at=START + timedelta(hours=2)),
            "jonas",
        ),
        ("assistants", "StatefulSet", "embeddings", "nvidia-l4-x2", Busy(level=0.45, seed=94), "jonas"),
        (
            "labels",
            "Job",
            "label-tonight",
            "nvidia-a100-80gb-x4",
            Until(moment=START + timedelta(hours=3), first=Busy(level=0.8, seed=95)),
            "batch",
        ),
        ("sandbox", "Deployment", "jupyter-shared", "nvidia-l4-x1", Idle(), None),
    )
    for namespace, owner_kind, name, sku, activity, owner in rows:
        yield Machine(
            kind=Kind.WORKLOAD,
            name=name,
            external_id=f"{namespace}/{owner_kind}/{name}",
            sku=SKUS[sku],
            activity=activity,
            launched_at=START - timedelta(hours=30),
            tags=_tags(None, owner, namespace=namespace),
        )
