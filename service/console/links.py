"""What following a signed link in a message shows, and what its button does. No account is needed.

A GET only shows, because mail scanners follow every link. A POST acts once, in one transaction with the record of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, tzinfo

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from service import people
from service.api.auth import runtime_of
from service.console.rendering import LOOK, PageRoute, Stop, finding_view, page, resource_of, zone_of
from service.notify import wording
from service.notify.links import BadLink, Claim, LinkVerb
from service.runtime import Runtime
from service.store import overview
from service.store.tables import Finding, LinkUse, Resource

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse, route_class=PageRoute)


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What a link offers; no button where it is too late."""

    title: str
    will: str
    button: str | None


@router.api_route("/l/{token}", methods=LOOK)
def link_page(request: Request, token: str) -> Response:
    """What the link would do, with the button that does it."""
    runtime = runtime_of(request)
    now = runtime.clock.now()
    claim = _claim(runtime, token, now)
    with runtime.database.reading() as session:
        finding, resource = _subject(session, claim)
        if claim.verb is LinkVerb.DETAILS:
            return page(request, "finding.html", None, **finding_view(session, finding, runtime), keeps={})
        zone = zone_of(session, finding.project)
        used = session.get(LinkUse, claim.nonce)
        why_not = None if used else out_of_date(claim, finding)
        offer = _offer(claim, finding, resource, now, zone)
    return _answer(request, offer, finding, resource, zone, used=used, why_not=why_not)


@router.post("/l/{token}")
def use_link(request: Request, token: str) -> Response:
    """Does what the link says, once."""
    runtime = runtime_of(request)
    now = runtime.clock.now()
    claim = _claim(runtime, token, now)
    used, done = None, None
    try:
        with runtime.database.transaction() as session:
            finding, resource = _subject(session, claim, lock=True)
            zone = zone_of(session, finding.project)
            offer = _offer(claim, finding, resource, now, zone)
            used = session.get(LinkUse, claim.nonce)
            if used is None:
                if why_not := out_of_date(claim, finding):
                    raise people.NotPossible("OutOfDate", why_not)
                done = carry_out(session, claim, finding, now, zone)
                session.add(
                    LinkUse(
                        nonce=claim.nonce,
                        used_at=now,
                        recipient=claim.recipient,
                        verb=claim.verb.value,
                        finding_id=claim.finding_id,
                    )
                )
    except IntegrityError:  # somebody pressed the same button at the same moment; what they did is done
        return link_page(request, token)
    return _answer(request, offer, finding, resource, zone, used=used, done=done)


def _answer(
    request: Request,
    offer: Offer,
    finding: Finding,
    resource: Resource | None,
    zone: tzinfo,
    *,
    used: LinkUse | None,
    why_not: str | None = None,
    done: str | None = None,
) -> Response:
    return page(
        request,
        "link.html",
        None,
        offer=offer,
        finding=finding,
        resource=resource,
        zone=zone,
        used=used,
        why_not=why_not,
        done=done,
    )


def _claim(runtime: Runtime, token: str, now: datetime) -> Claim:
    try:
        return runtime.links.read(token, now)
    except BadLink as error:
        raise Stop(403, "This link does not work any more", error.sentence) from None


def _subject(session: Session, claim: Claim, *, lock: bool = False) -> tuple[Finding, Resource | None]:
    finding = session.get(Finding, claim.finding_id, with_for_update=lock or None)
    if finding is None:
        raise Stop(404, "Not found", "What this link is about no longer exists.")
    return finding, resource_of(session, finding)


def out_of_date(claim: Claim, finding: Finding) -> str | None:
    """Why a genuine link no longer fits, if it does not. Keeping is always harmless; stopping must be meant."""
    if claim.verb is not LinkVerb.UNDO and finding.closed_at is not None:
        return "There is nothing to do any more."
    if claim.verb in (LinkVerb.STOP_NOW, LinkVerb.APPROVE) and claim.episode != finding.episode:
        return "Things have changed since this message was sent. Please use the link in the newest one."
    return None


def _offer(claim: Claim, finding: Finding, resource: Resource | None, now: datetime, zone: tzinfo) -> Offer:
    """What the page says its button will do."""
    name = wording.name(resource.name if resource else finding.resource_id)
    if claim.verb.keeps:
        until = claim.keep_until(now)
        if until <= now:
            passed = f"The time this link named, {wording.moment(until, zone)}, has passed. Please use another one."
            return Offer(title=f"Keep {name}", will=passed, button=None)
        return Offer(
            title=f"Keep {name}?",
            will=f"It is left alone until {wording.moment(until, zone)}. "
            "If there is reason to, you get a fresh warning after that.",
            button=f"Keep it until {wording.short_moment(until, zone)}",
        )
    if claim.verb is LinkVerb.STOP_NOW:
        return Offer(
            title=wording.capital(f"{wording.infinitive(finding.remedy, name)} now?"),
            will="It is done within the next minutes, without waiting for the grace. Protection still holds.",
            button=wording.capital(f"{wording.infinitive(finding.remedy, 'it')} now"),
        )
    if claim.verb is LinkVerb.APPROVE:
        return Offer(
            title=f"Approve: {wording.infinitive(finding.remedy, name)}?",
            will="It is done once its grace is over, if it still breaches the policy then.",
            button="Approve",
        )
    return Offer(
        title=f"Put {name} back?",
        will="It is put back as it was before Curfew acted, and from then on it costs again.",
        button="Put it back",
    )


def carry_out(session: Session, claim: Claim, finding: Finding, now: datetime, zone: tzinfo) -> str:
    """Do it, as the link's recipient; answers what was done. Raises NotPossible."""
    by = people.Person(actor=f"link:{claim.recipient}")
    if claim.verb.keeps:
        until = claim.keep_until(now)
        if until <= now:
            raise people.NotPossible("TimePassed", "The time this link named has passed.")
        people.snooze(session, finding, until=until, reason="by a link in a message", by=by, now=now)
        return f"It is left alone until {wording.moment(until, zone)}."
    if claim.verb is LinkVerb.STOP_NOW:
        people.stop_now(session, finding, by=by, now=now)
        return "It will be done within the next minutes. You are told when it is."
    if claim.verb is LinkVerb.APPROVE:
        people.approve(session, finding, by=by, now=now)
        return "Approved. You are told when it is done."
    row = next((row for row in overview.actions_of(session, finding.id) if row.can_be_undone), None)
    if claim.verb is not LinkVerb.UNDO or row is None:
        raise people.NotPossible(
            "NothingToUndo", "There is nothing to put back: it is back already, or was not stopped."
        )
    if people.project_now(session, row.action) != row.action.project:
        raise people.NotPossible("Moved", people.MOVED)
    people.undo(session, row.action, by=by, now=now)
    return "It is being put back. You are told when it is done."
