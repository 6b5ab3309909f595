"""Compute: virtual machines, what they are doing, and the operations that change it."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tests.providers.azure.cloud_part import GROUP, SUBSCRIPTION, Json, Part, Told, answers, found
from tests.providers.azure.cloud_refusals import Refusal, invalid, not_allowed

if TYPE_CHECKING:
    from tests.providers.azure.cloud import Call, Cloud

KIND = "Microsoft.Compute/virtualMachines"
ALL = f"{SUBSCRIPTION}/providers/{KIND}"
ONE = f"{GROUP}/providers/{KIND}/{{name}}"
DISPLAYED = {
    "running": "VM running", "stopped": "VM stopped", "deallocated": "VM deallocated", "starting": "VM starting",
    "stopping": "VM stopping", "deallocating": "VM deallocating", "unknown": "Unknown",
}  # fmt: skip


@dataclass(kw_only=True)
class Machine:
    """One, as it is. What `body` says, Azure says."""

    body: Json
    power: str | None
    """`running`, `stopped`, `deallocated` …; None while Azure does not know."""
    hibernated: bool = False
    provisioning: str = "Succeeded"
    since: str = ""

    @property
    def id(self) -> str:
        return str(self.body["id"]).lower()

    @property
    def properties(self) -> Json:
        properties: Json = self.body["properties"]
        return properties

    def view(self) -> Json:
        """What Azure says of its run."""
        level = "Error" if self.provisioning == "Failed" else "Info"
        statuses: list[Json] = [
            {
                "code": f"ProvisioningState/{self.provisioning.lower()}", "level": level,
                "displayStatus": f"Provisioning {self.provisioning.lower()}", "time": self.since,
            }
        ]  # fmt: skip
        if self.power is not None:
            shown = DISPLAYED.get(self.power, f"VM {self.power}")
            statuses.append({"code": f"PowerState/{self.power}", "level": "Info", "displayStatus": shown})
        if self.hibernated:
            statuses.append({"code": "HibernationState/Hibernated", "level": "Info", "displayStatus": "Hibernated"})
        view: Json = {"statuses": statuses}
        if self.power == "running":
            view.update(
                computerName=self.body["name"], osName="ubuntu", osVersion="22.04", hyperVGeneration="V2",
                vmAgent={
                    "vmAgentVersion": "2.11.1.4",
                    "statuses": [
                        {"code": "ProvisioningState/succeeded", "level": "Info", "displayStatus": "Ready",
                         "message": "Guest Agent is running", "time": self.since}
                    ],
                },
            )  # fmt: skip
        return view

    def told(self, *, view: bool = False, shouted: bool = False) -> Json:
        """As it is answered; in lists, Azure shouts the names of resource groups."""
        body = copy.deepcopy(self.body)
        body["properties"]["provisioningState"] = self.provisioning
        if view:
            body["properties"]["instanceView"] = self.view()
        if shouted:
            body["id"] = shout(body["id"])
        return body

    def status(self) -> Json:
        """All that `statusOnly` tells."""
        told = {name: self.body[name] for name in ("name", "type", "location")}
        properties = {"vmId": self.properties["vmId"], "instanceView": self.view()}
        return {**told, "id": shout(self.body["id"]), "properties": properties}


class Compute(Part):
    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.machines: dict[str, Machine] = {}
        """By id in small letters; what is written here is the truth."""
        self.lost_disks: list[str] = []
        """Machines whose temporary disks were emptied, as often as that was done."""

    def state(self) -> object:
        return self.machines

    # Truth

    def machine(
        self,
        name: str = "trainer",
        *,
        subscription: str | None = None,
        group: str = "rg-ml",
        location: str = "westeurope",
        size: str = "Standard_NC24ads_A100_v4",
        priority: str | None = None,
        eviction: str | None = None,
        max_price: float | None = None,
        tags: Mapping[str, str] | None = None,
        power: str | None = "running",
        zone: str | None = None,
        os_type: str = "Linux",
        ephemeral_os_disk: bool = False,
        hibernation: bool | None = None,
        scale_set: str | None = None,
        managed_by: str | None = None,
        lock: str | None = None,
        created: datetime | None = None,
        properties: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> str:
        """A machine that is there; answered is its id in small letters, but for `resourceGroups`, `providers`, ….

        `priority` is left out by Azure where nobody asked for one. `lock` is `CanNotDelete` or `ReadOnly`.
        """
        subscription = self.cloud.known(subscription)
        self.cloud.add_group(group, subscription=subscription, location=location)
        place = f"/subscriptions/{subscription}/resourceGroups/{group}"
        at = self.cloud.stamp(created)
        os_disk: Json = {
            "osType": os_type, "name": f"{name}_OsDisk_1", "createOption": "FromImage", "caching": "ReadWrite",
            "diskSizeGB": 128, "deleteOption": "Detach",
            "managedDisk": {"id": f"{place}/providers/Microsoft.Compute/disks/{name}_OsDisk_1",
                            "storageAccountType": "Premium_LRS"},
        }  # fmt: skip
        if ephemeral_os_disk:
            os_disk.update(caching="ReadOnly", diffDiskSettings={"option": "Local", "placement": "ResourceDisk"})
        told: Json = {
            "hardwareProfile": {"vmSize": size},
            "vmId": str(uuid.uuid4()),
            "timeCreated": at,
            "storageProfile": {
                "imageReference": {"publisher": "microsoft-dsvm", "offer": "ubuntu-hpc", "sku": "2204",
                                   "version": "latest", "exactVersion": "22.04.2026010100"},
                "osDisk": os_disk, "dataDisks": [],
            },
            "osProfile": {"computerName": name, "adminUsername": "azureuser", "secrets": [],
                          "allowExtensionOperations": True, "requireGuestProvisionSignal": True},
            "networkProfile": {
                "networkInterfaces": [
                    {"id": f"{place}/providers/Microsoft.Network/networkInterfaces/{name}-nic",
                     "properties": {"deleteOption": "Detach"}}
                ]
            },
        }  # fmt: skip
        if priority is not None:
            told["priority"] = priority
        if priority in ("Spot", "Low", "SpotPlus"):
            told.update(evictionPolicy=eviction or "Deallocate", billingProfile={"maxPrice": max_price or -1.0})
        if hibernation is not None:
            told["additionalCapabilities"] = {"hibernationEnabled": hibernation}
        if scale_set is not None:
            told["virtualMachineScaleSet"] = {"id": scale_set}
        body: Json = {
            "id": f"{place}/providers/{KIND}/{name}", "name": name, "type": KIND, "location": location,
            "properties": {**told, **(properties or {})},
        }  # fmt: skip
        if tags:
            body["tags"] = dict(tags)
        if zone is not None:
            body["zones"] = [zone]
        if managed_by is not None:
            body["managedBy"] = managed_by
        body.update(fields)
        machine = Machine(body=body, power=power, since=at)
        self.machines[machine.id] = machine
        if lock is not None:
            self.cloud.locks.lock(body["id"], lock)
        return canonical(body["id"])

    def power(self, machine: str) -> str | None:
        """The truth about a machine, None when it is gone: `running`, `deallocated`, …"""
        one = self.machines.get(machine.lower())
        return None if one is None else one.power or "unknown"

    def vanish(self, machine: str) -> None:
        del self.machines[machine.lower()]

    # Machines

    @answers("VirtualMachines_ListAll", "GET", ALL, query=("statusOnly", "$filter", "$expand", "$skiptoken"),
             tells="VirtualMachine[]")  # fmt: skip
    def list_all(self, call: Call) -> Told:
        return self._listed(call, f"/subscriptions/{call.subscription}/")

    @answers("VirtualMachines_List", "GET", f"{GROUP}/providers/{KIND}", query=("$filter", "$expand", "$skiptoken"),
             tells="VirtualMachine[]")  # fmt: skip
    def list_group(self, call: Call) -> Told:
        return self._listed(call, f"/subscriptions/{call.subscription}/resourcegroups/{call.names['group'].lower()}/")

    def _listed(self, call: Call, start: str) -> Json:
        wanted, expand = call.query.get("$filter"), call.query.get("$expand", "").lower()
        if expand and (expand != "instanceview" or not wanted):
            raise invalid("The $expand query parameter is not supported without a valid $filter.", target="$expand")
        mine = [one for path, one in self.machines.items() if path.startswith(start)]
        if wanted:
            mine = [one for one in mine if _in_scale_set(one, wanted)]
        if call.query.get("statusOnly", "false").lower() == "true":
            return self.listed(call, mine, Machine.status)
        return self.listed(call, mine, lambda one: one.told(view=bool(expand), shouted=True))

    @answers("VirtualMachines_Get", "GET", ONE, query=("$expand",), tells="VirtualMachine")
    def get(self, call: Call) -> Told:
        expand = call.query.get("$expand", "").lower()
        if expand not in {"", "instanceview", "userdata"}:
            raise invalid(f"The value '{expand}' of parameter '$expand' is invalid.", target="$expand")
        return self._machine(call).told(view=expand == "instanceview")

    @answers("VirtualMachines_InstanceView", "GET", f"{ONE}/instanceView", tells="VirtualMachineInstanceView")
    def instance_view(self, call: Call) -> Told:
        return self._machine(call).view()

    @answers("VirtualMachines_Deallocate", "POST", f"{ONE}/deallocate", query=("hibernate", "forceDeallocate"))
    def deallocate(self, call: Call) -> Told:
        machine = self._machine(call)
        hibernate = call.query.get("hibernate", "").lower() == "true"
        if hibernate:
            self._may_hibernate(machine)
        if machine.properties["storageProfile"]["osDisk"].get("diffDiskSettings"):
            raise not_allowed("Deallocate is not supported for virtual machines with ephemeral OS disks.")
        return self._change(call, machine, "deallocate", through="deallocating", to="deallocated", hibernated=hibernate)

    @answers("VirtualMachines_Start", "POST", f"{ONE}/start")
    def start(self, call: Call) -> Told:
        return self._change(call, self._machine(call), "start", through="starting", to="running")

    @answers("VirtualMachines_PowerOff", "POST", f"{ONE}/powerOff", query=("skipShutdown",))
    def power_off(self, call: Call) -> Told:
        machine = self._machine(call)
        if machine.power == "deallocated":
            raise not_allowed("Cannot power off the VM as it is deallocated.")
        return self._change(call, machine, "powerOff", through="stopping", to="stopped")

    @answers("VirtualMachines_Delete", "DELETE", ONE, query=("forceDeletion",))
    def delete(self, call: Call) -> Told:
        machine = self._machine(call)
        self.free(machine.id, "delete")
        before = machine.provisioning
        machine.provisioning = "Deleting"

        def undone() -> None:
            machine.provisioning = before

        return self.accepted(
            call, "delete", machine.id, location=machine.body["location"],
            done=lambda: self.machines.pop(machine.id, None), undone=undone,
        )  # fmt: skip

    @answers("VirtualMachines_Update", "PATCH", ONE, hears="VirtualMachineUpdate", tells="VirtualMachine")
    def update(self, call: Call) -> Told:
        machine = self._machine(call)
        if {*call.body} - {"tags"}:
            raise invalid("Only tags are changed here.", code="NotPlayed")
        machine.body["tags"] = dict(call.body["tags"])
        return machine.told()

    def _may_hibernate(self, machine: Machine) -> None:
        if not machine.properties.get("additionalCapabilities", {}).get("hibernationEnabled"):
            words = (
                f"The Hibernate-Deallocate Operation cannot be performed on VM '{machine.body['name']}' because it "
                "does not have hibernation enabled."
            )
            raise Refusal(409, "OperationNotAllowed", words)
        if machine.power not in {"running", "starting"}:
            raise not_allowed("The Hibernate-Deallocate Operation can only be triggered on a successfully running VM.")

    def _change(
        self, call: Call, machine: Machine, verb: str, *, through: str, to: str, hibernated: bool = False
    ) -> Told:
        self.free(machine.id, verb)
        before = (machine.power, machine.provisioning, machine.hibernated)
        if machine.power != to:
            machine.power, machine.provisioning = through, "Updating"

        def done() -> None:
            if to == "deallocated" and before[0] != "deallocated":
                self.lost_disks.append(machine.id)
            machine.power, machine.provisioning = to, "Succeeded"
            machine.hibernated = hibernated if to == "deallocated" and before[0] != to else machine.hibernated
            if to == "running":
                machine.hibernated = False
            machine.since = self.cloud.stamp()

        def undone() -> None:
            machine.power, machine.provisioning, machine.hibernated = before[0], "Failed", before[2]

        return self.accepted(
            call, verb, machine.id, location=machine.body["location"], done=done, undone=undone
        )  # fmt: skip

    def _machine(self, call: Call) -> Machine:
        machine: Machine = found(
            self.machines, call, KIND,
            f"/subscriptions/{call.subscription}/resourceGroups/{call.names['group']}/providers/{KIND}/{call.names['name']}",
            call.names["name"],
        )  # fmt: skip
        return machine


def _in_scale_set(machine: Machine, wanted: str) -> bool:
    field, _, said = wanted.partition(" eq ")
    if field.strip().strip("'").lower() != "virtualmachinescaleset/id":
        raise invalid(f"The $filter '{wanted}' is not supported.", target="$filter")
    mine = str(machine.properties.get("virtualMachineScaleSet", {}).get("id", ""))
    return mine.lower() == said.strip().strip("'").lower()


def shout(path: str) -> str:
    """With the name of the resource group in capital letters, as Compute writes ids in lists."""
    parts = path.split("/")
    parts[4] = parts[4].upper()
    return "/".join(parts)


def canonical(path: str) -> str:
    """Names in small letters, the rest as Azure writes it in its manuals."""
    parts = path.split("/")
    for index in (2, 4):
        parts[index] = parts[index].lower()
    for index in range(8, len(parts), 2):
        parts[index] = parts[index].lower()
    return "/".join(parts)
