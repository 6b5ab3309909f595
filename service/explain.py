"""Answers "why was it stopped, or why was it not": every policy's verdict on one resource, with the numbers used, what
became of it, and what was done so far.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, true
from sqlmodel import col, select

from policies.decision import Verdict
from policies.policy import BasePolicy
from policies.quantities import format_share
from service.documents import Project
from service.model import Known
from service.pipeline import rollout
from service.pipeline.attribute import attribute
from service.pipeline.evaluate import members_in
from service.pipeline.plan import (
    PROTECTION_REPORTED_AFTER,
    exemption_for,
    hold_for,
    not_yet,
    rolled_out_to,
    why_not,
)
from service.runtime import Runtime, View
from service.store import outbox
from service.store.documents import Confinement, load, names_seen
from service.store.findings import active_holds
from service.store.resources import known_of
from service.store.tables import Action, Finding, Resource


def explain(rt: Runtime, resource_id: str, *, to: Confinement = None) -> dict[str, Any] | None:
    """Everything that is known of why exactly this resource is as it is, by the policies that a reader confined `to`
    some projects may see; None when there is no such resource.
    """
    now = rt.clock.now()
    with rt.database.reading() as session:
        row = session.get(Resource, resource_id)
        if row is None:
            return None
        documents = load(session)
        seen = names_seen(session, "policy", to)
        findings = session.exec(
            select(Finding)
            .where(Finding.resource_id == row.id, _of_theirs(Finding.project, to))
            .order_by(col(Finding.opened_at).desc())
            .limit(50)
        ).all()
        actions = session.exec(
            select(Action)
            .where(Action.resource_id == row.id, _of_theirs(Action.project, to))
            .order_by(col(Action.intended_at).desc())
            .limit(50)
        ).all()
        holds = active_holds(session, now)
        undelivered = outbox.last_errors(session, [finding.id for finding in findings])
    known = known_of(row)
    hold = hold_for(known.project, holds)
    newest: dict[str, Finding] = {}
    for finding in findings:
        newest.setdefault(finding.policy, finding)
    members = members_in(rt.view.resources.values()).get(known.id, ()) if rt.view and known.is_group else ()
    policies = []
    for name in sorted(documents.policies if seen is None else seen):
        verdict = _verdict(rt.view, known, name)
        exemption = exemption_for(known, name, tuple(documents.exemptions.values()), now, members=members)
        policies.append(
            {
                "policy": name,
                "mode": documents.policies[name].mode.value,
                **verdict,
                "cannot_act_because": _cannot(rt, known, name),
                "rollout": _rollout(rt, known, documents.policies[name]),
                "exempt": None
                if exemption is None
                else {
                    "exemption": exemption.name,
                    "until": exemption.until_utc.isoformat(),
                    "reason": exemption.reason,
                },
                "finding": _finding(newest.get(name), undelivered),
            }
        )
    return {
        "resource": _resource(known, rt.view),
        "claimed_by": [name for name in _claims(known, documents.projects) if to is None or name in to],
        "judged_at": None if rt.view is None else rt.view.at.isoformat(),
        "hold": None
        if hold is None
        else {"reason": hold.reason, "until": hold.until.isoformat() if hold.until else None},
        "ceiling": rt.ceiling.value,
        "policies": policies,
        "protections": [
            {
                "source": protection.source,
                "sentence": protection.sentence,
                "since": known.protected_since.isoformat() if known.protected_since else None,
                "old": known.protected_since is not None and now - known.protected_since > PROTECTION_REPORTED_AFTER,
            }
            for protection in known.record.protections
        ],
        "actions": [_action(action) for action in actions],
    }


def _of_theirs(project: Any, to: Confinement) -> ColumnElement[bool]:
    """What was found and done while the resource was another project's is that project's to see."""
    return true() if to is None else col(project).in_(to)


def _claims(known: Known, projects: Mapping[str, Project]) -> tuple[str, ...]:
    """The projects that claim it now. Where there are several it belongs to none of them."""
    return attribute(known.record, known.source, projects).claimed_by


def _verdict(view: View | None, known: Known, policy: str) -> dict[str, Any]:
    """What the last cycle judged, or why it did not."""
    nothing: dict[str, Any] = {"verdict": Verdict.OUT_OF_SCOPE.value, "evidence": {}}
    if known.ended_at is not None:
        return {**nothing, "reason": "The resource no longer exists."}
    if known.orphaned_at is not None:
        return {**nothing, "reason": "Its source no longer covers it, so it is not judged."}
    if known.same_as is not None:
        return {**nothing, "reason": "It is a machine that its cloud lists too; that one is judged."}
    if view is None or known.id not in view.judged.rows or policy not in view.judged.judgement.outcomes:
        return {**nothing, "verdict": Verdict.UNKNOWN.value, "reason": "No cycle has judged it yet."}
    decision = view.judged.judgement.decision(policy, view.judged.rows[known.id])
    return {"verdict": decision.verdict.value, "reason": decision.reason, "evidence": dict(decision.evidence)}


def _cannot(rt: Runtime, known: Known, policy: str) -> str | None:
    """What forbids acting on it for this policy, breached or not."""
    if rt.view is None or policy not in rt.view.policies:
        return None
    return why_not(known, rt.view.policies[policy].policy, rt.view.limits, rt.clock.now())


def _rollout(rt: Runtime, known: Known, policy: BasePolicy) -> dict[str, Any] | None:
    """How far the policy's rollout has come, and whether to this one; None when it has none."""
    if policy.rollout is None or rt.view is None:
        return None
    stage, limits = rt.view.limits.rollouts.get(policy.name), rt.view.limits
    unit = rollout.units(rt.view.resources.values()).get(known.id, known.id)
    comes_to_it = rolled_out_to(policy, unit, limits)
    return {
        "share": format_share(stage.share) if stage else "0%",
        "enforced": comes_to_it,
        "reason": "Its rollout has come to this one." if comes_to_it else not_yet(policy, limits),
    }


def _resource(known: Known, view: View | None) -> dict[str, Any]:
    record = known.record
    row = None if view is None else view.judged.rows.get(known.id)
    return {
        "id": known.id,
        "name": record.name,
        "source": known.source,
        "provider": record.ref.provider,
        "external_id": record.ref.external_id,
        "region": record.ref.region,
        "kind": record.ref.kind.value,
        "sku": record.sku,
        "gpu_model": record.gpu_model,
        "gpu_count": record.gpu_count,
        "state": record.state.value,
        "project": known.project,
        "owner": known.owner,
        "managed_by": record.managed_by,
        "member_of": None if view is None or row is None else view.judged.facts.base["member_of"][row],
        "members": list(record.members),
        "pods": [{"pod": placed.pod, "node": placed.node} for placed in record.placements],
        "powered_off": record.powered_off,
        "run_limit_seconds": record.run_limit_seconds,
        "remarks": list(record.remarks),
        "same_as": known.same_as,
        "stopped_by": record.stopped_by.value if record.stopped_by else None,
        "started_at": known.started_at.isoformat() if known.started_at else None,
        "restarted_at": known.restarted_at.isoformat() if known.restarted_at else None,
    }


def _finding(row: Finding | None, undelivered: Mapping[str, str]) -> dict[str, Any] | None:
    if row is None:
        return None
    return {
        "id": row.id,
        "status": row.status,
        "status_reason": row.status_reason,
        "reason": row.reason,
        "evidence": row.evidence,
        "opened_at": row.opened_at.isoformat(),
        "warned_at": row.warned_at.isoformat() if row.warned_at else None,
        "due_at": row.due_at.isoformat() if row.due_at else None,
        "closed_at": row.closed_at.isoformat() if row.closed_at else None,
        "not_delivered_because": undelivered.get(row.id),
    }


def _action(row: Action) -> dict[str, Any]:
    return {
        "id": row.id,
        "undoes": row.undoes,
        "verb": row.verb,
        "status": row.status,
        "reason": row.reason,
        "requested_by": row.requested_by,
        "policy": row.policy,
        "intended_at": row.intended_at.isoformat(),
        "taken_at": row.taken_at.isoformat() if row.taken_at else None,
        "verified_at": row.verified_at.isoformat() if row.verified_at else None,
        "undone_at": row.undone_at.isoformat() if row.undone_at else None,
        "resumed_at": row.resumed_at.isoformat() if row.resumed_at else None,
        "regretted_at": row.regretted_at.isoformat() if row.regretted_at else None,
        "regret_why": row.regret_why,
        "error": row.error,
    }
