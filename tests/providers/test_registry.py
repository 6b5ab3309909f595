"""Providers are found by name, imported only when used, and never replaced from outside."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest
from pydantic import BaseModel

from providers import registry
from providers.contract import BuildContext, Provider
from providers.errors import Misconfigured

CONTEXT = BuildContext(source="somewhere", now=lambda: datetime(2026, 11, 14, tzinfo=UTC))
SDKS = ("boto3", "botocore")


class Settings(BaseModel):
    """Any source's."""


def lacking_something(config: BaseModel, context: BuildContext) -> Provider:
    raise ModuleNotFoundError("No module named 'lambda_sdk'", name="lambda_sdk")


@pytest.fixture(autouse=True)
def _fresh_registry() -> Iterator[None]:
    registry.known.cache_clear()
    yield
    registry.known.cache_clear()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Distributions from outside: one brings a new provider, others would like to be `aws`, are gone, or are none."""

    def entry_points(*, group: str) -> list[EntryPoint]:
        assert group == "curfew.providers"
        return [
            EntryPoint(name="lambda-labs", value="outside_provider", group=group),
            EntryPoint(name="aws", value="outside_provider", group=group),
            EntryPoint(name="removed", value="a_package_that_is_gone", group=group),
            EntryPoint(name="stranger", value="colorsys", group=group),
        ]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    package = ModuleType("outside_provider")
    package.Config, package.build = Settings, lacking_something  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "outside_provider", package)


@pytest.mark.parametrize("module", ["providers.registry", *registry.BUILTIN.values()])
def test_importing_loads_no_sdk(module: str) -> None:
    asked = f"import sys, {module}; print([name for name in {SDKS!r} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize("name", registry.BUILTIN)
def test_every_builtin_offers_what_a_provider_package_must(name: str) -> None:
    package = registry.load(name)
    assert issubclass(package.Config, BaseModel)
    assert package.Config.model_config.get("extra") == "forbid"
    assert callable(package.build)


def test_an_unknown_provider_is_an_error_with_the_known_names() -> None:
    with pytest.raises(Misconfigured) as told:
        registry.load("asw")
    assert "'asw'" in told.value.sentence
    for name in registry.BUILTIN:
        assert name in told.value.sentence


def test_a_missing_sdk_is_an_error_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_sdk(config: BaseModel, context: BuildContext) -> Provider:
        raise ModuleNotFoundError("No module named 'boto3'", name="boto3")

    package = registry.load("aws")
    monkeypatch.setattr(package, "build", without_sdk, raising=False)
    with pytest.raises(Misconfigured) as told:
        registry.build("aws", Settings(), CONTEXT)
    assert "boto3" in told.value.sentence
    assert "pip install 'gpu-curfew[aws]'" in told.value.sentence
    assert isinstance(told.value.__cause__, ImportError)


@pytest.mark.usefixtures("installed")
def test_a_provider_installed_beside_us_is_known() -> None:
    assert registry.known()["lambda-labs"] == "outside_provider"
    assert registry.load("lambda-labs") is sys.modules["outside_provider"]


@pytest.mark.usefixtures("installed")
def test_a_provider_installed_beside_us_cannot_replace_ours() -> None:
    assert registry.known()["aws"] == "providers.aws"


@pytest.mark.usefixtures("installed")
def test_what_a_provider_installed_beside_us_lacks_is_no_extra_of_ours() -> None:
    with pytest.raises(Misconfigured) as told:
        registry.build("lambda-labs", Settings(), CONTEXT)
    assert "lambda_sdk" in told.value.sentence
    assert "gpu-curfew" not in told.value.sentence


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("name", "why"), [("removed", "a_package_that_is_gone"), ("stranger", "Config")])
def test_what_is_installed_beside_us_and_is_no_provider_is_an_error_that_says_why(name: str, why: str) -> None:
    with pytest.raises(Misconfigured) as told:
        registry.load(name)
    assert name in told.value.sentence
    assert why in told.value.sentence


def test_a_simulated_source_builds_a_simulated_provider() -> None:
    from providers import simulated

    provider = registry.build("simulated", registry.load("simulated").Config(), CONTEXT)
    simulated.forget(CONTEXT.source)
    assert provider.capabilities.simulated
