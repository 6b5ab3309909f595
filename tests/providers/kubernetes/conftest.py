"""A cluster that fails on request, and clients that may reach it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from providers.kubernetes import Config
from providers.kubernetes.client import Client
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.conftest import cluster, namespace
from tests.providers.kubernetes.front import Front

__all__ = ["cluster", "namespace"]


@pytest.fixture(autouse=True)
def kubernetes_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine leads to another cluster."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def front() -> Iterator[Front]:
    """A server that answers what a test tells it to."""
    with Front().serving() as front:
        yield front


@pytest.fixture
def cluster_front(cluster: Cluster) -> Iterator[Front]:
    """The cluster, behind something that can fail."""
    with Front(cluster).serving() as front:
        yield front


@pytest.fixture
def client_of(tmp_path: Path) -> Callable[[Front], Client]:
    return lambda front: Client(Config(kubeconfig=str(front.kubeconfig(tmp_path))))
