"""Turns AWS accounts into records of machines with accelerators and their groups: region by region, or one of them.

Asks; what the answers mean is `translate`'s business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableSequence, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from threading import Condition
from typing import Any, Literal, TypeVar, cast

from providers.aws import translate
from providers.aws.accounts import Accounts, Roster
from providers.aws.client import Client, translated
from providers.aws.groups import Groups, Templates
from providers.aws.reservations import DIGEST, Reader
from providers.aws.translate import MachineType
from providers.errors import Misconfigured, NotFound, ProviderError, Unsupported, or_raise
from providers.progress import Progress
from providers.questions import Questions, batches
from providers.records import (
    CapacityType,
    Fault,
    InventoryAnswer,
    Kind,
    PartReport,
    ResourceRecord,
    ResourceRef,
    State,
)

T = TypeVar("T")

REGIONS_AT_ONCE = 16
"""Of one account; threads here only wait."""
PATIENCE_SECONDS = 60.0
"""For one region of one account, and for one machine: a usual cycle. Twice the SDK's own time-out, so that a lost
answer can be asked for again, and several pages can be waited for at the pace of an account that AWS throttles."""
REGIONS_HOLD = timedelta(minutes=10)
"""How long a list of enabled regions is trusted."""
REQUESTS_HOLD = timedelta(minutes=10)
"""How long what a spot request allows is told to the plan. Before an act it is asked anew."""
TYPES_WAIT_SECONDS = 5.0
"""For another region that asks for the same machine types already. Then both ask."""
PAGE = 1000
"""Instances per page, EC2's most. Without it EC2 answers all at once, and times out on large accounts."""
TYPES_PER_CALL = 100
SPOT_REQUESTS_PER_CALL = 200

EVERY_REGION = "*"
"""The part of an account whose regions are not known."""

Place = tuple[str, str]
"""(account, region)"""


@dataclass(frozen=True, kw_only=True)
class Look:
    """One region's records, and how complete they are."""

    records: Sequence[ResourceRecord]
    complete: bool
    fault: Fault | None


class Ec2Inventory:
    """EC2 instances with accelerators, and the groups that scale them."""

    def __init__(
        self,
        accounts: Accounts,
        regions: Literal["all"] | Sequence[str],
        *,
        now: Callable[[], datetime],
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._accounts = accounts
        self._regions = regions
        self._now = now
        self._questions: Questions[tuple[str, ...]] = Questions(
            "AWS", patience=patience_seconds, at_once=REGIONS_AT_ONCE
        )
        self._enabled: dict[str, tuple[datetime, Sequence[str]]] = {}
        """Regions by account, and when they were told."""
        self._types: dict[str, MachineType] = {}
        """What EC2 said of its types. They never change, so they are asked for once."""
        self._asked_types: set[str] = set()
        self._types_told = Condition()
        self._templates: Templates = {}
        self._unchanged: dict[Place, Mapping[bytes, Sequence[ResourceRecord]]] = {}
        """Records by what their reservation's bytes were when it was last listed."""
        self._listing: tuple[Sequence[Place], set[Place]] = ((), set())
        """Of the listing under way, or the last one: what is asked, and which of it has not answered."""
        self._requests: dict[Place, Mapping[str, tuple[datetime, Mapping[str, Any]]]] = {}
        """Spot requests by instance, and when they were told."""

    def list(self) -> InventoryAnswer:
        """All machines with accelerators of all accounts, terminated ones for as long as EC2 shows them."""
        self._listing = ((), set())
        roster = self._roster()
        regions, unknown = self._asked_regions(roster)
        places = [(account, region) for account, names in regions.items() for region in names]
        waiting = set(places)
        self._listing = (places, waiting)

        def ask(place: Place) -> Look:
            try:
                return self._look(*place)
            finally:
                waiting.discard(place)

        looks = self._questions.answers({place: partial(ask, place) for place in places})
        seen = {
            place: Look(records=(), complete=False, fault=look.as_fault()) if isinstance(look, ProviderError) else look
            for place, look in zip(places, looks.values(), strict=True)
        }
        return InventoryAnswer(
            identity=roster.identity,
            records=tuple(record for look in seen.values() for record in look.records),
            parts=(
                *unknown,
                *(
                    self._report(account, region, complete=look.complete, fault=look.fault)
                    for (account, region), look in seen.items()
                ),
            ),
        )

    def progress(self) -> Progress:
        """Accounts and regions; one that is given up waits on."""
        places, waiting = self._listing
        still = waiting.copy()
        named = [(place, f"{place[0]}/{place[1]}" if self._accounts.several else place[1]) for place in places]
        return Progress(
            answered=tuple(name for place, name in named if place not in still),
            waiting=tuple(name for place, name in named if place in still),
        )

    def describe(self, ref: ResourceRef) -> ResourceRecord:
        """One machine or group, fresh, with all that takes a question of its own. Raises rather than leave one open."""
        key = (ref.account, ref.region, ref.kind, ref.external_id)
        return or_raise(self._questions.answers({key: partial(self._describe, ref)})[key])

    def _describe(self, ref: ResourceRef) -> ResourceRecord:
        client = self._accounts.of(ref.account)
        if ref.kind is Kind.NODE_GROUP:
            return self._groups(client).describe(ref)
        instance = self._instance(client, ref)
        machine = self._machine_type(client, ref.region, instance["InstanceType"])
        record = translate.record(instance, account=ref.account, region=ref.region, machine=machine)
        if record.state is State.TERMINATED:
            return translate.fully_described(record, stop_protection=False, termination_protection=False)
        if record.capacity_type is CapacityType.SPOT:
            requests = self._spot_requests(client, ref.region, [ref.external_id])
            record = translate.with_spot_request(record, requests.get(ref.external_id))
        return translate.fully_described(
            record,
            stop_protection=self._attribute(client, ref, "disableApiStop"),
            termination_protection=self._attribute(client, ref, "disableApiTermination"),
        )

    # accounts and regions

    def _roster(self) -> Roster:
        """Raises when it is not known whose resources to see."""
        return or_raise(self._questions.answers({("", "accounts"): self._accounts.roster})["", "accounts"])

    def _asked_regions(self, roster: Roster) -> tuple[Mapping[str, Sequence[str]], Sequence[PartReport]]:
        """Regions by account, and what is not known of that. Raises only when nothing else is left to ask."""
        parts: MutableSequence[PartReport] = []
        if roster.fault is not None:
            parts.append(PartReport(part="accounts", complete=False, fault=roster.fault))
        if self._regions != "all":
            return dict.fromkeys(roster.accounts, self._regions), parts
        now = self._now()
        due = [one for one in roster.accounts if one not in self._enabled or self._holds_no_more(one, now)]
        told = self._questions.answers({(one, EVERY_REGION): partial(self._enabled_regions, one) for one in due})
        for (account, _), names in told.items():
            if not isinstance(names, ProviderError):
                self._enabled[account] = (now, names)
            elif self._accounts.several or account in self._enabled:
                parts.append(self._report(account, EVERY_REGION, complete=False, fault=names.as_fault()))
            else:
                raise names
        return {one: self._enabled[one][1] for one in roster.accounts if one in self._enabled}, parts

    def _holds_no_more(self, account: str, now: datetime) -> bool:
        return not timedelta() <= now - self._enabled[account][0] < REGIONS_HOLD

    def _enabled_regions(self, account: str) -> Sequence[str]:
        client = self._accounts.of(account)
        enabled = client.call("ec2", client.home_region, "DescribeRegions", "Regions")
        with translated("ec2", client.home_region, "DescribeRegions"):
            return sorted(region["RegionName"] for region in enabled)

    def _report(self, account: str, part: str, *, complete: bool, fault: Fault | None) -> PartReport:
        return PartReport(
            part=part, complete=complete, fault=fault, account=account if self._accounts.several else None
        )

    # one region of one account

    def _look(self, account: str, region: str) -> Look:
        client = self._accounts.of(account)
        before = self._unchanged.get((account, region), {})
        reader = Reader(before, of_no_interest=self._has_no_accelerators)
        unchanged: dict[bytes, Sequence[ResourceRecord]] = {}
        found: list[ResourceRecord] = []
        unanswered: dict[str, Fault] = {}
        builtin, skipped = set[str](), set[str]()
        broken: Fault | None = None
        try:
            for page in client.pages(
                "ec2", region, "DescribeInstances", "Reservations", reading=reader, MaxResults=PAGE
            ):
                with translated("ec2", region, "DescribeInstances"):
                    skus = {instance["InstanceType"] for instance in _instances(page)}
                    unanswered |= self._learn_types(client, region, skus - unanswered.keys())
                    for reservation in page["Reservations"]:
                        digest = reservation.get(DIGEST, b"")
                        records, settled = before.get(digest, ()), True
                        if digest not in before:
                            records, settled = self._records(reservation, account, region, builtin, skipped)
                        found += records
                        if digest and settled:
                            unchanged[digest] = records
        except ProviderError as error:
            broken = error.as_fault()
        self._unchanged[account, region] = unchanged
        unjudged = {sku for sku in skipped if translate.ACCELERATED_FAMILY.match(sku)}
        all_records, spot_fault = self._with_spot_requests(client, (account, region), found)
        groups, group_fault = self._groups(client).list(region, all_records)
        faults = (broken, group_fault, _types_fault(builtin, unjudged, unanswered), spot_fault)
        return Look(
            records=[*all_records, *groups],
            complete=broken is None and group_fault is None and not unjudged,  # what is left out must not look gone
            fault=next((fault for fault in faults if fault is not None), None),
        )

    def _records(
        self, reservation: Mapping[str, Any], account: str, region: str, builtin: set[str], skipped: set[str]
    ) -> tuple[Sequence[ResourceRecord], bool]:
        """Its machines with accelerators, and whether EC2 told the type of each. Notes the types it did not tell."""
        records = []
        settled = True
        for instance in reservation.get("Instances", ()):
            sku = instance["InstanceType"]
            machine = self._types.get(sku)
            if machine is None:
                settled = False
                machine = _builtin(sku)
                (builtin if machine else skipped).add(sku)
            if machine is not None and machine.devices is not None:
                records.append(translate.record(instance, account=account, region=region, machine=machine))
        return tuple(records), settled

    def _groups(self, client: Client) -> Groups:
        return Groups(client, types=self._types, templates=self._templates)

    # machine types

    def _has_no_accelerators(self, sku: str) -> bool:
        machine = self._types.get(sku)
        return machine is not None and machine.devices is None

    def _learn_types(self, client: Client, region: str, skus: set[str]) -> Mapping[str, Fault]:
        """Asks for types not known yet, once for all regions. Answers what was not answered, and why."""
        with self._types_told:
            self._types_told.wait_for(
                lambda: self._asked_types.isdisjoint(skus - self._types.keys()), timeout=TYPES_WAIT_SECONDS
            )
            wanted = sorted(skus - self._types.keys())
            self._asked_types |= set(wanted)
        unanswered: dict[str, Fault] = {}
        try:
            for batch in batches(wanted, TYPES_PER_CALL):
                try:
                    self._ask_types(client, region, batch)
                except ProviderError as error:
                    unanswered |= dict.fromkeys(batch, error.as_fault())
        finally:
            with self._types_told:
                self._asked_types -= set(wanted)
                self._types_told.notify_all()
        return unanswered

    def _ask_types(self, client: Client, region: str, batch: Sequence[str]) -> None:
        # by filter, for asked by name one unknown type would fail the others
        chosen = [{"Name": "instance-type", "Values": list(batch)}]
        for answer in client.items("ec2", region, "DescribeInstanceTypes", "InstanceTypes", Filters=chosen):
            self._types[answer["InstanceType"]] = translate.machine_type(answer)

    def _machine_type(self, client: Client, region: str, sku: str) -> MachineType:
        if sku in self._types:
            return self._types[sku]
        failure: ProviderError | None = None
        try:
            self._ask_types(client, region, [sku])
        except ProviderError as error:
            failure = error
        machine = self._types.get(sku) or _builtin(sku)
        if machine is None:
            # not NotFound: that would read as if the machine were gone
            raise failure or Unsupported(f"EC2 in {region} does not know the instance type {sku!r}")
        return machine

    # spot requests

    def _with_spot_requests(
        self, client: Client, place: Place, records: Sequence[ResourceRecord]
    ) -> tuple[Sequence[ResourceRecord], Fault | None]:
        """What spot requests forbid, for the plan and the preview. Unanswered, it is left to `describe`."""
        now = self._now()
        spot = {
            record.ref.external_id
            for record in records
            if record.capacity_type is CapacityType.SPOT and record.state is not State.TERMINATED
        }
        before = self._requests.get(place, {})
        told = {one: before[one] for one in spot & before.keys() if timedelta() <= now - before[one][0] < REQUESTS_HOLD}
        fault: Fault | None = None
        try:
            found = self._spot_requests(client, place[1], sorted(spot - told.keys()))
            told |= {one: (now, request) for one, request in found.items()}
        except ProviderError as error:
            fault = error.as_fault()
        self._requests[place] = told

        def allowed(record: ResourceRecord) -> ResourceRecord:
            one = record.ref.external_id
            if one not in spot or (one not in told and fault is not None):
                return record
            return translate.with_spot_request(record, told[one][1] if one in told else None)

        return [allowed(record) for record in records], fault

    def _spot_requests(
        self, client: Client, region: str, instance_ids: Sequence[str]
    ) -> Mapping[str, Mapping[str, Any]]:
        """Spot requests by the instance they brought."""
        return {
            request["InstanceId"]: {name: request.get(name) for name in translate.SPOT_REQUEST}
            for batch in batches(instance_ids, SPOT_REQUESTS_PER_CALL)
            for request in client.items(
                "ec2",
                region,
                "DescribeSpotInstanceRequests",
                "SpotInstanceRequests",
                Filters=[{"Name": "instance-id", "Values": list(batch)}],
            )
        }

    # one instance

    def _attribute(self, client: Client, ref: ResourceRef, name: str) -> bool:
        answer = client.call(
            "ec2",
            ref.region,
            "DescribeInstanceAttribute",
            name[0].upper() + name[1:],
            "Value",
            InstanceId=ref.external_id,
            Attribute=name,
        )
        return bool(answer)

    def _instance(self, client: Client, ref: ResourceRef) -> Mapping[str, Any]:
        try:
            for reservation in client.call(
                "ec2", ref.region, "DescribeInstances", "Reservations", InstanceIds=[ref.external_id]
            ):
                for instance in reservation["Instances"]:
                    return cast(Mapping[str, Any], instance)
            raise NotFound(f"EC2 in {ref.region} knows no instance {ref.external_id}")
        except NotFound:
            # another account would not know it either, and that must not read as: it is gone
            account = client.account()
            if account != ref.account:
                raise Misconfigured(
                    f"{ref.external_id} belongs to account {ref.account}, but the credentials are of account {account}"
                ) from None
            raise


def _instances(page: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Those that must be read; a reservation that is known as it is tells none."""
    for reservation in page["Reservations"]:
        yield from reservation.get("Instances", ())


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
