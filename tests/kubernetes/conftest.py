"""The cluster of a test run: one for each worker, started when the first test asks for it."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import yaml

from tests.kubernetes.cluster import CRDS, Cluster, running_cluster

RUNNING = pytest.StashKey[Cluster]()


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config) -> Cluster:
    """With the custom kinds of `crds/`. Folders that import this fixture share the cluster: see `namespace`."""
    if RUNNING not in pytestconfig.stash:
        stack = ExitStack()
        pytestconfig.add_cleanup(stack.close)
        started = stack.enter_context(running_cluster())
        started.install(crd for file in sorted(CRDS.glob("*.yaml")) for crd in yaml.safe_load_all(file.read_text()))
        pytestconfig.stash[RUNNING] = started
    return pytestconfig.stash[RUNNING]


@pytest.fixture
def namespace(cluster: Cluster) -> str:
    """One of this test's own."""
    return cluster.namespace()
