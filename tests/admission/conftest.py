"""The cluster that other folders stand on too."""

from __future__ import annotations

from tests.kubernetes.conftest import cluster, namespace

__all__ = ["cluster", "namespace"]
