"""`POST /policies/backtest` and `/backtests`: what a policy would have done to the past. It is worked out in
`service.backtests`; whoever asked looks again until it is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse
from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from sqlmodel import Session

from policies.policy import BasePolicy
from policies.quantities import format_duration, format_share, parse_share
from service import apply
from service.api.auth import Caller, Principal, TheRuntime, require
from service.api.problems import Problem, not_found, responses
from service.api.shapes import Cursor, Length, Limit, Listing, Shape, Words
from service.api.writes import Done, TheWrite
from service.backtest.answer import check_stretch, moment_of
from service.backtest.question import Question, usual_sweep
from service.documents import nearest, written
from service.files import RawDocument
from service.gate import gate_of
from service.model import FALSE_STOP_WITHIN
from service.runtime import Runtime
from service.store import backtests
from service.store import documents as store
from service.store.backtests import BacktestStatus
from service.store.tables import Backtest

router = APIRouter(tags=["policies"])

MAX_POLICY_CHARACTERS = 256 * 1024
"""One policy. Any reader may ask, so it must be cheap to look through."""
LONGEST_HORIZON = timedelta(days=30)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a text")
    return value


Moment = Annotated[
    datetime,
    BeforeValidator(lambda value: moment_of(_text(value))),
    Field(json_schema_extra={"type": "string", "format": "", "examples": ["2026-11-01", "2026-11-01T08:00:00+07:00"]}),
]
"""A date is its midnight in UTC."""
Ceiling = Annotated[
    float,
    BeforeValidator(lambda value: parse_share(_text(value))),
    Field(json_schema_extra={"type": "string", "examples": ["1%"]}),
]


class BacktestRequest(Shape):
    """One policy, by itself or by its name, and a stretch of the past."""

    model_config = ConfigDict(extra="forbid")

    policy: dict[str, Any] | None = Field(
        None, examples=[{"name": "idle-gpus", "type": "idle", "idle": {"for": "45m"}}]
    )
    """A policy as `PUT /policies/…` takes it, with its name."""
    name: str | None = Field(None, max_length=100)
    """Instead: of one that is applied."""
    from_: Moment | None = Field(None, alias="from")
    """Nothing is stopped before; left out: from the beginning of the history."""
    to: Moment | None = None
    """Nothing is known after; left out: to its end."""
    project: str | None = Field(None, max_length=100)
    """Only what belonged to it. Whoever is confined to projects names one of theirs."""
    false_stop_within: Length = FALSE_STOP_WITHIN
    """A stop is false when work is seen so soon after it."""
    max_false_stops: Ceiling = 0.01
    """The share of false stops that would be borne; the sweep recommends below it."""
    sweep: bool = Field(True, strict=True)
    """Try other terms too; for idle policies."""

    @model_validator(mode="after")
    def _makes_sense(self) -> BacktestRequest:
        if (self.policy is None) == (self.name is None):
            raise ValueError("give a `policy`, or the `name` of one that is applied")
        check_stretch(self.from_, self.to)
        if self.false_stop_within > LONGEST_HORIZON:
            raise ValueError(f"false_stop_within: at most {format_duration(LONGEST_HORIZON)}")
        return self


class BacktestRequested(Shape):
    """Where to look for what comes of it."""

    id: str
    status: BacktestStatus
    href: str


class BacktestProgress(Shape):
    """How far it is."""

    share: float
    """0 to 1."""
    words: str


class BacktestLine(Shape):
    """One back-test without its report."""

    id: str
    href: str
    status: BacktestStatus
    progress: BacktestProgress
    policy: str
    project: str | None
    """It looked at what belonged to it only; null: at everything."""
    asked_by: str
    asked_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error: str | None
    """Why it failed."""
    data_from: datetime | None
    data_to: datetime | None
    """The stretch of the past of which something was known."""
    stops: int | None
    decided: int | None
    false_stops: int | None


class BacktestAnswer(BacktestLine):
    """One back-test."""

    question: dict[str, Any]
    """What else was asked."""
    report: dict[str, Any] | None
    """Null until it is done: `totals`, `stops`, `savings`, `warnings`, `false_stops_by_horizon`, `sweep`, `unknown`,
    `limits`; docs/backtest.md says what each number means."""


@router.post(
    "/policies/backtest",
    status_code=202,
    responses=responses(404, 409, 413),
    response_model=BacktestRequested,
    summary="What a policy would have done to the past",
)
def post_backtest(write: TheWrite, asked: BacktestRequest) -> JSONResponse:
    """Judged by the live code on the history that this service has. Back-tests are worked out one after the other, by
    whoever was asked; look at `href` for how far it is. 429 when too many wait."""
    runtime = write.runtime
    policy = _policy_of(runtime, write.principal, asked)
    question = question_of(runtime, policy, asked)
    made: list[str] = []

    def work(session: Session) -> Done:
        row = store_asked(session, runtime, policy, asked, by=write.principal.actor)
        made.append(row.id)
        return Done(body=BacktestRequested(id=row.id, status=BacktestStatus(row.status), href=_href(row)), status=202)

    answer = write.once(work)
    for id in made:
        runtime.backtests.add(id, question)
    return answer


@router.get("/backtests", responses=responses(), summary="List back-tests, newest first")
def list_backtests(
    runtime: TheRuntime,
    principal: Caller,
    policy: Words,
    project: Words,
    status: Annotated[list[BacktestStatus], Query(default_factory=list)],
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Listing[BacktestLine]:
    """Without their reports. Whoever is confined to projects sees those that looked at one of theirs only."""
    filters = {"policy": policy, "project": project, "status": [one.value for one in status]}
    filters = {name: values for name, values in filters.items() if values}
    with runtime.database.reading() as session:
        page = backtests.listed(session, filters=filters, sees=principal.projects, cursor=cursor, limit=limit)
        return Listing(items=[BacktestLine(**_line(row)) for row in page.items], next=page.next)


@router.get("/backtests/{backtest_id}", responses=responses(404), summary="One back-test")
def get_backtest(runtime: TheRuntime, principal: Caller, backtest_id: str) -> BacktestAnswer:
    with runtime.database.reading() as session:
        row = backtests.find(session, backtest_id)
        if row is None or not principal.sees(row.project):
            raise not_found("back-test", backtest_id)
        return BacktestAnswer(**_line(row), question=row.question, report=row.report)


# --- asking, for the API and the pages -------------------------------------------------------------------------------


def ask(runtime: Runtime, principal: Principal, asked: BacktestRequest) -> str:
    """Its id. Raises Problem."""
    policy = _policy_of(runtime, principal, asked)
    question = question_of(runtime, policy, asked)
    with runtime.database.transaction() as session:
        row = store_asked(session, runtime, policy, asked, by=principal.actor)
    runtime.backtests.add(row.id, question)
    return row.id


def _policy_of(runtime: Runtime, principal: Principal, asked: BacktestRequest) -> BasePolicy:
    """The policy meant, if its asker may try it on that much of the past."""
    if principal.projects is not None and asked.project is None:
        theirs = ", ".join(sorted(principal.projects)) or "no project"
        raise Problem(403, "OtherProject", f"this token is confined to {theirs}; say of which `project`")
    require(principal, "read", asked.project)
    if not runtime.backtests.location:
        raise Problem(
            409, "NoHistory", "this service keeps no history to try a policy on; CURFEW_HISTORY says where it may"
        )
    policy = _applied(runtime, principal, asked.name) if asked.name is not None else _given(runtime, principal, asked)
    with runtime.database.reading() as session:
        projects = store.names(session)["project"]
    if asked.project is not None and asked.project not in projects and principal.sees_all:
        raise Problem(422, "InvalidRequest", f"there is no project {asked.project!r}{nearest(asked.project, projects)}")
    return policy


def _applied(runtime: Runtime, principal: Principal, name: str) -> BasePolicy:
    with runtime.database.reading() as session:
        seen = store.names_seen(session, "policy", principal.projects)
        found = store.load(session).policies
    if name not in found or (seen is not None and name not in seen):
        raise not_found("policy", name)
    return found[name]


def _given(runtime: Runtime, principal: Principal, asked: BacktestRequest) -> BasePolicy:
    body: Mapping[str, Any] = {"kind": "policy", **(asked.policy or {})}
    if len(str(body)) > MAX_POLICY_CHARACTERS:
        raise Problem(413, "TooLarge", f"a policy has at most {MAX_POLICY_CHARACTERS} characters")
    if body["kind"] != "policy":
        raise Problem(422, "InvalidRequest", f"policy: this is a {body['kind']}")
    parsed = apply.check(runtime.settings, [RawDocument(file="policy", body=body)])
    policy = parsed[0].document
    assert isinstance(policy, BasePolicy)  # its kind says so
    if principal.sees_all:
        with runtime.database.reading() as session:
            apply.check_names(session, parsed, [policy])
    elif policy.scope.sources or not all(principal.sees(name) for name in policy.scope.projects):
        # Whether there is such a source or project is not theirs to know.
        raise Problem(403, "OtherProject", "the policy's scope names sources, or projects that this token does not see")
    return policy


def question_of(runtime: Runtime, policy: BasePolicy, asked: BacktestRequest) -> Question:
    """What is asked of the past. A policy for many projects says nothing of the others where one is asked for."""
    with runtime.database.reading() as session:
        projects = store.load(session).projects
    if asked.project is not None and asked.project in policy.scope.projects:
        alone = policy.scope.model_copy(update={"projects": (asked.project,)})
        policy = policy.model_copy(update={"scope": alone})
    return Question(
        policy=policy,
        start=asked.from_,
        end=asked.to,
        project=asked.project,
        horizon=asked.false_stop_within,
        step=gate_of(runtime).step,
        max_false_stops=asked.max_false_stops,
        sweep=usual_sweep(policy) if asked.sweep else None,
        projects=projects,
        prices=runtime.prices,
    )


def store_asked(session: Session, runtime: Runtime, policy: BasePolicy, asked: BacktestRequest, *, by: str) -> Backtest:
    """Its row. Raises Problem when too many wait."""
    if runtime.backtests.full:
        raise Problem(429, "TooManyBacktests", "many back-tests wait already; ask again when some are done",
                      headers={"Retry-After": "60"})  # fmt: skip
    return backtests.create(
        session,
        policy=policy,
        body=written(policy),  # type: ignore[arg-type]  # every policy is a document
        question={
            "from": asked.from_.isoformat() if asked.from_ else None,
            "to": asked.to.isoformat() if asked.to else None,
            "false_stop_within": format_duration(asked.false_stop_within),
            "max_false_stops": format_share(asked.max_false_stops),
            "sweep": asked.sweep,
        },
        project=asked.project,
        horizon=asked.false_stop_within,
        step=gate_of(runtime).step,
        asked_by=by,
        holder=runtime.holder,
        now=runtime.clock.now(),
    )


def _href(row: Backtest) -> str:
    return f"/api/v1/backtests/{row.id}"


def _line(row: Backtest) -> dict[str, Any]:
    same = {name: getattr(row, name) for name in BacktestLine.model_fields if name not in ("href", "progress")}
    progress = BacktestProgress(share=row.progress_share, words=row.progress_words)
    return {**same, "href": _href(row), "progress": progress}
