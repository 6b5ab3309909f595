"""An Azure of one's own for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.providers.azure.cloud import OTHER, SUBSCRIPTION, Cloud


@pytest.fixture(autouse=True)
def azure_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine leads to credentials."""
    for name in (
        "AZURE_AUTHORITY_HOST", "AZURE_CLIENT_CERTIFICATE_PATH", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET",
        "AZURE_CONFIG_DIR", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_POD_IDENTITY_AUTHORITY_HOST", "AZURE_TENANT_ID",
        "AZURE_TOKEN_CREDENTIALS", "AZURE_USERNAME", "IDENTITY_ENDPOINT", "IDENTITY_HEADER", "IMDS_ENDPOINT",
        "MSI_ENDPOINT", "MSI_SECRET",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_CONFIG_DIR", "/nonexistent")


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    """Two empty subscriptions. What the cloud answered must have been in the form that Azure's SDK knows."""
    with Cloud((SUBSCRIPTION, OTHER)).serving() as cloud:
        yield cloud
    assert cloud.bugs == []
