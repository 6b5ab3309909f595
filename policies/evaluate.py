"""Judges: facts × policies → a verdict for every pair, in one columnar pass; words only for the pairs asked about.

A live cycle judges one row per resource; a back-test one per resource and moment. It is the same pass.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from threading import Timer
from typing import Any

import duckdb
import nanoarrow as na
from sqlglot import exp

from policies.codes import (
    BREACH,
    FORESEEN,
    OK,
    OUT,
    UNKNOWN,
    VERDICTS,
    WHEN_FALSE,
    WHEN_UNKNOWN,
    WHERE_UNKNOWN,
)
from policies.conditions import SILENT, Condition, ConditionError, compile_condition, quoted
from policies.decision import Decision, Verdict
from policies.facts import BY_NAME, OWN_BY_NAME, Facts, Type
from policies.groups import Folded, fold, whom
from policies.policy import BasePolicy, profile_of
from policies.rules import RULES
from policies.rules.rule import Evidence, Rule, were
from policies.rules.scope import Restriction, restrictions

LIMIT_SECONDS = 300.0
"""A pass over a hundred thousand resources takes a tenth of a second; what runs for minutes has gone astray."""

MOST_RESTRICTIONS = 200


class JudgingError(RuntimeError):
    """The pass as a whole could not be made."""


# --- policy → expression ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CompiledPolicy:
    """A policy ready to be judged."""

    policy: BasePolicy
    rule: Rule[Any]
    restrictions: tuple[Restriction, ...]
    where: Condition | None
    when: Condition | None
    code: exp.Expr
    """The byte of one row, over columns named as the facts."""

    @property
    def facts(self) -> tuple[str, ...]:
        """Whatever the verdict rests on: columns, and tags as `tags['key']`."""
        named = [*self.rule.evidence, *(restriction.fact for restriction in self.restrictions)]
        for condition in (self.where, self.when):
            if condition:
                named += [SILENT] * condition.needs_all_gpus
                named += [*sorted(condition.columns), *(f"tags[{quoted(key)}]" for key in sorted(condition.tags))]
        return tuple(dict.fromkeys(named))


def compile_policy(policy: BasePolicy) -> CompiledPolicy:
    """Checks and prepares a policy; a ConditionError names the field and what is wrong with it."""
    rule = RULES.get(type(policy))
    if rule is None:
        raise LookupError(f"no rule judges a {type(policy).__name__}")
    scope = tuple(restrictions(policy.scope))
    if len(scope) > MOST_RESTRICTIONS:
        raise ConditionError(
            f"scope: {len(scope)} restrictions are too many; at most {MOST_RESTRICTIONS} can be told apart"
        )
    where = _person_condition("scope.where", policy.scope.where, policy)
    if where is not None and rule.by_share and policy.acts:
        _rests_on_no_telemetry(where)
    when = _person_condition(f"{getattr(policy, 'type', 'policy')}.when", rule.when(policy), policy)

    in_scope = _in_scope(scope, where)
    breached = rule.condition(policy, in_scope)
    if when is None:
        code: exp.Expr = exp.func("coalesce", _byte(breached), _number(UNKNOWN))  # false is 0, true is 1
        if rule.foreseen is not None:
            ahead = exp.If(this=rule.foreseen(policy, in_scope), true=_number(FORESEEN))
            code = exp.Case(ifs=[exp.If(this=breached.copy(), true=_number(BREACH)), ahead], default=code)
    else:
        code = _ask(breached, yes=_ask(when.expression, yes=_number(BREACH), no=WHEN_FALSE, unknown=WHEN_UNKNOWN))
    if where is not None:
        code = _ask(where.expression, yes=code, no=OUT + len(scope), unknown=WHERE_UNKNOWN)
    for index, restriction in reversed(list(enumerate(scope))):
        code = exp.Case(ifs=[exp.If(this=restriction.expression, true=code)], default=_number(OUT + index))
    return CompiledPolicy(
        policy=policy,
        rule=rule,
        restrictions=scope,
        where=where,
        when=when,
        code=_byte(code),
    )


def _in_scope(scope: Sequence[Restriction], where: Condition | None) -> exp.Expr:
    """True for the rows a policy speaks of for certain; never NULL. A group is counted by its members."""
    conditions: list[exp.Expr] = [exp.column("kind").neq(exp.Literal.string("node_group"))]
    conditions += [restriction.expression.copy() for restriction in scope]
    if where is not None:
        conditions.append(where.expression.copy())
    return exp.func("coalesce", exp.paren(exp.and_(*conditions)), exp.false())


def _person_condition(place: str, text: str | None, policy: BasePolicy) -> Condition | None:
    if text is None:
        return None
    try:
        return compile_condition(text, acting=policy.acts)
    except ConditionError as error:
        raise ConditionError(f"{place}: {error}") from None


def _rests_on_no_telemetry(where: Condition) -> None:
    """A share of a scope from which silent machines drop out would be exceeded because they are silent."""
    for name in sorted(where.columns):
        if BY_NAME[name].telemetry:
            raise ConditionError(
                f"scope.where: `{name}` rests on telemetry, and a share of the scope must not shrink when that fails"
            )


def _ask(question: exp.Expr, *, yes: exp.Expr, no: int = OK, unknown: int = UNKNOWN) -> exp.Expr:
    """One byte by a three-valued answer; what stands behind `yes` is only looked at where it is needed."""
    otherwise = exp.func("coalesce", exp.Add(this=_byte(question.copy()), expression=_number(no)), _number(unknown))
    return exp.Case(ifs=[exp.If(this=question.copy(), true=yes)], default=otherwise)


def _byte(node: exp.Expr) -> exp.Expr:
    return exp.cast(node, "utinyint", dialect="duckdb")


def _number(code: int) -> exp.Expr:
    return exp.Literal.number(code)


# --- facts × expressions → bytes -------------------------------------------------------------------------------------


@dataclass
class _Table:
    """The columns of the facts that some policy reads, under the names they have in DuckDB."""

    facts: Facts
    columns: dict[str, tuple[Type, Sequence[Any]]] = field(default_factory=dict)
    _profiles: dict[str, int] = field(default_factory=dict)

    def expression(self, compiled: CompiledPolicy) -> exp.Expr:
        """A policy's expression over this table; a LookupError names a fact that was not brought along."""
        profile = profile_of(compiled.policy).key

        def physical(node: exp.Expr) -> exp.Expr:
            if isinstance(node, exp.Bracket):
                return exp.column(self._tag(node.expressions[0].name), quoted=True)
            if isinstance(node, exp.Column):
                return exp.column(self._fact(node.name, profile, compiled.policy.name), quoted=True)
            return node

        return compiled.code.transform(physical)

    def _fact(self, name: str, profile: str, policy: str) -> str:
        fact = BY_NAME.get(name) or OWN_BY_NAME[name]
        if name in OWN_BY_NAME:
            source, label = self.facts.own.get(policy, {}), "nothing was computed for this policy alone"
            physical = f"{name}#{policy}"
        elif fact.telemetry:
            source, label = self.facts.activity.get(profile, {}), "no activity judged by its idle profile"
            physical = f"{name}@{self._profiles.setdefault(profile, len(self._profiles))}"
        else:
            source, label, physical = self.facts.base, "no such column", name
        if name not in source:
            raise LookupError(f"the facts have no {name}: {label}")
        return self._add(physical, fact.type, source[name])

    def _tag(self, key: str) -> str:
        physical = f"tags@{key}"
        if physical in self.columns:
            return physical
        return self._add(physical, Type.TEXT, [tags.get(key) for tags in self.facts.tags])

    def _add(self, physical: str, type_: Type, values: Sequence[Any]) -> str:
        if len(values) != len(self.facts):
            raise JudgingError(f"the facts' {physical} has {len(values)} entries for {len(self.facts)} rows")
        self.columns[physical] = (type_, values)
        return physical

    def load(self, connection: duckdb.DuckDBPyConnection) -> None:
        if not self.columns:
            return
        arrays, schema, selected = [], {}, []
        for index, (name, (type_, values)) in enumerate(self.columns.items()):
            arrays.append(_arrow(type_, values))
            schema[f"c{index}"] = _ARROW[type_]
            column: exp.Expr = exp.column(f"c{index}")
            if type_ is Type.NUMBER:  # NaN compares greater than everything; it is no number and therefore not known
                finite = exp.func("isfinite", column.copy())
                column = exp.Case(ifs=[exp.If(this=finite, true=column)])
            selected.append(exp.alias_(column, name, quoted=True))
        rows = na.c_array_from_buffers(na.struct(schema), len(self.facts), [None], children=arrays)
        connection.register("arrow", rows)
        connection.execute(exp.select(*selected).from_("arrow").ctas("facts", dialect="duckdb").sql("duckdb"))
        connection.unregister("arrow")


_ARROW: Mapping[Type, Any] = {
    Type.TEXT: na.string(),
    Type.INTEGER: na.int64(),
    Type.NUMBER: na.float64(),
    Type.BOOLEAN: na.bool_(),
}


def _arrow(type_: Type, values: Sequence[Any]) -> Any:
    try:
        return na.c_array(values, _ARROW[type_])
    except ValueError:  # half a surrogate in some cloud's tag: that text is not known, the others are
        return na.c_array([value if _encodable(value) else None for value in values], _ARROW[type_])


def _encodable(value: str | None) -> bool:
    return value is None or not re.search("[\ud800-\udfff]", value)


@contextmanager
def _judge() -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB in memory that can reach nothing outside. The second wall; the gate is the first."""
    connection = duckdb.connect(
        ":memory:",
        config={
            "enable_external_access": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "temp_directory": "",
            "threads": 1,  # the pass is streamed in row order; more threads only add CPU
            "preserve_insertion_order": True,
            "lock_configuration": True,
        },
    )
    try:
        yield connection
    finally:
        connection.close()


def _bytes(
    connection: duckdb.DuckDBPyConnection, expressions: Sequence[exp.Expr], limit_seconds: float = LIMIT_SECONDS
) -> list[bytes]:
    """One byte string per expression, one byte per row, in the order of the rows."""
    columns: list[list[bytes]] = [[] for _ in expressions]
    watch = Timer(limit_seconds, connection.interrupt)
    watch.daemon = True
    watch.start()
    try:
        listed = [exp.alias_(expression, f"p{index}", copy=False) for index, expression in enumerate(expressions)]
        selected = exp.select(*listed, copy=False).from_("facts", copy=False)
        if any(expression.find(exp.Window) for expression in expressions):
            selected = selected.order_by("rowid", copy=False)  # counting across rows loses their order
        query = selected.sql("duckdb")
        for batch in na.ArrayStream(connection.sql(query)):
            for column, array in zip(columns, batch.iter_children(), strict=True):
                column.append(bytes(array.buffer(1))[: len(array)])
    except duckdb.InterruptException:
        raise JudgingError(f"judging took longer than {limit_seconds:g} s and was broken off") from None
    finally:
        watch.cancel()
        watch.join()
    return [b"".join(parts) for parts in columns]


# --- bytes → verdicts, and words for who asks ------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one policy says of every row."""

    policy: BasePolicy
    compiled: CompiledPolicy | None
    """None where the policy itself is faulty."""
    folded: Folded
    fault: str | None = None
    """Why it could not be judged; then every row is unknown."""

    @property
    def codes(self) -> bytes:
        """One byte for each row, members of groups too."""
        return self.folded.codes

    @cached_property
    def breaches(self) -> list[int]:
        """Rows in breach, ascending."""
        return self._met(b"%c" % BREACH)

    @cached_property
    def foreseen(self) -> list[int]:
        """Rows that will be in breach one grace from now, ascending."""
        return self._met(b"%c" % FORESEEN)

    @cached_property
    def unknown(self) -> list[int]:
        """Rows of which it cannot be told whether they are in breach, or in scope."""
        return self._met(b"[%c-%c]" % (UNKNOWN, WHEN_UNKNOWN))

    @cached_property
    def in_scope(self) -> int:
        """How many rows it speaks of for certain, a group with its members as one."""
        counted = (OK, BREACH, UNKNOWN, WHEN_UNKNOWN, WHEN_FALSE, FORESEEN)
        return sum(self.codes.count(code) for code in counted) - sum(
            self.codes[row] in counted for row in self.folded.spoken_for
        )

    def _met(self, codes: bytes) -> list[int]:
        """Rows with one of these codes, but for those that their group speaks for."""
        found = (match.start() for match in re.finditer(codes, self.codes, re.DOTALL))
        return [row for row in found if row not in self.folded.spoken_for]

    def verdict(self, row: int) -> Verdict:
        return VERDICTS.get(self.codes[row], Verdict.OUT_OF_SCOPE)


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """All policies over all rows. Rows are counted as in the facts."""

    facts: Facts
    outcomes: Mapping[str, Outcome]
    """By the policy's name."""

    @property
    def faults(self) -> dict[str, str]:
        """Policies that could not be judged, and why."""
        return {name: outcome.fault for name, outcome in self.outcomes.items() if outcome.fault is not None}

    def decision(self, policy: str, row: int) -> Decision:
        """One pair in full: the verdict, its reason and the numbers it rests on."""
        outcome = self.outcomes[policy]
        evidence = _evidence(self.facts, outcome, row)
        reason = _reason(outcome, outcome.codes[row], evidence)
        if row in outcome.folded.decided_by:
            reason = self._of_group(outcome, row)
        return Decision(
            policy=policy,
            resource_id=self.facts.base["resource_id"][row],
            verdict=outcome.verdict(row),
            reason=reason,
            evidence=evidence,
        )

    def _of_group(self, outcome: Outcome, row: int) -> str:
        """`All 4 members are in breach, so the group is. trainer-1: …`"""
        member = outcome.folded.decided_by[row]
        if member is None:
            unseen = sum(one is None for one in self.facts.members[row])
            if not unseen:
                return f"None of its members {whom(outcome.policy)}."
            return f"{unseen} of its {len(self.facts.members[row])} members {were(unseen)} not seen as a GPU machine."
        opening = {
            Verdict.BREACH: f"Every member that {whom(outcome.policy)} is in breach, and so is the group.",
            Verdict.FORESEEN: f"Every member that {whom(outcome.policy)} will be in breach, and so will the group.",
            Verdict.UNKNOWN: "A group is met as a whole, and of one member it is not known.",
        }.get(outcome.verdict(row), "A group is met as a whole, and one member spares it.")
        projects, names = self.facts.base["project"], self.facts.base["name"]
        if projects[member] != projects[row]:
            return f"{opening} It is another project's."
        return f"{opening} {names[member]}: {self.decision(outcome.policy.name, member).reason}"


def evaluate(facts: Facts, policies: Sequence[BasePolicy]) -> Judgement:
    """Judges every policy over every row. A policy that cannot be judged is a fault of its own and sinks no other."""
    if len({policy.name for policy in policies}) < len(policies):
        raise ValueError("two policies have the same name")
    table = _Table(facts)
    compiled: dict[str, CompiledPolicy] = {}
    queries: dict[str, exp.Expr] = {}
    faults: dict[str, str] = {}
    for policy in policies:
        try:
            compiled[policy.name] = compile_policy(policy)
            queries[policy.name] = table.expression(compiled[policy.name])
        except (ConditionError, LookupError) as error:
            faults[policy.name] = str(error)
    codes = _codes(table, queries, faults) if len(facts) else {}
    nothing_known = bytes([WHERE_UNKNOWN]) * len(facts)
    return Judgement(
        facts=facts,
        outcomes={
            policy.name: Outcome(
                policy=policy,
                compiled=compiled.get(policy.name),
                folded=fold(codes.get(policy.name, nothing_known), facts, policy),
                fault=faults.get(policy.name),
            )
            for policy in policies
        },
    )


def _codes(table: _Table, queries: Mapping[str, exp.Expr], faults: dict[str, str]) -> dict[str, bytes]:
    """All policies in one query; only if that fails each alone, to find the one at fault."""
    if not queries:
        return {}
    with _judge() as connection:
        table.load(connection)
        try:
            return dict(zip(queries, _bytes(connection, list(queries.values())), strict=True))
        except duckdb.Error:
            codes = {}
            for name, query in queries.items():
                try:
                    (codes[name],) = _bytes(connection, [query])
                except duckdb.Error as error:
                    faults[name] = str(error).splitlines()[0]
            return codes


def _evidence(facts: Facts, outcome: Outcome, row: int) -> dict[str, Any]:
    if outcome.compiled is None:
        return {}
    computed = {
        **facts.activity.get(profile_of(outcome.policy).key, {}),
        **facts.own.get(outcome.policy.name, {}),
    }
    tags = {f"tags[{quoted(key)}]": value for key, value in facts.tags[row].items()}
    evidence = {}
    for name in outcome.compiled.facts:
        column = computed.get(name, facts.base.get(name))
        value = tags.get(name) if column is None else column[row]
        evidence[name] = None if isinstance(value, float) and not math.isfinite(value) else value
    return evidence


def _reason(outcome: Outcome, code: int, evidence: Evidence) -> str:
    compiled, policy = outcome.compiled, outcome.policy
    if outcome.fault is not None or compiled is None:
        return f"This policy could not be judged: {outcome.fault}."
    rule, where, when = compiled.rule, compiled.where, compiled.when
    if code == BREACH and when:
        return f"{rule.breach(policy, evidence)} {_told('And', when, 'holds', evidence)}"
    if code == WHEN_FALSE and when:
        return f"{rule.breach(policy, evidence)} {_told('But', when, 'does not hold', evidence)}"
    if code == WHEN_UNKNOWN and when:
        return f"{rule.breach(policy, evidence)} {_told('But', when, 'is unknown', evidence)}"
    if code == WHERE_UNKNOWN and where:
        return _told("Whether it is in scope is not known:", where, "is unknown", evidence)
    if code == OUT + len(compiled.restrictions) and where:
        return _told("Out of scope:", where, "does not hold", evidence)
    if code >= OUT:
        return compiled.restrictions[code - OUT].words(evidence)
    sentences = {BREACH: rule.breach, OK: rule.ok, UNKNOWN: rule.unknown, FORESEEN: rule.ahead or rule.breach}
    sentence: Callable[[Any, Evidence], str] = sentences[code]
    return sentence(policy, evidence)


def _told(opening: str, condition: Condition, outcome: str, evidence: Evidence) -> str:
    """`But max_power_watts < 90 does not hold: max_power_watts is 240.` Silent GPUs are named where there are any."""
    names = [*sorted(condition.columns), *(f"tags[{quoted(key)}]" for key in sorted(condition.tags))]
    if condition.needs_all_gpus and evidence[SILENT]:
        names.append(SILENT)
    seen = ", ".join(f"{name} is {_shown(evidence[name])}" for name in names)
    return f"{opening} `{condition.text}` {outcome}: {seen}."


def _shown(value: Any) -> str:
    if value is None:
        return "not known"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
