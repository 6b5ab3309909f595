"""A database of the first revision, with rows in every table, comes to the newest one without losing any."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from alembic import command
from service.store import audit, spend, totals
from service.store.database import Database, migrations_config
from service.store.tables import Finding, Resource, SQLModel

NOW = datetime(2026, 11, 16, 9, tzinfo=UTC)
HOUR = timedelta(hours=1)
WORDS: dict[str, Any] = {
    "kind": "instance", "state": "running", "status": "cleared", "currency": "USD", "provider": "aws",
    "capacity_type": "spot", "gpu_model": "H100", "activity": "idle", "project": "vision", "remedy": "stop",
    "rate_micros": 3_600_000, "running_rate_micros": 3_600_000, "base": 0, "resource_id": "trainer",
}  # fmt: skip


def a_row(table: sa.Table, number: int) -> dict[str, Any]:
    """Something in every column, and keys that differ."""
    return {column.name: _value(column, number) for column in table.columns if not _numbered(column)}


def _numbered(column: sa.Column[Any]) -> bool:
    return bool(column.primary_key) and isinstance(column.type, sa.Integer)


def _value(column: sa.Column[Any], number: int) -> Any:
    if column.table.name == "resource" and column.name == "id":
        return "trainer" if number == 0 else f"r{number}"
    if column.name in ("ended_at", "missing_since", "orphaned_at") and column.table.name == "resource":
        return None
    if column.name in WORDS and isinstance(WORDS[column.name], str) is isinstance(column.type, sa.String):
        return WORDS[column.name]
    match column.type:
        case sa.DateTime():
            return NOW + (HOUR if column.name in ("ended_at", "closed_at") else timedelta(0))
        case sa.JSON():
            return {"was": "here"}
        case sa.Boolean():
            return False
        case sa.Integer() | sa.Float():
            return number + 1
    return f"{column.name} {number}"


@pytest.fixture
def of_the_first_revision(database: Database) -> Database:
    command.downgrade(migrations_config(database.url), "base")
    command.upgrade(migrations_config(database.url), "0001")
    return database


def tables_of(database: Database) -> dict[str, sa.Table]:
    metadata = sa.MetaData()
    metadata.reflect(database.engine)
    return {name: table for name, table in metadata.tables.items() if name != "alembic_version"}


def contents(database: Database, tables: dict[str, sa.Table]) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table, as far as its columns were there at first."""
    with database.engine.connect() as connection:
        return {
            name: sorted((dict(row) for row in connection.execute(sa.select(*table.columns)).mappings()), key=repr)
            for name, table in tables.items()
        }


def test_no_row_is_lost_on_the_way_to_the_newest_revision(of_the_first_revision: Database) -> None:
    database = of_the_first_revision
    tables = tables_of(database)
    with database.engine.connect() as connection:
        for table in tables.values():
            for number in range(2):
                row = a_row(table, number)
                if table.name == "meter_interval" and number:
                    row |= {"ended_at": None, "started_at": NOW + HOUR, "base": 3600 * 3_600_000}
                connection.execute(table.insert().values(**row))
        connection.commit()
    before = contents(database, tables)
    assert all(len(rows) == 2 for rows in before.values())

    database.upgrade()

    after = contents(database, tables)
    for row in before["meter_interval"]:
        row["base"] //= 3600  # and the rest in a column of its own
    assert after == before
    command.check(migrations_config(database.url))
    with database.reading() as session:  # and what was written then is read now
        for model in SQLModel.__subclasses__():
            session.exec(sa.select(model)).all()  # type: ignore[call-overload]
        assert session.get_one(Resource, "trainer").members == []
        assert not session.get_one(Finding, "id 0").tallied
        cost, idle = totals.costs(session, NOW + 2 * HOUR)
        assert cost == idle == {("vision", "aws", "H100", "spot", "USD"): 2 * 3_600_000}
        [first] = spend.spent(session, {("vision", "m"): _month()}, NOW + 2 * HOUR).values()
        assert first.own == 2 * 3_600_000
    with pytest.raises(DBAPIError, match="append-only"), database.transaction() as session:
        session.execute(sa.text("DELETE FROM audit"))
    with database.transaction() as session:
        audit.record(session, at=NOW, actor="token:ci", verb="hold", object="hold/1")


def _month() -> Any:
    return spend.Window(start=NOW - 9 * HOUR, end=NOW + 600 * HOUR, currency="USD", zone=UTC)
