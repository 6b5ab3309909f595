"""Resources say when they were last written, in the order of writing.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("resource", sa.Column("revision", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_index("ix_resource_revision", "resource", ["revision"])


def downgrade() -> None:
    op.drop_index("ix_resource_revision", table_name="resource")
    op.drop_column("resource", "revision")
