"""Builds the pipeline's values in a line each: only what a test is about is said."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from policies.policy import BasePolicy, IdleProfile, Mode
from providers.records import (
    CapacityType,
    InventoryAnswer,
    Kind,
    PartReport,
    Price,
    ResourceRecord,
    ResourceRef,
    Series,
    Signal,
    State,
    Verb,
    resource_id,
)
from service.documents import POLICY, Exemption, Project
from service.model import FindingState, Known, SourceAnswer, Status, Telemetry
from service.pipeline.decide import World
from service.pipeline.plan import InForce, Limits, Standing

NOW = datetime(2026, 11, 16, 9, 0, tzinfo=UTC)
ACCOUNT = "123456789012"
REGION = "us-east-1"
SOURCE = "research"
ALL_VERBS = {kind: frozenset(Verb) for kind in Kind}


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def hours(count: float) -> timedelta:
    return timedelta(hours=count)


def ref(name: str = "i-1", **more: Any) -> ResourceRef:
    given = {"provider": "aws", "account": ACCOUNT, "region": REGION, "kind": Kind.INSTANCE, "external_id": name}
    return ResourceRef(**{**given, **more})


def record(name: str = "i-1", **more: Any) -> ResourceRecord:
    """A running machine of 8 H100, launched yesterday, paid by vision."""
    where = {key: more.pop(key) for key in ("provider", "account", "region", "kind") if key in more}
    given: dict[str, Any] = {
        "ref": ref(name, **where),
        "incarnation": name,
        "name": name,
        "zone": None,
        "sku": "p5.48xlarge",
        "gpu_vendor": "nvidia",
        "gpu_model": "H100",
        "gpu_count": 8,
        "capacity_type": CapacityType.ON_DEMAND,
        "state": State.RUNNING,
        "launched_at": NOW - hours(24),
        "created_at": NOW - hours(24),
        "tags": {"project": "vision"},
    }
    return ResourceRecord(**{**given, **more})


PRICE = Price(rate_micros=55_040_000, currency="USD", source="list")


def known(name: str = "i-1", **more: Any) -> Known:
    """What we remember of such a machine. Fields of its record may be given as `record=…`."""
    seen = more.pop("record", None) or record(name)
    given: dict[str, Any] = {
        "id": resource_id(seen.ref, seen.incarnation),
        "source": SOURCE,
        "record": seen,
        "first_seen": NOW - hours(24),
        "state_since": NOW - hours(24),
        "started_at": NOW - hours(24) if seen.state is State.RUNNING else None,
        "project": "vision",
        "price": PRICE,
    }
    return Known(**{**given, **more})


def answer(
    *records: ResourceRecord,
    source: str = SOURCE,
    account: str = ACCOUNT,
    identity: str | None = ACCOUNT,
    regions: Iterable[str] = (REGION,),
    failed: Iterable[str] = (),
) -> SourceAnswer:
    """A source's answer; complete but for the `failed` regions."""
    parts = [PartReport(part=region, complete=True) for region in regions]
    parts += [PartReport(part=region, complete=False) for region in failed]
    found = InventoryAnswer(identity=account, records=records, parts=tuple(parts))
    return SourceAnswer(source=source, answer=found, identity=identity)


def series(
    load: float | Callable[[int], float | None] = 0.0,
    *,
    device: str = "0",
    of: ResourceRef | None = None,
    signal: Signal = Signal.UTILISATION,
    until: datetime = NOW,
    length: timedelta = timedelta(hours=2),
    every: int = 60,
) -> Series:
    """One sample a minute up to now (exclusive). `load` may be a function of the minute (before now: below 0)."""
    end = int(until.timestamp())
    samples = []
    for second in range(end - int(length.total_seconds()), end, every):
        value = load((second - end) // 60) if callable(load) else load
        if value is not None:
            samples.append((second, value))
    return Series(
        ref=of or ref(),
        device=device,
        signal=signal,
        times=tuple(second for second, _ in samples),
        values=tuple(value for _, value in samples),
    )


def gpus(load: float | Callable[[int], float | None] = 0.0, count: int = 8, **more: Any) -> tuple[Series, ...]:
    """So many GPUs that all do the same."""
    return tuple(series(load, device=str(index), **more) for index in range(count))


def idle_policy(name: str = "idle-gpus", **more: Any) -> BasePolicy:
    """Enforcing, with a wide disruption budget; local disks accepted."""
    given: dict[str, Any] = {
        "type": "idle",
        "mode": "enforce",
        "accept_loss": ["local_disks"],
        "disruption_budget": {"max": "100%"},
    }
    return POLICY.validate_python({**given, "name": name, **more})


def unowned_policy(name: str = "unowned", **more: Any) -> BasePolicy:
    """Enforcing: whoever has no owner is in breach."""
    given: dict[str, Any] = {
        "type": "ownership",
        "mode": "enforce",
        "ownership": {"require": ["owner"], "within": "1h"},
        "disruption_budget": {"max": "100%"},
    }
    return POLICY.validate_python({**given, "name": name, **more})


def profile(**more: Any) -> IdleProfile:
    return IdleProfile.model_validate({"for": "45m", **more})


def in_force(policy: BasePolicy, *, version: int = 1, stricter_since: datetime | None = NOW - hours(48)) -> InForce:
    return InForce(policy=policy, version=version, stricter_since=stricter_since)


def finding(of: Known | None = None, **more: Any) -> FindingState:
    """A finding of the idle policy on a machine, opened an hour ago. `status` says how far it is."""
    of = of or known()
    given: dict[str, Any] = {
        "id": f"finding-of-{of.id}",
        "policy": "idle-gpus",
        "policy_version": 1,
        "resource_id": of.id,
        "project": of.project,
        "status": Status.OPEN,
        "status_reason": "",
        "reason": "",
        "evidence": {},
        "remedy": "stop",
        "opened_at": NOW - hours(1),
    }
    return FindingState(**{**given, **more})


def warned(of: Known | None = None, *, due: timedelta = timedelta(0), **more: Any) -> FindingState:
    """Warned half an hour before it is due; `due` from now."""
    given = {"status": Status.WARNED, "warned_at": NOW + due - minutes(30), "due_at": NOW + due}
    return finding(of, **{**given, **more})


VISION = Project.model_validate(
    {"name": "vision", "owners": ["lead@example.org"], "match": [{"tags": {"project": "vision"}}]}
)


def limits(**more: Any) -> Limits:
    """Nothing caps anything, unless it is said."""
    sources = more.pop("source_ceilings", {SOURCE: Mode.ENFORCE})
    given: dict[str, Any] = {
        "ceiling": Mode.ENFORCE,
        "source_ceilings": sources,
        "breaker": 1.0,
        "links_usable": True,
        "verbs": {name: ALL_VERBS for name in sources},
    }
    return Limits(**{**given, **more})


def world(
    *machines: Known,
    policies: Sequence[BasePolicy | InForce] | None = None,
    series: Mapping[str, tuple[Series, ...]] | None = None,
    answers: Sequence[SourceAnswer] | None = None,
    standing: Standing | None = None,
    **more: Any,
) -> World:
    """A world in which every machine was seen just now and its GPUs have been idle for two hours."""
    chosen = [
        in_force(p) if isinstance(p, BasePolicy) else p for p in (policies if policies is not None else [idle_policy()])
    ]
    if series is None:
        series = {one.id: gpus(count=one.record.gpu_count, of=one.record.ref) for one in machines}
    telemetry = more.pop("telemetry", None) or Telemetry(series=series)
    capped = more.pop("limits", None) or limits()
    given: dict[str, Any] = {
        "known": {one.id: one for one in machines},
        "answers": answers if answers is not None else [answer(*(one.record for one in machines))],
        "quotes": {one.record.ref: one.price for one in machines if one.price is not None},
        "telemetry": telemetry,
        "sources": dict(capped.source_ceilings),
        "projects": {"vision": VISION},
        "policies": {one.policy.name: one for one in chosen},
        "exemptions": (),
        "standing": standing or Standing(),
        "limits": capped,
        "intervals": {},
    }
    return World(**{**given, **more})


def exemption(**more: Any) -> Exemption:
    """For all of vision, unless it names something else."""
    given: dict[str, Any] = {"name": "demo-day", "until": "2026-11-20T00:00:00Z", "reason": "demo day"}
    if not more.keys() & {"resources", "projects", "tags"}:
        given["projects"] = ["vision"]
    return Exemption.model_validate({**given, **more})
