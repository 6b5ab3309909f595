"""What a backstop was before it was changed, as its cloud may not have heard of the change.

Revision ID: 0010
Revises: 0009
"""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("resource", sa.Column("backstop_before_seconds", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("resource", "backstop_before_seconds")
