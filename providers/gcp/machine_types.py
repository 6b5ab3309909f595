"""Asks Compute Engine what its machine types come with: each type once, for all projects and zones.

What the answers mean is `translate`'s business.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from threading import Condition

from providers.errors import NotFound, ProviderError, Unreachable, Unsupported
from providers.gcp import translate
from providers.gcp.client import Client
from providers.gcp.translate import MachineType
from providers.questions import batches
from providers.records import Fault

TYPES_PER_CALL = 20
"""By name in one filter; a longer one makes a longer address than some proxies take."""
TYPES_WAIT_SECONDS = 5.0
"""For another project that asks for the same types already. Then both ask."""
KIND = "compute#machineTypeList"
FIELDS = "kind,nextPageToken,items(name,description,accelerators,bundledLocalSsds/partitionCount)"


class MachineTypes:
    """What Google said of its types. They never change, so they are asked for once."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._types: dict[str, MachineType] = {}
        self._asked: set[str] = set()
        self._told = Condition()

    def get(self, sku: str) -> MachineType | None:
        return self._types.get(sku) or translate.without_asking(sku)

    def learn(self, project: str, wanted: Mapping[str, Collection[str]]) -> Mapping[str, Fault]:
        """Asks for types by the zone they are used in, those that are not known yet. Answers what failed, and why."""
        unanswered: dict[str, Fault] = {}
        for zone, skus in wanted.items():
            unknown = {sku for sku in skus if self.get(sku) is None}
            if not unknown:
                continue
            with self._told:
                self._told.wait_for(lambda: self._asked.isdisjoint(unknown), timeout=TYPES_WAIT_SECONDS)  # noqa: B023
                mine = sorted(unknown - self._types.keys())
                self._asked |= set(mine)
            try:
                for batch in batches(mine, TYPES_PER_CALL):
                    try:
                        self._ask(project, zone, batch)
                    except ProviderError as error:
                        unanswered |= dict.fromkeys(batch, error.as_fault())
            finally:
                with self._told:
                    self._asked -= set(mine)
                    self._told.notify_all()
        return unanswered

    def one(self, project: str, zone: str, sku: str) -> MachineType:
        """Raises rather than leave it open whether a machine of an accelerated family has accelerators."""
        found = self.get(sku)
        if found is None:
            failure = self.learn(project, {zone: {sku}}).get(sku)
            found = self.get(sku) or fallback(sku)
            if found is None and translate.ACCELERATED_FAMILY.match(sku):
                # not NotFound: that would read as if the machine were gone
                cause = f": {failure.sentence}" if failure else ""
                raise Unsupported(f"Compute Engine in {zone} does not tell what the machine type {sku!r} has{cause}")
        return found or translate.PLAIN

    def _ask(self, project: str, zone: str, batch: Sequence[str]) -> None:
        path = f"/compute/v1/projects/{project}/zones/{zone}/machineTypes"
        for page in self._client.pages("compute", path, query={"filter": named(batch), "fields": FIELDS}):
            if page.get("kind") != KIND:
                raise Unreachable(f"Compute Engine, GET {path} was answered with something else")
            for answer in page.get("items") or ():
                self._types[answer["name"]] = translate.machine_type(answer)
        # what Google lists no more has no accelerators, unless its name says otherwise
        plain = (sku for sku in batch if sku not in self._types and not translate.ACCELERATED_FAMILY.match(sku))
        self._types |= dict.fromkeys(plain, translate.PLAIN)


def fallback(sku: str) -> MachineType | None:
    """Of a type that Google did not tell."""
    return translate.builtin_types().get(sku)


def fault_of(builtin: Collection[str], unjudged: Collection[str], unanswered: Mapping[str, Fault]) -> Fault | None:
    """Says which machines rest on the built-in table, and which were left out for want of a row there."""
    if not builtin and not unjudged:
        return None
    cause = next((unanswered[sku] for sku in sorted({*builtin, *unjudged}) if sku in unanswered), None)
    sentence = cause.sentence if cause else "Compute Engine does not know every machine type in use"
    if builtin:
        sentence += f"; the built-in table of machine types was used for {', '.join(sorted(builtin))}"
    if unjudged:
        sentence += f"; machines of {len(unjudged)} types it lacks were left out: {', '.join(sorted(unjudged))}"
    return Fault(
        code=cause.code if cause else NotFound.code,
        sentence=sentence,
        permission=cause.permission if cause else None,
    )


def named(names: Sequence[str]) -> str:
    """A filter for things by these names. They are letters, digits and dashes."""
    return " OR ".join(f'(name = "{name}")' for name in names)
