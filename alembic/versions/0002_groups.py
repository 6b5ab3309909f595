"""Groups know their members, and machines who brought them down.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("resource", sa.Column("members", sa.JSON(), nullable=False, server_default="[]"))
    op.add_column("resource", sa.Column("stopped_by", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("resource", "stopped_by")
    op.drop_column("resource", "members")
