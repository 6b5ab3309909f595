"""`/audit`: who did what, when and why, searched and exported. Append-only; there is nothing to write to here."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse, Response, StreamingResponse

from policies.quantities import parse_duration
from service.api.auth import Caller, TheRuntime
from service.api.problems import Problem, responses
from service.api.shapes import Cursor, Listing, Shape, Words
from service.runtime import Runtime
from service.store import audit
from service.store.audit import Confinement, Search
from service.store.tables import Audit
from service.store.views import BadCursor
from service.visible import visible

router = APIRouter(prefix="/audit", tags=["audit"])

Format = Literal["json", "ndjson", "csv"]
MEDIA: Mapping[str, Format] = {"application/json": "json", "application/x-ndjson": "ndjson", "text/csv": "csv"}
AT_ONCE = 1000
"""Lines of an export that are in memory at the same time."""
COLUMNS = ("id", "at", "actor", "verb", "object", "project", "reason", "details")
FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
"""What a spreadsheet takes for the beginning of a formula, full-width signs too."""
MOMENT = "a moment with its offset, a day in UTC like 2026-11-01, or a length like 7d: so long ago"


class AuditLine(Shape):
    """One thing that was done."""

    id: int
    at: datetime
    actor: str
    """`token:name`, `link:address`, or `curfew` for the service itself."""
    verb: str
    object: str
    """`kind/name` or `kind/id`"""
    project: str | None
    reason: str
    details: dict[str, Any]


_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/Listing_AuditLine_"}},
            "application/x-ndjson": {"schema": {"type": "string", "description": "one AuditLine on each line"}},
            "text/csv": {"schema": {"type": "string", "description": f"columns: {', '.join(COLUMNS)}"}},
        }
    },
    **responses(),
}


@router.get("", responses=_ANSWERS, response_model=Listing[AuditLine], summary="Search the audit log, newest first")
def list_audit(
    runtime: TheRuntime,
    principal: Caller,
    project: Words,
    actor: Words,
    verb: Words,
    object: Words,
    from_: Annotated[str | None, Query(alias="from", max_length=40, description=MOMENT)] = None,
    to: Annotated[str | None, Query(max_length=40, description=f"exclusive: {MOMENT}")] = None,
    text: Annotated[str, Query(max_length=200, description="somewhere in the line, in capitals or not")] = "",
    cursor: Cursor = None,
    limit: Annotated[int | None, Query(ge=1, le=500, description="of a page: how many at most (100)")] = None,
    format: Annotated[Format | None, Query(description="of the answer; `Accept` says it too")] = None,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """A page, or an export as NDJSON or CSV: all lines that match, streamed. An export that broke off goes on with
    `cursor=` and the `id` of its last line. In CSV a text that a spreadsheet would take for a formula begins with `'`.
    """
    now = runtime.clock.now()
    asked = Search(
        project=project,
        actor=actor,
        verb=verb,
        object=object,
        since=_moment("from", from_, now),
        until=_moment("to", to, now),
        text=text,
    )
    before, chosen = _number(cursor), format or _accepted(accept)
    if chosen != "json":
        if limit is not None:
            raise Problem(422, "InvalidRequest", "limit: an export is whole; a page of JSON has a limit")
        return _export(chosen, _parts(runtime, asked, principal.projects, before), now)
    size = limit or 100
    with runtime.database.reading() as session:
        rows = audit.search(session, asked, sees=principal.projects, before=before, limit=size + 1)
    page = Listing[AuditLine](
        items=[_line(row) for row in rows[:size]], next=str(rows[size - 1].id) if rows[size:] else None
    )
    return JSONResponse(page.model_dump(mode="json"))


def _line(row: Audit) -> AuditLine:
    return AuditLine(**{name: getattr(row, name) for name in AuditLine.model_fields})


def _moment(field: str, text: str | None, now: datetime) -> datetime | None:
    if text is None:
        return None
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            return datetime.fromisoformat(text).replace(tzinfo=UTC)
        if re.match(r"\d{4}-", text):
            found = datetime.fromisoformat(text.replace(" ", "+"))  # a + in an URL is a space
            if found.tzinfo is None or found.year in (1, 9999):
                raise ValueError(text)
            return found.astimezone(UTC)
        return now - parse_duration(text)
    except (ValueError, OverflowError):
        raise Problem(422, "InvalidRequest", f"{field}: {text!r} is not {MOMENT}") from None


def _number(cursor: str | None) -> int | None:
    """A cursor is the number of a line, so that an export can be taken up again."""
    if cursor is None:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", cursor):
        raise BadCursor(cursor)
    return int(cursor)


def _accepted(accept: str) -> Format:
    """The first that we can give; a weighing of preferences would be lost on so few."""
    for entry in accept.split(","):
        if (media := entry.partition(";")[0].strip().lower()) in MEDIA:
            return MEDIA[media]
    return "json"


# --- exporting -------------------------------------------------------------------------------------------------------


def _parts(runtime: Runtime, asked: Search, sees: Confinement, before: int | None) -> Iterator[Sequence[Audit]]:
    """All lines, some at a time. Each part is read in a transaction of its own: nothing changes but what is newer."""
    while True:
        with runtime.database.reading() as session:
            rows = audit.search(session, asked, sees=sees, before=before, limit=AT_ONCE)
        yield rows
        if len(rows) < AT_ONCE:
            return
        before = rows[-1].id


def _export(chosen: Format, parts: Iterator[Sequence[Audit]], now: datetime) -> StreamingResponse:
    write = {"csv": _csv, "ndjson": _ndjson}[chosen]
    first = next(parts)  # what is wrong with the database is said before the answer begins
    media = next(media for media, name in MEDIA.items() if name == chosen)
    return StreamingResponse(
        _texts(write, first, parts),
        media_type=f"{media}; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="curfew-audit-{now:%Y-%m-%d}.{chosen}"'},
    )


def _texts(
    write: Callable[[Iterable[Audit], bool], str], first: Sequence[Audit], parts: Iterator[Sequence[Audit]]
) -> Iterator[str]:
    yield write(first, True)
    for rows in parts:
        yield write(rows, False)


def _ndjson(rows: Iterable[Audit], _first: bool) -> str:
    return "".join(json.dumps(_line(row).model_dump(mode="json"), ensure_ascii=False) + "\n" for row in rows)


def _csv(rows: Iterable[Audit], first: bool) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    if first:
        writer.writerow(COLUMNS)
    for row in rows:
        details = json.dumps(jsonable_encoder(row.details), ensure_ascii=False) if row.details else ""
        given = (row.actor, row.verb, row.object, row.project or "", row.reason, details)
        writer.writerow([row.id, row.at.isoformat(), *(_harmless(cell) for cell in given)])
    return text.getvalue()


def _harmless(cell: str) -> str:
    """As text to every spreadsheet, on one line."""
    cell = visible(cell)
    return f"'{cell}" if FORMULA.match(cell) else cell
