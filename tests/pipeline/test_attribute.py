"""Who pays, and who owns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from providers.records import ResourceRecord
from service.documents import Project
from service.pipeline.attribute import attribute, attributed, owner_of
from tests.pipeline.builders import NOW, hours, known, record


def project(name: str, *match: dict[str, Any]) -> Project:
    return Project.model_validate({"name": name, "match": list(match)})


POD = record("team-a/Deployment/serve", provider="kubernetes")

VISION_BY_TAG = project("vision", {"tags": {"project": "vision"}})

CLAIMS: dict[str, tuple[ResourceRecord, list[Project], str | None, tuple[str, ...]]] = {
    "its tag names the project": (
        record(),
        [project("vision", {"tags": {"project": "vision"}})],
        "vision",
        ("vision",),
    ),
    "another value is another project's": (record(), [project("nlp", {"tags": {"project": "nlp"}})], None, ()),
    "values are compared letter by letter": (record(), [project("vision", {"tags": {"project": "Vision"}})], None, ()),
    "all that one match names must hold": (
        record(),
        [project("vision", {"tags": {"project": "vision"}, "accounts": ["999999999999"]})],
        None,
        (),
    ),
    "any of several matches will do": (
        record(),
        [project("vision", {"accounts": ["999999999999"]}, {"sources": ["research"]})],
        "vision",
        ("vision",),
    ),
    "by account": (record(), [project("vision", {"accounts": ["123456789012"]})], "vision", ("vision",)),
    "by namespace": (POD, [project("serving", {"namespaces": ["team-a"]})], "serving", ("serving",)),
    "only a cluster has namespaces": (
        record("team-a/x"),
        [project("serving", {"namespaces": ["team-a"]})],
        None,
        (),
    ),
    "by owner": (
        record(tags={"Owner": "mai@example.org"}),
        [project("vision", {"owners": ["mai@example.org"]})],
        "vision",
        ("vision",),
    ),
    "claimed by two, it is nobody's, and both are told": (
        record(),
        [project("vision", {"tags": {"project": "vision"}}), project("all", {"sources": ["research"]})],
        None,
        ("all", "vision"),
    ),
    "claimed twice by one, it is that one's": (
        record(),
        [project("vision", {"tags": {"project": "vision"}}, {"sources": ["research"]})],
        "vision",
        ("vision",),
    ),
    "without projects it is nobody's": (record(), [], None, ()),
}


@pytest.mark.parametrize("sentence", CLAIMS)
def test_who_pays(sentence: str) -> None:
    found, projects, wanted, claimed_by = CLAIMS[sentence]
    said = attribute(found, "research", {one.name: one for one in projects})
    assert (said.project, said.claimed_by) == (wanted, claimed_by)


OWNERS: dict[str, tuple[Mapping[str, str], str | None]] = {
    "the owner tag": ({"owner": "mai"}, "mai"),
    "whatever its case": ({"OWNER": "mai"}, "mai"),
    "before who created it": ({"created-by": "bot", "Owner": "mai"}, "mai"),
    "who created it, where no owner is named": ({"createdBy": "mai"}, "mai"),
    "an empty tag names nobody": ({"owner": "  ", "creator": "mai"}, "mai"),
    "no tag, no owner": ({"project": "vision"}, None),
}


@pytest.mark.parametrize("sentence", OWNERS)
def test_who_owns(sentence: str) -> None:
    tags, owner = OWNERS[sentence]
    assert owner_of(tags) == owner


VISION = {"vision": project("vision", {"tags": {"project": "vision"}})}


def test_a_change_of_project_is_dated() -> None:
    moved = attributed(known(project="nlp", project_since=NOW - hours(9)), VISION, NOW)
    assert (moved.project, moved.project_since) == ("vision", NOW)


def test_the_same_project_keeps_its_date_whoever_owns_it_now() -> None:
    before = known(record=record(tags={"project": "vision", "owner": "mai"}), project_since=NOW - hours(9))
    after = attributed(before, VISION, NOW)
    assert (after.owner, after.project_since) == ("mai", NOW - hours(9))
    assert attributed(after, VISION, NOW) is after


def test_two_projects_claiming_it_take_it_from_the_one_that_had_it() -> None:
    both = VISION | {"all": project("all", {"sources": ["research"]})}
    lost = attributed(known(), both, NOW)
    assert (lost.project, lost.project_since) == (None, NOW)
