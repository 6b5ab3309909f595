"""Nodes and workloads of a cluster: where pods are, whose machine a node is, and what of a machine workloads hold.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("resource", sa.Column("placements", sa.JSON(), nullable=False, server_default="[]"))
    op.add_column("resource", sa.Column("machine", sa.String(), nullable=True))
    op.add_column("resource", sa.Column("remarks", sa.JSON(), nullable=False, server_default="[]"))
    op.add_column("resource", sa.Column("listed_in", sa.String(), nullable=True))
    op.add_column("resource", sa.Column("same_as", sa.String(), nullable=True))
    op.add_column("resource", sa.Column("lent_share", sa.String(), nullable=True))
    op.add_column("resource", sa.Column("lent_micros", sa.BigInteger(), nullable=True))
    op.create_index("ix_resource_same_as", "resource", ["same_as"])


def downgrade() -> None:
    op.drop_index("ix_resource_same_as", "resource")
    for name in ("lent_micros", "lent_share", "same_as", "listed_in", "remarks", "machine", "placements"):
        op.drop_column("resource", name)
