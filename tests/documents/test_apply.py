"""Applying documents: all or none, sets and pruning, versions, and what a change says about itself."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlmodel import select

from policies.quantities import format_duration
from service import apply, files
from service.clock import SetClock
from service.documents import MODELS, AnyDocument, effective, written
from service.files import Refused
from service.gate import Gate
from service.secrets import Secrets
from service.settings import Settings
from service.store import documents as store
from service.store.database import Database
from service.store.documents import Change, Documents, OwnedBySet, UnreadableDocument
from service.store.tables import Audit, Document, Resource


class Desk:
    """Applies YAML texts to a database."""

    def __init__(self, database: Database, clock: SetClock) -> None:
        self.database, self.clock = database, clock

    def apply(
        self, text: str, *, set_name: str | None = None, prune: bool = False, secrets: Secrets | None = None
    ) -> list[Change]:
        parsed = apply.check(Settings(), *apply.read_texts([("team/all.yaml", text)]))
        with self.database.transaction() as session:
            gate = Gate(now=self.clock.now())
            changes = apply.plan(session, parsed, set_name=set_name, prune=prune, gate=gate, secrets=secrets)
            apply.carry_out(session, changes, by="token:ci", gate=gate)
        return changes

    def load(self) -> Documents:
        with self.database.reading() as session:
            return store.load(session)

    def row(self, kind: str, name: str) -> Document:
        with self.database.reading() as session:
            return session.get_one(Document, (kind, name))

    def audit(self) -> list[str]:
        with self.database.reading() as session:
            return [f"{line.verb} {line.object}" for line in session.exec(select(Audit).order_by("id"))]  # type: ignore[arg-type]


@pytest.fixture
def desk(database: Database, clock: SetClock) -> Desk:
    return Desk(database, clock)


def said(changes: list[Change]) -> list[str]:
    return [f"{change.action} {change.kind} {change.name}" for change in changes]


VISION = "kind: project\nname: vision\n"
IDLE = "kind: policy\nname: idle-gpus\ntype: idle\nscope: {projects: [vision]}\n"


def test_everything_is_applied_and_audited(desk: Desk) -> None:
    changes = desk.apply(VISION + "---\n" + IDLE)
    assert said(changes) == ["create project vision", "create policy idle-gpus"]
    found = desk.load()
    assert (list(found.projects), list(found.policies)) == (["vision"], ["idle-gpus"])
    assert found.policy_versions == {"idle-gpus": 1}
    assert desk.audit() == ["create project/vision", "create policy/idle-gpus"]


def test_one_mistake_and_nothing_is_applied(desk: Desk) -> None:
    with pytest.raises(Refused):
        desk.apply(VISION + "---\n" + IDLE + "grase: 1h\n")
    with pytest.raises(Refused):
        desk.apply(VISION + "---\n" + IDLE.replace("[vision]", "[vison]"))
    assert desk.load().projects == {}
    assert desk.audit() == []


NOWHERE = {
    "a policy's project": (
        "kind: policy\nname: p\ntype: idle\nscope:\n  projects: [vison]\n",
        (5, "scope.projects[0]", "there is no project 'vison'", "vision"),
    ),
    "a policy's source": (
        "kind: policy\nname: p\ntype: idle\nscope:\n  sources: [reserch]\n",
        (5, "scope.sources[0]", "there is no source 'reserch'", "research"),
    ),
    "a project's source": (
        "kind: project\nname: p\nmatch:\n  - sources: [reserch]\n",
        (4, "match[0].sources[0]", "there is no source 'reserch'", "research"),
    ),
    "an exemption's policy": (
        "kind: exemption\nname: e\nprojects: [vision]\npolicies: [idle]\nuntil: 2026-12-01T00:00:00Z\nreason: why\n",
        (4, "policies[0]", "there is no policy 'idle'", None),
    ),
    "a budget policy's spend budget": (
        "kind: policy\nname: p\ntype: budget\nscope: {projects: [vision]}\nbudget:\n  budget: montly\n",
        (6, "budget.budget", "project 'vision' has no spend budget 'montly'", "monthly"),
    ),
    "a spend budget of another project": (
        "kind: policy\nname: p\ntype: budget\nscope: {projects: [speech]}\nbudget: {budget: monthly}\n",
        (5, "budget.budget", "project 'speech' has no spend budget 'monthly'", None),
    ),
    "a spend budget that no project has": (
        "kind: policy\nname: p\ntype: budget\nbudget: {budget: mothly}\n",
        (4, "budget.budget", "no project has a spend budget 'mothly'", "monthly"),
    ),
    "an exemption's project": (
        "kind: exemption\nname: e\nprojects: [vison]\nuntil: 2026-12-01T00:00:00Z\nreason: why\n",
        (3, "projects[0]", "there is no project 'vison'", "vision"),
    ),
}


@pytest.mark.parametrize("case", NOWHERE)
def test_a_name_that_leads_nowhere_is_a_mistake(desk: Desk, case: str) -> None:
    budgets = "spend_budgets: [{name: monthly, period: month, amount: 100}]\n---\nkind: project\nname: speech\n"
    desk.apply(VISION + budgets + "---\nkind: source\nname: research\nprovider: simulated\n")
    text, expected = NOWHERE[case]
    with pytest.raises(Refused) as refused:
        desk.apply(text)
    (mistake,) = refused.value.mistakes
    assert (mistake.line, mistake.field, mistake.reason, mistake.nearest) == expected


def test_a_name_may_lead_to_what_is_applied_in_the_same_breath(desk: Desk) -> None:
    desk.apply(IDLE + "---\n" + VISION)


def test_a_spend_budget_may_come_with_its_policy_and_counts_as_it_will_be(desk: Desk) -> None:
    policy = "---\nkind: policy\nname: p\ntype: budget\nscope: {projects: [vision]}\nbudget: {budget: monthly}\n"
    budgets = "spend_budgets: [{name: monthly, period: month, amount: 100}]\n"
    desk.apply(VISION + budgets + policy)
    desk.apply(VISION + budgets + policy.replace("[vision]", "[]"))
    with pytest.raises(Refused, match="project 'vision' has no spend budget 'monthly'"):
        desk.apply(VISION + budgets.replace("monthly", "weekly") + policy)


def test_applying_the_same_again_changes_nothing(desk: Desk) -> None:
    desk.apply(VISION)
    desk.clock.forward(timedelta(hours=1))
    assert said(desk.apply(VISION + "timezone: UTC\nowners: []\n")) == ["unchanged project vision"]
    row = desk.row("project", "vision")
    assert (row.version, row.updated_at) == (1, desk.clock.now() - timedelta(hours=1))
    assert desk.audit() == ["create project/vision"]


def test_a_change_names_its_fields_before_and_after(desk: Desk) -> None:
    desk.apply(VISION + "---\n" + IDLE)
    (change,) = desk.apply(IDLE + "mode: warn\nidle: {for: 1h30m}\n")
    assert [(entry.field, entry.before, entry.after) for entry in change.fields] == [
        ("mode", "observe", "warn"),
        ("idle.for", "45m", "1h30m"),
    ]
    assert desk.row("policy", "idle-gpus").version == 2


STRICTER = {
    "a new mode": ("mode: enforce", True),
    "a shorter grace": ("grace: 5m", True),
    "another threshold": ("idle: {utilisation_below: 0.5}", True),
    "another action": ("action: terminate", True),
    "a loss accepted": ("accept_loss: [local_disks]", True),
    "another description": ("description: the same, in other words", False),
    "another channel": ("notify: [lead@example.org]", False),
    "a default written out": ("mode: observe", False),
}


@pytest.mark.parametrize("case", STRICTER)
def test_an_edit_that_may_be_stricter_dates_the_policy_anew(desk: Desk, case: str) -> None:
    line, restarts = STRICTER[case]
    desk.apply(VISION + "---\n" + IDLE)
    created = desk.clock.now()
    edited = desk.clock.forward(timedelta(hours=1))
    desk.apply(IDLE + line + "\n")
    assert desk.load().mode_changed_at["idle-gpus"] == (edited if restarts else created)


def test_a_change_of_channel_does_not_show_its_secrets(desk: Desk) -> None:
    desk.apply(VISION)
    (change,) = desk.apply(VISION + "notify: ['slack://TOKEN/B/C', 'json://me:hunter2@h.example/x']\n")
    assert change.fields[0].after == ["slack://***", "json://***:***@h.example/***"]
    with desk.database.reading() as session:
        assert "hunter2" not in str([line.details for line in session.exec(select(Audit))])


# --- sets ------------------------------------------------------------------------------------------------------------


def test_prune_deletes_what_the_set_no_longer_has_and_only_that(desk: Desk) -> None:
    desk.apply("kind: project\nname: a\n---\nkind: project\nname: b\n", set_name="team")
    desk.apply("kind: project\nname: c\n", set_name="other")
    desk.apply("kind: project\nname: d\n")
    without_prune = desk.apply("kind: project\nname: a\n", set_name="team")
    assert said(without_prune) == ["unchanged project a"]
    pruned = desk.apply("kind: project\nname: a\n", set_name="team", prune=True)
    assert said(pruned) == ["unchanged project a", "delete project b"]
    assert list(desk.load().projects) == ["a", "c", "d"]


@pytest.mark.parametrize("intruder", [None, "other"])
def test_a_document_of_a_set_can_only_be_changed_through_it(desk: Desk, intruder: str | None) -> None:
    desk.apply(VISION, set_name="team")
    with pytest.raises(OwnedBySet, match="project 'vision' belongs to the set 'team'"):
        desk.apply(VISION + "currency: EUR\n", set_name=intruder)
    assert desk.load().projects["vision"].currency == "USD"


def test_a_set_takes_over_what_was_made_by_hand(desk: Desk) -> None:
    desk.apply(VISION)
    (change,) = desk.apply(VISION, set_name="team")
    assert [(entry.field, entry.before, entry.after) for entry in change.fields] == [("set", None, "team")]
    row = desk.row("project", "vision")
    assert (row.set_name, row.version) == ("team", 1)


def test_deleting_says_what_follows(desk: Desk, clock: SetClock) -> None:
    desk.apply("kind: source\nname: research\nprovider: simulated\n---\n" + VISION + "match: [{sources: [research]}]\n")
    desk.apply(IDLE)
    for id in ("one", "two"):
        with desk.database.transaction() as session:
            session.add(
                Resource(
                    id=id, source="research", provider="aws", account="1", region="r", kind="instance",
                    external_id=id, incarnation=id, name=id, sku="x", gpu_count=1, gpu_share=1, capacity_type="spot",
                    state="running", state_since=clock.now(), first_seen=clock.now(), project="vision",
                )
            )  # fmt: skip
    with desk.database.reading() as session:
        notes = {
            kind: store.plan_delete(session, session.get_one(Document, (kind, name))).notes
            for kind, name in (("source", "research"), ("project", "vision"))
        }
    assert notes == {
        "source": (
            "2 resources seen through it will be kept, and no longer judged or metered",
            "project 'vision' is recognised by it",
        ),
        "project": ("2 resources of it will belong to no project", "policy 'idle-gpus' names it in its scope"),
    }


# --- files at start --------------------------------------------------------------------------------------------------


def test_a_spend_budget_that_goes_is_missed_by_the_policies_that_read_it(desk: Desk) -> None:
    def project(name: str, *budgets: str) -> str:
        entries = ", ".join(f"{{name: {budget}, period: month, amount: 5}}" for budget in budgets)
        return f"kind: project\nname: {name}\nspend_budgets: [{entries}]\n---\n"

    def policy(name: str, budget: str, scope: str) -> str:
        return f"kind: policy\nname: {name}\ntype: budget\nbudget: {{budget: {budget}}}\nscope: {scope}\n---\n"

    desk.apply(
        project("vision", "monthly", "spare")
        + project("nlp", "monthly")
        + policy("of-vision", "monthly", "{projects: [vision]}")
        + policy("of-nlp", "monthly", "{projects: [nlp]}")
        + policy("of-all", "monthly", "{}")
        + policy("spare", "spare", "{}")
        + policy("goes-with-it", "spare", "{projects: [vision]}")
    )
    changes = desk.apply(project("vision", "other") + policy("goes-with-it", "other", "{projects: [vision]}"))
    assert [change.notes for change in changes if change.kind == "project"] == [
        (
            "policy 'of-all' reads its spend budget 'monthly', which goes",
            "policy 'of-vision' reads its spend budget 'monthly', which goes",
            "policy 'spare' reads its spend budget 'spare', which goes",
        )
    ]
    assert desk.apply(project("vision", "other"))[0].notes == ()


def test_what_two_projects_will_claim_is_told_before_it_is_nobodys(desk: Desk, clock: SetClock) -> None:
    def project(name: str, match: str) -> str:
        return f"kind: project\nname: {name}\nmatch: [{match}]\n---\n"

    with desk.database.transaction() as session:
        for number, team in enumerate(("cv", "cv", "nlp")):
            session.add(
                Resource(
                    id=f"r{number}", source="research", provider="aws", account="1", region="r", kind="instance",
                    external_id=f"r{number}", incarnation="1", name="x", sku="x", gpu_count=1, gpu_share=1,
                    capacity_type="spot", state="running", state_since=clock.now(), first_seen=clock.now(),
                    tags={"team": team},
                )
            )  # fmt: skip
    desk.apply(project("vision", "{tags: {team: cv}}") + project("nlp", "{tags: {team: nlp}}"))
    coming = project("everything", "{sources: [research]}")
    source = "kind: source\nname: research\nprovider: simulated\n---\n"
    changes = desk.apply(source + coming)
    assert [change.notes for change in changes if change.kind == "project"] == [
        (
            "1 resource is claimed by nlp too, and will belong to none of them",
            "2 resources are claimed by vision too, and will belong to none of them",
        )
    ]
    [same] = desk.apply(coming)
    assert same.notes == ()


def test_a_secret_that_is_not_set_is_told_and_stops_nothing(desk: Desk) -> None:
    text = 'kind: project\nname: vision\nnotify: ["slack://${SLACK}", "webhooks://h/?secret=${HOOK}", "pagerduty://${PD}"]\n'
    secrets = Secrets(folder=None, environment={"CURFEW_SECRET_SLACK": "hunter2"})
    [change] = desk.apply(text, secrets=secrets)
    assert change.notes == (
        "the secret ${HOOK} is not set; set CURFEW_SECRET_HOOK or put a file HOOK into CURFEW_SECRETS_DIR",
        "the secret ${PD} is not set; set CURFEW_SECRET_PD or put a file PD into CURFEW_SECRETS_DIR",
    )
    [again] = desk.apply(text, secrets=secrets)
    assert (again.action, again.notes) == ("unchanged", ())


def test_the_set_is_the_folders_name(tmp_path: Path) -> None:
    (tmp_path / "team").mkdir()
    (tmp_path / "team" / "a.yaml").touch()
    assert files.set_of(tmp_path / "team") == files.set_of(tmp_path / "team" / "a.yaml") == "team"


# --- stored documents ------------------------------------------------------------------------------------------------


def test_a_stored_document_that_is_no_longer_valid_stops_everything(desk: Desk) -> None:
    desk.apply(VISION)
    with desk.database.transaction() as session:
        row = session.get_one(Document, ("project", "vision"))
        row.body = {"name": "vision", "timezone": "Mars/Base"}
    with pytest.raises(UnreadableDocument, match="the stored project 'vision' can no longer be read"):
        desk.load()
    assert said(desk.apply(VISION)) == ["update project vision"]
    assert desk.load().projects["vision"].timezone == "UTC"


tags = st.dictionaries(st.text("ab", min_size=1), st.text("xy"))
durations = st.integers(0, 10**6).map(lambda seconds: format_duration(timedelta(seconds=seconds)))
shares = st.integers(0, 100).map(lambda share: f"{share}%")


@given(
    body=st.fixed_dictionaries(
        {"name": st.just("p"), "type": st.just("idle")},
        optional={
            "mode": st.sampled_from(["observe", "warn", "enforce"]),
            "grace": durations,
            "idle": st.fixed_dictionaries({}, optional={"for": durations.filter(bool).filter(lambda d: d != "0s"),
                                                        "min_coverage": shares}),
            "disruption_budget": st.fixed_dictionaries({}, optional={"max": shares | st.integers(0, 99)}),
            "scope": st.fixed_dictionaries({}, optional={"tags": tags}),
        },
    )
)  # fmt: skip
def test_a_document_is_the_same_after_it_was_stored_or_shown(body: dict[str, Any]) -> None:
    document: AnyDocument = MODELS["policy"].validate_python(body)
    for form in (written(document), effective(document)):
        assert effective(MODELS["policy"].validate_python(form)) == effective(document)


def test_nor_does_a_secret_that_a_source_asks_for_by_its_name(desk: Desk) -> None:
    source = "kind: source\nname: azure\nprovider: azure\nsubscriptions: [11111111-2222-3333-4444-555555555555]\n"
    [change] = desk.apply(f"{source}token_secret: ARM\n", secrets=Secrets(folder=None, environment={}))
    assert list(change.notes) == [
        "the secret ${ARM} is not set; set CURFEW_SECRET_ARM or put a file ARM into CURFEW_SECRETS_DIR"
    ]
