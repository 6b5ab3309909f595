"""Compute Engine: machines, and the operations that change them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from tests.providers.gcp.cloud_compute_part import BASE, ComputePart, answers, fingerprint, last
from tests.providers.gcp.cloud_lists import merged
from tests.providers.gcp.cloud_operations import Failure
from tests.providers.gcp.cloud_refusals import (
    Refusal,
    already_exists,
    bad_request,
    condition_not_met,
    invalid,
    not_found,
    not_ready,
)

if TYPE_CHECKING:
    from tests.providers.gcp.cloud import Call, Cloud

Json = dict[str, Any]

LOCAL_SSD_UNDECIDED = (
    "VM has a Local SSD attached but an undefined value for `discard-local-ssd`. If using gcloud, please add "
    "`--discard-local-ssd=false` or `--discard-local-ssd=true` to your command."
)
CANNOT_SUSPEND = {
    "TERMINATED": "You cannot suspend an instance that is stopped or terminated.",
    "STOPPED": "You cannot suspend an instance that is stopped or terminated.",
    "STOPPING": "You cannot suspend an instance that is stopped or terminated.",
    "REPAIRING": "You cannot suspend an instance that is being repaired.",
    "SUSPENDED": "You cannot suspend an already suspended instance.",
}


class Compute(ComputePart):
    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.instances: dict[str, Json] = {}
        """By `projects/…/zones/…/instances/…`; what is written here is the truth."""
        self.discarded: list[str] = []
        """Machines whose local SSDs were thrown away, as often as that was done."""

    def state(self) -> object:
        return [self.instances]

    # Truth

    def machine(
        self,
        name: str = "trainer",
        *,
        project: str = "research",
        zone: str = "us-central1-a",
        machine_type: str = "a2-highgpu-1g",
        gpus: tuple[str, int] | None = None,
        labels: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        provisioning: str = "STANDARD",
        scheduling: Mapping[str, Any] | None = None,
        local_ssds: int | None = None,
        protected: bool = False,
        status: str = "RUNNING",
        created: datetime | None = None,
        **fields: Any,
    ) -> str:
        """A machine that is there; answered is its path.

        `gpus` are those attached to it (type, count), as with N1 machines; those of its type need not be told.
        """
        kept = self.cloud.catalogue.machine_types[machine_type].local_ssds if local_ssds is None else local_ssds
        asked: Json = {
            "name": name,
            "machineType": f"zones/{zone}/machineTypes/{machine_type}",
            "labels": dict(labels or {}),
            "metadata": {"items": [{"key": key, "value": value} for key, value in (metadata or {}).items()]},
            "scheduling": {"provisioningModel": provisioning, "onHostMaintenance": "TERMINATE", **(scheduling or {})},
            "deletionProtection": protected,
            "disks": [{"boot": True, "type": "PERSISTENT"}, *({"type": "SCRATCH"} for _ in range(kept))],
        }
        if gpus is not None:
            asked["guestAccelerators"] = [{"acceleratorType": gpus[0], "acceleratorCount": gpus[1]}]
        path = f"projects/{project}/zones/{zone}/instances/{name}"
        self.instances[path] = self.made(path, asked, created=created or self.cloud.now())
        self.enter(self.instances[path], status)
        self.instances[path].update(fields)
        return path

    def status(self, path: str) -> str | None:
        """The truth about a machine, None when it is gone."""
        return self.instances[path]["status"] if path in self.instances else None

    def vanish(self, path: str) -> None:
        del self.instances[path]

    # Machines

    @answers("compute.instances.get")
    def get_instance(self, call: Call) -> Json:
        return self._instance(call)[1]

    @answers("compute.instances.list")
    def list_instances(self, call: Call) -> Json:
        return self.listed(call, self.instances, "instance")

    @answers("compute.instances.aggregatedList")
    def all_instances(self, call: Call) -> Json:
        return self.aggregated(call, self.instances, "instance", scopes=self.scopes())

    @answers("compute.instances.insert")
    def insert_instance(self, call: Call) -> Json:
        self.check_place(call)
        path = f"projects/{call.project}/zones/{call.zone}/instances/{call.body['name']}"
        if path in self.instances:
            raise already_exists(path)
        machine_type = last(call.body["machineType"])
        if machine_type not in self.cloud.catalogue.machine_types:
            raise invalid(
                f"Invalid value for field 'resource.machineType': '{call.body['machineType']}'. "
                "The referenced resource does not exist."
            )
        instance = self.made(path, call.body, created=self.cloud.now())
        if self.accelerated(instance) and instance["scheduling"]["onHostMaintenance"] != "TERMINATE":
            raise bad_request("Instances with guest accelerators do not support live migration.")
        self.instances[path] = instance
        instance["status"] = "PROVISIONING"
        return self.operation(
            call, "insert", path, instance["id"],
            done=lambda: self.enter(instance, "RUNNING"), undone=lambda: self.instances.pop(path),
        )  # fmt: skip

    @answers("compute.instances.delete")
    def delete_instance(self, call: Call) -> Json:
        path, instance = self._instance(call)
        if instance["deletionProtection"]:
            message = "Invalid resource usage: 'Resource cannot be deleted if it's protected against deletion.'."
            raise Refusal(400, message, reason="invalidResourceUsage")
        self._free(path)
        before = instance["status"]
        instance["status"] = "STOPPING"
        return self.operation(
            call, "delete", path, instance["id"],
            done=lambda: self.instances.pop(path), undone=lambda: self.enter(instance, before),
        )  # fmt: skip

    @answers("compute.instances.stop")
    def stop_instance(self, call: Call) -> Json:
        path, instance = self._instance(call)
        if has_local_ssd(instance) and "discardLocalSsd" not in call.query:
            raise bad_request(LOCAL_SSD_UNDECIDED)
        if instance["status"] in {"TERMINATED", "STOPPED"}:
            return self.operation(call, "stop", path, instance["id"])
        if instance["status"] == "SUSPENDED":
            raise not_ready(path)
        return self._change(call, "stop", through="STOPPING", to="TERMINATED")

    @answers("compute.instances.start")
    def start_instance(self, call: Call) -> Json:
        path, instance = self._instance(call)
        if instance["status"] in {"RUNNING", "PROVISIONING", "STAGING"}:
            return self.operation(call, "start", path, instance["id"])
        if instance["status"] not in {"TERMINATED", "STOPPED"}:
            raise not_ready(path)
        return self._change(call, "start", through="STAGING", to="RUNNING")

    @answers("compute.instances.suspend")
    def suspend_instance(self, call: Call) -> Json:
        path, instance = self._instance(call)
        if self.accelerated(instance):
            raise bad_request("Instances with guest accelerators do not support suspend.")
        if has_local_ssd(instance) and "discardLocalSsd" not in call.query:
            raise bad_request(LOCAL_SSD_UNDECIDED)
        if instance["status"] in CANNOT_SUSPEND:
            failure = Failure(code="UNSUPPORTED_OPERATION", message=CANNOT_SUSPEND[instance["status"]])
            return self.operation(call, "suspend", path, instance["id"], failure=failure)
        return self._change(call, "suspend", through="SUSPENDING", to="SUSPENDED")

    @answers("compute.instances.resume")
    def resume_instance(self, call: Call) -> Json:
        path, instance = self._instance(call)
        if instance["status"] != "SUSPENDED":
            raise not_ready(path)
        return self._change(call, "resume", through="STAGING", to="RUNNING")

    @answers("compute.instances.setScheduling")
    def set_scheduling(self, call: Call) -> Json:
        path, instance = self._instance(call)
        if instance["status"] not in {"TERMINATED", "STOPPED"}:
            raise bad_request("Scheduling options can only be set on a stopped instance.")

        def done() -> None:
            instance["scheduling"] = merged(instance["scheduling"], call.body)

        return self.operation(call, "setScheduling", path, instance["id"], done=done)

    @answers("compute.instances.setLabels")
    def set_labels(self, call: Call) -> Json:
        path, instance = self._instance(call)
        if call.body.get("labelFingerprint") != instance["labelFingerprint"]:
            raise condition_not_met("Labels fingerprint either invalid or resource labels have changed")
        labels = dict(call.body.get("labels", {}))

        def done() -> None:
            instance.update(labels=labels, labelFingerprint=fingerprint(labels))

        return self.operation(call, "setLabels", path, instance["id"], done=done)

    @answers("compute.instances.setMetadata")
    def set_metadata(self, call: Call) -> Json:
        path, instance = self._instance(call)
        if call.body.get("fingerprint") != instance["metadata"]["fingerprint"]:
            raise condition_not_met("Supplied fingerprint does not match current metadata fingerprint.")
        items = list(call.body.get("items", []))

        def done() -> None:
            instance["metadata"].update(items=items, fingerprint=fingerprint(items))

        return self.operation(call, "setMetadata", path, instance["id"], done=done)

    @answers("compute.instances.setDeletionProtection")
    def set_deletion_protection(self, call: Call) -> Json:
        path, instance = self._instance(call)
        wanted = call.query.get("deletionProtection", True)
        return self.operation(
            call, "updateInstance", path, instance["id"], done=lambda: instance.update(deletionProtection=wanted)
        )

    def _change(self, call: Call, verb: str, *, through: str, to: str) -> Json:
        path, instance = self._instance(call)
        if instance["status"] != through:
            self._free(path)
        before = instance["status"]
        instance["status"] = through

        def done() -> None:
            if instance["status"] == to:
                return
            self.enter(instance, to)
            if to in {"TERMINATED", "SUSPENDED"} and has_local_ssd(instance):
                self._leave_local_ssds(path, discarded=call.query["discardLocalSsd"])

        def undone() -> None:
            if before != through:
                self.enter(instance, before)

        return self.operation(call, verb, path, instance["id"], done=done, undone=undone)

    def _leave_local_ssds(self, path: str, *, discarded: bool) -> None:
        if discarded:
            self.discarded.append(path)
        for disk in self.instances[path]["disks"]:
            if disk["type"] == "SCRATCH" and not discarded:
                disk["savedState"] = "PRESERVED"

    def _free(self, path: str) -> None:
        """Nothing else is being done with it."""
        if self.cloud.operations.under_way(path) is not None:
            raise not_ready(path)

    def enter(self, instance: Json, status: str) -> None:
        """It is in another state from now on."""
        now, before = self.cloud.now(), instance.get("status")
        instance["status"] = status
        if before == status:
            return
        instance.pop("resourceStatus", None)
        if status == "RUNNING":
            for disk in instance["disks"]:
                disk.pop("savedState", None)
            instance["lastStartTimestamp"] = self.stamp(now)
            if (limit := _limit(instance["scheduling"], now)) is not None:
                instance["resourceStatus"] = {"scheduling": {"terminationTimestamp": self.stamp(limit)}}
        elif status in {"TERMINATED", "STOPPED"}:
            instance["lastStopTimestamp"] = self.stamp(now)
        elif status == "SUSPENDED":
            instance["lastSuspendedTimestamp"] = self.stamp(now)

    def _instance(self, call: Call) -> tuple[str, Json]:
        self.check_place(call)
        place = f"projects/{call.project}/zones/{call.zone}/instances"
        name = call.names["instance"] if "instance" in call.names else call.names["resource"]
        if (instance := self.instances.get(f"{place}/{name}")) is not None:
            return f"{place}/{name}", instance
        for path, instance in self.instances.items() if name.isdigit() else ():
            if path.startswith(f"{place}/") and instance["id"] == name:
                return path, instance
        raise not_found(f"{place}/{name}")

    def made(self, path: str, asked: Json, *, created: datetime) -> Json:
        """What Google makes of a wish for a machine."""
        place = "/".join(path.split("/")[:4])
        region = f"{'/'.join(path.split('/')[:2])}/regions/{path.split('/')[3].rpartition('-')[0]}"
        labels, items = dict(asked.get("labels", {})), list(asked.get("metadata", {}).get("items", []))
        scheduling = {
            "onHostMaintenance": "MIGRATE", "automaticRestart": True, "preemptible": False,
            "provisioningModel": "STANDARD", **asked.get("scheduling", {}),
        }  # fmt: skip
        if scheduling["provisioningModel"] == "SPOT":
            scheduling.update(preemptible=True, automaticRestart=False)
            scheduling.setdefault("instanceTerminationAction", "STOP")
        instance: Json = {
            "kind": "compute#instance",
            "id": self.cloud.operations.number(),
            "creationTimestamp": self.stamp(created),
            "name": asked["name"],
            "machineType": f"{BASE}{place}/machineTypes/{last(asked['machineType'])}",
            "status": "PROVISIONING",
            "zone": f"{BASE}{place}",
            "canIpForward": False,
            "networkInterfaces": [
                {
                    "kind": "compute#networkInterface",
                    "name": "nic0",
                    "network": f"{BASE}{'/'.join(path.split('/')[:2])}/global/networks/default",
                    "subnetwork": f"{BASE}{region}/subnetworks/default",
                    "networkIP": "10.128.0.2",
                    "fingerprint": fingerprint(path),
                    "stackType": "IPV4_ONLY",
                }
            ],
            "disks": [
                _disk(place, asked["name"], index, disk) for index, disk in enumerate(asked.get("disks") or [{}])
            ],
            "metadata": {"kind": "compute#metadata", "fingerprint": fingerprint(items)},
            "selfLink": BASE + path,
            "scheduling": scheduling,
            "cpuPlatform": "Intel Cascade Lake",
            "labelFingerprint": fingerprint(labels),
            "startRestricted": False,
            "deletionProtection": asked.get("deletionProtection", False),
            "fingerprint": fingerprint(path + self.stamp(created)),
        }
        if items:
            instance["metadata"]["items"] = items
        if labels:
            instance["labels"] = labels
        if asked.get("guestAccelerators"):
            instance["guestAccelerators"] = [
                {
                    "acceleratorType": f"{BASE}{place}/acceleratorTypes/{last(one['acceleratorType'])}",
                    "acceleratorCount": one["acceleratorCount"],
                }
                for one in asked["guestAccelerators"]
            ]
        for key in ("description", "resourcePolicies", "reservationAffinity", "serviceAccounts", "tags"):
            if key in asked:
                instance[key] = asked[key]
        return instance

    def accelerated(self, instance: Json) -> bool:
        kind = self.cloud.catalogue.machine_types.get(last(instance["machineType"]))
        return bool(instance.get("guestAccelerators")) or (kind is not None and kind.accelerators > 0)

    # Operations

    @answers("compute.zoneOperations.get", "compute.zoneOperations.wait")
    def zone_operation(self, call: Call) -> Json:
        return self._operation(call, f"projects/{call.project}/zones/{call.zone}/operations")

    @answers("compute.regionOperations.get", "compute.regionOperations.wait")
    def region_operation(self, call: Call) -> Json:
        return self._operation(call, f"projects/{call.project}/regions/{call.zone}/operations")

    @answers("compute.zoneOperations.list", "compute.regionOperations.list")
    def list_operations(self, call: Call) -> Json:
        told = {path: one.told for path, one in self.cloud.operations.begun.items() if one.service == "compute"}
        return self.listed(call, told, "operation")

    @answers("compute.globalOperations.aggregatedList")
    def all_operations(self, call: Call) -> Json:
        """Those of Google's own, which nobody asked for, are not told."""
        told = {path: one.told for path, one in self.cloud.operations.begun.items() if one.told.get("operationType")}
        told = {path: one for path, one in told.items() if self.cloud.operations.begun[path].service == "compute"}
        return self.aggregated(call, told, "operation", scopes=self.scopes(regional=True))

    def _operation(self, call: Call, place: str) -> Json:
        path = f"{place}/{call.names['operation']}"
        found = self.cloud.operations.look(path)
        if found is None:
            raise not_found(path)
        return found.told


def has_local_ssd(instance: Json) -> bool:
    return any(disk["type"] == "SCRATCH" for disk in instance["disks"])


def _limit(scheduling: Json, start: datetime) -> datetime | None:
    """When Google will end a machine that starts now."""
    ends = []
    if "maxRunDuration" in scheduling:
        ends.append(start + timedelta(seconds=int(scheduling["maxRunDuration"]["seconds"])))
    if "terminationTime" in scheduling:
        ends.append(datetime.fromisoformat(scheduling["terminationTime"]))
    return min(ends, default=None)


def _disk(place: str, name: str, index: int, asked: Json) -> Json:
    local = asked.get("type") == "SCRATCH"
    disk: Json = {
        "kind": "compute#attachedDisk",
        "type": "SCRATCH" if local else "PERSISTENT",
        "mode": "READ_WRITE",
        "deviceName": f"local-ssd-{index - 1}" if local else f"persistent-disk-{index}",
        "index": index,
        "boot": asked.get("boot", index == 0),
        "autoDelete": asked.get("autoDelete", True),
        "interface": "NVME" if local else "SCSI",
        "diskSizeGb": "375" if local else "100",
    }
    return disk if local else {**disk, "source": f"{BASE}{place}/disks/{name if index == 0 else f'{name}-{index}'}"}
