"""How far rollouts have come, and which acts people regretted.

Revision ID: 0012
Revises: 0011
"""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op
from service.store.tables import UtcDateTime

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("action", sa.Column("regretted_at", UtcDateTime(), nullable=True))
    op.add_column("action", sa.Column("regret_why", sa.String(), nullable=True))
    op.create_index("action_verified", "action", ["verified_at", "policy"])
    op.create_index(
        "action_regretted",
        "action",
        ["policy", "project", "regret_why"],
        sqlite_where=sa.text("regretted_at IS NOT NULL"),
        postgresql_where=sa.text("regretted_at IS NOT NULL"),
    )
    op.create_table(
        "rollout",
        sa.Column("policy", sa.String(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("share", sa.Float(), nullable=False),
        sa.Column("began_at", UtcDateTime(), nullable=False),
        sa.Column("since", UtcDateTime(), nullable=False),
        sa.Column("fallen_back_at", UtcDateTime(), nullable=True),
        sa.Column("reason", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("policy"),
    )


def downgrade() -> None:
    op.drop_table("rollout")
    op.drop_index("action_regretted", table_name="action")
    op.drop_index("action_verified", table_name="action")
    op.drop_column("action", "regret_why")
    op.drop_column("action", "regretted_at")
