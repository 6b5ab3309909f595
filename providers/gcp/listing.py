"""Turns Compute Engine's aggregated lists into what is in them, place by place, and into what could not be listed.

What the things in them mean is `translate`'s business.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from providers.errors import Unreachable
from providers.gcp.client import Client
from providers.gcp.translate import region_of
from providers.questions import readable
from providers.records import Fault

Answer = Mapping[str, Any]

PAGE = 500
"""Things per page, Compute Engine's most."""
KINDS = {
    "autoscalers": "compute#autoscalerAggregatedList",
    "instanceGroupManagers": "compute#instanceGroupManagerAggregatedList",
    "instanceTemplates": "compute#instanceTemplateAggregatedList",
    "instances": "compute#instanceAggregatedList",
}
"""How an answer says what it is. Anything else that answers is no empty project."""
NEVER_UNREACHABLE = frozenset({"instanceTemplates"})
"""Lists without `unreachables`: asking for a field that an answer does not have is refused."""
NOTHING_THERE = (None, "NO_RESULTS_ON_PAGE")
"""What a place says that has none of the things on this page. Every other warning is a place that may have some."""
PLACE = re.compile(r"(?:^|/)(?:zones|regions|locations)/([a-z0-9-]+)")


class Silent:
    """What a list could not tell of, region by region."""

    def __init__(self) -> None:
        self.regions: dict[str, Fault] = {}
        self.elsewhere: Fault | None = None
        """Of which no region is named: there may be more anywhere."""

    def add(self, place: str, what: str) -> None:
        """`what` are the things there that are not known now, `place` anything that names it."""
        found = PLACE.search(place)
        where = f"in {found[1]}" if found else f"of {place}" if place else "of every place"
        fault = Fault(code=Unreachable.code, sentence=f"Google Cloud itself cannot tell of {what} {where} just now")
        if found is None:
            self.elsewhere = self.elsewhere or fault
        else:
            self.regions.setdefault(region_of(found[1]), fault)

    @property
    def fault(self) -> Fault | None:
        """One for all, for whoever does not tell regions apart."""
        return self.elsewhere or next(iter(self.regions.values()), None)


def aggregated(
    client: Client, project: str, what: str, *, fields: str, silent: Silent, filter: str | None = None
) -> Iterator[tuple[str, Sequence[Answer]]]:
    """Things of one kind in all places of a project: `zones/us-central1-a` and what is in it, page by page.

    An error after some of them means that there may be more.
    """
    path = f"/compute/v1/projects/{project}/aggregated/{what}"
    head = "kind,id,nextPageToken,warning/code" + ("" if what in NEVER_UNREACHABLE else ",unreachables")
    query: dict[str, str | int] = {
        "maxResults": PAGE,
        "returnPartialSuccess": "true",
        "fields": f"{head},items/*/warning/code,items/*/{what}({fields})",
    }
    if filter is not None:
        query["filter"] = filter
    with readable(path):
        for number, page in enumerate(client.pages("compute", path, query=query)):
            if page.get("kind") != KINDS[what] or page.get("id") != f"projects/{project}/aggregated/{what}":
                raise Unreachable(f"Compute Engine, GET {path} was answered with something else, or another project's")
            items, says_why = page.get("items"), "warning" in page or "unreachables" in page
            if not number and (items is None or not (items or says_why)):
                raise Unreachable(f"Compute Engine, GET {path} was answered without any place, which Google never does")
            for place in page.get("unreachables") or ():
                silent.add(place, WORDS[what])
            if (page.get("warning") or {}).get("code") not in NOTHING_THERE and not page.get("unreachables"):
                silent.add("", WORDS[what])
            for place, there in (items or {}).items():
                if (there.get("warning") or {}).get("code") not in NOTHING_THERE:
                    silent.add(place, WORDS[what])
                if found := there.get(what):
                    yield place, found


WORDS = {
    "autoscalers": "the autoscalers",
    "instanceGroupManagers": "the instance groups",
    "instanceTemplates": "the instance templates",
    "instances": "the machines",
}
