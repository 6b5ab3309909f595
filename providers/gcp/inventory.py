"""Turns projects of Google Cloud into records of machines with accelerators, their groups, notebooks and TPUs: list by
list and project by project, or one of them.

Asks; what the answers mean is `translate`'s business, and what they mean together is `join`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from hashlib import blake2b
from typing import Any, NamedTuple, TypeVar
from zlib import crc32

import orjson

from providers.errors import Forbidden, Misconfigured, NotFound, ProviderError, Unsupported, or_raise, together
from providers.gcp import machine_types, translate, translate_groups
from providers.gcp.client import Client, NotEnabled
from providers.gcp.groups import GroupLists, Groups, Pools
from providers.gcp.join import Listed, Look, Machine, Machines, Place, joined, notebook_places, reports
from providers.gcp.listing import PAGE, Silent, aggregated
from providers.gcp.machine_types import MachineTypes, named
from providers.gcp.projects import Projects, Roster
from providers.gcp.translate import MachineType
from providers.progress import Progress
from providers.questions import Questions, batches, readable
from providers.records import Fault, InventoryAnswer, Kind, PartReport, ResourceRecord, ResourceRef

T = TypeVar("T")
Answer = Mapping[str, Any]

PATIENCE_SECONDS = 60.0
"""For one list of one project, and for one machine: a usual cycle. Twice the client's own time-out, so that a lost
answer can be asked for again, and several pages can be waited for at the pace of a project that Google throttles."""
ROWS = 32
"""Projects stand in so many rows; an organisation of thousands would take as many threads."""
AT_ONCE = 8
"""Questions asked side by side in each row; threads here only wait."""
SWITCHED_OFF_HOLDS = timedelta(minutes=10)
"""How long an API that is not enabled in a project is not asked again, once it has said so twice: what was there ends
after two answers without it, and one that is only repeated is no second one.
"""
NAMES_PER_CALL = 20
"""Machines that are asked for by name in one filter."""

MACHINES = "machines"
LISTS = (MACHINES, translate_groups.GROUPS, translate_groups.NODE_POOLS, translate.WORKBENCH, translate.TPU_VMS)
"""What is listed of a project."""
AnyList = Machines | Groups | Pools | Listed

Key = tuple[str, tuple[str, str]]
"""(row, (project, what is asked))"""


class Fresh(NamedTuple):
    """A machine that was not listed before as it is now."""

    instance: Answer
    zone: str
    machine: MachineType
    digest: bytes | None
    """None: what it is rests on what Google did not tell, so it is looked at anew."""


class SwitchedOff(NamedTuple):
    """An API that is not enabled in a project: when it was last told, and whether it was told before that, too."""

    at: datetime
    said_twice: bool


class Reading:
    """The machines of a project while its list is read: those with accelerators, known as they are or to be read."""

    def __init__(self, before: Mapping[bytes, Machine]) -> None:
        self._before = before
        self.unchanged: dict[bytes, Machine] = {}
        self.found: list[Machine] = []
        self.fresh: list[Fresh] = []
        self.builtin: set[str] = set()
        """Types that only the built-in table knows."""
        self.unjudged: set[tuple[str, str]] = set()
        """Types of which nobody knows whether they have accelerators, and the zones of machines that were left out."""

    def take(self, zone: str, instances: Sequence[Answer], types: Mapping[str, MachineType | None]) -> None:
        for instance in instances:
            sku = translate.last(instance["machineType"])
            machine, attached = types[sku], "guestAccelerators" in instance
            if machine is not None and machine.devices is None and not attached:
                continue
            digest = blake2b(orjson.dumps(instance), digest_size=16).digest()
            if (known := self._before.get(digest)) is not None:
                self.found.append(known)
                self.unchanged[digest] = known
            elif machine is not None:
                self.fresh.append(Fresh(instance, zone, machine, digest))
            elif (machine := machine_types.fallback(sku)) is not None:
                self.builtin.add(sku)
                self.fresh.append(Fresh(instance, zone, machine, None))
            elif attached:
                self.fresh.append(Fresh(instance, zone, translate.PLAIN, None))
            elif translate.ACCELERATED_FAMILY.match(sku):
                self.unjudged.add((sku, zone))


class GcpInventory:
    """Machines with accelerators, the groups that make them, Workbench instances and TPU VMs."""

    def __init__(
        self,
        projects: Projects,
        client: Client,
        *,
        now: Callable[[], datetime],
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._projects = projects
        self._client = client
        self._now = now
        self._questions: Questions[Key] = Questions("Google Cloud", patience=patience_seconds, at_once=AT_ONCE)
        self._types = MachineTypes(client)
        self._groups = GroupLists(client, self._types)
        self._unchanged: dict[str, Mapping[bytes, Machine]] = {}
        """Machines by project, and by all that was told of them when they were last listed."""
        self._made_by: dict[str, Mapping[str, str | None]] = {}
        """The groups that machines say they were made by, by project and the machine's id; that never changes."""
        self._switched_off: dict[tuple[str, str], SwitchedOff] = {}
        """Lists whose API is not enabled in a project."""
        self._had: set[tuple[str, str]] = set()
        """Lists that had something once."""
        self._behind_notebooks: dict[str, frozenset[Place]] = {}
        """The machines behind Workbench instances, by project, as last told."""
        self._lists: Mapping[str, tuple[Callable[[str], AnyList], AnyList]] = {
            MACHINES: (self._machines, Machines()),
            translate_groups.GROUPS: (self._groups.groups, Groups()),
            translate_groups.NODE_POOLS: (self._groups.pools, Pools()),
            translate.WORKBENCH: (self._workbench, Listed()),
            translate.TPU_VMS: (self._tpus, Listed()),
        }
        """How each is asked for, and what it is where its API is not enabled."""
        self._listing: tuple[Roster | None, set[tuple[str, str]]] = (None, set())
        """Of the listing under way, or the last one: who is asked, and what has not answered."""

    def list(self) -> InventoryAnswer:
        """All machines, groups, notebooks and TPUs of all projects."""
        self._listing = (None, set())
        asking: Key = ("", ("", "projects"))
        told = self._questions.answers({asking: self._projects.roster})[asking]
        # an organisation of many folders takes long to discover; what comes late counts in the next listing
        roster = self._projects.earlier(told) if isinstance(told, ProviderError) else told
        self._listing = (roster, {(project, what) for project in roster.projects for what in LISTS})
        looks, members = self._settled(self._looks(roster))
        records: MutableSequence[ResourceRecord] = []
        parts: MutableSequence[PartReport] = []
        if roster.fault is not None:
            parts.append(PartReport(part="projects", complete=False, fault=roster.fault))
        for look in looks:
            found = joined(
                look,
                self._groups.type_of,
                members=members[look.project],
                behind_notebooks=self._known_notebooks(look),
            )
            records += found.records
            parts += reports(look, found.machines)
        return InventoryAnswer(identity=roster.identity, records=tuple(records), parts=tuple(parts))

    def progress(self) -> Progress:
        """Projects, or the lists of a single one; one that is given up waits on."""
        roster, waiting = self._listing
        projects, still = roster.projects if roster else (), waiting.copy()
        if len(projects) == 1:
            units = [(what, {(projects[0], what)}) for what in LISTS]
        else:
            units = [(project, {(project, what) for what in LISTS}) for project in projects]
        return Progress(
            answered=tuple(name for name, places in units if places.isdisjoint(still)),
            waiting=tuple(name for name, places in units if not places.isdisjoint(still)),
        )

    def describe(self, ref: ResourceRef) -> ResourceRecord:
        """One machine, group, notebook or TPU, fresh. Raises rather than leave anything of it open."""
        key: Key = (f"describe in {_row(ref.account)}", (ref.account, ref.external_id))
        return or_raise(self._questions.answers({key: partial(self._describe, ref)})[key])

    # all lists

    def _looks(self, roster: Roster) -> Sequence[Look]:
        """Of all projects, side by side. Raises when nothing could be asked at all."""
        waiting = self._listing[1]

        def ask(place: tuple[str, str]) -> Any:
            try:
                return self._ask(*place)
            finally:
                waiting.discard(place)

        places = [(project, what) for project in roster.projects for what in LISTS]
        told = self._questions.answers({(_row(place[0]), place): partial(ask, place) for place in places})
        answers: Mapping[tuple[str, str], Any] = {place: answer for (_, place), answer in told.items()}
        refused = [answer for answer in answers.values() if isinstance(answer, Misconfigured)]
        if refused and len(refused) == len(answers):
            raise refused[0]
        return [
            Look(
                project=project,
                machines=_told(answers[project, MACHINES], lambda fault: Machines(complete=False, fault=fault)),
                groups=_told(
                    answers[project, translate_groups.GROUPS], lambda fault: Groups(complete=False, fault=fault)
                ),
                pools=_told(
                    answers[project, translate_groups.NODE_POOLS], lambda fault: Pools(complete=False, fault=fault)
                ),
                notebooks=_told(
                    answers[project, translate.WORKBENCH], lambda fault: Listed(complete=False, fault=fault)
                ),
                tpus=_told(answers[project, translate.TPU_VMS], lambda fault: Listed(complete=False, fault=fault)),
            )
            for project in roster.projects
        ]

    def _ask(self, project: str, what: str) -> AnyList:
        question, nothing = self._lists[what]
        before = self._switched_off.get((project, what))
        if before is not None and before.said_twice and timedelta() <= self._now() - before.at < SWITCHED_OFF_HOLDS:
            return nothing
        try:
            answer = question(project)
        except NotEnabled as off:
            if not self._projects.is_switched_off_in(project, off):
                raise Forbidden(
                    f"{off.sentence}, which the credentials belong to; until it is, nothing is known of {project}"
                ) from off
            if (project, what) in self._had:  # switching an API off does not end what runs
                raise Forbidden(
                    f"{off.sentence}, though something of it was there: it is taken to be there still"
                ) from off
            self._switched_off[project, what] = SwitchedOff(at=self._now(), said_twice=before is not None)
            return nothing
        self._switched_off.pop((project, what), None)
        if answer != nothing:
            self._had.add((project, what))
        return answer

    def _settled(self, looks: Sequence[Look]) -> tuple[Sequence[Look], Mapping[str, Mapping[str, Sequence[str]]]]:
        """With the members of groups, by project, that their machines leave in doubt. Groups that do not tell them
        have those that say so themselves, with a fault.
        """
        doubtful = [(look.project, path) for look in looks for path in look.doubtful_groups(self._groups.type_of)]
        asked = self._questions.answers(
            {(_row(place[0]), place): partial(self._groups.members, *place) for place in doubtful}
        )
        members: Mapping[str, MutableMapping[str, Sequence[str]]] = {look.project: {} for look in looks}
        faults: dict[str, list[Fault]] = {}
        for (_, (project, path)), answer in asked.items():
            if isinstance(answer, ProviderError):
                faults.setdefault(project, []).append(answer.as_fault())
            else:
                members[project][path] = answer
        return [_with_faults(look, faults.get(look.project, ())) for look in looks], members

    def _known_notebooks(self, look: Look) -> frozenset[Place]:
        """While Workbench does not answer, the machines it told of before; the notebooks are still known, too."""
        if look.notebooks.complete:
            self._behind_notebooks[look.project] = notebook_places(look.notebooks)
        return self._behind_notebooks.get(look.project, frozenset())

    # machines

    def _machines(self, project: str) -> Machines:
        reading = Reading(self._unchanged.get(project, {}))
        silent, broken, begun = Silent(), None, False
        unanswered = dict[str, Fault]()
        try:
            for place, instances in aggregated(
                self._client, project, "instances", fields=translate.FIELDS, silent=silent
            ):
                begun = True
                with readable(f"{project}, {place}"):
                    zone = translate.last(place)
                    skus = {translate.last(instance["machineType"]) for instance in instances}
                    unanswered |= self._types.learn(project, {zone: skus - unanswered.keys()})
                    reading.take(zone, instances, {sku: self._types.get(sku) for sku in skus})
        except ProviderError as error:
            if not begun:
                raise
            broken = error.as_fault()
        with readable(f"the machines of {project}"):
            made_by, untold = self._makers(project, reading.fresh)
            for one in reading.fresh:
                machine, settled = _machine(one, project, made_by)
                reading.found.append(machine)
                if settled and one.digest is not None:
                    reading.unchanged[one.digest] = machine
        self._unchanged[project] = reading.unchanged
        kept = {machine.record.incarnation for machine in reading.found}
        self._made_by[project] = {key: group for key, group in made_by.items() if key in kept or broken is not None}
        left_out = machine_types.fault_of((), {sku for sku, _ in reading.unjudged}, unanswered)
        regions = {translate.region_of(zone): left_out for _, zone in reading.unjudged if left_out is not None}
        faults = (broken, silent.elsewhere, untold, machine_types.fault_of(reading.builtin, (), unanswered))
        return Machines(
            found=reading.found,
            regions=regions | silent.regions,
            complete=broken is None and silent.elsewhere is None,
            fault=next((fault for fault in faults if fault is not None), None),
        )

    def _makers(self, project: str, fresh: Sequence[Fresh]) -> tuple[Mapping[str, str | None], Fault | None]:
        """The groups that machines say they were made by, by their id: of those that were not asked before.

        That is in the values of their metadata, which no list of machines can be asked for one by one.
        """
        known = dict(self._made_by.get(project, {}))
        asked = {one.instance["id"]: one.instance["name"] for one in fresh if _says_its_maker(one.instance)}
        names = sorted({name for key, name in asked.items() if key not in known})
        try:
            for batch in batches(names, NAMES_PER_CALL):
                fields = "id,metadata/items(key,value)"
                for _, instances in aggregated(
                    self._client, project, "instances", fields=fields, silent=Silent(), filter=named(batch)
                ):
                    for instance in instances:
                        said = translate.metadata_value(instance, translate.MADE_BY)
                        known[instance["id"]] = translate.group_in(said)
        except ProviderError as error:
            return known, error.as_fault()
        return known, None

    # other lists

    def _workbench(self, project: str) -> Listed:
        listed = self._listed(
            "notebooks", f"/v2/projects/{project}/locations/-/instances", "instances", translate.NOTEBOOK_FIELDS
        )
        with readable(f"the Workbench instances of {project}"):
            wanted: dict[str, set[str]] = {}
            for answer in listed.answers:
                translate.check_project(answer["name"], project)
                zone, _ = translate.notebook_machine(answer)
                wanted.setdefault(zone, set()).add(translate.notebook_sku(answer))
        unanswered = self._types.learn(project, wanted)
        unjudged = {sku for skus in wanted.values() for sku in skus if self._groups.cannot_be_judged(sku)}
        if fault := machine_types.fault_of((), unjudged, unanswered):  # without its machine it looks like none of ours
            faults = [listed.fault] if listed.fault is not None else []
            listed = replace(listed, complete=False, fault=together([*faults, fault]))
        return listed

    def _tpus(self, project: str) -> Listed:
        listed = self._listed("tpu", f"/v2/projects/{project}/locations/-/nodes", "nodes", translate.TPU_FIELDS)
        with readable(f"the TPU VMs of {project}"):
            for node in listed.answers:
                translate.check_project(node["name"], project)
        return listed

    def _listed(self, service: str, path: str, what: str, fields: str) -> Listed:
        silent, faults = Silent(), list[Fault]()
        answers = list[Answer]()
        query: Mapping[str, str | int] = {"pageSize": PAGE, "fields": f"nextPageToken,unreachable,{what}({fields})"}
        try:
            with readable(path):
                for page in self._client.pages(service, path, query=query):
                    answers += page.get(what) or ()
                    for place in page.get("unreachable") or ():
                        silent.add(place, f"the {what}")
        except ProviderError as error:
            if not answers:
                raise
            faults.append(error.as_fault())
        if silent.fault is not None:
            faults.append(silent.fault)
        return Listed(answers=answers, complete=not faults, fault=together(faults))

    # one of them

    def _describe(self, ref: ResourceRef) -> ResourceRecord:
        translate.check_project(ref.external_id, ref.account)
        with readable(ref.external_id):
            if ref.kind is Kind.NODE_GROUP:
                return self._groups.describe(ref)
            if ref.kind is Kind.NOTEBOOK:
                return self._describe_notebook(ref)
            if "/nodes/" in ref.external_id:
                node = self._client.get("tpu", f"/v2/{ref.external_id}")
                return replace(translate.tpu_vm(node, account=ref.account), fully_described=True)
            return self._describe_machine(ref)

    def _describe_machine(self, ref: ResourceRef) -> ResourceRecord:
        fields = translate.FIELDS.replace("metadata/items/key", "metadata/items(key,value)")
        instance = self._client.get("compute", f"/compute/v1/{ref.external_id}", query={"fields": f"{fields},selfLink"})
        translate.check_project(instance["selfLink"], ref.account)
        zone = ref.external_id.split("/")[3]
        record = translate.record(
            instance,
            account=ref.account,
            zone=zone,
            machine=self._types.one(ref.account, zone, translate.last(instance["machineType"])),
            group=self._group_of(instance, ref),
        )
        return replace(record, fully_described=True)

    def _group_of(self, instance: Answer, ref: ResourceRef) -> str | None:
        """The group it is a member of now; machines that were let go still say who made them."""
        group = translate.group_in(translate.metadata_value(instance, translate.MADE_BY))
        if group is None or translate.node_pool_of(instance.get("labels") or {}) is not None:
            return group
        try:
            return group if ref.external_id in self._groups.members(ref.account, group) else None
        except NotFound:  # the group
            return None

    def _describe_notebook(self, ref: ResourceRef) -> ResourceRecord:
        answer = self._client.get("notebooks", f"/v2/{ref.external_id}")
        zone, name = translate.notebook_machine(answer)
        place = replace(ref, kind=Kind.INSTANCE, external_id=f"projects/{ref.account}/zones/{zone}/instances/{name}")
        try:
            vm = self._describe_machine(place)
        except NotFound:  # the machine
            vm = None
        if vm is not None and translate.notebook_machine_id(answer) not in ("", vm.incarnation):
            vm = None
        machine = self._types.one(ref.account, zone, translate.notebook_sku(answer)) if vm is None else translate.PLAIN
        record = translate.notebook(answer, account=ref.account, machine=machine, vm=vm)
        if record is None:
            raise Unsupported(f"{ref.external_id} has no accelerators any more")
        return replace(record, fully_described=True)


def _row(project: str) -> str:
    return f"row {crc32(project.encode()) % ROWS}"


def _says_its_maker(instance: Answer) -> bool:
    """Whether it was made by a group that is not told by its labels."""
    keys = translate.metadata_keys(instance)
    return translate.MADE_BY in keys and translate.node_pool_of(instance.get("labels") or {}) is None


def _machine(one: Fresh, project: str, made_by: Mapping[str, str | None]) -> tuple[Machine, bool]:
    """And whether all of it is told: an owner whose name is not is asked for again."""
    instance = one.instance
    pool = translate.node_pool_of(instance.get("labels") or {})
    says = pool is None and _says_its_maker(instance)
    told = not says or instance["id"] in made_by
    group = (made_by.get(instance["id"]) if told else translate.UNNAMED) if says else None
    record = translate.record(instance, account=project, zone=one.zone, machine=one.machine, group=group)
    return Machine(record, pool or (group if told else None)), told


def _with_faults(look: Look, faults: Sequence[Fault]) -> Look:
    if not faults:
        return look
    known = [look.groups.fault] if look.groups.fault is not None else []
    return replace(look, groups=replace(look.groups, fault=together([*known, *faults])))


def _told(answer: T | ProviderError, failed: Callable[[Fault], T]) -> T:
    return failed(answer.as_fault()) if isinstance(answer, ProviderError) else answer
