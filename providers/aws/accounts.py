"""Turns a source's settings into the accounts it sees and a client for each: one, a list, or an AWS organisation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from threading import Lock
from typing import cast

from providers.aws import UNIT, Config
from providers.aws.client import Client
from providers.errors import Misconfigured, ProviderError
from providers.records import Fault

HOLDS = timedelta(minutes=10)
"""How long an organisation's list of accounts is trusted: it changes a few times a month, and AWS lets it be asked
for seldom."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Roster:
    """Whose resources are seen now."""

    identity: str
    """The account of one; the organisation of `all`; of a list the account that asks: it stays when the list grows."""
    accounts: tuple[str, ...]
    fault: Fault | None = None
    """Why this is an earlier list. There may be further accounts."""


class Accounts:
    """The accounts of a source. Each has its own credentials and pace, and all share the SDK's clients."""

    def __init__(self, config: Config, *, now: Callable[[], datetime]) -> None:
        self.home = Client(config)
        """With the source's own credentials: the one account, or the one from which the others' roles are assumed."""
        self._config = config
        self._now = now
        self._clients: dict[str, Client] = {}
        self._organisation: tuple[datetime, Roster] | None = None
        self._lock = Lock()

    @property
    def several(self) -> bool:
        return self._config.accounts is not None

    def roster(self) -> Roster:
        """Raises what AWS answers; but an organisation that was listed before is then taken as it was."""
        if self._config.accounts is None:
            account = self.home.account()
            return Roster(identity=account, accounts=(account,))
        if self._config.accounts == "all":
            return self._listed_organisation()
        return Roster(identity=self.home.account(), accounts=self._config.accounts)

    def of(self, account: str) -> Client:
        """The client of one account. No call is made yet, and whether its role can be assumed not known."""
        if not self.several:
            return self.home
        if not self._sees(account):
            raise Misconfigured(f"account {account} is not one of this source's")
        with self._lock:
            if account not in self._clients:
                role = f"arn:{self.home.partition}:iam::{account}:role/{self._config.role_name}"
                self._clients[account] = self.home.assuming(role)
            return self._clients[account]

    def _sees(self, account: str) -> bool:
        if self._config.accounts != "all":
            return account in (self._config.accounts or ())
        known = self._organisation
        return account in known[1].accounts if known else account not in self._config.exclude_accounts

    # an organisation

    def _listed_organisation(self) -> Roster:
        before = self._organisation
        now = self._now()
        if before is not None and timedelta() <= now - before[0] < HOLDS:
            return before[1]
        try:
            roster = self._list_organisation()
        except ProviderError as error:
            if before is None:
                raise
            return replace(before[1], fault=error.as_fault())
        self._organisation = (now, roster)
        return roster

    def _list_organisation(self) -> Roster:
        organisation = self.home.call(
            "organizations", self.home.home_region, "DescribeOrganization", "Organization", "Id"
        )
        excluded = {one for one in self._config.exclude_accounts if not UNIT.fullmatch(one)}
        for unit in sorted(set(self._config.exclude_accounts) - excluded):
            excluded |= self._accounts_below(unit)
        listed = self._items("ListAccounts", "Accounts")
        active = {cast(str, account["Id"]) for account in listed if _is_active(account)}
        return Roster(identity=organisation, accounts=tuple(sorted(active - excluded)))

    def _accounts_below(self, unit: str) -> set[str]:
        found = {
            cast(str, account["Id"]) for account in self._items("ListAccountsForParent", "Accounts", ParentId=unit)
        }
        for below in list(self._items("ListOrganizationalUnitsForParent", "OrganizationalUnits", ParentId=unit)):
            found |= self._accounts_below(cast(str, below["Id"]))
        return found

    def _items(self, operation: str, key: str, **asked: str) -> Iterable[Mapping[str, object]]:
        return self.home.items("organizations", self.home.home_region, operation, key, **asked)


def _is_active(account: Mapping[str, object]) -> bool:
    """`Status` is what AWS said before it had `State`."""
    return (account.get("State") or account.get("Status")) == "ACTIVE"
