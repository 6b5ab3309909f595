"""Compute: scale sets, uniform ones with instances of their own and flexible ones of plain machines."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.providers.azure.cloud_compute import Machine, canonical, shout
from tests.providers.azure.cloud_part import GROUP, SUBSCRIPTION, Json, Part, Told, answers, found
from tests.providers.azure.cloud_refusals import Refusal, invalid, not_allowed

if TYPE_CHECKING:
    from tests.providers.azure.cloud import Call, Cloud

KIND = "Microsoft.Compute/virtualMachineScaleSets"
ONE = f"{GROUP}/providers/{KIND}/{{name}}"
INSTANCE = ONE + "/virtualMachines/{instance}"


@dataclass(kw_only=True)
class ScaleSet:
    body: Json
    provisioning: str = "Succeeded"
    instances: dict[str, Machine] = field(default_factory=dict)
    """Those of a uniform one, by their ids (`0`, `1`, …); of a flexible one, they are `compute.machines`."""
    made: int = 0
    """How many instances it ever had: their ids are not given twice."""

    @property
    def id(self) -> str:
        return str(self.body["id"]).lower()

    @property
    def uniform(self) -> bool:
        return bool(self.body["properties"].get("orchestrationMode", "Uniform") == "Uniform")

    def told(self, *, shouted: bool = False) -> Json:
        body = copy.deepcopy(self.body)
        body["properties"]["provisioningState"] = self.provisioning
        if shouted:
            body["id"] = shout(body["id"])
        return body


class ScaleSets(Part):
    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.scale_sets: dict[str, ScaleSet] = {}
        """By id in small letters; what is written here is the truth."""

    def state(self) -> object:
        return self.scale_sets

    # Truth

    def scale_set(
        self,
        name: str = "workers",
        *,
        subscription: str | None = None,
        group: str = "rg-ml",
        location: str = "westeurope",
        size: str = "Standard_NC24ads_A100_v4",
        capacity: int = 2,
        flexible: bool = False,
        priority: str | None = None,
        eviction: str | None = None,
        tags: Mapping[str, str] | None = None,
        zones: Sequence[str] = (),
        power: str = "running",
        lock: str | None = None,
        properties: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> str:
        """A scale set that is there, with its instances; answered is its id in our spelling."""
        subscription = self.cloud.known(subscription)
        self.cloud.add_group(group, subscription=subscription, location=location)
        profile: Json = {
            "osProfile": {"computerNamePrefix": name[:9], "adminUsername": "azureuser", "secrets": []},
            "storageProfile": {
                "osDisk": {"osType": "Linux", "createOption": "FromImage", "caching": "ReadWrite", "diskSizeGB": 128,
                           "managedDisk": {"storageAccountType": "Premium_LRS"}},
            },
        }  # fmt: skip
        if priority is not None:
            profile["priority"] = priority
        if priority in ("Spot", "Low", "SpotPlus"):
            profile.update(evictionPolicy=eviction or "Deallocate", billingProfile={"maxPrice": -1.0})
        told: Json = {
            "virtualMachineProfile": profile, "uniqueId": str(uuid.uuid4()), "timeCreated": self.cloud.stamp(),
            "orchestrationMode": "Flexible" if flexible else "Uniform", "singlePlacementGroup": False,
            "platformFaultDomainCount": 1,
        }  # fmt: skip
        if not flexible:
            told.update(upgradePolicy={"mode": "Manual"}, overprovision=False)
        path = f"/subscriptions/{subscription}/resourceGroups/{group}/providers/{KIND}/{name}"
        body: Json = {
            "id": path, "name": name, "type": KIND, "location": location,
            "sku": {"name": size, "tier": "Standard", "capacity": 0}, "properties": {**told, **(properties or {})},
        }  # fmt: skip
        if tags:
            body["tags"] = dict(tags)
        if zones:
            body["zones"] = list(zones)
        body.update(fields)
        scale_set = self.scale_sets[path.lower()] = ScaleSet(body=body)
        self.grow(scale_set, capacity, power=power)
        if lock is not None:
            self.cloud.locks.lock(path, lock)
        return canonical(path)

    def capacity(self, scale_set: str) -> int | None:
        """The truth: what it shall have; None when it is gone."""
        one = self.scale_sets.get(scale_set.lower())
        return None if one is None else int(one.body["sku"]["capacity"])

    def members(self, scale_set: str) -> list[str]:
        """The truth: the ids of what it has, in our spelling."""
        one = self.scale_sets[scale_set.lower()]
        return [canonical(machine.body["id"]) for machine in self._machines(one).values()]

    def power(self, instance: str) -> str | None:
        """The truth about an instance of a uniform one; None when it is gone."""
        path, _, number = instance.lower().rpartition("/virtualmachines/")
        one = self.scale_sets.get(path)
        machine = one.instances.get(number) if one is not None else None
        return machine.power if machine is not None else None

    def protect(self, instance: str, *, from_all: bool = False) -> None:
        """Scaling in passes over this instance of a uniform one; `from_all`: and so does every change of the set."""
        path, _, number = instance.lower().rpartition("/virtualmachines/")
        policy = {"protectFromScaleIn": True, "protectFromScaleSetActions": from_all}
        self.scale_sets[path].instances[number].properties["protectionPolicy"] = policy

    def vanish(self, scale_set: str) -> None:
        one = self.scale_sets.pop(scale_set.lower())
        for path in [path for path in self._machines(one) if not one.uniform]:
            self.cloud.compute.vanish(path)

    def grow(self, scale_set: ScaleSet, capacity: int, *, power: str = "running") -> None:
        """As many instances as it shall have; the newest go first, and those that are protected never."""
        while len(self._machines(scale_set)) < capacity:
            self._add(scale_set, power)
        machines = self._machines(scale_set)
        may_go = [
            path for path, one in machines.items() if not any(one.properties.get("protectionPolicy", {}).values())
        ]
        for path in may_go[::-1][: len(machines) - capacity]:
            self._remove(scale_set, path)
        scale_set.body["sku"]["capacity"] = len(self._machines(scale_set))

    def _machines(self, scale_set: ScaleSet) -> dict[str, Machine]:
        if scale_set.uniform:
            return scale_set.instances
        return {
            path: one
            for path, one in self.cloud.compute.machines.items()
            if one.properties.get("virtualMachineScaleSet", {}).get("id", "").lower() == scale_set.id
        }

    def _remove(self, scale_set: ScaleSet, path: str) -> None:
        (scale_set.instances if scale_set.uniform else self.cloud.compute.machines).pop(path)

    def _add(self, scale_set: ScaleSet, power: str) -> None:
        body, profile = scale_set.body, scale_set.body["properties"].get("virtualMachineProfile", {})
        number, scale_set.made = str(scale_set.made), scale_set.made + 1
        _, _, subscription, _, group, *_ = body["id"].split("/")
        if not scale_set.uniform:
            self.cloud.compute.machine(
                f"{body['name']}_{uuid.uuid4().hex[:8]}", subscription=subscription, group=group, power=power,
                location=body["location"], size=body["sku"]["name"], priority=profile.get("priority"),
                eviction=profile.get("evictionPolicy"), tags=body.get("tags"), scale_set=body["id"],
            )  # fmt: skip
            return
        told: Json = {
            "latestModelApplied": True, "vmId": str(uuid.uuid4()), "hardwareProfile": {"vmSize": body["sku"]["name"]},
            "timeCreated": self.cloud.stamp(), "modelDefinitionApplied": "VirtualMachineScaleSet",
            "storageProfile": {
                "osDisk": {**profile["storageProfile"]["osDisk"], "name": f"{body['name']}_{number}_OsDisk"}
            },
            "osProfile": {"computerName": f"{body['name'][:9]}{int(number):06}", "adminUsername": "azureuser"},
        }  # fmt: skip
        instance: Json = {
            "id": f"{body['id']}/virtualMachines/{number}", "name": f"{body['name']}_{number}",
            "type": f"{KIND}/virtualMachines", "instanceId": number, "location": body["location"],
            "sku": {"name": body["sku"]["name"], "tier": "Standard"}, "properties": told,
        }  # fmt: skip
        if body.get("tags"):
            instance["tags"] = dict(body["tags"])
        if body.get("zones"):
            instance["zones"] = [body["zones"][int(number) % len(body["zones"])]]
        scale_set.instances[number] = Machine(body=instance, power=power, since=self.cloud.stamp())

    # Scale sets

    @answers("VirtualMachineScaleSets_ListAll", "GET", f"{SUBSCRIPTION}/providers/{KIND}", query=("$skiptoken",),
             tells="VirtualMachineScaleSet[]")  # fmt: skip
    def list_all(self, call: Call) -> Told:
        start = f"/subscriptions/{call.subscription}/"
        mine = [one for path, one in self.scale_sets.items() if path.startswith(start)]
        return self.listed(call, mine, lambda one: one.told(shouted=True))

    @answers("VirtualMachineScaleSets_List", "GET", f"{GROUP}/providers/{KIND}", query=("$skiptoken",),
             tells="VirtualMachineScaleSet[]")  # fmt: skip
    def list_group(self, call: Call) -> Told:
        start = f"/subscriptions/{call.subscription}/resourcegroups/{call.names['group'].lower()}/"
        mine = [one for path, one in self.scale_sets.items() if path.startswith(start)]
        return self.listed(call, mine, lambda one: one.told(shouted=True))

    @answers("VirtualMachineScaleSets_Get", "GET", ONE, query=("$expand",), tells="VirtualMachineScaleSet")
    def get(self, call: Call) -> Told:
        return self._scale_set(call).told()

    @answers("VirtualMachineScaleSets_Update", "PATCH", ONE, hears="VirtualMachineScaleSetUpdate",
             tells="VirtualMachineScaleSet")  # fmt: skip
    def update(self, call: Call) -> Told:
        scale_set = self._scale_set(call)
        if {*call.body} - {"sku", "tags"}:
            raise invalid("Only sku and tags are changed here.", code="NotPlayed")
        if "tags" in call.body:
            scale_set.body["tags"] = dict(call.body["tags"])
        wanted = call.body.get("sku", {})
        if wanted.get("name", scale_set.body["sku"]["name"]) != scale_set.body["sku"]["name"]:
            raise invalid("Only the capacity of a sku is changed here.", code="NotPlayed")
        capacity = wanted.get("capacity", scale_set.body["sku"]["capacity"])
        if capacity < 0 or capacity > 1000:
            raise invalid(f"The value '{capacity}' of parameter 'sku.capacity' is out of range.", target="sku.capacity")
        before = scale_set.body["sku"]["capacity"]
        self.free(scale_set.id, "scale")
        scale_set.body["sku"]["capacity"], scale_set.provisioning = capacity, "Updating"

        def done() -> None:
            scale_set.provisioning = "Succeeded"
            self.grow(scale_set, capacity)

        def undone() -> None:
            scale_set.provisioning = "Failed"
            scale_set.body["sku"]["capacity"] = before

        return self.accepted(
            call, "scale", scale_set.id, location=scale_set.body["location"], done=done, undone=undone,
            body=scale_set.told(), status=200,
        )  # fmt: skip

    @answers("VirtualMachineScaleSets_Delete", "DELETE", ONE, query=("forceDeletion",))
    def delete(self, call: Call) -> Told:
        scale_set = self._scale_set(call)
        if self._machines(scale_set) and not scale_set.uniform:
            raise not_allowed("The scale set has machines; delete them first.")
        self.free(scale_set.id, "delete")
        scale_set.provisioning = "Deleting"

        def undone() -> None:
            scale_set.provisioning = "Failed"

        return self.accepted(
            call, "delete", scale_set.id, location=scale_set.body["location"], undone=undone,
            done=lambda: self.scale_sets.pop(scale_set.id, None),
        )  # fmt: skip

    # Their instances

    @answers("VirtualMachineScaleSetVMs_List", "GET", f"{ONE}/virtualMachines",
             query=("$filter", "$select", "$expand", "$skiptoken"), tells="VirtualMachineScaleSetVM[]")  # fmt: skip
    def list_instances(self, call: Call) -> Told:
        scale_set = self._scale_set(call)
        expand = call.query.get("$expand", "").lower()
        if expand not in {"", "instanceview"}:
            raise invalid(f"The value '{expand}' of parameter '$expand' is invalid.", target="$expand")
        if not scale_set.uniform:
            raise not_allowed(
                "The Virtual Machine Scale Set in Flexible orchestration mode has no instances; list its machines."
            )
        instances = [*scale_set.instances.values()]
        return self.listed(call, instances, lambda one: one.told(view=bool(expand), shouted=True))

    @answers("VirtualMachineScaleSetVMs_Get", "GET", INSTANCE, query=("$expand",), tells="VirtualMachineScaleSetVM")
    def get_instance(self, call: Call) -> Told:
        return self._instance(call)[1].told(view=call.query.get("$expand", "").lower() == "instanceview")

    @answers("VirtualMachineScaleSetVMs_GetInstanceView", "GET", f"{INSTANCE}/instanceView",
             tells="VirtualMachineScaleSetVMInstanceView")  # fmt: skip
    def instance_view(self, call: Call) -> Told:
        return self._instance(call)[1].view()

    @answers("VirtualMachineScaleSetVMs_Deallocate", "POST", f"{INSTANCE}/deallocate")
    def deallocate_instance(self, call: Call) -> Told:
        return self._one(call, "deallocate", through="deallocating", to="deallocated")

    @answers("VirtualMachineScaleSetVMs_Start", "POST", f"{INSTANCE}/start")
    def start_instance(self, call: Call) -> Told:
        return self._one(call, "start", through="starting", to="running")

    @answers("VirtualMachineScaleSetVMs_PowerOff", "POST", f"{INSTANCE}/powerOff", query=("skipShutdown",))
    def power_off_instance(self, call: Call) -> Told:
        return self._one(call, "powerOff", through="stopping", to="stopped")

    @answers("VirtualMachineScaleSetVMs_Delete", "DELETE", INSTANCE, query=("forceDeletion",))
    def delete_instance(self, call: Call) -> Told:
        scale_set, machine = self._instance(call)
        return self._deleted(call, scale_set, [machine.body["instanceId"]], target=machine.id)

    @answers("VirtualMachineScaleSets_Deallocate", "POST", f"{ONE}/deallocate", query=("hibernate",),
             hears="VirtualMachineScaleSetVMInstanceIDs")  # fmt: skip
    def deallocate(self, call: Call) -> Told:
        return self._some(call, "deallocate", through="deallocating", to="deallocated")

    @answers("VirtualMachineScaleSets_Start", "POST", f"{ONE}/start", hears="VirtualMachineScaleSetVMInstanceIDs")
    def start(self, call: Call) -> Told:
        return self._some(call, "start", through="starting", to="running")

    @answers("VirtualMachineScaleSets_DeleteInstances", "POST", f"{ONE}/delete", query=("forceDeletion",),
             hears="VirtualMachineScaleSetVMInstanceRequiredIDs")  # fmt: skip
    def delete_instances(self, call: Call) -> Told:
        scale_set = self._scale_set(call)
        return self._deleted(call, scale_set, self._named(call, scale_set), target=scale_set.id)

    def _one(self, call: Call, verb: str, *, through: str, to: str) -> Told:
        scale_set, machine = self._instance(call)
        return self._changed(call, scale_set, [machine], verb, through=through, to=to, target=machine.id)

    def _some(self, call: Call, verb: str, *, through: str, to: str) -> Told:
        scale_set = self._scale_set(call)
        machines = [self._machines(scale_set)[path] for path in self._named(call, scale_set)]
        return self._changed(call, scale_set, machines, verb, through=through, to=to, target=scale_set.id)

    def _named(self, call: Call, scale_set: ScaleSet) -> list[str]:
        """All, where none are named; one that does not exist spoils all."""
        wanted = (call.body or {}).get("instanceIds", ["*"])
        machines = self._machines(scale_set)
        if wanted == ["*"]:
            return [*machines]
        by_name = {one.body.get("instanceId", one.body["name"]): path for path, one in machines.items()}
        for one in wanted:
            if one not in by_name:
                words = f"The provided instanceId {one} is not an active Virtual Machine Scale Set VM instanceId."
                raise invalid(words, target="instanceIds")
        return [by_name[one] for one in wanted]

    def _changed(
        self, call: Call, scale_set: ScaleSet, machines: Sequence[Machine], verb: str, *, through: str, to: str,
        target: str,
    ) -> Told:  # fmt: skip
        self.free(target, verb)
        before = [one.power for one in machines]
        for one in machines:
            one.power = through

        def done() -> None:
            for one in machines:
                one.power = to

        def undone() -> None:
            for one, power in zip(machines, before, strict=True):
                one.power = power

        return self.accepted(call, verb, target, location=scale_set.body["location"], done=done, undone=undone)

    def _deleted(self, call: Call, scale_set: ScaleSet, paths: Sequence[str], *, target: str) -> Told:
        self.free(target, "delete")

        def done() -> None:
            for path in paths:
                self._remove(scale_set, path)
            scale_set.body["sku"]["capacity"] = len(self._machines(scale_set))

        return self.accepted(call, "delete", target, location=scale_set.body["location"], done=done)

    def _scale_set(self, call: Call) -> ScaleSet:
        name = call.names["name"]
        path = f"/subscriptions/{call.subscription}/resourceGroups/{call.names['group']}/providers/{KIND}/{name}"
        scale_set: ScaleSet = found(self.scale_sets, call, KIND, path, name)
        return scale_set

    def _instance(self, call: Call) -> tuple[ScaleSet, Machine]:
        scale_set, number = self._scale_set(call), call.names["instance"]
        if number not in scale_set.instances:
            words = f"The entity was not found in this Azure location: instance {number}."
            raise Refusal(404, "NotFound", words)
        return scale_set, scale_set.instances[number]
