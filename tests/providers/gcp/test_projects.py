"""The projects a source sees: a list, or all of an organisation or a folder, whatever it is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from providers.errors import Forbidden, ProviderError, Unreachable
from providers.gcp import Config
from providers.gcp.client import Client
from providers.gcp.projects import HOLDS, Projects
from tests.providers.gcp.cloud import Cloud, answer
from tests.providers.gcp.cloud_refusals import permission_denied

ORGANISATION = "organizations/1234567890"
START = datetime(2026, 11, 20, 8, tzinfo=UTC)


@dataclass
class Clock:
    now: datetime = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def company(cloud: Cloud) -> Cloud:
    """A project of its own beside folders: one in one of the folders, two below, some of them on their way out.

    organisation ── research
                 ├─ science (1) ── vision
                 │              └─ deep (2) ── speech, robots, and leaving, which is being deleted
                 ├─ sandbox (3) ── toys
                 └─ closed (4), which is being deleted ── old
    """
    cloud.accounts.folder("1", parent=ORGANISATION, name="science")
    cloud.accounts.folder("2", parent="folders/1", name="deep")
    cloud.accounts.folder("3", parent=ORGANISATION, name="sandbox")
    cloud.accounts.folder("4", parent=ORGANISATION, name="closed", state="DELETE_REQUESTED")
    for project, parent in {
        "vision-gpus": "folders/1",
        "speech-gpus": "folders/2",
        "robots-gpus": "folders/2",
        "toys-gpus": "folders/3",
        "old-gpus": "folders/4",
    }.items():
        cloud.add_project(project, parent=parent)
    cloud.add_project("leaving-gpus", parent="folders/2", state="DELETE_REQUESTED")
    return cloud


Made = Callable[..., Projects]


@pytest.fixture
def made(cloud: Cloud, clock: Clock) -> Iterator[Made]:
    clients = []

    def build(**fields: Any) -> Projects:
        config = Config.model_validate({"credentials": "anonymous", "endpoint": cloud.endpoint, **fields})
        clients.append(Client(config, sleep=lambda _: None))
        return Projects(config, clients[-1], now=clock)

    yield build
    for client in clients:
        client.close()


def test_a_list_is_taken_as_it_is_and_nobody_is_asked(cloud: Cloud, made: Made) -> None:
    roster = made(projects=["vision-gpus", "research", "unheard-of"]).roster()
    assert (roster.identity, roster.projects, roster.fault) == (
        "projects",
        ("vision-gpus", "research", "unheard-of"),
        None,
    )
    assert cloud.calls == []


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        (
            {"organization": "1234567890"},
            ("research", "robots-gpus", "speech-gpus", "toys-gpus", "vision-gpus"),
        ),
        ({"folder": "1"}, ("robots-gpus", "speech-gpus", "vision-gpus")),
        ({"folder": "folders/3"}, ("toys-gpus",)),
        (
            {"organization": "1234567890", "exclude_projects": ["toys-gpus", "speech-gpus"]},
            ("research", "robots-gpus", "vision-gpus"),
        ),
        (
            {"organization": "1234567890", "exclude_projects": ["folders/2"]},
            ("research", "toys-gpus", "vision-gpus"),
        ),
        ({"organization": "1234567890", "exclude_projects": ["folders/1", "research"]}, ("toys-gpus",)),
        ({"folder": "1", "exclude_projects": ["vision-gpus", "folders/2"]}, ()),
    ],
)
@pytest.mark.parametrize("per_page", [1, 500])
def test_all_that_is_in_it_and_below(
    company: Cloud, made: Made, fields: dict[str, Any], found: tuple[str, ...], per_page: int
) -> None:
    company.most_per_page = per_page
    roster = made(**fields).roster()
    top = next(iter(fields))
    assert roster.identity == (ORGANISATION if top == "organization" else f"folders/{fields[top][-1]}")
    assert roster.projects == found
    assert roster.fault is None


def test_what_is_left_out_is_not_even_looked_into(company: Cloud, made: Made) -> None:
    made(organization="1234567890", exclude_projects=["folders/1"]).roster()
    assert {call.query["parent"] for call in company.calls} == {ORGANISATION, "folders/3"}


def test_folders_that_hold_one_another_are_looked_into_once(company: Cloud, made: Made) -> None:
    """One that is moved while they are listed is found below its old parent and its new one."""
    told = answer({"folders": [{"name": "folders/1", "state": "ACTIVE"}, {"name": "folders/2", "state": "ACTIVE"}]})
    with company.within(lambda call: told if call.method == "cloudresourcemanager.folders.list" else None):
        assert made(folder="1").roster().projects == ("robots-gpus", "speech-gpus", "vision-gpus")
    assert company.counted["cloudresourcemanager.folders.list"] == 2


def test_what_is_not_resource_managers_answer_is_no_organisation(company: Cloud, made: Made) -> None:
    told = answer({"projects": [{"state": "ACTIVE"}]})
    with (
        company.within(lambda call: told if call.method == "cloudresourcemanager.projects.list" else None),
        pytest.raises(Unreachable, match="cannot be read"),
    ):
        made(folder="1").roster()


class TestWhatWasDiscovered:
    def test_holds_for_some_minutes(self, company: Cloud, made: Made, clock: Clock) -> None:
        projects = made(folder="3")
        first = projects.roster()
        asked = len(company.calls)
        company.add_project("more-gpus", parent="folders/3")
        clock.now += HOLDS - timedelta(seconds=1)
        assert projects.roster() is first
        assert len(company.calls) == asked
        clock.now += timedelta(seconds=1)
        assert projects.roster().projects == ("more-gpus", "toys-gpus")

    def test_is_asked_for_again_when_the_clock_was_set_back(self, company: Cloud, made: Made, clock: Clock) -> None:
        projects = made(folder="3")
        projects.roster()
        company.add_project("more-gpus", parent="folders/3")
        clock.now -= timedelta(days=1)
        assert projects.roster().projects == ("more-gpus", "toys-gpus")

    @pytest.mark.parametrize(
        ("trouble", "code"),
        [
            (lambda cloud: cloud.unreachable(), "Unreachable"),
            (lambda cloud: cloud.without("resourcemanager.projects.list"), "Forbidden"),
            (lambda cloud: cloud.without("resourcemanager.folders.list"), "Forbidden"),
        ],
    )
    def test_stays_when_it_cannot_be_asked_for_and_says_so(
        self,
        company: Cloud,
        made: Made,
        clock: Clock,
        trouble: Callable[[Cloud], AbstractContextManager[None]],
        code: str,
    ) -> None:
        projects = made(folder="1")
        before = projects.roster()
        clock.now += HOLDS
        with trouble(company):
            later = projects.roster()
        assert (later.identity, later.projects) == (before.identity, before.projects)
        assert later.fault is not None
        assert later.fault.code == code
        assert projects.roster() == before, "it is asked for again at once"

    def test_half_of_it_is_not_all_of_it(self, company: Cloud, made: Made, clock: Clock) -> None:
        """A folder that may not be looked into must not make its projects vanish."""
        projects = made(folder="1")
        before = projects.roster()
        clock.now += HOLDS
        denied = permission_denied("resourcemanager.projects.list", "folders/2").reply
        with company.within(lambda call: denied if call.query.get("parent") == "folders/2" else None):
            later = projects.roster()
        assert later.projects == before.projects
        assert later.fault is not None


@pytest.mark.parametrize(
    ("trouble", "expected"),
    [
        (lambda cloud: cloud.unreachable(), Unreachable),
        (lambda cloud: cloud.without("resourcemanager.projects.list"), Forbidden),
    ],
)
def test_what_was_never_discovered_is_told(
    company: Cloud,
    made: Made,
    trouble: Callable[[Cloud], AbstractContextManager[None]],
    expected: type[ProviderError],
) -> None:
    with trouble(company), pytest.raises(expected) as told:
        made(organization="1234567890").roster()
    if expected is Forbidden:
        assert told.value.permission == "resourcemanager.projects.list"


def test_an_organisation_that_is_not_ours(company: Cloud, made: Made) -> None:
    with pytest.raises(Forbidden):
        made(organization="999").roster()
