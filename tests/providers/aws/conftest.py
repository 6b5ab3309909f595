"""A moto server per test process, emptied for every test, and a proxy before it that can fail."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import SimpleNamespace

import botocore.loaders
import pytest

from providers.aws import Config, build
from providers.contract import BuildContext, Provider
from tests.providers.aws.fleet import ENVIRONMENT, ENVIRONMENT_TO_CLEAR, REGION, moto_endpoint, reset
from tests.providers.aws.front import Front

Build = Callable[..., Provider]


@pytest.fixture(autouse=True)
def aws_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that open nothing, whatever the machine has."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    for name in ENVIRONMENT_TO_CLEAR:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the SDK would have waited before each of its retries; none is waited for."""
    waited: list[float] = []
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=waited.append))
    monkeypatch.setattr("providers.pace.time", SimpleNamespace(sleep=lambda _: None, monotonic=time.monotonic))
    return waited


@pytest.fixture(scope="session", autouse=True)
def api_models() -> Iterator[None]:
    """Every provider built here reads AWS's API descriptions anew, which takes longer than most tests; read once."""
    loader = botocore.loaders.create_loader()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.loaders.create_loader", lambda search_path_string=None: loader)
        yield


@pytest.fixture(scope="session")
def moto_server() -> Iterator[str]:
    with moto_endpoint() as endpoint:
        yield endpoint


@pytest.fixture
def moto(moto_server: str) -> str:
    """The address of an empty AWS account."""
    reset(moto_server)
    return moto_server


@pytest.fixture
def front(moto: str) -> Iterator[Front]:
    with Front(moto).serving() as front:
        yield front


@pytest.fixture(scope="module")
def shared_front(moto_server: str) -> Iterator[Front]:
    """One for all tests of a module, as every new address needs new clients, which take longer than most tests."""
    with Front(moto_server).serving() as front:
        yield front


@pytest.fixture
def aws(front: Front) -> Build:
    """Builds the provider, by default for us-east-1 alone."""

    def provider(*, now: Callable[[], datetime] = lambda: datetime.now(UTC), **fields: object) -> Provider:
        config = Config.model_validate({"regions": [REGION], "endpoint": front.endpoint, **fields})
        return build(config, BuildContext(source="research-aws", now=now))

    return provider
