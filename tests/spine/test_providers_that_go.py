"""A provider that was there when its source was applied, and is not any more: the matter of that one source alone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from pydantic import BaseModel

from providers import registry
from providers.contract import BuildContext, Provider
from providers.errors import Misconfigured
from tests.spine.company import Company, minutes


class Config(BaseModel):
    """A source of theirs needs nothing."""


def rented(here: Company, monkeypatch: pytest.MonkeyPatch, build: object = None) -> None:
    """A source of a provider from outside."""
    load, known = registry.load, registry.known
    package = SimpleNamespace(Config=Config, build=build)
    monkeypatch.setattr(registry, "known", lambda: {**known(), "rentals": "rentals"})
    monkeypatch.setattr(registry, "load", lambda name: package if name == "rentals" else load(name))
    here.document("source", name="rented", provider="rentals")


def reported(here: Company, after: float = 0) -> dict[str, str]:
    """The faults of a cycle's sources."""
    cycle = here.cycle(after=minutes(after))
    assert cycle.error is None
    return {line["source"]: line["fault"]["sentence"] for line in cycle.sources if line["fault"]}


def test_what_was_uninstalled_is_a_fault_of_its_source_and_all_others_are_governed(
    small: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = small.machine()
    with monkeypatch.context() as installed:
        rented(small, installed)
    assert "there is no provider 'rentals'" in reported(small)["rented"]
    reported(small, after=31)
    reported(small, after=2)
    assert small.finding(ref).status == "enforced"


def unloadable(_name: str) -> object:
    raise Misconfigured("provider 'rentals' cannot be loaded: No module named 'rentals'")


def test_what_cannot_be_loaded_any_more_too(small: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as installed:
        rented(small, installed)
    known, load = registry.known, registry.load
    monkeypatch.setattr(registry, "known", lambda: {**known(), "rentals": "rentals"})
    monkeypatch.setattr(registry, "load", lambda name: unloadable(name) if name == "rentals" else load(name))
    assert "cannot be loaded" in reported(small)["rented"]


def test_what_fails_while_it_is_built_names_no_more_than_that(small: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(config: BaseModel, context: BuildContext) -> Provider:
        raise KeyError("hunter2")

    rented(small, monkeypatch, build)
    assert reported(small) == {"rented": "its provider 'rentals' failed while it was built (KeyError)"}


def test_settings_that_its_provider_does_not_take_any_more_are_a_fault_of_its_source(
    small: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as installed:
        rented(small, installed)

    class Stricter(BaseModel):
        token: str

    known, load = registry.known, registry.load
    package = SimpleNamespace(Config=Stricter, build=None)
    monkeypatch.setattr(registry, "known", lambda: {**known(), "rentals": "rentals"})
    monkeypatch.setattr(registry, "load", lambda name: package if name == "rentals" else load(name))
    assert "token" in reported(small)["rented"]
