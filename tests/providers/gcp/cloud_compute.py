"""Compute Engine: machines, and the operations that change them."""

from __future__ import annotations

import base64
import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, TypeVar

from tests.providers.gcp.cloud_catalogue import MACHINE_TYPES
from tests.providers.gcp.cloud_lists import matching, page
from tests.providers.gcp.cloud_operations import Failure, Operation
from tests.providers.gcp.cloud_refusals import (
    Refusal,
    already_exists,
    bad_request,
    condition_not_met,
    invalid,
    not_found,
    not_ready,
    phrase,
)

if TYPE_CHECKING:
    from tests.providers.gcp.cloud import Call, Cloud

Json = dict[str, Any]
F = TypeVar("F", bound=Callable[..., Json])

BASE = "https://www.googleapis.com/compute/v1/"
MOUNTAIN_VIEW = timezone(timedelta(hours=-8))
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


def answers(*methods: str) -> Callable[[F], F]:
    """This is what the cloud does when one of these methods is called."""

    def marked(function: F) -> F:
        function.methods = methods  # type: ignore[attr-defined]
        return function

    return marked


class Compute:
    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.instances: dict[str, Json] = {}
        """By `projects/…/zones/…/instances/…`; what is written here is the truth."""

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
        kept = MACHINE_TYPES[machine_type].local_ssds if local_ssds is None else local_ssds
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
        self.instances[path] = self._made(path, asked, created=created or self.cloud.now())
        self._enter(self.instances[path], status)
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
        self._zone(call)
        path = f"projects/{call.project}/zones/{call.zone}/instances/{call.body['name']}"
        if path in self.instances:
            raise already_exists(path)
        machine_type = last(call.body["machineType"])
        if machine_type not in MACHINE_TYPES:
            raise invalid(
                f"Invalid value for field 'resource.machineType': '{call.body['machineType']}'. "
                "The referenced resource does not exist."
            )
        instance = self._made(path, call.body, created=self.cloud.now())
        if accelerated(instance) and instance["scheduling"]["onHostMaintenance"] != "TERMINATE":
            raise bad_request("Instances with guest accelerators do not support live migration.")
        self.instances[path] = instance
        instance["status"] = "PROVISIONING"
        return self.operation(
            call, "insert", path, instance["id"],
            done=lambda: self._enter(instance, "RUNNING"), undone=lambda: self.instances.pop(path),
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
            done=lambda: self.instances.pop(path), undone=lambda: self._enter(instance, before),
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
        if accelerated(instance):
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
        asked = {**instance["scheduling"], **call.body}
        stopped = instance["status"] in {"TERMINATED", "STOPPED"}
        fixed = ("provisioningModel", "preemptible")
        if not stopped and any(asked.get(key) != instance["scheduling"].get(key) for key in fixed):
            raise bad_request("Scheduling preemptible can only be changed on a stopped instance.")
        return self.operation(
            call, "setScheduling", path, instance["id"], done=lambda: instance["scheduling"].update(call.body)
        )

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
        return self.operation(
            call, verb, path, instance["id"],
            done=lambda: self._enter(instance, to), undone=lambda: self._enter(instance, before),
        )  # fmt: skip

    def _free(self, path: str) -> None:
        """Nothing else is being done with it."""
        if self.cloud.operations.under_way(path) is not None:
            raise not_ready(path)

    def _enter(self, instance: Json, status: str) -> None:
        now = self.stamp()
        before, instance["status"] = instance.get("status"), status
        if before == status:
            return
        if status == "RUNNING":
            instance["lastStartTimestamp"] = now
        elif status in {"TERMINATED", "STOPPED"}:
            instance["lastStopTimestamp"] = now
        elif status == "SUSPENDED":
            instance["lastSuspendedTimestamp"] = now

    def _instance(self, call: Call) -> tuple[str, Json]:
        self._zone(call)
        place, name = f"projects/{call.project}/zones/{call.zone}/instances", call.names["instance"]
        for path, instance in self.instances.items():
            if path == f"{place}/{name}" or (path.startswith(f"{place}/") and instance["id"] == name):
                return path, instance
        raise not_found(f"{place}/{name}")

    def _zone(self, call: Call) -> None:
        if call.zone not in self.cloud.zones:
            raise invalid(f"Invalid value for field 'zone': '{call.zone}'. Unknown zone.")

    def _made(self, path: str, asked: Json, *, created: datetime) -> Json:
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

    def _operation(self, call: Call, place: str) -> Json:
        path = f"{place}/{call.names['operation']}"
        found = self.cloud.operations.look(path)
        if found is None:
            raise not_found(path)
        return found.told

    def operation(
        self,
        call: Call,
        verb: str,
        target: str,
        target_id: str,
        *,
        done: Callable[[], object] = lambda: None,
        undone: Callable[[], object] = lambda: None,
        failure: Failure | None = None,
    ) -> Json:
        """Begins one; answered is its first state."""
        place = "/".join(target.split("/")[:4])
        number = self.cloud.operations.number()
        name = f"operation-{number}"
        told: Json = {
            "kind": "compute#operation",
            "id": number,
            "name": name,
            place.split("/")[2].removesuffix("s"): f"{BASE}{place}",
            "operationType": verb,
            "targetLink": BASE + target,
            "targetId": target_id,
            "status": "RUNNING",
            "user": "tests@example.com",
            "progress": 0,
            "insertTime": self.stamp(),
            "startTime": self.stamp(),
            "selfLink": f"{BASE}{place}/operations/{name}",
        }
        if "requestId" in call.query:
            told["clientOperationId"] = call.query["requestId"]
        begun = self.cloud.operations.begin(
            Operation(
                path=f"{place}/operations/{name}", service="compute", verb=verb, target=target, told=told,
                close=self._close, done=done, undone=undone, failure=failure,
            )
        )  # fmt: skip
        return copy.deepcopy(begun.told)

    def _close(self, operation: Operation) -> None:
        operation.told.update(status="DONE", progress=100, endTime=self.stamp())
        if (failure := operation.failure) is not None:
            operation.told.update(
                error={"errors": [{"code": failure.code, "message": failure.message}]},
                httpErrorStatusCode=failure.status,
                httpErrorMessage=phrase(failure.status),
            )

    # Lists

    def scopes(self, *, regional: bool = False) -> list[str]:
        regions = [f"regions/{region}" for region in self.cloud.regions] if regional else []
        return [*regions, *(f"zones/{zone}" for zone in self.cloud.zones)]

    def listed(self, call: Call, things: Mapping[str, Json], what: str) -> Json:
        """Those of one zone or region."""
        place = "/".join(call.path.strip("/").split("/")[2:])
        if "zone" in call.names:
            self._zone(call)
        told, token = self._page(call, [(path, one) for path, one in things.items() if path.startswith(f"{place}/")])
        answer: Json = {"kind": f"compute#{what}List", "id": place, "selfLink": BASE + place}
        if told:
            answer["items"] = [one for _, one in told]
        return {**answer, "nextPageToken": token} if token else answer

    def aggregated(self, call: Call, things: Mapping[str, Json], what: str, *, scopes: Sequence[str]) -> Json:
        """Those of all scopes. A scope nobody can reach is named on the page where it would have come."""
        place = "/".join(call.path.strip("/").split("/")[2:])
        start = f"projects/{call.project}/"
        down = {f"zones/{zone}" for zone in self.cloud.down}
        mine = [(path, one) for path, one in things.items() if path.startswith(start)]
        told, token = self._page(call, [(path, one) for path, one in mine if scope_of(path) not in down])
        begins = call.query.get("pageToken") is None
        first = told[0][0] if told else start
        by_scope: dict[str, Json] = {}
        for scope in scopes:
            here = [one for path, one in told if scope_of(path) == scope]
            if here:
                by_scope[scope] = {f"{what}s": here}
            elif scope in down and (begins or f"{start}{scope}" > first) and (
                token is None or f"{start}{scope}" < told[-1][0]
            ):  # fmt: skip
                by_scope[scope] = _warned("UNREACHABLE", f"The scope '{scope}' is currently unreachable.", scope)
            else:
                words = f"There are no results for scope '{scope}' on this page."
                by_scope[scope] = _warned("NO_RESULTS_ON_PAGE", words, scope)
        answer: Json = {
            "kind": f"compute#{what}AggregatedList", "id": place, "items": by_scope, "selfLink": BASE + place
        }  # fmt: skip
        unreached = [scope for scope, said in by_scope.items() if said.get("warning", {}).get("code") == "UNREACHABLE"]
        if unreached:
            answer["unreachables"] = [f"projects/{call.project}/{scope}" for scope in unreached]
        return {**answer, "nextPageToken": token} if token else answer

    def _page(self, call: Call, found: Sequence[tuple[str, Json]]) -> tuple[list[tuple[str, Json]], str | None]:
        most = call.query.get("maxResults", 500)
        if most > 500:
            raise invalid(f"Invalid value for field 'maxResults': '{most}'. Must be less than or equal to 500.")
        wanted = matching(call.query["filter"]) if call.query.get("filter", "").strip() else lambda _: True
        return page(
            [(path, one) for path, one in found if wanted(one)],
            most=min(most or 500, self.cloud.most_per_page),
            token=call.query.get("pageToken"),
            question=f"{call.path} {call.query.get('filter', '')}",
        )

    def stamp(self, at: datetime | None = None) -> str:
        """As Compute Engine writes times: where Google is at home."""
        return (at or self.cloud.now()).astimezone(MOUNTAIN_VIEW).isoformat(timespec="milliseconds")


def last(url: str) -> str:
    return url.rstrip("/").rpartition("/")[2]


def scope_of(path: str) -> str:
    return "/".join(path.split("/")[2:4])


def accelerated(instance: Json) -> bool:
    kind = MACHINE_TYPES.get(last(instance["machineType"]))
    return bool(instance.get("guestAccelerators")) or (kind is not None and kind.accelerators > 0)


def has_local_ssd(instance: Json) -> bool:
    return any(disk["type"] == "SCRATCH" for disk in instance["disks"])


def fingerprint(value: object) -> str:
    return base64.b64encode(hashlib.sha256(repr(value).encode()).digest()[:8]).decode()


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


def _warned(code: str, message: str, scope: str) -> Json:
    return {"warning": {"code": code, "message": message, "data": [{"key": "scope", "value": scope}]}}
