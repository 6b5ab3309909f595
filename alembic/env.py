"""Runs migrations against the URL that Curfew was given."""

from alembic import context
from service.settings import Settings
from service.store import tables
from service.store.database import Database

metadata = tables.SQLModel.metadata


def _plain_types(kind: str, item: object, autogen_context: object) -> str | bool:
    """Write our and SQLModel's types as what they are in a migration."""
    if kind == "type" and isinstance(item, tables.UtcDateTime):
        return "UtcDateTime()"
    if kind == "type" and type(item).__name__ == "AutoString":
        return "sa.String()"
    return False


def run() -> None:
    url = context.config.attributes.get("url") or Settings().resolved_database_url
    database = Database(url)
    with database.engine.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=metadata,
            render_as_batch=connection.dialect.name == "sqlite",
            compare_type=True,
            render_item=_plain_types,
        )
        with context.begin_transaction():
            context.run_migrations()
    database.close()


run()
