"""Answers the API's lists: one page at a time by keyset, and what is derived on read. Nothing is written here."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, and_, or_, true
from sqlalchemy.orm import defer
from sqlmodel import Session, SQLModel, col, select
from sqlmodel.sql.expression import SelectOfScalar

from service.money import SECONDS_PER_HOUR
from service.store import ledger
from service.store.documents import Confinement
from service.store.tables import (
    Action,
    Backtest,
    Cycle,
    Document,
    Finding,
    Hold,
    Resource,
    SourceState,
    Token,
)

Row = TypeVar("Row", bound=SQLModel)

SCAN = 500
"""Rows looked at in one go when a filter cannot be asked of the database."""


class BadCursor(ValueError):
    """A cursor that no list gave."""


@dataclass(frozen=True, kw_only=True)
class Page(Generic[Row]):
    """Some rows, and where the next ones begin."""

    items: list[Row]
    next: str | None


# --- lists -----------------------------------------------------------------------------------------------------------


def resources(
    session: Session,
    *,
    filters: Mapping[str, Collection[str]],
    sees: Confinement,
    cursor: str | None,
    limit: int,
    keep: Callable[[Resource], bool] | None = None,
) -> Page[Resource]:
    """In a stable order, each machine once. `keep` is a filter the database cannot answer, such as activity."""
    statement = _filtered(select(Resource), Resource, filters, sees).where(col(Resource.same_as).is_(None))
    if keep is None:
        return _page(session, statement, [(Resource.id, str)], cursor=cursor, limit=limit)
    kept: list[Resource] = []
    while True:
        page = _page(session, statement, [(Resource.id, str)], cursor=cursor, limit=SCAN)
        for index, row in enumerate(page.items):
            if keep(row):
                kept.append(row)
            if len(kept) == limit:
                more = page.next is not None or index + 1 < len(page.items)
                return Page(items=kept, next=_cursor([row.id]) if more else None)
        if page.next is None:
            return Page(items=kept, next=None)
        cursor = page.next


def findings(
    session: Session, *, filters: Mapping[str, Collection[str]], sees: Confinement, cursor: str | None, limit: int
) -> Page[Finding]:
    """Newest first."""
    statement = _filtered(select(Finding), Finding, filters, sees)
    return _page(
        session,
        statement,
        [(Finding.opened_at, datetime), (Finding.id, str)],
        cursor=cursor,
        limit=limit,
        newest_first=True,
    )


def actions(
    session: Session, *, filters: Mapping[str, Collection[str]], sees: Confinement, cursor: str | None, limit: int
) -> Page[Action]:
    """Newest first."""
    statement = _filtered(select(Action), Action, filters, sees)
    return _page(
        session,
        statement,
        [(Action.intended_at, datetime), (Action.id, str)],
        cursor=cursor,
        limit=limit,
        newest_first=True,
    )


def cycles(session: Session, *, cursor: str | None, limit: int) -> Page[Cycle]:
    """Newest first."""
    return _page(
        session,
        select(Cycle),
        [(Cycle.started_at, datetime), (Cycle.id, str)],
        cursor=cursor,
        limit=limit,
        newest_first=True,
    )


def backtests(
    session: Session, *, filters: Mapping[str, Collection[str]], sees: Confinement, cursor: str | None, limit: int
) -> Page[Backtest]:
    """Newest first, without their reports."""
    statement = _filtered(select(Backtest), Backtest, filters, sees).options(
        defer(Backtest.report, raiseload=True)  # type: ignore[arg-type]  # SQLModel types columns as their values
    )
    return _page(
        session,
        statement,
        [(Backtest.asked_at, datetime), (Backtest.id, str)],
        cursor=cursor,
        limit=limit,
        newest_first=True,
    )


def documents(
    session: Session, kind: str, *, among: Collection[str] | None, cursor: str | None, limit: int
) -> Page[Document]:
    """By name; only those named, unless None."""
    statement = select(Document).where(Document.kind == kind)
    if among is not None:
        statement = statement.where(col(Document.name).in_(among))
    return _page(session, statement, [(Document.name, str)], cursor=cursor, limit=limit)


def tokens(session: Session, *, cursor: str | None, limit: int) -> Page[Token]:
    """By name."""
    return _page(session, select(Token), [(Token.name, str)], cursor=cursor, limit=limit)


def holds(session: Session, *, now: datetime) -> Sequence[Hold]:
    """Those in force, oldest first."""
    in_force = or_(col(Hold.until).is_(None), col(Hold.until) > now)
    statement = select(Hold).where(col(Hold.lifted_at).is_(None), in_force)
    return session.exec(statement.order_by(col(Hold.created_at), col(Hold.id))).all()


def last_cycle(session: Session) -> Cycle | None:
    """The newest that came to its end."""
    finished = select(Cycle).where(col(Cycle.finished_at).is_not(None))
    return session.exec(finished.order_by(col(Cycle.finished_at).desc()).limit(1)).first()


# --- derived on read -------------------------------------------------------------------------------------------------


def costs_to_date(session: Session, rows: Sequence[Resource], *, now: datetime) -> dict[str, int]:
    """Resource → micro-units since it was first seen or since its price changed its currency; absent when nothing was
    metered. Its last interval knows, however many there were before.
    """
    last = ledger.latest_of(session, [row.id for row in rows])
    return {
        row.id: last[row.id].reached(row.missing_since or now) // SECONDS_PER_HOUR
        for row in rows
        if row.id in last and last[row.id].currency == row.currency
    }


def resource_names(session: Session, ids: Collection[str], sees: Confinement) -> dict[str, str]:
    """Id → the name people know it by. What has moved to a project the reader does not see is not in it."""
    rows = session.exec(select(Resource.id, Resource.name, Resource.project).where(col(Resource.id).in_(ids)))
    return {id: name for id, name, project in rows if sees is None or project in sees}


def last_seen(session: Session, rows: Sequence[Resource]) -> dict[str, datetime]:
    """Resource → when its cloud last spoke of it."""
    sources = {row.source for row in rows}
    states = session.exec(select(SourceState).where(col(SourceState.source).in_(sources))).all()
    by_source = {state.source: (state, {p["part"] for p in state.parts if p["complete"]}) for state in states}
    found = {}
    for row in rows:
        at = row.missing_since or row.ended_at or row.orphaned_at
        if at is None and row.source in by_source:
            state, told = by_source[row.source]
            of_its_part = state.fault is None and not told.isdisjoint({row.region, f"{row.account}/{row.region}"})
            at = state.attempted_at if of_its_part else state.succeeded_at
        found[row.id] = max(at or row.first_seen, row.first_seen)
    return found


# --- keyset pages ----------------------------------------------------------------------------------------------------


def _filtered(
    statement: SelectOfScalar[Row], table: type[Row], filters: Mapping[str, Collection[str]], sees: Confinement
) -> SelectOfScalar[Row]:
    for column, values in filters.items():
        if values:
            statement = statement.where(getattr(table, column).in_(values))
    if sees is not None:
        statement = statement.where(getattr(table, "project").in_(sees))  # noqa: B009 - every table given here has one
    return statement


def _page(
    session: Session,
    statement: SelectOfScalar[Row],
    keys: Sequence[tuple[Any, type]],
    *,
    cursor: str | None,
    limit: int,
    newest_first: bool = False,
) -> Page[Row]:
    """The rows after the cursor, in the order of these columns, which together are unique."""
    columns: list[Any] = [col(column) for column, _ in keys]
    if cursor is not None:
        values = _read(cursor, [type for _, type in keys])
        statement = statement.where(_beyond(columns, values, newest_first=newest_first))
    order = [column.desc() if newest_first else column.asc() for column in columns]
    rows = list(session.exec(statement.order_by(*order).limit(limit + 1)).all())
    if len(rows) <= limit:
        return Page(items=rows, next=None)
    last = rows[limit - 1]
    return Page(items=rows[:limit], next=_cursor([getattr(last, column.key) for column in columns]))


def _beyond(columns: Sequence[Any], values: Sequence[Any], *, newest_first: bool) -> ColumnElement[bool]:
    """Strictly after these values in the order of the list."""
    beyond: list[ColumnElement[bool]] = []
    equal: ColumnElement[bool] = true()
    for column, value in zip(columns, values, strict=True):
        beyond.append(and_(equal, column < value if newest_first else column > value))
        equal = and_(equal, column == value)
    return or_(*beyond)


def _cursor(values: Sequence[Any]) -> str:
    plain = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    return base64.urlsafe_b64encode(json.dumps(plain).encode()).decode().rstrip("=")


def _read(cursor: str, types: Sequence[type]) -> list[Any]:
    try:
        plain = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        return [_value(value, wanted) for value, wanted in zip(plain, types, strict=True)]
    except (ValueError, TypeError, RecursionError):
        raise BadCursor(cursor) from None


def _value(value: Any, wanted: type) -> Any:
    """As the database may be asked; whoever makes up a cursor gets a ValueError."""
    if wanted is datetime:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None or moment.year in (1, 9999):
            raise ValueError(value)
        return moment
    sound = isinstance(value, wanted) and not isinstance(value, bool)
    if not sound or (isinstance(value, int) and not 0 <= value < 2**63):
        raise ValueError(value)
    if isinstance(value, str) and not value.isprintable():
        raise ValueError(value)
    return value
