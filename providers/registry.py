"""Turns a provider's name into its package, lazily: an SDK is imported only when its cloud is used.

A literal table for ours, one entry-point group (`curfew.providers`) for others'. A package must offer
`Config` (a Pydantic model of the source's own fields, importable without the SDK) and
`build(config, context) -> Provider` (imports the SDK; a missing one is an error naming the extra to install).
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Protocol

from pydantic import BaseModel

from providers.contract import BuildContext, Provider
from providers.errors import Misconfigured

BUILTIN = {
    "aws": "providers.aws",
    "azure": "providers.azure",
    "gcp": "providers.gcp",
    "kubernetes": "providers.kubernetes",
    "prometheus": "providers.prometheus",
    "simulated": "providers.simulated",
}

EXTRAS = {name: name for name in ("aws", "azure", "gcp", "kubernetes")}
"""Which extra of this distribution brings a provider's SDK."""


class ProviderPackage(Protocol):
    """The two names every provider package exports."""

    Config: type[BaseModel]

    def build(self, config: BaseModel, context: BuildContext) -> Provider: ...


@cache
def known() -> dict[str, str]:
    """Provider name → module, ours and installed ones. Ours cannot be replaced from outside."""
    outside = {point.name: point.value for point in entry_points(group="curfew.providers")}
    return {**outside, **BUILTIN}


def load(name: str) -> ProviderPackage:
    """The package of a provider. Raises Misconfigured: with the known names, or with what is wrong with this one."""
    try:
        module = known()[name]
    except KeyError:
        raise Misconfigured(f"there is no provider {name!r}; known are {', '.join(sorted(known()))}") from None
    try:
        package: ProviderPackage = import_module(module)  # a module satisfies the protocol by its names
        _ = package.Config, package.build
    except Exception as error:  # whatever a package from outside does
        raise Misconfigured(f"provider {name!r} cannot be loaded: {type(error).__name__}: {error}") from error
    return package


def build(name: str, config: BaseModel, context: BuildContext) -> Provider:
    """A provider ready to be asked."""
    package = load(name)
    try:
        return package.build(config, context)
    except ImportError as error:
        sentence = f"provider {name!r} needs a package that is not installed ({error.name})"
        if name in EXTRAS:
            sentence += f"; install it with: pip install 'gpu-curfew[{EXTRAS[name]}]'"
        raise Misconfigured(sentence) from error
