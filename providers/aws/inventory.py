"""Turns an AWS account into records of its machines with accelerators: lists, region by region, and describes one.

Asks; what the answers mean is `translate`'s business.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, cast

from providers.aws import translate
from providers.aws.client import Client, batches
from providers.aws.translate import MachineType
from providers.errors import Misconfigured, NotFound, ProviderError
from providers.records import (
    CapacityType,
    Fault,
    InventoryAnswer,
    PartReport,
    ResourceRecord,
    ResourceRef,
    State,
)

WORKERS = 16
"""Regions asked at the same time; threads here only wait."""
PAGE = 1000
"""Instances per page, EC2's most. Without it EC2 answers all at once, and times out on large accounts."""
TYPES_PER_CALL = 100
SPOT_REQUESTS_PER_CALL = 200

ACCELERATED_FAMILY = re.compile(r"^(p|g|gr|trn|inf|dl)\d")
"""Families whose unknown types may well be ours to govern."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What DescribeInstances answered for one region. With a fault, there may be more."""

    region: str
    instances: Sequence[Mapping[str, Any]]
    fault: Fault | None = None

    @property
    def types(self) -> set[str]:
        return {instance["InstanceType"] for instance in self.instances}


class Ec2Inventory:
    """EC2 instances with accelerators."""

    def __init__(self, client: Client, regions: Literal["all"] | Sequence[str]) -> None:
        self._client = client
        self._regions = regions
        self._types: dict[str, MachineType] = {}
        """What EC2 said of its types. They never change, so they are asked for once."""

    def list(self) -> InventoryAnswer:
        """All machines with accelerators of the account, terminated ones for as long as EC2 shows them."""
        account = self._client.account()
        regions = self._asked_regions()
        with ThreadPoolExecutor(min(WORKERS, len(regions)), thread_name_prefix="ec2-inventory") as pool:
            listings = list(pool.map(self._listing, regions))
            unanswered = self._learn_types(listings)
            parts = list(pool.map(lambda listing: self._part(account, listing, unanswered), listings))
        return InventoryAnswer(
            identity=account,
            records=tuple(record for records, _ in parts for record in records),
            parts=tuple(report for _, report in parts),
        )

    def describe(self, ref: ResourceRef) -> ResourceRecord:
        """One machine, fresh, with its stop protection and spot request. Raises rather than leave one of them open."""
        instance = self._instance(ref)
        machine = self._machine_type(ref.region, instance["InstanceType"])
        record = translate.record(instance, account=ref.account, region=ref.region, machine=machine)
        if record.state is State.TERMINATED:
            return translate.fully_described(record, stop_protection=False)
        if record.capacity_type is CapacityType.SPOT:
            requests = self._spot_requests(ref.region, [ref.external_id])
            record = translate.with_spot_request(record, requests.get(ref.external_id))
        stop_protection = self._client.call(
            "ec2",
            ref.region,
            "DescribeInstanceAttribute",
            "DisableApiStop",
            "Value",
            InstanceId=ref.external_id,
            Attribute="disableApiStop",
        )
        return translate.fully_described(record, stop_protection=stop_protection)

    # listing

    def _asked_regions(self) -> Sequence[str]:
        if self._regions != "all":
            return self._regions
        enabled = self._client.call("ec2", self._client.home_region, "DescribeRegions", "Regions")
        return sorted(region["RegionName"] for region in enabled)

    def _listing(self, region: str) -> Listing:
        instances: list[Mapping[str, Any]] = []
        try:
            for reservation in self._client.items("ec2", region, "DescribeInstances", "Reservations", MaxResults=PAGE):
                instances += reservation.get("Instances", ())
        except ProviderError as error:
            return Listing(region=region, instances=instances, fault=error.as_fault())
        return Listing(region=region, instances=instances)

    def _part(
        self, account: str, listing: Listing, unanswered: Mapping[str, Fault]
    ) -> tuple[Sequence[ResourceRecord], PartReport]:
        """One region's records, and how complete they are."""
        seen: list[ResourceRecord] = []
        builtin, skipped = set[str](), set[str]()
        for instance in listing.instances:
            sku = instance["InstanceType"]
            machine = self._types.get(sku)
            if machine is None:
                machine = _builtin(sku)
                (builtin if machine else skipped).add(sku)
            if machine is not None and machine.devices is not None:
                seen.append(translate.record(instance, account=account, region=listing.region, machine=machine))
        unjudged = {sku for sku in skipped if ACCELERATED_FAMILY.match(sku)}
        records, spot_fault = self._with_spot_requests(listing.region, seen)
        faults = (listing.fault, _types_fault(builtin, unjudged, unanswered), spot_fault)
        return records, PartReport(
            part=listing.region,
            complete=listing.fault is None and not unjudged,  # a machine left out must not look gone
            fault=next((fault for fault in faults if fault is not None), None),
        )

    # machine types

    def _learn_types(self, listings: Iterable[Listing]) -> Mapping[str, Fault]:
        """Asks for types not known yet, each in one region that has it. Answers what was not answered, and why."""
        unanswered: dict[str, Fault] = {}
        for listing in listings:
            wanted = sorted(listing.types - self._types.keys() - unanswered.keys())
            for batch in batches(wanted, TYPES_PER_CALL):
                try:
                    self._ask_types(listing.region, batch)
                except ProviderError as error:
                    unanswered |= dict.fromkeys(batch, error.as_fault())
        return unanswered

    def _ask_types(self, region: str, batch: Sequence[str]) -> None:
        # by filter, for asked by name one unknown type would fail the others
        chosen = [{"Name": "instance-type", "Values": list(batch)}]
        for answer in self._client.items("ec2", region, "DescribeInstanceTypes", "InstanceTypes", Filters=chosen):
            self._types[answer["InstanceType"]] = translate.machine_type(answer)

    def _machine_type(self, region: str, sku: str) -> MachineType:
        if sku in self._types:
            return self._types[sku]
        failure: ProviderError | None = None
        try:
            self._ask_types(region, [sku])
        except ProviderError as error:
            failure = error
        machine = self._types.get(sku) or _builtin(sku)
        if machine is None:
            raise failure or NotFound(f"EC2 in {region} does not know the instance type {sku!r}")
        return machine

    # spot requests

    def _with_spot_requests(
        self, region: str, records: Sequence[ResourceRecord]
    ) -> tuple[Sequence[ResourceRecord], Fault | None]:
        """What spot requests forbid, for the plan and the preview. Unanswered, it is left to `describe`."""
        spot = {
            record.ref.external_id
            for record in records
            if record.capacity_type is CapacityType.SPOT and record.state is not State.TERMINATED
        }
        try:
            requests = self._spot_requests(region, sorted(spot))
        except ProviderError as error:
            return records, error.as_fault()
        return [
            translate.with_spot_request(record, requests.get(record.ref.external_id))
            if record.ref.external_id in spot
            else record
            for record in records
        ], None

    def _spot_requests(self, region: str, instance_ids: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """Spot requests by the instance they brought."""
        return {
            request["InstanceId"]: request
            for batch in batches(instance_ids, SPOT_REQUESTS_PER_CALL)
            for request in self._client.items(
                "ec2",
                region,
                "DescribeSpotInstanceRequests",
                "SpotInstanceRequests",
                Filters=[{"Name": "instance-id", "Values": list(batch)}],
            )
        }

    # one instance

    def _instance(self, ref: ResourceRef) -> Mapping[str, Any]:
        try:
            for reservation in self._client.call(
                "ec2", ref.region, "DescribeInstances", "Reservations", InstanceIds=[ref.external_id]
            ):
                for instance in reservation["Instances"]:
                    return cast(Mapping[str, Any], instance)
            raise NotFound(f"EC2 in {ref.region} knows no instance {ref.external_id}")
        except NotFound:
            # another account would not know it either, and that must not read as: it is gone
            account = self._client.account()
            if account != ref.account:
                raise Misconfigured(
                    f"{ref.external_id} belongs to account {ref.account}, but the credentials are of account {account}"
                ) from None
            raise


def _builtin(sku: str) -> MachineType | None:
    row = translate.builtin_types().get(sku)
    return row.machine if row else None


def _types_fault(builtin: set[str], unjudged: set[str], unanswered: Mapping[str, Fault]) -> Fault | None:
    """Says which machines rest on the built-in table, and which were left out for want of a row there."""
    if not builtin and not unjudged:
        return None
    cause = next((unanswered[sku] for sku in sorted(builtin | unjudged) if sku in unanswered), None)
    sentence = cause.sentence if cause else "ec2:DescribeInstanceTypes does not know every type in use"
    if builtin:
        sentence += f"; the built-in table of machine types was used for {', '.join(sorted(builtin))}"
    if unjudged:
        sentence += f"; machines of {len(unjudged)} types it lacks were left out: {', '.join(sorted(unjudged))}"
    return Fault(
        code=cause.code if cause else "NotFound", sentence=sentence, permission=cause.permission if cause else None
    )
