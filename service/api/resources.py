"""`/resources`: what is governed, what it costs, and why it was or was not stopped."""

from __future__ import annotations

from datetime import datetime
from fractions import Fraction
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter
from sqlmodel import Session

from providers.records import CapacityType, Kind, State
from service.api.auth import Caller, Principal, TheRuntime
from service.api.problems import not_found, responses
from service.api.shapes import ANY_OF, Cursor, Limit, Listing, Money, Shape, Words, money
from service.runtime import Runtime
from service.store import views
from service.store.tables import Resource

router = APIRouter(prefix="/resources", tags=["resources"])

Activity = Literal["busy", "idle", "unknown"]


class Held(Shape):
    """What of a machine in a Kubernetes cluster its workloads hold, and carry the cost of."""

    gpus: float
    hourly_cost: Money | None


class ResourceAnswer(Shape):
    """One governed thing."""

    id: str
    source: str
    provider: str
    account: str
    region: str
    zone: str | None
    kind: str
    external_id: str
    name: str
    sku: str
    gpu_model: str | None
    gpu_count: int
    capacity_type: str
    state: str
    activity: Activity
    idle_seconds: int | None
    project: str | None
    owner: str | None
    managed_by: str | None
    tags: dict[str, str]
    hourly_cost: Money | None
    """In its state now; of a machine in a cluster, what no workload carries."""
    held: Held | None
    """None for what is no machine in a cluster."""
    cost_to_date: Money | None
    first_seen: datetime
    last_seen: datetime
    launched_at: datetime | None
    protected: bool
    protections: list[str]
    """Why it must not be touched, in sentences."""
    powered_off: bool
    run_limit_seconds: int | None
    remarks: list[str]
    """What is unusual about it, in sentences."""
    same_as: str | None
    """Of a Kubernetes node: id of the resource that is the same machine, and is shown and metered instead of it."""
    orphaned_at: datetime | None
    """Since when its source no longer shows it: kept, never judged."""
    ended_at: datetime | None


@router.get("", responses=responses(), summary="List resources")
def list_resources(  # one parameter per filter
    runtime: TheRuntime,
    principal: Caller,
    project: Words,
    provider: Words,
    source: Words,
    kind: Annotated[list[Kind], ANY_OF],
    state: Annotated[list[State], ANY_OF],
    capacity_type: Annotated[list[CapacityType], ANY_OF],
    gpu_model: Words,
    activity: Annotated[list[Activity], ANY_OF],
    external_id: Words,
    name: Words,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Listing[ResourceAnswer]:
    """Each filter may be repeated: any of its values will do."""
    filters = {
        "project": project,
        "provider": provider,
        "source": source,
        "kind": [entry.value for entry in kind],
        "state": [entry.value for entry in state],
        "capacity_type": [entry.value for entry in capacity_type],
        "gpu_model": gpu_model,
        "external_id": external_id,
        "name": name,
    }
    with runtime.database.reading() as session:
        page = views.resources(
            session,
            filters=filters,
            sees=principal.projects,
            cursor=cursor,
            limit=limit,
            keep=(lambda row: activity_of(runtime, row)[0] in activity) if activity else None,
        )
        return Listing(items=shown(session, runtime, page.items), next=page.next)


@router.get("/{resource_id}", responses=responses(404), summary="One resource")
def get_resource(runtime: TheRuntime, principal: Caller, resource_id: str) -> ResourceAnswer:
    with runtime.database.reading() as session:
        return shown(session, runtime, [_visible(session, principal, resource_id)])[0]


@router.get("/{resource_id}/explain", responses=responses(404), summary="Why it was stopped, or why not")
def explain_resource(runtime: TheRuntime, principal: Caller, resource_id: str) -> dict[str, Any]:
    """Every policy's verdict with the numbers it used, and what stands between the resource and an act."""
    from service.explain import explain

    with runtime.database.reading() as session:
        _visible(session, principal, resource_id)
    found = explain(runtime, resource_id, to=principal.projects)
    if found is None:
        raise not_found("resource", resource_id)
    return found


def _visible(session: Session, principal: Principal, resource_id: str) -> Resource:
    row = session.get(Resource, resource_id)
    if row is None or not principal.sees(row.project):
        raise not_found("resource", resource_id)
    return row


def shown(session: Session, runtime: Runtime, rows: list[Resource]) -> list[ResourceAnswer]:
    """Rows with what is derived on read."""
    now = runtime.clock.now()
    costs = views.costs_to_date(session, rows, now=now)
    seen = views.last_seen(session, rows)
    return [_answer(runtime, row, cost=costs.get(row.id), last_seen=seen[row.id], now=now) for row in rows]


def activity_of(runtime: Runtime, row: Resource) -> tuple[Activity, int | None]:
    """What the last cycle judged; unknown before the first one and for what no longer runs."""
    if runtime.view is None:
        return "unknown", None
    activity, idle_seconds = runtime.view.activity(row.id)
    return cast(Activity, activity), idle_seconds


def _answer(runtime: Runtime, row: Resource, *, cost: int | None, last_seen: datetime, now: datetime) -> ResourceAnswer:
    activity, idle_seconds = activity_of(runtime, row)
    protections = [entry for entry in row.protections if _stands(entry.get("until"), now)]
    return ResourceAnswer(
        **{name: getattr(row, name) for name in ResourceAnswer.model_fields if name in Resource.model_fields}
        | {"protections": [entry["sentence"] for entry in protections]},
        activity=activity,
        idle_seconds=idle_seconds,
        hourly_cost=money(row.rate_micros, row.currency),
        held=_held(row),
        cost_to_date=money(cost, row.currency),
        last_seen=last_seen,
        protected=bool(protections),
    )


def _held(row: Resource) -> Held | None:
    if row.lent_share is None:
        return None
    return Held(gpus=float(Fraction(row.lent_share) * row.gpu_count), hourly_cost=money(row.lent_micros, row.currency))


def _stands(until: str | None, now: datetime) -> bool:
    return until is None or datetime.fromisoformat(until) > now
