"""Turns what API servers answer into records. Pure: no call is made here, and nothing is decided.

`slim` says what of an object is worth keeping, a `Cluster` is all that was kept, and `records` is what it comes to.
"""

from __future__ import annotations

from datetime import datetime

from providers.kubernetes.cluster import Cluster
from providers.kubernetes.nodes import nodes
from providers.kubernetes.slim import slim
from providers.kubernetes.workloads import workloads
from providers.records import ResourceRecord

__all__ = ["Cluster", "records", "slim"]


def records(cluster: Cluster, *, now: datetime) -> tuple[ResourceRecord, ...]:
    """Every GPU node, and every workload that holds GPUs, waits for some, or would have some if it ran."""
    return (*nodes(cluster, now=now), *workloads(cluster))
