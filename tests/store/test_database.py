"""The schema and what it refuses by itself, on both databases."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, OperationalError, StatementError
from sqlmodel import Session, select
from structlog.testing import capture_logs

from alembic import command
from service.store import audit
from service.store.database import Database, DatabaseGone, migrations_config, trouble_of
from service.store.tables import Action, Audit, Finding, Hold, Resource

NOW = datetime(2026, 11, 16, 9, tzinfo=UTC)


def test_migrations_and_tables_agree(database: Database) -> None:
    command.check(migrations_config(database.url))


def test_upgrading_twice_changes_nothing(database: Database) -> None:
    database.upgrade()

    command.check(migrations_config(database.url))


def test_migrations_lead_back_to_nothing(database: Database) -> None:
    command.downgrade(migrations_config(database.url), "base")

    with database.engine.connect() as connection:
        tables = connection.dialect.get_table_names(connection)
    assert tables == ["alembic_version"]


@pytest.mark.parametrize("statement", ["UPDATE audit SET actor = 'nobody'", "DELETE FROM audit"])
def test_the_audit_log_refuses_to_be_changed(database: Database, statement: str) -> None:
    with database.transaction() as session:
        audit.record(session, at=NOW, actor="token:ci", verb="hold", object="hold/1")

    with pytest.raises(DBAPIError, match="append-only"), database.transaction() as session:
        session.execute(text(statement))

    with database.reading() as session:
        assert [line.actor for line in session.exec(select(Audit))] == ["token:ci"]


def test_the_log_tells_of_what_was_kept_and_of_nothing_else(database: Database) -> None:
    def breaks(session: Session) -> None:
        audit.record(session, at=NOW, actor="curfew", verb="stop taken", object="resource/1")
        raise LookupError

    with capture_logs() as said:
        with database.transaction() as session:
            session.add(a_machine())
        with pytest.raises(LookupError), database.transaction() as session:
            breaks(session)
        with database.transaction() as session:
            audit.record(
                session, at=NOW, actor="curfew", verb="stop verified", object="resource/1", details={"policy": "idle"}
            )

    assert [line | {"at": NOW.isoformat()} for line in said] == [
        {
            "event": "stop verified", "log_level": "info", "at": NOW.isoformat(), "actor": "curfew", "reason": "",
            "object": "resource/1", "name": "trainer", "external_id": "i-1", "policy": "idle",
        }
    ]  # fmt: skip
    with database.reading() as session:
        assert [line.details["name"] for line in session.exec(select(Audit))] == ["trainer"]


def test_a_file_deleted_under_the_service_is_noticed(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'curfew.db'}")
    database.upgrade()
    database.check_writable()
    (tmp_path / "curfew.db").unlink()

    with pytest.raises(DatabaseGone, match="is gone or was replaced"), database.reading():
        pass
    (tmp_path / "curfew.db").touch()
    with pytest.raises(DatabaseGone), database.transaction():
        pass
    database.close()


@pytest.mark.parametrize(
    ("pragma", "trouble"), [("query_only=ON", "it is read-only"), ("max_page_count=1", "its disk is full")]
)
def test_a_database_that_takes_nothing_is_told_of_in_a_sentence(tmp_path: Path, pragma: str, trouble: str) -> None:
    database = Database(f"sqlite:///{tmp_path / 'curfew.db'}")
    database.upgrade()
    event.listen(database.engine, "connect", lambda connection, _: connection.execute(f"PRAGMA {pragma}"))

    with pytest.raises(OperationalError) as said, database.transaction() as session:
        session.execute(text("CREATE TABLE more (it INTEGER)"))

    assert trouble_of(said.value) == f"the database cannot be written: {trouble}"
    database.close()


def test_a_file_that_is_no_database_is_told_of_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "curfew.db").write_text("this is a letter to my aunt, not a database" * 100)
    database = Database(f"sqlite:///{tmp_path / 'curfew.db'}")

    with pytest.raises(DBAPIError) as said:
        database.upgrade()

    assert trouble_of(said.value) == "the database cannot be read: its file is not a database, or is damaged"
    database.close()


def a_machine() -> Resource:
    return Resource(
        id="1",
        source="research",
        provider="aws",
        account="1",
        region="us-east-1",
        kind="instance",
        external_id="i-1",
        incarnation="i-1",
        name="trainer",
        sku="p5.48xlarge",
        gpu_count=8,
        gpu_share=1.0,
        capacity_type="on_demand",
        state="running",
        state_since=NOW,
        first_seen=NOW,
    )


def test_a_naive_time_is_refused_on_its_way_in(database: Database) -> None:
    with pytest.raises(StatementError, match="naive"), database.transaction() as session:
        session.add(Hold(reason="x", created_by="y", created_at=datetime(2026, 1, 1)))  # noqa: DTZ001


def test_times_come_back_in_utc(database: Database) -> None:
    with database.transaction() as session:
        session.add(Hold(id="1", reason="x", created_by="y", created_at=NOW))

    with database.reading() as session:
        row = session.get(Hold, "1")
    assert row is not None
    assert row.created_at == NOW
    assert row.created_at.utcoffset() == NOW.utcoffset()


def test_a_resource_has_at_most_one_active_finding_of_a_policy(database: Database) -> None:
    def finding(closed: datetime | None) -> Finding:
        return Finding(
            policy="idle", policy_version=1, resource_id="r", status="open", status_reason="", reason="", remedy="stop",
            opened_at=NOW, closed_at=closed,
        )  # fmt: skip

    with database.transaction() as session:
        session.add_all([finding(NOW), finding(NOW), finding(None)])

    with pytest.raises(DBAPIError), database.transaction() as session:
        session.add(finding(None))


def test_an_action_has_at_most_one_undo_under_way(database: Database) -> None:
    def undo(status: str) -> Action:
        return Action(
            resource_id="r", source="s", verb="start", status=status, reason="", requested_by="x", lease_token=0,
            undoes="a1", intended_at=NOW, abandon_at=NOW,
        )  # fmt: skip

    with database.transaction() as session:
        session.add_all([undo("failed"), undo("abandoned"), undo("intended")])

    with pytest.raises(DBAPIError), database.transaction() as session:
        session.add(undo("taken"))


def test_an_exception_leaves_nothing_behind(database: Database) -> None:
    def half_a_write() -> None:
        with database.transaction() as session:
            session.add(Hold(id="1", reason="x", created_by="y", created_at=NOW))
            session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half_a_write()

    with database.reading() as session:
        assert session.get(Hold, "1") is None


def test_concurrent_writers_wait_for_each_other(database: Database) -> None:
    """Read, add one, write back: no update is lost, whoever comes first."""
    with database.transaction() as session:
        session.add(Hold(id="1", reason="0", created_by="y", created_at=NOW))

    def count() -> None:
        for _ in range(20):
            with database.transaction() as session:
                row = session.exec(select(Hold).where(Hold.id == "1").with_for_update()).one()
                row.reason = str(int(row.reason) + 1)
                session.add(row)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with database.reading() as session:
        row = session.get(Hold, "1")
    assert row is not None
    assert row.reason == "80"


def test_a_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "home" / "curfew.db"
    database = Database(f"sqlite:///{path}")
    with database.transaction() as session:
        session.connection().exec_driver_sql("CREATE TABLE made (id INTEGER)")
        modes = {file.name: oct(file.stat().st_mode & 0o777) for file in path.parent.iterdir()}
    database.close()
    assert modes == {"curfew.db": "0o600", "curfew.db-wal": "0o600", "curfew.db-shm": "0o600"}
    assert oct(path.parent.stat().st_mode & 0o777) == "0o700"
