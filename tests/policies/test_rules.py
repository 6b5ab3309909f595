"""The reasons in words, as their readers see them."""

from __future__ import annotations

from typing import Any

import pytest

from policies.decision import Decision, Verdict
from policies.evaluate import evaluate
from policies.policy import BasePolicy
from tests.policies.builders import (
    busy_machine,
    facts_of,
    idle_policy,
    machine,
    ownership_policy,
    silent_machine,
)


def decide(policy: BasePolicy, row: dict[str, Any]) -> Decision:
    judgement = evaluate(facts_of([row], [policy]), [policy])
    assert judgement.faults == {}
    return judgement.decision(policy.name, 0)


LOW_POWER = idle_policy(idle={"when": "max_power_watts < 90"})
SPARE = idle_policy(idle={"for": "1h", "busy_gpus_below": 2})
BOTH = ownership_policy(ownership={"require": ["project", "owner"], "within": "1h"})

REASONS: dict[str, tuple[BasePolicy, dict[str, Any], Verdict, str]] = {
    "all idle": (
        idle_policy(),
        machine(),
        Verdict.BREACH,
        "All 8 H100 have been idle for 1h40m: highest utilisation 0.4 % against a threshold of 5 %; "
        "samples speak for 98 % of the last 45m.",
    ),
    "the only one idle": (
        idle_policy(),
        machine(gpu_count=1, idle_gpus=1),
        Verdict.BREACH,
        "Its H100 has been idle for 1h40m: highest utilisation 0.4 % against a threshold of 5 %; "
        "samples speak for 98 % of the last 45m.",
    ),
    "idle, of an unknown model": (
        idle_policy(),
        machine(gpu_model=None, idle_seconds=2700, coverage=None),
        Verdict.BREACH,
        "All 8 GPUs have been idle for 45m: highest utilisation 0.4 % against a threshold of 5 %.",
    ),
    "idle, and little is known": (
        idle_policy(),
        machine(gpu_count=None, gpu_model=None, idle_seconds=None, coverage=None, max_utilisation=None, idle_gpus=None),
        Verdict.BREACH,
        "All GPUs have been idle for 45m.",
    ),
    "one may be busy": (
        SPARE,
        machine(idle_gpus=7, busy_gpus=1, max_utilisation=0.87, coverage=1.0),
        Verdict.BREACH,
        "7 of 8 H100 have been idle for 1h40m, and fewer than 2 busy or unknown count as idle: "
        "highest utilisation 87 % against a threshold of 5 %; samples speak for 100 % of the last 1h.",
    ),
    "one of two idle": (
        SPARE,
        machine(gpu_count=2, idle_gpus=1, busy_gpus=1, max_utilisation=None, coverage=None),
        Verdict.BREACH,
        "1 of 2 H100 has been idle for 1h40m, and fewer than 2 busy or unknown count as idle.",
    ),
    "some busy": (
        idle_policy(),
        busy_machine(),
        Verdict.OK,
        "2 of 8 H100 were busy in the last 45m; highest utilisation 87 % against a threshold of 5 %.",
    ),
    "one busy": (
        idle_policy(),
        busy_machine(busy_gpus=1, gpu_model=None, max_utilisation=None),
        Verdict.OK,
        "1 of 8 GPUs was busy in the last 45m.",
    ),
    "the only one busy": (
        idle_policy(),
        busy_machine(busy_gpus=1, gpu_count=1),
        Verdict.OK,
        "Its H100 was busy in the last 45m; highest utilisation 87 % against a threshold of 5 %.",
    ),
    "busy, and no more is known": (
        idle_policy(),
        busy_machine(busy_gpus=None),
        Verdict.OK,
        "It was busy in the last 45m.",
    ),
    "stopped": (idle_policy(), machine(state="stopped"), Verdict.OK, "It is stopped: only what runs can be idle."),
    "one silent": (
        idle_policy(),
        silent_machine(unknown_gpus=1),
        Verdict.UNKNOWN,
        "1 of 8 H100 sent no samples in the last 45m: unknown is never idle.",
    ),
    "the only one silent": (
        idle_policy(),
        silent_machine(gpu_count=1, unknown_gpus=1, gpu_model=None),
        Verdict.UNKNOWN,
        "Its GPU sent no samples in the last 45m: unknown is never idle.",
    ),
    "too few samples": (
        idle_policy(),
        silent_machine(unknown_gpus=3, coverage=0.4),
        Verdict.UNKNOWN,
        "3 of 8 H100 sent too few samples in the last 45m: on the worst they speak for 40 % of it, "
        "where 90 % is needed; unknown is never idle.",
    ),
    "no telemetry at all": (
        idle_policy(),
        silent_machine(unknown_gpus=None, coverage=None),
        Verdict.UNKNOWN,
        "Nothing is known of its GPUs in the last 45m: unknown is never idle.",
    ),
    "state unknown": (
        idle_policy(),
        machine(state="unknown"),
        Verdict.UNKNOWN,
        "Its state is not known, so neither is whether it idles.",
    ),
    "the further condition holds": (
        LOW_POWER,
        machine(coverage=None),
        Verdict.BREACH,
        "All 8 H100 have been idle for 1h40m: highest utilisation 0.4 % against a threshold of 5 %. "
        "And `max_power_watts < 90` holds: max_power_watts is 71.5.",
    ),
    "the further condition does not hold": (
        LOW_POWER,
        machine(coverage=None, max_power_watts=240.123456789),
        Verdict.OK,
        "All 8 H100 have been idle for 1h40m: highest utilisation 0.4 % against a threshold of 5 %. "
        "But `max_power_watts < 90` does not hold: max_power_watts is 240.123.",
    ),
    "the further condition is unknown": (
        LOW_POWER,
        machine(coverage=None, max_power_watts=None),
        Verdict.UNKNOWN,
        "All 8 H100 have been idle for 1h40m: highest utilisation 0.4 % against a threshold of 5 %. "
        "But `max_power_watts < 90` is unknown: max_power_watts is not known.",
    ),
    "busy, with a further condition": (
        LOW_POWER,
        busy_machine(max_utilisation=None),
        Verdict.OK,
        "2 of 8 H100 were busy in the last 45m.",
    ),
    "nobody answers for it": (
        BOTH,
        machine(project=None, owner=None, age_seconds=11520),
        Verdict.BREACH,
        "It has no project and no owner 3h12m after it appeared; 1h is allowed.",
    ),
    "no owner": (
        BOTH,
        machine(owner=None),
        Verdict.BREACH,
        "It has no owner 1d after it appeared; 1h is allowed.",
    ),
    "no owner yet": (
        BOTH,
        machine(owner=None, age_seconds=125),
        Verdict.OK,
        "It has no owner yet, but appeared only 2m5s ago; 1h is allowed.",
    ),
    "claimed by two projects": (
        ownership_policy(),
        machine(project=None, claimed_by="nlp and vision", age_seconds=90_000),
        Verdict.UNKNOWN,
        "The projects nlp and vision claim it at once, so whose it is is not known.",
    ),
    "claimed by two projects, and nobody's by name": (
        BOTH,
        machine(project=None, claimed_by="nlp and vision", owner=None, age_seconds=90_000),
        Verdict.BREACH,
        "It has no project of its own (nlp and vision claim it at once) and no owner 1d1h after it appeared; "
        "1h is allowed.",
    ),
    "claimed by two projects only just now": (
        BOTH,
        machine(project=None, claimed_by="nlp and vision", age_seconds=60),
        Verdict.OK,
        "It has no project of its own (nlp and vision claim it at once) yet, but appeared only 1m ago; 1h is allowed.",
    ),
    "both are there": (BOTH, machine(), Verdict.OK, "It has the project vision and the owner ana."),
    "terminated": (BOTH, machine(owner=None, state="terminated"), Verdict.OK, "It is terminated."),
    "no owner, of unknown age": (
        BOTH,
        machine(owner=None, age_seconds=None),
        Verdict.UNKNOWN,
        "It has no owner, but since when it exists is not known.",
    ),
    "no owner, state unknown": (
        BOTH,
        machine(owner=None, state=None),
        Verdict.UNKNOWN,
        "Its state is not known, so neither is whether anybody need answer for it.",
    ),
    "another project": (
        idle_policy(scope={"projects": ["nlp", "speech"]}),
        machine(),
        Verdict.OUT_OF_SCOPE,
        "Out of scope: project is vision, and the policy speaks of nlp or speech.",
    ),
    "no project": (
        idle_policy(scope={"projects": ["nlp"]}),
        machine(project=None),
        Verdict.OUT_OF_SCOPE,
        "Out of scope: project is not known, and the policy speaks of nlp.",
    ),
    "the second restriction is the one": (
        idle_policy(scope={"projects": ["vision"], "regions": ["eu-*"]}),
        machine(),
        Verdict.OUT_OF_SCOPE,
        "Out of scope: region is us-east-1, and the policy speaks of eu-*.",
    ),
    "another tag": (
        idle_policy(scope={"tags": {"team": "a"}}),
        machine(tags={"team": "b"}),
        Verdict.OUT_OF_SCOPE,
        "Out of scope: tags['team'] is b, and the policy speaks of a.",
    ),
    "outside by its condition": (
        idle_policy(scope={"projects": ["vision"], "where": "gpu_count > 8 OR tags['big'] = 'yes'"}),
        machine(tags={"big": "no"}),
        Verdict.OUT_OF_SCOPE,
        "Out of scope: `gpu_count > 8 OR tags['big'] = 'yes'` does not hold: gpu_count is 8, tags['big'] is no.",
    ),
    "perhaps in scope": (
        idle_policy(scope={"where": "gpu_count >= 8 AND tags['big'] = 'yes'"}),
        machine(),
        Verdict.UNKNOWN,
        "Whether it is in scope is not known: `gpu_count >= 8 AND tags['big'] = 'yes'` is unknown: "
        "gpu_count is 8, tags['big'] is not known.",
    ),
}


@pytest.mark.parametrize(("policy", "row", "verdict", "reason"), REASONS.values(), ids=REASONS.keys())
def test_reason(policy: BasePolicy, row: dict[str, Any], verdict: Verdict, reason: str) -> None:
    decision = decide(policy, row)
    assert (decision.verdict, decision.reason) == (verdict, reason)
    assert (decision.policy, decision.resource_id) == (policy.name, "r1")


def test_evidence_keeps_what_the_rule_the_scope_and_the_person_looked_at() -> None:
    policy = idle_policy(
        scope={"projects": ["vision"], "tags": {"team": "a"}, "where": "hourly_cost > 1 OR tags['x'] = 'y'"},
        idle={"when": "max_power_watts < running_seconds"},
    )
    evidence = decide(policy, machine(tags={"team": "a", "secret": "s"})).evidence
    looked_at = {
        "project": "vision",
        "tags['team']": "a",
        "hourly_cost": 55.04,
        "tags['x']": None,
        "running_seconds": 7200,
    }
    assert looked_at.items() <= evidence.items()
    assert {"activity": "idle", "max_utilisation": 0.004, "max_power_watts": 71.5}.items() <= evidence.items()
    assert not {"tags['secret']", "owner", "zone"} & set(evidence)
