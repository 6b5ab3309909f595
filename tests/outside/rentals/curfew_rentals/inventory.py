"""Lists the account's machines site by site, and describes one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import BaseModel

from curfew_rentals.client import Client
from curfew_rentals.translate import Machine, record
from providers.errors import Misconfigured, ProviderError
from providers.records import InventoryAnswer, PartReport, ResourceRecord, ResourceRef


class Account(BaseModel):
    """Whose token it is, and the sites it may rent at."""

    id: str
    sites: Sequence[str]


class Page(BaseModel):
    """Some of a site's machines, and where there are more."""

    machines: Sequence[Machine]
    next: str | None


class RentalsInventory:
    """Sees machines with GPUs."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self) -> InventoryAnswer:
        account = self._client.get("/v1/account", Account)
        records: tuple[ResourceRecord, ...] = ()
        parts = []
        for site in account.sites:
            try:
                records += tuple(record(account.id, machine) for machine in self._machines(site) if machine.gpus)
                parts.append(PartReport(part=site, complete=True))
            except ProviderError as error:
                parts.append(PartReport(part=site, complete=False, fault=error.as_fault()))
        return InventoryAnswer(identity=account.id, records=records, parts=tuple(parts))

    def describe(self, ref: ResourceRef) -> ResourceRecord:
        account = self._client.get("/v1/account", Account)
        if account.id != ref.account:  # another account's "no such machine" must not be believed
            raise Misconfigured(f"account {ref.account} is not the token's, which is {account.id}")
        return record(account.id, self._client.get(f"/v1/machines/{ref.external_id}", Machine))

    def _machines(self, site: str) -> Iterator[Machine]:
        page: str | None = ""
        while page is not None:
            answer = self._client.get("/v1/machines", Page, site=site, page=page)
            yield from answer.machines
            page = answer.next
