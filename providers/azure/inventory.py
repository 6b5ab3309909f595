"""Turns subscriptions of Azure into records of machines with accelerators, their scale sets and node pools, and Azure
ML compute instances: list by list and subscription by subscription, or one of them.

Asks; what the answers mean is `translate`'s business, and what they mean together is `join`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableSequence, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple, TypeVar
from zlib import crc32

from providers.azure import machine_types, missing, surroundings, translate, translate_groups
from providers.azure.client import Client, NotEnabled
from providers.azure.groups import COMPUTE, EXPANDED, Groups, Members
from providers.azure.join import EVERY_REGION, Joined, Look, Machine, Machines, More, Power, Powers, joined, view_in
from providers.azure.listing import Listed, items, listed
from providers.azure.machine_types import MachineTypes
from providers.azure.missing import LEARNING, Known
from providers.azure.surroundings import Surroundings, another
from providers.azure.translate import Around
from providers.errors import Misconfigured, NotFound, ProviderError, Unreachable, or_raise
from providers.progress import Progress
from providers.questions import Questions, readable
from providers.records import Fault, InventoryAnswer, Kind, PartReport, ResourceRecord, ResourceRef

T = TypeVar("T")
Answer = Mapping[str, Any]

IDENTITY = "subscriptions"
PATIENCE_SECONDS = 60.0
"""For one list of one subscription, and for one machine: a usual cycle. Twice the client's own time-out, so that a
lost answer can be asked for again, and several pages can be waited for at the pace Azure lets a subscription have."""
ROWS = 32
"""Subscriptions stand in so many rows; a company of hundreds would take as many threads."""
AT_ONCE = 8
"""Questions asked side by side in each row; threads here only wait."""
SWITCHED_OFF_HOLDS = timedelta(minutes=10)
"""How long a provider that is not registered in a subscription is not asked again, once it has said so twice: what was
there ends after two answers without it, and one that is only repeated is no second one.
"""
MOST_ALONE = 200
"""Machines of a subscription that are asked for one by one in a look, when a list does not tell of them."""
MACHINES, POWERS = "machines", "power states"
LISTS = (MACHINES, POWERS, translate_groups.SCALE_SETS, translate_groups.NODE_POOLS, translate.COMPUTES)
"""What is listed of a subscription."""

Key = tuple[str, tuple[str, str, str]]
"""(row, (subscription, what is asked, of what))"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Computes:
    """The compute instances of a workspace, and whether there may be more."""

    answers: Sequence[Answer]
    fault: Fault | None


class SwitchedOff(NamedTuple):
    """A provider that is not registered in a subscription: when it was last told, and whether before that, too."""

    at: datetime
    said_twice: bool


class AzureInventory:
    """Machines with accelerators, the scale sets and node pools that make them, and Azure ML compute instances."""

    def __init__(
        self,
        client: Client,
        subscriptions: Sequence[str],
        *,
        now: Callable[[], datetime],
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._client = client
        self._subscriptions = tuple(subscriptions)
        self._now = now
        self._questions: Questions[Key] = Questions("Azure", patience=patience_seconds, at_once=AT_ONCE)
        self._types = MachineTypes(client, now=now)
        self._surroundings = Surroundings(client)
        self._groups = Groups(client, self._types, self._surroundings)
        self._switched_off: dict[tuple[str, str], SwitchedOff] = {}
        """Lists whose provider is not registered in a subscription."""
        self._known: dict[str, Known] = {}
        """What was listed last, by subscription; and what lists lack since, and is not known to be gone."""
        self._waiting: set[tuple[str, str]] = set()
        """Of the listing under way, or the last one: which lists have not answered."""

    def list(self) -> InventoryAnswer:
        """All machines, scale sets, node pools and compute instances of all subscriptions."""
        self._waiting = {(one, what) for one in self._subscriptions for what in LISTS}
        looks = self._looks()
        more = self._more(looks)
        records: MutableSequence[ResourceRecord] = []
        parts: MutableSequence[PartReport] = []
        found: dict[str, Joined] = {}
        lacking: dict[str, Known] = {}
        for look in looks:
            one = look.subscription
            try:
                with readable(f"the lists of {one}"):
                    found[one] = joined(look, more[one], self._types.type_of)
                    lacking[one] = missing.missing(self._known.get(one, {}), found[one], look, more[one])
            except ProviderError as error:
                found.pop(one, None)
                parts.append(_silent(one, error))
        doubts = self._doubts({one: lacking[one] for one in found})
        for one, told in found.items():
            records += told.records
            parts += missing.incomplete(told.parts, lacking[one], doubts[one])
            self._known[one] = {
                **self._unlisted_yet(one, told),
                **{path: lacking[one][path] for path in doubts[one]},
                **missing.known(told.records),
            }
        return InventoryAnswer(identity=IDENTITY, records=tuple(records), parts=tuple(parts))

    def _unlisted_yet(self, subscription: str, told: Joined) -> Known:
        """What was known of parts that were not told in full this time."""
        complete = {part.part: part.complete for part in told.parts}
        return {
            path: part
            for path, part in self._known.get(subscription, {}).items()
            if not complete.get(part, complete[EVERY_REGION])
        }

    def _doubts(self, lacking: Mapping[str, Known]) -> Mapping[str, Mapping[str, Fault]]:
        """By subscription: what its lists lack, and is not known to be gone."""
        asked: Mapping[Key, Callable[[], bool]] = {
            (_row(one), (one, "missing", path)): partial(missing.is_there, self._client, path)
            for one, paths in lacking.items()
            for path in [*paths][:MOST_ALONE]
        }
        answers: dict[str, dict[str, bool | ProviderError]] = {one: {} for one in lacking}
        for (_, (one, _, path)), answer in self._questions.answers(asked).items():
            answers[one][path] = answer
        return {one: missing.doubted(paths, answers[one]) for one, paths in lacking.items()}

    def progress(self) -> Progress:
        """Subscriptions, or the lists of a single one; one that is given up waits on."""
        still = self._waiting.copy()
        if len(self._subscriptions) == 1:
            units = [(what, {(self._subscriptions[0], what)}) for what in LISTS]
        else:
            units = [(one, {(one, what) for what in LISTS}) for one in self._subscriptions]
        return Progress(
            answered=tuple(name for name, places in units if places.isdisjoint(still)),
            waiting=tuple(name for name, places in units if not places.isdisjoint(still)),
        )

    def describe(self, ref: ResourceRef) -> ResourceRecord:
        """One machine, group or compute instance, fresh. Raises rather than leave anything of it open."""
        if ref.account not in self._subscriptions:
            raise Misconfigured(f"subscription {ref.account} is none of this source's")
        key: Key = (f"describe in {_row(ref.account)}", (ref.account, ref.kind, ref.external_id))
        return or_raise(self._questions.answers({key: partial(self._describe, ref)})[key])

    # all lists

    def _looks(self) -> Sequence[Look]:
        """Of all subscriptions, side by side. Raises when nothing could be asked at all."""
        waiting = self._waiting

        def ask(subscription: str, what: str) -> Any:
            try:
                return self._ask(subscription, what)
            finally:
                waiting.discard((subscription, what))

        asked: Mapping[Key, Callable[[], Any]] = {
            (_row(one), (one, what, "")): partial(ask, one, what) for one in self._subscriptions for what in LISTS
        }
        answers: dict[tuple[str, str], Any] = {
            (one, what): answer for (_, (one, what, _)), answer in self._questions.answers(asked).items()
        }
        refused = [answer for answer in answers.values() if isinstance(answer, Misconfigured)]
        if refused and len(refused) == len(answers):
            raise refused[0]
        return [
            Look(
                subscription=one,
                machines=_told(answers[one, MACHINES], lambda fault: Machines(complete=False, fault=fault)),
                powers=_told(answers[one, POWERS], lambda fault: Powers(complete=False, fault=fault)),
                scale_sets=_told(answers[one, translate_groups.SCALE_SETS], _unlisted),
                clusters=_told(answers[one, translate_groups.NODE_POOLS], _unlisted),
                workspaces=_told(answers[one, translate.COMPUTES], _unlisted),
            )
            for one in self._subscriptions
        ]

    def _ask(self, subscription: str, what: str) -> Machines | Powers | Listed:
        questions: Mapping[str, tuple[Callable[[str], Machines | Powers | Listed], Machines | Powers | Listed]] = {
            MACHINES: (self._machines, Machines()),
            POWERS: (self._powers, Powers()),
            translate_groups.SCALE_SETS: (self._groups.scale_sets, Listed()),
            translate_groups.NODE_POOLS: (self._groups.clusters, Listed()),
            translate.COMPUTES: (self._workspaces, Listed()),
        }
        question, nothing = questions[what]
        before = self._switched_off.get((subscription, what))
        if before is not None and before.said_twice and timedelta() <= self._now() - before.at < SWITCHED_OFF_HOLDS:
            return nothing
        try:
            answer = question(subscription)
        except NotEnabled:
            self._switched_off[subscription, what] = SwitchedOff(at=self._now(), said_twice=before is not None)
            return nothing
        self._switched_off.pop((subscription, what), None)
        return answer

    def _machines(self, subscription: str) -> Machines:
        path = _all_machines(subscription)
        found: MutableSequence[Machine] = []
        ids, broken = set[str](), None
        builtin, unjudged = set[str](), set[tuple[str, str]]()
        unanswered: dict[str, Fault] = {}
        beside: dict[str, list[str]] = {}
        try:
            for page in self._client.pages(path, version=COMPUTE):
                with readable(path):
                    # a list that moves while it is read may tell of one twice
                    new = {key: vm for vm in page["value"] if (key := translate.folded(vm["id"])) not in ids}
                    ids |= new.keys()
                    machines: Sequence[Answer] = [*new.values()]
                    wanted: dict[str, set[str]] = {}
                    for vm in machines:
                        wanted.setdefault(translate.location(vm["location"]), set()).add(translate.sku_of(vm))
                    unanswered |= self._types.learn(subscription, wanted)
                    skus = {sku for theirs in wanted.values() for sku in theirs}
                    types = {sku: self._types.type_of(sku) for sku in skus}
                    builtin |= {sku for sku in skus if types[sku] is not None and self._types.get(sku) is None}
                    for vm in machines:
                        sku = translate.sku_of(vm)
                        machine = types[sku]
                        if machine is not None and machine.devices is not None:
                            translate.check_account(vm["id"], subscription)
                            found.append(Machine(vm, machine))
                            continue
                        if machine is None and translate.may_have_accelerators(sku):
                            unjudged.add((sku, translate.location(vm["location"])))
                        if scale_set := translate.scale_set_of(vm):
                            beside.setdefault(translate.folded(scale_set), []).append(translate.canonical(vm["id"]))
        except ProviderError as error:
            if not ids:
                raise
            broken = error.as_fault()
        left_out = machine_types.fault_of((), {sku for sku, _ in unjudged}, unanswered)
        return Machines(
            found=found,
            ids=ids,
            beside=beside,
            regions={region: left_out for _, region in unjudged if left_out is not None},
            complete=broken is None,
            fault=broken or machine_types.fault_of(builtin, (), unanswered),
        )

    def _powers(self, subscription: str) -> Powers:
        path = _all_machines(subscription)
        views: dict[str, Power] = {}
        try:
            with readable(path):
                for vm in items(self._client, path, version=COMPUTE, query={"statusOnly": "true"}):
                    views[translate.folded(vm["id"])] = Power(view_in(vm), translate.location(vm.get("location") or ""))
        except ProviderError as error:
            if not views:
                raise
            return Powers(views=views, complete=False, fault=error.as_fault())
        return Powers(views=views)

    def _workspaces(self, subscription: str) -> Listed:
        path = f"/subscriptions/{subscription}/providers/Microsoft.MachineLearningServices/workspaces"
        found = listed(self._client, path, version=LEARNING)
        # a project uses the computes of its hub
        with readable(path):
            own = [one for one in found.answers if str(one.get("kind")).lower() != "project"]
            for one in own:
                translate.check_account(one["id"], subscription)
        return Listed(answers=own, complete=found.complete, fault=found.fault)

    # what the lists leave open

    def _more(self, looks: Sequence[Look]) -> Mapping[str, More]:
        """By subscription."""
        asked = {
            (_row(look.subscription), (look.subscription, what, of)): question
            for look in looks
            for what, of, question in self._further(look)
        }
        answers: dict[str, dict[tuple[str, str], Any]] = {look.subscription: {} for look in looks}
        for (_, (subscription, what, of)), answer in self._questions.answers(asked).items():
            answers[subscription][what, of] = answer
        return {look.subscription: self._sorted(look, answers[look.subscription]) for look in looks}

    def _further(self, look: Look) -> Iterator[tuple[str, str, Callable[[], Any]]]:
        one, types = look.subscription, self._types.type_of
        for path in [*look.doubtful()][:MOST_ALONE]:
            yield "alone", path, partial(self._alone, one, path)
        for scale_set in look.asked_sets(types):
            yield "instances", translate.folded(scale_set["id"]), partial(self._groups.instances, one, scale_set)
        for workspace in look.workspaces.answers:
            yield "computes", translate.folded(workspace["id"]), partial(self._computes, one, workspace)
        if look.has_ours(types):
            yield surroundings.LOCKS, "", partial(self._surroundings.locks, one)
            yield surroundings.GROUPS, "", partial(self._surroundings.owners, one)
            if look.machines.found:
                yield surroundings.ADDRESSES, "", partial(self._surroundings.addresses, one)
            if look.scale_sets.answers:
                yield surroundings.AUTOSCALES, "", partial(self._surroundings.autoscales, one)

    def _sorted(self, look: Look, answers: Mapping[tuple[str, str], Any]) -> More:
        faults: MutableSequence[Fault] = []

        def around(what: str) -> Mapping[str, Any]:
            answer = answers.get((what, ""), {})
            if isinstance(answer, ProviderError):
                faults.append(answer.as_fault())
                return {}
            known: Mapping[str, Any] = answer
            return known

        def of(what: str) -> Mapping[str, Any]:
            return {key: answer for (asked, key), answer in answers.items() if asked == what}

        alone, doubtful = of("alone"), look.doubtful()
        untold = {key: answer for key, answer in alone.items() if isinstance(answer, ProviderError)}
        too_many = doubtful.keys() - alone.keys()
        computes: Sequence[Computes] = [
            Computes(answers=(), fault=one.as_fault()) if isinstance(one, ProviderError) else one
            for one in of("computes").values()
        ]
        return More(
            alone={key: answer for key, answer in alone.items() if key not in untold},
            unanswered={
                **{doubtful[key]: _uncertain(len(doubtful)) for key in too_many},
                **{doubtful[key]: error.as_fault() for key, error in untold.items()},
            },
            instances={
                key: Members(complete=False, fault=one.as_fault()) if isinstance(one, ProviderError) else one
                for key, one in of("instances").items()
            },
            computes=[answer for one in computes for answer in one.answers],
            computes_faults=[one.fault for one in computes if one.fault is not None],
            around=Around(
                locks=around(surroundings.LOCKS),
                owners=around(surroundings.GROUPS),
                addresses=around(surroundings.ADDRESSES),
                placements={
                    translate.folded(one["id"]) for one in look.scale_sets.answers if translate_groups.only_places(one)
                },
            ),
            autoscales=around(surroundings.AUTOSCALES),
            faults=faults,
        )

    def _alone(self, subscription: str, path: str) -> Answer | None:
        """A machine as it is by itself; None when it is gone."""
        try:
            with readable(path):
                vm = self._client.get(translate.canonical(path), version=COMPUTE, query=EXPANDED)
                place, sku = translate.location(vm["location"]), translate.sku_of(vm)
        except NotFound:
            return None
        self._types.one(subscription, place, sku)  # raises where it cannot be told whether it is ours
        return vm

    def _computes(self, subscription: str, workspace: Answer) -> Computes:
        path = f"{translate.canonical(workspace['id'])}/computes"
        found = listed(self._client, path, version=LEARNING)
        with readable(path):
            computes = [one for one in found.answers if translate.is_instance(one)]
            wanted: dict[str, set[str]] = {}
            for one in computes:
                wanted.setdefault(translate.compute_region(one), set()).add(translate.compute_sku(one))
        unanswered = self._types.learn(subscription, wanted)
        skus = {sku for theirs in wanted.values() for sku in theirs}
        unjudged = {sku for sku in skus if self._types.type_of(sku) is None and translate.may_have_accelerators(sku)}
        return Computes(answers=computes, fault=found.fault or machine_types.fault_of((), unjudged, unanswered))

    # one of them

    def _describe(self, ref: ResourceRef) -> ResourceRecord:
        if ref.kind is Kind.NODE_GROUP:
            return self._groups.describe(ref)
        if ref.kind is Kind.NOTEBOOK:
            return self._describe_compute(ref)
        if "/virtualMachineScaleSets/" in ref.external_id:
            return self._groups.describe_instance(ref)
        return self._describe_machine(ref)

    def _describe_machine(self, ref: ResourceRef) -> ResourceRecord:
        vm = self._client.get(ref.external_id, version=COMPUTE, query=EXPANDED)
        with readable(ref.external_id):
            machine = self._types.one(ref.account, translate.location(vm["location"]), translate.sku_of(vm))
            scale_set = translate.scale_set_of(vm)
            placements: tuple[str, ...] = ()
            if scale_set is not None:
                path = translate.canonical(scale_set)
                if translate_groups.only_places(another(self._client, path, version=COMPUTE)):
                    placements = (translate.folded(path),)
            around = self._surroundings.of_one(ref.account, ref.external_id, addresses=True, placements=placements)
            return translate.record(
                vm, view_in(vm), account=ref.account, machine=machine, around=around, fully_described=True
            )

    def _describe_compute(self, ref: ResourceRef) -> ResourceRecord:
        compute = self._client.get(ref.external_id, version=LEARNING)
        with readable(ref.external_id):
            machine = self._types.one(ref.account, translate.compute_region(compute), translate.compute_sku(compute))
            around = self._surroundings.of_one(ref.account, ref.external_id)
            return translate.compute_record(
                compute, account=ref.account, machine=machine, around=around, fully_described=True
            )


def _all_machines(subscription: str) -> str:
    return f"/subscriptions/{subscription}/providers/Microsoft.Compute/virtualMachines"


def _row(subscription: str) -> str:
    return str(crc32(subscription.encode()) % ROWS)


def _told(answer: T | ProviderError, failed: Callable[[Fault], T]) -> T:
    return failed(answer.as_fault()) if isinstance(answer, ProviderError) else answer


def _unlisted(fault: Fault) -> Listed:
    return Listed(complete=False, fault=fault)


def _silent(subscription: str, error: ProviderError) -> PartReport:
    return PartReport(part="*", complete=False, fault=error.as_fault(), account=subscription)


def _uncertain(number: int) -> Fault:
    sentence = (
        f"Azure's lists of machines and of their power states do not agree on {number} machines, of which {MOST_ALONE} "
        "were asked for one by one"
    )
    return Fault(code=Unreachable.code, sentence=sentence)
