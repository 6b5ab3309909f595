"""The permissions that docs/azure.md asks for are those of the calls that are made, and its words are the code's."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from providers.azure import Config, assembled, client
from providers.azure.client import Client
from providers.contract import BuildContext, Provider
from providers.records import InventoryAnswer, Kind, ResourceRecord, ResourceRef, Verb
from tests.providers.azure.cloud import SUBSCRIPTION, Call, Cloud, Reply
from tests.providers.azure.cloud_refusals import forbidden

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "azure.md").read_text("utf-8")
SOURCES = [file.read_text("utf-8") for file in sorted((ROOT / "providers" / "azure").glob("*.py"))]
ROLES = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]


def allowed(role: dict[str, Any]) -> set[str]:
    return {action.lower() for action in role["Actions"]}


OBSERVE, ENFORCE = map(allowed, ROLES)
VERBS = {Kind.INSTANCE: Verb.STOP, Kind.NODE_GROUP: Verb.SCALE_TO_ZERO, Kind.NOTEBOOK: Verb.STOP}


@pytest.fixture
def azure(cloud: Cloud) -> Iterator[Provider]:
    """A source of a subscription that has one of everything."""
    trainer = cloud.compute.machine("trainer")
    cloud.compute.machine("deleted")
    cloud.monitor.push(
        trainer, "utilization_gpu", [(0, 0.0)], namespace="Telegraf/nvidia_smi", dimensions={"index": "0", "uuid": "1"}
    )
    uniform = cloud.scale_sets.scale_set("uniform", capacity=1)
    cloud.monitor.autoscale_setting(uniform)
    cloud.scale_sets.scale_set("flexible", capacity=1, flexible=True)
    cloud.aks.pool(cloud.aks.cluster(), autoscaling=(1, 3))
    cloud.ml.instance(cloud.ml.workspace())
    calls = Client(Config(**cloud.settings), secret=lambda _: "a-token", sleep=lambda _: None)
    context = BuildContext(source="research-azure", now=lambda: datetime.now(UTC))
    provider = assembled(Config(**cloud.settings), context, calls)
    yield provider
    provider.close()


def only(actions: set[str]) -> Callable[[Call], Reply | None]:
    """A rule: whoever asks has a role with these actions, and none besides."""

    def rule(call: Call) -> Reply | None:
        needed = bool(call.action) and call.action.lower() not in actions
        return forbidden(call.action, call.scope).reply if needed else None

    return rule


def asked(cloud: Cloud) -> set[str]:
    return {call.action.lower() for call in cloud.calls if call.action}


def watched(azure: Provider) -> InventoryAnswer:
    """Everything is listed, described, sampled and priced."""
    assert azure.inventory is not None
    assert azure.telemetry is not None
    assert azure.prices is not None
    found = azure.inventory.list()
    for record in found.records:
        azure.inventory.describe(record.ref)
    now = datetime.now(UTC)
    told = azure.telemetry.samples(found.records, start=now.replace(year=now.year - 1), end=now)
    assert told.faults == ()
    azure.prices.quote(found.records)
    return found


def acted_on(records: tuple[ResourceRecord, ...]) -> list[tuple[ResourceRecord, Verb]]:
    """Everything that can be, in the way of its kind; one machine is deleted."""
    alone = [record for record in records if record.managed_by is None]
    return [(one, Verb.TERMINATE if one.name == "deleted" else VERBS[one.ref.kind]) for one in alone]


def put_to_rest_and_back(cloud: Cloud, azure: Provider, found: InventoryAnswer) -> None:
    """Each act is asked for, and what became of it."""
    assert azure.actuator is not None
    assert azure.operations is not None
    acts: dict[str, ResourceRef] = {}
    for number, (record, verb) in enumerate(acted_on(found.records)):
        remembered = azure.actuator.remember(record, verb)
        azure.actuator.act(record.ref, verb, request_id=f"act-{number}")
        acts[f"act-{number}"] = record.ref
        if verb is not Verb.TERMINATE:
            cloud.settle()
            azure.actuator.restore(record.ref, remembered, request_id=f"back-{number}")
            cloud.settle()
    assert azure.operations.failures(acts) == {}


def test_the_role_to_observe_is_enough_to_watch_and_has_nothing_besides(cloud: Cloud, azure: Provider) -> None:
    with cloud.within(only(OBSERVE)):
        found = watched(azure)
    assert found.complete, found.parts
    assert all(report.fault is None for report in found.parts), found.parts
    assert {record.ref.kind for record in found.records} == {*VERBS}
    assert asked(cloud) == OBSERVE


def test_both_roles_together_are_enough_to_act_and_have_nothing_besides(cloud: Cloud, azure: Provider) -> None:
    cloud.operations.retry_after = None
    with cloud.within(only(OBSERVE | ENFORCE)):
        found = watched(azure)
        assert len(acted_on(found.records)) == 6
        put_to_rest_and_back(cloud, azure, found)
    assert asked(cloud) == OBSERVE | ENFORCE
    assert not OBSERVE & ENFORCE


def test_watching_changes_nothing() -> None:
    assert all(action.endswith("/read") for action in OBSERVE)
    told = {action for action in ENFORCE if "/locations/" in action}
    assert all(action.endswith("/read") for action in told), "what became of an act"
    assert all(re.search(r"/(action|delete|write)$", action) for action in ENFORCE - told)


def test_no_api_that_the_code_names_is_forgotten() -> None:
    """Should a call be added that the subscription above has nothing for."""
    named = {
        "/".join(parts).lower()
        for source in SOURCES
        for parts in re.findall(r"providers/(Microsoft\.\w+)/(\w+)", source)
    }
    assert len(named) > 8
    known = {"/".join(action.split("/")[:2]) for action in OBSERVE | ENFORCE}
    assert {api for api in named if api not in known} == set()


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role["Name"])
def test_a_role_is_one_that_azure_takes(role: dict[str, Any]) -> None:
    assert role["IsCustom"] is True
    assert role["Actions"] == sorted(role["Actions"], key=str.lower)
    assert role["AssignableScopes"] == [f"/subscriptions/{SUBSCRIPTION}"]


def test_every_code_of_a_blocker_is_explained() -> None:
    told = r'code="(\w+)"|"(\w+)",\s+f?"(?:its? |hibernation |Azure does |AKS )'
    codes = {one or other for source in SOURCES for one, other in re.findall(told, source)}
    assert len(codes) > 15
    assert {code for code in codes if f"`{code}`" not in PAGE} == set()


def test_who_gives_tokens_is_told_for_every_cloud() -> None:
    assert {host for host in client.AUTHORITIES if f"https://{host}" not in PAGE} == set()


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_a_source_on_the_page_is_one(text: str) -> None:
    for said in yaml.safe_load_all(text):
        if said["kind"] == "source":
            assert (said.pop("kind"), said.pop("provider")) == ("source", "azure")
            del said["name"]
            said.pop("telemetry_interval", None)
            Config.model_validate(said)
