"""The gate: turns what a person wrote after `where:` or `when:` into a checked expression over the facts.

The text is SQL's boolean language, and only the part of it read here: every node of the parsed text is understood and
built anew, so nothing reaches the judge that this module does not know. How it is run is the judge's business.

NULL, in one rule: **where any fact the text names is not known, the whole condition is unknown**, whatever the rest
says (SQL's own `TRUE OR NULL` would be true). A missing tag is a fact not known. Two ways to speak of the missing:

- `owner IS NULL`, `owner IS NOT NULL`: asks, and is itself always known;
- `coalesce(owner, 'nobody')`: says what to take instead.

Neither may be done to a fact that rests on telemetry in a policy that acts. There, a count or maximum over GPUs is not
known while one of them is silent, and how much is silent is no reason to act and may not be named at all.

A division by zero and a number beyond all bounds are not known either. A fact asked for with IS NULL and also used bare
counts as used bare.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, TokenError
from sqlglot.tokenizer_core import Token, TokenType

from policies.facts import BY_NAME, Column, Type

MAX_BYTES = 4096
"""A condition is a sentence, not a program."""
MAX_NESTING = 20
"""Brackets, CASEs and functions within one another; the parser's own stack ends at about 35."""
MAX_INTEGER = 2**63 - 1
SILENT = "unknown_gpus"
"""Must be zero before a policy acts on a count or maximum over GPUs."""

FUNCTIONS = ("lower", "upper", "abs", "coalesce")
TYPE_WORDS: Mapping[Type, str] = {
    Type.TEXT: "text",
    Type.INTEGER: "a whole number",
    Type.NUMBER: "a number",
    Type.BOOLEAN: "true or false",
}


class ConditionError(ValueError):
    """The text is no condition; the sentence says where, why, and the nearest right thing."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A checked condition: true, false, or NULL for unknown."""

    text: str
    """As it was written."""
    expression: exp.Expr
    """Over columns named as the facts, and `tags['key']`."""
    columns: frozenset[str]
    """Facts it names."""
    tags: frozenset[str]
    """Keys it reads as `tags['key']`."""
    needs_all_gpus: bool = False
    """It is unknown while a GPU is silent."""


@lru_cache(maxsize=4096)
def compile_condition(text: str, *, acting: bool) -> Condition:
    """Reads a person's condition. `acting`: the policy would change something, so telemetry's NULL stays NULL."""
    try:
        tree = _parse(text)
        reader = _Reader(text, acting=acting)
        term = reader.read(tree)
    except RecursionError:
        raise ConditionError("the condition is nested too deeply; write it flatter, with AND and OR") from None
    if term.type is not Type.BOOLEAN:
        raise ConditionError(f"{term.words} is {TYPE_WORDS[term.type]}, where a condition says true or false")
    if term.constant:
        raise ConditionError("the condition names no fact, so it says the same of every resource")
    return Condition(
        text=text,
        expression=_null_unless_known(term.node, [*reader.needs.values(), *reader.bounds]),
        columns=frozenset(reader.columns),
        tags=frozenset(reader.tags),
        needs_all_gpus=SILENT in reader.needs,
    )


def _null_unless_known(node: exp.Expr, missing: Sequence[exp.Expr]) -> exp.Expr:
    """NULL where any of `missing` is true, else the condition itself."""
    if not missing:
        return node
    return exp.Case(ifs=[exp.If(this=exp.or_(*missing, copy=False), true=exp.Null())], default=node)


# --- text → tree -----------------------------------------------------------------------------------------------------


def _parse(text: str) -> exp.Expr:
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise ConditionError(f"the condition is longer than {MAX_BYTES} bytes")
    control = re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]", text)
    if control:
        raise ConditionError(f"the character {control[0]!r} at {_place(text, control.start())} cannot be read")
    try:
        tokens = sqlglot.tokenize(text, dialect="duckdb")
    except TokenError:
        raise ConditionError("a quotation mark or comment is opened and never closed") from None
    _check_tokens(text, tokens)
    try:
        tree = sqlglot.parse_one(text, into=exp.Condition, dialect="duckdb")
    except ParseError as error:
        raise ConditionError(_parse_sentence(error)) from None
    except RecursionError:
        raise
    except Exception:  # noqa: BLE001  the parser knows a thousand functions and trips over odd arguments of some
        raise ConditionError("the condition cannot be read") from None
    for node in tree.walk():
        if any(needed and node.args.get(part) is None for part, needed in node.arg_types.items()):
            raise ConditionError("the condition cannot be read: something is missing in it")
    return tree


_NESTING: Mapping[TokenType, int] = {
    TokenType.L_PAREN: 1,
    TokenType.R_PAREN: -1,
    TokenType.L_BRACKET: 1,
    TokenType.R_BRACKET: -1,
    TokenType.L_BRACE: 1,
    TokenType.R_BRACE: -1,
    TokenType.CASE: 1,
    TokenType.END: -1,
}


def _check_tokens(text: str, tokens: Sequence[Token]) -> None:
    """What is better seen before parsing: emptiness, comments, several statements, nesting."""
    if not tokens:
        raise ConditionError("the condition is empty; leave the field out instead")
    depth = 0
    for token in tokens:
        if token.comments:
            raise ConditionError("a condition carries no comments; use the policy's description")
        if token.token_type is TokenType.SEMICOLON:
            raise ConditionError(f"`;` at {_place(text, token.start)}: a condition is one expression, not statements")
        depth += _NESTING.get(token.token_type, 0)
        if depth > MAX_NESTING:
            raise ConditionError(f"nested more than {MAX_NESTING} deep at {_place(text, token.start)}")


def _parse_sentence(error: ParseError) -> str:
    if not error.errors:
        return "the condition cannot be read"
    found = error.errors[0]
    highlight = str(found.get("highlight") or "")
    column = max(1, int(found.get("col") or 1) - len(highlight) + 1)
    return f"the condition cannot be read at {found.get('line', 1)}:{column}, near `{highlight}`"


def _place(text: str, offset: int) -> str:
    """`line:column`, both from 1."""
    before = text[:offset]
    return f"{before.count(chr(10)) + 1}:{offset - (before.rfind(chr(10)) + 1) + 1}"


# --- tree → checked expression ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Term:
    """One understood part of the text, built anew."""

    type: Type
    node: exp.Expr
    words: str
    """How a message speaks of it: `gpu_count`, text 'x'."""
    constant: bool = False
    """Names no fact."""
    computed: bool = False
    """Comes from arithmetic, and may be beyond all bounds."""

    @property
    def numeric(self) -> bool:
        return self.type in (Type.INTEGER, Type.NUMBER)

    @property
    def family(self) -> str:
        return "number" if self.numeric else self.type


class _Reader:
    """Reads one tree from top to bottom. What is not in `_READERS` is refused."""

    def __init__(self, text: str, *, acting: bool) -> None:
        self.text = text
        self.acting = acting
        self.columns: set[str] = set()
        self.tags: set[str] = set()
        self.needs: dict[str, exp.Expr] = {}
        """What must be known, as written → the expression that is true where it is not."""
        self.bounds: list[exp.Expr] = []
        """The same for what is computed."""
        self._answering: str | None = None
        """The construct being read that gives NULL a value: IS NULL, coalesce or CASE."""
        self._depth = 0

    def read(self, node: exp.Expr) -> _Term:
        reader = _READERS.get(type(node))
        if reader is None:
            raise self._not_in_the_language(node)
        self._depth += 1
        if self._depth > 2 * MAX_NESTING:
            raise ConditionError(f"nested more than {2 * MAX_NESTING} deep at {self._at(node)}")
        term = reader(self, node)
        self._depth -= 1
        return term

    # facts

    def fact(self, node: exp.Expr) -> _Term:
        """A column or a tag that must be known, unless the construct around it speaks of the missing."""
        term = self._tag(node) if isinstance(node, exp.Bracket) else self._column(node)
        if self._answering not in ("IS NULL", "coalesce"):
            self.needs[term.words.strip("`")] = _is_null(term.node)
        return term

    def _column(self, node: exp.Expr) -> _Term:
        name = node.name
        if name == "tags":
            raise ConditionError(f"`tags` at {self._at(node)} is read by its key, like tags['team']")
        if node.args.get("table"):
            hint = f"; did you mean tags[{quoted(name)}]?" if node.text("table") == "tags" else ""
            raise ConditionError(f"{self._source(node)} at {self._at(node)} is no fact{hint}")
        fact = BY_NAME.get(name)
        if fact is None or not isinstance(node.this, exp.Identifier):
            raise ConditionError(f"`{name}` at {self._at(node)} is no fact{self._nearest(node)}")
        self._only(node, "this")
        self._stays_null(fact, node)
        self.columns.add(name)
        if fact.over_gpus and self.acting:
            self.needs[SILENT] = exp.func("coalesce", exp.column(SILENT).neq(0), exp.true())
        return _Term(type=fact.type, node=exp.column(name), words=f"`{name}`")

    def _nearest(self, node: exp.Expr) -> str:
        if node.this.args.get("quoted"):
            return f"; text stands in single quotes: {quoted(node.name)}"
        close = get_close_matches(node.name.lower(), BY_NAME, n=1, cutoff=0.6)
        return f"; did you mean `{close[0]}`?" if close else "; the facts are listed in docs/facts.md"

    def _stays_null(self, fact: Column, node: exp.Expr) -> None:
        if fact.of_silence and self.acting:
            raise ConditionError(
                f"`{fact.name}` at {self._at(node)} tells how much is not known: in a policy that acts, silence is "
                "never a reason; ask for what the GPUs do, or for idle.min_coverage"
            )
        if fact.telemetry and self.acting and self._answering:
            raise ConditionError(
                f"`{fact.name}` at {self._at(node)} rests on telemetry: in a policy that acts, not knowing it means "
                f"unknown, and {self._answering} would give that a value"
            )

    def _tag(self, node: exp.Expr) -> _Term:
        self._only(node, "this", "expressions")
        holder, keys = node.this, node.expressions
        is_tags = isinstance(holder, exp.Column) and holder.name == "tags" and not holder.args.get("table")
        if not (is_tags and len(keys) == 1 and type(keys[0]) is exp.Literal and keys[0].is_string):
            raise ConditionError(
                f"brackets at {self._at(node)}: only tags are read by key, with one text: tags['team']"
            )
        key = keys[0].name
        self.tags.add(key)
        return _Term(type=Type.TEXT, node=tag(key), words=f"`tags[{quoted(key)}]`")

    # constants

    def literal(self, node: exp.Expr) -> _Term:
        written = node.name
        if node.args["is_string"]:
            return _Term(type=Type.TEXT, node=text_literal(written), words=f"text {quoted(written)}", constant=True)
        if re.fullmatch(r"\d+", written):
            if int(written) > MAX_INTEGER:
                raise ConditionError(f"the number at {self._at(node)} is too large")
            return _Term(
                type=Type.INTEGER, node=exp.Literal.number(int(written)), words=f"the number {written}", constant=True
            )
        if not re.fullmatch(r"\d*\.?\d*([eE][+-]?\d+)?", written) or not math.isfinite(float(written)):
            raise ConditionError(f"{written} at {self._at(node)} is no number a condition can use")
        return _Term(
            type=Type.NUMBER, node=number_literal(float(written)), words=f"the number {written}", constant=True
        )

    def boolean(self, node: exp.Expr) -> _Term:
        value = bool(node.args["this"])
        return _Term(type=Type.BOOLEAN, node=exp.Boolean(this=value), words=str(value).lower(), constant=True)

    def null(self, node: exp.Expr) -> _Term:
        raise ConditionError("NULL stands alone; ask with IS NULL or IS NOT NULL, which are answers, not comparisons")

    # and, or, not

    def connective(self, node: exp.Expr) -> _Term:
        self._only(node, "this", "expression")
        operands = []
        rest = node
        while type(rest) is type(node):  # a chain of a hundred ORs is long, not deep
            operands.append(rest.args["expression"])
            rest = rest.this
        terms = [self._boolean(operand) for operand in reversed([*operands, rest])]
        joined = terms[0].node
        for term in terms[1:]:
            joined = type(node)(this=joined, expression=term.node)
        return self._says(joined, *terms)

    def negation(self, node: exp.Expr) -> _Term:
        self._only(node, "this")
        term = self._boolean(node.this)
        return self._says(exp.Not(this=exp.Paren(this=term.node)), term)

    def paren(self, node: exp.Expr) -> _Term:
        self._only(node, "this")
        return self.read(node.this)

    # comparisons

    def comparison(self, node: exp.Expr) -> _Term:
        self._only(node, "this", "expression")
        left, right = self.read(node.this), self.read(node.args["expression"])
        self._comparable(node, left, right)
        if left.type is Type.BOOLEAN and type(node) not in (exp.EQ, exp.NEQ):
            raise ConditionError(f"{left.words} at {self._at(node)} is true or false, which has no order")
        return self._says(type(node)(this=left.node, expression=right.node), left, right)

    def between(self, node: exp.Expr) -> _Term:
        self._only(node, "this", "low", "high")
        term, low, high = (self.read(node.args[part]) for part in ("this", "low", "high"))
        self._comparable(node, term, low)
        self._comparable(node, term, high)
        return self._says(exp.Between(this=term.node, low=low.node, high=high.node), term, low, high)

    def one_of(self, node: exp.Expr) -> _Term:
        self._only(node, "this", "expressions")
        term = self.read(node.this)
        choices = [self.read(choice) for choice in node.expressions]
        if not choices:
            raise ConditionError(f"the list of IN at {self._at(node)} is empty")
        for choice in choices:
            if not choice.constant:
                raise ConditionError(f"{choice.words} at {self._at(node)}: IN takes a list of plain values")
            self._comparable(node, term, choice)
        return self._says(exp.In(this=term.node, expressions=[choice.node for choice in choices]), term, *choices)

    def like(self, node: exp.Expr) -> _Term:
        self._only(node, "this", "expression", "negate")
        term, pattern = self.read(node.this), self.read(node.args["expression"])
        self._expect(node, term, Type.TEXT)
        if type(pattern.node) is not exp.Literal or not pattern.node.is_string:
            raise ConditionError(f"{pattern.words} at {self._at(node)}: LIKE takes its pattern as plain text")
        self._comparable(node, term, pattern)
        said: exp.Expr = type(node)(this=term.node, expression=pattern.node)
        return self._says(exp.Not(this=exp.Paren(this=said)) if node.args.get("negate") else said, term)

    def is_null(self, node: exp.Expr) -> _Term:
        self._only(node, "this", "expression")
        if type(node.args["expression"]) is not exp.Null:
            raise ConditionError(
                f"IS at {self._at(node)}: there are IS NULL and IS NOT NULL; compare with = for the rest"
            )
        asked = node.this.unnest()
        if type(asked) not in (exp.Column, exp.Bracket):
            raise ConditionError(f"IS NULL at {self._at(node)} asks about one fact or tag, nothing computed")
        term = self._answer("IS NULL", asked)
        return self._says(_is_null(term.node), term)

    # values

    def arithmetic(self, node: exp.Expr) -> _Term:
        self._only(node, "this", "expression")
        left, right = (self._number(node.args[part]) for part in ("this", "expression"))
        divisor = type(node) in (exp.Div, exp.Mod)
        second = exp.func("nullif", _floating(right.node), number_literal(0.0)) if divisor else _floating(right.node)
        made: exp.Expr = type(node)(this=_floating(left.node), expression=second)
        return self._computes(node, made, left, right)

    def negative(self, node: exp.Expr) -> _Term:
        self._only(node, "this")
        term = self._number(node.this)
        if term.constant and not term.computed:
            negated = exp.Neg(this=exp.Paren(this=term.node))
            return _Term(type=term.type, node=negated, words=f"the number {node.sql('duckdb')}", constant=True)
        return self._computes(node, exp.Neg(this=exp.Paren(this=_floating(term.node))), term)

    def absolute(self, node: exp.Expr) -> _Term:
        self._only(node, "this")
        term = self._number(node.this)
        return self._computes(node, exp.Abs(this=_floating(term.node)), term)

    def letter_case(self, node: exp.Expr) -> _Term:
        self._only(node, "this")
        term = self.read(node.this)
        self._expect(node, term, Type.TEXT)
        return _Term(type=Type.TEXT, node=type(node)(this=term.node), words=self._source(node), constant=term.constant)

    def coalesce(self, node: exp.Expr) -> _Term:
        self._only(node, "this", "expressions")
        parts = [node.this, *node.expressions]
        terms = [self._answer("coalesce", part) for part in parts]
        plain = [type(part) in (exp.Column, exp.Bracket) for part in parts]
        if not all(plain[:-1]) or not (plain[-1] or (terms[-1].constant and not terms[-1].computed)):
            raise ConditionError(f"coalesce at {self._at(node)} takes facts or tags, and a plain value at its end")
        for term in terms[1:]:
            self._comparable(node, terms[0], term)
        made = exp.Coalesce(this=terms[0].node, expressions=[term.node for term in terms[1:]])
        if not terms[-1].constant:
            self.bounds.append(_is_null(made.copy()))
        type_ = Type.NUMBER if any(term.type is Type.NUMBER for term in terms) else terms[0].type
        return _Term(type=type_, node=made, words=self._source(node))

    def case(self, node: exp.Expr) -> _Term:
        self._only(node, "ifs", "default")
        if node.args.get("default") is None:
            raise ConditionError(f"CASE at {self._at(node)} needs an ELSE")
        outer, self._answering = self._answering, "CASE"
        whens = []
        for branch in node.args["ifs"]:
            self._only(branch, "this", "true")
            whens.append((self._boolean(branch.this), self.read(branch.args["true"])))
        otherwise = self.read(node.args["default"])
        self._answering = outer
        values = [*(value for _, value in whens), otherwise]
        for value in values[1:]:
            self._comparable(node, values[0], value, constants=True)
        made = exp.Case(ifs=[exp.If(this=when.node, true=value.node) for when, value in whens], default=otherwise.node)
        return _Term(
            type=Type.NUMBER if any(value.type is Type.NUMBER for value in values) else values[0].type,
            node=made,
            words=self._source(node),
            computed=any(value.computed for value in values),
        )

    # what they share

    def _answer(self, construct: str, node: exp.Expr) -> _Term:
        """Reads a part whose NULL the construct around it gives a value."""
        outer, self._answering = self._answering, construct
        term = self.read(node)
        self._answering = outer
        return term

    def _boolean(self, node: exp.Expr) -> _Term:
        term = self.read(node)
        if term.type is not Type.BOOLEAN:
            raise ConditionError(
                f"{term.words} at {self._at(node)} is {TYPE_WORDS[term.type]}, where true or false is needed"
            )
        return term

    def _number(self, node: exp.Expr) -> _Term:
        term = self.read(node)
        if not term.numeric:
            raise ConditionError(
                f"{term.words} at {self._at(node)} is {TYPE_WORDS[term.type]}, and cannot be calculated with"
            )
        return term

    def _expect(self, node: exp.Expr, term: _Term, type_: Type) -> None:
        if term.type is not type_:
            raise ConditionError(
                f"{term.words} at {self._at(node)} is {TYPE_WORDS[term.type]}, where {TYPE_WORDS[type_]} is needed"
            )

    def _comparable(self, node: exp.Expr, left: _Term, right: _Term, *, constants: bool = False) -> None:
        if left.family != right.family:
            if left.constant and not right.constant:
                left, right = right, left
            other = right.words if right.constant else f"{right.words}, which is {TYPE_WORDS[right.type]}"
            raise ConditionError(f"{left.words} at {self._at(node)} is {TYPE_WORDS[left.type]}, compared with {other}")
        if left.constant and right.constant and not constants:
            raise ConditionError(
                f"{left.words} and {right.words} at {self._at(node)} are both plain values; "
                "facts are written without quotes"
            )

    def _says(self, node: exp.Expr, *terms: _Term) -> _Term:
        """A true-or-false part made of others; what they computed must be within bounds."""
        for term in terms:
            if term.computed:
                self.bounds.append(
                    exp.Not(this=exp.func("coalesce", exp.func("isfinite", term.node.copy()), exp.false()))
                )
        constant = all(term.constant for term in terms)
        return _Term(type=Type.BOOLEAN, node=exp.Paren(this=node), words="this part", constant=constant)

    def _computes(self, node: exp.Expr, made: exp.Expr, *terms: _Term) -> _Term:
        return _Term(
            type=Type.NUMBER,
            node=exp.Paren(this=made),
            words=self._source(node),
            constant=all(term.constant for term in terms),
            computed=True,
        )

    def _only(self, node: exp.Expr, *names: str) -> None:
        """Refuses whatever else hangs on a node that is itself allowed: an ESCAPE, a SYMMETRIC, a sub-query."""
        for name, value in node.args.items():
            if name not in names and value:
                raise ConditionError(f"{self._source(node)} at {self._at(node)}: `{name}` is not part of the language")

    def _not_in_the_language(self, node: exp.Expr) -> ConditionError:
        place = self._at(node)
        if isinstance(node, exp.Query | exp.Subquery | exp.Exists):
            return ConditionError(f"a sub-query at {place}: a condition sees the facts of one resource, nothing else")
        if isinstance(node, exp.Func) and not isinstance(node, exp.Cast):
            name = node.name if isinstance(node, exp.Anonymous) else node.sql_name()
            return ConditionError(
                f"`{name.lower()}` at {place} is no function of conditions; there are {', '.join(FUNCTIONS)}"
            )
        what = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(node).__name__).lower()
        return ConditionError(f"{what} at {place} is not part of the language of conditions")

    def _source(self, node: exp.Expr) -> str:
        return f"`{node.sql('duckdb')}`"

    def _at(self, node: exp.Expr) -> str:
        return _place(self.text, min((part.meta["start"] for part in node.walk() if "start" in part.meta), default=0))


_READERS: Mapping[type[exp.Expr], Callable[[_Reader, exp.Expr], _Term]] = {
    exp.Column: _Reader.fact,
    exp.Bracket: _Reader.fact,
    exp.Literal: _Reader.literal,
    exp.Boolean: _Reader.boolean,
    exp.Null: _Reader.null,
    exp.And: _Reader.connective,
    exp.Or: _Reader.connective,
    exp.Not: _Reader.negation,
    exp.Paren: _Reader.paren,
    exp.EQ: _Reader.comparison,
    exp.NEQ: _Reader.comparison,
    exp.LT: _Reader.comparison,
    exp.LTE: _Reader.comparison,
    exp.GT: _Reader.comparison,
    exp.GTE: _Reader.comparison,
    exp.Between: _Reader.between,
    exp.In: _Reader.one_of,
    exp.Like: _Reader.like,
    exp.ILike: _Reader.like,
    exp.Is: _Reader.is_null,
    exp.Add: _Reader.arithmetic,
    exp.Sub: _Reader.arithmetic,
    exp.Mul: _Reader.arithmetic,
    exp.Div: _Reader.arithmetic,
    exp.Mod: _Reader.arithmetic,
    exp.Neg: _Reader.negative,
    exp.Abs: _Reader.absolute,
    exp.Lower: _Reader.letter_case,
    exp.Upper: _Reader.letter_case,
    exp.Coalesce: _Reader.coalesce,
    exp.Case: _Reader.case,
}
"""The whole language. A node that is not here is refused."""


# --- building blocks, also for the built-in conditions ---------------------------------------------------------------


def tag(key: str) -> exp.Expr:
    """`tags['key']`; NULL where the resource has no such tag."""
    return exp.Bracket(this=exp.column("tags"), expressions=[text_literal(key)])


def text_literal(value: str) -> exp.Expr:
    return exp.Literal.string(value)


def number_literal(value: float) -> exp.Expr:
    """A DOUBLE, as the facts are; a bare 0.1 would be a decimal of its own width."""
    return _floating(exp.Literal.number(repr(value)))


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _floating(node: exp.Expr) -> exp.Expr:
    return exp.cast(node, "double", dialect="duckdb")


def _is_null(node: exp.Expr) -> exp.Expr:
    return exp.Is(this=node.copy(), expression=exp.Null())
