"""APIs that nobody has enabled: in the project that is asked, where nothing of it can be then, or in the one that the
credentials belong to, which tells nothing of the other.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from providers.contract import BuildContext
from providers.gcp import Config, build
from providers.gcp.translate import TPU_VMS
from providers.records import InventoryAnswer
from tests.providers.gcp.cloud import PROJECT, Cloud
from tests.providers.gcp.cloud_refusals import forbidden, service_disabled

NOW = datetime(2026, 11, 2, 12, tzinfo=UTC)


def listed(cloud: Cloud, *projects: str) -> InventoryAnswer:
    config = Config(projects=projects or (PROJECT,), credentials="anonymous", endpoint=cloud.endpoint)
    provider = build(config, BuildContext(source="google", now=lambda: datetime.now(UTC)))
    assert provider.inventory is not None
    return provider.inventory.list()


def faults(answer: InventoryAnswer) -> dict[tuple[str | None, str], str]:
    return {(part.account, part.part): part.fault.sentence for part in answer.parts if part.fault is not None}


@pytest.mark.parametrize("service", ["tpu", "notebooks", "container"])
def test_what_the_project_itself_has_not_enabled_is_not_there(cloud: Cloud, service: str) -> None:
    cloud.compute.machine()
    cloud.projects[PROJECT].disabled.add(service)
    answer = listed(cloud)
    assert (answer.complete, len(answer.records), faults(answer)) == (True, 1, {})


def test_what_the_credentials_own_project_lacks_is_not_known_of_the_other(cloud: Cloud) -> None:
    cloud.compute.machine()
    cloud.refuse("tpu.", service_disabled("tpu", "999999999999"))
    answer = listed(cloud)
    assert not answer.complete
    assert len(answer.records) == 1
    [(where, words)] = faults(answer).items()
    assert where == (PROJECT, TPU_VMS)
    assert "not enabled in project 999999999999, which the credentials belong to" in words


def test_nor_is_it_where_nobody_may_ask_which_project_is_meant(cloud: Cloud) -> None:
    cloud.projects[PROJECT].disabled.add("tpu")
    cloud.refuse("cloudresourcemanager.projects.get", forbidden("resourcemanager.projects.get", f"projects/{PROJECT}"))
    answer = listed(cloud)
    assert not answer.complete
    [(where, words)] = faults(answer).items()
    assert where == (PROJECT, TPU_VMS)
    assert "it needs resourcemanager.projects.get" in words


def test_what_is_said_once_is_asked_again_as_two_answers_end_what_was_there(cloud: Cloud) -> None:
    """And Google says it of an API that has just been enabled, too, for some minutes."""
    cloud.tpus.node()
    config = Config(projects=(PROJECT,), credentials="anonymous", endpoint=cloud.endpoint)
    now = datetime(2026, 11, 2, 12, tzinfo=UTC)
    inventory = build(config, BuildContext(source="google", now=lambda: now)).inventory
    assert inventory is not None
    cloud.refuse("tpu.", service_disabled("tpu", cloud.projects[PROJECT].number), times=1)
    seen = []
    for _ in range(4):
        seen.append(len(inventory.list().records))
        now += timedelta(minutes=1)
    assert seen == [0, 1, 1, 1]


def test_what_is_said_twice_holds(cloud: Cloud) -> None:
    cloud.projects[PROJECT].disabled.add("tpu")
    config = Config(projects=(PROJECT,), credentials="anonymous", endpoint=cloud.endpoint)
    inventory = build(config, BuildContext(source="google", now=lambda: NOW)).inventory
    assert inventory is not None
    for _ in range(6):
        assert inventory.list().complete
    assert cloud.counted["tpu.projects.locations.nodes.list"] == 2


def test_what_was_there_is_not_ended_by_an_api_that_is_switched_off(cloud: Cloud) -> None:
    cloud.tpus.node()
    config = Config(projects=(PROJECT,), credentials="anonymous", endpoint=cloud.endpoint)
    inventory = build(config, BuildContext(source="google", now=lambda: NOW)).inventory
    assert inventory is not None
    assert len(inventory.list().records) == 1
    cloud.projects[PROJECT].disabled.add("tpu")
    for _ in range(3):
        answer = inventory.list()
        assert not answer.complete
        [words] = faults(answer).values()
        assert "it is taken to be there still" in words


def test_a_project_is_asked_for_its_number_once(cloud: Cloud) -> None:
    cloud.projects[PROJECT].disabled |= {"tpu", "notebooks"}
    config = Config(projects=(PROJECT,), credentials="anonymous", endpoint=cloud.endpoint)
    inventory = build(config, BuildContext(source="google", now=lambda: datetime.now(UTC))).inventory
    assert inventory is not None
    for _ in range(2):
        assert inventory.list().complete
    assert 1 <= cloud.counted["cloudresourcemanager.projects.get"] <= 2, "both lists may ask at the same moment"
