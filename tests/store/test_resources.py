"""Resources that are remembered between cycles: only what was written since is read, whoever wrote it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, event
from sqlmodel import col, select

from providers.records import (
    Blocker,
    Kind,
    Loss,
    LossName,
    Price,
    Protection,
    ResourceRecord,
    ResourceRef,
    State,
    Verb,
)
from service.model import Known
from service.store import resources
from service.store.database import Database
from service.store.resources import Remembered
from service.store.tables import Resource

NOW = datetime(2026, 11, 16, 9, tzinfo=UTC)


def known(id: str, **more: Any) -> Known:
    """A machine with something in every column that is kept as JSON."""
    record = ResourceRecord(
        ref=ResourceRef(provider="aws", account="1", region="r", kind=Kind.INSTANCE, external_id=id),
        incarnation=id,
        name=f"name of {id}",
        zone=None,
        sku="p5",
        gpu_vendor="nvidia",
        gpu_model="H100",
        gpu_count=8,
        state=State.RUNNING,
        tags={"team": "ml"},
        members=("i-1",),
        protections=(Protection(source="tag", sentence="kept", until=NOW),),
        blockers=(Blocker(verb=Verb.STOP, code="No", sentence="no"),),
        losses=(Loss(verb=Verb.STOP, name=LossName.LOCAL_DISKS, sentence="disks"),),
    )
    price = Price(rate_micros=10, currency="USD", source="list")
    return replace(Known(id=id, source="research", record=record, first_seen=NOW, state_since=NOW, price=price), **more)


def written(database: Database, *found: Known) -> None:
    with database.transaction() as session:
        resources.save(session, found)


def read(database: Database, remembered: Remembered | None = None) -> Mapping[str, Known]:
    with database.reading() as session:
        return resources.load_known(session, remembered)


@contextmanager
def rows_read(database: Database) -> Iterator[list[str]]:
    """Ids of the rows that were made into objects meanwhile."""
    loaded: list[str] = []

    def note(row: Resource, _: Any) -> None:
        loaded.append(row.id)

    event.listen(Resource, "load", note)
    try:
        yield loaded
    finally:
        event.remove(Resource, "load", note)


def test_what_is_written_is_what_is_read(database: Database) -> None:
    plain = replace(known("b"), price=None, project="vision", missing_since=NOW)
    written(database, known("a"), plain)
    assert read(database) == {"a": known("a"), "b": plain}


def test_only_what_changed_is_read_again(database: Database) -> None:
    remembered = Remembered()
    written(database, *(known(id) for id in "abc"))
    before = read(database, remembered)
    with rows_read(database) as again:
        assert read(database, remembered) == before
    assert again == []
    written(database, known("b", owner="mai@example.org"))
    with rows_read(database) as again:
        assert read(database, remembered)["b"].owner == "mai@example.org"
    assert again == ["b"]


def test_another_database_is_read_in_full(database: Database) -> None:
    """An older state of it, put back from a copy, has lower revisions."""
    remembered = Remembered()
    written(database, known("a"))
    written(database, known("a", owner="mai@example.org"))
    read(database, remembered)
    with database.transaction() as session:
        session.connection().execute(delete(Resource))
        session.add(Resource(**resources._values(known("a"))))
    assert read(database, remembered) == {"a": known("a")}


steps = st.lists(
    st.tuples(
        st.sampled_from("abcd"), st.sampled_from(["changes", "ends", "comes back", "is removed", "is looked at"])
    ),
    max_size=12,
)


@settings(max_examples=20)
@given(steps)
def test_what_is_remembered_is_what_is_there(database: Database, happened: list[tuple[str, str]]) -> None:
    with database.transaction() as session:
        session.connection().execute(delete(Resource))
    remembered = Remembered()
    for number, (id, what) in enumerate(happened):
        if what == "is removed":
            with database.transaction() as session:
                gone = (col(Resource.id) == id, resources.may_be_removed())
                session.connection().execute(delete(Resource).where(*gone))
        elif what == "is looked at":
            assert read(database, remembered) == read(database)
        else:
            written(database, known(id, owner=str(number), ended_at=NOW if what == "ends" else None))
    assert read(database, remembered) == read(database)
    with database.reading() as session:
        assert set(read(database)) == {row.id for row in session.exec(select(Resource)) if row.ended_at is None}


def test_a_resource_written_as_one_line_of_text_reads_back_the_same() -> None:
    everything = known("i-1", started_at=NOW, ended_at=NOW, owner="ada@example.org", project="apollo")
    for one in (known("i-1"), everything):
        assert resources.from_json(resources.to_json(one)) == one


def test_a_line_from_before_a_column_was_there_reads_as_new_resources_have_it() -> None:
    text = resources.to_json(known("i-1")).replace('"powered_off":false,', "")
    assert "powered_off" not in text
    assert resources.from_json(text) == known("i-1")
