"""Turns what complete lists lack of what they had into questions by id: what is gone is not found there.

Azure leaves out of its lists whatever the caller's role does not cover, and says nothing: only whoever asks for such a
thing by itself is refused. Without this a role that was narrowed would end all that it covered before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from providers.azure import translate, translate_groups
from providers.azure.client import Client, NotEnabled
from providers.azure.groups import AKS, COMPUTE
from providers.azure.join import EVERY_REGION, Joined, Look, More
from providers.errors import NotFound, ProviderError, Unreachable, together
from providers.records import Fault, PartReport, ResourceRecord

LEARNING = "2024-10-01"
"""The version of Azure ML's API."""
VERSIONS = {"virtualMachines": COMPUTE, "virtualMachineScaleSets": COMPUTE, "agentPools": AKS, "computes": LEARNING}
"""Of the API that is asked, by the type at the end of an id."""

Known = Mapping[str, str]
"""The part of a subscription that tells of a thing, by its id."""


def known(records: Sequence[ResourceRecord]) -> Known:
    return {one.ref.external_id: one.listed_in or one.ref.region for one in records}


def missing(before: Known, found: Joined, look: Look, more: More) -> Known:
    """What was there before, and what complete lists lack now. One that is listed, but no longer ours, is none."""
    complete = {part.part: part.complete for part in found.parts}
    lacking = before.keys() - known(found.records)
    lacking = {one for one in lacking if complete.get(before[one], complete.get(EVERY_REGION, False))}
    listed = {*_listed(look, more)} if lacking else set()
    return {one: before[one] for one in sorted(lacking) if translate.folded(one) not in listed}


def _listed(look: Look, more: More) -> Iterator[str]:
    """The ids of all that was told of, in small letters; what was asked for by itself is told of, too."""
    yield from look.machines.ids
    yield from more.alone
    for answers in (look.scale_sets.answers, more.computes, *(one.answers for one in more.instances.values())):
        yield from (translate.folded(answer["id"]) for answer in answers)
    for cluster in look.clusters.answers:
        for pool in translate_groups.pools_of(cluster):
            yield translate.folded(f"{cluster['id']}/agentPools/{pool['name']}")


def is_there(client: Client, path: str) -> bool:
    """Raises what keeps that from being known."""
    try:
        client.get(path, version=VERSIONS[path.rsplit("/", 2)[1]])
    except (NotFound, NotEnabled):
        return False
    return True


def doubted(lacking: Known, answers: Mapping[str, bool | ProviderError]) -> Mapping[str, Fault]:
    """Those of which it is not known that they are gone, and why. What was not asked for is asked for another time."""
    found = {}
    for path in lacking:
        answer = answers.get(path)
        if answer is None:
            found[path] = _fault(
                f"Azure's lists lack {len(lacking)} things they had; not all were asked for by themselves"
            )
        elif isinstance(answer, ProviderError):
            told = answer.as_fault()
            sentence = f"Azure's lists lack {path}, which is not known to be gone: {told.sentence}"
            found[path] = replace(told, sentence=sentence)
        elif answer:
            found[path] = _fault(f"Azure's lists lack {path}, which is there")
    return found


def _fault(sentence: str) -> Fault:
    return Fault(code=Unreachable.code, sentence=sentence)


def incomplete(parts: Sequence[PartReport], lacking: Known, doubts: Mapping[str, Fault]) -> Sequence[PartReport]:
    """The reports, with those parts incomplete of which something is in doubt."""
    faults: dict[str, list[Fault]] = {}
    for path, fault in doubts.items():
        faults.setdefault(lacking[path], []).append(fault)
    named = {part.part for part in parts}
    account = parts[0].account if parts else None
    return [
        *(
            replace(part, complete=False, fault=together([*([part.fault] if part.fault else []), *faults[part.part]]))
            if part.part in faults
            else part
            for part in parts
        ),
        *(
            PartReport(part=name, complete=False, fault=together(told), account=account)
            for name, told in sorted(faults.items())
            if name not in named
        ),
    ]
