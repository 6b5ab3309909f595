"""The promise, from outside: a real process, real boto3 against moto over HTTP, a real mail server, links followed."""

from __future__ import annotations

import re
import time
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Installation
from tests.providers.aws.fleet import sdk, start_group_member
from tests.providers.aws.front import NO_ANSWER, Call, Reply


def _state(here: Installation, instance: str) -> str:
    """The truth, asked of the cloud and not of Curfew."""
    answer = sdk(here.front.moto, "ec2").describe_instances(InstanceIds=[instance])
    state: str = answer["Reservations"][0]["Instances"][0]["State"]["Name"]
    return state


def _explained(here: Installation, instance: str, policy: str = "idle-gpus") -> dict[str, Any]:
    resource = here.curfew.resources()[instance]
    told = here.curfew.get(f"/resources/{resource['id']}/explain")
    [found] = [entry for entry in told["policies"] if entry["policy"] == policy]
    result: dict[str, Any] = found
    return result


def test_an_idle_machine_is_warned_about_stopped_undone_and_left_alone(installation: Installation) -> None:
    here = installation
    here.documents(grace="3s")
    idle = here.machine("trainer", "p5.48xlarge", gpus=8)
    busy = here.machine("busy", percent=93)

    assert here.curfew.cycle()["error"] is None

    resource = here.curfew.resources()[idle]
    assert (resource["project"], resource["gpu_model"], resource["gpu_count"]) == ("vision", "H100", 8)
    assert (resource["activity"], resource["state"], resource["capacity_type"]) == ("idle", "running", "on_demand")
    assert resource["hourly_cost"]["amount_micros"] > 10_000_000
    assert here.curfew.resources()[busy]["activity"] == "busy"

    [mail] = here.sink.arrived
    assert mail["To"] == "vision-lead@example.org"
    text = mail.get_body(("plain",)).get_content()  # type: ignore[union-attr]
    assert "trainer" in text
    assert "8" in text
    assert "H100" in text
    [finding] = here.curfew.findings(policy="idle-gpus")
    assert finding["status"] == "warned"
    assert _state(here, idle) == "running"

    time.sleep(3.2)
    here.curfew.cycle()
    assert _state(here, idle) == "stopped"
    assert _state(here, busy) == "running"
    assert here.front.counted["ec2:StopInstances"] == 1
    [finding] = here.curfew.findings(policy="idle-gpus")
    assert finding["status"] == "enforced"
    [action] = here.curfew.get("/actions")["items"]
    assert (action["status"], action["verb"]) == ("verified", "stop")
    assert action["reason"]
    assert "stopped" in here.sink.arrived[-1]["Subject"].lower()

    here.curfew.post(f"/actions/{action['id']}/undo")
    here.curfew.cycle()
    here.curfew.cycle()
    assert _state(here, idle) == "running"
    assert here.curfew.get(f"/actions/{action['id']}")["status"] == "undone"

    here.age(idle, hours=1.5)
    here.sampled(idle, percent=0, gpus=8)
    for _ in range(3):
        here.curfew.cycle()
    assert _state(here, idle) == "running"
    assert here.front.counted["ec2:StopInstances"] == 1
    assert "cool-down" in _explained(here, idle)["finding"]["status_reason"]


def test_what_must_not_be_touched_is_not_and_says_why(installation: Installation) -> None:
    here = installation
    here.documents(
        grace="1s",
        more="""
---
kind: exemption
name: demo-day
resources: [exempted]
until: 2099-01-01T00:00:00Z
reason: the investors come on Friday
""",
    )
    protected = here.machine("golden", stop_protected=True)
    tagged = here.machine("tagged", tags={"curfew-protect": "true"})
    exempt = here.machine("exempted")
    silent = here.machine("silent", gpus=0)
    thin = here.machine("thin", gpus=0)
    here.sampled(thin, percent=0, minutes=4)
    one_silent_gpu = here.machine("one-silent-gpu", "g6.12xlarge", gpus=3)
    just_restarted = here.machine("just-restarted")
    here.age(just_restarted, hours=0.02)
    foreign = here.machine("foreign", tags={"project": "somebody-else"})
    member = start_group_member(here.front.moto, "g6.xlarge", group="trainers")
    sdk(here.front.moto, "ec2").create_tags(Resources=[member], Tags=[{"Key": "project", "Value": "vision"}])
    here.age(member)
    here.sampled(member, percent=0)
    truly_idle = here.machine("truly-idle")

    here.curfew.cycle()
    time.sleep(1.2)
    here.curfew.cycle()
    here.curfew.cycle()

    assert _state(here, truly_idle) == "stopped"
    reasons = {
        protected: ("finding", "stop"),
        tagged: ("finding", "curfew-protect"),
        exempt: ("finding", "investors"),
        silent: ("reason", "unknown"),
        thin: ("reason", "unknown"),
        one_silent_gpu: ("reason", "unknown"),
        just_restarted: ("reason", "unknown"),
        foreign: ("reason", "vision"),
        member: ("finding", "autoscaling:trainers"),
    }
    for instance, (where, words) in reasons.items():
        told = _explained(here, instance)
        said = told["finding"]["status_reason"] if where == "finding" else told["reason"]
        assert _state(here, instance) == "running", told
        assert words in said, told
    assert here.front.counted["ec2:StopInstances"] == 1


def test_the_links_of_a_real_mail_keep_and_stop(installation: Installation) -> None:
    here = installation
    here.documents(grace="30m")
    kept, stopped = here.machine("kept"), here.machine("stopped-now")
    here.curfew.cycle()

    [mail] = here.sink.arrived  # what is found together is told together
    text = mail.get_body(("plain",)).get_content()  # type: ignore[union-attr]
    links = re.findall(r"http://127\.0\.0\.1:\d+/l/\S+", text)
    with httpx.Client(timeout=30) as person:
        pages = {url: person.get(url).text for url in links}
        assert {f["status"] for f in here.curfew.findings()} == {"warned"}, "reading a link must change nothing"

        keep = next(url for url, page in pages.items() if "<title>Keep kept?" in page)
        assert person.post(keep).status_code == 200
        now = next(url for url, page in pages.items() if "<title>Stop stopped-now now?" in page)
        assert person.post(now).status_code == 200

    here.curfew.cycle()
    assert _state(here, kept) == "running"
    assert _state(here, stopped) == "stopped"
    by_name = {f["resource"]: f["status"] for f in here.curfew.findings()}
    ids = {key: value["id"] for key, value in here.curfew.resources().items()}
    assert by_name[ids[kept]] == "snoozed"
    audit = here.curfew.get("/audit", limit=100)["items"]
    assert any(line["actor"] == "link:vision-lead@example.org" for line in audit)


@pytest.mark.parametrize("moment", ["before the call", "during the call", "after the call"])
def test_killed_around_the_call_there_is_one_act_never_two_never_none(installation: Installation, moment: str) -> None:
    here = installation
    here.documents(grace="1s")
    idle = here.machine("trainer")
    here.curfew.cycle()
    time.sleep(1.2)
    kill_at(here, moment)

    here.curfew.post("/cycles")
    deadline = time.monotonic() + 30
    while here.curfew.running and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not here.curfew.running
    here.front.rules.clear()
    before_restart = here.front.counted["ec2:StopInstances"]

    here.curfew.start()
    here.curfew.cycle()
    here.curfew.cycle()

    assert _state(here, idle) == "stopped"
    after_restart = here.front.counted["ec2:StopInstances"] - before_restart
    assert after_restart == (1 if moment == "before the call" else 0), "one act, never two, never none"
    [action] = here.curfew.get("/actions")["items"]
    assert action["status"] == "verified"
    [finding] = here.curfew.findings()
    assert finding["status"] == "enforced"


def kill_at(here: Installation, moment: str) -> None:
    """Arrange for the process to die at that moment of its next StopInstances."""
    stopping: list[Call] = []

    def rule(call: Call) -> Reply | None:
        if call.action == "ec2:StopInstances":
            stopping.append(call)
            if moment == "before the call":
                here.curfew.kill()
                return NO_ANSWER
            if moment == "during the call":
                sdk(here.front.moto, "ec2").stop_instances(InstanceIds=call.instance_ids)
                here.curfew.kill()
                return NO_ANSWER
        elif stopping and moment == "after the call" and here.curfew.running:
            here.curfew.kill()
            return NO_ANSWER
        return None

    here.front.rules.insert(0, rule)
