"""A Google Cloud of one's own for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.providers.gcp.cloud import Cloud


@pytest.fixture(autouse=True)
def gcp_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine leads to credentials."""
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT", "CLOUDSDK_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", "/nonexistent")
    monkeypatch.setenv("NO_GCE_CHECK", "true")


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    """One empty project, `research`. What it was asked and what it answered must have been in Google's form."""
    with Cloud().serving() as cloud:
        yield cloud
    assert (cloud.misfits, cloud.bugs) == ([], [])
