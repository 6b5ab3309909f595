"""Machines that are off and billed, and runs that their cloud ends by itself.

Revision ID: 0009
Revises: 0008
"""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("resource", sa.Column("powered_off", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("resource", sa.Column("run_limit_seconds", sa.Integer(), nullable=True))
    op.add_column("resource", sa.Column("backstop_seconds", sa.Integer(), nullable=True))


def downgrade() -> None:
    for column in ("backstop_seconds", "run_limit_seconds", "powered_off"):
        op.drop_column("resource", column)
