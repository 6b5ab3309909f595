"""Ended intervals that are in no sum yet are found without passing all open ones.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "meter_interval_to_sum",
        "meter_interval",
        ["ended_at"],
        sqlite_where=sa.text("summed = 0 AND ended_at IS NOT NULL"),
        postgresql_where=sa.text("NOT summed AND ended_at IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("meter_interval_to_sum", "meter_interval")
