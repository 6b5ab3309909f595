"""Groups to zero and back, over TLS: exactly as they were, whatever happens between."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from itertools import count
from typing import Any

import pytest
from azure.mgmt.compute import models

from providers.azure import Config
from providers.azure.actuator import LATEST_START_SECONDS, AzureActuator
from providers.azure.client import Client
from providers.errors import (
    Conflict,
    Forbidden,
    NoCapacity,
    NotFound,
    Protected,
    ProviderError,
    Refused,
    Throttled,
    Unreachable,
    Unsupported,
)
from providers.records import Kind, ResourceRef, Verb
from tests.providers.azure.cloud import NO_ANSWER, SUBSCRIPTION, Call, Cloud, Refusal, Reply, answer
from tests.providers.azure.cloud_operations import NO_ROOM
from tests.providers.azure.cloud_refusals import conflict, forbidden, not_allowed
from tests.providers.azure.test_actuator import GROUP, asked, changes, lost_once, official, record, ref

ZERO = Verb.SCALE_TO_ZERO
RESIZE, SWITCH = "VirtualMachineScaleSets_Update", "AutoscaleSettings_CreateOrUpdate"
MODES = {"uniform": False, "flexible": True}


@pytest.fixture
def client(cloud: Cloud) -> Iterator[Client]:
    client = Client(Config(**cloud.settings), secret=lambda _: "a-token", sleep=lambda _: None)
    yield client
    client.close()


@pytest.fixture
def actuator(client: Client) -> AzureActuator:
    return AzureActuator(client)


def of(path: str) -> ResourceRef:
    return ref(path, Kind.NODE_GROUP)


def remember(actuator: AzureActuator, path: str) -> dict[str, Any]:
    """As the store keeps it."""
    remembered: dict[str, Any] = json.loads(json.dumps(actuator.remember(record(of(path)), ZERO)))
    return remembered


def to_zero(cloud: Cloud, actuator: AzureActuator, path: str) -> dict[str, Any]:
    """Remembered, done and settled."""
    remembered = remember(actuator, path)
    actuator.act(of(path), ZERO, request_id="curfew-1")
    cloud.settle()
    return remembered


def back(cloud: Cloud, actuator: AzureActuator, path: str, remembered: Mapping[str, Any]) -> None:
    actuator.restore(of(path), remembered, request_id="curfew-2")
    cloud.settle()


def silent(cloud: Cloud, method: str) -> AbstractContextManager[None]:
    """Within it, calls of that method get no answer, and are not heard."""
    return cloud.within(lambda call: NO_ANSWER if call.method == method else None)


# Scale sets.


def settings(cloud: Cloud, path: str) -> Any:
    """All that somebody could have set on a scale set, and what sets its size."""
    return json.loads(json.dumps([cloud.scale_sets.scale_sets[path.lower()].body, cloud.monitor.autoscale]))


def autoscale(cloud: Cloud) -> dict[str, Any]:
    (found,) = cloud.monitor.autoscale.values()
    properties: dict[str, Any] = found["properties"]
    return properties


def autoscaled(cloud: Cloud, *, least: int = 1, most: int = 4, enabled: bool = True, **how: Any) -> str:
    path = cloud.scale_sets.scale_set(**how)
    cloud.monitor.autoscale_setting(path, least=least, most=most, enabled=enabled)
    return path


class TestScaleSetsToZeroAndBack:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize(
        "how",
        [
            {},
            {"capacity": 1},
            {"capacity": 0},
            {"priority": "Spot"},
            {"zones": ["1", "2"], "properties": {"overprovision": True, "upgradePolicy": {"mode": "Automatic"}}},
            {"least": 1},
            {"least": 0, "capacity": 0},
            {"least": 1, "enabled": False},
        ],
    )
    def test_it_comes_back_exactly_as_it_was(
        self, cloud: Cloud, actuator: AzureActuator, mode: str, how: dict[str, Any]
    ) -> None:
        if mode == "flexible":
            how = {key: value for key, value in how.items() if key != "properties"}
        made = autoscaled if "least" in how else lambda cloud, **how: cloud.scale_sets.scale_set(**how)
        path = made(cloud, flexible=MODES[mode], **how)
        before, snapshot = settings(cloud, path), cloud.snapshot()
        remembered = remember(actuator, path)
        assert cloud.snapshot() == snapshot, "remembering changes nothing"
        actuator.act(of(path), ZERO, request_id="curfew-1")
        cloud.settle()
        assert (cloud.scale_sets.capacity(path), cloud.scale_sets.members(path)) == (0, [])
        back(cloud, actuator, path, remembered)
        assert settings(cloud, path) == before
        assert len(cloud.scale_sets.members(path)) == cloud.scale_sets.capacity(path) == remembered["size"]

    @pytest.mark.parametrize("mode", MODES)
    def test_what_is_asked_is_what_the_official_client_asks(
        self, cloud: Cloud, actuator: AzureActuator, mode: str
    ) -> None:
        path = cloud.scale_sets.scale_set(flexible=MODES[mode])
        with official(cloud) as sdk:
            sku = sdk.virtual_machine_scale_sets.get(GROUP, "workers").sku
            actuator.act(of(path), ZERO, request_id="curfew-1")
            assert sku is not None
            sku.capacity = 0
            update = models.VirtualMachineScaleSetUpdate(sku=sku)
            sdk.virtual_machine_scale_sets.begin_update(GROUP, "workers", update, polling=False)
        ours, theirs = [asked(call) for call in cloud.calls if call.changes]
        assert ours == theirs
        assert ours[-1] == {"sku": {"name": "Standard_NC24ads_A100_v4", "tier": "Standard", "capacity": 0}}

    def test_silence_comes_before_the_size_and_goes_after_it(self, cloud: Cloud, actuator: AzureActuator) -> None:
        path = autoscaled(cloud)
        back(cloud, actuator, path, to_zero(cloud, actuator, path))
        assert [call.method for call in cloud.calls if call.changes] == [SWITCH, RESIZE, RESIZE, SWITCH]

    def test_an_autoscale_setting_is_told_whole(self, cloud: Cloud, actuator: AzureActuator) -> None:
        path = autoscaled(cloud)
        (setting,) = cloud.monitor.autoscale.values()
        setting["tags"] = {"team": "nlp"}
        setting["properties"]["notifications"] = [{"operation": "Scale", "webhooks": []}]
        actuator.act(of(path), ZERO, request_id="curfew-1")
        (call,) = (call for call in cloud.calls if call.method == SWITCH)
        assert (call.path, dict(call.query)) == (setting["id"], {"api-version": "2022-10-01"})
        assert call.body == {
            "location": "westeurope",
            "tags": {"team": "nlp"},
            "properties": {**setting["properties"], "enabled": False},
        }

    def test_settings_for_others_are_left_alone(self, cloud: Cloud, actuator: AzureActuator) -> None:
        path, other = cloud.scale_sets.scale_set(), cloud.scale_sets.scale_set("others")
        cloud.monitor.autoscale_setting(other)
        before = settings(cloud, other)
        back(cloud, actuator, path, to_zero(cloud, actuator, path))
        assert settings(cloud, other) == before

    def test_the_case_of_ids_does_not_matter(self, cloud: Cloud, actuator: AzureActuator) -> None:
        path = autoscaled(cloud, group="RG-ML", name="Workers")
        autoscale(cloud)["targetResourceUri"] = autoscale(cloud)["targetResourceUri"].upper()
        actuator.act(of(path), ZERO, request_id="curfew-1")
        assert autoscale(cloud)["enabled"] is False

    def test_settings_on_many_pages_are_found(self, cloud: Cloud, actuator: AzureActuator) -> None:
        for number in range(5):
            cloud.monitor.autoscale_setting(cloud.scale_sets.scale_set(f"m{number}"), f"scale-{number}")
        path = autoscaled(cloud)
        cloud.most_per_page = 2
        actuator.act(of(path), ZERO, request_id="curfew-1")
        assert [one["name"] for one in cloud.monitor.autoscale.values() if not one["properties"]["enabled"]] == [
            "scale"
        ]

    def test_where_azure_monitor_was_never_used(self, cloud: Cloud, actuator: AzureActuator) -> None:
        path = cloud.scale_sets.scale_set()
        cloud.subscriptions[SUBSCRIPTION].unregistered.add("Microsoft.Insights")
        before = settings(cloud, path)
        back(cloud, actuator, path, to_zero(cloud, actuator, path))
        assert settings(cloud, path) == before

    def test_twice_is_once(self, cloud: Cloud, actuator: AzureActuator) -> None:
        path = autoscaled(cloud)
        before = settings(cloud, path)
        remembered = remember(actuator, path)
        for request_id in ("curfew-1", "curfew-1", "curfew-2"):
            actuator.act(of(path), ZERO, request_id=request_id)
            cloud.settle()
        for request_id in ("curfew-3", "curfew-3", "curfew-4"):
            actuator.restore(of(path), remembered, request_id=request_id)
            cloud.settle()
        assert [call.method for call in cloud.calls if call.changes] == [SWITCH, RESIZE, RESIZE, SWITCH]
        assert settings(cloud, path) == before

    @pytest.mark.parametrize(
        ("how", "plan"),
        [
            ({"enabled": False}, "Takes workers from 2 machines to zero; undo puts exactly this back."),
            ({"enabled": False, "capacity": 1}, "Takes workers from 1 machine to zero; undo puts exactly this back."),
            (
                {},
                "Takes workers from 2 machines to zero, and switches off its autoscale setting scale (1 to 4 "
                "machines); undo puts exactly this back.",
            ),
        ],
    )
    def test_what_is_remembered_reads_as_a_plan(
        self, cloud: Cloud, actuator: AzureActuator, how: dict[str, Any], plan: str
    ) -> None:
        assert remember(actuator, autoscaled(cloud, **how))["plan"] == plan

    def test_a_set_that_makes_no_machines_has_no_size(self, cloud: Cloud, actuator: AzureActuator) -> None:
        path = cloud.scale_sets.scale_set(flexible=True)
        del cloud.scale_sets.scale_sets[path.lower()].body["properties"]["virtualMachineProfile"]
        with pytest.raises(Unsupported, match="makes no machines"):
            actuator.remember(record(of(path)), ZERO)
        with pytest.raises(Unsupported, match="makes no machines"):
            actuator.act(of(path), ZERO, request_id="curfew-1")
        assert changes(cloud) == []

    def test_what_belongs_to_a_node_pool_is_sized_by_it_alone(self, cloud: Cloud, actuator: AzureActuator) -> None:
        path = cloud.aks.scale_set(cloud.aks.pool(cloud.aks.cluster()))
        spelled = cloud.scale_sets.scale_sets[path].body["id"]
        with pytest.raises(Unsupported, match="node pool"):
            actuator.act(of(spelled), ZERO, request_id="curfew-1")
        assert changes(cloud) == []

    def test_one_of_the_same_name_in_another_group_is_not_touched(self, cloud: Cloud, actuator: AzureActuator) -> None:
        here, there = (cloud.scale_sets.scale_set(group=group) for group in ("rg-ml", "rg-vision"))
        to_zero(cloud, actuator, here)
        assert (cloud.scale_sets.capacity(here), cloud.scale_sets.capacity(there)) == (0, 2)


PROTECTED = [{"protectFromScaleIn": True}, {"protectFromScaleIn": True, "protectFromScaleSetActions": True}]


class TestMembersThatMustNotBeLost:
    @pytest.mark.parametrize("policy", PROTECTED)
    def test_of_a_uniform_set(self, cloud: Cloud, actuator: AzureActuator, policy: dict[str, bool]) -> None:
        path = autoscaled(cloud, capacity=3)
        instances = cloud.scale_sets.scale_sets[path.lower()].instances
        instances["1"].properties["protectionPolicy"] = policy
        with pytest.raises(Protected, match="workers_1 is protected from scale-in"):
            actuator.act(of(path), ZERO, request_id="curfew-1")
        assert changes(cloud) == [], "nothing is silenced for what cannot be done"

    def test_of_a_flexible_set(self, cloud: Cloud, actuator: AzureActuator) -> None:
        path = cloud.scale_sets.scale_set(flexible=True)
        kept = {"name": "workers_a", "properties": {"protectionPolicy": {"protectFromScaleIn": True}}}

        def listed(call: Call) -> Reply | None:
            return answer({"value": [kept]}) if call.method == "VirtualMachineScaleSetVMs_List" else None

        with cloud.within(listed), pytest.raises(Protected, match="workers_a"):
            actuator.act(of(path), ZERO, request_id="curfew-1")
        assert changes(cloud) == []

    def test_those_no_longer_protected_go(self, cloud: Cloud, actuator: AzureActuator) -> None:
        path = cloud.scale_sets.scale_set()
        instances = cloud.scale_sets.scale_sets[path.lower()].instances
        instances["1"].properties["protectionPolicy"] = {"protectFromScaleIn": False}
        to_zero(cloud, actuator, path)
        assert cloud.scale_sets.members(path) == []

    def test_who_is_protected_must_be_known(self, cloud: Cloud, actuator: AzureActuator) -> None:
        path = cloud.scale_sets.scale_set()
        with cloud.without("Microsoft.Compute/virtualMachineScaleSets/virtualMachines/read"), pytest.raises(Forbidden):
            actuator.act(of(path), ZERO, request_id="curfew-1")
        assert changes(cloud) == []


class TestHalfDone:
    STEPS = (SWITCH, RESIZE)

    @pytest.mark.parametrize("at", [*STEPS, "VirtualMachineScaleSets_Get", "AutoscaleSettings_ListBySubscription"])
    def test_an_act_that_got_no_answer_is_asked_for_again(self, cloud: Cloud, actuator: AzureActuator, at: str) -> None:
        path = autoscaled(cloud)
        before = settings(cloud, path)
        remembered = remember(actuator, path)
        with silent(cloud, at), pytest.raises(Unreachable):
            actuator.act(of(path), ZERO, request_id="curfew-1")
        actuator.act(of(path), ZERO, request_id="curfew-1")
        cloud.settle()
        assert (cloud.scale_sets.capacity(path), autoscale(cloud)["enabled"]) == (0, False)
        back(cloud, actuator, path, remembered)
        assert settings(cloud, path) == before

    @pytest.mark.parametrize("heard", [False, True])
    @pytest.mark.parametrize("at", STEPS)
    def test_an_act_never_finished_is_undone(self, cloud: Cloud, actuator: AzureActuator, at: str, heard: bool) -> None:
        path = autoscaled(cloud)
        before = settings(cloud, path)
        remembered = remember(actuator, path)
        lost = cloud.within(lost_once(cloud, at)) if heard else silent(cloud, at)
        with lost, pytest.raises(Unreachable):
            actuator.act(of(path), ZERO, request_id="curfew-1")
        cloud.settle()
        back(cloud, actuator, path, remembered)
        assert settings(cloud, path) == before

    @pytest.mark.parametrize("heard", [False, True])
    @pytest.mark.parametrize("at", STEPS)
    def test_an_undo_that_got_no_answer_is_asked_for_again(
        self, cloud: Cloud, actuator: AzureActuator, at: str, heard: bool
    ) -> None:
        path = autoscaled(cloud)
        before = settings(cloud, path)
        remembered = to_zero(cloud, actuator, path)
        lost = cloud.within(lost_once(cloud, at)) if heard else silent(cloud, at)
        with lost, pytest.raises(Unreachable):
            actuator.restore(of(path), remembered, request_id="curfew-2")
        cloud.settle()
        back(cloud, actuator, path, remembered)
        assert settings(cloud, path) == before

    @pytest.mark.parametrize(
        ("refusal", "expected"),
        [
            (conflict(), Conflict),
            (not_allowed("Another operation is in progress."), Conflict),
            (forbidden("Microsoft.Compute/virtualMachineScaleSets/write", "x"), Forbidden),
            (not_allowed("Never."), Unsupported),
        ],
    )
    def test_an_act_that_azure_refuses_leaves_nothing_behind(
        self, cloud: Cloud, actuator: AzureActuator, refusal: Refusal, expected: type[ProviderError]
    ) -> None:
        path = autoscaled(cloud)
        before = settings(cloud, path)
        cloud.refuse(RESIZE, refusal)
        with pytest.raises(expected):
            actuator.act(of(path), ZERO, request_id="curfew-1")
        cloud.settle()
        assert settings(cloud, path) == before

    @pytest.mark.parametrize("level", ["ReadOnly"])
    def test_a_lock_on_the_set_leaves_nothing_behind(self, cloud: Cloud, actuator: AzureActuator, level: str) -> None:
        path = autoscaled(cloud, lock=level)
        before = settings(cloud, path)
        with pytest.raises(Protected):
            actuator.act(of(path), ZERO, request_id="curfew-1")
        assert settings(cloud, path) == before

    def test_the_first_refusal_is_what_is_told(self, cloud: Cloud, actuator: AzureActuator) -> None:
        path = autoscaled(cloud)
        cloud.refuse(RESIZE, not_allowed("Another operation is in progress."))
        denied = forbidden("Microsoft.Insights/autoscalesettings/write", path).reply

        def rule(call: Call) -> Reply | None:
            return denied if call.method == SWITCH and call.body["properties"]["enabled"] else None

        with cloud.within(rule), pytest.raises(Conflict, match="Another operation"):
            actuator.act(of(path), ZERO, request_id="curfew-1")

    def test_a_setting_that_cannot_be_switched_off_keeps_the_size(self, cloud: Cloud, actuator: AzureActuator) -> None:
        path = autoscaled(cloud)
        needed = "Microsoft.Insights/autoscalesettings/write"
        with cloud.without(needed), pytest.raises(Forbidden) as refused:
            actuator.act(of(path), ZERO, request_id="curfew-1")
        assert refused.value.permission == needed
        assert cloud.scale_sets.capacity(path) == 2

    def test_throttling_is_told_as_such(self, cloud: Cloud, actuator: AzureActuator) -> None:
        path = autoscaled(cloud)
        with cloud.throttled(), pytest.raises(Throttled):
            actuator.act(of(path), ZERO, request_id="curfew-1")
        assert cloud.scale_sets.capacity(path) == 2

    def test_no_call_begins_too_late(self, cloud: Cloud, client: Client) -> None:
        path = autoscaled(cloud)
        ticks = count(step=int(LATEST_START_SECONDS) // 3)  # each look at the clock is seconds later
        slow = AzureActuator(client, clock=lambda: float(next(ticks)))
        with pytest.raises(Unreachable, match="was not asked"):
            slow.act(of(path), ZERO, request_id="curfew-1")
        assert cloud.counted[RESIZE] == 0

    def test_what_became_of_it_is_known(self, cloud: Cloud, actuator: AzureActuator) -> None:
        path = autoscaled(cloud)
        cloud.operations.retry_after = None
        remembered = to_zero(cloud, actuator, path)
        cloud.operations.fail_next("scale", NO_ROOM)
        actuator.restore(of(path), remembered, request_id="curfew-2")
        (error,) = actuator.failures({"curfew-1": of(path), "curfew-2": of(path)}).values()
        assert isinstance(error, NoCapacity)


class TestSomebodyElse:
    @pytest.mark.parametrize("size", [1, 3, 9])
    def test_a_size_set_since_is_left_alone_but_ours_is_given_back(
        self, cloud: Cloud, actuator: AzureActuator, size: int
    ) -> None:
        path = autoscaled(cloud, least=0, most=9)
        remembered = to_zero(cloud, actuator, path)
        cloud.scale_sets.grow(cloud.scale_sets.scale_sets[path.lower()], size)
        with pytest.raises(Refused, match="by someone else"):
            actuator.restore(of(path), remembered, request_id="curfew-2")
        assert (cloud.scale_sets.capacity(path), autoscale(cloud)["enabled"]) == (size, True)
        actuator.restore(of(path), remembered, request_id="curfew-3")  # nothing of ours is left
        assert cloud.scale_sets.capacity(path) == size

    def test_a_setting_switched_on_since_decides(self, cloud: Cloud, actuator: AzureActuator) -> None:
        path = autoscaled(cloud, least=0)
        remembered = to_zero(cloud, actuator, path)
        autoscale(cloud)["enabled"] = True
        back(cloud, actuator, path, remembered)
        assert cloud.scale_sets.capacity(path) == 0

    def test_a_setting_taken_away_since_is_not_missed(self, cloud: Cloud, actuator: AzureActuator) -> None:
        path = autoscaled(cloud)
        remembered = to_zero(cloud, actuator, path)
        cloud.monitor.autoscale.clear()
        back(cloud, actuator, path, remembered)
        assert cloud.scale_sets.capacity(path) == 2

    def test_what_somebody_changed_in_a_setting_stays(self, cloud: Cloud, actuator: AzureActuator) -> None:
        path = autoscaled(cloud)
        remembered = to_zero(cloud, actuator, path)
        autoscale(cloud)["profiles"][0]["capacity"]["maximum"] = "8"
        back(cloud, actuator, path, remembered)
        assert autoscale(cloud)["enabled"] is True
        assert autoscale(cloud)["profiles"][0]["capacity"]["maximum"] == "8"

    def test_what_its_owner_had_switched_off_stays_off(self, cloud: Cloud, actuator: AzureActuator) -> None:
        path = autoscaled(cloud, enabled=False)
        back(cloud, actuator, path, to_zero(cloud, actuator, path))
        assert autoscale(cloud)["enabled"] is False
        assert cloud.counted[SWITCH] == 0

    def test_what_scales_it_after_the_undo_is_not_undone(self, cloud: Cloud, actuator: AzureActuator) -> None:
        path = autoscaled(cloud)
        remembered = to_zero(cloud, actuator, path)
        back(cloud, actuator, path, remembered)
        cloud.scale_sets.grow(cloud.scale_sets.scale_sets[path.lower()], 3)
        back(cloud, actuator, path, remembered)
        assert cloud.scale_sets.capacity(path) == 3

    def test_a_set_made_anew_under_the_name_is_another(self, cloud: Cloud, actuator: AzureActuator) -> None:
        path = cloud.scale_sets.scale_set()
        remembered = remember(actuator, path)
        cloud.scale_sets.scale_set(capacity=0)
        with pytest.raises(NotFound, match="made anew"):
            actuator.restore(of(path), remembered, request_id="curfew-1")
        assert changes(cloud) == []

    def test_a_set_that_is_gone(self, cloud: Cloud, actuator: AzureActuator) -> None:
        path = cloud.scale_sets.scale_set()
        remembered = remember(actuator, path)
        cloud.scale_sets.vanish(path)
        with pytest.raises(NotFound):
            actuator.remember(record(of(path)), ZERO)
        with pytest.raises(NotFound):
            actuator.act(of(path), ZERO, request_id="curfew-1")
        with pytest.raises(NotFound):
            actuator.restore(of(path), remembered, request_id="curfew-2")


# Node pools of AKS.

NODES: Mapping[str, dict[str, Any]] = {
    "two nodes": {},
    "one node": {"count": 1},
    "none": {"count": 0},
    "autoscaled": {"autoscaling": (1, 4)},
    "autoscaled from none": {"autoscaling": (0, 4), "count": 0},
    "spot": {"priority": "Spot", "zones": ["1"], "tags": {"team": "nlp"}},
    "stopped": {"power": "Stopped", "autoscaling": (0, 4)},
    "deallocating what it scales in": {"scaleDownMode": "Deallocate"},
    "whose last operation failed": {"provisioningState": "Failed"},
}


def pool_settings(cloud: Cloud, path: str) -> Any:
    changing = ("eTag", "provisioningState")
    return {key: value for key, value in truth(cloud, path).items() if key not in changing}


def truth(cloud: Cloud, path: str) -> dict[str, Any]:
    found = cloud.aks.truth(path)
    assert found is not None
    return found


def nodes(cloud: Cloud, path: str) -> int:
    return len(cloud.scale_sets.members(cloud.aks.scale_set(path)))


class TestNodePoolsToZeroAndBack:
    @pytest.mark.parametrize("how", NODES)
    def test_it_comes_back_exactly_as_it_was(self, cloud: Cloud, actuator: AzureActuator, how: str) -> None:
        path = cloud.aks.pool(cloud.aks.cluster(), **NODES[how])
        before, snapshot, number = pool_settings(cloud, path), cloud.snapshot(), nodes(cloud, path)
        remembered = remember(actuator, path)
        assert cloud.snapshot() == snapshot, "remembering changes nothing"
        actuator.act(of(path), ZERO, request_id="curfew-1")
        cloud.settle()
        assert nodes(cloud, path) == 0
        back(cloud, actuator, path, remembered)
        assert pool_settings(cloud, path) == before
        assert nodes(cloud, path) == number

    @pytest.mark.parametrize("how", ["two nodes", "autoscaled"])
    def test_size_and_autoscaling_are_set_in_one_call_that_tells_the_whole_pool(
        self, cloud: Cloud, actuator: AzureActuator, how: str
    ) -> None:
        path = cloud.aks.pool(cloud.aks.cluster(), **NODES[how])
        told = dict(truth(cloud, path))
        back(cloud, actuator, path, to_zero(cloud, actuator, path))
        down, up = [call for call in cloud.calls if call.changes]
        assert {(call.http, call.path, call.query["api-version"]) for call in (down, up)} == {
            ("PUT", path, "2024-09-01")
        }
        assert down.headers["if-match"] == told["eTag"] != up.headers["if-match"]
        unsaid = ("eTag", "currentOrchestratorVersion", "nodeImageVersion", "provisioningState")
        same = {key: value for key, value in told.items() if key not in (*unsaid, "minCount", "maxCount")}
        assert down.body == {"properties": {**same, "count": 0, "enableAutoScaling": False}}
        assert up.body == {"properties": {key: value for key, value in told.items() if key not in unsaid}}

    @pytest.mark.parametrize("how", ["two nodes", "autoscaled"])
    def test_twice_is_once(self, cloud: Cloud, actuator: AzureActuator, how: str) -> None:
        path = cloud.aks.pool(cloud.aks.cluster(), **NODES[how])
        before = pool_settings(cloud, path)
        remembered = remember(actuator, path)
        for request_id in ("curfew-1", "curfew-1", "curfew-2"):
            actuator.act(of(path), ZERO, request_id=request_id)
        cloud.settle()
        for request_id in ("curfew-3", "curfew-3", "curfew-4"):
            actuator.restore(of(path), remembered, request_id=request_id)
        cloud.settle()
        assert changes(cloud) == ["CreateOrUpdate"] * 2
        assert pool_settings(cloud, path) == before

    @pytest.mark.parametrize(
        ("how", "plan"),
        [
            ({"count": 1}, "Takes node pool gpu from 1 node to zero; undo puts exactly this back."),
            (
                {"autoscaling": (1, 4)},
                "Takes node pool gpu from 2 nodes to zero, and switches off its autoscaling (1 to 4 nodes); undo puts "
                "exactly this back.",
            ),
            (
                {"autoscaling": (3, 4)},
                "Takes node pool gpu from 2 nodes to zero, and switches off its autoscaling (3 to 4 nodes); undo gives "
                "it 3 nodes, as its autoscaling wants.",
            ),
        ],
    )
    def test_what_is_remembered_reads_as_a_plan(
        self, cloud: Cloud, actuator: AzureActuator, how: dict[str, Any], plan: str
    ) -> None:
        path = cloud.aks.pool(cloud.aks.cluster(), **how)
        remembered = to_zero(cloud, actuator, path)
        assert remembered["plan"] == plan
        back(cloud, actuator, path, remembered)
        assert truth(cloud, path)["count"] == (3 if "3 nodes, as" in plan else how.get("count", 2))

    @pytest.mark.parametrize(
        ("how", "why"), [({"mode": "System"}, "system pool"), ({"type": "VirtualMachines"}, "several sizes")]
    )
    def test_what_aks_or_curfew_cannot_scale_to_zero(
        self, cloud: Cloud, actuator: AzureActuator, how: dict[str, Any], why: str
    ) -> None:
        path = cloud.aks.pool(cloud.aks.cluster(), **how)
        with pytest.raises(Unsupported, match=why):
            actuator.remember(record(of(path)), ZERO)
        with pytest.raises(Unsupported, match=why):
            actuator.act(of(path), ZERO, request_id="curfew-1")
        assert changes(cloud) == []

    def test_a_pool_that_is_at_something_else(self, cloud: Cloud, actuator: AzureActuator) -> None:
        path = cloud.aks.pool(cloud.aks.cluster())
        truth(cloud, path)["provisioningState"] = "Upgrading"
        with pytest.raises(Conflict, match="Upgrading"):
            actuator.act(of(path), ZERO, request_id="curfew-1")
        assert changes(cloud) == []

    def test_an_undo_waits_for_the_act(self, cloud: Cloud, actuator: AzureActuator) -> None:
        path = cloud.aks.pool(cloud.aks.cluster())
        remembered = remember(actuator, path)
        actuator.act(of(path), ZERO, request_id="curfew-1")
        with pytest.raises(Conflict, match="Scaling"):
            actuator.restore(of(path), remembered, request_id="curfew-2")
        cloud.settle()
        back(cloud, actuator, path, remembered)
        assert nodes(cloud, path) == 2

    @pytest.mark.parametrize(
        ("refusal", "expected"),
        [
            (not_allowed("Another operation (Upgrading) is in progress, please wait."), Conflict),
            (not_allowed("Never."), Unsupported),
            (forbidden("Microsoft.ContainerService/managedClusters/agentPools/write", "x"), Forbidden),
        ],
    )
    def test_what_aks_refuses(
        self, cloud: Cloud, actuator: AzureActuator, refusal: Refusal, expected: type[ProviderError]
    ) -> None:
        path = cloud.aks.pool(cloud.aks.cluster(), autoscaling=(1, 4))
        cloud.refuse("AgentPools_CreateOrUpdate", refusal)
        before = cloud.snapshot()
        with pytest.raises(expected):
            actuator.act(of(path), ZERO, request_id="curfew-1")
        assert cloud.snapshot() == before

    def test_a_lock(self, cloud: Cloud, actuator: AzureActuator) -> None:
        path = cloud.aks.pool(cloud.aks.cluster(lock="ReadOnly"))
        with pytest.raises(Protected):
            actuator.act(of(path), ZERO, request_id="curfew-1")

    def test_a_pool_changed_while_it_was_looked_at_is_not_changed_back(
        self, cloud: Cloud, actuator: AzureActuator
    ) -> None:
        path = cloud.aks.pool(cloud.aks.cluster())

        def meanwhile(call: Call) -> None:
            if call.changes:
                truth(cloud, path).update(nodeLabels={"team": "nlp"}, eTag="7")

        with cloud.within(meanwhile), pytest.raises(Conflict):
            actuator.act(of(path), ZERO, request_id="curfew-1")
        assert truth(cloud, path)["count"] == 2

    @pytest.mark.parametrize("heard", [False, True])
    @pytest.mark.parametrize("undo", [False, True])
    def test_what_got_no_answer_is_asked_for_again(
        self, cloud: Cloud, actuator: AzureActuator, undo: bool, heard: bool
    ) -> None:
        path = cloud.aks.pool(cloud.aks.cluster(), autoscaling=(1, 4))
        before = pool_settings(cloud, path)
        remembered = to_zero(cloud, actuator, path) if undo else remember(actuator, path)

        def ask() -> None:
            if undo:
                actuator.restore(of(path), remembered, request_id="curfew-2")
            else:
                actuator.act(of(path), ZERO, request_id="curfew-1")

        method = "AgentPools_CreateOrUpdate"
        with (
            cloud.within(lost_once(cloud, method)) if heard else silent(cloud, method),
            pytest.raises(Unreachable),
        ):
            ask()
        ask()
        cloud.settle()
        back(cloud, actuator, path, remembered)
        assert pool_settings(cloud, path) == before

    def test_what_became_of_it_is_known(self, cloud: Cloud, actuator: AzureActuator) -> None:
        path = cloud.aks.pool(cloud.aks.cluster())
        cloud.operations.retry_after = None
        remembered = to_zero(cloud, actuator, path)
        cloud.operations.fail_next("scale", NO_ROOM)
        actuator.restore(of(path), remembered, request_id="curfew-2")
        (error,) = actuator.failures({"curfew-2": of(path)}).values()
        assert isinstance(error, NoCapacity)
        back(cloud, actuator, path, remembered)
        assert nodes(cloud, path) == 2


class TestSomebodyElseAtANodePool:
    def test_a_size_set_since_is_left_alone(self, cloud: Cloud, actuator: AzureActuator) -> None:
        path = cloud.aks.pool(cloud.aks.cluster())
        remembered = to_zero(cloud, actuator, path)
        truth(cloud, path)["count"] = 5
        with pytest.raises(Refused, match="set to 5 by someone else"):
            actuator.restore(of(path), remembered, request_id="curfew-2")
        assert changes(cloud) == ["CreateOrUpdate"]

    def test_a_size_set_since_is_what_the_autoscaling_begins_with(self, cloud: Cloud, actuator: AzureActuator) -> None:
        path = cloud.aks.pool(cloud.aks.cluster(), autoscaling=(1, 4))
        remembered = to_zero(cloud, actuator, path)
        truth(cloud, path)["count"] = 3
        actuator.restore(of(path), remembered, request_id="curfew-2")
        told = truth(cloud, path)
        assert [told[key] for key in ("count", "enableAutoScaling", "minCount", "maxCount")] == [3, True, 1, 4]

    def test_an_autoscaling_switched_on_since_decides(self, cloud: Cloud, actuator: AzureActuator) -> None:
        path = cloud.aks.pool(cloud.aks.cluster(), autoscaling=(1, 4))
        remembered = to_zero(cloud, actuator, path)
        truth(cloud, path).update(enableAutoScaling=True, minCount=0, maxCount=9)
        actuator.restore(of(path), remembered, request_id="curfew-2")
        assert changes(cloud) == ["CreateOrUpdate"]

    def test_a_pool_stopped_since_stays_so(self, cloud: Cloud, actuator: AzureActuator) -> None:
        path = cloud.aks.pool(cloud.aks.cluster())
        remembered = to_zero(cloud, actuator, path)
        truth(cloud, path)["powerState"] = {"code": "Stopped"}
        with pytest.raises(Refused, match="stopped by someone else"):
            actuator.restore(of(path), remembered, request_id="curfew-2")

    def test_a_cluster_made_anew_under_the_name_is_another(self, cloud: Cloud, actuator: AzureActuator) -> None:
        cluster = cloud.aks.cluster()
        path = cloud.aks.pool(cluster)
        told = cloud.aks.clusters[cluster.lower()].body["properties"]
        told["resourceUID"] = "6a1f"
        remembered = to_zero(cloud, actuator, path)
        told["resourceUID"] = "6a20"
        with pytest.raises(NotFound, match="made anew"):
            actuator.restore(of(path), remembered, request_id="curfew-2")
        assert changes(cloud) == ["CreateOrUpdate"]

    def test_a_pool_that_is_gone(self, cloud: Cloud, actuator: AzureActuator) -> None:
        path = cloud.aks.pool(cloud.aks.cluster())
        remembered = remember(actuator, path)
        cloud.aks.vanish(path)
        with pytest.raises(NotFound):
            actuator.act(of(path), ZERO, request_id="curfew-1")
        with pytest.raises(NotFound):
            actuator.restore(of(path), remembered, request_id="curfew-2")
