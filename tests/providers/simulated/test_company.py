"""The demo company: what its clouds tell at every moment of the story, and that its documents fit them."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

import service
from policies.policy import BasePolicy, Mode, Remedy
from providers.contract import BuildContext, Provider
from providers.records import CapacityType, InventoryAnswer, Kind, ResourceRecord, Signal, State, Verb
from providers.simulated import Config, build, company, forget
from service.documents import KINDS, MODELS, AnyDocument, Exemption, Project, Source

CLOUDS = ("aws", "gcp", "azure", "kubernetes")
FOLDER = Path(service.__file__).parent / "demo"


class Company:
    """All four clouds on one clock."""

    def __init__(self) -> None:
        self.moment = company.START
        self.providers = {cloud: self.build(cloud) for cloud in CLOUDS}

    def build(self, cloud: str) -> Provider:
        context = BuildContext(source=f"test-{cloud}", now=lambda: self.moment)
        return build(Config.model_validate({"cloud": cloud}), context)

    def list(self, cloud: str) -> InventoryAnswer:
        inventory = self.providers[cloud].inventory
        assert inventory is not None
        return inventory.list()

    @property
    def records(self) -> dict[str, ResourceRecord]:
        """By name."""
        return {record.name: record for cloud in CLOUDS for record in self.list(cloud).records}

    def utilisation(self, name: str, window: timedelta = timedelta(minutes=45)) -> dict[str, float]:
        """Device → highest utilisation in the last window."""
        record = self.records[name]
        telemetry = self.providers[record.ref.provider].telemetry
        assert telemetry is not None
        answer = telemetry.samples([record], start=self.moment - window, end=self.moment)
        return {s.device: max(s.values) for s in answer.series if s.signal is Signal.UTILISATION}

    def verdict(self, name: str, window: timedelta = timedelta(minutes=45)) -> str:
        found = self.utilisation(name, window)
        if not found:
            return "silent"
        return "idle" if max(found.values()) < 0.05 else "busy"


@pytest.fixture
def lumen() -> Company:
    forget()
    return Company()


def documents() -> dict[tuple[str, str], AnyDocument]:
    found: dict[tuple[str, str], AnyDocument] = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            kind = document.pop("kind")
            assert kind in KINDS
            model = MODELS[kind].validate_python(document)
            assert (kind, model.name) not in found
            found[kind, model.name] = model
    return found


def of_kind(kind: type[Any]) -> dict[str, Any]:
    return {name: document for (_, name), document in documents().items() if isinstance(document, kind)}


def test_the_story_begins_on_a_saturday_morning() -> None:
    assert company.START.isoformat() == "2026-11-14T06:00:00+00:00"
    assert company.START.strftime("%A") == "Saturday"


def test_about_sixty_resources_live_in_four_clouds(lumen: Company) -> None:
    by_cloud = {cloud: lumen.list(cloud).records for cloud in CLOUDS}
    assert 55 <= sum(map(len, by_cloud.values())) <= 70
    for cloud, records in by_cloud.items():
        assert len(records) >= 8
        assert {record.ref.provider for record in records} == {cloud}
    assert sum(record.gpu_count for record in lumen.records.values()) > 200


def test_ids_and_names_are_taken_once(lumen: Company) -> None:
    everything = [record for cloud in CLOUDS for record in lumen.list(cloud).records]
    assert len({record.ref for record in everything}) == len(everything)
    assert len({record.name for record in everything}) == len(everything)


STORY = {
    "a cluster forgotten over the weekend": ("polaris-3", timedelta(0), "idle"),
    "it worked on Friday evening": ("polaris-3", timedelta(hours=-10, minutes=-50), "busy"),
    "the big run goes on": ("pretrain-2", timedelta(0), "busy"),
    "the big run goes on all weekend": ("pretrain-2", timedelta(days=1), "busy"),
    "a training job ends while one watches": ("ablation-33", timedelta(hours=2, minutes=16), "idle"),
    "and works until then": ("ablation-33", timedelta(hours=1, minutes=30), "busy"),
    "a server that is asked every twenty minutes": ("chat-frequent", timedelta(0), "busy"),
    "a server that waits": ("chat-rare", timedelta(0), "idle"),
    "until somebody asks": ("chat-rare", timedelta(hours=4, minutes=5), "busy"),
    "nobody installed an exporter": ("silent-box", timedelta(0), "silent"),
    "nor has anybody since": ("silent-box", timedelta(days=3), "silent"),
    "a nightly batch sleeps by day": ("nightly-labels", timedelta(0), "idle"),
    "and works by night": ("nightly-labels", timedelta(hours=10), "busy"),
    "Minh works on Saturday": ("minh-dev", timedelta(hours=1), "busy"),
    "until 14:00 in his zone": ("minh-dev", timedelta(hours=1, minutes=46), "idle"),
    "Olek does not": ("olek-dev", timedelta(0), "idle"),
    "Olek is back on Monday": ("olek-dev", timedelta(days=2, hours=4), "busy"),
    "robots do not learn on Saturday": ("grasp-h100", timedelta(0), "idle"),
    "they do on Monday": ("grasp-h100", timedelta(days=2, hours=4), "busy"),
    "an AMD machine at work": ("grasp-mi300", timedelta(0), "busy"),
    "a hung job": ("ablation-17", timedelta(0), "idle"),
    "an ordinary job": ("finetune-v7", timedelta(0), "busy"),
}


@pytest.mark.parametrize(("name", "after", "expected"), STORY.values(), ids=STORY)
def test_the_story(lumen: Company, name: str, after: timedelta, expected: str) -> None:
    lumen.moment = company.START + after
    assert lumen.verdict(name) == expected


def test_one_gpu_of_eight_is_spare(lumen: Company) -> None:
    found = lumen.utilisation("aurora-train")
    assert len(found) == 8
    assert [device for device, value in found.items() if value < 0.05] == ["7"]


def test_thin_telemetry_speaks_for_too_little_of_a_window(lumen: Company) -> None:
    record = lumen.records["flaky-metrics"]
    telemetry = lumen.providers["aws"].telemetry
    assert telemetry is not None
    answer = telemetry.samples([record], start=lumen.moment - timedelta(hours=1), end=lumen.moment)
    assert {len(series.times) for series in answer.series} == {18}


def test_what_must_not_be_touched_is_marked_so(lumen: Company) -> None:
    records = lumen.records
    inventory = lumen.providers["aws"].inventory
    assert inventory is not None
    assert [p.source for p in inventory.describe(records["vault-eval"].ref).protections] == ["disableApiStop"]
    assert [p.source for p in records["demo-for-board"].protections] == ["curfew-protect"]
    assert records["trainers-0"].managed_by == "autoscaling:trainers"
    assert records["render_0"].managed_by == "vmss:render"
    assert [b.code for b in records["sweep-2"].blockers] == ["OneTimeSpot"]
    assert records["sweep-2"].capacity_type is CapacityType.SPOT
    assert [b.code for b in records["block-1"].blockers] == ["CapacityBlock"]
    assert {loss.name.value for loss in records["polaris-0"].losses} == {"local_disks", "terminate"}
    (untagged,) = (record for record in records.values() if record.sku == "p4d.24xlarge")
    assert untagged.tags == {}
    assert untagged.name == untagged.ref.external_id


def test_a_spot_machine_is_taken_away_after_two_hours(lumen: Company) -> None:
    states = []
    for minutes in (119, 120, 122):
        lumen.moment = company.START + timedelta(minutes=minutes)
        states.append(lumen.records["sweep-east-1"].state)
    assert states == [State.RUNNING, State.STOPPING, State.STOPPED]


def test_minh_starts_his_machine_again_when_it_was_stopped(lumen: Company) -> None:
    ref = lumen.records["minh-dev"].ref
    actuator = lumen.providers["gcp"].actuator
    assert actuator is not None
    lumen.moment = company.START + timedelta(hours=3)
    actuator.act(ref, Verb.STOP, request_id="curfew-1")
    lumen.moment = company.START + timedelta(hours=7)
    assert lumen.records["minh-dev"].state is State.STOPPED
    lumen.moment = company.START + timedelta(hours=9)
    record = lumen.records["minh-dev"]
    assert record.state is State.RUNNING
    assert record.launched_at == company.START + timedelta(hours=8)


def test_everything_has_a_price_in_its_clouds_currency(lumen: Company) -> None:
    for cloud, currency in (("aws", "USD"), ("gcp", "USD"), ("azure", "EUR"), ("kubernetes", "USD")):
        source = lumen.providers[cloud].prices
        assert source is not None
        records = lumen.list(cloud).records
        quoted = source.quote(records)
        assert set(quoted) == {record.ref for record in records if record.ref.kind.counted}
        assert {price.currency for price in quoted.values()} == {currency}


def test_the_documents_are_valid_and_of_every_kind() -> None:
    assert {kind for kind, _ in documents()} == set(KINDS)


def test_every_cloud_has_a_source_and_all_are_simulated() -> None:
    sources = of_kind(Source)
    assert sorted(source.config["cloud"] for source in sources.values()) == sorted(CLOUDS)
    assert {source.provider for source in sources.values()} == {"simulated"}


def test_policies_of_every_mode_are_shown() -> None:
    assert {policy.mode for policy in of_kind(BasePolicy).values()} == set(Mode)


def test_policies_and_exemptions_name_only_what_exists(lumen: Company) -> None:
    projects, policies = of_kind(Project), of_kind(BasePolicy)
    for policy in policies.values():
        assert set(policy.scope.projects) <= set(projects), policy.name
    for exemption in of_kind(Exemption).values():
        assert set(exemption.policies) <= set(policies)
        assert set(exemption.resources) <= set(lumen.records)
        assert exemption.until > company.START


def test_every_project_tag_and_namespace_belongs_to_a_project(lumen: Company) -> None:
    projects = of_kind(Project)
    named = {
        name for name, project in projects.items() for match in project.match for name in [match.tags.get("project")]
    }
    tagged = {record.tags["project"] for record in lumen.records.values() if "project" in record.tags}
    assert tagged == named - {None}


def test_enforcing_policies_ask_for_what_their_kinds_can_do(lumen: Company) -> None:
    for policy in of_kind(BasePolicy).values():
        if policy.mode is Mode.ENFORCE:
            workloads = "workload" in policy.scope.kinds
            assert policy.action is (Remedy.SCALE_TO_ZERO if workloads else Remedy.STOP), policy.name
            verbs = lumen.providers["kubernetes" if workloads else "aws"].capabilities.verbs
            assert policy.action.value in verbs[Kind.WORKLOAD if workloads else Kind.INSTANCE]


def test_time_does_not_change_what_was_measured(lumen: Company) -> None:
    def measured(until: datetime) -> object:
        telemetry = lumen.providers["aws"].telemetry
        assert telemetry is not None
        records = lumen.list("aws").records
        return telemetry.samples(records, start=company.START - timedelta(hours=1), end=until)

    before = measured(company.START)
    lumen.moment += timedelta(days=3)
    assert measured(company.START) == before
