"""The whole cycle on one screen: collect → decide → write → enforce → verify → notify → export → record.

`decide` is the pure middle (reconcile, attribute, price, evaluate, meter, plan). Read this function first.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import structlog

from service import metrics
from service.history.record import Sight
from service.holder import is_gone
from service.model import SourceAnswer
from service.pipeline.alert import budget_alerts
from service.pipeline.backstop import Backstop, backstops, set_backstops
from service.pipeline.budget import windows
from service.pipeline.collect import Collected, collect
from service.pipeline.decide import Ruling, World, decide
from service.pipeline.enforce import Hands, enforce, reconsider, resume
from service.pipeline.evaluate import Look, longest_window
from service.pipeline.meter import LONGEST_GAP
from service.pipeline.notify import drain
from service.pipeline.plan import InForce, Limits, Standing
from service.pipeline.rollout import all_advanced, messages
from service.pipeline.tell import queued
from service.pipeline.verify import note_resumed, verify
from service.report import Report
from service.runtime import Runtime, View
from service.store import audit, cycles, findings, lease, ledger, resources, rollouts, spend
from service.store.database import trouble_of
from service.store.documents import Documents, load
from service.store.tables import Hold

log = structlog.get_logger()


def run_cycle(rt: Runtime, *, cycle_id: str, requested_by: str) -> None:
    """One look at everything and what follows from it. Its report is stored whatever happens."""
    report = rt.running = Report(cycle=cycle_id)
    try:
        _run(rt, report, requested_by)
    finally:
        rt.running = None


def _run(rt: Runtime, report: Report, requested_by: str) -> None:
    now = rt.clock.now()
    with rt.database.transaction() as session:
        cycles.start(session, cycle_id=report.cycle, requested_by=requested_by, now=now)
        held = lease.take(session, rt.holder, is_gone=is_gone)
    if held is None:
        report.error = "another instance governs just now"
    else:
        try:
            _govern(rt, held, report, now)
        except lease.LeaseLost as error:
            report.error = str(error)
        except Exception as error:
            trouble = trouble_of(error)
            if trouble is None:
                log.exception("the cycle broke off")
            else:
                log.error("the cycle broke off", reason=trouble)
            why = trouble or f"{type(error).__name__}; the service's log has the details"
            report.error = f"it broke off: {why}"
        with rt.database.transaction() as session:
            lease.release(session, held)
    rt.counted.step_seconds.update({(step["step"],): step["seconds"] for step in report.steps})
    rt.counted.step_runs.update((step["step"],) for step in report.steps)
    with rt.database.transaction() as session:
        cycles.finish(
            session, report.cycle, steps=report.steps, sources=report.sources, error=report.error, now=rt.clock.now()
        )


def _govern(rt: Runtime, held: lease.Held, report: Report, now: datetime) -> None:
    """The steps, in the order in which data goes."""
    # 1. What do we know, and who is in force?
    with report.step("read"), rt.database.reading() as session:
        documents = load(session)
        identities = resources.identities(session)
    members = rt.fleet.update(documents.sources)
    window = longest_window(tuple(documents.policies.values()))

    # 2. Ask every source. No transaction is open.
    with report.step("collect") as said:
        collected = collect(
            members.values(),
            identities=identities,
            memories=rt.memory.samples,
            window=window,
            now=now,
        )
        said["summary"] = f"{sum(len(a.answer.records) for a in collected.answers if a.answer)} resources"
    report.sources = [_source_report(answer) for answer in collected.answers]
    rt.counted.source_errors.update((line["source"],) for line in report.sources if not _flawless(line))
    say_what_changed(rt.memory.faults, report.sources)

    # 3. Decide: pure, the same code as every preview and re-check.
    with report.step("decide") as said:
        world = _world(rt, documents, collected, now)
        ruling = decide(world, now)
        said["summary"] = f"{len(ruling.plan.intents)} acts are due"

    # 4. Write what changed, in one transaction.
    with report.step("write") as said:
        _write(rt, held, documents, collected, world, ruling, now)
        said["summary"] = f"{len(ruling.changed)} resources and {len(ruling.plan.findings)} findings changed"

    # 5. Act: first what an earlier cycle left open, then what is due. Each target is looked at again by itself.
    hands = _hands(rt, held, world.limits, ruling.look)
    with report.step("enforce") as said:
        resumed = resume(hands)
        reconsider(documents, hands)
        said["summary"] = f"{resumed} resumed; {_acts(enforce(ruling.plan.intents, documents, hands))}"
        set_backstops(_backstops(world, ruling, now), hands, rt.memory.unlimited)

    # 6. Read the truth back.
    with report.step("verify") as said:
        said["summary"] = _acts(verify(hands))

    # 7. Tell people; a delivered warning starts a grace.
    with report.step("notify") as said:
        with rt.database.transaction() as session:
            lease.renew(session, held)
        counts = drain(rt.post)
        said["summary"] = f"messages: {_in_words(counts) or 'none'}"

    # 8. Let others look.
    with report.step("export"):
        rt.view = View(
            at=now,
            resources=ruling.by_id,
            look=ruling.look,
            window=window,
            judged=ruling.judged,
            policies=dict(world.policies),
            limits=world.limits,
        )
        rt.memory.idle_since = ruling.judged.idle_since()
        rt.memory.unknown_since = dict(ruling.plan.unknown_since)
        rt.metrics = metrics.page(rt, ruling.look, ruling.judged, now)

    # 9. Keep what was seen, for back-tests.
    with report.step("record") as said:
        said["summary"] = _record(rt, world, ruling, now)


def _world(rt: Runtime, documents: Documents, collected: Collected, now: datetime) -> World:
    """Everything the ruling rests on, read in one transaction."""
    with rt.database.reading() as session:
        standing = Standing(
            findings=findings.load_active(session),
            dismissed=findings.load_dismissed(session),
            acts=findings.recent_acts(session, now),
            holds=findings.active_holds(session, now),
            held_until=findings.holds_ended(session, now),
            consented_at=findings.breaker_lifted(session, now),
            unknown_since=rt.memory.unknown_since,
        )
        known = resources.load_known(session, rt.memory.resources)
        intervals = rt.memory.latest.follow(session)
        last_look = cycles.last_look(session)
        spent = spend.spent(session, windows(documents.projects, now), now, rt.memory.paces)
        policies = documents.policies.values()
        rolled_out = all_advanced(policies, *rollouts.read(session, policies, now), now)
    return World(
        known=known,
        answers=collected.answers,
        quotes=collected.quotes,
        telemetry=collected.telemetry(rt.memory.idle_since),
        sources={name: source.ceiling for name, source in documents.sources.items()},
        projects=documents.projects,
        policies={
            name: InForce(
                policy=policy,
                version=documents.policy_versions[name],
                stricter_since=documents.mode_changed_at.get(name),
            )
            for name, policy in documents.policies.items()
        },
        exemptions=tuple(documents.exemptions.values()),
        standing=standing,
        limits=Limits(
            ceiling=rt.ceiling,
            source_ceilings={name: source.ceiling for name, source in documents.sources.items()},
            breaker=rt.settings.breaker,
            links_usable=rt.links.usable,
            verbs=rt.fleet.verbs(),
            rollouts=rolled_out,
        ),
        intervals=intervals,
        last_look=last_look,
        longest_gap=_longest_gap(rt),
        spent=spent,
        rates=rt.rates,
        prices=rt.prices,
        discounts={name: source.discounts for name, source in documents.sources.items()},
    )


def _longest_gap(rt: Runtime) -> timedelta:
    """Where somebody wants fewer cycles, one or two that fail are no gap yet either."""
    pace = timedelta(seconds=rt.settings.cycle_seconds * max(1.0, rt.settings.demo_speed))
    return max(LONGEST_GAP, 3 * pace)


def _write(
    rt: Runtime,
    held: lease.Held,
    documents: Documents,
    collected: Collected,
    world: World,
    ruling: Ruling,
    now: datetime,
) -> None:
    """All or nothing, and only under the newest lease."""
    with rt.database.transaction() as session:
        lease.check(session, held)
        revision = resources.save(session, [known for known in ruling.resources if known.id in ruling.changed])
        resources.save_answers(session, collected.answers, now)
        ledger.apply(session, ruling.meter)
        findings.save(session, ruling.plan.findings)
        note_resumed(session, ruling.by_id, now)
        if ruling.plan.breaker is not None:
            session.add(Hold(project=None, until=None, reason=ruling.plan.breaker, created_by="curfew", created_at=now))
            audit.record(
                session, at=now, actor="curfew", verb="hold", object="hold/breaker", reason=ruling.plan.breaker
            )
        fallen = rollouts.save(session, world.limits.rollouts, now)
        told = [message for stage in fallen for message in messages(documents.policies[stage.policy], stage, now)]
        told += budget_alerts(session, ruling.look.budgets, rt.rates, now)
        queued(session, [*ruling.plan.messages, *told], dict(documents.projects), rt.settings.notify, now)
    rt.memory.resources.written(ruling.by_id, revision)


def _record(rt: Runtime, world: World, ruling: Ruling, now: datetime) -> str:
    """What samples were left behind belongs to this look, kept or not."""
    left = {ref: series for memory in rt.memory.samples.values() for ref, series in memory.take_left().items()}
    if rt.recorder is None:
        return "no history is kept"
    return rt.recorder.see(
        Sight(
            at=now,
            resources=ruling.look.resources,
            seen=ruling.look.seen,
            series=world.telemetry.series,
            ambiguous=world.telemetry.ambiguous,
            gone=left,
            speaks=world.longest_gap,
        )
    )


def _hands(rt: Runtime, held: lease.Held, limits: Limits, look: Look) -> Hands:
    return Hands(
        database=rt.database,
        fleet=rt.fleet,
        limits=limits,
        look=look,
        held=held,
        now=rt.clock.now,
        fallback_channels=rt.settings.notify,
    )


def _backstops(world: World, ruling: Ruling, now: datetime) -> list[Backstop]:
    return backstops(
        ruling.resources,
        ruling.judged,
        world.policies,
        world.exemptions,
        world.standing.holds,
        world.limits,
        now,
    )


def _source_report(answer: SourceAnswer) -> dict[str, Any]:
    return resources.report_of(answer) | {"telemetry": [resources.plain_part(part) for part in answer.missing]}


def _flawless(line: dict[str, Any]) -> bool:
    return line["complete"] and not line["telemetry"] and all(part["fault"] is None for part in line["parts"])


def _acts(counts: Mapping[str, int]) -> str:
    """`2 acts verified, 1 waiting`."""
    words = _in_words(counts)
    first, _, rest = words.partition(" ")
    return f"{first} act{'' if first == '1' else 's'} {rest}" if words else "no acts"


def _in_words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)


def say_what_changed(before: dict[str, list[str]], sources: list[dict[str, Any]]) -> None:
    """A source's faults go to the log when they come, change or end: not with every cycle."""
    for line in sources:
        source, faults = line["source"], resources.faults_in(line)
        if faults == before.get(source, []):
            continue
        if faults:
            log.warning("a source fails", source=source, faults=faults)
        else:
            log.info("a source is well again", source=source)
        before[source] = faults
