"""Scope: whom a policy speaks of, as restrictions that must all hold. A person's `where:` is a condition of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlglot import exp

from policies.conditions import quoted, tag
from policies.policy import Scope
from policies.rules.rule import Evidence


@dataclass(frozen=True, kw_only=True)
class Restriction:
    """One line of a scope."""

    expression: exp.Expr
    """True where it holds. False and NULL are both outside: what has no project is in no project's scope."""
    fact: str
    """What it looks at, as evidence names it."""
    allowed: tuple[str, ...]

    def words(self, evidence: Evidence) -> str:
        value = evidence[self.fact]
        found = "is not known" if value is None else f"is {value}"
        return f"Out of scope: {self.fact} {found}, and the policy speaks of {' or '.join(self.allowed)}."


def restrictions(scope: Scope) -> Iterator[Restriction]:
    for fact, names in (
        ("project", scope.projects),
        ("source", scope.sources),
        ("provider", scope.providers),
        ("account", scope.accounts),
        ("kind", scope.kinds),
    ):
        if names:
            listed: exp.Expr = exp.In(this=exp.column(fact), expressions=[exp.Literal.string(name) for name in names])
            if fact == "kind" and "node_group" in names:  # a group is judged by its members, whatever their kind
                listed = exp.paren(exp.or_(listed, exp.column("member_of").is_(exp.null()).not_()))
            yield Restriction(expression=listed, fact=fact, allowed=names)
    for fact, patterns in (("region", scope.regions), ("sku", scope.skus)):
        if patterns:
            globs = [exp.Glob(this=exp.column(fact), expression=exp.Literal.string(pattern)) for pattern in patterns]
            yield Restriction(expression=exp.or_(*globs), fact=fact, allowed=patterns)
    for key, value in scope.tags.items():
        equal = exp.EQ(this=tag(key), expression=exp.Literal.string(value))
        yield Restriction(expression=equal, fact=f"tags[{quoted(key)}]", allowed=(value,))
