"""Sums of what has ended, so that nothing is read for ever; a way for the audit log to grow old.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op
from service.store.tables import UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table, column in FLAGS:
        op.add_column(table, sa.Column(column, sa.Boolean(), nullable=False, server_default=sa.false()))
    for name, table, columns, flag in INDEXES:
        where = {"sqlite_where": sa.text(f"{flag} = 0"), "postgresql_where": sa.text(f"NOT {flag}")} if flag else {}
        op.create_index(name, table, columns, unique=False, **where)
    op.create_table(
        "meter_sum",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=False),
        sa.Column("ended_at", UtcDateTime(), nullable=False),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("gpu_model", sa.String(), nullable=False),
        sa.Column("capacity_type", sa.String(), nullable=False),
        sa.Column("activity", sa.String(), nullable=False),
        sa.Column("assumed", sa.Boolean(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("micros", sa.BigInteger(), nullable=False),
        sa.Column("rolled_up_micros", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("meter_sum_key", "meter_sum", SUM_KEY, unique=True)
    op.create_table(
        "tally",
        sa.Column("family", sa.String(), nullable=False),
        sa.Column("labels", sa.String(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("family", "labels"),
    )
    op.create_table(
        "audit_horizon",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("until", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    _audit_may_grow_old()


FLAGS = [("meter_interval", "summed"), ("finding", "tallied"), ("action", "tallied")]
INDEXES = [
    ("meter_interval_unsummed", "meter_interval", ["project", "ended_at"], "summed"),
    ("finding_status", "finding", ["status", "quiet_until"], None),
    ("finding_untallied", "finding", ["policy"], "tallied"),
    ("action_status", "action", ["status", "resumed_at", "policy", "verb"], None),
    ("action_untallied", "action", ["verified_at"], "tallied"),
    ("outbox_counted", "outbox", ["channel_kind", "status"], None),
    ("outbox_created", "outbox", ["created_at"], None),
]
SUM_KEY = [
    "project",
    "started_at",
    "ended_at",
    "provider",
    "gpu_model",
    "capacity_type",
    "activity",
    "assumed",
    "currency",
]


def _audit_may_grow_old() -> None:
    """The database refuses as before, but for lines from before the horizon."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER audit_no_delete")
        op.execute(
            "CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit "
            "WHEN NOT EXISTS (SELECT 1 FROM audit_horizon WHERE OLD.at < until) "
            "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
        )
        return
    op.execute("DROP TRIGGER audit_append_only ON audit")
    op.execute(
        "CREATE TRIGGER audit_append_only BEFORE UPDATE OR TRUNCATE ON audit "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only()"
    )
    op.execute(
        "CREATE FUNCTION audit_keeps_its_young() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF EXISTS (SELECT 1 FROM audit_horizon WHERE OLD.at < until) THEN RETURN OLD; END IF; "
        "RAISE EXCEPTION 'the audit log is append-only'; END $$"
    )
    op.execute(
        "CREATE TRIGGER audit_keeps_its_young BEFORE DELETE ON audit "
        "FOR EACH ROW EXECUTE FUNCTION audit_keeps_its_young()"
    )


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER audit_no_delete")
        op.execute(
            "CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit "
            "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
        )
    else:
        op.execute("DROP TRIGGER audit_keeps_its_young ON audit")
        op.execute("DROP FUNCTION audit_keeps_its_young")
        op.execute("DROP TRIGGER audit_append_only ON audit")
        op.execute(
            "CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
            "FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only()"
        )
    for table in ("audit_horizon", "tally", "meter_sum"):
        op.drop_table(table)
    for name, table, _, _ in reversed(INDEXES):
        op.drop_index(name, table_name=table)
    for table, column in reversed(FLAGS):
        op.drop_column(table, column)
