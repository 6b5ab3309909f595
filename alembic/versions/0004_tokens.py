"""A token says when it was last used and rotated; its former texts work on for a while.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("token", sa.Column("rotated_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("token", sa.Column("last_used_on", sa.Date(), nullable=True))
    op.create_table(
        "former_token_text",
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("sha256"),
    )
    op.create_index("ix_former_token_text_name", "former_token_text", ["name"])


def downgrade() -> None:
    op.drop_index("ix_former_token_text_name", "former_token_text")
    op.drop_table("former_token_text")
    op.drop_column("token", "last_used_on")
    op.drop_column("token", "rotated_at")
