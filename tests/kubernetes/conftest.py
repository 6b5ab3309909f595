"""The cluster of a test run: one for each worker, started when the first test asks for it."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.kubernetes.cluster import Cluster, running_cluster

RUNNING = pytest.StashKey[Cluster]()


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config) -> Cluster:
    """Folders that import this fixture share the cluster: see `namespace`."""
    if RUNNING not in pytestconfig.stash:
        stack = ExitStack()
        pytestconfig.add_cleanup(stack.close)
        pytestconfig.stash[RUNNING] = stack.enter_context(running_cluster())
    return pytestconfig.stash[RUNNING]


@pytest.fixture
def namespace(cluster: Cluster) -> str:
    """One of this test's own."""
    return cluster.namespace()
