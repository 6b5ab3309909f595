"""The meter's cumulative integer in two columns: whole micro-units, and what is left of one.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("meter_interval", sa.Column("base_rest", sa.Integer(), nullable=False, server_default="0"))
    op.execute("UPDATE meter_interval SET base_rest = base % 3600, base = base / 3600")


def downgrade() -> None:
    op.execute("UPDATE meter_interval SET base = base * 3600 + base_rest")
    op.drop_column("meter_interval", "base_rest")
