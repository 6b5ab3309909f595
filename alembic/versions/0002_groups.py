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
    with op.batch_alter_table("resource") as batch_op:
        batch_op.add_column(sa.Column("members", sa.JSON(), nullable=False, server_default="[]"))
        batch_op.add_column(sa.Column("stopped_by", sa.String(), nullable=True))
    with op.batch_alter_table("resource") as batch_op:
        batch_op.alter_column("members", existing_type=sa.JSON(), existing_nullable=False, server_default=None)


def downgrade() -> None:
    with op.batch_alter_table("resource") as batch_op:
        batch_op.drop_column("stopped_by")
        batch_op.drop_column("members")
