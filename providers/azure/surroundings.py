"""Asks what else a subscription says of its machines: locks, who keeps a resource group, public addresses, autoscale
settings. What the answers mean is `translate`'s business.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from providers.azure import translate, translate_groups
from providers.azure.client import Client, Json, NotEnabled, Query
from providers.azure.listing import items
from providers.azure.translate import Around, Lock
from providers.azure.translate_groups import Autoscale
from providers.errors import NotFound, Unreachable
from providers.questions import readable

LOCKS, GROUPS, ADDRESSES, AUTOSCALES = "locks", "resource groups", "public addresses", "autoscale settings"
VERSIONS = {
    LOCKS: "2020-05-01",
    GROUPS: "2021-04-01",
    ADDRESSES: "2024-05-01",
    AUTOSCALES: "2022-10-01",
}
PATHS = {
    LOCKS: "providers/Microsoft.Authorization/locks",
    GROUPS: "resourcegroups",
    ADDRESSES: "providers/Microsoft.Network/publicIPAddresses",
    AUTOSCALES: "providers/Microsoft.Insights/autoscalesettings",
}


class Surroundings:
    """One list of a whole subscription for each; what is not registered there is not there."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def locks(self, subscription: str) -> Mapping[str, list[Lock]]:
        path, version = _path(subscription, LOCKS)
        with readable(path):
            return translate.locks_of(items(self._client, path, version=version))

    def owners(self, subscription: str) -> Mapping[str, str]:
        path, version = _path(subscription, GROUPS)
        with readable(path):
            return translate.owners_of(items(self._client, path, version=version))

    def addresses(self, subscription: str) -> Mapping[str, str]:
        path, version = _path(subscription, ADDRESSES)
        try:
            with readable(path):
                return translate.dynamic_addresses(items(self._client, path, version=version))
        except NotEnabled:
            return {}

    def autoscales(self, subscription: str) -> Mapping[str, Autoscale]:
        path, version = _path(subscription, AUTOSCALES)
        try:
            with readable(path):
                return translate_groups.autoscales(items(self._client, path, version=version))
        except NotEnabled:
            return {}

    def of_one(
        self, subscription: str, path: str, *, addresses: bool = False, placements: Collection[str] = ()
    ) -> Around:
        """All of it for one resource, fresh. Raises rather than leave one open."""
        place = f"{_path(subscription, GROUPS)[0]}/{translate.group_of(path)}"
        group = another(self._client, place, version=VERSIONS[GROUPS])
        with readable(place):
            owners = translate.owners_of([group])
        with not_its_own(f"what surrounds {path}"):
            return Around(
                locks=self.locks(subscription),
                owners=owners,
                addresses=self.addresses(subscription) if addresses else {},
                placements=placements,
            )


def another(client: Client, path: str, *, version: str, query: Query | None = None) -> Json:
    """Something that what was asked for belongs to."""
    with not_its_own(f"{path}, to which a resource belongs,"):
        return client.get(path, version=version, query=query)


@contextmanager
def not_its_own(what: str) -> Iterator[None]:
    """That something beside what was asked for is not found must not read as if that were gone."""
    try:
        yield
    except NotFound as error:
        raise Unreachable(f"{what} is not found: {error.sentence}") from error


def _path(subscription: str, what: str) -> tuple[str, str]:
    return f"/subscriptions/{subscription}/{PATHS[what]}", VERSIONS[what]
