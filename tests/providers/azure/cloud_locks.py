"""Locks on resources, resource groups and subscriptions, and what they keep from being done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.providers.azure.cloud_part import GROUP, SUBSCRIPTION, Json, Part, Told, answers
from tests.providers.azure.cloud_refusals import locked

if TYPE_CHECKING:
    from tests.providers.azure.cloud import Call, Cloud

KIND = "Microsoft.Authorization/locks"


class Locks(Part):
    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.locks: dict[str, Json] = {}
        """By id in small letters."""

    def state(self) -> object:
        return self.locks

    def lock(self, scope: str, level: str = "CanNotDelete", *, name: str = "keep", notes: str = "") -> str:
        """`scope` is the id of a resource, a resource group or a subscription; `level` `CanNotDelete` or `ReadOnly`."""
        path = f"{scope}/providers/{KIND}/{name}"
        properties = {"level": level, **({"notes": notes} if notes else {})}
        self.locks[path.lower()] = {"id": path, "name": name, "type": KIND, "properties": properties}
        return path

    def unlock(self, lock: str) -> None:
        del self.locks[lock.lower()]

    def check(self, call: Call) -> None:
        """Whether a lock keeps it from being done: the one nearest to the root is named."""
        if not call.changes:
            return
        target = call.path.lower()
        for path, lock in sorted(self.locks.items()):
            scope = path.partition("/providers/microsoft.authorization/locks/")[0]
            if not f"{target}/".startswith(f"{scope}/"):
                continue
            if lock["properties"]["level"] == "ReadOnly" or call.http == "DELETE":
                shown = str(lock["id"]).partition(f"/providers/{KIND}")[0]
                raise locked(call.scope, shown, verb="delete" if call.http == "DELETE" else "write")

    @answers("ManagementLocks_ListAtSubscriptionLevel", "GET", f"{SUBSCRIPTION}/providers/{KIND}",
             query=("$filter", "$skiptoken"))  # fmt: skip
    def list_all(self, call: Call) -> Told:
        start = f"/subscriptions/{call.subscription}/"
        return self.listed(call, [lock for path, lock in self.locks.items() if path.startswith(start)])

    @answers("ManagementLocks_ListAtResourceGroupLevel", "GET", f"{GROUP}/providers/{KIND}",
             query=("$filter", "$skiptoken"))  # fmt: skip
    def list_group(self, call: Call) -> Told:
        start = f"/subscriptions/{call.subscription}/resourcegroups/{call.names['group'].lower()}/"
        return self.listed(call, [lock for path, lock in self.locks.items() if path.startswith(start)])
