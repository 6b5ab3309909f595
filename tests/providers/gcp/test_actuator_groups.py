"""Groups to zero and back, over HTTP: exactly as they were, whatever happens between."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from itertools import count
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import compute_v1

from providers.errors import (
    Conflict,
    Forbidden,
    NotFound,
    ProviderError,
    Refused,
    Throttled,
    Unreachable,
    Unsupported,
)
from providers.gcp import Config
from providers.gcp.actuator import LATEST_START_SECONDS, GcpActuator, request_uuid
from providers.gcp.client import Client
from providers.records import Kind, ResourceRef, Verb
from tests.providers.gcp.cloud import NO_ANSWER, Call, Cloud, Refusal
from tests.providers.gcp.cloud_operations import Failure
from tests.providers.gcp.test_actuator import asked, changes, record, ref

ZERO = Verb.SCALE_TO_ZERO
PLACES: Mapping[str, dict[str, Any]] = {
    "zonal": {"zone": "us-central1-a"},
    "regional": {"region": "us-central1", "zone": None},
}


@pytest.fixture
def client(cloud: Cloud) -> Iterator[Client]:
    client = Client(
        Config(projects=("research",), credentials="anonymous", endpoint=cloud.endpoint), sleep=lambda _: None
    )
    yield client
    client.close()


@pytest.fixture
def actuator(client: Client) -> GcpActuator:
    return GcpActuator(client, sleep=lambda _: None)


def of(path: str) -> ResourceRef:
    return ref(path, Kind.NODE_GROUP)


def remember(actuator: GcpActuator, path: str) -> dict[str, Any]:
    """As the store keeps it."""
    remembered: dict[str, Any] = json.loads(json.dumps(actuator.remember(record(of(path)), ZERO)))
    return remembered


def settings(cloud: Cloud, path: str) -> Any:
    """All that somebody could have set on a group and its autoscaler."""
    changing = {"fingerprint"}
    group = {key: value for key, value in cloud.groups.groups[path].items() if key not in changing}
    return json.loads(json.dumps([group, cloud.groups.autoscalers]))


def autoscaler(cloud: Cloud, name: str = "trainers") -> dict[str, Any]:
    (found,) = (one for one in cloud.groups.autoscalers.values() if one["name"] == name)
    policy: dict[str, Any] = found["autoscalingPolicy"]
    return policy


def silent(cloud: Cloud, method: str) -> AbstractContextManager[None]:
    """Within it, calls of that method get no answer, and are not heard."""
    return cloud.within(lambda call: NO_ANSWER if call.method.endswith(f".{method}") else None)


class TestInstanceGroupsToZeroAndBack:
    @pytest.mark.parametrize("place", PLACES)
    @pytest.mark.parametrize(
        "how",
        [
            {},
            {"size": 1},
            {"size": 0},
            {"autoscaled": (1, 4)},
            {"autoscaled": (0, 4), "size": 0},
            {"autoscaled": (1, 4), "mode": "OFF"},
            {"autoscaled": (1, 4), "mode": "ONLY_SCALE_OUT"},
        ],
    )
    def test_it_comes_back_exactly_as_it_was(
        self, cloud: Cloud, actuator: GcpActuator, place: str, how: Mapping[str, Any]
    ) -> None:
        path = cloud.groups.group(**PLACES[place], **how)
        before = settings(cloud, path)
        remembered = remember(actuator, path)
        assert settings(cloud, path) == before, "remembering changes nothing"
        actuator.act(of(path), ZERO, request_id="curfew-1")
        cloud.settle()
        assert cloud.groups.size(path) == 0
        assert cloud.groups.members[path] == []
        if "autoscaled" in how:
            assert autoscaler(cloud)["mode"] == "OFF"
        actuator.restore(of(path), remembered, request_id="curfew-2")
        cloud.settle()
        assert settings(cloud, path) == before
        assert len(cloud.groups.members[path]) == cloud.groups.size(path) == remembered["size"]

    @pytest.mark.parametrize("place", PLACES)
    def test_what_is_asked_is_what_the_official_client_asks(
        self, cloud: Cloud, actuator: GcpActuator, place: str
    ) -> None:
        path = cloud.groups.group(**PLACES[place], autoscaled=(1, 4))
        actuator.act(of(path), ZERO, request_id="curfew-1")
        ours = [asked(call) for call in cloud.calls if call.changes]
        cloud.calls.clear()
        cloud.settle()
        how: dict[str, Any] = {
            "credentials": AnonymousCredentials(), "client_options": {"api_endpoint": cloud.endpoint}
        }  # fmt: skip
        off = compute_v1.Autoscaler(autoscaling_policy=compute_v1.AutoscalingPolicy(mode="OFF"))
        patch: dict[str, Any] = {
            "project": "research", "autoscaler": "trainers", "autoscaler_resource": off,
            "request_id": request_uuid("curfew-1", "autoscaler"),
        }  # fmt: skip
        resize: dict[str, Any] = {
            "project": "research", "instance_group_manager": "trainers", "size": 0,
            "request_id": request_uuid("curfew-1", "size"),
        }  # fmt: skip
        if place == "zonal":
            where = {"zone": "us-central1-a"}
            compute_v1.AutoscalersClient(**how).patch_unary(compute_v1.PatchAutoscalerRequest(**patch, **where))
            compute_v1.InstanceGroupManagersClient(**how).resize_unary(
                compute_v1.ResizeInstanceGroupManagerRequest(**resize, **where)
            )
        else:
            where = {"region": "us-central1"}
            compute_v1.RegionAutoscalersClient(**how).patch_unary(
                compute_v1.PatchRegionAutoscalerRequest(**patch, **where)
            )
            compute_v1.RegionInstanceGroupManagersClient(**how).resize_unary(
                compute_v1.ResizeRegionInstanceGroupManagerRequest(**resize, **where)
            )
        assert ours == [asked(call) for call in cloud.calls if call.changes]

    def test_silence_comes_before_the_size_and_goes_after_it(self, cloud: Cloud, actuator: GcpActuator) -> None:
        path = cloud.groups.group(autoscaled=(1, 4))
        remembered = remember(actuator, path)
        actuator.act(of(path), ZERO, request_id="curfew-1")
        cloud.settle()
        actuator.restore(of(path), remembered, request_id="curfew-2")
        cloud.settle()
        assert changes(cloud) == ["patch", "resize", "resize", "patch"]
        assert (cloud.groups.size(path), autoscaler(cloud)["mode"]) == (2, "ON")

    def test_the_next_step_waits_until_the_last_one_is_done(self, cloud: Cloud, actuator: GcpActuator) -> None:
        """Google refuses to resize a group while its autoscaler is on."""
        path = cloud.groups.group(autoscaled=(1, 4))
        cloud.operations.looks = 3
        actuator.act(of(path), ZERO, request_id="curfew-1")
        assert [call.method.split(".", 1)[1] for call in cloud.calls[2:]] == [
            "autoscalers.patch",
            *["zoneOperations.get"] * 3,
            "instanceGroupManagers.resize",
        ]

    def test_twice_is_once(self, cloud: Cloud, actuator: GcpActuator) -> None:
        path = cloud.groups.group(autoscaled=(1, 4))
        before = settings(cloud, path)
        remembered = remember(actuator, path)
        for request_id in ("curfew-1", "curfew-1", "curfew-2"):
            actuator.act(of(path), ZERO, request_id=request_id)
            cloud.settle()
        assert changes(cloud) == ["patch", "resize"]
        for request_id in ("curfew-3", "curfew-3", "curfew-4"):
            actuator.restore(of(path), remembered, request_id=request_id)
            cloud.settle()
        assert changes(cloud) == ["patch", "resize", "resize", "patch"]
        assert settings(cloud, path) == before

    @pytest.mark.parametrize(
        ("how", "plan"),
        [
            ({}, "Takes trainers from 2 machines to zero; undo puts exactly this back."),
            ({"size": 1}, "Takes trainers from 1 machine to zero; undo puts exactly this back."),
            (
                {"autoscaled": (1, 4)},
                "Takes trainers from 2 machines to zero, and switches off its autoscaler (1 to 4 machines); "
                "undo puts exactly this back.",
            ),
        ],
    )
    def test_what_is_remembered_reads_as_a_plan(
        self, cloud: Cloud, actuator: GcpActuator, how: dict[str, Any], plan: str
    ) -> None:
        assert remember(actuator, cloud.groups.group(**how))["plan"] == plan

    @pytest.mark.parametrize(
        "stateful",
        [
            {"statefulPolicy": {"preservedState": {"disks": {"data": {"autoDelete": "NEVER"}}}}},
            {"statefulPolicy": {"preservedState": {}}},
        ],
    )
    def test_what_is_stateful_is_not_made_smaller(
        self, cloud: Cloud, actuator: GcpActuator, stateful: dict[str, Any]
    ) -> None:
        path = cloud.groups.group()
        cloud.groups.groups[path].update(stateful)
        with pytest.raises(Unsupported, match="stateful"):
            actuator.remember(record(of(path)), ZERO)
        with pytest.raises(Unsupported, match="stateful"):
            actuator.act(of(path), ZERO, request_id="curfew-1")
        assert changes(cloud) == []

    def test_what_belongs_to_a_node_pool_is_sized_by_it_alone(self, cloud: Cloud, actuator: GcpActuator) -> None:
        group = cloud.gke.groups(cloud.gke.pool(cloud.gke.cluster()))[0]
        with pytest.raises(Unsupported, match="node pool"):
            actuator.act(of(group), ZERO, request_id="curfew-1")
        assert changes(cloud) == []

    def test_one_of_the_same_name_in_another_zone_is_not_touched(self, cloud: Cloud, actuator: GcpActuator) -> None:
        here, there = (cloud.groups.group(zone=zone) for zone in ("us-central1-a", "us-central1-b"))
        actuator.act(of(here), ZERO, request_id="curfew-1")
        cloud.settle()
        assert (cloud.groups.size(here), cloud.groups.size(there)) == (0, 2)


class TestHalfDone:
    @pytest.mark.parametrize("at", ["patch", "resize", "get"])
    def test_an_act_that_got_no_answer_is_asked_for_again(self, cloud: Cloud, actuator: GcpActuator, at: str) -> None:
        path = cloud.groups.group(autoscaled=(1, 4))
        before = settings(cloud, path)
        remembered = remember(actuator, path)
        with silent(cloud, at), pytest.raises(Unreachable):
            actuator.act(of(path), ZERO, request_id="curfew-1")
        actuator.act(of(path), ZERO, request_id="curfew-1")
        cloud.settle()
        assert (cloud.groups.size(path), autoscaler(cloud)["mode"]) == (0, "OFF")
        actuator.restore(of(path), remembered, request_id="curfew-2")
        cloud.settle()
        assert settings(cloud, path) == before

    @pytest.mark.parametrize("at", ["patch", "zoneOperations.get", "resize"])
    def test_an_act_never_finished_is_undone(self, cloud: Cloud, actuator: GcpActuator, at: str) -> None:
        path = cloud.groups.group(autoscaled=(1, 4))
        before = settings(cloud, path)
        remembered = remember(actuator, path)
        with silent(cloud, at), pytest.raises(Unreachable):
            actuator.act(of(path), ZERO, request_id="curfew-1")
        cloud.settle()
        actuator.restore(of(path), remembered, request_id="curfew-2")
        cloud.settle()
        assert settings(cloud, path) == before

    @pytest.mark.parametrize("at", ["resize", "zoneOperations.get", "patch"])
    def test_an_undo_that_got_no_answer_is_asked_for_again(self, cloud: Cloud, actuator: GcpActuator, at: str) -> None:
        path = cloud.groups.group(autoscaled=(1, 4))
        before = settings(cloud, path)
        remembered = remember(actuator, path)
        actuator.act(of(path), ZERO, request_id="curfew-1")
        cloud.settle()
        with silent(cloud, at), pytest.raises(Unreachable):
            actuator.restore(of(path), remembered, request_id="curfew-2")
        cloud.settle()
        actuator.restore(of(path), remembered, request_id="curfew-2")
        cloud.settle()
        assert settings(cloud, path) == before

    @pytest.mark.parametrize(
        ("refusal", "expected"),
        [
            (Refusal(400, "The resource 'x' is not ready", reason="resourceNotReady"), Conflict),
            (Refusal(403, "Required 'compute.instanceGroupManagers.update' permission", reason="forbidden"), Forbidden),
            (Refusal(400, "Never.", reason="invalid"), Unsupported),
        ],
    )
    def test_an_act_that_google_refuses_leaves_nothing_behind(
        self, cloud: Cloud, actuator: GcpActuator, refusal: Refusal, expected: type[ProviderError]
    ) -> None:
        path = cloud.groups.group(autoscaled=(1, 4))
        before = settings(cloud, path)
        cloud.refuse("compute.instanceGroupManagers.resize", refusal)
        with pytest.raises(expected):
            actuator.act(of(path), ZERO, request_id="curfew-1")
        cloud.settle()
        assert settings(cloud, path) == before

    def test_the_first_refusal_is_what_is_told(self, cloud: Cloud, actuator: GcpActuator) -> None:
        path = cloud.groups.group(autoscaled=(1, 4))
        cloud.refuse("compute.instanceGroupManagers.resize", Refusal(400, "At work.", reason="resourceNotReady"))
        denied = Refusal(403, "You may not.", reason="forbidden").reply

        def rule(call: Call) -> Any:
            back = call.method == "compute.autoscalers.patch" and call.body["autoscalingPolicy"]["mode"] == "ON"
            return denied if back else None

        with cloud.within(rule), pytest.raises(Conflict, match="At work"):
            actuator.act(of(path), ZERO, request_id="curfew-1")

    def test_an_autoscaler_that_cannot_be_switched_off_late(self, cloud: Cloud, actuator: GcpActuator) -> None:
        path = cloud.groups.group(autoscaled=(1, 4))
        failure = Failure(code="UNSUPPORTED_OPERATION", message="Never.")
        cloud.operations.fail_next("compute.autoscalers.patch", failure)
        with pytest.raises(Unsupported, match="Never"):
            actuator.act(of(path), ZERO, request_id="curfew-1")
        assert cloud.groups.size(path) == 2

    def test_throttling_is_told_as_such(self, cloud: Cloud, actuator: GcpActuator) -> None:
        path = cloud.groups.group(autoscaled=(1, 4))
        with cloud.throttled(), pytest.raises(Throttled):
            actuator.act(of(path), ZERO, request_id="curfew-1")
        assert cloud.groups.size(path) == 2

    def test_no_call_begins_too_late(self, cloud: Cloud, client: Client) -> None:
        path = cloud.groups.group(autoscaled=(1, 4))
        ticks = count(step=int(LATEST_START_SECONDS) // 3)  # each look at the clock is seconds later
        slow = GcpActuator(client, clock=lambda: float(next(ticks)), sleep=lambda _: None)
        with pytest.raises(Unreachable, match="was not asked"):
            slow.act(of(path), ZERO, request_id="curfew-1")
        assert cloud.counted["compute.instanceGroupManagers.resize"] == 0

    def test_what_is_not_done_in_time_is_not_waited_for(self, cloud: Cloud, client: Client) -> None:
        path = cloud.groups.group(autoscaled=(1, 4))
        cloud.operations.looks = None
        clock = [0.0]
        waiting = GcpActuator(client, clock=lambda: clock[0], sleep=lambda seconds: clock.append(clock.pop() + seconds))
        with pytest.raises(Unreachable, match="was not asked"):
            waiting.act(of(path), ZERO, request_id="curfew-1")
        assert LATEST_START_SECONDS < clock[0] <= LATEST_START_SECONDS + 1
        cloud.settle()
        waiting.act(of(path), ZERO, request_id="curfew-1")
        cloud.settle()
        assert cloud.groups.size(path) == 0


class TestSomebodyElse:
    @pytest.mark.parametrize("size", [1, 3, 9])
    def test_a_size_set_since_is_left_alone_but_ours_is_given_back(
        self, cloud: Cloud, actuator: GcpActuator, size: int
    ) -> None:
        path = cloud.groups.group(autoscaled=(0, 9))
        remembered = remember(actuator, path)
        actuator.act(of(path), ZERO, request_id="curfew-1")
        cloud.settle()
        cloud.groups.resize(path, size)
        with pytest.raises(Refused, match="by someone else"):
            actuator.restore(of(path), remembered, request_id="curfew-2")
        cloud.settle()
        assert (cloud.groups.size(path), autoscaler(cloud)["mode"]) == (size, "ON")
        actuator.restore(of(path), remembered, request_id="curfew-3")  # nothing of ours is left
        assert cloud.groups.size(path) == size

    def test_an_autoscaler_switched_on_since_decides(self, cloud: Cloud, actuator: GcpActuator) -> None:
        path = cloud.groups.group(autoscaled=(0, 9))
        remembered = remember(actuator, path)
        actuator.act(of(path), ZERO, request_id="curfew-1")
        cloud.settle()
        autoscaler(cloud)["mode"] = "ONLY_SCALE_OUT"
        actuator.restore(of(path), remembered, request_id="curfew-2")
        cloud.settle()
        assert (cloud.groups.size(path), autoscaler(cloud)["mode"]) == (0, "ONLY_SCALE_OUT")

    def test_an_autoscaler_taken_away_since_is_not_missed(self, cloud: Cloud, actuator: GcpActuator) -> None:
        path = cloud.groups.group(autoscaled=(1, 4))
        remembered = remember(actuator, path)
        actuator.act(of(path), ZERO, request_id="curfew-1")
        cloud.settle()
        cloud.groups.autoscalers.clear()
        actuator.restore(of(path), remembered, request_id="curfew-2")
        cloud.settle()
        assert cloud.groups.size(path) == 2

    def test_settings_of_its_autoscaler_changed_since_stay(self, cloud: Cloud, actuator: GcpActuator) -> None:
        path = cloud.groups.group(autoscaled=(1, 4))
        remembered = remember(actuator, path)
        actuator.act(of(path), ZERO, request_id="curfew-1")
        cloud.settle()
        autoscaler(cloud)["maxNumReplicas"] = 8
        actuator.restore(of(path), remembered, request_id="curfew-2")
        cloud.settle()
        assert (autoscaler(cloud)["mode"], autoscaler(cloud)["maxNumReplicas"]) == ("ON", 8)

    def test_what_scales_it_after_the_undo_is_not_undone(self, cloud: Cloud, actuator: GcpActuator) -> None:
        path = cloud.groups.group(autoscaled=(1, 4))
        remembered = remember(actuator, path)
        actuator.act(of(path), ZERO, request_id="curfew-1")
        cloud.settle()
        actuator.restore(of(path), remembered, request_id="curfew-2")
        cloud.settle()
        cloud.groups.resize(path, 3)
        actuator.restore(of(path), remembered, request_id="curfew-2")
        assert cloud.groups.size(path) == 3

    def test_a_group_made_anew_under_the_name_is_another(self, cloud: Cloud, actuator: GcpActuator) -> None:
        path = cloud.groups.group()
        remembered = remember(actuator, path)
        cloud.groups.group(size=0)
        with pytest.raises(NotFound, match="made anew"):
            actuator.restore(of(path), remembered, request_id="curfew-1")
        assert changes(cloud) == []

    def test_a_group_that_is_gone(self, cloud: Cloud, actuator: GcpActuator) -> None:
        path = cloud.groups.group()
        remembered = remember(actuator, path)
        del cloud.groups.groups[path]
        with pytest.raises(NotFound):
            actuator.remember(record(of(path)), ZERO)
        with pytest.raises(NotFound):
            actuator.act(of(path), ZERO, request_id="curfew-1")
        with pytest.raises(NotFound):
            actuator.restore(of(path), remembered, request_id="curfew-2")


def pool_settings(cloud: Cloud, path: str) -> Any:
    sizes = {group: cloud.groups.size(group) for group in cloud.gke.groups(path)}
    return json.loads(json.dumps([cloud.gke.pools[path], sizes]))


class TestNodePoolsToZeroAndBack:
    @pytest.mark.parametrize(
        "how",
        [
            {},
            {"size": 3},
            {"size": 0},
            {"zones": ["us-central1-b"]},
            {"autoscaled": (1, 4)},
            {"autoscaled": (0, 4), "size": 0},
            {"autoscaling": {"enabled": True, "totalMinNodeCount": 1, "totalMaxNodeCount": 9, "locationPolicy": "ANY"}},
        ],
    )
    @pytest.mark.parametrize("location", ["us-central1", "us-central1-a"])
    def test_it_comes_back_exactly_as_it_was(
        self, cloud: Cloud, actuator: GcpActuator, location: str, how: dict[str, Any]
    ) -> None:
        path = cloud.gke.pool(cloud.gke.cluster(location=location), **how)
        before = pool_settings(cloud, path)
        remembered = remember(actuator, path)
        assert pool_settings(cloud, path) == before, "remembering changes nothing"
        actuator.act(of(path), ZERO, request_id="curfew-1")
        cloud.settle()
        assert not any(cloud.groups.size(group) for group in cloud.gke.groups(path))
        assert not cloud.gke.pools[path]["autoscaling"].get("enabled")
        actuator.restore(of(path), remembered, request_id="curfew-2")
        cloud.settle()
        assert pool_settings(cloud, path) == before

    def test_the_autoscaling_is_off_before_the_size_and_on_before_it(self, cloud: Cloud, actuator: GcpActuator) -> None:
        path = cloud.gke.pool(cloud.gke.cluster(), autoscaled=(1, 4))
        remembered = remember(actuator, path)
        actuator.act(of(path), ZERO, request_id="curfew-1")
        cloud.settle()
        actuator.restore(of(path), remembered, request_id="curfew-2")
        assert [(call.path.rpartition(":")[2], call.body) for call in cloud.calls if call.changes] == [
            ("setAutoscaling", {"autoscaling": {"enabled": False}}),
            ("setSize", {"nodeCount": 0}),
            ("setAutoscaling", {"autoscaling": {"enabled": True, "minNodeCount": 1, "maxNodeCount": 4}}),
            ("setSize", {"nodeCount": 1}),
        ]

    def test_twice_is_once(self, cloud: Cloud, actuator: GcpActuator) -> None:
        path = cloud.gke.pool(cloud.gke.cluster(), autoscaled=(1, 4))
        before = pool_settings(cloud, path)
        remembered = remember(actuator, path)
        for request_id in ("curfew-1", "curfew-1", "curfew-2"):
            actuator.act(of(path), ZERO, request_id=request_id)
            cloud.settle()
        for request_id in ("curfew-3", "curfew-3", "curfew-4"):
            actuator.restore(of(path), remembered, request_id=request_id)
            cloud.settle()
        assert changes(cloud) == ["setAutoscaling", "setSize"] * 2
        assert pool_settings(cloud, path) == before

    @pytest.mark.parametrize(
        ("sizes", "plan"),
        [
            ((1, 0, 0), "Takes node pool gpus from 1 node to zero; undo gives each of its zones 1 node."),
            ((2, 2, 2), "Takes node pool gpus from 6 nodes to zero; undo puts exactly this back."),
            ((3, 1, 2), "Takes node pool gpus from 6 nodes to zero; undo gives each of its zones 3 nodes."),
        ],
    )
    def test_zones_that_differ_come_back_alike(
        self, cloud: Cloud, actuator: GcpActuator, sizes: tuple[int, ...], plan: str
    ) -> None:
        path = cloud.gke.pool(cloud.gke.cluster())
        for group, size in zip(cloud.gke.groups(path), sizes, strict=True):
            cloud.groups.resize(group, size)
        cloud.settle()
        remembered = remember(actuator, path)
        assert remembered["plan"] == plan
        actuator.act(of(path), ZERO, request_id="curfew-1")
        cloud.settle()
        for request_id in ("curfew-2", "curfew-3"):
            actuator.restore(of(path), remembered, request_id=request_id)
            cloud.settle()
        assert [cloud.groups.size(group) for group in cloud.gke.groups(path)] == [max(sizes)] * 3

    @pytest.mark.parametrize("autoscaled", [None, (1, 4)])
    def test_a_cluster_that_is_at_something_else_is_asked_again(
        self, cloud: Cloud, actuator: GcpActuator, autoscaled: tuple[int, int] | None
    ) -> None:
        cluster = cloud.gke.cluster()
        path, *others = (cloud.gke.pool(cluster, name, autoscaled=autoscaled) for name in ("gpus", "second", "third"))
        before = pool_settings(cloud, path)
        remembered = remember(actuator, path)

        def while_another_is_at_it(ask: Callable[[], None]) -> None:
            cloud.gke.pools[others[-1]]["autoscaling"] = {}
            cloud.operations.looks = None
            actuator.act(of(others.pop()), ZERO, request_id="curfew-0")
            with pytest.raises(Unreachable, match="asked for again"):
                ask()
            cloud.settle()
            cloud.operations.looks = 1
            ask()
            cloud.settle()

        while_another_is_at_it(lambda: actuator.act(of(path), ZERO, request_id="curfew-1"))
        assert not any(cloud.groups.size(group) for group in cloud.gke.groups(path))
        while_another_is_at_it(lambda: actuator.restore(of(path), remembered, request_id="curfew-2"))
        assert pool_settings(cloud, path) == before

    def test_a_pool_that_is_at_something_else_is_asked_again(self, cloud: Cloud, actuator: GcpActuator) -> None:
        path = cloud.gke.pool(cloud.gke.cluster())
        cloud.gke.pools[path]["status"] = "RECONCILING"
        with pytest.raises(Unreachable, match="RECONCILING"):
            actuator.act(of(path), ZERO, request_id="curfew-1")
        assert changes(cloud) == []

    def test_what_takes_long_is_gone_on_with_later(self, cloud: Cloud, client: Client) -> None:
        path = cloud.gke.pool(cloud.gke.cluster(), autoscaled=(1, 4))
        before = pool_settings(cloud, path)
        clock = [0.0]
        waiting = GcpActuator(client, clock=lambda: clock[0], sleep=lambda seconds: clock.append(clock.pop() + seconds))
        remembered = remember(waiting, path)
        cloud.operations.looks = None
        with pytest.raises(Unreachable, match="was not asked"):
            waiting.act(of(path), ZERO, request_id="curfew-1")
        with pytest.raises(Unreachable, match="RECONCILING"):
            waiting.act(of(path), ZERO, request_id="curfew-1")
        cloud.settle()
        waiting.act(of(path), ZERO, request_id="curfew-1")
        cloud.settle()
        assert not any(cloud.groups.size(group) for group in cloud.gke.groups(path))
        with pytest.raises(Unreachable, match="was not asked"):
            waiting.restore(of(path), remembered, request_id="curfew-2")
        cloud.settle()
        waiting.restore(of(path), remembered, request_id="curfew-2")
        cloud.settle()
        assert pool_settings(cloud, path) == before

    def test_an_act_never_finished_is_undone(self, cloud: Cloud, actuator: GcpActuator) -> None:
        path = cloud.gke.pool(cloud.gke.cluster(), autoscaled=(1, 4))
        before = pool_settings(cloud, path)
        remembered = remember(actuator, path)
        with silent(cloud, "setSize"), pytest.raises(Unreachable):
            actuator.act(of(path), ZERO, request_id="curfew-1")
        actuator.restore(of(path), remembered, request_id="curfew-2")
        cloud.settle()
        assert pool_settings(cloud, path) == before

    def test_a_size_set_since_is_left_alone(self, cloud: Cloud, actuator: GcpActuator) -> None:
        path = cloud.gke.pool(cloud.gke.cluster())
        remembered = remember(actuator, path)
        actuator.act(of(path), ZERO, request_id="curfew-1")
        cloud.settle()
        cloud.groups.resize(cloud.gke.groups(path)[0], 5)
        with pytest.raises(Refused, match="set to 5 by someone else"):
            actuator.restore(of(path), remembered, request_id="curfew-2")

    def test_sizes_under_an_autoscaler_are_its_own(self, cloud: Cloud, actuator: GcpActuator) -> None:
        path = cloud.gke.pool(cloud.gke.cluster(), autoscaled=(1, 4))
        remembered = remember(actuator, path)
        actuator.act(of(path), ZERO, request_id="curfew-1")
        cloud.settle()
        cloud.gke.pools[path]["autoscaling"] = {"enabled": True, "minNodeCount": 2, "maxNodeCount": 3}
        cloud.settle()
        actuator.restore(of(path), remembered, request_id="curfew-2")
        cloud.settle()
        assert cloud.gke.pools[path]["autoscaling"] == {"enabled": True, "minNodeCount": 2, "maxNodeCount": 3}
        assert [cloud.groups.size(group) for group in cloud.gke.groups(path)] == [2, 2, 2]

    def test_one_made_anew_under_the_name_is_another(self, cloud: Cloud, actuator: GcpActuator) -> None:
        path = cloud.gke.pool(cloud.gke.cluster())
        remembered = {**remember(actuator, path), "sizes": {"gke-main-gpus-0badc0de-grp": 1}}
        with pytest.raises(NotFound, match="made anew"):
            actuator.restore(of(path), remembered, request_id="curfew-1")
        assert changes(cloud) == []

    @pytest.mark.parametrize("gone", ["pool", "cluster"])
    def test_one_that_is_gone(self, cloud: Cloud, actuator: GcpActuator, gone: str) -> None:
        cluster = cloud.gke.cluster()
        path = cloud.gke.pool(cluster)
        remembered = remember(actuator, path)
        del cloud.gke.pools[path]
        if gone == "cluster":
            del cloud.gke.clusters[cluster]
        with pytest.raises(NotFound):
            actuator.act(of(path), ZERO, request_id="curfew-1")
        with pytest.raises(NotFound):
            actuator.restore(of(path), remembered, request_id="curfew-2")

    @pytest.mark.parametrize(
        ("refusal", "expected"),
        [
            (Refusal(403, 'Required "container.clusters.update" permission(s).', reason="forbidden"), Forbidden),
            (Refusal(429, "Too often.", reason="rateLimitExceeded"), Throttled),
            (Refusal(400, "Never.", reason="badRequest"), Unsupported),
        ],
    )
    def test_what_gke_refuses(
        self, cloud: Cloud, actuator: GcpActuator, refusal: Refusal, expected: type[ProviderError]
    ) -> None:
        path = cloud.gke.pool(cloud.gke.cluster())
        cloud.refuse("container.projects.locations.clusters.nodePools.setSize", refusal)
        with pytest.raises(expected):
            actuator.act(of(path), ZERO, request_id="curfew-1")
