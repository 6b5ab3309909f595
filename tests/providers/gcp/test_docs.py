"""The permissions that docs/gcp.md asks for are those of the calls that are made, and its words are the code's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from providers.contract import BuildContext, Provider
from providers.gcp import CloudMonitoringMetrics, Config, actuator, assembled, inventory, projects, translate_groups
from providers.gcp.client import SERVICES, Client
from providers.records import InventoryAnswer, Kind, ResourceRecord, ResourceRef, Verb
from service import apply
from service.settings import Settings
from tests.providers.gcp.cloud import PROJECT, Call, Cloud, Reply
from tests.providers.gcp.cloud_refusals import forbidden, permission_for
from tests.providers.gcp.templates import telling_templates

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "gcp.md").read_text("utf-8")
WORDS = " ".join(PAGE.split())
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
SOURCES = [text for text in EXAMPLES if text.startswith("kind: source\n")]
ROLES = [yaml.safe_load(text) for text in EXAMPLES if "includedPermissions:" in text]
OBSERVE, ENFORCE = (frozenset(role["includedPermissions"]) for role in ROLES)
DISCOVERY = {"resourcemanager.folders.list", "resourcemanager.projects.list"}
NEEDS_NONE = {"cloudbilling.services.skus.list"}
"""Methods that anybody may call who has credentials."""
VERBS = {Kind.INSTANCE: Verb.STOP, Kind.NODE_GROUP: Verb.SCALE_TO_ZERO, Kind.NOTEBOOK: Verb.STOP}
FOLDER = "folders/42"


@pytest.fixture
def google(cloud: Cloud) -> Iterator[Provider]:
    """A source of a project that has one of everything, and of another in which an API is switched off."""
    cloud.rules.append(telling_templates(cloud))
    cloud.add_project("empty-gpus", disabled={"tpu"})
    cloud.compute.machine("trainer")
    cloud.compute.machine("deleted")
    cloud.compute.machine("resting", status="TERMINATED")
    cloud.tpus.node("a-tpu")
    cloud.tpus.node("deleted-tpu")
    cloud.workbench.notebook()
    cloud.groups.group("zonal", autoscaled=(1, 4))
    cloud.groups.group("regional", zone=None, region="us-central1", autoscaled=(1, 4))
    cloud.gke.pool(cloud.gke.cluster(), autoscaled=(1, 4))
    config = Config(projects=(PROJECT, "empty-gpus"), credentials="anonymous", endpoint=cloud.endpoint)
    context = BuildContext(source="research-gcp", now=lambda: datetime.now(UTC))
    provider = assembled(config, context, Client(config, sleep=lambda _: None))
    yield provider
    provider.close()


def needed(call: Call) -> str | None:
    return None if call.method in NEEDS_NONE else permission_for(call.method)


def only(permissions: frozenset[str]) -> Callable[[Call], Reply | None]:
    """A rule: whoever asks has a role with these permissions, and none besides."""

    def rule(call: Call) -> Reply | None:
        permission = needed(call)
        return None if permission is None or permission in permissions else forbidden(permission, call.path).reply

    return rule


def asked(cloud: Cloud) -> set[str]:
    return {permission for call in cloud.calls if (permission := needed(call)) is not None}


def watched(google: Provider) -> InventoryAnswer:
    """Everything is listed, described, sampled and priced."""
    assert google.inventory is not None
    assert google.telemetry is not None
    assert google.prices is not None
    found = google.inventory.list()
    for record in found.records:
        google.inventory.describe(record.ref)
    now = datetime.now(UTC)
    google.telemetry.samples(found.records, start=now - timedelta(hours=1), end=now)
    google.prices.quote(found.records)
    return found


def acted_on(found: InventoryAnswer) -> list[tuple[ResourceRecord, Verb]]:
    """Everything that can be, in the way of its kind; one of each machines is deleted."""
    alone = [record for record in found.records if record.managed_by is None and record.name != "resting"]
    return [(one, Verb.TERMINATE if one.name.startswith("deleted") else VERBS[one.ref.kind]) for one in alone]


def put_to_rest_and_back(cloud: Cloud, google: Provider, found: InventoryAnswer) -> None:
    """Each act is asked for, and what became of it; and a limit is set."""
    assert google.actuator is not None
    assert google.operations is not None
    assert google.run_limits is not None
    acts: dict[str, ResourceRef] = {}
    for number, (record, verb) in enumerate(acted_on(found)):
        remembered = google.actuator.remember(record, verb)
        google.actuator.act(record.ref, verb, request_id=f"act-{number}")
        acts[f"act-{number}"] = record.ref
        cloud.settle()
        if verb is not Verb.TERMINATE:
            google.actuator.restore(record.ref, remembered, request_id=f"back-{number}")
            cloud.settle()
    assert google.operations.failures(acts) == {}
    [resting] = [record.ref for record in found.records if record.name == "resting"]
    google.run_limits.limit_run(resting, 3600, request_id="limit")


def test_the_role_to_observe_is_enough_to_watch_and_has_nothing_besides(cloud: Cloud, google: Provider) -> None:
    with cloud.within(only(OBSERVE)):
        found = watched(google)
    assert found.complete, found.parts
    assert all(report.fault is None for report in found.parts), found.parts
    assert {record.ref.kind for record in found.records} == {*VERBS}
    assert asked(cloud) == OBSERVE


def test_both_roles_together_are_enough_to_act_and_have_nothing_besides(cloud: Cloud, google: Provider) -> None:
    with cloud.within(only(OBSERVE | ENFORCE)):
        found = watched(google)
        assert len(acted_on(found)) == 8
        put_to_rest_and_back(cloud, google, found)
    assert asked(cloud) == OBSERVE | ENFORCE


def test_the_role_to_observe_changes_nothing(cloud: Cloud, google: Provider) -> None:
    before = cloud.snapshot()
    watched(google)
    assert cloud.snapshot() == before
    assert not [call.method for call in cloud.calls if call.changes]
    assert all(permission.endswith((".get", ".list")) for permission in OBSERVE)
    assert not OBSERVE & ENFORCE


def test_projects_are_found_with_what_the_role_browser_has(cloud: Cloud) -> None:
    cloud.accounts.folder("42", parent="organizations/1234567890")
    config = Config(organization="1234567890", credentials="anonymous", endpoint=cloud.endpoint)
    found = projects.Projects(config, Client(config), now=lambda: datetime.now(UTC))
    with cloud.within(only(frozenset(DISCOVERY))):
        assert found.roster().projects == (PROJECT,)
    assert asked(cloud) == DISCOVERY
    assert [permission for permission in DISCOVERY if f"`{permission}`" not in PAGE] == []


@pytest.mark.parametrize("role", ROLES)
def test_a_role_reads_in_order(role: dict[str, Any]) -> None:
    assert (role["stage"], {*role}) == ("GA", {"title", "stage", "includedPermissions"})
    assert role["includedPermissions"] == sorted(set(role["includedPermissions"]))


def test_every_api_is_enabled_and_has_its_name_in_an_endpoint() -> None:
    [command] = re.findall(r"gcloud services enable (.*?)```", PAGE, re.DOTALL)
    services = {*SERVICES, "iamcredentials"}
    assert set(re.findall(r"(\w+)\.googleapis\.com", command)) == services
    [sentence] = re.findall(r"`\{service\}` in it stands for (.*?) Each of these", WORDS)
    assert set(re.findall(r"`(\w+)`", sentence)) == services | {"impersonate"}


@pytest.mark.parametrize("text", SOURCES)
def test_a_source_on_the_page_is_one(text: str) -> None:
    settings = Settings(allow_endpoints=("{service}-corp.p.googleapis.com",))
    for parsed in apply.check(settings, *apply.read_texts([("gcp.md", text)])):
        assert parsed.kind == "source"
        assert "`{service}-corp.p.googleapis.com`" in PAGE


def test_every_field_of_a_source_is_on_the_page() -> None:
    fields = [*Config.model_fields, *CloudMonitoringMetrics.model_fields]
    written = " ".join(SOURCES)
    assert [name for name in fields if f"`{name}`" not in PAGE and f"{name}:" not in written] == []
    metrics = CloudMonitoringMetrics()
    assert [name for name in (metrics.utilisation, metrics.memory_used) if f"`{name}`" not in PAGE] == []


def test_every_code_of_a_blocker_is_explained() -> None:
    modules = [
        (ROOT / "providers" / "gcp" / name).read_text("utf-8") for name in ("translate.py", "translate_groups.py")
    ]
    codes = {code for text in modules for code in re.findall(r'code="(\w+)"', text)}
    for statuses in (translate_groups.POOL_STATUSES, translate_groups.CLUSTER_STATUSES):
        codes |= {code for code, _ in statuses.values()}
    table = PAGE.partition("## What is in the way")[2]
    assert {*re.findall(r"`([A-Za-z]+)`", " ".join(re.findall(r"^\| (.*?) \|", table, re.MULTILINE)))} == codes


def test_the_values_of_the_chart_exist() -> None:
    [text] = [text for text in EXAMPLES if text.startswith("# values.yaml\n")]
    values = yaml.safe_load((ROOT / "helm" / "curfew" / "values.yaml").read_text("utf-8"))
    for name, inner in yaml.safe_load(text).items():
        assert {*inner} <= {*values[name]}


def test_the_limits_are_as_they_are_told() -> None:
    assert f"within {inventory.PATIENCE_SECONDS:.0f} s" in WORDS
    assert {projects.HOLDS, inventory.SWITCHED_OFF_HOLDS} == {timedelta(minutes=10)}
    assert f"of {actuator.SHORTEST_LIMIT_SECONDS} seconds to {actuator.LONGEST_LIMIT_SECONDS // 86_400} days" in WORDS
