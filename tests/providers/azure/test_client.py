"""Calls by TLS, who asks, and everything that can go wrong with a call, in our words."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest
from azure.core import exceptions as sdk
from azure.core.rest import HttpRequest
from azure.mgmt.core import ARMPipelineClient

from providers.azure import Config, client
from providers.azure.client import Client, NotEnabled, NotThere, of_code
from providers.contract import Capabilities
from providers.errors import (
    Conflict,
    Forbidden,
    Misconfigured,
    NoCapacity,
    NotFound,
    Protected,
    ProviderError,
    Throttled,
    Unreachable,
    Unsupported,
)
from tests.providers.azure import cloud_tls
from tests.providers.azure.cloud import OTHER, SUBSCRIPTION, Call, Cloud
from tests.providers.azure.cloud_accounts import TENANT
from tests.providers.azure.cloud_refusals import (
    NO_ANSWER,
    Refusal,
    Reply,
    allocation_failed,
    answer,
    conflict,
    denied_by_policy,
    disabled,
    forbidden,
    group_not_found,
    internal,
    invalid,
    linked_forbidden,
    locked,
    not_allowed,
    not_found,
    not_registered,
    parent_not_found,
    quota_exceeded,
    subscription_not_found,
    throttled,
    throttled_by_compute,
    unauthenticated,
    unavailable,
    wrong_type,
    wrong_version,
)

VERSION = "2026-04-01"
KIND = "Microsoft.Compute/virtualMachines"
ALL = f"/subscriptions/{SUBSCRIPTION}/providers/{KIND}"
MACHINE = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-ml/providers/{KIND}/trainer"
STOP = f"{MACHINE}/deallocate"
SECRET = "a-token-that-nobody-may-see"
APPLICATION = "aaaaaaaa-0000-4000-8000-000000000001"

Said = Reply | Refusal | Callable[[Call], Reply]
Say = Callable[..., None]
Made = Callable[..., Client]


@pytest.fixture
def say(cloud: Cloud) -> Say:
    """From now on the cloud answers what it is told, one after the other; the last for ever."""
    replies: list[Said] = []

    def rule(call: Call) -> Reply:
        said = replies.pop(0) if len(replies) > 1 else replies[0]
        return said.reply if isinstance(said, Refusal) else said if isinstance(said, Reply) else said(call)

    def told(*said: Said) -> None:
        replies[:] = said
        cloud.rules[:] = [rule]

    return told


@pytest.fixture
def pauses() -> list[float]:
    """How long was waited before each further attempt; nothing is waited for."""
    return []


@pytest.fixture
def held() -> dict[str, str]:
    """The installation's secrets."""
    return {"AZURE_TOKEN": SECRET}


@pytest.fixture
def made(cloud: Cloud, pauses: list[float], held: Mapping[str, str]) -> Iterator[Made]:
    """Builds a client of the cloud."""
    clients = []

    def build(**fields: Any) -> Client:
        settings = {**cloud.settings, **fields}
        if "credentials" in fields:
            del settings["token_secret"]
        clients.append(Client(Config.model_validate(settings), secret=held.__getitem__, sleep=pauses.append))
        return clients[-1]

    yield build
    for one in clients:
        one.close()


@pytest.fixture
def calls(made: Made) -> Client:
    return made()


def get(calls: Client) -> Mapping[str, Any]:
    return calls.get(MACHINE, version=VERSION)


def stop(calls: Client) -> client.Accepted:
    return calls.post(STOP, version=VERSION)


def listed(calls: Client) -> list[Any]:
    return [one for page in calls.pages(ALL, version=VERSION) for one in page["value"]]


class TestWhatIsAsked:
    def test_each_method_with_its_version_its_query_and_its_body(self, cloud: Cloud, say: Say, calls: Client) -> None:
        say(answer({}))
        calls.get(MACHINE, version=VERSION, query={"$expand": "instanceView"})
        calls.post(STOP, version=VERSION, query={"hibernate": "true"})
        calls.post("/subscriptions/x/delete", {"instanceIds": ["1"]}, version=VERSION)
        calls.put("/subscriptions/x", {"a": 1}, version="2024-09-01")
        calls.patch("/subscriptions/y", {"b": None}, version=VERSION)
        calls.delete(MACHINE, version=VERSION, query={"forceDeletion": "true"})
        assert [(one.http, one.path, one.query, one.body) for one in cloud.calls] == [
            ("GET", MACHINE, {"api-version": VERSION, "$expand": "instanceView"}, None),
            ("POST", STOP, {"api-version": VERSION, "hibernate": "true"}, None),
            ("POST", "/subscriptions/x/delete", {"api-version": VERSION}, {"instanceIds": ["1"]}),
            ("PUT", "/subscriptions/x", {"api-version": "2024-09-01"}, {"a": 1}),
            ("PATCH", "/subscriptions/y", {"api-version": VERSION}, {"b": None}),
            ("DELETE", MACHINE, {"api-version": VERSION, "forceDeletion": "true"}, None),
        ]

    def test_who_asks_is_told_with_every_call(self, cloud: Cloud, calls: Client) -> None:
        cloud.compute.machine()
        get(calls)
        stop(calls)
        assert {one.headers["authorization"] for one in cloud.calls} == {f"Bearer {SECRET}"}
        assert all(one.headers["user-agent"].startswith("gpu-curfew") for one in cloud.calls)

    def test_a_list_is_followed_to_its_end(self, cloud: Cloud, calls: Client) -> None:
        for number in range(5):
            cloud.compute.machine(f"m{number}")
        cloud.most_per_page = 2
        assert [one["name"] for one in listed(calls)] == ["m0", "m1", "m2", "m3", "m4"]
        assert cloud.counted["VirtualMachines_ListAll"] == 3

    def test_pages_before_an_error_are_valid(self, cloud: Cloud, say: Say, calls: Client) -> None:
        page = answer({"value": [1], "nextLink": f"{cloud.endpoint}{ALL}?api-version={VERSION}&$skiptoken=1"})
        say(page, forbidden(f"{KIND}/read", ALL))
        pages = calls.pages(ALL, version=VERSION)
        assert next(pages)["value"] == [1]
        with pytest.raises(Forbidden):
            next(pages)

    @pytest.mark.parametrize("page", [{}, {"value": None}, {"value": {}}])
    def test_a_page_without_a_list_is_none(self, say: Say, calls: Client, page: dict[str, Any]) -> None:
        say(answer(page))
        with pytest.raises(Unreachable, match="without value"):
            listed(calls)

    def test_a_list_that_leads_to_itself_has_an_end(self, cloud: Cloud, say: Say, calls: Client) -> None:
        say(answer({"value": [1], "nextLink": f"{cloud.endpoint}{ALL}?api-version={VERSION}"}))
        with pytest.raises(Unreachable, match="again and again"):
            listed(calls)

    @pytest.mark.parametrize(("rows", "next_link"), [("value", "nextLink"), ("Items", "NextPageLink")])
    def test_so_has_one_that_leads_to_ever_new_pages(
        self, cloud: Cloud, say: Say, calls: Client, monkeypatch: pytest.MonkeyPatch, rows: str, next_link: str
    ) -> None:
        monkeypatch.setattr(client, "MOST_PAGES", 3)
        say(lambda call: answer({rows: [1], next_link: f"{cloud.endpoint}{ALL}?$skiptoken={len(cloud.calls)}"}))
        with pytest.raises(Unreachable, match="more than 3 pages"):
            _ = listed(calls) if rows == "value" else [*calls.prices({})]

    def test_the_case_of_a_path_does_not_matter(self, cloud: Cloud, calls: Client) -> None:
        cloud.compute.machine("Trainer", group="RG-ML")
        assert calls.get(MACHINE.upper(), version=VERSION)["name"] == "Trainer"

    def test_nothing_is_read_or_asked_before_the_first_question(self, cloud: Cloud, made: Made) -> None:
        made(ca_file="/nonexistent/ca.pem", credentials={"token_secret": "MISSING"}).close()
        assert cloud.calls == []

    def test_several_threads_share_a_client(self, cloud: Cloud, calls: Client) -> None:
        cloud.compute.machine()
        with ThreadPoolExecutor(8) as threads:
            assert {one["name"] for one in threads.map(lambda _: get(calls), range(40))} == {"trainer"}
        assert len(cloud.calls) == 40


class TestActsThatTakeAWhile:
    def test_what_became_of_one_is_asked_at_the_operation(self, cloud: Cloud, calls: Client) -> None:
        machine = cloud.compute.machine()
        accepted = stop(calls)
        assert accepted.body == {}
        assert accepted.operation is not None
        assert calls.outcome(accepted.operation, "stopping trainer").ended
        assert cloud.compute.power(machine) == "deallocated"

    def test_azure_asyncoperation_tells_more_than_location(self, cloud: Cloud, say: Say, calls: Client) -> None:
        ours = f"{cloud.endpoint}/subscriptions/x"
        headers = {"Location": f"{ours}/result?a=1", "Azure-AsyncOperation": f"{ours}/status?b=2"}
        say(answer(None, status=202, headers=headers))
        assert stop(calls).operation == "/subscriptions/x/status?b=2"

    def test_location_will_do(self, cloud: Cloud, say: Say, calls: Client) -> None:
        say(answer(None, status=202, headers={"Location": f"{cloud.endpoint}/subscriptions/x/result"}))
        assert stop(calls).operation == "/subscriptions/x/result"

    def test_with_a_body_and_an_operation(self, cloud: Cloud, calls: Client) -> None:
        """As scale sets and node pools answer a change."""
        scale_set = cloud.scale_sets.scale_set("workers", capacity=2)
        accepted = calls.patch(scale_set, {"sku": {"capacity": 0}}, version=VERSION)
        assert accepted.body["sku"]["capacity"] == 0
        assert accepted.operation is not None

    @pytest.mark.parametrize("headers", [{}, {"Location": "https://somewhere.example.org/it"}])
    def test_done_at_once(self, say: Say, calls: Client, headers: dict[str, str]) -> None:
        say(answer({"name": "trainer"}, headers=headers))
        assert stop(calls).operation is None


FAILED = {"status": "Failed", "error": {"code": "AllocationFailed", "message": "None left."}}


class TestWhatBecameOfAnAct:
    @pytest.mark.parametrize(
        ("reply", "ended", "error"),
        [
            pytest.param(answer({"status": "InProgress"}), False, None, id="under way"),
            pytest.param(answer({"status": "Scaling"}), False, None, id="under way, in a word of AKS"),
            pytest.param(answer({"status": "Succeeded"}), True, None, id="done"),
            pytest.param(answer({"status": "succeeded"}), True, None, id="done, in small letters"),
            pytest.param(answer(FAILED), True, NoCapacity, id="failed"),
            pytest.param(answer({"status": "Canceled"}), True, ProviderError, id="given up, without a reason"),
            pytest.param(answer(None, status=202), False, None, id="under way, by its Location"),
            pytest.param(answer(None, status=204), True, None, id="done, by its Location"),
            pytest.param(answer({"id": "x"}), True, None, id="done, with what was made"),
            pytest.param(allocation_failed(), True, NoCapacity, id="failed, by its Location"),
            pytest.param(conflict(), True, Conflict, id="overtaken, by its Location"),
        ],
    )
    def test_is_told(
        self, say: Say, calls: Client, reply: Said, ended: bool, error: type[ProviderError] | None
    ) -> None:
        say(reply)
        told = calls.outcome("/subscriptions/x/operations/y", "Stopping trainer")
        assert told.ended is ended
        assert told.error is None if error is None else isinstance(told.error, error)

    @pytest.mark.parametrize(
        "reply", [NO_ANSWER, unavailable(), throttled(SUBSCRIPTION), unauthenticated(), Reply(status=404)]
    )
    def test_is_not_known(self, say: Say, calls: Client, reply: Said) -> None:
        say(reply)
        with pytest.raises((Unreachable, Throttled, Forbidden)):
            calls.outcome("/subscriptions/x/operations/y", "Stopping trainer")

    def test_and_when_to_ask_again(self, say: Say, calls: Client) -> None:
        say(answer({"status": "InProgress"}, headers={"Retry-After": "11"}))
        assert calls.outcome("/subscriptions/x/operations/y", "Stopping trainer").retry_after == 11


ELSEWHERE = {
    "another host": "https://evil.example.org/subscriptions/x",
    "the same host, another port": "https://127.0.0.1:1/subscriptions/x",
    "not by TLS": "http://{host}/subscriptions/x",
    "a name that only looks like it": "https://{host}@evil.example.org/subscriptions/x",
    "a host that begins like it": "https://{host}.evil.example.org/subscriptions/x",
    "another host without its scheme": "//evil.example.org/subscriptions/x",
    "no address at all": "evil",
}


@pytest.mark.parametrize("case", ELSEWHERE)
class TestATokenGoesNowhereElse:
    def test_for_the_next_page(self, cloud: Cloud, say: Say, calls: Client, case: str) -> None:
        say(answer({"value": [], "nextLink": ELSEWHERE[case].format(host=urlsplit(cloud.endpoint).netloc)}))
        with pytest.raises(Unreachable, match="do not follow to another host"):
            listed(calls)
        assert len(cloud.calls) == 1

    @pytest.mark.parametrize("header", ["Azure-AsyncOperation", "Location"])
    def test_for_what_became_of_an_act(self, cloud: Cloud, say: Say, calls: Client, case: str, header: str) -> None:
        link = ELSEWHERE[case].format(host=urlsplit(cloud.endpoint).netloc)
        say(answer(None, status=202, headers={header: link}))
        with pytest.raises(Unreachable, match="do not follow to another host"):
            stop(calls)
        assert len(cloud.calls) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(say: Say, calls: Client, status: int) -> None:
    with Cloud().serving() as other:
        say(Reply(status=status, headers={"Location": f"{other.endpoint}{STOP}"}))
        with pytest.raises(Misconfigured, match="endpoint:"):
            stop(calls)
        assert other.calls == []


@pytest.fixture
def urls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where would have been asked; nobody answers but to the first question."""
    asked: list[str] = []

    def hung_up(_client: object, request: HttpRequest, **_rest: object) -> None:
        asked.append(request.url)
        raise sdk.ServiceResponseError("gone")

    monkeypatch.setattr(ARMPipelineClient, "send_request", hung_up)
    return asked


@pytest.mark.parametrize(
    ("endpoint", "asked"),
    [
        ("https://management.azure.com", "https://management.azure.com"),
        ("https://management.usgovcloudapi.net/", "https://management.usgovcloudapi.net"),
    ],
)
def test_where_the_resource_manager_is(made: Made, urls: list[str], endpoint: str, asked: str) -> None:
    with pytest.raises(Unreachable):
        stop(made(endpoint=endpoint))
    assert urls == [f"{asked}{STOP}?api-version={VERSION}"]


@pytest.mark.parametrize(
    "link", ["https://management.azure.com:443/subscriptions/x?a=b", "https://MANAGEMENT.azure.com/subscriptions/x?a=b"]
)
def test_a_link_may_be_written_otherwise(made: Made, urls: list[str], link: str) -> None:
    with pytest.raises(Unreachable):
        made(endpoint="https://management.azure.com").follow(link, prompt=True)
    assert set(urls) == {"https://management.azure.com/subscriptions/x?a=b"}


class TestPrices:
    FILTER: ClassVar[dict[str, str | int]] = {
        "$filter": "armSkuName eq 'Standard_NC24ads_A100_v4' and armRegionName eq 'westeurope'"
    }

    def test_are_asked_without_a_token(self, cloud: Cloud, calls: Client) -> None:
        (page,) = calls.prices(self.FILTER)
        assert page["Count"] == 5
        assert all("authorization" not in one.headers for one in cloud.calls)

    def test_and_without_credentials(self, cloud: Cloud, made: Made) -> None:
        assert next(made(credentials={"token_secret": "MISSING"}).prices(self.FILTER))["Items"]

    def test_page_by_page(self, cloud: Cloud, calls: Client) -> None:
        cloud.prices.most_per_page = 2
        pages = [*calls.prices(self.FILTER)]
        assert [page["Count"] for page in pages] == [2, 2, 1]
        assert len({item["meterId"] for page in pages for item in page["Items"]}) == 5

    def test_the_next_page_is_asked_where_the_first_was(self, cloud: Cloud, say: Say, calls: Client) -> None:
        link = "https://evil.example.org:443/api/retail/prices?$skip=1000"
        say(answer({"Items": [], "NextPageLink": link}), answer({"Items": [], "NextPageLink": None}))
        assert len([*calls.prices({})]) == 2
        assert cloud.calls[1].query == {"$skip": "1000"}

    def test_a_filter_that_is_none(self, calls: Client) -> None:
        with pytest.raises(Unsupported, match="Invalid OData"):
            next(calls.prices({"$filter": "armSkuName is it"}))


DISK = "Microsoft.Compute/disks"
REFUSALS: dict[str, tuple[Refusal, type[ProviderError]]] = {
    "a role is missing": (forbidden(f"{KIND}/deallocate/action", MACHINE), Forbidden),
    "a role for something that hangs on it": (linked_forbidden(f"{KIND}/write", f"{DISK}/write", MACHINE), Forbidden),
    "a policy forbids it": (denied_by_policy("trainer"), Forbidden),
    "the subscription is disabled": (disabled(SUBSCRIPTION), Forbidden),
    "nobody is known by that token": (unauthenticated(), Forbidden),
    "the token is too old": (unauthenticated(expired=True), Forbidden),
    "the provider is not registered": (not_registered("Microsoft.Compute"), NotEnabled),
    "the version is not served": (wrong_version("1", "Microsoft.Compute", "virtualMachines", ["2"]), NotThere),
    "the type is not served": (wrong_type("virtualMachines", "Microsoft.Compute", VERSION), NotThere),
    "asked too often of all": (throttled(SUBSCRIPTION), Throttled),
    "asked too often of Compute": (throttled_by_compute(), Throttled),
    "more machines than may be": (quota_exceeded(), NoCapacity),
    "none left": (allocation_failed(), NoCapacity),
    "none left in the zone": (allocation_failed(zonal=True), NoCapacity),
    "too many of them for AKS": (
        invalid("Insufficient regional vcpu quota left for location westeurope.", code="ErrCode_InsufficientVCPUQuota"),
        NoCapacity,
    ),
    "it does not exist": (not_found(KIND, "trainer", "rg-ml"), NotFound),
    "it does not exist, in capitals": (not_found(KIND.upper(), "TRAINER", "RG-ML"), NotFound),
    "its resource group does not exist": (group_not_found("rg-ml"), NotFound),
    "what it is part of does not exist": (parent_not_found("virtualMachines/deallocate", MACHINE), NotFound),
    "its subscription does not exist": (subscription_not_found(SUBSCRIPTION), NotThere),
    "something else does not exist": (not_found(DISK, "data", "rg-ml"), NotThere),
    "another operation runs": (conflict(), Conflict),
    "another operation runs, says AKS": (
        not_allowed("Operation is not allowed: Another operation (Scaling) is in progress."),
        Conflict,
    ),
    "it was overtaken": (Refusal(409, "OperationPreempted", "Preempted by a more recent operation."), Conflict),
    "it was changed meanwhile": (Refusal(412, "PreconditionFailed", "The etag does not match."), Conflict),
    "it is locked": (locked(MACHINE, "/subscriptions/x"), Protected),
    "it cannot be": (not_allowed("Cannot power off the VM as it is deallocated."), Unsupported),
    "a word of tomorrow": (Refusal(400, "AWordOfTomorrow", "Because."), Unsupported),
    "a word of tomorrow about its state": (Refusal(409, "AWordOfTomorrow", "Because."), Conflict),
    "it is out of order": (internal(), Unreachable),
    "it is busy": (unavailable(), Unreachable),
    "it took too long": (Refusal(504, "GatewayTimeout", "The gateway did not receive a response."), Unreachable),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_how_azure_says_no(say: Say, calls: Client, case: str) -> None:
    refusal, expected = REFUSALS[case]
    say(refusal)
    with pytest.raises(ProviderError) as told:
        stop(calls)
    assert type(told.value) is expected
    assert told.value.sentence.startswith(f"Azure, POST {STOP}")


@pytest.mark.parametrize("case", [case for case, (_, error) in REFUSALS.items() if error not in (NotEnabled,)])
def test_its_words_are_passed_on(say: Say, calls: Client, case: str) -> None:
    refusal, _ = REFUSALS[case]
    say(refusal)
    with pytest.raises(ProviderError) as told:
        stop(calls)
    assert str(refusal)[:40].rstrip(".") in told.value.sentence


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        pytest.param(404, {"code": "NotFound", "message": "No agentpool 'gpu'.", "subcode": ""}, NotFound, id="AKS"),
        pytest.param(400, {"code": "BadRequest", "message": "No such metric."}, Unsupported, id="Azure Monitor"),
        pytest.param(400, {"Error": {"Code": "BadRequest", "Message": "No OData."}}, Unsupported, id="Retail Prices"),
        pytest.param(400, {"code": "X", "message": "No such metric.", "details": 5}, Unsupported, id="no details"),
    ],
)
def test_not_all_write_their_errors_in_one_form(
    say: Say, calls: Client, status: int, body: Mapping[str, Any], expected: type[ProviderError]
) -> None:
    say(answer(body, status=status))
    with pytest.raises(ProviderError, match=r"No (agentpool|such metric|OData)") as told:
        stop(calls)
    assert type(told.value) is expected


@pytest.mark.parametrize(
    ("refusal", "permission"),
    [
        (forbidden(f"{KIND}/deallocate/action", MACHINE), f"{KIND}/deallocate/action"),
        (linked_forbidden(f"{KIND}/write", f"{DISK}/write", MACHINE), f"{DISK}/write"),
        (denied_by_policy("trainer"), None),
    ],
)
def test_the_missing_action_is_named(say: Say, calls: Client, refusal: Refusal, permission: str | None) -> None:
    say(refusal)
    with pytest.raises(Forbidden) as told:
        stop(calls)
    assert told.value.permission == told.value.as_fault().permission == permission
    assert permission is None or told.value.sentence.endswith(f"it needs {permission}")


def test_long_words_are_cut(say: Say, calls: Client) -> None:
    say(Refusal(400, "Long", "Because.\n" * 1000))
    with pytest.raises(Unsupported) as told:
        stop(calls)
    assert len(told.value.sentence) < 600
    assert "\n" not in told.value.sentence


class TestWhatFailsLate:
    @pytest.mark.parametrize(
        ("code", "words", "expected"),
        [
            ("AllocationFailed", "Allocation failed.", NoCapacity),
            ("ZonalAllocationFailed", "Allocation failed.", NoCapacity),
            ("SkuNotAvailable", "The requested size is currently not available.", NoCapacity),
            ("OperationNotAllowed", "It results in exceeding approved standardNCFamily Cores quota.", NoCapacity),
            ("OperationPreempted", "Preempted by a more recent operation.", Conflict),
            ("InternalExecutionError", "An internal execution error occurred. Please retry later.", Unreachable),
            ("ScopeLocked", "The scope cannot perform write operation.", Protected),
            ("AuthorizationFailed", "No authorization to perform action 'a/b/c' over scope 'x'.", Forbidden),
            ("ResourceNotFound", f"The Resource '{KIND}/trainer' was not found.", NotFound),
            ("ResourceNotFound", f"The Resource '{DISK}/data' was not found.", Unsupported),
            ("VMExtensionProvisioningError", "It failed.", Unsupported),
            ("", "", Unsupported),
        ],
    )
    def test_an_operation(self, code: str, words: str, expected: type[ProviderError]) -> None:
        told = of_code("Starting trainer", {"code": code, "message": words})
        assert type(told) is expected
        assert told.sentence.startswith("Starting trainer")


class TestPatience:
    def test_reading_tries_five_times_and_waits_longer_each_time(
        self, cloud: Cloud, say: Say, calls: Client, pauses: list[float]
    ) -> None:
        say(unavailable())
        with pytest.raises(Unreachable):
            get(calls)
        assert len(cloud.calls) == 5
        assert pauses == [0.5, 1, 2, 4]

    def test_a_stumble_is_not_a_failure(self, say: Say, calls: Client) -> None:
        say(NO_ANSWER, unavailable(), throttled(SUBSCRIPTION, retry_after=None), answer({"a": 1}))
        assert get(calls) == {"a": 1}

    def test_a_stumble_between_pages_too(self, cloud: Cloud, calls: Client) -> None:
        for number in range(3):
            cloud.compute.machine(f"m{number}")
        cloud.most_per_page = 1
        cloud.refuse("VirtualMachines_ListAll", unavailable(), times=2)
        assert len(listed(calls)) == 3

    @pytest.mark.parametrize("reply", [NO_ANSWER, unavailable(), throttled(SUBSCRIPTION, retry_after=1)])
    def test_an_act_is_asked_once(self, cloud: Cloud, say: Say, calls: Client, reply: Said) -> None:
        say(reply)
        acts: list[Callable[[], object]] = [
            lambda: calls.post(STOP, version=VERSION),
            lambda: calls.put(MACHINE, {}, version=VERSION),
            lambda: calls.patch(MACHINE, {}, version=VERSION),
            lambda: calls.delete(MACHINE, version=VERSION),
        ]
        for act in acts:
            with pytest.raises((Unreachable, Throttled)):
                act()
        assert len(cloud.calls) == 4

    def test_a_prompt_question_is_asked_twice(self, cloud: Cloud, say: Say, calls: Client) -> None:
        say(unavailable())
        with pytest.raises(Unreachable):
            calls.get(MACHINE, version=VERSION, prompt=True)
        assert len(cloud.calls) == 2

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 412])
    def test_a_no_is_taken_for_a_no(self, cloud: Cloud, say: Say, calls: Client, status: int) -> None:
        say(Refusal(status, "Because", "It is so."))
        with pytest.raises(ProviderError, match="It is so"):
            get(calls)
        assert len(cloud.calls) == 1

    def test_a_named_pause_is_kept(self, say: Say, calls: Client, pauses: list[float]) -> None:
        say(throttled(SUBSCRIPTION, retry_after=7), answer({}))
        get(calls)
        assert pauses == [7]

    @pytest.mark.parametrize("value", ["soon", "-1", "Wed, 21 Oct 2026 07:28:00 GMT", ""])
    def test_a_pause_that_is_none_is_ours(self, say: Say, calls: Client, pauses: list[float], value: str) -> None:
        say(answer({"error": {"code": "X", "message": "x"}}, status=429, headers={"Retry-After": value}), answer({}))
        get(calls)
        assert pauses == [0.5]

    def test_a_pause_too_long_is_passed_on(self, say: Say, calls: Client, pauses: list[float]) -> None:
        say(throttled_by_compute(retry_after=600))
        with pytest.raises(Throttled) as told:
            get(calls)
        assert told.value.retry_after == 600
        assert pauses == []

    def test_subscriptions_are_throttled_each_by_itself(self, cloud: Cloud, calls: Client, pauses: list[float]) -> None:
        cloud.refuse("VirtualMachines_ListAll", throttled(OTHER, retry_after=3), subscription=OTHER, times=1)
        listed(calls)
        assert pauses == []
        list(calls.pages(ALL.replace(SUBSCRIPTION, OTHER), version=VERSION))
        assert pauses == [3]

    def test_a_prompt_question_is_not_asked_again_too_late(self, cloud: Cloud, say: Say) -> None:
        say(unavailable())
        hours = iter(range(0, 36_000, 3600))
        config = Config.model_validate(cloud.settings)
        late = Client(config, secret=lambda _: SECRET, sleep=lambda _: None, monotonic=lambda: float(next(hours)))
        with pytest.raises(Unreachable):
            late.get(MACHINE, version=VERSION, prompt=True)
        late.close()
        assert len(cloud.calls) == 1

    def test_one_call_of_an_act_ends_in_time(self) -> None:
        longest = client.CONNECT_SECONDS + 3 * client.PROMPT_SILENCE_SECONDS  # headers, chunks, and the last silence
        token = 2 * (client.CONNECT_SECONDS + client.TOKEN_SECONDS)  # who gives tokens, and the token
        latest = Capabilities(verbs={}).act_timeout_seconds
        assert client.PROMPT_LATEST_SECONDS + longest < latest
        assert token + client.CONNECT_SECONDS + 2 * client.PROMPT_SILENCE_SECONDS < latest


PAGE = b"<!doctype html><title>Sign in to the network</title>"


class TestWhatIsNotAzure:
    @pytest.mark.parametrize(
        "body",
        [
            pytest.param(PAGE, id="a page"),
            pytest.param(b'{"value": [', id="half an answer"),
            pytest.param(b"[1, 2]", id="a list"),
            pytest.param(b"null", id="null"),
            pytest.param(b"\xa2\xff\x00", id="bytes"),
        ],
    )
    def test_is_no_answer(self, say: Say, calls: Client, body: bytes) -> None:
        say(Reply(status=200, body=body))
        with pytest.raises(Unreachable):
            stop(calls)

    def test_nothing_is_no_list(self, say: Say, calls: Client) -> None:
        say(Reply(status=200))
        with pytest.raises(Unreachable, match="without value"):
            listed(calls)

    @pytest.mark.parametrize("status", [401, 403, 404])
    @pytest.mark.parametrize("body", [b"", PAGE, b"[]", b"{}", b'{"error": "no"}', b'{"error": {"code": ""}}'])
    def test_says_nothing_about_a_resource(
        self, cloud: Cloud, say: Say, calls: Client, status: int, body: bytes
    ) -> None:
        say(Reply(status=status, body=body))
        with pytest.raises(NotThere):
            get(calls)
        assert len(cloud.calls) == 1

    @pytest.mark.parametrize("status", [500, 502, 503, 504])
    def test_may_be_back_soon(self, say: Say, calls: Client, status: int) -> None:
        say(Reply(status=status, body=PAGE))
        with pytest.raises(Unreachable, match=str(status)):
            stop(calls)

    def test_has_its_own_limits(self, say: Say, calls: Client) -> None:
        say(Reply(status=429, body=PAGE, headers={"Retry-After": "30"}))
        with pytest.raises(Throttled) as told:
            stop(calls)
        assert told.value.retry_after == 30

    def test_an_answer_that_breaks_off(self, say: Say, calls: Client) -> None:
        say(Reply(status=200, body=b"{}", headers={"Content-Length": "2000", "Connection": "close"}))
        with pytest.raises(Unreachable):
            stop(calls)

    def test_an_answer_packed_otherwise_than_it_says(self, say: Say, calls: Client) -> None:
        say(Reply(status=200, body=b"{}", headers={"Content-Encoding": "gzip"}))
        with pytest.raises(Unreachable):
            stop(calls)

    def test_an_answer_without_end(self, say: Say, calls: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("providers.answers.MOST_BYTES", 10)
        say(answer({"value": ["x" * 100]}))
        with pytest.raises(Unreachable, match="more than"):
            stop(calls)

    def test_an_answer_that_drips(self, say: Say, calls: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(client, "ANSWER_SECONDS", -1)
        say(answer({"value": [1]}))
        with pytest.raises(Unreachable, match="in full"):
            get(calls)

    def test_no_answer_in_time(self, say: Say, calls: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(client, "PROMPT_SILENCE_SECONDS", 0.05)
        ended = threading.Event()

        def slow(_call: Call) -> Reply:
            ended.wait(20)
            return NO_ANSWER

        say(slow)
        try:
            with pytest.raises(Unreachable, match="in time"):
                stop(calls)
        finally:
            ended.set()

    def test_nobody_listens(self, made: Made) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
        with pytest.raises(Unreachable, match="no connection"):
            stop(made(endpoint=f"https://127.0.0.1:{port}"))

    def test_whoever_listens_does_not_speak_tls(self, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(client, "CONNECT_SECONDS", 0.05)
        with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(Unreachable):
            stop(made(endpoint=f"https://127.0.0.1:{silent.getsockname()[1]}"))


class TestTrust:
    def test_only_the_certificates_that_are_named(self, cloud: Cloud, made: Made, tmp_path: Path) -> None:
        (tmp_path / "other.pem").write_bytes(cloud_tls.made("somebody-else.test")[0])
        with pytest.raises(Unreachable, match="ca_file:"):
            stop(made(ca_file=str(tmp_path / "other.pem")))
        assert cloud.calls == []

    def test_without_a_name_those_of_this_machine(self, cloud: Cloud, made: Made) -> None:
        with pytest.raises(Unreachable, match="ca_file:"):
            stop(made(ca_file=None))
        assert cloud.calls == []

    @pytest.mark.parametrize("text", [None, "", "no certificate"])
    def test_a_file_that_is_none(self, cloud: Cloud, made: Made, tmp_path: Path, text: str | None) -> None:
        if text is not None:
            (tmp_path / "ca.pem").write_text(text)
        with pytest.raises(Misconfigured, match="ca_file"):
            stop(made(ca_file=str(tmp_path / "ca.pem")))
        assert cloud.calls == []

    def test_prices_are_asked_by_tls_too(self, cloud: Cloud, made: Made) -> None:
        with pytest.raises(Unreachable, match="ca_file:"):
            next(made(ca_file=None).prices({}))
        assert cloud.calls == []


class TestATokenThatSomebodyElseRenews:
    def test_is_read_for_every_call(self, cloud: Cloud, calls: Client, held: dict[str, str]) -> None:
        cloud.compute.machine()
        cloud.accounts.accept("first")
        held["AZURE_TOKEN"] = "first"
        get(calls)
        cloud.accounts.expire()
        cloud.accounts.accept("second")
        held["AZURE_TOKEN"] = "second\n"
        get(calls)
        assert [one.headers["authorization"] for one in cloud.calls] == ["Bearer first", "Bearer second"]

    @pytest.mark.parametrize("text", ["", " \n", "two\nlines", "nicht gültig", "a\x00b"])
    def test_what_is_none_is_not_sent(self, cloud: Cloud, calls: Client, held: dict[str, str], text: str) -> None:
        held["AZURE_TOKEN"] = text
        with pytest.raises(Misconfigured, match="AZURE_TOKEN is no token") as told:
            stop(calls)
        assert cloud.calls == []
        assert not text.strip() or text.strip() not in told.value.sentence

    def test_one_that_is_missing(self, cloud: Cloud) -> None:
        def missing(name: str) -> str:
            raise Misconfigured(f"there is no secret {name}")

        calls = Client(Config.model_validate(cloud.settings), secret=missing)
        with pytest.raises(Misconfigured, match="there is no secret AZURE_TOKEN"):
            stop(calls)
        calls.close()
        assert cloud.calls == []

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 500])
    def test_is_not_told_by_whoever_echoes_it(self, say: Say, calls: Client, status: int) -> None:
        say(lambda call: Refusal(status, "Echo", f"You said {call.headers['authorization']}").reply)
        with pytest.raises(ProviderError, match=r"You said") as told:
            stop(calls)
        assert SECRET not in told.value.sentence


@pytest.fixture
def principal(cloud: Cloud) -> dict[str, str]:
    """A service principal that the cloud knows, as a source says it."""
    cloud.accounts.principal(APPLICATION, client_secret="s3cret-of-the-application")
    return {"tenant_id": TENANT, "client_id": APPLICATION, "client_secret": "s3cret-of-the-application"}


class TestServicePrincipals:
    def test_get_a_token_and_keep_it(self, cloud: Cloud, made: Made, principal: dict[str, str]) -> None:
        cloud.compute.machine()
        calls = made(credentials=principal, authority_endpoint=cloud.endpoint)
        get(calls)
        get(calls)
        assert cloud.accounts.given == 1
        assert {one.headers.get("authorization") for one in cloud.calls} - {None} == {f"Bearer {only(cloud)}"}

    def test_with_a_certificate(self, cloud: Cloud, made: Made, tmp_path: Path) -> None:
        cloud.compute.machine()
        cloud.accounts.principal(APPLICATION, client_secret=None)
        (tmp_path / "both.pem").write_bytes(b"".join(reversed(cloud_tls.made_for_signing())))
        credentials = {"tenant_id": TENANT, "client_id": APPLICATION, "certificate": str(tmp_path / "both.pem")}
        get(made(credentials=credentials, authority_endpoint=cloud.endpoint))
        assert cloud.accounts.given == 1

    @pytest.mark.parametrize("text", [None, "", "no certificate"])
    def test_a_certificate_that_is_none(self, cloud: Cloud, made: Made, tmp_path: Path, text: str | None) -> None:
        if text is not None:
            (tmp_path / "both.pem").write_text(text)
        credentials = {"tenant_id": TENANT, "client_id": APPLICATION, "certificate": str(tmp_path / "both.pem")}
        with pytest.raises(Misconfigured, match="missing or damaged"):
            stop(made(credentials=credentials, authority_endpoint=cloud.endpoint))
        assert cloud.calls == []

    @pytest.mark.parametrize(
        ("field", "value", "code"),
        [("client_secret", "wrong-s3cret", "AADSTS7000215"), ("client_id", OTHER, "AADSTS700016")],
    )
    def test_that_are_refused(
        self, cloud: Cloud, made: Made, principal: dict[str, str], field: str, value: str, code: str
    ) -> None:
        with pytest.raises(Misconfigured, match=code) as told:
            stop(made(credentials={**principal, field: value}, authority_endpoint=cloud.endpoint))
        assert "s3cret" not in told.value.sentence

    @pytest.mark.parametrize(
        "reply",
        [
            pytest.param(NO_ANSWER, id="no answer"),
            pytest.param(Reply(status=503, body=PAGE), id="out of order"),
            pytest.param(Reply(status=200, body=PAGE), id="a page"),
            pytest.param(Reply(status=200, body=b'{"access_tok'), id="half an answer"),
        ],
    )
    @pytest.mark.parametrize("http", ["GET", "POST"])
    def test_no_token_just_now(
        self, cloud: Cloud, made: Made, principal: dict[str, str], pauses: list[float], reply: Reply, http: str
    ) -> None:
        cloud.compute.machine()
        calls = made(credentials=principal, authority_endpoint=cloud.endpoint)
        stumbles = iter([reply])
        with cloud.within(lambda call: next(stumbles, None) if call.http == http and not call.subscription else None):
            assert get(calls)["name"] == "trainer"
        assert pauses == [0.5]

    def test_a_token_is_not_refused_for_ever(self, cloud: Cloud, made: Made, principal: dict[str, str]) -> None:
        later = answer({"error": "temporarily_unavailable", "error_description": "AADSTS90033: Later."}, status=400)
        with (
            cloud.within(lambda call: later if call.http == "POST" else None),
            pytest.raises(Unreachable, match="just now"),
        ):
            stop(made(credentials=principal, authority_endpoint=cloud.endpoint))

    def test_whoever_gives_tokens_is_trusted_by_the_same_file(
        self, cloud: Cloud, made: Made, principal: dict[str, str]
    ) -> None:
        with pytest.raises(Unreachable, match="ca_file:"):
            stop(made(credentials=principal, authority_endpoint=cloud.endpoint, ca_file=None))
        assert cloud.calls == []

    @pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 500])
    def test_a_page_that_echoes_what_it_was_asked(
        self, cloud: Cloud, made: Made, principal: dict[str, str], status: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        calls = made(credentials=principal, authority_endpoint=cloud.endpoint)
        page = Reply(status=status, body=b"<p>You said " + principal["client_secret"].encode())
        with (
            cloud.within(lambda call: page if call.http == "POST" else None),
            pytest.raises(ProviderError) as told,
        ):
            stop(calls)
        assert "s3cret" not in told.value.sentence
        assert "s3cret" not in caplog.text

    def test_a_redirect_takes_no_secret_along(self, cloud: Cloud, made: Made, principal: dict[str, str]) -> None:
        with Cloud().serving() as other:
            away = Reply(status=307, headers={"Location": f"{other.endpoint}/token"})
            with (
                cloud.within(lambda call: away if call.http == "POST" else None),
                pytest.raises(ProviderError),
            ):
                stop(made(credentials=principal, authority_endpoint=cloud.endpoint))
            assert other.calls == []

    def test_a_token_that_is_no_longer_enough_is_renewed(
        self, cloud: Cloud, made: Made, principal: dict[str, str]
    ) -> None:
        """As Azure asks when a session was revoked: with the claims that a new token must have."""
        cloud.compute.machine()
        claims = "eyJhY2Nlc3NfdG9rZW4iOnsibmJmIjp7ImVzc2VudGlhbCI6dHJ1ZSwidmFsdWUiOiIxIn19fQ=="
        challenge = (
            f'Bearer authorization_uri="https://login.windows.net/", error="insufficient_claims", claims="{claims}"'
        )
        again = answer(
            {"error": {"code": "InvalidAuthenticationToken", "message": "Again."}},
            status=401,
            headers={"WWW-Authenticate": challenge},
        )
        calls = made(credentials=principal, authority_endpoint=cloud.endpoint)
        cloud.refuse("VirtualMachines_Get", again, times=1)
        assert get(calls)["name"] == "trainer"
        assert cloud.accounts.given == 2

    def test_no_token_is_ever_told(self, cloud: Cloud, made: Made, principal: dict[str, str]) -> None:
        calls = made(credentials=principal, authority_endpoint=cloud.endpoint)
        for refusal in (unauthenticated(), unavailable(), forbidden("a/b/c", MACHINE)):
            with cloud.within(lambda call, said=refusal: said.reply if call.subscription else None):  # type: ignore[misc]
                with pytest.raises(ProviderError) as told:
                    stop(calls)
                assert only(cloud) not in told.value.sentence

    def test_one_among_the_variables_of_this_process(
        self, cloud: Cloud, made: Made, principal: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cloud.compute.machine()
        for name, value in principal.items():
            monkeypatch.setenv(f"AZURE_{name.upper()}", value)
        monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
        assert get(made(credentials="default", authority_endpoint=cloud.endpoint))["name"] == "trainer"

    def test_nothing_anywhere(self, cloud: Cloud, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
        with pytest.raises(Misconfigured, match="no token was given"):
            stop(made(credentials="default", authority_endpoint=cloud.endpoint))
        assert cloud.calls == []


def only(cloud: Cloud) -> str:
    """The one token that was given."""
    (token,) = cloud.accounts.tokens
    return token


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, str]]]:
    """A machine with managed identities, and what it was asked."""
    heard: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
            heard.append(asked)
            known = asked.get("client_id") in (None, APPLICATION)
            told = {
                "access_token": SECRET,
                "expires_on": "4102444800",
                "resource": asked["resource"],
                "token_type": "Bearer",
            }
            body = json.dumps(told if known else {"statusCode": 400, "message": "No such identity."}).encode()
            self.send_response(200 if known else 400)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Nothing: what was asked is in `heard`."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", "header")
    try:
        yield heard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class TestManagedIdentities:
    @pytest.mark.parametrize("credentials", ["managed_identity", {"managed_identity": APPLICATION}])
    def test_give_a_token(self, cloud: Cloud, made: Made, identity: list[dict[str, str]], credentials: object) -> None:
        cloud.compute.machine()
        cloud.accounts.accept(SECRET)
        calls = made(credentials=credentials)
        get(calls)
        get(calls)
        (asked,) = identity
        assert asked["resource"] == cloud.endpoint
        assert asked.get("client_id") == (None if credentials == "managed_identity" else APPLICATION)

    def test_one_that_this_machine_does_not_have(
        self, cloud: Cloud, made: Made, identity: list[dict[str, str]]
    ) -> None:
        with pytest.raises(Misconfigured, match="no token was given"):
            stop(made(credentials={"managed_identity": OTHER}))
        assert cloud.calls == []
