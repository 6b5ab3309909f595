"""A company of several accounts over HTTP: each machine once, in its account; what fails in one harms no other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from threading import Event, Lock
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from providers import questions
from providers.aws import Config, build
from providers.aws.accounts import Accounts
from providers.contract import BuildContext, Inventory, Provider
from providers.errors import Forbidden, Misconfigured, Unreachable
from providers.progress import Progress, progress_of
from providers.records import InventoryAnswer, Kind, PartReport, ResourceRef, State, Verb
from tests.providers.aws.conftest import Build
from tests.providers.aws.fleet import ACCOUNT, IMAGE, every_minute, forget, reset, sdk
from tests.providers.aws.front import Call, Front, Reply, error

REGIONS = ("us-east-1", "us-west-2", "eu-west-1", "ap-southeast-1")
MACHINES = {"g6.xlarge": 15, "p5.48xlarge": 3, "m5.large": 15}
"""Of each account in each region."""
ACCELERATED = MACHINES["g6.xlarge"] + MACHINES["p5.48xlarge"]
START = datetime(2026, 11, 20, 8, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Company:
    """An organisation: three accounts that work, one in a unit below another, one closed; 396 machines."""

    id: str
    working: tuple[str, ...]
    aside: str
    closed: str
    outer_unit: str


@cache
def sdk_in(endpoint: str, account: str, service: str, region: str) -> Any:
    """The official client in one of the accounts."""
    role = f"arn:aws:iam::{account}:role/OrganizationAccountAccessRole"
    keys = sdk(endpoint, "sts").assume_role(RoleArn=role, RoleSessionName="arrange")["Credentials"]
    return boto3.Session(
        aws_access_key_id=keys["AccessKeyId"],
        aws_secret_access_key=keys["SecretAccessKey"],
        aws_session_token=keys["SessionToken"],
    ).client(service, endpoint_url=endpoint, region_name=region)  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def company(moto_server: str) -> Iterator[Company]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        reset(moto_server)
        organisations = sdk(moto_server, "organizations")
        created = organisations.create_organization(FeatureSet="ALL")["Organization"]
        root = organisations.list_roots()["Roots"][0]["Id"]
        outer = organisations.create_organizational_unit(ParentId=root, Name="outer")["OrganizationalUnit"]["Id"]
        inner = organisations.create_organizational_unit(ParentId=outer, Name="inner")["OrganizationalUnit"]["Id"]

        def account(name: str) -> str:
            answer = organisations.create_account(Email=f"{name}@example.org", AccountName=name)
            return str(answer["CreateAccountStatus"]["AccountId"])

        working = tuple(sorted(account(name) for name in ("vision", "speech", "robots")))
        aside, closed = account("aside"), account("closed")
        organisations.move_account(AccountId=aside, SourceParentId=root, DestinationParentId=inner)
        organisations.close_account(AccountId=closed)
        for member in working:
            for region in REGIONS:
                ec2 = sdk_in(moto_server, member, "ec2", region)
                for sku, count in MACHINES.items():
                    ec2.run_instances(ImageId=IMAGE, InstanceType=sku, MinCount=count, MaxCount=count)
        yield Company(id=created["Id"], working=working, aside=aside, closed=closed, outer_unit=outer)
        sdk_in.cache_clear()
        reset(moto_server)


@pytest.fixture
def front(company: Company, moto_server: str) -> Iterator[Front]:
    with Front(moto_server).serving() as front:
        yield front


@pytest.fixture
def all_accounts(front: Front, company: Company) -> Build:
    """Builds a source of the whole organisation but for the unit and the account that pays."""

    def source(*, now: Callable[[], datetime] = lambda: datetime.now(UTC), **fields: object) -> Provider:
        several = {"accounts": "all", "role_name": "curfew", "exclude_accounts": [company.outer_unit, ACCOUNT]}
        config = Config.model_validate({"endpoint": front.endpoint, "regions": REGIONS, **several, **fields})
        return build(config, BuildContext(source="company-aws", now=now))

    return source


def of(provider: Provider) -> Inventory:
    assert provider.inventory is not None
    return provider.inventory


def by_account(answer: InventoryAnswer) -> Mapping[str, int]:
    return Counter(record.ref.account for record in answer.records)


def parts_of(answer: InventoryAnswer, account: str) -> Mapping[str, PartReport]:
    return {part.part: part for part in answer.parts if part.account == account}


def assumed(front: Front) -> list[str]:
    """The accounts whose roles were assumed."""
    return [call.fields["RoleArn"][0].split(":")[4] for call in front.calls if call.action == "sts:AssumeRole"]


def in_account(account: str, reply: Reply, action: str = "") -> Callable[[Call], Reply | None]:
    def rule(call: Call) -> Reply | None:
        assuming = call.action == "sts:AssumeRole" and f":{account}:" in call.fields["RoleArn"][0]
        return reply if assuming or (call.account == account and action in call.action) else None

    return rule


class TestAnOrganisation:
    def test_every_machine_is_found_once_in_its_account(
        self, company: Company, front: Front, all_accounts: Build, moto_server: str
    ) -> None:
        answer = of(all_accounts()).list()
        assert (answer.identity, answer.complete) == (company.id, True)
        refs = [record.ref for record in answer.records]
        assert len(refs) == len(set(refs)) == 3 * 4 * ACCELERATED
        for account in company.working:
            for region in REGIONS:
                ec2 = sdk_in(moto_server, account, "ec2", region)
                really = {
                    instance["InstanceId"]
                    for reservation in ec2.describe_instances()["Reservations"]
                    for instance in reservation["Instances"]
                    if instance["InstanceType"] != "m5.large"
                }
                told = {ref.external_id for ref in refs if (ref.account, ref.region) == (account, region)}
                assert told == really
        assert {(part.account, part.part) for part in answer.parts} == {
            (account, region) for account in company.working for region in REGIONS
        }
        assert sorted(assumed(front)) == list(company.working), "each role once; no closed account, none left out"

    def test_is_asked_who_belongs_to_it_every_ten_minutes_only(self, front: Front, all_accounts: Build) -> None:
        clock = [START]
        inventory = of(all_accounts(now=lambda: clock[0], regions=["us-east-1"]))
        for _ in range(3):
            inventory.list()
            clock[0] += timedelta(minutes=4)
        assert front.counted["organizations:ListAccounts"] == 1
        inventory.list()
        assert front.counted["organizations:ListAccounts"] == 2

    def test_that_cannot_be_listed_any_more_is_taken_as_it_was_and_that_is_said(
        self, company: Company, front: Front, all_accounts: Build
    ) -> None:
        clock = [START]
        inventory = of(all_accounts(now=lambda: clock[0], regions=["us-east-1"]))
        assert inventory.list().complete
        clock[0] += timedelta(hours=1)
        front.rules.append(lambda call: denied(call) if call.service == "organizations" else None)
        answer = inventory.list()
        assert by_account(answer) == dict.fromkeys(company.working, ACCELERATED)
        [told] = [part for part in answer.parts if not part.complete]
        assert (told.account, told.part) == (None, "accounts")
        assert told.fault is not None
        assert told.fault.permission == "organizations:DescribeOrganization"

    @pytest.mark.parametrize("operation", ["DescribeOrganization", "ListAccounts", "ListAccountsForParent"])
    def test_that_could_never_be_listed_is_no_empty_one(
        self, front: Front, all_accounts: Build, operation: str
    ) -> None:
        front.rules.append(lambda call: denied(call) if call.operation == operation else None)
        with pytest.raises(Forbidden) as refused:
            of(all_accounts()).list()
        assert refused.value.permission == f"organizations:{operation}"

    def test_an_account_that_left_has_no_part_any_more(
        self, company: Company, front: Front, all_accounts: Build
    ) -> None:
        clock = [START]
        inventory = of(all_accounts(now=lambda: clock[0], regions=["us-east-1"]))
        inventory.list()
        clock[0] += timedelta(hours=1)
        left, *stay = company.working
        front.rules.append(without(left, front))
        answer = inventory.list()
        assert answer.complete
        assert {part.account for part in answer.parts} == set(stay)


def denied(call: Call) -> Reply:
    body = b'{"__type": "AccessDeniedException", "Message": "You don\'t have permissions to access this resource."}'
    return Reply(status=400, body=body, headers={"Content-Type": "application/x-amz-json-1.1"})


def without(account: str, front: Front) -> Callable[[Call], Reply | None]:
    """The organisation's list as if the account had left."""

    def rule(call: Call) -> Reply | None:
        if call.operation != "ListAccounts":
            return None
        listed = [one for one in sdk(front.moto, "organizations").list_accounts()["Accounts"] if one["Id"] != account]
        lines = ",".join(f'{{"Id": "{one["Id"]}", "State": "{one["State"]}"}}' for one in listed)
        return Reply(
            status=200,
            body=f'{{"Accounts": [{lines}]}}'.encode(),
            headers={"Content-Type": "application/x-amz-json-1.1"},
        )

    return rule


class TestAListOfAccounts:
    def test_is_who_asks_whatever_is_on_it(self, company: Company, front: Front, all_accounts: Build) -> None:
        one = {"accounts": [company.working[0]], "exclude_accounts": [], "regions": ["us-east-1"]}
        two = {**one, "accounts": company.working[:2]}
        assert of(all_accounts(**one)).list().identity == of(all_accounts(**two)).list().identity == ACCOUNT
        assert front.counted["organizations:ListAccounts"] == 0

    def test_an_account_that_is_not_on_it_is_not_touched(self, company: Company, front: Front) -> None:
        first, second, _ = company.working
        listed = Config(accounts=(first,), role_name="curfew", endpoint=front.endpoint)
        with pytest.raises(Misconfigured) as refused:
            Accounts(listed, now=lambda: START).of(second)
        assert second in refused.value.sentence
        left_out = listed.model_copy(update={"accounts": "all", "exclude_accounts": (second,)})
        with pytest.raises(Misconfigured):
            Accounts(left_out, now=lambda: START).of(second)
        assert not front.calls


class TestOneAccountThatFails:
    def test_a_role_that_is_refused_is_said_of_all_its_regions_and_the_others_are_complete(
        self, company: Company, front: Front, all_accounts: Build, caplog: pytest.LogCaptureFixture
    ) -> None:
        bad, *good = company.working
        front.rules.append(in_account(bad, error("sts", "AccessDenied", "not authorized to perform: sts:AssumeRole")))
        answer = of(all_accounts()).list()
        assert by_account(answer) == dict.fromkeys(good, 4 * ACCELERATED)
        for account in good:
            assert all(part.complete and part.fault is None for part in parts_of(answer, account).values())
        told = parts_of(answer, bad)
        assert set(told) == set(REGIONS)
        for part in told.values():
            assert not part.complete
            assert part.fault is not None
            assert part.fault.permission == "sts:AssumeRole"
        assert not caplog.records, "it is said in the report, not in tracebacks"

    def test_where_its_regions_are_not_known_one_part_speaks_for_them_all(
        self, company: Company, front: Front, all_accounts: Build
    ) -> None:
        bad, *good = company.working
        front.rules.append(in_account(bad, error("sts", "AccessDenied", "no")))
        front.answer("ec2:DescribeRegions", regions_named(*REGIONS))
        answer = of(all_accounts(regions="all")).list()
        assert by_account(answer) == dict.fromkeys(good, 4 * ACCELERATED)
        assert [(part.part, part.complete) for part in parts_of(answer, bad).values()] == [("*", False)]

    def test_regions_that_were_known_are_asked_although_they_cannot_be_listed_again(
        self, company: Company, front: Front, all_accounts: Build
    ) -> None:
        clock = [START]
        front.answer("ec2:DescribeRegions", regions_named("us-east-1"))
        inventory = of(all_accounts(now=lambda: clock[0], regions="all"))
        inventory.list()
        clock[0] += timedelta(hours=1)
        bad = company.working[0]
        front.rules.insert(0, in_account(bad, error("ec2", "UnauthorizedOperation", "no"), "DescribeRegions"))
        answer = inventory.list()
        assert by_account(answer) == dict.fromkeys(company.working, ACCELERATED)
        assert {name: part.complete for name, part in parts_of(answer, bad).items()} == {"*": False, "us-east-1": True}

    def test_one_that_never_answers_is_late_and_the_others_are_in_time(
        self, company: Company, front: Front, all_accounts: Build, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        inventory = of(all_accounts())
        assert progress_of(inventory) == Progress()
        before = inventory.list()
        assert before.complete
        every_part = {f"{part.account}/{part.part}" for part in before.parts}
        assert progress_of(inventory) == Progress(answered=tuple(f"{p.account}/{p.part}" for p in before.parts))
        stuck, *good = company.working
        let_go = Event()

        def hang(call: Call) -> None:
            if call.account == stuck and call.service == "ec2":
                let_go.wait(60)

        front.rules.append(hang)
        patience_ends_when(monkeypatch, still_asked=len(REGIONS))
        try:
            first = inventory.list()
            assert by_account(first) == dict.fromkeys(good, 4 * ACCELERATED)
            assert all(part.complete for account in good for part in parts_of(first, account).values())
            told = parts_of(first, stuck)
            assert set(told) == set(REGIONS)
            for part in told.values():
                assert not part.complete
                assert part.fault is not None
                assert part.fault.sentence.startswith("AWS did not answer within 60 s; asked since 20")
            awaited = {f"{stuck}/{region}" for region in REGIONS}
            assert set(progress_of(inventory).waiting) == awaited
            assert set(progress_of(inventory).answered) == every_part - awaited

            calls = Counter(call.account for call in front.calls)
            patience_ends_when(monkeypatch, still_asked=0)
            again = inventory.list()
            assert by_account(again) == dict.fromkeys(good, 4 * ACCELERATED)
            assert Counter(call.account for call in front.calls)[stuck] == calls[stuck], "it is not asked again"
            for region, part in parts_of(again, stuck).items():
                assert part.fault == told[region].fault, "since when is told"
            assert set(progress_of(inventory).waiting) == awaited, "nor is it said to have answered"
            with pytest.raises(Unreachable):  # at once, or acting on the others would have to wait
                inventory.describe(next(record.ref for record in before.records if record.ref.account == stuck))
        finally:
            let_go.set()
        while not inventory.list().complete:
            """Its threads need a moment to end; then it is asked anew."""


def patience_ends_when(monkeypatch: pytest.MonkeyPatch, *, still_asked: int) -> None:
    """No clock decides, but how many are still asked."""

    def wait(asked: Any, patience: float) -> None:
        with asked._changed:
            assert asked._changed.wait_for(
                lambda: len(asked._answers) >= min(len(asked._questions), max(1, len(asked._questions) - still_asked)),
                timeout=patience,
            )

    monkeypatch.setattr(questions._Round, "wait", wait)


def regions_named(*names: str) -> Reply:
    items = "".join(f"<item><regionName>{name}</regionName></item>" for name in names)
    body = f"<DescribeRegionsResponse><regionInfo>{items}</regionInfo></DescribeRegionsResponse>"
    return Reply(status=200, body=body.encode(), headers={"Content-Type": "text/xml"})


class Throttling:
    """AWS at one call a second for each account, on a clock that waits only as long as somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.refused = Counter[str]()
        self.taken = Counter[str]()
        self._free = dict[str, float]()
        self._lock = Lock()

    def sleep(self, seconds: float) -> None:
        until = self.now + seconds
        with self._lock:
            self.now = max(self.now, until)

    def rule(self, call: Call) -> Reply | None:
        if call.account == ACCOUNT:
            return None
        with self._lock:
            if self.now < self._free.get(call.account, 0.0):
                self.refused[call.account] += 1
                return error(call.service, "RequestLimitExceeded", "Request limit exceeded.")
            self._free[call.account] = self.now + 1
            self.taken[call.account] += 1
            return None


def test_throttled_to_a_call_a_second_all_is_found_all_the_same(
    company: Company, front: Front, monkeypatch: pytest.MonkeyPatch, all_accounts: Build
) -> None:
    throttling = Throttling()
    monkeypatch.setattr(
        "providers.pace.time", SimpleNamespace(sleep=throttling.sleep, monotonic=lambda: throttling.now)
    )
    front.rules.append(throttling.rule)
    answer = of(all_accounts()).list()
    found = by_account(answer)
    for account in company.working:
        missing = [part.part for part in parts_of(answer, account).values() if not part.complete]
        assert found[account] == (4 - len(missing)) * ACCELERATED, "what is missing is said to be missing"
    assert answer.complete, [part.fault for part in answer.parts if part.fault]
    assert throttling.now < 60, "in the patience there is"
    assert sum(throttling.refused.values()) < 2 * sum(throttling.taken.values())


class TestOneMachine:
    """Whatever is done about a machine is done in its account."""

    @pytest.fixture
    def ref(self, company: Company, moto_server: str) -> Iterator[ResourceRef]:
        account = company.working[1]
        ec2 = sdk_in(moto_server, account, "ec2", "eu-west-1")
        started = ec2.run_instances(ImageId=IMAGE, InstanceType="g6.xlarge", MinCount=1, MaxCount=1)
        instance_id = started["Instances"][0]["InstanceId"]
        ref = ResourceRef(
            provider="aws", account=account, region="eu-west-1", kind=Kind.INSTANCE, external_id=instance_id
        )
        yield ref
        forget(instance_id, region=ref.region, account=account)

    def test_it_is_described_stopped_and_started_there(
        self, ref: ResourceRef, front: Front, all_accounts: Build
    ) -> None:
        provider = all_accounts()
        assert provider.actuator is not None
        record = of(provider).describe(ref)
        assert (record.ref, record.state, record.fully_described) == (ref, State.RUNNING, True)
        remembered = provider.actuator.remember(record, Verb.STOP)
        provider.actuator.act(ref, Verb.STOP, request_id="curfew-1")
        assert of(provider).describe(ref).state is State.STOPPED
        provider.actuator.restore(ref, remembered, request_id="curfew-2")
        assert of(provider).describe(ref).state is State.RUNNING
        assert {call.account for call in front.calls if call.service == "ec2"} == {ref.account}

    def test_its_samples_are_read_there(self, ref: ResourceRef, moto_server: str, all_accounts: Build) -> None:
        provider = all_accounts()
        assert provider.telemetry is not None
        now = datetime.now(UTC).replace(second=0, microsecond=0)
        cloudwatch = sdk_in(moto_server, ref.account, "cloudwatch", ref.region)
        dimensions = [{"Name": "InstanceId", "Value": ref.external_id}, {"Name": "index", "Value": "0"}]
        cloudwatch.put_metric_data(
            Namespace="CWAgent",
            MetricData=[
                {"MetricName": "nvidia_smi_utilization_gpu", "Dimensions": dimensions, "Timestamp": time, "Value": 40.0}
                for time, _ in every_minute(now - timedelta(minutes=5), 5, 40.0)
            ],
        )
        record = of(provider).describe(ref)
        told = provider.telemetry.samples([record], start=now - timedelta(minutes=10), end=now)
        assert [series.values for series in told.series] == [(0.4,) * 5]
        assert told.faults == ()

    def test_its_samples_that_cannot_be_read_are_a_fault_of_its_account(
        self, ref: ResourceRef, front: Front, all_accounts: Build
    ) -> None:
        provider = all_accounts()
        assert provider.telemetry is not None
        record = of(provider).describe(ref)
        front.refuse("cloudwatch:ListMetrics", "AccessDenied", "no")
        told = provider.telemetry.samples([record], start=START, end=START + timedelta(hours=1))
        assert [(part.account, part.part) for part in told.faults] == [(ref.account, ref.region)]
