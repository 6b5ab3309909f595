"""`POST /policies/preview`: a policy document → what it would do right now. Nothing is stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import groupby
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from policies.decision import Verdict
from policies.policy import BasePolicy, Mode, Remedy
from service import apply
from service.api.auth import Caller, Principal, TheRuntime, require
from service.api.documents import documents_in
from service.api.problems import Problem, responses
from service.api.shapes import Cursor, Limit, Listing, Money, Shape, money
from service.api.writes import Body
from service.documents import nearest
from service.files import RawDocument
from service.pipeline.plan import Standing, verb_for
from service.pipeline.preview import Case, Preview, Then, preview
from service.runtime import Runtime
from service.store import documents as store
from service.store import findings
from service.store.views import BadCursor

router = APIRouter(tags=["policies"])

HOURS_PER_DAY = 24
MOST_REASONS = 50
MAX_BODY_BYTES = 256 * 1024
"""One policy and what it refers to. Any reader may ask, so it must be cheap to look through."""


class Counts(Shape):
    """How many resources, each counted once within its line."""

    in_scope: int
    breach: int
    foreseen: int
    """Will be in breach one grace from now."""
    unknown: int
    """Never acted on."""
    would_act: int
    """In breach or foreseen, and nothing forbids acting: what `enforce` would meet if every ceiling allowed it."""
    could_not: int
    """In breach or foreseen, and something forbids acting."""
    warned: int
    """Whose people would be warned and no more, under the policy's own mode and today's ceilings."""
    acted_on: int
    """That would be warned about and acted on, under the policy's own mode and today's ceilings."""


class Reason(Shape):
    """Why some could not be acted on."""

    reason: str
    count: int


class Total(Shape):
    """Money of one currency; currencies are never added up."""

    currency: str
    breach_per_hour: Money
    """What all in breach or foreseen cost."""
    would_act_per_hour: Money
    """What acting would save."""
    would_act_per_day: Money


class HourOfActs(Shape):
    """What the disruption budget lets happen in one hour after the grace, if all are warned at the same moment."""

    hour: int
    """1 is the first."""
    resources: int
    gpus: float
    per_hour: list[Money]
    """What that saves from then on, by currency."""


class PreviewedResource(Shape):
    """One resource in breach, foreseen to be, or of which it is not known."""

    id: str
    name: str
    source: str
    project: str | None
    kind: str
    region: str
    sku: str
    gpu_model: str | None
    gpu_count: int
    verdict: Verdict
    reason: str
    evidence: dict[str, Any]
    then: Then
    """What would happen under the policy's own mode and today's ceilings."""
    why: str
    """That in a sentence."""
    would_act: bool
    verb: str | None
    """What would be done; null for a policy that only notifies."""
    hour: int | None
    """The hour after the grace in which the disruption budget meets it; null: later than a day, or never."""
    saves_per_hour: Money | None
    """What a stop would save; null when its price is not known."""
    saves_per_day: Money | None
    losses: list[str]
    """What would be lost."""


class PreviewAnswer(Shape):
    """What a policy would do right now."""

    policy: str
    type: str
    mode: Mode
    action: Remedy
    ceiling: Mode
    """The installation's; a source may have a lower one."""
    judged_at: datetime
    """When the last cycle looked."""
    counts: Counts
    could_not: list[Reason]
    """The most frequent first, at most 50."""
    totals: list[Total]
    hours: list[HourOfActs]
    breaker: str | None
    """Why the first hour's acts would trip the circuit breaker; null when they would not."""
    notes: list[str]
    resources: Listing[PreviewedResource]
    """Breaches in the order in which they would be met, then the foreseen, then the unknown."""


_POLICY = {"$ref": "#/components/schemas/Policy", "required": ["name"]}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": _POLICY}, "application/yaml": {"schema": _POLICY}},
    }
}


@router.post(
    "/policies/preview",
    responses=responses(409, 413),
    openapi_extra=_BODY,
    summary="What a policy would do right now",
)
def post_preview(
    request: Request,
    runtime: TheRuntime,
    principal: Caller,
    body: Body,
    policy: Annotated[str | None, Query(max_length=100, description="which one, when the body holds several")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> PreviewAnswer:
    """Judged on what the last cycle saw, by the cycle's own code. Nothing is stored. The body is what `/apply` takes;
    its other documents are only there to be referred to: what they would change is left out."""
    _unconfined(principal)
    wanted, notes = _policy_in(runtime, request, body, policy)
    found = _previewed(runtime, wanted)
    return _answer(runtime, found, notes, cursor, limit)


def _unconfined(principal: Principal) -> None:
    require(principal, "read")
    if principal.projects is not None:
        raise Problem(403, "OtherProject", "a preview speaks of every project; this token is confined to some")


def _policy_in(runtime: Runtime, request: Request, body: bytes, name: str | None) -> tuple[BasePolicy, list[str]]:
    """The policy meant, valid like any that is applied; and what of its scope is not applied yet."""
    if len(body) > MAX_BODY_BYTES:
        raise Problem(413, "TooLarge", f"a preview takes at most {MAX_BODY_BYTES} bytes")
    raws, mistakes = documents_in(request, body)
    named = [RawDocument(file=raw.file, body={"kind": "policy", **raw.body}, places=raw.places) for raw in raws]
    # Checking a source looks up names in the network: that is for those who may apply one.
    parsed = apply.check(runtime.settings, [raw for raw in named if raw.body["kind"] != "source"], mistakes)
    with runtime.database.reading() as session:
        apply.check_names(session, parsed, [entry.document for entry in parsed])
        stored = store.names(session)
    documents = {entry.name: entry.document for entry in parsed if isinstance(entry.document, BasePolicy)}
    if not documents:
        raise Problem(422, "InvalidRequest", "there is no policy in the body")
    if name is None and len(documents) > 1:
        raise Problem(422, "InvalidRequest", f"a preview takes one policy, here are {len(documents)}; say ?policy=NAME")
    if name is not None and name not in documents:
        raise Problem(422, "InvalidRequest", f"there is no policy {name!r} in the body{nearest(name, documents)}")
    found = documents[name] if name is not None else next(iter(documents.values()))
    missing = [("project", found.scope.projects), ("source", found.scope.sources)]
    return found, [
        f"The {kind} {each!r} is not applied yet, so nothing belongs to it."
        for kind, names in missing
        for each in names
        if each not in stored[kind]
    ]


def _previewed(runtime: Runtime, policy: BasePolicy) -> Preview:
    view = runtime.view
    if view is None:
        raise Problem(409, "NoCycleYet", "a preview judges what the last cycle saw, and none has finished here yet")
    now = runtime.clock.now()
    with runtime.database.reading() as session:
        documents = store.load(session)
        standing = Standing(
            findings=findings.load_active(session),
            dismissed=findings.load_dismissed(session),
            acts=findings.recent_acts(session, now),
            holds=findings.active_holds(session, now),
        )
    return preview(
        policy,
        view.look,
        window=view.window,
        resources=view.resources,
        projects=documents.projects,
        exemptions=tuple(documents.exemptions.values()),
        standing=standing,
        limits=view.limits,
        now=now,
    )


def _answer(runtime: Runtime, found: Preview, notes: Sequence[str], cursor: str | None, limit: int) -> PreviewAnswer:
    policy, cases = found.policy, found.cases
    verdicts = Counter(case.verdict for case in cases)
    then = Counter(case.then for case in cases)
    concerned = [case for case in cases if case.verdict is not Verdict.UNKNOWN]
    acting = [case for case in concerned if case.would_act]
    reasons = found.could_not()
    return PreviewAnswer(
        policy=policy.name,
        type=str(getattr(policy, "type", "")),
        mode=policy.mode,
        action=policy.action,
        ceiling=runtime.ceiling,
        judged_at=found.judged.at,
        counts=Counts(
            in_scope=found.in_scope,
            breach=verdicts[Verdict.BREACH],
            foreseen=verdicts[Verdict.FORESEEN],
            unknown=verdicts[Verdict.UNKNOWN],
            would_act=len(acting),
            could_not=sum(count for _, count in reasons),
            warned=then[Then.WARNED],
            acted_on=then[Then.ACTED_ON],
        ),
        could_not=[Reason(reason=reason, count=count) for reason, count in reasons[:MOST_REASONS]],
        totals=_totals(concerned, acting),
        hours=_hours(acting),
        breaker=found.breaker,
        notes=[*notes, *found.notes],
        resources=_page(found, cursor, limit),
    )


def _rates(cases: Iterable[Case]) -> Counter[str]:
    """Currency → micro-units an hour."""
    rates: Counter[str] = Counter()
    for case in cases:
        if case.known.price is not None:
            rates[case.known.price.currency] += case.known.price.rate_micros
    return rates


def _totals(concerned: Sequence[Case], acting: Sequence[Case]) -> list[Total]:
    every, saved = _rates(concerned), _rates(acting)
    return [
        Total(
            currency=currency,
            breach_per_hour=Money(amount_micros=every[currency], currency=currency),
            would_act_per_hour=Money(amount_micros=saved[currency], currency=currency),
            would_act_per_day=Money(amount_micros=saved[currency] * HOURS_PER_DAY, currency=currency),
        )
        for currency in sorted(every)
    ]


def _hours(acting: Sequence[Case]) -> list[HourOfActs]:
    timed = sorted((case for case in acting if case.hour is not None), key=lambda case: case.hour or 0)
    found = []
    for hour, cases in groupby(timed, key=lambda case: case.hour or 0):
        wave = list(cases)
        rates = _rates(wave)
        found.append(
            HourOfActs(
                hour=hour,
                resources=len(wave),
                gpus=sum(case.known.record.gpu_count * case.known.record.gpu_share for case in wave),
                per_hour=[Money(amount_micros=rates[currency], currency=currency) for currency in sorted(rates)],
            )
        )
    return found


def _page(found: Preview, cursor: str | None, limit: int) -> Listing[PreviewedResource]:
    """A cursor is the id of the last resource of the page before, so that a cycle in between disturbs little."""
    first = 0
    if cursor is not None:
        places = {case.known.id: index for index, case in enumerate(found.cases)}
        if cursor not in places:
            raise BadCursor(cursor)
        first = places[cursor] + 1
    page = found.cases[first : first + limit]
    more = first + limit < len(found.cases)
    return Listing(items=[_shown(found, case) for case in page], next=page[-1].known.id if more else None)


def _shown(found: Preview, case: Case) -> PreviewedResource:
    known, record = case.known, case.known.record
    verb = verb_for(found.policy, record.ref.kind)
    decision = found.decision(case)
    rate, currency = (known.price.rate_micros, known.price.currency) if known.price else (None, None)
    return PreviewedResource(
        id=known.id,
        name=record.name,
        source=known.source,
        project=known.project,
        kind=record.ref.kind.value,
        region=record.ref.region,
        sku=record.sku,
        gpu_model=record.gpu_model,
        gpu_count=record.gpu_count,
        verdict=case.verdict,
        reason=decision.reason,
        evidence=dict(decision.evidence),
        then=case.then,
        why=case.why,
        would_act=case.would_act,
        verb=None if verb is None else verb.value,
        hour=case.hour,
        saves_per_hour=money(rate, currency),
        saves_per_day=money(None if rate is None else rate * HOURS_PER_DAY, currency),
        losses=[loss.sentence for loss in record.losses if loss.verb is verb],
    )
