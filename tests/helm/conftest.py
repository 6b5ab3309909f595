"""The cluster that takes the chart: the one of all tests."""

from __future__ import annotations

from tests.kubernetes.conftest import cluster

__all__ = ["cluster"]
