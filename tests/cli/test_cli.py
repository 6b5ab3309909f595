"""The command as people use it: what it prints, how it fails, and its exit codes."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from service.notify.channels import Delivery
from service.store.tables import Cycle, Outbox, SourceState
from tests.api.service_under_test import Api
from tests.cli.conftest import Run
from tests.under_way import has_answered, owes, running, source

HEAVY = ("sqlalchemy", "fastapi", "duckdb", "sqlglot", "pydantic", "apprise", "yaml", "rich", "boto3", "uvicorn")


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys; sys.argv = ['curfew', '--help']\n"
        "from service.cli import main\n"
        "try: main()\n"
        f"except SystemExit: print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "Exit codes" in done.stdout


# --- failing ---------------------------------------------------------------------------------------------------------


def test_nobody_there_is_one_sentence(curfew: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURFEW_URL", "http://127.0.0.1:9")
    ran = curfew("get", "resources")
    assert ran.code == 1
    assert ran.err.startswith("curfew: cannot reach Curfew at http://127.0.0.1:9 (")
    assert len(ran.err.splitlines()) == 1


@pytest.mark.parametrize("url", ["ftp://host", "host:8080", "nonsense", "http://[::1"])
def test_an_address_that_is_none_is_one_sentence(curfew: Run, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("CURFEW_URL", url)
    ran = curfew("get", "resources")
    assert (ran.code, len(ran.err.splitlines())) == (1, 1)
    assert "CURFEW_URL" in ran.err


def test_without_a_token_it_says_what_to_set(served: Api, curfew: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CURFEW_TOKEN")
    ran = curfew("get", "resources")
    assert ran.code == 1
    assert "set CURFEW_TOKEN" in ran.err


@pytest.mark.parametrize("token", ["abc\n", "tök-hunter2"])
def test_a_token_that_none_can_be_is_one_sentence(curfew: Run, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("CURFEW_TOKEN", token)
    ran = curfew("get", "resources")
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert "CURFEW_TOKEN has a character that no token has" in ran.err
    assert "hunter2" not in ran.err


def test_a_refusal_is_its_sentence(served: Api, curfew: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURFEW_TOKEN", str(served.holder("v", "viewer").token))
    ran = curfew("cycle")
    assert (ran.code, ran.err) == (1, "curfew: this takes the role operator; this token is viewer\n")


WRONG_USE = {
    "an unknown kind": (["get", "reources"], "did you mean resources?"),
    "an unknown command": (["gett"], "No such command"),
    "a snooze without its length": (["snooze", "f1", "--reason", "x"], "--for"),
    "a prune of one file": (["apply", "-f", "one.yaml", "--prune"], "name a folder or --set"),
    "a filter that is none": (["get", "policies", "-p", "vision"], "not filtered by project"),
    "lifting for a while": (["hold", "--lift", "--for", "4h"], "--lift"),
}


@pytest.mark.parametrize("case", WRONG_USE)
def test_wrong_use_is_exit_code_2(
    served: Api, curfew: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("one.yaml").write_text("kind: project\nname: vision\n")
    words, says = WRONG_USE[case]
    ran = curfew(*words)
    assert ran.code == 2
    assert says in ran.err


def test_a_setting_that_cannot_work_is_told_by_its_name(curfew: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURFEW_CEILING", "enforced")
    ran = curfew("db", "upgrade")
    assert ran.code == 2
    assert ran.err.startswith("curfew: CURFEW_CEILING: should be 'observe', 'warn' or 'enforce'")


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("CURFEW_DATABASE_URL", "nonsense", "CURFEW_DATABASE_URL is no database's URL"),
        (
            "CURFEW_DATABASE_URL",
            "mysql://user:hunter2@host/name",
            "CURFEW_DATABASE_URL: Curfew does not speak to mysql",
        ),
        ("CURFEW_MAIL", "smtp://user:hunter2@host/?to={to}", "CURFEW_MAIL: smtp:// is no channel that is allowed"),
        ("CURFEW_MAIL", "mailtos://user:hunter2@host/", "CURFEW_MAIL: it has no {to}"),
        ("CURFEW_NOTIFY", "ops@example.org,slak://hunter2", "CURFEW_NOTIFY: slak:// is no channel that is allowed"),
        ("CURFEW_NOTIFY", "ops@example.org,hunter2", "CURFEW_NOTIFY: entry 2 is neither a mail address nor an Apprise"),
        ("CURFEW_HOME", "/proc/curfew", "CURFEW_HOME must be a folder that can be written"),
        ("CURFEW_HOME", __file__, "CURFEW_HOME must be a folder that can be written"),
    ],
)
def test_settings_that_cannot_work_are_one_sentence(
    curfew: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, setting: str, value: str, says: str
) -> None:
    monkeypatch.setenv("CURFEW_HOME", str(tmp_path))
    monkeypatch.setenv(setting, value)
    monkeypatch.setattr("service.serve.configure_logs", lambda mask: None)
    ran = curfew("serve", "--port", "0")
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert says in ran.err
    assert "hunter2" not in ran.err


def test_a_port_in_use_is_one_sentence_and_leaves_the_home_alone(
    served: Api, curfew: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CURFEW_HOME", str(tmp_path / "state"))
    port = os.environ["CURFEW_URL"].rpartition(":")[2]
    ran = curfew("serve", "--port", port)
    assert ran.err.splitlines() == [
        f"curfew: cannot listen on 127.0.0.1 port {port}: something listens there already; "
        "--port names another port, 0 any that is free"
    ]
    assert ran.code == 2
    assert not (tmp_path / "state").exists()


def test_the_database_is_upgraded(curfew: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CURFEW_HOME", str(tmp_path / "state"))
    ran = curfew("db", "upgrade")
    assert (ran.code, ran.err) == (0, "")
    assert (tmp_path / "state" / "curfew.db").exists()


# --- documents -------------------------------------------------------------------------------------------------------


@pytest.fixture
def team(tmp_path: Path) -> Path:
    folder = tmp_path / "team"
    folder.mkdir()
    (folder / "projects.yaml").write_text("kind: project\nname: vision\n---\nkind: project\nname: speech\n")
    (folder / "policies.yaml").write_text(
        "kind: policy\nname: idle-gpus\ntype: idle\nscope: {projects: [vision]}\nidle: {for: 45m}\n"
    )
    return folder


def test_diff_then_apply_then_diff(served: Api, curfew: Run, team: Path) -> None:
    before = curfew("diff", "-f", str(team))
    assert before.code == 3
    assert before.out.splitlines() == [
        "create   project speech",
        "create   project vision",
        "create   policy idle-gpus",
    ]
    assert served.admin.get("/api/v1/projects").json()["items"] == []
    applied = curfew("apply", "-f", str(team))
    assert (applied.code, applied.out.splitlines()[-1]) == (0, "created  policy idle-gpus")
    assert served.admin.get("/api/v1/projects/vision").json()["metadata"]["set"] == "team"
    after = curfew("diff", "-f", str(team))
    assert (after.code, after.out) == (0, "Nothing to change.\n")


def test_a_change_is_printed_with_its_fields(served: Api, curfew: Run, team: Path) -> None:
    curfew("apply", "-f", str(team))
    policies = team / "policies.yaml"
    policies.write_text(policies.read_text().replace("45m", "1h") + "notify: [lead@example.org]\n")
    (team / "projects.yaml").write_text("kind: project\nname: vision\n")
    served.resource(project="speech")
    ran = curfew("diff", "-f", str(team), "--prune")
    assert ran.code == 3
    assert ran.out.splitlines() == [
        "delete   project speech",
        "           1 resource of it will belong to no project",
        "update   policy idle-gpus",
        "           notify: nothing → [\"lead@example.org\"]",
        "           idle.for: 45m → 1h",
        "1 unchanged",
    ]  # fmt: skip


def test_every_mistake_has_its_file_and_line(served: Api, curfew: Run, team: Path) -> None:
    (team / "policies.yaml").write_text("kind: policy\nname: idle-gpus\ntype: idle\nidle:\n  fro: 45m\nmode: onn\n")
    ran = curfew("apply", "-f", str(team))
    assert ran.code == 1
    assert ran.err.splitlines() == [
        f"curfew: {team}/policies.yaml:5:3: policy 'idle-gpus', idle.fro: there is no such field; did you mean 'for'?",
        f"curfew: {team}/policies.yaml:6:1: policy 'idle-gpus', mode: 'onn' is not one of observe, warn, enforce",
    ]
    assert served.admin.get("/api/v1/projects").json()["items"] == []


def test_a_channel_that_nothing_could_go_to_is_a_mistake(served: Api, curfew: Run, team: Path) -> None:
    (team / "projects.yaml").write_text("kind: project\nname: vision\nnotify: [slak://a/b/c]\n")
    ran = curfew("diff", "-f", str(team))
    assert ran.code == 1
    assert "notify[0]: slak:// is no channel that is allowed; there are mailto, mailtos, slack" in ran.err


def test_a_file_that_is_not_there(served: Api, curfew: Run) -> None:
    ran = curfew("apply", "-f", "missing.yaml")
    assert (ran.code, ran.err) == (1, "curfew: missing.yaml: there is no such file or folder\n")


def test_what_get_prints_can_be_applied_again(
    served: Api, curfew: Run, team: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (team / "odd.yaml").write_text(
        "kind: project\nname: odd\ndescription: '1e3'\n"
        "match: [{tags: {a: 'on', b: '0o17', c: '12:30:00', d: 'null'}}]\n"
    )
    curfew("apply", "-f", str(team))
    for kind in ("projects", "policies"):
        printed = curfew("get", kind, "-o", "yaml").out
        assert "metadata" not in printed
        monkeypatch.setattr(sys, "stdin", io.StringIO(printed))
        assert curfew("diff", "-f", "-", "--set", "team").code == 0


# --- looking ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def fleet(served: Api) -> Api:
    served.resource("trainer", name="trainer-of-the-vision-team-number-42")
    served.resource("gone", state="terminated", ended_at=served.clock.now())
    served.finding("f" * 32)
    served.action("a" * 32)
    served.cycle("c" * 32, served.clock.now())
    served.store(SourceState(source="research", succeeded_at=served.clock.now()))
    for kind, body in {
        "sources": {"provider": "simulated"},
        "projects": {},
        "policies": {"type": "idle"},
        "exemptions": {"resources": ["i-1"], "until": "2026-12-01T00:00:00Z", "reason": "demo day"},
    }.items():
        served.admin.put(f"/api/v1/{kind}/one", json=body)
    served.admin.put("/api/v1/tokens/ci", json={"role": "viewer"})
    served.admin.put("/api/v1/hold", json={})
    return served


KINDS = (
    "resources",
    "findings",
    "actions",
    "sources",
    "projects",
    "policies",
    "exemptions",
    "cycles",
    "audit",
    "tokens",
    "hold",
)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_a_table_of_80_columns_without_colour(fleet: Api, curfew: Run, kind: str) -> None:
    ran = curfew("get", kind)
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert len(lines) >= 2
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in ran.out


def test_a_machines_name_is_no_command_to_the_terminal_and_no_markup(served: Api, curfew: Run) -> None:
    served.cycle("c1", served.clock.now())
    served.resource("r1", name="\x1b]0;owned\x07\x9b2J\u202e\n[/][red]x[/red] :smile:", tags={"\x1b[2J": "\x9b"})
    for words in (["get", "resources"], ["get", "resources", "r1"], ["explain", "r1"]):
        for output in ([], ["-o", "json"]):
            ran = curfew(*words, *output)
            assert ran.code == 0, ran.err
            assert not {c for c in ran.out if not c.isprintable()} - {"\n"}
    assert "[/][red]x[/red] :smile:" in curfew("explain", "r1").out
    assert json.loads(curfew("get", "resources", "r1", "-o", "json").out)["name"].startswith("\x1b]0;owned")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_json_and_yaml_in_full(fleet: Api, curfew: Run, kind: str) -> None:
    as_json = json.loads(curfew("get", kind, "-o", "json").out)
    as_yaml = list(yaml.safe_load_all(curfew("get", kind, "-o", "yaml").out))
    assert as_json
    assert len(as_yaml[0] if isinstance(as_yaml[0], list) else as_yaml) == len(as_json)


def test_money_and_moments_are_readable(fleet: Api, curfew: Run) -> None:
    out = curfew("get", "findings").out
    assert "55.04 USD" in out
    assert "16 Nov 09:30" in out
    assert "DUE (UTC)" in out


def test_what_could_not_be_seen_lately_is_marked(served: Api, curfew: Run) -> None:
    now = served.clock.now()
    served.cycle("c1", now)
    served.resource("fresh")
    served.resource("stale", source="blind", first_seen=now - timedelta(days=2))
    served.store(
        SourceState(source="research", succeeded_at=now - timedelta(minutes=2)),
        SourceState(source="blind", succeeded_at=now - timedelta(hours=1)),
    )
    ran = curfew("get", "resources")
    assert [line.split()[3] for line in ran.out.splitlines()[1:]] == ["running", "running?"]
    assert ran.err == "1 with a ? may be out of date: `curfew get sources` says why.\n"
    assert json.loads(curfew("get", "resources", "-o", "json").out)[1]["state"] == "running"


def test_what_is_gone_is_shown_on_request(fleet: Api, curfew: Run) -> None:
    assert "gone" not in curfew("get", "resources").out
    assert "gone" in curfew("get", "resources", "--all").out


def test_a_list_says_when_there_is_more(served: Api, curfew: Run) -> None:
    for number in range(3):
        served.resource(f"r{number}")
    ran = curfew("get", "resources", "--limit", "2")
    assert len(ran.out.splitlines()) == 3
    assert "--limit 0 shows all" in ran.err
    assert len(curfew("get", "resources", "--limit", "0").out.splitlines()) == 4


def test_nothing_is_said_to_be_nothing(served: Api, curfew: Run) -> None:
    assert curfew("get", "findings").out == "There are no findings.\n"
    assert curfew("get", "hold").out == "Nothing is on hold.\n"


@pytest.mark.parametrize("word", ["trainer", "i-trainer", "trainer-of-the-vision-team-number-42", "train"])
def test_a_resource_is_found_by_id_cloud_id_name_or_beginning(fleet: Api, curfew: Run, word: str) -> None:
    assert "p5.48xlarge" in curfew("get", "resource", word).out
    assert curfew("explain", word).out.startswith("trainer-of-the-vision-team-number-42  8×H100")


def test_explain_says_how_to_put_it_back_and_why_nobody_was_told(fleet: Api, curfew: Run) -> None:
    fleet.store(
        Outbox(
            message_id="warning:f:1:mail:lead@example.org", kind="warning", finding_id="f" * 32,
            channel="mail:lead@example.org", channel_kind="mail", error="the mail server said 550",
            created_at=fleet.clock.now(), next_try_at=fleet.clock.now(),
        )
    )  # fmt: skip
    fleet.admin.put("/api/v1/policies/idle-gpus", json={"type": "idle"})
    printed = " ".join(curfew("explain", "trainer").out.split())
    assert "put it back: curfew undo aaaaaaaa" in printed
    assert "Its warning could not be delivered: the mail server said 550" in printed


def test_explain_names_the_projects_that_claim_it_at_once(served: Api, curfew: Run) -> None:
    served.resource("trainer", project=None, tags={"team": "cv"})
    for name in ("vision", "nlp"):
        served.admin.put(f"/api/v1/projects/{name}", json={"match": [{"tags": {"team": "cv"}}]})
    assert "It is claimed by nlp and vision at once, so it is nobody's." in curfew("explain", "trainer").out
    served.admin.delete("/api/v1/projects/nlp")
    assert json.loads(curfew("explain", "trainer", "-o", "json").out)["claimed_by"] == ["vision"]
    assert "at once" not in curfew("explain", "trainer").out


def test_a_cycle_says_what_became_of_every_source(served: Api, curfew: Run) -> None:
    fault = {"code": "Unreachable", "sentence": "it gave no answer"}
    line = {"source": "metrics", "complete": False, "resources": 0, "parts": [], "fault": None}
    telemetry = [{"part": "telemetry", "complete": False, "fault": fault}]
    now = served.clock.now()
    sources = [line | {"telemetry": telemetry}]
    served.store(Cycle(id="c1", started_at=now, finished_at=now, requested_by="schedule", sources=sources))
    assert "metrics: it gave no answer" in " ".join(curfew("get", "cycles").out.split())


def under_way(served: Api) -> None:
    now = served.clock.now()
    served.store(Cycle(id="cycle-1", started_at=now, requested_by="schedule"))
    stuck = source("company", answered=("1/us-east-1",), waiting=("1/eu-west-1", "2/eu-west-1"))
    well = has_answered(source("lab"), now, "listing")
    running(served.rt, "cycle-1", owes(stuck, now, "listing"), well, owes(source("metrics"), now, "telemetry"))


WAITS = (
    "waits for company (listing) since 16 Nov 09:00: 1 of 3 parts, not yet 1/eu-west-1, 2/eu-west-1; "
    "metrics (telemetry) since 16 Nov 09:00"
)


def test_a_cycle_that_runs_says_whom_it_waits_for(served: Api, curfew: Run) -> None:
    under_way(served)

    printed = " ".join(curfew("get", "cycles").out.split())
    assert "running: collect" in printed
    assert "not yet" in printed
    [cycle] = json.loads(curfew("get", "cycles", "-o", "json").out)
    assert cycle["progress"]["sources"][0]["parts"]["waiting"] == ["1/eu-west-1", "2/eu-west-1"]
    served.rt.running = None
    assert "only that one knows" in " ".join(curfew("get", "cycles").out.split())


def test_whoever_gives_up_waiting_for_a_cycle_is_told_what_it_waits_for(served: Api, curfew: Run) -> None:
    under_way(served)

    ran = curfew("cycle", "--wait", "--timeout", "1")

    assert ran.code == 1
    assert f"The cycle runs: collect, {WAITS}" in " ".join(ran.err.split())


def test_a_source_says_how_it_does(fleet: Api, curfew: Run) -> None:
    assert "never" in curfew("get", "sources").out
    fleet.store(
        SourceState(
            source="one", succeeded_at=fleet.clock.now(), fault={"code": "Denied", "sentence": "it may not list"}
        )
    )
    printed = " ".join(curfew("get", "sources").out.split())
    assert "16 Nov 09:00" in printed
    assert "it may not" in printed


def test_a_word_that_means_two_things_is_not_guessed_at(served: Api, curfew: Run) -> None:
    served.resource("one", name="trainer")
    served.resource("two", name="trainer")
    ran = curfew("explain", "trainer")
    assert ran.code == 1
    assert "is not one resource but 2; name it by its id: one, two" in ran.err


def test_one_without_a_name_of_its_own_is_named_as_its_cloud_calls_it(served: Api, curfew: Run) -> None:
    served.resource("one", external_id="i-0abc", name="i-0abc")
    assert curfew("explain", "i-0abc").out.startswith("i-0abc  8×H100")


def test_what_does_not_exist_is_said(served: Api, curfew: Run) -> None:
    assert "there is no resource 'nothing'" in curfew("explain", "nothing").err
    assert "there is no policy 'nothing'" in curfew("get", "policy", "nothing").err


# --- acting ----------------------------------------------------------------------------------------------------------


def test_a_finding_is_snoozed_by_the_beginning_of_its_id(fleet: Api, curfew: Run) -> None:
    ran = curfew("snooze", "ffffffff", "--for", "4h", "--reason", "setting up")
    assert ran.code == 0
    assert ran.out.startswith("trainer-of-the-vision-team-number-42 (idle-gpus) is snoozed: ")


def test_a_finding_is_dismissed(fleet: Api, curfew: Run) -> None:
    assert "is dismissed" in curfew("dismiss", "f" * 32, "--reason", "it is a demo").out


def test_a_finding_is_acted_on_and_an_action_undone(fleet: Api, curfew: Run) -> None:
    assert curfew("act", "ffff").code == 0
    fleet.finding("e" * 32, policy="other")
    fleet.action("b" * 32, finding_id="e" * 32, verified_at=fleet.clock.now() + timedelta(seconds=1))
    ran = curfew("undo", "bbbb")
    assert ran.code == 0, ran.err
    assert "will put back trainer-of-the-vision-team-number-42" in ran.out


def test_what_is_not_possible_is_said(fleet: Api, curfew: Run) -> None:
    curfew("dismiss", "ffff", "--reason", "it is a demo")
    ran = curfew("approve", "f" * 32)
    assert ran.code == 1
    assert len(ran.err.splitlines()) == 1


def test_everything_is_held_and_lifted(served: Api, curfew: Run) -> None:
    assert (
        curfew("hold", "--for", "4h", "--reason", "deadline").out == "Nothing acts anywhere until 16 Nov 13:00 UTC.\n"
    )
    served.admin.put("/api/v1/projects/vision", json={})
    assert curfew("hold", "-p", "vision").out == "Nothing acts in vision until it is lifted.\n"
    assert "a person lifts it" in " ".join(curfew("get", "hold").out.split())
    assert curfew("hold", "--lift").out.splitlines()[0] == "Lifted; still on hold:"
    assert curfew("hold", "--lift", "-p", "vision").out == "Lifted.\n"


def test_a_cycle_is_waited_for(served: Api, curfew: Run) -> None:
    assert curfew("cycle").out == "Cycle cycle-1 runs.\n"
    served.cycle("cycle-1", served.clock.now())
    assert curfew("cycle", "--wait").code == 0


def test_a_cycle_that_failed_is_a_failure(served: Api, curfew: Run) -> None:
    from service.store.tables import Cycle

    now = served.clock.now()
    served.store(Cycle(id="cycle-1", started_at=now, finished_at=now, requested_by="t", error="no lease"))
    ran = curfew("cycle", "--wait")
    assert (ran.code, ran.err) == (1, "curfew: the cycle failed: no lease\n")


# --- tokens ----------------------------------------------------------------------------------------------------------


def test_a_token_is_printed_alone_and_works(served: Api, curfew: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    created = curfew("token", "create", "ci", "--role", "viewer", "--for", "90d")
    assert created.code == 0
    assert created.out.startswith("curfew_")
    assert len(created.out.splitlines()) == 1
    twice = curfew("token", "create", "ci", "--role", "viewer")
    assert (twice.code, "--rotate" in twice.err) == (1, True)
    rotated = curfew("token", "create", "ci", "--role", "viewer", "--rotate").out.strip()
    assert rotated != created.out.strip()
    assert created.out.strip() not in curfew("token", "list").out
    monkeypatch.setenv("CURFEW_TOKEN", rotated)
    assert curfew("get", "hold").code == 0


def test_a_revoked_token_is_gone(served: Api, curfew: Run) -> None:
    curfew("token", "create", "ci", "--role", "owner", "-p", "vision")
    assert curfew("token", "revoke", "ci").code == 0
    assert curfew("token", "list").out == "There are no tokens.\n"


# --- being told ------------------------------------------------------------------------------------------------------


def test_a_test_call_says_of_each_channel_what_came_of_it(served: Api, curfew: Run) -> None:
    served.admin.put("/api/v1/projects/vision", json={"owners": ["lan@example.org"]})
    ran = curfew("notify", "test", "vision")
    assert ran.code == 1
    assert ran.out.startswith("FAILED  lan@example.org: CURFEW_MAIL is not set")


def test_a_test_call_that_all_took_is_done(served: Api, curfew: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served.rt.channels, "deliver", lambda *_, **__: Delivery(ok=True))
    served.admin.put("/api/v1/projects/vision", json={"owners": ["lan@example.org"], "notify": ["slack://a/b/c"]})
    ran = curfew("notify", "test", "vision")
    assert (ran.code, ran.out) == (0, "ok      lan@example.org\nok      slack://***\n")


def test_a_test_call_that_reaches_nobody_is_a_failure(served: Api, curfew: Run) -> None:
    served.admin.put("/api/v1/projects/vision", json={})
    ran = curfew("notify", "test", "vision")
    assert ran.code == 1
    assert "CURFEW_NOTIFY names nobody" in ran.err
