"""The one door for documents, used by the API and at start-up: every check, then all of them or none.

What a document looks like is `service.files`'; how it is kept is `service.store.documents`'.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

from sqlmodel import Session

from policies.policy import BasePolicy, BudgetPolicy
from service import files
from service.documents import (
    AnyDocument,
    Exemption,
    Kind,
    Project,
    Source,
    endpoints,
    kind_of,
    nearest_of,
    secrets_named,
    written,
)
from service.files import FieldPath, Mistake, Parsed, RawDocument, Refused
from service.gate import Gate, entering, gate_of, let_in, note, refusal
from service.notify.channels import refusal_of
from service.pipeline.attribute import attribute
from service.runtime import Runtime
from service.secrets import MissingSecret, Secrets, placeholders
from service.settings import Settings
from service.store import documents as store
from service.store.backtests import forget_overrides
from service.store.documents import Change
from service.store.resources import load_known
from service.targets import ForbiddenTarget, check_endpoint


def check(settings: Settings, raws: Iterable[RawDocument], mistakes: Sequence[Mistake] = ()) -> list[Parsed]:
    """Every check that needs no other document; may look up names. Raises Refused with all mistakes."""
    parsed, more = files.parse(raws)
    found = [*mistakes, *more]
    for entry in parsed:
        found += _not_here(settings, entry)
    if found:
        raise Refused(found)
    return parsed


def plan(
    session: Session,
    parsed: Sequence[Parsed],
    *,
    set_name: str | None,
    prune: bool,
    gate: Gate,
    secrets: Secrets | None = None,
) -> list[Change]:
    """What applying would change. Raises Refused where a name leads nowhere or a policy may not enforce yet, OwnedBySet
    where another set owns.
    """
    budgets = store.spend_budgets(session)
    changes = store.plan_changes(session, [entry.document for entry in parsed], set_name=set_name, prune=prune)
    gone = [(change.kind, change.name) for change in changes if change.action == "delete"]
    check_names(session, parsed, [change.document for change in changes if change.document is not None], gone)
    may_enforce = _at_the_gate(session, parsed, changes, gate)
    told = dict(_contested(session, changes))
    return [
        replace(
            change,
            notes=(
                *change.notes,
                *_lost_budgets(session, change, budgets, changes),
                *(told.get(change.name, ()) if change.kind == "project" else ()),
                *(may_enforce.get(change.name, ()) if change.kind == "policy" else ()),
                *_not_set(change, secrets),
            ),
        )
        for change in changes
    ]


def carry_out(session: Session, changes: Sequence[Change], *, by: str, gate: Gate) -> None:
    """Make the changes of a plan, in the transaction it was made in, and keep what new enforcing rests on."""
    entered = entering(session, changes, gate)
    store.apply_changes(session, changes, by=by, now=gate.now)
    let_in(session, entered, gate, by=by)
    for change in changes:
        if change.kind == "policy" and change.action == "delete":
            forget_overrides(session, change.name)


def _at_the_gate(
    session: Session, parsed: Sequence[Parsed], changes: Sequence[Change], gate: Gate
) -> Mapping[str, Sequence[str]]:
    """Policy → what lets it enforce. Raises Refused where nothing does."""
    entered = entering(session, changes, gate)
    raws = {entry.name: entry.raw for entry in parsed if entry.kind == "policy"}
    mistakes = [
        raws[policy.name].mistake(("mode",), refusal(standing, gate.required, raws[policy.name].file))
        for policy, standing in entered
        if gate.required is not None and not standing.passed and gate.override is None
    ]
    if mistakes:
        raise Refused(mistakes[: files.MAX_MISTAKES])
    return {policy.name: [note(standing, gate)] for policy, standing in entered}


def _will_be(session: Session, kind: Kind, changes: Sequence[Change]) -> dict[str, AnyDocument]:
    """The documents of a kind as they will be; none where one of today's cannot be read, which is told elsewhere."""
    try:
        documents = store.load(session)
    except store.UnreadableDocument:
        return {}
    found: dict[str, AnyDocument] = dict(documents.projects if kind == "project" else documents.policies)
    for change in changes:
        if change.kind == kind:
            found.pop(change.name, None)
            if change.document is not None:
                found[change.name] = change.document
    return found


def _contested(session: Session, changes: Sequence[Change]) -> Iterator[tuple[str, list[str]]]:
    """Project → what will belong to nobody, because another one claims it too."""
    matching = {
        change.name
        for change in changes
        if isinstance(change.document, Project)
        and (change.action == "create" or any(field.field.startswith("match") for field in change.fields))
    }
    if not matching:
        return
    projects = {
        name: document
        for name, document in _will_be(session, "project", changes).items()
        if isinstance(document, Project)
    }
    rivals: dict[str, Counter[tuple[str, ...]]] = {}
    for known in load_known(session).values():
        claims = attribute(known.record, known.source, projects).claimed_by
        for name in matching.intersection(claims) if len(claims) > 1 else ():
            rivals.setdefault(name, Counter())[tuple(other for other in claims if other != name)] += 1
    for name, counts in rivals.items():
        yield (
            name,
            [
                f"{count} resource{' is' if count == 1 else 's are'} claimed by {' and '.join(others)} too, "
                "and will belong to none of them"
                for others, count in sorted(counts.items())
            ],
        )


def _lost_budgets(
    session: Session, change: Change, budgets: Mapping[str, Set[str]], changes: Sequence[Change]
) -> Iterator[str]:
    """Policies that read a spend budget which a project has had until now."""
    project = change.document
    if not isinstance(project, Project):
        return
    lost = budgets.get(project.name, frozenset()) - {budget.name for budget in project.spend_budgets}
    if not lost:
        return
    for name, policy in sorted(_will_be(session, "policy", changes).items()):
        if not isinstance(policy, BudgetPolicy):
            continue
        speaks_of_it = not policy.scope.projects or project.name in policy.scope.projects
        if policy.budget.budget in lost and speaks_of_it:
            yield f"policy {name!r} reads its spend budget {policy.budget.budget!r}, which goes"


def _not_set(change: Change, secrets: Secrets | None) -> Iterator[str]:
    """Secrets that a document names and this installation does not have."""
    if change.document is None or change.action == "unchanged" or secrets is None:
        return
    named = secrets_named(change.document.config) if isinstance(change.document, Source) else set()
    for name in sorted(placeholders(written(change.document)) | named):
        try:
            secrets.get(name)
        except MissingSecret as missing:
            yield str(missing)


def check_names(
    session: Session, parsed: Sequence[Parsed], coming: Iterable[AnyDocument], gone: Iterable[tuple[Kind, str]] = ()
) -> None:
    """Raises Refused where a name leads to nothing that is stored or coming."""
    known, budgets = store.names(session), store.spend_budgets(session)
    for kind, name in gone:
        known[kind].discard(name)
        if kind == "project":
            del budgets[name]
    for document in coming:
        known[kind_of(document)].add(document.name)
        if isinstance(document, Project):
            budgets[document.name] = {budget.name for budget in document.spend_budgets}
    found = (
        mistake
        for entry in parsed
        for mistake in chain(_leads_nowhere(entry, known), _without_budget(entry, known["project"], budgets))
    )
    mistakes = list(islice(found, files.MAX_MISTAKES))
    if mistakes:
        raise Refused(mistakes)


def apply_paths(runtime: Runtime, paths: Iterable[Path], *, by: str) -> list[Change]:
    """Apply files or folders, each as the set of its folder's name: what `CURFEW_APPLY` does at start-up."""
    sets = [(files.set_of(path), check(runtime.settings, *read_texts(files.texts_at(path)))) for path in paths]
    changes: list[Change] = []
    gate = gate_of(runtime)
    with runtime.database.transaction() as session:
        for set_name, parsed in sets:
            planned = plan(session, parsed, set_name=set_name, prune=False, gate=gate, secrets=runtime.secrets)
            carry_out(session, planned, by=by, gate=gate)
            changes += planned
    return changes


def read_texts(texts: Iterable[tuple[str, str]]) -> tuple[list[RawDocument], list[Mistake]]:
    """Named YAML texts as raw documents."""
    raws: list[RawDocument] = []
    mistakes: list[Mistake] = []
    for name, text in texts:
        found, wrong = files.read_yaml(text, name)
        raws += found
        mistakes += wrong
    return raws, mistakes


def _not_here(settings: Settings, entry: Parsed) -> Iterator[Mistake]:
    """What this installation does not allow."""
    source = entry.document
    if not isinstance(source, Source):
        for index, channel in enumerate(getattr(source, "notify", ())):
            if (refusal := refusal_of(channel)) is not None:
                yield entry.raw.mistake(("notify", index), refusal)
        return
    if settings.demo_speed > 0 and source.provider != "simulated":
        reason = "the demo's accelerated clock governs simulated sources only; a real cloud lives in real time"
        yield entry.raw.mistake(("provider",), reason)
    for path, url in endpoints(source.config):
        try:
            check_endpoint(url, settings.allow_endpoints)
        except ForbiddenTarget as error:
            yield entry.raw.mistake(path, str(error))


def _leads_nowhere(entry: Parsed, known: Mapping[str, Set[str]]) -> Iterator[Mistake]:
    """References to documents that are neither stored nor being applied."""
    for path, kind, names in _references(entry):
        for index, name in enumerate(names):
            if name not in known[kind]:
                reason = f"there is no {kind} {name!r}"
                yield entry.raw.mistake((*path, index), reason, nearest_of(name, known[kind]))


def _without_budget(entry: Parsed, projects: Set[str], budgets: Mapping[str, Set[str]]) -> Iterator[Mistake]:
    """A budget policy whose spend budget its projects (no project at all, when it names none) do not have."""
    policy = entry.document
    if not isinstance(policy, BudgetPolicy):
        return
    name = policy.budget.budget
    for project in policy.scope.projects:
        if project in projects and name not in budgets[project]:
            reason = f"project {project!r} has no spend budget {name!r}"
            yield entry.raw.mistake(("budget", "budget"), reason, nearest_of(name, budgets[project]))
    every = set().union(*budgets.values())
    if not policy.scope.projects and name not in every:
        yield entry.raw.mistake(
            ("budget", "budget"), f"no project has a spend budget {name!r}", nearest_of(name, every)
        )


def _references(entry: Parsed) -> Iterator[tuple[FieldPath, Kind, Sequence[str]]]:
    document = entry.document
    if isinstance(document, BasePolicy):
        yield ("scope", "projects"), "project", document.scope.projects
        yield ("scope", "sources"), "source", document.scope.sources
    if isinstance(document, Project):
        for index, match in enumerate(document.match):
            yield ("match", index, "sources"), "source", match.sources
    if isinstance(document, Exemption):
        yield ("projects",), "project", document.projects
        yield ("policies",), "policy", document.policies
