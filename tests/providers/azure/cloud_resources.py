"""What the Resource Manager says of resource groups, and the network of addresses that machines have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.providers.azure.cloud_part import GROUP, SUBSCRIPTION, Json, Part, Told, answers

if TYPE_CHECKING:
    from tests.providers.azure.cloud import Call, Cloud

NETWORK = f"{SUBSCRIPTION}/providers/Microsoft.Network"
READ_GROUPS = "Microsoft.Resources/subscriptions/resourceGroups/read"


@dataclass(kw_only=True)
class Group:
    """A resource group. One that a service keeps for itself says whose it is."""

    name: str
    location: str
    managed_by: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


class Resources(Part):
    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.addresses: list[Json] = []
        self.interfaces: list[Json] = []

    def public_address(self, machine: str, *, allocation: str = "Dynamic") -> str:
        """A public address for a machine: a `Dynamic` one is lost when the machine is deallocated."""
        body = self.cloud.compute.machines[machine.lower()].body
        interface = body["properties"]["networkProfile"]["networkInterfaces"][0]["id"]
        place = interface.rpartition("/networkInterfaces/")[0]
        path = f"{place}/publicIPAddresses/{body['name']}-ip"
        settings = f"{interface}/ipConfigurations/primary"
        self.addresses.append(
            {
                "id": path, "name": f"{body['name']}-ip", "type": "Microsoft.Network/publicIPAddresses",
                "location": body["location"], "sku": {"name": "Basic" if allocation == "Dynamic" else "Standard"},
                "properties": {
                    "provisioningState": "Succeeded", "publicIPAllocationMethod": allocation,
                    "publicIPAddressVersion": "IPv4", "ipAddress": "203.0.113.7", "ipConfiguration": {"id": settings},
                },
            }
        )  # fmt: skip
        self.interfaces.append(
            {
                "id": interface, "name": interface.rpartition("/")[2], "location": body["location"],
                "type": "Microsoft.Network/networkInterfaces",
                "properties": {
                    "provisioningState": "Succeeded", "primary": True, "virtualMachine": {"id": body["id"]},
                    "ipConfigurations": [
                        {"id": settings, "name": "primary", "properties": {"publicIPAddress": {"id": path}}}
                    ],
                },
            }
        )  # fmt: skip
        return path

    @answers("PublicIPAddresses_ListAll", "GET", f"{NETWORK}/publicIPAddresses", query=("$skiptoken",))
    def list_addresses(self, call: Call) -> Told:
        return self.listed(call, self._mine(call, self.addresses))

    @answers("NetworkInterfaces_ListAll", "GET", f"{NETWORK}/networkInterfaces", query=("$skiptoken", "$expand"))
    def list_interfaces(self, call: Call) -> Told:
        return self.listed(call, self._mine(call, self.interfaces))

    def _mine(self, call: Call, things: list[Json]) -> list[Json]:
        return [one for one in things if one["id"].lower().startswith(f"/subscriptions/{call.subscription}/")]

    @answers("ResourceGroups_List", "GET", f"{SUBSCRIPTION}/resourcegroups", query=("$filter", "$top", "$skiptoken"),
             action=READ_GROUPS)  # fmt: skip
    def list_groups(self, call: Call) -> Told:
        groups = self.cloud.subscriptions[call.subscription].groups.values()
        return self.listed(call, [self._group(call, group) for group in groups])

    @answers("ResourceGroups_Get", "GET", GROUP, action=READ_GROUPS)
    def get_group(self, call: Call) -> Told:
        return self._group(call, self.cloud.subscriptions[call.subscription].groups[call.names["group"].lower()])

    def _group(self, call: Call, group: Group) -> Json:
        told: Json = {
            "id": f"/subscriptions/{call.subscription}/resourceGroups/{group.name}", "name": group.name,
            "type": "Microsoft.Resources/resourceGroups", "location": group.location, "tags": dict(group.tags),
            "properties": {"provisioningState": "Succeeded"},
        }  # fmt: skip
        return {**told, "managedBy": group.managed_by} if group.managed_by else told
